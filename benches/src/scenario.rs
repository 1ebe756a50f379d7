//! The scenarios: what participants do, and what it costs the server.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use sluice_load::{
    Layout, Moment, Muted, Observer, Options, Report, Second, cpu_time, resident_bytes, run,
};

use crate::server::{Server, ServerSpec};

/// One kind of load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Name on the command line and in the table.
    pub name: String,
    /// Rooms, all alike.
    pub rooms: usize,
    /// Publishing participants of each room.
    pub publishers: usize,
    /// Subscribing participants of each room.
    pub subscribers: usize,
    /// Publishers watch each other.
    pub publishers_subscribe: bool,
    /// One publisher of each room speaks at a time, the others are silent.
    pub simulate_speakers: bool,
    /// Publishers send audio.
    pub audio: bool,
    /// Publishers send 720p simulcast video.
    pub video: bool,
    /// What subscribers watch.
    pub layout: Layout,
}

/// How scenarios are named.
const USAGE: &str = "a scenario is video-PxS, audio-PxS, meeting-PxS (publishers x subscribers), rooms-RxN \
                     (rooms x participants), grid-N or idle-N";

/// What runs when nothing is named.
pub const USUAL: [&str; 5] =
    ["video-1x50", "video-1x200", "audio-10x100", "meeting-10x10", "idle-200"];

impl FromStr for Scenario {
    type Err = anyhow::Error;

    /// See [`USAGE`].
    fn from_str(name: &str) -> anyhow::Result<Self> {
        let (kind, size) = name.split_once('-').context(USAGE)?;
        let sizes = size.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>();
        let sizes = sizes.ok().context(USAGE)?;
        let (publishers, subscribers) = match sizes[..] {
            [publishers, subscribers] => (publishers, subscribers),
            [participants] => (participants, 0),
            _ => bail!("{USAGE}, not {name}"),
        };
        let base = Self {
            name: name.to_owned(),
            rooms: 1,
            publishers,
            subscribers,
            publishers_subscribe: false,
            simulate_speakers: false,
            audio: true,
            video: true,
            layout: Layout::All,
        };
        Ok(match (kind, sizes.len()) {
            ("video", 2) => Self { audio: false, ..base },
            ("audio", 2) => Self { video: false, ..base },
            ("meeting", 2) => Self { layout: Layout::Speaker, ..base },
            ("rooms", 2) => Self {
                rooms: publishers,
                publishers: subscribers,
                subscribers: 0,
                publishers_subscribe: true,
                layout: Layout::Grid3,
                ..base
            },
            ("grid", 1) => Self {
                publishers_subscribe: true,
                simulate_speakers: true,
                layout: Layout::Grid5,
                ..base
            },
            ("idle", 1) => {
                Self { publishers: 0, subscribers: publishers, audio: false, video: false, ..base }
            }
            _ => bail!("{USAGE}, not {name}"),
        })
    }
}

impl Scenario {
    /// Participants of all rooms.
    pub fn participants(&self) -> usize {
        self.rooms * (self.publishers + self.subscribers)
    }
}

/// What one run of a scenario cost the server.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Scenario.
    pub name: String,
    /// Participants of all rooms.
    pub participants: usize,
    /// Seconds measured.
    pub seconds: f64,
    /// Packets that left the server per second.
    pub packets_per_second: f64,
    /// Server's CPU time per packet that left it, microseconds.
    pub cpu_us_per_packet: f64,
    /// Server's share of one core while measured, percent.
    pub server_core_percent: f64,
    /// The load tester's share.
    pub tester_core_percent: f64,
    /// Packets lost for good, percent.
    pub loss_percent: f64,
    /// Latency through the server as the subscribers see it, milliseconds.
    pub latency_p50_ms: f64,
    /// See `latency_p50_ms`.
    pub latency_p99_ms: f64,
    /// Server's CPU time per join, milliseconds: of everything until a second after the last one was
    /// connected.
    pub cpu_ms_per_join: f64,
    /// Median time of a join.
    pub join_p50_ms: f64,
    /// See `join_p50_ms`.
    pub join_p99_ms: f64,
    /// Growth of the server's resident memory per participant, KiB.
    pub rss_kib_per_participant: f64,
    /// Participants that could not join or were dropped.
    pub failures: usize,
    /// The load tester's own report.
    pub report: Report,
}

impl Cost {
    /// Whether packets came: what one of them costs says something.
    pub fn has_media(&self) -> bool {
        self.report.received.packets > 0
    }
}

/// How to run a scenario.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Key and secret of the server.
    pub api_key: &'a str,
    /// See `api_key`.
    pub api_secret: &'a str,
    /// Time of measuring.
    pub duration: Duration,
    /// Joins per second.
    pub ramp: f64,
    /// Media threads of the tester.
    pub threads: usize,
}

