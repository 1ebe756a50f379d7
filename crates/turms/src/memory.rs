//! What must outlive a restart, because Turms cannot be asked for it: who was removed from a room
//! or demoted in it, which rooms and meetings were closed, and whose a meeting is.
//!
//! In flow entries, out flow the tables that they fill. With a file every entry is appended to its
//! journal before anybody sees its effect; at the next start the entries are applied again in their
//! order, and what has expired is left out.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use sluice_journal::{Durability, Journal, Lock};

use crate::ids::{GroupId, MeetingId, UserId};
use crate::policy::UnixMillis;
use crate::stats::TurmsStats;
use crate::sync_util::lock;

/// Until when tokens that were issued up to a moment do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocation {
    /// Unix seconds.
    pub(crate) issued_up_to_s: i64,
    /// When the last such token has expired.
    pub(crate) until: UnixMillis,
}

/// A meeting that our plugin inside Turms told us of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meeting {
    pub(crate) creator: UserId,
    pub(crate) user: Option<UserId>,
    pub(crate) group: Option<GroupId>,
    /// When it was made.
    pub(crate) made: UnixMillis,
}

/// Something to remember; a line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A user was removed from a room.
    Denied {
        room: String,
        user: UserId,
        #[serde(flatten)]
        revocation: Revocation,
    },
    /// A user is no administrator of a room any more.
    Demoted {
        room: String,
        user: UserId,
        #[serde(flatten)]
        revocation: Revocation,
    },
    /// The group of a room is gone: tokens of everybody.
    Closed {
        room: String,
        #[serde(flatten)]
        revocation: Revocation,
    },
    /// A meeting was cancelled, and stays closed until then.
    Cancelled { meeting: MeetingId, until: UnixMillis },
    /// A meeting was made.
    Made {
        meeting: MeetingId,
        #[serde(flatten)]
        facts: Meeting,
    },
}

/// What the entries say together.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) denied: HashMap<(String, UserId), Revocation>,
    pub(crate) demoted: HashMap<(String, UserId), Revocation>,
    pub(crate) closed: HashMap<String, Revocation>,
    pub(crate) cancelled: HashMap<MeetingId, UnixMillis>,
    pub(crate) meetings: HashMap<MeetingId, Meeting>,
}

/// See the module.
pub struct Memory {
    held: Mutex<Held>,
    max_entries: usize,
    stats: Arc<TurmsStats>,
}

struct Held {
    tables: Tables,
    /// The lock keeps two servers from sharing the file.
    journal: Option<(Journal, Lock)>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// Tables of at most `max_entries` each. Without a file they are lost with the process.
    ///
    /// # Errors
    /// The file cannot be read or written, or another process has it; the text says which.
    pub fn open(
        file: Option<&Path>,
        max_entries: usize,
        now: UnixMillis,
        stats: Arc<TurmsStats>,
    ) -> Result<Self, String> {
        let mut tables = Tables::default();
        let journal = match file {
            None => None,
            Some(path) => Some(
                load(path, &mut tables, max_entries, now)
                    .map_err(|error| format!("`turms.state_file`, {}: {error}", path.display()))?,
            ),
        };
        Ok(Self { held: Mutex::new(Held { tables, journal }), max_entries, stats })
    }

    /// The tables, to look at.
    pub(crate) fn tables(&self) -> impl std::ops::Deref<Target = Tables> + '_ {
        struct Reading<'a>(MutexGuard<'a, Held>);
        impl std::ops::Deref for Reading<'_> {
            type Target = Tables;
            fn deref(&self) -> &Tables {
                &self.0.tables
            }
        }
        Reading(lock(&self.held))
    }

    /// Remembers an entry. What cannot be written is still known until the process ends.
    pub(crate) fn put(&self, entry: &Entry, now: UnixMillis) {
        let mut held = lock(&self.held);
        let Held { tables, journal } = &mut *held;
        if tables.apply(entry.clone(), self.max_entries, now) {
            self.stats.tables_full.add();
            tracing::error!(
                "a table of revocations or meetings is full (`turms.cache.max_entries`)"
            );
        }
        // A line of a hundred bytes goes to the page cache: quick enough for this lock, and a
        // process that is killed right after has not lost it.
        if let Some((journal, _)) = journal
            && let Err(error) = journal.append(entry, tables.len(), || tables.entries())
        {
            self.stats.state_failures.add();
            tracing::error!(%error, "`turms.state_file` cannot be written: a restart forgets");
        }
    }
}

