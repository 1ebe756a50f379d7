//! The send-side estimator: transport-wide feedback in, the lower of the delay-based and the
//! loss-based estimate out, probes where they help (Google congestion control, libwebrtc
//! `goog_cc_network_control.cc`).

use std::time::{Duration, Instant};

use sluice_rtp::rtcp::TransportFeedback;

use super::acked::{AckedBitrate, AckedRates};
use super::alr::AlrDetector;
use super::delay::DelayBased;
use super::history::{PacketResult, SentHistory};
use super::loss::{LossBased, LossState};
use super::probe::{ProbeCluster, ProbeController, Situation};
use super::probe_result::{ProbeResult, ProbeResults};
use super::proof::Proof;
use super::{BandwidthEstimator, BweConfig, BweStats, NetworkState, PacketSent};

/// Time between looks at what is due.
const PROCESS_INTERVAL: Duration = Duration::from_millis(50);
/// After this time without anything sent there is nothing to look at.
const IDLE: Duration = Duration::from_secs(2);
/// Feedback that does not come for this long while packets are underway: the path may be dead.
const FEEDBACK_TIMEOUT: Duration = Duration::from_secs(2);
/// What was lost before a silence of this length says nothing of the path after it.
const LOSS_MEMORY: Duration = Duration::from_secs(1);
/// When the delay shows that the path carries less than this share of what was thought, the losses until
/// its queue has drained are what that could not hold: it is answered, and they say nothing of what is
/// sent after.
const MUCH_SLOWER: f64 = 0.7;
/// The longest time of that.
const OVERFLOW: Duration = Duration::from_secs(1);
/// Factor on the estimate for each second without feedback.
const SILENCE_BACKOFF: f64 = 0.7;
const SILENCE_STEP: Duration = Duration::from_secs(1);
/// A queue this long is drained within this time.
const LONG_QUEUE: Duration = Duration::from_millis(60);
const DRAIN_TIME: Duration = Duration::from_millis(500);
/// Share of the estimate that stays usable meanwhile: a queue is no reason to pause what fits.
const MIN_USABLE: f64 = 0.4;
/// What arrives says for this long how much of it was a probe.
const ACKED_MEMORY: Duration = Duration::from_millis(500);
/// Weight of the past in the smoothed round-trip time of feedback.
const RTT_SMOOTHING: f64 = 0.8;

/// Congestion control from transport-wide feedback.
#[derive(Debug)]
pub struct SendSideEstimator {
    config: BweConfig,
    history: SentHistory,
    /// Reused for each message.
    results: Vec<PacketResult>,
    acked: AckedBitrate,
    delay: DelayBased,
    loss: LossBased,
    /// Packets sent before this do not count as lost, microseconds.
    loss_from_us: i64,
    /// When the path was last seen to be much slower, until its queue has drained.
    slower: Option<Instant>,
    probe_results: ProbeResults,
    probes: ProbeController,
    alr: AlrDetector,
    proof: Proof,
    estimate_bps: u64,
    usable_bps: u64,
    desired_bps: u64,
    /// Round-trip time by report blocks, else by feedback.
    rtt: Option<Duration>,
    feedback_rtt: Option<Duration>,
    last_sent: Option<Instant>,
    /// Moves on by itself while nothing comes.
    last_feedback: Option<Instant>,
    last_results: Option<Instant>,
    next_process: Instant,
    sent_probes: u64,
    /// When packets of a probe were last told of.
    probed: Option<Instant>,
}

impl SendSideEstimator {
    /// Nothing known.
    pub fn new(config: BweConfig, now: Instant) -> Self {
        Self {
            history: SentHistory::new(now),
            results: Vec::with_capacity(128),
            acked: AckedBitrate::default(),
            delay: DelayBased::new(&config),
            loss: LossBased::new(config.start_bps, config.min_bps),
            loss_from_us: 0,
            slower: None,
            probe_results: ProbeResults::default(),
            probes: ProbeController::new(config.max_bps),
            alr: AlrDetector::new(now),
            proof: Proof::default(),
            estimate_bps: config.start_bps,
            usable_bps: config.start_bps,
            desired_bps: 0,
            rtt: None,
            feedback_rtt: None,
            last_sent: None,
            last_feedback: None,
            last_results: None,
            next_process: now,
            sent_probes: 0,
            probed: None,
            config,
        }
    }

