//! One RTP stream of a publisher: when its frames come, how large they are, and how they are cut into
//! packets. Audio looks like Opus, video like VP8 (RFC 7741) with three temporal layers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::packet::{MAX_PREFIX, Packet};
use crate::stamp::STAMP_LEN;

/// Length of an Opus frame.
const AUDIO_FRAME: Duration = Duration::from_millis(20);
/// Timestamp units of an Opus frame.
const AUDIO_FRAME_TICKS: u32 = 960;
/// Opus clock, Hz.
const AUDIO_CLOCK: u64 = 48_000;
/// Sizes of Opus frames at about 32 kbit/s, bytes.
const AUDIO_BYTES: std::ops::RangeInclusive<u16> = 60..=110;
/// Configuration byte of a 20 ms full-band Opus frame.
const OPUS_TOC: u8 = 0x78;
/// Level of somebody who speaks, and of somebody who does not, -dBov.
const SPEAKING: u8 = 25;
/// See [`SPEAKING`].
const SILENT: u8 = 127;
/// Frames of silence of which one is sent: libopus keeps a silent stream alive every 400 ms (DTX).
const DTX_FRAMES: u32 = 20;

/// Video clock, Hz.
const VIDEO_CLOCK: u64 = 90_000;
/// Payload bytes of a full video packet (libwebrtc: 1,200 bytes with headers).
const MAX_PAYLOAD: usize = 1150;
/// A key frame is this many times as large as the mean frame.
const KEY_FRAME_FACTOR: f64 = 6.0;
/// Packets of each stream that can be retransmitted: more than a second at 2 Mbit/s.
const HISTORY: usize = 512;
/// First packets of a stream carry mid and rid until the server has certainly learnt them.
const NAMED_PACKETS: u32 = 100;
/// Temporal layers of the frames of a simulcast stream, as libwebrtc's L1T3.
const TEMPORAL: [u8; 4] = [0, 2, 1, 2];

/// One simulcast layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerSpec {
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// Frames per second.
    pub fps: u32,
    /// Mean bitrate of the payload, bits per second.
    pub bitrate_bps: u32,
}

/// The usual three layers of a 720p camera, lowest first.
pub const CAMERA_720P: [LayerSpec; 3] = [
    LayerSpec { width: 320, height: 180, fps: 15, bitrate_bps: 150_000 },
    LayerSpec { width: 640, height: 360, fps: 20, bitrate_bps: 500_000 },
    LayerSpec { width: 1280, height: 720, fps: 30, bitrate_bps: 1_700_000 },
];

/// A stream on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamIds {
    pub(crate) ssrc: u32,
    pub(crate) repair_ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) repair_payload_type: Option<u8>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) ids: StreamIds,
    /// Index for the rid, if there are several, and properties; `None` is audio.
    layer: Option<(Option<u8>, LayerSpec)>,
    pub(crate) enabled: bool,
    start: Instant,
    frames_since_start: u32,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
    key_pending: bool,
    frames_since_key: u32,
    was_speaking: bool,
    seq: u16,
    repair_seq: u16,
    /// Timestamp at `start`.
    first_timestamp: u32,
    picture_id: u16,
    tl0: u8,
    history: VecDeque<Packet>,
    rng: StdRng,
}

impl Stream {
    /// A stream that starts within the next 20 ms: publishers that start together do not send
    /// together.
    pub(crate) fn new(
        now: Instant,
        ids: StreamIds,
        layer: Option<(Option<u8>, LayerSpec)>,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(u64::from(ids.ssrc));
        Self {
            ids,
            layer,
            enabled: true,
            start: now + Duration::from_micros(rng.random_range(0..20_000)),
            frames_since_start: 0,
            packets: 0,
            octets: 0,
            key_pending: true,
            frames_since_key: 0,
            was_speaking: false,
            seq: rng.random(),
            repair_seq: rng.random(),
            first_timestamp: rng.random(),
            picture_id: rng.random_range(0..0x8000),
            tl0: rng.random(),
            history: VecDeque::new(),
            rng,
        }
    }

    /// When the next frame is due.
    pub(crate) fn next_frame(&self) -> Instant {
        match self.layer {
            None => self.start + AUDIO_FRAME * self.frames_since_start,
            Some((_, layer)) => {
                let nanos = u64::from(self.frames_since_start) * 1_000_000_000;
                self.start + Duration::from_nanos(nanos / u64::from(layer.fps.max(1)))
            }
        }
    }

    /// The next frame will be a key frame.
    pub(crate) fn request_key_frame(&mut self) {
        self.key_pending = true;
    }

    /// Pauses or resumes.
    pub(crate) fn set_enabled(&mut self, now: Instant, enabled: bool) {
        if enabled && !self.enabled {
            self.resume(now);
        }
        self.enabled = enabled;
    }

