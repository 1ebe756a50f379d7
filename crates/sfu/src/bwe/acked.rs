//! What arrives: the rate of acknowledged bytes over a short window of arrivals.
//!
//! The lower of the rates of sending and of arriving over the same packets, like libwebrtc's
//! `robust_throughput_estimator.cc`, so that a burst released by a queue does not count as
//! capacity.

use std::collections::VecDeque;

use super::history::PacketResult;

/// Least span of the window, microseconds; long enough for two pictures of any layer.
const MIN_SPAN_US: i64 = 500_000;
/// Newest part of the window, microseconds.
const RECENT_US: i64 = 200_000;
/// Span after which even few packets are forgotten.
const MAX_SPAN_US: i64 = 2_000_000;
/// Packets below which the window stretches towards [`MAX_SPAN_US`].
const MIN_PACKETS: usize = 20;
/// Packets kept at most.
const MAX_PACKETS: usize = 1_024;
/// Packets before there is a rate (libwebrtc `required_packets`).
const REQUIRED: usize = 10;
/// The same behind a standing queue, out of which packets come as the path lets them: a slow path that
/// is flooded from the first packet on must not wait for more.
const REQUIRED_OF_QUEUE: usize = 5;

#[derive(Debug, Clone, Copy)]
struct Acked {
    sent_us: i64,
    arrival_us: i64,
    size: u32,
}

/// What arrives, bits per second; `None` until enough packets arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckedRates {
    /// The higher of the whole window and of its newest part, which tells sooner that a larger
    /// layer has begun.
    pub current_bps: Option<u64>,
    /// What a full path delivers: the lower of the two. Only while a queue stands.
    pub bottleneck_bps: Option<u64>,
}

/// The meter.
#[derive(Debug)]
pub struct AckedBitrate {
    packets: VecDeque<Acked>,
}

impl Default for AckedBitrate {
    fn default() -> Self {
        Self { packets: VecDeque::with_capacity(64) }
    }
}

impl AckedBitrate {
    /// Takes the packets of a message; lost ones are ignored.
    pub fn on_results(&mut self, results: &[PacketResult]) {
        results.iter().for_each(|result| self.on_packet(result));
        self.forget();
    }

    fn on_packet(&mut self, result: &PacketResult) {
        let Some(arrival_us) = result.arrival_us else { return };
        let acked = Acked { sent_us: result.sent_us, arrival_us, size: result.size };
        if self.packets.back().is_some_and(|last| arrival_us < last.arrival_us - MAX_SPAN_US) {
            self.packets.clear();
        }
        // Reordering moves a packet by a few places.
        let back = self.packets.iter().rev().take_while(|p| p.arrival_us > arrival_us).count();
        if back == 0 {
            self.packets.push_back(acked);
        } else {
            self.packets.insert(self.packets.len() - back, acked);
        }
    }

    /// Bits per second, as far as they are known.
    pub fn rates(&self) -> AckedRates {
        let (whole, recent) = (self.rate_after(0, MIN_SPAN_US / 4), self.recent_bps());
        let bottleneck_bps = match whole {
            // Not lower than half: little arrives as well when little was sent.
            Some(whole) => Some(recent.map_or(whole, |recent| recent.clamp(whole / 2, whole))),
            None => self.rate_of(0, REQUIRED_OF_QUEUE, MIN_SPAN_US / 8),
        };
        AckedRates { current_bps: whole.max(recent), bottleneck_bps }
    }

    fn recent_bps(&self) -> Option<u64> {
        let newest = self.packets.back()?.arrival_us;
        let recent = self.packets.iter().rev().take_while(|p| p.arrival_us + RECENT_US >= newest);
        let skip = self.packets.len() - recent.count();
        self.rate_after(skip, RECENT_US * 4 / 5)
    }

    /// The rate of the packets after the first `skip`, over at least `min_span` microseconds.
    fn rate_after(&self, skip: usize, min_span: i64) -> Option<u64> {
        self.rate_of(skip, REQUIRED, min_span)
    }

    /// The same of at least `required` packets.
    fn rate_of(&self, skip: usize, required: usize, min_span: i64) -> Option<u64> {
        let (first, last) = (self.packets.get(skip)?, self.packets.back()?);
        if self.packets.len() - skip < required {
            return None;
        }
        let (mut total, mut from, mut to) = (0, i64::MAX, i64::MIN);
        for packet in self.packets.range(skip..) {
            total += u64::from(packet.size);
            from = from.min(packet.sent_us);
            to = to.max(packet.sent_us);
        }
        let arrived = total - u64::from(first.size);
        let arrival_span = (last.arrival_us - first.arrival_us).max(1);
        // The spans leave out one packet each; bursts would count too much over a short one.
        let span = arrival_span.max(to - from).max(min_span);
        Some(arrived * 8 * 1_000_000 / span as u64)
    }

    fn forget(&mut self) {
        let Some(newest) = self.packets.back().map(|packet| packet.arrival_us) else { return };
        while let Some(first) = self.packets.front() {
            let age = newest - first.arrival_us;
            let enough = self.packets.len() > MIN_PACKETS && age > MIN_SPAN_US;
            if !enough && age <= MAX_SPAN_US && self.packets.len() <= MAX_PACKETS {
                return;
            }
            self.packets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sent_ms: i64, arrival_ms: i64) -> PacketResult {
        PacketResult {
            seq: 0,
            sent_us: sent_ms * 1_000,
            arrival_us: Some(arrival_ms * 1_000),
            size: 1_250,
            probe: None,
            was_lost: false,
        }
    }

    #[test]
    fn a_steady_stream_has_its_rate() {
        let mut acked = AckedBitrate::default();
        (0..100).for_each(|i| acked.on_results(&[packet(i * 10, i * 10 + 20)]));
        assert_eq!(acked.rates().current_bps, Some(1_000_000));
    }

    #[test]
    fn a_burst_out_of_a_queue_is_not_faster_than_it_was_sent() {
        let mut acked = AckedBitrate::default();
        (0..60).for_each(|i| acked.on_results(&[packet(i * 10, 600 + i)]));
        let rate = acked.rates().current_bps.expect("enough packets");
        assert!(rate <= 1_000_000, "{rate}");
    }

    #[test]
    fn a_few_packets_are_no_rate() {
        let mut acked = AckedBitrate::default();
        (0..5).for_each(|i| acked.on_results(&[packet(i, i)]));
        assert_eq!(acked.rates().current_bps, None);
    }

    #[test]
    fn a_few_packets_out_of_a_queue_are_one() {
        let mut acked = AckedBitrate::default();
        (0..6).for_each(|i| acked.on_results(&[packet(i, i * 40)]));
        let AckedRates { current_bps, bottleneck_bps } = acked.rates();
        assert_eq!((current_bps, bottleneck_bps), (None, Some(250_000)));
    }
}
