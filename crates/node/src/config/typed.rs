//! The configuration as the rest of the binary reads it: parsed, defaulted and consistent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use sluice_engine::{AudioLevelConfig, MediaConfig};
use sluice_signal::WebhookConfig;

use super::cidr::Cidr;
use super::document::{parse_duration, parse_port_range};
use super::{ApiKeys, ConfigError, Document, Problem, RoomPresets, Secret, services};
use crate::http::HttpLimits;

/// UDP port of development mode.
const DEV_UDP_PORT: u16 = 7882;
/// Shortest time between reports of audio levels: each costs a message per room.
const MIN_LEVEL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a login of a TURN server is valid, by default and at most (LiveKit's).
const DEFAULT_TURN_TTL: Duration = Duration::from_secs(14_400);
const MAX_TURN_TTL: Duration = Duration::from_secs(86_400);
/// What a negative `ttl` means (LiveKit's).
const SHORT_TURN_TTL: Duration = Duration::from_secs(300);
/// What can be said of a TURN server.
const TURN_SERVER_KEYS: [&str; 8] =
    ["host", "port", "protocol", "username", "credential", "secret", "secret_file", "ttl"];
/// LiveKit's default UDP range, used when neither a port nor a range is given. One port per worker
/// is taken from its start: peers share ports, so that a port per peer is never needed.
const DEFAULT_UDP_RANGE: (u16, u16) = (50_000, 60_000);
/// Longest `rtc.batch_io.max_flush_interval`.
const MAX_EGRESS_HOLD: Duration = Duration::from_millis(20);

/// Everything that `sluice` was told.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Development mode: short secrets are accepted, defaults stay on loopback.
    pub(crate) development: bool,
    /// Name of the region, reported to clients.
    pub(crate) region: String,
    /// Media worker threads; 0 = one per core.
    pub(crate) workers: usize,
    /// Each media worker stays on one core.
    pub(crate) pin_workers: bool,
    /// Peers that a room's own worker may have more than the emptiest.
    pub(crate) room_affinity: usize,
    /// API keys.
    pub(crate) keys: ApiKeys,
    /// The HTTP and WebSocket listener.
    pub(crate) http: HttpConfig,
    /// Media transport.
    pub(crate) rtc: RtcConfig,
    /// What workers do with media.
    pub(crate) media: MediaConfig,
    /// Rooms.
    pub(crate) room: RoomConfig,
    /// Named settings of rooms.
    pub(crate) room_presets: RoomPresets,
    /// Sizes that clients must respect.
    pub(crate) limit: LimitConfig,
    /// Who hears what happens in rooms.
    pub(crate) webhook: WebhookConfig,
    /// Load below which an agent worker is preferred, 0 to 1.
    pub(crate) target_load: f32,
    /// Logs.
    pub(crate) logging: LoggingConfig,
    /// The metrics listener, if any.
    pub(crate) prometheus: Option<PrometheusConfig>,
    /// Where what must outlive the process is kept, if anywhere.
    pub(crate) state_dir: Option<PathBuf>,
    /// Whether `/meet` is served.
    pub(crate) pages: bool,
    /// Port of the listener for `/debug`, if any.
    pub(crate) debug_port: Option<u16>,
    /// The Turms adapter, if it is on.
    pub(crate) turms: Option<sluice_turms::TurmsConfig>,
    /// Changed keys that change nothing, with the reason.
    pub(crate) without_effect: Vec<(&'static str, &'static str)>,
    /// What is wrong with the keys that `--disable-strict-config` ignores.
    pub(crate) unknown: Vec<String>,
}

/// See [`Config::http`].
#[derive(Debug, Clone)]
pub(crate) struct HttpConfig {
    /// Where to listen, at least one.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What clients may take up before they are known.
    pub(crate) limits: HttpLimits,
}

/// UDP ports of the workers; both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UdpPorts {
    /// First port.
    pub(crate) first: u16,
    /// Last port.
    pub(crate) last: u16,
}

