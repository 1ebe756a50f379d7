//! What goes in and comes out of a [`Peer`](super::Peer).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::dtls::DtlsIdentity;
use crate::sctp::{ChannelId, ChannelSpec};
use crate::types::{IceCredentials, TransportProto};

/// Parameters of a new peer.
#[derive(Debug, Clone)]
pub struct PeerParams {
    /// Credentials that the local description shows.
    pub local: IceCredentials,
    /// Certificate and DTLS configuration of the node, shared by all peers.
    pub dtls: Arc<DtlsIdentity>,
    /// Data channels that we open as soon as SCTP is up; empty when the client opens them.
    pub open_channels: Vec<ChannelSpec>,
    /// Time of creation; the connection must be up within the timeouts counted from here.
    pub now: Instant,
}

/// One way to reach the remote: protocol, remote address, and the engine's own id of the local
/// socket or TCP connection, which this crate only compares and hands back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// UDP or TCP.
    pub proto: TransportProto,
    /// Remote address as the socket reported it.
    pub remote: SocketAddr,
    /// Local socket or TCP connection, chosen by the engine.
    pub conn: u32,
}

/// What one datagram was.
#[derive(Debug)]
pub enum Received<'a> {
    /// A decrypted RTP packet, authentication tag cut off. The RTP header parsed far enough to
    /// find the payload, nothing more was checked.
    Rtp(&'a mut [u8]),
    /// A decrypted RTCP compound packet, index and tag cut off.
    Rtcp(&'a [u8]),
    /// STUN, DTLS or SCTP; poll for events and transmits.
    Consumed,
    /// Nothing happened; the engine counts the reason.
    Dropped(DropReason),
}

/// Why a datagram was dropped. Also the label of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// First byte outside RFC 7983's ranges for STUN, DTLS and RTP, or too short.
    UnknownProtocol,
    /// STUN that does not parse.
    StunMalformed,
    /// STUN request whose ufrag is not ours.
    StunUnknownUfrag,
    /// STUN without a valid MESSAGE-INTEGRITY.
    StunUnauthenticated,
    /// STUN response, indication or another method: ICE-lite asks nothing.
    StunUnexpected,
    /// DTLS from a source that never passed an ICE check.
    DtlsUnauthenticatedSource,
    /// SRTP from a source that never passed an ICE check.
    SrtpUnauthenticatedSource,
    /// SRTP before the DTLS handshake completed.
    SrtpBeforeDtls,
    /// RTP or RTCP header that does not parse.
    SrtpMalformed,
    /// SRTP authentication failed.
    SrtpAuthentication,
    /// SRTP or SRTCP index already seen or older than the replay window.
    SrtpReplay,
    /// More SSRCs than the peer may use.
    SrtpTooManyStreams,
    /// The peer failed; nothing is processed any more.
    Closed,
}

impl DropReason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 13] = [
        Self::UnknownProtocol,
        Self::StunMalformed,
        Self::StunUnknownUfrag,
        Self::StunUnauthenticated,
        Self::StunUnexpected,
        Self::DtlsUnauthenticatedSource,
        Self::SrtpUnauthenticatedSource,
        Self::SrtpBeforeDtls,
        Self::SrtpMalformed,
        Self::SrtpAuthentication,
        Self::SrtpReplay,
        Self::SrtpTooManyStreams,
        Self::Closed,
    ];

    /// Stable snake_case name for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownProtocol => "unknown_protocol",
            Self::StunMalformed => "stun_malformed",
            Self::StunUnknownUfrag => "stun_unknown_ufrag",
            Self::StunUnauthenticated => "stun_unauthenticated",
            Self::StunUnexpected => "stun_unexpected",
            Self::DtlsUnauthenticatedSource => "dtls_unauthenticated_source",
            Self::SrtpUnauthenticatedSource => "srtp_unauthenticated_source",
            Self::SrtpBeforeDtls => "srtp_before_dtls",
            Self::SrtpMalformed => "srtp_malformed",
            Self::SrtpAuthentication => "srtp_authentication",
            Self::SrtpReplay => "srtp_replay",
            Self::SrtpTooManyStreams => "srtp_too_many_streams",
            Self::Closed => "closed",
        }
    }
}

/// What happened to a peer; drained by [`Peer::poll_event`](super::Peer::poll_event).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// DTLS is up and the certificate matches: media and data may flow.
    Connected {
        /// Name of the SRTP protection profile, as `getStats` spells it.
        srtp_profile: &'static str,
        /// `1.2` or `1.3`.
        dtls_version: &'static str,
    },
    /// Packets now go to this route: first nomination, or an address change.
    RouteChanged(Route),
    /// No authenticated STUN for [`ICE_DISCONNECTED`](super::ICE_DISCONNECTED).
    IceDisconnected,
    /// Authenticated STUN after [`PeerEvent::IceDisconnected`] or [`PeerEvent::IceFailed`].
    IceReconnected,
    /// No authenticated STUN for the disconnected plus the failed time, or none at all in the time
    /// for connecting. DTLS, SRTP and SCTP stay: an ICE restart may bring the peer back.
    IceFailed,
    /// A data channel is ready in both directions.
    ChannelOpen {
        /// SCTP stream id.
        id: ChannelId,
        /// Label of the DCEP OPEN.
        label: String,
        /// Subprotocol of the DCEP OPEN.
        protocol: String,
        /// In-order delivery.
        ordered: bool,
        /// No limit on retransmissions or lifetime.
        reliable: bool,
    },
    /// A whole message.
    ChannelMessage {
        /// SCTP stream id.
        id: ChannelId,
        /// Binary (PPID 53, 57) or UTF-8 text (51, 56; not validated).
        binary: bool,
        /// The message, possibly empty.
        data: Bytes,
    },
    /// The channel is gone.
    ChannelClosed {
        /// SCTP stream id.
        id: ChannelId,
    },
    /// The peer is over; nothing follows.
    Failed(FailureReason),
}

/// Why a peer is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailureReason {
    /// The handshake did not complete in time.
    #[error("the DTLS handshake timed out")]
    DtlsTimeout,
    /// The certificate of the peer matches no fingerprint of its description.
    #[error("the DTLS certificate matches no fingerprint of the remote description")]
    FingerprintMismatch,
    /// The peer negotiated no SRTP protection profile that we know.
    #[error("no common SRTP protection profile")]
    NoSrtpProfile,
    /// The DTLS stack gave up.
    #[error("DTLS: {0}")]
    Dtls(String),
}
