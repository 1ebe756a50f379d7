//! The adapter's HTTP face under `/turms/v1`: tokens and rosters for users, change notices and
//! conference calls from our plugin inside Turms, and health.

mod conference;
mod error;
mod events;
mod roster;
mod token;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
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

/// The address of the caller, for limits. Behind a proxy of this machine or network it is the one
/// that the proxy has added to `X-Forwarded-For`; from elsewhere anybody can send that header.
/// Of an IPv6 address only the network counts (RFC 4291 §2.5.4): hosts have all of it to choose from.
fn address(peer: Option<&ConnectInfo<SocketAddr>>, headers: &HeaderMap) -> Option<IpAddr> {
    let ConnectInfo(peer) = peer?;
    let near = match peer.ip().to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    };
    let added = headers.get_all("x-forwarded-for").iter().next_back();
    let added = added.and_then(|hops| hops.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    let address = added.filter(|_| near).unwrap_or(peer.ip());
    Some(match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    })
}

/// `Authorization: Bearer …`
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Identifies a caller, within the limits on requests.
async fn identify(
    adapter: &Adapter,
    peer: Option<IpAddr>,
    proof: Proof<'_>,
) -> Result<Principal, Refusal> {
    limit(adapter, peer.map_or(Ok(()), |peer| adapter.per_address.check(peer)))?;
    let principal = adapter.identify(proof).await.inspect_err(|_| {
        adapter.stats().tokens_unauthorized.add();
    })?;
    limit(adapter, adapter.per_user.check(principal.user))?;
    Ok(principal)
}

fn limit(adapter: &Adapter, checked: Result<(), Duration>) -> Result<(), Refusal> {
    checked.map_err(|wait| {
        adapter.stats().requests_throttled.add();
        Refusal::throttled(wait)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for hops in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(hops).unwrap());
        }
        let peer = ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1));
        address(Some(&peer), &headers).unwrap().to_string()
    }

    #[test]
    fn a_near_proxy_tells_the_address_and_nobody_else_does() {
        assert_eq!(seen("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(seen("127.0.0.1", &["1.1.1.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.7", &["1.1.1.1", "203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.7", &["no address"]), "10.0.0.7");
        assert_eq!(seen("198.51.100.1", &["203.0.113.9"]), "198.51.100.1");
        assert_eq!(seen("::ffff:198.51.100.1", &[]), "198.51.100.1");
        assert_eq!(seen("2001:db8:1:2:3:4:5:6", &[]), "2001:db8:1:2::");
    }
}
