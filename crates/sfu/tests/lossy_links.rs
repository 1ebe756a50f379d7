//! Loss on either side of the server is repaired by NACK and RTX; what cannot be repaired shows as
//! what it is, and never as a broken sequence.

mod common;

use common::{Call, ms, over_seeds, tell};
use sluice_sim::vp8::usual_camera;
use sluice_sim::{LinkConfig, Loss};

fn bad(loss: Loss) -> LinkConfig {
    LinkConfig { loss, jitter: ms(8), reorder: 0.02, duplicate: 0.01, ..LinkConfig::default() }
}

/// A call of ten seconds; returns the share of the best layer's frames that the viewer did not
/// decode in the last eight.
fn missed(up: LinkConfig, down: LinkConfig, seed: u64) -> f64 {
    let mut call = Call::new(usual_camera(3, 3, 100, seed), up, seed);
    call.join(down);
    call.run_until(ms(2_000));
    let (before, shown) = (call.camera.frames(2), call.viewers[0].receiver.stats().decoded);
    call.run_until(ms(10_000));
    assert_eq!(call.violations(), [""; 0], "seed {seed}");
    let encoded = f64::from(call.camera.frames(2) - before);
    let decoded = (call.viewers[0].receiver.stats().decoded - shown) as f64;
    1.0 - decoded / encoded
}

/// The mean of [`missed`] over many seeds.
fn mean_missed(what: &str, up: LinkConfig, down: LinkConfig) -> f64 {
    let shares = over_seeds(|seed| missed(up, down, seed));
    tell(&format!("share of frames not decoded, {what}"), shares.iter().copied());
    shares.iter().sum::<f64>() / shares.len() as f64
}

#[test]
fn five_percent_loss_to_the_viewer_costs_one_percent_of_frames_at_most() {
    let lossy = bad(Loss::Uniform(0.05));
    let share = mean_missed("5 % loss to the viewer", LinkConfig::default(), lossy);
    assert!(share <= 0.01, "{share}");
}

#[test]
fn five_percent_loss_from_the_publisher_costs_one_percent_of_frames_at_most() {
    let lossy = bad(Loss::Uniform(0.05));
    let share = mean_missed("5 % loss from the publisher", lossy, LinkConfig::default());
    assert!(share <= 0.01, "{share}");
}

#[test]
fn bursts_on_both_sides_are_survived() {
    let bursts = Loss::Burst { enter: 0.005, leave: 0.15, lose: 0.8 };
    let share = mean_missed("bursts on both sides", bad(bursts), bad(bursts));
    assert!(share <= 0.05, "{share}");
}
