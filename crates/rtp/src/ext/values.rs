//! Typed content of header extensions. `parse` takes the element's data and answers `None` when its
//! length or content is not valid; `write` returns the bytes that go into the element.

use std::time::Duration;

use crate::bytes::{array, be16, be24, be64};
use crate::ntp::NtpTime;

/// Audio level of a packet (RFC 6464 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevel {
    /// Whether the encoder believes that the packet contains speech.
    pub voice: bool,
    /// Level below overload, dB: 0 is the loudest, 127 is silence.
    pub level_dbov: u8,
}

impl AudioLevel {
    /// From one byte, or two in the two-byte form.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let byte = *data.first()?;
        Some(Self { voice: byte & 0x80 != 0, level_dbov: byte & 0x7F })
    }

    /// The element's data. Levels above 127 are written as 127.
    pub fn write(self) -> [u8; 1] {
        [(u8::from(self.voice) << 7) | self.level_dbov.min(127)]
    }
}

/// Reads a transport-wide sequence number (draft-holmer §2; the feedback request of version 2 is
/// ignored).
pub fn parse_transport_cc(data: &[u8]) -> Option<u16> {
    be16(data, 0)
}

/// Writes a transport-wide sequence number.
pub fn write_transport_cc(seq: u16) -> [u8; 2] {
    seq.to_be_bytes()
}

/// Reads a text element: mid, rid or repaired rid. `None` unless it is visible ASCII of at most 255
/// bytes; a terminating zero, which some senders add, is cut.
pub fn parse_text(data: &[u8]) -> Option<&str> {
    let text = data.strip_suffix(&[0]).unwrap_or(data);
    let visible = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(text).ok().filter(|_| visible)
}

/// Send time in 6.18 fixed-point seconds, wrapping every 64 s (libwebrtc `abs-send-time`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsSendTime(u32);

impl AbsSendTime {
    /// From three bytes.
    pub fn parse(data: &[u8]) -> Option<Self> {
        be24(data, 0).map(Self)
    }

    /// The element's data.
    pub fn write(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// From time since any epoch.
    pub fn from_duration(time: Duration) -> Self {
        let fraction = (u64::from(time.subsec_nanos()) << 18) / 1_000_000_000;
        Self((((time.as_secs() << 18) | fraction) & 0x00FF_FFFF) as u32)
    }

    /// Time since the last wrap, below 64 s.
    pub fn to_duration(self) -> Duration {
        Duration::from_nanos((u64::from(self.0) * 1_000_000_000) >> 18)
    }
}

/// Capture time of the first frame of a packet (libwebrtc `abs-capture-time`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// NTP time on the clock of the capture system.
    pub capture: NtpTime,
    /// Estimated offset from the capture clock to the sender's clock, 32.32 fixed-point seconds.
    pub clock_offset: Option<i64>,
}

impl AbsCaptureTime {
    /// Longest data, bytes.
    pub const MAX_LEN: usize = 16;

    /// From 8 bytes, or 16 with the clock offset.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let capture = NtpTime::from_bits(be64(data, 0)?);
        let clock_offset = be64(data, 8).map(|bits| bits as i64);
        Some(Self { capture, clock_offset })
    }

    /// Writes the element's data and returns its length, 8 or 16.
    pub fn write(self, out: &mut [u8; Self::MAX_LEN]) -> usize {
        out[..8].copy_from_slice(&self.capture.to_bits().to_be_bytes());
        match self.clock_offset {
            None => 8,
            Some(offset) => {
                out[8..].copy_from_slice(&offset.to_be_bytes());
                16
            }
        }
    }
}

/// Limits for the receiver's jitter buffer (libwebrtc `playout-delay`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// Least delay, units of 10 ms, 0..=4095.
    pub min_10ms: u16,
    /// Greatest delay, units of 10 ms, 0..=4095.
    pub max_10ms: u16,
}

impl PlayoutDelay {
    /// Largest value of a field.
    const FIELD_MAX: u16 = 0x0FFF;

