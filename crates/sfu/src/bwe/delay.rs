//! The delay-based estimate: groups of packets, their trend, and the rate control on top (libwebrtc
//! `delay_based_bwe.cc`).

use std::time::{Duration, Instant};

use super::aimd::Aimd;
use super::history::PacketResult;
use super::inter_arrival::InterArrival;
use super::probe_result::ProbeResult;
use super::standing_queue::{Standing, StandingQueue};
use super::trendline::Trendline;
use super::{BweConfig, NetworkState};

/// After this time without feedback the past says nothing (libwebrtc `kStreamTimeOut`).
const STREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// Share of what arrives that is sent while a standing queue drains, a short and a long one.
const DRAIN_SHARE: (f64, f64) = (0.85, 0.75);

/// Share of the measured rate of a path that has become slower (as of a probe that did not fit). Its queue
/// drains by what is usable of that.
const UTILISATION: f64 = 0.95;

/// What a long one is.
const LONG_QUEUE: Duration = Duration::from_millis(120);

/// A queue that became shorter than this share of itself within one feedback interval drains.
const DRAINING: f64 = 0.85;

/// What a short one is: packets pass almost as fast as ever.
const SHORT_QUEUE: Duration = Duration::from_millis(12);

/// The delay-based estimator.
#[derive(Debug)]
pub struct DelayBased {
    groups: InterArrival,
    trendline: Trendline,
    queue: StandingQueue,
    standing: Standing,
    /// Delay at the last feedback.
    last_delay: Duration,
    aimd: Aimd,
    last: Option<Instant>,
    was_over: bool,
    overuses: u32,
}

impl DelayBased {
    /// Nothing known.
    pub fn new(config: &BweConfig) -> Self {
        Self {
            groups: InterArrival::default(),
            trendline: Trendline::default(),
            queue: StandingQueue::default(),
            standing: Standing::No,
            last_delay: Duration::ZERO,
            aimd: Aimd::new(config.start_bps, config.min_bps, config.max_bps),
            last: None,
            was_over: false,
            overuses: 0,
        }
    }

    /// Takes the results of one feedback message, at `now_us` on the clock of the sending times.
    /// `acked_bps` is what arrives.
    pub fn on_results(
        &mut self,
        now: Instant,
        now_us: i64,
        results: &[PacketResult],
        acked_bps: Option<u64>,
    ) {
        if self.last.is_some_and(|last| now > last + STREAM_TIMEOUT) {
            self.groups = InterArrival::default();
            self.trendline = Trendline::default();
        }
        self.last = Some(now);
        self.standing = self.queue.on_results(now, results, self.aimd.bitrate_bps(), acked_bps);
        for result in results {
            let Some(arrival_us) = result.arrival_us else { continue };
            if let Some(delta) = self.groups.on_packet(result.sent_us, arrival_us, now_us) {
                self.trendline.on_group(delta, arrival_us);
            }
        }
    }

    /// Moves the estimate. `bottleneck_bps` is what a full path delivers, `probe` what a probe
    /// measured. Returns whether an overuse has just ended.
    pub fn update(
        &mut self,
        now: Instant,
        acked_bps: Option<u64>,
        bottleneck_bps: Option<u64>,
        probe: Option<ProbeResult>,
    ) -> bool {
        let state = self.trendline.state();
        let standing = std::mem::take(&mut self.standing);
        let target = match standing {
            Standing::Slower { bps } => Some(bps as f64 * UTILISATION),
            Standing::Long => {
                // Nothing measured yet and too much already.
                let arriving = bottleneck_bps.unwrap_or(self.aimd.bitrate_bps() / 2);
                let long = self.queue.delay() >= LONG_QUEUE;
                let share = if long { DRAIN_SHARE.1 } else { DRAIN_SHARE.0 };
                Some(arriving as f64 * share)
            }
            Standing::Short | Standing::No => None,
        };
        if let Some(target) = target {
            self.was_over = true;
            self.overuses += 1;
            self.aimd.set_bitrate(now, (target as u64).min(self.aimd.bitrate_bps()));
            return false;
        }
        // A key frame makes a trend too. If its queue is already gone, it was no overuse.
        // And a queue that already drains is the echo of one that was answered.
        let delay = self.queue.delay();
        let drains = delay < self.last_delay.mul_f64(DRAINING);
        self.last_delay = delay;
        let harmless = state == NetworkState::Overuse && (delay < SHORT_QUEUE || drains);
        let state = match standing {
            Standing::Short => NetworkState::Overuse,
            _ if harmless => NetworkState::Underuse,
            _ => state,
        };
        if state == NetworkState::Overuse {
            self.was_over = true;
            self.overuses += 1;
            match acked_bps {
                Some(acked) if !self.aimd.may_decrease(now, acked) => {}
                Some(_) => self.aimd.update(now, state, delay, acked_bps),
                // Nothing measured yet and too much already.
                None => self.aimd.set_bitrate(now, self.aimd.bitrate_bps() / 2),
            }
            return false;
        }
        match probe {
            // What passed at the rate it was sent is no reason to go down.
            Some(probe) if probe.fitted && probe.bps <= self.aimd.bitrate_bps() => {}
            Some(probe) => self.aimd.set_bitrate(now, probe.bps),
            None => self.aimd.update(now, state, delay, acked_bps),
        }
        // One message is enough to see a path become slower, but not for its queue to drain.
        let is_over = state == NetworkState::Normal && !self.queue.is_long();
        is_over && std::mem::take(&mut self.was_over)
    }

    /// Lowers the estimate from outside.
    pub fn set_bitrate(&mut self, now: Instant, bitrate_bps: u64) {
        self.aimd.set_bitrate(now, bitrate_bps);
    }

    /// Sets the round-trip time.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.aimd.set_rtt(rtt);
    }

    /// The estimate, bits per second.
    pub fn bitrate_bps(&self) -> u64 {
        self.aimd.bitrate_bps()
    }

    /// What the path does.
    pub fn state(&self) -> NetworkState {
        self.trendline.state()
    }

    /// Whether so much waits in the path that nothing should be added.
    pub fn is_queue_long(&self) -> bool {
        self.queue.is_long()
    }

    /// Time that packets wait in the path.
    pub fn queue(&self) -> Duration {
        self.queue.delay()
    }

    /// Feedback messages at which queues grew.
    pub fn overuses(&self) -> u32 {
        self.overuses
    }
}
