//! The recent packets of a track, kept on each worker that has receivers of it, for
//! retransmissions.
//!
//! Packets are let go after two seconds, when no receiver can use them any more, so that a layer of
//! few packets does not hold many bodies; a layer of many packets gets a larger ring, up to a bound.

use std::time::{Duration, Instant};

use sluice_rtp::codec::MediaKind;

use crate::packet::{MAX_LAYERS, MediaPacket};

/// How long a packet is kept: three retransmissions at the longest usual round-trip times.
const MAX_AGE: Duration = Duration::from_secs(2);

/// Slots of a layer at first, packets: a low video layer, an audio track.
const MIN_SLOTS: usize = 64;

/// Slots of a video layer at most, packets: 6 Mbit/s of full packets for two seconds. (LiveKit keeps
/// 500 video packets, of any age.)
const MAX_VIDEO_SLOTS: usize = 1_024;

/// Slots of an audio track at most, packets: frames of 10 ms for two seconds (LiveKit: 200).
const MAX_AUDIO_SLOTS: usize = 256;

/// The newest packets of each layer, by extended sequence number.
#[derive(Debug)]
pub struct TrackHistory {
    layers: [Ring; MAX_LAYERS],
    max_slots: usize,
}

impl TrackHistory {
    /// An empty history. Takes memory with the first packet of a layer.
    pub fn new(kind: MediaKind) -> Self {
        let max_slots = match kind {
            MediaKind::Audio => MAX_AUDIO_SLOTS,
            MediaKind::Video => MAX_VIDEO_SLOTS,
        };
        Self { layers: Default::default(), max_slots }
    }

    /// Keeps a packet that arrived now. Padding is not kept, nor a packet older than the one in its
    /// place.
    pub fn push(&mut self, packet: &MediaPacket) {
        if !packet.is_padding()
            && let Some(ring) = self.layers.get_mut(usize::from(packet.stream))
        {
            ring.push(packet, self.max_slots);
        }
    }

    /// The packet with this number, if it is still kept.
    pub fn get(&self, layer: u8, ext_seq: u64) -> Option<&MediaPacket> {
        self.layers.get(usize::from(layer))?.get(ext_seq)
    }

    /// Lets go of every packet, at mute or when the last receiver left.
    pub fn clear(&mut self) {
        self.layers = Default::default();
    }
}

#[derive(Debug, Default)]
struct Ring {
    /// Empty, or a power of two of slots; a packet lies at its number modulo their count.
    slots: Vec<Option<MediaPacket>>,
    /// Numbers below this have been let go.
    oldest: u64,
    /// One above the highest number.
    end: u64,
}

impl Ring {
    fn push(&mut self, packet: &MediaPacket, max_slots: usize) {
        let now = packet.arrival;
        let number = packet.ext_seq;
        if self.slots.is_empty() {
            self.slots.resize_with(MIN_SLOTS, || None);
            (self.oldest, self.end) = (number, number);
        }
        self.release(now);
        while self.is_taken_by_young(number, now) && self.slots.len() < max_slots {
            self.grow();
        }
        let slot = self.index(number);
        if self.slots[slot].as_ref().is_none_or(|old| old.ext_seq < number) {
            self.slots[slot] = Some(packet.clone());
            self.oldest = self.oldest.min(number);
            self.end = self.end.max(number + 1);
        }
    }

    fn get(&self, ext_seq: u64) -> Option<&MediaPacket> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slots[self.index(ext_seq)].as_ref();
        slot.filter(|packet| packet.ext_seq == ext_seq)
    }

    /// Lets go of packets that are too old. A late packet can hide older ones behind it for a
    /// moment, never for long.
    fn release(&mut self, now: Instant) {
        self.oldest = self.oldest.max(self.end.saturating_sub(self.slots.len() as u64));
        while self.oldest < self.end {
            let slot = self.index(self.oldest);
            let number = self.oldest;
            let kept = self.slots[slot].as_ref().filter(|packet| packet.ext_seq <= number);
            match kept {
                Some(packet) if is_young(packet, now) => return,
                Some(_) => self.slots[slot] = None,
                None => {}
            }
            self.oldest += 1;
        }
    }

    fn is_taken_by_young(&self, number: u64, now: Instant) -> bool {
        let slot = self.slots[self.index(number)].as_ref();
        slot.is_some_and(|old| old.ext_seq < number && is_young(old, now))
    }

    fn grow(&mut self) {
        let packets = std::mem::take(&mut self.slots);
        self.slots.resize_with(packets.len() * 2, || None);
        for packet in packets.into_iter().flatten() {
            let slot = self.index(packet.ext_seq);
            self.slots[slot] = Some(packet);
        }
    }

    fn index(&self, number: u64) -> usize {
        (number % self.slots.len() as u64) as usize
    }
}

fn is_young(packet: &MediaPacket, now: Instant) -> bool {
    now.saturating_duration_since(packet.arrival) < MAX_AGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{epoch, media_packet};

    fn kept(history: &TrackHistory, layer: u8) -> usize {
        history.layers[usize::from(layer)].slots.iter().flatten().count()
    }

    fn push_every(history: &mut TrackHistory, micros: u64, count: u64) {
        let t0 = epoch();
        for i in 0..count {
            let now = t0 + Duration::from_micros(i * micros);
            history.push(&media_packet(now, 0, 1_000 + i, 0));
        }
    }

    #[test]
    fn keeps_two_seconds_of_a_slow_and_of_a_fast_layer() {
        for (micros, expected) in [(50_000, 40), (4_000, 500), (2_000, 1_000)] {
            let mut history = TrackHistory::new(MediaKind::Video);
            push_every(&mut history, micros, 5_000);
            assert_eq!(kept(&history, 0), expected);
            assert!(history.get(0, 5_999).is_some());
            assert!(history.get(0, 6_000 - expected as u64).is_some());
            assert!(history.get(0, 5_999 - expected as u64).is_none());
        }
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut history = TrackHistory::new(MediaKind::Video);
        push_every(&mut history, 10, 20_000);
        assert_eq!(kept(&history, 0), MAX_VIDEO_SLOTS);
        assert!(history.get(0, 20_999).is_some());
    }

    #[test]
    fn layers_are_apart() {
        let mut history = TrackHistory::new(MediaKind::Video);
        history.push(&media_packet(epoch(), 2, 5, 0));
        assert!(history.get(2, 5).is_some());
        assert!(history.get(1, 5).is_none());
        assert!(history.get(7, 5).is_none());
    }

    #[test]
    fn late_packets_are_kept_and_displace_nothing_newer() {
        let mut history = TrackHistory::new(MediaKind::Video);
        let t0 = epoch();
        history.push(&media_packet(t0, 0, 1_000, 0));
        history.push(&media_packet(t0, 0, 998, 0));
        assert!(history.get(0, 1_000).is_some() && history.get(0, 998).is_some());
        history.push(&media_packet(t0, 0, 1_000 - MIN_SLOTS as u64, 0));
        assert!(history.get(0, 1_000).is_some());
    }

    #[test]
    fn a_jump_lets_go_of_everything_before_it_in_time() {
        let mut history = TrackHistory::new(MediaKind::Video);
        push_every(&mut history, 4_000, 500);
        let later = epoch() + Duration::from_secs(60);
        history.push(&media_packet(later, 0, 1_000_000, 0));
        history.push(&media_packet(later, 0, 1_000_001, 0));
        assert_eq!(kept(&history, 0), 2);
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
