//! Tokens that an administrator took back before they expire: who may join a room only with a token
//! that is newer than a given moment. Kept in memory, and in a file if the operator names a place
//! for one: then they outlive the process.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

/// Revocations kept at once; beyond it the oldest ends. Nothing else ends one: how long a token
/// lives is for its issuer to say.
const MAX_REVOCATIONS: usize = 100_000;

/// Lines that the file may hold before it is written anew with what still counts.
const MAX_LINES: usize = 2 * MAX_REVOCATIONS;

/// See the module documentation. Rooms count by name, so that a room made again keeps out whom the
/// earlier one removed.
#[derive(Debug, Default)]
pub struct Revocations {
    /// By room and identity.
    entries: DashMap<(String, String), Revocation>,
    last: AtomicU64,
    store: Option<Store>,
}

#[derive(Debug, Clone, Copy)]
struct Revocation {
    /// Unix seconds; tokens issued earlier are refused.
    issued_before: u64,
    /// Rises with each revocation.
    order: u64,
}

/// A line of the file, JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    room: String,
    identity: String,
    issued_before: u64,
}

/// A file to which lines are added.
#[derive(Debug)]
struct Store {
    path: PathBuf,
    /// The file, and how many lines it holds.
    file: Mutex<(File, usize)>,
}

impl Revocations {
    /// Those of a file, which takes later ones; it is made if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut revocations = Self::default();
        match std::fs::File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    // The last one may be cut short by the end of the process before.
                    match serde_json::from_str::<Line>(&line?) {
                        Ok(line) => revocations.note(&line),
                        Err(error) => tracing::warn!(%error, "a revoked token cannot be read"),
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (file, lines) = revocations.write_anew(path)?;
        let file = Mutex::new((File::from_std(file), lines));
        revocations.store = Some(Store { path: path.to_owned(), file });
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
        let Some(store) = &self.store else { return Ok(()) };
        let mut file = store.file.lock().await;
        if file.1 >= MAX_LINES {
            let (anew, lines) = self.write_anew(&store.path)?;
            // This revocation is among them.
            *file = (File::from_std(anew), lines);
            return Ok(());
        }
        let line = written(&line)?;
        let stored = store_line(&mut file.0, &line).await;
        // Half a line may stand there now, which would spoil the next one: then all is written anew.
        file.1 = if stored.is_ok() { file.1 + 1 } else { MAX_LINES };
        stored
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

    /// Replaces the file by one with what counts, oldest first. Returns it, ready for more, and the
    /// number of its lines.
    fn write_anew(&self, path: &Path) -> io::Result<(std::fs::File, usize)> {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|entry| {
                let (room, identity) = entry.key().clone();
                (entry.order, Line { room, identity, issued_before: entry.issued_before })
            })
            .collect();
        entries.sort_by_key(|(order, _)| *order);
        let beside = path.with_extension("new");
        // Names of participants are nobody else's business.
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        for (_, line) in &entries {
            file.write_all(&written(line)?)?;
        }
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        Ok((file, entries.len()))
    }
}

async fn store_line(file: &mut File, line: &[u8]) -> io::Result<()> {
    file.write_all(line).await?;
    file.sync_data().await
}

fn written(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
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
