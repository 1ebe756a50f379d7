//! When to send more than anybody wants, to learn whether it fits (libwebrtc
//! `probe_controller.cc`).
//!
//! At the start in steps of the first estimate; then, as long as receivers want more than the
//! estimate, regularly: a forwarder sends whole layers, so that without probes the estimate would
//! stay just above the layer that is being sent. After a sudden drop, once it has passed.

use std::time::{Duration, Instant};

/// First probes, times the start estimate.
const INITIAL: [f64; 2] = [3.0, 6.0];
/// Next probe after a good one, times its result; and any regular probe, times the estimate.
const STEP: f64 = 2.0;
/// The same while loss limits.
const LOSS_LIMITED_STEP: f64 = 1.5;
/// Share of the probed rate that a result must reach for another step.
const FURTHER: f64 = 0.7;
/// A result is waited for this long.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Time between probes while we are the limit (libwebrtc `alr_probing_interval`).
const ALR_INTERVAL: Duration = Duration::from_secs(5);
/// Time between probes while something is held back; grows by [`BACKOFF`] with every probe that
/// brings nothing (LiveKit: 3 s, 1.5): a link that has recovered is found within a few seconds, for one
/// percent of its capacity.
const DEFICIT_INTERVAL: Duration = Duration::from_secs(2);
const BACKOFF: f64 = 1.5;
const MAX_DEFICIT_INTERVAL: Duration = Duration::from_secs(3);
/// A probe brought something if the estimate rose by this factor.
const SUCCESS: f64 = 1.15;
/// An estimate below this share of the one before is a drop worth a probe when it has passed.
const LARGE_DROP: f64 = 0.66;
/// Share of the rate before the drop that is probed for, and for how long after it.
const RECOVERY_SHARE: f64 = 0.85;
const RECOVERY_WINDOW: Duration = Duration::from_secs(5);
/// Nothing is probed beyond this multiple of what is wanted.
const MAX_OVER_DESIRED: f64 = 1.5;
/// With this multiple of what is wanted nothing needs to be probed.
const ENOUGH: f64 = 1.1;
/// A rate that is about to be used is probed with this factor, for this long, and so often.
const VERIFY_STEP: f64 = 1.1;
const VERIFY_DURATION: Duration = Duration::from_millis(25);
const VERIFY_INTERVAL: Duration = Duration::from_millis(500);
/// A cluster is at least this long and this many packets.
const MIN_DURATION: Duration = Duration::from_millis(15);
const MIN_PACKETS: u32 = 5;

/// A probe to send: packets that follow each other at `bitrate_bps`, until all three limits are
/// reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeCluster {
    /// Name of the cluster.
    pub id: u16,
    /// Rate of all packets sent meanwhile, media included, bits per second.
    pub bitrate_bps: u64,
    /// Bytes at least.
    pub min_bytes: u64,
    /// Packets at least.
    pub min_packets: u32,
    /// Time at least.
    pub min_duration: Duration,
}

/// What holds for a moment of the estimate.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// Estimate, bits per second.
    pub estimate_bps: u64,
    /// Since when we are the limit.
    pub alr_since: Option<Instant>,
    /// Whether queues grow or loss forces the estimate down: no time to send more.
    pub congested: bool,
    /// Whether loss keeps the estimate below that of delay.
    pub loss_limited: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent yet.
    Init,
    /// A result may lead to another step, if it reaches this rate.
    Waiting { further_bps: u64, since: Instant },
    /// Until a reason comes.
    Done,
}

/// Decides about probes.
#[derive(Debug)]
pub struct ProbeController {
    state: State,
    max_bps: u64,
    desired_bps: u64,
    queue: [Option<ProbeCluster>; INITIAL.len()],
    next_id: u16,
    last_probe: Option<Instant>,
    /// Estimate when the last regular probe was sent.
    probed_from_bps: u64,
    interval: Duration,
    last_estimate_bps: u64,
    drop: Option<(Instant, u64)>,
    alr_ended: Option<Instant>,
    was_alr: bool,
}

impl ProbeController {
    /// Before the first probe.
    pub fn new(max_bps: u64) -> Self {
        Self {
            state: State::Init,
            max_bps,
            desired_bps: 0,
            queue: [None; INITIAL.len()],
            next_id: 1,
            last_probe: None,
            probed_from_bps: 0,
            interval: DEFICIT_INTERVAL,
            last_estimate_bps: 0,
            drop: None,
            alr_ended: None,
            was_alr: false,
        }
    }

