//! Webhooks over HTTP: signature, order, repetition, bounds. The receiver is a small server.

#![allow(clippy::disallowed_methods, reason = "tokens are made for the real clock")]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sluice_control::{WebhookEvent, WebhookKind};
use sluice_proto as proto;
use sluice_signal::token::{ApiKeys, verify};
use sluice_signal::{EventFilter, WebhookConfig, WebhookError, Webhooks};
use tokio::sync::{Mutex, Semaphore, mpsc};

const KEY: &str = "devkey";

/// A test that hangs is a failed test.
const PATIENCE: Duration = Duration::from_secs(30);

fn keys() -> ApiKeys {
    ApiKeys::new([(KEY, "secret"), ("other", "other-secret")])
}

/// What arrived, in order.
struct Request {
    headers: HeaderMap,
    body: String,
}

impl Request {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    fn event(&self) -> String {
        self.json()["event"].as_str().expect("a name").to_owned()
    }
}

#[derive(Clone)]
struct Receiver {
    url: String,
    requests: mpsc::UnboundedSender<Request>,
    /// Answers to give before success.
    answers: Arc<Mutex<Vec<u16>>>,
    /// Requests that may be answered.
    gate: Arc<Semaphore>,
}

impl Receiver {
    async fn start(answers: &[u16], open: usize) -> (Self, mpsc::UnboundedReceiver<Request>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
        let (requests, received) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.iter().rev().copied().collect()));
        let receiver = Self { url, requests, answers, gate: Arc::new(Semaphore::new(open)) };
        let app = Router::new().route("/hook", post(receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (receiver, received)
    }

    fn config(&self) -> WebhookConfig {
        WebhookConfig {
            urls: vec![self.url.clone()],
            api_key: KEY.into(),
            retry_min: Duration::from_millis(1),
            ..WebhookConfig::default()
        }
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    receiver.gate.acquire().await.expect("open").forget();
    let status = receiver.answers.lock().await.pop().unwrap_or(200);
    receiver.requests.send(Request { headers, body }).expect("the test lives");
    StatusCode::from_u16(status).expect("a status")
}

async fn next(received: &mut mpsc::UnboundedReceiver<Request>) -> Request {
    tokio::time::timeout(PATIENCE, received.recv()).await.expect("in time").expect("one more")
}

fn room_event(room: &str, event: &str) -> proto::WebhookEvent {
    proto::WebhookEvent {
        event: event.into(),
        room: Some(proto::Room { name: room.into(), ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_body_is_vouched_for_by_a_token_of_the_configured_key() {
    let (receiver, mut received) = Receiver::start(&[], 100).await;
    let webhooks = Webhooks::new(receiver.config(), keys()).expect("a good config");
    let (events, for_webhooks) = mpsc::channel(10);
    tokio::spawn(webhooks.clone().run(for_webhooks));
    let event = WebhookEvent {
        kind: WebhookKind::ParticipantJoined,
        room: proto::Room { name: "r".into(), num_participants: 1, ..Default::default() },
        participant: Some(proto::ParticipantInfo {
            identity: "alice".into(),
            joined_at_ms: 5,
            ..Default::default()
        }),
        ..WebhookEvent::default()
    };
    events.send(Arc::new(event)).await.expect("running");
    let request = next(&mut received).await;
    assert_eq!(request.headers["content-type"], "application/webhook+json");
    assert_eq!(request.headers["user-agent"], "LiveKit");

    let token = request.headers["authorization"].to_str().expect("text");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    let token = verify(token, &keys(), now).expect("a good token");
    assert_eq!(token.api_key, KEY);
    assert_eq!(token.claims.sha256, BASE64.encode(Sha256::digest(&request.body)));

    let body = request.json();
    assert_eq!(body["event"], "participant_joined");
    assert_eq!(body["participant"]["joinedAtMs"], "5");
    assert_eq!(body["room"]["numParticipants"], 1);
    assert!(body["id"].as_str().expect("an id").starts_with("EV_"));
    assert!(body["createdAt"].is_string() && body.get("numDropped").is_none());
}

#[tokio::test]
async fn events_of_a_room_arrive_in_order_though_the_receiver_fails_at_times() {
    let (receiver, mut received) = Receiver::start(&[503, 500, 200, 429], 100).await;
    let webhooks = Webhooks::new(receiver.config(), keys()).expect("a good config");
    for name in ["room_started", "participant_joined", "room_finished"] {
        webhooks.notify(room_event("r", name), &[]);
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(next(&mut received).await.event());
    }
    let expected = [
        "room_started",
        "room_started",
        "room_started",
        "participant_joined",
        "participant_joined",
        "room_finished",
    ];
    assert_eq!(order, expected);
    webhooks.drain(PATIENCE).await;
    assert_eq!((webhooks.stats().sent.get(), webhooks.stats().retried.get()), (3, 3));
    assert_eq!(webhooks.stats().queued.get(), 0);
}

#[tokio::test]
async fn a_stuck_room_does_not_hold_up_another() {
    let (receiver, mut received) = Receiver::start(&[], 0).await;
    let webhooks = Webhooks::new(receiver.config(), keys()).expect("a good config");
    for (room, name) in [("a", "room_started"), ("a", "room_finished"), ("b", "room_started")] {
        webhooks.notify(room_event(room, name), &[]);
    }
    // Both rooms have a request at the receiver, the second one of `a` waits for the first.
    receiver.gate.add_permits(2);
    let mut rooms = [next(&mut received).await, next(&mut received).await];
    rooms.sort_by_key(|request| request.json()["room"]["name"].to_string());
    assert_eq!(rooms[0].event(), "room_started");
    assert_eq!(rooms[1].json()["room"]["name"], "b");
}

#[tokio::test]
async fn what_is_lost_is_counted_and_reported_with_the_next_event() {
    let (receiver, mut received) = Receiver::start(&[404], 100).await;
    let config = WebhookConfig { max_depth: 1, ..receiver.config() };
    let webhooks = Webhooks::new(config, keys()).expect("a good config");
    // Nothing is sent before this test waits for something.
    for name in ["room_started", "track_published", "track_unpublished"] {
        webhooks.notify(room_event("r", name), &[]);
    }
    let request = next(&mut received).await;
    assert_eq!(
        (request.event().as_str(), &request.json()["numDropped"]),
        ("room_started", &2.into())
    );
    webhooks.drain(PATIENCE).await;
    let stats = webhooks.stats();
    assert_eq!((stats.dropped_full.get(), stats.failed.get(), stats.sent.get()), (2, 1, 0));

    // The receiver refused that one, so that its losses are still to be reported.
    webhooks.notify(room_event("r", "room_finished"), &[]);
    let request = next(&mut received).await;
    assert_eq!(
        (request.event().as_str(), &request.json()["numDropped"]),
        ("room_finished", &3.into())
    );
}

#[tokio::test]
async fn filters_apply_to_configured_receivers_and_requests_bring_their_own() {
    let (receiver, mut received) = Receiver::start(&[], 100).await;
    let include = vec!["room_finished".to_owned()];
    let filter = EventFilter { include, exclude: Vec::new() };
    let webhooks = Webhooks::new(WebhookConfig { filter, ..receiver.config() }, keys());
    let webhooks = webhooks.expect("a good config");
    let (other, mut at_other) = Receiver::start(&[], 100).await;
    let extra = proto::WebhookConfig {
        url: other.url.clone(),
        signing_key: "other".into(),
        filter_params: None,
    };
    webhooks.notify(room_event("r", "room_started"), std::slice::from_ref(&extra));
    webhooks.notify(room_event("r", "room_finished"), &[]);
    assert_eq!(next(&mut received).await.event(), "room_finished");
    let request = next(&mut at_other).await;
    assert_eq!(request.event(), "room_started");
    let token = request.headers["authorization"].to_str().expect("text");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    assert_eq!(verify(token, &keys(), now).expect("a good token").api_key, "other");
}

#[test]
fn a_config_that_could_send_nothing_is_refused() {
    let config = |urls: &[&str], api_key: &str| WebhookConfig {
        urls: urls.iter().map(|&url| url.to_owned()).collect(),
        api_key: api_key.into(),
        ..WebhookConfig::default()
    };
    let check = |urls: &[&str], key: &str| config(urls, key).check(&keys());
    assert_eq!(check(&[], ""), Ok(()));
    assert_eq!(check(&["http://x.test"], ""), Err(WebhookError::NoKey));
    assert_eq!(check(&["http://x.test"], "z"), Err(WebhookError::UnknownKey("z".into())));
    assert_eq!(check(&["x.test"], KEY), Err(WebhookError::Url("x.test".into())));
    assert_eq!(check(&["https://x.test"], KEY), Ok(()));
}