    fn situation(&self, now: Instant) -> Situation {
        let overuse = self.delay.state() == NetworkState::Overuse;
        Situation {
            estimate_bps: self.estimate_bps,
            alr_since: self.alr.since(),
            congested: overuse || self.delay.is_queue_long() || self.loss.is_decreasing(now),
            loss_limited: self.loss.state() != LossState::DelayBased,
        }
    }

    /// Lets each part have its say about new results.
    fn estimate(&mut self, now: Instant) {
        let now_us = self.history.micros(now);
        let mut probe = None;
        self.acked.on_results(&self.results);
        for result in &self.results {
            probe = self.probe_results.on_packet(result).or(probe);
        }
        let AckedRates { current_bps: acked_bps, bottleneck_bps } = self.acked.rates();
        // A probe during which the path was slower than what arrives anyway measured a burst.
        let least = acked_bps.unwrap_or(0).min(self.estimate_bps);
        let probe = probe.map(|probe| ProbeResult { bps: probe.bps.max(least), ..probe });
        let situation = self.situation(now);
        let proof = probe.filter(|probe| self.probes.on_result(now, &situation, probe));
        if self.results.iter().any(|result| result.probe.is_some()) {
            self.probed = Some(now);
        }
        let with_probe = self.probed.is_some_and(|at| now < at + ACKED_MEMORY);
        self.proof.note(now, acked_bps.filter(|_| !with_probe), proof);
        self.delay.on_results(now, now_us, &self.results, acked_bps);
        let before_bps = self.delay.bitrate_bps();
        let recovered = self.delay.update(now, acked_bps, bottleneck_bps, probe);
        if (self.delay.bitrate_bps() as f64) < MUCH_SLOWER * before_bps as f64 {
            self.loss = LossBased::new(self.delay.bitrate_bps(), self.config.min_bps);
            self.slower = Some(now);
        }
        if self.slower.is_some() {
            self.loss_from_us = now_us;
        }
        let drains = self.delay.queue() >= LONG_QUEUE;
        self.slower = self.slower.filter(|at| drains && now < *at + OVERFLOW);
        if let Some(probe) = probe {
            self.loss.on_probe(probe.bps.min(self.delay.bitrate_bps()));
        }
        let answered = self.results.partition_point(|result| result.sent_us < self.loss_from_us);
        let results = &self.results[answered..];
        self.loss.update(now, results, self.delay.bitrate_bps(), acked_bps);
        self.settle();
        self.drain(now);
        let situation = self.situation(now);
        self.probes.on_estimate(now, &situation, probe.as_ref());
        if recovered {
            self.probes.on_recovered(now, &situation);
        }
    }

    fn settle(&mut self) {
        let delay = self.delay.bitrate_bps();
        let estimate = self.loss.limit_bps().map_or(delay, |loss| loss.min(delay));
        self.estimate_bps = estimate.clamp(self.config.min_bps, self.config.max_bps);
        self.usable_bps = self.estimate_bps;
    }

    /// Takes from the estimate what the queue on the path needs to drain.
    fn drain(&mut self, now: Instant) {
        let queue = self.delay.queue();
        let stale = self.last_feedback.is_none_or(|at| now >= at + DRAIN_TIME);
        self.usable_bps = self.estimate_bps;
        if stale || queue < LONG_QUEUE {
            return;
        }
        let bottleneck_bps = self.acked.rates().bottleneck_bps;
        let arriving = bottleneck_bps.unwrap_or(self.estimate_bps);
        let drain = arriving as f64 * queue.as_secs_f64() / DRAIN_TIME.as_secs_f64();
        let least = (self.estimate_bps as f64 * MIN_USABLE) as u64;
        self.usable_bps = self.estimate_bps.saturating_sub(drain as u64).max(least);
    }

    /// Lowers the estimate while packets go out and nothing comes back.
    fn on_silence(&mut self, now: Instant) {
        let (Some(feedback), Some(sent)) = (self.last_feedback, self.last_sent) else { return };
        if now < feedback + FEEDBACK_TIMEOUT || sent < feedback + SILENCE_STEP {
            return;
        }
        let lower = (self.estimate_bps as f64 * SILENCE_BACKOFF) as u64;
        self.delay.set_bitrate(now, lower.max(self.config.min_bps));
        self.settle();
        self.last_feedback = Some(feedback + SILENCE_STEP);
    }
}