    /// Tells what would be sent if everything fitted, bits per second.
    pub fn set_desired(&mut self, desired_bps: u64) {
        if desired_bps as f64 > self.desired_bps as f64 * ENOUGH {
            self.interval = DEFICIT_INTERVAL;
        }
        self.desired_bps = desired_bps;
    }

    /// Takes a new estimate.
    pub fn on_estimate(&mut self, now: Instant, situation: &Situation, from_probe: bool) {
        let estimate = situation.estimate_bps;
        if (estimate as f64) < LARGE_DROP * self.last_estimate_bps as f64 {
            self.drop = Some((now, self.last_estimate_bps));
            self.interval = DEFICIT_INTERVAL;
        }
        self.last_estimate_bps = estimate;
        if from_probe && estimate as f64 >= SUCCESS * self.probed_from_bps as f64 {
            // There was more; there may be more still.
            self.interval = DEFICIT_INTERVAL;
        }
        if let State::Waiting { further_bps, since } = self.state {
            if now > since + MAX_WAIT || situation.congested {
                self.state = State::Done;
            } else if from_probe && estimate >= further_bps {
                let step = if situation.loss_limited { LOSS_LIMITED_STEP } else { STEP };
                self.probe(now, estimate, step * estimate as f64);
            }
        }
    }

    /// Probes for a rate that is about to be used, also below the estimate, which may be stale.
    pub fn verify(&mut self, now: Instant, situation: &Situation, bitrate_bps: u64) {
        let lately = self.last_probe.is_some_and(|at| now < at + VERIFY_INTERVAL);
        let waiting = matches!(self.state, State::Waiting { .. });
        if lately || waiting || situation.congested {
            return;
        }
        let target = VERIFY_STEP * bitrate_bps as f64;
        if self.push(now, target.min(self.max_bps as f64) as u64, VERIFY_DURATION) {
            self.probed_from_bps = situation.estimate_bps;
        }
    }

    /// An overuse has ended: what was lost may be there again.
    pub fn on_recovered(&mut self, now: Instant, situation: &Situation) {
        let Some((at, before_bps)) = self.drop else { return };
        let alr_lately = situation.alr_since.is_some()
            || self.alr_ended.is_some_and(|ended| now < ended + Duration::from_secs(3));
        let target = RECOVERY_SHARE * before_bps as f64;
        if now < at + RECOVERY_WINDOW && alr_lately && target > situation.estimate_bps as f64 {
            self.drop = None;
            self.probe(now, situation.estimate_bps, target);
        }
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Instant, situation: &Situation) {
        if let State::Waiting { since, .. } = self.state
            && now > since + MAX_WAIT
        {
            self.state = State::Done;
        }
        let alr = situation.alr_since.is_some();
        if self.was_alr && !alr {
            self.alr_ended = Some(now);
        }
        self.was_alr = alr;
        let enough = situation.estimate_bps as f64 >= ENOUGH * self.desired_bps as f64;
        if enough || situation.congested || matches!(self.state, State::Waiting { .. }) {
            return;
        }
        if self.state == State::Init {
            return self.probe_initially(now, situation.estimate_bps);
        }
        let rose = situation.estimate_bps as f64 >= SUCCESS * self.probed_from_bps as f64;
        let interval = match situation.alr_since {
            Some(_) if rose => ALR_INTERVAL.min(self.interval),
            _ => self.interval,
        };
        if self.last_probe.is_some_and(|at| now < at + interval) {
            return;
        }
        self.interval = if rose {
            DEFICIT_INTERVAL
        } else {
            self.interval.mul_f64(BACKOFF).min(MAX_DEFICIT_INTERVAL)
        };
        let step = if situation.loss_limited { LOSS_LIMITED_STEP } else { STEP };
        self.probe(now, situation.estimate_bps, step * situation.estimate_bps as f64);
    }

    /// The next cluster to send.
    pub fn poll(&mut self) -> Option<ProbeCluster> {
        self.queue.iter_mut().find_map(Option::take)
    }

