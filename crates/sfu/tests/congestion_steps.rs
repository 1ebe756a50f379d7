//! A simulcast camera over links whose rate changes: the right layer, soon, without long freezes.

mod common;

use common::{Call, check, each_seed, ms, tell};
use sluice_sfu::allocator::StreamState;
use sluice_sfu::bwe::BandwidthEstimator;
use sluice_sim::vp8::usual_camera;
use sluice_sim::{LinkConfig, LinkStats, Loss};

fn link(rate_bps: u64) -> LinkConfig {
    LinkConfig { rate_bps: Some(rate_bps), jitter: ms(2), ..LinkConfig::default() }
}

fn call(seed: u64) -> Call {
    Call::new(usual_camera(3, 1, 100, seed), LinkConfig::default(), seed)
}

/// What a step of the link showed.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Milliseconds until the viewer was at most on the right layer, and on it, to stay.
    at_most: Option<u64>,
    settled: Option<u64>,
    /// And until it was on it for the first time.
    reached: Option<u64>,
    /// The least that it had cost at most, bits per second, each time that it was left.
    left_at_bps: Option<u64>,
    freeze_ms: u128,
    /// Share of the packets that the queue of the link dropped.
    overflowed: f64,
}

/// Runs a step of the link; the layer is the right one for it.
fn step(call: &mut Call, rate_bps: u64, layer: u8) -> Step {
    let from = call.clock.now();
    call.viewers[0].link.set_config(link(rate_bps));
    let stats = |call: &Call| call.viewers[0].link.stats();
    let share = |from: LinkStats, to: LinkStats| {
        (to.overflowed - from.overflowed) as f64 / (to.offered - from.offered).max(1) as f64
    };
    let before = stats(call);
    let (mut reached, mut left_at_bps) = (None, None);
    let (mut looks, mut cost_bps) = (0, None);
    let (at_most, settled) = call.settle_watched(0, layer, 12_000, |viewer| {
        looks += 1;
        let control = viewer.control.as_ref().expect("controlled");
        if viewer.down.current_layer() != Some(layer) {
            left_at_bps = [left_at_bps, cost_bps.take()].into_iter().flatten().min();
        } else {
            reached.get_or_insert(looks * 50);
            if viewer.down.target_layer() == Some(layer) {
                cost_bps = cost_bps.max(Some(control.allocator.allocated_bps()));
            }
        }
    });
    let freeze_ms = call.viewers[0].receiver.longest_freeze(from).as_millis();
    let overflowed = share(before, stats(call));
    Step { at_most, settled, reached, left_at_bps, freeze_ms, overflowed }
}

