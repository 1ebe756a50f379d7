//! Calls of the server API to a participant's methods.

use prost::Message;
use sluice_engine::api::{ChannelLabel, Command, EventKind};
use sluice_proto as proto;
use sluice_proto::data_packet::Value;
use sluice_room::ApiError;

use crate::support::*;

fn request(identity: &str, timeout_ms: u32) -> proto::PerformRpcRequest {
    proto::PerformRpcRequest {
        destination_identity: identity.into(),
        method: "greet".into(),
        payload: "hi".into(),
        response_timeout_ms: timeout_ms,
        ..Default::default()
    }
}

impl World {
    /// Calls a method of a participant; what the participant gets.
    fn call(&mut self, client: &Client, timeout_ms: u32) -> proto::DataPacket {
        self.take_commands();
        self.room.perform_rpc(self.now, &request(&client.identity, timeout_ms)).unwrap();
        self.drain();
        let peer = self.subscriber_peer(client);
        let packet = self.take_commands().into_iter().find_map(|command| match command {
            Command::SendData { peers, payload, .. } if peers[..] == [peer] => Some(payload),
            _ => None,
        });
        proto::DataPacket::decode(packet.expect("a packet")).unwrap()
    }

    fn answer_call(&mut self, client: &Client, call: &proto::DataPacket, value: Value) {
        let packet = proto::DataPacket {
            destination_identities: vec![call.participant_identity.clone()],
            value: Some(value),
            ..Default::default()
        };
        let (peer, channel) = (self.subscriber_peer(client), ChannelLabel::Reliable);
        let payload = packet.encode_to_vec().into();
        self.engine(EventKind::Data { peer, channel, binary: true, payload });
    }
}

fn rpc_id(call: &proto::DataPacket) -> String {
    match &call.value {
        Some(Value::RpcRequest(request)) => request.id.clone(),
        other => panic!("{other:?}"),
    }
}

fn response(call: &proto::DataPacket, value: proto::rpc_response::Value) -> Value {
    let request_id = rpc_id(call);
    Value::RpcResponse(proto::RpcResponse { request_id, value: Some(value) })
}

fn ack(call: &proto::DataPacket) -> Value {
    Value::RpcAck(proto::RpcAck { request_id: rpc_id(call) })
}

#[test]
fn the_answer_comes_back_and_nobody_else_hears_of_it() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.join_active("bob");
    let call = world.call(&alice, 0);
    let Some(Value::RpcRequest(request)) = &call.value else { panic!("{call:?}") };
    assert_eq!((request.method.as_str(), request.payload.as_str()), ("greet", "hi"));
    assert_eq!((request.response_timeout_ms, request.version), (10_000, 1));
    world.answer_call(&alice, &call, ack(&call));
    let payload = proto::rpc_response::Value::Payload("hello".into());
    world.answer_call(&alice, &call, response(&call, payload));
    assert_eq!(world.rpcs, [Ok("hello".to_owned())]);
    let sent = world.take_commands();
    assert!(!sent.iter().any(|command| matches!(command, Command::SendData { .. })));
}

#[test]
fn the_error_of_the_method_comes_back_with_its_code() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let call = world.call(&alice, 0);
    let error =
        proto::RpcError { code: 1400, message: "Method not supported".into(), data: "x".into() };
    world.answer_call(&alice, &call, response(&call, proto::rpc_response::Value::Error(error)));
    let text = "RpcError 1400: Method not supported: x".to_owned();
    assert_eq!(world.rpcs, [Err(ApiError::InvalidArgument(text))]);
}

#[test]
fn silence_ends_a_call_and_an_acknowledged_call_may_take_longer() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.call(&alice, 5000);
    world.advance_ms(2000);
    let text = "RpcError 1501: Connection timeout".to_owned();
    assert_eq!(std::mem::take(&mut world.rpcs), [Err(ApiError::Canceled(text))]);
    let call = world.call(&alice, 5000);
    world.answer_call(&alice, &call, ack(&call));
    world.advance_ms(4999);
    assert!(world.rpcs.is_empty());
    world.advance_ms(1);
    let text = "RpcError 1502: Response timeout".to_owned();
    assert_eq!(world.rpcs, [Err(ApiError::Canceled(text))]);
}

#[test]
fn a_call_ends_with_its_callee() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.call(&alice, 0);
    world.room.remove_participant(world.now, "alice").unwrap();
    world.drain();
    let text = "RpcError 1503: Recipient disconnected".to_owned();
    assert_eq!(world.rpcs, [Err(ApiError::Gone(text))]);
}

#[test]
fn what_cannot_be_called_is_refused_at_once() {
    let mut world = World::new();
    world.join_active("alice");
    let nobody = world.room.perform_rpc(world.now, &request("nobody", 0));
    assert_eq!(nobody, Err(ApiError::PARTICIPANT_NOT_FOUND));
    let mut large = request("alice", 0);
    large.payload = "x".repeat(15 * 1024 + 1);
    let refused = world.room.perform_rpc(world.now, &large);
    assert!(matches!(refused, Err(ApiError::Malformed(_))));
}
