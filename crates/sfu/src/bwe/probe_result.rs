//! What probes measured: the rate at which the packets of a cluster arrived (libwebrtc
//! `probe_bitrate_estimator.cc`).

use std::collections::VecDeque;

use super::history::PacketResult;
use super::probe::ProbeCluster;

/// Clusters watched at once.
const MAX_CLUSTERS: usize = 8;
/// Share of a cluster's packets and bytes that must arrive.
const MIN_RECEIVED: f64 = 0.8;
/// Share that must be told of, arrived or lost, of one that empties a bucket first, and share of that
/// beyond which what is lost was too much for the path.
const MIN_TOLD: f64 = 0.95;
const MAX_LOST: f64 = 0.15;
/// Arriving this much faster than sent is a burst out of a queue, not capacity.
const MAX_RATIO: f64 = 2.0;
/// Arriving slower than this share of the sending rate, the path was full ...
const FULL_RATIO: f64 = 0.9;
/// ... and this share of it is used.
const UTILISATION: f64 = 0.95;
/// Longest cluster that can be measured, microseconds.
const MAX_INTERVAL_US: i64 = 1_000_000;

/// A packet passed at once if it was no later than this after the first one, compared with the times of
/// sending: share, and microseconds of jitter.
const ON_TIME: (f64, i64) = (1.1, 3_000);
/// What passed at once is called a bucket if it is so much, bytes, and would have taken so long at the
/// rate of what followed, microseconds: a queue lets pass one packet, and jitter a few milliseconds.
const LEAST_BUCKET: (u64, f64) = (1_500, 25_000.0);
/// Packets of a cluster that are looked at.
const MAX_PACKETS: usize = 256;

/// What a probe measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeResult {
    /// The cluster.
    pub cluster: u16,
    /// What the path takes, bits per second.
    pub bps: u64,
    /// It passed as fast as it was sent: the path may take more.
    pub fitted: bool,
    /// What the path let pass at once before it became slower, bytes; `None` if it passed all.
    pub bucket: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Arrived {
    sent_us: i64,
    arrival_us: i64,
    size: u32,
}

#[derive(Debug)]
struct Seen {
    cluster: ProbeCluster,
    /// In the order of arrival.
    packets: Vec<Arrived>,
    bytes: u64,
    lost_bytes: u64,
}

/// What arrived of the probes underway.
#[derive(Debug, Default)]
pub struct ProbeResults {
    clusters: VecDeque<Seen>,
}

impl ProbeResults {
    /// Announces a cluster.
    pub fn expect(&mut self, cluster: ProbeCluster) {
        if self.clusters.len() >= MAX_CLUSTERS {
            self.clusters.pop_front();
        }
        self.clusters.push_back(Seen { cluster, packets: Vec::new(), bytes: 0, lost_bytes: 0 });
    }

    /// Takes a packet; those outside of probes are ignored. Returns what is measured so
    /// far, once enough of its cluster arrived.
    pub fn on_packet(&mut self, result: &PacketResult) -> Option<ProbeResult> {
        let id = result.probe?;
        let seen = self.clusters.iter_mut().find(|seen| seen.cluster.id == id)?;
        let Some(arrival_us) = result.arrival_us else {
            seen.lost_bytes += u64::from(result.size);
            return seen.measure();
        };
        if seen.packets.len() >= MAX_PACKETS {
            return None;
        }
        if result.was_lost {
            seen.lost_bytes = seen.lost_bytes.saturating_sub(u64::from(result.size));
        }
        let at = seen.packets.partition_point(|packet| packet.arrival_us <= arrival_us);
        let PacketResult { sent_us, size, .. } = *result;
        seen.packets.insert(at, Arrived { sent_us, arrival_us, size });
        seen.bytes += u64::from(size);
        seen.measure()
    }
}

impl Seen {
    fn measure(&self) -> Option<ProbeResult> {
        let enough_packets =
            self.packets.len() as f64 >= MIN_RECEIVED * f64::from(self.cluster.min_packets);
        let enough_bytes = match self.cluster.skip_bytes {
            0 => self.bytes as f64 >= MIN_RECEIVED * self.cluster.min_bytes as f64,
            // The end of it is what counts.
            _ => (self.bytes + self.lost_bytes) as f64 >= MIN_TOLD * self.cluster.min_bytes as f64,
        };
        if !enough_packets || !enough_bytes {
            return None;
        }
        let whole = Rates::of(&self.packets)?;
        let told = (self.bytes + self.lost_bytes) as f64;
        let is_lossy = self.cluster.skip_bytes > 0 && self.lost_bytes as f64 > MAX_LOST * told;
        let fitted = whole.is_fit() && !is_lossy;
        let (passed, bucket) = if fitted { (0, None) } else { self.passed_at_once() };
        let skip = self.skipped().max(passed);
        let rates = Rates::of(&self.packets[skip..]).unwrap_or(whole);
        let fitted = rates.is_fit() && !is_lossy;
        let bps = match fitted {
            true => rates.arrival.min(rates.send),
            false => UTILISATION * rates.arrival,
        };
        Some(ProbeResult { cluster: self.cluster.id, bps: bps as u64, fitted, bucket })
    }

    /// Packets that a bucket may have let pass, the last one excepted.
    fn skipped(&self) -> usize {
        let mut bytes = 0;
        let within = self.packets.iter().take_while(|packet| {
            bytes += u64::from(packet.size);
            bytes <= self.cluster.skip_bytes
        });
        within.count().saturating_sub(1)
    }

