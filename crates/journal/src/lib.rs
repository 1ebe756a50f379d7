//! Files of what must outlive a restart: entries are appended as lines of JSON, and read again in
//! their order at the next start.
//!
//! The owner of the entries says which ones still count. The file is written anew with those at
//! each start, when it has grown far beyond them, and after a failed write, which may have left half
//! a line. In flow entries, out flow the entries of earlier processes. Nothing here waits but for
//! the disk, and nothing logs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Files name users and rooms: their owner alone reads them.
const FILE_MODE: u32 = 0o600;

/// Lines beyond twice the living entries that make the file be written anew.
const SPARE_LINES: usize = 10_000;

/// What an appended entry outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The process: a line goes to the page cache, which is quick.
    Process,
    /// A crash of the machine too: each line is waited for until the disk has it.
    Machine,
}

/// A file, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    durability: Durability,
    /// Lines in the file; `None`: half a line may stand there.
    lines: Option<usize>,
}

impl Journal {
    /// Makes the file, or replaces it by one with the entries that still count.
    ///
    /// # Errors
    /// The file cannot be written; an old one stays as it was.
    pub fn create<E: Serialize>(
        path: &Path,
        durability: Durability,
        living: impl IntoIterator<Item = E>,
    ) -> io::Result<Self> {
        let (file, lines) = write_anew(path, living)?;
        Ok(Self { path: path.to_owned(), file, durability, lines: Some(lines) })
    }

    /// Adds an entry that is among the `count` living ones already; all of them are asked for when
    /// the file is to be written anew.
    ///
    /// # Errors
    /// The entry could not be stored; the next one brings it along.
    pub fn append<E: Serialize, I: IntoIterator<Item = E>>(
        &mut self,
        entry: &E,
        count: usize,
        living: impl FnOnce() -> I,
    ) -> io::Result<()> {
        let Some(lines) = self.lines.filter(|lines| *lines <= 2 * count + SPARE_LINES) else {
            let (file, lines) = write_anew(&self.path, living())?;
            (self.file, self.lines) = (file, Some(lines));
            return Ok(());
        };
        let line = line(entry)?;
        self.lines = None;
        self.file.write_all(&line)?;
        if self.durability == Durability::Machine {
            self.file.sync_data()?;
        }
        self.lines = Some(lines + 1);
        Ok(())
    }
}

/// Hands out the entries of a file in their order; none if there is no file. Returns the number of
/// lines that cannot be read: a crash may have left half a line at the end, a full disk one in
/// between, and each costs that line alone.
///
/// # Errors
/// The file cannot be read.
pub fn read<E: DeserializeOwned>(path: &Path, mut entry: impl FnMut(E)) -> io::Result<usize> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut unreadable = 0;
    for line in content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(read) => entry(read),
            Err(_) => unreadable += 1,
        }
    }
    Ok(unreadable)
}

/// Held as long as a file must not be another process's too. Lives in a file of its own, because
/// that of the entries is replaced.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a file, which need not exist.
    ///
    /// # Errors
    /// Another process has it, or its file cannot be made.
    pub fn take(path: &Path) -> io::Result<Self> {
        let file = options().create(true).append(true).open(beside(path, ".lock"))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another server uses it"),
            TryLockError::Error(error) => error,
        })?;
        Ok(Self { _file: file })
    }
}

/// Replaces the file; a crash in between leaves the old one. Returns the new one and the number of
/// its lines.
fn write_anew<E: Serialize>(
    path: &Path,
    entries: impl IntoIterator<Item = E>,
) -> io::Result<(File, usize)> {
    let (mut content, mut lines) = (Vec::new(), 0);
    for entry in entries {
        content.extend(line(&entry)?);
        lines += 1;
    }
    let new = beside(path, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = options().create_new(true).append(true).open(&new)?;
    file.write_all(&content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The name must last as well, or what is appended later is lost with the power.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok((file, lines))
}

fn line<E: Serialize>(entry: &E) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    Ok(line)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Place {
        _directory: tempfile::TempDir,
        path: PathBuf,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        Place { _directory: directory, path }
    }

    fn journal(path: &Path, durability: Durability) -> Journal {
        Journal::create(path, durability, [""; 0]).unwrap()
    }

    fn entries(path: &Path) -> (Vec<String>, usize) {
        let mut entries = Vec::new();
        let unreadable = read(path, |entry| entries.push(entry)).unwrap();
        (entries, unreadable)
    }

    #[test]
    fn entries_come_back_in_their_order() {
        for durability in [Durability::Process, Durability::Machine] {
            let place = place();
            let mut journal = journal(&place.path, durability);
            for (at, entry) in ["one", "t\nwo", "one"].iter().enumerate() {
                journal.append(entry, at, || [""; 0]).unwrap();
            }
            assert_eq!(entries(&place.path), (vec!["one".into(), "t\nwo".into(), "one".into()], 0));
        }
    }

    #[test]
    fn no_file_is_no_entries() {
        assert_eq!(entries(&place().path), (Vec::new(), 0));
    }

    #[test]
    fn half_a_line_and_strange_bytes_cost_that_line_alone() {
        let place = place();
        fs::write(&place.path, b"\"one\"\n\xff\xfe\n\n\"two\"\n\"thr").unwrap();
        assert_eq!(entries(&place.path), (vec!["one".into(), "two".into()], 2));
    }

    #[test]
    fn the_file_is_written_anew_before_it_grows_without_end() {
        let place = place();
        let mut journal = journal(&place.path, Durability::Process);
        for _ in 0..=SPARE_LINES + 2 {
            journal.append(&"alive", 1, || ["alive"]).unwrap();
        }
        assert_eq!(entries(&place.path).0.len(), SPARE_LINES + 3);
        journal.append(&"alive", 1, || ["alive"]).unwrap();
        assert_eq!(entries(&place.path).0.len(), 1);
        journal.append(&"later", 2, || [""; 0]).unwrap();
        assert_eq!(entries(&place.path).0, ["alive", "later"], "and goes on in the new file");
    }

    #[test]
    fn after_a_failed_write_the_next_entry_brings_the_lost_one_along() {
        let place = place();
        let mut journal = journal(&place.path, Durability::Process);
        journal.file = File::open(&place.path).unwrap();
        assert!(journal.append(&"lost", 1, || [""; 0]).is_err());
        journal.append(&"next", 2, || ["lost", "next"]).unwrap();
        assert_eq!(entries(&place.path).0, ["lost", "next"]);
    }

    #[test]
    fn what_an_interrupted_start_left_is_no_obstacle() {
        let place = place();
        fs::write(beside(&place.path, ".new"), "\"ha").unwrap();
        Journal::create(&place.path, Durability::Process, ["kept"]).unwrap();
        assert_eq!(entries(&place.path).0, ["kept"]);
    }

    #[test]
    fn the_owner_alone_reads_the_file() {
        let place = place();
        journal(&place.path, Durability::Process);
        assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & 0o777, FILE_MODE);
    }

    #[test]
    fn a_locked_file_is_nobody_elses_until_the_lock_is_dropped() {
        let place = place();
        let lock = Lock::take(&place.path).unwrap();
        assert!(Lock::take(&place.path).unwrap_err().to_string().contains("another server"));
        drop(lock);
        Lock::take(&place.path).unwrap();
    }
}
