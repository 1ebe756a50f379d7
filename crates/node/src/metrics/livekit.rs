//! What LiveKit counts under its own names about calls of the server API and about the paths of media.

use sluice_engine::{Buckets, PathStats, StreamStats, TrackKind};
use sluice_signal::CallStats;

use super::exposition::{Exposition, Kind};

/// Which histogram of a stream.
type OfStream = fn(&StreamStats) -> &Buckets;

/// Calls of the server API.
pub(super) fn call_samples(page: &mut Exposition, calls: &CallStats) {
    let name = "livekit_node_twirp_request_status";
    page.family(name, Kind::Counter, "Calls of the server API");
    for ((kind, code), count) in calls.ended() {
        let labels = [
            ("service", kind.service),
            ("method", kind.method),
            ("status", kind.status),
            ("code", code),
        ];
        page.sample(&labels, count);
    }
    let name = "livekit_node_twirp_request_latency_ms";
    page.family(name, Kind::Histogram, "Time that calls of the server API took");
    calls.latency(|kind, latency| {
        let labels = [("service", kind.service), ("method", kind.method), ("status", kind.status)];
        page.histogram(&labels, latency.bounds(), &latency.counts(), latency.sum());
    });
}

/// Loss, jitter, round-trip times, quality, and what forwarding takes.
pub(super) fn path_samples(page: &mut Exposition, paths: &PathStats) {
    let name = "livekit_packet_loss_total";
    page.family(name, Kind::Counter, "Packets lost, as receivers report");
    streams(paths, |labels, stats| page.sample(labels, stats.lost()));
    let histograms: [(&str, &str, OfStream); 3] = [
        ("livekit_packet_loss_percent", "Loss per report of a stream", |s| &s.loss_percent),
        ("livekit_jitter_us", "Interarrival jitter per report of a stream", |s| &s.jitter_us),
        ("livekit_rtt_ms", "Round-trip time per report of a stream", |s| &s.rtt_ms),
    ];
    for (name, help, of) in histograms {
        page.family(name, Kind::Histogram, help);
        streams(paths, |labels, stats| buckets(page, labels, of(stats)));
    }
    for (name, help, values) in [
        ("livekit_forward_latency_ns", "Time that packets wait here", &paths.forward_ns),
        ("livekit_quality_rating", "Connection quality: 0 poor to 2 excellent", &paths.rating),
        ("livekit_quality_score", "Connection quality as a mean opinion score", &paths.score),
    ] {
        page.family(name, Kind::Histogram, help);
        buckets(page, &[], values);
    }
    let (connected, failed) = paths.peers();
    page.family("livekit_peer_connection_state", Kind::Counter, "States that connections reached");
    for (state, count) in [("connected", connected), ("failed", failed)] {
        page.sample(&[("state", state)], count);
    }
}

fn streams(paths: &PathStats, mut step: impl FnMut(&[(&str, &str)], &StreamStats)) {
    for kind in TrackKind::ALL {
        let (source, of_type) = kind.labels();
        for (direction, stats) in
            [("incoming", paths.incoming(kind)), ("outgoing", paths.outgoing(kind))]
        {
            step(&[("direction", direction), ("source", source), ("type", of_type)], stats);
        }
    }
}

fn buckets(page: &mut Exposition, labels: &[(&str, &str)], values: &Buckets) {
    page.histogram(labels, values.bounds(), &values.counts(), values.sum());
}
