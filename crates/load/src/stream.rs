//! One received RTP stream: sequence numbers, loss and repair, jitter, frames and freezes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_rtp::rtcp::ReportBlock;
use sluice_rtp::{Codec, MediaKind, SeqUnwrapper};

use crate::measure::{Measurements, ReceiveTotals};
use crate::receive::ExpectedTrack;

/// A gap of more numbers than this is a new beginning, not a loss.
const MAX_GAP: u64 = 3_000;
/// How long a missing number may still come.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between requests of one number, and before the first: reordering is no loss.
const NACK_INTERVAL: Duration = Duration::from_millis(40);
/// Requests of one number.
const MAX_NACKS: u8 = 8;
/// How long to wait for a key frame before asking again.
const KEY_FRAME_PATIENCE: Duration = Duration::from_secs(2);
/// A pause between frames that is this much longer than usual is a freeze (W3C webrtc-stats
/// `freezeCount`).
const FREEZE_MARGIN: Duration = Duration::from_millis(150);
/// Weight of a new interval in the usual one, as a divisor.
const FRAME_SMOOTHING: u32 = 16;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Audio,
    Video,
}

/// What the header of a packet says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) now: Instant,
    pub(crate) seq: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    asked: u8,
    next: Instant,
}

/// Whether the first whole frame was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    AwaitingKeyFrame,
    /// A key frame with this timestamp began.
    InKeyFrame(u32),
    Started,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ReceiveStream {
    pub(crate) ssrc: u32,
    pub(crate) kind: StreamKind,
    pub(crate) codec: Option<Codec>,
    /// The latest offer still has it.
    pub(crate) active: bool,
    nack: bool,
    clock_rate: u32,
    wanted_at: Instant,
    unwrapper: SeqUnwrapper,
    first: u64,
    highest: Option<u64>,
    received: u64,
    missing: BTreeMap<u64, Missing>,
    start: Start,
    first_packet_at: Option<Instant>,
    key_frame_asked: Option<Instant>,
    until_sample: u32,
    /// Arrival and timestamp of the previous packet, for jitter.
    previous: Option<(Instant, u32)>,
    jitter_us: f64,
    last_frame: Option<(Instant, u32)>,
    usual_interval: Option<Duration>,
    last_report: (u64, u64),
    sender_report: Option<(Instant, u32)>,
}

impl ReceiveStream {
    pub(crate) fn new(track: &ExpectedTrack) -> Self {
        let audio = track.codec.is_some_and(|codec| codec.kind() == MediaKind::Audio);
        Self {
            ssrc: track.ssrc,
            kind: if audio { StreamKind::Audio } else { StreamKind::Video },
            codec: track.codec,
            active: true,
            nack: track.nack,
            clock_rate: track.clock_rate.max(1),
            wanted_at: track.wanted_at,
            unwrapper: SeqUnwrapper::new(),
            first: 0,
            highest: None,
            received: 0,
            missing: BTreeMap::new(),
            start: Start::AwaitingKeyFrame,
            first_packet_at: None,
            key_frame_asked: None,
            until_sample: 0,
            previous: None,
            jitter_us: 0.0,
            last_frame: None,
            usual_interval: None,
            last_report: (0, 0),
            sender_report: None,
        }
    }

    /// Counts a packet by its header. `empty`: it carries padding only.
    pub(crate) fn on_packet(
        &mut self,
        arrival: Arrival,
        empty: bool,
        totals: &mut ReceiveTotals,
        measurements: &mut Measurements,
    ) {
        let seq = self.unwrapper.unwrap(arrival.seq);
        match self.highest {
            None => self.begin(seq, arrival.now, measurements),
            Some(highest) if seq > highest + MAX_GAP => {
                self.missing.clear();
                self.highest = Some(seq);
                self.received += 1;
            }
            Some(highest) if seq > highest => {
                for lost in highest + 1..seq {
                    totals.gaps += 1;
                    let next = arrival.now + NACK_INTERVAL / 4;
                    self.missing.insert(lost, Missing { since: arrival.now, asked: 0, next });
                }
                self.highest = Some(seq);
                self.received += 1;
            }
            Some(_) => {
                self.on_late(seq, totals);
                return;
            }
        }
        if !empty {
            self.measure_jitter(arrival, measurements);
            if arrival.marker && self.kind == StreamKind::Video {
                self.on_frame(arrival, totals);
            }
        }
    }

    /// A repair stream brought this number.
    pub(crate) fn on_repair(&mut self, seq: u16, totals: &mut ReceiveTotals) {
        if self.highest.is_some() {
            let seq = self.unwrapper.unwrap(seq);
            self.on_late(seq, totals);
        }
    }

    /// Whether this packet shall be opened.
    pub(crate) fn wants_sample(&mut self, every: u32) -> bool {
        if self.start != Start::Started {
            return true;
        }
        if self.until_sample > 0 {
            self.until_sample -= 1;
            return false;
        }
        // Uniform around the mean, so that no pattern of the stream repeats in the sample.
        self.until_sample = rand::random::<u32>() % (2 * every.max(1)).saturating_sub(1).max(1);
        true
    }

