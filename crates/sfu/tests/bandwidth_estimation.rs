//! The estimator and the pacer over a simulated link, fed by a source that sends what it is told:
//! as much as the estimate, up to what is wanted.
#![allow(clippy::print_stdout, reason = "figures of the runs, shown with --nocapture")]

mod congestion;

use std::time::Duration;

use congestion::{Flow, FlowConfig, Measured, ms, seeds};
use sluice_sim::{LinkConfig, Loss};

fn link(rate_bps: u64) -> LinkConfig {
    LinkConfig { rate_bps: Some(rate_bps), jitter: ms(2), ..LinkConfig::default() }
}

#[test]
fn a_stable_link_is_used_without_harm() {
    for rate_bps in [300_000, 1_000_000, 4_000_000] {
        for seed in seeds() {
            let mut flow = Flow::new(FlowConfig::twcc(8_000_000), link(rate_bps), seed);
            flow.run_for(ms(10_000));
            flow.start_measuring();
            flow.run_for(ms(30_000));
            let seen = flow.measured();
            println!("rate {rate_bps} seed {seed}: {seen:?}");
            assert!(seen.utilisation >= 0.85, "{rate_bps} bps, seed {seed}: {seen:?}");
            assert!(seen.loss <= 0.03, "{rate_bps} bps, seed {seed}: {seen:?}");
            assert!(seen.standing_p95 <= ms(100), "{rate_bps} bps, seed {seed}: {seen:?}");
            assert!(seen.queue_p95 <= ms(140), "{rate_bps} bps, seed {seed}: {seen:?}");
        }
    }
}

#[test]
fn steps_of_the_link_are_followed() {
    for seed in seeds() {
        let mut flow = Flow::new(FlowConfig::twcc(6_000_000), link(4_000_000), seed);
        flow.run_for(ms(15_000));
        for (rate_bps, within) in [(600_000, 2_000), (300_000, 2_000), (4_000_000, 8_000)] {
            let before = flow.estimate_bps();
            flow.set_link(link(rate_bps));
            let mut settled = None;
            for tenth in 1..=150u64 {
                flow.run_for(ms(100));
                let estimate = flow.estimate_bps();
                let fits = if rate_bps > 1_000_000 {
                    estimate >= rate_bps * 7 / 10
                } else {
                    estimate <= rate_bps * 11 / 10
                };
                if fits && settled.is_none() {
                    settled = Some(tenth * 100);
                }
            }
            println!(
                "seed {seed}: {before} -> link {rate_bps}: settled {settled:?} ms, {:?}",
                flow.stats()
            );
            assert!(settled.is_some_and(|at| at <= within), "seed {seed}, {rate_bps}: {settled:?}");
        }
    }
}

/// What 4 Mbit/s over this link come to with each seed, from 15 to 45 seconds, judged by `holds`.
fn measure(link: LinkConfig, holds: impl Fn(&Measured) -> bool) {
    for seed in seeds() {
        let mut flow = Flow::new(FlowConfig::twcc(4_000_000), link, seed);
        flow.run_for(ms(15_000));
        flow.start_measuring();
        flow.run_for(ms(30_000));
        let seen = flow.measured();
        println!("seed {seed}: {seen:?} {:?}", flow.stats());
        assert!(holds(&seen), "seed {seed}: {seen:?} {:?}", flow.stats());
    }
}

#[test]
fn random_loss_does_not_collapse_the_estimate() {
    let lossy = LinkConfig { loss: Loss::Uniform(0.05), ..link(2_000_000) };
    measure(lossy, |seen| seen.utilisation >= 0.6 && seen.standing_p95 <= ms(100));
}

#[test]
fn jitter_is_not_taken_for_a_queue() {
    let jittery = LinkConfig { jitter: ms(60), ..link(2_000_000) };
    measure(jittery, |seen| seen.utilisation >= 0.7);
}

#[test]
fn a_source_below_the_link_is_not_held_back() {
    for seed in seeds() {
        let mut flow = Flow::new(FlowConfig::twcc(1_500_000), link(4_000_000), seed);
        flow.run_for(ms(5_000));
        assert!(flow.estimate_bps() >= 1_500_000, "seed {seed}: {:?}", flow.stats());
        flow.run_for(Duration::from_secs(60));
        assert!(flow.estimate_bps() >= 1_500_000, "seed {seed}: {:?}", flow.stats());
    }
}

#[test]
fn a_receivers_own_estimate_is_followed() {
    for seed in seeds() {
        let mut flow = Flow::new(FlowConfig::remb(3_000_000), link(1_500_000), seed);
        flow.run_for(ms(20_000));
        flow.start_measuring();
        flow.run_for(ms(20_000));
        let seen = flow.measured();
        println!("seed {seed}: {seen:?}");
        assert!(seen.utilisation >= 0.6, "seed {seed}: {seen:?}");
        assert!(seen.standing_p95 <= ms(300), "seed {seed}: {seen:?}");
    }
}
