//! The server API on a room.

use sluice_engine::api::Command;
use sluice_proto as proto;
use sluice_proto::DisconnectReason;
use sluice_proto::signal_response::Message as Response;
use sluice_room::{ApiError, RoomConfig, RoomSettings, WebhookKind};

use crate::only;
use crate::support::*;

#[test]
fn participants_are_listed_with_hidden_ones() {
    let mut world = World::new();
    world.join_active("alice");
    let mut ghost = join_params("ghost");
    ghost.grants.hidden = true;
    world.join_with(ghost);
    assert_eq!(world.room.list_participants().len(), 2);
    assert_eq!(world.room.get_participant("ghost").unwrap().identity, "ghost");
    assert!(matches!(world.room.get_participant("nobody"), Err(ApiError::NotFound(_))));
}

#[test]
fn a_removed_participant_is_told_so() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.room.remove_participant(world.now, "alice").unwrap();
    world.drain();
    let leave = only!(world.take(&alice), Leave);
    assert_eq!(leave.reason(), DisconnectReason::ParticipantRemoved);
    assert!(world.room.remove_participant(world.now, "alice").is_err());
}

#[test]
fn a_track_is_muted_for_its_publisher_and_unmuted_only_where_that_is_enabled() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Microphone);
    world.take(&alice);
    let mut request = proto::MuteRoomTrackRequest {
        identity: "alice".into(),
        track_sid: info.sid.clone(),
        muted: true,
        ..Default::default()
    };
    assert!(world.room.mute_track(world.now, &request).unwrap().unwrap().muted);
    world.drain();
    let mute = only!(world.take(&alice), Mute);
    assert_eq!((mute.sid, mute.muted), (info.sid, true));
    request.muted = false;
    let refused = world.room.mute_track(world.now, &request);
    assert!(matches!(refused, Err(ApiError::FailedPrecondition(_))));
}

#[test]
fn unmuting_works_where_it_is_enabled() {
    let config = RoomConfig { enable_remote_unmute: true, ..RoomConfig::default() };
    let mut world = World::with(config, RoomSettings::default());
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Microphone);
    let request = proto::MuteRoomTrackRequest {
        identity: "alice".into(),
        track_sid: info.sid,
        muted: false,
        ..Default::default()
    };
    assert!(!world.room.mute_track(world.now, &request).unwrap().unwrap().muted);
}

#[test]
fn a_revoked_publish_permission_ends_the_tracks() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    let (info, _) = world.publish(&alice, Kind::Microphone);
    world.take(&alice);
    world.take(&bob);
    world.take_commands();
    let tokens = world.tokens.len();
    world.forbid_publishing("alice");
    let heard = world.take(&alice);
    assert_eq!(only!(heard, TrackUnpublished).track_sid, info.sid);
    assert!(!updated(&heard)[0].permission.as_ref().unwrap().can_publish);
    assert!(updated(&world.take(&bob)).last().unwrap().tracks.is_empty());
    assert!(world.take_commands().iter().any(|c| matches!(c, Command::Unpublish { .. })));
    assert_eq!(world.tokens.len(), tokens + 1);
    assert_eq!(world.tokens.last().unwrap().1.grants.can_publish, Some(false));
}

#[test]
fn a_revoked_and_restored_subscribe_permission_stops_and_starts_media() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Microphone);
    let bob = world.join_active("bob");
    world.take_commands();
    let mut request = proto::UpdateParticipantRequest {
        identity: "bob".into(),
        permission: Some(proto::ParticipantPermission::default()),
        ..Default::default()
    };
    world.room.update_participant(world.now, &request).unwrap();
    world.drain();
    assert!(world.take_commands().iter().any(|c| matches!(c, Command::Unsubscribe { .. })));
    world.advance_ms(1000);
    world.answer_offer(&bob);
    world.take(&bob);
    request.permission =
        Some(proto::ParticipantPermission { can_subscribe: true, ..Default::default() });
    world.room.update_participant(world.now, &request).unwrap();
    world.drain();
    world.advance_ms(1000);
    assert!(names(&world.take(&bob)).contains(&"offer"));
}