/// See [`Config::rtc`].
#[derive(Debug, Clone, Default)]
pub(crate) struct RtcConfig {
    /// UDP ports; `None` with `force_tcp`.
    pub(crate) udp_ports: Option<UdpPorts>,
    /// ICE-TCP port; `None` when disabled.
    pub(crate) tcp_port: Option<u16>,
    /// Addresses to advertise; empty = find out.
    pub(crate) node_ips: Vec<IpAddr>,
    /// Which addresses of the machine may be advertised, without `node_ips`.
    pub(crate) filter: AddressFilter,
    /// Advertise what a STUN server sees instead of local addresses.
    pub(crate) use_external_ip: bool,
    /// Advertise local addresses beside external ones.
    pub(crate) advertise_internal_ip: bool,
    /// Advertise the loopback address too.
    pub(crate) enable_loopback_candidate: bool,
    /// Advertise TCP candidates only.
    pub(crate) force_tcp: bool,
    /// Age at which waiting lossy messages are given up; `None` = never.
    pub(crate) lossy_latency: Option<Duration>,
    /// The same for frames of data tracks.
    pub(crate) data_track_latency: Option<Duration>,
    /// Move clients whose connections fail to TCP, then to relays.
    pub(crate) allow_tcp_fallback: bool,
    /// A published track without media makes its publisher start anew.
    pub(crate) reconnect_on_publication_error: bool,
    /// A subscription that cannot be started makes its subscriber start anew.
    pub(crate) reconnect_on_subscription_error: bool,
    /// STUN servers that clients are told, `host:port`.
    pub(crate) stun_servers: Vec<String>,
    /// TURN servers that clients are told.
    pub(crate) turn_servers: Vec<TurnServer>,
    /// How long a busy worker lets packets of one receiver gather.
    pub(crate) egress_hold: Duration,
    /// Congestion control towards receivers; `None` when disabled.
    pub(crate) congestion_control: Option<CongestionControl>,
}

/// See [`RtcConfig::congestion_control`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CongestionControl {
    /// Whether videos of which not even the lowest layer fits are paused.
    pub(crate) allow_pause: bool,
    /// Least bandwidth that streams get, bits per second.
    pub(crate) min_channel_capacity: u64,
}

/// `rtc.interfaces` and `rtc.ips`: what is included (empty = everything) less what is excluded.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressFilter {
    /// Names of interfaces.
    pub(crate) include_interfaces: Vec<String>,
    /// Names of interfaces.
    pub(crate) exclude_interfaces: Vec<String>,
    /// Networks.
    pub(crate) include_ips: Vec<Cidr>,
    /// Networks.
    pub(crate) exclude_ips: Vec<Cidr>,
}

impl AddressFilter {
    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.include_interfaces.is_empty()
            && self.exclude_interfaces.is_empty()
            && self.include_ips.is_empty()
            && self.exclude_ips.is_empty()
    }

    /// Whether an address of an interface may be advertised.
    pub(crate) fn allows(&self, interface: &str, ip: IpAddr) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == interface);
        let within = |networks: &[Cidr]| networks.iter().any(|network| network.contains(ip));
        (self.include_interfaces.is_empty() || named(&self.include_interfaces))
            && !named(&self.exclude_interfaces)
            && (self.include_ips.is_empty() || within(&self.include_ips))
            && !within(&self.exclude_ips)
    }
}

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

/// A quality of video, as LiveKit names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quality {
    Low,
    Medium,
    High,
}

/// See [`Config::room`].
#[derive(Debug, Clone)]
pub(crate) struct RoomConfig {
    /// Whether joining makes a missing room.
    pub(crate) auto_create: bool,
    /// Most participants; 0 = no limit.
    pub(crate) max_participants: u32,
    /// How long a room that nobody ever joined is kept.
    pub(crate) empty_timeout: Duration,
    /// How long a room is kept after the last participant left.
    pub(crate) departure_timeout: Duration,
    /// Whether the server API may unmute.
    pub(crate) enable_remote_unmute: bool,
    /// MIME types of the codecs that may be published; empty = all.
    pub(crate) enabled_codecs: Vec<String>,
    /// Whether plain Opus gets redundancy for receivers that take it.
    pub(crate) active_red_encoding: bool,
    /// Limits of receivers' jitter buffers, milliseconds: least and greatest.
    pub(crate) playout_delay: Option<(u32, u32)>,
    /// Best quality of cameras for low-power receivers: `low`, `medium` or `high`.
    pub(crate) low_power_quality: Quality,
    /// Frames per second for low-power receivers; 0 = no limit.
    pub(crate) low_power_fps: u32,
    /// How long less quality must be enough before the publisher hears of it.
    pub(crate) dynacast_pause_delay: Duration,
    /// Rooms of fewer participants move to a backup codec as a whole; 0 = of any size.
    pub(crate) codec_regression_threshold: u32,
    /// Whether clients may publish data tracks.
    pub(crate) enable_data_tracks: bool,
    /// Whether participants may store blobs.
    pub(crate) enable_participant_data_blob: bool,
    /// Whether a participant's tracks share a stream.
    pub(crate) sync_streams: bool,
    /// Size at which a participant update is split, bytes.
    pub(crate) update_batch_target_size: usize,
}

