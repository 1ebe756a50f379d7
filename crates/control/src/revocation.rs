//! Tokens that an administrator took back before they expire: who may join a room only with a token
//! that is newer than a given moment.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

/// Revocations kept at once; beyond it the oldest ends. Nothing else ends one: how long a token
/// lives is for its issuer to say.
const MAX_REVOCATIONS: usize = 100_000;

/// See the module documentation. Rooms count by name, so that a room made again keeps out whom the
/// earlier one removed.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    /// By room and identity.
    entries: DashMap<(String, String), Revocation>,
    last: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Revocation {
    /// Unix seconds; tokens issued earlier are refused.
    issued_before: u64,
    /// Rises with each revocation.
    order: u64,
}

impl Revocations {
    pub(crate) fn add(&self, room: &str, identity: &str, issued_before: u64) {
        let order = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let holder = (room.to_owned(), identity.to_owned());
        let mut entry = self.entries.entry(holder).or_insert(Revocation { issued_before, order });
        entry.issued_before = entry.issued_before.max(issued_before);
        entry.order = order;
        drop(entry);
        if self.entries.len() > MAX_REVOCATIONS {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&self) {
        let oldest = self.entries.iter().min_by_key(|entry| entry.order);
        if let Some(holder) = oldest.map(|entry| entry.key().clone()) {
            tracing::warn!(room = holder.0, "too many revoked tokens: the oldest is forgotten");
            self.entries.remove(&holder);
        }
    }

    /// Whether a token issued at `issued_at` (Unix seconds) was taken back.
    pub(crate) fn covers(&self, room: &str, identity: &str, issued_at: u64) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let holder = (room.to_owned(), identity.to_owned());
        self.entries.get(&holder).is_some_and(|entry| issued_at < entry.issued_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_tokens_of_that_holder_are_refused() {
        let revocations = Revocations::default();
        assert!(!revocations.covers("r", "alice", 0));
        revocations.add("r", "alice", 100);
        assert!(revocations.covers("r", "alice", 99));
        assert!(!revocations.covers("r", "alice", 100));
        assert!(!revocations.covers("r", "bob", 0) && !revocations.covers("s", "alice", 0));
    }

    #[test]
    fn a_later_revocation_never_lets_more_in() {
        let revocations = Revocations::default();
        revocations.add("r", "alice", 100);
        revocations.add("r", "alice", 50);
        assert!(revocations.covers("r", "alice", 99));
    }
}
