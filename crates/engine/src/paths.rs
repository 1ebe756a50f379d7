//! How media fares on the paths to and from clients, in histograms over all workers: loss, jitter and
//! round-trip times as reports tell them, quality, and the time that packets spend here.
//!
//! Workers add to atomics, once for each report and each flush of media, not for each packet; metrics
//! read them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_rtp::codec::MediaKind;
use sluice_sfu::quality::{Quality, mean_opinion};

/// Upper bounds of the loss in one report, percent (LiveKit's buckets, like the others).
const LOSS_PERCENT: &[f64] = &[0.0, 0.1, 0.3, 0.5, 0.7, 1.0, 5.0, 10.0, 40.0, 100.0];
/// Upper bounds of jitter, microseconds.
const JITTER_US: &[f64] = &[1e3, 10e3, 30e3, 50e3, 70e3, 100e3, 300e3, 600e3, 1e6];
/// Upper bounds of round-trip times, milliseconds.
const RTT_MS: &[f64] = &[50.0, 100.0, 150.0, 200.0, 250.0, 500.0, 750.0, 1000.0, 5000.0, 10_000.0];
/// Upper bounds of the time from a packet's arrival until it leaves, nanoseconds.
const FORWARD_NS: &[f64] = &[50e3, 100e3, 250e3, 500e3, 1e6, 2e6, 3e6, 5e6, 10e6, 20e6];
/// Bounds of LiveKit's numbers for poor, good and excellent; lost is above.
const RATING: &[f64] = &[0.0, 1.0, 2.0];
/// Upper bounds of mean opinion scores.
const SCORE: &[f64] = &[1.0, 2.0, 2.5, 3.0, 3.25, 3.5, 3.75, 4.0, 4.25, 4.5];

/// Longest list of bounds above, and one bucket without a bound.
const MAX_BUCKETS: usize = 11;

/// Counts of values by size.
#[derive(Debug)]
pub struct Buckets {
    bounds: &'static [f64],
    counts: [AtomicU64; MAX_BUCKETS],
    /// Sum of the values, thousandths.
    sum_milli: AtomicU64,
}

impl Buckets {
    const fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() < MAX_BUCKETS);
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; MAX_BUCKETS],
            sum_milli: AtomicU64::new(0),
        }
    }

    fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_milli.fetch_add((value * 1000.0) as u64, Ordering::Relaxed);
    }

    /// Upper bounds; one more bucket has none.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// Values per bucket.
    pub fn counts(&self) -> Vec<u64> {
        let counts = self.counts.iter().take(self.bounds.len() + 1);
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum_milli.load(Ordering::Relaxed) as f64 / 1000.0
    }
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackKind {
    /// Audio that is not of a screen share.
    Microphone,
    /// Video that is not.
    Camera,
    /// The picture of a screen share.
    ScreenShare,
    /// Its sound.
    ScreenShareAudio,
}

impl TrackKind {
    /// Every kind, in the order of their counters.
    pub const ALL: [Self; 4] =
        [Self::Microphone, Self::Camera, Self::ScreenShare, Self::ScreenShareAudio];

    pub(crate) fn of(kind: MediaKind, screen_share: bool) -> Self {
        match (kind, screen_share) {
            (MediaKind::Audio, false) => Self::Microphone,
            (MediaKind::Audio, true) => Self::ScreenShareAudio,
            (MediaKind::Video, false) => Self::Camera,
            (MediaKind::Video, true) => Self::ScreenShare,
        }
    }

    /// LiveKit's names of the source and of the type.
    pub fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Microphone => ("MICROPHONE", "AUDIO"),
            Self::Camera => ("CAMERA", "VIDEO"),
            Self::ScreenShare => ("SCREEN_SHARE", "VIDEO"),
            Self::ScreenShareAudio => ("SCREEN_SHARE_AUDIO", "AUDIO"),
        }
    }
}

/// Streams of one kind in one direction.
#[derive(Debug)]
pub struct StreamStats {
    /// Loss per report, percent.
    pub loss_percent: Buckets,
    /// Interarrival jitter, microseconds.
    pub jitter_us: Buckets,
    /// Round-trip times, milliseconds.
    pub rtt_ms: Buckets,
    lost: AtomicU64,
}

