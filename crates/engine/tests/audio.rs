//! Audio towards receivers of different abilities.

mod common;

use std::time::Duration;

use common::{OPUS, OWN_PORTS, Outgoing, Published, RED, Subscription, World, opus};
use sluice_engine::api::{Command, SubscriptionSettings};
use sluice_rtp::codec::red::{self, Block};

/// A RED payload that repeats the two frames before this one.
fn red_of(seq: u64) -> Vec<u8> {
    let frames = [opus(seq - 2), opus(seq - 1), opus(seq)];
    let block = |index: usize, distance: u16| Block {
        payload_type: OPUS,
        timestamp_offset: distance * 960,
        data: &frames[index],
        primary: distance == 0,
    };
    let mut payload = vec![0; 200];
    let len = red::write(&[block(0, 2), block(1, 1)], block(2, 0), &mut payload).expect("it fits");
    payload.truncate(len);
    payload
}

fn speak_red(world: &mut World, client: usize, published: &Published, seq: u64) {
    let payload = red_of(seq);
    let ts = (seq * 960) as u32;
    let packet = Outgoing { pt: RED, seq, ts, marker: false, level: Some(20), payload: &payload };
    world.clients[client].write(published.streams[0].ssrc, packet);
}

/// Payload types and payloads that a subscription received.
fn heard(world: &World, client: usize, of: Subscription) -> Vec<(u8, Vec<u8>)> {
    let packets = world.clients[client].received(of.ssrc);
    packets.iter().map(|p| (*p.header.payload_type, p.payload.to_vec())).collect()
}

#[test]
fn redundant_audio_goes_as_it_is_to_some_and_as_repaired_opus_to_others() {
    let mut world = World::new(2, OWN_PORTS);
    let publisher = world.connect(0);
    let receivers = [world.connect(0), world.connect(1), world.connect(1)];
    let audio = world.publish_audio(publisher);
    let plain = world.subscribe(receivers[0], &audio);
    let red = world.subscribe_red(receivers[1], &audio);
    let far = world.subscribe(receivers[2], &audio);
    world.run_for(Duration::from_millis(50));
    // Two of each ten never come.
    let sent: Vec<u64> = (1_000..1_101).filter(|seq| seq % 10 != 3 && seq % 10 != 4).collect();
    for seq in &sent {
        speak_red(&mut world, publisher, &audio, *seq);
        world.turn();
    }
    let all: Vec<u64> = (1_000..1_101).collect();
    world.until("repaired", |w| {
        w.numbers(receivers[0], plain).len() >= all.len()
            && w.numbers(receivers[2], far).len() >= all.len()
            && heard(w, receivers[1], red).len() >= sent.len()
    });
    for (receiver, subscription) in [(receivers[0], plain), (receivers[2], far)] {
        assert_eq!(world.numbers(receiver, subscription), all);
        assert!(heard(&world, receiver, subscription).iter().all(|(pt, _)| *pt == OPUS));
        let packets = world.clients[receiver].received(subscription.ssrc);
        assert!(packets.windows(2).all(|p| *p[1].seq_no == *p[0].seq_no + 1));
        assert!(packets.windows(2).all(|p| p[1].time.numer() == p[0].time.numer() + 960));
    }
    let as_sent: Vec<(u8, Vec<u8>)> = sent.iter().map(|seq| (RED, red_of(*seq))).collect();
    assert_eq!(heard(&world, receivers[1], red), as_sent);
    world.until("counted", |w| w.total().red_recovered == 40);
}

#[test]
fn plain_audio_gets_redundancy_for_a_receiver_that_was_promised_it() {
    let mut world = World::new(1, OWN_PORTS);
    let (publisher, receiver) = (world.connect(0), world.connect(0));
    let audio = world.publish_audio(publisher);
    let red = world.subscribe_red(receiver, &audio);
    world.run_for(Duration::from_millis(20));
    for seq in 1_000..1_010 {
        world.speak(publisher, &audio, seq);
        world.turn();
    }
    world.until("forwarded", |w| heard(w, receiver, red).len() == 10);
    for (seq, (pt, payload)) in (1_000..).zip(heard(&world, receiver, red)).skip(2) {
        assert_eq!((pt, payload), (RED, red_of(seq)));
    }
}

/// Payload of the silence that the server sends.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

fn silences(world: &World, client: usize, of: Subscription) -> usize {
    heard(world, client, of)
        .iter()
        .filter(|(pt, payload)| *pt == OPUS && payload[..] == SILENCE)
        .count()
}

#[test]
fn a_muted_microphone_falls_silent_and_goes_on_without_a_gap() {
    let mut world = World::new(2, OWN_PORTS);
    let publisher = world.connect(0);
    let receivers = [world.connect(0), world.connect(1)];
    let audio = world.publish_audio(publisher);
    let hears = receivers.map(|receiver| world.subscribe(receiver, &audio));
    world.run_for(Duration::from_millis(50));
    for seq in 1_000..1_010 {
        world.speak(publisher, &audio, seq);
    }
    let all = |w: &World, len: usize, silence: usize| {
        (0..2).all(|i| {
            w.numbers(receivers[i], hears[i]).len() == len
                && silences(w, receivers[i], hears[i]) == silence
        })
    };
    world.until("heard", |w| all(w, 10, 0));
    world.send(Command::SetTrackMuted { track: audio.track, muted: true });
    world.until("silent", |w| all(w, 10, 10));
    // The client goes on sending while it is muted.
    let nacks = world.total().nacks_out;
    for seq in 1_010..1_060 {
        world.speak(publisher, &audio, seq);
        world.turn();
    }
    world.send(Command::SetTrackMuted { track: audio.track, muted: false });
    world.run_for(Duration::from_millis(50));
    for seq in 1_060..1_070 {
        world.speak(publisher, &audio, seq);
    }
    world.until("heard again", |w| all(w, 20, 10));
    for (receiver, subscription) in receivers.into_iter().zip(hears) {
        let packets = world.clients[receiver].received(subscription.ssrc);
        assert!(packets.windows(2).all(|p| *p[1].seq_no == *p[0].seq_no + 1));
        assert!(packets.windows(2).all(|p| p[1].time.numer() > p[0].time.numer()));
    }
    assert_eq!(world.total().nacks_out, nacks, "nothing is missed");
    assert_eq!(world.total().peer_panics, 0);
}

