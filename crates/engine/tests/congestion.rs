//! Receivers whose path does not take everything: probes, pauses, and audio that always flows.

mod common;

use common::{OWN_PORTS, Published, World};
use sluice_engine::api::{EventKind, SubscriptionId};
use sluice_engine::{CongestionConfig, ESTIMATE_BUCKETS_BPS};

/// What the control plane was told last of a stream.
fn paused(world: &World, id: SubscriptionId) -> Option<bool> {
    world.events.iter().rev().find_map(|event| match event.kind {
        EventKind::StreamState { subscription, paused } if subscription == id => Some(paused),
        _ => None,
    })
}

/// Sends some frames of a track, key frames often enough to begin at any time.
fn play(world: &mut World, publisher: usize, video: &Published, seq: &mut u64) {
    for _ in 0..3 {
        *seq += 1;
        world.show_large(publisher, video, *seq, seq.is_multiple_of(20));
    }
    world.turn();
}

#[test]
fn more_is_probed_for_when_more_is_wanted() {
    let mut config = common::config(2, OWN_PORTS);
    let start_bps = 600_000;
    config.congestion = Some(CongestionConfig { start_bps, ..CongestionConfig::default() });
    let mut world = World::with(config);
    let (publisher, subscriber) = (world.connect(0), world.connect(1));
    let video = world.publish_video(publisher, &[]);
    world.subscribe(subscriber, &video);
    let mut seq = 0;
    world.until("probed", |w| {
        play(w, publisher, &video, &mut seq);
        w.total().probes > 0
    });
    // The path takes what the probes asked for.
    world.until("estimated", |w| {
        play(w, publisher, &video, &mut seq);
        let start = ESTIMATE_BUCKETS_BPS.iter().position(|end| *end == start_bps).expect("a group");
        w.total().receivers_by_estimate[start + 1..].iter().sum::<u64>() == 1
    });
}

#[test]
fn video_that_does_not_fit_is_paused_and_audio_is_not() {
    let mut config = common::config(1, OWN_PORTS);
    let congestion = CongestionConfig { allow_pause: true, ..CongestionConfig::default() };
    config.congestion = Some(congestion);
    let mut world = World::with(config);
    let (publisher, subscriber) = (world.connect(0), world.connect(0));
    let (audio, video) = (world.publish_audio(publisher), world.publish_video(publisher, &[]));
    let hears = world.subscribe(subscriber, &audio);
    let sees = world.subscribe(subscriber, &video);
    // Video packets are the large ones; four of five are lost.
    let mut count = 0;
    world.clients[subscriber].incoming = Box::new(move |datagram| {
        count += usize::from(datagram.len() > 200);
        datagram.len() <= 200 || count % 5 == 0
    });
    let mut seq = 0;
    world.until("paused", |w| {
        play(w, publisher, &video, &mut seq);
        w.speak(publisher, &audio, seq);
        paused(w, sees.id) == Some(true)
    });
    world.until("counted", |w| w.total().stream_pauses == 1);
    let heard = world.numbers(subscriber, hears).len();
    world.until("heard", |w| {
        play(w, publisher, &video, &mut seq);
        w.speak(publisher, &audio, seq);
        w.numbers(subscriber, hears).len() > heard + 20
    });
    world.clients[subscriber].incoming = Box::new(|_| true);
    world.until("resumed", |w| {
        play(w, publisher, &video, &mut seq);
        w.speak(publisher, &audio, seq);
        paused(w, sees.id) == Some(false)
    });
    assert_eq!(paused(&world, hears.id), None);
}

#[test]
fn without_congestion_control_nothing_is_probed() {
    let mut config = common::config(1, OWN_PORTS);
    config.congestion = None;
    let mut world = World::with(config);
    let (publisher, subscriber) = (world.connect(0), world.connect(0));
    let video = world.publish_video(publisher, &[]);
    let sees = world.subscribe(subscriber, &video);
    let mut seq = 0;
    world.until("forwarded", |w| {
        play(w, publisher, &video, &mut seq);
        w.numbers(subscriber, sees).len() > 500
    });
    assert_eq!(world.total().probes, 0);
    assert_eq!(world.total().receivers_by_estimate.iter().sum::<u64>(), 0);
}
