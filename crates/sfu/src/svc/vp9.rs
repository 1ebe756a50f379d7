//! Layers of a VP9 stream without dependency descriptors, by payload descriptor (RFC 9628).
//!
//! The payload descriptor does not tell whether a lower spatial layer's frame will be needed, so all
//! up to the wanted one are sent. That costs some bits with `_KEY` modes and lets a receiver step
//! down at any picture.

use super::described::Answer;
use crate::drop_reason::DropReason;
use crate::packet::MediaPacket;
use crate::selector::Goal;

/// State of one VP9 stream towards one receiver.
#[derive(Debug)]
pub(super) struct Vp9Stream {
    /// Highest spatial layer sent.
    spatial: u8,
    /// Highest temporal layer sent.
    temporal: u8,
    /// Highest spatial layer that came.
    seen: u8,
    /// Timestamp of the newest picture.
    picture: u32,
}

impl Vp9Stream {
    /// Begins with the first packet of a key frame.
    pub(super) fn new(packet: &MediaPacket, goal: &Goal) -> Self {
        let Goal { spatial, temporal, .. } = *goal;
        Self { spatial, temporal, seen: 0, picture: packet.timestamp }
    }

    /// Highest spatial and temporal layer that is being sent.
    pub(super) fn current(&self) -> (u8, u8) {
        (self.spatial.min(self.seen), self.temporal)
    }

    /// Spatial layer to aim for.
    pub(super) fn wanted_spatial(&self, goal: &Goal) -> u8 {
        goal.spatial.min(self.seen)
    }

    pub(super) fn is_layered(&self) -> bool {
        self.seen > 0
    }

    /// Whether only a key frame brings the receiver to the layers of its goal.
    pub(super) fn needs_key_frame(&self, goal: &Goal) -> bool {
        self.wanted_spatial(goal) > self.spatial
    }

    pub(super) fn choose(&mut self, packet: &MediaPacket, goal: &Goal) -> Answer {
        let (spatial, temporal) = layers_of(packet);
        self.seen = self.seen.max(spatial);
        if packet.newer == 0 && packet.info.start_of_frame {
            self.advance(packet, goal);
        }
        if spatial > self.spatial {
            return Answer::Drop(DropReason::OtherLayer);
        }
        if temporal > self.temporal {
            return Answer::Drop(DropReason::TemporalLayer);
        }
        Answer::Send
    }

    /// Whether a packet that is sent is the last one of its picture for the receiver.
    pub(super) fn ends_picture(&self, packet: &MediaPacket) -> bool {
        packet.info.end_of_frame && layers_of(packet).0 == self.spatial
    }

    /// Moves to other layers where a frame allows it.
    fn advance(&mut self, packet: &MediaPacket, goal: &Goal) {
        let (spatial, temporal) = layers_of(packet);
        let info = &packet.info;
        let begins_picture = self.picture != packet.timestamp;
        self.picture = packet.timestamp;
        if info.key_frame && spatial == 0 {
            (self.spatial, self.temporal) = (goal.spatial, goal.temporal);
            return;
        }
        if begins_picture {
            self.spatial = self.spatial.min(goal.spatial);
            self.temporal = self.temporal.min(goal.temporal);
            // U: what follows above this temporal layer refers to nothing above it from before.
            if info.switching_up && temporal <= self.temporal {
                self.temporal = goal.temporal;
            }
        }
        let is_next = spatial == self.spatial + 1 && spatial <= goal.spatial;
        if is_next && !info.inter_picture && temporal <= self.temporal {
            self.spatial = spatial;
        }
    }
}

fn layers_of(packet: &MediaPacket) -> (u8, u8) {
    (packet.info.spatial_id.unwrap_or(0), packet.info.temporal_id.unwrap_or(0))
}
