//! A `Peer` and an independent WebRTC client (`str0m`) under virtual time, joined by a network
//! that delays and loses datagrams.

#![allow(dead_code, reason = "every test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test programs")]
#![allow(clippy::disallowed_methods, reason = "an origin for virtual time")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_transport::{
    ChannelId, ChannelSpec, DropReason, DtlsIdentity, Fingerprint, HashAlgorithm, IceCredentials,
    Peer, PeerEvent, PeerParams, Received, RemoteParams, Route, SctpParams, Setup, StreamSlot,
    TransportProto,
};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

pub const SERVER: &str = "10.0.0.1:7882";
pub const CLIENT: &str = "10.0.0.2:5000";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn udp(remote: SocketAddr) -> Route {
    Route { proto: TransportProto::Udp, remote, conn: 0 }
}

pub fn identity() -> Arc<DtlsIdentity> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    IDENTITY.get_or_init(|| Arc::new(DtlsIdentity::generate().unwrap())).clone()
}

pub fn credentials(ufrag: &str) -> IceCredentials {
    IceCredentials { ufrag: ufrag.into(), pwd: format!("{ufrag}0123456789abcdefghijklmn") }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    ToServer,
    ToClient,
}

/// Arrival, order, and where the client is on the server's side of its NAT.
type Datagram = (Instant, u64, Direction, SocketAddr, Vec<u8>);

/// How a test starts.
#[derive(Clone, Copy)]
pub struct Setting {
    pub loss: f64,
    pub delay: Duration,
    pub seed: u64,
    /// The server opens LiveKit's channels.
    pub server_opens: bool,
    /// The client is the DTLS server.
    pub client_passive: bool,
    /// When the server learns the remote description.
    pub remote_after: Option<Duration>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            loss: 0.0,
            delay: Duration::from_millis(25),
            seed: 1,
            server_opens: false,
            client_passive: false,
            remote_after: None,
        }
    }
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub server: Peer,
    pub client: Rtc,
    /// Where the server sees the client.
    pub nat: SocketAddr,
    pub loss: f64,
    delay: Duration,
    random: u64,
    network: BinaryHeap<Reverse<Datagram>>,
    sent: u64,
    client_wake: Instant,
    pub client_events: Vec<Event>,
    pub server_events: Vec<PeerEvent>,
    pub server_rtp: Vec<Vec<u8>>,
    pub server_rtcp: Vec<Vec<u8>>,
    pub drops: BTreeMap<DropReason, usize>,
    /// Latest client datagrams by first byte class, for replays.
    pub captured: Vec<Vec<u8>>,
    remote: Option<RemoteParams>,
    remote_at: Instant,
}

impl World {
    pub fn new(setting: Setting) -> Self {
        static PROVIDER: OnceLock<()> = OnceLock::new();
        PROVIDER.get_or_init(|| str0m::crypto::from_feature_flags().install_process_default());
        let start = Instant::now();
        let local = credentials("Aserver1");
        let open_channels = if setting.server_opens { ChannelSpec::livekit() } else { Vec::new() };
        let server = Peer::new(PeerParams {
            local: local.clone(),
            dtls: identity(),
            open_channels,
            now: start,
        });
        let mut client = Rtc::builder().set_rtp_mode(true).build(start);
        client.add_local_candidate(Candidate::host(addr(CLIENT), "udp").unwrap());
        client.add_remote_candidate(Candidate::host(addr(SERVER), "udp").unwrap());
        let mut api = client.direct_api();
        let creds = api.local_ice_credentials();
        api.set_remote_ice_credentials(IceCreds { ufrag: local.ufrag, pass: local.pwd });
        api.set_ice_controlling(true);
        let server_print = identity().fingerprint_sha256().clone();
        api.set_remote_fingerprint(str0m::crypto::Fingerprint {
            hash_func: "sha-256".into(),
            bytes: server_print.digest,
        });
        let client_print = api.local_dtls_fingerprint().clone();
        api.start_dtls(!setting.client_passive).unwrap();
        api.start_sctp(!setting.client_passive);
        let remote = RemoteParams {
            ice: IceCredentials { ufrag: creds.ufrag, pwd: creds.pass },
            fingerprints: vec![Fingerprint {
                algorithm: HashAlgorithm::Sha256,
                digest: client_print.bytes,
            }],
            setup: if setting.client_passive { Setup::Passive } else { Setup::Active },
            sctp: Some(SctpParams { port: 5000, max_message_size: 65_535 }),
        };
        let mut world = Self {
            start,
            now: start,
            server,
            client,
            nat: addr(CLIENT),
            loss: setting.loss,
            delay: setting.delay,
            random: setting.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            network: BinaryHeap::new(),
            sent: 0,
            client_wake: start,
            client_events: Vec::new(),
            server_events: Vec::new(),
            server_rtp: Vec::new(),
            server_rtcp: Vec::new(),
            drops: BTreeMap::new(),
            captured: Vec::new(),
            remote: Some(remote),
            remote_at: start + setting.remote_after.unwrap_or_default(),
        };
        world.client.handle_input(Input::Timeout(start)).unwrap();
        world.settle();
        world
    }

    /// Connected on both sides.
    pub fn connected(setting: Setting) -> Self {
        let mut world = Self::new(setting);
        let up = world.run_until(Duration::from_secs(40), |world| {
            world.server.is_connected() && world.client.is_connected()
        });
        assert!(up, "no connection: {:?}, drops {:?}", world.server_events, world.drops);
        world
    }

