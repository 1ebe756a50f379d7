//! Subscriptions: who gets what, when, and how they hear of it.

use std::time::Duration;

use sluice_engine::api::{Command, SubscriptionSettings};
use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;

use crate::only;
use crate::support::*;

fn subscription(sid: &str, subscribe: bool) -> Request {
    Request::Subscription(proto::UpdateSubscription {
        track_sids: vec![sid.into()],
        subscribe,
        ..Default::default()
    })
}

#[test]
fn a_late_joiner_finds_the_tracks_in_its_first_offer_after_the_participants() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    let bob = world.join("bob");
    let heard = world.take(&bob);
    assert_eq!(names(&heard)[..2], ["join", "offer"]);
    assert_eq!(only!(heard, Join).other_participants[0].tracks[0].sid, info.sid);
    let offer = only!(heard, Offer);
    let msid = format!("a=msid:{}|{} {}", alice.sid, info.sid, info.sid);
    assert!(offer.sdp.contains(&msid), "{}", offer.sdp);
}

#[test]
fn a_new_track_is_announced_before_its_media_section_is_offered() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    world.publish(&alice, Kind::Camera);
    world.advance_ms(1000);
    let heard = world.take(&bob);
    assert!(position(&heard, "update") < position(&heard, "offer"));
}

#[test]
fn media_flows_once_the_offer_is_answered() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    let (_, track) = world.publish(&alice, Kind::Camera);
    world.take_commands();
    world.advance_ms(1000);
    assert!(world.take_subscribes().is_empty());
    world.answer_offer(&bob);
    let subscribe = world.take_subscribes().remove(0);
    assert_eq!((subscribe.track, subscribe.peer), (track, world.subscriber_peer(&bob)));
    assert_eq!(subscribe.subscription.worker(), subscribe.peer.worker());
    assert_eq!(subscribe.sender.pt, 96);
    assert!(subscribe.sender.rtx_ssrc.is_some());
    assert!(subscribe.settings.enabled);
}

#[test]
fn the_publisher_hears_of_its_first_subscriber_only() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Microphone);
    world.take(&alice);
    let _bob = world.join_active("bob");
    assert_eq!(only!(world.take(&alice), TrackSubscribed).track_sid, info.sid);
    let _carol = world.join_active("carol");
    assert!(!names(&world.take(&alice)).contains(&"track_subscribed"));
}

#[test]
fn without_auto_subscribe_only_wanted_tracks_come() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Microphone);
    let mut params = join_params("bob");
    params.options.auto_subscribe = false;
    let bob = world.join_with(params);
    assert!(!only!(world.take(&bob), Offer).sdp.contains("a=msid:PA_"));
    world.answer_pending(&bob);
    world.signal(&bob, subscription(&info.sid, true));
    world.advance_ms(1000);
    assert!(only!(world.take(&bob), Offer).sdp.contains(&info.sid));
}

#[test]
fn a_wish_may_come_before_its_track_and_is_reported_when_it_never_does() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    world.signal(&bob, subscription("TR_never", true));
    world.advance(Duration::from_secs(59));
    assert!(!names(&world.take(&bob)).contains(&"subscription_response"));
    world.advance(Duration::from_secs(2));
    let response = only!(world.take(&bob), SubscriptionResponse);
    assert_eq!(response.track_sid, "TR_never");
    assert_eq!(response.err(), proto::SubscriptionError::SeTrackNotfound);
    world.advance(Duration::from_secs(120));
    assert!(!names(&world.take(&bob)).contains(&"subscription_response"));
}

#[test]
fn unsubscribing_stops_media_at_once_and_frees_the_section_later() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    world.take_commands();
    let bob = world.join_active("bob");
    let id = world.take_subscribes()[0].subscription;
    world.signal(&bob, subscription(&info.sid, false));
    let stopped =
        |c: &Command| matches!(c, Command::Unsubscribe { subscription } if *subscription == id);
    assert!(world.take_commands().iter().any(stopped));
    world.advance_ms(1000);
    assert!(only!(world.take(&bob), Offer).sdp.contains("a=inactive"));
    // A later publication of the same participant does not bring it back.
    world.signal(&alice, Request::Ping(1));
    world.advance_ms(1000);
    assert!(world.take_subscribes().is_empty());
}

#[test]
fn settings_are_kept_until_the_track_comes() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    let info = world.add_track(&alice, Kind::Camera.request("cid"));
    world.signal(
        &bob,
        Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids: vec![info.sid],
            disabled: true,
            ..Default::default()
        }),
    );
    world.offer(&alice, 1, offer_sdp("rem1", &[simulcast("0", "cid")]));
    world.advance_ms(1000);
    world.answer_offer(&bob);
    assert!(!world.take_subscribes()[0].settings.enabled);
}

