//! The open socket: frames in both encodings, pings, closes, and clients that misbehave.

mod support;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sluice_control::{CloseReason, Grants, SessionOutput, SharedResponse, TokenClaims};
use sluice_proto as proto;
use sluice_proto::participant_info::Kind;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_signal::token::{ApiKeys, verify};
use support::{
    KEY, SECRET, TestServer, close_code, message, next_frame, receive, send, token, within,
};
use tokio_tungstenite::tungstenite::Message;

async fn connected() -> (TestServer, support::Socket, support::Joined) {
    let server = TestServer::start().await;
    let socket = server.connect(&format!("/rtc?access_token={}", token("r"))).await;
    let joined = server.joined().await;
    (server, socket, joined)
}

fn leave() -> Response {
    Response::Leave(proto::LeaveRequest::default())
}

#[tokio::test]
async fn messages_flow_both_ways_in_order() {
    let (_server, mut socket, mut joined) = connected().await;
    for sid in ["TR_1", "TR_2"] {
        let mute = proto::MuteTrackRequest { sid: sid.into(), muted: true };
        send(&mut socket, Request::Mute(mute.clone())).await;
        joined.responses.send(message(Response::Mute(mute))).await.expect("open");
    }
    for sid in ["TR_1", "TR_2"] {
        let request = within(joined.requests.recv()).await.expect("open").message;
        assert!(matches!(request, Some(Request::Mute(mute)) if mute.sid == sid));
        assert!(matches!(receive(&mut socket).await, Response::Mute(mute) if mute.sid == sid));
    }
}

#[tokio::test]
async fn a_burst_of_messages_arrives_whole_and_in_order() {
    let (_server, mut socket, joined) = connected().await;
    let sids: Vec<String> = (0..21).map(|number| format!("TR_{number}")).collect();
    for sid in &sids {
        let mute = proto::MuteTrackRequest { sid: sid.clone(), muted: true };
        joined.responses.try_send(message(Response::Mute(mute))).expect("there is room");
    }
    for sid in sids {
        assert!(matches!(receive(&mut socket).await, Response::Mute(mute) if mute.sid == sid));
    }
}

#[tokio::test]
async fn answers_come_in_the_encoding_of_the_last_frame() {
    let (_server, mut socket, mut joined) = connected().await;
    let text = r#"{"subscription":{"trackSids":["TR_1"],"subscribe":true}}"#;
    socket.send(Message::Text(text.into())).await.expect("sends");
    let request = within(joined.requests.recv()).await.expect("open").message;
    let Some(Request::Subscription(update)) = request else { panic!("{request:?}") };
    assert_eq!((update.track_sids, update.subscribe), (vec!["TR_1".to_owned()], true));

    let update = proto::SubscriptionPermissionUpdate {
        participant_sid: "PA_1".into(),
        allowed: true,
        ..Default::default()
    };
    let response = Response::SubscriptionPermissionUpdate(update);
    joined.responses.send(message(response.clone())).await.expect("open");
    let text = r#"{"subscriptionPermissionUpdate":{"participantSid":"PA_1","allowed":true}}"#;
    assert_eq!(next_frame(&mut socket).await, Message::Text(text.into()));

    send(&mut socket, Request::Ping(1)).await;
    assert!(matches!(receive(&mut socket).await, Response::Pong(_)));
    joined.responses.send(message(response.clone())).await.expect("open");
    assert_eq!(receive(&mut socket).await, response);
}

#[tokio::test]
async fn pings_are_answered_at_once_and_the_room_hears_of_the_first() {
    let (_server, mut socket, mut joined) = connected().await;
    send(&mut socket, Request::Ping(12)).await;
    let Response::Pong(millis) = receive(&mut socket).await else { panic!("no pong") };
    assert!(millis / 1000 >= support::now() - 60 && millis < 1 << 53, "{millis}");
    send(&mut socket, Request::PingReq(proto::Ping { timestamp: 77, rtt: 5 })).await;
    let Response::PongResp(pong) = receive(&mut socket).await else { panic!("no pong") };
    assert_eq!(pong.last_ping_timestamp, 77);
    assert!(pong.timestamp >= millis);
    let mute = proto::MuteTrackRequest::default();
    send(&mut socket, Request::Mute(mute.clone())).await;
    for expected in [Request::Ping(12), Request::Mute(mute)] {
        let request = within(joined.requests.recv()).await.expect("open").message;
        assert_eq!(request, Some(expected));
    }
}

