//! Joining: the order and content of what a client hears first, and who may not.

use sluice_proto as proto;
use sluice_proto::participant_info::{Kind as ParticipantKind, State};
use sluice_room::{Grants, JoinError, RoomConfig, RoomSettings};

use crate::only;
use crate::support::*;

#[test]
fn the_join_response_comes_first_then_the_offer_its_candidates_and_a_token() {
    let mut world = World::new();
    let alice = world.join("alice");
    let heard = world.take(&alice);
    assert_eq!(names(&heard), ["join", "offer", "trickle"]);
    assert_eq!(world.tokens.len(), 1);
    assert_eq!(world.tokens[0].1.identity, "alice");
    assert_eq!(world.tokens[0].1.grants.room, "room");
}

#[test]
fn the_join_response_says_what_clients_rely_on() {
    let mut world = World::new();
    let alice = world.join("alice");
    let join = only!(world.take(&alice), Join);
    let server = join.server_info.unwrap();
    assert_eq!((server.protocol, server.version.as_str()), (17, "1.13.5"));
    assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
    assert!(join.subscriber_primary && join.fast_publish);
    assert!(join.ice_servers.is_empty());
    assert!(!join.sif_trailer.is_empty());
    let room = join.room.unwrap();
    assert!(room.sid.starts_with("RM_"));
    assert_eq!((room.name.as_str(), room.num_participants), ("room", 1));
    let participant = join.participant.unwrap();
    assert!(participant.sid.starts_with("PA_"));
    assert_eq!(participant.state(), State::Joining);
    assert_eq!(participant.name, "name of alice");
    assert!(participant.permission.unwrap().can_publish);
    assert_eq!(participant.joined_at, START.as_secs() as i64);
}

#[test]
fn a_single_connection_client_has_no_primary_subscriber() {
    let mut world = World::new();
    let alice = world.join_with(single_params("alice"));
    let heard = world.take(&alice);
    assert_eq!(names(&heard), ["join"]);
    assert!(!only!(heard, Join).subscriber_primary);
}

#[test]
fn other_participants_are_listed_without_hidden_ones_and_oneself() {
    let mut world = World::new();
    world.join("alice");
    let mut hidden = join_params("ghost");
    hidden.grants.hidden = true;
    world.join_with(hidden);
    let bob = world.join("bob");
    let join = only!(world.take(&bob), Join);
    let others: Vec<&str> = join.other_participants.iter().map(|p| p.identity.as_str()).collect();
    assert_eq!(others, ["alice"]);
}

#[test]
fn a_client_that_cannot_subscribe_has_its_own_connection_as_primary() {
    let mut world = World::new();
    let mut params = join_params("alice");
    params.grants.can_subscribe = Some(false);
    let alice = world.join_with(params);
    assert!(!only!(world.take(&alice), Join).subscriber_primary);
}

#[test]
fn client_protocol_and_capabilities_are_mirrored() {
    let mut world = World::new();
    let mut params = join_params("alice");
    params.client_info.client_protocol = 2;
    params.client_info.capabilities = vec![0, 1, 99];
    let alice = world.join_with(params);
    let participant = only!(world.take(&alice), Join).participant.unwrap();
    assert_eq!(participant.client_protocol, 2);
    assert_eq!(participant.capabilities, [1]);
}

#[test]
fn a_full_room_refuses_all_but_agents_and_recorders() {
    let settings = RoomSettings { max_participants: Some(1), ..RoomSettings::default() };
    let mut world = World::with(RoomConfig::default(), settings);
    world.join("alice");
    assert_eq!(world.try_join(join_params("bob")), Err(JoinError::MaxParticipants));
    let mut agent = join_params("agent");
    agent.kind = ParticipantKind::Agent;
    world.join_with(agent);
    // The same identity replaces itself.
    world.join("alice");
}

#[test]
fn identities_must_have_a_sensible_length() {
    let mut world = World::new();
    for identity in ["", &"x".repeat(257)] {
        let result = world.try_join(join_params(identity));
        assert_eq!(result.unwrap_err().http_status(), 400);
    }
}

#[test]
fn oversized_metadata_and_attributes_are_refused() {
    let mut world = World::new();
    let mut params = join_params("alice");
    params.metadata = "x".repeat(512 * 1024 + 1);
    assert_eq!(world.try_join(params).unwrap_err().http_status(), 429);
    let mut params = join_params("alice");
    params.attributes.insert("key".into(), "x".repeat(64 * 1024));
    assert_eq!(world.try_join(params).unwrap_err().http_status(), 429);
}

#[test]
fn a_second_session_of_an_identity_ends_the_first() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let first = world.join_active("alice");
    world.take(&bob);
    let second = world.join("alice");
    let leave = only!(world.take(&first), Leave);
    assert_eq!(leave.reason(), proto::DisconnectReason::DuplicateIdentity);
    assert_eq!(leave.action(), proto::leave_request::Action::Disconnect);
    assert!(world.closed.contains_key(&first.session));
    assert_ne!(first.sid, second.sid);
    // Others hear only of the new SID, once it is active.
    assert!(updated(&world.take(&bob)).is_empty());
    world.forget_peers(&second);
    world.join("carol");
}

#[test]
fn clients_before_identity_reconnect_hear_that_the_old_session_ended() {
    let mut world = World::new();
    let mut old = join_params("old");
    old.client_info.protocol = 9;
    let old = world.join_with(old);
    world.join("alice");
    world.take(&old);
    world.join("alice");
    let participants = updated(&world.take(&old));
    assert_eq!(participants[0].state(), State::Disconnected);
}

#[test]
fn a_recorder_flips_the_recording_flag_at_once() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let mut recorder = join_params("EG_1");
    recorder.kind = ParticipantKind::Egress;
    recorder.grants = Grants { hidden: true, recorder: true, ..Grants::default() };
    let recorder = world.join_with(recorder);
    let room = only!(world.take(&alice), RoomUpdate).room.unwrap();
    assert!(room.active_recording);
    assert_eq!(room.num_participants, 1);
    world.signal(&recorder, proto::signal_request::Message::Leave(proto::LeaveRequest::default()));
    assert!(!only!(world.take(&alice), RoomUpdate).room.unwrap().active_recording);
}
