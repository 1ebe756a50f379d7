//! For peers that tell an estimate of their own instead of transport-wide feedback
//! (draft-alvestrand-rmcat-remb): it is followed, unless report blocks tell of loss that it
//! ignores.
//!
//! A receiver's estimate does not go much beyond what it receives, so that here too padding has to
//! ask for more.

use std::time::{Duration, Instant};

use sluice_rtp::rtcp::TransportFeedback;

use super::{BandwidthEstimator, BweConfig, BweStats, PacketSent, ProbeCluster};

/// Loss above which the estimate goes down, and factor of the loss in doing so (libwebrtc
/// `send_side_bandwidth_estimation.cc`).
const HIGH_LOSS: f32 = 0.1;
const LOSS_FACTOR: f32 = 0.5;
/// Loss below which it goes up, and growth per second.
const LOW_LOSS: f32 = 0.02;
const GROWTH: f64 = 1.08;
/// Packets that a report of loss must be about.
const MIN_PACKETS: u64 = 20;
/// Shortest time between decreases by loss.
const DECREASE_INTERVAL: Duration = Duration::from_millis(300);
/// A receiver's word holds this long.
const REMB_TIMEOUT: Duration = Duration::from_secs(10);
/// Probes: first interval, growth when they bring nothing, longest interval, duration (LiveKit
/// `probe_regulator.go`).
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
const PROBE_BACKOFF: f64 = 1.5;
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(120);
const PROBE_DURATION: Duration = Duration::from_millis(250);
/// Probed rate, times the estimate; not beyond this multiple of what is wanted.
const PROBE_STEP: f64 = 1.5;
const MAX_OVER_DESIRED: f64 = 1.2;
/// Time to the next probe after one that brought something: a round trip and a word of the receiver.
const NEXT_PROBE: Duration = Duration::from_secs(1);
/// An increase that counts as the effect of a probe.
const SUCCESS: f64 = 1.1;

/// Follows the receiver's estimate.
#[derive(Debug)]
pub struct RembEstimator {
    config: BweConfig,
    remb: Option<(Instant, u64)>,
    /// Limit by loss; starts to count with the first decrease.
    loss_bps: Option<u64>,
    loss_at: Option<Instant>,
    desired_bps: u64,
    rtt: Option<Duration>,
    next_probe: Option<Instant>,
    interval: Duration,
    probed_from_bps: u64,
    next_id: u16,
    due: Option<ProbeCluster>,
}

impl RembEstimator {
    /// Nothing known.
    pub fn new(config: BweConfig) -> Self {
        Self {
            config,
            remb: None,
            loss_bps: None,
            loss_at: None,
            desired_bps: 0,
            rtt: None,
            next_probe: None,
            interval: PROBE_INTERVAL,
            probed_from_bps: 0,
            next_id: 1,
            due: None,
        }
    }

    fn probe(&mut self, now: Instant) {
        let estimate = self.estimate_bps();
        let target = (PROBE_STEP * estimate as f64).min(MAX_OVER_DESIRED * self.desired_bps as f64);
        let rose = estimate as f64 >= SUCCESS * self.probed_from_bps as f64;
        let longer = self.interval.mul_f64(PROBE_BACKOFF).min(MAX_PROBE_INTERVAL);
        self.interval = if rose { NEXT_PROBE } else { longer.max(PROBE_INTERVAL) };
        self.next_probe = Some(now + self.interval);
        self.probed_from_bps = estimate;
        let bitrate_bps = (target as u64).min(self.config.max_bps);
        if bitrate_bps > estimate {
            self.due = Some(ProbeCluster {
                id: self.next_id,
                bitrate_bps,
                min_bytes: bitrate_bps * PROBE_DURATION.as_millis() as u64 / 8_000,
                min_packets: 5,
                min_duration: PROBE_DURATION,
                skip_bytes: 0,
            });
            self.next_id = self.next_id.wrapping_add(1);
        }
    }
}

impl BandwidthEstimator for RembEstimator {
    fn on_packet_sent(&mut self, now: Instant, _packet: PacketSent) {
        self.next_probe.get_or_insert(now + PROBE_INTERVAL);
    }

    fn on_transport_feedback(&mut self, _now: Instant, _feedback: &TransportFeedback<'_>) {
        // Not negotiated.
    }

    fn on_remb(&mut self, now: Instant, bitrate_bps: u64) {
        self.remb = Some((now, bitrate_bps));
    }