#[tokio::test]
async fn a_message_of_the_future_is_ignored() {
    let (server, mut socket, mut joined) = connected().await;
    socket.send(Message::Binary(vec![0xa2, 0x06, 0x00].into())).await.expect("sends");
    send(&mut socket, Request::Ping(1)).await;
    let request = within(joined.requests.recv()).await.expect("open").message;
    assert!(matches!(request, Some(Request::Ping(1))));
    assert_eq!(server.stats.messages_unknown.get(), 1);
}

#[tokio::test]
async fn garbage_closes_the_socket_and_tells_the_room() {
    for frame in [Message::Binary(vec![0xff; 9].into()), Message::Text("{".into())] {
        let (server, mut socket, mut joined) = connected().await;
        socket.send(frame).await.expect("sends");
        assert_eq!(close_code(&mut socket).await, 1007);
        assert!(within(joined.requests.recv()).await.is_none());
        assert_eq!(server.stats.closed_malformed.get(), 1);
    }
}

#[tokio::test]
async fn a_message_above_two_mebibytes_closes_with_1009() {
    let (server, mut socket, mut joined) = connected().await;
    let metadata = |len: usize| {
        let metadata = "x".repeat(len);
        Request::UpdateMetadata(proto::UpdateParticipantMetadata { metadata, ..Default::default() })
    };
    send(&mut socket, metadata((2 << 20) - 64)).await;
    assert!(within(joined.requests.recv()).await.is_some());
    send(&mut socket, metadata(2 << 20)).await;
    assert_eq!(close_code(&mut socket).await, 1009);
    assert!(within(joined.requests.recv()).await.is_none());
    assert_eq!(server.stats.closed_oversize.get(), 1);
}

#[tokio::test]
async fn a_flood_of_pings_is_not_answered_and_ends_the_session() {
    let (server, mut socket, mut joined) = connected().await;
    for _ in 0..100 {
        // The server lets go before all of them are sent.
        let _ = socket.feed(Message::Ping(vec![0; 125].into())).await;
    }
    let _ = socket.flush().await;
    let mut pongs = 0;
    while let Some(Ok(frame)) = within(socket.next()).await {
        pongs += usize::from(frame.is_pong());
    }
    assert!(pongs < 20, "{pongs}");
    assert!(within(joined.requests.recv()).await.is_none());
    assert_eq!(server.stats.closed_flood.get(), 1);
}

#[tokio::test]
async fn a_huge_frame_is_never_read_and_ends_the_session() {
    let (server, mut socket, mut joined) = connected().await;
    // The server lets go before all of it is sent, so sending may fail.
    let _ = socket.send(Message::Binary(vec![0; 9 << 20].into())).await;
    assert!(within(joined.requests.recv()).await.is_none());
    while let Some(Ok(_)) = within(socket.next()).await {}
    assert_eq!(server.stats.closed_oversize.get(), 1);
}

#[tokio::test]
async fn a_leave_is_flushed_before_a_clean_close() {
    let (server, mut socket, joined) = connected().await;
    joined.responses.send(message(leave())).await.expect("open");
    let left = CloseReason::Left(proto::DisconnectReason::ClientInitiated);
    joined.responses.send(SessionOutput::Close(left)).await.expect("open");
    assert_eq!(receive(&mut socket).await, leave());
    assert_eq!(close_code(&mut socket).await, 1000);
    assert!(within(socket.next()).await.is_none());
    drop(joined);
    assert_eq!(server.stats.closed_overflow.get(), 0);
}

