//! What a room or a receiver asks for beyond layers: low power, jitter buffers, streams in step.

use std::collections::HashMap;

use sluice_engine::PlayoutDelayRange;
use sluice_engine::api::Command;
use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;
use sluice_room::{RoomConfig, RoomSettings};

use crate::only;
use crate::support::*;

/// Bob watches Alice's camera of three layers; returns the offer he got.
fn watch(world: &mut World, bob: sluice_room::JoinParams) -> (Client, String) {
    let alice = world.join_active("alice");
    let layers = [proto::VideoQuality::Low, proto::VideoQuality::Medium, proto::VideoQuality::High];
    let layers =
        layers.map(|quality| proto::VideoLayer { quality: quality.into(), ..Default::default() });
    let request = proto::AddTrackRequest { layers: layers.into(), ..Kind::Camera.request("cid") };
    world.add_track(&alice, request);
    world.offer(&alice, 1, offer_sdp("rem1", &[data("0"), simulcast("1", "cid")]));
    let bob = world.join_with(bob);
    let offer = only!(world.take(&bob), Offer);
    world.take_commands();
    world.answer(&bob, &offer);
    (bob, offer.sdp)
}

#[test]
fn a_low_power_receiver_is_spared_until_it_says_otherwise() {
    let mut params = join_params("bob");
    params.attributes.insert("low_power".into(), "true".into());
    params.grants.can_update_own_metadata = Some(true);
    let mut world = World::new();
    let (bob, _) = watch(&mut world, params);
    let settings = world.take_subscribes().remove(0).settings;
    assert_eq!((settings.max_spatial, settings.max_temporal), (1, 1));
    world.signal(
        &bob,
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            attributes: HashMap::from([("low_power".into(), String::new())]).into_iter().collect(),
            ..Default::default()
        }),
    );
    let update = world.take_commands().into_iter().find_map(|command| match command {
        Command::UpdateSubscription { settings, .. } => Some(settings),
        _ => None,
    });
    let settings = update.expect("the settings changed");
    assert_eq!((settings.max_spatial, settings.max_temporal), (2, 3));
}

#[test]
fn a_rooms_playout_delay_is_negotiated_and_reaches_the_workers() {
    const URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
    let range = PlayoutDelayRange { min_ms: 100, max_ms: 2_000 };
    let settings = RoomSettings::from(&proto::CreateRoomRequest {
        min_playout_delay: 100,
        max_playout_delay: 2_000,
        ..Default::default()
    });
    let mut world = World::with(RoomConfig::default(), settings);
    let (_, offer) = watch(&mut world, join_params("bob"));
    assert!(offer.contains(URI));
    assert_eq!(world.take_subscribes().remove(0).playout_delay, Some(range));

    let mut plain = World::new();
    let (_, offer) = watch(&mut plain, join_params("bob"));
    assert!(!offer.contains(URI));
    assert_eq!(plain.take_subscribes().remove(0).playout_delay, None);
}

#[test]
fn camera_and_microphone_share_a_stream_where_the_room_says_so() {
    let settings = RoomSettings { sync_streams: true, ..RoomSettings::default() };
    for (browser, shared) in [("Chrome", true), ("Firefox", false)] {
        let mut world = World::with(RoomConfig::default(), settings.clone());
        let alice = world.join_active("alice");
        world.add_track(&alice, Kind::Microphone.request("mic"));
        world.add_track(&alice, Kind::Camera.request("cam"));
        let sections =
            [data("0"), sending(Kind::Microphone, "1", "mic"), sending(Kind::Camera, "2", "cam")];
        world.offer(&alice, 1, offer_sdp("rem1", &sections));
        let mut params = join_params("bob");
        params.client_info.browser = browser.into();
        let bob = world.join_with(params);
        let offer = only!(world.take(&bob), Offer).sdp;
        let stream = format!("a=msid:{}|camera TR_", alice.sid);
        assert_eq!(offer.matches(&stream).count(), if shared { 2 } else { 0 });
        assert_eq!(offer.matches(&format!("cname:{}|camera", alice.sid)).count() >= 2, shared);
    }
}
