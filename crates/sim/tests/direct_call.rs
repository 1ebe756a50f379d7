//! A simulated camera and a simulated viewer without a server in between: what the simulator itself
//! loses, repairs and complains about.

use std::time::Duration;

use sluice_rtp::codec::Codec;
use sluice_sim::video_receiver::{VideoReceiver, VideoReceiverConfig};
use sluice_sim::vp8::{Vp8Publisher, usual_camera};
use sluice_sim::{Camera, Clock, Link, LinkConfig, Loss};

/// Runs a call of ten seconds over a link of this kind in both directions.
fn call(config: LinkConfig, seed: u64, temporal_layers: u8) -> (Vp8Publisher, VideoReceiver) {
    let mut clock = Clock::new();
    let mut camera = Vp8Publisher::new(usual_camera(1, temporal_layers, 100, seed), clock.now());
    let (mut there, mut back) = (Link::new(config, seed), Link::new(config, seed + 1_000));
    let ids = VideoReceiverConfig {
        codec: Codec::Vp8,
        ssrc: 100,
        rtx_ssrc: 110,
        rtt: Duration::from_millis(60),
    };
    let mut viewer = VideoReceiver::new(ids, clock.now());
    let mut packets = Vec::new();
    while clock.elapsed() < Duration::from_secs(10) {
        let now = clock.now();
        camera.poll(&clock, &mut packets);
        for packet in packets.drain(..) {
            there.send(now, packet);
        }
        while let Some(packet) = there.poll(now) {
            if !sluice_rtp::rtcp::is_rtcp(&packet) {
                viewer.on_rtp(now, &packet);
            }
        }
        viewer.poll(now, &mut packets);
        for packet in packets.drain(..) {
            back.send(now, packet);
        }
        while let Some(packet) = back.poll(now) {
            camera.on_rtcp(&packet);
        }
        clock.advance_to(now + Duration::from_millis(1));
    }
    (camera, viewer)
}

#[test]
fn a_clean_link_shows_every_frame() {
    for temporal_layers in 1..=3 {
        let (camera, viewer) = call(LinkConfig::default(), 1, temporal_layers);
        assert_eq!(viewer.violations(), &[] as &[String]);
        let stats = viewer.stats();
        // The last frame may still be underway.
        assert!(stats.decoded + 1 >= u64::from(camera.frames(0)), "{stats:?}");
        assert_eq!((stats.recovered, stats.undecodable, stats.plis), (0, 0, 0));
        assert_eq!(camera.key_frames(0), 1);
    }
}

#[test]
fn retransmissions_repair_a_bad_link() {
    for seed in 0..10 {
        let config = LinkConfig {
            loss: Loss::Uniform(0.05),
            jitter: Duration::from_millis(10),
            reorder: 0.02,
            duplicate: 0.01,
            ..LinkConfig::default()
        };
        let (camera, viewer) = call(config, seed, 3);
        assert_eq!(viewer.violations(), &[] as &[String], "seed {seed}");
        let stats = viewer.stats();
        let missed = u64::from(camera.frames(0)) - stats.decoded;
        // If the very first packet is lost, nothing is shown until a key frame was asked for.
        assert!(missed <= 15, "seed {seed}: {stats:?}");
        assert!(stats.recovered > 20, "seed {seed}: {stats:?}");
    }
}

#[test]
fn without_repair_a_viewer_freezes_and_asks_for_key_frames() {
    let config = LinkConfig { loss: Loss::Uniform(0.3), ..LinkConfig::default() };
    let (camera, viewer) = call(config, 3, 1);
    assert_eq!(viewer.violations(), &[] as &[String]);
    assert!(viewer.stats().plis > 0 && camera.key_frames(0) > 1);
    assert!(viewer.stats().decoded < u64::from(camera.frames(0)));
}
