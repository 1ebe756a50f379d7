//! What a subscription costs in memory, while its track is muted and while it flows.
//!
//! One run, one server: everybody joins and publishes muted, then everybody subscribes to everything,
//! then publishers unmute, if there are few enough for that. What the server grows by in the second step is the subscriptions; what it
//! grows by in the third is what packets need, histories of the publishers' tracks included.

use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use sluice_load::{Layout, Moment, Muted, Options, run};

use crate::scenario::{Settings, Watch};
use crate::server::{Server, ServerSpec};

/// Time for what was started to be done, for caches to fill, and for what was needed for a moment to
/// go: a read buffer with the client's next ping, freed memory with the server's next look.
const SETTLE: Duration = Duration::from_secs(15);

/// Who is there.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MemoryCase {
    /// Participants that publish.
    pub publishers: usize,
    /// Participants that subscribe to all of them.
    pub subscribers: usize,
    /// Publishers send audio.
    pub audio: bool,
    /// Publishers send 720p simulcast video.
    pub video: bool,
    /// Whether they unmute in the end.
    pub flows: bool,
}

impl MemoryCase {
    /// Subscriptions when everybody has what it wants.
    pub fn subscriptions(&self) -> usize {
        self.publishers * self.subscribers * (usize::from(self.audio) + usize::from(self.video))
    }
}

/// Bytes of resident memory.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// What was measured.
    pub case: MemoryCase,
    /// Of a participant, with its share of muted tracks.
    pub per_participant: f64,
    /// Of a subscription to a muted track.
    pub per_muted_subscription: f64,
    /// Of a subscription that flows, histories of the track included.
    pub per_subscription: Option<f64>,
    /// Packets per second that flowed at the end.
    pub packets_per_second: f64,
}

/// Runs one case against a fresh server.
///
/// # Errors
/// The server does not start, the load tester cannot run, or somebody could not join.
pub fn measure(
    case: MemoryCase,
    spec: &ServerSpec,
    settings: &Settings<'_>,
) -> anyhow::Result<Memory> {
    let server = Server::start(spec)?;
    let options = Options {
        publishers: case.publishers,
        subscribers: case.subscribers,
        audio: case.audio,
        video: case.video,
        layout: Layout::All,
        muted: if case.flows { Muted::Joining } else { Muted::Always },
        subscribe_late: true,
        settle: SETTLE,
        duration: settings.duration,
        ramp: settings.ramp,
        threads: settings.threads,
        ..Options::new(&server.url, settings.api_key, settings.api_secret)?
    };
    let mut watch = Watch::new(server.id());
    let report = run(&options, &mut watch)?;
    let failures = report.joins.failed + report.joins.dropped;
    ensure!(failures == 0, "{failures} participants failed:\n{}", report.table());
    let tracks = report.received.tracks as usize;
    ensure!(
        tracks == case.subscriptions(),
        "{tracks} subscriptions came about\n{}",
        report.table()
    );
    let grown = |from: Moment, to: Moment| watch.at(to).1 as f64 - watch.at(from).1 as f64;
    let subscriptions = case.subscriptions() as f64;
    let muted = grown(Moment::Joined, Moment::Subscribed) / subscriptions;
    let participants = (case.publishers + case.subscribers) as f64;
    Ok(Memory {
        case,
        per_participant: grown(Moment::Starting, Moment::Joined) / participants,
        per_muted_subscription: muted,
        per_subscription: case
            .flows
            .then(|| muted + grown(Moment::Subscribed, Moment::Measured) / subscriptions),
        packets_per_second: report.packets_per_second,
    })
}
