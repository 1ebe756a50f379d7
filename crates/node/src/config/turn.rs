//! `rtc.turn_servers`: TURN servers that clients are told, and how they log in there.

use std::time::Duration;

use serde_json::Value;

use super::error::{invalid, unknown};
use super::{ConfigError, Document, Secret, read_secret};

/// How long a login of a TURN server is valid, by default and at most (LiveKit's).
const DEFAULT_TURN_TTL: Duration = Duration::from_secs(14_400);
const MAX_TURN_TTL: Duration = Duration::from_secs(86_400);
/// What a negative `ttl` means (LiveKit's).
const SHORT_TURN_TTL: Duration = Duration::from_secs(300);
/// What can be said of a TURN server.
const TURN_SERVER_KEYS: [&str; 8] =
    ["host", "port", "protocol", "username", "credential", "secret", "secret_file", "ttl"];

/// One external TURN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TurnServer {
    /// `turn:` or `turns:` URL.
    pub(crate) url: String,
    /// How clients log in.
    pub(crate) login: TurnLogin,
}

/// How clients log in to a TURN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TurnLogin {
    /// Everybody with the same name and password.
    Fixed {
        /// Login name.
        username: String,
        /// Password.
        credential: Secret,
    },
    /// Each with a login of its own, made with a secret that the TURN server knows.
    Shared {
        /// The secret.
        secret: Secret,
        /// How long a login is valid.
        ttl: Duration,
    },
}

/// The list; empty when there is none.
pub(super) fn turn_servers(doc: &Document) -> Result<Vec<TurnServer>, ConfigError> {
    match doc.block("rtc.turn_servers") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(turn_server).collect(),
        Some(_) => Err(no_turn_server()),
    }
}

fn no_turn_server() -> ConfigError {
    invalid(
        "rtc.turn_servers",
        "a list of servers with `host`, `port`, `protocol` (udp, tcp or tls), and either `username` \
         and `credential`, or `secret` (or `secret_file`)",
    )
}

fn turn_server(item: &Value) -> Result<TurnServer, ConfigError> {
    let item = item.as_object().ok_or_else(no_turn_server)?;
    if let Some(key) = item.keys().find(|key| !TURN_SERVER_KEYS.contains(&key.as_str())) {
        return Err(unknown(format!("rtc.turn_servers.{key}")));
    }
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    let host = text("host");
    let port = item.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let port = port.filter(|port| *port != 0).ok_or_else(no_turn_server)?;
    let (scheme, transport) = match text("protocol") {
        "" | "udp" => ("turn", "udp"),
        "tcp" => ("turn", "tcp"),
        "tls" => ("turns", "tcp"),
        _ => return Err(no_turn_server()),
    };
    if host.is_empty() {
        return Err(no_turn_server());
    }
    let secret = match (text("secret"), text("secret_file")) {
        ("", "") => None,
        ("", path) => Some(read_secret(path)?),
        (secret, _) => Some(Secret::new(secret.to_owned())),
    };
    let login = match secret {
        Some(secret) => TurnLogin::Shared { secret, ttl: turn_ttl(item.get("ttl"))? },
        None => TurnLogin::Fixed {
            username: text("username").to_owned(),
            credential: Secret::new(text("credential").to_owned()),
        },
    };
    Ok(TurnServer { url: format!("{scheme}:{host}:{port}?transport={transport}"), login })
}

fn turn_ttl(value: Option<&Value>) -> Result<Duration, ConfigError> {
    let seconds = match value {
        None | Some(Value::Null) => 0,
        Some(value) => value
            .as_i64()
            .ok_or_else(|| invalid("rtc.turn_servers.ttl", "a whole number of seconds"))?,
    };
    Ok(match u64::try_from(seconds) {
        Ok(0) => DEFAULT_TURN_TTL,
        Ok(seconds) => Duration::from_secs(seconds).min(MAX_TURN_TTL),
        Err(_) => SHORT_TURN_TTL,
    })
}
