//! One peer connection, without I/O: ICE-lite, DTLS, SRTP, SCTP with DCEP, and SDP offer/answer.
//!
//! Datagrams and time flow in, datagrams and events flow out; nothing here reads a clock, opens a
//! socket or takes a lock. [`peer::Peer`] lives on a media worker, [`sdp`] sessions live on the
//! control plane, and the types at the crate root are what both speak about.

pub mod dtls;
mod ice;
pub mod peer;
pub mod sctp;
pub mod sdp;
pub mod srtp;
pub mod stun;
mod types;

pub use dtls::DtlsIdentity;
pub use peer::{
    DropReason, FailureReason, Peer, PeerEvent, PeerParams, Received, Route, SealError, StreamSlot,
};
pub use sctp::{ChannelId, ChannelSpec, Reliability, SendError};
pub use types::{
    Candidate, CandidateKind, Fingerprint, FingerprintParseError, HashAlgorithm, IceCredentials,
    RemoteParams, SctpParams, Setup, TransportProto,
};
