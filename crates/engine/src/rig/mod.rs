//! A worker's state without its thread and its sockets, driven in virtual time by simulated clients:
//! for tests and benches of what a packet costs. Clients complete ICE and DTLS for real; what they
//! receive is counted and, if asked for, opened.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use sluice_rtp::codec::MediaKind;
use sluice_rtp::rtcp::ReportBlock;
use sluice_transport::{
    DtlsIdentity, IceCredentials, Peer, PeerParams, Received, RemoteParams, Route, Setup,
};
use tokio::sync::mpsc;

use crate::api::{
    AnnouncedSsrc, Command, CreatePeer, Event, PeerId, PublishedTrack, ReceiveParams,
    ReceiveSection, RoomKey, SenderParams, Subscribe, SubscriptionId, SubscriptionSettings,
    WorkerId,
};
use crate::clock::Clock;
use crate::config::{CongestionConfig, DataLatency, MediaConfig};
use crate::core::{Core, CoreParams};
use crate::events::EventSink;
use crate::io::{Outbound, Outbox};
use crate::link::Links;
use crate::rig::clients::{
    Client, check, credentials, extensions, from_server, payload_type, route_of, serial_of,
    ssrc_of, track_id,
};
use crate::stats::WorkerStats;

mod clients;

const WORKER: WorkerId = WorkerId(0);
const ROOM: RoomKey = RoomKey(1);
/// Where every client believes the server to be.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7882);
/// Time between a client's connectivity checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Longest handshake, rounds.
const MAX_ROUNDS: usize = 64;

/// Who is there, and what they send.
#[derive(Debug, Clone, Copy)]
pub struct RigConfig {
    /// Clients that each publish one track.
    pub publishers: usize,
    /// Clients that each receive all tracks.
    pub receivers: usize,
    /// Clients that are only connected.
    pub idle: usize,
    /// Opus, or VP8 without simulcast.
    pub kind: MediaKind,
    /// As [`EngineConfig::egress_hold`](crate::EngineConfig::egress_hold).
    pub egress_hold: Duration,
}

/// See the module.
pub struct Rig {
    core: Core,
    config: RigConfig,
    now: Instant,
    next_check: Instant,
    wire: Wire,
    /// Publishers first.
    clients: Vec<Client>,
    events: mpsc::Receiver<Event>,
    /// Number of the next packet of each publisher.
    number: u32,
    packet: Vec<u8>,
    /// Scratch for report blocks.
    blocks: Vec<ReportBlock>,
    drained: u64,
}

/// Collects datagrams while clients connect, counts them later.
#[derive(Default)]
struct Wire {
    keep: bool,
    kept: Vec<(Route, Vec<u8>)>,
    datagrams: u64,
    runs: u64,
    /// Packets of media since the last look, by client.
    media: Vec<usize>,
}

impl Outbound for Wire {
    fn send(&mut self, route: Route, datagram: &[u8]) {
        self.datagrams += 1;
        self.runs += 1;
        if self.keep {
            self.kept.push((route, datagram.to_vec()));
        }
    }

    fn send_all(&mut self, outbox: &Outbox) {
        for (route, parcel) in outbox.parcels() {
            if let Some(media) = self.media.get_mut(serial_of(*route)) {
                *media += parcel.datagrams();
            }
            for run in outbox.runs_of(parcel, 64) {
                self.runs += 1;
                self.datagrams += run.segments as u64;
                if self.keep {
                    let parts = run.contents.chunks(run.segment_size);
                    self.kept.extend(parts.map(|datagram| (*route, datagram.to_vec())));
                }
            }
        }
    }

    fn close(&mut self, _: Route) {}
}

