//! The section `turms`: from checked words to the adapter's configuration. Key files are read here,
//! so that `sluice config check` finds what is wrong with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use sluice_turms::config::{
    AdminConfig, CacheConfig, CompatConfig, EventsConfig, GatewayProbeConfig, HttpIdentityConfig,
    JwtConfig, MessagesConfig, MissingIdentity, OnStale, Secret, SyncConfig, TurmsConfig,
};
use sluice_turms::ids::IdentityMode;
use sluice_turms::jwt::{Algorithm, Expectations, VerifyingKey};
use sluice_turms::policy::PolicyConfig;

use super::document::parse_duration;
use super::error::{invalid, unknown};
use super::{ApiKeys, ConfigError, Document};

/// Fewest bytes of the secret shared with the plugin: the output size of HMAC-SHA-256.
const MIN_EVENT_SECRET: usize = 32;

/// The adapter's configuration; `None` when it is off.
pub(super) fn build(doc: &Document, keys: &ApiKeys) -> Result<Option<TurmsConfig>, ConfigError> {
    if !doc.bool("turms.enabled") {
        return Ok(None);
    }
    let config = TurmsConfig {
        server_url: server_url(doc)?,
        identity_mode: identity_mode(doc)?,
        state_file: some_text(doc, "turms.state_file").map(PathBuf::from),
        token_ttl: positive(doc, "turms.token_ttl")?,
        allowed_origins: doc.list("turms.allowed_origins"),
        requests_per_min: count(doc, "turms.requests_per_min")?,
        jwt: jwt(doc)?,
        http_identity: http_identity(doc)?,
        gateway_probe: gateway_probe(doc)?,
        admin: admin(doc)?,
        cache: CacheConfig {
            membership_ttl: duration(doc, "turms.cache.membership_ttl"),
            group_ttl: duration(doc, "turms.cache.group_ttl"),
            negative_ttl: duration(doc, "turms.cache.negative_ttl"),
            block_ttl: duration(doc, "turms.cache.block_ttl"),
            max_entries: count(doc, "turms.cache.max_entries")? as usize,
        },
        sync: sync(doc)?,
        events: events(doc)?,
        messages: messages(doc)?,
        policy: PolicyConfig {
            guests_may_publish: doc.bool("turms.policy.guests_may_publish"),
            admins_exempt_from_group_mute: doc.bool("turms.policy.admins_exempt_from_group_mute"),
        },
        compat: compat(doc, keys)?,
    };
    if config.jwt.is_none() && config.http_identity.is_none() && config.gateway_probe.is_none() {
        return Err(ConfigError::Conflict(
            "`turms` is enabled and says no way to identify users: set `turms.jwt.keys`, \
             `turms.http_identity.url` or `turms.gateway_probe.url`"
                .into(),
        ));
    }
    Ok(Some(config))
}

fn duration(doc: &Document, path: &str) -> Duration {
    parse_duration(&doc.text(path)).unwrap_or_default()
}

fn positive(doc: &Document, path: &str) -> Result<Duration, ConfigError> {
    let value = duration(doc, path);
    if value.is_zero() { Err(invalid(path, "a duration above zero")) } else { Ok(value) }
}

fn count(doc: &Document, path: &str) -> Result<u32, ConfigError> {
    u32::try_from(doc.uint(path))
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| invalid(path, "a whole number above zero"))
}

fn some_text(doc: &Document, path: &str) -> Option<String> {
    Some(doc.text(path)).filter(|text| !text.is_empty())
}

fn one_of<T: Copy>(doc: &Document, path: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
    let word = doc.text(path);
    words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(known, _)| *known).collect();
        invalid(path, &format!("one of {}", known.join(", ")))
    })
}

fn read(path: &str, file: &str) -> Result<Vec<u8>, ConfigError> {
    fs::read(file).map_err(|source| ConfigError::Read {
        what: "the file of",
        path: format!("`{path}`, {file}"),
        source,
    })
}

/// A password from a file loses its last line break; keys are taken byte for byte.
fn read_password(path: &str, file: &str) -> Result<Secret, ConfigError> {
    let mut bytes = read(path, file)?;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(Secret::new(bytes))
}

fn server_url(doc: &Document) -> Result<Option<String>, ConfigError> {
    let path = "turms.server_url";
    match some_text(doc, path) {
        Some(url) if !url.starts_with("ws://") && !url.starts_with("wss://") => {
            Err(invalid(path, "a URL that begins with `wss://` or `ws://`"))
        }
        url => Ok(url),
    }
}

