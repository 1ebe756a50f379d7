//! Peers, tracks and subscriptions end without a trace; data channels; ICE-TCP; hostile datagrams;
//! speakers.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{ONE_PORT, OWN_PORTS, World};
use sluice_engine::api::{ChannelLabel, Command, EventKind, RoomKey, WorkerId};
use sluice_engine::{DropCause, TransportDrop, WorkerStats};
use sluice_transport::TransportProto;
use str0m::channel::ChannelConfig;

fn sizes(stats: &WorkerStats) -> [u64; 8] {
    [
        stats.peers,
        stats.tracks,
        stats.feeds,
        stats.subscriptions,
        stats.routes,
        stats.ufrags,
        stats.foreign_routes,
        stats.early_attachments,
    ]
}

#[test]
fn a_room_stays_on_its_worker_until_that_is_fuller_than_the_others() {
    let mut config = common::config(2, OWN_PORTS);
    config.room_affinity = 2;
    let mut world = World::with(config);
    let (room, other) = (RoomKey(1), RoomKey(2));
    for _ in 0..3 {
        assert_eq!(world.engine.place(room), WorkerId(1));
        world.join(1);
    }
    assert_eq!(world.engine.place(room), WorkerId(0), "three more are one too many");
    assert_eq!(world.engine.place(other), WorkerId(0));
}

#[test]
fn closing_peers_empties_every_table() {
    for udp in [OWN_PORTS, ONE_PORT] {
        let mut world = World::new(2, udp);
        let clients: Vec<_> = (0..6u8).map(|index| world.connect(index % 2)).collect();
        let tracks: Vec<_> = clients.iter().map(|c| world.publish_audio(*c)).collect();
        for client in &clients {
            for track in &tracks {
                world.subscribe(*client, track);
            }
        }
        world.until("subscribed", |w| w.total().subscriptions == 36);
        assert_eq!(world.total().feeds, 12);
        assert_eq!(world.total().peers_connected, 6);
        for client in clients {
            world.send(Command::ClosePeer { peer: world.clients[client].peer });
        }
        world.until("empty", |w| sizes(&w.total()) == [0; 8]);
        assert_eq!(world.total().peers_connected, 0);
        assert_eq!(world.total().tcp_connections, 0);
    }
}

#[test]
fn unsubscribing_stops_the_stream_and_unpublishing_the_track() {
    let mut world = World::new(2, OWN_PORTS);
    let (publisher, subscriber) = (world.connect(0), world.connect(1));
    let audio = world.publish_audio(publisher);
    let hears = world.subscribe(subscriber, &audio);
    world.until("attached", |w| w.total().subscriptions == 1);
    world.run_for(Duration::from_millis(20));
    world.speak(publisher, &audio, 1);
    world.until("heard", |w| w.numbers(subscriber, hears) == [1]);

    world.send(Command::Unsubscribe { subscription: hears.id });
    world.until("forgotten", |w| w.total().subscriptions == 0 && w.total().feeds == 0);
    world.run_for(Duration::from_millis(20));
    world.speak(publisher, &audio, 2);
    world.until("arrived", |w| w.total().packets_in == 2);
    assert_eq!(world.numbers(subscriber, hears), [1]);

    let again = world.subscribe(subscriber, &audio);
    world.until("subscribed", |w| w.total().subscriptions == 1);
    world.run_for(Duration::from_millis(20));
    world.speak(publisher, &audio, 3);
    world.until("heard", |w| w.numbers(subscriber, again) == [3]);
    world.send(Command::Unpublish { track: audio.track });
    world.until("ended", |w| w.total().tracks == 0);
    world.speak(publisher, &audio, 4);
    world.until("arrived", |w| w.total().packets_in == 4);
    world.run_for(Duration::from_millis(20));
    assert_eq!(world.numbers(subscriber, again), [3]);
    world.send(Command::Unsubscribe { subscription: again.id });
    world.until("forgotten", |w| w.total().subscriptions == 0 && w.total().feeds == 0);
}