    /// Packets that passed as fast as they were sent, the last one excepted, if those after them did not;
    /// and the bytes that the path took at once.
    fn passed_at_once(&self) -> (usize, Option<u64>) {
        let first = self.packets[0];
        let on_time = |packet: &&Arrived| {
            let sent = (packet.sent_us - first.sent_us) as f64;
            packet.arrival_us - first.arrival_us <= (sent * ON_TIME.0) as i64 + ON_TIME.1
        };
        let count = self.packets.iter().take_while(on_time).count();
        let last = count - 1;
        let Some(after) = Rates::of(&self.packets[last..]) else { return (0, None) };
        let bytes: u64 = self.packets[..count].iter().map(|packet| u64::from(packet.size)).sum();
        let bytes_per_us = after.arrival / 8e6;
        let drained = bytes_per_us * (self.packets[last].arrival_us - first.arrival_us) as f64;
        let bucket = bytes.saturating_sub(drained as u64);
        let is_bucket = bucket >= LEAST_BUCKET.0 && bucket as f64 >= LEAST_BUCKET.1 * bytes_per_us;
        if is_bucket { (last, Some(bucket)) } else { (0, Some(0)) }
    }
}

/// Rates of sending and arriving, bits per second.
#[derive(Debug, Clone, Copy)]
struct Rates {
    send: f64,
    arrival: f64,
    /// How much longer the packets took to arrive than to be sent, microseconds.
    longer_us: i64,
}

impl Rates {
    fn of(packets: &[Arrived]) -> Option<Self> {
        let (first, last) = (packets.first()?, packets.last()?);
        let newest = packets.iter().max_by_key(|packet| packet.sent_us)?;
        let oldest_us = packets.iter().map(|packet| packet.sent_us).min()?;
        let bytes: u64 = packets.iter().map(|packet| u64::from(packet.size)).sum();
        let rate = |bytes: u64, us: i64| {
            (us > 0 && us <= MAX_INTERVAL_US).then(|| bytes as f64 * 8e6 / us as f64)
        };
        let send = rate(bytes - u64::from(newest.size), newest.sent_us - oldest_us)?;
        let arrival = rate(bytes - u64::from(first.size), last.arrival_us - first.arrival_us)?;
        let longer_us = last.arrival_us - first.arrival_us - (newest.sent_us - oldest_us);
        (arrival <= MAX_RATIO * send).then_some(Self { send, arrival, longer_us })
    }

    /// Whether the path was not full. Jitter makes the few packets of a short probe late too.
    fn is_fit(&self) -> bool {
        self.arrival >= FULL_RATIO * self.send || self.longer_us <= ON_TIME.1
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
            skip_bytes: 0,
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
    fn jitter_of_a_short_probe_is_no_full_path() {
        // Six packets within 20 ms that take 2.5 ms longer to arrive.
        assert_eq!(measured(4_000, 4_500), Some((1_777_777, true)));
    }

    #[test]
    fn a_probe_released_by_a_queue_says_nothing() {
        assert_eq!(measured(4_000, 1_000), None);
    }

    /// Packets of 1,000 bytes each 4 ms through a bucket of so many at first, then at half the rate.
    fn through_bucket(bucket: i64, count: i64, skip_bytes: u64) -> Option<ProbeResult> {
        let mut results = ProbeResults::default();
        results.expect(ProbeCluster {
            id: 7,
            bitrate_bps: 2_000_000,
            min_bytes: 1_000 * count as u64,
            min_packets: 5,
            min_duration: Duration::from_millis(15),
            skip_bytes,
        });
        (0..count)
            .filter_map(|i| {
                let held_back = (i - 2 * bucket).max(0) * 4_000;
                results.on_packet(&PacketResult {
                    seq: i as u64,
                    sent_us: i * 4_000,
                    arrival_us: Some(50_000 + i * 4_000 + held_back),
                    size: 1_000,
                    probe: Some(7),
                    was_lost: false,
                })
            })
            .last()
    }

    #[test]
    fn a_bucket_is_seen_and_what_follows_it_counts() {
        let result = through_bucket(4, 20, 0).expect("measured");
        assert!(!result.fitted && result.bps == 950_000, "{result:?}");
        assert!((4_000..=5_500).contains(&result.bucket.expect("seen")), "{result:?}");
        let all = through_bucket(20, 20, 0).expect("measured");
        assert_eq!((all.fitted, all.bucket), (true, None));
    }

    #[test]
    fn what_a_bucket_may_take_is_left_out() {
        let result = through_bucket(8, 20, 15_000).expect("measured");
        assert!(!result.fitted && result.bps <= 1_300_000, "{result:?}");
        let open = through_bucket(20, 20, 15_000).expect("measured");
        assert_eq!((open.fitted, open.bps), (true, 2_000_000));
    }

    #[test]
    fn jitter_at_the_end_of_a_long_probe_is_no_full_path() {
        let mut results = ProbeResults::default();
        let (bitrate_bps, skip_bytes) = (2_000_000, 15_000);
        let min_duration = Duration::from_millis(15);
        let (min_bytes, min_packets) = (20_000, 5);
        let cluster =
            ProbeCluster { id: 7, bitrate_bps, min_bytes, min_packets, min_duration, skip_bytes };
        results.expect(cluster);
        let late = |seq: i64| if seq == 19 { 2_800 } else { 0 };
        let result = (0..20).filter_map(|seq: i64| {
            results.on_packet(&PacketResult {
                seq: seq as u64,
                sent_us: seq * 4_000,
                arrival_us: Some(50_000 + seq * 4_000 + late(seq)),
                size: 1_000,
                probe: Some(7),
                was_lost: false,
            })
        });
        let result = result.last().expect("measured");
        assert!(result.fitted && result.bps > 1_700_000, "{result:?}");
    }
}
