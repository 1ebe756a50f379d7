//! Dynacast: what publishers hear about the qualities that are wanted.

use std::time::Duration;

use sluice_engine::api::{EventKind, TrackId};
use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;

use crate::only;
use crate::support::*;

fn enabled(update: &proto::SubscribedQualityUpdate) -> Vec<bool> {
    assert_eq!(update.subscribed_codecs[0].codec, "vp8");
    assert_eq!(update.subscribed_codecs[0].qualities, update.subscribed_qualities);
    update.subscribed_qualities.iter().map(|quality| quality.enabled).collect()
}

/// A camera in three layers.
fn publisher(world: &mut World) -> (Client, String, TrackId) {
    let alice = world.join_active("alice");
    let mut request = Kind::Camera.request("cid");
    request.layers =
        (0..3).map(|quality| proto::VideoLayer { quality, ..Default::default() }).collect();
    let info = world.add_track(&alice, request);
    world.offer(&alice, 1, offer_sdp("rem1", &[simulcast("0", "cid")]));
    let track = world.last_receive().sections[0].track.unwrap().track;
    world.take(&alice);
    (alice, info.sid, track)
}

#[test]
fn less_is_told_after_a_pause_and_more_at_once() {
    let mut world = World::new();
    let (alice, sid, track) = publisher(&mut world);
    world.engine(EventKind::MaxWanted { track, max_spatial: Some(0) });
    world.advance(Duration::from_millis(4900));
    assert!(!names(&world.take(&alice)).contains(&"subscribed_quality_update"));
    world.advance(Duration::from_millis(200));
    let update = only!(world.take(&alice), SubscribedQualityUpdate);
    assert_eq!(update.track_sid, sid);
    assert_eq!(enabled(&update), [true, false, false]);
    world.engine(EventKind::MaxWanted { track, max_spatial: Some(1) });
    let update = only!(world.take(&alice), SubscribedQualityUpdate);
    assert_eq!(enabled(&update), [true, true, false]);
}

#[test]
fn a_short_dip_is_not_told() {
    let mut world = World::new();
    let (alice, _, track) = publisher(&mut world);
    world.engine(EventKind::MaxWanted { track, max_spatial: Some(2) });
    assert_eq!(enabled(&only!(world.take(&alice), SubscribedQualityUpdate)), [true; 3]);
    world.engine(EventKind::MaxWanted { track, max_spatial: None });
    world.advance(Duration::from_secs(3));
    world.engine(EventKind::MaxWanted { track, max_spatial: Some(2) });
    world.advance(Duration::from_secs(60));
    assert!(!names(&world.take(&alice)).contains(&"subscribed_quality_update"));
}

#[test]
fn a_track_nobody_wants_is_turned_off() {
    let mut world = World::new();
    let (alice, _, track) = publisher(&mut world);
    world.engine(EventKind::MaxWanted { track, max_spatial: None });
    world.advance(Duration::from_secs(6));
    assert_eq!(enabled(&only!(world.take(&alice), SubscribedQualityUpdate)), [false; 3]);
}

#[test]
fn a_muted_track_is_told_after_its_unmute() {
    let mut world = World::new();
    let (alice, sid, track) = publisher(&mut world);
    let mute = |muted| Request::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted });
    world.signal(&alice, mute(true));
    world.engine(EventKind::MaxWanted { track, max_spatial: Some(0) });
    world.advance(Duration::from_secs(60));
    assert!(!names(&world.take(&alice)).contains(&"subscribed_quality_update"));
    world.signal(&alice, mute(false));
    world.advance(Duration::from_secs(6));
    assert_eq!(enabled(&only!(world.take(&alice), SubscribedQualityUpdate)), [true, false, false]);
}
