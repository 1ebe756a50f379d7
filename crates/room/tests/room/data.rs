//! Data packets: to whom they go, what is written into them, what is dropped.

use bytes::Bytes;
use prost::Message;
use sluice_engine::api::{ChannelLabel, Command, EventKind, PeerId};
use sluice_proto as proto;
use sluice_proto::data_packet::Value;

use crate::support::*;

fn user_packet(text: &str, sequence: u32) -> proto::DataPacket {
    proto::DataPacket {
        sequence,
        value: Some(Value::User(proto::UserPacket {
            payload: Bytes::copy_from_slice(text.as_bytes()),
            ..Default::default()
        })),
        ..Default::default()
    }
}

impl World {
    fn send_data(&mut self, client: &Client, channel: ChannelLabel, payload: Vec<u8>) {
        let peer = self.subscriber_peer(client);
        self.engine(EventKind::Data { peer, channel, binary: true, payload: payload.into() });
    }

    fn send_reliable(&mut self, client: &Client, packet: &proto::DataPacket) {
        self.send_data(client, ChannelLabel::Reliable, packet.encode_to_vec());
    }

    /// What was sent to whom since the last call.
    fn delivered(&mut self) -> Vec<(Vec<PeerId>, ChannelLabel, proto::DataPacket)> {
        let sent = |command| match command {
            Command::SendData { peers, channel, payload, .. } => {
                Some((peers.to_vec(), channel, proto::DataPacket::decode(payload).unwrap()))
            }
            _ => None,
        };
        self.take_commands().into_iter().filter_map(sent).collect()
    }
}

#[test]
fn a_packet_goes_to_everyone_else_grouped_by_worker() {
    let mut world = World::new();
    let clients: Vec<Client> =
        ["a", "b", "c", "d"].iter().map(|name| world.join_active(name)).collect();
    world.take_commands();
    world.send_reliable(&clients[0], &user_packet("hi", 1));
    let delivered = world.delivered();
    assert_eq!(delivered.len(), 2, "one command per worker");
    let mut peers: Vec<PeerId> = delivered.iter().flat_map(|(peers, _, _)| peers.clone()).collect();
    for (of_worker, channel, packet) in &delivered {
        assert!(of_worker.iter().all(|peer| peer.worker() == of_worker[0].worker()));
        assert_eq!(*channel, ChannelLabel::Reliable);
        assert_eq!(packet.participant_identity, "a");
        assert_eq!(packet.participant_sid, clients[0].sid);
    }
    peers.sort();
    let mut expected: Vec<PeerId> =
        clients[1..].iter().map(|client| world.subscriber_peer(client)).collect();
    expected.sort();
    assert_eq!(peers, expected);
}

#[test]
fn destinations_narrow_a_packet() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.join_active("carol");
    world.take_commands();
    let mut packet = user_packet("hi", 0);
    packet.destination_identities = vec!["bob".into(), "alice".into()];
    world.send_data(&alice, ChannelLabel::Lossy, packet.encode_to_vec());
    let delivered = world.delivered();
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0].0, [world.subscriber_peer(&bob)]);
    assert_eq!(delivered[0].1, ChannelLabel::Lossy);
    assert_eq!(delivered[0].2.kind(), proto::data_packet::Kind::Lossy);
}

#[test]
fn repeated_reliable_packets_are_dropped() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.join_active("bob");
    world.take_commands();
    for sequence in [1, 2, 2, 1, 3] {
        world.send_reliable(&alice, &user_packet("hi", sequence));
    }
    let sequences: Vec<u32> = world.delivered().iter().map(|(_, _, p)| p.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(world.room.data_drops().duplicate, 2);
}

#[test]
fn reliable_packets_wait_for_a_participant_who_is_connecting() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join("bob");
    world.take_commands();
    world.send_reliable(&alice, &user_packet("first", 1));
    world.send_data(&alice, ChannelLabel::Lossy, user_packet("lost", 0).encode_to_vec());
    world.send_reliable(&alice, &user_packet("second", 2));
    assert!(world.delivered().is_empty());
    world.answer_offer(&bob);
    world.connect(world.subscriber_peer(&bob));
    let sequences: Vec<u32> = world.delivered().iter().map(|(_, _, p)| p.sequence).collect();
    assert_eq!(sequences, [1, 2]);
}

#[test]
fn who_may_not_publish_data_is_not_heard() {
    let mut world = World::new();
    let mut params = join_params("alice");
    params.grants.can_publish_data = Some(false);
    let alice = world.join_with(params);
    world.activate(&alice);
    world.join_active("bob");
    world.take_commands();
    world.send_reliable(&alice, &user_packet("hi", 1));
    assert!(world.delivered().is_empty());
    assert_eq!(world.room.data_drops().not_allowed, 1);
}

#[test]
fn garbage_is_counted_and_harms_nobody() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.join_active("bob");
    world.take_commands();
    world.send_data(&alice, ChannelLabel::Reliable, vec![0xff; 40]);
    world.send_reliable(&alice, &user_packet("hi", 1));
    assert_eq!(world.delivered().len(), 1);
    assert_eq!(world.room.data_drops().malformed, 1);
}

#[test]
fn bytes_of_an_unlabelled_channel_become_a_user_packet() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.join_active("bob");
    world.take_commands();
    let channel = ChannelLabel::Other { label: "mine".into(), reliable: false };
    world.send_data(&alice, channel, b"raw".to_vec());
    let (_, channel, packet) = world.delivered().remove(0);
    assert_eq!(channel, ChannelLabel::Lossy);
    let Some(Value::User(user)) = packet.value else { panic!("{packet:?}") };
    assert_eq!(user.payload.as_ref(), b"raw");
}

#[test]
fn the_api_sends_data_once_per_nonce() {
    let mut world = World::new();
    world.join_active("alice");
    world.join_active("bob");
    world.take_commands();
    let mut request = proto::SendDataRequest {
        data: Bytes::from_static(b"hi"),
        topic: Some("t".into()),
        nonce: Bytes::from_static(&[1; 16]),
        ..Default::default()
    };
    let now = world.now;
    world.room.send_data(now, &request).unwrap();
    world.room.send_data(now, &request).unwrap();
    world.drain();
    let delivered = world.delivered();
    let receivers: usize = delivered.iter().map(|(peers, _, _)| peers.len()).sum();
    assert_eq!(receivers, 2);
    assert_eq!(delivered[0].2.participant_identity, "");
    request.nonce = Bytes::from_static(&[1; 3]);
    assert!(world.room.send_data(now, &request).is_err());
}
