//! A received media packet, ready to be forwarded: the shared body, and what every receiver needs
//! to know of it, parsed once.

use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Instant;

use sluice_rtp::codec::{Codec, PayloadInfo};
use sluice_rtp::dd;
use sluice_rtp::ext::{AbsCaptureTime, AudioLevel};

use crate::body::PacketBody;
use crate::descriptor::Described;

/// Simulcast layers of a track at most: `q`, `h`, `f`.
pub const MAX_LAYERS: usize = 3;

/// A set of simulcast layers, 0 = lowest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerSet(u8);

impl LayerSet {
    /// No layer.
    pub const NONE: Self = Self(0);

    /// Only this layer.
    pub fn single(layer: u8) -> Self {
        let mut set = Self::NONE;
        set.insert(layer);
        set
    }

    /// Adds a layer; layers of [`MAX_LAYERS`] and above are ignored.
    pub fn insert(&mut self, layer: u8) {
        if usize::from(layer) < MAX_LAYERS {
            self.0 |= 1 << layer;
        }
    }

    /// Whether the layer is in the set.
    pub fn contains(self, layer: u8) -> bool {
        usize::from(layer) < MAX_LAYERS && self.0 & (1 << layer) != 0
    }

    /// Whether no layer is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The highest layer not above `limit`.
    pub fn best_up_to(self, limit: u8) -> Option<u8> {
        (0..MAX_LAYERS as u8).rev().find(|layer| *layer <= limit && self.contains(*layer))
    }

    /// The lowest layer.
    pub fn lowest(self) -> Option<u8> {
        (0..MAX_LAYERS as u8).find(|layer| self.contains(*layer))
    }
}

impl FromIterator<u8> for LayerSet {
    fn from_iter<I: IntoIterator<Item = u8>>(layers: I) -> Self {
        let mut set = Self::NONE;
        layers.into_iter().for_each(|layer| set.insert(layer));
        set
    }
}

/// A slice of a packet's body, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// Offset from the first byte of the RTP header.
    pub start: u16,
    /// Length.
    pub len: u16,
}

impl ByteRange {
    /// The offsets as `slice` wants them.
    pub fn as_range(self) -> Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.len)
    }
}

impl From<Range<usize>> for ByteRange {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start as u16, len: range.len() as u16 }
    }
}

/// One RTP packet of a published track. Cloning shares the body.
#[derive(Debug, Clone)]
pub struct MediaPacket {
    /// The packet as received and decrypted. If `recovered`, it is the RTX packet.
    pub body: PacketBody,
    /// Sequence number in the media stream, extended: ascending over restarts of the stream, the
    /// low 16 bits are those on the wire.
    pub ext_seq: u64,
    /// When it arrived.
    pub arrival: Instant,
    /// RTP timestamp, units of the codec's clock.
    pub timestamp: u32,
    /// Codec of the payload.
    pub codec: Codec,
    /// Simulcast layer, 0 = lowest; 0 for audio and for streams with all spatial layers.
    pub stream: u8,
    /// Changes when the publisher's stream started anew: numbers and timestamps before and after
    /// have nothing in common.
    pub epoch: u8,
    /// How many packets of the stream with higher numbers had arrived before.
    pub newer: u16,
    /// RTP marker.
    pub marker: bool,
    /// Whether it came as a retransmission.
    pub recovered: bool,
    /// The media payload within the body, without padding and without the RTX prefix. Empty for a
    /// padding packet, which is told to receivers only to close its number.
    pub payload: ByteRange,
    /// What the payload is.
    pub info: PayloadInfo,
    /// The dependency descriptor extension within the body.
    pub dependency_descriptor: Option<ByteRange>,
    /// What that extension says. `None` also for codecs without spatial layers, and while the
    /// structure that it refers to has not arrived.
    pub described: Option<Described>,
    /// The absolute capture time extension within the body.
    pub abs_capture_time: Option<ByteRange>,
    /// Audio level extension (RFC 6464).
    pub audio_level: Option<AudioLevel>,
    /// Layers that the publisher was sending at arrival.
    pub live_layers: LayerSet,
}

impl MediaPacket {
    /// The media payload.
    pub fn payload(&self) -> &[u8] {
        self.slice(self.payload)
    }

    /// A part of the body; empty if it does not lie within.
    pub fn slice(&self, range: ByteRange) -> &[u8] {
        self.body.bytes().get(range.as_range()).unwrap_or_default()
    }

    /// Whether there is nothing to play in it.
    pub fn is_padding(&self) -> bool {
        self.payload.len == 0
    }

    /// Whether a decoder can start with this packet.
    pub fn starts_key_frame(&self) -> bool {
        self.info.key_frame && self.info.start_of_frame
    }

    /// Spatial and temporal layer. Of several streams each is one spatial layer.
    pub fn layers(&self) -> (u8, u8) {
        let (spatial, temporal) = match &self.described {
            Some(described) => (described.frame().spatial_id, described.frame().temporal_id),
            None => (self.info.spatial_id.unwrap_or(0), self.info.temporal_id.unwrap_or(0)),
        };
        match self.is_scalable() {
            true => (spatial, temporal),
            false => (self.stream, temporal),
        }
    }

    /// Whether the stream holds all spatial layers, which build on each other (SVC).
    pub fn is_scalable(&self) -> bool {
        self.codec.is_svc() && self.stream == 0 && self.live_layers == LayerSet::single(0)
    }

    /// Copies the dependency descriptor with another active-decode-target mask into `out`, which
    /// should have [`dd::MAX_LEN`] bytes, and returns its length. `None` without a descriptor that
    /// was understood.
    pub fn rewrite_descriptor(&self, active_targets: NonZeroU32, out: &mut [u8]) -> Option<usize> {
        let data = self.slice(self.dependency_descriptor?);
        let frame = self.described.as_ref()?.frame();
        dd::rewrite_active_targets(data, frame, active_targets.get(), out).ok()
    }

    /// Capture time by the publisher's clock, if it sent one.
    pub fn capture_time(&self) -> Option<AbsCaptureTime> {
        AbsCaptureTime::parse(self.slice(self.abs_capture_time?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_layer_is_the_highest_within_the_limit() {
        let set: LayerSet = [0, 2].into_iter().collect();
        assert_eq!(set.best_up_to(2), Some(2));
        assert_eq!(set.best_up_to(1), Some(0));
        assert_eq!(LayerSet::single(1).best_up_to(0), None);
        assert_eq!(LayerSet::single(1).lowest(), Some(1));
        assert_eq!(LayerSet::NONE.best_up_to(2), None);
    }

    #[test]
    fn layers_beyond_the_maximum_are_ignored() {
        let set = LayerSet::single(3);
        assert!(set.is_empty());
        assert!(!set.contains(200));
    }
}
