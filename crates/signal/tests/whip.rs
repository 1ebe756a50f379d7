//! WHIP and WHEP over HTTP: statuses, headers, and what reaches the rooms.

mod support;

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, header};
use serde_json::{Value, json};
use sluice_control::{CloseReason, JoinError, SessionOutput};
use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as SignalResponse;
use support::{Joined, SECRET, TestServer, join_claims, message, sign, token, within};

const OFFER: &str = include_str!("../../transport/tests/sdp/golden/chromium-av-simulcast-vp8.sdp");
const PLAYER: &str = include_str!("../../transport/tests/sdp/golden/livekit-js-join.sdp");
const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const PWD: &str = "newpwdnewpwdnewpwdnewpwd";

fn answer(ufrag: &str) -> String {
    format!(
        "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{PWD}\r\n"
    )
}

fn post(server: &TestServer, path: &str, token: &str, body: &str) -> RequestBuilder {
    typed(Client::new().post(server.url(path)).bearer_auth(token), SDP, body)
}

fn typed(request: RequestBuilder, kind: &str, body: &str) -> RequestBuilder {
    request.header(header::CONTENT_TYPE, kind).body(body.to_owned())
}

async fn answer_with(joined: &Joined, id: u32, sdp: &str) {
    let description = proto::SessionDescription { sdp: sdp.into(), id, ..Default::default() };
    joined.responses.send(message(SignalResponse::Answer(description))).await.expect("waits");
}

/// A published resource: the answer to its `POST`, and its session as the room sees it.
async fn published(server: &TestServer) -> (Response, Joined) {
    let posting = post(server, "/whip/v1", &token("r"), OFFER).send();
    let playing = async {
        let joined = server.joined().await;
        answer_with(&joined, 1, &answer("srv1")).await;
        joined
    };
    let (response, joined) = within(async { tokio::join!(posting, playing) }).await;
    (response.expect("answers"), joined)
}

fn patch(server: &TestServer, path: &str, tag: Option<&str>, body: &str) -> RequestBuilder {
    let request = Client::new().patch(server.url(path)).bearer_auth(token("r"));
    let request = typed(request, FRAGMENT, body);
    match tag {
        Some(tag) => request.header(header::IF_MATCH, tag),
        None => request,
    }
}

async fn status(request: RequestBuilder) -> u16 {
    within(request.send()).await.expect("answers").status().as_u16()
}

fn header_of(response: &Response, name: header::HeaderName) -> String {
    response.headers()[name].to_str().expect("text").to_owned()
}

#[tokio::test]
async fn offer_becomes_a_participant_and_an_answer_with_a_resource() {
    let server = TestServer::start().await;
    let (response, joined) = published(&server).await;
    assert_eq!(response.status(), 201);
    assert_eq!(header_of(&response, header::CONTENT_TYPE), SDP);
    assert_eq!(header_of(&response, header::LOCATION), "/whip/v1/PA_test");
    assert_eq!(header_of(&response, header::ETAG), "\"srv1\"");
    assert_eq!(response.headers()["accept-patch"], FRAGMENT);
    assert_eq!(response.text().await.expect("text"), answer("srv1"));

    assert_eq!((joined.room.as_str(), joined.params.identity.as_str()), ("r", "alice"));
    assert!(joined.params.options.one_shot && joined.params.options.single_peer_connection);
    assert!(!joined.params.options.auto_subscribe);
    assert_eq!(joined.params.client_info.protocol, 17);
    assert_eq!(joined.params.publisher_offer.expect("the offer").sdp, OFFER);
    let sources: Vec<_> =
        joined.params.add_track_requests.iter().map(proto::AddTrackRequest::source).collect();
    assert_eq!(sources, [proto::TrackSource::Microphone, proto::TrackSource::Camera]);
    assert_eq!(server.stats.whip_created.get(), 1);
}

