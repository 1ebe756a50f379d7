//! One peer connection, without I/O: ICE-lite, DTLS, SRTP, SCTP with DCEP, and SDP offer/answer.
//!
//! Datagrams and time flow in, datagrams and events flow out; nothing here reads a clock, opens a
//! socket or takes a lock. [`peer::Peer`] lives on a media worker, [`sdp`] sessions live on the
//! control plane, and [`types`] is what both speak about.

pub mod sdp;
mod types;

pub use types::{
    Candidate, CandidateKind, Fingerprint, FingerprintParseError, HashAlgorithm, IceCredentials,
    RemoteParams, SctpParams, Setup, TransportProto,
};
