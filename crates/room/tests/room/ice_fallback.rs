//! Which transports clients are told of after connections failed.

use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_proto::simulate_scenario::Scenario;
use sluice_proto::{CandidateProtocol, ClientConfigSetting, ReconnectReason};
use sluice_room::{JoinParams, RoomConfig};

use crate::only;
use crate::support::{Client, World, join_params};

fn last_offer(messages: &[Response]) -> String {
    let offer = messages.iter().rev().find_map(|message| match message {
        Response::Offer(offer) => Some(offer.sdp.clone()),
        _ => None,
    });
    offer.expect("an offer")
}

fn protocols(sdp: &str) -> (bool, bool) {
    let has = |proto: &str| {
        sdp.lines().any(|line| line.starts_with("a=candidate") && line.contains(proto))
    };
    (has(" udp "), has(" tcp "))
}

fn resume(client: &Client, reason: ReconnectReason) -> JoinParams {
    JoinParams {
        reconnect: true,
        reconnect_reason: reason,
        participant_sid: client.sid.clone(),
        ..join_params(&client.identity)
    }
}

#[test]
fn an_early_failure_leads_to_tcp_and_is_remembered_by_identity() {
    let mut world = World::with_tcp(RoomConfig::default());
    let bob = world.join("bob");
    assert_eq!(protocols(&last_offer(&world.take(&bob))), (true, true));
    world.answer_pending(&bob);
    world.connect(world.subscriber_peer(&bob));
    let alice = world.join("alice");
    assert_eq!(protocols(&last_offer(&world.take(&alice))), (true, true));
    world.answer_pending(&alice);
    world.connect(world.subscriber_peer(&alice));
    world.fail(world.subscriber_peer(&alice));
    world.take(&alice);
    let resumed = world.join_with(resume(&alice, ReconnectReason::RrSubscriberFailed));
    assert_eq!(protocols(&last_offer(&world.take(&resumed))), (false, true));

    let again = world.join("alice");
    assert_eq!(protocols(&last_offer(&world.take(&again))), (false, true));
    world.advance_ms(301_000);
    let later = world.join("alice");
    assert_eq!(protocols(&last_offer(&world.take(&later))), (true, true));
}

#[test]
fn a_connection_that_held_gets_a_second_chance() {
    let mut world = World::with_tcp(RoomConfig::default());
    let mut alice = world.join_active("alice");
    for _ in 0..10 {
        world.advance_ms(9_000);
        world.signal(&alice, Request::Ping(1));
    }
    for expected in [(true, true), (false, true)] {
        world.fail(world.subscriber_peer(&alice));
        alice = world.join_with(resume(&alice, ReconnectReason::RrSignalDisconnected));
        assert_eq!(protocols(&last_offer(&world.take(&alice))), expected);
        world.answer_pending(&alice);
        world.recover(world.subscriber_peer(&alice));
    }
}

#[test]
fn who_is_silent_on_the_signal_connection_too_keeps_its_transports() {
    let mut world = World::with_tcp(RoomConfig::default());
    let alice = world.join_active("alice");
    world.advance_ms(20_000);
    world.fail(world.subscriber_peer(&alice));
    let resumed = world.join_with(resume(&alice, ReconnectReason::RrSignalDisconnected));
    assert_eq!(protocols(&last_offer(&world.take(&resumed))), (true, true));
}

#[test]
fn clients_without_ice_tcp_and_servers_without_fallback_stay_as_they_are() {
    for (sdk, allow) in [(proto::client_info::Sdk::Go, true), (proto::client_info::Sdk::Js, false)]
    {
        let config = RoomConfig { allow_tcp_fallback: allow, ..RoomConfig::default() };
        let mut world = World::with_tcp(config);
        let mut params = join_params("alice");
        params.client_info.sdk = sdk.into();
        params.client_info.version = "2.0.0".into();
        let alice = world.join_with(params.clone());
        world.activate(&alice);
        world.fail(world.subscriber_peer(&alice));
        let again = world.join_with(params);
        assert_eq!(protocols(&last_offer(&world.take(&again))), (true, true));
    }
}

#[test]
fn a_failed_tcp_connection_leads_to_relays_where_there_are_any() {
    let relay = proto::IceServer {
        urls: vec!["turns:turn.example:443?transport=tcp".into()],
        ..Default::default()
    };
    let config = RoomConfig { ice_servers: vec![relay], ..RoomConfig::default() };
    let mut world = World::with_tcp(config);
    for step in 0..2 {
        let alice = world.join_active("alice");
        world.fail(world.subscriber_peer(&alice));
        world.forget_peers(&alice);
        let next = world.join("alice");
        let configuration = only!(world.take(&next), Join).client_configuration;
        let forced = configuration.map(|c| c.force_relay() == ClientConfigSetting::Enabled);
        assert_eq!(forced, (step == 1).then_some(true));
        world.forget_peers(&next);
    }
}

#[test]
fn a_simulated_switch_restarts_ice_with_tcp_only_and_back() {
    let mut world = World::with_tcp(RoomConfig::default());
    let alice = world.join_active("alice");
    for (protocol, expected) in
        [(CandidateProtocol::Tcp, (false, true)), (CandidateProtocol::Udp, (true, true))]
    {
        let scenario = Some(Scenario::SwitchCandidateProtocol(protocol.into()));
        world.signal(&alice, Request::Simulate(proto::SimulateScenario { scenario }));
        assert_eq!(protocols(&last_offer(&world.take(&alice))), expected);
        world.answer_pending(&alice);
    }
}