impl Tables {
    /// Applies an entry; true when a full table had to forget something early.
    fn apply(&mut self, entry: Entry, max: usize, now: UnixMillis) -> bool {
        match entry {
            Entry::Denied { room, user, revocation } => {
                insert(&mut self.denied, (room, user), revocation, max, |r| r.until, now)
            }
            Entry::Demoted { room, user, revocation } => {
                insert(&mut self.demoted, (room, user), revocation, max, |r| r.until, now)
            }
            Entry::Closed { room, revocation } => {
                insert(&mut self.closed, room, revocation, max, |r| r.until, now)
            }
            Entry::Cancelled { meeting, until } => {
                self.meetings.remove(&meeting);
                insert(&mut self.cancelled, meeting, until, max, |until| *until, now)
            }
            // Turms does not say when a meeting is over: the oldest are forgotten.
            Entry::Made { meeting, facts } => {
                insert(&mut self.meetings, meeting, facts, max, |m| m.made, UnixMillis::MIN)
            }
        }
    }

    fn len(&self) -> usize {
        self.denied.len()
            + self.demoted.len()
            + self.closed.len()
            + self.cancelled.len()
            + self.meetings.len()
    }

    fn forget_expired(&mut self, now: UnixMillis) {
        self.denied.retain(|_, r| r.until > now);
        self.demoted.retain(|_, r| r.until > now);
        self.closed.retain(|_, r| r.until > now);
        self.cancelled.retain(|_, until| *until > now);
    }

    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let denied = self.denied.iter().map(|((room, user), revocation)| Entry::Denied {
            room: room.clone(),
            user: *user,
            revocation: *revocation,
        });
        let demoted = self.demoted.iter().map(|((room, user), revocation)| Entry::Demoted {
            room: room.clone(),
            user: *user,
            revocation: *revocation,
        });
        let closed = self.closed.iter().map(|(room, revocation)| Entry::Closed {
            room: room.clone(),
            revocation: *revocation,
        });
        let cancelled = self
            .cancelled
            .iter()
            .map(|(meeting, until)| Entry::Cancelled { meeting: *meeting, until: *until });
        let made = self
            .meetings
            .iter()
            .map(|(meeting, facts)| Entry::Made { meeting: *meeting, facts: *facts });
        denied.chain(demoted).chain(closed).chain(cancelled).chain(made)
    }
}

/// Inserts into a bounded table. A full one drops what has expired, and the entry that ends first
/// if that was not enough (true).
fn insert<K: Clone + Hash + Eq, V>(
    table: &mut HashMap<K, V>,
    key: K,
    value: V,
    max: usize,
    until: impl Fn(&V) -> UnixMillis,
    now: UnixMillis,
) -> bool {
    let mut forgot = false;
    if table.len() >= max && !table.contains_key(&key) {
        table.retain(|_, entry| until(entry) > now);
        if table.len() >= max {
            let first = table.iter().min_by_key(|(_, entry)| until(entry));
            let first = first.map(|(key, _)| key.clone());
            forgot = first.and_then(|key| table.remove(&key)).is_some();
        }
    }
    table.insert(key, value);
    forgot
}

