//! Which packets of a track one receiver gets.
//!
//! A selector is asked for each packet, with what the receiver may have at the moment (the
//! [`Goal`]: what it wants, cut by what its network can carry). It answers what to do and holds
//! what is being sent now. It knows nothing of numbering.

use std::time::{Duration, Instant};

use crate::drop_reason::DropReason;
use crate::packet::{LayerSet, MediaPacket};
use crate::svc::{Form, Svc};

/// At the start only the best layer will do for this long, so that receivers do not begin with a
/// blurred picture; afterwards any layer within the goal (LiveKit `forwarder.go`).
const FIRST_LAYER_PATIENCE: Duration = Duration::from_secs(1);

/// The most that a receiver may have now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    /// Highest spatial layer.
    pub spatial: u8,
    /// Highest temporal layer.
    pub temporal: u8,
    /// Whether a layer above `spatial` may be sent if none within it is live.
    pub overshoot: bool,
}

impl Goal {
    /// The layer to send, of those that are live.
    pub fn target(&self, live: LayerSet) -> Option<u8> {
        let within = live.best_up_to(self.spatial);
        within.or_else(|| live.lowest().filter(|_| self.overshoot))
    }
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Send it as the next of the current stream.
    Forward,
    /// Make its stream the current one, beginning with it, then send it. The caller says so by
    /// [`LayerSelector::start`], or leaves it.
    Start,
    /// It belongs to the current stream but is not sent: its number must be closed.
    Skip(DropReason),
    /// It belongs to another stream.
    Ignore(DropReason),
}

/// How packets of a track are chosen.
#[derive(Debug)]
pub enum LayerSelector {
    /// Everything, from the first packet on: audio, and what cannot be understood.
    Passthrough(Passthrough),
    /// One of several encodings of the same pictures, each its own stream.
    Simulcast(Simulcast),
    /// The same for codecs whose streams may have several layers inside.
    Svc(Svc),
}

impl LayerSelector {
    /// Asks for a packet.
    pub fn choose(&mut self, now: Instant, packet: &MediaPacket, goal: &Goal) -> Choice {
        match self {
            Self::Passthrough(selector) => selector.choose(packet),
            Self::Simulcast(selector) => selector.choose(now, packet, goal),
            Self::Svc(selector) => selector.choose(now, packet, goal),
        }
    }

    /// Makes the stream of a packet, for which the answer was [`Choice::Start`], the current one.
    pub fn start(&mut self, packet: &MediaPacket, goal: &Goal) {
        match self {
            Self::Passthrough(selector) => selector.current = Some(source_of(packet)),
            Self::Simulcast(selector) => selector.start(packet, goal),
            Self::Svc(selector) => selector.start(packet, goal),
        }
    }

    /// Moves the temporal layer at the borders of frames. Called for each packet that is newest in
    /// the current stream, before [`choose`](Self::choose).
    pub fn on_frame(&mut self, packet: &MediaPacket, goal: &Goal) {
        if let Self::Simulcast(selector) = self {
            selector.move_temporal(packet, goal);
        }
    }

    /// Stops the current stream: the next one must be started.
    pub fn stop(&mut self, now: Instant) {
        match self {
            Self::Passthrough(selector) => selector.current = None,
            Self::Simulcast(selector) => selector.stop(now),
            Self::Svc(selector) => selector.stop(now),
        }
    }

    /// Stream that is being sent: layer and epoch.
    pub fn current(&self) -> Option<(u8, u8)> {
        match self {
            Self::Passthrough(selector) => selector.current,
            Self::Simulcast(selector) => selector.current(),
            Self::Svc(selector) => selector.current(),
        }
    }

    /// Spatial layer that is being sent.
    pub fn current_spatial(&self) -> Option<u8> {
        match self {
            Self::Svc(selector) => selector.current_layers().map(|(spatial, _)| spatial),
            _ => self.current().map(|(stream, _)| stream),
        }
    }

    /// Spatial layer to send, of those that the publisher sends.
    pub fn target(&self, live: LayerSet, goal: &Goal) -> Option<u8> {
        match self {
            Self::Svc(selector) => selector.target(live, goal),
            _ => goal.target(live),
        }
    }

    /// Whether the receiver can be brought within the goal without a key frame.
    pub fn can_step_down(&self, goal: &Goal) -> bool {
        matches!(self, Self::Svc(selector) if selector.can_step_down(goal))
    }

    /// How a packet goes out that was chosen: its marker and its descriptor's mask.
    pub fn form(&self, packet: &MediaPacket) -> Form {
        match self {
            Self::Svc(selector) => selector.form(packet),
            _ => Form::of(packet),
        }
    }

    /// Temporal layer that is being sent.
    pub fn current_temporal(&self) -> Option<u8> {
        match self {
            Self::Passthrough(_) => None,
            Self::Simulcast(selector) => selector.current.map(|c| c.temporal),
            Self::Svc(selector) => selector.current_layers()?.1,
        }
    }

    /// The layer whose key frame is waited for.
    pub fn awaited(&self, live: LayerSet, goal: &Goal) -> Option<u8> {
        match self {
            Self::Passthrough(_) => None,
            Self::Simulcast(selector) => selector.awaited(live, goal),
            Self::Svc(selector) => selector.awaited(live, goal),
        }
    }
}

