//! One stream in the division: the steps that it can be given, and when it may go up.

use std::time::{Duration, Instant};

use super::{Change, StreamDemand, StreamKind, StreamState};
use crate::down_track::Allocation;
use crate::meter::MAX_TEMPORAL;
use crate::packet::MAX_LAYERS;

/// A step above what a stream has must fit with this factor.
const UPGRADE_MARGIN: f64 = 1.04;
/// How long a stream that has just gone up is fresh.
const FRESH: Duration = Duration::from_secs(2);
/// The factor for a layer that was left only because a queue had to drain, so long ago at most: its rate
/// was measured then.
const LENT_MARGIN: f64 = 1.0;
const LENT: Duration = Duration::from_secs(3);
/// After bandwidth took a layer away it comes back no sooner, ...
const UPGRADE_HOLD: Duration = Duration::from_millis(1_500);
/// ... and for a while only if it fits with this factor: a while that doubles if the layer has to go
/// again within [`FLAP_WINDOW`] of coming back (mediasoup: 10 s).
const HELD_MARGIN: f64 = 1.2;
const MAX_UPGRADE_HOLD: Duration = Duration::from_secs(24);
const FLAP_WINDOW: Duration = Duration::from_secs(8);
/// Steps per round: of priority 0 and 1, and at most.
const MAX_WEIGHT: u8 = 8;
/// Steps of a stream at most.
pub(super) const MAX_STEPS: usize = MAX_LAYERS * MAX_TEMPORAL;

/// A step of a stream: layers and what they cost together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Step {
    spatial: u8,
    temporal: u8,
    bps: u64,
}

/// A stream, what it has, and what it is about to get.
#[derive(Debug)]
pub(super) struct Stream<K> {
    pub(super) key: K,
    pub(super) demand: StreamDemand,
    steps: [Step; MAX_STEPS],
    pub(super) len: usize,
    /// Steps given: 0 is nothing, `n` is `steps[n - 1]`.
    pub(super) given: usize,
    /// Steps in the making.
    pub(super) next: usize,
    /// Steps that there would be if nothing waited on the path.
    pub(super) carried: usize,
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

impl<K: Copy> Stream<K> {
    pub(super) fn new(key: K, demand: StreamDemand) -> Self {
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
    pub(super) fn conclude(
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

    pub(super) fn is_audio(&self) -> bool {
        self.demand.kind == StreamKind::Audio
    }

    /// The factor with which a step above what is given must fit; `None` if it was taken away too
    /// lately. Temporal layers may come back at any time: they need no key frame.
    pub(super) fn margin(&self, now: Instant, to: usize) -> Option<f64> {
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
    pub(super) fn is_above(&self, step: usize) -> bool {
        self.spatial(step) > self.spatial(self.given.min(self.len))
    }

    /// Whether a step has a higher spatial layer than the one before.
    pub(super) fn begins_layer(&self, step: usize) -> bool {
        self.spatial(step) > self.spatial(step - 1)
    }

    fn spatial(&self, step: usize) -> Option<u8> {
        step.checked_sub(1).map(|index| self.steps[index].spatial)
    }

    /// Whether the stream has flowed, or was kept from it; a new one begins with what the estimate
    /// says.
    pub(super) fn is_known(&self) -> bool {
        self.given > 0 || self.lowered.is_some()
    }

    /// Whether the division in the making is a step up of the kind that needs a proof.
    pub(super) fn must_be_proven(&self) -> bool {
        !self.is_audio() && self.is_known() && self.is_above(self.next)
    }

    /// Whether the stream has gone up so lately that its key frame still weighs on the path.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.upgraded.is_some_and(|(at, _)| now < at + FRESH)
    }

    pub(super) fn weight(&self) -> usize {
        self.demand.priority.clamp(1, u32::from(MAX_WEIGHT)) as usize
    }

    /// Order of service: audio, screen shares, cameras; among them by priority.
    pub(super) fn rank(&self) -> (u8, u32) {
        let class = match self.demand.kind {
            StreamKind::Audio => 0,
            StreamKind::ScreenShare => 1,
            StreamKind::Camera => 2,
        };
        (class, u32::MAX - self.demand.priority)
    }

    pub(super) fn cost(&self, step: usize) -> u64 {
        step.checked_sub(1).and_then(|index| self.steps[..self.len].get(index)).map_or(0, |s| s.bps)
    }

    pub(super) fn top_bps(&self) -> u64 {
        self.cost(self.len)
    }

    /// Lists the steps that make sense, each more expensive than the one before.
    pub(super) fn list_steps(&mut self) {
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
