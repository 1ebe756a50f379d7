//! Without loss every frame of the best layer reaches every viewer.

mod common;

use common::{Call, ms, over_seeds};
use sluice_sfu::DownTrackSettings;
use sluice_sim::LinkConfig;
use sluice_sim::vp8::usual_camera;

#[test]
fn a_viewer_sees_every_frame_of_the_best_layer() {
    over_seeds(|seed| {
        let mut call = Call::new(usual_camera(3, 3, 100, seed), LinkConfig::default(), seed);
        call.join(LinkConfig::default());
        call.run_until(ms(10_000));
        assert_eq!(call.violations(), [""; 0]);
        let viewer = &call.viewers[0];
        let stats = viewer.receiver.stats();
        assert_eq!((stats.undecodable, stats.nacked), (0, 0), "{stats:?}");
        // The last two frames may still be underway, and so may a layer below at the start.
        assert!(stats.decoded + 2 >= u64::from(call.camera.frames(2)), "{stats:?}");
        assert_eq!(call.layers_seen(0, ms(1_000)), [2]);
        assert!(viewer.receiver.longest_freeze(call.clock.at(ms(0))) < ms(50));
    });
}

#[test]
fn a_late_joiner_sees_a_picture_within_a_second() {
    over_seeds(|seed| {
        let mut call = Call::new(usual_camera(3, 3, 100, seed), LinkConfig::default(), seed);
        call.run_until(ms(5_000));
        let joined = call.clock.now();
        call.join(LinkConfig::default());
        call.run_for(ms(1_000));
        let first = call.viewers[0].receiver.decoded().first().expect("a picture came");
        // To the publisher and back is 40 ms, a frame 33 ms, to the viewer 20 ms.
        assert!(first.at - joined < ms(150), "{:?}", first.at - joined);
        assert_eq!(first.stamp.layer, 2);
        assert_eq!(call.violations(), [""; 0]);
    });
}

#[test]
fn five_hundred_joiners_cost_one_key_frame() {
    over_seeds(|seed| {
        let mut call = Call::new(usual_camera(3, 1, 100, seed), LinkConfig::default(), seed);
        // At another moment between two frames each time.
        call.run_until(ms(2_000 + seed % 100));
        let before = call.camera.key_frames(2);
        for _ in 0..500 {
            call.join(LinkConfig::default());
        }
        call.run_for(ms(900));
        assert_eq!(call.camera.key_frames(2) - before, 1);
        assert!(call.viewers.iter().all(|v| v.receiver.stats().decoded > 20));
        assert_eq!(call.violations(), [""; 0]);
    });
}

#[test]
fn temporal_layers_thin_the_frames_without_a_gap() {
    over_seeds(|seed| {
        for (max_temporal, fps) in [(0, 7.5), (1, 15.0), (2, 30.0)] {
            let mut call = Call::new(usual_camera(1, 3, 100, seed), LinkConfig::default(), seed);
            call.join(LinkConfig::default());
            call.want(0, DownTrackSettings { max_temporal, ..DownTrackSettings::default() });
            call.run_until(ms(10_000));
            assert_eq!(call.violations(), [""; 0]);
            let stats = call.viewers[0].receiver.stats();
            assert_eq!((stats.nacked, stats.undecodable), (0, 0), "{stats:?}");
            let decoded = stats.decoded as f64;
            assert!((decoded - fps * 10.0).abs() <= 2.0, "{decoded} frames at {fps} fps");
        }
    });
}