/// See [`Config::limit`]; in bytes unless named otherwise.
#[derive(Debug, Clone)]
pub(crate) struct LimitConfig {
    /// Participant and room metadata.
    pub(crate) max_metadata: usize,
    /// Sum of a participant's attributes.
    pub(crate) max_attributes: usize,
    /// Room name.
    pub(crate) max_room_name: usize,
    /// Participant identity.
    pub(crate) max_identity: usize,
    /// Participant name.
    pub(crate) max_name: usize,
    /// Body of an HTTP request.
    pub(crate) max_request_body: usize,
    /// Tracks in and out of the node; 0 = no limit.
    pub(crate) num_tracks: u64,
    /// Bytes in and out of the node, per second; 0 = no limit.
    pub(crate) bytes_per_sec: u64,
    /// Key of a data blob.
    pub(crate) max_data_blob_key: usize,
    /// Sum of a participant's data blobs.
    pub(crate) max_data_blobs: usize,
    /// Name of a data track's own encoding.
    pub(crate) max_custom_encoding: usize,
    /// One message of a signal connection.
    pub(crate) signal_message: usize,
    /// One message of an agent worker.
    pub(crate) agent_signal_message: usize,
    /// Video tracks that a participant receives; 0 = no limit.
    pub(crate) subscriptions_video: u32,
    /// Audio tracks that a participant receives; 0 = no limit.
    pub(crate) subscriptions_audio: u32,
}

/// See [`Config::logging`].
#[derive(Debug, Clone)]
pub(crate) struct LoggingConfig {
    /// `debug`, `info`, `warn` or `error`.
    pub(crate) level: String,
    /// One JSON object per line instead of text.
    pub(crate) json: bool,
    /// Level per crate, by name.
    pub(crate) components: Vec<(String, String)>,
}

/// See [`Config::prometheus`].
#[derive(Debug, Clone)]
pub(crate) struct PrometheusConfig {
    /// Port of the metrics listener.
    pub(crate) port: u16,
    /// Name and password of basic authentication.
    pub(crate) login: Option<(String, super::Secret)>,
}

/// Makes the typed form; `dev` is the flag, which also decides defaults.
pub(super) fn build(doc: &Document, keys: ApiKeys, dev: bool) -> Result<Config, ConfigError> {
    let development = dev || doc.bool("development");
    let turms = super::turms::build(doc, &keys)?;
    Ok(Config {
        development,
        turms,
        region: doc.text("region"),
        workers: doc.uint("workers") as usize,
        pin_workers: doc.bool("pin_workers"),
        webhook: services::webhook(doc, &keys)?,
        target_load: services::target_load(doc)?,
        room_presets: services::room_presets(doc)?,
        room_affinity: doc.uint("room_affinity") as usize,
        keys,
        http: http(doc, dev)?,
        rtc: rtc(doc, dev)?,
        media: media(doc)?,
        room: room(doc)?,
        limit: limit(doc),
        logging: logging(doc)?,
        prometheus: prometheus(doc)?,
        state_dir: Some(doc.text("state_dir")).filter(|path| !path.is_empty()).map(PathBuf::from),
        pages: if doc.is_set("pages.enabled") { doc.bool("pages.enabled") } else { development },
        debug_port: Some(doc.uint("debug_handler.port") as u16).filter(|port| *port != 0),
        without_effect: doc.without_effect(),
        unknown: doc.unknown().iter().map(ToString::to_string).collect(),
    })
}

fn http(doc: &Document, dev: bool) -> Result<HttpConfig, ConfigError> {
    let port = doc.uint("port") as u16;
    let listed = doc.list("bind_addresses");
    let mut addresses = Vec::new();
    for text in &listed {
        addresses.extend(bind_address(text, port)?);
    }
    if listed.is_empty() {
        let everywhere = if dev { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        addresses.push(SocketAddr::from((everywhere, port)));
    }
    Ok(HttpConfig { addresses, limits: http_limits(doc)? })
}

fn http_limits(doc: &Document) -> Result<HttpLimits, ConfigError> {
    let timeout = |path: &str| {
        parse_duration(&doc.text(path))
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| invalid(path, "a duration above zero, such as 10s"))
    };
    Ok(HttpLimits {
        header_timeout: timeout("http.header_timeout")?,
        idle_timeout: timeout("http.idle_timeout")?,
        body_timeout: timeout("http.body_timeout")?,
        max_connections: match doc.uint("http.max_connections") {
            0 => usize::MAX,
            most => usize::try_from(most).unwrap_or(usize::MAX),
        },
    })
}