    fn on_loss_report(&mut self, now: Instant, fraction_lost: f32, packets: u64) {
        if packets < MIN_PACKETS {
            return;
        }
        let elapsed =
            self.loss_at.map_or(DECREASE_INTERVAL, |at| now.saturating_duration_since(at));
        let estimate = self.estimate_bps() as f64;
        if fraction_lost > HIGH_LOSS && elapsed >= DECREASE_INTERVAL {
            self.loss_bps = Some((estimate * f64::from(1.0 - LOSS_FACTOR * fraction_lost)) as u64);
            self.loss_at = Some(now);
        } else if fraction_lost < LOW_LOSS
            && let Some(limit) = self.loss_bps
        {
            let grown = limit as f64 * GROWTH.powf(elapsed.as_secs_f64().min(1.0)) + 1_000.0;
            self.loss_at = Some(now);
            let remb = self.remb.map_or(self.config.max_bps, |(_, bps)| bps);
            self.loss_bps = (grown < remb as f64).then_some(grown as u64);
        }
    }

    fn on_rtt(&mut self, _now: Instant, rtt: Duration) {
        self.rtt = Some(rtt);
    }

    fn set_desired(&mut self, _now: Instant, desired_bps: u64) {
        if desired_bps as f64 > self.desired_bps as f64 * SUCCESS {
            self.interval = PROBE_INTERVAL;
        }
        self.desired_bps = desired_bps;
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.remb.is_some_and(|(at, _)| now >= at + REMB_TIMEOUT) {
            self.remb = None;
        }
        if self.next_probe.is_none_or(|at| now < at) {
            return;
        }
        if self.estimate_bps() < self.desired_bps && self.remb.is_some() {
            self.probe(now);
        } else {
            self.next_probe = Some(now + PROBE_INTERVAL);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next_probe
    }

    fn poll_probe(&mut self, _now: Instant) -> Option<ProbeCluster> {
        self.due.take()
    }

    fn estimate_bps(&self) -> u64 {
        let remb = self.remb.map_or(self.config.start_bps, |(_, bps)| bps);
        let limit = self.loss_bps.unwrap_or(u64::MAX);
        remb.min(limit).clamp(self.config.min_bps, self.config.max_bps)
    }

    fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    fn stats(&self) -> BweStats {
        let estimate_bps = self.estimate_bps();
        BweStats { estimate_bps, loss_bps: self.loss_bps, ..BweStats::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    #[test]
    fn the_receivers_word_holds_and_expires() {
        let t0 = epoch();
        let mut estimator = RembEstimator::new(BweConfig::default());
        assert_eq!(estimator.estimate_bps(), 600_000);
        estimator.on_remb(t0, 900_000);
        assert_eq!(estimator.estimate_bps(), 900_000);
        estimator.handle_timeout(t0 + REMB_TIMEOUT);
        assert_eq!(estimator.estimate_bps(), 600_000);
    }

    #[test]
    fn heavy_loss_lowers_it_and_none_brings_it_back() {
        let t0 = epoch();
        let mut estimator = RembEstimator::new(BweConfig::default());
        estimator.on_remb(t0, 1_000_000);
        estimator.on_loss_report(t0, 0.5, 100);
        assert_eq!(estimator.estimate_bps(), 750_000);
        for second in 1..10u32 {
            let now = t0 + Duration::from_secs(1) * second;
            estimator.on_remb(now, 1_000_000);
            estimator.on_loss_report(now, 0.0, 100);
        }
        assert_eq!(estimator.estimate_bps(), 1_000_000);
    }

    #[test]
    fn padding_asks_for_more_while_something_is_held_back() {
        let t0 = epoch();
        let mut estimator = RembEstimator::new(BweConfig::default());
        estimator.on_packet_sent(t0, PacketSent { transport_seq: 0, size: 1, probe: None });
        estimator.set_desired(t0, 2_000_000);
        estimator.on_remb(t0, 500_000);
        estimator.handle_timeout(t0 + PROBE_INTERVAL);
        let probe = estimator.poll_probe(t0).expect("a probe is due");
        assert_eq!(probe.bitrate_bps, 750_000);
        estimator.set_desired(t0, 400_000);
        estimator.handle_timeout(t0 + PROBE_INTERVAL * 4);
        assert_eq!(estimator.poll_probe(t0), None);
    }
}
