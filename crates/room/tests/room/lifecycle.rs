//! How participants become active and how they and rooms end.

use std::time::Duration;

use sluice_engine::api::{Command, EventKind, PeerFailure};
use sluice_proto as proto;
use sluice_proto::DisconnectReason;
use sluice_proto::leave_request::Action;
use sluice_proto::participant_info::{Kind as ParticipantKind, State};
use sluice_proto::signal_request::Message as Request;
use sluice_room::{CloseReason, RoomConfig, RoomSettings, WebhookKind};

use crate::only;
use crate::support::*;

#[test]
fn others_hear_of_a_participant_when_it_becomes_active() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join("bob");
    assert!(updated(&world.take(&alice)).is_empty());
    world.activate(&bob);
    let participant = updated(&world.take(&alice)).remove(0);
    assert_eq!((participant.identity.as_str(), participant.state()), ("bob", State::Active));
    assert!(world.webhooks.contains(&WebhookKind::ParticipantJoined));
}

#[test]
fn hidden_participants_are_never_announced() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let mut ghost = join_params("ghost");
    ghost.grants.hidden = true;
    let ghost = world.join_with(ghost);
    world.activate(&ghost);
    world.signal(&ghost, Request::Leave(proto::LeaveRequest::default()));
    assert!(updated(&world.take(&alice)).is_empty());
}

#[test]
fn a_leave_is_echoed_and_the_connection_closed() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    world.take_commands();
    let leave = proto::LeaveRequest {
        reason: DisconnectReason::ServerShutdown.into(),
        ..Default::default()
    };
    world.signal(&alice, Request::Leave(leave));
    let echo = only!(world.take(&alice), Leave);
    assert_eq!(echo.reason(), DisconnectReason::ClientInitiated);
    assert_eq!(world.closed[&alice.session], CloseReason::Left(DisconnectReason::ClientInitiated));
    let participant = updated(&world.take(&bob)).remove(0);
    assert_eq!(participant.state(), State::Disconnected);
    assert_eq!(participant.disconnect_reason(), DisconnectReason::ClientInitiated);
    assert!(world.take_commands().iter().any(|c| matches!(c, Command::ClosePeer { .. })));
}

#[test]
fn reasons_of_sip_and_agents_are_kept() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let leave =
        proto::LeaveRequest { reason: DisconnectReason::UserRejected.into(), ..Default::default() };
    world.signal(&alice, Request::Leave(leave));
    assert_eq!(only!(world.take(&alice), Leave).reason(), DisconnectReason::UserRejected);
}

#[test]
fn who_never_becomes_active_is_removed_after_a_minute() {
    let mut world = World::new();
    let alice = world.join("alice");
    world.answer_offer(&alice);
    world.take(&alice);
    world.advance(Duration::from_secs(59));
    assert!(world.closed.is_empty());
    world.advance(Duration::from_secs(2));
    assert_eq!(only!(world.take(&alice), Leave).reason(), DisconnectReason::JoinFailure);
    assert!(world.webhooks.contains(&WebhookKind::ParticipantConnectionAborted));
}

#[test]
fn a_signal_connection_lost_before_media_ends_the_session() {
    let mut world = World::new();
    let alice = world.join("alice");
    world.signal_closed(&alice);
    assert!(world.room.list_participants().is_empty());
}

#[test]
fn a_signal_connection_lost_later_leaves_media_alone() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Microphone);
    world.take_commands();
    world.signal_closed(&alice);
    world.advance(Duration::from_secs(30));
    assert_eq!(world.room.list_participants().len(), 1);
    assert!(!world.take_commands().iter().any(|c| matches!(c, Command::ClosePeer { .. })));
}

#[test]
fn a_failed_connection_asks_for_a_resume_and_then_gives_up() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    world.fail(world.subscriber_peer(&alice));
    assert_eq!(only!(world.take(&alice), Leave).action(), Action::Resume);
    assert_eq!(world.closed[&alice.session], CloseReason::Resume);
    world.advance(Duration::from_millis(4900));
    assert_eq!(world.room.list_participants().len(), 2);
    world.advance(Duration::from_millis(200));
    let participant = updated(&world.take(&bob)).remove(0);
    assert_eq!(participant.disconnect_reason(), DisconnectReason::ConnectionTimeout);
}

#[test]
fn a_connection_that_cannot_be_repaired_asks_for_a_full_reconnect() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let peer = world.subscriber_peer(&alice);
    world.engine(EventKind::PeerFailed { peer, reason: PeerFailure::Panic });
    assert_eq!(only!(world.take(&alice), Leave).action(), Action::Reconnect);
}

#[test]
fn older_clients_are_asked_to_resume_by_a_broken_connection_alone() {
    let mut world = World::new();
    let mut params = join_params("alice");
    params.client_info.protocol = 12;
    let alice = world.join_with(params);
    world.activate(&alice);
    world.fail(world.subscriber_peer(&alice));
    assert!(!names(&world.take(&alice)).contains(&"leave"));
    assert_eq!(world.closed[&alice.session], CloseReason::Resume);
}

