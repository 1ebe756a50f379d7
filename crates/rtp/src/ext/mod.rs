//! RTP header extensions: which ones exist, under which id a peer negotiated them, and the typed
//! content of those that the server reads or writes.

mod values;

pub use values::*;

macro_rules! extension_kinds {
    ($($(#[$doc:meta])* $name:ident => $uri:literal $(| $alias:literal)*,)*) => {
        /// The header extensions that LiveKit clients and libwebrtc negotiate.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ExtensionKind {
            $($(#[$doc])* $name,)*
        }

        impl ExtensionKind {
            /// Every kind, in declaration order.
            pub const ALL: [Self; KINDS] = [$(Self::$name,)*];

            /// The URI of `a=extmap`.
            pub const fn uri(self) -> &'static str {
                match self { $(Self::$name => $uri,)* }
            }

            /// The kind that a URI of `a=extmap` names, older spellings included.
            pub fn from_uri(uri: &str) -> Option<Self> {
                match uri {
                    $($uri $(| $alias)* => Some(Self::$name),)*
                    _ => None,
                }
            }
        }

        /// Number of kinds.
        const KINDS: usize = [$($uri,)*].len();
    };
}

extension_kinds! {
    /// Client-to-mixer audio level (RFC 6464).
    AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    /// Mixer-to-client audio levels (RFC 6465).
    CsrcAudioLevel => "urn:ietf:params:rtp-hdrext:csrc-audio-level",
    /// Media section identification (RFC 8843 §15).
    Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
    /// Stream id within a section (RFC 8852).
    Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    /// Stream id that an RTX packet repairs (RFC 8852).
    RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    /// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    /// Transport-wide sequence number with feedback request (libwebrtc).
    TransportCcV2 => "http://www.webrtc.org/experiments/rtp-hdrext/transport-wide-cc-02",
    /// Absolute send time (libwebrtc).
    AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    /// Absolute capture time (libwebrtc).
    AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    /// Dependency descriptor (AV1 RTP specification, appendix A).
    DependencyDescriptor => "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
    /// Playout delay limits (libwebrtc).
    PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    /// Frame marking (RFC 9626).
    FrameMarking => "urn:ietf:params:rtp-hdrext:framemarking"
        | "http://tools.ietf.org/html/draft-ietf-avtext-framemarking-07",
    /// Coordination of video orientation (3GPP TS 26.114 §7.4.5).
    VideoOrientation => "urn:3gpp:video-orientation",
    /// Transmission time offset (RFC 5450).
    TransmissionOffset => "urn:ietf:params:rtp-hdrext:toffset",
    /// Screen share or camera (libwebrtc).
    VideoContentType => "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
    /// Encoder and pacer timing (libwebrtc).
    VideoTiming => "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
    /// Colour space and HDR metadata (libwebrtc).
    ColorSpace => "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
    /// Generic frame descriptor, version 0 (libwebrtc).
    GenericFrameDescriptor => "http://www.webrtc.org/experiments/rtp-hdrext/generic-frame-descriptor-00",
    /// Bitrate and resolution of the layers being sent (libwebrtc).
    VideoLayersAllocation => "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00",
    /// Frame id for end-to-end quality tests (libwebrtc).
    VideoFrameTrackingId => "http://www.webrtc.org/experiments/rtp-hdrext/video-frame-tracking-id",
    /// In-band comfort noise (libwebrtc).
    InbandComfortNoise => "http://www.webrtc.org/experiments/rtp-hdrext/inband-cn",
    /// Samples for the detection of video corruption (libwebrtc).
    CorruptionDetection => "http://www.webrtc.org/experiments/rtp-hdrext/corruption-detection",
}

/// The ids under which one media section negotiated header extensions. Small and `Copy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtensionMap {
    /// Id by kind; 0 = not negotiated.
    ids: [u8; KINDS],
}

impl ExtensionMap {
    /// A map without extensions.
    pub const fn new() -> Self {
        Self { ids: [0; KINDS] }
    }

    /// Maps `kind` to `id`, 1..=255. An earlier kind with that id loses it. Id 0 removes `kind`.
    pub fn insert(&mut self, kind: ExtensionKind, id: u8) {
        for slot in &mut self.ids {
            if *slot == id {
                *slot = 0;
            }
        }
        self.ids[kind as usize] = id;
    }

    /// Forgets `kind`.
    pub fn remove(&mut self, kind: ExtensionKind) {
        self.ids[kind as usize] = 0;
    }

    /// The id negotiated for `kind`.
    pub fn id(&self, kind: ExtensionKind) -> Option<u8> {
        Some(self.ids[kind as usize]).filter(|id| *id != 0)
    }

    /// The kind negotiated for `id`.
    pub fn kind(&self, id: u8) -> Option<ExtensionKind> {
        let index = self.ids.iter().position(|slot| *slot == id && id != 0)?;
        Some(ExtensionKind::ALL[index])
    }

    /// Whether `kind` was negotiated.
    pub fn contains(&self, kind: ExtensionKind) -> bool {
        self.id(kind).is_some()
    }

    /// Negotiated kinds with their ids, in declaration order of the kinds.
    pub fn iter(&self) -> impl Iterator<Item = (ExtensionKind, u8)> {
        ExtensionKind::ALL.into_iter().zip(self.ids).filter(|(_, id)| *id != 0)
    }

    /// Whether nothing was negotiated.
    pub fn is_empty(&self) -> bool {
        self.ids.iter().all(|id| *id == 0)
    }
}

impl FromIterator<(ExtensionKind, u8)> for ExtensionMap {
    fn from_iter<I: IntoIterator<Item = (ExtensionKind, u8)>>(pairs: I) -> Self {
        let mut map = Self::new();
        for (kind, id) in pairs {
            map.insert(kind, id);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_uri() {
        for kind in ExtensionKind::ALL {
            assert_eq!(ExtensionKind::from_uri(kind.uri()), Some(kind));
        }
        assert_eq!(
            ExtensionKind::from_uri("http://tools.ietf.org/html/draft-ietf-avtext-framemarking-07"),
            Some(ExtensionKind::FrameMarking)
        );
        assert_eq!(ExtensionKind::from_uri("urn:example:other"), None);
    }

    #[test]
    fn map_answers_both_ways() {
        let map: ExtensionMap =
            [(ExtensionKind::Mid, 4), (ExtensionKind::AudioLevel, 1)].into_iter().collect();
        assert_eq!(map.id(ExtensionKind::Mid), Some(4));
        assert_eq!(map.kind(1), Some(ExtensionKind::AudioLevel));
        assert_eq!(map.kind(0), None);
        assert_eq!(map.id(ExtensionKind::Rid), None);
        assert_eq!(
            map.iter().collect::<Vec<_>>(),
            [(ExtensionKind::AudioLevel, 1), (ExtensionKind::Mid, 4)]
        );
    }

    #[test]
    fn an_id_belongs_to_the_last_kind_that_took_it() {
        let mut map = ExtensionMap::new();
        map.insert(ExtensionKind::Mid, 4);
        map.insert(ExtensionKind::Rid, 4);
        assert_eq!(map.id(ExtensionKind::Mid), None);
        assert_eq!(map.kind(4), Some(ExtensionKind::Rid));
        map.remove(ExtensionKind::Rid);
        assert!(map.is_empty());
    }
}
