//! What each stream to one receiver gets of the bandwidth of its path.
//!
//! Streams with what their layers cost, and the estimate, flow in; an [`Allocation`] per stream
//! flows out, to be given to its `DownTrack`. Audio comes first, always. Then each video stream
//! gets its lowest layer; then screen shares grow as far as they can; then cameras in rounds, one
//! step each, more steps for those of higher priority (JVB's rounds with mediasoup's weights). What
//! was taken away comes back only with a margin, and later the more often that went wrong
//! (LiveKit's and mediasoup's hysteresis).

mod stream;

use std::time::{Duration, Instant};

use stream::{MAX_STEPS, Stream};

use crate::down_track::Allocation;
use crate::meter::LayerRates;

/// Change of the estimate at which everything is looked at again (JVB).
const REALLOCATE_SHARE: f64 = 0.15;
/// And at the latest after this time: layers come and go with their publishers (JVB: 5 s). Margins
/// and holds, not rarity, keep it calm.
const REALLOCATE_INTERVAL: Duration = Duration::from_millis(500);
/// While something is held back (LiveKit: 100 ms).
const DEFICIENT_INTERVAL: Duration = Duration::from_millis(250);
/// What is held may exceed its share of the estimate by this factor before it is taken away: rates
/// and estimates wobble.
const KEEP_MARGIN: f64 = 1.03;
/// The same for a spatial layer while no long queue drains. It takes two key frames to go and come back,
/// and an overuse takes the estimate below what arrives also where we are the limit. What really is too
/// much makes a queue.
const KEEP_LAYER_MARGIN: f64 = 1.15;
/// The same for a stream that has just gone up: its key frame alone looks like a queue to the
/// estimator and like a higher rate to the meter. A long queue is told apart by what is usable.
const FRESH_MARGIN: f64 = 1.3;
/// The same for the lowest step: a pause is worse than a short queue, and what arrives while one
/// drains makes the estimate too low for a moment.
const LAST_MARGIN: f64 = 1.35;
/// Beyond this factor a layer is left at once, without waiting for the key frame of the lower one.
const URGENT: f64 = 1.15;
/// What a step upwards may cost beyond what the path was lately seen to carry.
const UNPROVEN_MARGIN: f64 = 1.05;
/// Without a proof for this long the estimate is believed after all: what cannot be probed must not
/// stay small for ever.
const PROOF_PATIENCE: Duration = Duration::from_secs(4);
/// Share of the estimate that must stay free for a stream to go without any limit.
const AMPLE: f64 = 1.3;
/// What a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Never limited.
    Audio,
    /// Grows in rounds with the others.
    Camera,
    /// Grows before cameras do; resolution matters more than frames per second.
    ScreenShare,
}

/// What a stream wants and costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamDemand {
    /// What it is.
    pub kind: StreamKind,
    /// `UpdateTrackSettings.priority`: higher is served first, and more. 0: not set.
    pub priority: u32,
    /// False: disabled by the receiver, or muted; it gets nothing and that is no shortage.
    pub enabled: bool,
    /// Highest spatial layer that the receiver wants.
    pub max_spatial: u8,
    /// Highest temporal layer that the receiver wants.
    pub max_temporal: u8,
    /// Cost of each layer, as measured; zero: not live.
    pub rates: LayerRates,
}

/// Whether a stream flows, for `StreamStateUpdate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// It flows, or could.
    Active,
    /// Nothing of it fits.
    Paused,
}

/// A change for one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<K> {
    /// Which.
    pub stream: K,
    /// For `DownTrack::set_allocation`.
    pub allocation: Allocation,
    /// For `StreamStateUpdate`, if that changed.
    pub state: Option<StreamState>,
}

/// Policy of an allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AllocatorConfig {
    /// Whether a stream of which not even the lowest layer fits is paused. Otherwise it keeps its
    /// lowest layer, come what may.
    pub allow_pause: bool,
}

/// Divides the bandwidth to one receiver.
#[derive(Debug)]
pub struct Allocator<K> {
    config: AllocatorConfig,
    /// In the order of service.
    streams: Vec<Stream<K>>,
    estimate_bps: Option<u64>,
    usable_bps: Option<u64>,
    proven_bps: Option<u64>,
    /// What a step upwards would cost that waits for a proof, and since when.
    unproven: Option<(Instant, u64)>,
    allocated_for_bps: u64,
    changed: bool,
    next: Option<Instant>,
}

impl<K: Copy + Eq> Allocator<K> {
    /// No streams, and no estimate: everything is unlimited.
    pub fn new(config: AllocatorConfig) -> Self {
        Self {
            config,
            streams: Vec::new(),
            estimate_bps: None,
            usable_bps: None,
            proven_bps: None,
            unproven: None,
            allocated_for_bps: 0,
            changed: false,
            next: None,
        }
    }

