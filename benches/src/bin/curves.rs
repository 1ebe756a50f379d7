//! Scaling curves: the same load in growing sizes, and how straight cost grows with it.

// A program of the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use serde::Serialize;
use sluice_benches::arguments::LoadArguments;
use sluice_benches::fit::Fit;
use sluice_benches::scenario::{Cost, Scenario, measure};
use sluice_benches::table::markdown;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU and memory of a server against the size of its load.
#[derive(Debug, Parser)]
struct Arguments {
    /// Curves, default all
    #[arg(value_enum)]
    curves: Vec<Curve>,
    #[command(flatten)]
    load: LoadArguments,
    /// Leave out points with more participants
    #[arg(long, default_value_t = 3000, value_name = "N")]
    largest: usize,
    /// Write all points and fits as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Curve {
    /// One speaker, 10 to 3,000 listeners
    Listeners,
    /// One camera, 10 to 200 viewers
    Viewers,
    /// 1 to 500 rooms of two with camera and microphone
    Rooms,
    /// 10 to 50 speakers, as many listeners
    Mesh,
    /// 10 to 3,000 participants without media
    Idle,
}

impl Curve {
    fn points(self) -> &'static [&'static str] {
        match self {
            Self::Listeners => {
                &["audio-1x10", "audio-1x100", "audio-1x300", "audio-1x1000", "audio-1x3000"]
            }
            Self::Viewers => {
                &["video-1x10", "video-1x50", "video-1x100", "video-1x150", "video-1x200"]
            }
            Self::Rooms => &[
                "rooms-1x2",
                "rooms-10x2",
                "rooms-25x2",
                "rooms-50x2",
                "rooms-100x2",
                "rooms-250x2",
                "rooms-500x2",
            ],
            Self::Mesh => {
                &["audio-10x10", "audio-20x20", "audio-30x30", "audio-40x40", "audio-50x50"]
            }
            Self::Idle => &["idle-10", "idle-50", "idle-200", "idle-500", "idle-1000", "idle-3000"],
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// One curve, measured.
#[derive(Serialize)]
struct Measured {
    curve: Curve,
    points: Vec<Cost>,
    /// Microseconds of CPU per second against packets per second: the slope is the price of a packet.
    cpu_by_packets: Option<Fit>,
    /// KiB of resident memory against participants.
    memory_by_participants: Option<Fit>,
    /// Milliseconds of CPU until all have joined, against participants.
    joins_by_participants: Option<Fit>,
    /// Microseconds of CPU per second against participants, where no media flows.
    cpu_by_participants: Option<Fit>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let spec = arguments.load.spec()?;
    let curves = match &arguments.curves[..] {
        [] => Curve::value_variants(),
        curves => curves,
    };
    let (mut rows, mut fits, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for curve in curves {
        let mut points = Vec::new();
        for name in curve.points() {
            let scenario: Scenario = name.parse()?;
            if scenario.participants() > arguments.largest {
                continue;
            }
            eprintln!("{name}");
            points.push(measure(&scenario, &spec, &arguments.load.settings())?);
        }
        rows.extend(points.iter().map(row));
        let measured = Measured {
            curve: *curve,
            cpu_by_packets: fit(&points, |cost| {
                (cost.packets_per_second, cost.server_core_percent * 1e4)
            }),
            memory_by_participants: fit(&points, |cost| {
                let participants = cost.participants as f64;
                (participants, cost.rss_kib_per_participant * participants)
            }),
            joins_by_participants: fit(&points, |cost| {
                let participants = cost.participants as f64;
                (participants, cost.cpu_ms_per_join * participants)
            }),
            cpu_by_participants: (*curve == Curve::Idle)
                .then(|| {
                    fit(&points, |cost| (cost.participants as f64, cost.server_core_percent * 1e4))
                })
                .flatten(),
            points,
        };
        fits.extend(fit_rows(&measured));
        all.push(measured);
    }
    println!("{}", markdown(&POINTS, &rows));
    println!("{}", markdown(&FITS, &fits));
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&all)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

const POINTS: [&str; 9] = [
    "point",
    "participants",
    "packets/s",
    "server core %",
    "CPU us/packet",
    "CPU ms/join",
    "RSS MiB",
    "latency p99 ms",
    "loss %",
];
const FITS: [&str; 6] =
    ["curve", "what grows", "per", "slope", "R squared", "worst residual % of the largest"];

fn fit(points: &[Cost], of: impl Fn(&Cost) -> (f64, f64)) -> Option<Fit> {
    Fit::of(&points.iter().map(of).collect::<Vec<_>>())
}

fn row(cost: &Cost) -> Vec<String> {
    let media = |text: String| if cost.has_media() { text } else { "-".to_owned() };
    vec![
        cost.name.clone(),
        cost.participants.to_string(),
        media(format!("{:.0}", cost.packets_per_second)),
        format!("{:.1}", cost.server_core_percent),
        media(format!("{:.2}", cost.cpu_us_per_packet)),
        format!("{:.2}", cost.cpu_ms_per_join),
        format!("{:.0}", cost.rss_kib_per_participant * cost.participants as f64 / 1024.0),
        media(format!("{:.2}", cost.latency_p99_ms)),
        media(format!("{:.4}", cost.loss_percent)),
    ]
}

fn fit_rows(measured: &Measured) -> Vec<Vec<String>> {
    // Without media there is no packet to have a price.
    let by_packets = measured.cpu_by_packets.filter(|_| measured.curve != Curve::Idle);
    let lines = [
        ("CPU, us", "packet", by_packets),
        ("CPU, us/s", "participant", measured.cpu_by_participants),
        ("memory, KiB", "participant", measured.memory_by_participants),
        ("joins, CPU ms", "participant", measured.joins_by_participants),
    ];
    let row = |(what, per, fit): (&str, &str, Option<Fit>)| {
        let fit = fit?;
        Some(vec![
            measured.curve.name(),
            what.to_owned(),
            per.to_owned(),
            format!("{:.2}", fit.slope),
            format!("{:.4}", fit.r_squared),
            format!("{:.1}", fit.worst_residual_percent),
        ])
    };
    lines.into_iter().filter_map(row).collect()
}
