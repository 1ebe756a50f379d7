//! What one viewer gets does not depend on who else watches: given the same packets of the
//! publisher, a viewer gets the same bytes at the same moments.

mod common;

use std::time::Duration;

use common::{Call, Record, check, each_seed, ms};
use sluice_sim::vp8::usual_camera;
use sluice_sim::{LinkConfig, Loss};

/// How long a call is.
const LENGTH: Duration = Duration::from_secs(8);

fn link(rate_bps: u64) -> LinkConfig {
    LinkConfig { rate_bps: Some(rate_bps), jitter: ms(2), ..LinkConfig::default() }
}

/// A link that loses, reorders and repeats, and hardly carries sound.
fn terrible() -> LinkConfig {
    let loss = Loss::Burst { enter: 0.02, leave: 0.1, lose: 0.7 };
    LinkConfig { loss, reorder: 0.1, duplicate: 0.05, delay: ms(150), ..link(60_000) }
}

fn call(seed: u64) -> Call {
    let camera = usual_camera(3, 3, 100, seed);
    let mut call = Call::new(camera, LinkConfig::default(), seed).with_microphone();
    let viewer = call.join_controlled(link(1_000_000), true);
    call.viewers[viewer].record = Some(Record::default());
    call
}

fn record(call: &mut Call) -> Record {
    call.viewers[0].record.take().expect("it was asked for")
}

#[test]
fn a_viewer_gets_the_same_bytes_with_and_without_others_on_terrible_links() {
    each_seed(|seed| {
        let mut among_others = call(seed);
        among_others.join_controlled(terrible(), true);
        among_others.join(LinkConfig { loss: Loss::Uniform(0.2), ..LinkConfig::default() });
        among_others.tape();
        among_others.tick_until(LENGTH);
        let mut alone = call(seed);
        alone.replay(among_others.taken_tape());
        alone.tick_until(LENGTH);

        let (with, without) = (record(&mut among_others), record(&mut alone));
        check!(with.arrived.len() > 500, "only {} packets came", with.arrived.len());
        check!(with == without, "{}", first_difference(&with, &without));
        assert_eq!(among_others.violations(), [""; 0], "seed {seed}");
        Ok(())
    });
}

fn first_difference(with: &Record, without: &Record) -> String {
    let pairs = with.arrived.iter().zip(&without.arrived);
    let differing = pairs.filter(|(with, without)| with != without);
    differing.take(1).map(|(with, without)| format!("{:?} and {:?}", with.0, without.0)).collect()
}
