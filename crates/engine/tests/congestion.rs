//! Receivers whose path does not take everything: probes, pauses, and audio that always flows.

#![allow(clippy::disallowed_methods, reason = "real sockets run on the real clock")]

mod common;

use std::time::{Duration, Instant};

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

/// A camera of 1.5 Mbit/s: three packets each [`FRAME_INTERVAL`].
#[derive(Default)]
struct Camera {
    seq: u64,
    next: Option<Instant>,
}

const FRAME_INTERVAL: Duration = Duration::from_millis(16);

impl Camera {
    /// Sends what is due, key frames often enough to begin at any time. Returns whether that was anything.
    fn play(&mut self, world: &mut World, publisher: usize, video: &Published) -> bool {
        let now = Instant::now();
        let is_due = self.next.is_none_or(|next| now >= next);
        if is_due {
            self.next = Some(self.next.unwrap_or(now) + FRAME_INTERVAL);
            for _ in 0..3 {
                self.seq += 1;
                world.show_large(publisher, video, self.seq, self.seq.is_multiple_of(20));
            }
        }
        is_due
    }

    /// The same with a microphone beside it.
    fn talk(&mut self, world: &mut World, publisher: usize, tracks: [&Published; 2]) {
        let [audio, video] = tracks;
        if self.play(world, publisher, video) {
            world.speak(publisher, audio, self.seq);
        }
    }
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
    let mut camera = Camera::default();
    world.until("probed", |w| {
        camera.play(w, publisher, &video);
        w.total().probes > 0
    });
    // The path takes what the probes asked for.
    world.until("estimated", |w| {
        camera.play(w, publisher, &video);
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
    let mut camera = Camera::default();
    world.until("paused", |w| {
        camera.talk(w, publisher, [&audio, &video]);
        paused(w, sees.id) == Some(true)
    });
    world.until("counted", |w| w.total().stream_pauses == 1);
    let heard = world.numbers(subscriber, hears).len();
    world.until("heard", |w| {
        camera.talk(w, publisher, [&audio, &video]);
        w.numbers(subscriber, hears).len() > heard + 20
    });
    world.clients[subscriber].incoming = Box::new(|_| true);
    world.until("resumed", |w| {
        camera.talk(w, publisher, [&audio, &video]);
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
    let mut camera = Camera::default();
    world.until("forwarded", |w| {
        camera.play(w, publisher, &video);
        w.numbers(subscriber, sees).len() > 500
    });
    assert_eq!(world.total().probes, 0);
    assert_eq!(world.total().receivers_by_estimate.iter().sum::<u64>(), 0);
}
