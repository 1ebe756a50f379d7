//! The first seconds of a viewer on a slow link, with the first estimate that servers use: too much
//! at first, then soon what fits.

mod common;

use common::{Call, each_seed, ms};
use sluice_sfu::bwe::BweConfig;
use sluice_sim::LinkConfig;
use sluice_sim::vp8::usual_camera;

/// First estimate of the engine (`CongestionConfig::start_bps`).
const START_BPS: u64 = 2_500_000;

#[derive(Debug)]
struct Joined {
    picture_ms: u64,
    settled_ms: Option<u64>,
    freeze_ms: u64,
    overflowed: u64,
    offered: u64,
}

/// A viewer joins behind a link of this rate; what it saw within ten seconds.
fn join(seed: u64, rate_bps: u64, layer: u8) -> (Call, Joined) {
    let mut call = Call::new(usual_camera(3, 1, 100, seed), LinkConfig::default(), seed);
    call.run_until(ms(2_000));
    let link = LinkConfig { rate_bps: Some(rate_bps), jitter: ms(2), ..LinkConfig::default() };
    let bwe = BweConfig { start_bps: START_BPS, ..BweConfig::default() };
    let from = call.clock.now();
    call.join_with(link, false, bwe);
    let mut settled = None;
    for step in 1..=200 {
        call.run_for(ms(50));
        match call.viewers[0].down.current_layer() {
            Some(now) if now <= layer => _ = settled.get_or_insert(step * 50),
            Some(_) => settled = None,
            None => {}
        }
    }
    let viewer = &call.viewers[0];
    let stats = viewer.link.stats();
    let first = viewer.receiver.decoded().first().map(|frame| frame.at - from);
    let joined = Joined {
        picture_ms: first.map_or(u64::MAX, |after| after.as_millis() as u64),
        settled_ms: settled,
        freeze_ms: viewer.receiver.longest_freeze(from).as_millis() as u64,
        overflowed: stats.overflowed,
        offered: stats.offered,
    };
    (call, joined)
}

#[test]
fn a_slow_link_is_found_out_soon() {
    for (rate_bps, layer) in [(300_000, 0), (600_000, 1)] {
        each_seed(|seed| {
            let (call, joined) = join(seed, rate_bps, layer);
            assert_eq!(call.violations(), [""; 0]);
            let soon = joined.picture_ms <= 1_000 && joined.settled_ms.is_some_and(|at| at <= 500);
            // What is dropped is the burst until the first feedback, once.
            let once = joined.overflowed * 4 <= joined.offered && joined.freeze_ms <= 300;
            if soon && once { Ok(()) } else { Err(format!("{rate_bps} bps: {joined:?}")) }
        });
    }
}
