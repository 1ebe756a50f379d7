//! A simulcast camera over links whose rate changes: the right layer, soon, without long freezes.
#![allow(clippy::print_stdout, reason = "figures of the runs, shown with --nocapture")]

mod common;

use std::time::Duration;

use common::{Call, ms};
use sluice_sfu::allocator::StreamState;
use sluice_sfu::bwe::BandwidthEstimator;
use sluice_sim::vp8::usual_camera;
use sluice_sim::{LinkConfig, Loss};

/// Seeds to run; more by `SIM_SEEDS`.
fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

fn link(rate_bps: u64) -> LinkConfig {
    LinkConfig { rate_bps: Some(rate_bps), jitter: ms(2), ..LinkConfig::default() }
}

fn call(seed: u64) -> Call {
    Call::new(usual_camera(3, 1, 100, seed), LinkConfig::default(), seed)
}

/// Runs on; milliseconds until the viewer was at most on the layer to stay, and on it to stay.
fn settle(call: &mut Call, viewer: usize, layer: u8, ms_total: u64) -> (Option<u64>, Option<u64>) {
    let (mut below, mut since) = (None, None);
    for step in 1..=ms_total / 50 {
        call.run_for(ms(50));
        match call.viewers[viewer].down.current_layer() <= Some(layer) {
            true => _ = below.get_or_insert(step * 50),
            false => below = None,
        }
        match call.viewers[viewer].down.current_layer() == Some(layer) {
            true => _ = since.get_or_insert(step * 50),
            false => since = None,
        }
    }
    (below, since)
}

#[test]
fn the_layer_follows_the_link() {
    for seed in seeds() {
        let mut call = call(seed);
        call.join_controlled(link(4_000_000), true);
        settle(&mut call, 0, 2, 8_000);
        assert_eq!(call.viewers[0].down.current_layer(), Some(2), "seed {seed}");
        let steps = [(600_000, 1, 2_000), (300_000, 0, 2_000), (4_000_000, 2, 8_000)];
        for (rate_bps, layer, within) in steps {
            let from = call.clock.now();
            call.viewers[0].link.set_config(link(rate_bps));
            let settled = settle(&mut call, 0, layer, 12_000);
            let viewer = &call.viewers[0];
            let stats = viewer.control.as_ref().expect("controlled").estimator.stats();
            let freeze = viewer.receiver.longest_freeze(from);
            println!("seed {seed}: {rate_bps}: {settled:?} ms, freeze {freeze:?}, {stats:?}");
            assert!(
                settled.0.is_some_and(|at| at <= within)
                    && (rate_bps == 600_000 || settled.1.is_some_and(|at| at <= 8_000)),
                "seed {seed}, {rate_bps} bps: {settled:?}, {stats:?}"
            );
            assert!(freeze <= ms(500), "seed {seed}, {rate_bps} bps: {freeze:?}");
        }
        assert_eq!(call.violations(), [""; 0], "seed {seed}");
    }
}

#[test]
fn two_receivers_do_not_influence_each_other() {
    for seed in seeds() {
        let mut call = call(seed);
        call.join_controlled(link(4_000_000), true);
        call.join_controlled(link(300_000), true);
        call.run_until(ms(8_000));
        call.viewers[1].link.set_config(link(60_000));
        call.run_until(ms(16_000));
        call.viewers[1].link.set_config(link(4_000_000));
        call.run_until(ms(34_000));
        let good = &call.viewers[0];
        assert_eq!(call.layers_seen(0, ms(6_000)), [2], "seed {seed}");
        let freeze = good.receiver.longest_freeze(call.clock.at(ms(6_000)));
        assert!(freeze < ms(150), "seed {seed}: {freeze:?}");
        assert!(call.viewers[1].down.current_layer().is_some(), "seed {seed}");
        assert_eq!(call.violations(), [""; 0], "seed {seed}");
    }
}

#[test]
#[ignore = "known gap: about one seed in four freezes for a second after a switch under loss"]
fn random_loss_costs_few_frames_and_no_layer() {
    for seed in seeds() {
        let mut call = call(seed);
        let lossy = LinkConfig { loss: Loss::Uniform(0.05), ..link(6_000_000) };
        call.join_controlled(lossy, true);
        call.run_until(ms(5_000));
        let before = call.viewers[0].receiver.stats();
        call.run_until(ms(35_000));
        let viewer = &call.viewers[0];
        let stats = viewer.receiver.stats();
        let lost = stats.undecodable - before.undecodable;
        let decoded = stats.decoded - before.decoded;
        let control = viewer.control.as_ref().expect("controlled").estimator.stats();
        println!("seed {seed}: {lost} of {decoded}, {control:?}");
        assert!(lost * 100 <= decoded, "seed {seed}: {lost} of {decoded}");
        assert_eq!(viewer.down.current_layer(), Some(2), "seed {seed}: {control:?}");
        assert_eq!(call.violations(), [""; 0], "seed {seed}");
    }
}

#[test]
#[ignore = "known gap: the top layer returns too late after flapping near the link's rate"]
fn what_does_not_fit_at_all_is_paused_and_comes_back() {
    for seed in seeds() {
        let mut call = call(seed);
        call.join_controlled(link(2_500_000), true);
        call.run_until(ms(5_000));
        call.viewers[0].link.set_config(link(50_000));
        call.run_until(ms(12_000));
        let control = call.viewers[0].control.as_ref().expect("controlled");
        assert_eq!(control.state, StreamState::Paused, "{:?}", control.estimator.stats());
        call.viewers[0].link.set_config(link(2_500_000));
        let (_, back) = settle(&mut call, 0, 2, 20_000);
        println!("seed {seed}: back after {back:?}");
        let control = call.viewers[0].control.as_ref().expect("controlled");
        assert_eq!(control.state, StreamState::Active);
        assert!(back.is_some_and(|at| Duration::from_millis(at) <= ms(15_000)), "seed {seed}");
        assert_eq!(call.violations(), [""; 0], "seed {seed}");
    }
}
