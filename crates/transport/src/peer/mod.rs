//! One peer connection: ICE-lite agent, DTLS, SRTP and SCTP behind one value.
//!
//! Datagrams, messages to send and time go in; decrypted packets, datagrams and events come out.
//! After every call the owner drains [`Peer::poll_event`] and [`Peer::poll_transmit`], and calls
//! [`Peer::handle_timeout`] at [`Peer::poll_timeout`]. DTLS and SRTP are processed only when they
//! come from a route that passed an ICE check. A panic of a library leaves no broken invariant
//! outside of this value: the owner may catch it and drop the peer.

mod api;
mod transmit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_rtp::demux::{DatagramKind, classify};

pub use api::{DropReason, FailureReason, PeerEvent, PeerParams, Received, Route};

pub use crate::ice::{ICE_CONNECT_TIMEOUT, ICE_DISCONNECTED, ICE_FAILED};
pub use crate::srtp::{SealError, StreamSlot};

use crate::dtls::{DtlsError, DtlsIdentity, DtlsOutput, DtlsSession, fingerprint_of};
use crate::ice::{IceAgent, IceEvent};
use crate::sctp::{
    ChannelEvent, ChannelId, ChannelSpec, Channels, SctpProtoAssociation, SendError,
};
use crate::srtp::{OpenError, SrtpProfile, SrtpReceiver, SrtpSender, split_keying_material};
use crate::types::{Fingerprint, IceCredentials, RemoteParams, SctpParams, Setup};
use transmit::TransmitQueue;

/// Bytes that sealing adds to an RTP packet at most.
pub const SRTP_OVERHEAD: usize = 16;
/// Bytes that sealing adds to an RTCP packet at most.
pub const SRTCP_OVERHEAD: usize = 20;
/// Time from the first authenticated check to a finished DTLS handshake (LiveKit).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Handshakes that a peer may break before it fails: a forged ClientHello from the client's own
/// address must not end the session (CVE-2023-49786 and its relatives).
const MAX_HANDSHAKE_ATTEMPTS: u8 = 8;
/// SCTP packets that wait for the remote fingerprint.
const MAX_HELD_PACKETS: usize = 32;
/// Our SCTP port; every description of ours says so.
const LOCAL_SCTP_PORT: u16 = 5000;
/// Name of the version that the DTLS session speaks.
const DTLS_VERSION: &str = "1.2";

/// How far DTLS has come.
#[derive(Debug)]
enum Stage {
    Handshaking,
    /// The handshake is complete, the remote description is not here yet.
    AwaitingRemote,
    Connected,
    Failed,
}

struct Srtp {
    profile: SrtpProfile,
    sender: SrtpSender,
    receiver: SrtpReceiver,
}

/// See the module.
pub struct Peer {
    ice: IceAgent,
    identity: Arc<DtlsIdentity>,
    dtls: Box<dyn DtlsSession>,
    dtls_wake: Option<Instant>,
    /// Where DTLS came from last: the client heard us there, so answers before a nomination go
    /// there, too.
    dtls_route: Option<Route>,
    handshake_attempts: u8,
    handshake_deadline: Option<Instant>,
    stage: Stage,
    /// Leaf certificate of the peer, DER.
    certificate: Option<Vec<u8>>,
    srtp: Option<Srtp>,
    remote: Option<RemoteParams>,
    channels: Option<Channels>,
    /// What to open when `channels` comes up.
    open_channels: Vec<ChannelSpec>,
    held: VecDeque<Vec<u8>>,
    transmits: TransmitQueue,
    events: VecDeque<PeerEvent>,
    /// Time of the latest call, for packets that are made while polling.
    now: Instant,
    /// Reused output buffer of the DTLS session.
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("stage", &self.stage).field("ice", &self.ice).finish()
    }
}

impl Peer {
    /// A peer that answers checks for `params.local`.
    pub fn new(params: PeerParams) -> Self {
        Self {
            ice: IceAgent::new(params.local),
            dtls: params.dtls.session(),
            identity: params.dtls,
            dtls_wake: None,
            dtls_route: None,
            handshake_attempts: 1,
            handshake_deadline: None,
            stage: Stage::Handshaking,
            certificate: None,
            srtp: None,
            remote: None,
            channels: None,
            open_channels: params.open_channels,
            held: VecDeque::new(),
            transmits: TransmitQueue::default(),
            events: VecDeque::new(),
            now: params.now,
            scratch: Vec::new(),
        }
    }

