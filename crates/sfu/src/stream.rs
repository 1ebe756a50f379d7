//! One received SSRC: where its packets lie in an endless numbering, which came before, which are
//! missing.

use std::time::{Duration, Instant};

use sluice_rtp::NtpTime;
use sluice_rtp::rtcp::ReportBlock;

use crate::drop_reason::DropReason;
use crate::nack::NackGenerator;
use crate::reception::ReceptionStats;

/// Largest step forward taken at once, packets (RFC 3550 A.1 `MAX_DROPOUT`).
const MAX_DROPOUT: u16 = 3_000;

/// How far behind the newest a packet may come, packets. RFC 3550's `MAX_MISORDER` of 100 is for
/// streams without retransmission.
const WINDOW: u64 = 1_024;

/// In-order packets behind the window that prove a restart there: a few stragglers must not.
const RUN_BEHIND: u8 = 8;

const WINDOW_WORDS: usize = WINDOW as usize / 64;

/// Where a packet was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Extended sequence number, ascending over restarts.
    pub ext_seq: u64,
    /// Packets with higher numbers that had arrived before.
    pub newer: u16,
    /// Whether the stream started anew with this packet.
    pub restarted: bool,
}

/// Receiving state of one media SSRC.
#[derive(Debug)]
pub struct ReceiveStream {
    ssrc: u32,
    highest: Option<u64>,
    /// Bit `n % WINDOW`: number `n` arrived, for the last `WINDOW` numbers.
    seen: [u64; WINDOW_WORDS],
    /// The number that would confirm a jump (RFC 3550 A.1 `bad_seq`), and how many already did.
    jump: Option<(u16, u8)>,
    restart_pending: bool,
    epoch: u8,
    stats: ReceptionStats,
    nack: Option<NackGenerator>,
    bytes: u64,
    recovered: u64,
}

impl ReceiveStream {
    /// A stream of which nothing has arrived. `clock_rate` in Hz; `nack`: whether the publisher
    /// answers generic NACK.
    pub fn new(ssrc: u32, clock_rate: u32, nack: bool) -> Self {
        Self {
            ssrc,
            highest: None,
            seen: [0; WINDOW_WORDS],
            jump: None,
            restart_pending: false,
            epoch: 0,
            stats: ReceptionStats::new(clock_rate),
            nack: nack.then(NackGenerator::default),
            bytes: 0,
            recovered: 0,
        }
    }

    /// SSRC on the wire.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Counts restarts, wrapping.
    pub fn epoch(&self) -> u8 {
        self.epoch
    }

    /// The layer goes on under another SSRC: a new encoder, another track in the sender.
    pub fn replace_ssrc(&mut self, ssrc: u32, clock_rate: u32) {
        self.ssrc = ssrc;
        self.stats = ReceptionStats::new(clock_rate);
        self.restart_pending = true;
        self.jump = None;
    }

    /// Places a media packet and counts it.
    ///
    /// # Errors
    /// Duplicates, packets older than the window, and the first packet after a jump.
    pub fn on_packet(
        &mut self,
        now: Instant,
        seq: u16,
        timestamp: u32,
        len: usize,
    ) -> Result<Placement, DropReason> {
        let placement = self.place(seq)?;
        if placement.restarted {
            self.stats.restart();
            if let Some(nack) = &mut self.nack {
                nack.clear();
            }
        } else if placement.newer > 0
            && let Some(nack) = &mut self.nack
        {
            nack.arrived(now, placement.ext_seq, false);
        }
        self.take(now, placement);
        self.stats.on_packet(now, placement.ext_seq, timestamp);
        self.bytes += len as u64;
        Ok(placement)
    }

    /// Places a packet that came as a retransmission, by its original number. It does not count as
    /// received in report blocks (RFC 4588 §6.1: the loss is of the original stream).
    ///
    /// # Errors
    /// Duplicates, packets older than the window, and any before the stream itself was seen.
    pub fn on_retransmission(
        &mut self,
        now: Instant,
        original_seq: u16,
        len: usize,
    ) -> Result<Placement, DropReason> {
        let highest = self.highest.filter(|_| !self.restart_pending);
        let highest = highest.ok_or(DropReason::RtxInvalid)?;
        let step = original_seq.wrapping_sub(highest as u16) as i16;
        if step > MAX_DROPOUT as i16 {
            return Err(DropReason::RtxInvalid);
        }
        let ext_seq = highest.checked_add_signed(i64::from(step)).ok_or(DropReason::TooOld)?;
        let placement = self.placement_of(ext_seq, highest)?;
        if let Some(nack) = &mut self.nack {
            nack.arrived(now, ext_seq, true);
        }
        self.take(now, placement);
        self.recovered += 1;
        self.bytes += len as u64;
        Ok(placement)
    }

