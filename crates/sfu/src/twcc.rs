//! Transport-wide feedback to a publisher: which of its packets arrived, and when
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). Its congestion control lives on it.
//!
//! Every packet of the peer, of all tracks and of RTX, is noted; a report goes out every 100 ms
//! while packets come. A packet that comes after its absence was reported is reported again,
//! together with what followed it, as libwebrtc's `TransportSequenceNumberFeedbackGenerator` does.

use std::time::{Duration, Instant};

use sluice_rtp::SeqUnwrapper;
use sluice_rtp::rtcp::write::{self, Arrival, FeedbackHeader};

/// Time between reports (libwebrtc's default, mediasoup, LiveKit).
const INTERVAL: Duration = Duration::from_millis(100);

/// How long an arrival is kept to be reported again (libwebrtc `kBackWindow`).
const BACK_WINDOW: Duration = Duration::from_millis(500);

/// Arrivals kept at most: 100 Mbit/s of full packets for the back window, and some.
const MAX_ARRIVALS: usize = 8_192;

/// Distance to the newest number beyond which the numbering is taken to have started anew
/// (libwebrtc `kMaxNumberOfPackets`, the reach of the unwrapping).
const MAX_BACK: u64 = 1 << 15;

/// Records the arrivals of one peer.
#[derive(Debug)]
pub struct TwccReceiver {
    sender_ssrc: u32,
    media_ssrc: u32,
    unwrapper: SeqUnwrapper,
    /// Sorted by number, without repetition.
    arrivals: Vec<Arrival>,
    /// First number that the next report covers.
    next_seq: Option<u64>,
    /// Zero of the arrival times.
    epoch: Option<Instant>,
    deadline: Option<Instant>,
    feedback_count: u8,
    overflows: u64,
}

impl TwccReceiver {
    /// `sender_ssrc` names us in the reports.
    pub fn new(sender_ssrc: u32) -> Self {
        Self {
            sender_ssrc,
            media_ssrc: 0,
            unwrapper: SeqUnwrapper::new(),
            arrivals: Vec::new(),
            next_seq: None,
            epoch: None,
            deadline: None,
            feedback_count: 0,
            overflows: 0,
        }
    }

    /// Notes a packet with its transport-wide number.
    pub fn on_packet(&mut self, now: Instant, media_ssrc: u32, transport_seq: u16) {
        self.media_ssrc = media_ssrc;
        let epoch = *self.epoch.get_or_insert(now);
        let newest = self.unwrapper.newest();
        let seq = self.unwrapper.unwrap(transport_seq);
        if newest.is_some_and(|newest| seq + MAX_BACK <= newest) {
            return;
        }
        let time_us = now.saturating_duration_since(epoch).as_micros() as i64;
        if self.arrivals.len() >= MAX_ARRIVALS {
            self.forget(now);
        }
        let at = self.arrivals.partition_point(|arrival| arrival.seq < seq);
        if self.arrivals.get(at).is_some_and(|arrival| arrival.seq == seq) {
            return;
        }
        if self.arrivals.len() >= MAX_ARRIVALS {
            self.overflows += 1;
            return;
        }
        self.arrivals.insert(at, Arrival { seq, time_us });
        let next = self.next_seq.get_or_insert(seq);
        *next = (*next).min(seq);
        self.deadline.get_or_insert(now + INTERVAL);
    }

