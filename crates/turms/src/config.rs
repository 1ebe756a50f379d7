//! What the operator chooses. Everything has a default but the key material and the admin API's
//! login.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::ids::IdentityMode;
use crate::jwt::{Expectations, VerifyingKey};
use crate::policy::PolicyConfig;

/// A password or key; printing it shows nothing.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, for passwords in HTTP headers.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The section `turms` of the configuration.
#[derive(Debug, Clone)]
pub struct TurmsConfig {
    /// `wss://` URL that clients are given; derived from the request when empty.
    pub server_url: Option<String>,
    /// How identities are made from users.
    pub identity_mode: IdentityMode,
    /// Where removals, cancelled meetings and meetings are kept over a restart; `None` = nowhere.
    pub state_file: Option<PathBuf>,
    /// Life of the tokens that are handed out, at most.
    pub token_ttl: Duration,
    /// Web origins that may call; empty = any (every call carries its own proof of identity).
    pub allowed_origins: Vec<String>,
    /// Requests per user, and per address, and minute.
    pub requests_per_min: u32,
    /// Users sign in with Turms' JWTs.
    pub jwt: Option<JwtConfig>,
    /// Users sign in with their password, which the operator's identity endpoint checks.
    pub http_identity: Option<HttpIdentityConfig>,
    /// Users sign in with their password, which Turms' gateway checks.
    pub gateway_probe: Option<GatewayProbeConfig>,
    /// Turms' admin API.
    pub admin: AdminConfig,
    /// How long facts count at token time.
    pub cache: CacheConfig,
    /// How rooms follow groups.
    pub sync: SyncConfig,
    /// Signed requests of our plugin inside Turms; `None` = not accepted.
    pub events: Option<EventsConfig>,
    /// System messages to groups.
    pub messages: MessagesConfig,
    /// The policy table.
    pub policy: PolicyConfig,
    /// Turms' stock LiveKit plugin.
    pub compat: CompatConfig,
}

/// See [`TurmsConfig::jwt`].
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// Public keys, or shared HMAC keys.
    pub keys: Vec<VerifyingKey>,
    /// What a token must say.
    pub expect: Expectations,
}

/// See [`TurmsConfig::http_identity`]: the contract of Turms' gateway login type `http`.
#[derive(Debug, Clone)]
pub struct HttpIdentityConfig {
    /// The operator's endpoint.
    pub url: String,
    /// Turms' default is GET, with a body.
    pub method: String,
    /// Headers to send.
    pub headers: BTreeMap<String, Secret>,
    /// For the whole exchange.
    pub timeout: Duration,
    /// Patterns of good statuses; `?` stands for any digit.
    pub status_codes: Vec<String>,
    /// Fields of the answer, compared by text as Turms does.
    pub body_fields: serde_json::Map<String, serde_json::Value>,
    /// Logins per user and minute: a probe must not become an oracle for guessing passwords.
    pub per_user_per_min: u32,
}

/// See [`TurmsConfig::gateway_probe`].
#[derive(Debug, Clone)]
pub struct GatewayProbeConfig {
    /// `ws://`, `wss://` or `tcp://`.
    pub url: String,
    /// For the whole login.
    pub timeout: Duration,
    /// Logins per user and minute.
    pub per_user_per_min: u32,
}

/// See [`TurmsConfig::admin`].
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// `http://host:8510`.
    pub url: String,
    /// Login name of the service account.
    pub login: String,
    /// Its password.
    pub password: Secret,
    /// Per request.
    pub timeout: Duration,
    /// Requests per second; Turms allows 50 per address.
    pub max_rps: u32,
    /// Requests at the same time.
    pub max_in_flight: u32,
    /// Requests that wait for their turn; more are refused.
    pub max_waiting: u32,
    /// Records per answer; Turms allows 1000, unless its `max-available-records-per-request` says
    /// less.
    pub page_size: u32,
    /// Certificates (PEM) to trust for `https`, besides the public ones.
    pub ca_pem: Option<Vec<u8>>,
    /// Ask whether accounts are active. Needs `USER_QUERY`, which shows password hashes, and says
    /// something only where Turms stores users (login type `password`).
    pub check_users: bool,
    /// Ask who of two users has blocked the other one. Needs `USER_RELATIONSHIP_QUERY`.
    pub check_relationships: bool,
}

/// See [`TurmsConfig::cache`].
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// A membership.
    pub membership_ttl: Duration,
    /// A group's state.
    pub group_ttl: Duration,
    /// That there is no such group or membership.
    pub negative_ttl: Duration,
    /// Block lists and accounts.
    pub block_ttl: Duration,
    /// Entries per cache, and of every other table that callers can fill.
    pub max_entries: usize,
}

