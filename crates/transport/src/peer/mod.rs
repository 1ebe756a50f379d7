//! One peer connection: ICE-lite agent, DTLS, SRTP and SCTP behind one value.

mod api;

use std::time::{Duration, Instant};

use bytes::Bytes;

pub use api::{DropReason, FailureReason, PeerEvent, PeerParams, Received, Route};

pub use crate::srtp::SealError;

use crate::sctp::{ChannelId, SendError};
use crate::types::{IceCredentials, RemoteParams};

/// Bytes that sealing adds to an RTP packet at most.
pub const SRTP_OVERHEAD: usize = 16;
/// Bytes that sealing adds to an RTCP packet at most.
pub const SRTCP_OVERHEAD: usize = 20;
/// Silence after which a peer is reported disconnected (LiveKit's ICE timer).
pub const ICE_DISCONNECTED: Duration = Duration::from_secs(10);
/// Further silence after which a peer has failed (LiveKit's ICE timer).
pub const ICE_FAILED: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Peer {
    params: PeerParams,
}

impl Peer {
    /// A peer that answers checks for `params.local`.
    pub fn new(params: PeerParams) -> Self {
        Self { params }
    }

    /// Sets or replaces what the remote description said.
    pub fn set_remote(&mut self, now: Instant, remote: RemoteParams) {
        let _ = (now, remote);
    }

    /// New local credentials; the old ones stay valid until the first check that uses the new.
    pub fn restart_ice(&mut self, local: IceCredentials) {
        self.params.local = local;
    }

    /// Processes one datagram (for TCP: one RFC 4571 frame).
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        route: Route,
        data: &'a mut [u8],
    ) -> Received<'a> {
        let _ = (now, route, data);
        Received::Dropped(DropReason::Closed)
    }

    /// Runs timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When [`Peer::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Next datagram to send: replaces the contents of `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Route> {
        out.clear();
        None
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        None
    }

    /// Encrypts the RTP packet `buf[..len]` in place; `buf` has room for [`SRTP_OVERHEAD`] more.
    /// Returns the new length.
    pub fn seal_rtp(
        &mut self,
        buf: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize, SealError> {
        let _ = (buf, header_len, len);
        Err(SealError::NotConnected)
    }

    /// Encrypts the RTCP compound packet `buf` in place.
    pub fn seal_rtcp(&mut self, buf: &mut Vec<u8>) -> Result<(), SealError> {
        let _ = buf;
        Err(SealError::NotConnected)
    }

    /// Sends one message on an open channel.
    pub fn send(
        &mut self,
        now: Instant,
        channel: ChannelId,
        binary: bool,
        data: Bytes,
    ) -> Result<(), SendError> {
        let _ = (now, channel, binary, data);
        Err(SendError::NotOpen)
    }

    /// Bytes accepted by [`Peer::send`] on this channel and not yet acknowledged or abandoned.
    pub fn buffered_amount(&self, channel: ChannelId) -> usize {
        let _ = channel;
        0
    }

    /// The nominated route.
    pub fn selected_route(&self) -> Option<Route> {
        None
    }

    /// Whether media may be sealed and opened.
    pub fn is_connected(&self) -> bool {
        false
    }
}
