//! When to send more than anybody wants, to learn whether it fits (libwebrtc
//! `probe_controller.cc`).
//!
//! At the start in steps of the first estimate; then, as long as receivers want more than the
//! estimate, regularly: a forwarder sends whole layers, so that without probes the estimate would
//! stay just above the layer that is being sent. After a sudden drop, once it has passed.

use std::time::{Duration, Instant};

use super::probe_result::ProbeResult;

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
/// And for how long after.
const ALR_MEMORY: Duration = Duration::from_secs(3);
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
/// A bucket that any path may have until it was seen that this one has none, bytes: Linux' `tbf` is
/// mostly given 16 KB or less.
const POSSIBLE_BUCKET: u64 = 16_000;
/// A bucket that was seen may not have been full; and the largest that is reckoned with, bytes.
const BUCKET_MARGIN: f64 = 1.15;
const MAX_BUCKET: u64 = 32_000;
/// What a probe that saw less leaves of it.
const BUCKET_MEMORY: f64 = 0.8;
/// A cluster that has to empty a bucket first is no longer than this, and has at least this multiple of
/// the estimate: the faster it is, the less it takes.
const MAX_DURATION: Duration = Duration::from_millis(800);
const EMPTYING_STEP: f64 = 4.0;
/// Time between such clusters, if one brings nothing and if it does; and after congestion, until the
/// bucket is full again.
const EMPTYING_INTERVAL: Duration = Duration::from_millis(3_500);
const NEXT_EMPTYING: Duration = Duration::from_millis(700);
const FILLING: Duration = Duration::from_millis(1_500);
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
    /// Bytes at its begin that a bucket on the path may take: they say nothing of its rate.
    pub skip_bytes: u64,
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
    /// How long that one takes.
    last_duration: Duration,
    /// Estimate when the last regular probe was sent.
    probed_from_bps: u64,
    interval: Duration,
    last_estimate_bps: u64,
    drop: Option<(Instant, u64)>,
    /// When the path was last congested.
    congested: Option<Instant>,
    alr_ended: Option<Instant>,
    was_alr: bool,
    /// What the path was seen to let pass at once, bytes; zero: nothing.
    bucket: u64,
    /// The cluster that tries a rate before a longer one proves it, and that rate, bits per second.
    trial: Option<(u16, u64)>,
    /// The longer one.
    proving: Option<u16>,
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
            last_duration: Duration::ZERO,
            probed_from_bps: 0,
            interval: DEFICIT_INTERVAL,
            last_estimate_bps: 0,
            drop: None,
            congested: None,
            alr_ended: None,
            was_alr: false,
            bucket: 0,
            trial: None,
            proving: None,
        }
    }

    /// Takes what a probe measured. Returns whether it says what the path carries: if it passed, it may
    /// have passed by a bucket.
    pub fn on_result(&mut self, now: Instant, situation: &Situation, result: &ProbeResult) -> bool {
        // A path that is always full has no bucket to speak of; what looks like one is another flow.
        let spare = self.was_limited_by_us(now, situation);
        if let Some(bytes) = result.bucket.filter(|bytes| spare || *bytes == 0) {
            let margin = (bytes as f64 * BUCKET_MARGIN) as u64;
            let before = (self.bucket as f64 * BUCKET_MEMORY) as u64;
            self.bucket = before.max(margin).min(MAX_BUCKET);
        }
        let trial = self.trial.take_if(|(id, _)| *id == result.cluster);
        if let Some((_, bitrate_bps)) = trial.filter(|_| result.fitted) {
            let bucket = self.possible_bucket();
            self.proving = self.push(now, bitrate_bps, bitrate_bps / 2, VERIFY_DURATION, bucket);
        }
        self.proving == Some(result.cluster) || !result.fitted
    }

    /// Whether we are the limit, or were a moment ago.
    fn was_limited_by_us(&self, now: Instant, situation: &Situation) -> bool {
        situation.alr_since.is_some()
            || self.alr_ended.is_some_and(|ended| now < ended + ALR_MEMORY)
    }

    /// What a rate that is about to be used must be seen to go beyond, bytes.
    fn possible_bucket(&self) -> u64 {
        self.bucket.max(POSSIBLE_BUCKET)
    }

    /// Tells what would be sent if everything fitted, bits per second.
    pub fn set_desired(&mut self, desired_bps: u64) {
        if desired_bps as f64 > self.desired_bps as f64 * ENOUGH {
            self.interval = DEFICIT_INTERVAL;
        }
        self.desired_bps = desired_bps;
    }

    /// Takes a new estimate, and the probe that it comes from.
    pub fn on_estimate(
        &mut self,
        now: Instant,
        situation: &Situation,
        probe: Option<&ProbeResult>,
    ) {
        let estimate = situation.estimate_bps;
        if (estimate as f64) < LARGE_DROP * self.last_estimate_bps as f64 {
            self.drop = Some((now, self.last_estimate_bps));
            self.interval = DEFICIT_INTERVAL;
        }
        self.last_estimate_bps = estimate;
        if probe.is_some() && estimate as f64 >= SUCCESS * self.probed_from_bps as f64 {
            // There was more; there may be more still.
            self.interval = DEFICIT_INTERVAL;
        }
        if let State::Waiting { further_bps, since } = self.state {
            // Where another flow fills the path, what is found by going on is a share of it.
            let full =
                probe.is_some_and(|probe| !probe.fitted) && self.was_limited_by_us(now, situation);
            if now > since + MAX_WAIT || situation.congested || full {
                self.state = State::Done;
            } else if probe.is_some() && estimate >= further_bps {
                let step = if situation.loss_limited { LOSS_LIMITED_STEP } else { STEP };
                self.probe(now, estimate, step * estimate as f64);
            }
        }
    }

    /// Probes for a rate that is about to be used, also below the estimate, which may be stale.
    pub fn verify(&mut self, now: Instant, situation: &Situation, bitrate_bps: u64) {
        let lately =
            self.last_probe.is_some_and(|at| now < at + VERIFY_INTERVAL + self.last_duration);
        let waiting = matches!(self.state, State::Waiting { .. });
        if lately || waiting || situation.congested {
            return;
        }
        let target = (VERIFY_STEP * bitrate_bps as f64).min(self.max_bps as f64) as u64;
        let Some(id) = self.push(now, target, target, VERIFY_DURATION, 0) else { return };
        let bytes = target * VERIFY_DURATION.as_millis() as u64 / 8_000;
        if bytes >= 2 * self.possible_bucket() {
            self.proving = Some(id);
        } else {
            self.trial = Some((id, target));
        }
        if self.bucket == 0 {
            self.probed_from_bps = situation.estimate_bps;
        }
    }

    /// An overuse has ended: what was lost may be there again.
    pub fn on_recovered(&mut self, now: Instant, situation: &Situation) {
        let Some((at, before_bps)) = self.drop else { return };
        let alr_lately = self.was_limited_by_us(now, situation);
        let target = RECOVERY_SHARE * before_bps as f64;
        if self.bucket == 0
            && now < at + RECOVERY_WINDOW
            && alr_lately
            && target > situation.estimate_bps as f64
        {
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
        if situation.congested {
            self.congested = Some(now);
        }
        let enough = situation.estimate_bps as f64 >= ENOUGH * self.desired_bps as f64;
        if enough || situation.congested || matches!(self.state, State::Waiting { .. }) {
            return;
        }
        if self.state == State::Init {
            // A path that was seen to be full needs no large steps.
            match self.congested {
                None => return self.probe_initially(now, situation.estimate_bps),
                Some(_) => self.state = State::Done,
            }
        }
        let rose = situation.estimate_bps as f64 >= SUCCESS * self.probed_from_bps as f64;
        if self.bucket > 0 && self.congested.is_some_and(|at| now < at + FILLING) {
            return;
        }
        let interval = match (self.bucket, situation.alr_since) {
            (1.., _) if rose => NEXT_EMPTYING,
            (1.., _) => EMPTYING_INTERVAL,
            (0, Some(_)) if rose => ALR_INTERVAL.min(self.interval),
            (0, _) => self.interval,
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
        let bucket = self.bucket;
        let target =
            if bucket > 0 { target.max(EMPTYING_STEP * estimate_bps as f64) } else { target };
        let bitrate = target.min(ceiling);
        if bitrate <= estimate_bps as f64 {
            self.state = State::Done;
            return;
        }
        if self.push(now, bitrate as u64, estimate_bps, MIN_DURATION, bucket).is_none() {
            return;
        }
        self.probed_from_bps = estimate_bps;
        // A bucket that was emptied has to fill before the next step.
        self.state = if target < ceiling && bucket == 0 {
            State::Waiting { further_bps: (FURTHER * bitrate) as u64, since: now }
        } else {
            State::Done
        };
    }

    /// Queues a cluster that empties a bucket first, out of which `drain_bps` flow at least; `None` if
    /// too many wait.
    fn push(
        &mut self,
        now: Instant,
        bitrate_bps: u64,
        drain_bps: u64,
        duration: Duration,
        bucket: u64,
    ) -> Option<u16> {
        let slot = self.queue.iter_mut().find(|slot| slot.is_none())?;
        let bytes_in = |time: Duration| bitrate_bps * time.as_millis() as u64 / 8_000;
        let filling = bitrate_bps.saturating_sub(drain_bps).max(bitrate_bps / 2).max(1);
        let skip_bytes = (bucket * bitrate_bps / filling).min(bytes_in(MAX_DURATION));
        let min_bytes = skip_bytes + bytes_in(duration);
        let min_duration = match skip_bytes {
            0 => duration,
            _ => Duration::from_millis(min_bytes * 8_000 / bitrate_bps.max(1)),
        };
        let id = self.next_id;
        let min_packets = MIN_PACKETS;
        *slot = Some(ProbeCluster {
            id,
            bitrate_bps,
            min_bytes,
            min_packets,
            min_duration,
            skip_bytes,
        });
        self.next_id = id.wrapping_add(1);
        self.last_probe = Some(now);
        self.last_duration = min_duration;
        Some(id)
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
        let result = |bps, fitted| ProbeResult { cluster: 1, bps, fitted, bucket: None };
        controller.on_estimate(t1, &situation(900_000), Some(&result(900_000, true)));
        assert_eq!(rates(&mut controller), []);
        controller.on_estimate(t1, &situation(1_700_000), Some(&result(1_700_000, true)));
        assert_eq!(rates(&mut controller), [3_400_000]);
        controller.on_estimate(t1, &situation(3_000_000), Some(&result(3_000_000, false)));
        assert_eq!(rates(&mut controller), [6_000_000]);
        let alone = Situation { alr_since: Some(t1), ..situation(5_000_000) };
        controller.on_estimate(t1, &alone, Some(&result(5_000_000, false)));
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
    fn a_path_that_was_full_is_not_probed_in_large_steps() {
        let t0 = epoch();
        let mut controller = ProbeController::new(20_000_000);
        controller.set_desired(6_000_000);
        controller.on_time(t0, &Situation { congested: true, ..situation(300_000) });
        assert_eq!(rates(&mut controller), []);
        controller.on_time(t0 + Duration::from_secs(1), &situation(300_000));
        assert_eq!(rates(&mut controller), [600_000]);
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

    #[test]
    fn a_rate_that_passed_a_bucket_is_proven_by_what_goes_beyond_it() {
        let t0 = epoch();
        let mut controller = ProbeController::new(20_000_000);
        controller.verify(t0, &situation(1_000_000), 500_000);
        let trial = controller.poll().expect("a trial");
        let idle = Situation { alr_since: Some(t0), ..situation(1_000_000) };
        let passed = |cluster| ProbeResult { cluster, bps: 550_000, fitted: true, bucket: None };
        assert!(!controller.on_result(t0, &idle, &passed(trial.id)));
        let longer = controller.poll().expect("a longer one");
        assert!(longer.skip_bytes >= 2 * POSSIBLE_BUCKET - 1 && longer.bitrate_bps == 550_000);
        assert!(controller.on_result(t0, &idle, &passed(longer.id)));
        assert!(controller.poll().is_none());
    }

    #[test]
    fn a_bucket_that_was_seen_is_emptied_by_later_probes() {
        let t0 = epoch();
        let mut controller = ProbeController::new(20_000_000);
        controller.set_desired(5_000_000);
        controller.on_time(t0, &situation(500_000));
        assert_eq!(rates(&mut controller).len(), 2);
        let idle = Situation { alr_since: Some(t0), ..situation(500_000) };
        let seen = ProbeResult { cluster: 2, bps: 500_000, fitted: false, bucket: Some(8_000) };
        assert!(controller.on_result(t0, &idle, &seen));
        controller.on_time(t0 + Duration::from_secs(2), &situation(500_000));
        controller.on_time(t0 + Duration::from_secs(4), &situation(500_000));
        let next = controller.poll().expect("a probe");
        assert!(next.bitrate_bps == 2_000_000 && next.skip_bytes >= 8_000, "{next:?}");
        assert!(controller.poll().is_none());
    }
}