/// LiveKit takes addresses, `localhost`, and the empty word for every interface.
fn bind_address(text: &str, port: u16) -> Result<Vec<SocketAddr>, ConfigError> {
    if text.is_empty() {
        return Ok(vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))]);
    }
    if text == "localhost" {
        return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().map(|ip| vec![SocketAddr::from((ip, port))]).map_err(|_| {
        invalid("bind_addresses", &format!("IP addresses without a port; `{text}` is not one"))
    })
}

fn rtc(doc: &Document, dev: bool) -> Result<RtcConfig, ConfigError> {
    let force_tcp = doc.bool("rtc.force_tcp");
    let tcp_port = Some(doc.uint("rtc.tcp_port") as u16).filter(|port| *port != 0);
    if force_tcp && tcp_port.is_none() {
        return Err(ConfigError::Conflict(
            "`rtc.force_tcp` needs a TCP port: set `rtc.tcp_port`".into(),
        ));
    }
    let mut node_ips = node_ips(&doc.text("rtc.node_ip"))?;
    if node_ips.is_empty() && dev {
        node_ips.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    Ok(RtcConfig {
        udp_ports: udp_ports(doc, dev)?,
        tcp_port,
        node_ips,
        filter: address_filter(doc)?,
        use_external_ip: doc.bool("rtc.use_external_ip"),
        advertise_internal_ip: doc.bool("rtc.advertise_internal_ip")
            && !doc.bool("rtc.external_ip_only"),
        enable_loopback_candidate: doc.bool("rtc.enable_loopback_candidate"),
        force_tcp,
        lossy_latency: latency(doc, "rtc.datachannel_lossy_target_latency"),
        data_track_latency: latency(doc, "rtc.datachannel_data_track_target_latency"),
        allow_tcp_fallback: doc.bool("rtc.allow_tcp_fallback"),
        reconnect_on_publication_error: doc.bool("rtc.reconnect_on_publication_error"),
        reconnect_on_subscription_error: doc.bool("rtc.reconnect_on_subscription_error"),
        stun_servers: doc.list("rtc.stun_servers"),
        turn_servers: turn_servers(doc)?,
        egress_hold: egress_hold(doc)?,
        congestion_control: congestion_control(doc),
    })
}

fn congestion_control(doc: &Document) -> Option<CongestionControl> {
    const SECTION: &str = "rtc.congestion_control";
    doc.bool(&format!("{SECTION}.enabled")).then(|| CongestionControl {
        allow_pause: doc.bool(&format!("{SECTION}.allow_pause")),
        min_channel_capacity: doc.uint(&format!("{SECTION}.stream_allocator.min_channel_capacity")),
    })
}

fn egress_hold(doc: &Document) -> Result<Duration, ConfigError> {
    let path = "rtc.batch_io.max_flush_interval";
    parse_duration(&doc.text(path))
        .filter(|hold| *hold <= MAX_EGRESS_HOLD)
        .ok_or_else(|| invalid(path, "a duration of 20ms at most: media waits for so long"))
}

fn address_filter(doc: &Document) -> Result<AddressFilter, ConfigError> {
    let networks = |path: &str| -> Result<Vec<Cidr>, ConfigError> {
        let parse = |text: &String| {
            let expected = format!("networks such as `10.0.0.0/8`; `{text}` is not one");
            text.parse().map_err(|_| invalid(path, &expected))
        };
        doc.list(path).iter().map(parse).collect()
    };
    Ok(AddressFilter {
        include_interfaces: doc.list("rtc.interfaces.includes"),
        exclude_interfaces: doc.list("rtc.interfaces.excludes"),
        include_ips: networks("rtc.ips.includes")?,
        exclude_ips: networks("rtc.ips.excludes")?,
    })
}

/// Zero is no bound.
fn latency(doc: &Document, path: &str) -> Option<Duration> {
    parse_duration(&doc.text(path)).filter(|latency| !latency.is_zero())
}

fn udp_ports(doc: &Document, dev: bool) -> Result<Option<UdpPorts>, ConfigError> {
    let text = doc.text("rtc.udp_port");
    let start = doc.uint("rtc.port_range_start");
    let end = doc.uint("rtc.port_range_end");
    let listed = parse_port_range(&text).filter(|(first, _)| *first != 0);
    if listed.is_some() && (start != 0 || end != 0) {
        return Err(ConfigError::Conflict(
            "`rtc.udp_port` and `rtc.port_range_start`/`rtc.port_range_end` exclude each other: \
             keep `rtc.udp_port` (a range such as 7882-7892 is fine)"
                .into(),
        ));
    }
    if doc.bool("rtc.force_tcp") {
        return Ok(None);
    }
    let (first, last) = match (listed, start, end) {
        (Some(range), _, _) => range,
        (None, 0, 0) if dev => (DEV_UDP_PORT, DEV_UDP_PORT),
        (None, 0, 0) => DEFAULT_UDP_RANGE,
        (None, start, end) => u16::try_from(start)
            .ok()
            .zip(u16::try_from(end).ok())
            .filter(|(start, end)| *start != 0 && start <= end)
            .ok_or_else(|| {
                invalid("rtc.port_range_end", "a port that is not below `rtc.port_range_start`")
            })?,
    };
    Ok(Some(UdpPorts { first, last }))
}

/// `v4`, `v6` or `v4,v6`.
fn node_ips(text: &str) -> Result<Vec<IpAddr>, ConfigError> {
    let mut ips = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let ip: IpAddr = word
            .parse()
            .map_err(|_| invalid("rtc.node_ip", &format!("an IP address; `{word}` is not one")))?;
        if ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            return Err(invalid("rtc.node_ip", "an address that clients can reach"));
        }
        ips.push(ip);
    }
    Ok(ips)
}