impl BandwidthEstimator for SendSideEstimator {
    fn on_packet_sent(&mut self, now: Instant, packet: PacketSent) {
        if self.last_sent.replace(now).is_none() {
            // The first probes are due: the sooner, the sooner the first feedback tells of them.
            self.next_process = now;
        }
        self.last_feedback.get_or_insert(now);
        self.alr.on_sent(now, packet.size, self.estimate_bps);
        self.history.push(now, &packet);
    }

    fn on_transport_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>) {
        let Some(summary) = self.history.on_feedback(now, feedback, &mut self.results) else {
            return;
        };
        if self.last_results.is_some_and(|at| now >= at + LOSS_MEMORY) {
            self.loss = LossBased::new(self.estimate_bps, self.config.min_bps);
        }
        self.last_results = Some(now);
        self.last_feedback = Some(now);
        let rtt = match self.feedback_rtt {
            Some(old) => {
                old.mul_f64(RTT_SMOOTHING) + summary.feedback_rtt.mul_f64(1.0 - RTT_SMOOTHING)
            }
            None => summary.feedback_rtt,
        };
        self.feedback_rtt = Some(rtt);
        if self.rtt.is_none() {
            self.delay.set_rtt(rtt);
        }
        self.estimate(now);
    }

    fn on_remb(&mut self, _now: Instant, _bitrate_bps: u64) {
        // Transport-wide feedback tells more; a peer that has both negotiated sends no REMB.
    }

    fn on_loss_report(&mut self, _now: Instant, _fraction_lost: f32, _packets: u64) {
        // Transport-wide feedback tells which packets.
    }

    fn on_rtt(&mut self, _now: Instant, rtt: Duration) {
        self.rtt = Some(rtt);
        self.delay.set_rtt(rtt);
    }

    fn set_desired(&mut self, _now: Instant, desired_bps: u64) {
        self.desired_bps = desired_bps;
        self.probes.set_desired(desired_bps);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_process {
            return;
        }
        self.next_process = now + PROCESS_INTERVAL;
        self.alr.on_time(now, self.estimate_bps);
        self.on_silence(now);
        self.drain(now);
        let mut situation = self.situation(now);
        // A paused receiver gets nothing and says nothing: its congestion is over some time.
        situation.congested &= self.last_feedback.is_some_and(|at| now < at + SILENCE_STEP);
        if self.last_sent.is_some() {
            self.probes.on_time(now, &situation);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let wanting = self.desired_bps > self.estimate_bps;
        let last_sent = self.last_sent?;
        let idle = !wanting && self.next_process > last_sent + IDLE;
        (!idle).then_some(self.next_process)
    }

    fn poll_probe(&mut self, _now: Instant) -> Option<ProbeCluster> {
        let cluster = self.probes.poll()?;
        self.probe_results.expect(cluster);
        self.sent_probes += 1;
        Some(cluster)
    }

    fn estimate_bps(&self) -> u64 {
        self.estimate_bps
    }

    fn proven_bps(&self, now: Instant) -> Option<u64> {
        self.proof.bps(now)
    }

    fn prove(&mut self, now: Instant, bitrate_bps: u64) {
        let situation = self.situation(now);
        self.probes.verify(now, &situation, bitrate_bps);
    }

    fn usable_bps(&self) -> u64 {
        self.usable_bps
    }

    fn rtt(&self) -> Option<Duration> {
        self.rtt.or(self.feedback_rtt)
    }

    fn stats(&self) -> BweStats {
        BweStats {
            estimate_bps: self.estimate_bps,
            delay_bps: self.delay.bitrate_bps(),
            loss_bps: self.loss.limit_bps(),
            acked_bps: self.acked.rates().current_bps,
            loss: self.loss.average_loss(),
            network: self.delay.state(),
            queue: self.delay.queue(),
            overuses: self.delay.overuses(),
            probes: self.sent_probes,
            in_flight: self.history.in_flight(),
            limited_by_us: self.alr.since().is_some(),
        }
    }
}
