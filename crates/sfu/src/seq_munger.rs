//! Sequence numbers towards one receiver.
//!
//! Packets dropped on purpose leave no gap; packets that the network lost leave the gap they left
//! in the source, of the same size, and a packet that comes late goes into the place that was kept
//! for it, once. What is remembered are the places still open ([`Hole`]s), not the packets sent:
//! without loss the state is two numbers.
//!
//! Whether a missing packet would have been dropped cannot be known before it arrives (the worst
//! case of Jitsi's `doc/svc.md`), so every missing packet keeps its place.

use std::collections::VecDeque;

/// Source packets behind the newest for which a place is kept. Retransmissions of the publisher
/// end long before (five tries of at most 400 ms).
const MAX_HOLE_AGE: u64 = 1_024;

/// Separate runs of missing packets that are remembered; the oldest is forgotten first.
const MAX_HOLES: usize = 64;

/// Largest gap passed on, packets (RFC 3550 A.1 `MAX_DROPOUT`): a receiver takes a larger jump for
/// a restart, and half the number space would read as going backwards.
const MAX_GAP: u64 = 3_000;

/// A run of source packets that have not arrived, and the place kept for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hole {
    first: u64,
    last: u64,
    offset: u64,
}

/// Maps extended sequence numbers of one source stream at a time to the receiver's.
#[derive(Debug, Clone)]
pub struct SeqMunger {
    /// `target = source - offset`, wrapping.
    offset: u64,
    /// Highest source number seen, forwarded or not; `next_target` follows from it.
    highest_source: u64,
    holes: VecDeque<Hole>,
}

impl SeqMunger {
    /// Nothing sent yet; the first packet will carry `first_target`.
    pub fn new(first_target: u16) -> Self {
        // One lap up, so that numbers below the first stay positive.
        let next_target = (1 << 16) + u64::from(first_target);
        Self { offset: 0, highest_source: next_target - 1, holes: VecDeque::new() }
    }

    /// The number that the next contiguous packet gets.
    pub fn next_target(&self) -> u64 {
        (self.highest_source + 1).wrapping_sub(self.offset)
    }

    /// Continues with another source stream (or a restarted one), from packet `source` (at least 1)
    /// on, directly after what was sent before. `newer` packets of that stream have been seen after `source`
    /// already: their places stay open.
    pub fn start(&mut self, source: u64, newer: u16) {
        let next_target = self.next_target();
        self.offset = source.wrapping_sub(next_target);
        self.holes.clear();
        self.highest_source = source.wrapping_sub(1);
        if newer > 0 {
            let last = source + u64::from(newer);
            self.holes.push_back(Hole { first: source, last, offset: self.offset });
            self.highest_source = last;
        }
    }

    /// The number under which a packet goes out, or `None` if its place is closed or was used.
    pub fn forward(&mut self, source: u64) -> Option<u64> {
        if source > self.highest_source {
            self.advance(source);
            return Some(source.wrapping_sub(self.offset));
        }
        self.take_hole(source).map(|hole| source.wrapping_sub(hole.offset))
    }

    /// Notes a packet that is dropped on purpose: the numbers after it move up. Returns whether a
    /// place stays open forever, because the packet came after newer ones had been numbered.
    pub fn skip(&mut self, source: u64) -> bool {
        if source > self.highest_source {
            self.advance(source);
            self.offset = self.offset.wrapping_add(1);
            return false;
        }
        self.take_hole(source).is_some()
    }

    /// A number of its own, directly after what was sent before.
    pub fn insert(&mut self) -> u64 {
        let target = self.next_target();
        self.offset = self.offset.wrapping_sub(1);
        target
    }

    /// The source packet for which the place `target` (16 bits, as a receiver names it) is open.
    pub fn source_of_hole(&self, target: u16) -> Option<u64> {
        let target = self.unwrap_target(target);
        self.holes.iter().find_map(|hole| {
            let source = target.wrapping_add(hole.offset);
            (hole.first..=hole.last).contains(&source).then_some(source)
        })
    }

    /// The extended target number nearest below the next one.
    pub fn unwrap_target(&self, target: u16) -> u64 {
        let newest = self.next_target().wrapping_sub(1);
        newest.wrapping_sub(u64::from((newest as u16).wrapping_sub(target)))
    }

    /// Moves the newest source number up, keeping places for what lies between.
    fn advance(&mut self, source: u64) {
        let mut first_missing = self.highest_source.wrapping_add(1);
        let gap = source - first_missing;
        if gap > MAX_GAP {
            self.offset = self.offset.wrapping_add(gap - MAX_GAP);
            first_missing = source - MAX_GAP;
        }
        self.highest_source = source;
        self.forget_old_holes();
        if first_missing < source {
            if self.holes.len() >= MAX_HOLES {
                self.holes.pop_front();
            }
            let hole = Hole { first: first_missing, last: source - 1, offset: self.offset };
            self.holes.push_back(hole);
        }
    }