    /// The description that the server will learn names another certificate.
    pub fn corrupt_remote_fingerprint(&mut self) {
        if let Some(remote) = &mut self.remote {
            remote.fingerprints[0].digest[0] ^= 1;
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Runs until the condition holds; false after `limit`.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            let network = self.network.peek().map(|Reverse((at, ..))| *at);
            let remote = self.remote.as_ref().map(|_| self.remote_at);
            let wakes = [network, self.server.poll_timeout(), Some(self.client_wake), remote];
            let next = wakes.into_iter().flatten().min().unwrap_or(end);
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            self.step();
        }
        true
    }

    fn step(&mut self) {
        let now = self.now;
        if self.remote_at <= now
            && let Some(remote) = self.remote.take()
        {
            self.server.set_remote(now, remote);
        }
        while self.network.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, direction, peer, data))) = self.network.pop() else { break };
            match direction {
                Direction::ToServer => self.deliver_to_server(udp(peer), data),
                Direction::ToClient => self.deliver_to_client(peer, &data),
            }
            self.settle();
        }
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            self.server.handle_timeout(now);
        }
        if self.client_wake <= now {
            self.client.handle_input(Input::Timeout(now)).unwrap();
        }
        self.settle();
    }

    /// Hands one datagram to the server.
    pub fn deliver_to_server(&mut self, route: Route, mut data: Vec<u8>) {
        match self.server.handle_datagram(self.now, route, &mut data) {
            Received::Rtp(packet) => self.server_rtp.push(packet.to_vec()),
            Received::Rtcp(packet) => self.server_rtcp.push(packet.to_vec()),
            Received::Consumed => {}
            Received::Dropped(reason) => *self.drops.entry(reason).or_default() += 1,
        }
    }

    fn deliver_to_client(&mut self, to: SocketAddr, data: &[u8]) {
        // The NAT forgets an old mapping.
        if to != self.nat {
            return;
        }
        let receive = Receive::new(Protocol::Udp, addr(SERVER), addr(CLIENT), data);
        if let Ok(receive) = receive {
            self.client.handle_input(Input::Receive(self.now, receive)).unwrap();
        }
    }

    /// Drains both sides into the network and the logs.
    pub fn settle(&mut self) {
        let mut out = Vec::new();
        while let Some(route) = self.server.poll_transmit(&mut out) {
            self.put(Direction::ToClient, route.remote, out.clone());
        }
        while let Some(event) = self.server.poll_event() {
            self.server_events.push(event);
        }
        loop {
            match self.client.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.client_wake = at;
                    break;
                }
                Output::Transmit(transmit) => {
                    let data = transmit.contents.to_vec();
                    if self.captured.len() < 10_000 {
                        self.captured.push(data.clone());
                    }
                    self.put(Direction::ToServer, self.nat, data);
                }
                Output::Event(event) => self.client_events.push(event),
            }
        }
    }

    fn put(&mut self, direction: Direction, peer: SocketAddr, data: Vec<u8>) {
        self.sent += 1;
        if self.next_random() >= self.loss {
            self.network.push(Reverse((self.now + self.delay, self.sent, direction, peer, data)));
        }
    }

    pub fn next_random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Seals an RTP packet at the server and sends it to the selected route.
    pub fn send_rtp(&mut self, packet: &[u8]) {
        let mut buf = packet.to_vec();
        buf.resize(packet.len() + 16, 0);
        let len =
            self.server.seal_rtp(&mut StreamSlot::default(), &mut buf, 12, packet.len()).unwrap();
        buf.truncate(len);
        let route = self.server.selected_route().unwrap();
        self.put(Direction::ToClient, route.remote, buf);
    }

    /// Sends a message from the server.
    pub fn send_message(&mut self, id: ChannelId, binary: bool, data: impl Into<Bytes>) {
        self.server.send(self.now, id, binary, data.into()).unwrap();
        self.settle();
    }

    /// After a call to the client's API.
    pub fn client_wakes_now(&mut self) {
        self.client.handle_input(Input::Timeout(self.now)).unwrap();
        self.settle();
    }

    pub fn client_send(&mut self, id: str0m::channel::ChannelId, binary: bool, data: &[u8]) {
        assert!(self.client.channel(id).unwrap().write(binary, data).unwrap());
        self.client_wakes_now();
    }

    pub fn client_opened(&self, wanted: str0m::channel::ChannelId) -> bool {
        let opened = |event: &Event| matches!(event, Event::ChannelOpen(id, _) if *id == wanted);
        self.client_events.iter().any(opened)
    }

    /// Id of the server's channel with this label.
    pub fn server_channel(&self, wanted: &str) -> Option<ChannelId> {
        self.server_events.iter().find_map(|event| match event {
            PeerEvent::ChannelOpen { id, label, .. } if label == wanted => Some(*id),
            _ => None,
        })
    }

    /// Messages the server received on a channel.
    pub fn server_messages(&self, wanted: ChannelId) -> Vec<(bool, Bytes)> {
        self.server_events
            .iter()
            .filter_map(|event| match event {
                PeerEvent::ChannelMessage { id, binary, data } if *id == wanted => {
                    Some((*binary, data.clone()))
                }
                _ => None,
            })
            .collect()
    }

    /// Messages the client received on all channels.
    pub fn client_messages(&self) -> Vec<(bool, Vec<u8>)> {
        self.client_events
            .iter()
            .filter_map(|event| match event {
                Event::ChannelData(data) => Some((data.binary, data.data.clone())),
                _ => None,
            })
            .collect()
    }

    pub fn dropped(&self, reason: DropReason) -> usize {
        self.drops.get(&reason).copied().unwrap_or(0)
    }
}