    /// From limits in milliseconds, cut to 40.95 s and to a resolution of 10 ms.
    pub fn from_millis(min_ms: u32, max_ms: u32) -> Self {
        let field = |ms: u32| u16::try_from(ms / 10).unwrap_or(u16::MAX).min(Self::FIELD_MAX);
        Self { min_10ms: field(min_ms), max_10ms: field(max_ms) }
    }

    /// From three bytes. `None` if the limits are crossed.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let bits = be24(data, 0)?;
        let delay = Self { min_10ms: (bits >> 12) as u16, max_10ms: bits as u16 & Self::FIELD_MAX };
        (delay.min_10ms <= delay.max_10ms).then_some(delay)
    }

    /// The element's data.
    pub fn write(self) -> [u8; 3] {
        let min = u32::from(self.min_10ms.min(Self::FIELD_MAX));
        let max = u32::from(self.max_10ms.min(Self::FIELD_MAX));
        let [_, a, b, c] = ((min << 12) | max).to_be_bytes();
        [a, b, c]
    }
}

/// Layer identity that is independent of the codec (RFC 9626 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameMarking {
    /// First packet of a frame.
    pub start_of_frame: bool,
    /// Last packet of a frame.
    pub end_of_frame: bool,
    /// Decodable without earlier frames of the same layer.
    pub independent: bool,
    /// No later frame depends on this one.
    pub discardable: bool,
    /// Depends on the base temporal layer only.
    pub base_layer_sync: bool,
    /// Temporal layer, 0..=7.
    pub temporal_id: u8,
    /// Layer id as the codec defines it; absent in the short form.
    pub layer_id: Option<u8>,
    /// Running index of base-layer frames; absent in the short form.
    pub tl0_pic_idx: Option<u8>,
}

impl FrameMarking {
    /// Longest data, bytes.
    pub const MAX_LEN: usize = 3;

    /// From 1 byte (non-scalable) to 3 bytes (scalable).
    pub fn parse(data: &[u8]) -> Option<Self> {
        let flags = *data.first()?;
        let scalable = data.len() >= 2;
        Some(Self {
            start_of_frame: flags & 0x80 != 0,
            end_of_frame: flags & 0x40 != 0,
            independent: flags & 0x20 != 0,
            discardable: flags & 0x10 != 0,
            base_layer_sync: scalable && flags & 0x08 != 0,
            temporal_id: if scalable { flags & 0x07 } else { 0 },
            layer_id: data.get(1).copied(),
            tl0_pic_idx: data.get(2).copied(),
        })
    }

    /// Writes the element's data and returns its length, 1..=3.
    pub fn write(self, out: &mut [u8; Self::MAX_LEN]) -> usize {
        out[0] = (u8::from(self.start_of_frame) << 7)
            | (u8::from(self.end_of_frame) << 6)
            | (u8::from(self.independent) << 5)
            | (u8::from(self.discardable) << 4);
        let Some(layer_id) = self.layer_id else { return 1 };
        out[0] |= (u8::from(self.base_layer_sync) << 3) | (self.temporal_id & 0x07);
        out[1] = layer_id;
        let Some(tl0_pic_idx) = self.tl0_pic_idx else { return 2 };
        out[2] = tl0_pic_idx;
        3
    }
}

/// How the receiver turns and mirrors the picture (3GPP TS 26.114 §7.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoOrientation {
    /// Back-facing camera.
    pub back_camera: bool,
    /// Mirrored horizontally.
    pub flipped: bool,
    /// Clockwise rotation, units of 90 degrees, 0..=3.
    pub quarter_turns: u8,
}

impl VideoOrientation {
    /// From one byte.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let byte = *data.first()?;
        Some(Self {
            back_camera: byte & 0x08 != 0,
            flipped: byte & 0x04 != 0,
            quarter_turns: byte & 0x03,
        })
    }

    /// The element's data.
    pub fn write(self) -> [u8; 1] {
        let flags = (u8::from(self.back_camera) << 3) | (u8::from(self.flipped) << 2);
        [flags | (self.quarter_turns & 0x03)]
    }
}