#[tokio::test]
async fn player_subscribes_to_everything_or_to_one_participant() {
    let server = TestServer::start().await;
    for (path, everything) in [("/whep/v1", true), ("/whep/v1?participant=bob", false)] {
        let posting = post(&server, path, &token("r"), PLAYER).send();
        let playing = async {
            let mut joined = server.joined().await;
            answer_with(&joined, 1, &answer("srv1")).await;
            assert_eq!(joined.params.options.auto_subscribe, everything);
            assert!(joined.params.add_track_requests.is_empty());
            if !everything {
                let track = |sid: &str| proto::TrackInfo { sid: sid.into(), ..Default::default() };
                let participant = |identity: &str, sid| proto::ParticipantInfo {
                    identity: identity.into(),
                    tracks: vec![track(sid)],
                    ..Default::default()
                };
                let update = proto::ParticipantUpdate {
                    participants: vec![participant("bob", "TR_b"), participant("carl", "TR_c")],
                };
                let update = message(SignalResponse::Update(update));
                joined.responses.send(update).await.expect("waits");
                let request = joined.requests.recv().await.and_then(|request| request.message);
                let Some(Request::Subscription(wish)) = request else { panic!("{request:?}") };
                assert_eq!((wish.track_sids, wish.subscribe), (vec!["TR_b".to_owned()], true));
            }
        };
        let (response, ()) = within(async { tokio::join!(posting, playing) }).await;
        assert_eq!(response.expect("answers").status(), 201);
    }
}

#[tokio::test]
async fn refusals_have_statuses_and_json_bodies() {
    let server = TestServer::start().await;
    let good = token("r");
    let claims = |change: &dyn Fn(&mut Value)| {
        let mut claims = join_claims("r");
        change(&mut claims);
        sign(&claims, SECRET)
    };
    let mute = claims(&|claims| claims["video"]["canPublish"] = json!(false));
    let deaf = claims(&|claims| claims["video"]["canSubscribe"] = json!(false));
    let nobody = claims(&|claims| claims["sub"] = json!(""));
    let huge = "a=x\r\n".repeat(300_000);
    for (what, request, expected) in [
        ("no token", Client::new().post(server.url("/whip/v1")).body(OFFER), 401),
        (
            "no right to join",
            post(&server, "/whip/v1", &claims(&|c| c["video"]["roomJoin"] = json!(false)), OFFER),
            401,
        ),
        ("no identity", post(&server, "/whip/v1", &nobody, OFFER), 400),
        ("may not publish", post(&server, "/whip/v1", &mute, OFFER), 403),
        ("may not subscribe", post(&server, "/whep/v1", &deaf, PLAYER), 403),
        (
            "wrong type",
            typed(
                Client::new().post(server.url("/whip/v1")).bearer_auth(&good),
                "text/plain",
                OFFER,
            ),
            415,
        ),
        ("empty", post(&server, "/whip/v1", &good, ""), 400),
        ("no SDP", post(&server, "/whip/v1", &good, "hello"), 400),
        ("too large", post(&server, "/whip/v1", &good, &huge), 413),
        (
            "a player that only sends",
            post(&server, "/whep/v1", &good, &OFFER.replace("sendrecv", "sendonly")),
            422,
        ),
        (
            "bad header",
            post(&server, "/whip/v1", &good, OFFER).header("X-LiveKit-ClientInfo", "{"),
            400,
        ),
        ("missing room", post(&server, "/whip/v1", &token("missing"), OFFER), 404),
    ] {
        let response = within(request.send()).await.expect("answers");
        assert_eq!(response.status().as_u16(), expected, "{what}");
        let body = response.text().await.expect("text");
        if expected != 401 {
            let body: Value = serde_json::from_str(&body).expect(what);
            assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {body}");
        }
    }
    assert_eq!(server.stats.one_shot_open.get(), 0);
    server.refuse(JoinError::MaxParticipants).await;
    assert_eq!(status(post(&server, "/whip/v1", &good, OFFER)).await, 429);
}

#[tokio::test]
async fn offer_that_the_room_cannot_answer_is_unprocessable() {
    let server = TestServer::start().await;
    let posting = post(&server, "/whip/v1", &token("r"), OFFER).send();
    let refusing = async {
        let joined = server.joined().await;
        let reason = CloseReason::Left(proto::DisconnectReason::StateMismatch);
        joined.responses.send(SessionOutput::Close(reason)).await.expect("waits");
    };
    let (response, ()) = within(async { tokio::join!(posting, refusing) }).await;
    assert_eq!(response.expect("answers").status(), 422);
}