    /// Adds a stream, or tells of its changed demand. A change of what is wanted takes effect with
    /// the next [`allocate`](Self::allocate); new rates alone wait for their turn.
    pub fn set_stream(&mut self, key: K, demand: StreamDemand) {
        let place = self.streams.iter().position(|stream| stream.key == key);
        match place {
            Some(place) => {
                let stream = &mut self.streams[place];
                let old = stream.demand;
                let unmeasured = old.rates == LayerRates::default();
                self.changed |= StreamDemand { rates: old.rates, ..demand } != old
                    || (unmeasured && demand.rates != old.rates);
                stream.demand = demand;
            }
            None => {
                self.changed = true;
                self.streams.push(Stream::new(key, demand));
            }
        }
        if self.changed {
            self.streams.sort_by_key(|stream| stream.rank());
        }
    }

    /// Takes the newest rates of every stream, all at once; as with
    /// [`set_stream`](Self::set_stream), they wait for their turn unless none were known before.
    pub fn refresh_rates(&mut self, mut rates: impl FnMut(K) -> LayerRates) {
        for stream in &mut self.streams {
            let rates = rates(stream.key);
            let first = stream.demand.rates == LayerRates::default();
            self.changed |= first && rates != stream.demand.rates;
            stream.demand.rates = rates;
        }
    }

    /// Changes whether streams may be paused.
    pub fn set_allow_pause(&mut self, allow_pause: bool) {
        self.changed |= self.config.allow_pause != allow_pause;
        self.config.allow_pause = allow_pause;
    }

    /// Forgets a stream.
    pub fn remove_stream(&mut self, key: K) {
        self.streams.retain(|stream| stream.key != key);
        self.changed = true;
    }

    /// Takes a new estimate, and what of it is usable now, bits per second. `None`: the path is not
    /// estimated.
    pub fn set_estimate(&mut self, estimate: Option<(u64, u64)>) {
        self.changed |= estimate.is_some() != self.usable_bps.is_some();
        self.estimate_bps = estimate.map(|(estimate, _)| estimate);
        self.usable_bps = estimate.map(|(_, usable)| usable);
    }

    /// Takes what the path was lately seen to carry, bits per second; `None`: that is not known, the
    /// estimate has to be believed. A stream that flows, or was limited before, goes up only within
    /// it.
    pub fn set_proven(&mut self, proven_bps: Option<u64>) {
        self.proven_bps = proven_bps;
        let waits_for = self.unproven.map(|(_, bps)| bps);
        self.changed |= waits_for.is_some_and(|bps| proven_bps.is_none_or(|p| covers(p, bps)));
    }

    /// The rate that has to be proven before streams can go up, bits per second.
    pub fn unproven_bps(&self) -> Option<u64> {
        self.unproven.map(|(_, bps)| bps)
    }

    /// What would be sent if everything fitted, bits per second: for the estimator.
    pub fn desired_bps(&self) -> u64 {
        self.streams.iter().map(|stream| stream.top_bps()).sum()
    }

    /// What was given, bits per second.
    pub fn allocated_bps(&self) -> u64 {
        self.streams.iter().map(|stream| stream.cost(stream.given)).sum()
    }

    /// Whether something is held back for want of bandwidth.
    pub fn is_deficient(&self) -> bool {
        self.streams.iter().any(|stream| stream.given < stream.len)
    }

    /// When [`allocate`](Self::allocate) is due at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Divides the bandwidth anew if there is reason to. To be called after every input and at
    /// [`poll_timeout`](Self::poll_timeout). Calls `tell` for each stream that changes.
    pub fn allocate(&mut self, now: Instant, mut tell: impl FnMut(Change<K>)) {
        if !self.is_due(now) {
            return;
        }
        self.changed = false;
        self.allocated_for_bps = self.usable_bps.unwrap_or(0);
        self.streams.iter_mut().for_each(Stream::list_steps);
        match self.usable_bps {
            None => self.streams.iter_mut().for_each(|stream| stream.next = stream.len),
            Some(usable) => {
                self.divide(now, self.estimate_bps.unwrap_or(usable).max(usable), true);
                self.streams.iter_mut().for_each(|stream| stream.carried = stream.next);
                self.divide_within_proof(now, usable);
            }
        }
        let total: u64 = self.streams.iter().map(|stream| stream.cost(stream.next)).sum();
        let ample = self.estimate_bps.is_none_or(|bps| bps as f64 >= AMPLE * total as f64);
        let held = self.streams.iter().map(|stream| stream.cost(stream.given)).sum::<u64>() as f64;
        let urgent = self.usable_bps.is_some_and(|bps| held > URGENT * bps as f64);
        for stream in &mut self.streams {
            if let Some(change) = stream.conclude(now, ample, urgent, self.config.allow_pause) {
                tell(change);
            }
        }
        let interval = if self.is_deficient() { DEFICIENT_INTERVAL } else { REALLOCATE_INTERVAL };
        self.next = (!self.streams.is_empty()).then_some(now + interval);
    }

