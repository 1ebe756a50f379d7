//! Which frames of a scalable stream one receiver gets, by dependency descriptor (AV1 RTP
//! specification, appendix A).
//!
//! For every decode target it is known whether a receiver could decode it from here on: it could
//! from a frame marked as a switch that it got, until a frame of the target that others need was
//! left out or its chain shows one missing. Sent is the best such target within the goal. A frame
//! goes out only if all frames that it refers to did, or are still on their way: those are
//! promised, and sent when they come.

use std::sync::Arc;

use sluice_rtp::dd::{DependencyDescriptor, Mandatory};

use super::Form;
use super::frame_log::{Fate, FrameLog, SentAs};
use super::targets::{Roles, Target, Targets};
use crate::descriptor::Described;
use crate::drop_reason::DropReason;
use crate::packet::MediaPacket;
use crate::selector::Goal;

/// Packets in a row without a known structure after which it is taken for lost. Before, its
/// retransmission may be on its way.
const MAX_UNDESCRIBED: u32 = 32;

/// Where the first frame is placed, so that frames before it have numbers.
const FIRST_LAP: u64 = 1 << 16;

/// State of one scalable stream towards one receiver.
#[derive(Debug, Default)]
pub(super) struct DescribedStream {
    targets: Option<Targets>,
    log: FrameLog,
    /// Target that is being sent.
    current: Option<Target>,
    /// Frame with which it was begun.
    begun: u64,
    /// Targets that the publisher sends.
    active: u32,
    /// Targets that the receiver can decode from here on.
    intact: u32,
    /// Timestamp of the newest picture.
    picture: Option<u32>,
    /// Active targets that the receiver was told last.
    told: u32,
    undescribed: u32,
}

impl DescribedStream {
    /// Begins with a key frame that brings its structure.
    pub(super) fn start(&mut self, packet: &MediaPacket, described: &Described, goal: &Goal) {
        let number = FIRST_LAP + u64::from(described.mandatory.frame_number);
        *self = Self { log: std::mem::take(&mut self.log), ..Self::default() };
        self.log.start(number);
        self.decide_newest(number, packet, described, goal);
    }

    /// Highest spatial and temporal layer that is being sent.
    pub(super) fn current(&self) -> Option<(u8, u8)> {
        self.current.map(|target| (target.spatial, target.temporal))
    }

    /// Spatial layer to aim for: the best one within the goal that the publisher sends.
    pub(super) fn wanted_spatial(&self, goal: &Goal) -> Option<u8> {
        let targets = self.targets.as_ref()?;
        targets.within(goal, self.active).next().map(|target| target.spatial)
    }

    /// Spatial layers of the stream, sent or not.
    pub(super) fn spatial_layers(&self) -> usize {
        self.targets.as_ref().map_or(0, |targets| targets.structure().spatial_layers())
    }

    /// Whether only a key frame brings the receiver to the layers of its goal.
    pub(super) fn needs_key_frame(&self, goal: &Goal) -> bool {
        let wanted = self.wanted_spatial(goal);
        let current = self.current.map(|target| target.spatial);
        let reached = wanted.is_none() || wanted == current;
        self.undescribed > MAX_UNDESCRIBED || (!reached && !self.can_step_to(goal, wanted))
    }

    /// Whether the receiver could go on within the goal without a key frame.
    pub(super) fn can_step_down(&self, goal: &Goal) -> bool {
        self.can_step_to(goal, None)
    }

    fn can_step_to(&self, goal: &Goal, spatial: Option<u8>) -> bool {
        let Some(targets) = &self.targets else { return false };
        let intact = |t: &Target| {
            self.intact & (1 << t.index) != 0
                && t.spatial <= goal.spatial
                && spatial.is_none_or(|spatial| spatial == t.spatial)
        };
        targets.within(goal, self.active).any(|target| intact(&target))
    }

