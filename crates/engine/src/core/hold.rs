//! When media leaves. A busy worker lets the packets of a moment gather, so that those of one
//! receiver leave in one system call, and sleeps meanwhile; a worker with little to send sends at
//! once, because nothing would be gained by waiting.

use std::time::{Duration, Instant};

/// Packets to send per second above which a worker holds them: below, all that holding could save
/// is about one percent of a core.
const BUSY_PACKETS_PER_SECOND: u64 = 2_000;

/// How long packets are counted to tell the rate.
const WINDOW: Duration = Duration::from_millis(20);

/// A busy worker looks at its sockets this many times within the limit. More than once, because
/// packets for other workers leave when it looks.
const GATHER_PARTS: u32 = 4;

/// Received packets that wait at most, whatever the time.
const MAX_PACKETS: usize = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct Hold {
    limit: Duration,
    /// When the oldest waiting packet came.
    since: Option<Instant>,
    busy: bool,
    window: Option<Instant>,
    sent: u64,
}

impl Hold {
    /// Holds for `limit` at most; zero never holds.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None, busy: false, window: None, sent: 0 }
    }

    /// A packet waits.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// When what waits must leave.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| if self.busy { since + self.limit } else { since })
    }

    /// How long packets may gather in the kernel before they are received.
    pub(super) fn gather_time(&self) -> Duration {
        if self.busy { self.limit / GATHER_PARTS } else { Duration::ZERO }
    }

    /// Whether it must leave now; `packets` received ones wait.
    pub(super) fn is_over(&self, now: Instant, packets: usize) -> bool {
        self.deadline().is_some_and(|at| now >= at || packets >= MAX_PACKETS)
    }

    /// All has left, `sent` packets.
    pub(super) fn end(&mut self, now: Instant, sent: u64) {
        self.since = None;
        self.sent += sent;
        let start = *self.window.get_or_insert(now);
        let elapsed = now.saturating_duration_since(start);
        if elapsed >= WINDOW {
            let per_second = self.sent as f64 / elapsed.as_secs_f64();
            self.busy = per_second >= BUSY_PACKETS_PER_SECOND as f64;
            self.window = Some(now);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(2);

    /// Sends `packets` every `interval`, for a while.
    fn run(hold: &mut Hold, mut now: Instant, interval: Duration, packets: u64) -> Instant {
        for _ in 0..200 {
            now += interval;
            hold.begin(now);
            hold.end(now, packets);
        }
        now
    }

    #[test]
    fn a_quiet_worker_sends_at_once() {
        let mut hold = Hold::new(LIMIT);
        let now = run(&mut hold, Instant::now(), Duration::from_millis(10), 10);
        hold.begin(now);
        assert!(hold.is_over(now, 1));
    }

    #[test]
    fn a_busy_worker_waits_for_more() {
        let mut hold = Hold::new(LIMIT);
        let now = run(&mut hold, Instant::now(), Duration::from_millis(10), 200);
        assert_eq!(hold.deadline(), None);
        hold.begin(now);
        hold.begin(now + LIMIT / 2);
        assert!(!hold.is_over(now + LIMIT / 2, 2));
        assert!(hold.is_over(now + LIMIT, 2), "the oldest packet counts");
        assert!(hold.is_over(now, MAX_PACKETS), "and so does their number");
    }

    #[test]
    fn a_worker_that_calms_down_sends_at_once_again() {
        let mut hold = Hold::new(LIMIT);
        let now = run(&mut hold, Instant::now(), Duration::from_millis(10), 200);
        let now = run(&mut hold, now, Duration::from_millis(10), 1);
        hold.begin(now);
        assert!(hold.is_over(now, 1));
    }
}
