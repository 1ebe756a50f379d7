//! What forwarding costs besides instructions: allocations, memory, locks. One worker's state in
//! virtual time, with clients whose ICE, DTLS and SRTP are real.

use std::path::Path;
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use sluice_engine::rig::{Rig, RigConfig};
use sluice_rtp::codec::MediaKind;

fn rig(kind: MediaKind, publishers: usize, receivers: usize) -> Rig {
    let egress_hold = Duration::from_millis(2);
    Rig::new(RigConfig { publishers, receivers, idle: 0, kind, egress_hold })
}

/// Allocations of `rounds` rounds after histories and queues have grown to their size.
fn steady(rig: &mut Rig, interval: Duration, rounds: usize) -> (AllocationInfo, u64) {
    let mut run = |rounds: usize| (0..rounds).for_each(|_| rig.round(interval));
    // Histories hold two seconds; sender reports come every three.
    run(8_000 / interval.as_millis() as usize);
    let info = measure(|| run(rounds));
    (info, rig.stats().forwarded)
}

#[test]
fn forwarding_video_allocates_nothing_in_steady_state() {
    let mut rig = rig(MediaKind::Video, 2, 8);
    let (info, forwarded) = steady(&mut rig, Duration::from_millis(4), 2_000);
    assert!(forwarded > 2 * 8 * 3_000, "{forwarded}");
    assert_eq!(info.count_total, 0, "{info:?}");
}

#[test]
fn forwarding_audio_allocates_nothing_but_reports_of_who_speaks() {
    let mut rig = rig(MediaKind::Audio, 4, 8);
    let (info, _) = steady(&mut rig, Duration::from_millis(20), 1_000);
    // A report per 400 ms: its map, its lists, its place in the event queue.
    let reports = 1_000 * 20 / 400;
    assert!(info.count_total <= reports * 8, "{info:?}");
}

#[test]
fn an_idle_peer_is_small() {
    const PEERS: u64 = 20;
    let mut kept = None;
    let info = measure(|| kept = Some(rig(MediaKind::Audio, 0, PEERS as usize)));
    // The simulated client at the other end is of the same size as the peer.
    let per_peer = info.bytes_current as u64 / PEERS / 2;
    assert!(per_peer < 24 * 1024, "{per_peer} bytes");
}

#[test]
fn an_idle_subscription_is_small() {
    const TRACKS: usize = 100;
    let taken = |publishers, receivers| {
        let mut kept = None;
        measure(|| kept = Some(rig(MediaKind::Video, publishers, receivers))).bytes_current
    };
    let peer = taken(0, 1) - taken(0, 0);
    let per_subscription = (taken(TRACKS, 1) - taken(TRACKS, 0) - peer) / TRACKS as i64;
    assert!(per_subscription < 1_280, "{per_subscription} bytes");
}

/// Files through which packets go, without I/O and with it.
const PACKET_PATH: [&str; 9] = [
    "../rtp/src",
    "../sfu/src",
    "../transport/src",
    "../net/src",
    "src/core",
    "src/io.rs",
    "src/link.rs",
    "src/timers.rs",
    "src/worker.rs",
];

#[test]
fn the_packet_path_names_no_lock() {
    fn search(path: &Path, found: &mut Vec<String>) {
        if path.is_dir() {
            for entry in path.read_dir().expect("a directory of this project") {
                search(&entry.expect("an entry").path(), found);
            }
            return;
        }
        let text = std::fs::read_to_string(path).expect("a source file");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let locks = ["Mutex", "RwLock", "Condvar", ".lock()", "OnceLock"];
        let hits = code.filter(|line| locks.iter().any(|lock| line.contains(lock)));
        found.extend(hits.map(|line| format!("{}: {line}", path.display())));
    }
    let mut found = Vec::new();
    for place in PACKET_PATH {
        search(&Path::new(env!("CARGO_MANIFEST_DIR")).join(place), &mut found);
    }
    found.retain(|line| !line.contains("tests"));
    assert!(found.is_empty(), "{found:#?}");
}
