//! What each stream to one receiver gets of the bandwidth of its path.
//!
//! Streams with what their layers cost, and the estimate, flow in; an [`Allocation`] per stream
//! flows out, to be given to its `DownTrack`. Audio comes first, always. Then each video stream
//! gets its lowest layer; then screen shares grow as far as they can; then cameras in rounds, one
//! step each, more steps for those of higher priority (JVB's rounds with mediasoup's weights). What
//! was taken away comes back only with a margin, and later the more often that went wrong
//! (LiveKit's and mediasoup's hysteresis).

use std::time::{Duration, Instant};

use crate::down_track::Allocation;
use crate::meter::{LayerRates, MAX_TEMPORAL};
use crate::packet::MAX_LAYERS;

/// Change of the estimate at which everything is looked at again (JVB).
const REALLOCATE_SHARE: f64 = 0.15;
/// And at the latest after this time: layers come and go with their publishers (JVB: 5 s). Margins
/// and holds, not rarity, keep it calm.
const REALLOCATE_INTERVAL: Duration = Duration::from_millis(500);
/// While something is held back (LiveKit: 100 ms).
const DEFICIENT_INTERVAL: Duration = Duration::from_millis(250);
/// A step above what a stream has must fit with this factor.
const UPGRADE_MARGIN: f64 = 1.04;
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
const FRESH: Duration = Duration::from_secs(2);
/// The same for the lowest step: a pause is worse than a short queue, and what arrives while one
/// drains makes the estimate too low for a moment.
const LAST_MARGIN: f64 = 1.35;
/// Beyond this factor a layer is left at once, without waiting for the key frame of the lower one.
const URGENT: f64 = 1.15;
/// The same for a layer that was left only because a queue had to drain: its rate was measured then. So
/// long ago at most.
const LENT_MARGIN: f64 = 1.0;
const LENT: Duration = Duration::from_secs(3);
/// After bandwidth took a layer away it comes back no sooner, ...
const UPGRADE_HOLD: Duration = Duration::from_millis(1_500);
/// ... and for a while only if it fits with this factor: a while that doubles if the layer has to go
/// again within [`FLAP_WINDOW`] of coming back (mediasoup: 10 s).
const HELD_MARGIN: f64 = 1.2;
const MAX_UPGRADE_HOLD: Duration = Duration::from_secs(24);
const FLAP_WINDOW: Duration = Duration::from_secs(8);
/// What a step upwards may cost beyond what the path was lately seen to carry.
const UNPROVEN_MARGIN: f64 = 1.05;
/// Without a proof for this long the estimate is believed after all: what cannot be probed must not
/// stay small for ever.
const PROOF_PATIENCE: Duration = Duration::from_secs(4);
/// Share of the estimate that must stay free for a stream to go without any limit.
const AMPLE: f64 = 1.3;
/// Steps per round: of priority 0 and 1, and at most.
const MAX_WEIGHT: u8 = 8;
/// Steps of a stream at most.
const MAX_STEPS: usize = MAX_LAYERS * MAX_TEMPORAL;

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

/// A step of a stream: layers and what they cost together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Step {
    spatial: u8,
    temporal: u8,
    bps: u64,
}

#[derive(Debug)]
struct Stream<K> {
    key: K,
    demand: StreamDemand,
    steps: [Step; MAX_STEPS],
    len: usize,
    /// Steps given: 0 is nothing, `n` is `steps[n - 1]`.
    given: usize,
    /// Steps in the making.
    next: usize,
    /// Steps that there would be if nothing waited on the path.
    carried: usize,
    allocation: Option<Allocation>,
    state: StreamState,
    hold_until: Option<Instant>,
    hold: Duration,
    lowered: Option<Instant>,
    /// The highest spatial layer that was left only for a queue to drain: no hold applies to it.
    lent: Option<u8>,
    /// When a higher spatial layer was last given, and which.
    upgraded: Option<(Instant, u8)>,
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

impl<K: Copy> Stream<K> {
    fn new(key: K, demand: StreamDemand) -> Self {
        let mut stream = Self {
            key,
            demand,
            steps: [Step::default(); MAX_STEPS],
            len: 0,
            given: 0,
            next: 0,
            carried: 0,
            allocation: None,
            state: StreamState::Active,
            hold_until: None,
            hold: UPGRADE_HOLD,
            lowered: None,
            lent: None,
            upgraded: None,
        };
        stream.list_steps();
        stream
    }