#[tokio::test]
async fn candidates_trickle_into_the_ice_session_that_the_tag_names() {
    let server = TestServer::start().await;
    let (response, _joined) = published(&server).await;
    let resource = header_of(&response, header::LOCATION);
    let ufrag = OFFER.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("one");
    let own = format!("a=ice-ufrag:{ufrag}\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n");
    assert_eq!(status(patch(&server, &resource, Some("\"srv1\""), &own)).await, 204);
    assert_eq!(status(patch(&server, &resource, Some("srv1"), &own)).await, 204);
    assert_eq!(status(patch(&server, &resource, None, &own)).await, 428);
    assert_eq!(status(patch(&server, &resource, Some("\"old1\""), &own)).await, 412);
    assert_eq!(status(patch(&server, &resource, Some("srv1"), "a=ice-ufrag:else\r\n")).await, 400);
    assert_eq!(status(patch(&server, &resource, Some("srv1"), "{}")).await, 400);
    let request = Client::new().patch(server.url(&resource)).bearer_auth(token("r"));
    assert_eq!(status(typed(request, SDP, &own)).await, 415);
    assert_eq!(status(patch(&server, "/whip/v1/PA_none", Some("srv1"), &own)).await, 404);
}

#[tokio::test]
async fn ice_restart_answers_with_new_credentials_and_a_new_tag() {
    let server = TestServer::start().await;
    let (response, mut joined) = published(&server).await;
    let resource = header_of(&response, header::LOCATION);
    let fragment = format!("a=ice-ufrag:cli2\r\na=ice-pwd:{PWD}\r\n");
    let restarting = patch(&server, &resource, Some("*"), &fragment).send();
    let playing = async {
        let request = joined.requests.recv().await.and_then(|request| request.message);
        let Some(Request::Offer(offer)) = request else { panic!("{request:?}") };
        assert!(offer.sdp.contains("a=ice-ufrag:cli2\r\n"), "{}", offer.sdp);
        assert_eq!(offer.sdp.matches("m=").count(), OFFER.matches("m=").count());
        // One to an offer of before is not for whoever waits now.
        answer_with(&joined, 1, &answer("old")).await;
        answer_with(&joined, offer.id, &answer("srv2")).await;
    };
    let (response, ()) = within(async { tokio::join!(restarting, playing) }).await;
    let response = response.expect("answers");
    assert_eq!(response.status(), 200);
    assert_eq!(header_of(&response, header::ETAG), "\"srv2\"");
    assert_eq!(header_of(&response, header::CONTENT_TYPE), FRAGMENT);
    assert!(response.text().await.expect("text").contains("a=ice-ufrag:srv2"));
    assert_eq!(status(patch(&server, &resource, Some("\"srv1\""), "")).await, 412);
    assert_eq!(status(patch(&server, &resource, Some("\"srv2\""), "a=ice-ufrag:cli2")).await, 204);
    assert_eq!(status(patch(&server, &resource, Some("*"), "a=ice-ufrag:cli3")).await, 400);
}

#[tokio::test]
async fn delete_leaves_the_room_and_belongs_to_the_publisher_alone() {
    let server = TestServer::start().await;
    let (response, mut joined) = published(&server).await;
    let url = server.url(&header_of(&response, header::LOCATION));
    let delete = |token: &str| Client::new().delete(&url).bearer_auth(token);
    assert_eq!(status(Client::new().delete(&url)).await, 401);
    assert_eq!(status(delete(&token("another"))).await, 403);
    let mut claims = join_claims("r");
    claims["sub"] = json!("mallory");
    assert_eq!(status(delete(&sign(&claims, SECRET))).await, 403);

    assert_eq!(status(delete(&token("r"))).await, 200);
    let request = within(joined.requests.recv()).await.and_then(|request| request.message);
    assert!(matches!(request, Some(Request::Leave(_))), "{request:?}");
    let reason = CloseReason::Left(proto::DisconnectReason::ClientInitiated);
    joined.responses.send(SessionOutput::Close(reason)).await.expect("waits");
    within(async {
        while server.stats.one_shot_open.get() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(status(delete(&token("r"))).await, 404);
}

#[tokio::test]
async fn pages_of_other_origins_may_publish() {
    let server = TestServer::start().await;
    let preflight = Client::new()
        .request(Method::OPTIONS, server.url("/whip/v1"))
        .header(header::ORIGIN, "https://example.org")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type");
    let response = within(preflight.send()).await.expect("answers");
    assert!(response.status().is_success());
    let allowed = header_of(&response, header::ACCESS_CONTROL_ALLOW_HEADERS);
    assert!(allowed.contains("authorization"), "{allowed}");

    let get =
        Client::new().get(server.url("/whip/v1")).header(header::ORIGIN, "https://example.org");
    let response = within(get.send()).await.expect("answers");
    assert_eq!(response.status(), 204);
    let exposed = header_of(&response, header::ACCESS_CONTROL_EXPOSE_HEADERS);
    for name in ["location", "etag", "link", "accept-patch"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}
