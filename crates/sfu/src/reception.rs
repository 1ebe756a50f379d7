//! Reception statistics of one SSRC as RFC 3550 appendix A defines them, for the report blocks
//! that the publisher gets.

use std::time::{Duration, Instant};

use sluice_rtp::ntp::{self, NtpTime};
use sluice_rtp::rtcp::ReportBlock;

/// Largest cumulative loss that a report block can carry (24 bits, signed).
const MAX_CUMULATIVE_LOST: i64 = (1 << 23) - 1;

/// Smallest cumulative loss that a report block can carry.
const MIN_CUMULATIVE_LOST: i64 = -(1 << 23);

/// What arrived of one SSRC.
#[derive(Debug, Clone)]
pub struct ReceptionStats {
    clock_rate: u32,
    /// First and highest extended sequence number.
    range: Option<(u64, u64)>,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    /// Interarrival jitter in timestamp units, times 16 (RFC 3550 A.8).
    jitter_q4: u64,
    /// Arrival and timestamp of the last packet that entered the jitter.
    last: Option<(Instant, u32)>,
    last_sr: Option<(NtpTime, Instant)>,
}

impl ReceptionStats {
    /// Nothing received yet. `clock_rate` in Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate: clock_rate.max(1),
            range: None,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            jitter_q4: 0,
            last: None,
            last_sr: None,
        }
    }

    /// Counts a packet that is no duplicate and no retransmission.
    pub fn on_packet(&mut self, now: Instant, ext_seq: u64, timestamp: u32) {
        self.received += 1;
        let in_order = match &mut self.range {
            None => {
                self.range = Some((ext_seq, ext_seq));
                true
            }
            Some((first, highest)) => {
                *first = (*first).min(ext_seq);
                let in_order = ext_seq > *highest;
                *highest = (*highest).max(ext_seq);
                in_order
            }
        };
        if in_order {
            self.update_jitter(now, timestamp);
        }
    }

    /// The clock behind the extended sequence number started anew: loss counts from here.
    pub fn restart(&mut self) {
        *self = Self { last_sr: self.last_sr, ..Self::new(self.clock_rate) };
    }

    /// Notes a sender report of this SSRC, for `LSR` and `DLSR`.
    pub fn on_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.last_sr = Some((ntp, now));
    }

    /// The report block of the interval since the last call; `None` before the first packet.
    pub fn report(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        let (_, highest) = self.range?;
        let expected = self.expected();
        let lost = expected as i64 - self.received as i64;
        let fraction_lost = self.close_interval(expected);
        let (last_sr, delay_since_last_sr) = match self.last_sr {
            None => (0, 0),
            Some((ntp, at)) => {
                (ntp.compact(), ntp::compact_from_duration(now.saturating_duration_since(at)))
            }
        };
        Some(ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost: lost.clamp(MIN_CUMULATIVE_LOST, MAX_CUMULATIVE_LOST) as i32,
            highest_seq: highest as u32,
            jitter: (self.jitter_q4 >> 4) as u32,
            last_sr,
            delay_since_last_sr,
        })
    }

    /// Packets expected from the sequence numbers.
    pub fn expected(&self) -> u64 {
        self.range.map_or(0, |(first, highest)| highest - first + 1)
    }

    /// Packets received, retransmissions and duplicates apart.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Interarrival jitter.
    pub fn jitter(&self) -> Duration {
        Duration::from_nanos((self.jitter_q4 >> 4) * 1_000_000_000 / u64::from(self.clock_rate))
    }

    /// RFC 3550 A.3: loss in 1/256 since the last call.
    fn close_interval(&mut self, expected: u64) -> u8 {
        // A late first packet moves the start back, duplicates do not count: never negative.
        let expected_interval = expected.saturating_sub(self.expected_prior);
        let received_interval = self.received - self.received_prior;
        self.expected_prior = expected;
        self.received_prior = self.received;
        let lost_interval = expected_interval.saturating_sub(received_interval);
        if expected_interval == 0 {
            return 0;
        }
        ((lost_interval << 8) / expected_interval).min(255) as u8
    }

    /// RFC 3550 A.8, in integers.
    fn update_jitter(&mut self, now: Instant, timestamp: u32) {
        if let Some((last_arrival, last_timestamp)) = self.last {
            let elapsed = now.saturating_duration_since(last_arrival);
            let arrival = (elapsed.as_nanos() * u128::from(self.clock_rate) / 1_000_000_000) as i64;
            let sent = i64::from(timestamp.wrapping_sub(last_timestamp) as i32);
            let difference = (arrival - sent).unsigned_abs();
            self.jitter_q4 = self.jitter_q4 + difference - ((self.jitter_q4 + 8) >> 4);
        }
        self.last = Some((now, timestamp));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    const SSRC: u32 = 7;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn no_block_before_the_first_packet() {
        assert!(ReceptionStats::new(48_000).report(epoch(), SSRC).is_none());
    }

    #[test]
    fn fraction_is_of_the_interval_and_cumulative_is_of_the_session() {
        let t0 = epoch();
        let mut stats = ReceptionStats::new(90_000);
        for seq in (0..100).filter(|s| s % 4 != 3) {
            stats.on_packet(t0 + ms(seq), seq, seq as u32 * 90);
        }
        let block = stats.report(t0, SSRC).expect("packets came");
        // Number 99 is not known to be missing yet: 24 of 99.
        assert_eq!((block.fraction_lost, block.cumulative_lost), (62, 24));
        for seq in 100..200 {
            stats.on_packet(t0 + ms(seq), seq, seq as u32 * 90);
        }
        let block = stats.report(t0, SSRC).expect("packets came");
        assert_eq!((block.fraction_lost, block.cumulative_lost), (2, 25));
        assert_eq!(block.highest_seq, 199);
    }

    #[test]
    fn late_packets_repair_the_cumulative_loss() {
        let t0 = epoch();
        let mut stats = ReceptionStats::new(90_000);
        for seq in [10, 12, 11] {
            stats.on_packet(t0, seq, 0);
        }
        assert_eq!(stats.report(t0, SSRC).map(|b| b.cumulative_lost), Some(0));
    }

    #[test]
    fn an_even_stream_has_no_jitter_and_an_uneven_one_converges_on_its_deviation() {
        let t0 = epoch();
        let (mut even, mut uneven) = (ReceptionStats::new(48_000), ReceptionStats::new(48_000));
        for i in 0..1_000u64 {
            let late = if i % 2 == 0 { 0 } else { 5 };
            even.on_packet(t0 + ms(i * 20), i, i as u32 * 960);
            uneven.on_packet(t0 + ms(i * 20 + late), i, i as u32 * 960);
        }
        assert_eq!(even.jitter(), Duration::ZERO);
        let jitter = uneven.jitter();
        assert!((ms(4)..=ms(6)).contains(&jitter), "{jitter:?}");
    }

    #[test]
    fn timestamp_wrap_is_no_jitter() {
        let t0 = epoch();
        let mut stats = ReceptionStats::new(48_000);
        for i in 0..100u64 {
            stats.on_packet(t0 + ms(i * 20), i, (u32::MAX - 9_600).wrapping_add(i as u32 * 960));
        }
        assert_eq!(stats.jitter(), Duration::ZERO);
    }

    #[test]
    fn last_sender_report_is_echoed_with_its_age() {
        let t0 = epoch();
        let mut stats = ReceptionStats::new(48_000);
        stats.on_packet(t0, 1, 0);
        stats.on_sender_report(t0, NtpTime::from_bits(0x1234_5678_9abc_def0));
        let block = stats.report(t0 + ms(1_500), SSRC).expect("a packet came");
        assert_eq!(block.last_sr, 0x5678_9abc);
        assert_eq!(block.delay_since_last_sr, 0x0001_8000);
    }
}
