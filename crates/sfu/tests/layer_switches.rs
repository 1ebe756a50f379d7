//! Viewers that change their minds all the time, over bad links, still get one sequence each.

mod common;

use common::{Call, ms, over_seeds, seeds};
use proptest::prelude::*;
use sluice_sfu::{Allocation, DownTrackSettings};
use sluice_sim::vp8::usual_camera;
use sluice_sim::{LinkConfig, Loss};

#[derive(Debug, Clone, Copy)]
enum Change {
    Want {
        spatial: u8,
        temporal: u8,
    },
    Enable(bool),
    Limit {
        spatial: u8,
        temporal: u8,
        urgent: bool,
    },
    Unlimited,
    Starve,
    /// The publisher stops or restarts a layer.
    Publish {
        layer: usize,
        active: bool,
    },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0u8..3, 0u8..4).prop_map(|(spatial, temporal)| Change::Want { spatial, temporal }),
        2 => any::<bool>().prop_map(Change::Enable),
        4 => (0u8..3, 0u8..4, any::<bool>())
            .prop_map(|(spatial, temporal, urgent)| Change::Limit { spatial, temporal, urgent }),
        2 => Just(Change::Unlimited),
        1 => Just(Change::Starve),
        2 => (0usize..3, any::<bool>())
            .prop_map(|(layer, active)| Change::Publish { layer, active }),
    ]
}

fn apply(call: &mut Call, change: Change, settings: &mut DownTrackSettings) {
    let now = call.clock.now();
    match change {
        Change::Want { spatial, temporal } => {
            (settings.max_spatial, settings.max_temporal) = (spatial, temporal);
            call.want(0, *settings);
        }
        Change::Enable(enabled) => {
            settings.enabled = enabled;
            call.want(0, *settings);
        }
        Change::Limit { spatial, temporal, urgent } => {
            let limit = Allocation::UpTo { spatial, temporal, urgent };
            call.viewers[0].down.set_allocation(now, limit);
        }
        Change::Unlimited => _ = call.viewers[0].down.set_allocation(now, Allocation::Unlimited),
        Change::Starve => _ = call.viewers[0].down.set_allocation(now, Allocation::Paused),
        Change::Publish { layer, active } => call.camera.set_active(layer, active),
    }
}

fn link(loss: f64) -> LinkConfig {
    LinkConfig {
        loss: Loss::Uniform(loss),
        jitter: ms(10),
        reorder: 0.03,
        duplicate: 0.02,
        ..LinkConfig::default()
    }
}

/// A viewer who changes its mind after these milliseconds each, and lets everything come back in the end.
fn play(seed: u64, temporal_layers: u8, loss: [f64; 2], changes: &[(u64, Change)]) -> Call {
    let camera = usual_camera(3, temporal_layers, 100, seed);
    let [up, down] = loss.map(link);
    let mut call = Call::new(camera, up, seed);
    call.join(down);
    let mut settings = DownTrackSettings::default();
    for (pause, change) in changes {
        call.run_for(ms(*pause));
        apply(&mut call, *change, &mut settings);
    }
    (0..3).for_each(|layer| call.camera.set_active(layer, true));
    call.viewers[0].down.set_allocation(call.clock.now(), Allocation::Unlimited);
    call.want(0, DownTrackSettings::default());
    call.run_for(ms(6_000));
    call
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: seeds().count() as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_switching_over_bad_links_keeps_the_sequence_whole(
        seed in any::<u32>(),
        temporal_layers in 1u8..4,
        up_loss in 0.0..0.08f64,
        down_loss in 0.0..0.08f64,
        changes in prop::collection::vec((20u64..900, change()), 1..16),
    ) {
        let call = play(seed.into(), temporal_layers, [up_loss, down_loss], &changes);
        prop_assert_eq!(call.violations(), [""; 0]);
        prop_assert_eq!(call.viewers[0].down.current_layer(), Some(2));
        let newest = call.viewers[0].receiver.decoded().last().expect("pictures came");
        prop_assert!(call.clock.now() - newest.at < ms(1_500), "frozen at the end");
    }
}

