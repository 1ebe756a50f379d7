//! A running engine, real WebRTC clients (`str0m`) on loopback sockets, and the control plane
//! played by the test: no SDP, the parameters that SDP would carry are handed over directly.

#![allow(dead_code, reason = "every test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test programs")]
#![allow(clippy::disallowed_methods, reason = "real sockets run on the real clock")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sluice_engine::api::{
    AnnouncedSsrc, Command, CreatePeer, Event, EventKind, PayloadType, PeerId, PublishedTrack,
    ReceiveParams, ReceiveSection, RoomKey, SenderParams, Subscribe, SubscriptionId,
    SubscriptionSettings, TrackId, WorkerId,
};
use sluice_engine::{Engine, EngineConfig, EngineStats, UdpPorts, WorkerStats};
use sluice_net::FrameDecoder;
use sluice_net::framing::encode_frame;
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};
use sluice_transport::{
    Fingerprint, HashAlgorithm, IceCredentials, RemoteParams, SctpParams, Setup, TransportProto,
};
use str0m::media::{MediaKind as ClientKind, Mid, Rid};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, IceCreds, Input, Output, Rtc};

/// Longest time that a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(20);

/// How long a client waits on its socket before the next one has its turn.
const PATIENCE: Duration = Duration::from_micros(200);

/// Time between a client's RTCP reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

pub const OPUS: u8 = 111;
pub const VP8: u8 = 96;
pub const VP8_RTX: u8 = 97;

pub struct World {
    pub engine: Engine,
    receiver: tokio::sync::mpsc::Receiver<Event>,
    pub events: Vec<Event>,
    pub clients: Vec<Client>,
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
        Self { engine, receiver, events: Vec::new(), clients: Vec::new() }
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

