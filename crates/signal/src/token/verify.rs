//! From token text to trusted claims.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::{ApiKeys, Claims, LEEWAY};

/// Why a token was refused. The texts go to clients, which show some of them to users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT, not HS256, or claims of the wrong shape.
    #[error("invalid authorization token")]
    Malformed,
    /// The issuer is not one of our keys.
    #[error("invalid API key")]
    UnknownKey,
    /// The signature is not that of the issuer's secret.
    #[error("invalid authorization token: token signature is invalid: signature is invalid")]
    Signature,
    /// There is no `exp`, and a token must not live forever.
    #[error(
        "invalid authorization token: token has invalid claims: token is missing required claim: exp \
         claim is required"
    )]
    NoExpiry,
    /// `exp` has passed.
    #[error("invalid authorization token: token has invalid claims: token is expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("invalid authorization token: token has invalid claims: token is not valid yet")]
    NotYetValid,
    /// Signing failed: our fault.
    #[error("cannot sign token: {0}")]
    Sign(String),
}

/// A token whose signature and times are good.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedToken {
    /// The key that signed it.
    pub api_key: String,
    /// `nbf` or else `iat`, Unix seconds, 0 if neither: when it was issued.
    pub issued_at: u64,
    /// What it grants.
    pub claims: Claims,
}

/// The claims that decide whether the rest counts. Times may be fractional (RFC 7519 §2).
#[derive(Deserialize)]
struct Registered {
    iss: Option<String>,
    sub: Option<String>,
    jti: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
}

/// Checks signature, algorithm, issuer and times at `now` (Unix time).
///
/// # Errors
/// See [`TokenError`]; nothing of an unverified token is in it.
pub fn verify(token: &str, keys: &ApiKeys, now: Duration) -> Result<VerifiedToken, TokenError> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    if header.alg != Algorithm::HS256 {
        return Err(TokenError::Malformed);
    }
    let unverified: Registered = jsonwebtoken::dangerous::insecure_decode_claims(token)
        .map_err(|_| TokenError::Malformed)?;
    let api_key = unverified.iss.unwrap_or_default();
    let secret = keys.secret(&api_key).ok_or(TokenError::UnknownKey)?;
    let key = DecodingKey::from_secret(secret.as_bytes());

    let registered: Registered = checked(token, &key)?;
    check_times(&registered, now)?;
    let mut claims: Claims = checked(token, &key)?;
    claims.identity = match registered.sub {
        Some(subject) if !subject.is_empty() => subject,
        _ => registered.jti.unwrap_or_default(),
    };
    let issued_at = registered.nbf.or(registered.iat).unwrap_or(0.0).max(0.0) as u64;
    Ok(VerifiedToken { api_key, issued_at, claims })
}

/// The claims, after the signature was found good.
fn checked<T: serde::de::DeserializeOwned>(
    token: &str,
    key: &DecodingKey,
) -> Result<T, TokenError> {
    use jsonwebtoken::errors::ErrorKind;
    let mut validation = Validation::new(Algorithm::HS256);
    // Times are checked against the caller's clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    match jsonwebtoken::decode(token, key, &validation) {
        Ok(data) => Ok(data.claims),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
            Err(TokenError::Signature)
        }
        Err(_) => Err(TokenError::Malformed),
    }
}

fn check_times(registered: &Registered, now: Duration) -> Result<(), TokenError> {
    let (now, leeway) = (now.as_secs_f64(), LEEWAY.as_secs_f64());
    let expiry = registered.exp.ok_or(TokenError::NoExpiry)?;
    if now >= expiry + leeway {
        return Err(TokenError::Expired);
    }
    if registered.nbf.is_some_and(|begin| now + leeway < begin) {
        return Err(TokenError::NotYetValid);
    }
    Ok(())
}
