//! One peer connection of a client on a media thread: its socket, ICE agent, transport peer, and
//! what it sends or receives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sluice_net::{RECV_BATCH, RecvBatch, SendArena, UdpEndpoint};
use sluice_proto::SignalTarget;
use sluice_rtp::demux::{DatagramKind, classify};
use sluice_transport::peer::SRTCP_OVERHEAD;
use sluice_transport::{
    ChannelId, ChannelSpec, DtlsIdentity, IceCredentials, Peer, PeerEvent, PeerParams, Received,
    RemoteParams, Route, TransportProto,
};
use tokio::sync::mpsc;

use crate::ice::{IceAgent, IceOutput};
use crate::measure::{Measurements, ReceiveTotals};
use crate::packet::Writer;
use crate::publish::Publisher;
use crate::receive::{Context, ReceiveOptions, Receiver};
use crate::stamp::Clock;

/// What happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionEvent {
    /// ICE and DTLS are up.
    Connected,
    /// It is over.
    Failed(String),
}

/// Everything that a new connection needs.
#[derive(Debug)]
pub(crate) struct ConnectionParams {
    pub(crate) socket: UdpEndpoint,
    pub(crate) local: IceCredentials,
    pub(crate) identity: Arc<DtlsIdentity>,
    pub(crate) remote: RemoteParams,
    pub(crate) candidates: Vec<SocketAddr>,
    /// Our ICE role.
    pub(crate) controlling: bool,
    pub(crate) open_channels: Vec<ChannelSpec>,
    pub(crate) events: mpsc::Sender<(SignalTarget, ConnectionEvent)>,
    /// Subscriber connections receive media, publisher connections send.
    pub(crate) target: SignalTarget,
}

/// Things of the thread that all its connections use in turn.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) arena: SendArena,
    pub(crate) buffer: Vec<u8>,
    pub(crate) reply: Vec<u8>,
    pub(crate) measurements: Measurements,
}

/// See the module.
pub(crate) struct Connection {
    pub(crate) socket: UdpEndpoint,
    peer: Peer,
    ice: IceAgent,
    pub(crate) publisher: Option<Publisher>,
    pub(crate) receiver: Option<Receiver>,
    events: mpsc::Sender<(SignalTarget, ConnectionEvent)>,
    target: SignalTarget,
    connected: bool,
    failed: bool,
    /// Channels by their label's role: reliable, lossy.
    channels: [Option<ChannelId>; 2],
    /// Bumped by every change of the timer, so that stale heap entries are recognised.
    pub(crate) armed: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(now: Instant, params: ConnectionParams) -> Self {
        let ConnectionParams { remote, local, controlling, candidates, .. } = params;
        let mut peer = Peer::new(PeerParams {
            local: local.clone(),
            dtls: params.identity,
            open_channels: params.open_channels,
            now,
        });
        let ice = IceAgent::new(&local, &remote.ice, controlling, candidates, now);
        peer.set_remote(now, remote);
        let receives = params.target == SignalTarget::Subscriber;
        let options = ReceiveOptions { sample_every: 1, transport_cc: None, remb: false };
        Self {
            socket: params.socket,
            peer,
            ice,
            publisher: None,
            receiver: receives.then(|| Receiver::new(options, now)),
            events: params.events,
            target: params.target,
            connected: false,
            failed: false,
            channels: [None; 2],
            armed: None,
        }
    }

    /// More candidates of the server.
    pub(crate) fn add_candidates(&mut self, now: Instant, candidates: &[SocketAddr]) {
        candidates.iter().for_each(|candidate| self.ice.add_candidate(now, *candidate));
    }

    /// Drains the socket.
    pub(crate) fn on_readable(&mut self, now: Instant, batch: &mut RecvBatch, shared: &mut Shared) {
        // An edge comes again only after the socket was empty: a batch that is not full says so.
        while let Ok(count) = self.socket.recv(batch) {
            for (from, bytes, stride) in batch.iter_mut() {
                for datagram in bytes.chunks_mut(stride) {
                    self.on_datagram(now, from, datagram, shared);
                }
            }
            if count < RECV_BATCH {
                break;
            }
        }
    }

    /// Runs what is due and sends what came of it.
    pub(crate) fn run(&mut self, now: Instant, shared: &mut Shared) {
        if self.failed {
            return;
        }
        if let Some(to) = self.ice.poll_check(now, &mut shared.buffer) {
            self.socket.send_one(to, &shared.buffer);
        }
        if self.peer.poll_timeout().is_some_and(|at| at <= now) {
            self.peer.handle_timeout(now);
        }
        self.drain_peer(now, shared);
        let Some(to) = self.ice.valid().filter(|_| self.connected) else { return };
        shared.buffer.clear();
        if let Some(publisher) = &mut self.publisher {
            let writer = Writer { peer: &mut self.peer, arena: &mut shared.arena };
            publisher.poll(now, &shared.clock, writer);
            publisher.poll_reports(now, &shared.clock, &mut shared.buffer);
        }
        if let Some(receiver) = &mut self.receiver {
            receiver.poll(now, &mut shared.buffer);
        }
        self.flush(to, shared);
    }

