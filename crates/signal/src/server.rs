//! The HTTP face: one router with every path of the signal server, and what wraps all of them.
//!
//! From the outside in: CORS (on every answer, errors too), panics become 500, a doubled leading
//! slash is forgiven, bodies are bounded, tokens are checked.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{Method, Request, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use sluice_control::Limits;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;

use crate::agents::{self, Agents};
use crate::auth::authenticate;
use crate::error::HttpError;
use crate::gate::Gate;
use crate::host::{RoomApi, SessionHost};
use crate::rtc::{MAX_MESSAGE_SIZE, Version, connect, validate};
use crate::stats::SignalStats;
use crate::token::ApiKeys;
use crate::twirp;
use crate::whip;

/// Largest request body by default, bytes (LiveKit's).
const MAX_BODY: usize = 10 << 20;

/// How long browsers may remember a CORS preflight.
const CORS_MAX_AGE: Duration = Duration::from_secs(86_400);

/// What the signal server is made from.
#[derive(Clone)]
pub struct SignalConfig {
    /// Why the node is not healthy, if it is not: asked by `/`.
    pub health: Probe,
    /// The limit of the node that keeps new participants out, if one does.
    pub admission: Probe,
    /// Keys that tokens are signed with.
    pub keys: ApiKeys,
    /// Limits on names, checked before a room is asked.
    pub limits: Limits,
    /// Agents; without them `/agent` is not there.
    pub agents: Option<Agents>,
    /// Largest message of a client on a signal socket, bytes (`limit.signal_message_size_limit`).
    pub max_message_size: usize,
    /// Largest message of an agent worker, bytes (`limit.agent_signal_message_size_limit`).
    pub max_agent_message_size: usize,
    /// An adapter between callers and rooms.
    pub gate: Option<Arc<dyn Gate>>,
    /// Largest body of a request, bytes (`limit.max_api_request_body_size`).
    pub max_body: usize,
}

impl Default for SignalConfig {
    /// LiveKit's limits, and no keys.
    fn default() -> Self {
        Self {
            health: Probe::default(),
            admission: Probe::default(),
            keys: ApiKeys::default(),
            limits: Limits::default(),
            agents: None,
            max_message_size: MAX_MESSAGE_SIZE,
            max_agent_message_size: MAX_MESSAGE_SIZE,
            gate: None,
            max_body: MAX_BODY,
        }
    }
}

/// A question that is asked again for each request; `None` is the good answer.
#[derive(Clone, Default)]
pub struct Probe(Option<Arc<dyn Fn() -> Option<String> + Send + Sync>>);

impl Probe {
    /// Asks `probe`.
    pub fn new(probe: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(probe)))
    }

    pub(crate) fn ask(&self) -> Option<String> {
        self.0.as_ref().and_then(|probe| probe())
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

/// The signal server over rooms of type `H`. Clones are the same server.
pub struct SignalServer<H>(Shared<H>);

impl<H: SessionHost + RoomApi> SignalServer<H> {
    /// A server that joins clients to the rooms of `host`.
    pub fn new(host: H, config: SignalConfig) -> Self {
        let stats = Arc::new(SignalStats::default());
        Self(Shared(Arc::new(Inner { host, config, stats, one_shots: whip::Registry::default() })))
    }

    /// Counters, for metrics.
    pub fn stats(&self) -> &Arc<SignalStats> {
        self.0.stats()
    }

    /// All paths. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, so that
    /// clients without a proxy are known by their address.
    pub fn router(&self) -> Router {
        let paths = Router::new()
            .route("/", any(health::<H>))
            .merge(self.rtc("/rtc", Version::V0))
            .merge(self.rtc("/rtc/v1", Version::V1))
            .merge(whip::routes())
            .merge(twirp::routes())
            .route("/agent", any(agents::connect::<H>))
            .layer(from_fn_with_state(self.0.clone(), authenticate::<H>))
            .layer(DefaultBodyLimit::disable())
            .layer(RequestBodyLimitLayer::new(self.0.0.config.max_body))
            .with_state(self.0.clone());
        // Paths are rewritten before they are routed, hence a router around the router.
        let outer = ServiceBuilder::new()
            .layer(cors())
            .layer(CatchPanicLayer::new())
            .map_request(strip_double_slash)
            .service(paths);
        Router::new().fallback_service(outer)
    }

    fn rtc(&self, path: &str, version: Version) -> Router<Shared<H>> {
        Router::new()
            .route(path, any(connect::<H>))
            .route(&format!("{path}/validate"), get(validate::<H>))
            .layer(Extension(version))
    }
}

impl<H> Clone for SignalServer<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What every handler can reach.
pub(crate) struct Shared<H>(Arc<Inner<H>>);

struct Inner<H> {
    host: H,
    config: SignalConfig,
    stats: Arc<SignalStats>,
    one_shots: whip::Registry,
}

impl<H> Shared<H> {
    pub(crate) fn host(&self) -> &H {
        &self.0.host
    }

    pub(crate) fn keys(&self) -> &ApiKeys {
        &self.0.config.keys
    }

    pub(crate) fn gate(&self) -> Option<&Arc<dyn Gate>> {
        self.0.config.gate.as_ref()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    pub(crate) fn stats(&self) -> &Arc<SignalStats> {
        &self.0.stats
    }

    /// WHIP and WHEP resources.
    pub(crate) fn one_shots(&self) -> &whip::Registry {
        &self.0.one_shots
    }

    /// Whether the node takes new participants (`limit.*` of the node).
    pub(crate) fn check_admission(&self) -> Result<(), HttpError> {
        match self.0.config.admission.ask() {
            None => Ok(()),
            Some(limit) => Err(HttpError {
                status: StatusCode::SERVICE_UNAVAILABLE,
                text: format!("node has exceeded `{limit}`"),
            }),
        }
    }

    pub(crate) fn max_message_size(&self) -> usize {
        self.0.config.max_message_size
    }

    pub(crate) fn max_agent_message_size(&self) -> usize {
        self.0.config.max_agent_message_size
    }

    pub(crate) fn agents(&self) -> Option<&Agents> {
        self.0.config.agents.as_ref()
    }
}

impl<H> Clone for Shared<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Wall-clock time since 1970, for tokens and pongs.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Load balancers and clients that came back online ask here.
async fn health<H>(State(shared): State<Shared<H>>) -> Response {
    match shared.0.config.health.ask() {
        None => "OK".into_response(),
        Some(reason) => {
            (StatusCode::NOT_ACCEPTABLE, format!("Not Ready\n{reason}")).into_response()
        }
    }
}

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([
            Method::OPTIONS,
            Method::HEAD,
            Method::GET,
            Method::POST,
            Method::PATCH,
            Method::DELETE,
        ])
        .expose_headers(whip::EXPOSED_HEADERS)
        // `*` would not cover Authorization.
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(CORS_MAX_AGE)
}

/// Clients that join a base URL with a trailing slash and a path ask for `//rtc`.
fn strip_double_slash<B>(mut request: Request<B>) -> Request<B> {
    let stripped = request.uri().path_and_query().and_then(|path| {
        let path = path.as_str().strip_prefix("//")?;
        format!("/{path}").parse::<Uri>().ok()
    });
    if let Some(uri) = stripped {
        *request.uri_mut() = uri;
    }
    request
}
