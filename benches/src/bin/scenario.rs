//! Starts a server, drives it with the load tester, and prints what each scenario cost.

// A program of the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use sluice_benches::floor::{self, FloorCase};
use sluice_benches::scenario::{Cost, Scenario, Settings, USUAL, measure};
use sluice_benches::server::ServerSpec;
use sluice_benches::table::{markdown, median};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Cost of a server under load: CPU per packet and join, memory, latency.
#[derive(Debug, Parser)]
struct Arguments {
    /// Scenarios: video-PxS, audio-PxS, meeting-PxS (publishers x subscribers), idle-N
    #[arg(default_values = USUAL)]
    scenarios: Vec<Scenario>,
    /// The sluice binary, default the one beside this program
    #[arg(long)]
    server: Option<PathBuf>,
    /// Another argument for the sluice binary; may be repeated
    #[arg(long = "server-arg", allow_hyphen_values = true)]
    server_args: Vec<String>,
    /// Command line of another server; needs --url
    #[arg(long, requires = "url")]
    server_cmd: Option<String>,
    /// Where that server listens, ws://<ip>:<port>
    #[arg(long)]
    url: Option<String>,
    /// API key
    #[arg(long, default_value = "devkey")]
    api_key: String,
    /// API secret
    #[arg(long, default_value = "secret")]
    api_secret: String,
    /// Runs of each scenario; the medians are shown
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds of measuring in each run
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Joins per second
    #[arg(long, default_value_t = 50.0)]
    ramp: f64,
    /// Media threads of the load tester
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print the load tester's table of each run
    #[arg(long)]
    verbose: bool,
    /// Write all runs as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let spec = spec(&arguments)?;
    let settings = Settings {
        api_key: &arguments.api_key,
        api_secret: &arguments.api_secret,
        duration: Duration::from_secs(arguments.seconds),
        ramp: arguments.ramp,
        threads: arguments.threads,
    };
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
    let has_media = costs.iter().any(|cost| cost.report.received.packets > 0);
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

fn spec(arguments: &Arguments) -> anyhow::Result<ServerSpec> {
    if let (Some(line), Some(url)) = (&arguments.server_cmd, &arguments.url) {
        return Ok(ServerSpec::Command { line: line.clone(), url: url.clone() });
    }
    let beside = std::env::current_exe()?.with_file_name("sluice");
    let binary = arguments.server.clone().unwrap_or(beside);
    if !binary.exists() {
        bail!(
            "{} does not exist: build it with `cargo build --release -p sluice`",
            binary.display()
        );
    }
    Ok(ServerSpec::Sluice { binary, arguments: arguments.server_args.clone() })
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
