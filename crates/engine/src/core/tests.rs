//! The state of a worker under virtual time, without sockets: what a panic costs, and what is left
//! behind.

use std::sync::OnceLock;

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::ExtensionMap;
use tokio::sync::mpsc;

use super::*;
use crate::api::{
    Command, CreatePeer, PeerFailure, PublishedTrack, ReceiveParams, ReceiveSection, SenderParams,
    Subscribe, SubscriptionSettings,
};
use crate::io::Outbound;

const WORKER: WorkerId = WorkerId(0);

struct Nowhere;

impl Outbound for Nowhere {
    fn send(&mut self, _: Route, _: &[u8]) {}
    fn send_all(&mut self, _: &Outbox) {}
    fn close(&mut self, _: Route) {}
}

struct World {
    core: Core,
    events: mpsc::Receiver<Event>,
    load: Arc<AtomicUsize>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
        let identity = IDENTITY
            .get_or_init(|| Arc::new(DtlsIdentity::generate().expect("a certificate can be made")));
        let (sender, events) = mpsc::channel(64);
        let now = Instant::now();
        let load = Arc::new(AtomicUsize::new(0));
        let core = Core::new(CoreParams {
            worker: WORKER,
            identity: Arc::clone(identity),
            clock: Clock::new(now),
            egress_hold: Duration::ZERO,
            data_latency: DataLatency::default(),
            congestion: Some(CongestionConfig::default()),
            media: MediaConfig::default(),
            links: Links::new(vec![None]),
            events: EventSink::new(sender),
            load: Arc::clone(&load),
            paths: Arc::default(),
        });
        Self { core, events, load, now }
    }

    fn command(&mut self, command: Command) {
        self.core.handle_command(self.now, command);
        self.core.flush(self.now, &mut Nowhere);
    }

    fn peer(&mut self, serial: u64) -> PeerId {
        let peer = PeerId::new(WORKER, serial);
        self.load.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let local = sluice_transport::IceCredentials {
            ufrag: format!("A{serial:07}"),
            pwd: "0123456789abcdefghijklmn".to_owned(),
        };
        let create = CreatePeer { peer, room: RoomKey(serial), local, open_channels: false };
        self.command(Command::CreatePeer(Box::new(create)));
        peer
    }

    fn publish(&mut self, peer: PeerId, serial: u64) -> TrackId {
        let track = TrackId::new(WORKER, serial);
        let section = ReceiveSection {
            mid: "0".to_owned(),
            kind: MediaKind::Audio,
            track: Some(PublishedTrack {
                track,
                encrypted: false,
                microphone: true,
                screen_share: false,
            }),
            payload_types: Vec::new(),
            extensions: ExtensionMap::new(),
            rids: Vec::new(),
            ssrcs: Vec::new(),
            transport_cc: false,
            nack: false,
        };
        let receive = Box::new(ReceiveParams { sections: vec![section] });
        self.command(Command::SetReceive { peer, receive });
        track
    }

    fn subscribe(&mut self, peer: PeerId, track: TrackId, serial: u64) {
        let sender = SenderParams {
            mid: serial.to_string().into(),
            codec: Codec::Opus,
            pt: 111,
            rtx_pt: None,
            red_primary_pt: None,
            ssrc: serial as u32,
            rtx_ssrc: None,
            clock_rate: 48_000,
            extensions: ExtensionMap::new(),
            cname: "".into(),
            nack: false,
            transport_cc: false,
            remb: false,
        };
        self.command(Command::Subscribe(Box::new(Subscribe {
            subscription: SubscriptionId::new(WORKER, serial),
            peer,
            track,
            kind: MediaKind::Audio,
            encrypted: false,
            screen_share: false,
            playout_delay: None,
            announce: false,
            sender,
            settings: SubscriptionSettings::default(),
        })));
    }

    fn failed(&mut self) -> Vec<(PeerId, PeerFailure)> {
        let mut failed = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            if let EventKind::PeerFailed { peer, reason } = event.kind {
                failed.push((peer, reason));
            }
        }
        failed
    }

    /// Lengths of all tables.
    fn sizes(&mut self) -> [u64; 5] {
        let stats = self.core.stats_mut();
        [stats.peers, stats.tracks, stats.feeds, stats.subscriptions, stats.ufrags]
    }
}