    /// Notes a sender report.
    pub fn on_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.stats.on_sender_report(now, ntp);
    }

    /// Sets the round-trip time to the publisher.
    pub fn set_rtt(&mut self, rtt: Duration) {
        if let Some(nack) = &mut self.nack {
            nack.set_rtt(rtt);
        }
    }

    /// Sequence numbers to ask for now, ascending.
    pub fn poll_nack(&mut self, now: Instant, out: &mut Vec<u16>) {
        if let Some(nack) = &mut self.nack {
            nack.poll(now, out);
        }
    }

    /// When [`poll_nack`](Self::poll_nack) has something to say.
    pub fn nack_deadline(&self) -> Option<Instant> {
        self.nack.as_ref().and_then(NackGenerator::deadline)
    }

    /// The report block since the last call.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        self.stats.report(now, self.ssrc)
    }

    /// Reception statistics.
    pub fn stats(&self) -> &ReceptionStats {
        &self.stats
    }

    /// Bytes of RTP received, retransmissions included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Packets that came as retransmissions and were needed.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    fn place(&mut self, seq: u16) -> Result<Placement, DropReason> {
        let Some(highest) = self.highest else {
            // One lap up, so that packets before the first have a number.
            let ext_seq = (1 << 16) + u64::from(seq);
            return Ok(Placement { ext_seq, newer: 0, restarted: false });
        };
        if self.restart_pending {
            return Ok(self.restart(highest, seq));
        }
        let step = seq.wrapping_sub(highest as u16);
        let behind = step.wrapping_neg();
        if step < MAX_DROPOUT || u64::from(behind) < WINDOW {
            self.jump = None;
            let ext_seq = highest.wrapping_add_signed(i64::from(step as i16));
            return self.placement_of(ext_seq, highest);
        }
        let run = match self.jump {
            Some((expected, run)) if expected == seq => run + 1,
            _ => 0,
        };
        let (needed, reason) = match behind < MAX_DROPOUT {
            true => (RUN_BEHIND, DropReason::TooOld),
            false => (1, DropReason::SequenceJump),
        };
        if run >= needed {
            return Ok(self.restart(highest, seq));
        }
        self.jump = Some((seq.wrapping_add(1), run));
        Err(reason)
    }

    fn placement_of(&self, ext_seq: u64, highest: u64) -> Result<Placement, DropReason> {
        let newer = highest.saturating_sub(ext_seq);
        if newer >= WINDOW {
            return Err(DropReason::TooOld);
        }
        if ext_seq <= highest && self.is_seen(ext_seq) {
            return Err(DropReason::Duplicate);
        }
        Ok(Placement { ext_seq, newer: newer as u16, restarted: false })
    }

    /// The first number above everything before that ends in `seq`.
    fn restart(&mut self, highest: u64, seq: u16) -> Placement {
        let base = highest + 1;
        let ext_seq = base + u64::from(seq.wrapping_sub(base as u16));
        self.restart_pending = false;
        self.jump = None;
        self.epoch = self.epoch.wrapping_add(1);
        Placement { ext_seq, newer: 0, restarted: true }
    }

    /// Enters a placed packet into the window and notes what it skipped.
    fn take(&mut self, now: Instant, placement: Placement) {
        let ext_seq = placement.ext_seq;
        match self.highest {
            Some(highest) if ext_seq <= highest => {}
            Some(highest) if !placement.restarted => {
                for missing in (highest + 1)..ext_seq {
                    self.clear_seen(missing);
                }
                if ext_seq > highest + 1
                    && let Some(nack) = &mut self.nack
                {
                    nack.missing(now, highest + 1, ext_seq);
                }
                self.highest = Some(ext_seq);
            }
            _ => {
                // What came before the first packet is neither here nor missing: late packets from
                // before it are welcome after a first start, not after a restart.
                self.seen = [if placement.restarted { u64::MAX } else { 0 }; WINDOW_WORDS];
                self.highest = Some(ext_seq);
            }
        }
        self.seen[word(ext_seq)] |= bit(ext_seq);
    }

    fn is_seen(&self, ext_seq: u64) -> bool {
        self.seen[word(ext_seq)] & bit(ext_seq) != 0
    }

    fn clear_seen(&mut self, ext_seq: u64) {
        self.seen[word(ext_seq)] &= !bit(ext_seq);
    }
}

fn word(ext_seq: u64) -> usize {
    ((ext_seq % WINDOW) / 64) as usize
}

