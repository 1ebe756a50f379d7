//! What was sent, by transport-wide sequence number, and what feedback says about it.
//!
//! A ring of small records that doubles while more is underway, up to a bound. Feedback becomes
//! [`PacketResult`]s in the order of sending: arrived, or lost. A packet reported as lost that
//! turns up later is told again as arrived.

use std::time::{Duration, Instant};

use sluice_rtp::SeqUnwrapper;
use sluice_rtp::rtcp::{TICK_US, TransportFeedback};

use super::PacketSent;

/// Records at the start.
const MIN_CAPACITY: usize = 256;

/// Records at most: 20 Mbit/s of full packets for four seconds.
const MAX_CAPACITY: usize = 8_192;

/// A wrap of the 24-bit reference time, ticks of [`TICK_US`].
const REFERENCE_WRAP_TICKS: i64 = 1 << 32;

/// What is known of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Underway,
    Lost,
    Arrived,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    sent_us: i64,
    size: u16,
    probe: Option<u16>,
    fate: Fate,
}

/// What became of a packet. Times are microseconds: `sent_us` since the history was made,
/// `arrival_us` on the receiver's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketResult {
    /// Extended transport-wide sequence number.
    pub seq: u64,
    /// When it was sent.
    pub sent_us: i64,
    /// When it arrived; `None` if lost.
    pub arrival_us: Option<i64>,
    /// Bytes.
    pub size: u32,
    /// The probe that it was part of.
    pub probe: Option<u16>,
    /// Whether it was told as lost before.
    pub was_lost: bool,
}

/// What one feedback message told beside the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedbackSummary {
    /// Time from sending the newest packet that arrived to its feedback.
    pub feedback_rtt: Duration,
    /// Bytes still underway.
    pub in_flight: u64,
}

/// The packets sent.
#[derive(Debug)]
pub struct SentHistory {
    epoch: Instant,
    /// When the newest packet was sent, also in microseconds: others leave at the same instant.
    last_sent: (Instant, i64),
    ring: Vec<Option<Record>>,
    seqs: SeqUnwrapper,
    /// First number that the ring may hold.
    oldest: u64,
    /// Number after the newest.
    next: u64,
    in_flight: u64,
    last_ticks: Option<i64>,
    dropped: u64,
}

