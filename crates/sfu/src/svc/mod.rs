//! Scalable streams: several spatial and temporal layers under one SSRC (VP9 and AV1, L1T2 to L3T3
//! with their `_KEY` and `_KEY_SHIFT` forms).
//!
//! Layers are told by dependency descriptor; without one by VP9 payload descriptor; an AV1 stream
//! without descriptors goes out whole. The same codecs also come as simulcast, one stream per
//! spatial layer, each with temporal layers inside: then [`Simulcast`] chooses the stream.

mod described;
#[cfg(test)]
pub(crate) mod encoder;
mod frame_log;
mod targets;
mod vp9;

use std::num::NonZeroU32;
use std::time::Instant;

use sluice_rtp::codec::Codec;

use self::described::{Answer, DescribedStream};
use self::vp9::Vp9Stream;
use crate::drop_reason::DropReason;
use crate::packet::{LayerSet, MAX_LAYERS, MediaPacket};
use crate::selector::{Choice, Goal, Simulcast};

/// Chooses the stream of a track, and the layers inside it.
#[derive(Debug)]
pub struct Svc {
    streams: Simulcast,
    layers: Layers,
}

/// How the layers of the current stream are told apart.
#[derive(Debug)]
enum Layers {
    /// Not at all.
    Whole,
    Described(Box<DescribedStream>),
    Vp9(Vp9Stream),
}

/// What one receiver gets in place of the source's header fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Marker: the packet is the last one of its picture.
    pub marker: bool,
    /// Active-decode-target mask of its dependency descriptor, if it must state another.
    pub active_targets: Option<NonZeroU32>,
}

impl Form {
    /// As the source has it.
    pub fn of(packet: &MediaPacket) -> Self {
        Self { marker: packet.marker, active_targets: None }
    }
}

impl Svc {
    /// Nothing sent yet. `blind`: see [`Simulcast::new`].
    pub fn new(now: Instant, blind: bool) -> Self {
        Self { streams: Simulcast::new(now, blind), layers: Layers::Whole }
    }

    pub(crate) fn choose(&mut self, now: Instant, packet: &MediaPacket, goal: &Goal) -> Choice {
        let stream_goal = stream_goal(packet.live_layers, goal);
        match self.streams.choose(now, packet, &stream_goal) {
            Choice::Forward => self.choose_inside(packet, goal),
            Choice::Start if is_unreadable(packet) => Choice::Ignore(DropReason::AwaitingKeyFrame),
            choice => choice,
        }
    }

    pub(crate) fn start(&mut self, packet: &MediaPacket, goal: &Goal) {
        self.streams.start(packet, &stream_goal(packet.live_layers, goal));
        self.begin(packet, &inner_goal(packet.live_layers, goal));
    }

    pub(crate) fn stop(&mut self, now: Instant) {
        self.streams.stop(now);
    }

    /// Stream that is being sent: index and epoch.
    pub(crate) fn current(&self) -> Option<(u8, u8)> {
        self.streams.current()
    }

    /// Spatial and temporal layer that is being sent.
    pub(crate) fn current_layers(&self) -> Option<(u8, Option<u8>)> {
        let (stream, _) = self.streams.current()?;
        let inside = self.layers_inside();
        let temporal = inside.map(|(_, temporal)| temporal);
        match inside.filter(|_| self.is_layered()) {
            Some((spatial, _)) => Some((spatial, temporal)),
            None => Some((stream, temporal)),
        }
    }

    /// Spatial layer to send, of those that the publisher sends.
    pub(crate) fn target(&self, live: LayerSet, goal: &Goal) -> Option<u8> {
        match &self.layers {
            Layers::Described(stream) if self.is_layered() => stream.wanted_spatial(goal),
            Layers::Vp9(stream) if self.is_layered() => Some(stream.wanted_spatial(goal)),
            _ => goal.target(live),
        }
    }

    /// Whether the receiver can be brought within the goal without a key frame.
    pub(crate) fn can_step_down(&self, goal: &Goal) -> bool {
        self.is_layered()
            && match &self.layers {
                Layers::Whole => false,
                Layers::Described(stream) => stream.can_step_down(goal),
                Layers::Vp9(_) => true,
            }
    }