#[test]
fn subscribing_before_the_track_exists_works() {
    let mut world = World::new(2, OWN_PORTS);
    let (publisher, subscriber) = (world.connect(0), world.connect(1));
    let audio = world.publish(publisher, sluice_rtp::codec::MediaKind::Audio, &[], false);
    let hears = world.subscribe(subscriber, &audio);
    world.until("waiting", |w| w.total().early_attachments == 1);
    let peer = world.clients[publisher].peer;
    world.match_track(peer, &audio);
    world.until("matched", |w| w.total().early_attachments == 0 && w.total().tracks == 1);
    world.speak(publisher, &audio, 9);
    world.until("heard", |w| w.numbers(subscriber, hears) == [9]);
}

#[test]
fn a_muted_track_is_silent_until_it_is_unmuted() {
    let mut world = World::new(1, OWN_PORTS);
    let (publisher, subscriber) = (world.connect(0), world.connect(0));
    let audio = world.publish_audio(publisher);
    let hears = world.subscribe(subscriber, &audio);
    world.until("subscribed", |w| w.total().subscriptions == 1);
    world.send(Command::SetTrackMuted { track: audio.track, muted: true });
    world.run_for(Duration::from_millis(20));
    world.speak(publisher, &audio, 1);
    world.until("dropped", |w| w.total().dropped_for(DropCause::Muted) == 1);
    world.send(Command::SetTrackMuted { track: audio.track, muted: false });
    world.run_for(Duration::from_millis(20));
    world.speak(publisher, &audio, 2);
    world.until("heard", |w| w.numbers(subscriber, hears) == [2]);
}

#[test]
fn media_and_data_pass_over_ice_tcp() {
    let mut world = World::new(2, OWN_PORTS);
    let publisher = world.join_with(1, TransportProto::Tcp, false);
    world.until_connected(publisher);
    assert!(world.seen(|kind| matches!(kind, EventKind::PeerConnected { tcp: true, .. })));
    let subscriber = world.join_with(0, TransportProto::Tcp, false);
    world.until_connected(subscriber);
    let audio = world.publish_audio(publisher);
    let hears = world.subscribe(subscriber, &audio);
    world.until("subscribed", |w| w.total().subscriptions == 1);
    world.run_for(Duration::from_millis(20));
    for seq in 0..50 {
        world.speak(publisher, &audio, seq);
    }
    world.until("heard", |w| w.numbers(subscriber, hears).len() == 50);
    world.until("counted", |w| w.total().tcp_connections == 2);
    world.send(Command::ClosePeer { peer: world.clients[publisher].peer });
    world.until("closed", |w| w.total().tcp_connections == 1 && w.total().peers == 1);
}

#[test]
fn data_passes_both_ways_on_channels_of_either_side() {
    let mut world = World::new(1, OWN_PORTS);
    let opens = world.join_with(0, TransportProto::Udp, false);
    let accepts = world.join_with(0, TransportProto::Udp, true);
    world.until_connected(opens);
    world.until_connected(accepts);
    let config = ChannelConfig { label: "_reliable".to_owned(), ..Default::default() };
    let channel = world.clients[opens].rtc.direct_api().create_data_channel(config);
    world.until("open", |w| {
        let by_client = w.clients[opens].channel("_reliable").is_some();
        let by_server =
            ["_reliable", "_lossy", "_data_track"].map(|l| w.clients[accepts].channel(l));
        let told = w.events.iter().filter(|e| matches!(e.kind, EventKind::ChannelOpen { .. }));
        by_client && by_server.iter().all(Option::is_some) && told.count() == 4
    });
    let mut writer = world.clients[opens].rtc.channel(channel).expect("open");
    assert!(writer.write(true, b"to the server").expect("writes"));
    world.until("arrived", |w| {
        w.seen(|kind| {
            matches!(kind, EventKind::Data { channel: ChannelLabel::Reliable, binary: true, payload, .. }
                if payload.as_ref() == b"to the server")
        })
    });
    let peers: Arc<[_]> = [opens, accepts].map(|c| world.clients[c].peer).into();
    world.send(Command::SendData {
        peers,
        channel: ChannelLabel::Reliable,
        binary: true,
        payload: Bytes::from_static(b"to everyone"),
    });
    world.until("received", |w| {
        [opens, accepts].iter().all(|c| w.clients[*c].messages() == [b"to everyone".to_vec()])
    });
    let peers = [world.clients[opens].peer].into();
    let channel = ChannelLabel::Lossy;
    world.send(Command::SendData { peers, channel, binary: true, payload: Bytes::new() });
    world.until("counted", |w| w.total().dropped_for(DropCause::DataSend) == 1);
}