#[test]
fn a_switch_on_a_clean_network_loses_no_picture() {
    over_seeds(|seed| {
        let mut call = Call::new(usual_camera(3, 1, 100, seed), LinkConfig::default(), seed);
        call.join(LinkConfig::default());
        call.run_until(ms(3_000));
        for (spatial, end) in [(0, 5_000), (2, 7_000), (1, 9_000), (0, 11_000), (2, 13_000)] {
            call.want(
                0,
                DownTrackSettings { max_spatial: spatial, ..DownTrackSettings::default() },
            );
            call.run_until(ms(end));
            assert_eq!(call.viewers[0].down.current_layer(), Some(spatial));
        }
        assert_eq!(call.violations(), [""; 0]);
        assert_eq!(call.layers_seen(0, ms(2_000)), [2, 0, 2, 1, 0, 2]);
        let viewer = &call.viewers[0].receiver;
        assert_eq!((viewer.stats().nacked, viewer.stats().plis), (0, 0));
        assert!(viewer.longest_freeze(call.clock.at(ms(1_000))) < ms(50));
        // The publisher's own clock puts every frame where it belongs, to a few ticks. At an up-switch
        // the same picture comes once from each layer, a tick apart.
        let steps = viewer.decoded().windows(2).map(|pair| pair[1].timestamp - pair[0].timestamp);
        let after_start = steps.skip(30);
        for step in after_start {
            assert!((2_990..=3_010).contains(&step) || step <= 10, "{step} ticks");
        }
    });
}

#[test]
fn an_urgent_cut_stops_the_high_layer_at_once() {
    over_seeds(|seed| {
        let mut call = Call::new(usual_camera(3, 1, 100, seed), LinkConfig::default(), seed);
        call.join(LinkConfig::default());
        call.run_until(ms(3_000));
        let now = call.clock.now();
        let limit = Allocation::UpTo { spatial: 0, temporal: 3, urgent: true };
        call.viewers[0].down.set_allocation(now, limit);
        assert_eq!(call.viewers[0].down.current_layer(), None);
        call.run_until(ms(4_000));
        let frames = call.viewers[0].receiver.decoded();
        let high_after =
            frames.iter().filter(|f| f.stamp.layer == 2 && f.at > now + ms(25)).count();
        assert_eq!(high_after, 0);
        assert!(call.viewers[0].receiver.longest_freeze(call.clock.at(ms(2_000))) < ms(200));
        assert_eq!(call.violations(), [""; 0]);
    });
}

#[test]
fn a_layer_that_the_publisher_stops_is_replaced_and_comes_back() {
    over_seeds(|seed| {
        let mut call = Call::new(usual_camera(3, 1, 100, seed), LinkConfig::default(), seed);
        call.join(LinkConfig::default());
        call.run_until(ms(3_000));
        call.camera.set_active(2, false);
        call.run_until(ms(6_000));
        assert_eq!(call.viewers[0].down.current_layer(), Some(1));
        call.camera.set_active(2, true);
        call.run_until(ms(12_000));
        assert_eq!(call.viewers[0].down.current_layer(), Some(2));
        assert_eq!(call.violations(), [""; 0]);
        let freeze = call.viewers[0].receiver.longest_freeze(call.clock.at(ms(1_000)));
        assert!(freeze < ms(1_200), "{freeze:?}");
    });
}

/// A layer begins with the first packet of its key frame, which came late; one below is refused; then the
/// receiver asks for the rest of the frame.
#[test]
fn a_frame_keeps_its_time_if_another_switch_is_refused_meanwhile() {
    use Change::{Limit, Publish, Unlimited, Want};
    let want = Want { spatial: 0, temporal: 0 };
    let changes = [
        (633, Publish { layer: 1, active: false }),
        (613, Publish { layer: 0, active: false }),
        (347, want),
        (703, Limit { spatial: 0, temporal: 0, urgent: true }),
        (839, want),
        (304, Unlimited),
        (426, want),
        (302, Publish { layer: 2, active: false }),
        (42, want),
        (792, want),
    ];
    let loss = [0.040_408_370_699_570_18, 0.073_177_290_289_658_7];
    let call = play(3_387_340_193, 1, loss, &changes);
    assert_eq!(call.violations(), [""; 0]);
}

/// The first packet of a key frame comes late, when the viewer has just been paused and is back.
#[test]
fn a_key_frame_that_begins_anew_is_a_frame_of_its_own() {
    let loss = [0.073_349_048_425_121_6, 0.068_126_358_875_560_66];
    let call = play(2_160_443_020, 1, loss, &[(596, Change::Enable(false))]);
    assert_eq!(call.violations(), [""; 0]);
}
