//! The room service over HTTP: both body forms, grants, and errors as LiveKit's SDKs parse them.

mod support;

use prost::Message;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use sluice_proto as proto;
use sluice_signal::CallKind;
use support::{KEY, SECRET, TestServer, now, sign};

fn token(video: &Value) -> String {
    sign(&json!({ "iss": KEY, "exp": now() + 60, "video": video }), SECRET)
}

fn admin(room: &str) -> Value {
    json!({ "roomAdmin": true, "room": room })
}

async fn call(server: &TestServer, grant: &Value, method: &str, body: &Value) -> (u16, Value) {
    let url = server.url(&format!("/twirp/livekit.RoomService/{method}"));
    let request = Client::new().post(url).bearer_auth(token(grant)).json(body);
    answer(request.send().await.expect("answers")).await
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

#[tokio::test]
async fn json_answers_carry_proto_names_and_defaults() {
    let server = TestServer::start().await;
    let grant = json!({ "roomCreate": true });
    let (status, room) = call(&server, &grant, "CreateRoom", &json!({ "name": "r" })).await;
    assert_eq!(status, 200);
    assert_eq!(room["name"], "r");
    assert_eq!(room["empty_timeout"], 0);
    assert_eq!(room["creation_time"], "0");
    assert_eq!(room["enabled_codecs"], json!([]));
    assert_eq!(room["active_recording"], false);
}

#[tokio::test]
async fn protobuf_bodies_get_protobuf_answers() {
    let server = TestServer::start().await;
    let request = proto::ListRoomsRequest { names: vec!["a".into(), "b".into()] };
    let response = Client::new()
        .post(server.url("/twirp/livekit.RoomService/ListRooms"))
        .bearer_auth(token(&json!({ "roomList": true })))
        .header("Content-Type", "application/protobuf")
        .body(request.encode_to_vec());
    let response = response.send().await.expect("answers");
    assert_eq!(response.headers()["content-type"], "application/protobuf");
    let body = response.bytes().await.expect("a body");
    let rooms = proto::ListRoomsResponse::decode(body).expect("decodes").rooms;
    assert_eq!(rooms.iter().map(|room| room.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn every_method_refuses_a_token_without_its_grant() {
    let server = TestServer::start().await;
    let denied = (401, json!({ "code": "unauthenticated", "msg": "permissions denied" }));
    let body = json!({ "room": "r", "name": "r", "identity": "alice", "destination_room": "s" });
    for method in [
        "CreateRoom",
        "ListRooms",
        "DeleteRoom",
        "ListParticipants",
        "GetParticipant",
        "RemoveParticipant",
        "MutePublishedTrack",
        "UpdateParticipant",
        "UpdateSubscriptions",
        "SendData",
        "UpdateRoomMetadata",
        "ForwardParticipant",
        "MoveParticipant",
        "PerformRpc",
    ] {
        // An administrator of another room, and no right over all rooms.
        assert_eq!(call(&server, &admin("other"), method, &body).await, denied, "{method}");
    }
}

#[tokio::test]
async fn an_administrator_reaches_participants() {
    let server = TestServer::start().await;
    let grant = admin("r");
    let room = json!({ "room": "r", "identity": "alice", "track_sid": "TR_1", "muted": true });
    let (status, list) = call(&server, &grant, "ListParticipants", &room).await;
    assert_eq!((status, &list["participants"][0]["identity"]), (200, &json!("alice")));
    let (status, muted) = call(&server, &grant, "MutePublishedTrack", &room).await;
    assert_eq!((status, &muted["track"]["muted"]), (200, &json!(true)));
    for method in ["RemoveParticipant", "UpdateSubscriptions", "SendData"] {
        assert_eq!(call(&server, &grant, method, &room).await, (200, json!({})), "{method}");
    }
    let body = json!({ "room": "r", "metadata": "m" });
    let (status, updated) = call(&server, &grant, "UpdateRoomMetadata", &body).await;
    assert_eq!((status, &updated["metadata"]), (200, &json!("m")));
}

#[tokio::test]
async fn errors_of_rooms_become_twirp_codes() {
    let server = TestServer::start().await;
    let grant = json!({ "roomCreate": true });
    let (status, error) = call(&server, &grant, "DeleteRoom", &json!({ "room": "r" })).await;
    assert_eq!((status, &error["code"]), (404, &json!("not_found")));
    assert_eq!(error["msg"], "requested room does not exist");
    let (status, error) =
        call(&server, &admin("r"), "UpdateParticipant", &json!({ "room": "r" })).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_argument")));
    let body = json!({ "room": "r", "nonce": "AAAA" });
    let (status, error) = call(&server, &admin("r"), "SendData", &body).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_argument")));
    let body = json!({ "room": "r" });
    let (status, error) = call(&server, &admin("r"), "PerformRpc", &body).await;
    assert_eq!((status, &error["msg"]), (400, &json!("destination identity is required")));
    let body = json!({ "room": "r", "destination_identity": "alice", "method": "slow" });
    let (status, error) = call(&server, &admin("r"), "PerformRpc", &body).await;
    assert_eq!((status, &error["code"]), (408, &json!("canceled")));
    let body = json!({ "name": "r", "egress": {} });
    let grant = json!({ "roomCreate": true, "roomRecord": true });
    let (status, error) = call(&server, &grant, "CreateRoom", &body).await;
    assert_eq!((status, &error["code"]), (412, &json!("failed_precondition")));
}

#[tokio::test]
async fn limits_are_named_in_the_metadata_of_the_error() {
    let server = TestServer::start().await;
    let body = json!({ "room": "r", "identity": "alice", "name": "x".repeat(257) });
    let error = call(&server, &admin("r"), "UpdateParticipant", &body).await;
    let expected = json!({
        "code": "invalid_argument",
        "msg": "name length exceeds limits 256",
        "meta": { "argument": "name length exceeds limits" },
    });
    assert_eq!(error, (400, expected));
    let body = json!({ "room": "r", "metadata": "x".repeat(512 * 1024 + 1) });
    let (status, error) = call(&server, &admin("r"), "UpdateRoomMetadata", &body).await;
    assert_eq!((status, &error["msg"]), (400, &json!("metadata size exceeds limits 524288")));
    let agents = json!([{ "attributes": { "a": "x".repeat(64 * 1024) } }]);
    let body = json!({ "name": "r", "agents": agents });
    let grant = json!({ "roomCreate": true });
    let (status, error) = call(&server, &grant, "CreateRoom", &body).await;
    assert_eq!((status, &error["msg"]), (400, &json!("attribute size exceeds limits 65536")));
}

#[tokio::test]
async fn moving_and_forwarding_need_a_right_on_both_rooms() {
    let server = TestServer::start().await;
    let grant = json!({ "roomAdmin": true, "room": "r", "destinationRoom": "s" });
    for method in ["MoveParticipant", "ForwardParticipant"] {
        let body = |to: &str| json!({ "room": "r", "identity": "alice", "destination_room": to });
        assert_eq!(call(&server, &grant, method, &body("s")).await, (200, json!({})), "{method}");
        let (status, _) = call(&server, &grant, method, &body("t")).await;
        assert_eq!(status, 401, "{method}");
        let same = json!({ "roomAdmin": true, "room": "r", "destinationRoom": "r" });
        let (status, error) = call(&server, &same, method, &body("r")).await;
        // LiveKit ends the sentence with a space.
        let text = "destination room cannot be the same as source room ";
        assert_eq!((status, &error["msg"]), (400, &json!(text)), "{method}");
    }
}

#[tokio::test]
async fn tokens_are_taken_back_before_their_holder_is_removed() {
    let server = TestServer::start().await;
    let body = json!({ "room": "r", "identity": "alice", "revoke_token_ts": "1700000000" });
    assert_eq!(call(&server, &admin("r"), "RemoveParticipant", &body).await, (200, json!({})));
    let mut calls = server.calls.lock().await;
    let revoked = ("r".to_owned(), "alice".to_owned(), 1_700_000_000);
    assert_eq!(calls.recv().await, Some(support::Call::Revoke(revoked)));
    let removed = ("r".to_owned(), "alice".to_owned());
    assert_eq!(calls.recv().await, Some(support::Call::Remove(removed)));
    // Nobody needs to be there for that; without it, removing nobody is an error.
    let body = json!({ "room": "r", "identity": "nobody", "revoke_token_ts": 1 });
    assert_eq!(call(&server, &admin("r"), "RemoveParticipant", &body).await.0, 200);
    let body = json!({ "room": "r", "identity": "nobody" });
    assert_eq!(call(&server, &admin("r"), "RemoveParticipant", &body).await.0, 404);
}

#[tokio::test]
async fn a_track_that_is_not_there_is_not_muted_and_no_error() {
    let server = TestServer::start().await;
    let body = json!({ "room": "r", "identity": "alice", "track_sid": "none", "muted": true });
    let answer = call(&server, &admin("r"), "MutePublishedTrack", &body).await;
    assert_eq!(answer, (200, json!({ "track": null })));
}

#[tokio::test]
async fn services_that_are_missing_say_so_to_those_who_may_ask() {
    let server = TestServer::start().await;
    let ask = async |path: &str, claims: Value| {
        let mut all = json!({ "iss": KEY, "exp": now() + 60 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let request = Client::new().post(server.url(&format!("/twirp/livekit.{path}")));
        let request = request.bearer_auth(sign(&all, SECRET)).json(&json!({}));
        let (status, error) = answer(request.send().await.expect("answers")).await;
        (status, error["code"].as_str().unwrap_or_default().to_owned())
    };
    let unimplemented = (501, "unimplemented".to_owned());
    let denied = (401, "unauthenticated".to_owned());
    for (path, right) in [
        ("Egress/StartRoomCompositeEgress", json!({ "video": { "roomRecord": true } })),
        ("Ingress/CreateIngress", json!({ "video": { "ingressAdmin": true } })),
        ("SIP/CreateSIPInboundTrunk", json!({ "sip": { "admin": true } })),
        ("SIP/TransferSIPParticipant", json!({ "sip": { "call": true } })),
        ("Connector/ConnectTwilioCall", json!({})),
    ] {
        assert_eq!(ask(path, right.clone()).await, unimplemented, "{path}");
        if right != json!({}) {
            assert_eq!(ask(path, json!({})).await, denied, "{path}");
        }
    }
    assert_eq!(ask("SIP/Nothing", json!({})).await, (404, "bad_route".to_owned()));
}

#[tokio::test]
async fn what_is_missing_is_listed_as_nothing_and_every_call_is_counted() {
    let server = TestServer::start().await;
    let claims = json!({ "iss": KEY, "exp": now() + 60, "sip": { "admin": true },
        "video": { "roomRecord": true, "ingressAdmin": true } });
    for (path, lists) in [
        ("Egress/ListEgress", json!({ "items": [], "next_page_token": null })),
        ("Ingress/ListIngress", json!({ "items": [], "next_page_token": null })),
        ("SIP/ListSIPInboundTrunk", json!({ "items": [] })),
        ("SIP/ListSIPDispatchRule", json!({ "items": [] })),
    ] {
        let url = server.url(&format!("/twirp/livekit.{path}"));
        let request = Client::new().post(&url).json(&json!({}));
        let denied = request.try_clone().expect("no stream").send().await.expect("answers");
        assert_eq!(denied.status().as_u16(), 401, "{path}");
        let request = request.bearer_auth(sign(&claims, SECRET));
        assert_eq!(answer(request.send().await.expect("answers")).await, (200, lists), "{path}");
    }
    let calls = server.stats.calls.ended();
    let kind = |status| CallKind { service: "Egress", method: "ListEgress", status };
    assert_eq!(calls[&(kind("200"), "")], 1);
    assert_eq!(calls[&(kind("4xx"), "unauthenticated")], 1);
    assert_eq!(calls.len(), 8);
}

#[tokio::test]
async fn little_is_read_of_a_caller_without_a_token() {
    let server = TestServer::start().await;
    let url = server.url("/twirp/livekit.RoomService/SendData");
    let request = Client::new().post(url).header("Content-Type", "application/protobuf");
    let response = request.body(vec![0; 1 << 20]).send().await.expect("answers");
    assert_eq!(answer(response).await.0, 401);
}

#[tokio::test]
async fn what_is_not_a_call_gets_a_twirp_error_too() {
    let server = TestServer::start().await;
    let url = |path: &str| server.url(&format!("/twirp/{path}"));
    let client = Client::new();

    let response = client.get(url("livekit.RoomService/ListRooms")).send().await;
    let (status, error) = answer(response.expect("answers")).await;
    assert_eq!((status, &error["code"]), (404, &json!("bad_route")));

    let response = client.post(url("livekit.RoomService/ListRooms")).body("x").send().await;
    let (status, error) = answer(response.expect("answers")).await;
    assert_eq!((status, &error["code"]), (404, &json!("bad_route")));
    let route = "POST /twirp/livekit.RoomService/ListRooms";
    assert_eq!(error["meta"], json!({ "twirp_invalid_route": route }));

    let (status, error) = call(&server, &admin("r"), "Nothing", &json!({})).await;
    assert_eq!((status, &error["code"]), (404, &json!("bad_route")));

    let response = client.post(url("livekit.RoomService/ListRooms"));
    let response = response.header("Content-Type", "application/json").body("{").send().await;
    let (status, error) = answer(response.expect("answers")).await;
    assert_eq!((status, &error["code"]), (400, &json!("malformed")));
}