#[test]
fn subscriptions_can_be_changed_from_outside() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Microphone);
    world.join_active("bob");
    world.take_commands();
    let request = proto::UpdateSubscriptionsRequest {
        identity: "bob".into(),
        track_sids: vec![info.sid],
        ..Default::default()
    };
    world.room.update_subscriptions(world.now, &request).unwrap();
    world.drain();
    assert!(world.take_commands().iter().any(|c| matches!(c, Command::Unsubscribe { .. })));
}

#[test]
fn room_metadata_reaches_everyone_at_once_with_a_new_version() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let before = world.room.to_proto().version;
    let room = world.room.update_metadata(world.now, "meta").unwrap();
    world.drain();
    assert_ne!(room.version, before);
    assert_eq!(only!(world.take(&alice), RoomUpdate).room.unwrap().metadata, "meta");
    let refused = world.room.update_metadata(world.now, &"x".repeat(512 * 1024 + 1));
    assert!(matches!(refused, Err(ApiError::InvalidArgument(_))));
}

#[test]
fn a_new_administrator_gets_a_token_that_says_so() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.tokens.clear();
    world.room.set_room_admin(world.now, "alice", true).unwrap();
    world.room.set_room_admin(world.now, "alice", true).unwrap();
    world.drain();
    let granted: Vec<_> = world.tokens.iter().map(|(_, claims)| claims.grants.room_admin).collect();
    assert_eq!(granted, [true], "once, and only when something changed");
    assert!(world.take(&alice).is_empty(), "others learn nothing");
    assert!(world.room.set_room_admin(world.now, "nobody", true).is_err());
}

#[test]
fn a_moved_participant_starts_anew_with_a_token_for_the_other_room() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.tokens.clear();
    world.take(&alice);
    let elsewhere = proto::Room { name: "elsewhere".into(), ..Default::default() };
    let carol = proto::ParticipantInfo { identity: "carol".into(), ..Default::default() };
    let others = vec![carol.clone()];
    world.room.move_participant(world.now, "alice", &elsewhere, others).unwrap();
    world.drain();
    let (session, claims) = &world.tokens[0];
    assert_eq!((*session, claims.grants.room.as_str()), (alice.session, "elsewhere"));
    assert_eq!(world.tokens.len(), 2, "by `refresh_token` and in `room_moved`");
    let mut told = world.take(&alice);
    let Response::RoomMoved(moved) = told.remove(0) else { panic!("{told:?}") };
    assert_eq!(
        (moved.room.as_ref(), &moved.other_participants[..]),
        (Some(&elsewhere), &[carol][..])
    );
    assert_eq!(moved.participant.unwrap().identity, "alice");
    let leave = only!(told, Leave);
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    assert_eq!(leave.reason(), DisconnectReason::Migration);
    let update = only!(world.take(&bob), Update);
    assert_eq!(update.participants[0].state(), proto::participant_info::State::Disconnected);
    assert!(world.room.move_participant(world.now, "alice", &elsewhere, Vec::new()).is_err());
}

#[test]
fn clients_that_know_nothing_of_moves_get_the_token_alone() {
    let mut world = World::new();
    let mut params = join_params("alice");
    params.client_info.protocol = 15;
    let alice = world.join_with(params);
    world.activate(&alice);
    world.take(&alice);
    world.tokens.clear();
    let elsewhere = proto::Room { name: "elsewhere".into(), ..Default::default() };
    world.room.move_participant(world.now, "alice", &elsewhere, Vec::new()).unwrap();
    world.drain();
    assert_eq!(world.tokens[0].1.grants.room, "elsewhere");
    let leave = only!(world.take(&alice), Leave);
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
}

#[test]
fn reports_of_departures_carry_the_reason_and_the_counts_after_them() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.join_active("bob");
    world.publish(&alice, Kind::Microphone);
    world.reports.clear();
    world.room.remove_participant(world.now, "alice").unwrap();
    world.drain();
    let left =
        world.reports.iter().find(|event| event.kind == WebhookKind::ParticipantLeft).unwrap();
    let info = left.participant.as_ref().unwrap();
    assert_eq!(info.disconnect_reason(), DisconnectReason::ParticipantRemoved);
    assert!(info.tracks.is_empty() && left.room.num_participants == 1);
    world.room.close(world.now, DisconnectReason::RoomDeleted);
    world.drain();
    let last = world.reports.last().unwrap();
    assert_eq!(last.end_reason, proto::RoomEndReason::RoomEndApiDelete);
}