    /// When [`run`](Self::run) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.failed {
            return None;
        }
        let media = [
            self.publisher.as_ref().and_then(Publisher::poll_timeout),
            self.receiver.as_ref().and_then(Receiver::poll_timeout),
        ];
        let media = media.into_iter().flatten().filter(|_| self.connected);
        media.chain(self.peer.poll_timeout()).chain([self.ice.poll_timeout()]).min()
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self, now: Instant, shared: &mut Shared) {
        self.peer.close();
        self.drain_peer(now, shared);
        self.failed = true;
    }

    /// Sends a message on a data channel; false if that is not possible now.
    pub(crate) fn send_data(&mut self, now: Instant, reliable: bool, data: Bytes) -> bool {
        let Some(channel) = self.channels[usize::from(!reliable)] else { return false };
        self.peer.send(now, channel, true, data).is_ok()
    }

    pub(crate) fn receive_totals(&self, now: Instant) -> ReceiveTotals {
        self.receiver.as_ref().map(|receiver| receiver.totals(now)).unwrap_or_default()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected && !self.failed
    }

    fn on_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        data: &mut [u8],
        shared: &mut Shared,
    ) {
        let route = route(from);
        match classify(data) {
            DatagramKind::Rtp => {
                let Shared { clock, measurements, .. } = shared;
                if let Some(receiver) = self.receiver.as_mut().filter(|_| self.connected) {
                    let peer = &mut self.peer;
                    receiver.on_rtp(data, Context { now, clock, peer, route, measurements });
                }
            }
            DatagramKind::Stun => self.on_stun(now, from, data, shared),
            _ => match self.peer.handle_datagram(now, route, data) {
                Received::Rtcp(compound) => {
                    if let Some(receiver) = &mut self.receiver {
                        receiver.on_rtcp(now, compound);
                    }
                    if let Some(publisher) = &mut self.publisher {
                        let Shared { arena, .. } = shared;
                        publisher.on_rtcp(compound, Writer { peer: &mut self.peer, arena });
                        shared.buffer.clear();
                        self.flush(from, shared);
                    }
                }
                _ => self.drain_peer(now, shared),
            },
        }
    }

    fn on_stun(&mut self, now: Instant, from: SocketAddr, data: &[u8], shared: &mut Shared) {
        let output = self.ice.handle(now, from, data, &mut shared.reply);
        if !shared.reply.is_empty() {
            self.socket.send_one(from, &shared.reply);
        }
        if let IceOutput::Valid(to) = output {
            self.ice.introduction(&mut shared.buffer);
            self.peer.handle_datagram(now, route(to), &mut shared.buffer);
            self.drain_peer(now, shared);
        }
    }

    /// Sends the peer's datagrams and takes its events.
    fn drain_peer(&mut self, now: Instant, shared: &mut Shared) {
        while let Some(route) = self.peer.poll_transmit(&mut shared.buffer) {
            // Answers to introductions go nowhere.
            if classify(&shared.buffer) != DatagramKind::Stun {
                self.socket.send_one(route.remote, &shared.buffer);
            }
        }
        while let Some(event) = self.peer.poll_event() {
            match event {
                PeerEvent::Connected { .. } => {
                    self.connected = true;
                    self.tell(ConnectionEvent::Connected);
                }
                PeerEvent::Failed(reason) => {
                    self.failed = true;
                    self.tell(ConnectionEvent::Failed(reason.to_string()));
                }
                PeerEvent::IceFailed => {
                    self.failed = true;
                    self.tell(ConnectionEvent::Failed("no ICE check arrived in time".into()));
                }
                PeerEvent::ChannelOpen { id, label, .. } => match label.as_str() {
                    "_reliable" => self.channels[0] = Some(id),
                    "_lossy" => self.channels[1] = Some(id),
                    _ => {}
                },
                PeerEvent::ChannelMessage { data, .. } => {
                    let clock = shared.clock;
                    if let Some(receiver) = &mut self.receiver {
                        receiver.on_data(now, &clock, &data, &mut shared.measurements);
                    }
                }
                _ => {}
            }
        }
    }

    /// Seals the RTCP in the buffer and sends it and the arena.
    fn flush(&mut self, to: SocketAddr, shared: &mut Shared) {
        for run in shared.arena.runs(self.socket.max_segments()) {
            self.socket.send(to, run);
        }
        shared.arena.clear();
        if !shared.buffer.is_empty() {
            shared.buffer.reserve(SRTCP_OVERHEAD);
            if self.peer.seal_rtcp(&mut shared.buffer).is_ok() {
                self.socket.send_one(to, &shared.buffer);
            }
            shared.buffer.clear();
        }
    }

    fn tell(&self, event: ConnectionEvent) {
        // Connected and failed are all there is, and the queue holds both; a closed one means that
        // the participant is gone.
        let _ = self.events.try_send((self.target, event));
    }
}

fn route(remote: SocketAddr) -> Route {
    Route { proto: TransportProto::Udp, remote, conn: 0 }
}
