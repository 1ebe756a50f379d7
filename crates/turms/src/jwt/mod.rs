//! Verification of the JWTs with which Turms' users log in (gateway login type `jwt`).
//!
//! Stricter than Turms where that costs nobody anything: `exp` is required by default, and the
//! algorithm must be one that a key was configured for, of that key's own kind. Errors name the
//! claim at fault and never the token.

mod claims;
mod keys;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) use claims::loosely_equal;
pub use claims::{Action, MeetingPolicy};
pub use keys::{Algorithm, KeyError, VerifyingKey};

use crate::ids::UserId;

/// Longest token looked at, bytes: Turms' own limit for a client request.
pub const MAX_TOKEN: usize = 16 * 1024;

/// What a token must say besides being signed.
#[derive(Debug, Clone)]
pub struct Expectations {
    /// `iss` must equal this.
    pub issuer: Option<String>,
    /// `aud` must contain this.
    pub audience: Option<String>,
    /// Claims that must be there, compared by text.
    pub claims: Map<String, Value>,
    /// Refuse tokens without `exp`.
    pub require_exp: bool,
    /// Refuse tokens without policy statements, as Turms' gateway does.
    pub require_policy: bool,
    /// Tolerated clock difference, seconds. Turms has none.
    pub leeway_s: u32,
    /// Longest accepted life from `iat` (or from now) to `exp`, seconds.
    pub max_lifetime_s: Option<u64>,
}

impl Default for Expectations {
    fn default() -> Self {
        let mut claims = Map::new();
        claims.insert("authenticated".into(), Value::Bool(true));
        Self {
            issuer: None,
            audience: None,
            claims,
            require_exp: true,
            require_policy: true,
            leeway_s: 0,
            max_lifetime_s: None,
        }
    }
}

/// Why a token was refused. All of these are 401 to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is too long")]
    TooLong,
    /// Not three base64url parts with JSON objects of the right shape.
    #[error("the token is malformed")]
    Malformed,
    /// `alg` is `none`, unknown, or one that no key was configured for.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// The signature is not that of the configured key.
    #[error("the token's signature is wrong")]
    Signature,
    /// A required claim is absent.
    #[error("the token lacks the claim `{0}`")]
    Missing(String),
    /// A claim has the wrong value.
    #[error("the token's claim `{0}` is not acceptable")]
    Claim(String),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` lies ahead.
    #[error("the token is not valid yet")]
    NotYet,
}

/// Who a token is for and what it allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// `sub`
    pub user: UserId,
    /// `exp`, Unix seconds; `None` only where `require_exp` is off.
    pub expires_at: Option<i64>,
    /// The `MEETING` part of the statements.
    pub policy: MeetingPolicy,
}

/// Verifies tokens with a fixed set of keys.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<VerifyingKey>,
    expect: Expectations,
}

/// Fields of the JOSE header that Turms knows; any other is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    #[serde(rename = "typ")]
    _typ: Option<String>,
    #[serde(rename = "cty")]
    _cty: Option<String>,
    #[serde(rename = "kid")]
    _kid: Option<String>,
}

impl Verifier {
    /// A verifier that accepts the algorithms of `keys` and no others.
    pub fn new(keys: Vec<VerifyingKey>, expect: Expectations) -> Self {
        Self { keys, expect }
    }

    /// Checks a compact JWS at a time in Unix seconds.
    pub fn verify(&self, token: &str, now_s: i64) -> Result<Verified, JwtError> {
        if token.len() > MAX_TOKEN {
            return Err(JwtError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let header: Header = decode(header)?;
        let algorithm = Algorithm::from_name(&header.alg).ok_or(JwtError::Algorithm)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtError::Malformed)?;
        let mut keys = self.keys.iter().filter(|key| key.algorithm() == algorithm).peekable();
        if keys.peek().is_none() {
            return Err(JwtError::Algorithm);
        }
        if !keys.any(|key| key.verifies(signed.as_bytes(), &signature)) {
            return Err(JwtError::Signature);
        }
        self.check(&decode(payload)?, now_s)
    }

    fn check(&self, payload: &claims::Payload, now_s: i64) -> Result<Verified, JwtError> {
        let expires_at = self.check_times(payload, now_s)?;
        if let Some(issuer) = &self.expect.issuer
            && payload.iss.as_ref() != Some(issuer)
        {
            return Err(JwtError::Claim("iss".into()));
        }
        if let Some(audience) = &self.expect.audience
            && !payload.aud.as_ref().is_some_and(|aud| aud.contains(audience))
        {
            return Err(JwtError::Claim("aud".into()));
        }
        for (name, expected) in &self.expect.claims {
            let actual = payload.other.get(name).ok_or_else(|| JwtError::Missing(name.clone()))?;
            if !claims::loosely_equal(actual, expected) {
                return Err(JwtError::Claim(name.clone()));
            }
        }
        let subject = payload.sub.as_deref().ok_or_else(|| JwtError::Missing("sub".into()))?;
        let user = subject.parse().map_err(|_| JwtError::Claim("sub".into()))?;
        Ok(Verified { user, expires_at, policy: self.policy(payload)? })
    }

    fn check_times(&self, payload: &claims::Payload, now_s: i64) -> Result<Option<i64>, JwtError> {
        let leeway = i64::from(self.expect.leeway_s);
        // Seconds beyond any calendar saturate in these casts, which is what is wanted.
        if payload.nbf.is_some_and(|nbf| nbf as i64 > now_s.saturating_add(leeway)) {
            return Err(JwtError::NotYet);
        }
        let Some(exp) = payload.exp else {
            return if self.expect.require_exp {
                Err(JwtError::Missing("exp".into()))
            } else {
                Ok(None)
            };
        };
        let exp = exp as i64;
        if exp.saturating_add(leeway) <= now_s {
            return Err(JwtError::Expired);
        }
        // A token from the future has its whole life ahead.
        let issued = payload.iat.map_or(now_s, |iat| (iat as i64).min(now_s));
        if self.expect.max_lifetime_s.is_some_and(|max| exp.saturating_sub(issued) > max as i64) {
            return Err(JwtError::Claim("exp".into()));
        }
        Ok(Some(exp))
    }

    fn policy(&self, payload: &claims::Payload) -> Result<MeetingPolicy, JwtError> {
        match &payload.statements {
            Some(statements)
                if statements.is_empty() || statements.len() > claims::MAX_STATEMENTS =>
            {
                Err(JwtError::Claim("statements".into()))
            }
            Some(statements) => Ok(MeetingPolicy::from_statements(statements)),
            None if self.expect.require_policy => Err(JwtError::Missing("statements".into())),
            None => Ok(MeetingPolicy::ALL),
        }
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed)
}

#[cfg(test)]
mod tests;
