//! A running engine, real WebRTC clients (`str0m`) on loopback sockets, and the control plane
//! played by the test: no SDP, the parameters that SDP would carry are handed over directly.

#![allow(dead_code, unused_imports, reason = "every test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test programs")]
#![allow(clippy::disallowed_methods, reason = "real sockets run on the real clock")]

mod client;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sluice_engine::api::{
    Command, CreatePeer, Event, EventKind, PayloadType, PeerId, PublishedTrack, ReceiveParams,
    ReceiveSection, RoomKey, SenderParams, Subscribe, SubscriptionId, SubscriptionSettings,
    TrackId, WorkerId,
};
use sluice_engine::{Engine, EngineConfig, EngineStats, PlayoutDelayRange, UdpPorts, WorkerStats};
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};
use sluice_transport::TransportProto;

pub use client::{Client, Filter, Outgoing, Stream, number, opus, vp8};

/// Longest time that a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(20);

/// How long the clients wait for something to come. A read timeout would be rounded up to the kernel's
/// tick, and what came to one client would wait for that of another.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

pub const OPUS: u8 = 111;
/// The client library does not know RED: it takes it for PCMA.
pub const RED: u8 = 8;
pub const VP8: u8 = 96;
pub const VP8_RTX: u8 = 97;

pub struct World {
    pub engine: Engine,
    receiver: tokio::sync::mpsc::Receiver<Event>,
    pub events: Vec<Event>,
    pub clients: Vec<Client>,
    /// Of the subscriptions to come.
    pub playout_delay: Option<PlayoutDelayRange>,
    /// Whether receivers know of a track by its first packet only.
    pub announce: bool,
}

/// How the workers share ports.
pub fn config(workers: u8, udp: UdpPorts) -> EngineConfig {
    EngineConfig {
        workers,
        bind: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        udp,
        tcp_port: Some(0),
        recv_buffer_bytes: 200_000,
        send_buffer_bytes: 200_000,
        ..EngineConfig::default()
    }
}

pub const OWN_PORTS: UdpPorts = UdpPorts::PerWorker { first: 0, last: 0 };
pub const ONE_PORT: UdpPorts = UdpPorts::Shared(0);

impl Drop for World {
    fn drop(&mut self) {
        self.engine.shutdown();
    }
}

impl World {
    pub fn new(workers: u8, udp: UdpPorts) -> Self {
        Self::with(config(workers, udp))
    }

    pub fn with(config: EngineConfig) -> Self {
        static PROVIDER: OnceLock<()> = OnceLock::new();
        PROVIDER.get_or_init(|| str0m::crypto::from_feature_flags().install_process_default());
        let (engine, receiver) = Engine::start(config).expect("the engine starts");
        Self {
            engine,
            receiver,
            events: Vec::new(),
            clients: Vec::new(),
            playout_delay: None,
            announce: false,
        }
    }

    pub fn send(&self, command: Command) {
        self.engine.send(command).expect("the command queue has room");
    }

    /// Adds a client with a UDP socket; returns its index.
    pub fn join(&mut self, worker: u8) -> usize {
        self.join_with(worker, TransportProto::Udp, false)
    }

    pub fn join_with(&mut self, worker: u8, proto: TransportProto, open_channels: bool) -> usize {
        let worker = WorkerId(worker);
        let peer = self.engine.next_peer_id(worker);
        let local = self.engine.new_ice_credentials(worker);
        let room = RoomKey(7);
        self.send(Command::CreatePeer(Box::new(CreatePeer {
            peer,
            room,
            local: local.clone(),
            open_channels,
        })));
        let candidates = self.engine.candidates(worker);
        let server = candidates.iter().find(|c| c.proto == proto).expect("a candidate").addr;
        let client = Client::new(peer, server, proto, local, &self.engine.fingerprint());
        let remote = Box::new(client.remote.clone());
        self.send(Command::SetRemote { peer, remote });
        self.clients.push(client);
        self.clients.len() - 1
    }

    /// Adds a client and waits until it is connected on both sides.
    pub fn connect(&mut self, worker: u8) -> usize {
        let client = self.join(worker);
        self.until_connected(client);
        client
    }

    pub fn until_connected(&mut self, client: usize) {
        let peer = self.clients[client].peer;
        self.until("connected", |world| {
            let is_up = |event: &Event| matches!(event.kind, EventKind::PeerConnected { peer: p, .. } if p == peer);
            world.clients[client].rtc.is_connected() && world.events.iter().any(is_up)
        });
    }

