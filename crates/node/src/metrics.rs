//! The Prometheus endpoint: LiveKit's metric names where the same thing is counted, `sluice_` names
//! for what only this server knows. Values are read from the engine and the rooms at each scrape;
//! nothing is counted here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sluice_control::RoomManager;
use sluice_engine::{DropCause, Engine, EngineStats, WorkerStats};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Secret;

/// OpenMetrics 1.0, which Prometheus asks for first.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the endpoint serves from.
pub(crate) struct Metrics {
    registry: Registry,
    login: Option<(String, Secret)>,
}

impl Metrics {
    /// Metrics of a node; every sample carries `node_id`.
    pub(crate) fn new(
        engine: Engine,
        rooms: RoomManager,
        node_id: &str,
        login: Option<(String, Secret)>,
    ) -> Self {
        let labels =
            [("node_id".into(), node_id.to_owned().into()), ("node_type".into(), "SERVER".into())];
        let mut registry = Registry::with_labels(labels.into_iter());
        registry.register_collector(Box::new(NodeCollector { engine, rooms }));
        Self { registry, login }
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let Some((name, password)) = &self.login else { return true };
        let expected = basic_authorization(name, password.expose());
        headers
            .get(header::AUTHORIZATION)
            .is_some_and(|given| constant_time_eq(given.as_bytes(), expected.as_bytes()))
    }
}

/// Serves metrics on every path until `stop` is cancelled.
///
/// # Errors
/// The port cannot be bound.
pub(crate) async fn serve(
    port: u16,
    address: IpAddr,
    metrics: Metrics,
    stop: CancellationToken,
) -> std::io::Result<impl Future<Output = std::io::Result<()>>> {
    let listener = TcpListener::bind(SocketAddr::from((address, port))).await?;
    let router = Router::new().fallback(scrape).with_state(Arc::new(metrics));
    let server = axum::serve(listener, router);
    Ok(server.with_graceful_shutdown(async move { stop.cancelled().await }).into_future())
}

