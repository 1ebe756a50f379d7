//! Data tracks: publishing, subscribing, handles.

use bytes::Bytes;
use sluice_engine::api::{ChannelLabel, Command, EventKind};
use sluice_proto as proto;
use sluice_proto::request_response::Reason;
use sluice_proto::signal_request::Message as Request;

use crate::only;
use crate::support::*;

fn publish(handle: u32, name: &str) -> Request {
    Request::PublishDataTrackRequest(proto::PublishDataTrackRequest {
        pub_handle: handle,
        name: name.into(),
        ..Default::default()
    })
}

fn subscribe(sid: &str, subscribe: bool) -> Request {
    let update = proto::update_data_subscription::Update {
        track_sid: sid.into(),
        subscribe,
        ..Default::default()
    };
    Request::UpdateDataSubscription(proto::UpdateDataSubscription { updates: vec![update] })
}

#[test]
fn a_data_track_is_confirmed_and_announced() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    world.signal(&alice, publish(5, "gps"));
    let info = only!(world.take(&alice), PublishDataTrackResponse).info.unwrap();
    assert!(info.sid.starts_with("DTR_"));
    assert_eq!((info.pub_handle, info.name.as_str()), (5, "gps"));
    assert_eq!(updated(&world.take(&bob))[0].data_tracks, [info]);
}

#[test]
fn wrong_handles_and_names_are_refused() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.signal(&alice, publish(5, "gps"));
    world.take(&alice);
    for (handle, name, reason) in [
        (0, "x", Reason::InvalidHandle),
        (70_000, "x", Reason::InvalidHandle),
        (6, "", Reason::InvalidName),
        (5, "x", Reason::DuplicateHandle),
        (6, "gps", Reason::DuplicateName),
    ] {
        world.signal(&alice, publish(handle, name));
        assert_eq!(only!(world.take(&alice), RequestResponse).reason(), reason);
    }
}

#[test]
fn frames_carry_the_handle_of_each_subscriber() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.signal(&alice, publish(5, "gps"));
    let info = only!(world.take(&alice), PublishDataTrackResponse).info.unwrap();
    world.take(&bob);
    world.signal(&bob, subscribe(&info.sid, true));
    let handles = only!(world.take(&bob), DataTrackSubscriberHandles).sub_handles;
    let (handle, track) = handles.iter().next().unwrap();
    assert_eq!(
        (track.track_sid.as_str(), track.publisher_identity.as_str()),
        (info.sid.as_str(), "alice")
    );
    world.take_commands();

    let frame = [0x18, 0, 0, 5, 0, 1, 0, 1, 0, 0, 0, 9, b'x'];
    let peer = world.subscriber_peer(&alice);
    world.engine(EventKind::Data {
        peer,
        channel: ChannelLabel::DataTrack,
        binary: true,
        payload: Bytes::copy_from_slice(&frame),
    });
    let commands = world.take_commands();
    let [Command::SendData { peers, channel, payload, .. }] = commands.as_slice() else {
        panic!("{commands:?}");
    };
    assert_eq!(
        (peers.as_ref(), channel),
        (&[world.subscriber_peer(&bob)][..], &ChannelLabel::DataTrack)
    );
    assert_eq!(u32::from(u16::from_be_bytes([payload[2], payload[3]])), *handle);
    assert_eq!(payload[4..], frame[4..]);
}

#[test]
fn unsubscribing_and_unpublishing_empty_the_map() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.signal(&alice, publish(5, "gps"));
    let info = only!(world.take(&alice), PublishDataTrackResponse).info.unwrap();
    world.signal(&bob, subscribe(&info.sid, true));
    world.take(&bob);
    world.signal(&bob, subscribe(&info.sid, false));
    assert!(only!(world.take(&bob), DataTrackSubscriberHandles).sub_handles.is_empty());
    world.signal(&bob, subscribe(&info.sid, true));
    world.take(&bob);
    let unpublish = proto::UnpublishDataTrackRequest { pub_handle: 5 };
    world.signal(&alice, Request::UnpublishDataTrackRequest(unpublish));
    assert_eq!(only!(world.take(&alice), UnpublishDataTrackResponse).info.unwrap().sid, info.sid);
    assert!(only!(world.take(&bob), DataTrackSubscriberHandles).sub_handles.is_empty());
}

#[test]
fn automatic_subscribers_and_late_joiners_get_handles() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.signal(&alice, publish(5, "gps"));
    let mut params = join_params("bob");
    params.options.auto_subscribe_data_track = true;
    let bob = world.join_with(params);
    assert_eq!(only!(world.take(&bob), DataTrackSubscriberHandles).sub_handles.len(), 1);
    world.signal(&alice, publish(6, "imu"));
    assert_eq!(only!(world.take(&bob), DataTrackSubscriberHandles).sub_handles.len(), 2);
    world.signal(&alice, Request::Leave(proto::LeaveRequest::default()));
    let last = world.take(&bob);
    let maps = last.iter().filter_map(|message| match message {
        proto::signal_response::Message::DataTrackSubscriberHandles(handles) => Some(handles),
        _ => None,
    });
    assert!(maps.last().unwrap().sub_handles.is_empty());
}