    /// Turns the result of a division into what changes.
    fn conclude(
        &mut self,
        now: Instant,
        ample: bool,
        urgent: bool,
        allow_pause: bool,
    ) -> Option<Change<K>> {
        let before = std::mem::replace(&mut self.given, self.next);
        let lowered = self.next < before.min(self.len);
        let (old, new) = (self.spatial(before.min(self.len)), self.spatial(self.next));
        if new < old {
            let flapped = self.upgraded.take().filter(|(at, _)| now < *at + FLAP_WINDOW);
            let carried = self.spatial(self.carried);
            // What went wrong lately is not lent again.
            self.lent = carried.filter(|_| flapped.is_none_or(|(_, layer)| Some(layer) > carried));
            let flapped = flapped.is_some();
            let longer = (self.hold * 2).min(MAX_UPGRADE_HOLD);
            let calm = self.hold_until.is_none_or(|until| now >= until + FLAP_WINDOW);
            self.hold = match (flapped, calm) {
                (true, _) => longer,
                (false, true) => UPGRADE_HOLD,
                (false, false) => self.hold,
            };
            self.hold_until = Some(now + self.hold);
            self.lowered = Some(now);
        } else if new > old && self.allocation.is_some() {
            self.upgraded = new.map(|layer| (now, layer));
        }
        let starved = self.demand.enabled && self.len > 0 && self.next == 0;
        let allocation = if self.is_audio() || (self.next == self.len && ample) {
            Allocation::Unlimited
        } else if starved && allow_pause {
            Allocation::Paused
        } else {
            let step = self.steps[self.next.saturating_sub(1)];
            Allocation::UpTo {
                spatial: step.spatial,
                temporal: step.temporal,
                urgent: lowered && urgent,
            }
        };
        let state = match allocation {
            Allocation::Paused => StreamState::Paused,
            _ => StreamState::Active,
        };
        let told = self.allocation.replace(allocation);
        let state_changed = std::mem::replace(&mut self.state, state) != state;
        let same = told.is_some_and(|told| same_limit(told, allocation));
        (!same || state_changed).then_some(Change {
            stream: self.key,
            allocation,
            state: state_changed.then_some(state),
        })
    }

    fn is_audio(&self) -> bool {
        self.demand.kind == StreamKind::Audio
    }

    /// The factor with which a step above what is given must fit; `None` if it was taken away too
    /// lately. Temporal layers may come back at any time: they need no key frame.
    fn margin(&self, now: Instant, to: usize) -> Option<f64> {
        if !self.is_above(to) {
            return Some(UPGRADE_MARGIN);
        }
        let lowered_within = |time| self.lowered.is_some_and(|at| now < at + time);
        if self.spatial(to) <= self.lent && lowered_within(LENT) {
            return Some(LENT_MARGIN);
        }
        if lowered_within(UPGRADE_HOLD) {
            return None;
        }
        // Nothing at all is worse than a layer that comes and goes.
        let held = self.given > 0 && self.hold_until.is_some_and(|until| now < until);
        Some(if held { HELD_MARGIN } else { UPGRADE_MARGIN })
    }

    /// Whether a step has a higher spatial layer than what is given.
    fn is_above(&self, step: usize) -> bool {
        self.spatial(step) > self.spatial(self.given.min(self.len))
    }

    /// Whether a step has a higher spatial layer than the one before.
    fn begins_layer(&self, step: usize) -> bool {
        self.spatial(step) > self.spatial(step - 1)
    }

    fn spatial(&self, step: usize) -> Option<u8> {
        step.checked_sub(1).map(|index| self.steps[index].spatial)
    }

