//! A worker's state without its thread and its sockets, driven in virtual time by simulated clients:
//! for tests and benches of what a packet costs. Clients complete ICE and DTLS for real; what they
//! receive is counted and, if asked for, opened.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use sluice_net::SendArena;
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};
use sluice_rtp::packet::RtpHeaderWriter;
use sluice_rtp::rtcp::{ReportBlock, write};
use sluice_transport::stun::{BindingRequest, IceRole, IntegrityKey};
use sluice_transport::{
    DtlsIdentity, IceCredentials, Peer, PeerParams, Received, RemoteParams, Route, Setup,
    TransportProto,
};
use tokio::sync::mpsc;

use crate::api::{
    AnnouncedSsrc, Command, CreatePeer, Event, PayloadType, PeerId, PublishedTrack, ReceiveParams,
    ReceiveSection, RoomKey, SenderParams, Subscribe, SubscriptionId, SubscriptionSettings,
    TrackId, WorkerId,
};
use crate::clock::Clock;
use crate::config::{CongestionConfig, DataLatency, MediaConfig};
use crate::core::{Core, CoreParams};
use crate::events::EventSink;
use crate::io::Outbound;
use crate::link::Links;
use crate::stats::WorkerStats;

const WORKER: WorkerId = WorkerId(0);
const ROOM: RoomKey = RoomKey(1);
/// Where every client believes the server to be.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7882);
const TWCC_ID: u8 = 3;
/// Time between a client's connectivity checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Report blocks of one report at most (RFC 3550 §6.4).
const MAX_BLOCKS: usize = 31;
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

struct Client {
    peer: Peer,
    id: PeerId,
    /// As the server sees it.
    route: Route,
    check: Vec<u8>,
}

/// Collects datagrams while clients connect, counts them later.
#[derive(Default)]
struct Wire {
    keep: bool,
    kept: Vec<(Route, Vec<u8>)>,
    datagrams: u64,
    runs: u64,
}

impl Outbound for Wire {
    fn send(&mut self, route: Route, datagram: &[u8]) {
        self.datagrams += 1;
        self.runs += 1;
        if self.keep {
            self.kept.push((route, datagram.to_vec()));
        }
    }

