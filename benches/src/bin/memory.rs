//! Memory of subscriptions, muted and not.

// A program of the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use sluice_benches::arguments::LoadArguments;
use sluice_benches::memory::{Memory, MemoryCase, measure};
use sluice_benches::table::{markdown, median};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Resident memory of a server per subscription.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    load: LoadArguments,
    /// Runs of each case; the medians are shown
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Write all runs as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Many subscriptions per participant, so that they outweigh what participants keep; no more packets
/// than two cores carry.
const CASES: [MemoryCase; 4] = [
    MemoryCase { publishers: 50, subscribers: 100, audio: true, video: false, flows: false },
    MemoryCase { publishers: 50, subscribers: 100, audio: false, video: true, flows: false },
    MemoryCase { publishers: 10, subscribers: 50, audio: true, video: false, flows: true },
    MemoryCase { publishers: 2, subscribers: 50, audio: false, video: true, flows: true },
];

const HEADER: [&str; 6] = [
    "case",
    "subscriptions",
    "KiB/participant",
    "bytes/muted subscription",
    "bytes/subscription",
    "packets/s",
];

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let spec = arguments.load.spec()?;
    let settings = arguments.load.settings();
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for case in CASES {
        let mut runs = Vec::new();
        for run in 1..=arguments.runs.max(1) {
            eprintln!("{} run {run} of {}", name(case), arguments.runs.max(1));
            runs.push(measure(case, &spec, &settings)?);
        }
        rows.push(row(case, &runs));
        all.append(&mut runs);
    }
    println!("{}", markdown(&HEADER, &rows));
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&all)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn name(case: MemoryCase) -> String {
    let kind = if case.video { "video" } else { "audio" };
    format!("{kind}-{}x{}", case.publishers, case.subscribers)
}

fn row(case: MemoryCase, runs: &[Memory]) -> Vec<String> {
    let of = |f: fn(&Memory) -> f64| median(&runs.iter().map(f).collect::<Vec<_>>());
    let flowing = |figure: f64| if case.flows { format!("{figure:.0}") } else { "-".to_owned() };
    vec![
        name(case),
        case.subscriptions().to_string(),
        format!("{:.0}", of(|memory| memory.per_participant) / 1024.0),
        format!("{:.0}", of(|memory| memory.per_muted_subscription)),
        flowing(of(|memory| memory.per_subscription.unwrap_or(f64::NAN))),
        flowing(of(|memory| memory.packets_per_second)),
    ]
}