/// Reads a transmission time offset, units of the RTP clock (RFC 5450 §2).
pub fn parse_transmission_offset(data: &[u8]) -> Option<i32> {
    let [a, b, c] = array(data, 0)?;
    Some(i32::from_be_bytes([a, b, c, 0]) >> 8)
}

/// Reads a video content type (libwebrtc): `true` for screen share.
pub fn parse_screen_share(data: &[u8]) -> Option<bool> {
    data.first().map(|byte| byte & 1 != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn audio_level_packs_voice_and_level() {
        let level = AudioLevel::parse(&[0x80 | 30]).unwrap();
        assert_eq!(level, AudioLevel { voice: true, level_dbov: 30 });
        assert_eq!(level.write(), [0x9E]);
        assert_eq!(AudioLevel { voice: false, level_dbov: 200 }.write(), [127]);
        assert_eq!(AudioLevel::parse(&[]), None);
    }

    #[test]
    fn text_is_visible_ascii() {
        assert_eq!(parse_text(b"mid0"), Some("mid0"));
        assert_eq!(parse_text(b"q\0"), Some("q"));
        assert_eq!(parse_text(b"\0"), None);
        assert_eq!(parse_text(b""), None);
        assert_eq!(parse_text(b"a b"), None);
        assert_eq!(parse_text(&[0xC3, 0xA9]), None);
    }

    #[test]
    fn abs_send_time_wraps_every_64_seconds() {
        let time = AbsSendTime::from_duration(Duration::from_millis(64_500));
        assert_eq!(time.write(), [0x02, 0x00, 0x00]);
        assert_eq!(time.to_duration(), Duration::from_millis(500));
        assert_eq!(AbsSendTime::parse(&[0x02, 0, 0]), Some(time));
    }

    #[test]
    fn playout_delay_is_two_fields_of_12_bits() {
        let delay = PlayoutDelay::from_millis(100, 10_000);
        assert_eq!(delay.write(), [0x00, 0xA3, 0xE8]);
        assert_eq!(PlayoutDelay::parse(&[0x00, 0xA3, 0xE8]), Some(delay));
        assert_eq!(PlayoutDelay::parse(&[0xFF, 0xF0, 0x00]), None);
        assert_eq!(PlayoutDelay::from_millis(0, u32::MAX).max_10ms, 4095);
    }

    #[test]
    fn short_frame_marking_has_no_layers() {
        let marking = FrameMarking::parse(&[0b1010_1111]).unwrap();
        assert!(marking.start_of_frame && marking.independent);
        assert!(!marking.end_of_frame && !marking.base_layer_sync);
        assert_eq!((marking.temporal_id, marking.layer_id), (0, None));
    }

    #[test]
    fn transmission_offset_is_signed() {
        assert_eq!(parse_transmission_offset(&[0xFF, 0xFF, 0xFF]), Some(-1));
        assert_eq!(parse_transmission_offset(&[0x00, 0x01, 0x00]), Some(256));
        assert_eq!(parse_transmission_offset(&[0, 1]), None);
    }

    #[test]
    fn video_orientation_round_trips() {
        for byte in 0..16u8 {
            assert_eq!(VideoOrientation::parse(&[byte]).unwrap().write(), [byte]);
        }
    }

    proptest! {
        #[test]
        fn abs_capture_time_round_trips(bits in any::<u64>(), offset in any::<Option<i64>>()) {
            let time = AbsCaptureTime { capture: NtpTime::from_bits(bits), clock_offset: offset };
            let mut out = [0; AbsCaptureTime::MAX_LEN];
            let len = time.write(&mut out);
            prop_assert_eq!(AbsCaptureTime::parse(&out[..len]), Some(time));
        }

        #[test]
        fn scalable_frame_marking_round_trips(data in prop::collection::vec(any::<u8>(), 2..=3)) {
            let marking = FrameMarking::parse(&data).unwrap();
            let mut out = [0; FrameMarking::MAX_LEN];
            let len = marking.write(&mut out);
            prop_assert_eq!(&out[..len], &data[..]);
        }
    }
}
