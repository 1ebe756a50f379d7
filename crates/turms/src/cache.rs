//! A cache in which concurrent look-ups of one key share one question to Turms.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::stats::TurmsStats;
use crate::sync_util::lock;

type Slot<V> = Arc<tokio::sync::Mutex<Option<(V, Instant)>>>;

/// See the module. Values carry the time until which they count.
pub(crate) struct Cache<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    max_entries: usize,
    stats: Arc<TurmsStats>,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub(crate) fn new(max_entries: usize, stats: Arc<TurmsStats>) -> Self {
        Self { slots: Mutex::new(HashMap::new()), max_entries: max_entries.max(1), stats }
    }

    /// The value of a key, asked for by `fetch` when it is not known or too old. Failures are not
    /// kept: the next caller asks again.
    pub(crate) async fn get<E>(
        &self,
        key: K,
        ttl: impl FnOnce(&V) -> Duration,
        fetch: impl AsyncFnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        if let Some((value, until)) = held.as_ref()
            && *until > Instant::now()
        {
            return Ok(value.clone());
        }
        // As old as the question, not as the answer.
        let asked = Instant::now();
        let value = fetch().await?;
        *held = Some((value.clone(), asked + ttl(&value)));
        Ok(value)
    }

    fn slot(&self, key: K) -> Slot<V> {
        let mut slots = lock(&self.slots);
        if slots.len() >= self.max_entries && !slots.contains_key(&key) {
            let now = Instant::now();
            slots.retain(|_, slot| match slot.try_lock() {
                Ok(held) => held.as_ref().is_some_and(|(_, until)| *until > now),
                Err(_) => true,
            });
            if slots.len() >= self.max_entries {
                self.stats.tables_full.add();
                let victim = slots.keys().next().cloned();
                victim.and_then(|victim| slots.remove(&victim));
            }
        }
        slots.entry(key).or_default().clone()
    }

    /// Forgets what `matches`.
    pub(crate) fn forget(&self, matches: impl Fn(&K) -> bool) {
        lock(&self.slots).retain(|key, _| !matches(key));
    }

    /// Entries, valid or not.
    pub(crate) fn len(&self) -> usize {
        lock(&self.slots).len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn cache() -> Cache<u32, u32> {
        Cache::new(2, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn callers_of_one_key_share_a_question() {
        let (cache, asked) = (cache(), AtomicUsize::new(0));
        let ask = async || {
            cache
                .get(
                    1,
                    |_| TTL,
                    async || {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        asked.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, ()>(7)
                    },
                )
                .await
        };
        let answers = futures_util::future::join_all((0..20).map(|_| ask())).await;
        assert!(answers.iter().all(|answer| *answer == Ok(7)));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(TTL).await;
        ask().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_not_kept_and_entries_are_bounded() {
        let cache = cache();
        assert_eq!(cache.get(1, |_| TTL, async || Err::<u32, _>("down")).await, Err("down"));
        for key in 0..10 {
            assert_eq!(cache.get(key, |_| TTL, async || Ok::<_, ()>(key)).await, Ok(key));
        }
        assert_eq!(cache.len(), 2);
        assert!(cache.stats.tables_full.get() > 0);
        cache.forget(|_| true);
        assert_eq!(cache.len(), 0);
    }
}
