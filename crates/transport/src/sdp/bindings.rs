//! Results of a negotiation in the form that the media plane needs, and the wish they come from.
//! There is one of each per subscription: what is alike in many of them is shared.

use std::sync::Arc;

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::ExtensionMap;

use super::codecs::CodecParameters;

/// Names a sender within its session. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderId(pub(super) u32);

/// A stream that we want to send to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderSpec {
    /// Audio or video.
    pub kind: MediaKind,
    /// Codecs in which the track exists, most wanted first; the first that the client can decode
    /// is bound. Audio with redundancy is `[Red, Opus]`.
    pub codecs: Arc<[CodecParameters]>,
    /// Stream id of `a=msid` and CNAME: `PA_x|TR_y`.
    pub stream_id: Arc<str>,
    /// Track id of `a=msid`: `TR_y`.
    pub track_id: Arc<str>,
    /// SSRC of the media stream.
    pub ssrc: u32,
    /// SSRC of the RTX stream; only used when RTX is negotiated.
    pub rtx_ssrc: Option<u32>,
    /// Adds `sprop-stereo=1` to Opus in offers.
    pub stereo: bool,
}

/// What was negotiated for one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderBinding {
    /// The sender.
    pub id: SenderId,
    /// `a=mid` of its section.
    pub mid: Arc<str>,
    /// Codec that flows, with the client's payload types and feedback.
    pub codec: NegotiatedCodec,
    /// Index into [`SenderSpec::codecs`] of the codec that was chosen.
    pub codec_index: usize,
    /// Payload type of the Opus inside RED, when `codec` is RED (RFC 2198).
    pub red_primary_pt: Option<u8>,
    /// SSRC of the media stream, from the spec.
    pub ssrc: u32,
    /// SSRC of the RTX stream, when RTX was negotiated.
    pub rtx_ssrc: Option<u32>,
    /// Header extension ids towards the client.
    pub extensions: ExtensionMap,
    /// CNAME for SDES: the stream id.
    pub cname: Arc<str>,
    /// Further codecs of a video track that the client can decode, with their index into
    /// [`SenderSpec::codecs`] and in its order: each may flow instead, under its own payload type.
    pub alternatives: Vec<(usize, NegotiatedCodec)>,
    /// True when this binding is new or differs from what the previous negotiation said.
    pub changed: bool,
}

impl SenderBinding {
    /// Whether the client can decode the track in this codec.
    pub fn decodes(&self, codec: Codec) -> bool {
        self.codec.codec == codec || self.alternatives.iter().any(|(_, it)| it.codec == codec)
    }

    /// The binding with another codec of the track; `None` if the client cannot decode it.
    pub fn with_codec(&self, codec: Codec) -> Option<Self> {
        if self.codec.codec == codec {
            return Some(self.clone());
        }
        let mut other = self.alternatives.iter().filter(|(_, other)| other.codec == codec);
        let (codec_index, codec) = other.next()?.clone();
        let rtx_ssrc = self.rtx_ssrc.filter(|_| codec.rtx_pt.is_some());
        let red_primary_pt = None;
        Some(Self { codec, codec_index, rtx_ssrc, red_primary_pt, ..self.clone() })
    }
}

/// What the client may send on one section after the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverBinding {
    /// `a=mid`.
    pub mid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// Stream and track id of `a=msid`, as far as given.
    pub msid: Option<(String, String)>,
    /// Codecs of the answer, in its order, with the client's payload types.
    pub codecs: Vec<NegotiatedCodec>,
    /// Header extension ids that the client uses.
    pub extensions: ExtensionMap,
    /// Rids in the order of `a=simulcast:send`; empty without rids.
    pub rids: Vec<String>,
    /// Announced SSRCs: in the order of `ssrc-group:SIM`, else of appearance.
    pub ssrcs: Vec<SourceSsrc>,
    /// CNAME of the first SSRC, when announced.
    pub cname: Option<String>,
}

impl ReceiverBinding {
    /// Whether more than one encoding is announced, by rids or by SSRCs.
    pub fn is_simulcast(&self) -> bool {
        self.rids.len() > 1 || self.ssrcs.len() > 1
    }

    /// Feedback of any codec of the section; `transport_cc` and `nack` are the same for all of them
    /// in practice.
    pub fn feedback(&self) -> Feedback {
        let codecs = self.codecs.iter();
        codecs.fold(Feedback::default(), |all, codec| all.union(codec.feedback))
    }
}

/// One announced SSRC with its FID partner (RFC 5576).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceSsrc {
    /// Media SSRC.
    pub ssrc: u32,
    /// RTX SSRC.
    pub rtx_ssrc: Option<u32>,
}

/// One codec with the payload types of the remote description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiatedCodec {
    /// RTP payload type.
    pub pt: u8,
    /// Codec.
    pub codec: Codec,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// Audio channels, 1 when not given; 0 for video.
    pub channels: u8,
    /// `a=fmtp` as the remote wrote it, without the payload type.
    pub fmtp: Arc<str>,
    /// Payload type of the RTX stream that repairs this one (RFC 4588).
    pub rtx_pt: Option<u8>,
    /// RTCP feedback both sides know.
    pub feedback: Feedback,
}

/// RTCP feedback (`a=rtcp-fb`, RFC 4585) of one codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feedback {
    /// `nack`.
    pub nack: bool,
    /// `nack pli`.
    pub pli: bool,
    /// `ccm fir` (RFC 5104).
    pub fir: bool,
    /// `transport-cc`.
    pub transport_cc: bool,
    /// `goog-remb`.
    pub remb: bool,
}

impl Feedback {
    /// What either knows.
    pub(super) fn union(self, other: Self) -> Self {
        Self {
            nack: self.nack || other.nack,
            pli: self.pli || other.pli,
            fir: self.fir || other.fir,
            transport_cc: self.transport_cc || other.transport_cc,
            remb: self.remb || other.remb,
        }
    }

    /// What both know.
    pub(super) fn intersection(self, other: Self) -> Self {
        Self {
            nack: self.nack && other.nack,
            pli: self.pli && other.pli,
            fir: self.fir && other.fir,
            transport_cc: self.transport_cc && other.transport_cc,
            remb: self.remb && other.remb,
        }
    }

    /// Values of `a=rtcp-fb` in the order that libwebrtc writes them.
    pub(super) fn values(self) -> impl Iterator<Item = &'static str> {
        [
            (self.remb, "goog-remb"),
            (self.transport_cc, "transport-cc"),
            (self.fir, "ccm fir"),
            (self.nack, "nack"),
            (self.pli, "nack pli"),
        ]
        .into_iter()
        .filter_map(|(known, value)| known.then_some(value))
    }
}
