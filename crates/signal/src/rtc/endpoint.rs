//! `/rtc`, `/rtc/v1` and their `/validate`: everything up to the WebSocket upgrade.
//!
//! The session is started first and its first message awaited; only then does the socket open. So
//! clients see most failures as an HTTP status with a text, which they act on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};

use super::params::{JoinAttempt, JoinTicket};
use super::query::Query;
use super::socket::{self, Opening};
use crate::auth::Caller;
use crate::error::HttpError;
use crate::host::{HostedSession, SessionHost, SessionSource};
use crate::server::Shared;
use crate::websocket::Upgrade;
use sluice_control::{SessionOutput, SharedResponse};

/// How long a session may take to produce its first message (LiveKit tries 3 s, 4 s and 5 s).
const START_TIMEOUT: Duration = Duration::from_secs(12);

/// Frames up to so many times the limit are still read whole, so that the close code reaches the
/// client instead of a connection reset.
const READ_FACTOR: usize = 2;

/// Generation of the signalling protocol, by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// `/rtc`
    V0,
    /// `/rtc/v1`
    V1,
    /// `/whip/v1` and `/whep/v1`: no signal connection at all
    OneShot,
}

/// `GET /rtc/validate`: would a join be refused, and why.
pub(crate) async fn validate<H: SessionHost>(
    State(shared): State<Shared<H>>,
    Extension(version): Extension<Version>,
    Extension(caller): Extension<Caller>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let peer = peer.map(|Extension(ConnectInfo(peer))| peer);
    match check(&shared, version, &caller, &headers, peer, &uri, true) {
        Ok(_) => "success".into_response(),
        Err(error) => error.into_response(),
    }
}

/// `GET /rtc` with an upgrade to WebSocket. Anything else is not found.
pub(crate) async fn connect<H: SessionHost>(
    State(shared): State<Shared<H>>,
    Extension(version): Extension<Version>,
    Extension(caller): Extension<Caller>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Upgrade,
) -> Response {
    let begun = Instant::now();
    let peer = peer.map(|Extension(ConnectInfo(peer))| peer);
    let started = match check(&shared, version, &caller, &headers, peer, &uri, false) {
        Ok(ticket) => start(&shared, ticket).await,
        Err(error) => Err(error),
    };
    let opening = match started {
        Ok(opening) => opening,
        Err(error) => {
            shared.stats().joins_refused.add();
            tracing::debug!(status = error.status.as_u16(), text = error.text, "join refused");
            return error.into_response();
        }
    };
    let stats = shared.stats().clone();
    stats.join_latency.0.observe(begun.elapsed().as_secs_f64() * 1000.0);
    let max_read = shared.max_message_size().saturating_mul(READ_FACTOR);
    let failed = move |error| {
        stats.upgrades_failed.add();
        tracing::debug!(%error, "upgrade failed");
    };
    upgrade.open(max_read, failed, move |socket| socket::run(socket, opening, shared))
}

fn check<H: SessionHost>(
    shared: &Shared<H>,
    version: Version,
    caller: &Caller,
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
    uri: &Uri,
    strict: bool,
) -> Result<JoinTicket, HttpError> {
    let query = Query::parse(uri.query());
    let attempt = JoinAttempt {
        version,
        caller,
        query: &query,
        headers,
        peer,
        limits: shared.limits(),
        strict,
    };
    let ticket = attempt.check()?;
    if !ticket.params.reconnect {
        shared.check_admission()?;
    }
    shared.host().check_join(&ticket.room, &ticket.params.grants)?;
    Ok(ticket)
}

/// Starts the session and waits for its first message.
async fn start<H: SessionHost>(
    shared: &Shared<H>,
    ticket: JoinTicket,
) -> Result<Opening<H>, HttpError> {
    let JoinTicket { room, settings, params, api_key } = ticket;
    let starting = async {
        let mut session = shared.host().join(&room, settings, params).await?;
        let first = first_message(&mut session).await?;
        Ok(Opening { session, first, api_key })
    };
    match tokio::time::timeout(START_TIMEOUT, starting).await {
        Ok(opening) => opening,
        Err(_) => Err(HttpError::internal("timed out waiting for the session to start")),
    }
}

async fn first_message<H: SessionHost>(
    session: &mut HostedSession<H>,
) -> Result<SharedResponse, HttpError> {
    loop {
        match session.responses.next().await {
            Some(SessionOutput::Message(response)) => return Ok(response),
            // Nothing may precede the first message; a token can wait for its next turn.
            Some(SessionOutput::RefreshToken(_) | SessionOutput::RoomMoved(_)) => {}
            Some(SessionOutput::Close(_)) | None => {
                return Err(HttpError::internal("connection closed by media"));
            }
        }
    }
}
