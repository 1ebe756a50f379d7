//! The adapter's HTTP face under `/turms/v1`: tokens and rosters for users, change notices and
//! conference calls from our plugin inside Turms, and health.

mod conference;
mod error;
mod events;
mod roster;
mod token;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;

pub use error::Refusal;
pub use token::{TargetRequest, TokenAnswer, TokenRequest};

use crate::adapter::Adapter;
use crate::identity::{Principal, Proof};
use crate::signed::MAX_BODY;

/// How long browsers may remember a CORS preflight.
const CORS_MAX_AGE: Duration = Duration::from_secs(86_400);

/// All paths of an adapter.
pub(crate) fn router(adapter: Arc<Adapter>) -> Router {
    let cors = cors(&adapter.config().allowed_origins);
    let for_users = Router::new()
        .route("/turms/v1/token", post(token::issue))
        .route("/turms/v1/rooms/{kind}/{id}", get(roster::show))
        .layer(cors);
    Router::new()
        .route("/turms/v1/events", post(events::receive))
        .route("/turms/v1/conference/{op}", post(conference::serve))
        .route("/turms/v1/health", get(health))
        .merge(for_users)
        .layer(RequestBodyLimitLayer::new(MAX_BODY))
        .with_state(adapter)
}

fn cors(origins: &[String]) -> CorsLayer {
    let allowed: Vec<HeaderValue> =
        origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::OPTIONS])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .max_age(CORS_MAX_AGE);
    if allowed.is_empty() {
        layer.allow_origin(Any)
    } else {
        layer.allow_origin(AllowOrigin::list(allowed))
    }
}

/// The address of the caller. A proxy's header is not believed: anybody can send one.
fn address(peer: Option<&ConnectInfo<SocketAddr>>) -> Option<IpAddr> {
    peer.map(|ConnectInfo(peer)| peer.ip())
}

/// `Authorization: Bearer …`
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Identifies a caller by JWT, within the limits on requests.
async fn identify(
    adapter: &Adapter,
    peer: Option<IpAddr>,
    proof: Proof<'_>,
) -> Result<Principal, Refusal> {
    let throttled = |wait| {
        adapter.stats().requests_throttled.add();
        Refusal::throttled(wait)
    };
    if let Some(peer) = peer {
        adapter.per_address.check(peer).map_err(throttled)?;
    }
    let principal = adapter.identify(proof).await.inspect_err(|_| {
        adapter.stats().tokens_unauthorized.add();
    })?;
    adapter.per_user.check(principal.user).map_err(throttled)?;
    Ok(principal)
}

/// Whether Turms can be asked, and how far behind rooms are.
async fn health(State(adapter): State<Arc<Adapter>>) -> Response {
    let stats = adapter.stats();
    let reachable = adapter.turms_is_reachable();
    let stale = stats.stale_rooms.get();
    let body = json!({
        "status": if reachable && stale == 0 { "ok" } else { "degraded" },
        "turms_reachable": reachable,
        "watched_rooms": stats.watched_rooms.get(),
        "stale_rooms": stale,
        "poll_round_ms": stats.poll_round_ms.get(),
        "cache_entries": adapter.cache_entries(),
        "messages_waiting": adapter.messages_waiting(),
    });
    let status = if reachable { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(body)).into_response()
}
