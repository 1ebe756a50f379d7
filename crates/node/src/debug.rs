//! `/debug`: the state of the node in JSON, for an operator. On the main listener, and on a listener
//! of its own with `debug_handler.port`; each request needs an access token with `roomList`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use sluice_control::RoomManager;
use sluice_engine::{Engine, WorkerStats};
use sluice_signal::token::{ApiKeys, verify};

use crate::status::Status;

/// Path of the node's own line in `list-nodes`.
pub(crate) const NODE_PATH: &str = "/debug/node";

/// What the pages read.
#[derive(Clone)]
pub(crate) struct Debug(Arc<Sources>);

/// See [`Debug`].
pub(crate) struct Sources {
    /// Media workers.
    pub(crate) engine: Engine,
    /// Rooms.
    pub(crate) rooms: RoomManager,
    /// Samples of the node.
    pub(crate) status: Status,
    /// Keys of the tokens that open the pages.
    pub(crate) keys: ApiKeys,
    /// `ND_…`.
    pub(crate) node_id: String,
    /// Region, may be empty.
    pub(crate) region: String,
}

impl Debug {
    /// Pages over `sources`.
    pub(crate) fn new(sources: Sources) -> Self {
        Self(Arc::new(sources))
    }

    /// All pages, behind the check of the token.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/debug", get(everything))
            .route(NODE_PATH, get(node))
            .route("/debug/workers", get(workers))
            .route("/debug/rooms", get(rooms))
            .layer(from_fn_with_state(self.clone(), authorize))
            .with_state(self.clone())
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) else {
            return false;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let verified = verify(token, &self.0.keys, now);
        verified.is_ok_and(|token| token.claims.video.is_some_and(|video| video.room_list))
    }
}

async fn authorize(State(debug): State<Debug>, request: Request, next: Next) -> Response {
    if debug.allows(request.headers()) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let advice = "an access token with roomList is needed: `sluice create-token --list`\n";
    (StatusCode::UNAUTHORIZED, challenge, advice).into_response()
}

async fn everything(State(debug): State<Debug>) -> Json<Value> {
    let rooms = debug.0.rooms.describe_rooms().await;
    Json(json!({
        "node": describe_node(&debug.0),
        "workers": describe_workers(&debug.0),
        "rooms": rooms,
    }))
}

async fn node(State(debug): State<Debug>) -> Json<Value> {
    Json(describe_node(&debug.0))
}

async fn workers(State(debug): State<Debug>) -> Json<Value> {
    Json(describe_workers(&debug.0))
}

async fn rooms(State(debug): State<Debug>) -> Json<Value> {
    Json(json!(debug.0.rooms.describe_rooms().await))
}

fn describe_node(sources: &Sources) -> Value {
    let sample = sources.status.latest();
    let rooms = sources.rooms.stats();
    let unhealthy = sources.status.unhealthy();
    json!({
        "id": sources.node_id,
        "version": env!("CARGO_PKG_VERSION"),
        "region": sources.region,
        "state": if unhealthy.is_some() { "UNHEALTHY" } else { "SERVING" },
        "reason": unhealthy,
        "exceeded_limit": sources.status.exceeded_limit(),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "load_1m": load_average(),
        "memory_mb": resident_megabytes(),
        "uptime_seconds": sources.status.started.elapsed().as_secs(),
        "sampled_at": Duration::as_secs(&sample.unix),
        "rooms": rooms.rooms,
        "participants": rooms.participants,
        "publishers": rooms.publishers,
        "tracks_in": sample.total.tracks,
        "tracks_out": sample.total.subscriptions,
        "bytes_in_per_sec": sample.bytes_in_per_sec,
        "bytes_out_per_sec": sample.bytes_out_per_sec,
    })
}

fn describe_workers(sources: &Sources) -> Value {
    let stats = sources.engine.stats();
    Value::Array(stats.workers.iter().map(describe_worker).collect())
}

/// Every counter that is not zero, drops by stage and reason.
fn describe_worker(worker: &WorkerStats) -> Value {
    let counters = worker.named().filter(|(_, value)| *value != 0);
    let mut object: Map<String, Value> =
        counters.map(|(name, value)| (name.to_owned(), value.into())).collect();
    let dropped = worker.drops().filter(|(.., count)| *count != 0);
    let dropped: Map<String, Value> =
        dropped.map(|(stage, reason, count)| (format!("{stage}.{reason}"), count.into())).collect();
    object.insert("dropped".into(), Value::Object(dropped));
    Value::Object(object)
}

fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

fn resident_megabytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? / 1024)
}
