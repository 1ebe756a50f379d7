//! One deadline per peer, in a binary heap. A peer that wants to wake earlier pushes a second entry;
//! the one it replaces is recognised and skipped when it comes up, so nothing is ever searched.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// The deadline of one peer, kept beside it: what [`Timers`] has an entry for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Armed(Option<Instant>);

/// See the module. `K` is the peer's key.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord + Copy> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Wakes `key` at `at` or, when it is armed for an earlier instant, then: it asks again.
    pub(crate) fn arm(&mut self, armed: &mut Armed, key: K, at: Instant) {
        if armed.0.is_none_or(|earlier| at < earlier) {
            armed.0 = Some(at);
            self.heap.push(Reverse((at, key)));
        }
    }

    /// The earliest deadline, of a peer or of an entry that was replaced.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the next entry that is due. Call [`Armed::fires`] to learn whether it still counts.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, K)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

impl Armed {
    /// Whether the entry of `at` is the current one; disarms if so.
    pub(crate) fn fires(&mut self, at: Instant) -> bool {
        let current = self.0 == Some(at);
        if current {
            self.0 = None;
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fired(timers: &mut Timers<u8>, armed: &mut [Armed], now: Instant) -> Vec<u8> {
        let mut keys = Vec::new();
        while let Some((at, key)) = timers.pop_due(now) {
            if armed[usize::from(key)].fires(at) {
                keys.push(key);
            }
        }
        keys
    }

    #[test]
    fn peers_fire_in_the_order_of_their_deadlines() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut timers, mut armed) = (Timers::new(), [Armed::default(); 3]);
        for (key, ms) in [(0u8, 30), (1, 10), (2, 20)] {
            timers.arm(&mut armed[usize::from(key)], key, at(ms));
        }
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(fired(&mut timers, &mut armed, at(20)), [1, 2]);
        assert_eq!(fired(&mut timers, &mut armed, at(30)), [0]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn an_earlier_deadline_replaces_and_a_later_one_waits_its_turn() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut timers, mut armed) = (Timers::new(), [Armed::default(); 1]);
        timers.arm(&mut armed[0], 0u8, at(50));
        timers.arm(&mut armed[0], 0, at(10));
        timers.arm(&mut armed[0], 0, at(40));
        assert_eq!(fired(&mut timers, &mut armed, at(10)), [0]);
        assert_eq!(
            fired(&mut timers, &mut armed, at(60)),
            [0u8; 0],
            "the replaced entry is silent"
        );
    }
}
