//! Resuming after a lost signal connection.

use sluice_engine::api::{ChannelLabel, Command, EventKind};
use sluice_proto as proto;
use sluice_proto::DisconnectReason;
use sluice_proto::leave_request::Action;
use sluice_proto::participant_info::State;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::simulate_scenario::Scenario;
use sluice_room::{CloseReason, JoinParams, SessionId};

use crate::only;
use crate::support::*;

fn resume_params(client: &Client) -> JoinParams {
    JoinParams {
        reconnect: true,
        participant_sid: client.sid.clone(),
        ..join_params(&client.identity)
    }
}

fn simulate(scenario: Scenario) -> Request {
    Request::Simulate(proto::SimulateScenario { scenario: Some(scenario) })
}

/// Bob has heard everything so far; Alice's receiving connection has just failed.
fn world_with_a_failed_connection() -> (World, Client, Client) {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    world.fail(world.subscriber_peer(&alice));
    (world, alice, bob)
}

#[test]
fn a_resume_replays_the_state_and_restarts_ice() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    world.signal_closed(&alice);
    world.take_commands();
    let again = world.join_with(resume_params(&alice));
    assert_eq!(again.sid, alice.sid);
    let heard = world.take(&again);
    assert_eq!(names(&heard), ["reconnect", "update", "room_update", "offer", "trickle"]);
    let reconnect = only!(heard, Reconnect);
    assert_eq!(reconnect.server_info.unwrap().protocol, 17);
    let mut identities: Vec<String> = updated(&heard).into_iter().map(|p| p.identity).collect();
    identities.sort();
    assert_eq!(identities, ["alice", "bob"]);
    let restarted = |c: &Command| matches!(c, Command::RestartIce { .. });
    assert!(world.take_commands().iter().any(restarted));
    assert!(updated(&world.take(&bob)).is_empty());
}

#[test]
fn a_resume_replaces_a_connection_that_is_still_open() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let again = world.join_with(resume_params(&alice));
    assert_eq!(world.closed[&alice.session], CloseReason::Replaced);
    // The late end of the old connection is no longer the session's.
    world.signal_closed(&alice);
    world.signal(&alice, Request::Leave(proto::LeaveRequest::default()));
    assert_eq!(world.room.list_participants().len(), 1);
    assert!(!world.closed.contains_key(&again.session));
}

#[test]
fn the_offer_of_a_resume_replaces_one_that_was_in_flight() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Camera);
    world.advance_ms(1000);
    let lost = only!(world.take(&bob), Offer);
    let again = world.join_with(resume_params(&bob));
    let offer = only!(world.take(&again), Offer);
    assert_eq!(offer.id, lost.id + 1);
    world.take_commands();
    world.answer(&again, &lost);
    assert!(world.take_subscribes().is_empty());
    world.answer(&again, &offer);
    assert_eq!(world.take_subscribes().len(), 1);
}

#[test]
fn who_left_meanwhile_is_told_first() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.advance_ms(1000);
    world.signal(&alice, Request::Ping(1));
    world.signal_closed(&alice);
    world.advance_ms(1000);
    world.signal(&bob, Request::Leave(proto::LeaveRequest::default()));
    let again = world.join_with(resume_params(&alice));
    let heard = world.take(&again);
    assert_eq!(names(&heard)[..3], ["reconnect", "update", "update"]);
    let first = &updated(&heard)[0];
    assert_eq!((first.identity.as_str(), first.state()), ("bob", State::Disconnected));
}

#[test]
fn an_unknown_session_is_told_to_start_anew_as_its_first_message() {
    let mut world = World::new();
    let ghost = Client { identity: "ghost".into(), sid: "PA_x".into(), session: SessionId(0) };
    let refused = world.join_with(resume_params(&ghost));
    assert_eq!(refused.sid, "");
    let heard = world.take(&refused);
    assert_eq!(names(&heard), ["leave"]);
    let leave = only!(heard, Leave);
    assert_eq!(leave.action(), Action::Reconnect);
    assert_eq!(leave.reason(), DisconnectReason::StateMismatch);
    assert!(leave.can_reconnect);
    assert!(world.closed.contains_key(&refused.session));
    assert!(world.room.list_participants().is_empty());
}

#[test]
fn the_last_reliable_sequence_is_reported() {
    use prost::Message;
    let mut world = World::new();
    let alice = world.join_active("alice");
    let packet = proto::DataPacket { sequence: 42, ..Default::default() };
    let peer = world.subscriber_peer(&alice);
    world.engine(EventKind::Data {
        peer,
        channel: ChannelLabel::Reliable,
        binary: true,
        payload: packet.encode_to_vec().into(),
    });
    let again = world.join_with(resume_params(&alice));
    assert_eq!(only!(world.take(&again), Reconnect).last_message_seq, 42);
}

#[test]
fn sync_state_with_known_tracks_is_applied() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let (camera, _) = world.publish(&bob, Kind::Camera);
    let alice = world.join_active("alice");
    let own = world.add_track(&alice, Kind::Microphone.request("mic"));
    let again = world.join_with(resume_params(&alice));
    world.take(&again);
    world.take_commands();
    world.signal(
        &again,
        Request::SyncState(proto::SyncState {
            publish_tracks: vec![proto::TrackPublishedResponse {
                cid: "mic".into(),
                track: Some(own),
            }],
            subscription: Some(proto::UpdateSubscription {
                track_sids: vec![camera.sid],
                subscribe: false,
                ..Default::default()
            }),
            ..Default::default()
        }),
    );
    assert!(!world.closed.contains_key(&again.session));
    assert!(world.take_commands().iter().any(|c| matches!(c, Command::Unsubscribe { .. })));
}

