//! Prints what copying, sealing and sending costs on this machine, without a server around it.

// A program of the terminal.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use clap::Parser;
use sluice_benches::floor::{Floor, FloorCase, measure};
use sluice_benches::table::{markdown, median};

/// CPU time per packet of copy, AES-128-GCM and UDP send.
#[derive(Debug, Parser)]
struct Arguments {
    /// Receivers
    #[arg(long, default_value_t = 200)]
    receivers: usize,
    /// Packets waiting for each receiver; may be repeated
    #[arg(long, default_values_t = [1, 4, 8])]
    batch: Vec<usize>,
    /// Payload bytes; may be repeated
    #[arg(long, default_values_t = [1150, 90])]
    payload: Vec<usize>,
    /// Runs of each case; the medians are shown
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut rows = Vec::new();
    for &payload in &arguments.payload {
        for &batch in &arguments.batch {
            let case = FloorCase { receivers: arguments.receivers, batch, payload };
            let duration = Duration::from_secs_f64(arguments.seconds);
            let runs: Vec<Floor> = (0..arguments.runs.max(1))
                .map(|_| measure(case, duration))
                .collect::<Result<_, _>>()?;
            let of = |f: fn(&Floor) -> f64| median(&runs.iter().map(f).collect::<Vec<_>>());
            rows.push(vec![
                format!("{payload} B, K = {batch}"),
                format!("{:.0}", of(|floor| floor.seal_ns)),
                format!("{:.0}", of(|floor| floor.total_ns)),
                format!("{:.0}", 1e6 / of(|floor| floor.total_ns)),
            ]);
        }
    }
    let header = ["packets per receiver", "copy + seal ns", "with send ns", "kpackets/s per core"];
    println!("{}", markdown(&header, &rows));
    Ok(())
}
