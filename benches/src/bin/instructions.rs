//! Instructions per forwarded packet, by `valgrind --tool=callgrind`: the figure that no other work
//! on the machine disturbs. Runs itself under valgrind for each case, and prints a table; `--run CASE`
//! is what runs there.

// A program of the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use sluice_benches::table::markdown;
use sluice_engine::rig::{Rig, RigConfig};
use sluice_rtp::codec::MediaKind;

/// What runs when nothing is named.
const USUAL: [&str; 4] = ["video-1x50", "audio-10x50", "video-8x8", "audio-1x1"];
/// Rounds before the instructions are counted: histories have grown to their size.
const WARM_UP: usize = 600;
/// Time in which every receiver reports, so that its packets no longer name their section.
const REPORTED: Duration = Duration::from_secs(3);
/// Rounds that are counted.
const ROUNDS: usize = 200;

#[derive(Debug, Parser)]
#[command(about = "Instructions per forwarded packet, by callgrind")]
struct Arguments {
    /// Cases: `video-PxR` or `audio-PxR`, P publishers and R receivers of all of them.
    cases: Vec<String>,
    /// Run one case without counting; what valgrind is given.
    #[arg(long)]
    run: Option<String>,
    /// Keep callgrind's output for `callgrind_annotate`.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    kind: MediaKind,
    publishers: usize,
    receivers: usize,
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let usage = "a case is video-PxR or audio-PxR";
        let (kind, size) = name.split_once('-').context(usage)?;
        let (publishers, receivers) = size.split_once('x').context(usage)?;
        let kind = match kind {
            "video" => MediaKind::Video,
            "audio" => MediaKind::Audio,
            _ => bail!(usage),
        };
        Ok(Self {
            kind,
            publishers: publishers.parse().context(usage)?,
            receivers: receivers.parse().context(usage)?,
        })
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(case) = &arguments.run {
        return run(case.parse()?);
    }
    let cases = match arguments.cases.as_slice() {
        [] => USUAL.map(str::to_owned).to_vec(),
        cases => cases.to_vec(),
    };
    let mut rows = Vec::new();
    for name in cases {
        let case: Case = name.parse()?;
        let (instructions, calls) = count(&name, arguments.keep)?;
        let packets = (ROUNDS * case.publishers * case.receivers) as f64;
        rows.push(vec![
            name,
            format!("{:.0}", instructions as f64 / packets),
            format!("{:.2}", calls / packets),
        ]);
    }
    print!("{}", markdown(&["case", "instructions/packet", "system calls/packet"], &rows));
    Ok(())
}

fn run(case: Case) -> anyhow::Result<()> {
    let Case { kind, publishers, receivers } = case;
    let egress_hold = Duration::from_millis(2);
    let mut rig = Rig::new(RigConfig { publishers, receivers, idle: 0, kind, egress_hold });
    // Video comes in bursts of a frame's packets, audio every 20 ms.
    for pause in [REPORTED, Duration::ZERO] {
        for _ in 0..WARM_UP {
            rig.round(interval(kind));
        }
        rig.pass(pause);
    }
    let (_, before) = rig.sent();
    counted_rounds(&mut rig, kind);
    let (_, after) = rig.sent();
    println!("calls {}", after - before);
    Ok(())
}

/// Callgrind counts inside this function only.
#[inline(never)]
fn counted_rounds(rig: &mut Rig, kind: MediaKind) {
    for _ in 0..ROUNDS {
        rig.round(interval(kind));
    }
}

/// Time between packets of one publisher: four packets share a hold of 2 ms, or one has it alone.
fn interval(kind: MediaKind) -> Duration {
    match kind {
        MediaKind::Video => Duration::from_micros(500),
        MediaKind::Audio => Duration::from_millis(20),
    }
}

/// Instructions and system calls of one case.
fn count(name: &str, keep: bool) -> anyhow::Result<(u64, f64)> {
    let out = std::env::temp_dir().join(format!("sluice-{name}-{}.callgrind", std::process::id()));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--toggle-collect=*counted_rounds*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--run", name])
        .output()
        .context("valgrind could not be started: is it installed?")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed under valgrind:\n{log}");
    if keep {
        eprintln!("callgrind_annotate {}", out.display());
    } else {
        // Nothing depends on it.
        let _ = std::fs::remove_file(&out);
    }
    let collected = log.lines().find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.context("valgrind reported no count")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let calls = text.trim().strip_prefix("calls ").context("the case reported no calls")?;
    Ok((collected.trim().parse()?, calls.parse()?))
}
