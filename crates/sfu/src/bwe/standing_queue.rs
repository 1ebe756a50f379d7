//! Whether packets wait in a queue that no longer grows.
//!
//! A trend sees a queue grow and drain. A queue that is full, in front of a link that drops what it
//! cannot hold, does neither: the delay is high and constant. Here the one-way delay is compared
//! with the least of the last seconds, as LiveKit's `congestion_detector.go` does. If going down
//! does not help, the path itself has become longer, or another flow fills the queue: then the
//! delay of today is the new normal.

use std::time::{Duration, Instant};

use super::busy_period::BusyPeriod;
use super::history::PacketResult;

/// Delay above the least that is too much, microseconds (LiveKit: 50 ms is congestion, 20 ms is
/// none; a frame on a slow link takes longer than that).
const TOO_LONG_US: i64 = 45_000;
/// Where the sender sends all that it may, it is its own making already when more than one packet and
/// this, microseconds, beyond what is usual never drains: frames of a camera hide its growth from a
/// trend.
const SHORT_US: i64 = 10_000;
/// A quarter of the messages tell of a delay below the usual one, which jitter makes. It rises and falls
/// by these steps with each message, microseconds.
const USUAL_STEPS_US: (i64, i64) = (250, 750);
/// Share of the estimate that must arrive for that: below, a burst waits that will pass.
const FULL: f64 = 0.8;
/// Bits of one packet.
const PACKET_BITS: f64 = 1_200.0 * 8.0;
/// It must last this long ...
const PATIENCE: Duration = Duration::from_millis(150);
/// ... unless it became longer by this much since the message before, microseconds: what a path that
/// has just become slower does, and a key frame of which a part has passed does not.
const GROWING_US: i64 = 25_000;
/// A delay this long is answered at once, microseconds.
const FAR_TOO_LONG_US: i64 = 90_000;
/// The least delay is that of one to two such windows.
const WINDOW: Duration = Duration::from_secs(20);
/// Time between two decreases: a round trip, feedback, and some draining.
const DECREASE_INTERVAL: Duration = Duration::from_millis(600);
/// After this many decreases without effect the delay is not our making.
const MAX_FUTILE: u8 = 4;
/// Share of the delay that must be gone by then.
const EFFECT: f64 = 0.8;
/// Then nothing is concluded from the delay for this long.
const TRUCE: Duration = Duration::from_secs(10);

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Nothing.
    #[default]
    No,
    /// A step down, as for a queue that grows.
    Short,
    /// To send less than arrives, at once.
    Long,
    /// The path has become slower: to send no more than this, bits per second.
    Slower {
        /// Rate of the path.
        bps: u64,
    },
}

/// The detector.
#[derive(Debug, Default)]
pub struct StandingQueue {
    /// Least delay of this window and of the one before, microseconds on two clocks.
    least: [Option<i64>; 2],
    window_end: Option<Instant>,
    since: Option<Instant>,
    decreased: Option<Instant>,
    /// What was last answered.
    answered: Standing,
    futile: u8,
    /// Delay at the first of a row of decreases, and the longest since the last.
    first_us: i64,
    peak_us: i64,
    queue_us: i64,
    usual_us: i64,
    busy: BusyPeriod,
    truce_until: Option<Instant>,
}

impl StandingQueue {
    /// Takes the results of one feedback message, the estimate and what of it arrives, bits per
    /// second.
    pub fn on_results(
        &mut self,
        now: Instant,
        results: &[PacketResult],
        estimate_bps: u64,
        acked_bps: Option<u64>,
    ) -> Standing {
        let delays = results.iter().filter_map(|r| Some(r.arrival_us? - r.sent_us));
        let Some(delay) = delays.min() else { return Standing::No };
        self.note(now, delay);
        let base = self.least.iter().flatten().min().copied().unwrap_or(delay);
        let slower = self.busy.on_results(results, base, estimate_bps);
        // The shortest delay of a message says little of a queue that has just begun to grow.
        let queue_us = slower.map_or(delay - base, |slower| slower.waited_us);
        let before_us = std::mem::replace(&mut self.queue_us, queue_us);
        self.peak_us = self.peak_us.max(self.queue_us);
        let shortest_us = self.shortest_us(estimate_bps, acked_bps);
        let step = if self.queue_us > self.usual_us { USUAL_STEPS_US.0 } else { -USUAL_STEPS_US.1 };
        self.usual_us = (self.usual_us + step).max(0);
        if self.queue_us < shortest_us {
            self.since = None;
            self.futile = 0;
            return Standing::No;
        }
        let since = *self.since.get_or_insert(now);
        let long = self.queue_us >= TOO_LONG_US;
        // A path that becomes slow just after a step down is not that step's doing.
        let worse = long && self.answered == Standing::Short;
        let again = worse || self.decreased.is_none_or(|at| now >= at + DECREASE_INTERVAL);
        let truce = self.truce_until.is_some_and(|until| now < until);
        let grows =
            slower.is_some() || (long && now > since && self.queue_us > before_us + GROWING_US);
        let short = self.queue_us < FAR_TOO_LONG_US && now < since + PATIENCE;
        let patient = short && !grows;
        if patient || !again || truce {
            return Standing::No;
        }
        if self.futile == 0 {
            self.first_us = self.queue_us;
        } else if (self.queue_us as f64) < EFFECT * self.peak_us as f64 {
            // It drains. What arrives meanwhile says nothing of what the path takes.
            self.peak_us = self.queue_us;
            self.decreased = Some(now);
            return Standing::No;
        }
        self.peak_us = self.queue_us;
        self.futile += 1;
        self.decreased = Some(now);
        if self.futile > MAX_FUTILE {
            if self.queue_us as f64 > EFFECT * self.first_us as f64 {
                self.least = [Some(delay), None];
                self.truce_until = Some(now + TRUCE);
                self.since = None;
                self.futile = 0;
                return Standing::No;
            }
            self.futile = 0;
        }
        self.answered = match slower {
            Some(slower) => Standing::Slower { bps: slower.bps },
            None if long => Standing::Long,
            None => Standing::Short,
        };
        self.answered
    }

