//! The loss-based estimate: the bandwidth that explains best what was lost, given that some loss is
//! inherent in the path and has nothing to do with us (libwebrtc `loss_based_bwe_v2.cc`).
//!
//! Every quarter of a second becomes an observation. The model: a packet is lost with the path's
//! inherent probability, and what is sent beyond the bandwidth is lost as well. Some candidates
//! around the current estimate are tried; the one under which the observations are most probable,
//! with a preference for more bandwidth, is the next.

use std::time::{Duration, Instant};

use super::history::PacketResult;

/// Observations remembered, and how many there must be.
const WINDOW: usize = 15;
const MIN_OBSERVATIONS: u64 = 3;
/// Least duration of one, microseconds.
const OBSERVATION_US: i64 = 250_000;
/// Weight of an observation, per step of age.
const WEIGHT: f64 = 0.9;
/// The same by age.
const WEIGHTS: [f64; WINDOW] = {
    let (mut weights, mut age) = ([1.0; WINDOW], 1);
    while age < WINDOW {
        weights[age] = weights[age - 1] * WEIGHT;
        age += 1;
    }
    weights
};
/// Candidates relative to the current estimate.
const CANDIDATES: [f64; 3] = [1.02, 1.0, 0.95];
/// Step of the Newton iteration.
const NEWTON_STEP: f64 = 0.75;
/// Inherent loss: at the start, least, and most, the latter with an offset at low bandwidth.
const INHERENT_START: f64 = 0.01;
const INHERENT_MIN: f64 = 0.001;
const INHERENT_MAX: f64 = 0.05;
const INHERENT_BALANCE_BPS: f64 = 100_000.0;
/// Preference for more bandwidth, and the loss at which it turns around, smoothly.
const PREFERENCE: f64 = 0.0002;
const LOG_PREFERENCE: f64 = 0.02;
const PREFERENCE_LOSS: f64 = 0.2;
const PREFERENCE_SMOOTHING: f64 = 0.002;
/// Beyond this loss the estimate is capped at once, the lower the more is lost.
const INSTANT_LOSS: f64 = 0.05;
const INSTANT_BALANCE_BPS: f64 = 100_000.0;
/// Standard deviations by which a loss must be above that.
const CONFIDENCE: f64 = 1.6;
/// Most that the estimate may be above what arrives, normally and after a decrease.
const RAMP_UP: f64 = 1.5;
const RAMP_UP_IN_HOLD: f64 = 1.2;
/// Most that it may grow within one window.
const MAX_GROWTH: f64 = 1.3;
const GROWTH_WINDOW: Duration = Duration::from_millis(300);
/// No increase for this long after a decrease; doubles with every further one.
const HOLD: Duration = Duration::from_millis(300);
const HOLD_FACTOR: u32 = 2;
const MAX_HOLD: Duration = Duration::from_secs(60);
/// A loss of this share is over when so many packets in a row have come that under it they would have
/// with this probability: while little is sent, as after it, what it lost would weigh for seconds.
const HEAVY_LOSS: f64 = 0.2;
const IMPROBABLE: f64 = 0.01;
/// Less is none.
const NO_LOSS: f64 = 0.005;
/// Keeps logarithms finite.
const EPSILON: f64 = 1e-6;

/// Whether loss limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossState {
    /// No: the delay-based estimate holds.
    DelayBased,
    /// Yes, and the estimate goes down.
    Decreasing,
    /// Yes, and the estimate recovers.
    Increasing,
}