/// What happens to a room whose facts are too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStale {
    /// Nothing: the call goes on.
    Keep,
    /// Nobody may publish until Turms answers.
    Mute,
    /// The room is closed.
    Close,
}

/// See [`TurmsConfig::sync`].
#[derive(Debug, Clone)]
pub struct SyncConfig {
    /// Between two looks at a group with an open room.
    pub poll_interval: Duration,
    /// How far the interval varies, percent of it, so that looks spread out.
    pub jitter_percent: u32,
    /// Facts of this age are stale.
    pub stale_after: Duration,
    /// What then happens.
    pub on_stale: OnStale,
    /// Removals of this share of a room at once, percent, are checked again before anyone is
    /// removed.
    pub mass_removal_guard_percent: u32,
}

/// See [`TurmsConfig::events`].
#[derive(Debug, Clone)]
pub struct EventsConfig {
    /// Shared with the plugin.
    pub secret: Secret,
    /// How old a request may be, and how far clocks may differ.
    pub max_skew: Duration,
}

/// See [`TurmsConfig::messages`].
#[derive(Debug, Clone)]
pub struct MessagesConfig {
    /// Say that a call has begun.
    pub room_started: bool,
    /// Say that it is over, how long it took and how many were there.
    pub room_finished: bool,
    /// Say who is there, at most this often; zero = never.
    pub roster_digest: Duration,
    /// First record of the message; Turms' own types are 0 to 2.
    pub type_byte: u8,
    /// Messages that wait for Turms; the oldest is dropped when there are more.
    pub queue_size: usize,
}

/// What becomes of a token without identity, as the stock plugin makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingIdentity {
    /// The participant gets a random one.
    Generate,
    /// The join is refused, as LiveKit does.
    Reject,
}

/// See [`TurmsConfig::compat`].
#[derive(Debug, Clone)]
pub struct CompatConfig {
    /// Understand length-delimited server API calls.
    pub delimited_twirp: bool,
    /// See [`MissingIdentity`]; for meeting rooms only.
    pub missing_identity: MissingIdentity,
    /// How long a deleted meeting room stays closed; zero = not at all.
    pub deleted_room_tombstone: Duration,
    /// Meeting rooms belong to [`Self::api_key`].
    pub digit_rooms_reserved: bool,
    /// The API key that Turms' plugin signs with; our tokens for meetings are signed with it too.
    pub api_key: String,
}

impl TurmsConfig {
    /// Defaults around an admin API.
    pub fn new(admin: AdminConfig) -> Self {
        Self {
            server_url: None,
            identity_mode: IdentityMode::User,
            state_file: None,
            token_ttl: Duration::from_secs(600),
            allowed_origins: Vec::new(),
            requests_per_min: 60,
            jwt: None,
            http_identity: None,
            gateway_probe: None,
            admin,
            cache: CacheConfig::default(),
            sync: SyncConfig::default(),
            events: None,
            messages: MessagesConfig::default(),
            policy: PolicyConfig::default(),
            compat: CompatConfig::default(),
        }
    }
}

impl AdminConfig {
    /// Defaults around a login.
    pub fn new(url: impl Into<String>, login: impl Into<String>, password: Secret) -> Self {
        Self {
            url: url.into(),
            login: login.into(),
            password,
            timeout: Duration::from_secs(2),
            max_rps: 20,
            max_in_flight: 8,
            max_waiting: 500,
            page_size: 1000,
            ca_pem: None,
            check_users: false,
            check_relationships: false,
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            membership_ttl: Duration::from_secs(5),
            group_ttl: Duration::from_secs(10),
            negative_ttl: Duration::from_secs(1),
            block_ttl: Duration::from_secs(10),
            max_entries: 100_000,
        }
    }
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(10),
            jitter_percent: 20,
            stale_after: Duration::from_secs(60),
            on_stale: OnStale::Keep,
            mass_removal_guard_percent: 50,
        }
    }
}

impl Default for MessagesConfig {
    fn default() -> Self {
        Self {
            room_started: true,
            room_finished: true,
            roster_digest: Duration::ZERO,
            type_byte: 100,
            queue_size: 1000,
        }
    }
}

impl Default for CompatConfig {
    fn default() -> Self {
        Self {
            delimited_twirp: true,
            missing_identity: MissingIdentity::Generate,
            deleted_room_tombstone: Duration::from_secs(24 * 3600),
            digit_rooms_reserved: true,
            api_key: String::new(),
        }
    }
}
