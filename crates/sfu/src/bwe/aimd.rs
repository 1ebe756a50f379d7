//! Rate control on top of the delay detector: additive or multiplicative increase, decrease below
//! what arrives (libwebrtc `aimd_rate_control.cc`, `link_capacity_estimator.cc`).

use std::time::{Duration, Instant};

use super::NetworkState;

/// Factor on what arrives when queues grow, least and most: libwebrtc's 0.85 costs a sender that sees
/// a queue early more than it brings. In between, what waits is to drain within [`DRAIN_TIME`].
const BACKOFF: (f64, f64) = (0.85, 0.95);
const DRAIN_TIME: Duration = Duration::from_millis(300);
/// Increase per second far from the capacity.
const GROWTH_PER_SECOND: f64 = 1.08;
/// The estimate is not raised beyond this share of what arrives, and some.
const ACKED_HEADROOM: (f64, f64) = (1.5, 10_000.0);
/// Round-trip time before the first measurement.
const DEFAULT_RTT: Duration = Duration::from_millis(200);
/// Shortest and longest time between decreases; in between, a round trip.
const DECREASE_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(200));
/// What arrives must be this much above the capacity known until the latter is forgotten. libwebrtc
/// forgets it at once and then grows fast into the limit it has just left.
const OUTGROWN: f64 = 1.15;
/// Pictures per second and bytes per packet assumed for the additive step.
const STEP_FPS: f64 = 30.0;
const STEP_PACKET_BITS: f64 = 1_200.0 * 8.0;
/// Least increase per second near the capacity, bits per second.
const MIN_ADDITIVE_BPS: f64 = 4_000.0;
/// The same as a share of the estimate: one packet per response time takes a minute to make up for
/// one decrease at several Mbit/s.
const MIN_ADDITIVE_SHARE: f64 = 0.025;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Hold,
    Increase,
    Decrease,
}

/// The rate control.
#[derive(Debug)]
pub struct Aimd {
    bitrate_bps: f64,
    range_bps: (f64, f64),
    state: State,
    capacity: LinkCapacity,
    changed: Option<Instant>,
    decreased: Option<Instant>,
    rtt: Duration,
}

impl Aimd {
    /// Starts at an estimate.
    pub fn new(start_bps: u64, min_bps: u64, max_bps: u64) -> Self {
        Self {
            bitrate_bps: start_bps as f64,
            range_bps: (min_bps as f64, max_bps as f64),
            state: State::Hold,
            capacity: LinkCapacity::default(),
            changed: None,
            decreased: None,
            rtt: DEFAULT_RTT,
        }
    }

    /// The estimate, bits per second.
    pub fn bitrate_bps(&self) -> u64 {
        self.bitrate_bps as u64
    }

    /// Sets the round-trip time.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// Replaces the estimate, by that of a probe.
    pub fn set_bitrate(&mut self, now: Instant, bitrate_bps: u64) {
        self.bitrate_bps = self.clamp(bitrate_bps as f64);
        self.changed = Some(now);
    }

    /// Whether another decrease is due while queues go on growing.
    pub fn may_decrease(&self, now: Instant, acked_bps: u64) -> bool {
        let interval = self.rtt.clamp(DECREASE_INTERVAL.0, DECREASE_INTERVAL.1);
        self.decreased.is_none_or(|at| now >= at + interval)
            || (acked_bps as f64) < 0.5 * self.bitrate_bps
    }

    /// Moves the estimate, given what the path does, how long packets wait in it, and what arrives.
    pub fn update(
        &mut self,
        now: Instant,
        network: NetworkState,
        queue: Duration,
        acked_bps: Option<u64>,
    ) {
        self.state = match network {
            NetworkState::Overuse => State::Decrease,
            NetworkState::Underuse => State::Hold,
            NetworkState::Normal if self.state == State::Hold => {
                self.changed = Some(now);
                State::Increase
            }
            NetworkState::Normal => self.state,
        };
        let acked = acked_bps.map_or(self.bitrate_bps, |bps| bps as f64);
        match self.state {
            State::Hold => {}
            State::Increase => self.increase(now, acked),
            State::Decrease => self.decrease(now, queue, acked),
        }
    }

    fn increase(&mut self, now: Instant, acked: f64) {
        if self.capacity.upper().is_some_and(|upper| acked > OUTGROWN * upper) {
            self.capacity = LinkCapacity::default();
        }
        let limit = ACKED_HEADROOM.0 * acked + ACKED_HEADROOM.1;
        let elapsed = self.changed.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if self.bitrate_bps < limit {
            let step = match self.capacity.estimate_kbps {
                Some(_) => self.additive_bps() * elapsed.as_secs_f64(),
                None => {
                    let factor = GROWTH_PER_SECOND.powf(elapsed.as_secs_f64().min(1.0));
                    (self.bitrate_bps * (factor - 1.0)).max(1_000.0 * elapsed.as_secs_f64())
                }
            };
            self.bitrate_bps = self.clamp((self.bitrate_bps + step).min(limit));
        }
        self.changed = Some(now);
    }

