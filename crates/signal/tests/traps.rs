//! What clients check strictly about HTTP and the socket, numbered as in the list of LiveKit's
//! client traps.

mod support;

use futures_util::SinkExt;
use serde_json::json;
use sluice_control::{CloseReason, JoinError, SessionOutput};
use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use support::{TestServer, close_code, message, next_frame, receive, send, token, within};
use tokio_tungstenite::tungstenite::Message;

async fn connected() -> (TestServer, support::Socket, support::Joined) {
    let server = TestServer::start().await;
    let socket = server.connect(&format!("/rtc?access_token={}", token("r"))).await;
    let joined = server.joined().await;
    (server, socket, joined)
}

#[tokio::test]
async fn trap_02_clients_see_the_reason_as_status_and_text_before_any_upgrade() {
    let server = TestServer::start().await;
    let missing = format!("/rtc?access_token={}", token("missing"));
    let (status, text) = server.refused(&missing).await;
    assert_eq!(status, 404);
    assert!(text.contains("requested room does not exist"), "{text}");
    assert_eq!(server.refused("/rtc?access_token=nonsense").await.0, 401);
    assert_eq!(server.refused("/rtc").await.0, 401);
    let url = server.url("/rtc/validate?access_token=nonsense");
    let response = within(reqwest::get(url)).await.expect("answers");
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert!(response.text().await.expect("text").contains("invalid authorization token"));
    server.refuse(JoinError::MaxParticipants).await;
    assert_eq!(server.refused(&format!("/rtc?access_token={}", token("r"))).await.0, 429);
}

#[tokio::test]
async fn trap_03_answers_follow_the_last_frame_and_twirp_keeps_proto_names() {
    let (server, mut socket, joined) = connected().await;
    let update = proto::SubscriptionPermissionUpdate { allowed: true, ..Default::default() };
    let update = Response::SubscriptionPermissionUpdate(update);
    joined.responses.send(message(update.clone())).await.expect("open");
    assert!(matches!(next_frame(&mut socket).await, Message::Binary(_)), "binary by default");
    socket.send(Message::Text(r#"{"ping":"1"}"#.into())).await.expect("sends");
    let pong = next_frame(&mut socket).await;
    assert!(pong.to_text().is_ok_and(|text| text.starts_with(r#"{"pong":"#)), "{pong:?}");
    joined.responses.send(message(update)).await.expect("open");
    let text = r#"{"subscriptionPermissionUpdate":{"allowed":true}}"#;
    assert_eq!(next_frame(&mut socket).await, Message::Text(text.into()));

    let mut claims = support::join_claims("r");
    claims["video"] = json!({ "roomCreate": true });
    let created = reqwest::Client::new()
        .post(server.url("/twirp/livekit.RoomService/CreateRoom"))
        .bearer_auth(support::sign(&claims, support::SECRET))
        .json(&json!({ "name": "r" }))
        .send();
    let created: serde_json::Value =
        within(created).await.expect("answers").json().await.expect("JSON");
    assert_eq!((&created["empty_timeout"], &created["creation_time"]), (&json!(0), &json!("0")));
}

#[tokio::test]
async fn trap_04_pongs_are_milliseconds_that_javascript_can_hold() {
    let (_server, mut socket, _joined) = connected().await;
    send(&mut socket, Request::Ping(1)).await;
    let Response::Pong(millis) = receive(&mut socket).await else { panic!("no pong") };
    assert!((millis / 1000 - support::now()).abs() < 60 && millis < 1 << 53, "{millis}");
    let ping = proto::Ping { timestamp: 1_700_000_000_123, rtt: 3 };
    send(&mut socket, Request::PingReq(ping)).await;
    let Response::PongResp(pong) = receive(&mut socket).await else { panic!("no pong") };
    assert_eq!(pong.last_ping_timestamp, 1_700_000_000_123);
}

#[tokio::test]
async fn trap_15_only_a_leave_ends_with_1000_and_an_oversized_message_ends_with_1009() {
    let leave = || message(Response::Leave(proto::LeaveRequest::default()));
    let left = CloseReason::Left(proto::DisconnectReason::ClientInitiated);
    for (said, reason, code) in [
        (true, left, 1000),
        (true, CloseReason::Resume, 1000),
        (false, CloseReason::Resume, 1001),
        (false, CloseReason::Abnormal, 1011),
    ] {
        let (_server, mut socket, joined) = connected().await;
        if said {
            joined.responses.send(leave()).await.expect("open");
        }
        joined.responses.send(SessionOutput::Close(reason)).await.expect("open");
        if said {
            assert!(matches!(receive(&mut socket).await, Response::Leave(_)));
        }
        assert_eq!(close_code(&mut socket).await, code);
    }
    let (_server, mut socket, _joined) = connected().await;
    let huge = Message::Binary(vec![0; (2 << 20) + 1].into());
    socket.send(huge).await.expect("sends");
    assert_eq!(close_code(&mut socket).await, 1009);
}

#[tokio::test]
async fn trap_29_twirp_errors_are_json_with_code_message_and_status() {
    let server = TestServer::start().await;
    let mut claims = support::join_claims("r");
    claims["video"] = json!({ "roomCreate": true, "roomAdmin": true, "room": "r" });
    let token = support::sign(&claims, support::SECRET);
    for (method, body, status, code) in [
        ("DeleteRoom", json!({ "room": "r" }), 404, "not_found"),
        ("ListRooms", json!({}), 401, "unauthenticated"),
        ("NoSuchMethod", json!({}), 404, "bad_route"),
    ] {
        let url = server.url(&format!("/twirp/livekit.RoomService/{method}"));
        let call = reqwest::Client::new().post(url).bearer_auth(&token).json(&body).send();
        let answer = within(call).await.expect("answers");
        assert_eq!(answer.status(), status, "{method}");
        let error: serde_json::Value = answer.json().await.expect("JSON");
        assert_eq!(error["code"], code);
        assert!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    }
}
