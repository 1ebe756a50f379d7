//! When media leaves. A busy worker lets the packets of a moment gather, so that those of one
//! receiver leave in one system call, and sleeps meanwhile, longer the more it has to send; a worker
//! with little to send sends at once, because nothing would be gained by waiting.
//!
//! A busy worker is meant to sleep first and to receive then: one wake-up takes all that came, and it
//! leaves in the same turn. The ends of these sleeps lie on a grid, so that a stream with a packet
//! every 20 ms is delayed by the same time each time: the wait adds delay, but little jitter.

use std::time::{Duration, Instant};

/// Packets to send per second above which a worker holds them: below, all that holding could save
/// is about one percent of a core.
const BUSY_PACKETS_PER_SECOND: f64 = 2_000.0;

/// How long then, at most: a frame of video arrives within it.
const BUSY_HOLD: Duration = Duration::from_millis(2);

/// Packets to send per second above which a worker holds them as long as it may: a tenth of a core,
/// most of it for system calls if they carry a packet each.
const LOADED_PACKETS_PER_SECOND: f64 = 15_000.0;

/// Received packets that gather at most: the kernel's default buffer holds about a hundred.
const GATHERED_PACKETS: f64 = 64.0;

/// How long packets are counted to tell the rate.
const WINDOW: Duration = Duration::from_millis(20);

/// Parts of the limit between two points of the grid. What comes within the first part after a
/// flush waits for the whole limit; what comes later, less by up to one part.
const GRID_PARTS: u32 = 4;

/// Received packets that wait at most, whatever the time.
const MAX_PACKETS: usize = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct Hold {
    limit: Duration,
    /// A point of the grid.
    origin: Option<Instant>,
    /// When the oldest waiting packet came.
    since: Option<Instant>,
    /// How long packets wait at present; zero: not at all.
    period: Duration,
    window: Option<Instant>,
    sent: u64,
    received: u64,
}

impl Hold {
    /// Holds for `limit` at most; zero never holds.
    pub(super) fn new(limit: Duration) -> Self {
        let period = Duration::ZERO;
        Self { limit, origin: None, since: None, period, window: None, sent: 0, received: 0 }
    }

    /// A packet waits.
    pub(super) fn begin(&mut self, now: Instant) {
        self.origin.get_or_insert(now);
        self.since.get_or_insert(now);
    }

    /// How long the oldest packet has waited.
    pub(super) fn waited(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since))
    }

    /// When what waits must leave.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.since?;
        let part = self.period / GRID_PARTS;
        if part.is_zero() {
            return Some(since);
        }
        let origin = self.origin.unwrap_or(since);
        let least = since.saturating_duration_since(origin) + part * (GRID_PARTS - 1);
        let parts = least.as_nanos().div_ceil(part.as_nanos());
        Some(origin + Duration::from_nanos((parts * part.as_nanos()) as u64))
    }

    /// Something is there to be received: until when that may wait. `None`: not at all.
    pub(super) fn gather_until(&mut self, now: Instant) -> Option<Instant> {
        if self.period.is_zero() {
            return None;
        }
        self.begin(now);
        self.deadline()
    }

    /// How late a timer of a busy worker may run.
    pub(super) fn slack(&self) -> Duration {
        self.period
    }

    /// Whether it must leave now; `packets` received ones wait.
    pub(super) fn is_over(&self, now: Instant, packets: usize) -> bool {
        self.deadline().is_some_and(|at| now >= at || packets >= MAX_PACKETS)
    }

    /// All has left: `sent` packets, of `received` ones.
    pub(super) fn end(&mut self, now: Instant, sent: u64, received: usize) {
        self.since = None;
        self.sent += sent;
        self.received += received as u64;
        let start = *self.window.get_or_insert(now);
        let elapsed = now.saturating_duration_since(start);
        if elapsed >= WINDOW {
            let elapsed = elapsed.as_secs_f64();
            self.period =
                self.period_of(self.sent as f64 / elapsed, self.received as f64 / elapsed);
            (self.window, self.sent, self.received) = (Some(now), 0, 0);
        }
    }

    /// How long packets wait at these rates per second.
    fn period_of(&self, sent: f64, received: f64) -> Duration {
        let wanted = if sent >= LOADED_PACKETS_PER_SECOND {
            self.limit
        } else if sent >= BUSY_PACKETS_PER_SECOND {
            self.limit.min(BUSY_HOLD)
        } else {
            return Duration::ZERO;
        };
        let fits = Duration::from_secs_f64(GATHERED_PACKETS / received.max(1.0));
        wanted.min(fits.max(BUSY_HOLD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(4);

    /// Sends `packets` every `interval`, for a while.
    fn run(hold: &mut Hold, mut now: Instant, interval: Duration, packets: u64) -> Instant {
        for _ in 0..200 {
            now += interval;
            hold.begin(now);
            hold.end(now, packets, 1);
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
        let now = run(&mut hold, Instant::now(), Duration::from_millis(10), 300);
        assert_eq!(hold.deadline(), None);
        hold.begin(now);
        hold.begin(now + LIMIT / 2);
        assert!(!hold.is_over(now + LIMIT / 2, 2));
        assert!(hold.is_over(now + LIMIT, 2), "the oldest packet counts");
        assert!(hold.is_over(now, MAX_PACKETS), "and so does their number");
    }

    #[test]
    fn the_wait_grows_with_the_load_and_not_beyond_what_the_kernel_keeps() {
        let hold = Hold::new(LIMIT);
        assert_eq!(hold.period_of(1_000.0, 1_000.0), Duration::ZERO);
        assert_eq!(hold.period_of(5_000.0, 1_000.0), BUSY_HOLD);
        assert_eq!(hold.period_of(50_000.0, 1_000.0), LIMIT);
        assert_eq!(hold.period_of(50_000.0, 20_000.0), Duration::from_micros(3_200));
        assert_eq!(hold.period_of(500_000.0, 200_000.0), BUSY_HOLD);
        assert_eq!(Hold::new(Duration::ZERO).period_of(500_000.0, 1_000.0), Duration::ZERO);
    }

    #[test]
    fn a_stream_at_a_steady_pace_is_delayed_by_the_same_time() {
        let mut hold = Hold::new(LIMIT);
        let now = run(&mut hold, Instant::now(), Duration::from_millis(10), 300);
        let first = now + Duration::from_micros(700);
        let delays: Vec<_> = (0..50)
            .map(|number| {
                // Others come earlier or later, within a part of the limit.
                let other = Duration::from_micros(number * 7 % 290);
                let at = first + Duration::from_millis(20) * number as u32;
                hold.begin(at - other);
                let due = hold.deadline().expect("something waits");
                assert!(due - (at - other) <= LIMIT);
                hold.end(due, 2_000, 10);
                due - at
            })
            .collect();
        assert!(delays.iter().all(|delay| *delay == delays[0]), "{delays:?}");
    }

    #[test]
    fn a_worker_that_calms_down_sends_at_once_again() {
        let mut hold = Hold::new(LIMIT);
        let now = run(&mut hold, Instant::now(), Duration::from_millis(10), 300);
        let now = run(&mut hold, now, Duration::from_millis(10), 1);
        hold.begin(now);
        assert!(hold.is_over(now, 1));
    }
}