    fn send_all(&mut self, route: Route, arena: &SendArena) {
        for run in arena.runs(64) {
            self.runs += 1;
            self.datagrams += run.segments as u64;
            if self.keep {
                let parts = run.contents.chunks(run.segment_size);
                self.kept.extend(parts.map(|datagram| (route, datagram.to_vec())));
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
        rig.wire = Wire::default();
        rig
    }

    /// Each publisher sends one packet; `interval` passes, and what is due is sent.
    pub fn round(&mut self, interval: Duration) {
        for publisher in 0..self.config.publishers {
            self.write(publisher);
            let route = self.clients[publisher].route;
            let mut packet = std::mem::take(&mut self.packet);
            let len = packet.len();
            self.core.begin_turn();
            self.core.handle_datagrams(self.now, route, &mut packet, len);
            self.packet = packet;
            self.core.flush(self.now, &mut self.wire);
        }
        self.number += 1;
        self.pass(interval);
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
        self.turn();
    }

    /// Every receiver reports on every track: it knows the SSRC from then on.
    fn report(&mut self) {
        let tracks = self.config.publishers;
        let receivers = self.clients.iter_mut().skip(tracks).take(self.config.receivers);
        for client in receivers {
            self.packet.clear();
            let blocks = (0..tracks)
                .map(|track| ReportBlock { ssrc: ssrc_of(track), ..ReportBlock::default() });
            self.blocks.clear();
            self.blocks.extend(blocks.take(MAX_BLOCKS));
            write::receiver_report(&mut self.packet, 1, &self.blocks);
            if client.peer.seal_rtcp(&mut self.packet).is_ok() {
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
        let port = 10_000 + serial as u16;
        let remote = SocketAddr::from(([10, 0, 0, 1], port));
        let route = Route { proto: TransportProto::Udp, remote, conn: 0 };
        let mut client = Client { peer, id, route, check: check(&server, &own) };
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
            mid: track.to_string(),
            codec: payload_type.codec,
            pt: payload_type.pt,
            rtx_pt: payload_type.rtx_pt,
            red_primary_pt: None,
            ssrc,
            rtx_ssrc: payload_type.rtx_pt.map(|_| ssrc + 1),
            clock_rate: payload_type.clock_rate,
            extensions: extensions(),
            cname: "rig".to_owned(),
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
            sender,
            settings: SubscriptionSettings::default(),
        };
        self.core.handle_command(self.now, Command::Subscribe(Box::new(subscribe)));
    }

    /// Seals a publisher's next packet into `self.packet`.
    fn write(&mut self, publisher: usize) {
        let number = self.number;
        let (pt, step, len) = match self.config.kind {
            MediaKind::Audio => (111, 960, 80 + (number % 8) as usize),
            MediaKind::Video => (96, 3_000, 1_150 + usize::from(number % 5 == 4)),
        };
        let header = RtpHeaderWriter {
            marker: number.is_multiple_of(5),
            payload_type: pt,
            sequence_number: number as u16,
            timestamp: number.wrapping_mul(step),
            ssrc: 1,
            padding: false,
        };
        self.packet.clear();
        self.packet.resize(len + 64, 0x5a);
        let twcc = (number as u16).to_be_bytes();
        let level = [0x80 | 30];
        let header_len =
            header.write(&[(TWCC_ID, &twcc), (1, &level)], &mut self.packet).expect("room");
        if self.config.kind == MediaKind::Video {
            // Start of a partition, picture id, then the frame header: even in key frames.
            let picture = (0x8000 | number as u16 & 0x7fff).to_be_bytes();
            let start = [0x90, 0x80, picture[0], picture[1], u8::from(number > 0)];
            self.packet[header_len..header_len + start.len()].copy_from_slice(&start);
        }
        let client = &mut self.clients[publisher];
        let sealed = client.peer.seal_rtp(&mut self.packet, header_len, header_len + len);
        self.packet.truncate(sealed.expect("a connected client seals"));
    }
}

fn from_server() -> Route {
    Route { proto: TransportProto::Udp, remote: SERVER, conn: 0 }
}

fn track_id(serial: usize) -> TrackId {
    TrackId::new(WORKER, serial as u64 + 1)
}

/// SSRC under which every receiver gets a track.
fn ssrc_of(track: usize) -> u32 {
    1_000 + 2 * track as u32
}

fn credentials(side: char, serial: usize) -> IceCredentials {
    let pwd = format!("{side}{serial:023}");
    IceCredentials { ufrag: format!("{side}{serial:07}"), pwd }
}

/// A check that nominates, from `from` to the agent with the credentials `to`.
fn check(to: &IceCredentials, from: &IceCredentials) -> Vec<u8> {
    let mut datagram = Vec::new();
    let username = format!("{}:{}", to.ufrag, from.ufrag);
    BindingRequest {
        transaction_id: [7; 12],
        username: &username,
        role: IceRole::Controlling(1),
        priority: 1,
        use_candidate: true,
    }
    .write(&IntegrityKey::new(&to.pwd), &mut datagram);
    datagram
}

fn payload_type(kind: MediaKind) -> PayloadType {
    let (pt, codec, clock_rate, rtx_pt) = match kind {
        MediaKind::Audio => (111, Codec::Opus, 48_000, None),
        MediaKind::Video => (96, Codec::Vp8, 90_000, Some(97)),
    };
    PayloadType { pt, codec, clock_rate, rtx_pt, fmtp: String::new() }
}

fn extensions() -> ExtensionMap {
    [
        (ExtensionKind::AudioLevel, 1),
        (ExtensionKind::AbsSendTime, 2),
        (ExtensionKind::TransportCc, TWCC_ID),
        (ExtensionKind::Mid, 4),
    ]
    .into_iter()
    .collect()
}
