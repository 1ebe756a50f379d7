//! What probes measured: the rate at which the packets of a cluster arrived (libwebrtc
//! `probe_bitrate_estimator.cc`).

use super::history::PacketResult;
use super::probe::ProbeCluster;

/// Clusters watched at once.
const MAX_CLUSTERS: usize = 8;
/// Share of a cluster's packets and bytes that must arrive.
const MIN_RECEIVED: f64 = 0.8;
/// Arriving this much faster than sent is a burst out of a queue, not capacity.
const MAX_RATIO: f64 = 2.0;
/// Arriving slower than this share of the sending rate, the path was full ...
const FULL_RATIO: f64 = 0.9;
/// ... and this share of it is used.
const UTILISATION: f64 = 0.95;
/// Longest cluster that can be measured, microseconds.
const MAX_INTERVAL_US: i64 = 1_000_000;

/// What a probe measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeResult {
    /// What the path takes, bits per second.
    pub bps: u64,
    /// It passed as fast as it was sent: the path may take more.
    pub fitted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    cluster: ProbeCluster,
    packets: u32,
    bytes: u64,
    first_sent: (i64, u32),
    last_sent: (i64, u32),
    first_arrival: (i64, u32),
    last_arrival: (i64, u32),
}

/// What arrived of the probes underway.
#[derive(Debug, Default)]
pub struct ProbeResults {
    clusters: [Option<Seen>; MAX_CLUSTERS],
    next: usize,
}

impl ProbeResults {
    /// Announces a cluster.
    pub fn expect(&mut self, cluster: ProbeCluster) {
        self.clusters[self.next] = Some(Seen {
            cluster,
            packets: 0,
            bytes: 0,
            first_sent: (i64::MAX, 0),
            last_sent: (i64::MIN, 0),
            first_arrival: (i64::MAX, 0),
            last_arrival: (i64::MIN, 0),
        });
        self.next = (self.next + 1) % MAX_CLUSTERS;
    }

    /// Takes a packet; those outside of probes and lost ones are ignored. Returns what is measured so
    /// far, once enough of its cluster arrived.
    pub fn on_packet(&mut self, result: &PacketResult) -> Option<ProbeResult> {
        let (id, arrival) = (result.probe?, result.arrival_us?);
        let seen = self.clusters.iter_mut().flatten().find(|seen| seen.cluster.id == id)?;
        seen.packets += 1;
        seen.bytes += u64::from(result.size);
        seen.first_sent = seen.first_sent.min((result.sent_us, result.size));
        seen.last_sent = seen.last_sent.max((result.sent_us, result.size));
        seen.first_arrival = seen.first_arrival.min((arrival, result.size));
        seen.last_arrival = seen.last_arrival.max((arrival, result.size));
        seen.measure()
    }
}

impl Seen {
    fn measure(&self) -> Option<ProbeResult> {
        let enough_packets =
            f64::from(self.packets) >= MIN_RECEIVED * f64::from(self.cluster.min_packets);
        let enough_bytes = self.bytes as f64 >= MIN_RECEIVED * self.cluster.min_bytes as f64;
        if !enough_packets || !enough_bytes {
            return None;
        }
        let send_us = self.last_sent.0 - self.first_sent.0;
        let arrival_us = self.last_arrival.0 - self.first_arrival.0;
        let valid = |us: i64| us > 0 && us <= MAX_INTERVAL_US;
        if !valid(send_us) || !valid(arrival_us) {
            return None;
        }
        let rate = |bytes: u64, us: i64| bytes as f64 * 8e6 / us as f64;
        let send_rate = rate(self.bytes - u64::from(self.last_sent.1), send_us);
        let arrival_rate = rate(self.bytes - u64::from(self.first_arrival.1), arrival_us);
        if arrival_rate > MAX_RATIO * send_rate {
            return None;
        }
        let fitted = arrival_rate >= FULL_RATIO * send_rate;
        let bps = if fitted { arrival_rate.min(send_rate) } else { UTILISATION * arrival_rate };
        Some(ProbeResult { bps: bps as u64, fitted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn measured(send_gap_us: i64, arrival_gap_us: i64) -> Option<(u64, bool)> {
        let mut results = ProbeResults::default();
        results.expect(ProbeCluster {
            id: 7,
            bitrate_bps: 0,
            min_bytes: 5_000,
            min_packets: 5,
            min_duration: Duration::from_millis(15),
        });
        (0..6)
            .filter_map(|i| {
                results.on_packet(&PacketResult {
                    seq: i as u64,
                    sent_us: i * send_gap_us,
                    arrival_us: Some(50_000 + i * arrival_gap_us),
                    size: 1_000,
                    probe: Some(7),
                    was_lost: false,
                })
            })
            .last()
            .map(|result| (result.bps, result.fitted))
    }

    #[test]
    fn a_probe_that_fits_has_its_own_rate() {
        assert_eq!(measured(4_000, 4_000), Some((2_000_000, true)));
    }

    #[test]
    fn a_probe_that_does_not_fit_has_a_little_less_than_the_paths() {
        assert_eq!(measured(4_000, 8_000), Some((950_000, false)));
    }

    #[test]
    fn a_probe_released_by_a_queue_says_nothing() {
        assert_eq!(measured(4_000, 1_000), None);
    }
}