fn identity_mode(doc: &Document) -> Result<IdentityMode, ConfigError> {
    let words = [("user", IdentityMode::User), ("user_device", IdentityMode::UserDevice)];
    one_of(doc, "turms.identity_mode", &words)
}

fn jwt(doc: &Document) -> Result<Option<JwtConfig>, ConfigError> {
    let path = "turms.jwt.keys";
    let shape = "a list of keys: `algorithm` and one of `pem_file`, `hmac_file`, `p12_file`";
    let items = match doc.block(path) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(invalid(path, shape)),
    };
    if items.is_empty() {
        return Ok(None);
    }
    let keys = items
        .iter()
        .map(|item| jwt_key(item.as_object().ok_or_else(|| invalid(path, shape))?, shape));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let max_lifetime = duration(doc, "turms.jwt.max_lifetime");
    let expect = Expectations {
        issuer: some_text(doc, "turms.jwt.issuer"),
        audience: some_text(doc, "turms.jwt.audience"),
        claims: match doc.block("turms.jwt.expect") {
            None => Expectations::default().claims,
            Some(Value::Object(claims)) => claims.clone(),
            Some(_) => return Err(invalid("turms.jwt.expect", "lines of `claim: value`")),
        },
        require_exp: doc.bool("turms.jwt.require_exp"),
        require_policy: doc.bool("turms.jwt.require_policy"),
        leeway_s: u32::try_from(duration(doc, "turms.jwt.leeway").as_secs()).unwrap_or(u32::MAX),
        max_lifetime_s: (!max_lifetime.is_zero()).then_some(max_lifetime.as_secs()),
    };
    Ok(Some(JwtConfig { keys, expect }))
}

fn jwt_key(item: &Map<String, Value>, shape: &str) -> Result<VerifyingKey, ConfigError> {
    let path = "turms.jwt.keys";
    known_keys(
        item,
        path,
        &["algorithm", "pem_file", "hmac_file", "p12_file", "p12_password_file", "p12_alias"],
    )?;
    let text = |name: &str| item.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let algorithm = text("algorithm").and_then(Algorithm::from_name).ok_or_else(|| {
        let known: Vec<_> = Algorithm::ALL.iter().map(|(_, name)| *name).collect();
        invalid(&format!("{path}.algorithm"), &format!("one of {}", known.join(", ")))
    })?;
    let key = match (text("pem_file"), text("hmac_file"), text("p12_file")) {
        (Some(file), None, None) => VerifyingKey::from_pem(algorithm, &read(path, file)?),
        (None, Some(file), None) => VerifyingKey::from_hmac_bytes(algorithm, &read(path, file)?),
        (None, None, Some(file)) => {
            let password = match text("p12_password_file") {
                Some(file) => read_password(path, file)?.text(),
                None => String::new(),
            };
            let alias = text("p12_alias").ok_or_else(|| invalid(path, "one with `p12_alias`"))?;
            VerifyingKey::from_pkcs12(algorithm, &read(path, file)?, &password, alias)
        }
        _ => return Err(invalid(path, shape)),
    };
    key.map_err(|error| ConfigError::Conflict(format!("`{path}`, {}: {error}", algorithm.name())))
}

fn known_keys(item: &Map<String, Value>, path: &str, known: &[&str]) -> Result<(), ConfigError> {
    match item.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(unknown(format!("{path}.{key}"))),
        None => Ok(()),
    }
}

fn http_identity(doc: &Document) -> Result<Option<HttpIdentityConfig>, ConfigError> {
    let Some(url) = some_text(doc, "turms.http_identity.url") else { return Ok(None) };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(invalid("turms.http_identity.url", "a URL of http or https"));
    }
    let listed = doc.list("turms.http_identity.status_codes");
    let body_fields = match doc.block("turms.http_identity.body_fields") {
        None => Expectations::default().claims,
        Some(Value::Object(fields)) => fields.clone(),
        Some(_) => {
            return Err(invalid("turms.http_identity.body_fields", "lines of `field: value`"));
        }
    };
    Ok(Some(HttpIdentityConfig {
        url,
        method: doc.text("turms.http_identity.method"),
        headers: doc
            .map("turms.http_identity.headers")
            .into_iter()
            .map(|(name, value)| (name, Secret::new(value)))
            .collect(),
        timeout: positive(doc, "turms.http_identity.timeout")?,
        status_codes: if listed.is_empty() { vec!["2??".into()] } else { listed },
        body_fields,
        per_user_per_min: count(doc, "turms.http_identity.per_user_per_min")?,
    }))
}

