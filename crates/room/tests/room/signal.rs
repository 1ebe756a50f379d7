//! Requests about oneself: name, metadata, attributes, track features.

use std::collections::BTreeMap;

use sluice_proto as proto;
use sluice_proto::request_response::Reason;
use sluice_proto::signal_request::Message as Request;

use crate::only;
use crate::support::*;

fn editor(world: &mut World, protocol: i32) -> Client {
    let mut params = join_params("alice");
    params.grants.can_update_own_metadata = Some(true);
    params.client_info.protocol = protocol;
    params.attributes = BTreeMap::from([("keep".into(), "1".into()), ("drop".into(), "1".into())]);
    let alice = world.join_with(params);
    world.activate(&alice);
    alice
}

fn edit(name: &str, metadata: &str, attributes: &[(&str, &str)]) -> Request {
    Request::UpdateMetadata(proto::UpdateParticipantMetadata {
        name: name.into(),
        metadata: metadata.into(),
        attributes: attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        request_id: 9,
    })
}

#[test]
fn own_edits_reach_everyone_and_are_confirmed() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = editor(&mut world, PROTOCOL);
    world.take(&bob);
    let tokens = world.tokens.len();
    world.signal(&alice, edit("new name", "", &[("drop", ""), ("add", "2")]));
    let heard = world.take(&alice);
    let response = only!(heard, RequestResponse);
    assert_eq!((response.request_id, response.reason()), (9, Reason::Ok));
    for participant in [&updated(&heard)[0], &updated(&world.take(&bob))[0]] {
        assert_eq!(participant.name, "new name");
        let attributes: Vec<(&str, &str)> =
            participant.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(attributes, [("add", "2"), ("keep", "1")]);
    }
    assert_eq!(world.tokens.len(), tokens + 1);
    assert_eq!(world.tokens.last().unwrap().1.name, "new name");
}

#[test]
fn older_clients_get_no_confirmation() {
    let mut world = World::new();
    let alice = editor(&mut world, 14);
    world.signal(&alice, edit("new name", "", &[]));
    assert!(!names(&world.take(&alice)).contains(&"request_response"));
}

#[test]
fn edits_need_the_grant_and_respect_the_limits() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    world.signal(&bob, edit("x", "", &[]));
    assert_eq!(only!(world.take(&bob), RequestResponse).reason(), Reason::NotAllowed);
    let alice = editor(&mut world, PROTOCOL);
    world.signal(&alice, edit("", &"x".repeat(512 * 1024 + 1), &[]));
    assert_eq!(only!(world.take(&alice), RequestResponse).reason(), Reason::LimitExceeded);
    world.signal(&alice, edit("", "", &[("k", &"x".repeat(64 * 1024))]));
    assert_eq!(only!(world.take(&alice), RequestResponse).reason(), Reason::LimitExceeded);
}

#[test]
fn audio_features_and_dimensions_are_broadcast() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    world.take(&bob);
    world.signal(
        &alice,
        Request::UpdateVideoTrack(proto::UpdateLocalVideoTrack {
            track_sid: info.sid.clone(),
            width: 640,
            height: 480,
        }),
    );
    assert_eq!(updated(&world.take(&bob))[0].tracks[0].width, 640);
    world.signal(
        &alice,
        Request::UpdateAudioTrack(proto::UpdateLocalAudioTrack {
            track_sid: info.sid,
            features: vec![proto::AudioTrackFeature::TfStereo.into()],
        }),
    );
    assert!(updated(&world.take(&bob))[0].tracks[0].stereo);
    world.signal(
        &alice,
        Request::UpdateAudioTrack(proto::UpdateLocalAudioTrack {
            track_sid: "TR_unknown".into(),
            features: Vec::new(),
        }),
    );
    assert_eq!(only!(world.take(&alice), RequestResponse).reason(), Reason::NotFound);
}

#[test]
fn pings_and_deprecated_layers_change_nothing_in_the_room() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.take_commands();
    world.signal(&alice, Request::Ping(1));
    world.signal(&alice, Request::PingReq(proto::Ping::default()));
    world.signal(&alice, Request::UpdateLayers(proto::UpdateVideoLayers::default()));
    assert!(world.take(&alice).is_empty() && world.take_commands().is_empty());
}
