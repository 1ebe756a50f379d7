//! Who calls: the user of a Turms JWT, or of a user id and password that the operator's identity
//! endpoint or Turms' gateway confirms. Nobody is believed for a user id alone.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::config::{GatewayProbeConfig, HttpIdentityConfig, Secret, TurmsConfig};
use crate::gateway::{Probe, probe};
use crate::ids::UserId;
use crate::jwt::{JwtError, MeetingPolicy, Verifier};
use crate::throttle::Throttle;

/// Longest password looked at, bytes.
const MAX_PASSWORD: usize = 1024;

/// Largest answer of an identity endpoint, bytes.
const MAX_ANSWER: usize = 64 << 10;

/// An identified caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal {
    /// Who.
    pub user: UserId,
    /// What the proof of identity allows with meetings.
    pub policy: MeetingPolicy,
}

/// How a caller identifies themselves.
#[derive(Clone)]
pub enum Proof<'a> {
    /// A Turms JWT.
    Jwt(&'a str),
    /// A user id and a password.
    Password {
        /// The user.
        user: &'a str,
        /// The password.
        password: Secret,
    },
}

/// Shows nothing of it.
impl fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jwt(_) => "Jwt(…)",
            Self::Password { .. } => "Password { … }",
        })
    }
}

/// Why a caller is not identified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The JWT is not acceptable.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// This deployment does not take this kind of proof.
    #[error("this server does not accept {0}")]
    NotAccepted(&'static str),
    /// The user id is none.
    #[error("`user_id` must be a decimal number without leading zeros")]
    UserId,
    /// The password is wrong, or the account may not log in.
    #[error("the user id or password is wrong")]
    Password,
    /// Too many attempts.
    #[error("too many attempts for this user")]
    Throttled(Duration),
    /// Whoever must confirm the password cannot be asked.
    #[error("logins cannot be checked at the moment")]
    Unavailable,
}

/// See the module.
pub(crate) struct Identity {
    jwt: Option<Verifier>,
    http: Option<(HttpIdentityConfig, reqwest::Client)>,
    gateway: Option<GatewayProbeConfig>,
    attempts: Throttle<UserId>,
    clock: Clock,
}

impl Identity {
    pub(crate) fn new(config: &TurmsConfig, clock: Clock) -> Result<Self, String> {
        let jwt = config.jwt.clone().map(|jwt| Verifier::new(jwt.keys, jwt.expect));
        let http = match config.http_identity.clone() {
            Some(http) => {
                let client = crate::web::client(None, http.timeout)?;
                Some((http, client))
            }
            None => None,
        };
        let gateway = config.gateway_probe.clone();
        let per_minute = match (&http, &gateway) {
            (Some((http, _)), _) => http.per_user_per_min,
            (None, Some(gateway)) => gateway.per_user_per_min,
            (None, None) => 1,
        };
        Ok(Self { jwt, http, gateway, attempts: Throttle::new(per_minute), clock })
    }

    pub(crate) async fn identify(&self, proof: Proof<'_>) -> Result<Principal, IdentityError> {
        match proof {
            Proof::Jwt(token) => self.jwt(token),
            Proof::Password { user, password } => {
                let user = user.parse().map_err(|_| IdentityError::UserId)?;
                self.password(user, &password.text()).await
            }
        }
    }

    fn jwt(&self, token: &str) -> Result<Principal, IdentityError> {
        let verifier = self.jwt.as_ref().ok_or(IdentityError::NotAccepted("JWTs"))?;
        let verified = verifier.verify(token, self.clock.now_s())?;
        Ok(Principal { user: verified.user, policy: verified.policy })
    }

    async fn password(&self, user: UserId, password: &str) -> Result<Principal, IdentityError> {
        if self.http.is_none() && self.gateway.is_none() {
            return Err(IdentityError::NotAccepted("passwords"));
        }
        if password.len() > MAX_PASSWORD {
            return Err(IdentityError::Password);
        }
        self.attempts.check(user).map_err(IdentityError::Throttled)?;
        if let Some((config, client)) = &self.http {
            return ask_endpoint(config, client, user, password).await;
        }
        let Some(gateway) = &self.gateway else {
            return Err(IdentityError::NotAccepted("passwords"));
        };
        match probe(&gateway.url, user, password, gateway.timeout).await {
            Probe::Accepted => Ok(Principal { user, policy: MeetingPolicy::ALL }),
            Probe::Refused => Err(IdentityError::Password),
            Probe::Failed(error) => {
                tracing::warn!(error, "a login could not be checked with the gateway");
                Err(IdentityError::Unavailable)
            }
        }
    }
}

/// The exchange of Turms' gateway login type `http`, with the same meaning.
async fn ask_endpoint(
    config: &HttpIdentityConfig,
    client: &reqwest::Client,
    user: UserId,
    password: &str,
) -> Result<Principal, IdentityError> {
    /// `DeviceType` of a login that stands for no device.
    const DEVICE: &str = "UNKNOWN";
    let method = reqwest::Method::from_bytes(config.method.as_bytes()).unwrap_or_default();
    let body = json!({
        "version": 1,
        "userId": user.get(),
        "password": password,
        "loggingInDeviceType": DEVICE,
    });
    let mut request = client.request(method, &config.url).body(body.to_string());
    for (name, value) in &config.headers {
        request = request.header(name, value.text());
    }
    let unavailable = |error: String| {
        tracing::warn!(error, "a login could not be checked with the identity endpoint");
        IdentityError::Unavailable
    };
    let response = request.send().await.map_err(|e| unavailable(crate::web::describe(&e)))?;
    let status = response.status().as_u16();
    if status >= 500 {
        return Err(unavailable(format!("status {status}")));
    }
    if !config.status_codes.iter().any(|pattern| status_matches(pattern, status)) {
        return Err(IdentityError::Password);
    }
    let answer = crate::web::read_body(response, MAX_ANSWER).await.map_err(unavailable)?;
    let answer: Map<String, Value> =
        serde_json::from_slice(&answer).map_err(|_| IdentityError::Password)?;
    let agrees = config.body_fields.iter().all(|(name, expected)| {
        answer.get(name).is_some_and(|actual| crate::jwt::loosely_equal(actual, expected))
    });
    if !agrees {
        return Err(IdentityError::Password);
    }
    // Turms' gateway demands statements from such an endpoint; without them nothing is allowed.
    let policy = answer
        .get("statements")
        .and_then(|statements| MeetingPolicy::deserialize(statements).ok())
        .unwrap_or_default();
    Ok(Principal { user, policy })
}

/// `2??` matches 200 to 299.
fn status_matches(pattern: &str, status: u16) -> bool {
    let status = status.to_string();
    pattern.len() == status.len()
        && pattern.bytes().zip(status.bytes()).all(|(p, digit)| p == b'?' || p == digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_patterns_are_those_of_turms() {
        assert!(status_matches("2??", 204));
        assert!(status_matches("201", 201));
        assert!(!status_matches("2??", 301));
        assert!(!status_matches("2?", 200));
    }
}
