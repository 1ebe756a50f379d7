//! The codecs that the server forwards, and what it needs to know of a payload without decoding it.
//!
//! [`PayloadInfo::inspect`] is the one entry point for the packet path: it looks at the first bytes
//! of a payload and says whether a receiver can start there and to which layers the packet belongs.
//! A payload that it does not understand gives the default answer (no key frame, no layers); such
//! packets are forwarded like any other. End-to-end encrypted payloads must not be inspected for
//! H.264, H.265 and AV1, see the codec modules.

use std::fmt;

pub mod av1;
pub mod h264;
pub mod h265;
pub mod opus;
pub mod red;
pub mod vp8;
pub mod vp9;

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaKind {
    /// `m=audio`
    Audio,
    /// `m=video`
    Video,
}

impl MediaKind {
    /// The media type of SDP and MIME.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The payload formats that the server forwards. RTX is not one: it repairs the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// Redundant audio, RFC 2198, with Opus inside.
    Red,
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// AV1 RTP specification.
    Av1,
}

impl Codec {
    /// Every codec, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::Opus,
        Self::Red,
        Self::Pcmu,
        Self::Pcma,
        Self::Vp8,
        Self::Vp9,
        Self::H264,
        Self::H265,
        Self::Av1,
    ];

    /// MIME type as LiveKit spells it.
    pub const fn mime(self) -> &'static str {
        match self {
            Self::Opus => "audio/opus",
            Self::Red => "audio/red",
            Self::Pcmu => "audio/PCMU",
            Self::Pcma => "audio/PCMA",
            Self::Vp8 => "video/VP8",
            Self::Vp9 => "video/VP9",
            Self::H264 => "video/H264",
            Self::H265 => "video/H265",
            Self::Av1 => "video/AV1",
        }
    }

    /// Encoding name of `a=rtpmap`.
    pub fn name(self) -> &'static str {
        let mime = self.mime();
        mime.split_once('/').map_or(mime, |(_, name)| name)
    }

    /// The codec of a MIME type, in any case.
    pub fn from_mime(mime: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.mime().eq_ignore_ascii_case(mime))
    }

    /// The codec of an `a=rtpmap` encoding name in a section of `kind`, in any case. (RED exists for
    /// video as well; that one is not forwarded.)
    pub fn from_name(kind: MediaKind, name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.kind() == kind && codec.name().eq_ignore_ascii_case(name))
    }

    /// Audio or video.
    pub const fn kind(self) -> MediaKind {
        match self {
            Self::Opus | Self::Red | Self::Pcmu | Self::Pcma => MediaKind::Audio,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::H265 | Self::Av1 => MediaKind::Video,
        }
    }

    /// RTP clock, Hz.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus | Self::Red => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
            _ => 90_000,
        }
    }

    /// Channel count of `a=rtpmap`, for codecs that state one.
    pub const fn channels(self) -> Option<u8> {
        match self {
            Self::Opus | Self::Red => Some(2),
            _ => None,
        }
    }

    /// Whether one stream can carry several spatial layers (scalable coding).
    pub const fn is_svc(self) -> bool {
        matches!(self, Self::Vp9 | Self::Av1)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mime())
    }
}

