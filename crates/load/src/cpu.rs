//! CPU time and memory of processes, from `/proc` (proc(5)).

use std::fs;
use std::time::Duration;

/// Clock ticks per second of `/proc/<pid>/stat`; 100 on every Linux that matters (sysconf(3)).
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of a process, user and system. Nanoseconds of the threads that it has, or ticks of 10 ms
/// of those that it has and had: whichever says more.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    Some(ticks_of_all(pid)?.max(threads(pid).map(|(_, time)| time).sum()))
}

/// Names of the threads of a process, and the CPU time of each.
pub(crate) fn threads(pid: u32) -> impl Iterator<Item = (String, Duration)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        // The first field is the time on a core, nanoseconds (sched-stats.rst).
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos = stat.split_ascii_whitespace().next()?.parse().ok()?;
        Some((name.trim_end().to_owned(), Duration::from_nanos(nanos)))
    })
}

fn ticks_of_all(pid: u32) -> Option<Duration> {
    // Fields 14 and 15, behind the name in parentheses.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// CPU time of this process.
pub fn own_cpu_time() -> Duration {
    cpu_time(std::process::id()).unwrap_or_default()
}

/// Resident memory of a process, bytes.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_has_used_cpu_and_memory() {
        assert!(cpu_time(std::process::id()).is_some());
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn process_that_does_not_exist_has_none() {
        assert_eq!(cpu_time(u32::MAX), None);
    }
}