    fn probe_initially(&mut self, now: Instant, estimate_bps: u64) {
        for factor in INITIAL {
            self.probe(now, estimate_bps, factor * estimate_bps as f64);
        }
    }

    fn probe(&mut self, now: Instant, estimate_bps: u64, target: f64) {
        let ceiling = (MAX_OVER_DESIRED * self.desired_bps as f64).min(self.max_bps as f64);
        let bitrate = target.min(ceiling);
        if bitrate <= estimate_bps as f64 {
            self.state = State::Done;
            return;
        }
        if !self.push(now, bitrate as u64, MIN_DURATION) {
            return;
        }
        self.probed_from_bps = estimate_bps;
        self.state = if target < ceiling {
            State::Waiting { further_bps: (FURTHER * bitrate) as u64, since: now }
        } else {
            State::Done
        };
    }

    /// Queues a cluster; `false` if too many wait.
    fn push(&mut self, now: Instant, bitrate_bps: u64, min_duration: Duration) -> bool {
        let Some(slot) = self.queue.iter_mut().find(|slot| slot.is_none()) else { return false };
        *slot = Some(ProbeCluster {
            id: self.next_id,
            bitrate_bps,
            min_bytes: bitrate_bps * min_duration.as_millis() as u64 / 8_000,
            min_packets: MIN_PACKETS,
            min_duration,
        });
        self.next_id = self.next_id.wrapping_add(1);
        self.last_probe = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    fn situation(estimate_bps: u64) -> Situation {
        Situation { estimate_bps, alr_since: None, congested: false, loss_limited: false }
    }

    fn rates(controller: &mut ProbeController) -> Vec<u64> {
        std::iter::from_fn(|| controller.poll()).map(|cluster| cluster.bitrate_bps).collect()
    }

    #[test]
    fn starts_with_two_probes_and_goes_on_while_they_fit() {
        let t0 = epoch();
        let mut controller = ProbeController::new(20_000_000);
        controller.set_desired(6_000_000);
        controller.on_time(t0, &situation(300_000));
        assert_eq!(rates(&mut controller), [900_000, 1_800_000]);
        let t1 = t0 + Duration::from_millis(150);
        controller.on_estimate(t1, &situation(900_000), true);
        assert_eq!(rates(&mut controller), []);
        controller.on_estimate(t1, &situation(1_700_000), true);
        assert_eq!(rates(&mut controller), [3_400_000]);
        controller.on_estimate(t1, &situation(2_000_000), true);
        assert_eq!(rates(&mut controller), []);
    }

    #[test]
    fn nothing_is_probed_that_nobody_wants() {
        let t0 = epoch();
        let mut controller = ProbeController::new(20_000_000);
        controller.set_desired(250_000);
        controller.on_time(t0, &situation(300_000));
        assert_eq!(rates(&mut controller), []);
        controller.set_desired(400_000);
        controller.on_time(t0, &situation(300_000));
        assert_eq!(rates(&mut controller), [600_000, 600_000]);
    }

    #[test]
    fn probes_that_bring_nothing_become_rare() {
        let t0 = epoch();
        let mut controller = ProbeController::new(20_000_000);
        controller.set_desired(5_000_000);
        let mut times = Vec::new();
        for tenth in 0..600u32 {
            let now = t0 + Duration::from_millis(100) * tenth;
            controller.on_time(now, &situation(500_000));
            times.extend(rates(&mut controller).iter().map(|_| tenth / 10));
        }
        assert_eq!(times[..6], [0, 0, 2, 5, 8, 11]);
        assert!(times.len() < 24, "{times:?}");
    }

    #[test]
    fn a_rate_about_to_be_used_is_probed_though_the_estimate_is_higher() {
        let t0 = epoch();
        let mut controller = ProbeController::new(20_000_000);
        controller.verify(t0, &situation(1_000_000), 500_000);
        controller.verify(t0 + Duration::from_millis(100), &situation(1_000_000), 500_000);
        assert_eq!(rates(&mut controller), [550_000]);
        let congested = Situation { congested: true, ..situation(1_000_000) };
        controller.verify(t0 + Duration::from_secs(1), &congested, 500_000);
        assert_eq!(rates(&mut controller), []);
        controller.verify(t0 + Duration::from_secs(1), &situation(1_000_000), 500_000);
        assert_eq!(rates(&mut controller), [550_000]);
    }
}