fn bit(ext_seq: u64) -> u64 {
    1 << (ext_seq % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const BASE: u64 = 1 << 16;

    fn stream() -> ReceiveStream {
        ReceiveStream::new(1, 90_000, true)
    }

    fn put(stream: &mut ReceiveStream, seq: u16) -> Result<Placement, DropReason> {
        stream.on_packet(epoch(), seq, 0, 100)
    }

    fn ext(result: Result<Placement, DropReason>) -> Option<u64> {
        result.ok().map(|p| p.ext_seq)
    }

    #[test]
    fn numbers_go_on_over_the_wrap() {
        let mut s = stream();
        assert_eq!(ext(put(&mut s, 65_534)), Some(BASE + 65_534));
        assert_eq!(ext(put(&mut s, 0)), Some(BASE + 65_536));
        assert_eq!(ext(put(&mut s, 65_535)), Some(BASE + 65_535));
        assert_eq!(ext(put(&mut s, 1)), Some(BASE + 65_537));
    }

    #[test]
    fn a_second_copy_is_a_duplicate_however_late() {
        let mut s = stream();
        for seq in 0..1_000 {
            put(&mut s, seq).expect("in order");
        }
        for seq in 0..1_000 {
            assert_eq!(put(&mut s, seq), Err(DropReason::Duplicate));
        }
        put(&mut s, 1_500).expect("a gap");
        assert_eq!(put(&mut s, 400), Err(DropReason::TooOld));
        assert_eq!(put(&mut s, 600), Err(DropReason::Duplicate));
        assert_eq!(ext(put(&mut s, 1_200)), Some(BASE + 1_200));
    }

    #[test]
    fn a_lone_stray_number_does_not_restart_the_stream() {
        let mut s = stream();
        put(&mut s, 10).expect("first");
        assert_eq!(put(&mut s, 30_000), Err(DropReason::SequenceJump));
        assert_eq!(ext(put(&mut s, 11)), Some(BASE + 11));
        assert_eq!(put(&mut s, 30_001), Err(DropReason::SequenceJump));
        assert_eq!(s.epoch(), 0);
    }

    #[test]
    fn two_packets_after_a_jump_restart_the_stream_above_the_old_numbers() {
        let mut s = stream();
        put(&mut s, 40_000).expect("first");
        assert_eq!(put(&mut s, 100), Err(DropReason::SequenceJump));
        let placement = put(&mut s, 101).expect("confirmed");
        assert!(placement.restarted);
        assert_eq!(placement.ext_seq as u16, 101);
        assert!(placement.ext_seq > BASE + 40_000);
        assert_eq!(s.epoch(), 1);
        assert_eq!(put(&mut s, 100), Err(DropReason::Duplicate));
        assert_eq!(ext(put(&mut s, 102)), Some(placement.ext_seq + 1));
        assert_eq!(s.stats().expected(), 2);
    }

    #[test]
    fn stragglers_behind_the_window_do_not_restart_the_stream_but_a_long_run_does() {
        let mut s = stream();
        put(&mut s, 10_000).expect("first");
        for seq in 8_000..8_000 + u16::from(RUN_BEHIND) {
            assert_eq!(put(&mut s, seq), Err(DropReason::TooOld));
        }
        let placement = put(&mut s, 8_000 + u16::from(RUN_BEHIND)).expect("the run is long enough");
        assert!(placement.restarted && placement.ext_seq > BASE + 10_000);
    }

    #[test]
    fn another_ssrc_continues_above() {
        let mut s = stream();
        put(&mut s, 5).expect("first");
        s.replace_ssrc(2, 90_000);
        assert_eq!(s.on_retransmission(epoch(), 4, 10), Err(DropReason::RtxInvalid));
        let placement = put(&mut s, 5).expect("first of the new one");
        assert!(placement.restarted && placement.ext_seq > BASE + 5);
    }

    #[test]
    fn retransmissions_fill_gaps_once_and_leave_the_loss_in_the_reports() {
        let mut s = stream();
        for seq in [1, 2, 5] {
            put(&mut s, seq).expect("in order");
        }
        let placement = s.on_retransmission(epoch(), 3, 10).expect("it was missing");
        assert_eq!((placement.ext_seq, placement.newer), (BASE + 3, 2));
        assert_eq!(s.on_retransmission(epoch(), 3, 10), Err(DropReason::Duplicate));
        assert_eq!(s.on_retransmission(epoch(), 2, 10), Err(DropReason::Duplicate));
        assert_eq!(s.report(epoch()).map(|b| b.cumulative_lost), Some(2));
        assert_eq!(s.recovered(), 1);
    }

    #[test]
    fn a_gap_is_asked_for_and_padding_numbers_count_like_others() {
        let t0 = epoch();
        let mut s = stream();
        s.on_packet(t0, 65_533, 0, 10).expect("first");
        s.on_packet(t0, 1, 0, 10).expect("gap over the wrap");
        let mut out = Vec::new();
        s.poll_nack(t0 + Duration::from_millis(20), &mut out);
        assert_eq!(out, [65_534, 65_535, 0]);
    }

    proptest! {
        /// Against a set that remembers everything.
        #[test]
        fn exactly_the_first_copy_within_the_window_is_taken(
            start: u16,
            steps in prop::collection::vec(-1_200i64..200, 1..2_000),
        ) {
            let mut s = stream();
            let mut newest = BASE + u64::from(start);
            put(&mut s, start).expect("first");
            let mut seen = BTreeSet::from([newest]);
            for step in steps {
                let number = newest.saturating_add_signed(step);
                let expected = if number + WINDOW <= newest {
                    None
                } else {
                    seen.insert(number).then_some(number)
                };
                newest = newest.max(number);
                prop_assert_eq!(ext(put(&mut s, number as u16)), expected);
            }
        }
    }
}