    pub(crate) fn awaits_key_frame(&self) -> bool {
        self.start == Start::AwaitingKeyFrame
    }

    /// A packet was opened and is authentic.
    pub(crate) fn on_opened(
        &mut self,
        arrival: Arrival,
        key_frame: bool,
        measurements: &mut Measurements,
    ) {
        if self.start == Start::AwaitingKeyFrame
            && (key_frame || self.kind == StreamKind::Audio || self.codec.is_none())
        {
            self.start = Start::InKeyFrame(arrival.timestamp);
        }
        let whole = arrival.marker || self.kind == StreamKind::Audio;
        if self.start == Start::InKeyFrame(arrival.timestamp) && whole {
            self.start = Start::Started;
            let waited = arrival.now.saturating_duration_since(self.wanted_at);
            measurements.first_frame.record_us(waited.as_micros() as u64);
        }
    }

    /// Numbers to ask for now; gives up on the oldest.
    pub(crate) fn missing_to_request(
        &mut self,
        now: Instant,
        totals: &mut ReceiveTotals,
    ) -> Vec<u16> {
        while let Some(entry) = self.missing.first_entry() {
            if now.saturating_duration_since(entry.get().since) < PATIENCE {
                break;
            }
            entry.remove();
            totals.lost += 1;
        }
        if !self.nack {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (seq, missing) in &mut self.missing {
            if missing.next <= now && missing.asked < MAX_NACKS {
                missing.asked += 1;
                missing.next = now + NACK_INTERVAL;
                due.push(*seq as u16);
            }
        }
        due
    }

    /// Packets come but no key frame does.
    pub(crate) fn wants_key_frame(&mut self, now: Instant) -> bool {
        let Some(first) = self.first_packet_at else { return false };
        let since = self.key_frame_asked.unwrap_or(first);
        let wants = self.kind == StreamKind::Video
            && self.start == Start::AwaitingKeyFrame
            && now.saturating_duration_since(since) >= KEY_FRAME_PATIENCE;
        if wants {
            self.key_frame_asked = Some(now);
        }
        wants
    }

    pub(crate) fn on_sender_report(&mut self, now: Instant, compact_ntp: u32) {
        self.sender_report = Some((now, compact_ntp));
    }

    /// Report block since the previous one (RFC 3550 §6.4.1, appendix A.3).
    pub(crate) fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        let highest = self.highest?;
        let expected = highest - self.first + 1;
        let (expected_before, received_before) = self.last_report;
        self.last_report = (expected, self.received);
        let expected_now = expected.saturating_sub(expected_before);
        let lost_now = expected_now.saturating_sub(self.received.saturating_sub(received_before));
        let fraction = (lost_now << 8).checked_div(expected_now).unwrap_or(0).min(255);
        let (last_sr, delay) = self.sender_report.map_or((0, 0), |(at, ntp)| {
            let delay = now.saturating_duration_since(at);
            (ntp, (delay.as_micros() * 65_536 / 1_000_000) as u32)
        });
        let jitter = self.jitter_us * f64::from(self.clock_rate) / 1e6;
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: fraction as u8,
            cumulative_lost: expected.saturating_sub(self.received).min(0x7F_FFFF) as i32,
            highest_seq: highest as u32,
            jitter: jitter as u32,
            last_sr,
            delay_since_last_sr: delay,
        })
    }

    pub(crate) fn has_media(&self) -> bool {
        self.highest.is_some()
    }

    /// Numbers that are missing for so long that they count as lost at the end of a measurement.
    pub(crate) fn missing_for_good(&self, now: Instant) -> u64 {
        let overdue =
            |missing: &&Missing| now.saturating_duration_since(missing.since) > PATIENCE / 2;
        self.missing.values().filter(overdue).count() as u64
    }

    /// See [`Receiver::expect_from`](crate::receive::Receiver::expect_from).
    pub(crate) fn expect_from(&mut self, now: Instant) {
        if self.first_packet_at.is_none() {
            self.wanted_at = now;
        }
    }

    pub(crate) fn forget_missing(&mut self) {
        self.missing.clear();
    }

    fn begin(&mut self, seq: u64, now: Instant, measurements: &mut Measurements) {
        self.first = seq;
        self.highest = Some(seq);
        self.received = 1;
        self.first_packet_at = Some(now);
        let waited = now.saturating_duration_since(self.wanted_at);
        measurements.first_packet.record_us(waited.as_micros() as u64);
    }

    fn on_late(&mut self, seq: u64, totals: &mut ReceiveTotals) {
        if self.missing.remove(&seq).is_some() {
            self.received += 1;
            totals.recovered += 1;
        } else {
            totals.duplicates += 1;
        }
    }

    /// RFC 3550 §6.4.1, over first packets of timestamps only: later packets of a frame wait for
    /// the pacer of the sender, not for the network.
    fn measure_jitter(&mut self, arrival: Arrival, measurements: &mut Measurements) {
        let Some((before, timestamp)) = self.previous else {
            self.previous = Some((arrival.now, arrival.timestamp));
            return;
        };
        if arrival.timestamp == timestamp {
            return;
        }
        self.previous = Some((arrival.now, arrival.timestamp));
        let ticks = f64::from(arrival.timestamp.wrapping_sub(timestamp) as i32);
        let spacing_us = ticks * 1e6 / f64::from(self.clock_rate);
        let passed_us = arrival.now.saturating_duration_since(before).as_micros() as f64;
        let difference = (passed_us - spacing_us).abs();
        // A pause of the source or another layer, not the network.
        if difference < 1e6 {
            self.jitter_us += (difference - self.jitter_us) / 16.0;
            measurements.jitter.record_us(difference as u64);
        }
    }

    fn on_frame(&mut self, arrival: Arrival, totals: &mut ReceiveTotals) {
        totals.frames += 1;
        let Some((before, timestamp)) = self.last_frame else {
            self.last_frame = Some((arrival.now, arrival.timestamp));
            return;
        };
        if timestamp == arrival.timestamp {
            return;
        }
        self.last_frame = Some((arrival.now, arrival.timestamp));
        let interval = arrival.now.saturating_duration_since(before);
        let Some(usual) = self.usual_interval else {
            self.usual_interval = Some(interval);
            return;
        };
        if interval > (usual * 3).max(usual + FREEZE_MARGIN) {
            totals.freezes += 1;
            totals.freeze_ms += interval.as_millis() as u64;
        }
        self.usual_interval = Some((usual * (FRAME_SMOOTHING - 1) + interval) / FRAME_SMOOTHING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(codec: Codec) -> (ReceiveStream, Instant) {
        let now = Instant::now();
        let track = ExpectedTrack {
            ssrc: 1,
            repair_ssrc: Some(2),
            codec: Some(codec),
            clock_rate: 90_000,
            nack: true,
            wanted_at: now,
        };
        (ReceiveStream::new(&track), now)
    }

    struct Sink(ReceiveTotals, Measurements);

    impl Sink {
        fn new() -> Self {
            Self(ReceiveTotals::default(), Measurements::default())
        }

        fn feed(&mut self, stream: &mut ReceiveStream, now: Instant, seq: u16) {
            let arrival = Arrival { now, seq, timestamp: u32::from(seq) * 3000, marker: true };
            stream.on_packet(arrival, false, &mut self.0, &mut self.1);
        }
    }

    #[test]
    fn lost_number_is_asked_for_and_counts_as_recovered_when_repaired() {
        let (mut stream, now) = stream(Codec::Vp8);
        let mut sink = Sink::new();
        for seq in [65_534, 65_535, 1] {
            sink.feed(&mut stream, now, seq);
        }
        assert_eq!(sink.0.gaps, 1);
        assert!(stream.missing_to_request(now, &mut sink.0).is_empty(), "may be reordering");
        let later = now + Duration::from_millis(20);
        assert_eq!(stream.missing_to_request(later, &mut sink.0), [0]);
        stream.on_repair(0, &mut sink.0);
        stream.on_repair(0, &mut sink.0);
        assert_eq!((sink.0.recovered, sink.0.duplicates, sink.0.lost), (1, 1, 0));
        assert_eq!(stream.report_block(later).unwrap().cumulative_lost, 0);
    }

    #[test]
    fn number_that_never_comes_is_lost() {
        let (mut stream, now) = stream(Codec::Vp8);
        let mut sink = Sink::new();
        sink.feed(&mut stream, now, 10);
        sink.feed(&mut stream, now, 12);
        let block = stream.report_block(now).unwrap();
        assert_eq!((block.cumulative_lost, block.fraction_lost), (1, 85));
        stream.missing_to_request(now + PATIENCE, &mut sink.0);
        assert_eq!(sink.0.lost, 1);
    }

    #[test]
    fn first_frame_counts_from_its_key_frame_to_its_marker() {
        let (mut stream, now) = stream(Codec::Vp8);
        let mut sink = Sink::new();
        let at = |ms: u64, marker| Arrival {
            now: now + Duration::from_millis(ms),
            seq: ms as u16,
            timestamp: 9,
            marker,
        };
        stream.on_opened(at(1, true), false, &mut sink.1);
        assert_eq!(sink.1.first_frame.count(), 0);
        stream.on_opened(at(20, false), true, &mut sink.1);
        stream.on_opened(at(30, true), false, &mut sink.1);
        assert_eq!(sink.1.first_frame.count(), 1);
        assert!((sink.1.first_frame.quantile_ms(1.0) - 30.0).abs() < 0.1);
    }

    #[test]
    fn long_pause_between_frames_is_a_freeze() {
        let (mut stream, now) = stream(Codec::Vp8);
        let mut sink = Sink::new();
        for frame in 0..30u64 {
            sink.feed(&mut stream, now + Duration::from_millis(33 * frame), frame as u16);
        }
        assert_eq!(sink.0.freezes, 0);
        sink.feed(&mut stream, now + Duration::from_millis(33 * 29 + 400), 30);
        assert_eq!((sink.0.freezes, sink.0.freeze_ms), (1, 400));
    }
}