#[test]
fn the_layer_follows_the_link() {
    let runs = each_seed(|seed| {
        let mut call = call(seed);
        call.join_controlled(link(4_000_000), true);
        call.settle(0, 2, 8_000);
        check!(call.viewers[0].down.current_layer() == Some(2), "not on the top layer at 4 Mbit/s");
        let steps = [(600_000, 1, 2_000), (300_000, 0, 2_000), (4_000_000, 2, 8_000)];
        let mut seen = Vec::new();
        for (rate_bps, layer, within) in steps {
            let step = step(&mut call, rate_bps, layer);
            let control = call.viewers[0].control.as_ref().expect("controlled");
            let stats = control.estimator.stats();
            // The middle layer fills seven eighths of 600 kbit/s, and in a few runs, with a key frame,
            // all of it for a while: only then it may be left once more.
            let full = |bps: u64| bps as f64 > 0.95 * rate_bps as f64;
            let stays = match layer {
                1 => step.left_at_bps.is_none_or(full),
                _ => step.settled.is_some_and(|at| at <= within),
            };
            check!(
                [step.at_most, step.reached].iter().all(|at| at.is_some_and(|at| at <= within))
                    && stays,
                "{rate_bps} bps: {step:?}, {stats:?}"
            );
            check!(step.freeze_ms <= 500, "{rate_bps} bps: {step:?} {stats:?}");
            seen.push(step);
        }
        assert_eq!(call.violations(), [""; 0]);
        Ok(seen)
    });
    let settled = |steps: &Vec<Step>| steps[0].settled.is_some_and(|at| at <= 2_000);
    let on_layer = runs.iter().filter(|steps| settled(steps)).count();
    tell("runs on the middle layer of 600 kbit/s within 2 s", std::iter::once(on_layer as f64));
    assert!(on_layer * 20 >= runs.len() * 19 || runs.len() < 20, "{on_layer} of {}", runs.len());
    for (index, what) in ["4 M to 600 k", "600 k to 300 k", "300 k to 4 M"].iter().enumerate() {
        let of = |figure: fn(&Step) -> f64| runs.iter().map(move |steps| figure(&steps[index]));
        tell(&format!("{what}: at most on the layer, ms"), of(|s| when(s.at_most)));
        tell(&format!("{what}: on the layer, ms"), of(|s| when(s.reached)));
        tell(&format!("{what}: on the layer for good, ms"), of(|s| when(s.settled)));
        tell(&format!("{what}: longest freeze, ms"), of(|s| s.freeze_ms as f64));
        tell(&format!("{what}: own loss"), of(|s| s.overflowed));
    }
}

/// Milliseconds for [`tell`]; never is infinity.
fn when(ms: Option<u64>) -> f64 {
    ms.map_or(f64::INFINITY, |ms| ms as f64)
}

#[test]
fn two_receivers_do_not_influence_each_other() {
    each_seed(|seed| {
        let mut call = call(seed);
        call.join_controlled(link(4_000_000), true);
        call.join_controlled(link(300_000), true);
        call.run_until(ms(8_000));
        call.viewers[1].link.set_config(link(60_000));
        call.run_until(ms(16_000));
        call.viewers[1].link.set_config(link(4_000_000));
        call.run_until(ms(34_000));
        let good = &call.viewers[0];
        let seen = call.layers_seen(0, ms(6_000));
        check!(seen == [2], "the good receiver saw {seen:?}");
        let freeze = good.receiver.longest_freeze(call.clock.at(ms(6_000)));
        check!(freeze < ms(150), "the good receiver froze {freeze:?}");
        check!(call.viewers[1].down.current_layer().is_some(), "the other one gets nothing");
        assert_eq!(call.violations(), [""; 0]);
        Ok(())
    });
}

#[test]
fn random_loss_costs_few_frames_and_no_layer() {
    let shares = each_seed(|seed| {
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
        check!(lost * 100 <= decoded, "{lost} of {decoded}, {:?} {control:?}", viewer.down.nacks());
        check!(viewer.down.current_layer() == Some(2), "{control:?}");
        assert_eq!(call.violations(), [""; 0]);
        Ok(lost as f64 / decoded as f64)
    });
    tell("share of frames not decoded at 5 % loss", shares);
}

#[test]
fn what_does_not_fit_at_all_is_paused_and_comes_back() {
    each_seed(|seed| {
        let mut call = call(seed);
        call.join_controlled(link(2_500_000), true);
        call.run_until(ms(5_000));
        call.viewers[0].link.set_config(link(50_000));
        call.run_until(ms(12_000));
        let control = call.viewers[0].control.as_ref().expect("controlled");
        check!(control.state == StreamState::Paused, "flows: {:?}", control.estimator.stats());
        call.viewers[0].link.set_config(link(2_500_000));
        let (_, back) = call.settle(0, 2, 20_000);
        let control = call.viewers[0].control.as_ref().expect("controlled");
        check!(control.state == StreamState::Active, "still paused");
        check!(
            back.is_some_and(|at| at <= 8_000),
            "back after {back:?}: {:?}",
            control.estimator.stats()
        );
        assert_eq!(call.violations(), [""; 0]);
        Ok(())
    });
}