/// What one payload says about its frame. Small and `Copy`: it travels with every packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PayloadInfo {
    /// The packet belongs to the part of a key frame from which a decoder can start: the first
    /// packet of a VP8/VP9 key frame, a parameter set or the start of an IDR/IRAP picture, an AV1
    /// sequence header. Every audio packet. A switch also wants `start_of_frame`: a later slice of an
    /// H.264 key frame has only this.
    pub key_frame: bool,
    /// First packet of a frame (of a spatial layer's frame with VP9). Exact for VP8 and VP9, a
    /// hint for H.264, H.265 and AV1 without dependency descriptor.
    pub start_of_frame: bool,
    /// Last packet of a frame (of a spatial layer's frame with VP9).
    pub end_of_frame: bool,
    /// Temporal layer, if the payload tells.
    pub temporal_id: Option<u8>,
    /// Spatial layer, if the payload tells.
    pub spatial_id: Option<u8>,
    /// A receiver of lower temporal layers can move up to this layer here (VP8 Y, VP9 U). By a
    /// dependency descriptor, at a frame of the lowest layer: to any layer above.
    pub switching_up: bool,
    /// VP9: the frame is predicted from the next lower spatial layer of the same picture (D).
    pub inter_layer: bool,
    /// VP9: the frame is predicted from an earlier picture of its layer (P).
    pub inter_picture: bool,
    /// No other frame is predicted from this one (VP8 N, H.264 nal_ref_idc 0).
    pub discardable: bool,
    /// H.264 and H.265: the packet carries a sequence parameter set; a key frame without one can
    /// only be decoded by a receiver that has it from earlier. AV1: a sequence header; VP9: a
    /// scalability structure.
    pub parameter_sets: bool,
    /// Opus: the packet is so short that it is discontinuous transmission, not speech.
    pub dtx: bool,
    /// VP8: the descriptor that the forwarder rewrites.
    pub vp8: Option<vp8::Descriptor>,
    /// VP9: picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
}

impl PayloadInfo {
    /// Inspects an RTP payload (padding already stripped). `marker` is the header's marker bit.
    /// Never fails: an empty or malformed payload answers with the defaults.
    pub fn inspect(codec: Codec, payload: &[u8], marker: bool) -> Self {
        match codec {
            Codec::Opus => Self { dtx: opus::is_dtx(payload), ..Self::audio() },
            Codec::Red => {
                let dtx = red::primary(payload).is_some_and(|block| opus::is_dtx(block.data));
                Self { dtx, ..Self::audio() }
            }
            Codec::Pcmu | Codec::Pcma => Self::audio(),
            Codec::Vp8 => vp8::Descriptor::parse(payload)
                .map_or_else(|| Self::unknown(marker), |vp8| vp8.info(payload, marker)),
            Codec::Vp9 => vp9::Descriptor::parse(payload)
                .map_or_else(|| Self::unknown(marker), |vp9| vp9.info()),
            Codec::H264 => h264::inspect(payload).info(marker),
            Codec::H265 => h265::inspect(payload).info(marker),
            Codec::Av1 => av1::inspect(payload).info(marker),
        }
    }

    /// An audio packet: a frame of its own.
    const fn audio() -> Self {
        let mut info = Self::unknown(true);
        info.key_frame = true;
        info.start_of_frame = true;
        info
    }

    /// A packet whose payload says nothing.
    const fn unknown(marker: bool) -> Self {
        Self {
            key_frame: false,
            start_of_frame: false,
            end_of_frame: marker,
            temporal_id: None,
            spatial_id: None,
            switching_up: false,
            inter_layer: false,
            inter_picture: false,
            discardable: false,
            parameter_sets: false,
            dtx: false,
            vp8: None,
            picture_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mime_and_name_parse_both_ways_in_any_case() {
        for codec in Codec::ALL {
            assert_eq!(Codec::from_mime(codec.mime()), Some(codec));
            assert_eq!(Codec::from_mime(&codec.mime().to_lowercase()), Some(codec));
            assert_eq!(Codec::from_name(codec.kind(), codec.name()), Some(codec));
        }
        assert_eq!(Codec::from_mime("video/rtx"), None);
        assert_eq!(Codec::from_name(MediaKind::Video, "red"), None);
        assert_eq!(Codec::Vp8.name(), "VP8");
    }

    #[test]
    fn info_stays_small() {
        assert!(size_of::<PayloadInfo>() <= 40, "{}", size_of::<PayloadInfo>());
    }

    #[test]
    fn empty_payloads_are_not_key_frames() {
        for codec in Codec::ALL.into_iter().filter(|codec| codec.kind() == MediaKind::Video) {
            let info = PayloadInfo::inspect(codec, &[], true);
            assert!(!info.key_frame && info.end_of_frame, "{codec}");
        }
    }

    proptest! {
        #[test]
        fn no_payload_makes_an_inspector_panic(
            payload in prop::collection::vec(any::<u8>(), 0..64), marker in any::<bool>(),
        ) {
            for codec in Codec::ALL {
                PayloadInfo::inspect(codec, &payload, marker);
            }
        }
    }
}