/// Time between the last join and measuring.
const SETTLE: Duration = Duration::from_secs(2);

/// The same where layers are published that nobody watches: a server stops them after some seconds.
const SETTLE_LAYERS: Duration = Duration::from_secs(8);

/// Runs a scenario against a fresh server.
///
/// # Errors
/// The server does not start, or the load tester cannot run.
pub fn measure(
    scenario: &Scenario,
    spec: &ServerSpec,
    settings: &Settings<'_>,
) -> anyhow::Result<Cost> {
    let server = Server::start(spec)?;
    // Where everybody publishes, media begins as they join: as in life, and not of all at once.
    let watch_each_other = scenario.publishers_subscribe;
    let options = Options {
        rooms: scenario.rooms,
        publishers: scenario.publishers,
        subscribers: scenario.subscribers,
        publishers_subscribe: scenario.publishers_subscribe,
        simulate_speakers: scenario.simulate_speakers,
        muted: if watch_each_other { Muted::Never } else { Muted::Joining },
        settle: if watch_each_other { SETTLE_LAYERS } else { SETTLE },
        audio: scenario.audio,
        video: scenario.video,
        layout: scenario.layout,
        duration: settings.duration,
        ramp: settings.ramp,
        threads: settings.threads,
        ..Options::new(&server.url, settings.api_key, settings.api_secret)?
    };
    let mut watch = Watch::new(server.id());
    let report = run(&options, &mut watch)?;
    let participants = scenario.participants().max(1) as f64;
    let failures = report.joins.failed + report.joins.dropped;
    if failures > 0 {
        eprintln!("{failures} participants failed; the server's log ends:\n{}", server.log_tail());
        eprintln!("{}", report.table());
    }
    let at = |moment: Moment| watch.at(moment);
    let window = at(Moment::Measured).0 - at(Moment::Measuring).0;
    let joins = at(Moment::Joined).0 - at(Moment::Starting).0;
    let grown = at(Moment::Measured).1 as f64 - at(Moment::Starting).1 as f64;
    let packets = report.received.packets.max(1) as f64;
    let latency = if scenario.video { report.video_latency } else { report.audio_latency };
    Ok(Cost {
        name: scenario.name.clone(),
        participants: scenario.participants(),
        seconds: report.seconds,
        packets_per_second: report.packets_per_second,
        cpu_us_per_packet: window * 1e6 / packets,
        server_core_percent: 100.0 * window / report.seconds,
        tester_core_percent: 100.0 * report.tester.cpu_s / report.seconds,
        loss_percent: report.loss_percent,
        latency_p50_ms: latency.p50_ms,
        latency_p99_ms: latency.p99_ms,
        cpu_ms_per_join: joins * 1e3 / participants,
        join_p50_ms: report.joins.time.p50_ms,
        join_p99_ms: report.joins.time.p99_ms,
        rss_kib_per_participant: grown / 1024.0 / participants,
        failures,
        report,
    })
}

/// CPU seconds and resident bytes of the server at each moment.
pub(crate) struct Watch {
    pid: u32,
    samples: Vec<(Moment, f64, u64)>,
}

impl Watch {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid, samples: Vec::new() }
    }

    pub(crate) fn at(&self, moment: Moment) -> (f64, u64) {
        let sample = self.samples.iter().find(|(at, ..)| *at == moment);
        sample.map_or((0.0, 0), |(_, cpu, rss)| (*cpu, *rss))
    }
}

impl Observer for Watch {
    fn at(&mut self, moment: Moment) {
        let cpu = cpu_time(self.pid).unwrap_or_default().as_secs_f64();
        self.samples.push((moment, cpu, resident_bytes(self.pid).unwrap_or_default()));
    }

    fn second(&mut self, _: &Second) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_how_many_publish_and_subscribe() {
        let scenario: Scenario = "meeting-3x40".parse().unwrap();
        assert_eq!((scenario.publishers, scenario.subscribers), (3, 40));
        assert!(scenario.audio && scenario.video);
        let idle: Scenario = "idle-7".parse().unwrap();
        assert_eq!((idle.publishers, idle.subscribers), (0, 7));
        let rooms: Scenario = "rooms-250x2".parse().unwrap();
        assert_eq!((rooms.rooms, rooms.participants()), (250, 500));
        assert!(rooms.publishers_subscribe);
        let grid: Scenario = "grid-100".parse().unwrap();
        assert_eq!((grid.rooms, grid.publishers, grid.layout), (1, 100, Layout::Grid5));
        assert!(USUAL.iter().all(|name| name.parse::<Scenario>().is_ok()));
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["video", "video-5", "idle-1x2", "chat-1x1", "audio-ax1", "grid-1x2", "rooms-5"]
        {
            assert!(name.parse::<Scenario>().is_err(), "{name}");
        }
    }
}
