//! Offers and answers: one in flight, merged requests, restarts, errors.

use std::time::Duration;

use sluice_engine::api::Command;
use sluice_proto as proto;
use sluice_proto::leave_request::Action;
use sluice_proto::signal_request::Message as Request;

use crate::only;
use crate::support::*;

#[test]
fn changes_within_the_debounce_share_one_offer() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.add_track(&alice, Kind::Microphone.request("a"));
    world.add_track(&alice, Kind::Camera.request("b"));
    world.offer(&alice, 1, offer_sdp("rem1", &[sending(Kind::Microphone, "0", "a")]));
    let both = [sending(Kind::Microphone, "0", "a"), sending(Kind::Camera, "1", "b")];
    world.offer(&alice, 2, offer_sdp("rem1", &both));
    world.take(&bob);
    world.advance_ms(1000);
    let offer = only!(world.take(&bob), Offer);
    assert_eq!(offer.sdp.matches("a=sendonly").count(), 2);
}

#[test]
fn only_one_offer_is_in_flight_and_later_changes_follow_the_answer() {
    let mut world = World::new();
    let bob = world.join("bob");
    let first = only!(world.take(&bob), Offer);
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Camera);
    world.advance_ms(1000);
    assert!(!names(&world.take(&bob)).contains(&"offer"));
    world.answer(&bob, &first);
    world.advance_ms(1000);
    let second = only!(world.take(&bob), Offer);
    assert_eq!(second.id, first.id + 1);
}

#[test]
fn an_offer_that_is_not_answered_ends_in_a_full_reconnect() {
    let mut world = World::new();
    let alice = world.join("alice");
    world.take(&alice);
    world.advance(Duration::from_millis(14_900));
    assert!(world.closed.is_empty());
    world.advance(Duration::from_millis(200));
    let leave = only!(world.take(&alice), Leave);
    assert_eq!(leave.action(), Action::Reconnect);
    assert_eq!(leave.reason(), proto::DisconnectReason::StateMismatch);
    assert!(leave.can_reconnect);
}

#[test]
fn an_answer_to_another_offer_is_ignored() {
    let mut world = World::new();
    let alice = world.join("alice");
    let offer = only!(world.take(&alice), Offer);
    world.take_commands();
    world.answer(&alice, &proto::SessionDescription { id: offer.id + 1, ..offer.clone() });
    assert!(world.take_commands().is_empty());
    world.answer(&alice, &offer);
    assert!(world.take_commands().iter().any(|c| matches!(c, Command::SetRemote { .. })));
    // Stray answers are ignored as well.
    world.answer(&alice, &offer);
    assert!(world.closed.is_empty());
}

#[test]
fn nonsense_instead_of_sdp_ends_in_a_full_reconnect_of_that_client_only() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.offer(&alice, 1, "nonsense".into());
    assert_eq!(only!(world.take(&alice), Leave).action(), Action::Reconnect);
    assert!(world.closed.contains_key(&alice.session));
    assert!(!world.closed.contains_key(&bob.session));
}

#[test]
fn a_new_remote_ufrag_restarts_ice_with_new_local_credentials() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.offer(&alice, 1, offer_sdp("rem1", &[data("0")]));
    let first = only!(world.take(&alice), Answer).sdp;
    world.take_commands();
    world.offer(&alice, 2, offer_sdp("rem2", &[data("0")]));
    let second = only!(world.take(&alice), Answer).sdp;
    let commands = world.take_commands();
    let restarted = commands.iter().find_map(|command| match command {
        Command::RestartIce { local, .. } => Some(local.ufrag.clone()),
        _ => None,
    });
    let ufrag = restarted.expect("ICE was restarted");
    assert!(second.contains(&ufrag) && !first.contains(&ufrag));
    assert!(commands.iter().any(|c| matches!(c, Command::SetRemote { .. })));
}

#[test]
fn an_unchanged_remote_side_is_not_told_again() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.offer(&alice, 1, offer_sdp("rem1", &[data("0")]));
    world.take_commands();
    world.offer(&alice, 2, offer_sdp("rem1", &[data("0")]));
    let told = |c: &Command| {
        matches!(c, Command::SetRemote { .. } | Command::RestartIce { .. } | Command::CreatePeer(_))
    };
    assert!(!world.take_commands().iter().any(told));
}

#[test]
fn malformed_trickle_is_answered_and_good_trickle_is_not() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let trickle = |init: &str| {
        Request::Trickle(proto::TrickleRequest {
            candidate_init: init.into(),
            ..Default::default()
        })
    };
    world.signal(&alice, trickle(
        r#"{"candidate":"candidate:1 1 udp 1 10.0.0.1 9 typ host","sdpMid":"0","sdpMLineIndex":0}"#,
    ));
    assert!(world.take(&alice).is_empty());
    world.signal(&alice, trickle("{"));
    let response = only!(world.take(&alice), RequestResponse);
    assert_eq!(response.reason(), proto::request_response::Reason::UnclassifiedError);
}

#[test]
fn candidates_are_trickled_with_the_last_one_marked() {
    let mut world = World::new();
    let alice = world.join("alice");
    let trickle = only!(world.take(&alice), Trickle);
    assert!(trickle.r#final);
    assert_eq!(trickle.target(), proto::SignalTarget::Subscriber);
    assert!(trickle.candidate_init.contains("7882"));
}
