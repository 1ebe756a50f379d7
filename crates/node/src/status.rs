//! How the node is doing: sampled at an interval, read by the health check, by `/debug/node` and by
//! the limits of the node.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_engine::{Engine, EngineStats, WorkerStats};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time between samples (LiveKit's `node_stats.stats_update_interval`).
const INTERVAL: Duration = Duration::from_secs(2);

/// A worker that did not turn for this long is stuck (LiveKit's health check: twice the interval).
/// Idle workers turn once a second.
const STUCK_AFTER: Duration = Duration::from_secs(6);

/// One look at the node.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When.
    pub(crate) at: Instant,
    /// Unix time of that.
    pub(crate) unix: Duration,
    /// Sum over the workers.
    pub(crate) total: WorkerStats,
    /// Bytes received per second since the sample before.
    pub(crate) bytes_in_per_sec: u64,
    /// Bytes sent per second since the sample before.
    pub(crate) bytes_out_per_sec: u64,
    /// A worker that does not turn.
    pub(crate) stuck: Option<usize>,
}

/// Limits of the whole node (`limit.num_tracks`, `limit.bytes_per_sec`); 0 = none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NodeLimits {
    /// Tracks in and out.
    pub(crate) num_tracks: u64,
    /// Bytes per second in and out.
    pub(crate) bytes_per_sec: u64,
}

impl NodeLimits {
    /// The limit that a sample exceeds, by its name in the configuration.
    fn exceeded(self, sample: &Sample) -> Option<&'static str> {
        let tracks = sample.total.tracks + sample.total.subscriptions;
        let bytes = sample.bytes_in_per_sec + sample.bytes_out_per_sec;
        match self {
            Self { num_tracks: 1.., .. } if tracks >= self.num_tracks => Some("limit.num_tracks"),
            Self { bytes_per_sec: 1.., .. } if bytes >= self.bytes_per_sec => {
                Some("limit.bytes_per_sec")
            }
            _ => None,
        }
    }
}

/// The latest sample. Clones see the same.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    latest: watch::Receiver<Sample>,
    limits: NodeLimits,
    /// Start of the node.
    pub(crate) started: Instant,
}

impl Status {
    /// Takes a first sample, and further ones until `stop` is cancelled.
    pub(crate) fn watch(engine: Engine, limits: NodeLimits, stop: CancellationToken) -> Self {
        let mut sampler = Sampler::new(&engine.stats(), Instant::now());
        let (sender, latest) = watch::channel(sampler.sample(&engine.stats(), Instant::now()));
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                let sample = sampler.sample(&engine.stats(), Instant::now());
                if sender.send(sample).is_err() {
                    return;
                }
            }
        });
        Self { latest, limits, started: Instant::now() }
    }

    /// The latest sample.
    pub(crate) fn latest(&self) -> Sample {
        self.latest.borrow().clone()
    }

    /// Why the node is not healthy, in the words of the health check.
    pub(crate) fn unhealthy(&self) -> Option<String> {
        let sample = self.latest();
        if let Some(worker) = sample.stuck {
            return Some(format!("media worker {worker} does not turn"));
        }
        let age = sample.at.elapsed();
        (age > STUCK_AFTER).then(|| format!("the node was last sampled {} s ago", age.as_secs()))
    }

    /// The limit that keeps new participants out, by its name in the configuration.
    pub(crate) fn exceeded_limit(&self) -> Option<&'static str> {
        self.limits.exceeded(&self.latest.borrow())
    }
}

/// Turns snapshots of counters into samples.
struct Sampler {
    before: WorkerStats,
    before_at: Instant,
    /// For each worker: its turns, and since when it has not turned.
    turns: Vec<(u64, Instant)>,
}

impl Sampler {
    fn new(stats: &EngineStats, now: Instant) -> Self {
        let turns = stats.workers.iter().map(|worker| (worker.turns, now)).collect();
        Self { before: stats.total(), before_at: now, turns }
    }

    fn sample(&mut self, stats: &EngineStats, now: Instant) -> Sample {
        for (known, worker) in self.turns.iter_mut().zip(&stats.workers) {
            if known.0 != worker.turns {
                *known = (worker.turns, now);
            }
        }
        let still = |since: Instant| now.saturating_duration_since(since) > STUCK_AFTER;
        let stuck = self.turns.iter().position(|(_, since)| still(*since));
        let total = stats.total();
        let seconds = now.saturating_duration_since(self.before_at).as_secs_f64();
        let rate = |now: u64, before: u64| match seconds {
            0.0 => 0,
            _ => (now.saturating_sub(before) as f64 / seconds) as u64,
        };
        let sample = Sample {
            at: now,
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            total,
            bytes_in_per_sec: rate(total.datagram_bytes_in, self.before.datagram_bytes_in),
            bytes_out_per_sec: rate(total.datagram_bytes_out, self.before.datagram_bytes_out),
            stuck,
        };
        (self.before, self.before_at) = (total, now);
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(turns: [u64; 2], datagram_bytes_in: u64) -> EngineStats {
        let worker = |turns| WorkerStats { turns, datagram_bytes_in, ..WorkerStats::default() };
        EngineStats { workers: turns.map(worker).to_vec(), ..EngineStats::default() }
    }

    #[test]
    fn worker_that_stops_turning_is_named_after_a_while() {
        let start = Instant::now();
        let mut sampler = Sampler::new(&stats([1, 1], 0), start);
        let mut at = |seconds, turns| {
            sampler.sample(&stats(turns, 0), start + Duration::from_secs(seconds)).stuck
        };
        assert_eq!(at(2, [2, 2]), None);
        assert_eq!(at(4, [3, 2]), None);
        assert_eq!(at(10, [4, 2]), Some(1));
        assert_eq!(at(12, [5, 3]), None);
    }

    #[test]
    fn rates_are_per_second_since_the_sample_before() {
        let start = Instant::now();
        let mut sampler = Sampler::new(&stats([1, 1], 100), start);
        let sample = sampler.sample(&stats([2, 2], 600), start + Duration::from_secs(2));
        assert_eq!(sample.bytes_in_per_sec, 500);
    }

    #[test]
    fn limits_of_the_node_are_named() {
        let start = Instant::now();
        let mut sampler = Sampler::new(&stats([1, 1], 0), start);
        let mut sample = sampler.sample(&stats([2, 2], 500), start + Duration::from_secs(1));
        sample.total.tracks = 2;
        sample.total.subscriptions = 3;
        let exceeded =
            |num_tracks, bytes_per_sec| NodeLimits { num_tracks, bytes_per_sec }.exceeded(&sample);
        assert_eq!(exceeded(0, 0), None);
        assert_eq!(exceeded(6, 0), None);
        assert_eq!(exceeded(5, 0), Some("limit.num_tracks"));
        assert_eq!(exceeded(0, 1001), None);
        assert_eq!(exceeded(6, 1000), Some("limit.bytes_per_sec"));
    }
}
