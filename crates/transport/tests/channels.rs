//! Data channels between a peer and an independent client.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Setting, World};
use sluice_transport::{ChannelId, ChannelSpec, PeerEvent, SendError};
use str0m::Event;
use str0m::channel::{ChannelConfig, Reliability};

const SECOND: Duration = Duration::from_secs(1);

fn client_config(label: &str, ordered: bool, reliability: Reliability) -> ChannelConfig {
    ChannelConfig { label: label.into(), ordered, reliability, ..ChannelConfig::default() }
}

/// The client opens `_reliable` and `_lossy`.
fn client_opened(setting: Setting) -> (World, [str0m::channel::ChannelId; 2]) {
    let mut world = World::connected(setting);
    let mut api = world.client.direct_api();
    let lossy = Reliability::MaxRetransmits { retransmits: 0 };
    let ids = [
        api.create_data_channel(client_config("_reliable", true, Reliability::Reliable)),
        api.create_data_channel(client_config("_lossy", false, lossy)),
    ];
    world.client_wakes_now();
    let open = |world: &World| {
        world.server_channel("_reliable").is_some()
            && world.server_channel("_lossy").is_some()
            && ids.iter().all(|id| world.client_opened(*id))
    };
    assert!(world.run_until(10 * SECOND, open), "{:?}", world.server_events);
    (world, ids)
}

#[test]
fn client_opened_channels_arrive_with_their_reliability() {
    let (world, _) = client_opened(Setting::default());
    let opens: Vec<_> = (world.server_events.iter())
        .filter_map(|event| match event {
            PeerEvent::ChannelOpen { label, ordered, reliable, .. } => {
                Some((label.as_str(), *ordered, *reliable))
            }
            _ => None,
        })
        .collect();
    assert_eq!(opens, [("_reliable", true, true), ("_lossy", false, false)]);
    assert!(world.elapsed() < SECOND, "{:?}", world.elapsed());
}