#[test]
fn a_receiver_that_pauses_a_microphone_gets_silence_and_others_do_not() {
    let mut world = World::new(1, OWN_PORTS);
    let publisher = world.connect(0);
    let (pausing, other) = (world.connect(0), world.connect(0));
    let audio = world.publish_audio(publisher);
    let paused = world.subscribe(pausing, &audio);
    let kept = world.subscribe(other, &audio);
    world.run_for(Duration::from_millis(20));
    world.speak(publisher, &audio, 1_000);
    world.until("heard", |w| w.numbers(pausing, paused).len() == 1);
    let settings = SubscriptionSettings { enabled: false, ..SubscriptionSettings::default() };
    world.send(Command::UpdateSubscription { subscription: paused.id, settings });
    world.until("silent", |w| silences(w, pausing, paused) == 10);
    assert_eq!(silences(&world, other, kept), 0);
}

#[test]
fn a_large_room_hears_its_loudest_and_gives_the_place_of_who_falls_silent_to_the_next() {
    let mut config = common::config(2, OWN_PORTS);
    config.media.max_forwarded_speakers = 1;
    let mut world = World::with(config);
    let speakers = [world.connect(0), world.connect(1)];
    let listener = world.connect(1);
    let tracks = speakers.map(|speaker| world.publish_audio(speaker));
    let heard = [0, 1].map(|i| world.subscribe(listener, &tracks[i]));
    world.run_for(Duration::from_millis(50));
    world.speak(speakers[0], &tracks[0], 1_000);
    world.until("the first has the place", |w| w.numbers(listener, heard[0]).len() == 1);
    for seq in 1_001..1_020 {
        world.speak(speakers[0], &tracks[0], seq);
        world.run_for(Duration::from_millis(5));
        world.speak(speakers[1], &tracks[1], seq);
        world.turn();
    }
    world.until("the first is heard", |w| w.numbers(listener, heard[0]).len() == 20);
    assert!(world.numbers(listener, heard[1]).is_empty());
    // The first one stops; the second goes on and is heard once the place is free.
    let mut seq = 1_020;
    world.until("the second is heard", |w| {
        w.speak(speakers[1], &tracks[1], seq);
        seq += 1;
        w.run_for(Duration::from_millis(10));
        w.numbers(listener, heard[1]).len() >= 20
    });
    let packets = world.clients[listener].received(heard[1].ssrc);
    assert!(packets.windows(2).all(|p| *p[1].seq_no == *p[0].seq_no + 1));
    assert_eq!(world.numbers(listener, heard[0]).len(), 20);
    world.until("counted", |w| w.total().dropped_for(sluice_engine::DropCause::OffStage) > 0);
}

#[test]
fn trap_30_receivers_that_see_tracks_by_packets_get_some_of_muted_tracks() {
    let mut world = World::new(1, OWN_PORTS);
    let (publisher, receiver, other) = (world.connect(0), world.connect(0), world.connect(0));
    let audio = world.publish_audio(publisher);
    world.send(Command::SetTrackMuted { track: audio.track, muted: true });
    let plain = world.subscribe(other, &audio);
    world.announce = true;
    let hears = world.subscribe(receiver, &audio);
    world.until("announced", |w| silences(w, receiver, hears) > 0);
    assert!(world.clients[other].received(plain.ssrc).is_empty());
    // The receiver reported on the stream, or the track began: no more of it.
    world.send(Command::SetTrackMuted { track: audio.track, muted: false });
    let mut seq = 1_000;
    world.until("heard", |w| {
        w.speak(publisher, &audio, seq);
        seq += 1;
        w.run_for(Duration::from_millis(5));
        w.numbers(receiver, hears).len() >= 10
    });
    let announced = silences(&world, receiver, hears);
    assert!(announced < 50);
    world.run_for(Duration::from_millis(250));
    assert_eq!(silences(&world, receiver, hears), announced);
    let packets = world.clients[receiver].received(hears.ssrc);
    assert!(packets.windows(2).all(|p| *p[1].seq_no == *p[0].seq_no + 1));
    assert!(packets.windows(2).all(|p| p[1].time.numer() > p[0].time.numer()));
}

#[test]
fn trap_30_a_camera_that_is_off_is_announced_by_padding() {
    let mut world = World::new(1, OWN_PORTS);
    let (publisher, receiver) = (world.connect(0), world.connect(0));
    let camera = world.publish_video(publisher, &[]);
    world.announce = true;
    let sees = world.subscribe(receiver, &camera);
    world.until("announced", |w| w.total().padding_bytes_out > 0);
    for seq in 1_000..1_005 {
        world.show(publisher, &camera, 0, seq, seq == 1_000);
        world.turn();
    }
    world.until("seen", |w| w.numbers(receiver, sees).len() == 5);
}
