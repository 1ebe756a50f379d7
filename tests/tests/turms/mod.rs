//! An adapter over a stand-in for Turms and rooms without media, with its HTTP face on a port.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::disallowed_methods, reason = "tokens and mutes carry dates")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sluice_tests::fake_rooms::FakeRooms;
use sluice_tests::fake_turms::{FakeTurms, HMAC_KEY, LOGIN, PASSWORD, user_token};
use sluice_turms::admin::AdminClient;
use sluice_turms::config::{AdminConfig, EventsConfig, JwtConfig, Secret};
use sluice_turms::jwt::{Algorithm, Expectations, VerifyingKey};
use sluice_turms::signed::sign;
use sluice_turms::{Adapter, AdapterParts, Clock, TurmsConfig, TurmsStats};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Shared with the plugin.
pub const EVENT_SECRET: &[u8] = b"a secret that the plugin and the adapter share";

pub struct World {
    pub turms: FakeTurms,
    pub rooms: FakeRooms,
    pub adapter: Arc<Adapter>,
    pub address: SocketAddr,
    http: reqwest::Client,
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// A date far ahead.
pub fn far() -> i64 {
    4_102_444_800_000
}

pub fn config(turms: &FakeTurms) -> TurmsConfig {
    let admin = AdminConfig {
        timeout: Duration::from_millis(500),
        max_rps: 45,
        ..AdminConfig::new(format!("http://{}", turms.admin), LOGIN, Secret::new(PASSWORD))
    };
    let mut config = TurmsConfig::new(admin);
    let key = VerifyingKey::from_hmac_bytes(Algorithm::Hs256, HMAC_KEY).expect("a long key");
    config.jwt = Some(JwtConfig { keys: vec![key], expect: Expectations::default() });
    config.events =
        Some(EventsConfig { secret: Secret::new(EVENT_SECRET), max_skew: Duration::from_secs(30) });
    config.compat.api_key = "turms".into();
    config
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    /// A world whose configuration is changed first.
    pub async fn start_with(change: impl FnOnce(&mut TurmsConfig, &FakeTurms)) -> Self {
        let turms = FakeTurms::start().await;
        let mut config = config(&turms);
        change(&mut config, &turms);
        let (rooms, mut happened) = FakeRooms::new();
        let stats = Arc::new(TurmsStats::default());
        let client = AdminClient::new(config.admin.clone(), stats.clone()).expect("a good URL");
        let parts = AdapterParts {
            config,
            rooms: Arc::new(rooms.clone()),
            directory: Arc::new(client),
            clock: Clock::system(),
            stats,
        };
        let (adapter, tasks) = Adapter::new(parts).expect("a good configuration");
        let (events, receiver) = mpsc::channel(64);
        tokio::spawn(tasks.run(receiver));
        tokio::spawn(async move {
            while let Some(event) = happened.recv().await {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let app = adapter.router().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { turms, rooms, adapter, address, http: reqwest::Client::new() }
    }

    pub async fn post_text(&self, path: &str, token: Option<&str>, body: String) -> (u16, Value) {
        let mut request = self.http.post(format!("http://{}{path}", self.address)).body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.expect("answers");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    pub async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        self.post_text(path, token, body.to_string()).await
    }

    /// Asks for a token as a user who has signed in.
    pub async fn token(&self, user: i64, body: &Value) -> (u16, Value) {
        let token = user_token(user, now_ms() / 1000 + 600);
        self.post("/turms/v1/token", Some(&token), body).await
    }

    /// A look as a user who has signed in.
    pub async fn get(&self, user: i64, path: &str) -> (u16, Value) {
        self.get_with(&user_token(user, now_ms() / 1000 + 600), path).await
    }

    pub async fn get_with(&self, token: &str, path: &str) -> (u16, Value) {
        let url = format!("http://{}{path}", self.address);
        let response = self.http.get(url).bearer_auth(token).send().await.expect("answers");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// A signed request of the plugin.
    async fn signed(&self, path: &str, op: &str, more: Value) -> (u16, Value) {
        let nonce = format!("{:?}", std::time::Instant::now());
        let mut payload = json!({ "v": 1, "op": op, "ts": now_ms(), "nonce": nonce });
        payload.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("one"));
        let body = sign(EVENT_SECRET, &payload.to_string());
        self.post_text(path, None, body).await
    }

    /// A change notice of the plugin.
    pub async fn notice(&self, more: Value) {
        let (status, answer) = self.signed("/turms/v1/events", "events", more).await;
        assert_eq!(status, 202, "{answer}");
    }

    /// A conference request of the plugin: `create`, `accept` or `cancel`.
    pub async fn conference(&self, op: &str, more: Value) -> (u16, Value) {
        let op = format!("conference/{op}");
        self.signed(&format!("/turms/v1/{op}"), &op, more).await
    }

    /// Waits until Turms has stored a message about `event`, and returns its JSON record.
    pub async fn until_message(&self, event: &str) -> Value {
        let waiting = async {
            loop {
                if let Some(record) = self.records().into_iter().find(|r| r["event"] == event) {
                    return record;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("a message comes")
    }

    /// The JSON records of all messages.
    pub fn records(&self) -> Vec<Value> {
        use base64::Engine as _;
        let read = |message: &Value| {
            let record = message["records"][1].as_str().expect("two records");
            let bytes = base64::engine::general_purpose::STANDARD.decode(record).expect("base64");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        self.turms.lock().messages.iter().map(read).collect()
    }
}
