//! When packets and padding leave towards one receiver.
//!
//! Media is not paced as such: publishers pace, and a timer per receiver would cost more than it
//! brings. What would flood the path is a key frame several times the size of other frames, sent to
//! a receiver with little bandwidth: beyond a burst that the path takes in its stride, video waits
//! in a bounded queue and drains at a multiple of the estimate. Audio and retransmissions never
//! wait. What the queue cannot hold leaves at once; what waits is dropped only if its layer is left.
//! While a long queue on the path drains, and where the layers that were chosen leave little of the
//! estimate, nothing bursts: what would not fit there, or would look as if it did not, waits here.
//!
//! Probes are timed here: while one runs, media counts as part of it, and padding fills it up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::bwe::ProbeCluster;

/// Rate at which queued video drains, times the estimate. libwebrtc's classic 2.5 makes every key
/// frame a queue on the path, which looks like congestion; its newer mode uses 1.1.
const PACING_FACTOR: f64 = 1.25;
/// A burst of this length at the pacing rate passes unpaced (libwebrtc's newer send bursts) ...
const BURST: Duration = Duration::from_millis(40);
/// ... within these limits, bytes: four packets; libwebrtc's burst cap.
const BURST_BYTES: (f64, f64) = (4_800.0, 63_000.0);
/// Below this share of the estimate that is usable, so much waits on the path that the next burst, mostly
/// the key frame of a lower layer, might not fit its queue: it is spread over the time that it takes
/// anyway. Two flows that share a path stay above it most of the time.
const FULL_SHARE: f64 = 0.7;
/// The burst then, bytes: one packet.
const BURST_OF_FULL: f64 = 1_200.0;
/// Where what was chosen needs more than the estimate divided by this, nothing bursts either: frames, and
/// key frames above all, would be a queue on the path, as if the layer did not fit. They take this time
/// there anyway.
const AMPLE: f64 = 1.3;
/// If something has waited for this long then, it is no key frame, but more comes than leaves: what waits
/// leaves at this factor.
const BACKLOG: Duration = Duration::from_secs(1);
const BACKLOG_FACTOR: f64 = 1.1;
/// Packets that wait at most, and how long: a frame later than this is worth less than its
/// smoothness.
const MAX_QUEUED: usize = 256;
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(250);
/// Share of the usable rate for retransmissions, and how much of it may come at once: a receiver
/// behind an overflowing queue asks for everything again, which keeps the queue full.
const RETRANSMISSION_SHARE: f64 = 0.3;
const RETRANSMISSION_BURST: Duration = Duration::from_millis(400);
/// Least that may come at once, bytes: two packets.
const MIN_RETRANSMISSION_BURST: f64 = 2_400.0;
/// Largest packet of padding made of media, and largest without any (RFC 3550: the count is one
/// byte, and includes itself); bytes of payload.
pub const MAX_PADDING_MEDIA: usize = 1_200;
/// Payload of a packet that holds padding only.
pub const MAX_PADDING_ONLY: usize = 255;
/// Header of a padding packet with its extensions, bytes.
pub const PADDING_HEADER: usize = 20;
/// A probe that cannot be sent for this long is given up.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Probes that wait for their turn.
const MAX_PROBES: usize = 4;

/// What a packet is, for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Audio, retransmissions: leaves at once.
    Immediate,
    /// Video: may wait behind a burst.
    Video,
}

/// Something to send now.
#[derive(Debug, PartialEq, Eq)]
pub enum Paced<T> {
    /// A packet that waited.
    Packet(T),
    /// Padding on an RTX stream, for a probe: about this many bytes of payload, either old media
    /// (up to [`MAX_PADDING_MEDIA`]) or padding only (up to [`MAX_PADDING_ONLY`]).
    Padding {
        /// Bytes of payload.
        bytes: usize,
    },
}

/// What the pacer did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PacerStats {
    /// Packets that waited.
    pub delayed: u64,
    /// Packets that left early because the queue was full or too old.
    pub overflowed: u64,
    /// Bytes of padding asked for.
    pub padding_bytes: u64,
    /// Retransmissions refused.
    pub refused_retransmissions: u64,
    /// Probes given up: nothing to send them with.
    pub abandoned_probes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    cluster: ProbeCluster,
    began: Option<Instant>,
    queued: Instant,
    bytes: u64,
    packets: u32,
}

#[derive(Debug)]
struct Queued<T> {
    item: T,
    size: usize,
    since: Instant,
}

/// Decides for one receiver.
#[derive(Debug)]
pub struct Pacer<T> {
    rate: f64,
    burst: f64,
    /// Whether nothing bursts: so much waits on the path, or is about to, that it might not fit.
    full: bool,
    /// Whether a layer was left, and what it put on the path still drains.
    left: bool,
    /// Bytes sent beyond the pacing rate.
    debt: f64,
    /// Bytes that may be retransmitted, per second and at the moment.
    retransmission_rate: f64,
    retransmission_credit: f64,
    updated: Instant,
    queue: VecDeque<Queued<T>>,
    queued_bytes: usize,
    /// Since when the queue was not empty.
    waits_since: Option<Instant>,
    probes: VecDeque<Probe>,
    stats: PacerStats,
}

