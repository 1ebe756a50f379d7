//! Requests of our plugin inside Turms: signed in the body, because its HTTP client sends no
//! headers. The payload is text inside the body, so that both sides sign the same bytes.
//!
//! Body: `{"payload":"{\"op\":…,\"ts\":…,\"nonce\":…,…}","mac":"<hex of HMAC-SHA-256>"}`.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

use crate::clock::Clock;
use crate::config::EventsConfig;
use crate::policy::UnixMillis;
use crate::stats::TurmsStats;
use crate::sync_util::lock;

/// Longest body looked at, bytes.
pub(crate) const MAX_BODY: usize = 64 << 10;

/// Longest nonce, characters.
const MAX_NONCE: usize = 64;

/// Nonces remembered. More requests than this within the accepted age are refused.
const MAX_NONCES: usize = 100_000;

/// Why a signed request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// Not the shape above.
    #[error("the request is malformed")]
    Malformed,
    /// The signature is not that of the configured secret.
    #[error("the signature is wrong")]
    Signature,
    /// `op` is that of another endpoint.
    #[error("the request was signed for another purpose")]
    Purpose,
    /// Too old, from before the start, or from the future.
    #[error("the request is too old, or clocks differ")]
    Age,
    /// Seen before.
    #[error("the request was seen before")]
    Replay,
    /// Too many requests to remember.
    #[error("too many requests")]
    Busy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    payload: String,
    mac: String,
}

#[derive(Deserialize)]
struct Stamp {
    op: String,
    ts: UnixMillis,
    nonce: String,
}

/// Checks signed requests and remembers them for as long as they could be repeated.
#[derive(Debug)]
pub struct SignedRequests {
    config: EventsConfig,
    clock: Clock,
    /// Requests from before are refused: what was seen then is not known any more.
    since: UnixMillis,
    seen: Mutex<Seen>,
    stats: Arc<TurmsStats>,
}

#[derive(Debug, Default)]
struct Seen {
    nonces: HashSet<String>,
    by_age: VecDeque<(UnixMillis, String)>,
}

impl SignedRequests {
    /// A checker for one secret.
    pub fn new(config: EventsConfig, clock: Clock, stats: Arc<TurmsStats>) -> Self {
        Self { since: clock.now_ms(), config, clock, seen: Mutex::default(), stats }
    }

    /// The payload of a good request for the purpose `op`.
    ///
    /// # Errors
    /// See [`SignedError`].
    pub fn open(&self, body: &[u8], op: &str) -> Result<Value, SignedError> {
        let result = self.check(body, op);
        match result {
            Ok(_) => self.stats.events_accepted.add(),
            Err(_) => self.stats.events_refused.add(),
        }
        result
    }

    fn check(&self, body: &[u8], op: &str) -> Result<Value, SignedError> {
        let signed: Signed = serde_json::from_slice(body).map_err(|_| SignedError::Malformed)?;
        let mac = hex(&signed.mac).ok_or(SignedError::Malformed)?;
        let mut hmac = Hmac::<Sha256>::new_from_slice(self.config.secret.bytes())
            .map_err(|_| SignedError::Signature)?;
        hmac.update(signed.payload.as_bytes());
        hmac.verify_slice(&mac).map_err(|_| SignedError::Signature)?;
        // Only what is signed is looked into.
        let payload: Value =
            serde_json::from_str(&signed.payload).map_err(|_| SignedError::Malformed)?;
        let stamp = Stamp::deserialize(&payload).map_err(|_| SignedError::Malformed)?;
        if stamp.op != op {
            return Err(SignedError::Purpose);
        }
        if stamp.nonce.is_empty() || stamp.nonce.len() > MAX_NONCE {
            return Err(SignedError::Malformed);
        }
        self.remember(stamp)?;
        Ok(payload)
    }

    fn remember(&self, stamp: Stamp) -> Result<(), SignedError> {
        let now = self.clock.now_ms();
        let skew = i64::try_from(self.config.max_skew.as_millis()).unwrap_or(i64::MAX);
        if stamp.ts < self.since || now.saturating_sub(stamp.ts).saturating_abs() > skew {
            return Err(SignedError::Age);
        }
        let mut seen = lock(&self.seen);
        // One from the future stays acceptable for longer.
        let forget_before = now.saturating_sub(skew.saturating_mul(2));
        while seen.by_age.front().is_some_and(|(at, _)| *at < forget_before) {
            if let Some((_, nonce)) = seen.by_age.pop_front() {
                seen.nonces.remove(&nonce);
            }
        }
        if seen.nonces.contains(&stamp.nonce) {
            return Err(SignedError::Replay);
        }
        if seen.nonces.len() >= MAX_NONCES {
            return Err(SignedError::Busy);
        }
        seen.nonces.insert(stamp.nonce.clone());
        seen.by_age.push_back((now, stamp.nonce));
        Ok(())
    }
}

/// Signs a payload as the plugin does, for tests and tools.
pub fn sign(secret: &[u8], payload: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret).map(|mut hmac| {
        hmac.update(payload.as_bytes());
        hmac.finalize().into_bytes()
    });
    // HMAC takes keys of any length.
    let mac: String =
        mac.map(|mac| mac.iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default();
    serde_json::json!({ "payload": payload, "mac": mac }).to_string()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Secret;

    const NOW: UnixMillis = 1_700_000_000_000;
    const SECRET: &[u8] = b"a secret between the plugin and us";

    fn requests() -> SignedRequests {
        let config =
            EventsConfig { secret: Secret::new(SECRET), max_skew: Duration::from_secs(30) };
        SignedRequests::new(config, Clock::from(NOW), Arc::default())
    }

    fn payload(op: &str, ts: UnixMillis, nonce: &str) -> String {
        serde_json::json!({ "v": 1, "op": op, "ts": ts, "nonce": nonce }).to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_request_counts_once() {
        let requests = requests();
        let body = sign(SECRET, &payload("events", NOW, "n1"));
        assert_eq!(requests.open(body.as_bytes(), "events").unwrap()["nonce"], "n1");
        assert_eq!(requests.open(body.as_bytes(), "events"), Err(SignedError::Replay));
        // By the time a nonce is forgotten, the request is too old.
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(requests.open(body.as_bytes(), "events"), Err(SignedError::Age));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(requests.open(body.as_bytes(), "events"), Err(SignedError::Age));
    }

    #[tokio::test(start_paused = true)]
    async fn forgeries_are_refused() {
        let requests = requests();
        let good = sign(SECRET, &payload("events", NOW, "n"));
        let cases = [
            (sign(b"another", &payload("events", NOW, "n")), SignedError::Signature),
            (good.replace("events", "create"), SignedError::Signature),
            (good.replace("\"mac\":\"", "\"mac\":\"zz"), SignedError::Malformed),
            (sign(SECRET, &payload("conference/create", NOW, "n")), SignedError::Purpose),
            (sign(SECRET, &payload("events", NOW - 1, "n")), SignedError::Age),
            (sign(SECRET, &payload("events", NOW + 31_000, "n")), SignedError::Age),
            (sign(SECRET, &payload("events", NOW, "")), SignedError::Malformed),
            (sign(SECRET, "[]"), SignedError::Malformed),
            ("{}".into(), SignedError::Malformed),
        ];
        for (body, error) in cases {
            assert_eq!(requests.open(body.as_bytes(), "events"), Err(error), "{body}");
        }
        assert!(requests.open(good.as_bytes(), "events").is_ok());
        assert_eq!(requests.stats.events_refused.get(), 9);
    }
}