#[derive(Debug, Clone, Copy, Default)]
struct Observation {
    /// Kilobytes.
    lost: f64,
    received: f64,
    packets: f64,
    sending_bps: f64,
    id: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Partial {
    bytes: u64,
    lost: u64,
    packets: u32,
    from_us: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Model {
    inherent: f64,
    bandwidth_bps: f64,
}

/// The loss-based estimator.
#[derive(Debug)]
pub struct LossBased {
    observations: [Option<Observation>; WINDOW],
    count: u64,
    partial: Partial,
    /// Packets that have come since the last one that did not.
    in_a_row: u32,
    model: Model,
    state: LossState,
    hold: Duration,
    hold_until: Option<Instant>,
    window: Option<(Instant, f64)>,
    min_bps: f64,
}

impl LossBased {
    /// Nothing known.
    pub fn new(start_bps: u64, min_bps: u64) -> Self {
        Self {
            observations: [None; WINDOW],
            count: 0,
            partial: Partial::default(),
            in_a_row: 0,
            model: Model { inherent: INHERENT_START, bandwidth_bps: start_bps as f64 },
            state: LossState::DelayBased,
            hold: HOLD,
            hold_until: None,
            window: None,
            min_bps: min_bps as f64,
        }
    }

    /// Takes the results of one feedback message and moves the estimate.
    pub fn update(
        &mut self,
        now: Instant,
        results: &[PacketResult],
        delay_bps: u64,
        acked_bps: Option<u64>,
    ) {
        if self.state == LossState::DelayBased {
            self.model.bandwidth_bps = self.model.bandwidth_bps.max(delay_bps as f64);
        }
        let observed = self.observe(results);
        if self.is_over() {
            self.forget();
        }
        if !observed || self.count < MIN_OBSERVATIONS {
            // Delay may go down in between.
            self.model.bandwidth_bps = self.model.bandwidth_bps.min(delay_bps as f64);
            return;
        }
        let delay = delay_bps as f64;
        let loss = self.average_loss();
        let acked = acked_bps.map(|bps| bps as f64);
        // Without any loss no bandwidth explains what was seen better than the highest.
        let best = match loss == 0.0 && self.state == LossState::DelayBased {
            true => self.fitted(delay.max(self.min_bps)),
            false => {
                let best = self.best_candidate(now, loss, delay, acked);
                Model { bandwidth_bps: self.bounded(now, best, loss, acked), ..best }
            }
        };
        self.conclude(now, best, delay);
    }

    /// The estimate, bits per second; `None` while it does not limit.
    pub fn limit_bps(&self) -> Option<u64> {
        (self.state != LossState::DelayBased).then_some(self.model.bandwidth_bps as u64)
    }

    /// Takes what a probe measured, bits per second: what arrived of it, in spite of all loss, fits.
    pub fn on_probe(&mut self, bitrate_bps: u64) {
        if self.state != LossState::DelayBased && bitrate_bps as f64 > self.model.bandwidth_bps {
            self.model.bandwidth_bps = bitrate_bps as f64;
            self.state = LossState::Increasing;
        }
    }

    /// Whether loss has lately forced the estimate down.
    pub fn is_decreasing(&self, now: Instant) -> bool {
        let in_hold = self.hold_until.is_some_and(|until| now < until);
        self.state == LossState::Decreasing && in_hold
    }

    /// Whether loss limits.
    pub fn state(&self) -> LossState {
        self.state
    }

    /// Loss of the path that is not our making, 0..=1.
    pub fn inherent_loss(&self) -> f64 {
        self.model.inherent
    }

    /// Weighted loss of the last seconds, 0..=1.
    pub fn average_loss(&self) -> f64 {
        let (mut lost, mut all) = (0.0, 0.0);
        for (weight, observation) in self.weighted() {
            lost += weight * observation.lost;
            all += weight * (observation.lost + observation.received);
        }
        if all > 0.0 { lost / all } else { 0.0 }
    }

    /// The loss that is beyond chance: so few packets tell a loss of 5 % from one of 10 % only now and
    /// then.
    fn certain_loss(&self) -> f64 {
        let loss = self.average_loss();
        let packets: f64 = self.weighted().map(|(weight, o)| weight * o.packets).sum();
        let deviation = (loss * (1.0 - loss) / packets.max(1.0)).sqrt();
        (loss - CONFIDENCE * deviation).max(0.0)
    }

    /// Whether the loss that is remembered has ended.
    fn is_over(&self) -> bool {
        if self.state == LossState::DelayBased {
            return false;
        }
        let loss = self.average_loss();
        loss >= HEAVY_LOSS && (1.0 - loss).powf(self.in_a_row.into()) < IMPROBABLE
    }

    /// Forgets what was lost, but not what the path was last thought to carry.
    fn forget(&mut self) {
        self.observations = [None; WINDOW];
        self.count = 0;
        self.partial = Partial::default();
        if self.state == LossState::Decreasing {
            self.state = LossState::Increasing;
        }
    }

    /// Counts packets; returns whether that completed an observation.
    fn observe(&mut self, results: &[PacketResult]) -> bool {
        let mut newest = i64::MIN;
        for result in results {
            let size = u64::from(result.size);
            let came = result.arrival_us.is_some();
            self.in_a_row = if came { self.in_a_row.saturating_add(1) } else { 0 };
            let partial = &mut self.partial;
            match (result.arrival_us, result.was_lost) {
                // It was late, not lost; unless the observation that counted it is closed.
                (Some(_), true) => partial.lost = partial.lost.saturating_sub(size),
                (arrival, _) => {
                    partial.bytes += size;
                    partial.packets += 1;
                    partial.lost += if arrival.is_none() { size } else { 0 };
                    let from = partial.from_us.get_or_insert(result.sent_us);
                    *from = (*from).min(result.sent_us);
                    newest = newest.max(result.sent_us);
                }
            }
        }
        let Some(from) = self.partial.from_us else { return false };
        let duration = newest.saturating_sub(from);
        if duration < OBSERVATION_US {
            return false;
        }
        let Partial { bytes, lost, packets, .. } = std::mem::take(&mut self.partial);
        let lost = lost.min(bytes);
        let observation = Observation {
            lost: lost as f64 / 1_000.0,
            received: (bytes - lost) as f64 / 1_000.0,
            packets: f64::from(packets),
            sending_bps: bytes as f64 * 8e6 / duration as f64,
            id: self.count,
        };
        self.observations[self.count as usize % WINDOW] = Some(observation);
        self.count += 1;
        true
    }

    fn weighted(&self) -> impl Iterator<Item = (f64, &Observation)> {
        let newest = self.count.saturating_sub(1);
        let weight = move |o: &Observation| WEIGHTS[(newest - o.id) as usize % WINDOW];
        self.observations.iter().flatten().map(move |o| (weight(o), o))
    }

    fn best_candidate(&self, now: Instant, loss: f64, delay: f64, acked: Option<f64>) -> Model {
        let current = self.model.bandwidth_bps;
        let in_hold = self.hold_until.is_some_and(|until| now < until);
        let ramp = if in_hold { RAMP_UP_IN_HOLD } else { RAMP_UP };
        // Where nothing is lost, what delay and probes say is believed: a forwarder that waits to
        // send a whole layer more would never be acked beyond the limit.
        let proven = acked.filter(|_| loss >= NO_LOSS);
        let ceiling = proven.map_or(f64::INFINITY, |acked| current.max(ramp * acked));
        let others = [acked, (delay > current).then_some(delay)];
        let candidates = CANDIDATES.iter().map(|factor| Some(factor * current)).chain(others);
        let mut best: Option<(f64, Model)> = None;
        for bandwidth in candidates.flatten() {
            let bandwidth_bps = bandwidth.min(ceiling).min(delay.max(self.min_bps));
            let model = self.fitted(bandwidth_bps.max(self.min_bps));
            let value = self.objective(&model, loss);
            if best.is_none_or(|(top, _)| value > top) {
                best = Some((value, model));
            }
        }
        best.map_or(self.model, |(_, model)| model)
    }

    /// One Newton step of the inherent loss under a bandwidth.
    fn fitted(&self, bandwidth_bps: f64) -> Model {
        let mut inherent = feasible(self.model.inherent, bandwidth_bps);
        let model = Model { inherent, bandwidth_bps };
        let (mut first, mut second) = (0.0, 0.0);
        for (weight, observation) in self.weighted() {
            let p = model.loss_probability(observation.sending_bps);
            let (lost, received) = (observation.lost, observation.received);
            first += weight * (lost / p - received / (1.0 - p));
            second -= weight * (lost / (p * p) + received / ((1.0 - p) * (1.0 - p)));
        }
        if second < 0.0 {
            inherent -= NEWTON_STEP * first / second;
        }
        Model { inherent: feasible(inherent, bandwidth_bps), bandwidth_bps }
    }

    fn objective(&self, model: &Model, loss: f64) -> f64 {
        let kbps = model.bandwidth_bps / 1_000.0;
        let distance = PREFERENCE_LOSS - loss;
        let turn = distance / (PREFERENCE_SMOOTHING + distance.abs());
        let preference = turn * (PREFERENCE * kbps + LOG_PREFERENCE * (1.0 + kbps).ln());
        self.weighted()
            .map(|(weight, observation)| {
                let p = model.loss_probability(observation.sending_bps);
                let (lost, received) = (observation.lost, observation.received);
                let likelihood = lost * p.ln() + received * (1.0 - p).ln();
                weight * (likelihood + preference * (lost + received))
            })
            .sum()
    }

    fn bounded(&mut self, now: Instant, best: Model, loss: f64, acked: Option<f64>) -> f64 {
        let current = self.model.bandwidth_bps;
        let mut bandwidth = best.bandwidth_bps;
        // More loss than the path's own: not the moment to go up.
        if bandwidth > current && loss > best.inherent && self.state != LossState::DelayBased {
            bandwidth = current;
        }
        let certain = self.certain_loss();
        if certain > INSTANT_LOSS {
            let instant = INSTANT_BALANCE_BPS / (certain - INSTANT_LOSS);
            // What arrived in spite of it does fit.
            let floor = acked.unwrap_or(0.0).min(current);
            bandwidth = bandwidth.min(instant.max(floor * 0.9));
        }
        if self.state != LossState::DelayBased {
            let (since, limit) = self.window.unwrap_or((now, current * MAX_GROWTH));
            let expired = now >= since + GROWTH_WINDOW;
            let limit = if expired { current * MAX_GROWTH } else { limit };
            self.window = Some((if expired { now } else { since }, limit));
            bandwidth = bandwidth.min(limit);
        }
        bandwidth.max(self.min_bps)
    }

    fn conclude(&mut self, now: Instant, best: Model, delay: f64) {
        let before = self.model.bandwidth_bps;
        self.model = best;
        let limits = best.bandwidth_bps < delay;
        if !limits {
            self.model.bandwidth_bps = delay;
            if self.hold_until.is_none_or(|until| now >= until) {
                self.hold = HOLD;
            }
            self.state = LossState::DelayBased;
            self.window = None;
        } else if best.bandwidth_bps < before {
            if self.state == LossState::Increasing {
                self.hold = (self.hold * HOLD_FACTOR).min(MAX_HOLD);
            }
            self.hold_until = Some(now + self.hold);
            self.state = LossState::Decreasing;
        } else if self.state == LossState::DelayBased || best.bandwidth_bps > before {
            self.state = LossState::Increasing;
        }
    }
}

impl Model {
    fn loss_probability(&self, sending_bps: f64) -> f64 {
        let mut p = self.inherent;
        if sending_bps > self.bandwidth_bps {
            p += (1.0 - p) * (sending_bps - self.bandwidth_bps) / sending_bps;
        }
        p.clamp(EPSILON, 1.0 - EPSILON)
    }
}

/// Cuts an inherent loss to what is believed of a path of this bandwidth.
fn feasible(inherent: f64, bandwidth_bps: f64) -> f64 {
    let most = (INHERENT_MAX + INHERENT_BALANCE_BPS / bandwidth_bps.max(1.0)).min(1.0);
    inherent.clamp(INHERENT_MIN, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    /// A sender at 1 Mbit/s that loses `percent` of its packets evenly; the limits over time.
    fn run(percent: u64, seconds: u64, delay_bps: u64) -> LossBased {
        let t0 = epoch();
        let mut loss = LossBased::new(delay_bps, 30_000);
        let mut seq = 0;
        for step in 0..seconds * 10 {
            let results: Vec<PacketResult> = (0..10)
                .map(|i| {
                    seq += 1;
                    let lost = (seq * percent) % 100 < percent;
                    let sent_us = (step * 100 + i * 10) as i64 * 1_000;
                    PacketResult {
                        seq,
                        sent_us,
                        arrival_us: (!lost).then_some(sent_us + 20_000),
                        size: 1_250,
                        probe: None,
                        was_lost: false,
                    }
                })
                .collect();
            let acked = 1_000_000 * (100 - percent) / 100;
            let now = t0 + Duration::from_millis(step * 100);
            loss.update(now, &results, delay_bps, Some(acked));
        }
        loss
    }

    #[test]
    fn no_loss_does_not_limit() {
        let loss = run(0, 10, 1_500_000);
        assert_eq!(loss.limit_bps(), None);
        assert!(loss.inherent_loss() < 0.01);
    }

    #[test]
    fn a_little_loss_is_the_paths_own() {
        let loss = run(3, 20, 1_200_000);
        assert!(loss.limit_bps().is_none_or(|bps| bps > 900_000), "{loss:?}");
    }

    #[test]
    fn much_loss_limits() {
        let loss = run(40, 10, 1_500_000);
        assert!(loss.limit_bps().is_some_and(|bps| bps < 700_000), "{loss:?}");
    }

    #[test]
    fn a_probe_that_arrived_raises_what_loss_had_limited() {
        let mut loss = run(40, 10, 1_500_000);
        let limit = loss.limit_bps().expect("much loss limits");
        loss.on_probe(limit / 2);
        assert_eq!(loss.limit_bps(), Some(limit));
        loss.on_probe(limit * 2);
        assert_eq!((loss.limit_bps(), loss.state()), (Some(limit * 2), LossState::Increasing));
    }

    #[test]
    fn a_heavy_loss_is_over_when_enough_packets_have_come_in_a_row() {
        let t0 = epoch() + Duration::from_secs(10);
        let mut loss = run(40, 10, 1_500_000);
        let limit = loss.limit_bps().expect("much loss limits");
        let come = |loss: &mut LossBased, packets: u64| {
            let result = |seq: u64| PacketResult {
                seq,
                sent_us: 10_000_000 + seq as i64,
                arrival_us: Some(10_020_000),
                size: 200,
                probe: None,
                was_lost: false,
            };
            let results: Vec<PacketResult> = (0..packets).map(result).collect();
            loss.update(t0, &results, 1_500_000, Some(50_000));
        };
        // Of eight, all come with a probability of two percent.
        come(&mut loss, 8);
        assert!(loss.average_loss() > 0.3, "{loss:?}");
        come(&mut loss, 2);
        assert_eq!((loss.average_loss(), loss.state()), (0.0, LossState::Increasing));
        assert_eq!(loss.limit_bps(), Some(limit));
    }

    #[test]
    fn the_fewer_packets_the_less_a_loss_is_believed() {
        let mut loss = LossBased::new(1_000_000, 30_000);
        let results = |packets: u64, lost: u64| -> Vec<PacketResult> {
            let result = |i: u64| PacketResult {
                seq: i,
                sent_us: (i * 300_000 / (packets - 1)) as i64,
                arrival_us: (i >= lost).then_some(1),
                size: 1_000,
                probe: None,
                was_lost: false,
            };
            (0..packets).map(result).collect()
        };
        assert!(loss.observe(&results(20, 2)));
        assert!(loss.average_loss() > 0.09 && loss.certain_loss() < INSTANT_LOSS, "{loss:?}");
        let mut loss = LossBased::new(1_000_000, 30_000);
        assert!(loss.observe(&results(1_000, 100)));
        assert!(loss.certain_loss() > 0.08, "{loss:?}");
    }
}