    /// Appends the report that is due, as RTCP packets; nothing otherwise.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.deadline.is_none_or(|at| now < at) {
            return;
        }
        self.deadline = None;
        let Some(mut base_seq) = self.next_seq else { return };
        let first = self.arrivals.partition_point(|arrival| arrival.seq < base_seq);
        let mut rest = &self.arrivals[first..];
        while let Some(last) = rest.last() {
            let header = FeedbackHeader {
                sender_ssrc: self.sender_ssrc,
                media_ssrc: self.media_ssrc,
                base_seq,
                feedback_count: self.feedback_count,
            };
            self.feedback_count = self.feedback_count.wrapping_add(1);
            let covered = write::transport_cc(out, &header, rest);
            self.next_seq = Some(last.seq + 1);
            let Some((done, left)) = rest.split_at_checked(covered.max(1)) else { break };
            base_seq = done.last().map_or(base_seq, |arrival| arrival.seq + 1);
            rest = left;
        }
        self.forget(now);
    }

    /// When [`poll`](Self::poll) has a report.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Arrivals that were not reported because too many came at once.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    fn forget(&mut self, now: Instant) {
        let Some(epoch) = self.epoch else { return };
        let oldest = now.saturating_duration_since(epoch).saturating_sub(BACK_WINDOW);
        let oldest = oldest.as_micros() as i64;
        let keep = self.arrivals.iter().position(|arrival| arrival.time_us >= oldest);
        self.arrivals.drain(..keep.unwrap_or(self.arrivals.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;
    use sluice_rtp::rtcp::{Rtcp, RtcpIter, TICK_US};
    use std::collections::BTreeMap;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// What the reports in `bytes` say: number to arrival in ticks, the last word counts.
    fn read(bytes: &[u8], told: &mut BTreeMap<u16, Option<i64>>) -> Vec<u8> {
        let mut counts = Vec::new();
        for packet in RtcpIter::new(bytes) {
            let Ok(Rtcp::TransportCc(feedback)) = packet else { panic!("{packet:?}") };
            counts.push(feedback.feedback_count);
            for status in feedback.statuses() {
                told.insert(status.seq, status.arrival_ticks);
            }
        }
        counts
    }

    #[test]
    fn reports_go_out_every_100_ms_while_packets_come() {
        let t0 = epoch();
        let mut twcc = TwccReceiver::new(1);
        let mut out = Vec::new();
        assert_eq!(twcc.poll_timeout(), None);
        twcc.on_packet(t0, 9, 65_535);
        twcc.on_packet(t0 + ms(30), 9, 1);
        twcc.poll(t0 + ms(99), &mut out);
        assert!(out.is_empty());
        assert_eq!(twcc.poll_timeout(), Some(t0 + ms(100)));
        twcc.poll(t0 + ms(100), &mut out);
        let mut told = BTreeMap::new();
        assert_eq!(read(&out, &mut told), [0]);
        assert_eq!(told, BTreeMap::from([(65_535, Some(0)), (0, None), (1, Some(120))]));
        assert_eq!(twcc.poll_timeout(), None);
    }

    #[test]
    fn loss_between_two_reports_is_in_the_second() {
        let t0 = epoch();
        let mut twcc = TwccReceiver::new(1);
        twcc.on_packet(t0, 9, 10);
        twcc.poll(t0 + ms(100), &mut Vec::new());
        twcc.on_packet(t0 + ms(110), 9, 13);
        let mut out = Vec::new();
        twcc.poll(t0 + ms(210), &mut out);
        let mut told = BTreeMap::new();
        assert_eq!(read(&out, &mut told), [1]);
        assert_eq!(told.keys().copied().collect::<Vec<_>>(), [11, 12, 13]);
        assert_eq!((told[&11], told[&12]), (None, None));
    }

    #[test]
    fn a_late_packet_is_reported_with_what_followed_it() {
        let t0 = epoch();
        let mut twcc = TwccReceiver::new(1);
        for (seq, at) in [(10, 0), (12, 10), (13, 20)] {
            twcc.on_packet(t0 + ms(at), 9, seq);
        }
        twcc.poll(t0 + ms(100), &mut Vec::new());
        twcc.on_packet(t0 + ms(120), 9, 11);
        let mut out = Vec::new();
        twcc.poll(t0 + ms(220), &mut out);
        let mut told = BTreeMap::new();
        read(&out, &mut told);
        let at = |ms: i64| Some(ms * 1_000 / TICK_US);
        assert_eq!(told, BTreeMap::from([(11, at(120)), (12, at(10)), (13, at(20))]));
    }

    #[test]
    fn duplicates_and_numbers_of_long_ago_are_ignored() {
        let t0 = epoch();
        let mut twcc = TwccReceiver::new(1);
        twcc.on_packet(t0, 9, 40_000);
        twcc.on_packet(t0 + ms(50), 9, 40_000);
        assert_eq!(twcc.arrivals.len(), 1);
        assert_eq!(twcc.arrivals[0].time_us, 0);
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let t0 = epoch();
        let mut twcc = TwccReceiver::new(1);
        for seq in 0..10_000 {
            twcc.on_packet(t0, 9, seq);
        }
        assert_eq!(twcc.arrivals.len(), MAX_ARRIVALS);
        assert_eq!(twcc.overflows(), 10_000 - MAX_ARRIVALS as u64);
        let mut out = Vec::new();
        twcc.poll(t0 + ms(100), &mut out);
        let mut told = BTreeMap::new();
        read(&out, &mut told);
        assert_eq!(told.len(), MAX_ARRIVALS);
        twcc.on_packet(t0 + ms(700), 9, 10_001);
        twcc.poll(t0 + ms(800), &mut Vec::new());
        assert_eq!(twcc.arrivals.len(), 1);
    }

    #[test]
    fn a_day_of_traffic_reports_every_packet_once() {
        let t0 = epoch();
        let mut twcc = TwccReceiver::new(1);
        let mut reported = 0u64;
        for i in 0..200_000u64 {
            let now = t0 + ms(i * 3);
            twcc.on_packet(now, 9, i as u16);
            let mut out = Vec::new();
            twcc.poll(now, &mut out);
            let mut told = BTreeMap::new();
            read(&out, &mut told);
            assert!(told.values().all(Option::is_some));
            reported += told.len() as u64;
        }
        assert!(reported > 199_900 && reported <= 200_000);
    }
}
