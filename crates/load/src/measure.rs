//! Counters and distributions of one media thread, and how they add up over threads.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart, microseconds.
const MAX_LATENCY_US: u64 = 60_000_000;

/// What was received, summed over streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReceiveTotals {
    /// RTP packets, repairs and probes included.
    pub packets: u64,
    /// Bytes of UDP payload of those.
    pub bytes: u64,
    /// Numbers that never came, not even repaired.
    pub lost: u64,
    /// Numbers that did not come in their turn.
    pub gaps: u64,
    /// Numbers that came late, by reordering or repair.
    pub recovered: u64,
    /// Packets that had come before.
    pub duplicates: u64,
    /// Packets of repair streams.
    pub repair_packets: u64,
    /// Numbers asked for again.
    pub nacked: u64,
    /// Key frames asked for.
    pub plis: u64,
    /// Packets that were authenticated.
    pub authenticated: u64,
    /// Packets that failed authentication.
    pub not_authentic: u64,
    /// Opened packets without a stamp of ours.
    pub unstamped: u64,
    /// Packets of an SSRC that no offer names.
    pub unknown_ssrc: u64,
    /// Packets whose header does not parse.
    pub malformed: u64,
    /// Video frames whose last packet came.
    pub frames: u64,
    /// Pauses of video that a viewer sees.
    pub freezes: u64,
    /// Their length, milliseconds.
    pub freeze_ms: u64,
    /// Tracks that the server offers.
    pub tracks: u64,
    /// Of those, tracks of which anything came.
    pub tracks_with_media: u64,
    /// Messages on data channels.
    pub data_messages: u64,
}

impl ReceiveTotals {
    /// Adds another thread's or connection's counters.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.lost += other.lost;
        self.gaps += other.gaps;
        self.recovered += other.recovered;
        self.duplicates += other.duplicates;
        self.repair_packets += other.repair_packets;
        self.nacked += other.nacked;
        self.plis += other.plis;
        self.authenticated += other.authenticated;
        self.not_authentic += other.not_authentic;
        self.unstamped += other.unstamped;
        self.unknown_ssrc += other.unknown_ssrc;
        self.malformed += other.malformed;
        self.frames += other.frames;
        self.freezes += other.freezes;
        self.freeze_ms += other.freeze_ms;
        self.tracks += other.tracks;
        self.tracks_with_media += other.tracks_with_media;
        self.data_messages += other.data_messages;
    }
}

/// A distribution of times in microseconds, three significant digits.
#[derive(Debug, Clone)]
pub struct Distribution(Histogram<u64>);

impl Default for Distribution {
    fn default() -> Self {
        // Constants that the library accepts.
        Self(Histogram::new_with_max(MAX_LATENCY_US, 3).expect("valid histogram bounds"))
    }
}

impl Distribution {
    /// Adds one value.
    pub fn record_us(&mut self, value: u64) {
        self.0.saturating_record(value);
    }

    /// Adds all values of another.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Forgets all values.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Value at a quantile (0..=1), milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1000.0 }
    }

    /// The usual figures.
    pub fn summary(&self) -> TimeSummary {
        TimeSummary {
            count: self.count(),
            mean_ms: self.0.mean() / 1000.0,
            p50_ms: self.quantile_ms(0.5),
            p90_ms: self.quantile_ms(0.9),
            p99_ms: self.quantile_ms(0.99),
            p999_ms: self.quantile_ms(0.999),
            max_ms: if self.0.is_empty() { 0.0 } else { self.0.max() as f64 / 1000.0 },
        }
    }

    /// Values at even steps towards the tail, for plots: quantile and milliseconds.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0]
            .into_iter()
            .map(|quantile| (quantile, self.quantile_ms(quantile)))
            .collect()
    }
}

/// Figures of a distribution of times, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TimeSummary {
    /// Number of values.
    pub count: u64,
    /// Mean.
    pub mean_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90 of 100 are not larger.
    pub p90_ms: f64,
    /// 99 of 100 are not larger.
    pub p99_ms: f64,
    /// 999 of 1,000 are not larger.
    pub p999_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

/// Distributions of one media thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measurements {
    pub(crate) audio_latency: Distribution,
    pub(crate) video_latency: Distribution,
    pub(crate) data_latency: Distribution,
    /// Latency of all kinds since the last look.
    pub(crate) recent_latency: Distribution,
    /// Variation of the transit time between packets of one stream.
    pub(crate) jitter: Distribution,
    /// From asking for a track to its first packet.
    pub(crate) first_packet: Distribution,
    /// From asking for a track to its first whole frame.
    pub(crate) first_frame: Distribution,
}

impl Measurements {
    pub(crate) fn record_latency(&mut self, audio: bool, latency_us: u64) {
        let of_kind = if audio { &mut self.audio_latency } else { &mut self.video_latency };
        of_kind.record_us(latency_us);
        self.recent_latency.record_us(latency_us);
    }

    /// Forgets what depends on the time of measuring; starts of tracks stay.
    pub(crate) fn restart(&mut self) {
        self.audio_latency.clear();
        self.video_latency.clear();
        self.data_latency.clear();
        self.recent_latency.clear();
        self.jitter.clear();
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.audio_latency.add(&other.audio_latency);
        self.video_latency.add(&other.video_latency);
        self.data_latency.add(&other.data_latency);
        self.recent_latency.add(&other.recent_latency);
        self.jitter.add(&other.jitter);
        self.first_packet.add(&other.first_packet);
        self.first_frame.add(&other.first_frame);
    }
}