async fn scrape(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> Response {
    if !metrics.allows(&headers) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"metrics\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    let mut body = String::new();
    match text::encode(&mut body, &metrics.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

struct NodeCollector {
    engine: Engine,
    rooms: RoomManager,
}

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.engine.stats();
        let rooms = self.rooms.list_rooms(&[]);
        let participants: u64 = rooms.iter().map(|room| u64::from(room.num_participants)).sum();
        gauge(&mut encoder, "livekit_room_total", "Rooms", rooms.len() as u64)?;
        gauge(&mut encoder, "livekit_participant_total", "Participants", participants)?;
        livekit_counters(&mut encoder, &stats.total())?;
        worker_samples(&mut encoder, &stats)?;
        counter(
            &mut encoder,
            "sluice_commands_refused",
            "Commands that found a worker's queue full",
            stats.commands_refused,
        )?;
        counter(
            &mut encoder,
            "sluice_tcp_refused",
            "ICE-TCP connections closed before they reached a worker",
            stats.tcp_refused,
        )
    }
}

/// What LiveKit counts under these names as well.
fn livekit_counters(encoder: &mut DescriptorEncoder<'_>, total: &WorkerStats) -> fmt::Result {
    let repaired = ("incoming", "retransmit", total.rtx_in);
    let packets = [
        ("incoming", "initial", total.packets_in.saturating_sub(total.rtx_in)),
        repaired,
        ("outgoing", "initial", total.packets_out.saturating_sub(total.rtx_out)),
        ("outgoing", "retransmit", total.rtx_out),
    ];
    labelled(
        encoder,
        "livekit_packet",
        "RTP packets",
        &["direction", "transmission"],
        packets.map(|(direction, transmission, value)| (vec![direction, transmission], value)),
    )?;
    labelled(
        encoder,
        "livekit_packet_bytes",
        "RTP bytes",
        &["direction", "transmission"],
        [
            (vec!["incoming", "initial"], total.packet_bytes_in),
            (vec!["outgoing", "initial"], total.packet_bytes_out),
        ],
    )?;
    for (name, help, incoming, outgoing) in [
        ("livekit_nack", "Packets asked for again", total.nacks_in, total.nacks_out),
        ("livekit_pli", "Key frames asked for", total.plis_in, total.plis_out),
    ] {
        labelled(
            encoder,
            name,
            help,
            &["direction"],
            [(vec!["incoming"], incoming), (vec!["outgoing"], outgoing)],
        )?;
    }
    Ok(())
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

/// Everything the workers count, by worker, and their drops by reason.
fn worker_samples(encoder: &mut DescriptorEncoder<'_>, stats: &EngineStats) -> fmt::Result {
    let names: Vec<_> = WorkerStats::default().named().map(|(name, _)| name).collect();
    let workers: Vec<String> = (0..stats.workers.len()).map(|index| index.to_string()).collect();
    for (at, name) in names.into_iter().enumerate() {
        let values = stats.workers.iter().zip(&workers).filter_map(|(worker, label)| {
            let (_, value) = worker.named().nth(at)?;
            Some((label.as_str(), value))
        });
        let full_name = format!("sluice_{name}");
        if GAUGES.contains(&name) {
            for_each_worker(encoder, &full_name, values, &ConstGauge::new)?;
        } else {
            for_each_worker(encoder, &full_name, values, &ConstCounter::new)?;
        }
    }
    let drops = stats.workers.iter().zip(&workers).flat_map(|(worker, label)| {
        DropCause::ALL
            .into_iter()
            .map(|cause| (vec![label.as_str(), cause.as_str()], worker.dropped_for(cause)))
    });
    labelled(
        encoder,
        "sluice_dropped",
        "Datagrams, packets and messages dropped",
        &["worker", "reason"],
        drops,
    )
}

fn for_each_worker<'a, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
    metric: &dyn Fn(u64) -> M,
) -> fmt::Result {
    let kind = metric(0).metric_type();
    let mut family = encoder.encode_descriptor(name, "See WorkerStats", None, kind)?;
    for (worker, value) in values {
        metric(value).encode(family.encode_family(&[("worker", worker)])?)?;
    }
    Ok(())
}

fn labelled<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    labels: &[&str],
    samples: impl IntoIterator<Item = (Vec<&'a str>, u64)>,
) -> fmt::Result {
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (values, count) in samples {
        let pairs: Vec<_> = labels.iter().copied().zip(values).collect();
        ConstCounter::new(count).encode(family.encode_family(&pairs)?)?;
    }
    Ok(())
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
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
    use super::*;

    fn encoded(
        encode: impl Fn(&mut DescriptorEncoder<'_>) -> fmt::Result + Send + Sync + 'static,
    ) -> String {
        struct Wrapped<F>(F);
        impl<F> fmt::Debug for Wrapped<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("Wrapped")
            }
        }
        impl<F> Collector for Wrapped<F>
        where
            F: Fn(&mut DescriptorEncoder<'_>) -> fmt::Result + Send + Sync + 'static,
        {
            fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
                (self.0)(&mut encoder)
            }
        }
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Wrapped(encode)));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
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
        let text = encoded(move |encoder| livekit_counters(encoder, &total));
        let incoming = r#"livekit_packet_total{direction="incoming",transmission="initial"} 7"#;
        assert!(text.contains(incoming), "{text}");
        assert!(text.contains("livekit_nack_total{direction=\"incoming\"} 0"), "{text}");
    }

    #[test]
    fn drops_name_worker_and_reason() {
        let mut worker = WorkerStats::default();
        worker.dropped[DropCause::UnknownSource as usize] = 4;
        let stats = EngineStats { workers: vec![worker], ..Default::default() };
        let text = encoded(move |encoder| worker_samples(encoder, &stats));
        let sample = r#"sluice_dropped_total{worker="0",reason="unknown_source"} 4"#;
        assert!(text.contains(sample), "{text}");
        assert!(text.contains("sluice_peers{worker=\"0\"} 0"), "{text}");
    }

    #[test]
    fn login_is_compared_whole() {
        assert_eq!(basic_authorization("a", "b"), "Basic YTpi");
        assert!(constant_time_eq(b"ab", b"ab"));
        assert!(!constant_time_eq(b"ab", b"ac"));
        assert!(!constant_time_eq(b"ab", b"abc"));
    }
}