/// Fills `tables` from the file, if there is one, and writes it anew.
fn load(
    path: &Path,
    tables: &mut Tables,
    max: usize,
    now: UnixMillis,
) -> io::Result<(Journal, Lock)> {
    let lock = Lock::take(path)?;
    let unreadable = sluice_journal::read(path, |entry| {
        tables.apply(entry, max, now);
    })?;
    if unreadable > 0 {
        tracing::warn!(unreadable, "lines of `turms.state_file` that cannot be read are left out");
    }
    tables.forget_expired(now);
    let journal = Journal::create(path, Durability::Process, tables.entries())?;
    Ok((journal, lock))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: UnixMillis = 1_700_000_000_000;

    fn user(id: i64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn meeting(id: i64) -> MeetingId {
        MeetingId::new(id).unwrap()
    }

    fn denied(id: i64, until: UnixMillis) -> Entry {
        let revocation = Revocation { issued_up_to_s: NOW / 1000, until };
        Entry::Denied { room: "turms:g:42".into(), user: user(id), revocation }
    }

    fn made(id: i64, made: UnixMillis) -> Entry {
        let facts = Meeting { creator: user(1), user: None, group: GroupId::new(42).ok(), made };
        Entry::Made { meeting: meeting(id), facts }
    }

    fn open(path: &Path, now: UnixMillis) -> Memory {
        Memory::open(Some(path), 3, now, Arc::default()).unwrap()
    }

    fn lines(path: &Path) -> usize {
        fs::read_to_string(path).unwrap().lines().count()
    }

    #[test]
    fn entries_outlive_the_process_until_they_expire() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("turms.state");
        let memory = open(&path, NOW);
        let revocation = Revocation { issued_up_to_s: NOW / 1000, until: NOW + 1000 };
        memory.put(&denied(7, NOW + 1000), NOW);
        memory.put(&denied(8, NOW + 9000), NOW);
        memory.put(&Entry::Demoted { room: "r".into(), user: user(7), revocation }, NOW);
        memory.put(&Entry::Closed { room: "r".into(), revocation }, NOW);
        memory.put(&made(123_456_789, NOW), NOW);
        memory.put(&made(987_654_321, NOW), NOW);
        memory.put(&Entry::Cancelled { meeting: meeting(987_654_321), until: NOW + 5000 }, NOW);
        drop(memory);
        {
            let memory = open(&path, NOW + 500);
            let tables = memory.tables();
            assert_eq!(tables.denied.len(), 2);
            assert_eq!(tables.demoted[&("r".into(), user(7))], revocation);
            assert_eq!(tables.closed["r"], revocation);
            assert_eq!(tables.cancelled[&meeting(987_654_321)], NOW + 5000);
            assert_eq!(tables.meetings[&meeting(123_456_789)].group, GroupId::new(42).ok());
            assert_eq!(tables.meetings.len(), 1, "the cancelled one is none any more");
        }
        let memory = open(&path, NOW + 2000);
        assert_eq!(memory.tables().denied.len(), 1);
        assert_eq!(lines(&path), 3, "user 8, the cancelled meeting and the other one");
    }

    #[test]
    fn the_format_of_the_file_is_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("turms.state");
        let written = [
            r#"{"what":"denied","room":"r","user":7,"issued_up_to_s":5,"until":9}"#,
            r#"{"what":"demoted","room":"r","user":7,"issued_up_to_s":5,"until":9}"#,
            r#"{"what":"closed","room":"r","issued_up_to_s":5,"until":9}"#,
            r#"{"what":"cancelled","meeting":123456789,"until":9}"#,
            r#"{"what":"made","meeting":987654321,"creator":1,"user":null,"group":42,"made":3}"#,
        ];
        fs::write(&path, written.join("\n")).unwrap();
        drop(open(&path, 8));
        let content = fs::read_to_string(&path).unwrap();
        assert_eq!(content.lines().collect::<Vec<_>>(), written);
    }

    #[test]
    fn two_servers_cannot_share_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("turms.state");
        let _memory = open(&path, NOW);
        let second = Memory::open(Some(&path), 3, NOW, Arc::default());
        assert!(second.unwrap_err().contains("another server uses it"));
    }

    #[test]
    fn full_tables_forget_what_ends_first_and_the_oldest_meetings() {
        let memory = Memory::open(None, 3, NOW, Arc::default()).unwrap();
        for id in 1..=10 {
            memory.put(&denied(id, NOW + id), NOW);
            memory.put(&made(100_000_000 + id, NOW + id), NOW);
        }
        assert_eq!(memory.tables().denied.len(), 3);
        assert!(memory.tables().denied.contains_key(&("turms:g:42".into(), user(10))));
        let meetings: Vec<i64> = memory.tables().meetings.keys().map(|id| id.get()).collect();
        assert!(meetings.iter().all(|id| *id > 100_000_007), "{meetings:?}");
        assert_eq!(memory.stats.tables_full.get(), 14);
    }
}