    fn forget_old_holes(&mut self) {
        let oldest = self.highest_source.saturating_sub(MAX_HOLE_AGE);
        while self.holes.front().is_some_and(|hole| hole.last < oldest) {
            self.holes.pop_front();
        }
    }

    /// Closes the place of `source`, if it is open.
    fn take_hole(&mut self, source: u64) -> Option<Hole> {
        let index = self.holes.iter().rposition(|h| (h.first..=h.last).contains(&source))?;
        let hole = self.holes[index];
        match (source == hole.first, source == hole.last) {
            (true, true) => {
                self.holes.remove(index);
            }
            (true, false) => self.holes[index].first += 1,
            (false, true) => self.holes[index].last -= 1,
            (false, false) => {
                self.holes[index].last = source - 1;
                self.holes.insert(index + 1, Hole { first: source + 1, ..hole });
                if self.holes.len() > MAX_HOLES {
                    self.holes.pop_front();
                }
            }
        }
        Some(hole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const FIRST: u16 = 65_530;

    fn munger_at(source: u64) -> SeqMunger {
        let mut munger = SeqMunger::new(FIRST);
        munger.start(source, 0);
        munger
    }

    fn low(target: Option<u64>) -> Option<u16> {
        target.map(|t| t as u16)
    }

    #[test]
    fn first_packet_gets_the_first_number_and_the_next_ones_follow_over_the_wrap() {
        let mut munger = munger_at(1_000);
        for i in 0..20u16 {
            let target = munger.forward(1_000 + u64::from(i));
            assert_eq!(low(target), Some(FIRST.wrapping_add(i)));
        }
    }

    #[test]
    fn dropped_packets_leave_no_gap() {
        let mut munger = munger_at(10);
        assert_eq!(low(munger.forward(10)), Some(65_530));
        assert!(!munger.skip(11));
        assert!(!munger.skip(12));
        assert_eq!(low(munger.forward(13)), Some(65_531));
    }

    #[test]
    fn network_loss_leaves_the_same_gap() {
        let mut munger = munger_at(10);
        munger.forward(10);
        assert_eq!(low(munger.forward(14)), Some(65_534));
    }

    #[test]
    fn a_number_of_our_own_moves_the_rest_on_and_leaves_open_places_alone() {
        let mut munger = munger_at(10);
        munger.forward(10);
        munger.forward(12);
        assert_eq!(munger.insert() as u16, 65_533);
        assert_eq!(low(munger.forward(13)), Some(65_534));
        assert_eq!(low(munger.forward(11)), Some(65_531));
    }

    #[test]
    fn a_gap_before_a_dropped_packet_stays_and_the_drop_closes() {
        let mut munger = munger_at(10);
        munger.forward(10);
        munger.skip(13); // 11 and 12 are missing
        assert_eq!(low(munger.forward(14)), Some(65_533));
        assert_eq!(low(munger.forward(12)), Some(65_532));
        assert_eq!(low(munger.forward(11)), Some(65_531));
    }

    #[test]
    fn late_packet_maps_into_the_gap_it_left_once() {
        let mut munger = munger_at(10);
        munger.forward(10);
        munger.forward(13);
        assert_eq!(low(munger.forward(11)), Some(65_531));
        assert_eq!(munger.forward(11), None);
        assert_eq!(munger.forward(13), None);
        assert_eq!(munger.forward(10), None);
        assert_eq!(low(munger.forward(12)), Some(65_532));
    }

    #[test]
    fn late_packet_keeps_the_offset_of_its_time() {
        let mut munger = munger_at(100);
        munger.forward(100);
        munger.forward(102); // 101 missing
        munger.skip(103);
        munger.forward(104);
        assert_eq!(low(munger.forward(101)), Some(FIRST.wrapping_add(1)));
    }

    #[test]
    fn a_late_packet_that_is_dropped_does_not_open_again() {
        let mut munger = munger_at(10);
        munger.forward(10);
        munger.forward(12);
        assert!(munger.skip(11));
        assert_eq!(munger.forward(11), None);
        assert!(!munger.skip(11));
    }

    #[test]
    fn a_new_source_continues_without_a_gap_and_forgets_the_old_holes() {
        let mut munger = munger_at(10);
        munger.forward(10);
        munger.forward(15);
        let next = munger.next_target();
        munger.start(70_000, 0);
        assert_eq!(munger.forward(70_000), Some(next));
        assert_eq!(munger.forward(12), None);
        assert_eq!(munger.forward(69_999), None);
    }

    #[test]
    fn starting_behind_the_newest_keeps_the_places_of_the_newer_packets() {
        let mut munger = munger_at(10);
        munger.forward(10);
        munger.start(500, 3);
        assert_eq!(low(munger.forward(500)), Some(65_531));
        assert_eq!(low(munger.forward(504)), Some(65_535));
        assert_eq!(munger.source_of_hole(65_533), Some(502));
        assert_eq!(low(munger.forward(502)), Some(65_533));
        assert_eq!(munger.source_of_hole(65_533), None);
    }

    #[test]
    fn a_huge_gap_is_cut_to_what_receivers_accept() {
        let mut munger = munger_at(10);
        let first = munger.forward(10).expect("the first packet is sent");
        let after = munger.forward(60_000).expect("the newest packet is sent");
        assert_eq!(after - first, MAX_GAP + 1);
    }

    #[test]
    fn holes_are_bounded_in_number_and_age() {
        let mut munger = munger_at(2);
        for i in 1..1_000 {
            munger.forward(i * 2);
        }
        assert!(munger.holes.len() <= MAX_HOLES);
        munger.forward(2_000 + MAX_HOLE_AGE * 2);
        assert_eq!(munger.holes.len(), 1);
    }

    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Forward,
        Skip,
        Lose,
        /// Arrives this many packets later, forwarded.
        Late(u8),
        /// Arrives this many packets later and is dropped.
        LateSkip(u8),
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            8 => Just(Fate::Forward),
            4 => Just(Fate::Skip),
            1 => Just(Fate::Lose),
            1 => (1u8..40).prop_map(Fate::Late),
            1 => (1u8..40).prop_map(Fate::LateSkip),
        ]
    }

