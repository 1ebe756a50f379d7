//! The table of configuration keys: LiveKit's YAML names, what kind of value each takes, its
//! default, and what this server does with it. Everything else about configuration (strictness,
//! suggestions, flags, environment names) is derived from this one table.

/// What a key's value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number, zero or more.
    Uint,
    /// A whole number.
    Int,
    /// Any number.
    Float,
    /// Text.
    Text,
    /// A duration: Go notation (`500ms`, `2s`, `1m30s`).
    Duration,
    /// A port, or a range `first-last`; `0` or empty for none.
    PortRange,
    /// A list of text.
    TextList,
    /// A map of text to text.
    TextMap,
    /// A block that is looked into by the feature that owns it, not by this table.
    Block,
}

/// A default, in the words of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Preset {
    /// No value: empty text, empty list, zero.
    Unset,
    /// A flag.
    Bool(bool),
    /// A number.
    Uint(u64),
    /// A fraction.
    Float(f64),
    /// Text, durations and port ranges.
    Text(&'static str),
}

/// What happens to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// The value is used.
    Honoured,
    /// Any value is accepted and changes nothing here; a changed value is mentioned in the log
    /// with this reason.
    NoEffect(&'static str),
    /// Only the default is accepted. The text says what the operator can do.
    NotYet(&'static str),
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Dotted path in the file, which is also the name of the generated flag.
    pub(crate) path: &'static str,
    /// Shape of the value.
    pub(crate) kind: Kind,
    /// Value when nothing is said.
    pub(crate) default: Preset,
    /// What is done with it.
    pub(crate) support: Support,
}

impl Key {
    /// LiveKit's name for the key in the environment: `rtc.tcp_port` is `LIVEKIT_RTC_TCP_PORT`.
    pub(crate) fn environment_name(&self) -> String {
        format!("LIVEKIT_{}", self.path.replace('.', "_").to_uppercase())
    }

    /// Whether the value is a single port.
    pub(crate) fn is_port(&self) -> bool {
        let name = self.path.rsplit('.').next().unwrap_or(self.path);
        self.kind == Kind::Uint
            && (name.ends_with("port") || self.path.starts_with("rtc.port_range_"))
    }

    /// Whether one word can express the value, so that a flag and a variable exist for it.
    pub(crate) fn is_scalar(&self) -> bool {
        !matches!(self.kind, Kind::TextList | Kind::TextMap | Kind::Block)
    }
}

/// Looks a row up by its path.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether some key lies below `path`.
pub(crate) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

const fn key(path: &'static str, kind: Kind, default: Preset, support: Support) -> Key {
    Key { path, kind, default, support }
}

use Kind::{Block, Bool, Duration, Float, Int, PortRange, Text, TextList, TextMap, Uint};
use Preset::{Bool as B, Float as F, Text as T, Uint as U, Unset};
use Support::{Honoured, NoEffect, NotYet};

const TURN: Support = NotYet(
    "the embedded TURN server is not available yet: run one beside Sluice, name it in \
     `rtc.turn_servers`, and remove this key",
);
/// The same keys while `turn.enabled` is false.
const TURN_OFF: Support = NoEffect("the embedded TURN server is off");
/// The keys of `redis` beside its addresses.
const REDIS_OFF: Support = NoEffect("no Redis server is named");
const CLUSTER: Support = NotYet(
    "running several nodes over Redis is not available yet: remove the `redis` section to run \
     this node alone",
);
const ESTIMATOR: Support = NoEffect("it tunes an estimator that Sluice does not use");
const SEND_SIDE: Support = NoEffect(
    "Sluice estimates on the sending side for every client that sends transport-wide feedback, and \
     follows the estimate of every other",
);
const PION: Support = NoEffect("it tunes a library that Sluice does not use");
const DEPRECATED: Support = NoEffect("LiveKit dropped it");
const SINGLE_NODE: Support = NoEffect("it tunes traffic between nodes, and this node runs alone");
const RESOURCE_QUEUES: Support =
    NoEffect("webhooks wait in a queue per room: `webhook.resource_url_notifier` bounds it");
const DATA_QUEUES: Support = NoEffect(
    "what waits for a slow receiver waits in a bounded queue of its own, and nobody waits for it",
);
const INGRESS: Support = NoEffect("there is no ingress service; its calls say so, and WHIP works");
const REPORTING: Support = NoEffect("Sluice reports through Prometheus only");

/// Every key that a configuration file may hold, in LiveKit's order.
pub(crate) const KEYS: &[Key] = &[
    key("port", Uint, U(7880), Honoured),
    key("bind_addresses", TextList, Unset, Honoured),
    key("region", Text, Unset, Honoured),
    key("key_file", Text, Unset, Honoured),
    key("keys", TextMap, Unset, Honoured),
    key("development", Bool, B(false), Honoured),
    key("log_level", Text, Unset, Honoured),
    key("prometheus_port", Uint, Unset, Honoured),
    key("prometheus.port", Uint, Unset, Honoured),
    key("prometheus.username", Text, Unset, Honoured),
    key("prometheus.password", Text, Unset, Honoured),
    key("debug_handler.port", Uint, Unset, Honoured),
    // `workers` is Sluice's own: media worker threads, 0 = one per core.
    key("workers", Uint, Unset, Honoured),
    // So is `pin_workers`: whether each of them stays on one core.
    key("pin_workers", Bool, B(false), Honoured),
    // `pages.enabled` is Sluice's own: the page for calls at `/meet`; on in development.
    key("pages.enabled", Bool, B(false), Honoured),
    // So is `room_affinity`: how many peers more than the emptiest a room's own worker may have.
    key("room_affinity", Uint, U(32), Honoured),
    // `state_dir` is Sluice's own: a directory for what a restart must not forget.
    key("state_dir", Text, Unset, Honoured),
    // `http` is Sluice's own: what clients may take up before they are known.
    key("http.header_timeout", Duration, T("10s"), Honoured),
    key("http.idle_timeout", Duration, T("75s"), Honoured),
    key("http.body_timeout", Duration, T("30s"), Honoured),
    key("http.max_connections", Uint, U(4096), Honoured),
    // logging
    key("logging.level", Text, T("info"), Honoured),
    key("logging.json", Bool, B(false), Honoured),
    key("logging.pion_level", Text, T("error"), PION),
    key("logging.sample", Bool, B(false), NoEffect("log lines are never dropped by sampling")),
    key("logging.component_levels", TextMap, Unset, Honoured),
    key("logging.sample_initial", Uint, Unset, NoEffect("log lines are never sampled")),
    key("logging.sample_interval", Uint, Unset, NoEffect("log lines are never sampled")),
    key("logging.item_sample_seconds", Uint, Unset, NoEffect("log lines are never sampled")),
    key("logging.item_sample_initial", Uint, Unset, NoEffect("log lines are never sampled")),
    key("logging.item_sample_interval", Uint, Unset, NoEffect("log lines are never sampled")),
    // rtc
    key("rtc.udp_port", PortRange, Unset, Honoured),
    key("rtc.tcp_port", Uint, U(7881), Honoured),
    key("rtc.port_range_start", Uint, Unset, Honoured),
    key("rtc.port_range_end", Uint, Unset, Honoured),
    key(
        "rtc.use_stun_port_as_ice",
        Bool,
        B(false),
        NoEffect("only the address is learnt by STUN: forward the UDP port as it is"),
    ),
    key("rtc.node_ip", Text, Unset, Honoured),
    key("rtc.use_external_ip", Bool, B(false), Honoured),
    key("rtc.external_ip_only", Bool, B(false), Honoured),
    key("rtc.advertise_internal_ip", Bool, B(false), Honoured),
    key(
        "rtc.skip_external_ip_validation",
        Bool,
        B(false),
        NoEffect("the external address is taken as the STUN server tells it"),
    ),
    key("rtc.stun_servers", TextList, Unset, Honoured),
    key("rtc.turn_servers", Block, Unset, Honoured),
    key("rtc.use_ice_lite", Bool, B(false), NoEffect("Sluice is always ICE-lite")),
    key("rtc.use_mdns", Bool, B(false), NoEffect("an ICE-lite server never contacts candidates")),
    key("rtc.interfaces.includes", TextList, Unset, Honoured),
    key("rtc.interfaces.excludes", TextList, Unset, Honoured),
    key("rtc.ips.includes", TextList, Unset, Honoured),
    key("rtc.ips.excludes", TextList, Unset, Honoured),
    key("rtc.enable_loopback_candidate", Bool, B(false), Honoured),
    key("rtc.force_tcp", Bool, B(false), Honoured),
    key("rtc.batch_io.batch_size", Uint, Unset, NoEffect("Sluice always batches")),
    key("rtc.batch_io.max_flush_interval", Duration, T("2ms"), Honoured),
    key("rtc.sctp_min_cwnd", Uint, Unset, PION),
    key("rtc.sctp_fast_rtx_wnd", Uint, Unset, PION),
    key("rtc.sctp_cwnd_ca_step", Uint, Unset, PION),
    key("rtc.enable_warp", Bool, B(false), NoEffect("clients connect without WARP")),
    key("rtc.packet_buffer_size", Uint, U(500), DEPRECATED),
    key("rtc.packet_buffer_size_video", Uint, U(500), NoEffect("the history has a fixed size")),
    key("rtc.packet_buffer_size_audio", Uint, U(200), NoEffect("the history has a fixed size")),
    // LiveKit waits a second for the upper layers; so would then whoever joins just after another.
    key("rtc.pli_throttle.low_quality", Duration, T("500ms"), Honoured),
    key("rtc.pli_throttle.mid_quality", Duration, T("500ms"), Honoured),
    key("rtc.pli_throttle.high_quality", Duration, T("500ms"), Honoured),
    key("rtc.strict_acks", Bool, B(false), DEPRECATED),
    key("rtc.congestion_control.enabled", Bool, B(true), Honoured),
    key("rtc.congestion_control.allow_pause", Bool, B(false), Honoured),
    key("rtc.congestion_control.use_send_side_bwe", Bool, B(false), SEND_SIDE),
    key("rtc.congestion_control.use_send_side_bwe_interceptor", Bool, B(false), PION),
    key("rtc.congestion_control.send_side_bwe_pacer", Text, T("no-queue"), ESTIMATOR),
    key("rtc.congestion_control.stream_allocator.min_channel_capacity", Uint, Unset, Honoured),
    key(
        "rtc.congestion_control.stream_allocator.disable_etimation_unmanaged_tracks",
        Bool,
        B(false),
        ESTIMATOR,
    ),
    key("rtc.congestion_control.stream_allocator.probe_mode", Text, T("padding"), ESTIMATOR),
    key("rtc.congestion_control.stream_allocator.probe_overage_pct", Uint, U(120), ESTIMATOR),
    key("rtc.congestion_control.stream_allocator.probe_min_bps", Uint, U(200_000), ESTIMATOR),
    key("rtc.congestion_control.stream_allocator.paused_min_wait", Duration, T("5s"), ESTIMATOR),
    key("rtc.congestion_control.remote_bwe", Block, Unset, ESTIMATOR),
    key("rtc.congestion_control.send_side_bwe", Block, Unset, ESTIMATOR),
    key("rtc.allow_tcp_fallback", Bool, B(true), Honoured),
    key("rtc.tcp_fallback_rtt_threshold", Uint, Unset, NoEffect("ICE-TCP is tried before relays")),
    key(
        "rtc.allow_udp_unstable_fallback",
        Bool,
        B(false),
        NoEffect("a connection moves to TCP when it fails, not when it loses packets"),
    ),
    key("rtc.reconnect_on_publication_error", Bool, B(false), Honoured),
    key("rtc.reconnect_on_subscription_error", Bool, B(false), Honoured),
    key("rtc.reconnect_on_data_channel_error", Bool, B(false), DATA_QUEUES),
    key("rtc.data_channel_max_buffered_amount", Uint, Unset, DEPRECATED),
    key("rtc.datachannel_slow_threshold", Uint, Unset, DATA_QUEUES),
    key("rtc.datachannel_lossy_target_latency", Duration, Unset, Honoured),
    key("rtc.datachannel_data_track_target_latency", Duration, T("100ms"), Honoured),
    key("rtc.forward_stats.summary_interval", Duration, Unset, REPORTING),
    key("rtc.forward_stats.report_interval", Duration, Unset, REPORTING),
    key("rtc.forward_stats.report_window", Duration, Unset, REPORTING),
    key(
        "rtc.enable_rtp_stream_restart_detection",
        Bool,
        B(false),
        NoEffect("a restarted RTP stream is always detected"),
    ),
    // redis
    key("redis.address", Text, Unset, CLUSTER),
    key("redis.username", Text, Unset, REDIS_OFF),
    key("redis.password", Text, Unset, REDIS_OFF),
    key("redis.db", Uint, Unset, REDIS_OFF),
    key("redis.use_tls", Bool, B(false), REDIS_OFF),
    key("redis.tls", Block, Unset, REDIS_OFF),
    key("redis.sentinel_master_name", Text, Unset, REDIS_OFF),
    key("redis.sentinel_username", Text, Unset, REDIS_OFF),
    key("redis.sentinel_password", Text, Unset, REDIS_OFF),
    key("redis.sentinel_addresses", TextList, Unset, CLUSTER),
    key("redis.cluster_addresses", TextList, Unset, CLUSTER),
    key("redis.max_redirects", Uint, Unset, REDIS_OFF),
    key("redis.dial_timeout", Uint, Unset, REDIS_OFF),
    key("redis.read_timeout", Uint, Unset, REDIS_OFF),
    key("redis.write_timeout", Uint, Unset, REDIS_OFF),
    key("redis.pool_timeout", Duration, Unset, REDIS_OFF),
    key("redis.pool_size", Uint, Unset, REDIS_OFF),
    // audio
    key("audio.active_level", Uint, U(35), Honoured),
    key("audio.min_percentile", Uint, U(40), Honoured),
    key("audio.update_interval", Uint, U(400), Honoured),
    key("audio.smooth_intervals", Uint, U(2), Honoured),
    key("audio.active_red_encoding", Bool, B(false), Honoured),
    key(
        "audio.enable_loss_proxying",
        Bool,
        B(false),
        NoEffect("publishers hear of loss on their own path only"),
    ),
    // video
    key("video.dynacast_pause_delay", Duration, T("5s"), Honoured),
    key(
        "video.stream_tracker_manager",
        Block,
        Unset,
        NoEffect("whether a layer flows is told by its packets, with fixed times"),
    ),
    key("video.codec_regression_threshold", Uint, U(5), Honoured),
    // room
    key("room.auto_create", Bool, B(true), Honoured),
    key("room.enabled_codecs", Block, Unset, Honoured),
    key("room.max_participants", Uint, Unset, Honoured),
    key("room.empty_timeout", Uint, U(300), Honoured),
    key("room.departure_timeout", Uint, U(20), Honoured),
    key("room.enable_remote_unmute", Bool, B(false), Honoured),
    key("room.playout_delay.enabled", Bool, B(false), Honoured),
    key("room.playout_delay.min", Uint, Unset, Honoured),
    key("room.playout_delay.max", Uint, Unset, Honoured),
    key("room.sync_streams", Bool, B(false), Honoured),
    // `room.audio` and `room.low_power` are Sluice's own: microphones forwarded at a time, 0 = all,
    // and what receivers with the attribute `low_power` get at most.
    key("room.audio.max_forwarded_speakers", Uint, Unset, Honoured),
    key("room.low_power.max_quality", Text, T("medium"), Honoured),
    key("room.low_power.max_fps", Uint, U(15), Honoured),
    key("room.create_room_enabled", Bool, B(true), NoEffect("the token's grants decide")),
    key("room.create_room_timeout", Duration, T("10s"), SINGLE_NODE),
    key("room.create_room_attempts", Uint, U(3), SINGLE_NODE),
    key("room.enable_full_room_in_webhooks", Bool, B(false), Honoured),
    key("room.update_batch_target_size", Uint, U(131_072), Honoured),
    key("room.room_configurations", Block, Unset, Honoured),
    key("room.max_metadata_size", Uint, Unset, Honoured),
    key("room.max_room_name_length", Uint, Unset, Honoured),
    key("room.max_participant_identity_length", Uint, Unset, Honoured),
    // turn
    key("turn.enabled", Bool, B(false), TURN),
    key("turn.domain", Text, Unset, TURN_OFF),
    key("turn.cert_file", Text, Unset, TURN_OFF),
    key("turn.key_file", Text, Unset, TURN_OFF),
    key("turn.tls_port", Uint, Unset, TURN_OFF),
    key("turn.udp_port", Uint, Unset, TURN_OFF),
    key("turn.external_tls", Bool, B(false), TURN_OFF),
    key("turn.relay_range_start", Uint, U(30_000), TURN_OFF),
    key("turn.relay_range_end", Uint, U(40_000), TURN_OFF),
    key("turn.bind_addresses", TextList, Unset, TURN_OFF),
    key("turn.per_user_relay_allocation_limit", Int, U(12), TURN_OFF),
    key("turn.ttl_seconds", Int, U(300), TURN_OFF),
    key("turn.allow_restricted_peer_cidrs", TextList, Unset, TURN_OFF),
    key("turn.deny_peer_cidrs", TextList, Unset, TURN_OFF),
    // services around the server
    key("ingress.rtmp_base_url", Text, Unset, INGRESS),
    key("ingress.whip_base_url", Text, Unset, INGRESS),
    key("sip", Block, Unset, NoEffect("SIP is not available; its calls say so")),
    key("webhook.api_key", Text, Unset, Honoured),
    key("webhook.urls", TextList, Unset, Honoured),
    key("webhook.filter_params.include_events", TextList, Unset, Honoured),
    key("webhook.filter_params.exclude_events", TextList, Unset, Honoured),
    key("webhook.resource_url_notifier.max_age", Duration, T("30s"), Honoured),
    key("webhook.resource_url_notifier.max_depth", Uint, U(200), Honoured),
    key("webhook.url_notifier.num_workers", Uint, Unset, RESOURCE_QUEUES),
    key("webhook.url_notifier.queue_size", Uint, Unset, RESOURCE_QUEUES),
    key("agents.target_load", Float, F(0.7), Honoured),
    // several nodes
    key("node_selector.kind", Text, T("any"), SINGLE_NODE),
    key("node_selector.sort_by", Text, T("random"), SINGLE_NODE),
    key("node_selector.algorithm", Text, T("lowest"), SINGLE_NODE),
    key("node_selector.cpu_load_limit", Float, F(0.9), SINGLE_NODE),
    key("node_selector.sysload_limit", Float, F(0.9), SINGLE_NODE),
    key("node_selector.hard_cpu_load_limit", Float, Unset, SINGLE_NODE),
    key("node_selector.regions", Block, Unset, SINGLE_NODE),
    key("signal_relay.enabled", Bool, B(true), SINGLE_NODE),
    key("signal_relay.retry_timeout", Duration, T("7.5s"), SINGLE_NODE),
    key("signal_relay.min_retry_interval", Duration, T("500ms"), SINGLE_NODE),
    key("signal_relay.max_retry_interval", Duration, T("4s"), SINGLE_NODE),
    key("signal_relay.stream_buffer_size", Uint, U(1000), SINGLE_NODE),
    key("signal_relay.connect_attempts", Uint, U(3), SINGLE_NODE),
    key("psrpc.max_attempts", Uint, U(3), SINGLE_NODE),
    key("psrpc.timeout", Duration, T("3s"), SINGLE_NODE),
    key("psrpc.backoff", Duration, T("2s"), SINGLE_NODE),
    key("psrpc.buffer_size", Uint, U(1000), SINGLE_NODE),
    // limits
    key("limit.num_tracks", Int, Unset, Honoured),
    key("limit.bytes_per_sec", Float, Unset, Honoured),
    key("limit.subscription_limit_video", Int, Unset, Honoured),
    key("limit.subscription_limit_audio", Int, Unset, Honoured),
    key("limit.max_metadata_size", Uint, U(524_288), Honoured),
    key("limit.max_attributes_size", Uint, U(65_536), Honoured),
    key("limit.max_room_name_length", Uint, U(256), Honoured),
    key("limit.max_participant_identity_length", Uint, U(256), Honoured),
    key("limit.max_participant_name_length", Uint, U(256), Honoured),
    key("limit.max_data_blob_key_length", Uint, U(256), Honoured),
    key("limit.max_data_blobs_size", Uint, U(64_000), Honoured),
    key("limit.max_data_track_custom_encoding_length", Uint, U(32), Honoured),
    key("limit.signal_message_size_limit", Uint, U(2_097_152), Honoured),
    key("limit.agent_signal_message_size_limit", Uint, U(2_097_152), Honoured),
    key("limit.max_api_request_body_size", Uint, U(10_485_760), Honoured),
    // Turms: Sluice's own section
    key("turms.enabled", Bool, B(false), Honoured),
    key("turms.server_url", Text, Unset, Honoured),
    key("turms.identity_mode", Text, T("user"), Honoured),
    key("turms.state_file", Text, Unset, Honoured),
    key("turms.token_ttl", Duration, T("10m"), Honoured),
    key("turms.allowed_origins", TextList, Unset, Honoured),
    key("turms.requests_per_min", Uint, U(60), Honoured),
    key("turms.jwt.keys", Block, Unset, Honoured),
    key("turms.jwt.issuer", Text, Unset, Honoured),
    key("turms.jwt.audience", Text, Unset, Honoured),
    key("turms.jwt.require_exp", Bool, B(true), Honoured),
    key("turms.jwt.require_policy", Bool, B(true), Honoured),
    key("turms.jwt.leeway", Duration, T("0s"), Honoured),
    key("turms.jwt.max_lifetime", Duration, T("0s"), Honoured),
    key("turms.jwt.expect", Block, Unset, Honoured),
    key("turms.http_identity.url", Text, Unset, Honoured),
    key("turms.http_identity.method", Text, T("GET"), Honoured),
    key("turms.http_identity.headers", TextMap, Unset, Honoured),
    key("turms.http_identity.timeout", Duration, T("5s"), Honoured),
    key("turms.http_identity.status_codes", TextList, Unset, Honoured),
    key("turms.http_identity.body_fields", Block, Unset, Honoured),
    key("turms.http_identity.per_user_per_min", Uint, U(5), Honoured),
    key("turms.gateway_probe.url", Text, Unset, Honoured),
    key("turms.gateway_probe.timeout", Duration, T("5s"), Honoured),
    key("turms.gateway_probe.per_user_per_min", Uint, U(5), Honoured),
    key("turms.admin.url", Text, Unset, Honoured),
    key("turms.admin.login", Text, Unset, Honoured),
    key("turms.admin.password", Text, Unset, Honoured),
    key("turms.admin.password_file", Text, Unset, Honoured),
    key("turms.admin.timeout", Duration, T("2s"), Honoured),
    key("turms.admin.max_rps", Uint, U(20), Honoured),
    key("turms.admin.max_in_flight", Uint, U(8), Honoured),
    key("turms.admin.max_waiting", Uint, U(500), Honoured),
    key("turms.admin.page_size", Uint, U(1000), Honoured),
    key("turms.admin.ca_file", Text, Unset, Honoured),
    key("turms.admin.check_users", Bool, B(false), Honoured),
    key("turms.admin.check_relationships", Bool, B(false), Honoured),
    key("turms.cache.membership_ttl", Duration, T("5s"), Honoured),
    key("turms.cache.group_ttl", Duration, T("10s"), Honoured),
    key("turms.cache.negative_ttl", Duration, T("1s"), Honoured),
    key("turms.cache.block_ttl", Duration, T("10s"), Honoured),
    key("turms.cache.max_entries", Uint, U(100_000), Honoured),
    key("turms.sync.poll_interval", Duration, T("10s"), Honoured),
    key("turms.sync.jitter_percent", Uint, U(20), Honoured),
    key("turms.sync.stale_after", Duration, T("60s"), Honoured),
    key("turms.sync.on_stale", Text, T("keep"), Honoured),
    key("turms.sync.mass_removal_guard_percent", Uint, U(50), Honoured),
    key("turms.events.secret_file", Text, Unset, Honoured),
    key("turms.events.max_skew", Duration, T("30s"), Honoured),
    key("turms.messages.room_started", Bool, B(true), Honoured),
    key("turms.messages.room_finished", Bool, B(true), Honoured),
    key("turms.messages.roster_digest", Duration, T("0s"), Honoured),
    key("turms.messages.type_byte", Uint, U(100), Honoured),
    key("turms.messages.queue_size", Uint, U(1000), Honoured),
    key("turms.policy.guests_may_publish", Bool, B(false), Honoured),
    key("turms.policy.admins_exempt_from_group_mute", Bool, B(true), Honoured),
    key("turms.compat.delimited_twirp", Bool, B(true), Honoured),
    key("turms.compat.missing_identity", Text, T("generate"), Honoured),
    key("turms.compat.deleted_room_tombstone", Duration, T("24h"), Honoured),
    key("turms.compat.digit_rooms_reserved", Bool, B(true), Honoured),
    key("turms.compat.api_key", Text, Unset, Honoured),
    // the rest
    key("metric.timestamper_config", Block, Unset, REPORTING),
    key("metric.collector", Block, Unset, REPORTING),
    key("metric.reporter", Block, Unset, REPORTING),
    key("trace.jaeger_url", Text, Unset, REPORTING),
    key("enable_data_tracks", Bool, B(true), Honoured),
    key("enable_participant_data_blob", Bool, B(false), Honoured),
    key("node_stats.stats_update_interval", Duration, T("2s"), SINGLE_NODE),
    key("node_stats.stats_rate_measurement_intervals", Block, Unset, SINGLE_NODE),
    key("node_stats.stats_max_delay", Duration, T("30s"), SINGLE_NODE),
    key("api.execution_timeout", Duration, T("2s"), SINGLE_NODE),
    key("api.check_interval", Duration, T("100ms"), SINGLE_NODE),
    key("api.max_check_interval", Duration, T("300s"), SINGLE_NODE),
    key("api.enable_psrpc_for_get_list_participants", Bool, B(false), SINGLE_NODE),
];