fn turn_servers(doc: &Document) -> Result<Vec<TurnServer>, ConfigError> {
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
        return Err(ConfigError::Problems(vec![Problem::Unknown {
            path: format!("rtc.turn_servers.{key}"),
            suggestion: None,
        }]));
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
        ("", path) => Some(super::read_secret(path)?),
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

fn room(doc: &Document) -> Result<RoomConfig, ConfigError> {
    let seconds = |path| Duration::from_secs(doc.uint(path));
    let enabled_codecs = match doc.block("room.enabled_codecs") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.get("mime").and_then(Value::as_str).map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| invalid("room.enabled_codecs", "a list of `- mime: audio/opus`"))?,
        Some(_) => return Err(invalid("room.enabled_codecs", "a list of `- mime: audio/opus`")),
    };
    Ok(RoomConfig {
        auto_create: doc.bool("room.auto_create"),
        max_participants: doc.uint("room.max_participants") as u32,
        empty_timeout: seconds("room.empty_timeout"),
        departure_timeout: seconds("room.departure_timeout"),
        enable_remote_unmute: doc.bool("room.enable_remote_unmute"),
        enabled_codecs,
        active_red_encoding: doc.bool("audio.active_red_encoding"),
        playout_delay: doc.bool("room.playout_delay.enabled").then(|| {
            let ms = |path| u32::try_from(doc.uint(path)).unwrap_or(u32::MAX);
            (ms("room.playout_delay.min"), ms("room.playout_delay.max"))
        }),
        low_power_quality: quality("room.low_power.max_quality", doc)?,
        low_power_fps: u32::try_from(doc.uint("room.low_power.max_fps")).unwrap_or(u32::MAX),
        codec_regression_threshold: u32::try_from(doc.uint("video.codec_regression_threshold"))
            .unwrap_or(u32::MAX),
        dynacast_pause_delay: parse_duration(&doc.text("video.dynacast_pause_delay"))
            .unwrap_or_default(),
        enable_data_tracks: doc.bool("enable_data_tracks"),
        enable_participant_data_blob: doc.bool("enable_participant_data_blob"),
        sync_streams: doc.bool("room.sync_streams"),
        update_batch_target_size: doc.uint("room.update_batch_target_size") as usize,
    })
}

fn quality(path: &str, doc: &Document) -> Result<Quality, ConfigError> {
    match doc.text(path).as_str() {
        "low" => Ok(Quality::Low),
        "medium" => Ok(Quality::Medium),
        "high" => Ok(Quality::High),
        _ => Err(invalid(path, "low, medium or high")),
    }
}