    /// Goes on after a pause, with a key frame and without what was missed.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.key_pending = true;
        while self.next_frame() < now {
            self.frames_since_start += 1;
        }
    }

    /// Media time at `now`.
    pub(crate) fn timestamp_at(&self, now: Instant) -> u32 {
        let clock = if self.layer.is_some() { VIDEO_CLOCK } else { AUDIO_CLOCK };
        let elapsed = now.saturating_duration_since(self.start).as_micros() as u64;
        self.first_timestamp.wrapping_add((elapsed * clock / 1_000_000) as u32)
    }

    /// Cuts the frame that is due into packets; true if it is a key frame.
    pub(crate) fn encode(&mut self, speaking: bool, mut emit: impl FnMut(Packet)) -> bool {
        let key = match self.layer {
            None => {
                if speaking || self.frames_since_start.is_multiple_of(DTX_FRAMES) {
                    emit(self.audio_frame(speaking));
                }
                self.was_speaking = speaking;
                false
            }
            Some((rid, layer)) => self.video_frame(rid, layer, &mut emit),
        };
        self.frames_since_start = self.frames_since_start.wrapping_add(1);
        key
    }

    /// A packet went out.
    pub(crate) fn sent(&mut self, packet: Packet, payload_len: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload_len as u32);
        if self.ids.repair_payload_type.is_some() {
            if self.history.len() == HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(packet);
        }
    }

    /// The RTX packet (RFC 4588) of a packet that was sent.
    pub(crate) fn retransmission(&mut self, seq: u16) -> Option<Packet> {
        let payload_type = self.ids.repair_payload_type?;
        let newest = self.history.back()?.seq;
        let back = usize::from(newest.wrapping_sub(seq));
        let packet = self.history.get(self.history.len().checked_sub(1 + back)?)?;
        let repair = Packet {
            ssrc: self.ids.repair_ssrc,
            payload_type,
            seq: self.repair_seq,
            osn: Some(seq),
            named: true,
            ..*packet
        };
        (packet.seq == seq).then(|| {
            self.repair_seq = self.repair_seq.wrapping_add(1);
            repair
        })
    }

    fn packet(&mut self, timestamp: u32, payload_len: u16) -> Packet {
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        Packet {
            ssrc: self.ids.ssrc,
            payload_type: self.ids.payload_type,
            seq,
            timestamp,
            marker: false,
            payload_len,
            prefix: [0; MAX_PREFIX],
            prefix_len: 0,
            layer: None,
            named: self.packets < NAMED_PACKETS,
            audio_level: None,
            sent_us: 0,
            osn: None,
        }
    }

    fn audio_frame(&mut self, speaking: bool) -> Packet {
        let ticks = AUDIO_FRAME_TICKS.wrapping_mul(self.frames_since_start);
        let bytes = self.rng.random_range(AUDIO_BYTES);
        let level = if speaking { SPEAKING + self.rng.random_range(0..10) } else { SILENT };
        let mut packet = self.packet(self.first_timestamp.wrapping_add(ticks), bytes);
        packet.prefix[0] = OPUS_TOC;
        packet.prefix_len = 1;
        // The first packet of a talk spurt (RFC 3551 §4.1).
        packet.marker = speaking && !self.was_speaking;
        packet.audio_level = Some(level);
        packet
    }

    fn video_frame(
        &mut self,
        rid: Option<u8>,
        layer: LayerSpec,
        emit: &mut impl FnMut(Packet),
    ) -> bool {
        let key = std::mem::take(&mut self.key_pending);
        self.frames_since_key = if key { 0 } else { self.frames_since_key + 1 };
        self.picture_id = (self.picture_id + 1) & 0x7FFF;
        let temporal = TEMPORAL[self.frames_since_key as usize % TEMPORAL.len()];
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        let timestamp = self.timestamp_at(self.next_frame());
        let (count, bytes) = self.frame_packets(layer, key, temporal);
        for at in 0..count {
            // The last packets of a frame are one byte larger (libwebrtc `SplitAboutEqually`).
            let size = bytes / count + usize::from(at >= count - bytes % count);
            let mut packet = self.packet(timestamp, size as u16);
            packet.layer = rid;
            packet.marker = at + 1 == count;
            packet.named |= key && rid.is_some();
            self.write_prefix(&mut packet, layer, key, temporal, at == 0);
            emit(packet);
        }
        key
    }

    /// Packets and payload bytes of a frame. Base-layer frames are larger than the others.
    fn frame_packets(&mut self, layer: LayerSpec, key: bool, temporal: u8) -> (usize, usize) {
        let mean = f64::from(layer.bitrate_bps) / 8.0 / f64::from(layer.fps.max(1));
        let share = match (key, temporal) {
            (true, _) => KEY_FRAME_FACTOR,
            (_, 0) => 1.6,
            (_, 1) => 1.0,
            _ => 0.7,
        };
        let bytes = (mean * share * self.rng.random_range(0.7..1.3)) as usize;
        let bytes = bytes.max(STAMP_LEN + MAX_PREFIX);
        (bytes.div_ceil(MAX_PAYLOAD), bytes)
    }

    /// Payload descriptor (RFC 7741 §4.2) with picture id and temporal layer, then the frame's
    /// header (§9.1) in its first packet.
    fn write_prefix(
        &self,
        packet: &mut Packet,
        layer: LayerSpec,
        key: bool,
        temporal: u8,
        first: bool,
    ) {
        let non_reference = temporal == 2;
        let [high, low] = (0x8000 | self.picture_id).to_be_bytes();
        let sync = u8::from(temporal > 0 && self.frames_since_key < 4);
        let descriptor = [
            0x80 | u8::from(non_reference) << 5 | u8::from(first) << 4,
            0xE0,
            high,
            low,
            self.tl0,
            temporal << 6 | sync << 5,
        ];
        packet.prefix[..6].copy_from_slice(&descriptor);
        packet.prefix_len = 6;
        if first && key {
            let [w0, w1] = layer.width.to_le_bytes();
            let [h0, h1] = layer.height.to_le_bytes();
            // Show frame, version 0, key frame; start code and size (RFC 6386 §9.1).
            let header = [0x10, 0x02, 0x00, 0x9D, 0x01, 0x2A, w0, w1, h0, h1];
            packet.prefix[6..16].copy_from_slice(&header);
            packet.prefix_len = 16;
        } else if first {
            packet.prefix[6..9].copy_from_slice(&[0x11, 0x02, 0x00]);
            packet.prefix_len = 9;
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_rtp::codec::{Codec, PayloadInfo};

    use super::*;

    const IDS: StreamIds =
        StreamIds { ssrc: 7, repair_ssrc: 8, payload_type: 96, repair_payload_type: Some(97) };

    fn frame(stream: &mut Stream) -> Vec<Packet> {
        let mut packets = Vec::new();
        stream.encode(true, |packet| packets.push(packet));
        packets
    }

    fn inspect(packet: &Packet) -> PayloadInfo {
        let mut payload = vec![0; usize::from(packet.payload_len)];
        packet.fill(&mut payload);
        PayloadInfo::inspect(Codec::Vp8, &payload, packet.marker)
    }

    fn camera() -> Stream {
        Stream::new(Instant::now(), IDS, Some((Some(2), CAMERA_720P[2])))
    }

    #[test]
    fn first_video_frame_is_a_key_frame_and_the_next_is_not() {
        let mut stream = camera();
        let first = frame(&mut stream);
        assert!(first.len() > 10, "a key frame of 720p has many packets");
        assert!(inspect(&first[0]).key_frame);
        assert!(first.last().unwrap().marker);
        let second = frame(&mut stream);
        let info = inspect(&second[0]);
        assert!(!info.key_frame && info.start_of_frame);
        assert_eq!(info.temporal_id, Some(2));
    }

    #[test]
    fn mean_bitrate_is_that_of_the_layer() {
        let mut stream = camera();
        frame(&mut stream);
        let bytes: u32 =
            (0..300).flat_map(|_| frame(&mut stream)).map(|p| u32::from(p.payload_len)).sum();
        let bps = bytes * 8 / 10;
        assert!((1_500_000..1_900_000).contains(&bps), "{bps}");
    }

    #[test]
    fn paused_layer_resumes_with_a_key_frame_at_the_right_time() {
        let mut stream = camera();
        frame(&mut stream);
        stream.set_enabled(Instant::now(), false);
        let later = Instant::now() + Duration::from_secs(3);
        stream.set_enabled(later, true);
        assert!(stream.next_frame() >= later);
        assert!(inspect(&frame(&mut stream)[0]).key_frame);
    }

    #[test]
    fn silence_is_sent_every_400_ms_and_speech_begins_with_a_marker() {
        let mut stream = Stream::new(Instant::now(), IDS, None);
        let mut encode = |speaking| {
            let mut packets = Vec::new();
            stream.encode(speaking, |packet| packets.push(packet));
            packets
        };
        let silent: Vec<_> = (0..100).flat_map(|_| encode(false)).collect();
        assert_eq!(silent.len(), 5);
        assert!(silent.iter().all(|packet| packet.audio_level == Some(SILENT) && !packet.marker));
        let speech: Vec<_> = (0..3).flat_map(|_| encode(true)).collect();
        assert_eq!(speech.iter().map(|p| p.marker).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn sent_packet_can_be_repeated_as_rtx_and_an_unknown_one_not() {
        let mut stream = camera();
        let packets = frame(&mut stream);
        packets.iter().for_each(|packet| stream.sent(*packet, 1));
        let wanted = packets[3].seq;
        let repair = stream.retransmission(wanted).unwrap();
        assert_eq!((repair.ssrc, repair.payload_type, repair.osn), (8, 97, Some(wanted)));
        assert!(stream.retransmission(packets[0].seq.wrapping_sub(1)).is_none());
        assert!(stream.retransmission(packets.last().unwrap().seq.wrapping_add(1)).is_none());
    }
}
