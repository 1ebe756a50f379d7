//! The command line of the load tester, for any program that offers it as a subcommand.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::plan::{DataLoad, Layout, Options};
use crate::report::{Report, Second, Thresholds};
use crate::run::{Moment, Observer, run};

/// Arguments of `load-test`.
#[derive(Debug, Args)]
pub struct LoadTestArgs {
    /// Server
    #[arg(long, env = "LIVEKIT_URL", default_value = "ws://127.0.0.1:7880", value_name = "URL")]
    url: String,
    /// API key
    #[arg(long, env = "LIVEKIT_API_KEY", default_value = "devkey", value_name = "KEY")]
    api_key: String,
    /// API secret
    #[arg(
        long,
        env = "LIVEKIT_API_SECRET",
        default_value = "secret",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    api_secret: String,
    /// Name of the room, default a random one
    #[arg(long)]
    room: Option<String>,
    /// Rooms, all alike
    #[arg(long, default_value_t = 1, value_name = "N")]
    rooms: usize,
    /// Publishers in each room
    #[arg(long, default_value_t = 1, value_name = "N")]
    publishers: usize,
    /// Subscribers in each room
    #[arg(long, default_value_t = 1, value_name = "N")]
    subscribers: usize,
    /// Publish audio (without --audio, --video and --data-rate: both)
    #[arg(long)]
    audio: bool,
    /// Publish 720p video
    #[arg(long)]
    video: bool,
    /// Publish one layer of video instead of three
    #[arg(long)]
    no_simulcast: bool,
    /// Publishers watch the others, as in a meeting
    #[arg(long)]
    publishers_subscribe: bool,
    /// What subscribers watch
    #[arg(long, value_enum, default_value_t = Layout::All)]
    layout: Layout,
    /// One publisher of each room speaks at a time, in turn
    #[arg(long)]
    simulate_speakers: bool,
    /// Data messages per second of each publisher
    #[arg(long, value_name = "RATE")]
    data_rate: Option<f64>,
    /// Bytes of a data message
    #[arg(long, default_value_t = 1000, value_name = "N")]
    data_bytes: usize,
    /// Send data reliably
    #[arg(long)]
    data_reliable: bool,
    /// Time of measuring, after everybody joined
    #[arg(long, default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// Joins per second
    #[arg(long, default_value = "20/s", value_parser = rate, value_name = "N[/s]")]
    ramp: f64,
    /// When everybody has joined, so many of a hundred lose their signalling at once and resume
    #[arg(long, default_value_t = 0, value_name = "PERCENT")]
    storm: usize,
    /// Authenticate and time one of this many packets
    #[arg(long, default_value_t = 64, value_name = "N")]
    sample: u32,
    /// Media threads
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
    /// Fail if more is lost, percent
    #[arg(long, value_name = "PERCENT")]
    max_loss: Option<f64>,
    /// Fail if 99 of 100 packets are not as fast, milliseconds
    #[arg(long, value_name = "MS")]
    max_latency_p99: Option<f64>,
    /// Participants that may fail to join
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_failures: usize,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the result as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs the load test, shows its progress and writes its reports. False: a threshold was missed.
///
/// # Errors
/// The arguments make no sense, the server's address is unknown, or a report cannot be written.
pub fn execute(arguments: &LoadTestArgs) -> anyhow::Result<bool> {
    let options = arguments.options()?;
    let mut progress = Progress::new(&options);
    let report = run(&options, &mut progress)?;
    progress.end();
    arguments.write(&report)?;

    let mut out = std::io::stdout().lock();
    write!(out, "{}", report.table())?;
    let violations = report.violations(&arguments.thresholds());
    for violation in &violations {
        writeln!(out, "FAILED: {violation}")?;
    }
    Ok(violations.is_empty())
}

impl LoadTestArgs {
    fn options(&self) -> anyhow::Result<Options> {
        let data = self.data_rate.map(|rate| DataLoad {
            rate,
            bytes: self.data_bytes,
            reliable: self.data_reliable,
        });
        let anything = self.audio || self.video || data.is_some();
        let defaults = Options::new(&self.url, &self.api_key, &self.api_secret)
            .context("--url must look like ws://host:port")?;
        Ok(Options {
            rooms: self.rooms.max(1),
            room: self.room.clone().unwrap_or_else(|| defaults.room.clone()),
            publishers: self.publishers,
            subscribers: self.subscribers,
            audio: self.audio || !anything,
            video: self.video || !anything,
            no_simulcast: self.no_simulcast,
            publishers_subscribe: self.publishers_subscribe,
            layout: self.layout,
            simulate_speakers: self.simulate_speakers,
            data,
            duration: self.duration,
            ramp: self.ramp,
            storm_percent: self.storm,
            sample_every: self.sample.max(1),
            threads: self.threads,
            ..defaults
        })
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds {
            max_failures: self.max_failures,
            max_loss_percent: self.max_loss,
            max_latency_p99_ms: self.max_latency_p99,
        }
    }

    fn write(&self, report: &Report) -> anyhow::Result<()> {
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_vec_pretty(report)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = &self.html {
            let page = crate::page::render(report, &report.violations(&self.thresholds()));
            std::fs::write(path, page)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// One line on a terminal that is written over every second; a line every ten seconds elsewhere.
struct Progress {
    is_terminal: bool,
    participants: usize,
    phase: &'static str,
    seconds: u64,
}

impl Progress {
    fn new(options: &Options) -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            participants: options.rooms * (options.publishers + options.subscribers),
            phase: "joining",
            seconds: 0,
        }
    }

    fn end(&self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Observer for Progress {
    fn at(&mut self, moment: Moment) {
        self.phase = match moment {
            Moment::Starting => "joining",
            Moment::Joined | Moment::Subscribed => "settling",
            Moment::Measuring => "measuring",
            Moment::Measured => "leaving",
        };
    }

    fn second(&mut self, second: &Second) {
        self.seconds += 1;
        if !self.is_terminal && !self.seconds.is_multiple_of(10) {
            return;
        }
        let failed = match second.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        let line = format!(
            "{:>4.0} s  {:<9}  {}/{} joined{failed}  {} packets/s  {:.1} Mbit/s  {} lost  p50 {:.2} ms  \
             p99 {:.2} ms",
            second.at_s,
            self.phase,
            second.joined,
            self.participants,
            second.packets_in,
            second.bits_in as f64 / 1e6,
            second.lost,
            second.latency_p50_ms,
            second.latency_p99_ms,
        );
        let mut err = std::io::stderr().lock();
        // A terminal that went away ends nothing.
        let _ =
            if self.is_terminal { write!(err, "\r\x1b[K{line}") } else { writeln!(err, "{line}") };
        let _ = err.flush();
    }
}

/// `30s`, `2m`, `1h`, `500ms`; a bare number counts seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a duration such as 30s or 2m".to_owned()),
    };
    let number: f64 = number.trim().parse().map_err(|_| "expected a duration such as 30s")?;
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

/// `20` or `20/s`.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number
        .parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "expected a rate such as 20/s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_rates_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert!(duration("7 weeks").is_err());
        assert_eq!(rate("5/s"), Ok(5.0));
        assert!(rate("0").is_err());
    }
}
