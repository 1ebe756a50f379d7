//! What every Prometheus client library says of its process, from `/proc` (proc(5)), and what the
//! machine's network interfaces count.

use std::fs::read_to_string;

use super::exposition::{Exposition, Kind};

/// Clock ticks per second of `/proc/self/stat`; Linux has told user space 100 since 2.4.
const TICKS_PER_SECOND: f64 = 100.0;

/// Size of a page on every platform that we build for, bytes.
const PAGE_BYTES: u64 = 4096;

/// Fields of `/proc/self/stat` after the name of the command.
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    start_ticks: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

/// Writes the `process_` metrics; where there is no `/proc` there are none.
pub(super) fn write(page: &mut Exposition) {
    if let Some(stat) = read_to_string("/proc/self/stat").ok().and_then(|text| parse_stat(&text)) {
        page.counter(
            "process_cpu_seconds_total",
            "User and system CPU time of the process, seconds",
            stat.cpu_seconds,
        );
        page.gauge("process_threads", "Threads of the process", stat.threads);
        page.gauge("process_virtual_memory_bytes", "Virtual memory", stat.virtual_bytes);
        page.gauge("process_resident_memory_bytes", "Resident memory", stat.resident_bytes);
        let boot = read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
        if let Some(boot) = boot {
            let start = boot + stat.start_ticks / TICKS_PER_SECOND;
            page.gauge("process_start_time_seconds", "Start of the process, Unix time", start);
        }
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Open file descriptors", descriptors.count());
    }
    if let Some((sent, dropped)) = read_to_string("/proc/net/dev").ok().map(|text| sent(&text)) {
        page.family(
            "livekit_node_packet_total",
            Kind::Gauge,
            "Packets that the machine's interfaces sent and dropped, loopback left out",
        );
        page.sample(&[("type", "out")], sent);
        page.sample(&[("type", "dropped")], dropped);
    }
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold spaces and parentheses; fields are counted from behind it (field 3).
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_seconds: (number(14)? + number(15)?) as f64 / TICKS_PER_SECOND,
        threads: number(20)?,
        start_ticks: number(22)? as f64,
        virtual_bytes: number(23)?,
        resident_bytes: number(24)? * PAGE_BYTES,
    })
}

fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Sums of `transmit packets` and `transmit drop`.
fn sent(text: &str) -> (u64, u64) {
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let real = interfaces.filter(|(name, _)| name.trim() != "lo");
    real.fold((0, 0), |(sent, dropped), (_, fields)| {
        let fields: Vec<u64> =
            fields.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or(0);
        (sent + field(9), dropped + field(11))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_command_may_hold_anything() {
        let text = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 4 18 900 8192 3 21";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.cpu_seconds, stat.threads, stat.start_ticks), (2.0, 4, 900.0));
        assert_eq!((stat.virtual_bytes, stat.resident_bytes), (8192, 3 * 4096));
        assert!(parse_stat("7 (a").is_none());
    }

    #[test]
    fn interfaces_are_summed_without_loopback() {
        let text = "Inter-|\n face |\n    lo: 1 2 0 0 0 0 0 0 1 9 0 8 0 0 0 0\n\
                    \x20 eth0: 1 2 0 0 0 0 0 0 1 5 0 3 0 0 0 0\n  eth1: 1 2 0 0 0 0 0 0 1 6 0 0 0 0 0 0\n";
        assert_eq!(sent(text), (11, 3));
    }
}
