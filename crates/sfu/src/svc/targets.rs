//! The decode targets of a template structure, in the order in which a receiver wants them, and sets
//! of them.

use std::num::NonZeroU32;
use std::sync::Arc;

use sluice_rtp::dd::{DependencyDescriptor, Dti, MAX_DECODE_TARGETS, Structure};

use crate::selector::Goal;

/// A decode target: a set of frames that a receiver can play by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) index: u8,
    /// Highest spatial layer of its frames.
    pub(super) spatial: u8,
    /// Highest temporal layer of its frames.
    pub(super) temporal: u8,
}

/// What a frame is to every decode target; bit 0 = target 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Roles {
    /// It belongs to the target.
    pub(super) present: u32,
    /// The target can be begun with it.
    pub(super) switch: u32,
    /// Later frames of the target may depend on it.
    pub(super) needed: u32,
}

impl Roles {
    pub(super) fn of(frame: &DependencyDescriptor) -> Self {
        let mut roles = Self::default();
        for (target, dti) in frame.dtis.iter().enumerate() {
            let bit = 1 << target;
            match dti {
                Dti::NotPresent => {}
                Dti::Discardable => roles.present |= bit,
                Dti::Switch => {
                    roles.present |= bit;
                    roles.switch |= bit;
                    roles.needed |= bit;
                }
                Dti::Required => {
                    roles.present |= bit;
                    roles.needed |= bit;
                }
            }
        }
        roles
    }
}

/// The decode targets of one structure.
#[derive(Debug)]
pub(super) struct Targets {
    structure: Arc<Structure>,
    /// Best first: by spatial, then temporal layer.
    ordered: [Target; MAX_DECODE_TARGETS],
    len: usize,
}

impl Targets {
    pub(super) fn new(structure: Arc<Structure>) -> Self {
        let mut ordered = [Target { index: 0, spatial: 0, temporal: 0 }; MAX_DECODE_TARGETS];
        let mut len = 0;
        for index in 0..structure.decode_targets {
            let layers = structure.target_layers(usize::from(index));
            if let (Some((spatial, temporal)), Some(slot)) = (layers, ordered.get_mut(len)) {
                *slot = Target { index, spatial, temporal };
                len += 1;
            }
        }
        let by_layers = |t: &Target| std::cmp::Reverse((t.spatial, t.temporal));
        ordered[..len].sort_by_key(by_layers);
        Self { structure, ordered, len }
    }

    pub(super) fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }

    /// The targets that the publisher sends and that lie within the goal, best first. If there are
    /// none, the lowest one, where the goal allows it.
    pub(super) fn within(&self, goal: &Goal, active: u32) -> impl Iterator<Item = Target> + '_ {
        let (spatial, temporal) = (goal.spatial, goal.temporal);
        let sent = move |t: &&Target| active & (1 << t.index) != 0;
        let fits = move |t: &&Target| t.spatial <= spatial && t.temporal <= temporal;
        let all = &self.ordered[..self.len];
        let none = !all.iter().any(|t| sent(&t) && fits(&t));
        let lowest = all.iter().rfind(sent).filter(|_| none && goal.overshoot);
        all.iter().filter(move |t| sent(t) && fits(t)).chain(lowest).copied()
    }

    /// The targets that a receiver of `target` gets whole: no frame of theirs is left out for it.
    pub(super) fn contained_in(&self, target: Target, active: u32) -> Option<NonZeroU32> {
        let mut mask = active;
        for template in &self.structure.templates {
            let present = |index: u8| {
                template.dtis.get(index.into()).is_some_and(|dti| dti != Dti::NotPresent)
            };
            if !present(target.index) {
                let others = (0..self.structure.decode_targets).filter(|index| present(*index));
                others.for_each(|index| mask &= !(1 << index));
            }
        }
        NonZeroU32::new(mask | 1 << target.index)
    }

    /// Distance to the frame before in the chain that protects a target; 0 = the chain starts here.
    pub(super) fn chain_diff(&self, frame: &DependencyDescriptor, target: u8) -> Option<u8> {
        if self.structure.chains == 0 {
            return None;
        }
        let chain = *self.structure.protected_by.get(usize::from(target))?;
        frame.chain_diffs.as_slice().get(usize::from(chain)).copied()
    }
}