    proptest! {
        /// Against a model that knows everything: the target of a packet is the first number plus
        /// the packets before it that were not dropped in time.
        #[test]
        fn gaps_are_exactly_those_of_the_network(
            first_target: u16,
            start in 1u64..200_000,
            fates in prop::collection::vec(fate(), 1..800),
        ) {
            let mut arrivals: Vec<(usize, bool, u64)> = Vec::new(); // (when, forward, source)
            for (i, fate) in fates.iter().enumerate() {
                let source = start + i as u64;
                match *fate {
                    Fate::Forward => arrivals.push((i, true, source)),
                    Fate::Skip => arrivals.push((i, false, source)),
                    Fate::Lose => {}
                    Fate::Late(by) => arrivals.push((i + usize::from(by), true, source)),
                    Fate::LateSkip(by) => arrivals.push((i + usize::from(by), false, source)),
                }
            }
            arrivals.sort_by_key(|(when, _, source)| (*when, *source));

            let mut munger = SeqMunger::new(first_target);
            munger.start(start, 0);
            let mut newest: Option<u64> = None;
            let mut closed: Vec<u64> = Vec::new(); // dropped while newest
            let mut used: BTreeMap<u64, u64> = BTreeMap::new();
            for (_, forward, source) in arrivals {
                let in_order = newest.is_none_or(|n| source > n);
                newest = newest.max(Some(source));
                if forward {
                    let target = munger.forward(source).expect("every place is kept");
                    let expected = (1 << 16) + u64::from(first_target)
                        + (source - start)
                        - closed.iter().filter(|c| **c < source).count() as u64;
                    prop_assert_eq!(target, expected);
                    prop_assert!(used.insert(target, source).is_none(), "number used twice");
                    prop_assert_eq!(munger.forward(source), None);
                } else {
                    munger.skip(source);
                    if in_order {
                        closed.push(source);
                    }
                }
            }
            // Order of numbers is order of sources.
            let sources: Vec<u64> = used.values().copied().collect();
            prop_assert!(sources.is_sorted());
        }

        #[test]
        fn any_calls_keep_the_state_bounded_and_numbers_unique(
            calls in prop::collection::vec((1u64..5_000, 0u8..3), 1..600),
        ) {
            let mut munger = SeqMunger::new(0);
            let mut used = std::collections::BTreeSet::new();
            munger.start(100, 0);
            for (source, kind) in calls {
                match kind {
                    0 => munger.start(source, (source % 7) as u16),
                    1 => { munger.skip(source); }
                    _ => if let Some(target) = munger.forward(source) {
                        prop_assert!(used.insert(target));
                    }
                }
                prop_assert!(munger.holes.len() <= MAX_HOLES);
            }
        }
    }
}