impl<T> Pacer<T> {
    /// Nothing sent; `estimate_bps` is the first estimate.
    pub fn new(now: Instant, estimate_bps: u64) -> Self {
        let mut pacer = Self {
            rate: 0.0,
            burst: 0.0,
            full: false,
            left: false,
            debt: 0.0,
            retransmission_rate: 0.0,
            retransmission_credit: MIN_RETRANSMISSION_BURST,
            updated: now,
            queue: VecDeque::new(),
            queued_bytes: 0,
            waits_since: None,
            probes: VecDeque::with_capacity(MAX_PROBES),
            stats: PacerStats::default(),
        };
        pacer.set_rates(now, estimate_bps, estimate_bps, 0);
        pacer
    }

    /// Takes a new estimate and what of it is usable now and was allocated, bits per second. If less is
    /// usable, a queue on the path drains: no time for probes, and if it is long, none for bursts.
    pub fn set_rates(
        &mut self,
        now: Instant,
        estimate_bps: u64,
        usable_bps: u64,
        allocated_bps: u64,
    ) {
        self.settle(now);
        self.retransmission_rate = usable_bps as f64 / 8.0 * RETRANSMISSION_SHARE;
        let draining = usable_bps < estimate_bps;
        if draining {
            self.cancel_probes();
        }
        self.left &= draining;
        let (estimate, allocated) = (estimate_bps as f64, allocated_bps as f64);
        let drains = self.left || (usable_bps as f64) < FULL_SHARE * estimate;
        let tight = allocated * AMPLE > estimate;
        let backlog = self.waits_since.is_some_and(|since| now >= since + BACKLOG);
        let rate = match (drains, tight) {
            (true, _) => estimate,
            (false, true) if backlog => estimate.max(allocated) * BACKLOG_FACTOR,
            (false, true) => estimate,
            (false, false) => estimate * PACING_FACTOR,
        };
        self.rate = (rate / 8.0).max(1.0);
        let full = drains || tight;
        if full {
            self.burst = BURST_OF_FULL;
            // What a burst owes already waits on the path.
            self.debt = if self.full { self.debt } else { self.debt.min(self.burst) };
        } else {
            let burst = self.rate * BURST.as_secs_f64();
            self.burst = burst.clamp(BURST_BYTES.0, BURST_BYTES.1);
        }
        self.full = full;
    }

    /// Offers a packet. Returns it if it leaves now; else it waits, and
    /// [`poll`](Self::poll) gives it back.
    pub fn push(&mut self, now: Instant, item: T, size: usize, urgency: Urgency) -> Option<T> {
        match self.admits(now, urgency) {
            true => Some(item),
            false => self.hold(now, item, size),
        }
    }

    /// Whether packets of so many bytes in all may leave now, with nothing else to be done about them;
    /// notes them as sent then. Otherwise they are offered one by one.
    pub fn pass(&mut self, now: Instant, bytes: usize) -> bool {
        self.settle(now);
        let idle = self.queue.is_empty() && self.probes.is_empty();
        let passes = idle && self.debt + bytes as f64 <= self.burst;
        if passes {
            self.debt += bytes as f64;
        }
        passes
    }

    /// Whether a packet may leave now. Otherwise it is given to [`hold`](Self::hold), by a caller
    /// that makes something worth holding only then.
    pub fn admits(&mut self, now: Instant, urgency: Urgency) -> bool {
        self.settle(now);
        urgency == Urgency::Immediate || (self.queue.is_empty() && self.debt < self.burst)
    }

    /// Lets a packet wait; [`poll`](Self::poll) gives it back. Returns the oldest, to leave now, if
    /// the queue is full: order within a stream matters, so that the newest waits.
    pub fn hold(&mut self, now: Instant, item: T, size: usize) -> Option<T> {
        let oldest = if self.queue.len() >= MAX_QUEUED {
            self.stats.overflowed += 1;
            self.pop()
        } else {
            self.stats.delayed += 1;
            None
        };
        self.enqueue(now, item, size);
        oldest
    }

    /// Whether a retransmission of `size` bytes fits the budget; takes it from there.
    pub fn may_retransmit(&mut self, now: Instant, size: usize) -> bool {
        self.settle(now);
        let fits = self.retransmission_credit >= size as f64;
        if fits {
            self.retransmission_credit -= size as f64;
        } else {
            self.stats.refused_retransmissions += 1;
        }
        fits
    }

    /// Notes that a packet left, of whatever kind. Returns the probe that it is part of, to be told
    /// to the estimator.
    pub fn on_sent(&mut self, now: Instant, size: usize) -> Option<u16> {
        self.settle(now);
        self.debt += size as f64;
        let probe = self.probes.front_mut()?;
        // A probe begins with its own first padding, not with media that happens to come by.
        probe.began?;
        probe.bytes += size as u64;
        probe.packets += 1;
        let id = probe.cluster.id;
        if probe.is_done(now) {
            self.probes.pop_front();
        }
        Some(id)
    }