#[test]
fn sync_state_with_unknown_tracks_ends_in_a_full_reconnect() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let again = world.join_with(resume_params(&alice));
    world.take(&again);
    let track = proto::TrackInfo { sid: "TR_unknown".into(), ..Default::default() };
    world.signal(
        &again,
        Request::SyncState(proto::SyncState {
            publish_tracks: vec![proto::TrackPublishedResponse {
                cid: "mic".into(),
                track: Some(track),
            }],
            ..Default::default()
        }),
    );
    let leave = only!(world.take(&again), Leave);
    assert_eq!(
        (leave.action(), leave.reason()),
        (Action::Reconnect, DisconnectReason::StateMismatch)
    );
}

#[test]
fn a_failed_connection_is_resumed_and_nobody_sees_a_departure() {
    let (mut world, alice, bob) = world_with_a_failed_connection();
    world.advance_ms(3000);
    let resumed = world.join_with(resume_params(&alice));
    let heard = world.take(&resumed);
    assert_eq!(names(&heard)[0], "reconnect");
    assert!(names(&heard).contains(&"offer"));
    world.advance_ms(10_000);
    world.recover(world.subscriber_peer(&alice));
    world.answer_pending(&resumed);
    world.advance_ms(60_000);
    assert!(updated(&world.take(&bob)).is_empty());
    assert_eq!(world.room.list_participants().len(), 2);
}

#[test]
fn a_resume_whose_connections_stay_away_ends_the_session() {
    let (mut world, alice, bob) = world_with_a_failed_connection();
    let resumed = world.join_with(resume_params(&alice));
    world.answer_pending(&resumed);
    world.take(&resumed);
    world.advance_ms(29_000);
    assert!(updated(&world.take(&bob)).is_empty());
    world.advance_ms(2_000);
    let left = updated(&world.take(&bob));
    assert_eq!(left[0].state(), State::Disconnected);
    assert_eq!(left[0].disconnect_reason(), DisconnectReason::ConnectionTimeout);
}

#[test]
fn a_full_reconnect_after_a_failed_connection_shows_no_departure_in_between() {
    let (mut world, alice, bob) = world_with_a_failed_connection();
    world.advance_ms(3000);
    world.forget_peers(&alice);
    world.join_active("alice");
    world.advance_ms(10_000);
    let states: Vec<State> = updated(&world.take(&bob)).iter().map(|p| p.state()).collect();
    assert_eq!(states, [State::Active]);
}

#[test]
fn a_client_that_does_not_know_reconnect_responses_gets_none() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let mut params = resume_params(&alice);
    params.client_info.sdk = proto::client_info::Sdk::Js.into();
    params.client_info.version = "1.6.2".into();
    world.forget_peers(&alice);
    let old = world.join_with(JoinParams { reconnect: false, ..params.clone() });
    world.activate(&old);
    let resumed = world.join_with(params);
    assert_eq!(names(&world.take(&resumed))[0], "update");
}

#[test]
fn simulated_breaks_on_resume_happen_once() {
    for (scenario, heard_before_break) in [
        (Scenario::DisconnectSignalOnResume(true), vec!["reconnect"]),
        (Scenario::DisconnectSignalOnResumeNoMessages(true), vec![]),
    ] {
        let mut world = World::new();
        let alice = world.join_active("alice");
        world.signal(&alice, simulate(scenario));
        let broken = world.join_with(resume_params(&alice));
        assert_eq!(names(&world.take(&broken)), heard_before_break);
        assert_eq!(world.closed[&broken.session], CloseReason::Abnormal);
        let again = world.join_with(resume_params(&alice));
        assert!(names(&world.take(&again)).contains(&"room_update"));
    }
}

#[test]
fn a_simulated_bandwidth_is_passed_to_the_workers_and_zero_ends_it() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.take_commands();
    for (bps, expected) in [(150_000, Some(150_000)), (0, None)] {
        world.signal(&alice, simulate(Scenario::SubscriberBandwidth(bps)));
        let commands = world.take_commands();
        let [Command::LimitBandwidth { peer, max_bps }] = commands.as_slice() else {
            panic!("one command, got {commands:?}");
        };
        assert_eq!((*peer, *max_bps), (world.subscriber_peer(&alice), expected));
    }
}

#[test]
fn simulated_departures_lead_clients_where_they_shall_go() {
    for (scenario, action, reason) in [
        (Scenario::ServerLeave(true), Action::Disconnect, DisconnectReason::ServerShutdown),
        (Scenario::Migration(true), Action::Reconnect, DisconnectReason::Migration),
        (
            Scenario::LeaveRequestFullReconnect(true),
            Action::Reconnect,
            DisconnectReason::UnknownReason,
        ),
    ] {
        let mut world = World::new();
        let alice = world.join_active("alice");
        world.signal(&alice, simulate(scenario));
        let leave = only!(world.take(&alice), Leave);
        assert_eq!((leave.action(), leave.reason()), (action, reason));
    }
}

#[test]
fn a_simulated_node_failure_breaks_the_connection_without_a_word() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.signal(&alice, simulate(Scenario::NodeFailure(true)));
    assert!(world.take(&alice).is_empty());
    assert_eq!(world.closed[&alice.session], CloseReason::Abnormal);
    let refused = world.join_with(resume_params(&alice));
    assert_eq!(only!(world.take(&refused), Leave).action(), Action::Reconnect);
}