impl Rig {
    /// Everybody connected, every receiver subscribed to every track, nothing sent yet.
    ///
    /// # Panics
    /// A client does not connect: a bug.
    pub fn new(config: RigConfig) -> Self {
        let identity = Arc::new(DtlsIdentity::generate().expect("a certificate can be made"));
        let (sender, events) = mpsc::channel(65_536);
        let now = Instant::now();
        let core = Core::new(CoreParams {
            worker: WORKER,
            identity: Arc::clone(&identity),
            clock: Clock::new(now),
            egress_hold: config.egress_hold,
            data_latency: DataLatency::default(),
            congestion: Some(CongestionConfig::default()),
            media: MediaConfig::default(),
            links: Links::new(vec![None]),
            events: EventSink::new(sender),
            load: Arc::new(AtomicUsize::new(0)),
            paths: Arc::default(),
        });
        let mut rig = Self {
            core,
            config,
            now,
            next_check: now + CHECK_INTERVAL,
            wire: Wire { keep: true, ..Wire::default() },
            clients: Vec::new(),
            events,
            number: 0,
            packet: Vec::new(),
            blocks: Vec::new(),
            drained: 0,
        };
        for serial in 0..config.publishers + config.receivers + config.idle {
            rig.join(serial, &identity);
        }
        for serial in 0..config.publishers {
            rig.publish(serial);
        }
        for receiver in 0..config.receivers {
            for track in 0..config.publishers {
                rig.subscribe(config.publishers + receiver, track);
            }
        }
        rig.core.flush(now, &mut rig.wire);
        rig.wire = Wire { media: vec![0; rig.clients.len()], ..Wire::default() };
        rig
    }

    /// Each publisher sends one packet, all of them spread over `interval`; what is due is sent.
    pub fn round(&mut self, interval: Duration) {
        for publisher in 0..self.config.publishers {
            self.clients[publisher].write_media(self.config.kind, self.number, &mut self.packet);
            let route = self.clients[publisher].route;
            let mut packet = std::mem::take(&mut self.packet);
            let len = packet.len();
            self.core.begin_turn();
            self.core.handle_datagrams(self.now, route, &mut packet, len);
            self.packet = packet;
            self.core.flush(self.now, &mut self.wire);
            self.pass(interval / self.config.publishers.max(1) as u32);
        }
        self.number += 1;
    }