    /// Runs clients and events until the condition holds.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !done(self) {
            assert!(Instant::now() < end, "not {what}: {:#?}\n{:#?}", self.total(), self.events);
            self.turn();
        }
    }

    /// Runs clients and events for a while, for things that must not happen.
    pub fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn();
        }
    }

    /// Waits for a client to get something, but no longer than [`PATIENCE`], and lets each take it.
    pub fn turn(&mut self) {
        let readable = self.clients.iter().filter_map(Client::readable);
        let mut fds: Vec<PollFd<'_>> =
            readable.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        poll(&mut fds, Some(&PATIENCE)).expect("waits");
        while let Ok(event) = self.receiver.try_recv() {
            self.events.push(event);
        }
        for client in &mut self.clients {
            client.turn();
        }
    }

    pub fn stats(&self) -> EngineStats {
        self.engine.stats()
    }

    pub fn total(&self) -> WorkerStats {
        self.engine.stats().total()
    }

    pub fn seen(&self, matches: impl Fn(&EventKind) -> bool) -> bool {
        self.events.iter().any(|event| matches(&event.kind))
    }

    /// Publishes an Opus track; returns it with its SSRC.
    pub fn publish_audio(&mut self, client: usize) -> Published {
        self.publish(client, MediaKind::Audio, &[], true)
    }

    /// Publishes VP8, with simulcast if `rids` are given (lowest first).
    pub fn publish_video(&mut self, client: usize, rids: &[&str]) -> Published {
        self.publish(client, MediaKind::Video, rids, true)
    }

    pub fn publish(
        &mut self,
        client: usize,
        kind: MediaKind,
        rids: &[&str],
        matched: bool,
    ) -> Published {
        let peer = self.clients[client].peer;
        let track = self.engine.next_track_id(peer.worker());
        let client = &mut self.clients[client];
        let mid = client.next_mid();
        let streams = client.declare_outgoing(&mid, kind, rids);
        let section = ReceiveSection {
            mid: mid.clone(),
            kind,
            track: None,
            payload_types: payload_types(kind),
            extensions: extensions(),
            rids: rids.iter().map(ToString::to_string).collect(),
            ssrcs: streams.iter().filter(|_| rids.is_empty()).map(|s| s.announced()).collect(),
            transport_cc: true,
            nack: kind == MediaKind::Video,
        };
        client.sections.push(section);
        let published = Published { track, mid, kind, streams };
        if matched {
            self.match_track(peer, &published);
        } else {
            self.set_receive(peer);
        }
        published
    }

    /// Tells the engine which track a section feeds.
    pub fn match_track(&mut self, peer: PeerId, published: &Published) {
        let client = self.clients.iter_mut().find(|c| c.peer == peer).expect("a client");
        let section = client.sections.iter_mut().find(|s| s.mid == published.mid);
        section.expect("a section").track = Some(PublishedTrack {
            track: published.track,
            encrypted: false,
            microphone: published.kind == MediaKind::Audio,
            screen_share: false,
        });
        self.set_receive(peer);
    }

    fn set_receive(&mut self, peer: PeerId) {
        let client = self.clients.iter().find(|c| c.peer == peer).expect("a client");
        let receive = Box::new(ReceiveParams { sections: client.sections.clone() });
        self.send(Command::SetReceive { peer, receive });
        self.until_commands_are_done(peer);
    }

    /// Waits until the worker has carried out what it was sent: packets must not overtake commands.
    fn until_commands_are_done(&mut self, peer: PeerId) {
        fn answers(world: &World, peer: PeerId) -> usize {
            let of_peer = |event: &&Event| matches!(event.kind, EventKind::PeerStats { peer: p, .. } if p == peer);
            world.events.iter().filter(of_peer).count()
        }
        let before = answers(self, peer);
        self.send(Command::PeerStats { peer });
        self.until("told", |world| answers(world, peer) > before);
    }

    pub fn subscribe(&mut self, client: usize, published: &Published) -> Subscription {
        self.subscribe_with(client, published, SubscriptionSettings::default())
    }

    pub fn subscribe_with(
        &mut self,
        client: usize,
        published: &Published,
        settings: SubscriptionSettings,
    ) -> Subscription {
        self.subscribe_as(client, published, settings, &payload_type(published.kind))
    }

    /// Subscribes to audio with redundancy.
    pub fn subscribe_red(&mut self, client: usize, published: &Published) -> Subscription {
        self.subscribe_as(client, published, SubscriptionSettings::default(), &red())
    }

    fn subscribe_as(
        &mut self,
        client: usize,
        published: &Published,
        settings: SubscriptionSettings,
        pt: &PayloadType,
    ) -> Subscription {
        let peer = self.clients[client].peer;
        let id = self.engine.next_subscription_id(peer.worker());
        let client = &mut self.clients[client];
        let mid = client.next_mid();
        let ssrc = client.declare_incoming(&mid, published.kind);
        self.send(Command::Subscribe(Box::new(Subscribe {
            subscription: id,
            peer,
            track: published.track,
            kind: published.kind,
            encrypted: false,
            screen_share: false,
            playout_delay: self.playout_delay,
            announce: self.announce,
            sender: SenderParams {
                mid: mid.into(),
                codec: pt.codec,
                pt: pt.pt,
                rtx_pt: pt.rtx_pt,
                red_primary_pt: (pt.codec == Codec::Red).then_some(OPUS),
                ssrc,
                rtx_ssrc: pt.rtx_pt.map(|_| ssrc + 1),
                clock_rate: pt.clock_rate,
                extensions: extensions(),
                cname: "stream".into(),
                nack: true,
                transport_cc: true,
                remb: false,
            },
            settings,
        })));
        Subscription { id, ssrc }
    }
}