    /// Whether a packet is sent. All packets of a frame get the same answer.
    pub(super) fn choose(
        &mut self,
        packet: &MediaPacket,
        described: Option<&Described>,
        goal: &Goal,
    ) -> Answer {
        let found_now = match described {
            Some(_) => None,
            None => self.describe(packet),
        };
        let Some(described) = described.or(found_now.as_ref()) else {
            self.undescribed = self.undescribed.saturating_add(1);
            return Answer::Later;
        };
        self.undescribed = 0;
        let mandatory = described.mandatory;
        let mut number = self.log.extend(mandatory.frame_number);
        let newest = self.log.newest().unwrap_or(number);
        let begins = described.frame().has_structure && packet.newer == 0;
        if begins && number < newest && !self.is_current(described) {
            // The encoder counts anew.
            let next = newest + 1;
            number = next + u64::from(mandatory.frame_number.wrapping_sub(next as u16));
            self.log.start(number);
        }
        let fate = match self.log.get(number) {
            Fate::Sent(_) => return Answer::Send,
            Fate::Dropped => return Answer::Drop(DropReason::OtherLayer),
            Fate::Expected => self.fulfil(number, described),
            Fate::Unknown if number < newest => self.decide_late(number, described),
            Fate::Unknown => self.decide_newest(number, packet, described, goal),
        };
        match fate {
            Fate::Sent(_) => Answer::Send,
            _ if self.current.is_none() => Answer::Drop(DropReason::AwaitingKeyFrame),
            _ => Answer::Drop(self.why(described.frame())),
        }
    }

    /// How a packet of a frame that is sent goes out.
    pub(super) fn form(&self, packet: &MediaPacket) -> Option<Form> {
        let described = match &packet.described {
            Some(described) => described.clone(),
            None => self.describe(packet)?,
        };
        let Mandatory { start_of_frame, end_of_frame, frame_number, .. } = described.mandatory;
        let Fate::Sent(how) = self.log.get(self.log.extend(frame_number)) else { return None };
        let states_targets = start_of_frame || described.frame().active_targets.is_some();
        Some(Form {
            marker: packet.marker || (end_of_frame && how.last_of_picture),
            active_targets: how.active_targets.filter(|_| states_targets),
        })
    }

    /// Reads the descriptor of a packet that came before its structure.
    fn describe(&self, packet: &MediaPacket) -> Option<Described> {
        let structure = self.targets.as_ref()?.structure();
        let data = packet.slice(packet.dependency_descriptor?);
        let (frame, received) = DependencyDescriptor::parse(data, Some(structure)).ok()?;
        received.is_none().then(|| Described::new(structure.clone(), frame))
    }

    fn is_current(&self, described: &Described) -> bool {
        let structure = self.targets.as_ref().map(Targets::structure);
        structure.is_some_and(|known| Arc::ptr_eq(known, described.structure()))
    }

    /// Decides about a frame that is newer than all before.
    fn decide_newest(
        &mut self,
        number: u64,
        packet: &MediaPacket,
        described: &Described,
        goal: &Goal,
    ) -> Fate {
        let frame = described.frame();
        if !self.is_current(described) {
            if !frame.has_structure {
                // The key frame that brought its structure was not sent.
                (self.current, self.intact) = (None, 0);
                self.log.decide(number, Fate::Dropped);
                return Fate::Dropped;
            }
            self.targets = Some(Targets::new(described.structure().clone()));
            (self.intact, self.current, self.told) = (0, None, 0);
        }
        if let Some(active) = frame.active_targets {
            self.active = active;
        }
        let roles = Roles::of(frame);
        let refs = self.references(number, frame);
        self.check_chains(number, frame);
        if refs == References::Missing {
            self.intact &= !roles.present;
        }
        let begins_picture = self.picture.replace(packet.timestamp) != Some(packet.timestamp);
        let startable = if refs == References::Sent { roles.switch } else { 0 };
        let before = self.current;
        self.current = self.pick(goal, begins_picture, startable);
        if self.current != before && self.current.is_some_and(|t| startable & (1 << t.index) != 0) {
            self.begun = number;
        }
        let sent = self.current.filter(|target| roles.present & (1 << target.index) != 0);
        let fate = match sent {
            Some(target) => self.send(number, frame, target, before),
            None => {
                self.intact &= !roles.needed;
                Fate::Dropped
            }
        };
        if sent.is_some() {
            self.intact |= startable;
        }
        self.log.decide(number, fate);
        fate
    }

    /// The target to send from here on. Within a picture it changes only if it must, or upwards at
    /// a switch: the receiver has been told which frame ends the picture.
    fn pick(&self, goal: &Goal, begins_picture: bool, startable: u32) -> Option<Target> {
        let targets = self.targets.as_ref()?;
        let usable = self.intact | startable;
        let is_in = |mask: u32, target: &Target| mask & (1 << target.index) != 0;
        let current = self.current.filter(|target| is_in(usable, target));
        let reachable = match (begins_picture, current) {
            (false, Some(_)) => startable,
            _ => usable,
        };
        let best = targets.within(goal, self.active).find(|target| is_in(reachable, target));
        match (current, best) {
            (Some(current), Some(best)) if !begins_picture => {
                let is_higher = (best.spatial, best.temporal) > (current.spatial, current.temporal);
                Some(if is_higher { best } else { current })
            }
            // Above the goal, until a key frame lets the receiver down.
            (current, best) => best.or(current),
        }
    }

