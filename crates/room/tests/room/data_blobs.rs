//! Data blobs: stored under a key by one participant, fetched by the others.

use sluice_proto as proto;
use sluice_proto::data_blob_key::Key;
use sluice_proto::request_response::Reason;
use sluice_proto::signal_request::Message as Request;
use sluice_room::{Limits, RoomConfig, RoomSettings};

use crate::only;
use crate::support::{Client, World};

fn world() -> World {
    let limits = Limits { max_data_blobs_size: 100, ..Limits::default() };
    let config = RoomConfig { enable_participant_data_blob: true, limits, ..RoomConfig::default() };
    World::with(config, RoomSettings::default())
}

fn key(name: &str) -> proto::DataBlobKey {
    proto::DataBlobKey { key: Some(Key::Generic(name.into())) }
}

fn store(world: &mut World, client: &Client, name: &str, contents: &[u8]) {
    let contents = contents.to_vec().into();
    let blob = Some(proto::DataBlob { key: Some(key(name)), contents });
    let request = proto::StoreDataBlobRequest { request_id: 7, blob };
    world.signal(client, Request::StoreDataBlobRequest(request));
}

fn get(world: &mut World, client: &Client, identity: &str, name: &str) {
    let request = proto::GetDataBlobRequest {
        request_id: 8,
        participant_identity: identity.into(),
        key: Some(key(name)),
    };
    world.signal(client, Request::GetDataBlobRequest(request));
}

fn refusal(world: &mut World, client: &Client) -> Reason {
    only!(world.take(client), RequestResponse).reason()
}

#[test]
fn a_stored_blob_is_fetched_by_others_until_its_owner_leaves() {
    let mut world = world();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.take(&alice);
    store(&mut world, &alice, "calibration", b"bytes");
    let stored = only!(world.take(&alice), StoreDataBlobResponse);
    assert_eq!((stored.request_id, stored.key), (7, Some(key("calibration"))));

    get(&mut world, &bob, "alice", "calibration");
    let got = only!(world.take(&bob), GetDataBlobResponse);
    assert_eq!((got.request_id, got.blob.unwrap().contents.as_ref()), (8, &b"bytes"[..]));

    world.signal(&alice, Request::Leave(proto::LeaveRequest::default()));
    world.take(&bob);
    get(&mut world, &bob, "alice", "calibration");
    assert_eq!(refusal(&mut world, &bob), Reason::NotFound);
}

#[test]
fn blobs_are_bounded_and_a_key_is_replaced_not_added() {
    let mut world = world();
    let alice = world.join_active("alice");
    store(&mut world, &alice, "a", &[1; 80]);
    only!(world.take(&alice), StoreDataBlobResponse);
    store(&mut world, &alice, "b", &[1; 80]);
    assert_eq!(refusal(&mut world, &alice), Reason::LimitExceeded);
    store(&mut world, &alice, "a", &[2; 90]);
    only!(world.take(&alice), StoreDataBlobResponse);
    for (name, contents) in [("", &b"x"[..]), ("c", b""), (&"k".repeat(300), b"x")] {
        store(&mut world, &alice, name, contents);
        assert_eq!(refusal(&mut world, &alice), Reason::InvalidRequest);
    }
}

#[test]
fn data_blobs_are_refused_where_they_are_not_enabled() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    store(&mut world, &alice, "a", b"x");
    assert_eq!(refusal(&mut world, &alice), Reason::NotAllowed);
    get(&mut world, &alice, "alice", "a");
    assert_eq!(refusal(&mut world, &alice), Reason::NotAllowed);
}
