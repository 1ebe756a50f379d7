//! The recent packets of a track, kept on each worker that has receivers of it, for
//! retransmissions.

use crate::packet::{MAX_LAYERS, MediaPacket};
use sluice_rtp::codec::MediaKind;

/// Packets kept per video layer (LiveKit: 500), a power of two for indexing.
const VIDEO_PACKETS: usize = 512;

/// Packets kept of an audio track (LiveKit: 200), a power of two for indexing.
const AUDIO_PACKETS: usize = 256;

/// The newest packets of each layer, by extended sequence number.
#[derive(Debug)]
pub struct TrackHistory {
    layers: [Ring; MAX_LAYERS],
    capacity: usize,
}

impl TrackHistory {
    /// An empty history. Takes memory with the first packet of a layer.
    pub fn new(kind: MediaKind) -> Self {
        let capacity = match kind {
            MediaKind::Audio => AUDIO_PACKETS,
            MediaKind::Video => VIDEO_PACKETS,
        };
        Self { layers: std::array::from_fn(|_| Ring::default()), capacity }
    }

    /// Keeps a packet. Padding is not kept, nor a packet older than the one in its place.
    pub fn push(&mut self, packet: &MediaPacket) {
        let Some(ring) = self.layers.get_mut(usize::from(packet.stream)) else { return };
        if packet.is_padding() {
            return;
        }
        if ring.slots.is_empty() {
            ring.slots.resize_with(self.capacity, || None);
        }
        let slot = &mut ring.slots[(packet.ext_seq % self.capacity as u64) as usize];
        if slot.as_ref().is_none_or(|old| old.ext_seq < packet.ext_seq) {
            *slot = Some(packet.clone());
        }
    }

    /// The packet with this number, if it is still kept.
    pub fn get(&self, layer: u8, ext_seq: u64) -> Option<&MediaPacket> {
        let ring = self.layers.get(usize::from(layer))?;
        let slot = ring.slots.get((ext_seq % self.capacity as u64) as usize)?;
        slot.as_ref().filter(|packet| packet.ext_seq == ext_seq)
    }

    /// Lets go of every packet, at mute or when the last receiver left.
    pub fn clear(&mut self) {
        self.layers = std::array::from_fn(|_| Ring::default());
    }
}

#[derive(Debug, Default)]
struct Ring {
    slots: Vec<Option<MediaPacket>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{epoch, media_packet};

    #[test]
    fn keeps_the_newest_packets_of_each_layer() {
        let mut history = TrackHistory::new(MediaKind::Video);
        let t0 = epoch();
        for seq in 1_000..2_000 {
            history.push(&media_packet(t0, 0, seq, 0));
        }
        history.push(&media_packet(t0, 2, 5, 0));
        assert!(history.get(0, 1_999).is_some());
        assert!(history.get(0, 2_000 - VIDEO_PACKETS as u64).is_some());
        assert!(history.get(0, 1_999 - VIDEO_PACKETS as u64).is_none());
        assert!(history.get(2, 5).is_some());
        assert!(history.get(1, 5).is_none());
        assert!(history.get(7, 5).is_none());
    }

    #[test]
    fn a_late_packet_does_not_displace_a_newer_one() {
        let mut history = TrackHistory::new(MediaKind::Audio);
        let t0 = epoch();
        history.push(&media_packet(t0, 0, 1_000, 0));
        history.push(&media_packet(t0, 0, 1_000 - AUDIO_PACKETS as u64, 0));
        assert!(history.get(0, 1_000).is_some());
    }

    #[test]
    fn padding_is_not_kept_and_clear_lets_go() {
        let mut history = TrackHistory::new(MediaKind::Video);
        let mut padding = media_packet(epoch(), 0, 7, 0);
        padding.payload.len = 0;
        history.push(&padding);
        assert!(history.get(0, 7).is_none());
        history.push(&media_packet(epoch(), 0, 8, 0));
        history.clear();
        assert!(history.get(0, 8).is_none());
    }
}
