//! The room service over HTTP: both body forms, grants, and errors as LiveKit's SDKs parse them.

mod support;

use prost::Message;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use sluice_proto as proto;
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
    assert_eq!((status, &error["code"]), (501, &json!("unimplemented")));
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

    let (status, error) = call(&server, &admin("r"), "Nothing", &json!({})).await;
    assert_eq!((status, &error["code"]), (404, &json!("bad_route")));

    let response = client.post(url("livekit.Egress/ListEgress")).json(&json!({})).send().await;
    let (status, error) = answer(response.expect("answers")).await;
    assert_eq!((status, &error["code"]), (501, &json!("unimplemented")));

    let response = client.post(url("livekit.RoomService/ListRooms"));
    let response = response.header("Content-Type", "application/json").body("{").send().await;
    let (status, error) = answer(response.expect("answers")).await;
    assert_eq!((status, &error["code"]), (400, &json!("malformed")));
}
