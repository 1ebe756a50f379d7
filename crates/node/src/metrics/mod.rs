//! The Prometheus endpoint: LiveKit's metric names where the same thing is counted, `sluice_` names
//! for what only this server knows. Values are read from the engine and the rooms at each scrape;
//! nothing is counted here.

mod exposition;
mod livekit;
mod process;
mod services;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sluice_control::{ByKind, Histogram, RoomManager, Telemetry};
use sluice_engine::{ESTIMATE_BUCKETS_BPS, Engine, EngineStats, WorkerStats};
use sluice_signal::{AgentStats, SignalStats, WebhookStats};
use sluice_turms::TurmsStats;

use crate::config::Secret;
use crate::http::HttpStats;
use exposition::{Exposition, Kind};

/// Prometheus' text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the endpoint serves from.
pub(crate) struct Metrics {
    /// Media workers.
    pub(crate) engine: Engine,
    /// Rooms.
    pub(crate) rooms: RoomManager,
    /// The signal server.
    pub(crate) signal: Arc<SignalStats>,
    /// The HTTP listener.
    pub(crate) http: Arc<HttpStats>,
    /// Webhooks.
    pub(crate) webhooks: Arc<WebhookStats>,
    /// Agents.
    pub(crate) agents: AgentStats,
    /// Label of every sample.
    pub(crate) node_id: String,
    /// Name and password of basic authentication.
    pub(crate) login: Option<(String, Secret)>,
    /// The Turms adapter, if it is on.
    pub(crate) turms: Option<Arc<TurmsStats>>,
}

impl Metrics {
    async fn page(&self) -> String {
        let labels = [("node_id", self.node_id.as_str()), ("node_type", "SERVER")];
        let mut page = Exposition::new(&labels);
        let stats = self.engine.stats();
        room_samples(&mut page, &self.rooms);
        let tracks = self.rooms.track_counts().await;
        session_samples(&mut page, self.rooms.telemetry(), &self.signal, tracks);
        livekit_counters(&mut page, &stats.total());
        signal_samples(&mut page, &self.signal, self.rooms.telemetry(), &self.engine);
        livekit::call_samples(&mut page, &self.signal.calls);
        livekit::path_samples(&mut page, self.engine.paths());
        worker_samples(&mut page, &stats);
        services::http_samples(&mut page, &self.http);
        services::webhook_samples(&mut page, &self.webhooks);
        services::agent_samples(&mut page, &self.agents);
        if let Some(turms) = &self.turms {
            turms_samples(&mut page, turms);
        }
        process::write(&mut page);
        page.into_text()
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let Some((name, password)) = &self.login else { return true };
        let expected = basic_authorization(name, password.expose());
        headers
            .get(header::AUTHORIZATION)
            .is_some_and(|given| constant_time_eq(given.as_bytes(), expected.as_bytes()))
    }
}

/// Metrics on every path.
pub(crate) fn router(metrics: Metrics) -> Router {
    Router::new().fallback(scrape).with_state(Arc::new(metrics))
}

