//! Counters of the signal server. Totals since start unless named otherwise.

use std::sync::atomic::{AtomicU64, Ordering};

use sluice_control::Histogram;

use crate::twirp::CallStats;

/// Upper bounds of the time that a join takes, milliseconds (LiveKit's, rounded).
const JOIN_MS: &[f64] = &[
    10.0, 16.379, 26.827, 43.94, 71.969, 117.877, 193.07, 316.228, 517.947, 848.343, 1389.495,
    2275.846, 3727.594, 6105.402, 10_000.0,
];

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away: for counters of what is open now.
    pub(crate) fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that the signal server counts.
#[derive(Debug, Default)]
pub struct SignalStats {
    /// Signal sockets open now.
    pub sockets_open: Counter,
    /// Signal sockets opened.
    pub sockets_opened: Counter,
    /// Joins refused before the upgrade.
    pub joins_refused: Counter,
    /// Sessions started whose client never finished the upgrade.
    pub upgrades_failed: Counter,
    /// Requests refused for their token.
    pub tokens_refused: Counter,
    /// Messages received.
    pub messages_received: Counter,
    /// Messages sent.
    pub messages_sent: Counter,
    /// Received messages without a variant that we know, ignored.
    pub messages_unknown: Counter,
    /// Sockets closed for a frame that is neither protobuf nor JSON of a request.
    pub closed_malformed: Counter,
    /// Sockets closed for a message above the size limit.
    pub closed_oversize: Counter,
    /// Sockets closed for pings without end.
    pub closed_flood: Counter,
    /// Sockets closed because the client read too slowly and its queue overflowed.
    pub closed_overflow: Counter,
    /// Sockets closed because a write made no progress.
    pub closed_stalled: Counter,
    /// Pongs not sent because earlier ones still wait for a slow client.
    pub pongs_dropped: Counter,
    /// WHIP resources made.
    pub whip_created: Counter,
    /// WHEP resources made.
    pub whep_created: Counter,
    /// WHIP and WHEP resources that exist now.
    pub one_shot_open: Counter,
    /// Offers of WHIP and WHEP clients refused.
    pub one_shot_refused: Counter,
    /// ICE restarts of WHIP and WHEP clients.
    pub ice_restarts: Counter,
    /// Messages which could not be written as JSON: our fault.
    pub encode_failures: Counter,
    /// Calls of the server API.
    pub calls: CallStats,
    /// Time from the request of a client that joins until its socket opens.
    pub join_latency: JoinLatency,
}

/// Milliseconds.
#[derive(Debug)]
pub struct JoinLatency(pub Histogram);

impl Default for JoinLatency {
    fn default() -> Self {
        Self(Histogram::new(JOIN_MS))
    }
}