    fn is_due(&self, now: Instant) -> bool {
        if self.changed || self.next.is_some_and(|at| now >= at) {
            return true;
        }
        let Some(estimate) = self.usable_bps else { return false };
        let (estimate, before) = (estimate as f64, self.allocated_for_bps as f64);
        let moved = (estimate - before).abs() > REALLOCATE_SHARE * before;
        moved || (self.allocated_bps() as f64 > estimate * KEEP_MARGIN && estimate < before)
    }

    /// Divides; if streams would go up beyond what is proven, once more without that.
    fn divide_within_proof(&mut self, now: Instant, usable: u64) {
        self.divide(now, usable, true);
        let total: u64 = self.streams.iter().map(|stream| stream.cost(stream.next)).sum();
        let proven = self.proven_bps.is_none_or(|proven| covers(proven, total));
        if proven || !self.streams.iter().any(Stream::must_be_proven) {
            self.unproven = None;
            return;
        }
        let (since, _) = *self.unproven.insert((self.unproven.map_or(now, |(at, _)| at), total));
        if now < since + PROOF_PATIENCE {
            self.divide(now, usable, false);
        } else {
            self.unproven = None;
        }
    }

    fn divide(&mut self, now: Instant, usable: u64, upwards: bool) {
        let audio = self.streams.iter().filter(|s| s.demand.kind == StreamKind::Audio);
        let audio: u64 = audio.map(|stream| stream.cost(stream.len)).sum();
        let video = usable.saturating_sub(audio) as f64;
        let slack = video * (KEEP_MARGIN - 1.0);
        let drains = self.usable_bps < self.estimate_bps;
        let layer_slack = if drains { slack } else { video * (KEEP_LAYER_MARGIN - 1.0) };
        let mut left = Budget { bps: video, slack, layer_slack, upwards };
        for stream in &mut self.streams {
            let is_audio = stream.demand.kind == StreamKind::Audio;
            stream.next = if is_audio { stream.len } else { 0 };
        }
        // Something of everything. A queue that drains is no reason to pause what the path carries.
        let whole = self.estimate_bps.unwrap_or(usable).max(usable);
        let reserve = whole.saturating_sub(usable) as f64;
        left.slack += reserve;
        for stream in self.streams.iter_mut().filter(|stream| !stream.is_audio()) {
            left.raise(now, stream, 1);
        }
        left.slack -= reserve;
        // Screen shares as far as they go.
        let is_screen = |s: &&mut Stream<K>| s.demand.kind == StreamKind::ScreenShare;
        for stream in self.streams.iter_mut().filter(is_screen) {
            left.raise(now, stream, MAX_STEPS);
        }
        // Cameras in rounds.
        loop {
            let mut raised = false;
            let is_camera = |s: &&mut Stream<K>| s.demand.kind == StreamKind::Camera && s.next > 0;
            for stream in self.streams.iter_mut().filter(is_camera) {
                let weight = stream.weight();
                raised |= left.raise(now, stream, weight);
            }
            if !raised {
                return;
            }
        }
    }
}

/// What is left to give.
struct Budget {
    bps: f64,
    /// What may be overdrawn for what a stream already has, and if that is a spatial layer.
    slack: f64,
    layer_slack: f64,
    /// Whether streams may go up.
    upwards: bool,
}

impl Budget {
    /// Gives a stream up to `steps` more steps. Returns whether it got any.
    fn raise<K: Copy>(&mut self, now: Instant, stream: &mut Stream<K>, steps: usize) -> bool {
        let from = stream.next;
        for _ in 0..steps {
            let to = stream.next + 1;
            if to > stream.len {
                break;
            }
            let extra = (stream.cost(to) - stream.cost(stream.next)) as f64;
            let fits = match to <= stream.given {
                true if to == 1 => extra <= LAST_MARGIN * (self.bps + self.slack),
                true if stream.is_fresh(now) => extra <= FRESH_MARGIN * (self.bps + self.slack),
                true if stream.begins_layer(to) => extra <= self.bps + self.layer_slack,
                true => extra <= self.bps + self.slack,
                false if !self.upwards && stream.is_known() && stream.is_above(to) => false,
                false => stream.margin(now, to).is_some_and(|factor| {
                    let given = stream.cost(stream.given.min(stream.len));
                    let taken = (stream.cost(stream.next) - given) as f64;
                    (taken + extra) * factor <= self.bps + taken
                }),
            };
            if !fits {
                break;
            }
            self.bps -= extra;
            stream.next = to;
        }
        stream.next > from
    }
}

/// Whether a rate that was proven is enough for a step upwards.
fn covers(proven_bps: u64, bps: u64) -> bool {
    bps as f64 <= UNPROVEN_MARGIN * proven_bps as f64
}

#[cfg(test)]
#[path = "allocator_tests.rs"]
mod tests;
