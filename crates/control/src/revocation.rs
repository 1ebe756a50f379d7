//! Tokens that an administrator took back before they expire: who may join a room only with a token
//! that is newer than a given moment. Kept in memory, and in a file if the operator names a place
//! for one: then they outlive the process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use sluice_journal::{Durability, Journal};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// Revocations kept at once; beyond it the oldest ends. Nothing else ends one: how long a token
/// lives is for its issuer to say.
const MAX_REVOCATIONS: usize = 100_000;

/// See the module documentation. Rooms count by name, so that a room made again keeps out whom the
/// earlier one removed.
#[derive(Debug, Default)]
pub struct Revocations {
    entries: Arc<Entries>,
    last: AtomicU64,
    journal: Option<Arc<Mutex<Journal>>>,
}

/// By room and identity.
type Entries = DashMap<(String, String), Revocation>;

#[derive(Debug, Clone, Copy)]
struct Revocation {
    /// Unix seconds; tokens issued earlier are refused.
    issued_before: u64,
    /// Rises with each revocation.
    order: u64,
}

/// An entry of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    room: String,
    identity: String,
    issued_before: u64,
}

impl Revocations {
    /// Those of a file, which takes later ones; it is made if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut revocations = Self::default();
        let unreadable = sluice_journal::read(path, |line: Line| revocations.note(&line))?;
        if unreadable > 0 {
            tracing::warn!(unreadable, "revoked tokens that cannot be read are left out");
        }
        let journal = Journal::create(path, Durability::Machine, living(&revocations.entries))?;
        revocations.journal = Some(Arc::new(Mutex::new(journal)));
        Ok(revocations)
    }

    /// Refuses tokens from now on; returns once that is stored, if it is.
    ///
    /// # Errors
    /// It could not be stored: it holds while this process runs.
    pub(crate) async fn add(
        &self,
        room: &str,
        identity: &str,
        issued_before: u64,
    ) -> io::Result<()> {
        let (room, identity) = (room.to_owned(), identity.to_owned());
        let line = Line { room, identity, issued_before };
        self.note(&line);
        let Some(journal) = self.journal.clone() else { return Ok(()) };
        let mut journal = journal.lock_owned().await;
        let entries = self.entries.clone();
        let store = move || journal.append(&line, entries.len(), || living(&entries));
        spawn_blocking(store).await?
    }

    fn note(&self, line: &Line) {
        let Line { room, identity, issued_before } = line;
        let (issued_before, order) =
            (*issued_before, self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let holder = (room.clone(), identity.clone());
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

/// What counts, oldest first.
fn living(entries: &Entries) -> Vec<Line> {
    let mut lines: Vec<_> = entries
        .iter()
        .map(|entry| {
            let (room, identity) = entry.key().clone();
            (entry.order, Line { room, identity, issued_before: entry.issued_before })
        })
        .collect();
    lines.sort_by_key(|(order, _)| *order);
    lines.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_older_tokens_of_that_holder_are_refused() {
        let revocations = Revocations::default();
        assert!(!revocations.covers("r", "alice", 0));
        revocations.add("r", "alice", 100).await.unwrap();
        assert!(revocations.covers("r", "alice", 99));
        assert!(!revocations.covers("r", "alice", 100));
        assert!(!revocations.covers("r", "bob", 0) && !revocations.covers("s", "alice", 0));
    }

    #[tokio::test]
    async fn a_later_revocation_never_lets_more_in() {
        let revocations = Revocations::default();
        revocations.add("r", "alice", 100).await.unwrap();
        revocations.add("r", "alice", 50).await.unwrap();
        assert!(revocations.covers("r", "alice", 99));
    }

    #[tokio::test]
    async fn the_format_of_the_file_is_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revocations.jsonl");
        let line = r#"{"room":"r","identity":"alice","issued_before":100}"#;
        std::fs::write(&path, format!("{line}\n")).unwrap();
        assert!(Revocations::open(&path).unwrap().covers("r", "alice", 99));
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), line);
    }

    #[tokio::test]
    async fn a_file_keeps_them_over_a_restart_and_a_line_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revocations.jsonl");
        let strange = "al\n\"ice";
        let revocations = Revocations::open(&path).unwrap();
        revocations.add("r", strange, 100).await.unwrap();
        revocations.add("r", strange, 120).await.unwrap();
        drop(revocations);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        std::fs::write(&path, text + r#"{"room":"r","iden"#).unwrap();

        let revocations = Revocations::open(&path).unwrap();
        assert!(revocations.covers("r", strange, 119) && !revocations.covers("r", strange, 120));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        revocations.add("r", "bob", 1).await.unwrap();
        assert!(Revocations::open(&path).unwrap().covers("r", "bob", 0));
    }
}