    /// Whether the stream has flowed, or was kept from it; a new one begins with what the estimate
    /// says.
    fn is_known(&self) -> bool {
        self.given > 0 || self.lowered.is_some()
    }

    /// Whether the division in the making is a step up of the kind that needs a proof.
    fn must_be_proven(&self) -> bool {
        !self.is_audio() && self.is_known() && self.is_above(self.next)
    }

    /// Whether the stream has gone up so lately that its key frame still weighs on the path.
    fn is_fresh(&self, now: Instant) -> bool {
        self.upgraded.is_some_and(|(at, _)| now < at + FRESH)
    }

    fn weight(&self) -> usize {
        self.demand.priority.clamp(1, u32::from(MAX_WEIGHT)) as usize
    }

    /// Order of service: audio, screen shares, cameras; among them by priority.
    fn rank(&self) -> (u8, u32) {
        let class = match self.demand.kind {
            StreamKind::Audio => 0,
            StreamKind::ScreenShare => 1,
            StreamKind::Camera => 2,
        };
        (class, u32::MAX - self.demand.priority)
    }

    fn cost(&self, step: usize) -> u64 {
        step.checked_sub(1).and_then(|index| self.steps[..self.len].get(index)).map_or(0, |s| s.bps)
    }

    fn top_bps(&self) -> u64 {
        self.cost(self.len)
    }

    /// Lists the steps that make sense, each more expensive than the one before.
    fn list_steps(&mut self) {
        let StreamDemand { kind, enabled, max_spatial, max_temporal, rates, .. } = self.demand;
        let given = self.given.checked_sub(1).and_then(|index| self.steps.get(index)).copied();
        self.len = 0;
        if !enabled {
            self.given = 0;
            return;
        }
        let lowest = (0..MAX_LAYERS as u8).find(|spatial| rates.spatial(*spatial) > 0);
        // If only layers above the wish are live, the lowest of them is better than nothing.
        let max_spatial = max_spatial.max(lowest.unwrap_or(0));
        for spatial in 0..=max_spatial.min(MAX_LAYERS as u8 - 1) {
            let top = rates.max_temporal(spatial).min(max_temporal);
            for temporal in 0..=top {
                // A larger picture is worth it only with most of its frames; a screen share is read.
                let fluent = temporal + 1 >= top || kind == StreamKind::ScreenShare;
                if Some(spatial) != lowest && !fluent {
                    continue;
                }
                let bps = rates.get(spatial, temporal);
                // What costs nothing more is not held back: it has not been measured yet.
                let is_whole = bps == rates.get(spatial, max_temporal);
                let temporal = if is_whole { max_temporal } else { temporal };
                self.push_step(Step { spatial, temporal, bps });
            }
        }
        // What is held keeps its place in the list while the rates move.
        self.given = match given {
            Some(held) => self.steps[..self.len]
                .iter()
                .rposition(|s| (s.spatial, s.temporal) <= (held.spatial, held.temporal))
                .map_or(0, |index| index + 1),
            None => 0,
        };
    }

    fn push_step(&mut self, step: Step) {
        let cheaper = self.steps[..self.len].iter().all(|other| other.bps < step.bps);
        if step.bps > 0 && cheaper && self.len < MAX_STEPS {
            self.steps[self.len] = step;
            self.len += 1;
        }
    }
}

/// Whether a rate that was proven is enough for a step upwards.
fn covers(proven_bps: u64, bps: u64) -> bool {
    bps as f64 <= UNPROVEN_MARGIN * proven_bps as f64
}

/// Whether two allocations limit alike; urgency is about the moment.
fn same_limit(a: Allocation, b: Allocation) -> bool {
    match (a, b) {
        (
            Allocation::UpTo { spatial: s1, temporal: t1, .. },
            Allocation::UpTo { spatial: s2, temporal: t2, .. },
        ) => (s1, t1) == (s2, t2),
        _ => a == b,
    }
}

#[cfg(test)]
#[path = "allocator_tests.rs"]
mod tests;
