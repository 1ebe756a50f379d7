//! So many per minute and key: against callers who ask too often, and against guessing passwords.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync_util::lock;

/// Keys remembered; the ones that have been quiet are forgotten first.
const MAX_KEYS: usize = 100_000;

/// A token bucket per key that holds and refills a minute's worth.
#[derive(Debug)]
pub(crate) struct Throttle<K> {
    per_minute: f64,
    buckets: Mutex<HashMap<K, (f64, Instant)>>,
    /// A full table is swept so seldom that sweeping costs nothing.
    sweep: Seldom,
}

impl<K: Hash + Eq> Throttle<K> {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self {
            per_minute: f64::from(per_minute.max(1)),
            buckets: Mutex::default(),
            sweep: Seldom::default(),
        }
    }

    /// Counts one; otherwise how long to wait.
    pub(crate) fn check(&self, key: K) -> Result<(), Duration> {
        let now = Instant::now();
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= MAX_KEYS && !buckets.contains_key(&key) {
            if self.sweep.due() {
                buckets.retain(|_, (_, at)| now - *at < Duration::from_secs(60));
            }
            if buckets.len() >= MAX_KEYS {
                return Err(Duration::from_secs(60));
            }
        }
        let (tokens, at) = buckets.entry(key).or_insert((self.per_minute, now));
        let refilled = *tokens + (now - *at).as_secs_f64() * self.per_minute / 60.0;
        (*tokens, *at) = (refilled.min(self.per_minute), now);
        if *tokens >= 1.0 {
            *tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - *tokens) * 60.0 / self.per_minute))
    }
}

/// Says when to log something again that others can make happen at will.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Between two lines of one kind.
    const PAUSE: Duration = Duration::from_secs(30);

    /// Whether it is time; counts as done then.
    pub(crate) fn due(&self) -> bool {
        let now = Instant::now();
        let mut last = lock(&self.0);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= Self::PAUSE);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_is_logged_once_in_a_while() {
        let line = Seldom::default();
        assert!(line.due());
        assert!(!line.due());
        tokio::time::advance(Seldom::PAUSE).await;
        assert!(line.due());
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_holds_so_many_per_key() {
        let throttle = Throttle::new(5);
        for _ in 0..5 {
            assert!(throttle.check("a").is_ok());
        }
        let wait = throttle.check("a").unwrap_err();
        assert!(throttle.check("b").is_ok());
        tokio::time::advance(wait + Duration::from_millis(1)).await;
        assert!(throttle.check("a").is_ok());
        assert!(throttle.check("a").is_err());
    }
}
