//! What a session is made with and what may be asked of it.

use sluice_rtp::codec::Codec;

use super::codecs::CodecPolicy;
use crate::{Candidate, Fingerprint, IceCredentials};

/// Our side of the transport, as it stands in every description that we write.
#[derive(Debug, Clone)]
pub struct LocalDescription {
    /// Our ICE credentials.
    pub ice: IceCredentials,
    /// Fingerprint of our certificate.
    pub fingerprint: Fingerprint,
    /// All of our candidates; descriptions end with `a=end-of-candidates`.
    pub candidates: Vec<Candidate>,
}

/// Parameters of a session that stay for its whole life, except for the ICE credentials.
#[derive(Debug, Clone)]
pub struct SessionParams {
    /// Our side of the transport.
    pub local: LocalDescription,
    /// Codecs that we accept from the client.
    pub receive: CodecPolicy,
    /// Codecs that we send to the client.
    pub send: CodecPolicy,
    /// `<sess-id>` of `o=` (RFC 8866 §5.2), random; the top bit is cleared when written.
    pub session_id: u64,
    /// Whether an inactive section may carry a new sender of the same kind (false for Safari).
    pub reuse_sections: bool,
    /// Whether `playout-delay` is negotiated towards the client (a room setting).
    pub playout_delay: bool,
    /// Bounds on remote descriptions.
    pub limits: Limits,
}

/// Bounds on what a remote description may contain. The defaults leave room for ten times what
/// the largest known client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole description.
    pub bytes: usize,
    /// Bytes of one line.
    pub line_bytes: usize,
    /// Lines of the whole description.
    pub lines: usize,
    /// Media sections, rejected ones included.
    pub sections: usize,
    /// Attributes of one section, or of the session level.
    pub attributes: usize,
    /// Payload types of one section.
    pub payload_types: usize,
    /// `a=ssrc` SSRCs of one section.
    pub ssrcs: usize,
    /// `a=rid` of one section.
    pub rids: usize,
    /// `a=candidate` of the whole description; more are ignored, not refused.
    pub candidates: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 512 * 1024,
            line_bytes: 8 * 1024,
            lines: 40_000,
            sections: 1_000,
            attributes: 1_000,
            payload_types: 128,
            ssrcs: 64,
            rids: 16,
            candidates: 100,
        }
    }
}

/// What the answer says to one section on which the client sends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SectionPreference {
    /// Codecs to put first, most wanted first (`[Red, Opus]`, `[Vp9]`); the others follow in the
    /// order of the offer.
    pub codecs: Vec<Codec>,
    /// Answer with nothing but the first entry of `codecs` that was offered: for Firefox on Linux
    /// and Android, which ignores the order of an answer.
    pub only_first: bool,
    /// Opus parameters.
    pub opus: OpusAnswer,
}

/// Opus `a=fmtp` parameters in answers (RFC 7587 §6.1): what we ask the client to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusAnswer {
    /// `usedtx=1`: everything but `TF_NO_DTX` tracks.
    pub dtx: bool,
    /// `stereo=1;maxaveragebitrate=510000`: `TF_STEREO` tracks.
    pub stereo: bool,
}

impl Default for OpusAnswer {
    fn default() -> Self {
        Self { dtx: true, stereo: false }
    }
}

/// How many more receiving sections the client must offer (`MediaSectionsRequirement`). Zero and
/// zero still asks for a new offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SectionsRequirement {
    /// Audio sections.
    pub audios: u32,
    /// Video sections.
    pub videos: u32,
}