    /// Whether more than a frame or two wait.
    pub fn is_long(&self) -> bool {
        self.queue_us >= TOO_LONG_US
    }

    /// Time that packets wait, as far as known.
    pub fn delay(&self) -> Duration {
        Duration::from_micros(self.queue_us.max(0) as u64)
    }

    /// The shortest delay that calls for anything, microseconds.
    fn shortest_us(&self, estimate_bps: u64, acked_bps: Option<u64>) -> i64 {
        let estimate = estimate_bps as f64;
        if acked_bps.is_none_or(|acked| (acked as f64) < FULL * estimate) {
            return TOO_LONG_US;
        }
        let packet_us = PACKET_BITS / estimate * 1e6;
        (self.usual_us + SHORT_US + packet_us as i64).min(TOO_LONG_US)
    }

    fn note(&mut self, now: Instant, delay: i64) {
        let end = *self.window_end.get_or_insert(now + WINDOW);
        if now >= end {
            self.window_end = Some(now + WINDOW);
            self.least = [None, self.least[0]];
        }
        self.least[0] = Some(self.least[0].map_or(delay, |least| least.min(delay)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    /// Feedback each 100 ms with this delay; how often it said to send less.
    fn feed(queue: &mut StandingQueue, t0: Instant, from: u64, count: u64, delay_ms: i64) -> usize {
        feed_at(queue, t0, from..from + count, delay_ms, None)
    }

    /// The same of a sender with an estimate of 2 Mbit/s, of which this arrives.
    fn feed_at(
        queue: &mut StandingQueue,
        t0: Instant,
        range: std::ops::Range<u64>,
        delay_ms: i64,
        acked_bps: Option<u64>,
    ) -> usize {
        let mut decreases = 0;
        for i in range {
            let sent_us = i as i64 * 100_000;
            let result = PacketResult {
                seq: i,
                sent_us,
                arrival_us: Some(sent_us + delay_ms * 1_000 - 5_000_000),
                size: 1_000,
                probe: None,
                was_lost: false,
            };
            let now = t0 + Duration::from_millis(100) * i as u32;
            let standing = queue.on_results(now, &[result], 2_000_000, acked_bps);
            decreases += usize::from(standing != Standing::No);
        }
        decreases
    }

    #[test]
    fn a_queue_that_stays_is_answered_and_a_short_one_not() {
        let t0 = epoch();
        let mut queue = StandingQueue::default();
        assert_eq!(feed(&mut queue, t0, 0, 50, 20), 0);
        assert_eq!(feed(&mut queue, t0, 50, 2, 100), 0);
        assert_eq!(feed(&mut queue, t0, 52, 20, 20), 0);
        assert!(feed(&mut queue, t0, 72, 10, 200) >= 1);
    }

    #[test]
    fn a_short_queue_is_answered_where_the_path_is_full() {
        let t0 = epoch();
        for (acked_bps, answered) in [(1_000_000, false), (1_950_000, true)] {
            let mut queue = StandingQueue::default();
            let acked_bps = Some(acked_bps);
            assert_eq!(feed_at(&mut queue, t0, 0..50, 0, acked_bps), 0);
            assert_eq!(feed_at(&mut queue, t0, 50..52, 20, acked_bps), 0);
            assert_eq!(feed_at(&mut queue, t0, 52..54, 0, acked_bps), 0);
            assert_eq!(feed_at(&mut queue, t0, 54..64, 20, acked_bps) > 0, answered);
        }
    }

    #[test]
    fn what_jitter_makes_is_no_queue() {
        let (t0, full) = (epoch(), Some(1_950_000));
        let mut queue = StandingQueue::default();
        let delays = |i| if i % 8 == 0 { 10 } else { 35 };
        let mut answers = |range: std::ops::Range<u64>| -> usize {
            range.map(|i| feed_at(&mut queue, t0, i..i + 1, delays(i), full)).sum()
        };
        let (first, later) = (answers(0..300), answers(300..600));
        assert!(first > 0 && later == 0, "{first}, {later}");
    }

    #[test]
    fn a_path_that_became_longer_is_accepted() {
        let t0 = epoch();
        let mut queue = StandingQueue::default();
        feed(&mut queue, t0, 0, 50, 20);
        let decreases = feed(&mut queue, t0, 50, 200, 250);
        assert_eq!(decreases, usize::from(MAX_FUTILE));
    }
}