#[test]
fn server_opened_channels_reach_the_client_and_use_odd_ids() {
    let mut world = World::connected(Setting { server_opens: true, ..Setting::default() });
    let all = ["_reliable", "_lossy", "_data_track"];
    let open = |world: &World| all.iter().all(|label| world.server_channel(label).is_some());
    assert!(world.run_until(5 * SECOND, open), "{:?}", world.server_events);
    world.run_for(SECOND);
    let labels: Vec<_> = (world.client_events.iter())
        .filter_map(|event| match event {
            Event::ChannelOpen(_, label) => Some(label.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(labels, all);
    assert_eq!(world.server_channel("_reliable"), Some(ChannelId(1)));
    assert_eq!(world.server_channel("_data_track"), Some(ChannelId(5)));
}

/// The client's first attempts are lost, the server starts as well, and both handshakes cross.
#[test]
fn crossing_sctp_handshakes_come_up_through_loss() {
    for seed in 1..=20 {
        let setting = Setting { seed, server_opens: true, ..Setting::default() };
        let mut world = World::new(setting);
        assert!(world.run_until(SECOND, |world| world.server.is_connected()));
        world.loss = 1.0;
        world.run_for(Duration::from_millis(100 * (35 + seed)));
        world.loss = 0.2;
        let open = |world: &World| {
            ["_reliable", "_data_track"].iter().all(|label| world.server_channel(label).is_some())
        };
        assert!(world.run_until(60 * SECOND, open), "seed {seed}");
    }
}

#[test]
fn server_as_dtls_client_uses_even_ids_and_starts_the_association() {
    let mut world = World::connected(Setting {
        server_opens: true,
        client_passive: true,
        ..Setting::default()
    });
    let open = |world: &World| world.server_channel("_data_track").is_some();
    assert!(world.run_until(5 * SECOND, open));
    assert_eq!(world.server_channel("_reliable"), Some(ChannelId(0)));
}

#[test]
fn messages_of_every_size_travel_both_ways() {
    let (mut world, [reliable, _]) = client_opened(Setting::default());
    let channel = world.server_channel("_reliable").unwrap();
    let sizes = [0, 1, 1_000, 1_200, 15_000, 60_000];
    for size in sizes {
        for binary in [true, false] {
            world.send_message(channel, binary, vec![b'x'; size]);
            if size > 0 {
                world.client_send(reliable, binary, &vec![b'y'; size]);
            }
            world.run_for(SECOND);
        }
    }
    world.run_for(5 * SECOND);
    let got: Vec<_> = world.client_messages().iter().map(|(b, data)| (*b, data.len())).collect();
    let expected: Vec<_> = sizes.iter().flat_map(|size| [(true, *size), (false, *size)]).collect();
    assert_eq!(got, expected);
    let got: Vec<_> =
        world.server_messages(channel).iter().map(|(b, data)| (*b, data.len())).collect();
    assert_eq!(got, expected[2..]);
    assert_eq!(world.server.buffered_amount(channel), 0);
}

#[test]
fn reliable_messages_survive_loss_in_order() {
    for seed in 1..=5 {
        let (mut world, [reliable, _]) =
            client_opened(Setting { loss: 0.1, seed, ..Setting::default() });
        let channel = world.server_channel("_reliable").unwrap();
        for number in 0..200u32 {
            world.send_message(channel, true, number.to_be_bytes().to_vec());
            world.client_send(reliable, true, &number.to_be_bytes());
            world.run_for(Duration::from_millis(20));
        }
        let all = |world: &World| {
            world.server_messages(channel).len() == 200 && world.client_messages().len() == 200
        };
        assert!(world.run_until(60 * SECOND, all), "seed {seed}");
        for (number, (_, data)) in world.server_messages(channel).iter().enumerate() {
            assert_eq!(data[..], (number as u32).to_be_bytes());
        }
        for (number, (_, data)) in world.client_messages().iter().enumerate() {
            assert_eq!(data[..], (number as u32).to_be_bytes());
        }
    }
}

#[test]
fn lossy_messages_are_not_retransmitted() {
    let (mut world, _) = client_opened(Setting::default());
    let channel = world.server_channel("_lossy").unwrap();
    world.loss = 0.1;
    for number in 0..300u32 {
        world.send_message(channel, true, number.to_be_bytes().to_vec());
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(5 * SECOND);
    let got = world.client_messages().len();
    assert!((200..300).contains(&got), "{got}");
}

#[test]
fn full_send_buffer_refuses_and_recovers() {
    let (mut world, _) = client_opened(Setting::default());
    world.run_for(SECOND);
    let channel = world.server_channel("_reliable").unwrap();
    let message = Bytes::from(vec![7; 60_000]);
    let mut accepted = 0;
    let refused = loop {
        match world.server.send(world.now, channel, true, message.clone()) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, SendError::BufferFull);
    assert_eq!(accepted, 16 * 1024 * 1024 / 60_000);
    assert_eq!(world.server.buffered_amount(channel), accepted * 60_000);
    world.settle();
    let has_room = |world: &World| world.server.buffered_amount(channel) <= 16_000_000;
    assert!(world.run_until(60 * SECOND, has_room));
    assert!(world.client_messages().len() > 10);
    assert!(world.server.send(world.now, channel, true, message).is_ok());
}

#[test]
fn old_messages_of_a_channel_with_a_bound_on_age_are_given_up_and_counted() {
    let (mut world, _) = client_opened(Setting::default());
    world.run_for(SECOND);
    let channel = world.server_channel("_lossy").unwrap();
    world.server.set_max_latency(channel, Some(Duration::from_millis(100)));
    world.loss = 1.0;
    for _ in 0..100 {
        world.server.send(world.now, channel, true, vec![1; 10_000].into()).unwrap();
    }
    assert_eq!(world.server.buffered_amount(channel), 1_000_000);
    world.run_for(5 * SECOND);
    assert!(world.server.buffered_amount(channel) <= 50_000);
    let expired = world.server.take_expired_messages();
    assert!((95..=100).contains(&expired), "{expired}");
    assert_eq!(world.server.take_expired_messages(), 0);
}

#[test]
fn message_over_the_remote_limit_is_refused() {
    let (mut world, _) = client_opened(Setting::default());
    let channel = world.server_channel("_reliable").unwrap();
    let sent = world.server.send(world.now, channel, true, vec![0; 65_536].into());
    assert_eq!(sent, Err(SendError::TooLarge));
    let unknown = world.server.send(world.now, ChannelId(77), true, vec![0].into());
    assert_eq!(unknown, Err(SendError::NotOpen));
}

#[test]
fn negotiated_channels_need_no_open() {
    let mut world = World::connected(Setting::default());
    for spec in ChannelSpec::livekit_negotiated() {
        world.server.open_channel(world.now, spec);
    }
    let config = ChannelConfig {
        negotiated: Some(100),
        ..client_config("_reliable", true, Reliability::Reliable)
    };
    let id = world.client.direct_api().create_data_channel(config);
    world.client_wakes_now();
    assert!(world.run_until(5 * SECOND, |world| world.client_opened(id)));
    assert_eq!(world.server_channel("_reliable"), Some(ChannelId(100)));
    world.send_message(ChannelId(100), true, "down");
    world.client_send(id, true, b"up");
    world.run_for(SECOND);
    assert_eq!(world.client_messages(), [(true, b"down".to_vec())]);
    assert_eq!(world.server_messages(ChannelId(100)), [(true, Bytes::from("up"))]);
}

#[test]
fn channel_closed_by_either_side_ends_on_both() {
    let (mut world, [reliable, lossy]) = client_opened(Setting::default());
    let channels = ["_reliable", "_lossy"].map(|label| world.server_channel(label).unwrap());
    world.client.direct_api().close_data_channel(reliable);
    world.client_wakes_now();
    world.server.close_channel(world.now, channels[1]);
    world.settle();
    world.run_for(5 * SECOND);
    for id in channels {
        assert!(world.server_events.contains(&PeerEvent::ChannelClosed { id }));
        let sent = world.server.send(world.now, id, true, vec![0].into());
        assert_eq!(sent, Err(SendError::NotOpen));
    }
    for id in [reliable, lossy] {
        assert!(world.client_events.contains(&Event::ChannelClose(id)));
    }
}