/// A track of a client.
#[derive(Clone, Debug)]
pub struct Published {
    pub track: TrackId,
    pub mid: String,
    pub kind: MediaKind,
    /// Lowest layer first.
    pub streams: Vec<Stream>,
}

#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub ssrc: u32,
}

fn payload_types(kind: MediaKind) -> Vec<PayloadType> {
    match kind {
        MediaKind::Audio => vec![red(), payload_type(kind)],
        MediaKind::Video => vec![payload_type(kind)],
    }
}

fn red() -> PayloadType {
    PayloadType { pt: RED, codec: Codec::Red, ..payload_type(MediaKind::Audio) }
}

fn payload_type(kind: MediaKind) -> PayloadType {
    match kind {
        MediaKind::Audio => PayloadType {
            pt: OPUS,
            codec: Codec::Opus,
            clock_rate: 48_000,
            rtx_pt: None,
            fmtp: String::new(),
        },
        MediaKind::Video => PayloadType {
            pt: VP8,
            codec: Codec::Vp8,
            clock_rate: 90_000,
            rtx_pt: Some(VP8_RTX),
            fmtp: String::new(),
        },
    }
}

/// The ids of `str0m`'s standard map, and two that clients of ours add.
fn extensions() -> ExtensionMap {
    [
        (ExtensionKind::AudioLevel, 1),
        (ExtensionKind::AbsSendTime, 2),
        (ExtensionKind::TransportCc, 3),
        (ExtensionKind::Mid, 4),
        (ExtensionKind::PlayoutDelay, 5),
        (ExtensionKind::AbsCaptureTime, 7),
        (ExtensionKind::Rid, 10),
        (ExtensionKind::RepairedRid, 11),
    ]
    .into_iter()
    .collect()
}

impl World {
    /// Sends one Opus packet of a track.
    pub fn speak(&mut self, client: usize, published: &Published, seq: u64) {
        let payload = opus(seq);
        let packet = Outgoing {
            pt: OPUS,
            seq,
            ts: (seq * 960) as u32,
            marker: false,
            level: Some(20),
            payload: &payload,
        };
        self.clients[client].write(published.streams[0].ssrc, packet);
    }

    /// Sends one VP8 frame of a layer.
    pub fn show(
        &mut self,
        client: usize,
        published: &Published,
        layer: usize,
        seq: u64,
        key_frame: bool,
    ) {
        self.show_sized(client, published, layer, seq, &vp8(seq, key_frame, 200 * (layer + 1)));
    }

    /// Sends one VP8 frame that fills a packet.
    pub fn show_large(&mut self, client: usize, published: &Published, seq: u64, key_frame: bool) {
        self.show_sized(client, published, 0, seq, &vp8(seq, key_frame, 1_100));
    }

    fn show_sized(
        &mut self,
        client: usize,
        published: &Published,
        layer: usize,
        seq: u64,
        payload: &[u8],
    ) {
        let ts = (seq * 3000) as u32;
        let packet = Outgoing { pt: VP8, seq, ts, marker: true, level: None, payload };
        self.clients[client].write(published.streams[layer].ssrc, packet);
    }

    /// The numbers that a subscription received, in order of arrival.
    pub fn numbers(&self, client: usize, subscription: Subscription) -> Vec<u64> {
        let packets = self.clients[client].received(subscription.ssrc);
        packets.iter().filter(|p| p.payload.len() >= 20).map(|p| number(&p.payload)).collect()
    }
}
