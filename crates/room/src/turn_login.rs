//! ICE servers as one participant is told them: those of the configuration, and TURN servers with a
//! login of its own that expires (draft-uberti-behave-turn-rest, which coturn calls
//! `static-auth-secret`).

use std::fmt;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluice_proto as proto;

use crate::ids::ParticipantSid;
use crate::room::Room;

/// A TURN server that shares a secret with this one.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnSecret {
    /// `turn:` or `turns:` URL.
    pub url: String,
    /// The shared secret.
    pub secret: String,
    /// How long a login is valid.
    pub ttl: Duration,
}

impl fmt::Debug for TurnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnSecret").field("url", &self.url).finish_non_exhaustive()
    }
}

impl TurnSecret {
    /// The server with a login for `user` that is made at a Unix time.
    fn login(&self, user: &str, unix_time: Duration) -> proto::IceServer {
        let username = format!("{}:{user}", (unix_time + self.ttl).as_secs());
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.secret.as_bytes());
        let credential = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
        proto::IceServer { urls: vec![self.url.clone()], username, credential }
    }
}

impl Room {
    /// Everything that a participant may use to find or relay addresses.
    pub(crate) fn ice_servers_of(
        &self,
        now: Instant,
        participant: &ParticipantSid,
    ) -> Vec<proto::IceServer> {
        let unix_time = self.unix_time(now);
        let logins = self.config.turn_secrets.iter();
        let logins = logins.map(|server| server.login(participant.as_str(), unix_time));
        self.config.ice_servers.iter().cloned().chain(logins).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_is_what_coturn_computes() {
        let server = TurnSecret {
            url: "turns:turn.example.org:443?transport=tcp".into(),
            secret: "north".into(),
            ttl: Duration::from_secs(600),
        };
        let login = server.login("PA_x", Duration::from_secs(1_700_000_000));
        assert_eq!(login.username, "1700000600:PA_x");
        // echo -n 1700000600:PA_x | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(login.credential, "BF6ArjEo9xYd5dBvHZRs6enW3Sc=");
        assert!(!format!("{server:?}").contains("north"));
    }
}
