//! Which codecs we negotiate, under which payload types we offer them, and which of two formats
//! are the same thing.

use std::sync::Arc;

use sluice_rtp::codec::{Codec, MediaKind};

use super::fmtp::{self, H264Profile};

/// A codec with its format parameters, as a track is published in it. Payload types belong to a
/// connection and are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CodecParameters {
    /// Codec.
    pub codec: Codec,
    /// `a=fmtp` value without the payload type; empty for the codec's defaults.
    pub fmtp: Arc<str>,
}

impl CodecParameters {
    /// A codec with its format parameters.
    pub fn new(codec: Codec, fmtp: impl Into<Arc<str>>) -> Self {
        Self { codec, fmtp: fmtp.into() }
    }
}

/// One line of the payload type table of our offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Payload type; RTX of a video codec is one more.
    pub(super) pt: u8,
    pub(super) codec: Codec,
    pub(super) fmtp: &'static str,
    /// Whether every session knows this format, or only one in which a client sends nothing better.
    common: bool,
}

impl Format {
    /// Payload type of the RTX stream for this format.
    pub(super) fn rtx_pt(self) -> Option<u8> {
        (self.codec.kind() == MediaKind::Video).then_some(self.pt + 1)
    }
}

const fn format(pt: u8, codec: Codec, fmtp: &'static str) -> Format {
    Format { pt, codec, fmtp, common: true }
}

const fn fallback(pt: u8, codec: Codec, fmtp: &'static str) -> Format {
    Format { pt, codec, fmtp, common: false }
}

/// Payload types of our offers: LiveKit's numbers, so that its clients meet what they know.
const FORMATS: [Format; 16] = [
    format(111, Codec::Opus, "minptime=10;useinbandfec=1"),
    format(63, Codec::Red, "111/111"),
    format(0, Codec::Pcmu, ""),
    format(8, Codec::Pcma, ""),
    format(96, Codec::Vp8, ""),
    format(
        108,
        Codec::H264,
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    ),
    format(
        125,
        Codec::H264,
        "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f",
    ),
    format(98, Codec::Vp9, "profile-id=0"),
    format(100, Codec::Vp9, "profile-id=1"),
    format(35, Codec::Av1, ""),
    format(116, Codec::H265, ""),
    format(
        123,
        Codec::H264,
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640032",
    ),
    fallback(
        102,
        Codec::H264,
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f",
    ),
    fallback(
        104,
        Codec::H264,
        "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f",
    ),
    fallback(
        106,
        Codec::H264,
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f",
    ),
    fallback(
        39,
        Codec::H264,
        "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=4d001f",
    ),
];

/// The codecs that a session may use in one direction (`room.enabled_codecs`, less what the
/// client cannot do).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecPolicy {
    enabled: Vec<Codec>,
}

impl Default for CodecPolicy {
    /// Every codec we know, in LiveKit's default order.
    fn default() -> Self {
        Self::new([
            Codec::Pcmu,
            Codec::Pcma,
            Codec::Opus,
            Codec::Red,
            Codec::Vp8,
            Codec::H264,
            Codec::Vp9,
            Codec::Av1,
            Codec::H265,
        ])
    }
}

impl CodecPolicy {
    /// The given codecs and no others. RTX needs no mention.
    pub fn new(codecs: impl IntoIterator<Item = Codec>) -> Self {
        Self { enabled: codecs.into_iter().collect() }
    }

    /// The codecs that a list of MIME types names; names we do not know are skipped.
    pub fn from_mime_types<'a>(mimes: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(mimes.into_iter().filter_map(Codec::from_mime))
    }

    /// The same policy without `codec`.
    #[must_use]
    pub fn without(mut self, codec: Codec) -> Self {
        self.enabled.retain(|enabled| *enabled != codec);
        self
    }

    /// Whether `codec` may be used.
    pub fn enables(&self, codec: Codec) -> bool {
        self.enabled.contains(&codec)
    }

    /// Enabled codecs in the order given.
    pub fn codecs(&self) -> &[Codec] {
        &self.enabled
    }
}

/// Whether a client that offers to send `fmtp` may do so: the formats of the table. `fallbacks`
/// are for clients that offer none of the common ones.
pub(super) fn is_receivable(codec: Codec, fmtp: &str, fallbacks: bool) -> bool {
    FORMATS.iter().any(|format| {
        format.codec == codec
            && (format.common || fallbacks)
            && fmtp::same_format(codec, format.fmtp, fmtp)
    })
}

/// The line of the table under which we offer a track of the given codec. H.264 High is offered
/// as Constrained Baseline: receivers decode it, but few name it.
pub(super) fn format_to_offer(track: &CodecParameters) -> Option<&'static Format> {
    let candidates = || FORMATS.iter().filter(|format| format.codec == track.codec);
    let exact = candidates().find(|format| {
        fmtp::same_format(track.codec, format.fmtp, &track.fmtp)
            && !(track.codec == Codec::H264
                && fmtp::h264_profile(format.fmtp) == Some(H264Profile::High))
    });
    exact.or_else(|| match track.codec {
        Codec::H264 => candidates().find(|format| {
            fmtp::packetization_mode(format.fmtp) == fmtp::packetization_mode(&track.fmtp)
        }),
        Codec::Vp9 | Codec::Av1 | Codec::H265 => None,
        _ => candidates().next(),
    })
}

/// The line of the table for Opus, which RED needs beside it.
pub(super) fn opus_format() -> &'static Format {
    const { &FORMATS[0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_types_and_their_rtx_never_collide() {
        let mut all: Vec<u8> = FORMATS
            .iter()
            .flat_map(|format| [Some(format.pt), format.rtx_pt()])
            .flatten()
            .collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        // RTCP packet types occupy 64..=95 once the marker bit is masked off (RFC 5761 §4).
        assert!(all.iter().all(|pt| *pt < 64 || (96..128).contains(pt)), "{all:?}");
    }

    #[test]
    fn high_profile_tracks_are_offered_as_constrained_baseline() {
        let track = CodecParameters::new(
            Codec::H264,
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640c1f",
        );
        assert_eq!(format_to_offer(&track).map(|format| format.pt), Some(108));
    }

    #[test]
    fn baseline_tracks_keep_their_profile_and_packetization_mode() {
        for (fmtp, pt) in [
            ("packetization-mode=1;profile-level-id=42e01f", 108),
            ("packetization-mode=0;profile-level-id=42e034", 125),
            ("profile-level-id=42e01f", 125),
            ("packetization-mode=1;profile-level-id=42001f", 102),
            ("packetization-mode=0;profile-level-id=4d001f", 39),
        ] {
            let track = CodecParameters::new(Codec::H264, fmtp);
            assert_eq!(format_to_offer(&track).map(|format| format.pt), Some(pt), "{fmtp}");
        }
    }

    #[test]
    fn vp9_is_told_apart_by_profile() {
        let offered = |fmtp| format_to_offer(&CodecParameters::new(Codec::Vp9, fmtp));
        assert_eq!(offered("").map(|format| format.pt), Some(98));
        assert_eq!(offered("profile-id=1").map(|format| format.pt), Some(100));
        assert_eq!(offered("profile-id=2"), None);
    }
}
