//! `POST /turms/v1/token`: a Turms user gets a LiveKit token for a room, bound to the user id.
//!
//! Two request forms: ours, with a `target`, and the one of LiveKit's `TokenSource.endpoint`, with a
//! `room_name` and wishes that are not granted (identity, metadata, attributes).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Extension, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::Refusal;
use super::{address, bearer, identify};
use crate::adapter::{Adapter, TokenWish};
use crate::config::Secret;
use crate::identity::Proof;
use crate::ids::Target;
use crate::policy::UnixMillis;

/// Longest display name, characters; Turms has 20 by default.
const MAX_NAME: usize = 128;

/// Body of the request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRequest {
    /// What the room is about.
    pub target: Option<TargetRequest>,
    /// LiveKit's form: the name of the room.
    pub room_name: Option<String>,
    /// Instead of a JWT.
    pub user_id: Option<String>,
    /// Instead of a JWT.
    pub password: Option<Secret>,
    /// Device type of Turms, for `identity_mode: user_device`.
    pub device_type: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// LiveKit's form: display name.
    pub participant_name: Option<String>,
    /// Shorter life than the server's.
    pub ttl_seconds: Option<u64>,
    /// LiveKit's form; not granted: the identity is the Turms user.
    pub participant_identity: Option<String>,
    /// LiveKit's form; not granted.
    pub participant_metadata: Option<String>,
    /// LiveKit's form; not granted.
    pub participant_attributes: Option<BTreeMap<String, String>>,
    /// LiveKit's form; not granted.
    pub room_config: Option<Value>,
    /// LiveKit's form; not granted.
    pub agent_name: Option<String>,
    /// LiveKit's form; not granted.
    pub agent_metadata: Option<String>,
}

/// `target` of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// `group`, `user` or `meeting`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the group, of the other user, or of the meeting.
    pub id: String,
    /// For meetings: the token from accepting the invitation in Turms.
    #[serde(default)]
    pub plugin_token: Option<Secret>,
}

/// Answer.
#[derive(Debug, Serialize)]
pub struct TokenAnswer {
    /// Where to connect.
    pub server_url: String,
    /// With what.
    pub participant_token: String,
    /// The room.
    pub room_name: String,
    /// The caller's identity there.
    pub identity: String,
    /// When the token expires, Unix seconds.
    pub expires_at: i64,
    /// What it allows.
    pub permissions: Permissions,
}

/// See [`TokenAnswer::permissions`].
#[derive(Debug, Serialize)]
pub struct Permissions {
    /// Administrates the room through LiveKit's server API.
    pub room_admin: bool,
    /// May publish tracks and data.
    pub can_publish: bool,
    /// When a mute ends, Unix milliseconds.
    pub muted_until: Option<UnixMillis>,
}

pub(super) async fn issue(
    State(adapter): State<Arc<Adapter>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<TokenAnswer>, Refusal> {
    let request: TokenRequest = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request(format!("the body is not a request: {error}")))?;
    let proof = match (bearer(&headers), &request.user_id, &request.password) {
        (Some(token), _, _) => Proof::Jwt(token),
        (None, Some(user), Some(password)) => Proof::Password { user, password: password.clone() },
        _ => {
            adapter.stats().tokens_unauthorized.add();
            return Err(Refusal::unauthorized(
                "an Authorization header with a Turms JWT is needed",
            ));
        }
    };
    let peer = address(peer.as_ref().map(|Extension(peer)| peer), &headers);
    let principal = identify(&adapter, peer, proof).await?;
    let target = target(&request, principal.user)?;
    let wish = TokenWish {
        target,
        plugin_token: request
            .target
            .as_ref()
            .and_then(|target| target.plugin_token.as_ref().map(Secret::text)),
        device_type: request.device_type,
        name: display_name(request.name.or(request.participant_name))?,
        ttl: ttl(request.ttl_seconds)?,
    };
    let issued = adapter.issue(&principal, wish).await?;
    Ok(Json(TokenAnswer {
        server_url: server_url(&adapter, &headers)?,
        participant_token: issued.token,
        room_name: issued.room,
        identity: issued.identity,
        expires_at: issued.expires_at,
        permissions: Permissions {
            room_admin: issued.rights.room_admin,
            can_publish: issued.rights.can_publish,
            muted_until: issued.rights.muted_until,
        },
    }))
}

fn ttl(seconds: Option<u64>) -> Result<Option<Duration>, Refusal> {
    match seconds {
        Some(0) => Err(Refusal::bad_request("`ttl_seconds` must be above zero")),
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

fn target(request: &TokenRequest, user: crate::ids::UserId) -> Result<Target, Refusal> {
    match (&request.target, &request.room_name) {
        (Some(target), None) => parse_target(&target.kind, &target.id, user),
        (None, Some(name)) => Target::from_room_name(name).ok_or_else(|| {
            Refusal::bad_request(
                "`room_name` must be `turms:g:<group>`, `turms:u:<user>:<user>` or a meeting's id",
            )
        }),
        _ => Err(Refusal::bad_request("either `target` or `room_name` is needed")),
    }
}

/// A target by its type and id, as seen by `user`.
pub(super) fn parse_target(
    kind: &str,
    id: &str,
    user: crate::ids::UserId,
) -> Result<Target, Refusal> {
    let bad_id = |error: crate::ids::InvalidId| Refusal::bad_request(format!("`id`: {error}"));
    match kind {
        "group" => Ok(Target::Group(id.parse().map_err(bad_id)?)),
        "user" => {
            let other = id.parse().map_err(bad_id)?;
            Target::private(user, other).map_err(|error| Refusal::bad_request(error.to_string()))
        }
        "meeting" if crate::ids::is_meeting_room(id) => {
            Ok(Target::Meeting(id.parse().map_err(bad_id)?))
        }
        "meeting" => Err(Refusal::bad_request("`id`: meetings have 9 or 10 digits")),
        _ => Err(Refusal::bad_request("`type` must be `group`, `user` or `meeting`")),
    }
}

fn display_name(name: Option<String>) -> Result<String, Refusal> {
    let name = name.unwrap_or_default();
    if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        let text = format!("`name` must have at most {MAX_NAME} printable characters");
        return Err(Refusal::bad_request(text));
    }
    Ok(name)
}

/// The configured URL, or the host that the client found us at.
fn server_url(adapter: &Adapter, headers: &HeaderMap) -> Result<String, Refusal> {
    if let Some(url) = &adapter.config().server_url {
        return Ok(url.clone());
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host").filter(|host| {
        host.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
    });
    let host = host.ok_or_else(|| Refusal::bad_request("a Host header is needed"))?;
    let scheme = if text("x-forwarded-proto") == Some("https") { "wss" } else { "ws" };
    Ok(format!("{scheme}://{host}"))
}