impl SentHistory {
    /// Nothing sent.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            last_sent: (now, 0),
            ring: vec![None; MIN_CAPACITY],
            seqs: SeqUnwrapper::new(),
            oldest: 0,
            next: 0,
            in_flight: 0,
            last_ticks: None,
            dropped: 0,
        }
    }

    /// Microseconds since the history was made.
    pub fn micros(&self, now: Instant) -> i64 {
        now.saturating_duration_since(self.epoch).as_micros() as i64
    }

    /// Notes a packet.
    pub fn push(&mut self, now: Instant, packet: &PacketSent) {
        let seq = self.seqs.unwrap(packet.transport_seq);
        if self.next == 0 {
            self.oldest = seq;
        }
        // Numbers are given in order; anything else is a caller that began anew.
        while self.next > self.oldest && seq >= self.oldest + self.ring.len() as u64 {
            self.make_room();
        }
        self.oldest = self.oldest.max((seq + 1).saturating_sub(self.ring.len() as u64));
        self.next = self.next.max(seq + 1);
        if now != self.last_sent.0 {
            self.last_sent = (now, self.micros(now));
        }
        let record = Record {
            sent_us: self.last_sent.1,
            size: packet.size.try_into().unwrap_or(u16::MAX),
            probe: packet.probe,
            fate: Fate::Underway,
        };
        self.in_flight += u64::from(record.size);
        let slot = self.slot(seq);
        self.ring[slot] = Some(record);
    }

    /// Bytes sent of which nothing was told yet.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Packets forgotten before anything was told of them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Joins a message with what was sent. `results` is emptied and filled, in the order of
    /// sending. `None` if the message tells of nothing that was sent.
    pub fn on_feedback(
        &mut self,
        now: Instant,
        feedback: &TransportFeedback<'_>,
        results: &mut Vec<PacketResult>,
    ) -> Option<FeedbackSummary> {
        results.clear();
        if self.next == 0 {
            return None;
        }
        let shift = self.clock_shift(feedback);
        let base = self.seqs.peek(feedback.base_seq);
        let mut newest_sent = None;
        for (index, status) in feedback.statuses().enumerate() {
            let seq = base + index as u64;
            // A message can claim far more than was sent: the walk ends there.
            if seq >= self.next {
                break;
            }
            let Some(record) = self.record(seq) else { continue };
            let arrival_us = status.arrival_ticks.map(|ticks| (ticks + shift) * TICK_US);
            let was_lost = record.fate == Fate::Lost;
            match (record.fate, arrival_us) {
                (Fate::Arrived, _) | (Fate::Lost, None) => continue,
                (_, Some(_)) => record.fate = Fate::Arrived,
                (_, None) => record.fate = Fate::Lost,
            }
            let Record { sent_us, size, probe, .. } = *record;
            if arrival_us.is_some() {
                newest_sent = newest_sent.max(Some(sent_us));
            }
            if !was_lost {
                self.in_flight = self.in_flight.saturating_sub(u64::from(size));
            }
            let size = u32::from(size);
            results.push(PacketResult { seq, sent_us, arrival_us, size, probe, was_lost });
        }
        self.advance_oldest();
        let newest_sent = newest_sent?;
        let feedback_rtt = (self.micros(now) - newest_sent).max(0) as u64;
        Some(FeedbackSummary {
            feedback_rtt: Duration::from_micros(feedback_rtt),
            in_flight: self.in_flight,
        })
    }

    fn slot(&self, seq: u64) -> usize {
        seq as usize & (self.ring.len() - 1)
    }

    fn record(&mut self, seq: u64) -> Option<&mut Record> {
        if seq < self.oldest || seq >= self.next {
            return None;
        }
        let slot = self.slot(seq);
        self.ring[slot].as_mut()
    }

    /// Makes place for one more number: by growth, or by forgetting the oldest.
    fn make_room(&mut self) {
        let settled = self.record(self.oldest).is_none_or(|record| record.fate != Fate::Underway);
        if !settled && self.ring.len() < MAX_CAPACITY {
            return self.grow();
        }
        // Feedback of what is older than a ring is not worth waiting for.
        self.forget_oldest();
    }

    fn grow(&mut self) {
        let mut ring = vec![None; self.ring.len() * 2];
        let mask = ring.len() - 1;
        for seq in self.oldest..self.next {
            ring[seq as usize & mask] = self.ring[self.slot(seq)];
        }
        self.ring = ring;
    }

    fn forget_oldest(&mut self) {
        let slot = self.slot(self.oldest);
        if let Some(record) = self.ring[slot].take()
            && record.fate == Fate::Underway
        {
            self.in_flight = self.in_flight.saturating_sub(u64::from(record.size));
            self.dropped += 1;
        }
        self.oldest += 1;
    }

    /// Forgets the packets at the old end of which all is known.
    fn advance_oldest(&mut self) {
        while self.oldest < self.next {
            let slot = self.slot(self.oldest);
            match self.ring[slot].map(|record| record.fate) {
                Some(Fate::Underway | Fate::Lost) => return,
                Some(Fate::Arrived) | None => self.forget_oldest(),
            }
        }
    }

    /// Ticks to add to a message's times so that they continue those of the message before.
    fn clock_shift(&mut self, feedback: &TransportFeedback<'_>) -> i64 {
        let ticks = i64::from(feedback.reference_time) * 256;
        let last = self.last_ticks.unwrap_or(ticks);
        let half = REFERENCE_WRAP_TICKS / 2;
        let shift = (last - ticks + half).div_euclid(REFERENCE_WRAP_TICKS) * REFERENCE_WRAP_TICKS;
        self.last_ticks = Some(ticks + shift);
        shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;
    use sluice_rtp::rtcp::write::{self, Arrival, FeedbackHeader};
    use sluice_rtp::rtcp::{Rtcp, RtcpIter};

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn sent(transport_seq: u16) -> PacketSent {
        PacketSent { transport_seq, size: 1_000, probe: None }
    }

    /// One message about `arrivals` (number, ms), from `base` on.
    fn message(base: u64, arrivals: &[(u64, i64)]) -> Vec<u8> {
        let header =
            FeedbackHeader { sender_ssrc: 1, media_ssrc: 2, base_seq: base, feedback_count: 0 };
        let arrivals: Vec<Arrival> =
            arrivals.iter().map(|(seq, at)| Arrival { seq: *seq, time_us: at * 1_000 }).collect();
        let mut out = Vec::new();
        write::transport_cc(&mut out, &header, &arrivals);
        out
    }

    fn feed(history: &mut SentHistory, now: Instant, bytes: &[u8]) -> Vec<PacketResult> {
        let mut results = Vec::new();
        for packet in RtcpIter::new(bytes).flatten() {
            if let Rtcp::TransportCc(feedback) = packet {
                history.on_feedback(now, &feedback, &mut results);
            }
        }
        results
    }

    #[test]
    fn feedback_becomes_results_once_and_late_arrivals_are_told_again() {
        let t0 = epoch();
        let mut history = SentHistory::new(t0);
        (65_534..65_540u32).for_each(|seq| history.push(t0, &sent(seq as u16)));
        assert_eq!(history.in_flight(), 6_000);
        let bytes = message(65_534, &[(65_534, 10), (65_537, 12)]);
        let results = feed(&mut history, t0 + ms(50), &bytes);
        let arrived: Vec<bool> = results.iter().map(|r| r.arrival_us.is_some()).collect();
        assert_eq!(arrived, [true, false, false, true]);
        assert_eq!(history.in_flight(), 2_000);
        assert_eq!(feed(&mut history, t0 + ms(60), &bytes), []);
        let late = feed(&mut history, t0 + ms(70), &message(65_535, &[(65_535, 14)]));
        assert_eq!(late.len(), 1);
        assert!(late[0].was_lost && late[0].arrival_us.is_some());
    }

    #[test]
    fn a_message_about_packets_never_sent_says_nothing() {
        let t0 = epoch();
        let mut history = SentHistory::new(t0);
        let bytes = message(100, &[(100, 1), (30_000, 2)]);
        assert_eq!(feed(&mut history, t0, &bytes), []);
        history.push(t0, &sent(100));
        assert_eq!(feed(&mut history, t0, &bytes).len(), 1);
    }

    #[test]
    fn the_ring_grows_to_its_bound_and_then_forgets() {
        let t0 = epoch();
        let mut history = SentHistory::new(t0);
        (0..20_000u32).for_each(|seq| history.push(t0, &sent(seq as u16)));
        assert_eq!(history.ring.len(), MAX_CAPACITY);
        assert_eq!(history.in_flight(), MAX_CAPACITY as u64 * 1_000);
        assert_eq!(history.dropped(), 20_000 - MAX_CAPACITY as u64);
    }

    #[test]
    fn arrival_times_go_on_over_the_wrap_of_the_reference_time() {
        let t0 = epoch();
        let mut history = SentHistory::new(t0);
        (0..2).for_each(|seq| history.push(t0, &sent(seq)));
        // The reference time is signed, 24 bits of 64 ms: it wraps from here to negative.
        let top = (1i64 << 23) * 64 - 64;
        let first = feed(&mut history, t0, &message(0, &[(0, top)]));
        let second = feed(&mut history, t0, &message(1, &[(1, top + 100)]));
        let delta = second[0].arrival_us.expect("arrived") - first[0].arrival_us.expect("arrived");
        assert_eq!(delta, 100_000);
    }
}
