//! From a request to a WebSocket (RFC 6455 §4.2), for signalling and for the workers of agents.
//!
//! The library writes a message from where it lies, which most receivers of it share. One that copies
//! keeps a buffer of the largest message per socket for good, and that is most of what an idle
//! participant would take.

use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio_websockets::{Limits, Message, ServerBuilder, WebSocketStream};

/// RFC 6455 §1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(crate) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Pings that a client may send within [`PING_WINDOW`]; one in ten seconds keeps a connection alive.
const MAX_PINGS: u32 = 16;
const PING_WINDOW: Duration = Duration::from_secs(1);

/// Pings of one client. The library keeps an answer to each, however slowly the client reads.
#[derive(Debug, Default)]
pub(crate) struct PingLimit {
    since: Option<Instant>,
    pings: u32,
}

impl PingLimit {
    /// Counts a frame. False if it is a ping too many.
    pub(crate) fn admits(&mut self, now: Instant, frame: &Message) -> bool {
        if !frame.is_ping() {
            return true;
        }
        if self.since.is_none_or(|since| now >= since + PING_WINDOW) {
            *self = Self { since: Some(now), pings: 0 };
        }
        self.pings += 1;
        self.pings <= MAX_PINGS
    }
}

/// A request for a WebSocket. Anything else is not found.
pub(crate) struct Upgrade {
    accept: HeaderValue,
    upgraded: OnUpgrade,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, StatusCode> {
        Self::read(parts).ok_or(StatusCode::NOT_FOUND)
    }
}

impl Upgrade {
    fn read(parts: &mut Parts) -> Option<Self> {
        let headers = &parts.headers;
        let is_upgrade = parts.method == Method::GET
            && names(headers, &CONNECTION, "upgrade")
            && names(headers, &UPGRADE, "websocket")
            && names(headers, &SEC_WEBSOCKET_VERSION, "13");
        let accept = accept(headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_upgrade)?)?;
        Some(Self { accept, upgraded: parts.extensions.remove::<OnUpgrade>()? })
    }

    /// Answers the request, then runs the socket. Frames and messages longer than `max_size` bytes
    /// are errors.
    pub(crate) fn open<Run: Future<Output = ()> + Send>(
        self,
        max_size: usize,
        failed: impl FnOnce(hyper::Error) + Send + 'static,
        run: impl FnOnce(WebSocket) -> Run + Send + 'static,
    ) -> Response {
        let Self { accept, upgraded } = self;
        tokio::spawn(async move {
            let stream = match upgraded.await {
                Ok(upgraded) => TokioIo::new(upgraded),
                Err(error) => return failed(error),
            };
            let limits = Limits::default().max_payload_len(Some(max_size));
            run(ServerBuilder::new().limits(limits).serve(stream)).await;
        });
        let headers = [
            (CONNECTION, HeaderValue::from_static("upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_ACCEPT, accept),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
}

/// Whether a header is a list in which `token` stands.
fn names(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// RFC 6455 §4.2.2.
fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(ACCEPT_GUID).finalize();
    HeaderValue::try_from(BASE64_STANDARD.encode(digest)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_the_rfc_does() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key).expect("ASCII"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_flood_of_pings_is_no_keepalive() {
        let (mut limit, t0) = (PingLimit::default(), Instant::now());
        let ping = Message::ping("");
        assert!((0..MAX_PINGS).all(|_| limit.admits(t0, &ping)));
        assert!(!limit.admits(t0, &ping));
        assert!(limit.admits(t0, &Message::text("x")));
        assert!(limit.admits(t0 + PING_WINDOW, &ping));
    }

    #[test]
    fn an_upgrade_may_stand_among_other_options() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(names(&headers, &CONNECTION, "upgrade"));
        assert!(!names(&headers, &CONNECTION, "keep"));
        assert!(!names(&headers, &UPGRADE, "websocket"));
    }
}
