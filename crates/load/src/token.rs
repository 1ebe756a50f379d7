//! Access tokens of the participants.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

/// How long a token is valid; a run must not outlive it by reconnecting.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// Tolerance for a server whose clock is behind.
const SLACK: Duration = Duration::from_secs(30);

/// A token with which `identity` may join `room`, publish and subscribe.
///
/// # Errors
/// The token cannot be signed.
pub(crate) fn mint(key: &str, secret: &str, room: &str, identity: &str) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let claims = json!({
        "iss": key,
        "sub": identity,
        "nbf": now.saturating_sub(SLACK).as_secs(),
        "exp": (now + TTL).as_secs(),
        "name": identity,
        "video": {
            "room": room,
            "roomJoin": true,
            "canPublish": true,
            "canSubscribe": true,
            "canPublishData": true,
        },
    });
    let key = EncodingKey::from_secret(secret.as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}