/// Forwards everything.
#[derive(Debug, Default)]
pub struct Passthrough {
    current: Option<(u8, u8)>,
}

impl Passthrough {
    fn choose(&self, packet: &MediaPacket) -> Choice {
        let source = source_of(packet);
        match self.current {
            Some(current) if current == source && packet.is_padding() => {
                Choice::Skip(DropReason::Padding)
            }
            Some(current) if current == source => Choice::Forward,
            _ if packet.is_padding() => Choice::Ignore(DropReason::Padding),
            _ => Choice::Start,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Current {
    stream: u8,
    epoch: u8,
    /// Highest temporal layer sent; holds for whole frames.
    temporal: u8,
}

/// Chooses one layer of a simulcast track, or the only stream of a plain video track.
#[derive(Debug)]
pub struct Simulcast {
    current: Option<Current>,
    /// When the receiver began to wait for its first picture.
    waiting_since: Instant,
    /// Key frames are recognised by a dependency descriptor only: without one, start anywhere.
    blind: bool,
}

impl Simulcast {
    /// Nothing sent yet. `blind`: without a descriptor key frames cannot be seen.
    pub fn new(now: Instant, blind: bool) -> Self {
        Self { current: None, waiting_since: now, blind }
    }

    /// Stream that is being sent: layer and epoch.
    pub(crate) fn current(&self) -> Option<(u8, u8)> {
        self.current.map(|current| (current.stream, current.epoch))
    }

    pub(crate) fn choose(&self, now: Instant, packet: &MediaPacket, goal: &Goal) -> Choice {
        let target = goal.target(packet.live_layers);
        let Some(current) = self.current else {
            return self.choose_first(now, packet, goal, target);
        };
        let is_current = (current.stream, current.epoch) == source_of(packet);
        if is_current {
            return match packet.info.temporal_id {
                _ if packet.is_padding() => Choice::Skip(DropReason::Padding),
                Some(temporal) if temporal > current.temporal => {
                    Choice::Skip(DropReason::TemporalLayer)
                }
                _ => Choice::Forward,
            };
        }
        let restarted = current.stream == packet.stream;
        match self.can_start(packet) && (restarted || target == Some(packet.stream)) {
            true => Choice::Start,
            false if restarted => Choice::Ignore(DropReason::AwaitingKeyFrame),
            false => Choice::Ignore(DropReason::OtherLayer),
        }
    }

    fn choose_first(
        &self,
        now: Instant,
        packet: &MediaPacket,
        goal: &Goal,
        target: Option<u8>,
    ) -> Choice {
        let patient = now.saturating_duration_since(self.waiting_since) < FIRST_LAYER_PATIENCE;
        let fits = target == Some(packet.stream) || (!patient && packet.stream <= goal.spatial);
        match (fits, self.can_start(packet)) {
            (true, true) => Choice::Start,
            (true, false) => Choice::Ignore(DropReason::AwaitingKeyFrame),
            (false, _) => Choice::Ignore(DropReason::OtherLayer),
        }
    }

    fn can_start(&self, packet: &MediaPacket) -> bool {
        let blind = self.blind && packet.dependency_descriptor.is_none();
        !packet.is_padding() && (blind || packet.starts_key_frame())
    }

    pub(crate) fn start(&mut self, packet: &MediaPacket, goal: &Goal) {
        let (stream, epoch) = source_of(packet);
        self.current = Some(Current { stream, epoch, temporal: goal.temporal });
    }

    fn move_temporal(&mut self, packet: &MediaPacket, goal: &Goal) {
        let Some(current) = &mut self.current else { return };
        if (current.stream, current.epoch) != source_of(packet) || !packet.info.start_of_frame {
            return;
        }
        if goal.temporal < current.temporal {
            current.temporal = goal.temporal;
            return;
        }
        // Up at a frame that refers to nothing above what was sent: a key frame, a frame marked as
        // a switching point, or one of the lowest layer after which all above start anew.
        let temporal = packet.info.temporal_id.unwrap_or(0);
        let above = temporal > current.temporal && temporal <= goal.temporal;
        // VP8 says nothing of what follows a frame of the lowest layer.
        let all_above = temporal == 0 && packet.info.switching_up && packet.info.vp8.is_none();
        if packet.info.key_frame || all_above {
            current.temporal = goal.temporal;
        } else if above && packet.info.switching_up {
            current.temporal = temporal;
        }
    }

    pub(crate) fn stop(&mut self, now: Instant) {
        self.current = None;
        self.waiting_since = now;
    }

    pub(crate) fn awaited(&self, live: LayerSet, goal: &Goal) -> Option<u8> {
        // Before the first packet nothing is known to be live; whatever the publisher has will do.
        let target = if live.is_empty() { Some(goal.spatial) } else { goal.target(live) };
        match self.current {
            Some(current) if live.is_empty() || target == Some(current.stream) => None,
            _ => target,
        }
    }
}

fn source_of(packet: &MediaPacket) -> (u8, u8) {
    (packet.stream, packet.epoch)
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