#[test]
fn a_panic_ends_the_peer_whose_state_machine_ran_and_no_other() {
    let mut world = World::new();
    let (first, second) = (world.peer(1), world.peer(2));
    let (own, other) = (world.publish(first, 10), world.publish(second, 20));
    for (index, peer) in [first, second].into_iter().enumerate() {
        world.subscribe(peer, own, 100 + index as u64);
        world.subscribe(peer, other, 200 + index as u64);
    }
    assert_eq!(world.sizes(), [2, 2, 2, 4, 2]);

    let (now, key) = (world.now, world.core.peer_ids[&first]);
    let result = world.core.guarded(now, key, |_| panic!("a bug, on purpose"));
    assert!(result.is_none_or(|(): ()| false));
    world.core.flush(now, &mut Nowhere);

    assert_eq!(world.failed(), [(first, PeerFailure::Panic)]);
    assert_eq!(world.sizes(), [1, 1, 2, 2, 1], "its subscription to the ended track stays");
    assert_eq!(world.core.stats.peer_panics, 1);
    assert_eq!(world.load.load(std::sync::atomic::Ordering::Relaxed), 1);
    let third = world.peer(3);
    world.subscribe(third, other, 300);
    assert_eq!(world.sizes(), [2, 1, 2, 3, 2]);
}

#[test]
fn a_panic_while_a_packet_fans_out_is_charged_to_the_receiver() {
    let mut world = World::new();
    let (publisher, receiver) = (world.peer(1), world.peer(2));
    let (now, receiver_key) = (world.now, world.core.peer_ids[&receiver]);
    let key = world.core.peer_ids[&publisher];
    world.core.guarded(now, key, |core| {
        core.blamed = receiver_key;
        panic!("a bug, on purpose");
    });
    assert_eq!(world.failed(), [(receiver, PeerFailure::Panic)]);
    assert!(world.core.peer_ids.contains_key(&publisher));
}

#[test]
fn the_numbering_of_an_ssrc_goes_on_when_its_subscription_is_renewed() {
    let mut world = World::new();
    let (publisher, receiver) = (world.peer(1), world.peer(2));
    let track = world.publish(publisher, 10);
    world.subscribe(receiver, track, 77);
    let (now, key) = (world.now, world.core.subscription_ids[&SubscriptionId::new(WORKER, 77)]);
    world.core.downs[key].wire.note_sent(now, 41_000, None, Default::default());
    world.command(Command::Unsubscribe { subscription: SubscriptionId::new(WORKER, 77) });
    world.subscribe(receiver, track, 77);
    let key = world.core.subscription_ids[&SubscriptionId::new(WORKER, 77)];
    assert_eq!(world.core.downs[key].track.config().first_seq, 41_001);
}

#[test]
fn commands_about_what_is_gone_are_counted_and_change_nothing() {
    let mut world = World::new();
    let ghost = PeerId::new(WORKER, 99);
    world.command(Command::PeerStats { peer: ghost });
    world.subscribe(ghost, TrackId::new(WORKER, 1), 5);
    let subscription = SubscriptionId::new(WORKER, 6);
    let settings = SubscriptionSettings::default();
    world.command(Command::UpdateSubscription { subscription, settings });
    world.command(Command::ClosePeer { peer: ghost });
    world.command(Command::Unsubscribe { subscription });
    assert_eq!(world.core.stats.dropped_for(DropCause::StaleCommand), 3);
    assert_eq!(world.sizes(), [0; 5]);
}

#[test]
fn a_worker_without_media_has_no_deadline_but_its_peers() {
    let mut world = World::new();
    assert_eq!(world.core.poll_timeout(), None);
    let peer = world.peer(1);
    world.command(Command::ClosePeer { peer });
    while let Some(at) = world.core.poll_timeout() {
        world.now = at;
        world.core.handle_timeouts(at);
        world.core.flush(at, &mut Nowhere);
    }
    assert_eq!(world.sizes(), [0; 5]);
}
