//! Starts a server, drives it with the load tester, and prints what each scenario cost.

// A program of the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use sluice_benches::arguments::LoadArguments;
use sluice_benches::floor::{self, FloorCase};
use sluice_benches::scenario::{Cost, Scenario, USUAL, measure};
use sluice_benches::table::{markdown, median};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Cost of a server under load: CPU per packet and join, memory, latency.
#[derive(Debug, Parser)]
struct Arguments {
    /// Scenarios: video-PxS, audio-PxS, meeting-PxS (publishers x subscribers), rooms-RxN, grid-N, idle-N
    #[arg(default_values = USUAL)]
    scenarios: Vec<Scenario>,
    #[command(flatten)]
    load: LoadArguments,
    /// Runs of each scenario; the medians are shown
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Print the load tester's table of each run
    #[arg(long)]
    verbose: bool,
    /// Write all runs as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let spec = arguments.load.spec()?;
    let settings = arguments.load.settings();
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for scenario in &arguments.scenarios {
        let mut costs = Vec::new();
        for run in 1..=arguments.runs.max(1) {
            eprintln!("{} run {run} of {}", scenario.name, arguments.runs.max(1));
            let cost = measure(scenario, &spec, &settings)?;
            if arguments.verbose {
                eprintln!("{}", cost.report.table());
            }
            costs.push(cost);
        }
        rows.push(row(&scenario.name, &costs));
        all.append(&mut costs);
    }
    println!("{}", markdown(&HEADER, &rows));
    print_floor()?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&all)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

const HEADER: [&str; 12] = [
    "scenario",
    "packets/s",
    "CPU us/packet",
    "server core %",
    "tester core %",
    "loss %",
    "latency p50 ms",
    "p99 ms",
    "CPU ms/join",
    "join p50 ms",
    "RSS KiB/participant",
    "failures",
];

fn row(name: &str, costs: &[Cost]) -> Vec<String> {
    let of = |f: fn(&Cost) -> f64| median(&costs.iter().map(f).collect::<Vec<_>>());
    let has_media = costs.iter().any(Cost::has_media);
    let media = |text: String| if has_media { text } else { "-".to_owned() };
    vec![
        name.to_owned(),
        media(format!("{:.0}", of(|cost| cost.packets_per_second))),
        media(format!("{:.2}", of(|cost| cost.cpu_us_per_packet))),
        format!("{:.1}", of(|cost| cost.server_core_percent)),
        format!("{:.1}", of(|cost| cost.tester_core_percent)),
        media(format!("{:.4}", of(|cost| cost.loss_percent))),
        media(format!("{:.2}", of(|cost| cost.latency_p50_ms))),
        media(format!("{:.2}", of(|cost| cost.latency_p99_ms))),
        format!("{:.2}", of(|cost| cost.cpu_ms_per_join)),
        format!("{:.0}", of(|cost| cost.join_p50_ms)),
        format!("{:.0}", of(|cost| cost.rss_kib_per_participant)),
        costs.iter().map(|cost| cost.failures).sum::<usize>().to_string(),
    ]
}

/// The floor at the same time: what the machine charges for copy, AES-GCM and send alone.
fn print_floor() -> anyhow::Result<()> {
    let mut parts = Vec::new();
    for (payload, batch) in [(1150, 1), (1150, 4), (1150, 8), (90, 1), (90, 8)] {
        let case = FloorCase { receivers: 200, batch, payload };
        let floor = floor::measure(case, Duration::from_secs(1))?;
        parts.push(format!("{payload} B x {batch}: {:.2} us", floor.total_ns / 1000.0));
    }
    println!("floor (copy, seal, send) per packet: {}", parts.join(", "));
    Ok(())
}