fn gateway_probe(doc: &Document) -> Result<Option<GatewayProbeConfig>, ConfigError> {
    let path = "turms.gateway_probe.url";
    let Some(url) = some_text(doc, path) else { return Ok(None) };
    if !["ws://", "wss://", "tcp://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(invalid(path, "a URL of ws, wss or tcp"));
    }
    Ok(Some(GatewayProbeConfig {
        url,
        timeout: positive(doc, "turms.gateway_probe.timeout")?,
        per_user_per_min: count(doc, "turms.gateway_probe.per_user_per_min")?,
    }))
}

fn admin(doc: &Document) -> Result<AdminConfig, ConfigError> {
    let needed = |path: &str| {
        some_text(doc, path).ok_or_else(|| invalid(path, "set when `turms` is enabled"))
    };
    let password = match some_text(doc, "turms.admin.password_file") {
        Some(file) => read_password("turms.admin.password_file", &file)?,
        None => Secret::new(needed("turms.admin.password")?),
    };
    let url = needed("turms.admin.url")?;
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(invalid("turms.admin.url", "a URL of http or https"));
    }
    let ca_file = some_text(doc, "turms.admin.ca_file");
    let page_size = count(doc, "turms.admin.page_size")?;
    if page_size > 1000 {
        return Err(invalid("turms.admin.page_size", "at most 1000, Turms' own limit"));
    }
    Ok(AdminConfig {
        timeout: positive(doc, "turms.admin.timeout")?,
        max_rps: count(doc, "turms.admin.max_rps")?,
        max_in_flight: count(doc, "turms.admin.max_in_flight")?,
        max_waiting: count(doc, "turms.admin.max_waiting")?,
        page_size,
        ca_pem: ca_file.map(|file| read("turms.admin.ca_file", &file)).transpose()?,
        check_users: doc.bool("turms.admin.check_users"),
        check_relationships: doc.bool("turms.admin.check_relationships"),
        ..AdminConfig::new(url, needed("turms.admin.login")?, password)
    })
}

fn sync(doc: &Document) -> Result<SyncConfig, ConfigError> {
    let percent = |path: &str| {
        u32::try_from(doc.uint(path))
            .ok()
            .filter(|percent| *percent <= 100)
            .ok_or_else(|| invalid(path, "a percentage, 0 to 100"))
    };
    let words = [("keep", OnStale::Keep), ("mute", OnStale::Mute), ("close", OnStale::Close)];
    let sync = SyncConfig {
        poll_interval: positive(doc, "turms.sync.poll_interval")?,
        jitter_percent: percent("turms.sync.jitter_percent")?,
        stale_after: positive(doc, "turms.sync.stale_after")?,
        on_stale: one_of(doc, "turms.sync.on_stale", &words)?,
        mass_removal_guard_percent: percent("turms.sync.mass_removal_guard_percent")?,
    };
    if sync.stale_after <= sync.poll_interval * 2 {
        return Err(ConfigError::Conflict(
            "`turms.sync.stale_after` must be more than twice `turms.sync.poll_interval`".into(),
        ));
    }
    Ok(sync)
}

fn events(doc: &Document) -> Result<Option<EventsConfig>, ConfigError> {
    let path = "turms.events.secret_file";
    let Some(file) = some_text(doc, path) else { return Ok(None) };
    let secret = read_password(path, &file)?;
    if secret.bytes().len() < MIN_EVENT_SECRET {
        return Err(invalid(path, &format!("a file with at least {MIN_EVENT_SECRET} bytes")));
    }
    Ok(Some(EventsConfig { secret, max_skew: positive(doc, "turms.events.max_skew")? }))
}

fn messages(doc: &Document) -> Result<MessagesConfig, ConfigError> {
    let path = "turms.messages.type_byte";
    let type_byte = u8::try_from(doc.uint(path)).ok().filter(|byte| *byte > 2);
    Ok(MessagesConfig {
        room_started: doc.bool("turms.messages.room_started"),
        room_finished: doc.bool("turms.messages.room_finished"),
        roster_digest: duration(doc, "turms.messages.roster_digest"),
        type_byte: type_byte
            .ok_or_else(|| invalid(path, "3 to 255: 0 to 2 are message types of Turms"))?,
        queue_size: count(doc, "turms.messages.queue_size")? as usize,
    })
}