    /// Sets or replaces what the remote description said. Fingerprints are checked against a
    /// finished handshake as well.
    pub fn set_remote(&mut self, now: Instant, remote: RemoteParams) {
        self.now = now;
        self.ice.expect_checks(now);
        if remote.setup == Setup::Passive {
            self.dtls.become_client();
        }
        self.remote = Some(remote);
        match self.stage {
            Stage::AwaitingRemote => self.finish_handshake(),
            Stage::Connected => {
                self.check_certificate();
                self.start_channels();
            }
            Stage::Handshaking | Stage::Failed => {}
        }
        self.start_handshake();
        self.report_ice();
    }

    /// New local credentials; the old ones stay valid until the first check that uses the new.
    pub fn restart_ice(&mut self, now: Instant, local: IceCredentials) {
        self.now = now;
        self.ice.restart(now, local);
    }

    /// Processes one datagram (for TCP: one RFC 4571 frame).
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        route: Route,
        data: &'a mut [u8],
    ) -> Received<'a> {
        self.now = now;
        if self.has_failed() {
            return Received::Dropped(DropReason::Closed);
        }
        match classify(data) {
            DatagramKind::Rtp => self.receive_rtp(now, route, data),
            DatagramKind::Rtcp => self.receive_rtcp(now, route, data),
            DatagramKind::Stun => self.receive_stun(now, route, data),
            DatagramKind::Dtls => self.receive_dtls(now, route, data),
            DatagramKind::TurnChannel | DatagramKind::Unknown => {
                Received::Dropped(DropReason::UnknownProtocol)
            }
        }
    }

    /// Runs timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.has_failed() {
            return;
        }
        self.ice.handle_timeout(now);
        if self.dtls_wake.is_some_and(|at| at <= now) {
            let result = self.dtls.handle_timeout(now);
            self.after_dtls(result);
        }
        if self.handshake_deadline.is_some_and(|at| at <= now) {
            self.fail(FailureReason::DtlsTimeout);
        }
        if let Some(channels) = &mut self.channels
            && channels.poll_timeout().is_some_and(|at| at <= now)
        {
            channels.handle_timeout(now);
        }
        self.report_ice();
    }

    /// When [`Peer::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_failed() {
            return None;
        }
        let channels = self.channels.as_ref().and_then(Channels::poll_timeout);
        let timers = [self.ice.poll_timeout(), self.dtls_wake, self.handshake_deadline, channels];
        timers.into_iter().flatten().min()
    }

    /// Next datagram to send: replaces the contents of `out`. Datagrams of RTP and RTCP are not
    /// among them, see [`Peer::seal_rtp`].
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Route> {
        loop {
            let fallback = self.ice.selected().or(self.dtls_route).or_else(|| self.ice.latest());
            if let Some(route) = self.transmits.pop(fallback, out) {
                return Some(route);
            }
            if self.has_failed() || !self.encrypt_next_sctp_packet() {
                return None;
            }
        }
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let event = self.channels.as_mut()?.poll_event()?;
        Some(match event {
            ChannelEvent::Open { id, label, protocol, ordered, reliable } => {
                PeerEvent::ChannelOpen { id, label, protocol, ordered, reliable }
            }
            ChannelEvent::Message { id, binary, data } => {
                PeerEvent::ChannelMessage { id, binary, data }
            }
            ChannelEvent::Closed { id } => PeerEvent::ChannelClosed { id },
        })
    }

    /// Encrypts the RTP packet `buf[..len]` in place; `buf` has room for [`SRTP_OVERHEAD`] more.
    /// Returns the new length. Indices are never reused: a retransmission on the original SSRC is
    /// refused, send the sealed bytes again or use RTX. `slot` is what the last call for this SSRC left
    /// there.
    pub fn seal_rtp(
        &mut self,
        slot: &mut StreamSlot,
        buf: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize, SealError> {
        self.sender()?.seal_rtp(slot, buf, header_len, len)
    }

    /// Encrypts the RTCP compound packet `buf` in place; it grows by at most [`SRTCP_OVERHEAD`].
    pub fn seal_rtcp(&mut self, buf: &mut Vec<u8>) -> Result<(), SealError> {
        self.sender()?.seal_rtcp(buf)
    }

    /// Sends one message on an open channel.
    pub fn send(
        &mut self,
        now: Instant,
        channel: ChannelId,
        binary: bool,
        data: Bytes,
    ) -> Result<(), SendError> {
        self.now = now;
        self.channels.as_mut().ok_or(SendError::NotOpen)?.send(now, channel, binary, data)
    }

    /// Bytes accepted by [`Peer::send`] on this channel and not yet acknowledged or abandoned.
    pub fn buffered_amount(&self, channel: ChannelId) -> usize {
        self.channels.as_ref().map_or(0, |channels| channels.buffered_amount(channel))
    }

    /// Opens one more data channel, as soon as SCTP is up.
    pub fn open_channel(&mut self, now: Instant, spec: ChannelSpec) {
        self.now = now;
        match &mut self.channels {
            Some(channels) => channels.open(now, spec),
            None => self.open_channels.push(spec),
        }
    }

    /// Gives up messages of a channel that have waited longer than this; `None` keeps them all.
    pub fn set_max_latency(&mut self, channel: ChannelId, max: Option<Duration>) {
        if let Some(channels) = &mut self.channels {
            channels.set_max_latency(channel, max);
        }
    }

    /// Messages that were given up for their age since the last call.
    pub fn take_expired_messages(&mut self) -> u64 {
        self.channels.as_mut().map_or(0, Channels::take_expired)
    }

    /// Closes a data channel; [`PeerEvent::ChannelClosed`] follows when the remote has done so too.
    pub fn close_channel(&mut self, now: Instant, channel: ChannelId) {
        self.now = now;
        if let Some(channels) = &mut self.channels {
            channels.close(channel);
        }
    }

    /// Tells the remote that the connection ends (DTLS close_notify); drain
    /// [`Peer::poll_transmit`] once more before dropping the peer.
    pub fn close(&mut self) {
        if !self.has_failed() {
            self.dtls.close();
            self.drain_dtls();
            self.stage = Stage::Failed;
        }
    }

    /// Forgets a route whose TCP connection or socket is gone.
    pub fn remove_route(&mut self, route: Route) {
        self.ice.remove_route(route);
        self.dtls_route = self.dtls_route.filter(|known| *known != route);
        self.report_ice();
    }

    /// Where media goes: the nominated route. A client that finished its handshake before it
    /// nominates (libwebrtc does, over a pair that passed its check) already waits for media: until
    /// then the route of the handshake counts.
    pub fn selected_route(&self) -> Option<Route> {
        self.ice.selected().or_else(|| self.dtls_route.filter(|_| self.is_connected()))
    }

    /// Whether media may be sealed and opened.
    pub fn is_connected(&self) -> bool {
        matches!(self.stage, Stage::Connected)
    }

    /// Own datagrams that were lost because the owner did not poll, or no route was known.
    pub fn dropped_transmits(&self) -> u64 {
        self.transmits.dropped()
    }

    fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed)
    }

    fn receive_rtp<'a>(&mut self, now: Instant, route: Route, data: &'a mut [u8]) -> Received<'a> {
        let receiver = match self.receiver(now, route) {
            Ok(receiver) => receiver,
            Err(reason) => return Received::Dropped(reason),
        };
        match receiver.open_rtp(data) {
            Ok(len) => {
                self.confirm(now, route);
                Received::Rtp(&mut data[..len])
            }
            Err(error) => Received::Dropped(error.into()),
        }
    }

    fn receive_rtcp<'a>(&mut self, now: Instant, route: Route, data: &'a mut [u8]) -> Received<'a> {
        let receiver = match self.receiver(now, route) {
            Ok(receiver) => receiver,
            Err(reason) => return Received::Dropped(reason),
        };
        match receiver.open_rtcp(data) {
            Ok(len) => {
                self.confirm(now, route);
                Received::Rtcp(&data[..len])
            }
            Err(error) => Received::Dropped(error.into()),
        }
    }

    /// The SRTP receiver, if this route may use it.
    fn receiver(&mut self, now: Instant, route: Route) -> Result<&mut SrtpReceiver, DropReason> {
        if !self.ice.is_authenticated(now, route) {
            return Err(DropReason::SrtpUnauthenticatedSource);
        }
        match (&self.stage, &mut self.srtp) {
            (Stage::Connected, Some(srtp)) => Ok(&mut srtp.receiver),
            _ => Err(DropReason::SrtpBeforeDtls),
        }
    }

    fn sender(&mut self) -> Result<&mut SrtpSender, SealError> {
        match (&self.stage, &mut self.srtp) {
            (Stage::Connected, Some(srtp)) => Ok(&mut srtp.sender),
            _ => Err(SealError::NotConnected),
        }
    }

    fn receive_stun(&mut self, now: Instant, route: Route, data: &[u8]) -> Received<'static> {
        let mut response = self.transmits.buffer();
        if let Err(reason) = self.ice.handle_stun(now, route, data, &mut response) {
            self.transmits.recycle(response);
            return Received::Dropped(reason);
        }
        self.transmits.push(Some(route), response);
        if self.handshake_deadline.is_none() && matches!(self.stage, Stage::Handshaking) {
            self.handshake_deadline = Some(now + HANDSHAKE_TIMEOUT);
        }
        self.start_handshake();
        self.report_ice();
        Received::Consumed
    }

    fn receive_dtls(&mut self, now: Instant, route: Route, data: &[u8]) -> Received<'static> {
        if !self.ice.is_authenticated(now, route) {
            return Received::Dropped(DropReason::DtlsUnauthenticatedSource);
        }
        self.dtls_route = Some(route);
        let result = self.dtls.handle_packet(now, data);
        self.after_dtls(result);
        self.report_ice();
        Received::Consumed
    }

    /// As DTLS client: says hello when there is somebody to say it to.
    fn start_handshake(&mut self) {
        let can_start = self.dtls.is_client()
            && self.dtls_wake.is_none()
            && matches!(self.stage, Stage::Handshaking)
            && self.ice.latest().is_some();
        if can_start {
            let result = self.dtls.handle_timeout(self.now);
            self.after_dtls(result);
        }
    }

    fn after_dtls(&mut self, result: Result<(), DtlsError>) {
        self.drain_dtls();
        let Err(error) = result else { return };
        match (&self.stage, error) {
            (Stage::Failed, _) => {}
            (Stage::Handshaking, DtlsError::Timeout) => self.fail(FailureReason::DtlsTimeout),
            (Stage::Handshaking, _) if self.handshake_attempts < MAX_HANDSHAKE_ATTEMPTS => {
                self.restart_handshake();
            }
            (_, error) => self.fail(FailureReason::Dtls(error.to_string())),
        }
    }

    fn restart_handshake(&mut self) {
        self.handshake_attempts += 1;
        self.dtls = self.identity.session();
        self.dtls_wake = None;
        self.certificate = None;
        self.srtp = None;
        if self.remote.as_ref().is_some_and(|remote| remote.setup == Setup::Passive) {
            self.dtls.become_client();
        }
    }

    fn drain_dtls(&mut self) {
        let mut buf = std::mem::take(&mut self.scratch);
        let mut complete = false;
        loop {
            match self.dtls.poll(&mut buf) {
                DtlsOutput::Transmit => self.transmits.push_copy(&buf),
                DtlsOutput::PeerCertificate => self.certificate = Some(buf.clone()),
                DtlsOutput::SrtpKeys(profile) => self.install_keys(profile, &buf),
                DtlsOutput::Connected => complete = true,
                DtlsOutput::Data => self.receive_sctp(&buf),
                // LiveKit ignores it too: the signalling connection says what a client wants, and
                // silence ends the peer.
                DtlsOutput::Closed => {}
                DtlsOutput::Wait(at) => {
                    self.dtls_wake = at;
                    break;
                }
            }
        }
        self.scratch = buf;
        // The keys may come after the news that they exist.
        if complete {
            self.finish_handshake();
        }
    }

    fn install_keys(&mut self, profile: SrtpProfile, material: &[u8]) {
        let Ok((client, server)) = split_keying_material(profile, material) else { return };
        let (ours, theirs) =
            if self.dtls.is_client() { (client, server) } else { (server, client) };
        let sender = SrtpSender::new(profile, &ours);
        let receiver = SrtpReceiver::new(profile, &theirs);
        if let (Ok(sender), Ok(receiver)) = (sender, receiver) {
            self.srtp = Some(Srtp { profile, sender, receiver });
        }
    }

    /// Certificate and keys are here; connects once the remote fingerprint is, too.
    fn finish_handshake(&mut self) {
        if matches!(self.stage, Stage::Connected | Stage::Failed) {
            return;
        }
        self.handshake_deadline = None;
        if self.remote.is_none() {
            self.stage = Stage::AwaitingRemote;
            return;
        }
        if !self.check_certificate() {
            return;
        }
        let Some(Srtp { profile, .. }) = &self.srtp else {
            self.fail(FailureReason::NoSrtpProfile);
            return;
        };
        let srtp_profile = profile.as_str();
        self.stage = Stage::Connected;
        self.events.push_back(PeerEvent::Connected { srtp_profile, dtls_version: DTLS_VERSION });
        self.start_channels();
        for packet in std::mem::take(&mut self.held) {
            self.receive_sctp(&packet);
        }
    }

    /// Fails the peer if its certificate matches no fingerprint of the remote description.
    fn check_certificate(&mut self) -> bool {
        let matches = |fingerprint: &Fingerprint| {
            self.certificate
                .as_deref()
                .is_some_and(|der| fingerprint_of(fingerprint.algorithm, der) == *fingerprint)
        };
        let trusted =
            self.remote.as_ref().is_some_and(|remote| remote.fingerprints.iter().any(matches));
        if !trusted {
            self.fail(FailureReason::FingerprintMismatch);
        }
        trusted
    }

    fn start_channels(&mut self) {
        let sctp = self.remote.as_ref().and_then(|remote| remote.sctp);
        let (None, Stage::Connected, Some(sctp)) = (&self.channels, &self.stage, sctp) else {
            return;
        };
        let SctpParams { port, max_message_size } = sctp;
        // RFC 8841 §6.1: 0 means any size.
        let limit = if max_message_size == 0 { u32::MAX } else { max_message_size };
        let association = SctpProtoAssociation::new(LOCAL_SCTP_PORT, port, limit);
        self.channels = Some(Channels::new(
            Box::new(association),
            self.dtls.is_client(),
            std::mem::take(&mut self.open_channels),
            limit as usize,
            self.now,
        ));
    }

    fn receive_sctp(&mut self, packet: &[u8]) {
        if let Some(channels) = &mut self.channels {
            channels.handle_packet(self.now, packet);
        } else if matches!(self.stage, Stage::Handshaking | Stage::AwaitingRemote)
            && self.held.len() < MAX_HELD_PACKETS
        {
            // Anything beyond is lost like a datagram, and SCTP repeats it.
            self.held.push_back(packet.to_vec());
        }
    }

    /// Moves one SCTP packet into DTLS; false if there is none.
    fn encrypt_next_sctp_packet(&mut self) -> bool {
        let Some(packet) =
            self.channels.as_mut().and_then(|channels| channels.poll_transmit(self.now))
        else {
            return false;
        };
        let result = self.dtls.send(self.now, &packet);
        self.after_dtls(result);
        true
    }

    fn confirm(&mut self, now: Instant, route: Route) {
        self.ice.confirm(now, route);
        self.report_ice();
    }

    fn report_ice(&mut self) {
        while let Some(event) = self.ice.poll_event() {
            match event {
                IceEvent::Selected(route) => self.events.push_back(PeerEvent::RouteChanged(route)),
                IceEvent::Disconnected => self.events.push_back(PeerEvent::IceDisconnected),
                IceEvent::Reconnected => self.events.push_back(PeerEvent::IceReconnected),
                IceEvent::Failed => self.events.push_back(PeerEvent::IceFailed),
            }
        }
    }

    fn fail(&mut self, reason: FailureReason) {
        if !self.has_failed() {
            self.stage = Stage::Failed;
            self.events.push_back(PeerEvent::Failed(reason));
        }
    }
}

impl From<OpenError> for DropReason {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Malformed => Self::SrtpMalformed,
            OpenError::Authentication => Self::SrtpAuthentication,
            OpenError::Replay => Self::SrtpReplay,
            OpenError::TooManyStreams => Self::SrtpTooManyStreams,
        }
    }
}