async fn scrape(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> Response {
    if !metrics.allows(&headers) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"metrics\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.page().await).into_response()
}

/// What the Turms adapter counts.
fn turms_samples(page: &mut Exposition, stats: &TurmsStats) {
    for (name, grows, value) in stats.named() {
        let help = "See TurmsStats";
        if grows {
            page.counter(&format!("sluice_turms_{name}_total"), help, value);
        } else {
            page.gauge(&format!("sluice_turms_{name}"), help, value);
        }
    }
}

/// Rooms and who is in them: the numbers of `ListRooms`.
fn room_samples(page: &mut Exposition, rooms: &RoomManager) {
    let stats = rooms.stats();
    page.gauge("livekit_room_total", "Rooms", stats.rooms);
    page.gauge("livekit_participant_total", "Participants", stats.participants);
    for (name, help, value) in [
        (
            "slow_sessions",
            "Sessions closed because their client read too slowly",
            stats.slow_sessions,
        ),
        ("data_dropped", "Data messages that found a worker's queue full", stats.data_dropped),
        ("commands_dropped", "Commands that could not be delivered", stats.commands_dropped),
        ("events_dropped", "Media events that found a room's queue full", stats.events_dropped),
        ("webhooks_dropped", "Webhook events that found their queue full", stats.webhooks_dropped),
        ("rooms_panicked", "Rooms that ended in a panic", stats.rooms_panicked),
    ] {
        page.counter(&format!("sluice_{name}_total"), help, value);
    }
    page.family(
        "sluice_data_refused_total",
        Kind::Counter,
        "Data packets of clients that were not passed on",
    );
    let data = stats.data;
    for (reason, count) in [
        ("not_allowed", data.not_allowed),
        ("malformed", data.malformed),
        ("duplicate", data.duplicate),
        ("forbidden_kind", data.forbidden_kind),
        ("waiting_overflow", data.waiting_overflow),
        ("unknown_data_track", data.unknown_data_track),
        ("not_connected", data.not_connected),
    ] {
        page.sample(&[("reason", reason)], count);
    }
}

/// Sessions and tracks, under LiveKit's names.
fn session_samples(
    page: &mut Exposition,
    telemetry: &Telemetry,
    signal: &SignalStats,
    (published, subscribed): (ByKind, ByKind),
) {
    const KINDS: [&str; 2] = ["AUDIO", "VIDEO"];
    let mut histogram = |name: &str, help: &str, values: &Histogram| {
        page.family(name, Kind::Histogram, help);
        page.histogram(&[], values.bounds(), &values.counts(), values.sum());
    };
    let started = "Time from the join to connected media";
    histogram("livekit_room_duration_seconds", "Duration of ended rooms", &telemetry.room_seconds);
    let opened = "Time from the request of a client until its socket opens";
    histogram("livekit_session_join_latency_ms", opened, &signal.join_latency.0);
    histogram("livekit_session_start_time_ms", started, &telemetry.start_ms);
    histogram("livekit_session_duration_ms", "Duration of ended sessions", &telemetry.session_ms);
    page.family("livekit_participant_join_total", Kind::Counter, "Joins by how far they came");
    for (state, warp, count) in [
        ("signal_connected", "", signal.sockets_opened.get()),
        ("signal_failed", "", signal.joins_refused.get()),
        ("signal_upgrade_failed", "", signal.upgrades_failed.get()),
        ("rtc_init", "", telemetry.participants_welcomed()),
        ("rtc_connected", "", telemetry.participants_welcomed()),
        ("rtc_active", "false", telemetry.participants_joined()),
        ("rtc_success", "false", telemetry.participants_joined()),
        ("rtc_canceled", "false", telemetry.participants_aborted()),
    ] {
        page.sample(&[("state", state), ("warp", warp)], count);
    }
    page.family("livekit_connection_total", Kind::Gauge, "Signal sockets open now");
    page.sample(&[("kind", "signal")], signal.sockets_open.get());
    for (name, help, values) in [
        ("livekit_track_published_total", "Tracks published now", published),
        ("livekit_track_subscribed_total", "Subscriptions now", subscribed),
    ] {
        page.family(name, Kind::Gauge, help);
        for (kind, value) in KINDS.into_iter().zip(values) {
            page.sample(&[("kind", kind)], value);
        }
    }
    page.family("livekit_track_publish_counter", Kind::Counter, "Tracks by how far they came");
    let states =
        [("attempt", telemetry.tracks_announced()), ("success", telemetry.tracks_published())];
    for (state, values) in states {
        for (kind, value) in KINDS.into_iter().zip(values) {
            page.sample(&[("kind", kind), ("state", state)], value);
        }
    }
    let flowed: u64 = telemetry.tracks_subscribed().iter().sum();
    let failed = telemetry.subscriptions_failed();
    let name = "livekit_track_subscribe_counter";
    page.family(name, Kind::Counter, "Subscriptions by what became of them");
    for (state, count) in [("attempt", flowed + failed), ("success", flowed), ("failure", failed)] {
        page.sample(&[("state", state), ("error", "")], count);
    }
}

/// What LiveKit counts under these names as well.
fn livekit_counters(page: &mut Exposition, total: &WorkerStats) {
    let packets = [
        ("incoming", "initial", total.packets_in.saturating_sub(total.rtx_in)),
        ("incoming", "retransmit", total.rtx_in),
        ("outgoing", "initial", total.packets_out.saturating_sub(total.rtx_out)),
        ("outgoing", "retransmit", total.rtx_out),
    ];
    page.family("livekit_packet_total", Kind::Counter, "RTP packets");
    for (direction, transmission, value) in packets {
        page.sample(&[("direction", direction), ("transmission", transmission)], value);
    }
    // LiveKit's name, without the suffix that counters have elsewhere.
    page.family("livekit_packet_bytes", Kind::Counter, "RTP bytes");
    for (direction, value) in
        [("incoming", total.packet_bytes_in), ("outgoing", total.packet_bytes_out)]
    {
        page.sample(&[("direction", direction), ("transmission", "initial")], value);
    }
    for (name, help, incoming, outgoing) in [
        ("livekit_nack_total", "Packets asked for again", total.nacks_in, total.nacks_out),
        ("livekit_pli_total", "Key frames asked for by PLI", total.plis_in, total.plis_out),
        // We ask by PLI only.
        ("livekit_fir_total", "Key frames asked for by FIR", total.firs_in, 0),
    ] {
        page.family(name, Kind::Counter, help);
        page.sample(&[("direction", "incoming")], incoming);
        page.sample(&[("direction", "outgoing")], outgoing);
    }
}

/// Signal sockets: what LiveKit counts as messages and operations, and why ours closed.
fn signal_samples(
    page: &mut Exposition,
    stats: &SignalStats,
    telemetry: &Telemetry,
    engine: &Engine,
) {
    page.family("livekit_node_messages", Kind::Counter, "Signal messages");
    let malformed = stats.closed_malformed.get() + stats.closed_oversize.get();
    let unsent = stats.closed_overflow.get() + stats.closed_stalled.get();
    for (status, direction, count) in [
        ("success", "request", stats.messages_received.get()),
        ("failure", "request", malformed),
        ("success", "response", stats.messages_sent.get()),
        ("failure", "response", unsent + stats.encode_failures.get()),
    ] {
        page.sample(&[("type", "signal"), ("status", status), ("direction", direction)], count);
    }
    page.family("livekit_node_service_operation", Kind::Counter, "Operations by how they ended");
    let (offers, answers) = telemetry.descriptions();
    let (connected, failed) = engine.paths().peers();
    for (operation, status, error, count) in [
        ("participant_join", "success", "", telemetry.participants_welcomed()),
        ("offer", "success", "", offers),
        ("answer", "success", "", answers),
        ("peer_connection", "success", "", connected),
        ("peer_connection", "error", "failed", failed),
        ("signal_ws", "success", "", stats.sockets_opened.get()),
        ("signal_ws", "error", "refused", stats.joins_refused.get()),
        ("signal_ws", "error", "upgrade", stats.upgrades_failed.get()),
        ("signal_ws", "error", "token", stats.tokens_refused.get()),
    ] {
        page.sample(&[("type", operation), ("status", status), ("error_type", error)], count);
    }
    for (kind, created) in [("whip", &stats.whip_created), ("whep", &stats.whep_created)] {
        let labels = [("type", kind), ("status", "success"), ("error_type", "")];
        page.sample(&labels, created.get());
    }
    let labels = [("type", "whip"), ("status", "error"), ("error_type", "refused")];
    page.sample(&labels, stats.one_shot_refused.get());
    page.gauge("sluice_one_shot_open", "WHIP and WHEP clients now", stats.one_shot_open.get());
    page.counter(
        "sluice_ice_restarts_total",
        "ICE restarts of WHIP and WHEP clients",
        stats.ice_restarts.get(),
    );
    page.gauge("sluice_sockets_open", "Signal sockets open now", stats.sockets_open.get());
    page.family(
        "sluice_sockets_closed_total",
        Kind::Counter,
        "Signal sockets closed by the server",
    );
    for (reason, count) in [
        ("malformed", stats.closed_malformed.get()),
        ("oversize", stats.closed_oversize.get()),
        ("flood", stats.closed_flood.get()),
        ("overflow", stats.closed_overflow.get()),
        ("stalled", stats.closed_stalled.get()),
    ] {
        page.sample(&[("reason", reason)], count);
    }
    for (name, help, count) in [
        ("messages_unknown", "Signal messages without a known variant", &stats.messages_unknown),
        ("pongs_dropped", "Pongs not sent for a slow client", &stats.pongs_dropped),
        ("encode_failures", "Messages that could not be written as JSON", &stats.encode_failures),
    ] {
        page.counter(&format!("sluice_{name}_total"), help, count.get());
    }
}

/// Names of [`WorkerStats`] that say how many there are now, not how many there were.
const GAUGES: &[&str] = &[
    "peers",
    "peers_connected",
    "tracks",
    "feeds",
    "subscriptions",
    "routes",
    "ufrags",
    "foreign_routes",
    "tcp_connections",
    "event_backlog",
];

/// Everything the workers count, by worker, and their drops by stage and reason.
fn worker_samples(page: &mut Exposition, stats: &EngineStats) {
    let workers: Vec<String> = (0..stats.workers.len()).map(|index| index.to_string()).collect();
    let names = WorkerStats::default();
    for (at, (name, _)) in names.named().enumerate() {
        if GAUGES.contains(&name) {
            page.family(&format!("sluice_{name}"), Kind::Gauge, "See WorkerStats");
        } else {
            page.family(&format!("sluice_{name}_total"), Kind::Counter, "See WorkerStats");
        }
        for (worker, label) in stats.workers.iter().zip(&workers) {
            let value = worker.named().nth(at).map_or(0, |(_, value)| value);
            page.sample(&[("worker", label)], value);
        }
    }
    let help = "Receivers now, by the estimate of their path: up to so many bits per second";
    page.family("sluice_receivers_by_estimate", Kind::Gauge, help);
    let ends: Vec<String> = ESTIMATE_BUCKETS_BPS.iter().map(u64::to_string).collect();
    let ends = ends.iter().map(String::as_str).chain(["+Inf"]);
    for (worker, label) in stats.workers.iter().zip(&workers) {
        for (end, count) in ends.clone().zip(worker.receivers_by_estimate) {
            page.sample(&[("worker", label), ("bps", end)], count);
        }
    }
    page.family("sluice_dropped_total", Kind::Counter, "Datagrams, packets and messages dropped");
    for (worker, label) in stats.workers.iter().zip(&workers) {
        for (stage, reason, count) in worker.drops() {
            page.sample(&[("worker", label), ("stage", stage), ("reason", reason)], count);
        }
    }
    page.counter(
        "sluice_commands_refused_total",
        "Commands that found a worker's queue full",
        stats.commands_refused,
    );
    page.counter(
        "sluice_tcp_refused_total",
        "ICE-TCP connections closed before they reached a worker",
        stats.tcp_refused,
    );
}

fn basic_authorization(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = format!("{name}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

/// Compares without telling by time where the difference is; the length may be learnt.
fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use sluice_engine::DropCause;

    use super::*;

    fn written(write: impl Fn(&mut Exposition)) -> String {
        let mut page = Exposition::default();
        write(&mut page);
        page.into_text()
    }

    #[test]
    fn every_gauge_is_a_statistic_of_a_worker() {
        let names: Vec<_> = WorkerStats::default().named().map(|(name, _)| name).collect();
        for gauge in GAUGES {
            assert!(names.contains(gauge), "{gauge}");
        }
    }

    #[test]
    fn packets_are_told_apart_by_direction_and_transmission() {
        let total = WorkerStats { packets_in: 10, rtx_in: 3, packets_out: 7, ..Default::default() };
        let text = written(|page| livekit_counters(page, &total));
        let incoming = r#"livekit_packet_total{direction="incoming",transmission="initial"} 7"#;
        assert!(text.contains(incoming), "{text}");
        assert!(text.contains("livekit_nack_total{direction=\"incoming\"} 0"), "{text}");
    }

    #[test]
    fn drops_name_worker_and_reason() {
        let mut worker = WorkerStats::default();
        worker.dropped[DropCause::UnknownSource as usize] = 4;
        let stats = EngineStats { workers: vec![worker], ..Default::default() };
        let text = written(|page| worker_samples(page, &stats));
        let sample = r#"sluice_dropped_total{worker="0",stage="engine",reason="unknown_source"} 4"#;
        assert!(text.contains(sample), "{text}");
        assert!(text.contains("sluice_peers{worker=\"0\"} 0"), "{text}");
        let group = r#"sluice_receivers_by_estimate{worker="0",bps="+Inf"} 0"#;
        assert!(text.contains(group), "{text}");
    }

    #[test]
    fn login_is_compared_whole() {
        assert_eq!(basic_authorization("a", "b"), "Basic YTpi");
        assert!(constant_time_eq(b"ab", b"ab"));
        assert!(!constant_time_eq(b"ab", b"ac"));
        assert!(!constant_time_eq(b"ab", b"abc"));
    }
}
