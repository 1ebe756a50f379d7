//! Media from a publisher to its receivers: on one worker, across workers, over one shared port.

mod common;

use std::time::Duration;

use common::{ONE_PORT, OWN_PORTS, World};
use sluice_engine::UdpPorts;
use sluice_engine::api::{Command, EventKind};

fn audio_and_video_pass(workers: u8, udp: UdpPorts, publisher_on: u8, subscriber_on: u8) {
    let mut world = World::new(workers, udp);
    let (publisher, subscriber) = (world.connect(publisher_on), world.connect(subscriber_on));
    let audio = world.publish_audio(publisher);
    let video = world.publish_video(publisher, &[]);
    let hears = world.subscribe(subscriber, &audio);
    let sees = world.subscribe(subscriber, &video);
    world.run_for(Duration::from_millis(20));
    for seq in 1_000..1_100u64 {
        world.speak(publisher, &audio, seq);
        world.show(publisher, &video, 0, seq, seq % 20 == 0);
        world.turn();
    }
    let wanted: Vec<u64> = (1_000..1_100).collect();
    world.until("forwarded", |w| {
        w.numbers(subscriber, hears).len() == 100 && w.numbers(subscriber, sees).len() == 100
    });
    assert_eq!(world.numbers(subscriber, hears), wanted);
    assert_eq!(world.numbers(subscriber, sees), wanted);
    for subscription in [hears, sees] {
        let packets = world.clients[subscriber].received(subscription.ssrc);
        let steps = packets.windows(2).all(|p| *p[1].seq_no == *p[0].seq_no + 1);
        assert!(steps, "sequence numbers leave no gap");
    }
    assert_eq!(world.total().peer_panics, 0);
    let is_start = |kind: &EventKind| matches!(kind, EventKind::LayerStarted { track, .. } if *track == video.track);
    assert!(world.seen(is_start));
}

#[test]
fn media_passes_on_one_worker() {
    audio_and_video_pass(1, OWN_PORTS, 0, 0);
}

#[test]
fn media_passes_between_workers_with_their_own_ports() {
    audio_and_video_pass(2, OWN_PORTS, 0, 1);
    audio_and_video_pass(2, OWN_PORTS, 1, 0);
}

#[test]
fn media_passes_between_workers_on_one_port() {
    audio_and_video_pass(2, ONE_PORT, 0, 1);
}

#[test]
fn packets_that_wait_for_others_of_their_receiver_leave_in_order() {
    let mut config = common::config(1, OWN_PORTS);
    config.egress_hold = Duration::from_millis(2);
    let mut world = World::with(config);
    let (publisher, subscriber) = (world.connect(0), world.connect(0));
    let video = world.publish_video(publisher, &[]);
    let sees = world.subscribe(subscriber, &video);
    world.run_for(Duration::from_millis(20));
    for seq in 1..=200 {
        world.show(publisher, &video, 0, seq, seq == 1);
        // A burst, but not one that overflows the client's socket.
        if seq % 10 == 0 {
            world.run_for(Duration::from_millis(3));
        }
    }
    world.until("forwarded", |w| w.numbers(subscriber, sees).len() == 200);
    assert_eq!(world.numbers(subscriber, sees), (1..=200).collect::<Vec<_>>());
    // A worker publishes its counters now and then: these of before the burst would prove nothing.
    world.until("counted", |w| w.total().packets_out >= 200);
    let total = world.total();
    assert!(total.send_calls < total.datagrams_out, "packets of one size share a call: {total:?}");
}

#[test]
fn sender_reports_carry_the_publishers_clock_to_the_receiver() {
    let mut world = World::new(2, OWN_PORTS);
    let (publisher, subscriber) = (world.connect(0), world.connect(1));
    let audio = world.publish_audio(publisher);
    let hears = world.subscribe(subscriber, &audio);
    world.run_for(Duration::from_millis(20));
    let mut seq = 0;
    world.until("reported", |w| {
        seq += 1;
        w.speak(publisher, &audio, seq);
        w.run_for(Duration::from_millis(20));
        let packets = w.clients[subscriber].received(hears.ssrc);
        packets.last().is_some_and(|packet| packet.last_sender_info.is_some())
    });
}

#[test]
fn a_worker_with_nothing_to_do_sleeps() {
    let mut world = World::new(2, ONE_PORT);
    world.until("started", |w| w.stats().workers.iter().all(|worker| worker.turns > 0));
    let before = world.total().turns;
    world.run_for(Duration::from_millis(700));
    assert!(world.total().turns <= before + 2, "{} turns", world.total().turns - before);
}

#[test]
fn datagrams_that_reach_the_wrong_worker_are_handed_over() {
    let mut world = World::new(2, ONE_PORT);
    let publisher = world.connect(0);
    let audio = world.publish_audio(publisher);
    let mut subscriptions = Vec::new();
    // The kernel picks the socket by the source port: half of them land on the wrong one.
    for index in 0..32u8 {
        let subscriber = world.connect(index % 2);
        subscriptions.push((subscriber, world.subscribe(subscriber, &audio)));
        if index >= 7 && world.total().handed_over > 0 {
            break;
        }
    }
    world.until("handed over", |w| w.total().handed_over > 0);
    world.run_for(Duration::from_millis(20));
    for seq in 0..20 {
        world.speak(publisher, &audio, 5_000 + seq);
        world.turn();
    }
    world.until("heard by all", |w| {
        subscriptions.iter().all(|(client, s)| w.numbers(*client, *s).len() == 20)
    });
    assert!(world.total().foreign_routes > 0);
}

#[test]
fn a_video_ends_in_black_and_its_numbers_go_on_when_it_is_subscribed_again() {
    let mut world = World::new(1, OWN_PORTS);
    let (publisher, subscriber) = (world.connect(0), world.connect(0));
    let video = world.publish_video(publisher, &[]);
    let sees = world.subscribe(subscriber, &video);
    world.run_for(Duration::from_millis(20));
    for seq in 1_000..1_010u64 {
        world.show(publisher, &video, 0, seq, seq == 1_000);
        world.turn();
    }
    world.until("seen", |w| w.numbers(subscriber, sees).len() == 10);
    world.send(Command::Unsubscribe { subscription: sees.id });
    world.until("black", |w| w.clients[subscriber].received(sees.ssrc).len() == 12);
    let packets = world.clients[subscriber].received(sees.ssrc);
    for black in &packets[10..] {
        // Behind a descriptor of its own: a key frame of 8 by 8.
        let frame = black.payload.strip_prefix(&[0x90, 0xf0]).expect("a descriptor");
        assert_eq!(frame[3..13], [0x10, 2, 0, 0x9d, 1, 0x2a, 8, 0, 8, 0]);
        assert!(black.header.marker);
    }
    assert!(packets.windows(2).all(|p| *p[1].seq_no == *p[0].seq_no + 1));
    assert!(packets.windows(2).all(|p| p[1].time.numer() > p[0].time.numer()));
    world.until("forgotten", |w| w.total().subscriptions == 0);
}
