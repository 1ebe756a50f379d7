//! The request budget towards Turms: so many requests a second, so many at once, with a reserve
//! that polling leaves to requests somebody waits for; and the circuit breaker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use crate::sync_util::lock;

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
    /// Requests between asking for a turn and getting it, and how many there may be.
    waiting: AtomicU32,
    max_waiting: u32,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Budget {
    pub(crate) fn new(per_second: u32, in_flight: u32, max_waiting: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            in_flight: Semaphore::new(in_flight.max(1) as usize),
            waiting: AtomicU32::new(0),
            max_waiting: max_waiting.max(1),
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

    /// Waits for a turn, unless too many wait already (`None`). The permit is held while the
    /// request is in flight.
    pub(crate) async fn acquire(&self, priority: Priority) -> Option<SemaphorePermit<'_>> {
        let _waiting = Waiting::enter(&self.waiting, self.max_waiting)?;
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

/// A place among those who wait; left when the request goes out or its caller goes away.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicU32, max: u32) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(waiting);
        (before < max).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
    /// Leave to send; otherwise how long to wait.
    pub(crate) fn pass(&self) -> Result<Pass<'_>, Duration> {
        let mut state = lock(&self.0);
        if let Some((until, trial_out)) = &mut state.open {
            let now = Instant::now();
            if now < *until || *trial_out {
                return Err(until.saturating_duration_since(now).max(Duration::from_secs(1)));
            }
            *trial_out = true;
        }
        Ok(Pass(Some(self)))
    }

    fn succeeded(&self) {
        *lock(&self.0) = BreakerState::default();
    }

    fn failed(&self) {
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

    /// Nothing came of a request, for reasons of its caller: another one may be the trial.
    fn given_up(&self) {
        if let Some((_, trial_out)) = &mut lock(&self.0).open {
            *trial_out = false;
        }
    }

    /// Whether requests are held back now.
    pub(crate) fn is_open(&self) -> bool {
        lock(&self.0).open.is_some()
    }
}

/// Leave to send one request; its end is told to the breaker, also when the caller goes away.
#[derive(Debug)]
pub(crate) struct Pass<'a>(Option<&'a Breaker>);

impl Pass<'_> {
    /// Turms answered.
    pub(crate) fn succeeded(mut self) {
        self.0.take().into_iter().for_each(Breaker::succeeded);
    }

    /// Turms did not answer, or not sensibly.
    pub(crate) fn failed(mut self) {
        self.0.take().into_iter().for_each(Breaker::failed);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Breaker::given_up);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_sees_no_more_requests_than_allowed() {
        let budget = Budget::new(20, 4, 100);
        let started = Instant::now();
        for _ in 0..210 {
            drop(budget.acquire(Priority::Urgent).await);
        }
        let elapsed = started.elapsed().as_secs_f64();
        assert!((9.9..11.5).contains(&elapsed), "200 after a burst of 10: {elapsed} s");
    }

    #[tokio::test(start_paused = true)]
    async fn polling_leaves_a_reserve_to_urgent_requests() {
        let budget = Budget::new(20, 4, 100);
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
        let budget = Budget::new(20, 4, 100);
        budget.pause();
        let started = Instant::now();
        drop(budget.acquire(Priority::Urgent).await);
        assert!(started.elapsed() >= RATE_LIMIT_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait_and_whoever_gives_up_makes_room() {
        let budget = Budget::new(20, 1, 2);
        let turn = budget.acquire(Priority::Urgent).await.expect("the first");
        let mut waiting = [
            Box::pin(budget.acquire(Priority::Urgent)),
            Box::pin(budget.acquire(Priority::Urgent)),
        ];
        for place in &mut waiting {
            assert!(futures_util::poll!(place).is_pending());
        }
        assert!(budget.acquire(Priority::Urgent).await.is_none(), "two wait already");
        drop(waiting);
        drop(turn);
        assert!(budget.acquire(Priority::Urgent).await.is_some());
    }

    fn open_breaker() -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..BREAKER_THRESHOLD {
            breaker.pass().expect("still closed").failed();
        }
        assert!(breaker.pass().is_err());
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn the_breaker_opens_after_failures_and_lets_one_trial_through() {
        let breaker = open_breaker();
        tokio::time::advance(BREAKER_FIRST).await;
        let trial = breaker.pass().expect("the trial");
        assert!(breaker.pass().is_err(), "only one");
        trial.failed();
        tokio::time::advance(BREAKER_FIRST).await;
        assert!(breaker.pass().is_err(), "twice as long now");
        tokio::time::advance(BREAKER_FIRST).await;
        breaker.pass().expect("another trial").succeeded();
        assert!(breaker.pass().is_ok() && !breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_whose_caller_goes_away_makes_way_for_the_next() {
        let breaker = open_breaker();
        tokio::time::advance(BREAKER_FIRST).await;
        drop(breaker.pass().expect("the trial"));
        breaker.pass().expect("the next one").succeeded();
        assert!(!breaker.is_open());
    }
}
