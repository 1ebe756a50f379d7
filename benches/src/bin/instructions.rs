//! Instructions per forwarded packet, by `valgrind --tool=callgrind`: the figure that no other work
//! on the machine disturbs. Runs itself under valgrind for each case, and prints a table; `--run CASE`
//! is what runs there.

// A program of the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;
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
/// Time before the instructions are counted: histories have grown to their size, the first estimates
/// are made and probed, and every receiver has reported, so that its packets no longer name their section.
const WARM_UP: Duration = Duration::from_secs(12);
/// Time that is counted.
const COUNTED: Duration = Duration::from_secs(3);
/// Packets of a video frame, as of 720p at 1.4 Mbit/s, and the time from one to the next.
const FRAME_PACKETS: usize = 5;
const FRAME_SPACING: Duration = Duration::from_micros(200);
/// Time between video frames and between audio packets.
const FRAME_INTERVAL: Duration = Duration::from_millis(33);
const AUDIO_INTERVAL: Duration = Duration::from_millis(20);

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
        name.parse::<Case>()?;
        let (instructions, calls, packets) = count(&name, arguments.keep)?;
        rows.push(vec![
            name,
            format!("{:.0}", instructions / packets),
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
    send(&mut rig, kind, WARM_UP);
    let (before, forwarded) = (rig.sent().1, rig.stats().forwarded);
    counted(&mut rig, kind);
    println!("calls {} packets {}", rig.sent().1 - before, rig.stats().forwarded - forwarded);
    Ok(())
}

/// Callgrind counts inside this function only.
#[inline(never)]
fn counted(rig: &mut Rig, kind: MediaKind) {
    send(rig, kind, COUNTED);
}

/// Everybody publishes for a while.
fn send(rig: &mut Rig, kind: MediaKind, time: Duration) {
    match kind {
        MediaKind::Video => {
            for _ in 0..time.as_millis() / FRAME_INTERVAL.as_millis() {
                (0..FRAME_PACKETS).for_each(|_| rig.round(FRAME_SPACING));
                rig.pass(FRAME_INTERVAL - FRAME_SPACING * FRAME_PACKETS as u32);
            }
        }
        MediaKind::Audio => {
            let packets = time.as_millis() / AUDIO_INTERVAL.as_millis();
            (0..packets).for_each(|_| rig.round(AUDIO_INTERVAL));
        }
    }
}

/// Instructions, system calls and packets of one case.
fn count(name: &str, keep: bool) -> anyhow::Result<(f64, f64, f64)> {
    let out = std::env::temp_dir().join(format!("sluice-{name}-{}.callgrind", std::process::id()));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--toggle-collect=instructions::counted*")
        // What clients do is left out again.
        .arg("--toggle-collect=*rig::clients::Client::write_*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--run", name])
        .output()
        .context("valgrind could not be started: is it installed?")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed under valgrind:\n{log}");
    let instructions = instructions_in(&out, "instructions::counted")?;
    if keep {
        eprintln!("callgrind_annotate {}", out.display());
    } else {
        // Nothing depends on it.
        let _ = std::fs::remove_file(&out);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let counts = text.trim().strip_prefix("calls ").and_then(|rest| rest.split_once(" packets "));
    let (calls, packets) = counts.context("the case reported no counts")?;
    Ok((instructions, calls.parse()?, packets.parse()?))
}

/// Instructions of a function and all that it called.
fn instructions_in(profile: &Path, function: &str) -> anyhow::Result<f64> {
    let output = Command::new("callgrind_annotate")
        .args(["--inclusive=yes", "--threshold=100"])
        .arg(profile)
        .output()
        .context("callgrind_annotate could not be started: it is part of valgrind")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains(function));
    let count = line.and_then(|line| line.split_ascii_whitespace().next());
    let count = count.context("the profile does not name what was counted")?;
    Ok(count.replace(',', "").parse()?)
}
