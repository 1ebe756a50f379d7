//! SDP offer/answer sessions of one peer connection, for the control plane.
//!
//! [`AnswerSession`] answers a client that always offers: the publisher connection of LiveKit's
//! dual mode and the only connection of single mode. [`OfferSession`] offers to a client that
//! always answers: the subscriber connection of dual mode. Descriptions and wishes (senders,
//! section preferences) flow in; descriptions and bindings (payload types, extension ids, mids)
//! flow out. A session never does I/O and never keeps a half-applied description: a call that
//! returns an error leaves it as it was.
//!
//! The rules that all of it keeps (RFC 8829, RFC 8843, RFC 9143): the order of media sections
//! never changes, a section is reused only for the same kind, everything is in one BUNDLE group,
//! one payload type means one codec, and an extension id means one URI, for the whole session.

mod answer;
mod bindings;
mod candidate;
mod codecs;
mod error;
mod extensions;
mod fmtp;
mod offer;
mod params;
mod parse;
mod receive;
mod remote;
mod section;
mod sender;
mod text;
mod write;

pub use answer::{Answer, AnswerSession};
pub use bindings::{
    Feedback, NegotiatedCodec, ReceiverBinding, SenderBinding, SenderId, SenderSpec, SourceSsrc,
};
pub use candidate::{
    RemoteCandidate, TrickleError, TrickledCandidate, candidate_init_json, format_candidate,
    host_candidate, parse_candidate, parse_candidate_init,
};
pub use codecs::{CodecParameters, CodecPolicy};
pub use error::{Misuse, SdpError};
pub use offer::{AnswerResult, OfferSession};
pub use params::{
    Limits, LocalDescription, OpusAnswer, SectionPreference, SectionsRequirement, SessionParams,
};
pub use remote::{Direction, RejectReason, RemoteOffer, RemoteSection, SectionKind};