    pub fn turn(&mut self) {
        while let Ok(event) = self.receiver.try_recv() {
            self.events.push(event);
        }
        for client in &mut self.clients {
            client.turn();
        }
        if self.clients.is_empty() {
            std::thread::yield_now();
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
            payload_types: vec![payload_type(kind)],
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
        let peer = self.clients[client].peer;
        let id = self.engine.next_subscription_id(peer.worker());
        let client = &mut self.clients[client];
        let mid = client.next_mid();
        let ssrc = client.declare_incoming(&mid, published.kind);
        let pt = payload_type(published.kind);
        self.send(Command::Subscribe(Box::new(Subscribe {
            subscription: id,
            peer,
            track: published.track,
            kind: published.kind,
            sender: SenderParams {
                mid,
                codec: pt.codec,
                pt: pt.pt,
                rtx_pt: pt.rtx_pt,
                ssrc,
                rtx_ssrc: pt.rtx_pt.map(|_| ssrc + 1),
                clock_rate: pt.clock_rate,
                extensions: extensions(),
                cname: "stream".to_owned(),
                nack: true,
                transport_cc: true,
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

#[derive(Clone, Debug)]
pub struct Stream {
    pub ssrc: u32,
    pub rtx: Option<u32>,
    pub rid: Option<String>,
}

impl Stream {
    fn announced(&self) -> AnnouncedSsrc {
        AnnouncedSsrc { ssrc: self.ssrc, rtx_ssrc: self.rtx }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub ssrc: u32,
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

/// The ids of `str0m`'s standard map.
fn extensions() -> ExtensionMap {
    [
        (ExtensionKind::AudioLevel, 1),
        (ExtensionKind::AbsSendTime, 2),
        (ExtensionKind::TransportCc, 3),
        (ExtensionKind::Mid, 4),
        (ExtensionKind::Rid, 10),
        (ExtensionKind::RepairedRid, 11),
    ]
    .into_iter()
    .collect()
}

enum Wire {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, decoder: FrameDecoder },
}

/// A datagram passes unless the filter says no.
pub type Filter = Box<dyn FnMut(&[u8]) -> bool>;

/// A real WebRTC client on a loopback socket.
pub struct Client {
    pub peer: PeerId,
    pub rtc: Rtc,
    pub remote: RemoteParams,
    pub server: SocketAddr,
    pub local: SocketAddr,
    wire: Wire,
    wake: Instant,
    next_mid: u32,
    next_ssrc: u32,
    pub sections: Vec<ReceiveSection>,
    pub events: Vec<str0m::Event>,
    pub packets: Vec<RtpPacket>,
    /// Of datagrams to the server.
    pub outgoing: Filter,
    /// Of datagrams from the server.
    pub incoming: Filter,
}

impl Client {
    fn new(
        peer: PeerId,
        server: SocketAddr,
        proto: TransportProto,
        creds: IceCredentials,
        fingerprint: &Fingerprint,
    ) -> Self {
        let now = Instant::now();
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .set_rtcp_report_interval_audio(REPORT_INTERVAL)
            .set_rtcp_report_interval_video(REPORT_INTERVAL)
            .build(now);
        let (wire, local) = match proto {
            TransportProto::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
                socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                let local = socket.local_addr().expect("bound");
                rtc.add_local_candidate(Candidate::host(local, "udp").expect("a candidate"));
                rtc.add_remote_candidate(Candidate::host(server, "udp").expect("a candidate"));
                (Wire::Udp(socket), local)
            }
            TransportProto::Tcp => {
                let stream = TcpStream::connect(server).expect("connects");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                let local = stream.local_addr().expect("bound");
                let tcp = |addr, kind| {
                    Candidate::builder().tcp().host(addr).tcptype(kind).build().expect("candidate")
                };
                rtc.add_local_candidate(tcp(local, TcpType::Active));
                rtc.add_remote_candidate(tcp(server, TcpType::Passive));
                (Wire::Tcp { stream, decoder: FrameDecoder::new(8192) }, local)
            }
        };
        let mut api = rtc.direct_api();
        let own = api.local_ice_credentials();
        api.set_remote_ice_credentials(IceCreds { ufrag: creds.ufrag, pass: creds.pwd });
        api.set_ice_controlling(true);
        api.set_remote_fingerprint(str0m::crypto::Fingerprint {
            hash_func: "sha-256".into(),
            bytes: fingerprint.digest.clone(),
        });
        let own_print = api.local_dtls_fingerprint().bytes.clone();
        api.start_dtls(true).expect("DTLS starts");
        api.start_sctp(true);
        let remote = RemoteParams {
            ice: IceCredentials { ufrag: own.ufrag, pwd: own.pass },
            fingerprints: vec![Fingerprint { algorithm: HashAlgorithm::Sha256, digest: own_print }],
            setup: Setup::Active,
            sctp: Some(SctpParams { port: 5000, max_message_size: 65_535 }),
        };
        // SSRCs are unique per peer, as the control plane makes them.
        let next_ssrc = 10_000 * (1 + peer.as_u64() as u32);
        Self {
            peer,
            rtc,
            remote,
            server,
            local,
            wire,
            wake: now,
            next_mid: 0,
            next_ssrc,
            sections: Vec::new(),
            events: Vec::new(),
            packets: Vec::new(),
            outgoing: Box::new(|_| true),
            incoming: Box::new(|_| true),
        }
    }

    fn next_mid(&mut self) -> String {
        self.next_mid += 1;
        format!("m{}", self.next_mid)
    }

    fn declare_outgoing(&mut self, mid: &str, kind: MediaKind, rids: &[&str]) -> Vec<Stream> {
        let mid = Mid::from(mid);
        self.rtc.direct_api().declare_media(mid, client_kind(kind));
        let rids: Vec<_> = match rids {
            [] => vec![None],
            rids => rids.iter().map(|rid| Some(rid.to_string())).collect(),
        };
        let mut streams = Vec::new();
        for rid in rids {
            self.next_ssrc += 10;
            let ssrc = self.next_ssrc;
            let rtx = (kind == MediaKind::Video).then_some(ssrc + 1);
            let own_rid = rid.as_deref().map(Rid::from);
            let mut api = self.rtc.direct_api();
            api.declare_stream_tx(ssrc.into(), rtx.map(Ssrc::from), mid, own_rid);
            streams.push(Stream { ssrc, rtx, rid });
        }
        streams
    }

    fn declare_incoming(&mut self, mid: &str, kind: MediaKind) -> u32 {
        let mid = Mid::from(mid);
        self.next_ssrc += 10;
        let ssrc = self.next_ssrc;
        let mut api = self.rtc.direct_api();
        api.declare_media(mid, client_kind(kind));
        let rtx = (kind == MediaKind::Video).then(|| Ssrc::from(ssrc + 1));
        api.expect_stream_rx(ssrc.into(), rtx, mid, None);
        ssrc
    }

    /// Sends one RTP packet.
    pub fn write(&mut self, ssrc: u32, packet: Outgoing<'_>) {
        let now = Instant::now();
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx(&ssrc.into()).expect("a declared stream");
        stream.set_unpaced(true);
        let exts = ExtensionValues {
            audio_level: packet.level.map(|dbov| -dbov),
            voice_activity: packet.level.map(|_| true),
            ..Default::default()
        };
        stream.write_rtp(
            RtpWrite::new(packet.pt.into(), packet.seq.into(), packet.ts, now, packet.payload)
                .marker(packet.marker)
                .nackable(true)
                .ext_vals(exts),
        );
        self.poll();
    }

    /// Sends raw bytes from the client's socket.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        if let Wire::Udp(socket) = &self.wire {
            socket.send_to(bytes, self.server).expect("sends");
        }
    }

    /// Packets received on a stream.
    pub fn received(&self, ssrc: u32) -> Vec<&RtpPacket> {
        self.packets.iter().filter(|p| *p.header.ssrc == ssrc).collect()
    }

    pub fn messages(&self) -> Vec<Vec<u8>> {
        let data = self.events.iter().filter_map(|event| match event {
            str0m::Event::ChannelData(data) => Some(data.data.clone()),
            _ => None,
        });
        data.collect()
    }

    pub fn channel(&self, label: &str) -> Option<str0m::channel::ChannelId> {
        self.events.iter().find_map(|event| match event {
            str0m::Event::ChannelOpen(id, name) if name == label => Some(*id),
            _ => None,
        })
    }

    pub fn key_frame_requests(&self) -> usize {
        let is_request = |event: &&str0m::Event| matches!(event, str0m::Event::KeyframeRequest(_));
        self.events.iter().filter(is_request).count()
    }

    fn turn(&mut self) {
        let mut buf = vec![0; 2048];
        match &mut self.wire {
            Wire::Udp(socket) => {
                if let Ok((len, _)) = socket.recv_from(&mut buf) {
                    self.deliver(&buf[..len]);
                }
            }
            Wire::Tcp { stream, decoder } => {
                match stream.read(&mut buf) {
                    Ok(len) => decoder.extend(&buf[..len]),
                    Err(error) => match error.kind() {
                        ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                        // The server has closed the peer.
                        ErrorKind::ConnectionReset => return,
                        _ => panic!("{error}"),
                    },
                }
                let mut frames = Vec::new();
                while let Some(frame) = decoder.next_frame().expect("in step") {
                    frames.push(frame.to_vec());
                }
                frames.iter().for_each(|frame| self.deliver(frame));
            }
        }
        if Instant::now() >= self.wake {
            self.rtc.handle_input(Input::Timeout(Instant::now())).expect("a timeout is fine");
        }
        self.poll();
    }

    fn deliver(&mut self, datagram: &[u8]) {
        if !(self.incoming)(datagram) {
            return;
        }
        let proto = match self.wire {
            Wire::Udp(_) => Protocol::Udp,
            Wire::Tcp { .. } => Protocol::Tcp,
        };
        if let Ok(receive) = Receive::new(proto, self.server, self.local, datagram) {
            let input = Input::Receive(Instant::now(), receive);
            self.rtc.handle_input(input).expect("the client takes it");
        }
        self.poll();
    }

    fn poll(&mut self) {
        loop {
            match self.rtc.poll_output().expect("the client works") {
                Output::Timeout(at) => {
                    self.wake = at;
                    return;
                }
                Output::Event(str0m::Event::RtpPacket(packet)) => self.packets.push(packet),
                Output::Event(event) => self.events.push(event),
                Output::Transmit(transmit) => {
                    if !(self.outgoing)(&transmit.contents) {
                        continue;
                    }
                    match &mut self.wire {
                        Wire::Udp(socket) => {
                            let sent = socket.send_to(&transmit.contents, transmit.destination);
                            sent.expect("sends");
                        }
                        Wire::Tcp { stream, .. } => {
                            let mut frame = Vec::new();
                            assert!(encode_frame(&transmit.contents, &mut frame));
                            // Fails once the server has closed the peer.
                            let _ = stream.write_all(&frame);
                        }
                    }
                }
            }
        }
    }
}

fn client_kind(kind: MediaKind) -> ClientKind {
    match kind {
        MediaKind::Audio => ClientKind::Audio,
        MediaKind::Video => ClientKind::Video,
    }
}

/// One RTP packet that a client sends.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub pt: u8,
    pub seq: u64,
    pub ts: u32,
    pub marker: bool,
    pub level: Option<i8>,
    pub payload: &'a [u8],
}

/// An Opus packet with this number inside.
pub fn opus(seq: u64) -> [u8; 20] {
    let mut payload = [0x78; 20];
    payload[12..].copy_from_slice(&seq.to_be_bytes());
    payload
}

/// A VP8 packet that is a whole frame: descriptor (start of partition 0), frame header (its lowest
/// bit clear in key frames), filling with this number inside.
pub fn vp8(seq: u64, key_frame: bool, len: usize) -> Vec<u8> {
    let mut payload = vec![0x5a; len.max(20)];
    payload[0] = 0x10;
    payload[1] = u8::from(!key_frame);
    payload[12..20].copy_from_slice(&seq.to_be_bytes());
    payload
}

/// The number inside a payload of [`opus`] or [`vp8`].
pub fn number(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[12..20].try_into().expect("long enough"))
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
        let payload = vp8(seq, key_frame, 200 * (layer + 1));
        let ts = (seq * 3000) as u32;
        let packet = Outgoing { pt: VP8, seq, ts, marker: true, level: None, payload: &payload };
        self.clients[client].write(published.streams[layer].ssrc, packet);
    }

    /// The numbers that a subscription received, in order of arrival.
    pub fn numbers(&self, client: usize, subscription: Subscription) -> Vec<u64> {
        let packets = self.clients[client].received(subscription.ssrc);
        packets.iter().filter(|p| p.payload.len() >= 20).map(|p| number(&p.payload)).collect()
    }
}