#[tokio::test]
async fn what_the_room_said_last_arrives_even_when_it_is_over_first() {
    let (_server, mut socket, mut joined) = connected().await;
    // The room ends: it takes no more messages, and its last words are queued.
    joined.requests.close();
    joined.responses.send(message(leave())).await.expect("open");
    send(&mut socket, Request::Ping(1)).await;
    drop(joined.responses);
    let mut saw_leave = false;
    loop {
        match next_frame(&mut socket).await {
            Message::Close(_) => break,
            Message::Binary(_) if saw_leave => {}
            Message::Binary(bytes) => {
                let response: proto::SignalResponse = prost::Message::decode(bytes).expect("ours");
                saw_leave = response.message == Some(leave());
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(saw_leave);
}

#[tokio::test]
async fn a_resume_without_a_leave_does_not_look_like_a_wanted_end() {
    let (_server, mut socket, joined) = connected().await;
    joined.responses.send(SessionOutput::Close(CloseReason::Resume)).await.expect("open");
    assert_eq!(close_code(&mut socket).await, 1001);
}

#[tokio::test]
async fn an_overflowed_session_is_closed_and_counted() {
    let (server, mut socket, joined) = connected().await;
    drop(joined.responses);
    assert_eq!(close_code(&mut socket).await, 1013);
    assert_eq!(server.stats.closed_overflow.get(), 1);
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_socket_and_blocks_nobody() {
    let (server, socket, mut joined) = connected().await;
    let room = proto::Room { metadata: "x".repeat(64 << 10), ..Default::default() };
    let update = SharedResponse::new(Response::RoomUpdate(proto::RoomUpdate { room: Some(room) }));
    // Far more than what the kernel buffers; the room sees a full queue and does not wait.
    while joined.responses.try_send(SessionOutput::Message(update.clone())).is_ok() {}
    drop(joined.responses);
    // From here on, time passes whenever nothing else happens, also while the kernel makes room for a
    // last frame: that is progress, and the time-out begins anew.
    tokio::time::pause();
    let end = tokio::time::timeout(Duration::from_secs(60), joined.requests.recv()).await;
    assert!(end.expect("in time").is_none());
    assert_eq!(server.stats.closed_stalled.get(), 1);
    drop(socket);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_session_only() {
    let server = TestServer::start().await;
    let path = format!("/rtc?access_token={}", token("r"));
    let mut gone = server.connect(&path).await;
    let mut gone_joined = server.joined().await;
    let mut stays = server.connect(&path).await;
    let _stays_joined = server.joined().await;
    gone.close(None).await.expect("closes");
    assert!(within(gone_joined.requests.recv()).await.is_none());
    send(&mut stays, Request::Ping(1)).await;
    assert!(matches!(receive(&mut stays).await, Response::Pong(_)));
}

#[tokio::test]
async fn a_refreshed_token_is_signed_with_the_key_that_let_the_client_in() {
    let (_server, mut socket, joined) = connected().await;
    let claims = TokenClaims {
        identity: "alice".into(),
        name: "Alice".into(),
        kind: Kind::Sip,
        metadata: "m".into(),
        attributes: [("a".to_owned(), "1".to_owned())].into(),
        grants: Grants {
            room_join: true,
            room: "r".into(),
            can_publish: Some(false),
            ..Default::default()
        },
    };
    let refresh = SessionOutput::RefreshToken(Box::new(claims.clone()));
    joined.responses.send(refresh).await.expect("open");
    let Response::RefreshToken(text) = receive(&mut socket).await else { panic!("no token") };

    let now = Duration::from_secs(support::now() as u64);
    let verified = verify(&text, &ApiKeys::new([(KEY, SECRET)]), now).expect("a good token");
    assert_eq!(verified.api_key, KEY);
    assert_eq!(verified.claims.identity, "alice");
    assert_eq!(verified.claims.participant_kind(), Kind::Sip);
    assert_eq!(verified.claims.attributes, claims.attributes);
    assert_eq!(verified.claims.video.expect("a grant").to_grants(), claims.grants);

    let room = Some(proto::Room { name: "elsewhere".into(), ..Default::default() });
    let moved = proto::RoomMovedResponse { room: room.clone(), ..Default::default() };
    let moved = SessionOutput::RoomMoved(Box::new((claims, moved)));
    joined.responses.send(moved).await.expect("open");
    let Response::RoomMoved(moved) = receive(&mut socket).await else { panic!("not moved") };
    assert_eq!(moved.room, room);
    assert!(verify(&moved.token, &ApiKeys::new([(KEY, SECRET)]), now).is_ok());
}