#[test]
fn changed_settings_reach_the_workers() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let mut request = Kind::Camera.request("cid");
    request.layers = [(0, 320, 180), (1, 640, 360), (2, 1280, 720)]
        .map(|(quality, width, height)| proto::VideoLayer {
            quality,
            width,
            height,
            ..Default::default()
        })
        .to_vec();
    let info = world.add_track(&alice, request);
    world.offer(&alice, 1, offer_sdp("rem1", &[simulcast("0", "cid")]));
    let bob = world.join_active("bob");
    let subscribe = world.take_subscribes().remove(0);
    assert_eq!(subscribe.settings.max_spatial, 2);
    world.signal(
        &bob,
        Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids: vec![info.sid],
            width: 300,
            height: 170,
            ..Default::default()
        }),
    );
    let updates = world.take_commands();
    let [Command::UpdateSubscription { subscription, settings }] = updates.as_slice() else {
        panic!("one update, got {updates:?}");
    };
    assert_eq!(*subscription, subscribe.subscription);
    assert_eq!(*settings, SubscriptionSettings { max_spatial: 0, ..subscribe.settings });
}

#[test]
fn adaptive_clients_start_with_the_lowest_layer() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Camera);
    let mut params = join_params("bob");
    params.options.adaptive_stream = true;
    let bob = world.join_with(params);
    world.take_commands();
    world.activate(&bob);
    assert_eq!(world.take_subscribes()[0].settings.max_spatial, 0);
}

#[test]
fn a_codec_that_the_client_rejects_is_reported_once() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    let bob = world.join("bob");
    let offer = only!(world.take(&bob), Offer);
    let rejected = answer_sdp(&offer.sdp).replace("VP8/90000", "H263/90000");
    world.signal(
        &bob,
        Request::Answer(proto::SessionDescription {
            r#type: "answer".into(),
            sdp: rejected,
            id: offer.id,
            ..Default::default()
        }),
    );
    let response = only!(world.take(&bob), SubscriptionResponse);
    assert_eq!(response.track_sid, info.sid);
    assert_eq!(response.err(), proto::SubscriptionError::SeCodecUnsupported);
    assert!(world.take_subscribes().is_empty());
}

#[test]
fn publishers_choose_who_may_subscribe() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Microphone);
    let bob = world.join_active("bob");
    world.take_commands();
    let permission = |all: bool, identity: &str| {
        Request::SubscriptionPermission(proto::SubscriptionPermission {
            all_participants: all,
            track_permissions: vec![proto::TrackPermission {
                participant_identity: identity.into(),
                all_tracks: true,
                ..Default::default()
            }],
        })
    };
    world.signal(&alice, permission(false, "carol"));
    let update = only!(world.take(&bob), SubscriptionPermissionUpdate);
    assert_eq!((update.track_sid.as_str(), update.allowed), (info.sid.as_str(), false));
    assert_eq!(update.participant_sid, alice.sid);
    assert!(world.take_commands().iter().any(|c| matches!(c, Command::Unsubscribe { .. })));

    world.signal(&alice, permission(false, "bob"));
    world.advance_ms(1000);
    assert!(only!(world.take(&bob), SubscriptionPermissionUpdate).allowed);
    world.signal(&alice, permission(true, ""));
    assert!(!names(&world.take(&bob)).contains(&"subscription_permission_update"));
}

#[test]
fn who_may_not_subscribe_gets_nothing() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Microphone);
    let mut params = join_params("bob");
    params.grants.can_subscribe = Some(false);
    let bob = world.join_with(params);
    let heard = world.take(&bob);
    assert!(!only!(heard, Offer).sdp.contains("a=msid:PA_"));
}

#[test]
fn tracks_of_a_leaving_participant_end_for_the_others() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (_, track) = world.publish(&alice, Kind::Microphone);
    let bob = world.join_active("bob");
    world.take_commands();
    world.signal(&alice, Request::Leave(proto::LeaveRequest::default()));
    let commands = world.take_commands();
    assert!(commands.iter().any(|c| matches!(c, Command::Unsubscribe { .. })));
    assert!(commands.iter().any(|c| matches!(c, Command::Unpublish { track: t } if *t == track)));
    world.advance_ms(1000);
    assert!(names(&world.take(&bob)).contains(&"offer"));
}

#[test]
fn a_paused_stream_is_reported_to_its_receiver() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    world.take_commands();
    let bob = world.join_active("bob");
    let subscription = world.take_subscribes()[0].subscription;
    world.engine(sluice_engine::api::EventKind::StreamState { subscription, paused: true });
    let update = only!(world.take(&bob), StreamStateUpdate);
    assert_eq!(update.stream_states[0].track_sid, info.sid);
    assert_eq!(update.stream_states[0].state(), proto::StreamState::Paused);
    assert!(!world.take(&alice).iter().any(|m| matches!(m, Response::StreamStateUpdate(_))));
}
