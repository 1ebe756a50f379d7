//! `/meet`: a page for calls in a browser, without anything to install. Tokens for it are made only
//! with the development key, whose secret everybody knows; otherwise the visitor brings one.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use sluice_signal::token::{ApiKeys, Claims, VideoGrant, mint};

/// Path of the page.
pub(crate) const MEET_PATH: &str = "/meet";

/// How long a token of the page is valid; the server refreshes it in the call.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// Longest identity, name or room that a token is made for, bytes.
const MAX_NAME: usize = 256;

/// The page loads nothing from elsewhere, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
    connect-src 'self' ws: wss:; media-src blob: mediastream:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// Files of the page: path, type, content.
const FILES: [(&str, &str, &str); 4] = [
    (MEET_PATH, "text/html; charset=utf-8", include_str!("../pages/meet.html")),
    ("/meet/meet.css", "text/css; charset=utf-8", include_str!("../pages/meet.css")),
    ("/meet/meet.js", "text/javascript; charset=utf-8", include_str!("../pages/meet.js")),
    ("/meet/signal.js", "text/javascript; charset=utf-8", include_str!("../pages/signal.js")),
];

/// Key and secret that tokens are made with; `None` makes none.
type Minting = Option<Arc<(String, String)>>;

/// What a token is asked for.
#[derive(Debug, Deserialize)]
struct Wish {
    room: String,
    identity: String,
    #[serde(default)]
    name: String,
}

/// The page and its files. `minting` is the development key, where it is configured.
pub(crate) fn router(minting: Option<(String, String)>) -> Router {
    let files = FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(move || async move { file(kind, content) }))
    });
    let minting: Minting = minting.map(Arc::new);
    files.route("/meet/token", get(can_mint).post(token)).with_state(minting)
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, content).into_response()
}

/// Whether this server makes tokens: 204, else 404.
async fn can_mint(State(minting): State<Minting>) -> StatusCode {
    if minting.is_some() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn token(State(minting): State<Minting>, Query(wish): Query<Wish>) -> Response {
    let Some(minting) = minting else { return StatusCode::NOT_FOUND.into_response() };
    let names = [&wish.room, &wish.identity, &wish.name];
    if wish.room.is_empty()
        || wish.identity.is_empty()
        || names.iter().any(|name| name.len() > MAX_NAME)
    {
        return (StatusCode::BAD_REQUEST, "room and identity are needed").into_response();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (key, secret) = minting.as_ref();
    let keys = ApiKeys::new([(key.as_str(), secret.as_str())]);
    match mint(&keys, key, &claims(wish), TOKEN_TTL, now) {
        Ok(token) => ([(header::CACHE_CONTROL, "no-store")], token).into_response(),
        Err(error) => {
            tracing::error!(%error, "a token could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The right to join one room, and nothing else.
fn claims(wish: Wish) -> Claims {
    Claims {
        identity: wish.identity,
        name: wish.name,
        video: Some(VideoGrant { room_join: true, room: wish.room, ..VideoGrant::default() }),
        ..Claims::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_holds_no_inline_script_and_no_foreign_address() {
        for (path, _, content) in FILES {
            assert!(!content.contains("http://") && !content.contains("https://"), "{path}");
            assert!(!content.contains("innerHTML"), "{path}");
        }
        assert!(!FILES[0].2.contains(" on"), "inline handlers are forbidden by the policy");
    }

    #[test]
    fn token_of_the_page_joins_one_room_only() {
        let wish = Wish { room: "r".into(), identity: "i".into(), name: String::new() };
        let video = claims(wish).video.unwrap();
        assert!(video.room_join && !video.room_admin && !video.room_create && !video.room_list);
        assert_eq!(video.room, "r");
    }
}