    /// Queues a probe.
    pub fn start_probe(&mut self, now: Instant, cluster: ProbeCluster) {
        if self.probes.len() >= MAX_PROBES {
            self.stats.abandoned_probes += 1;
            return;
        }
        self.probes.push_back(Probe { cluster, began: None, queued: now, bytes: 0, packets: 0 });
    }

    /// The next thing to send now. After a packet was sent, [`on_sent`](Self::on_sent) must be
    /// called before the next poll.
    pub fn poll(&mut self, now: Instant) -> Option<Paced<T>> {
        self.settle(now);
        let due = self.queue.front().is_some_and(|first| now >= self.turn_of(first));
        if due {
            return self.pop().map(Paced::Packet);
        }
        self.abandon_probes(now);
        let probe = self.probes.front_mut()?;
        if now < probe.next_at() {
            return None;
        }
        probe.began.get_or_insert(now);
        let bytes = probe.padding();
        self.stats.padding_bytes += bytes as u64;
        Some(Paced::Padding { bytes })
    }

    /// Gives the probe up that runs: there is nothing to pad with.
    pub fn cancel_probe(&mut self) {
        if self.probes.pop_front().is_some() {
            self.stats.abandoned_probes += 1;
        }
    }

    fn cancel_probes(&mut self) {
        while !self.probes.is_empty() {
            self.cancel_probe();
        }
    }

    /// When [`poll`](Self::poll) has something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let queued = self.queue.front().map(|first| self.turn_of(first));
        let probe = self.probes.front().map(Probe::next_at);
        [queued, probe].into_iter().flatten().min()
    }

    /// Packets and bytes that wait.
    pub fn queued(&self) -> (usize, usize) {
        (self.queue.len(), self.queued_bytes)
    }

    /// What the pacer did.
    pub fn stats(&self) -> PacerStats {
        self.stats
    }

    /// Makes way for the key frame of a lower layer: drops of what waits all but the items that `keep`
    /// says, and lets nothing burst until the queue on the path has drained. Returns how many.
    pub fn make_way(&mut self, mut keep: impl FnMut(&T) -> bool) -> u64 {
        self.left = true;
        let before = self.queue.len();
        self.queue.retain(|queued| keep(&queued.item));
        self.queued_bytes = self.queue.iter().map(|queued| queued.size).sum();
        self.waits_since = self.waits_since.filter(|_| !self.queue.is_empty());
        (before - self.queue.len()) as u64
    }

    /// Pays the debt of the time that passed.
    fn settle(&mut self, now: Instant) {
        // The packets of a flush all leave at one instant.
        if now == self.updated {
            return;
        }
        let elapsed = now.saturating_duration_since(self.updated);
        if elapsed.is_zero() {
            return;
        }
        self.updated = now;
        self.debt = (self.debt - self.rate * elapsed.as_secs_f64()).max(0.0);
        let burst = self.retransmission_rate * RETRANSMISSION_BURST.as_secs_f64();
        let credit = self.retransmission_credit + self.retransmission_rate * elapsed.as_secs_f64();
        self.retransmission_credit = credit.min(burst.max(MIN_RETRANSMISSION_BURST));
    }

    fn enqueue(&mut self, now: Instant, item: T, size: usize) {
        self.queued_bytes += size;
        self.waits_since.get_or_insert(now);
        self.queue.push_back(Queued { item, size, since: now });
    }

    fn pop(&mut self) -> Option<T> {
        let first = self.queue.pop_front()?;
        self.queued_bytes -= first.size;
        self.waits_since = self.waits_since.filter(|_| !self.queue.is_empty());
        Some(first.item)
    }

    /// When the first of the queue leaves: once the debt is within the burst, or it waited too long.
    fn turn_of(&self, first: &Queued<T>) -> Instant {
        let over = (self.debt - self.burst).max(0.0);
        let paid = self.updated + Duration::from_secs_f64((over / self.rate).min(60.0));
        paid.min(first.since + MAX_WAIT)
    }

    fn abandon_probes(&mut self, now: Instant) {
        while self
            .probes
            .front()
            .is_some_and(|p| now >= p.began.unwrap_or(p.queued) + PROBE_TIMEOUT)
        {
            self.cancel_probe();
        }
    }
}

impl Probe {
    fn is_done(&self, now: Instant) -> bool {
        let long = self.began.is_some_and(|at| now >= at + self.cluster.min_duration);
        long && self.packets >= self.cluster.min_packets && self.bytes >= self.cluster.min_bytes
    }

    /// When the next packet of the probe is due: at its rate after those before.
    fn next_at(&self) -> Instant {
        let Some(began) = self.began else { return self.queued };
        let bits = self.bytes as f64 * 8.0;
        began + Duration::from_secs_f64(bits / self.cluster.bitrate_bps.max(1) as f64)
    }

    /// Payload of the next padding packet: small enough for several packets within the least
    /// duration, large enough not to need hundreds.
    fn padding(&self) -> usize {
        let share = self.cluster.min_bytes as usize / (self.cluster.min_packets as usize + 1);
        share.clamp(MAX_PADDING_ONLY, MAX_PADDING_MEDIA) - PADDING_HEADER
    }
}

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;