    fn decrease(&mut self, now: Instant, queue: Duration, acked: f64) {
        let drained = 1.0 - queue.as_secs_f64() / DRAIN_TIME.as_secs_f64();
        let backoff = drained.clamp(BACKOFF.0, BACKOFF.1);
        let mut target = acked * backoff;
        if target > self.bitrate_bps
            && let Some(kbps) = self.capacity.estimate_kbps
        {
            target = kbps * 1_000.0 * backoff;
        }
        self.bitrate_bps = self.clamp(target.min(self.bitrate_bps));
        if self.capacity.lower().is_some_and(|lower| acked < lower) {
            self.capacity = LinkCapacity::default();
        }
        self.capacity.on_overuse(acked);
        self.state = State::Hold;
        self.changed = Some(now);
        self.decreased = Some(now);
    }

    /// Increase near the capacity, bits per second each second: one packet per response time.
    fn additive_bps(&self) -> f64 {
        let frame_bits = self.bitrate_bps / STEP_FPS;
        let packets = (frame_bits / STEP_PACKET_BITS).ceil().max(1.0);
        let response = (self.rtt + Duration::from_millis(100)) * 2;
        let packet_step = frame_bits / packets / response.as_secs_f64();
        packet_step.max(MIN_ADDITIVE_SHARE * self.bitrate_bps).max(MIN_ADDITIVE_BPS)
    }

    fn clamp(&self, bitrate_bps: f64) -> f64 {
        bitrate_bps.clamp(self.range_bps.0, self.range_bps.1)
    }
}

/// Smoothed rate that arrived when queues grew, with its spread.
#[derive(Debug)]
struct LinkCapacity {
    estimate_kbps: Option<f64>,
    /// Variance relative to the estimate, kbit/s.
    deviation_kbps: f64,
}

impl Default for LinkCapacity {
    fn default() -> Self {
        Self { estimate_kbps: None, deviation_kbps: 0.4 }
    }
}

impl LinkCapacity {
    /// Weight of a new sample.
    const ALPHA: f64 = 0.05;

    fn on_overuse(&mut self, acked_bps: f64) {
        let sample = acked_bps / 1_000.0;
        let estimate = match self.estimate_kbps {
            None => sample,
            Some(old) => (1.0 - Self::ALPHA) * old + Self::ALPHA * sample,
        };
        let error = estimate - sample;
        let variance = error * error / estimate.max(1.0);
        let deviation = (1.0 - Self::ALPHA) * self.deviation_kbps + Self::ALPHA * variance;
        // 14 to 35 kbit/s at 500 kbit/s (libwebrtc).
        self.deviation_kbps = deviation.clamp(0.4, 2.5);
        self.estimate_kbps = Some(estimate);
    }

    fn upper(&self) -> Option<f64> {
        self.estimate_kbps.map(|kbps| (kbps + self.spread(kbps)) * 1_000.0)
    }

    fn lower(&self) -> Option<f64> {
        self.estimate_kbps.map(|kbps| (kbps - self.spread(kbps)).max(0.0) * 1_000.0)
    }

    /// Three standard deviations.
    fn spread(&self, kbps: f64) -> f64 {
        3.0 * (self.deviation_kbps * kbps).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    const LONG: Duration = Duration::from_millis(100);

    #[test]
    fn overuse_goes_below_what_arrives_the_deeper_the_more_waits() {
        for (queue_ms, left) in [(0, 950_000), (30, 900_000), (100, 850_000)] {
            let mut aimd = Aimd::new(2_000_000, 30_000, 10_000_000);
            let queue = Duration::from_millis(queue_ms);
            aimd.update(epoch(), NetworkState::Overuse, queue, Some(1_000_000));
            assert_eq!(aimd.bitrate_bps(), left);
        }
    }

    #[test]
    fn increase_stays_near_what_arrives() {
        let t0 = epoch();
        let mut aimd = Aimd::new(1_000_000, 30_000, 10_000_000);
        for second in 0..60u32 {
            let now = t0 + Duration::from_secs(1) * second;
            aimd.update(now, NetworkState::Normal, Duration::ZERO, Some(1_000_000));
        }
        assert_eq!(aimd.bitrate_bps(), 1_510_000);
    }

    #[test]
    fn near_the_capacity_steps_are_small() {
        let t0 = epoch();
        let mut aimd = Aimd::new(1_000_000, 30_000, 10_000_000);
        aimd.update(t0, NetworkState::Overuse, LONG, Some(1_000_000));
        for tenth in 1..=20u32 {
            let now = t0 + Duration::from_millis(100) * tenth;
            aimd.update(now, NetworkState::Normal, Duration::ZERO, Some(850_000));
        }
        let grown = aimd.bitrate_bps() - 850_000;
        assert!((5_000..100_000).contains(&grown), "{grown}");
    }
}
