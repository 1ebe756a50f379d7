//! A camera behind a token bucket, as `tbf` and routers have them: what passes at once after a pause says
//! nothing of what the link carries.

mod common;

use std::time::Duration;

use common::{Call, each_seed, ms, tell};
use sluice_sim::{Camera, LinkConfig, vp8, vp9};

/// What runs with a bucket keep to.
struct Limits {
    /// Bytes: none, two packets, a frame, many frames.
    bucket: usize,
    /// Longest freeze at a step down, ms.
    freeze_ms: u64,
    /// Lost to the queue of a link to which the layer has settled, share of packets.
    lost: f64,
    /// Share of runs that may exceed [`FREEZE_MS`] or [`LOST`], within the two above.
    unlucky: f64,
}

const FREEZE_MS: u64 = 500;
const LOST: f64 = 0.03;

/// Each seed has the next one. Behind a bucket some runs are unlucky: it was half empty when a probe
/// measured it, or it lets pass the first packets of a layer that does not fit, so that the first
/// feedback shows nothing. Seen with the first 600 seeds of either camera: up to 408 ms with 3.2 kB, 529
/// with 8 (two runs above 500), 549 with 16 (ten); up to 7 % of the packets of a link.
#[rustfmt::skip]
const LIMITS: [Limits; 4] = [
    Limits { bucket: 0,      freeze_ms: FREEZE_MS, lost: LOST, unlucky: 0.0 },
    Limits { bucket: 3_200,  freeze_ms: FREEZE_MS, lost: 0.06, unlucky: 0.02 },
    Limits { bucket: 8_000,  freeze_ms: 600,       lost: 0.06, unlucky: 0.02 },
    Limits { bucket: 16_000, freeze_ms: 600,       lost: 0.08, unlucky: 0.10 },
];
/// Rates of the link in turn, bits per second, the layer that fits, and the time until no higher one is
/// sent, or until it is.
const STEPS: [(u64, u8, u64); 4] =
    [(4_000_000, 2, 8_000), (600_000, 1, 2_000), (300_000, 0, 2_000), (4_000_000, 2, 8_000)];
/// Mean of what is lost.
const MAX_MEAN_LOST: f64 = 0.01;

fn link(rate_bps: u64, bucket: usize) -> LinkConfig {
    LinkConfig {
        rate_bps: Some(rate_bps),
        bucket,
        jitter: ms(2),
        max_queue: ms(200),
        ..LinkConfig::default()
    }
}

/// One step of one run.
#[derive(Debug, Clone, Copy)]
struct Step {
    settled_ms: Option<u64>,
    freeze: Duration,
    lost: f64,
}

fn run<C: Camera>(mut call: Call<C>, bucket: usize) -> [Step; 4] {
    call.join_controlled(link(STEPS[0].0, bucket), true);
    let steps = STEPS.map(|(rate_bps, layer, _)| {
        let from = call.clock.now();
        call.viewers[0].link.set_config(link(rate_bps, bucket));
        let (below, on) = call.settle(0, layer, 12_000);
        let before = call.viewers[0].link.stats();
        let freeze = call.viewers[0].receiver.longest_freeze(from);
        call.run_for(ms(12_000));
        let after = call.viewers[0].link.stats();
        let lost = (after.overflowed - before.overflowed) as f64;
        Step {
            settled_ms: if layer == 2 { on } else { below },
            freeze,
            lost: lost / (after.offered - before.offered) as f64,
        }
    });
    assert_eq!(call.violations(), [""; 0]);
    steps
}

/// Whether a run keeps to these limits at every step down, and on every stable link.
fn is_within(steps: &[Step; 4], freeze_ms: u64, max_lost: f64) -> bool {
    steps[1..3].iter().all(|step| step.freeze <= ms(freeze_ms))
        && steps.iter().all(|step| step.lost <= max_lost)
}

/// What is wrong with a run.
fn judge(limits: &Limits, steps: &[Step; 4]) -> Result<(), String> {
    let settled = |(step, within): (&Step, u64)| step.settled_ms.is_some_and(|at| at <= within);
    let all_settled = steps.iter().zip(STEPS.map(|step| step.2)).all(settled);
    match all_settled && is_within(steps, limits.freeze_ms, limits.lost) {
        true => Ok(()),
        false => Err(format!("bucket {}: {steps:?}", limits.bucket)),
    }
}

fn follow<C: Camera>(camera: impl Fn(u64) -> Call<C> + Sync) {
    let runs = each_seed(|seed| {
        let limits = &LIMITS[seed as usize % LIMITS.len()];
        let steps = run(camera(seed), limits.bucket);
        judge(limits, &steps)?;
        Ok((limits.bucket, steps))
    });
    for Limits { bucket, unlucky, .. } in LIMITS {
        let of_bucket = || runs.iter().filter(move |run| run.0 == bucket).map(|run| run.1);
        let count = of_bucket().count() as f64;
        for (index, (rate_bps, ..)) in STEPS.into_iter().enumerate() {
            let of = |figure: fn(&Step) -> f64| of_bucket().map(move |steps| figure(&steps[index]));
            let what = format!("bucket {bucket}, {rate_bps} bps");
            tell(&format!("{what}: settled, ms"), of(|s| s.settled_ms.unwrap_or(u64::MAX) as f64));
            tell(&format!("{what}: longest freeze, ms"), of(|s| s.freeze.as_millis() as f64));
            tell(&format!("{what}: own loss"), of(|s| s.lost));
            let lost = of(|s| s.lost).sum::<f64>();
            assert!(lost <= MAX_MEAN_LOST * count.max(10.0), "{what}: {lost} in {count} runs");
        }
        let seen = of_bucket().filter(|steps| !is_within(steps, FREEZE_MS, LOST)).count();
        assert!(seen as f64 <= unlucky * count.max(10.0), "bucket {bucket}: {seen} unlucky");
    }
}

#[test]
fn simulcast_follows_whatever_the_bucket_holds() {
    follow(|seed| Call::new(vp8::usual_camera(3, 1, 100, seed), LinkConfig::default(), seed));
}

#[test]
fn a_scalable_stream_follows_whatever_the_bucket_holds() {
    follow(|seed| Call::scalable(vp9::usual_camera(100, seed), LinkConfig::default(), seed));
}