fn media(doc: &Document) -> Result<MediaConfig, ConfigError> {
    let duration = |path: &str| {
        parse_duration(&doc.text(path)).ok_or_else(|| invalid(path, "a duration such as 500ms"))
    };
    let byte = |path: &str, most: u8| {
        let value = u8::try_from(doc.uint(path)).ok().filter(|value| *value <= most);
        value.ok_or_else(|| invalid(path, &format!("a number up to {most}")))
    };
    let interval = Duration::from_millis(doc.uint("audio.update_interval"));
    if interval < MIN_LEVEL_INTERVAL {
        return Err(invalid("audio.update_interval", "milliseconds, at least 50"));
    }
    Ok(MediaConfig {
        key_frame_intervals: [
            duration("rtc.pli_throttle.low_quality")?,
            duration("rtc.pli_throttle.mid_quality")?,
            duration("rtc.pli_throttle.high_quality")?,
        ],
        audio_levels: AudioLevelConfig {
            active_level_dbov: byte("audio.active_level", 127)?,
            min_percentile: byte("audio.min_percentile", 100)?,
            interval,
            smooth_intervals: byte("audio.smooth_intervals", 100)?.into(),
        },
        max_forwarded_speakers: doc.uint("room.audio.max_forwarded_speakers") as usize,
    })
}

fn limit(doc: &Document) -> LimitConfig {
    // LiveKit once had some of them under `room`, and takes zero as no limit.
    let bytes = |name: &str| {
        let (path, before) = (format!("limit.{name}"), format!("room.{name}"));
        let path = if doc.is_set(&before) && !doc.is_set(&path) { before } else { path };
        match doc.uint(&path) {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        }
    };
    // LiveKit takes anything below one as no limit.
    let positive = |path: &str| doc.float(path).clamp(0.0, f64::from(u32::MAX)) as u32;
    LimitConfig {
        max_request_body: bytes("max_api_request_body_size"),
        max_metadata: bytes("max_metadata_size"),
        max_attributes: bytes("max_attributes_size"),
        max_room_name: bytes("max_room_name_length"),
        max_identity: bytes("max_participant_identity_length"),
        max_name: bytes("max_participant_name_length"),
        num_tracks: doc.float("limit.num_tracks").max(0.0) as u64,
        bytes_per_sec: doc.float("limit.bytes_per_sec").max(0.0) as u64,
        max_data_blob_key: bytes("max_data_blob_key_length"),
        max_data_blobs: bytes("max_data_blobs_size"),
        max_custom_encoding: bytes("max_data_track_custom_encoding_length"),
        signal_message: bytes("signal_message_size_limit"),
        agent_signal_message: bytes("agent_signal_message_size_limit"),
        subscriptions_video: positive("limit.subscription_limit_video"),
        subscriptions_audio: positive("limit.subscription_limit_audio"),
    }
}

fn logging(doc: &Document) -> Result<LoggingConfig, ConfigError> {
    let level = match (doc.is_set("logging.level"), doc.text("log_level")) {
        (false, level) if !level.is_empty() => level,
        _ => doc.text("logging.level"),
    };
    Ok(LoggingConfig {
        level: log_level("logging.level", &level)?,
        json: doc.bool("logging.json"),
        components: doc
            .map("logging.component_levels")
            .into_iter()
            .map(|(name, level)| Ok((name, log_level("logging.component_levels", &level)?)))
            .collect::<Result<_, ConfigError>>()?,
    })
}

fn log_level(path: &str, level: &str) -> Result<String, ConfigError> {
    match level.to_lowercase().as_str() {
        "warning" => Ok("warn".into()),
        known @ ("trace" | "debug" | "info" | "warn" | "error") => Ok(known.into()),
        _ => Err(invalid(path, "one of trace, debug, info, warn, error")),
    }
}

fn prometheus(doc: &Document) -> Result<Option<PrometheusConfig>, ConfigError> {
    let port = match doc.uint("prometheus.port") {
        0 => doc.uint("prometheus_port"),
        port => port,
    };
    let (username, password) = (doc.text("prometheus.username"), doc.text("prometheus.password"));
    if username.is_empty() != password.is_empty() {
        return Err(ConfigError::Conflict(
            "`prometheus.username` and `prometheus.password` belong together: set both or neither"
                .into(),
        ));
    }
    let login = (!username.is_empty()).then(|| (username, super::Secret::new(password)));
    Ok((port != 0).then_some(PrometheusConfig { port: port as u16, login }))
}

pub(super) fn invalid(path: &str, expected: &str) -> ConfigError {
    ConfigError::Problems(vec![Problem::Value { path: path.into(), expected: expected.into() }])
}