    /// Lets time pass: timers run at their instants, and clients stay connected.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.turn();
        }
        self.now = end;
        if self.now >= self.next_check {
            self.next_check = self.now + CHECK_INTERVAL;
            for client in &mut self.clients {
                let len = client.check.len();
                self.packet.clear();
                self.packet.extend_from_slice(&client.check);
                self.core.handle_datagrams(self.now, client.route, &mut self.packet, len);
            }
            self.report();
        }
        if self.config.kind == MediaKind::Video {
            self.tell_arrivals();
        }
        self.turn();
    }

    /// Every receiver reports on every track: it knows the SSRC from then on.
    fn report(&mut self) {
        let (publishers, receivers) = (self.config.publishers, self.config.receivers);
        for client in self.clients.iter_mut().skip(publishers).take(receivers) {
            if client.write_report(publishers, &mut self.blocks, &mut self.packet) {
                let len = self.packet.len();
                self.core.handle_datagrams(self.now, client.route, &mut self.packet, len);
            }
        }
    }

    /// Receivers tell when packets arrived.
    fn tell_arrivals(&mut self) {
        let publishers = self.config.publishers;
        for (serial, client) in self.clients.iter_mut().enumerate().skip(publishers) {
            let arrived = self.wire.media.get_mut(serial).map(std::mem::take).unwrap_or_default();
            if client.write_arrivals(self.now, arrived, &mut self.packet) {
                let len = self.packet.len();
                self.core.handle_datagrams(self.now, client.route, &mut self.packet, len);
            }
        }
    }

    fn turn(&mut self) {
        self.core.begin_turn();
        self.core.handle_timeouts(self.now);
        self.core.flush(self.now, &mut self.wire);
        self.core.finish_turn();
        while self.events.try_recv().is_ok() {
            self.drained += 1;
        }
    }

    /// Counters of the worker.
    pub fn stats(&mut self) -> WorkerStats {
        *self.core.stats_mut()
    }

    /// Datagrams that left, and the runs in which they did: system calls.
    pub fn sent(&self) -> (u64, u64) {
        (self.wire.datagrams, self.wire.runs)
    }

    /// Sends one packet of every publisher and opens what the receivers get of it.
    ///
    /// # Panics
    /// A receiver cannot open a packet: a bug.
    pub fn opened(&mut self) -> Vec<Vec<u8>> {
        self.wire.keep = true;
        self.round(Duration::from_millis(20));
        self.wire.keep = false;
        let mut packets = Vec::new();
        for (to, mut datagram) in std::mem::take(&mut self.wire.kept) {
            let client = self.clients.iter_mut().find(|client| client.route == to);
            let client = client.expect("datagrams go to clients");
            match client.peer.handle_datagram(self.now, from_server(), &mut datagram) {
                Received::Rtp(packet) => packets.push(packet.to_vec()),
                Received::Rtcp(_) | Received::Consumed => {}
                Received::Dropped(reason) => panic!("a client refused a datagram: {reason:?}"),
            }
        }
        packets
    }

    fn join(&mut self, serial: usize, identity: &Arc<DtlsIdentity>) {
        let id = PeerId::new(WORKER, serial as u64 + 1);
        let (server, own) = (credentials('A', serial), credentials('C', serial));
        self.core.handle_command(
            self.now,
            Command::CreatePeer(Box::new(CreatePeer {
                peer: id,
                room: ROOM,
                local: server.clone(),
                open_channels: false,
            })),
        );
        let fingerprints = vec![identity.fingerprint_sha256().clone()];
        let remote = |ice: &IceCredentials, setup| RemoteParams {
            ice: ice.clone(),
            fingerprints: fingerprints.clone(),
            setup,
            sctp: None,
        };
        let to_server = Box::new(remote(&own, Setup::Active));
        self.core.handle_command(self.now, Command::SetRemote { peer: id, remote: to_server });
        let mut peer = Peer::new(PeerParams {
            local: own.clone(),
            dtls: Arc::clone(identity),
            open_channels: Vec::new(),
            now: self.now,
        });
        peer.set_remote(self.now, remote(&server, Setup::Passive));
        let mut introduction = check(&own, &server);
        peer.handle_datagram(self.now, from_server(), &mut introduction);
        let route = route_of(serial);
        let mut client = Client::new(peer, id, route, check(&server, &own));
        let mut first = client.check.clone();
        let len = first.len();
        self.core.handle_datagrams(self.now, route, &mut first, len);
        self.connect(&mut client);
        self.clients.push(client);
    }

    fn connect(&mut self, client: &mut Client) {
        let mut datagram = Vec::new();
        for _ in 0..MAX_ROUNDS {
            while client.peer.poll_event().is_some() {}
            while client.peer.poll_transmit(&mut datagram).is_some() {
                let len = datagram.len();
                self.core.handle_datagrams(self.now, client.route, &mut datagram, len);
            }
            self.core.flush(self.now, &mut self.wire);
            for (_, mut datagram) in self.wire.kept.drain(..) {
                client.peer.handle_datagram(self.now, from_server(), &mut datagram);
            }
            if client.peer.is_connected() {
                return;
            }
        }
        panic!("a client did not connect");
    }

    fn publish(&mut self, serial: usize) {
        let section = ReceiveSection {
            mid: "0".to_owned(),
            kind: self.config.kind,
            track: Some(PublishedTrack {
                track: track_id(serial),
                encrypted: false,
                microphone: self.config.kind == MediaKind::Audio,
                screen_share: false,
            }),
            payload_types: vec![payload_type(self.config.kind)],
            extensions: extensions(),
            rids: Vec::new(),
            ssrcs: vec![AnnouncedSsrc { ssrc: 1, rtx_ssrc: None }],
            transport_cc: true,
            nack: self.config.kind == MediaKind::Video,
        };
        let receive = Box::new(ReceiveParams { sections: vec![section] });
        let peer = self.clients[serial].id;
        self.core.handle_command(self.now, Command::SetReceive { peer, receive });
    }

    fn subscribe(&mut self, receiver: usize, track: usize) {
        let payload_type = payload_type(self.config.kind);
        let serial = (receiver * self.config.publishers + track) as u64 + 1;
        let ssrc = ssrc_of(track);
        let sender = SenderParams {
            mid: track.to_string().into(),
            codec: payload_type.codec,
            pt: payload_type.pt,
            rtx_pt: payload_type.rtx_pt,
            red_primary_pt: None,
            ssrc,
            rtx_ssrc: payload_type.rtx_pt.map(|_| ssrc + 1),
            clock_rate: payload_type.clock_rate,
            extensions: extensions(),
            cname: "rig".into(),
            nack: true,
            transport_cc: true,
            remb: false,
        };
        let subscribe = Subscribe {
            subscription: SubscriptionId::new(WORKER, serial),
            peer: self.clients[receiver].id,
            track: track_id(track),
            kind: self.config.kind,
            encrypted: false,
            screen_share: false,
            playout_delay: None,
            announce: false,
            sender,
            settings: SubscriptionSettings::default(),
        };
        self.core.handle_command(self.now, Command::Subscribe(Box::new(subscribe)));
    }
}