#[test]
fn a_lost_connection_is_shown_as_lost_and_recovers() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let peer = world.subscriber_peer(&alice);
    world.engine(EventKind::PeerDisconnected { peer });
    let update = only!(world.take(&alice), ConnectionQuality);
    assert_eq!(update.updates[0].quality(), proto::ConnectionQuality::Lost);
    let remote = "127.0.0.1:9".parse().unwrap();
    world.engine(EventKind::PeerRecovered { peer, remote, tcp: false });
    let update = only!(world.take(&alice), ConnectionQuality);
    assert_eq!(update.updates[0].quality(), proto::ConnectionQuality::Excellent);
}

#[test]
fn a_room_nobody_joins_closes_after_its_empty_timeout() {
    let mut world = World::new();
    world.advance(Duration::from_secs(299));
    assert!(!world.room_closed);
    world.advance(Duration::from_secs(2));
    assert!(world.room_closed);
    assert_eq!(world.webhooks, [WebhookKind::RoomStarted, WebhookKind::RoomFinished]);
}

#[test]
fn a_room_closes_some_time_after_the_last_participant_left_although_an_agent_stays() {
    let mut world = World::new();
    let mut agent = join_params("agent");
    agent.kind = ParticipantKind::Agent;
    let agent = world.join_with(agent);
    world.activate(&agent);
    let alice = world.join_active("alice");
    world.advance(Duration::from_secs(1000));
    assert!(!world.room_closed);
    world.signal(&alice, Request::Leave(proto::LeaveRequest::default()));
    world.advance(Duration::from_secs(19));
    assert!(!world.room_closed);
    world.take(&agent);
    world.advance(Duration::from_secs(2));
    assert!(world.room_closed);
    assert_eq!(only!(world.take(&agent), Leave).reason(), DisconnectReason::RoomClosed);
}

#[test]
fn a_rejoin_within_the_departure_timeout_keeps_the_room() {
    let settings =
        RoomSettings { departure_timeout: Some(Duration::from_secs(5)), ..RoomSettings::default() };
    let mut world = World::with(RoomConfig::default(), settings);
    let alice = world.join_active("alice");
    world.signal(&alice, Request::Leave(proto::LeaveRequest::default()));
    world.advance(Duration::from_secs(4));
    world.forget_peers(&alice);
    world.join_active("alice");
    world.advance(Duration::from_secs(20));
    assert!(!world.room_closed);
}

#[test]
fn a_deleted_room_tells_everyone_and_takes_nobody_in() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.room.close(world.now, DisconnectReason::RoomDeleted);
    world.drain();
    assert_eq!(only!(world.take(&alice), Leave).reason(), DisconnectReason::RoomDeleted);
    assert!(world.room_closed);
    assert_eq!(world.try_join(join_params("bob")).unwrap_err().http_status(), 503);
}

#[test]
fn tokens_are_renewed_every_five_minutes() {
    let mut world = World::new();
    world.join_active("alice");
    assert_eq!(world.tokens.len(), 1);
    world.advance(Duration::from_secs(601));
    assert_eq!(world.tokens.len(), 3);
}

#[test]
fn counts_of_the_room_follow_within_seconds() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.join_active("bob");
    assert!(!names(&world.take(&alice)).contains(&"room_update"));
    world.advance(Duration::from_secs(6));
    let room = only!(world.take(&alice), RoomUpdate).room.unwrap();
    assert_eq!(room.num_participants, 2);
}

#[test]
fn arrivals_in_a_large_room_are_announced_together() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    for index in 0..40 {
        world.join_active(&format!("p{index}"));
    }
    world.take(&alice);
    world.join_active("x");
    world.join_active("y");
    assert!(updated(&world.take(&alice)).is_empty());
    world.advance(Duration::from_secs(4));
    let heard = world.take(&alice);
    assert!(names(&heard).iter().filter(|name| **name == "update").count() == 1);
    let identities: Vec<String> = updated(&heard).into_iter().map(|p| p.identity).collect();
    assert!(identities.contains(&"x".to_owned()) && identities.contains(&"y".to_owned()));
}

#[test]
fn who_publishes_badly_and_its_subscribers_hear_of_each_level() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let carol = world.join_with({
        let mut params = join_params("carol");
        params.options.auto_subscribe = false;
        params
    });
    world.activate(&carol);
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Camera);
    world.advance_ms(1000);
    for client in [&alice, &bob, &carol] {
        world.take(client);
    }
    let peer = world.subscriber_peer(&alice);
    let levels = [
        (60.0, proto::ConnectionQuality::Good),
        (30.0, proto::ConnectionQuality::Poor),
        (0.0, proto::ConnectionQuality::Lost),
        (100.0, proto::ConnectionQuality::Excellent),
    ];
    for (score, quality) in levels {
        world.engine(EventKind::ConnectionQuality { peer, score });
        for client in [&alice, &bob] {
            let update = only!(world.take(client), ConnectionQuality).updates.remove(0);
            assert_eq!((update.quality(), update.participant_sid), (quality, alice.sid.clone()));
        }
        assert!(world.take(&carol).is_empty());
    }
}
