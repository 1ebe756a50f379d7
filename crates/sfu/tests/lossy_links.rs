//! Loss on either side of the server is repaired by NACK and RTX; what cannot be repaired shows as
//! what it is, and never as a broken sequence.

mod common;

use common::{Call, each_seed, ms, over_seeds, tell};
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

/// A viewer with sound and picture whose path loses most packets for three seconds; milliseconds after
/// that until it was shown anything for good, and the top layer for good.
fn back_after(loss: f64, layers: usize, jitter: u64, seed: u64) -> Result<(u64, u64), String> {
    let camera = usual_camera(layers, 1, 100, seed);
    let mut call = Call::new(camera, LinkConfig::default(), seed).with_microphone();
    let good = LinkConfig { jitter: ms(jitter), ..LinkConfig::default() };
    call.join_controlled(good, true);
    call.run_until(ms(6_000));
    let top = layers as u8 - 1;
    let layer = |call: &Call| call.viewers[0].down.current_layer();
    call.viewers[0].link.set_config(LinkConfig { loss: Loss::Uniform(loss), ..good });
    call.run_for(ms(3_000));
    call.viewers[0].link.set_config(good);
    let (mut shown, mut whole) = (None, None);
    for at in (50..=30_000).step_by(50) {
        call.run_for(ms(50));
        let stays = |since: &mut Option<u64>, is: bool| match is {
            true => _ = since.get_or_insert(at),
            false => *since = None,
        };
        stays(&mut shown, layer(&call).is_some());
        stays(&mut whole, layer(&call) == Some(top));
    }
    assert_eq!(call.violations(), [""; 0], "seed {seed}");
    match (shown, whole) {
        (Some(shown), Some(whole)) if shown <= 6_000 && whole <= 8_000 => Ok((shown, whole)),
        other => Err(format!("back after {other:?}")),
    }
}

#[test]
fn a_picture_that_loss_took_away_is_soon_back() {
    for (loss, layers, jitter) in [(0.8, 1, 0), (0.8, 1, 4), (0.8, 3, 4), (0.4, 3, 4)] {
        let back = each_seed(|seed| back_after(loss, layers, jitter, seed));
        let what = format!("{layers} layers, {jitter} ms of jitter, after {} %", loss * 100.0);
        tell(&format!("{what}: shown, ms"), back.iter().map(|(shown, _)| *shown as f64));
        tell(&format!("{what}: on the top layer, ms"), back.iter().map(|(_, at)| *at as f64));
    }
}