#[test]
fn hostile_datagrams_are_counted_and_nothing_else() {
    let mut world = World::new(2, ONE_PORT);
    let (publisher, subscriber) = (world.connect(0), world.connect(1));
    let audio = world.publish_audio(publisher);
    let hears = world.subscribe(subscriber, &audio);
    world.until("subscribed", |w| w.total().subscriptions == 1);

    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let server = world.clients[publisher].server;
    let mut rtp = vec![0x80, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9];
    rtp.resize(100, 0x55);
    let mut stun = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    stun.resize(20, 7);
    stun.extend([0, 6, 0, 7]);
    stun.extend(b"ZZZZ:ab\0");
    let hello = [&[22u8, 0xfe, 0xff][..], &[0; 60]].concat();
    for _ in 0..50 {
        for datagram in [&rtp[..], &stun[..], &hello[..], &[0xff; 40][..], &[][..], &[0x80][..]] {
            stranger.send_to(datagram, server).expect("sends");
        }
    }
    let counted = |w: &mut World, cause| w.total().dropped_for(cause) >= 50;
    world.until("counted", |w| counted(w, DropCause::UnknownSource));
    world.until("counted", |w| counted(w, DropCause::UnknownUfrag));
    world.until("counted", |w| counted(w, DropCause::NotClassified));

    // From an address that is validated, but with the wrong keys.
    for _ in 0..10 {
        world.clients[publisher].send_raw(&rtp);
    }
    let index = TransportDrop::SrtpAuthentication as usize;
    world.until("refused", |w| w.total().transport_dropped[index] >= 10);

    for seq in 0..20 {
        world.speak(publisher, &audio, seq);
        world.turn();
    }
    world.until("heard", |w| w.numbers(subscriber, hears).len() == 20);
    assert_eq!(world.total().peers, 2);
    assert!(!world.seen(|kind| matches!(kind, EventKind::PeerFailed { .. })));
}

#[test]
fn speakers_are_told_while_they_speak_and_once_when_they_stop() {
    let mut world = World::new(1, OWN_PORTS);
    let publisher = world.connect(0);
    let audio = world.publish_audio(publisher);
    let levels = |world: &World| -> Vec<f32> {
        let of_track = |event: &sluice_engine::api::Event| match &event.kind {
            EventKind::AudioLevels { levels } => {
                levels.iter().find(|(track, _)| *track == audio.track).map(|(_, level)| *level)
            }
            _ => None,
        };
        world.events.iter().filter_map(of_track).collect()
    };
    for seq in 0..60 {
        world.speak(publisher, &audio, seq);
        world.run_for(Duration::from_millis(20));
    }
    world.until("told", |w| levels(w).iter().any(|level| *level > 0.0));
    world.until("silent", |w| levels(w).last() == Some(&0.0));
    let told = world.events.len();
    world.run_for(Duration::from_millis(900));
    assert_eq!(world.events.len(), told, "nothing to say");
}

#[test]
fn statistics_of_a_peer_are_answered() {
    let mut world = World::new(1, OWN_PORTS);
    let publisher = world.connect(0);
    let audio = world.publish_audio(publisher);
    for seq in 0..5 {
        world.speak(publisher, &audio, seq);
    }
    world.until("arrived", |w| w.total().packets_in == 5);
    let peer = world.clients[publisher].peer;
    world.send(Command::PeerStats { peer });
    world.until("answered", |w| {
        w.seen(|kind| {
            matches!(kind, EventKind::PeerStats { peer: p, stats } if *p == peer && stats.packets_in == 5)
        })
    });
}
