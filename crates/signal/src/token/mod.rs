//! Access tokens: JWTs (RFC 7519) with LiveKit's claims, signed with HS256 and nothing else.
//!
//! A token text and the configured [`ApiKeys`] go in, a [`VerifiedToken`] or a [`TokenError`] comes
//! out; [`mint`] goes the other way. Time is an argument. No text of a token reaches a log or an
//! error message.

mod claims;
mod keys;
mod verify;

pub use claims::{
    AgentGrant, Claims, InferenceGrant, ObservabilityGrant, SipGrant, VideoGrant, kind_from_name,
    kind_name,
};
pub use keys::ApiKeys;
pub use verify::{TokenError, VerifiedToken, verify};

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// How far clocks may differ (LiveKit: one minute).
pub const LEEWAY: Duration = Duration::from_secs(60);

/// Lifetime of tokens that the server mints for reconnects (LiveKit's default).
pub const REFRESH_TOKEN_TTL: Duration = Duration::from_secs(10 * 60);

/// Signs a token for `identity` with one of our keys, valid for `ttl` from `now` (Unix time).
///
/// # Errors
/// [`TokenError::UnknownKey`] when `api_key` is not configured, [`TokenError::Sign`] when the claims
/// cannot be written.
pub fn mint(
    keys: &ApiKeys,
    api_key: &str,
    claims: &Claims,
    ttl: Duration,
    now: Duration,
) -> Result<String, TokenError> {
    #[derive(Serialize)]
    struct Signed<'a> {
        iss: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        sub: &'a str,
        nbf: u64,
        exp: u64,
        #[serde(flatten)]
        claims: &'a Claims,
    }
    let secret = keys.secret(api_key).ok_or(TokenError::UnknownKey)?;
    let signed = Signed {
        iss: api_key,
        sub: &claims.identity,
        nbf: now.as_secs(),
        exp: (now + ttl).as_secs(),
        claims,
    };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &signed, &key)
        .map_err(|error| TokenError::Sign(error.to_string()))
}
