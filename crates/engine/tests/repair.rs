//! Loss on either side, key frames for who joins late, and what receivers want told to the publisher.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::{Filter, OWN_PORTS, World};
use sluice_engine::api::{Command, EventKind, SubscriptionSettings};

/// Lets every `nth` datagram that looks like RTP and is long enough for media be lost.
fn lossy(nth: usize) -> Filter {
    let mut count = 0;
    Box::new(move |datagram| {
        let is_video =
            datagram.len() > 150 && datagram[0] & 0xc0 == 0x80 && datagram[1] & 0x7f == 96;
        count += usize::from(is_video);
        !(is_video && count % nth == 0)
    })
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

fn all_arrives(workers: u8, break_it: impl FnOnce(&mut World, usize, usize)) -> World {
    let mut world = World::new(workers, OWN_PORTS);
    let (publisher, subscriber) = (world.connect(0), world.connect(workers - 1));
    let video = world.publish_video(publisher, &[]);
    let sees = world.subscribe(subscriber, &video);
    world.run_for(Duration::from_millis(20));
    world.show(publisher, &video, 0, 100, true);
    world.until("started", |w| !w.numbers(subscriber, sees).is_empty());
    break_it(&mut world, publisher, subscriber);
    for seq in 101..400 {
        world.show(publisher, &video, 0, seq, false);
        // The client asks each 33 ms, and for the last hundred packets only.
        world.run_for(Duration::from_millis(1));
    }
    world.until("repaired", |w| w.numbers(subscriber, sees).len() >= 298);
    world.clients[publisher].outgoing = Box::new(|_| true);
    world.clients[subscriber].incoming = Box::new(|_| true);
    world.show(publisher, &video, 0, 400, false);
    let wanted: Vec<u64> = (100..=400).collect();
    world.until("complete", |w| w.numbers(subscriber, sees).len() >= wanted.len());
    assert_eq!(sorted(world.numbers(subscriber, sees)), wanted);
    world
}

#[test]
fn loss_towards_a_receiver_is_repaired_from_the_history_of_its_worker() {
    let mut world = all_arrives(2, |w, _, subscriber| w.clients[subscriber].incoming = lossy(10));
    world.until("counted", |w| w.total().rtx_out >= 20 && w.total().nacks_in >= 20);
}

#[test]
fn loss_from_the_publisher_is_repaired_before_it_is_forwarded() {
    let mut world = all_arrives(1, |w, publisher, _| w.clients[publisher].outgoing = lossy(10));
    world.until("counted", |w| w.total().nacks_out >= 20 && w.total().rtx_in >= 20);
}

#[test]
fn a_late_joiner_gets_a_key_frame() {
    for workers in [1, 2] {
        let mut world = World::new(workers, OWN_PORTS);
        let publisher = world.connect(0);
        let video = world.publish_video(publisher, &[]);
        world.show(publisher, &video, 0, 1, true);
        world.show(publisher, &video, 0, 2, false);
        world.until("arrived", |w| w.total().packets_in >= 2);
        let subscriber = world.connect(workers - 1);
        let sees = world.subscribe(subscriber, &video);
        world.until("asked", |w| w.clients[publisher].key_frame_requests() > 0);
        world.show(publisher, &video, 0, 3, false);
        world.show(publisher, &video, 0, 4, true);
        world.until("started", |w| !w.numbers(subscriber, sees).is_empty());
        assert_eq!(world.numbers(subscriber, sees), [4]);
    }
}

#[test]
fn nobody_asks_for_key_frames_before_the_receiver_is_connected() {
    let mut world = World::new(1, OWN_PORTS);
    let publisher = world.connect(0);
    let video = world.publish_video(publisher, &[]);
    world.show(publisher, &video, 0, 1, true);
    let subscriber = world.join(0);
    world.clients[subscriber].incoming = Box::new(|_| false);
    let sees = world.subscribe(subscriber, &video);
    for seq in 2..50 {
        world.show(publisher, &video, 0, seq, seq == 30);
        world.run_for(Duration::from_millis(5));
    }
    assert_eq!(world.clients[publisher].key_frame_requests(), 0);
    world.clients[subscriber].incoming = Box::new(|_| true);
    world.until_connected(subscriber);
    world.until("asked", |w| w.clients[publisher].key_frame_requests() > 0);
    world.show(publisher, &video, 0, 50, true);
    world.until("started", |w| w.numbers(subscriber, sees) == [50]);
}

#[test]
fn a_receivers_own_request_reaches_the_publisher() {
    let mut world = World::new(2, OWN_PORTS);
    let (publisher, subscriber) = (world.connect(0), world.connect(1));
    let video = world.publish_video(publisher, &[]);
    let sees = world.subscribe(subscriber, &video);
    world.run_for(Duration::from_millis(20));
    world.show(publisher, &video, 0, 1, true);
    world.until("started", |w| !w.numbers(subscriber, sees).is_empty());
    let before = world.clients[publisher].key_frame_requests();
    // Requests to a publisher are spaced by half a second.
    world.run_for(Duration::from_millis(600));
    let client = &mut world.clients[subscriber];
    let mut api = client.rtc.direct_api();
    let stream = api.stream_rx(&sees.ssrc.into()).expect("a stream");
    stream.request_keyframe(str0m::media::KeyframeRequestKind::Pli);
    world.until("passed on", |w| w.clients[publisher].key_frame_requests() > before);
    world.until("counted", |w| w.total().plis_in > 0);
}

#[test]
fn simulcast_follows_what_the_receiver_wants() {
    let mut world = World::new(2, OWN_PORTS);
    let (publisher, subscriber) = (world.connect(0), world.connect(1));
    let video = world.publish_video(publisher, &["q", "h", "f"]);
    let low = SubscriptionSettings { max_spatial: 0, ..Default::default() };
    let sees = world.subscribe_with(subscriber, &video, low);
    let track = video.track;
    let wants = |wanted: Option<u8>| {
        move |w: &mut World| {
            let told = w.events.iter().rev().find_map(|event| match event.kind {
                EventKind::MaxWanted { track: t, max_spatial } if t == track => Some(max_spatial),
                _ => None,
            });
            told == Some(wanted)
        }
    };
    world.until("told", wants(Some(0)));

    let sizes = Rc::new(RefCell::new(1u64));
    let play = |world: &mut World, count: u64| {
        for _ in 0..count {
            let mut seq = sizes.borrow_mut();
            for layer in 0..3 {
                world.show(publisher, &video, layer, *seq, seq.is_multiple_of(10));
            }
            *seq += 1;
            world.run_for(Duration::from_millis(4));
        }
    };
    let size = |w: &World| {
        w.clients[subscriber].received(sees.ssrc).last().map(|packet| packet.payload.len())
    };
    play(&mut world, 60);
    assert_eq!(size(&world), Some(200));

    let settings = SubscriptionSettings::default();
    world.send(Command::UpdateSubscription { subscription: sees.id, settings });
    world.until("told", wants(Some(2)));
    // Once the path has shown that it takes that much.
    world.until("switched", |w| {
        play(w, 1);
        size(w) == Some(600)
    });

    let settings = SubscriptionSettings { enabled: false, ..Default::default() };
    world.send(Command::UpdateSubscription { subscription: sees.id, settings });
    world.until("told", wants(None));
    let before = world.clients[subscriber].received(sees.ssrc).len();
    play(&mut world, 20);
    assert_eq!(world.clients[subscriber].received(sees.ssrc).len(), before);
    let packets = world.clients[subscriber].received(sees.ssrc);
    assert!(packets.windows(2).all(|p| *p[1].seq_no == *p[0].seq_no + 1), "no gap at the switch");
    let layers = |kind: &&EventKind| matches!(kind, EventKind::LayerStarted { rid: Some(_), .. });
    assert_eq!(world.events.iter().map(|e| &e.kind).filter(layers).count(), 3);
}

#[test]
fn media_that_comes_before_its_track_is_matched_is_not_lost() {
    let mut world = World::new(1, OWN_PORTS);
    let (publisher, subscriber) = (world.connect(0), world.connect(0));
    let video = world.publish(publisher, sluice_rtp::codec::MediaKind::Video, &[], false);
    let sees = world.subscribe(subscriber, &video);
    for seq in 1..=20 {
        world.show(publisher, &video, 0, seq, seq == 1);
    }
    let (peer, mid) = (world.clients[publisher].peer, video.mid.clone());
    world.until("told", |w| {
        w.seen(|kind| matches!(kind, EventKind::UnmatchedMedia { peer: p, mid: m } if *p == peer && *m == mid))
    });
    world.until("held", |w| w.total().packets_in >= 20);
    world.match_track(peer, &video);
    world.until("forwarded", |w| w.numbers(subscriber, sees).len() == 20);
    assert_eq!(world.numbers(subscriber, sees), (1..=20).collect::<Vec<_>>());
}
