//! Configuration: where it comes from (flags over environment over file), and the typed form that
//! the rest of the binary reads. Nothing is read from the operating system here but the files that
//! the operator names; the environment comes in as a value.

mod cidr;
mod document;
mod error;
mod http;
mod keys;
mod limits;
mod logging;
mod media;
mod prometheus;
mod room;
mod rtc;
mod schema;
mod services;
mod turms;
mod turn;
mod typed;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

pub(crate) use document::{Document, parse_duration};
pub(crate) use error::ConfigError;
pub(crate) use keys::{ApiKeys, Secret};
pub(crate) use logging::LoggingConfig;
pub(crate) use room::Quality;
pub(crate) use rtc::{AddressFilter, RtcConfig, UdpPorts};
pub(crate) use schema::KEYS;
pub(crate) use services::RoomPresets;
pub(crate) use turn::TurnLogin;
pub(crate) use typed::Config;

/// Environment variables of the process.
pub(crate) type Environment = BTreeMap<String, String>;

/// What the command line says about configuration; each field is `None` or empty when not said.
#[derive(Debug, Default, Clone)]
pub(crate) struct Flags {
    /// `--config`
    pub(crate) config: Option<PathBuf>,
    /// `--config-body`
    pub(crate) config_body: Option<String>,
    /// `--dev`
    pub(crate) dev: bool,
    /// `--bind`, in order
    pub(crate) bind: Vec<String>,
    /// `--keys`
    pub(crate) keys: Option<String>,
    /// `--key-file`
    pub(crate) key_file: Option<PathBuf>,
    /// `--node-ip`
    pub(crate) node_ip: Option<String>,
    /// `--udp-port`
    pub(crate) udp_port: Option<String>,
    /// `--region`
    pub(crate) region: Option<String>,
    /// `--workers`
    pub(crate) workers: Option<u64>,
    /// `--disable-strict-config`
    pub(crate) lenient: bool,
    /// `--cpuprofile` or `--memprofile`
    pub(crate) profile: bool,
    /// Flags that are other names of keys (`--redis-host`), by key path.
    pub(crate) aliases: Vec<(&'static str, String)>,
    /// Generated flags, by key path (`--rtc.tcp_port`).
    pub(crate) keys_by_path: Vec<(&'static str, String)>,
}

impl Flags {
    /// Whether the command line says where API keys come from.
    pub(crate) fn says_keys(&self) -> bool {
        self.keys.is_some()
            || self.key_file.is_some()
            || self.config.is_some()
            || self.config_body.is_some()
    }
}

/// Largest configuration that is read, bytes. Real ones have a few KiB.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

const PROFILE_ADVICE: &str = "--cpuprofile and --memprofile write profiles of Go programs: leave \
    them out, and use `perf record -g -p PID` or `heaptrack -p PID` on the running server";

/// Variables that are other names of keys, as LiveKit has them.
const ENVIRONMENT_ALIASES: &[(&str, &str)] = &[
    ("NODE_IP", "rtc.node_ip"),
    ("UDP_PORT", "rtc.udp_port"),
    ("REDIS_HOST", "redis.address"),
    ("REDIS_PASSWORD", "redis.password"),
    ("LIVEKIT_TURN_CERT", "turn.cert_file"),
    ("LIVEKIT_TURN_KEY", "turn.key_file"),
];

/// Reads, merges and checks everything.
pub(crate) fn load(flags: &Flags, environment: &Environment) -> Result<Config, ConfigError> {
    if flags.profile {
        return Err(ConfigError::Conflict(PROFILE_ADVICE.into()));
    }
    let mut document = merged_document(flags, environment)?;
    place_state(&mut document, environment)?;
    let unsupported = document.unsupported();
    if !unsupported.is_empty() {
        return Err(ConfigError::Problems(unsupported));
    }
    let keys = keys::gather(&document, flags, environment)?;
    typed::build(&document, keys, flags.dev)
}

/// The operator's document with the overrides of the environment, then of the flags, on top.
fn merged_document(flags: &Flags, environment: &Environment) -> Result<Document, ConfigError> {
    let text = document_text(flags, environment)?;
    let parsed =
        if flags.lenient { Document::parse_lenient(&text) } else { Document::parse(&text) };
    let mut document = parsed.map_err(ConfigError::Problems)?;
    let mut problems = Vec::new();
    let mut set = |path: &str, text: &str| {
        if let Some(key) = schema::find(path)
            && let Err(problem) = document.set_text(key, text)
        {
            problems.push(problem);
        }
    };
    for key in KEYS.iter().filter(|key| key.is_scalar()) {
        if let Some(text) = environment.get(&key.environment_name()) {
            set(key.path, text);
        }
    }
    for (name, path) in ENVIRONMENT_ALIASES {
        if let Some(text) = environment.get(*name) {
            set(path, text);
        }
    }
    for (path, text) in flags.keys_by_path.iter().chain(&flags.aliases) {
        set(path, text);
    }
    for (path, text) in [
        ("rtc.node_ip", &flags.node_ip),
        ("rtc.udp_port", &flags.udp_port),
        ("region", &flags.region),
    ] {
        if let Some(text) = text {
            set(path, text);
        }
    }
    if let Some(workers) = flags.workers {
        set("workers", &workers.to_string());
    }
    if !flags.bind.is_empty()
        && let Some(key) = schema::find("bind_addresses")
    {
        problems.extend(document.insert(key, Value::from(flags.bind.clone())).err());
    }
    if problems.is_empty() { Ok(document) } else { Err(ConfigError::Problems(problems)) }
}

/// State goes where the service manager says, unless the operator names another place.
fn place_state(document: &mut Document, environment: &Environment) -> Result<(), ConfigError> {
    // systemd.exec(5): several directories stand with colons between them.
    let directories = environment.get("STATE_DIRECTORY").map(String::as_str).unwrap_or_default();
    let directory = directories.split(':').next().unwrap_or_default();
    set_if_unset(document, "state_dir", directory)?;
    match document.text("state_dir").as_str() {
        "" => Ok(()),
        directory => {
            set_if_unset(document, "turms.state_file", &format!("{directory}/turms.state"))
        }
    }
}

fn set_if_unset(document: &mut Document, path: &str, text: &str) -> Result<(), ConfigError> {
    match schema::find(path) {
        Some(key) if !text.is_empty() && document.text(path).is_empty() => {
            document.set_text(key, text).map_err(|problem| ConfigError::Problems(vec![problem]))
        }
        _ => Ok(()),
    }
}

fn document_text(flags: &Flags, environment: &Environment) -> Result<String, ConfigError> {
    if let Some(body) = &flags.config_body {
        return Ok(body.clone());
    }
    if let Some(path) = &flags.config {
        return read_file(path).map_err(|source| ConfigError::Read {
            what: "the configuration file",
            path: path.display().to_string(),
            source,
        });
    }
    Ok(environment.get("LIVEKIT_CONFIG").cloned().unwrap_or_default())
}

/// Reads text of at most [`MAX_CONFIG_BYTES`], whatever the file claims to be.
fn read_file(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB, which no configuration is"));
    }
    Ok(text)
}

/// The secret that a file holds, without the white space around it.
fn read_secret(path: &str) -> Result<Secret, ConfigError> {
    match read_file(path.as_ref()) {
        Ok(text) => Ok(Secret::new(text.trim().to_owned())),
        Err(source) => Err(ConfigError::Read {
            what: "the secret of a TURN server",
            path: path.into(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::schema::Support;
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn load_yaml(yaml: &str) -> Result<Config, ConfigError> {
        let flags = Flags { config_body: Some(yaml.into()), ..Flags::default() };
        load(&flags, &Environment::new())
    }

    fn error_of(result: Result<Config, ConfigError>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn flags_win_over_environment_which_wins_over_the_file() {
        let yaml = format!("port: 1\nregion: file\nkeys:\n  k: {SECRET}\nrtc:\n  tcp_port: 1\n");
        let environment = environment(&[
            ("LIVEKIT_CONFIG", &yaml),
            ("LIVEKIT_PORT", "2"),
            ("LIVEKIT_RTC_TCP_PORT", "2"),
            ("NODE_IP", "10.0.0.1"),
        ]);
        let flags = Flags { keys_by_path: vec![("port", "3".into())], ..Flags::default() };
        let config = load(&flags, &environment).unwrap();
        assert_eq!(config.http.addresses[0].port(), 3);
        assert_eq!(config.rtc.tcp_port, Some(2));
        assert_eq!(config.region, "file");
        assert_eq!(config.rtc.node_ips, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    }

    #[test]
    fn explicit_configuration_wins_over_the_one_in_the_environment() {
        let environment = environment(&[("LIVEKIT_CONFIG", "port: 1")]);
        let body = format!("port: 2\nkeys:\n  k: {SECRET}\n");
        let flags = Flags { config_body: Some(body), ..Flags::default() };
        assert_eq!(load(&flags, &environment).unwrap().http.addresses[0].port(), 2);
    }

    #[test]
    fn dev_needs_nothing_and_listens_on_loopback_only() {
        let flags = Flags { dev: true, ..Flags::default() };
        let config = load(&flags, &Environment::new()).unwrap();
        assert_eq!(config.http.addresses, ["127.0.0.1:7880".parse().unwrap()]);
        assert_eq!(config.rtc.udp_ports, Some(UdpPorts { first: 7882, last: 7882 }));
        assert_eq!(config.rtc.tcp_port, Some(7881));
        assert_eq!(config.keys.secret_of("devkey").map(Secret::expose), Some("secret"));
        assert!(config.development);
    }

    #[test]
    fn no_keys_is_an_error_that_says_how_to_make_some() {
        let error = error_of(load(&Flags::default(), &Environment::new()));
        assert!(error.contains("generate-keys"), "{error}");
    }

    #[test]
    fn short_secret_is_refused_outside_development_only() {
        let error = error_of(load_yaml("keys:\n  devkey: secret\n"));
        assert!(error.contains("devkey") && error.contains("32"), "{error}");
        assert!(!error.contains("`secret`"), "the secret itself stays out: {error}");
        assert!(load_yaml("development: true\nkeys:\n  devkey: secret\n").is_ok());
    }

    #[test]
    fn keys_flag_replaces_the_keys_of_the_file() {
        let flags = Flags {
            config_body: Some(format!("keys:\n  file: {SECRET}\n")),
            keys: Some(format!("one: {SECRET}\ntwo: {SECRET}")),
            ..Flags::default()
        };
        let config = load(&flags, &Environment::new()).unwrap();
        assert_eq!(config.keys.names().collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn keys_without_a_space_after_the_colon_are_understood() {
        let flags = Flags { keys: Some(format!("one:{SECRET}")), ..Flags::default() };
        assert!(load(&flags, &Environment::new()).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn key_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.yaml");
        std::fs::write(&path, format!("k: {SECRET}\n")).unwrap();
        let flags = Flags { key_file: Some(path.clone()), ..Flags::default() };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = error_of(load(&flags, &Environment::new()));
        assert!(error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = load(&flags, &Environment::new()).unwrap();
        assert_eq!(config.keys.names().collect::<Vec<_>>(), ["k"]);
    }

    #[test]
    fn missing_file_is_named() {
        let flags = Flags { config: Some("/nonexistent/sluice.yaml".into()), ..Flags::default() };
        let error = error_of(load(&flags, &Environment::new()));
        assert!(error.contains("/nonexistent/sluice.yaml"), "{error}");
    }

    #[test]
    fn udp_port_and_range_cannot_both_be_given() {
        let yaml = format!(
            "keys:\n  k: {SECRET}\nrtc:\n  udp_port: 7882\n  port_range_start: 50000\n  port_range_end: 50010\n"
        );
        let error = error_of(load_yaml(&yaml));
        assert!(error.contains("port_range_start"), "{error}");
    }

    #[test]
    fn livekit_names_of_the_environment_are_names_of_keys() {
        let environment = environment(&[("LIVEKIT_CONFIG", "{}"), ("REDIS_HOST", "redis:6379")]);
        let flags = Flags { dev: true, ..Flags::default() };
        let error = error_of(load(&flags, &environment));
        assert!(error.starts_with("`redis.address` cannot be used: "), "{error}");
    }

    #[test]
    fn unknown_keys_pass_when_strictness_is_disabled() {
        let flags = Flags {
            dev: true,
            lenient: true,
            config_body: Some("porf: 1\nrtc:\n  future: {a: 1}\nport: 7000\n".into()),
            ..Flags::default()
        };
        let config = load(&flags, &Environment::new()).unwrap();
        assert_eq!(config.http.addresses[0].port(), 7000);
        assert_eq!(config.unknown.len(), 2);
        assert!(config.unknown[0].contains("did you mean `port`?"), "{:?}", config.unknown);
    }

    #[test]
    fn profiles_are_refused_with_what_to_use() {
        let flags = Flags { dev: true, profile: true, ..Flags::default() };
        assert!(error_of(load(&flags, &Environment::new())).contains("perf record"));
    }

    #[test]
    fn huge_file_is_refused_without_reading_it_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sluice.yaml");
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let flags = Flags { config: Some(path), ..Flags::default() };
        assert!(error_of(load(&flags, &Environment::new())).contains("1 MiB"));
    }

    #[test]
    fn turn_servers_log_in_with_a_password_or_a_shared_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "north\n").unwrap();
        let yaml = format!(
            "keys:\n  k: {SECRET}\nrtc:\n  turn_servers:\n    - {{host: a, port: 3478, username: u, \
             credential: c}}\n    - {{host: b, port: 443, protocol: tls, secret_file: {}, ttl: 600}}\n",
            path.display()
        );
        let servers = load_yaml(&yaml).unwrap().rtc.turn_servers;
        assert_eq!(servers[0].url, "turn:a:3478?transport=udp");
        let login = TurnLogin::Shared {
            secret: Secret::new("north".into()),
            ttl: std::time::Duration::from_secs(600),
        };
        assert_eq!(
            (servers[1].url.as_str(), &servers[1].login),
            ("turns:b:443?transport=tcp", &login)
        );
        for (item, says) in [
            ("{host: a, port: 70000}", "`rtc.turn_servers` must be"),
            ("{host: a, port: 1, protocol: sctp}", "`rtc.turn_servers` must be"),
            ("{host: a, port: 1, secret: s, ttl: long}", "a whole number of seconds"),
            ("{host: a, port: 1, secret_file: /nonexistent}", "/nonexistent"),
            ("{host: a, port: 1, pasword: s}", "rtc.turn_servers.pasword"),
        ] {
            let yaml = format!("keys:\n  k: {SECRET}\nrtc:\n  turn_servers:\n    - {item}\n");
            let error = error_of(load_yaml(&yaml));
            assert!(error.contains(says), "{item}: {error}");
        }
    }

    #[test]
    fn limit_of_zero_is_no_limit_and_old_names_of_limits_count() {
        let yaml = format!(
            "keys:\n  k: {SECRET}\nlimit:\n  max_metadata_size: 0\n  max_room_name_length: 9\nroom:\n  \
             max_room_name_length: 5\n  max_participant_identity_length: 7\n"
        );
        let limit = load_yaml(&yaml).unwrap().limit;
        assert_eq!(
            (limit.max_metadata, limit.max_room_name, limit.max_identity),
            (usize::MAX, 9, 7)
        );
    }

    #[test]
    fn keys_of_a_feature_that_is_off_are_harmless() {
        let yaml = format!(
            "keys:\n  k: {SECRET}\nturn:\n  enabled: false\n  udp_port: 3478\n  tls_port: 5349\n  \
             domain: turn.example.org\nredis:\n  db: 1\n  dial_timeout: 500\nroom:\n  \
             playout_delay: {{enabled: false, min: 100, max: 2000}}\n"
        );
        assert!(load_yaml(&yaml).is_ok(), "{}", error_of(load_yaml(&yaml)));
    }

    #[test]
    fn every_key_of_livekit_is_accepted_but_what_would_be_dangerous_to_ignore() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/configs/livekit-every-key.yaml");
        let flags = Flags { config: Some(file.into()), ..Flags::default() };
        let document = merged_document(&flags, &Environment::new()).unwrap();
        const OWN: [&str; 9] = [
            "http.",
            "pages.",
            "pin_workers",
            "room.audio.",
            "room.low_power.",
            "room_affinity",
            "state_dir",
            "turms.",
            "workers",
        ];
        for key in schema::KEYS {
            let own = OWN.iter().any(|own| key.path.starts_with(own));
            assert!(own || document.is_set(key.path), "`{}` is not in the file", key.path);
        }
        let config = load(&flags, &Environment::new()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.limit.subscriptions_video, 0);
        assert_eq!(config.limit.bytes_per_sec, 1_000_000_000);
        let refused = schema::KEYS.iter().filter(|key| matches!(key.support, Support::NotYet(_)));
        let refused: Vec<&str> = refused.map(|key| key.path).collect();
        let dangerous = [
            "redis.address",
            "redis.sentinel_addresses",
            "redis.cluster_addresses",
            "turn.enabled",
        ];
        assert_eq!(refused, dangerous);
    }

    #[test]
    fn sample_of_the_wild_starts() {
        let yaml = format!(
            "port: 7880\nbind_addresses:\n  - \"127.0.0.1\"\nrtc:\n  tcp_port: 7881\n  \
             udp_port: 7882-7892\n  use_external_ip: false\n  packet_buffer_size: 500\nredis: {{}}\n\
             turn:\n  enabled: false\nlogging:\n  json: false\n  level: info\n  pion_level: warn\n\
             room:\n  auto_create: true\n  empty_timeout: 300\nkeys:\n  k: {SECRET}\n"
        );
        let config = load_yaml(&yaml).unwrap();
        assert_eq!(config.rtc.udp_ports, Some(UdpPorts { first: 7882, last: 7892 }));
        assert_eq!(config.without_effect.len(), 1);
    }
}