fn compat(doc: &Document, keys: &ApiKeys) -> Result<CompatConfig, ConfigError> {
    let names: BTreeMap<&str, ()> = keys.iter().map(|(name, _)| (name, ())).collect();
    let path = "turms.compat.api_key";
    let reserved = doc.bool("turms.compat.digit_rooms_reserved");
    let api_key = match some_text(doc, path) {
        Some(name) if !names.contains_key(name.as_str()) => {
            return Err(invalid(path, "the name of one of `keys`"));
        }
        Some(name) => name,
        None if names.len() == 1 || !reserved => {
            names.keys().next().map(|name| (*name).to_owned()).unwrap_or_default()
        }
        None => {
            return Err(ConfigError::Conflict(
                "there are several API keys: say in `turms.compat.api_key` which one Turms' plugin \
                 has, or set `turms.compat.digit_rooms_reserved: false`"
                    .into(),
            ));
        }
    };
    let words = [("generate", MissingIdentity::Generate), ("reject", MissingIdentity::Reject)];
    Ok(CompatConfig {
        delimited_twirp: doc.bool("turms.compat.delimited_twirp"),
        missing_identity: one_of(doc, "turms.compat.missing_identity", &words)?,
        deleted_room_tombstone: duration(doc, "turms.compat.deleted_room_tombstone"),
        digit_rooms_reserved: reserved,
        api_key,
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment, Flags, load};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9
q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==
-----END PUBLIC KEY-----
";

    fn load_turms(more: &str) -> Result<Config, String> {
        load_turms_in(more, &Environment::new())
    }

    fn load_turms_in(more: &str, environment: &Environment) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("turms.pem");
        std::fs::write(&key, PEM).unwrap();
        let yaml = format!(
            "keys:\n  k: {SECRET}\nturms:\n  enabled: true\n  jwt:\n    keys:\n      - algorithm: \
             ES256\n        pem_file: {}\n  admin:\n    url: http://127.0.0.1:8510\n    login: \
             sfu\n    password: word\n{more}",
            key.display()
        );
        let flags = Flags { config_body: Some(yaml), ..Flags::default() };
        load(&flags, environment).map_err(|error| error.to_string())
    }

    #[test]
    fn off_unless_enabled() {
        let flags = Flags { dev: true, ..Flags::default() };
        assert!(load(&flags, &Environment::new()).unwrap().turms.is_none());
    }

    #[test]
    fn a_key_and_a_login_are_enough() {
        let turms = load_turms("").unwrap().turms.expect("enabled");
        assert_eq!(turms.admin.url, "http://127.0.0.1:8510");
        assert_eq!(turms.compat.api_key, "k");
        assert_eq!(turms.sync.poll_interval.as_secs(), 10);
        assert_eq!(turms.token_ttl.as_secs(), 600);
        assert!(turms.events.is_none());
    }

    #[test]
    fn state_is_kept_where_the_service_manager_says_unless_a_file_is_named() {
        let state_file = |more: &str, environment: &Environment| {
            let turms = load_turms_in(more, environment).unwrap().turms.expect("enabled");
            turms.state_file.map(|path| path.display().to_string())
        };
        let systemd = Environment::from([("STATE_DIRECTORY".into(), "/var/lib/sluice".into())]);
        let named = "  state_file: /srv/state\n";
        assert_eq!(state_file("", &Environment::new()), None);
        assert_eq!(state_file("", &systemd).as_deref(), Some("/var/lib/sluice/turms.state"));
        assert_eq!(state_file(named, &systemd).as_deref(), Some("/srv/state"));
        let named = Environment::from([("LIVEKIT_STATE_DIR".into(), "/srv".into())]);
        assert_eq!(state_file("", &named).as_deref(), Some("/srv/turms.state"));
    }

    #[test]
    fn mistakes_are_named() {
        for (more, expected) in [
            ("  sync:\n    pol_interval: 1s\n", "did you mean `turms.sync.poll_interval`"),
            ("  sync:\n    on_stale: panic\n", "keep, mute, close"),
            ("  sync:\n    stale_after: 15s\n", "twice"),
            ("  sync:\n    jitter_percent: 120\n", "0 to 100"),
            ("  messages:\n    type_byte: 2\n", "3 to 255"),
            ("  identity_mode: device\n", "user, user_device"),
            ("  compat:\n    api_key: nobody\n", "one of `keys`"),
            ("  events:\n    secret_file: /nonexistent/secret\n", "/nonexistent/secret"),
            ("  server_url: https://sfu.example.org\n", "wss://"),
        ] {
            let error = load_turms(more).err().unwrap_or_default();
            assert!(error.contains(expected), "{more}: {error}");
        }
    }

    #[test]
    fn somebody_must_be_able_to_identify_themselves() {
        let yaml = format!(
            "keys:\n  k: {SECRET}\nturms:\n  enabled: true\n  admin:\n    url: http://a\n    \
             login: a\n    password: b\n"
        );
        let flags = Flags { config_body: Some(yaml), ..Flags::default() };
        let error = load(&flags, &Environment::new()).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("turms.jwt.keys")));
    }
}
