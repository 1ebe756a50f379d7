//! A remote description in typed form: what both sessions, and the rooms above them, read.

use sluice_rtp::codec::MediaKind;
use sluice_rtp::ext::ExtensionMap;

use super::bindings::{NegotiatedCodec, SourceSsrc};
use super::candidate::RemoteCandidate;
use super::error::SdpError;
use super::params::Limits;
use super::parse::{self, Role};
use crate::RemoteParams;

/// A description whose lines were read, before it is held against the session.
#[derive(Debug, Clone)]
pub(super) struct RemoteDescription {
    /// Transport of the bundle; `None` when every section is rejected.
    pub(super) transport: Option<RemoteParams>,
    pub(super) candidates: Vec<RemoteCandidate>,
    pub(super) sections: Vec<RemoteSection>,
    /// `a=extmap-allow-mixed` (RFC 8285 §6).
    pub(super) allow_mixed: bool,
}

/// What a client's offer says, after the checks of RFC 8829 §5.8.
#[derive(Debug, Clone)]
pub struct RemoteOffer {
    /// Transport of the bundle.
    pub remote: RemoteParams,
    /// Whether the ICE credentials differ from the previous offer's: the answer needs new local
    /// credentials too (RFC 8839 §4.4.1.1.1).
    pub ice_restart: bool,
    /// Candidates in the description.
    pub candidates: Vec<RemoteCandidate>,
    /// Every media section in order, rejected ones included.
    pub sections: Vec<RemoteSection>,
    /// Whether a data section is offered that we accept.
    pub has_data: bool,
}

impl RemoteOffer {
    /// Reads an offer by itself, for a look before a session answers it.
    ///
    /// # Errors
    /// See [`SdpError`]; a description without a section to answer is one as well.
    pub fn parse(sdp: &str, limits: &Limits) -> Result<Self, SdpError> {
        let offer = parse::parse(sdp, Role::Offer, limits)?;
        let remote = offer.transport.ok_or(SdpError::Missing("a section to answer"))?;
        Ok(Self {
            ice_restart: false,
            candidates: offer.candidates,
            sections: offer.sections,
            has_data: remote.sctp.is_some(),
            remote,
        })
    }
}

/// Kind of an `m=` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// `m=audio` or `m=video`.
    Media(MediaKind),
    /// `m=application` with SCTP over DTLS.
    Data,
    /// Anything else; always rejected.
    Other,
}

/// Direction of a media section (RFC 3264 §5.1), as its writer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// `sendrecv`, which an absent attribute means.
    #[default]
    SendRecv,
    /// `sendonly`.
    SendOnly,
    /// `recvonly`.
    RecvOnly,
    /// `inactive`.
    Inactive,
}

impl Direction {
    /// Whether the writer of the description sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the writer of the description receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The direction that sends and receives as told.
    pub fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// The direction that an attribute names.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "sendrecv" => Some(Self::SendRecv),
            "sendonly" => Some(Self::SendOnly),
            "recvonly" => Some(Self::RecvOnly),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    /// Name of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// Why a section is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The remote itself gave port 0.
    Remote,
    /// Not audio, video or data over the transports of WebRTC.
    Transport,
    /// Not in the BUNDLE group; we have one transport.
    NotBundled,
    /// RTP without `a=rtcp-mux`.
    NoRtcpMux,
    /// No codec that we know.
    NoCodec,
}

/// One media section of a remote description.
#[derive(Debug, Clone)]
pub struct RemoteSection {
    /// `a=mid`.
    pub mid: String,
    /// Kind.
    pub kind: SectionKind,
    /// Direction as the remote sees it.
    pub direction: Direction,
    /// Set when the section carries nothing.
    pub rejected: Option<RejectReason>,
    /// Stream and track id of `a=msid`; the stream is `-` when the track has none.
    pub msid: Option<(String, String)>,
    /// Codecs we know by name, in the order of the `m=` line. RTX is folded into its primary.
    pub codecs: Vec<NegotiatedCodec>,
    /// Rids that the remote sends, in the order of `a=simulcast:send`, else of `a=rid`.
    pub rids: Vec<String>,
    /// Announced SSRCs.
    pub ssrcs: Vec<SourceSsrc>,
    /// Header extensions we know that the remote may send.
    pub extensions: ExtensionMap,
    /// CNAME of the first announced SSRC.
    pub cname: Option<String>,
    /// Header extensions we know that the remote may receive.
    pub(super) receive_extensions: ExtensionMap,
    /// `<media>` of the `m=` line.
    pub(super) media: String,
    /// `<proto>` of the `m=` line.
    pub(super) proto: String,
    /// `<fmt>` of the `m=` line.
    pub(super) formats: Vec<String>,
}

impl RemoteSection {
    /// Audio or video of a section that is in use.
    pub fn media_kind(&self) -> Option<MediaKind> {
        match self.kind {
            SectionKind::Media(kind) if self.rejected.is_none() => Some(kind),
            _ => None,
        }
    }

    /// Whether the remote announces media here.
    pub fn sends(&self) -> bool {
        self.media_kind().is_some() && self.direction.sends()
    }
}