    /// Sends a frame: what it depends on and has not come is promised.
    fn send(
        &mut self,
        number: u64,
        frame: &DependencyDescriptor,
        target: Target,
        before: Option<Target>,
    ) -> Fate {
        self.promise_references(number, frame);
        let Some(targets) = &self.targets else { return Fate::Dropped };
        if let Some(diff @ 1..) = targets.chain_diff(frame, target.index) {
            self.log.expect(number.saturating_sub(diff.into()));
        }
        let mask = match before == Some(target) && frame.active_targets.is_none() {
            true => None,
            false => targets.contained_in(target, self.active),
        };
        let changed = mask.is_some_and(|mask| mask.get() != self.told);
        self.told = mask.map_or(self.told, |mask| mask.get());
        let states_one = frame.active_targets.is_some();
        Fate::Sent(SentAs {
            last_of_picture: frame.spatial_id == target.spatial,
            active_targets: mask.filter(|_| changed || states_one),
        })
    }

    /// A frame that was promised has come.
    fn fulfil(&mut self, number: u64, described: &Described) -> Fate {
        let frame = described.frame();
        let last_of_picture = self.current.is_some_and(|t| frame.spatial_id == t.spatial);
        if self.is_current(described) && self.references(number, frame) == References::Missing {
            self.log.decide(number, Fate::Dropped);
            return Fate::Dropped;
        }
        self.promise_references(number, frame);
        let fate = Fate::Sent(SentAs { last_of_picture, active_targets: None });
        self.log.decide(number, fate);
        fate
    }

    /// Decides about a frame that comes after newer ones, none of which refers to it itself; one
    /// that was promised and is still on its way may. Before the target was begun, frames on their
    /// way may be of no use.
    fn decide_late(&mut self, number: u64, described: &Described) -> Fate {
        let frame = described.frame();
        let present = Roles::of(frame).present;
        let target = self.current.filter(|target| present & (1 << target.index) != 0);
        let usable = match self.references(number, frame) {
            References::Sent => true,
            References::Pending => number >= self.begun,
            References::Missing => false,
        };
        let fate = match target {
            Some(target) if usable && self.is_current(described) => {
                self.promise_references(number, frame);
                let last_of_picture = frame.spatial_id == target.spatial;
                Fate::Sent(SentAs { last_of_picture, active_targets: None })
            }
            _ => Fate::Dropped,
        };
        self.log.decide(number, fate);
        fate
    }

    fn references(&self, number: u64, frame: &DependencyDescriptor) -> References {
        let fate = |diff: &u16| match self.log.get(number.saturating_sub((*diff).into())) {
            Fate::Sent(_) => References::Sent,
            Fate::Unknown | Fate::Expected => References::Pending,
            Fate::Dropped => References::Missing,
        };
        frame.frame_diffs.as_slice().iter().map(fate).max().unwrap_or(References::Sent)
    }

    fn promise_references(&mut self, number: u64, frame: &DependencyDescriptor) {
        for diff in frame.frame_diffs.as_slice() {
            self.log.expect(number.saturating_sub((*diff).into()));
        }
    }

    /// Gives up targets whose chain shows a frame that was not sent.
    fn check_chains(&mut self, number: u64, frame: &DependencyDescriptor) {
        let Some(targets) = &self.targets else { return };
        for target in 0..targets.structure().decode_targets {
            if let Some(diff @ 1..) = targets.chain_diff(frame, target)
                && self.log.get(number.saturating_sub(diff.into())) == Fate::Dropped
            {
                self.intact &= !(1 << target);
            }
        }
    }

    fn why(&self, frame: &DependencyDescriptor) -> DropReason {
        match self.current {
            Some(target) if frame.spatial_id == target.spatial => DropReason::TemporalLayer,
            _ => DropReason::OtherLayer,
        }
    }
}

/// What to do with a packet of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Send,
    Drop(DropReason),
    /// It cannot be understood yet; its place stays open.
    Later,
}

/// State of the frames that a frame refers to, as the worst of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum References {
    Sent,
    Pending,
    Missing,
}
