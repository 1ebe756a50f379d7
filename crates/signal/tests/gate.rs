//! An adapter between callers and rooms: refuses joins, names participants without an identity, and
//! takes a framing off server API calls.

#![allow(clippy::disallowed_types, reason = "a test keeps a list behind a lock")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prost::Message;
use reqwest::Client;
use serde_json::{Value, json};
use sluice_proto as proto;
use sluice_signal::token::VerifiedToken;
use sluice_signal::{Admission, FramedBody, Gate, HttpError};
use support::{KEY, SECRET, TestServer, join_claims, now, sign};

/// Refuses the room `closed`, keeps names that begin with `own-` for itself, and frames everything.
#[derive(Default)]
struct TestGate {
    deleted: Mutex<Vec<String>>,
}

impl Gate for TestGate {
    fn admit(&self, room: &str, token: &VerifiedToken) -> Result<Admission, HttpError> {
        if room == "closed" {
            return Err(HttpError::unauthorized("closed to you"));
        }
        let unnamed = token.claims.identity.is_empty();
        Ok(Admission {
            identity: unnamed.then(|| "somebody".to_owned()),
            attributes: BTreeMap::from([("seen".to_owned(), "1".to_owned())]),
        })
    }

    fn may_manage(&self, room: &str, _token: &VerifiedToken) -> bool {
        !room.starts_with("own-")
    }

    fn may_administer(&self, room: &str, _token: &VerifiedToken) -> bool {
        room != "closed"
    }

    fn unframe(&self, _method: &str, body: Bytes) -> FramedBody {
        FramedBody { message: body.slice(1..), delimited: true }
    }

    fn room_deleted(&self, room: &str) {
        self.deleted.lock().expect("no panic").push(room.to_owned());
    }
}

async fn call(server: &TestServer, grant: Value, method: &str, body: Vec<u8>) -> (u16, Bytes) {
    let token = sign(&json!({ "iss": KEY, "exp": now() + 60, "video": grant }), SECRET);
    let request = Client::new()
        .post(server.url(&format!("/twirp/livekit.RoomService/{method}")))
        .bearer_auth(token)
        .header("Content-Type", "application/protobuf")
        .body(body);
    let response = request.send().await.expect("answers");
    (response.status().as_u16(), response.bytes().await.expect("a body"))
}

#[tokio::test]
async fn a_gate_refuses_and_names_participants() {
    let server = TestServer::start_gated(Arc::new(TestGate::default())).await;
    let token = sign(&join_claims("closed"), SECRET);
    let refused = server.refused(&format!("/rtc?access_token={token}")).await;
    assert_eq!(refused, (401, "closed to you".to_owned()));

    let mut claims = join_claims("open");
    claims.as_object_mut().expect("an object").remove("sub");
    let token = sign(&claims, SECRET);
    let _socket = server.connect(&format!("/rtc?access_token={token}")).await;
    let joined = server.joined().await;
    assert_eq!(joined.params.identity, "somebody");
    assert_eq!(joined.params.attributes["seen"], "1");
}

#[tokio::test]
async fn framed_calls_get_framed_answers_and_deletions_are_reported() {
    let gate = Arc::new(TestGate::default());
    let server = TestServer::start_gated(gate.clone()).await;
    let create = proto::CreateRoomRequest { name: "r".into(), ..Default::default() };
    let grant = json!({ "roomCreate": true });
    let (status, answer) =
        call(&server, grant.clone(), "CreateRoom", create.encode_length_delimited_to_vec()).await;
    assert_eq!(status, 200);
    let room = proto::Room::decode_length_delimited(answer).expect("a framed room");
    assert_eq!(room.name, "r");

    let delete = proto::DeleteRoomRequest { room: "r".into() };
    let (status, _) =
        call(&server, grant, "DeleteRoom", delete.encode_length_delimited_to_vec()).await;
    assert_eq!(status, 200);
    assert_eq!(*gate.deleted.lock().expect("no panic"), ["r"]);
}

#[tokio::test]
async fn reserved_names_and_withdrawn_administrators_are_refused() {
    let server = TestServer::start_gated(Arc::new(TestGate::default())).await;
    let create = proto::CreateRoomRequest { name: "own-1".into(), ..Default::default() };
    let grant = json!({ "roomCreate": true });
    let (status, _) =
        call(&server, grant, "CreateRoom", create.encode_length_delimited_to_vec()).await;
    assert_eq!(status, 401);
    let list = proto::ListParticipantsRequest { room: "closed".into() };
    let grant = json!({ "roomAdmin": true, "room": "closed" });
    let (status, _) =
        call(&server, grant, "ListParticipants", list.encode_length_delimited_to_vec()).await;
    assert_eq!(status, 401);
}