impl StreamStats {
    const fn new() -> Self {
        Self {
            loss_percent: Buckets::new(LOSS_PERCENT),
            jitter_us: Buckets::new(JITTER_US),
            rtt_ms: Buckets::new(RTT_MS),
            lost: AtomicU64::new(0),
        }
    }

    /// Packets lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Takes note of a report about one stream.
    pub(crate) fn on_report(&self, report: Report) {
        self.loss_percent.observe(f64::from(report.fraction_lost) * 100.0 / 256.0);
        self.on_lost(report.lost);
        // LiveKit leaves out what is not known.
        if !report.jitter.is_zero() {
            self.jitter_us.observe(report.jitter.as_secs_f64() * 1e6);
        }
        if let Some(rtt) = report.rtt.filter(|rtt| !rtt.is_zero()) {
            self.rtt_ms.observe(rtt.as_secs_f64() * 1e3);
        }
    }

    /// Adds to the packets lost; duplicates make the number of a report fall.
    pub(crate) fn on_lost(&self, packets: i32) {
        self.lost.fetch_add(u64::try_from(packets).unwrap_or(0), Ordering::Relaxed);
    }
}

/// What a report says of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    /// In 1/256.
    pub(crate) fraction_lost: u8,
    /// Packets lost since the report before.
    pub(crate) lost: i32,
    pub(crate) jitter: Duration,
    pub(crate) rtt: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub struct PathStats {
    incoming: [StreamStats; 4],
    outgoing: [StreamStats; 4],
    /// Time from a packet's arrival until it leaves, nanoseconds; one packet of each batch.
    pub forward_ns: Buckets,
    /// Connection quality of peers, LiveKit's number of it.
    pub rating: Buckets,
    /// The same as a mean opinion score.
    pub score: Buckets,
    connected: AtomicU64,
    failed: AtomicU64,
}

impl Default for PathStats {
    fn default() -> Self {
        Self {
            incoming: [const { StreamStats::new() }; 4],
            outgoing: [const { StreamStats::new() }; 4],
            forward_ns: Buckets::new(FORWARD_NS),
            rating: Buckets::new(RATING),
            score: Buckets::new(SCORE),
            connected: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

impl PathStats {
    /// Streams from publishers.
    pub fn incoming(&self, kind: TrackKind) -> &StreamStats {
        &self.incoming[kind as usize]
    }

    /// Streams to receivers.
    pub fn outgoing(&self, kind: TrackKind) -> &StreamStats {
        &self.outgoing[kind as usize]
    }

    /// Peers whose media connected, and those whose connection failed, since the start.
    pub fn peers(&self) -> (u64, u64) {
        (self.connected.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    pub(crate) fn on_connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn on_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn on_quality(&self, score: f32) {
        self.rating.observe(match Quality::of(score) {
            Quality::Poor => 0.0,
            Quality::Good => 1.0,
            Quality::Excellent => 2.0,
            Quality::Lost => 3.0,
        });
        self.score.observe(mean_opinion(score).into());
    }

    pub(crate) fn on_forwarded(&self, after: Duration) {
        self.forward_ns.observe(after.as_nanos() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_fall_into_buckets_and_lost_packets_add_up() {
        let stats = PathStats::default();
        let camera = stats.outgoing(TrackKind::Camera);
        let report = Report {
            fraction_lost: 128,
            lost: 2,
            jitter: Duration::from_millis(20),
            rtt: Some(Duration::from_millis(120)),
        };
        camera.on_report(report);
        camera.on_report(Report { lost: -8, jitter: Duration::ZERO, rtt: None, ..report });
        assert_eq!(camera.lost(), 2);
        assert_eq!(camera.loss_percent.counts(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(camera.jitter_us.counts(), [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((camera.rtt_ms.counts()[2], camera.rtt_ms.sum()), (1, 120.0));
        assert_eq!(stats.incoming(TrackKind::Camera).lost(), 0);
    }

    #[test]
    fn ratings_carry_livekits_numbers() {
        let stats = PathStats::default();
        for score in [100.0, 50.0, 30.0, 0.0] {
            stats.on_quality(score);
        }
        assert_eq!(stats.rating.counts(), [1, 1, 1, 1]);
        assert_eq!(stats.score.counts().iter().sum::<u64>(), 4);
    }
}
