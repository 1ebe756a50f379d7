//! Whether packets wait in a queue that no longer grows.
//!
//! A trend sees a queue grow and drain. A queue that is full, in front of a link that drops what it
//! cannot hold, does neither: the delay is high and constant. Here the one-way delay is compared
//! with the least of the last seconds, as LiveKit's `congestion_detector.go` does. If going down
//! does not help, the path itself has become longer, or another flow fills the queue: then the
//! delay of today is the new normal.

use std::time::{Duration, Instant};

use super::history::PacketResult;

/// Delay above the least that is too much, microseconds (LiveKit: 50 ms is congestion, 20 ms is
/// none; a frame on a slow link takes longer than that).
const TOO_LONG_US: i64 = 45_000;
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

/// The detector.
#[derive(Debug, Default)]
pub struct StandingQueue {
    /// Least delay of this window and of the one before, microseconds on two clocks.
    least: [Option<i64>; 2],
    window_end: Option<Instant>,
    since: Option<Instant>,
    decreased: Option<Instant>,
    futile: u8,
    /// Delay at the first of a row of decreases, and the longest since the last.
    first_us: i64,
    peak_us: i64,
    queue_us: i64,
    truce_until: Option<Instant>,
}

impl StandingQueue {
    /// Takes the results of one feedback message. Returns whether to send less, now.
    pub fn on_results(&mut self, now: Instant, results: &[PacketResult]) -> bool {
        let delays = results.iter().filter_map(|r| Some(r.arrival_us? - r.sent_us));
        let Some(delay) = delays.min() else { return false };
        self.note(now, delay);
        let base = self.least.iter().flatten().min().copied().unwrap_or(delay);
        let before_us = std::mem::replace(&mut self.queue_us, delay - base);
        self.peak_us = self.peak_us.max(self.queue_us);
        if self.queue_us < TOO_LONG_US {
            self.since = None;
            self.futile = 0;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let again = self.decreased.is_none_or(|at| now >= at + DECREASE_INTERVAL);
        let truce = self.truce_until.is_some_and(|until| now < until);
        let grows = now > since && self.queue_us > before_us + GROWING_US;
        let short = self.queue_us < FAR_TOO_LONG_US && now < since + PATIENCE;
        let patient = short && !grows;
        if patient || !again || truce {
            return false;
        }
        if self.futile == 0 {
            self.first_us = self.queue_us;
        } else if (self.queue_us as f64) < EFFECT * self.peak_us as f64 {
            // It drains. What arrives meanwhile says nothing of what the path takes.
            self.peak_us = self.queue_us;
            self.decreased = Some(now);
            return false;
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
                return false;
            }
            self.futile = 0;
        }
        true
    }

    /// Whether more than a frame or two wait.
    pub fn is_long(&self) -> bool {
        self.queue_us >= TOO_LONG_US
    }

    /// Time that packets wait, as far as known.
    pub fn delay(&self) -> Duration {
        Duration::from_micros(self.queue_us.max(0) as u64)
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
        let mut decreases = 0;
        for i in from..from + count {
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
            decreases += usize::from(queue.on_results(now, &[result]));
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
    fn a_path_that_became_longer_is_accepted() {
        let t0 = epoch();
        let mut queue = StandingQueue::default();
        feed(&mut queue, t0, 0, 50, 20);
        let decreases = feed(&mut queue, t0, 50, 200, 250);
        assert_eq!(decreases, usize::from(MAX_FUTILE));
    }
}