    /// The stream whose key frame is waited for.
    pub(crate) fn awaited(&self, live: LayerSet, goal: &Goal) -> Option<u8> {
        let awaited = self.streams.awaited(live, &stream_goal(live, goal));
        awaited.or_else(|| {
            let (stream, _) = self.streams.current()?;
            let goal = inner_goal(live, goal);
            let needed = match &self.layers {
                Layers::Whole => false,
                Layers::Described(inside) => inside.needs_key_frame(&goal),
                Layers::Vp9(inside) => inside.needs_key_frame(&goal),
            };
            needed.then_some(stream)
        })
    }

    /// How a packet goes out that was chosen.
    pub(crate) fn form(&self, packet: &MediaPacket) -> Form {
        let source = Form::of(packet);
        match &self.layers {
            Layers::Whole => source,
            Layers::Vp9(stream) => {
                Form { marker: packet.marker || stream.ends_picture(packet), ..source }
            }
            Layers::Described(stream) => stream.form(packet).unwrap_or(source),
        }
    }

    fn choose_inside(&mut self, packet: &MediaPacket, goal: &Goal) -> Choice {
        let goal = inner_goal(packet.live_layers, goal);
        if !self.layers.fit(packet) {
            // A publisher that begins or ceases to send descriptors does so at a key frame.
            if !packet.starts_key_frame() || is_unreadable(packet) {
                return Choice::Skip(DropReason::AwaitingKeyFrame);
            }
            self.begin(packet, &goal);
            return Choice::Forward;
        }
        let answer = match &mut self.layers {
            Layers::Whole => Answer::Send,
            Layers::Described(stream) => stream.choose(packet, packet.described.as_ref(), &goal),
            Layers::Vp9(stream) => stream.choose(packet, &goal),
        };
        match answer {
            Answer::Send => Choice::Forward,
            Answer::Drop(reason) => Choice::Skip(reason),
            Answer::Later => Choice::Ignore(DropReason::AwaitingKeyFrame),
        }
    }

    fn begin(&mut self, packet: &MediaPacket, goal: &Goal) {
        let layers = std::mem::replace(&mut self.layers, Layers::Whole);
        self.layers = match &packet.described {
            Some(described) => {
                let mut stream = match layers {
                    Layers::Described(stream) => stream,
                    _ => Box::default(),
                };
                stream.start(packet, described, goal);
                Layers::Described(stream)
            }
            None if packet.codec == Codec::Vp9 => Layers::Vp9(Vp9Stream::new(packet, goal)),
            None => Layers::Whole,
        };
    }

    fn layers_inside(&self) -> Option<(u8, u8)> {
        match &self.layers {
            Layers::Whole => None,
            Layers::Described(stream) => stream.current(),
            Layers::Vp9(stream) => Some(stream.current()),
        }
    }

    /// Whether the current stream has more than one spatial layer.
    fn is_layered(&self) -> bool {
        match &self.layers {
            Layers::Whole => false,
            Layers::Described(stream) => stream.spatial_layers() > 1,
            Layers::Vp9(stream) => stream.is_layered(),
        }
    }
}

impl Layers {
    /// Whether a packet tells its layer the way that its stream has done so far.
    fn fit(&self, packet: &MediaPacket) -> bool {
        match self {
            Self::Described(_) => packet.dependency_descriptor.is_some(),
            Self::Whole | Self::Vp9(_) => packet.described.is_none(),
        }
    }
}

/// It has a descriptor, which does not make sense (yet).
fn is_unreadable(packet: &MediaPacket) -> bool {
    packet.dependency_descriptor.is_some() && packet.described.is_none()
}

/// What to aim for among streams: of a single stream always that one.
fn stream_goal(live: LayerSet, goal: &Goal) -> Goal {
    let alone = is_alone(live);
    let spatial = if alone { MAX_LAYERS as u8 - 1 } else { goal.spatial };
    Goal { spatial, temporal: u8::MAX, overshoot: alone || goal.overshoot }
}

/// What to aim for inside a stream: of several streams each is one spatial layer.
fn inner_goal(live: LayerSet, goal: &Goal) -> Goal {
    match is_alone(live) {
        true => *goal,
        false => Goal { spatial: u8::MAX, ..*goal },
    }
}

fn is_alone(live: LayerSet) -> bool {
    live.lowest() == live.best_up_to(MAX_LAYERS as u8 - 1)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
