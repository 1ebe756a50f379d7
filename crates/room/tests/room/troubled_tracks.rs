//! Tracks that never begin to flow, limits on how many do, and streams that clients synchronise.

use std::time::Duration;

use sluice_engine::api::EventKind;
use sluice_proto as proto;
use sluice_proto::leave_request::Action;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::{DisconnectReason, SubscriptionError};
use sluice_room::{Limits, RoomConfig, RoomSettings};

use crate::only;
use crate::support::*;

fn world(config: RoomConfig) -> World {
    World::with(config, RoomSettings::default())
}

fn camera(world: &mut World, client: &Client, cid: &str) -> proto::TrackInfo {
    world.add_track(client, Kind::Camera.request(cid))
}

fn unsubscribe(sid: &str) -> Request {
    let update = proto::UpdateSubscription { track_sids: vec![sid.into()], ..Default::default() };
    Request::Subscription(update)
}

#[test]
fn tracks_beyond_the_subscription_limit_wait_for_one_to_end() {
    let limits = Limits { subscription_limit_video: 1, ..Limits::default() };
    let mut world = world(RoomConfig { limits, ..RoomConfig::default() });
    let alice = world.join_active("alice");
    let first = camera(&mut world, &alice, "one");
    let second = camera(&mut world, &alice, "two");
    let sections = [sending(Kind::Camera, "1", "one"), sending(Kind::Camera, "2", "two")];
    world.offer(&alice, 1, offer_sdp("rem1", &sections));
    world.take_commands();
    let bob = world.join("bob");
    let offer = only!(world.take(&bob), Offer).sdp;
    assert!(offer.contains(&first.sid) && !offer.contains(&second.sid));
    world.answer_pending(&bob);
    world.connect(world.subscriber_peer(&bob));
    world.take(&bob);
    world.signal(&bob, unsubscribe(&first.sid));
    world.advance_ms(1000);
    let offer = only!(world.take(&bob), Offer).sdp;
    assert!(offer.contains(&second.sid) && !offer.contains(&first.sid));
}

/// A client with one connection that never offers a section for the camera that it wants.
fn never_bound(config: RoomConfig) -> (World, Client, String) {
    let mut world = world(config);
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    let mut params = single_params("bob");
    let sdp = offer_sdp("rem1", &[data("0")]);
    params.publisher_offer = Some(proto::SessionDescription {
        r#type: "offer".into(),
        sdp,
        id: 1,
        ..Default::default()
    });
    let bob = world.join_with(params);
    world.take(&bob);
    (world, bob, info.sid)
}

#[test]
fn a_subscription_that_is_never_taken_up_is_reported_once() {
    let (mut world, bob, sid) = never_bound(RoomConfig::default());
    world.advance(Duration::from_millis(14_900));
    assert!(!names(&world.take(&bob)).contains(&"subscription_response"));
    world.advance(Duration::from_secs(30));
    let response = only!(world.take(&bob), SubscriptionResponse);
    assert_eq!(
        (response.track_sid.as_str(), response.err()),
        (&*sid, SubscriptionError::SeUnknown)
    );
}

#[test]
fn a_subscription_that_is_never_taken_up_costs_a_full_reconnect_where_configured() {
    let config = RoomConfig { reconnect_on_subscription_error: true, ..RoomConfig::default() };
    let (mut world, bob, _) = never_bound(config);
    world.advance(Duration::from_secs(16));
    let leave = only!(world.take(&bob), Leave);
    assert_eq!(
        (leave.action(), leave.reason()),
        (Action::Reconnect, DisconnectReason::StateMismatch)
    );
}

#[test]
fn a_published_track_without_media_costs_a_full_reconnect_where_configured() {
    for (reconnect, media, muted, leaves) in [
        (true, false, false, true),
        (true, true, false, false),
        (true, false, true, false),
        (false, false, false, false),
    ] {
        let mut world = world(RoomConfig {
            reconnect_on_publication_error: reconnect,
            ..RoomConfig::default()
        });
        let alice = world.join_active("alice");
        let (info, track) = world.publish(&alice, Kind::Microphone);
        if media {
            let codec = sluice_rtp::codec::Codec::Opus;
            world.engine(EventKind::LayerStarted { track, layer: 0, ssrc: 9, rid: None, codec });
        }
        if muted {
            world.signal(&alice, Request::Mute(proto::MuteTrackRequest { sid: info.sid, muted }));
        }
        world.take(&alice);
        world.advance(Duration::from_secs(31));
        let left = names(&world.take(&alice)).contains(&"leave");
        assert_eq!(left, leaves, "media {media}, muted {muted}, reconnect {reconnect}");
    }
}

#[test]
fn synchronised_rooms_group_tracks_by_source_for_those_who_understand() {
    let settings = RoomSettings { sync_streams: true, ..RoomSettings::default() };
    let mut world = World::with(RoomConfig::default(), settings);
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    let bob = world.join("bob");
    let offer = only!(world.take(&bob), Offer).sdp;
    assert!(offer.contains(&format!("a=msid:{}|camera {}", alice.sid, info.sid)), "{offer}");
    let mut firefox = join_params("firefox");
    firefox.client_info.browser = "Firefox".into();
    let firefox = world.join_with(firefox);
    let offer = only!(world.take(&firefox), Offer).sdp;
    assert!(offer.contains(&format!("a=msid:{}|{} {}", alice.sid, info.sid, info.sid)), "{offer}");
}

#[test]
fn a_revoked_data_permission_ends_data_tracks() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.signal(
        &alice,
        Request::PublishDataTrackRequest(proto::PublishDataTrackRequest {
            pub_handle: 1,
            name: "pose".into(),
            ..Default::default()
        }),
    );
    world.take(&alice);
    world.take(&bob);
    let permission = proto::ParticipantPermission {
        can_subscribe: true,
        can_publish: true,
        can_publish_data: false,
        ..Default::default()
    };
    let request = proto::UpdateParticipantRequest {
        identity: "alice".into(),
        permission: Some(permission),
        ..Default::default()
    };
    world.room.update_participant(world.now, &request).unwrap();
    world.drain();
    only!(world.take(&alice), UnpublishDataTrackResponse);
    assert!(updated(&world.take(&bob)).last().unwrap().data_tracks.is_empty());
}
