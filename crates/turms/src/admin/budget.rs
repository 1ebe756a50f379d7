//! The request budget towards Turms: so many requests a second, so many at once, with a reserve
//! that polling leaves to requests somebody waits for; and the circuit breaker.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

/// Failures in a row after which the breaker opens.
const BREAKER_THRESHOLD: u32 = 5;
/// How long it stays open at first; doubles with each failed trial.
const BREAKER_FIRST: Duration = Duration::from_secs(1);
/// Longest time that it stays open.
const BREAKER_MAX: Duration = Duration::from_secs(30);
/// How long nothing is sent after Turms said that we ask too often: its bucket refills each second.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(1);

/// Who waits for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A user, or a change that must take effect now.
    Urgent,
    /// Nobody in particular.
    Poll,
}

/// A token bucket with a gate for requests in flight.
#[derive(Debug)]
pub(crate) struct Budget {
    per_second: f64,
    in_flight: Semaphore,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Budget {
    pub(crate) fn new(per_second: u32, in_flight: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            in_flight: Semaphore::new(in_flight.max(1) as usize),
            bucket: Mutex::new(Bucket { tokens: Self::capacity(per_second), at: Instant::now() }),
        }
    }

    /// Requests that may follow each other at once after a quiet time: half a second's worth.
    fn capacity(per_second: f64) -> f64 {
        (per_second / 2.0).max(2.0)
    }

    /// What polling leaves in the bucket.
    fn reserve(&self, priority: Priority) -> f64 {
        match priority {
            Priority::Urgent => 0.0,
            Priority::Poll => Self::capacity(self.per_second) / 4.0,
        }
    }

    /// Waits for a turn. The permit is held while the request is in flight.
    pub(crate) async fn acquire(&self, priority: Priority) -> Option<SemaphorePermit<'_>> {
        let permit = self.in_flight.acquire().await.ok()?;
        while let Some(turn) = self.take(priority) {
            sleep_until(turn).await;
        }
        Some(permit)
    }

    /// Takes a token, or says when to try again.
    fn take(&self, priority: Priority) -> Option<Instant> {
        let needed = 1.0 + self.reserve(priority);
        let mut bucket = lock(&self.bucket);
        let now = Instant::now();
        // A pause lies ahead of now.
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        if bucket.at <= now {
            let refilled = bucket.tokens + elapsed * self.per_second;
            bucket.tokens = refilled.min(Self::capacity(self.per_second));
            bucket.at = now;
        }
        if bucket.at <= now && bucket.tokens >= needed {
            bucket.tokens -= 1.0;
            return None;
        }
        let missing = (needed - bucket.tokens).max(0.0) / self.per_second;
        // A millisecond more, so that rounding does not wake us a moment too early.
        Some(bucket.at + Duration::from_secs_f64(missing) + Duration::from_millis(1))
    }

    /// Sends nothing for a while: Turms said that we ask too often.
    pub(crate) fn pause(&self) {
        let mut bucket = lock(&self.bucket);
        bucket.tokens = 0.0;
        bucket.at = Instant::now() + RATE_LIMIT_PAUSE;
    }
}

/// Stops asking somebody who does not answer, and tries again now and then.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<BreakerState>);

#[derive(Debug, Default)]
struct BreakerState {
    failures: u32,
    /// While open: when a trial may go out, and whether one is out.
    open: Option<(Instant, bool)>,
    pause: Duration,
}

impl Breaker {
    /// Whether to send; otherwise how long to wait.
    pub(crate) fn check(&self) -> Result<(), Duration> {
        let mut state = lock(&self.0);
        match &mut state.open {
            None => Ok(()),
            Some((until, trial_out)) => {
                let now = Instant::now();
                if now >= *until && !*trial_out {
                    *trial_out = true;
                    return Ok(());
                }
                Err(until.saturating_duration_since(now).max(Duration::from_secs(1)))
            }
        }
    }

    /// Turms answered.
    pub(crate) fn succeeded(&self) {
        *lock(&self.0) = BreakerState::default();
    }

    /// Turms did not answer, or not sensibly.
    pub(crate) fn failed(&self) {
        let mut state = lock(&self.0);
        state.failures += 1;
        if state.open.is_some() || state.failures >= BREAKER_THRESHOLD {
            state.pause = match state.pause {
                Duration::ZERO => BREAKER_FIRST,
                pause => (pause * 2).min(BREAKER_MAX),
            };
            state.open = Some((Instant::now() + state.pause, false));
        }
    }

    /// Whether requests are held back now.
    pub(crate) fn is_open(&self) -> bool {
        lock(&self.0).open.is_some()
    }
}

use crate::sync_util::lock;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_sees_no_more_requests_than_allowed() {
        let budget = Budget::new(20, 4);
        let started = Instant::now();
        for _ in 0..210 {
            drop(budget.acquire(Priority::Urgent).await);
        }
        let elapsed = started.elapsed().as_secs_f64();
        assert!((9.9..11.5).contains(&elapsed), "200 after a burst of 10: {elapsed} s");
    }

    #[tokio::test(start_paused = true)]
    async fn polling_leaves_a_reserve_to_urgent_requests() {
        let budget = Budget::new(20, 4);
        for _ in 0..50 {
            drop(budget.acquire(Priority::Poll).await);
        }
        let started = Instant::now();
        drop(budget.acquire(Priority::Urgent).await);
        drop(budget.acquire(Priority::Urgent).await);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limit_answer_pauses_everything() {
        let budget = Budget::new(20, 4);
        budget.pause();
        let started = Instant::now();
        drop(budget.acquire(Priority::Urgent).await);
        assert!(started.elapsed() >= RATE_LIMIT_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_breaker_opens_after_failures_and_lets_one_trial_through() {
        let breaker = Breaker::default();
        for _ in 0..BREAKER_THRESHOLD {
            assert!(breaker.check().is_ok());
            breaker.failed();
        }
        assert!(breaker.check().is_err());
        tokio::time::advance(BREAKER_FIRST).await;
        assert!(breaker.check().is_ok(), "the trial");
        assert!(breaker.check().is_err(), "only one");
        breaker.failed();
        tokio::time::advance(BREAKER_FIRST).await;
        assert!(breaker.check().is_err(), "twice as long now");
        tokio::time::advance(BREAKER_FIRST).await;
        assert!(breaker.check().is_ok());
        breaker.succeeded();
        assert!(breaker.check().is_ok() && !breaker.is_open());
    }
}
