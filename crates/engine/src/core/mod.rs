//! The state of one worker, without I/O: peers, the tracks they publish, the feeds of tracks that
//! its receivers watch, and the subscriptions. Datagrams, link messages, commands and time flow in;
//! [`Core::flush`] writes datagrams to an [`Outbound`](crate::io::Outbound), events and link messages
//! leave by their queues.
//!
//! The packet path from top to bottom: [`demux`] finds the peer, [`ingress`] the track, [`fanout`]
//! the receivers, [`egress`] writes and seals what each of them gets.

mod announce;
mod commands;
mod congestion;
mod data;
mod demux;
mod egress;
mod fanout;
mod fill;
mod hold;
mod ingress;
mod levels;
mod lifecycle;
mod links;
mod outgoing;
pub(crate) mod peer;
mod publish;
pub(crate) mod quality;
mod red;
mod rtcp_in;
mod rtcp_out;
mod stage;
mod subscribe;
mod timing;
mod track;
mod ufrag;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use slotmap::{Key, SlotMap};
use sluice_rtp::rtcp::ReportBlock;
use sluice_sfu::allocator::Change;
use sluice_sfu::{BodyPool, MediaPacket, TopSpeakers};
use sluice_transport::{DtlsIdentity, Route};

use crate::api::{Event, EventKind, PeerId, RoomKey, SubscriptionId, TrackId, WorkerId};
use crate::clock::Clock;
use crate::config::{CongestionConfig, DataLatency, MediaConfig};
use crate::core::announce::Announcements;
use crate::core::congestion::Filler;
use crate::core::demux::ForeignRoutes;
use crate::core::fill::Silences;
use crate::core::hold::Hold;
use crate::core::levels::Levels;
use crate::core::peer::{DownKey, Egress, PeerKey, PeerState, TrackKey};
use crate::core::track::{Attachment, Down, Feed, Publication};
use crate::core::ufrag::Ufrag;
use crate::events::EventSink;
use crate::io::Outbox;
use crate::link::{FeedKey, LinkMessage, Links};
use crate::paths::PathStats;
use crate::stats::{DropCause, WorkerStats};
use crate::timers::Timers;

/// Packet bodies that a worker keeps for reuse per size class: the histories of some 100 video
/// tracks.
const MAX_POOLED_BODIES: usize = 65_536;

/// Bytes of datagrams that are written before they are sent: two full GSO runs of one receiver, or
/// some of many receivers in one system call.
const OUTBOX_BYTES: usize = 128 << 10;

/// What a worker is made of.
pub(crate) struct CoreParams {
    pub(crate) worker: WorkerId,
    pub(crate) identity: Arc<DtlsIdentity>,
    pub(crate) clock: Clock,
    pub(crate) egress_hold: Duration,
    pub(crate) data_latency: DataLatency,
    pub(crate) congestion: Option<CongestionConfig>,
    pub(crate) media: MediaConfig,
    pub(crate) links: Links,
    pub(crate) events: EventSink,
    /// Peers that exist or are about to; the engine adds, the worker takes off.
    pub(crate) load: Arc<AtomicUsize>,
    pub(crate) paths: Arc<PathStats>,
}

/// See the module.
pub(crate) struct Core {
    worker: WorkerId,
    identity: Arc<DtlsIdentity>,
    clock: Clock,
    congestion: Option<CongestionConfig>,
    media: MediaConfig,
    data_latency: DataLatency,
    links: Links,
    events: EventSink,
    load: Arc<AtomicUsize>,
    paths: Arc<PathStats>,
    stats: WorkerStats,
    /// Datagrams and link messages before this turn.
    received_before: u64,

    peers: SlotMap<PeerKey, PeerState>,
    peer_ids: FxHashMap<PeerId, PeerKey>,
    ufrags: FxHashMap<Ufrag, PeerKey>,
    routes: FxHashMap<Route, PeerKey>,
    foreign_routes: ForeignRoutes,
    /// Addresses that lost their peer this turn; an ICE-TCP connection is closed then.
    closed_routes: Vec<Route>,

    tracks: SlotMap<TrackKey, Publication>,
    track_ids: FxHashMap<TrackId, TrackKey>,
    /// Receivers of tracks that are not published yet.
    early_attachments: FxHashMap<TrackId, Vec<Attachment>>,
    feeds: SlotMap<FeedKey, Feed>,
    feed_ids: FxHashMap<TrackId, FeedKey>,
    downs: SlotMap<DownKey, Down>,
    subscription_ids: FxHashMap<SubscriptionId, DownKey>,
    levels: Levels,
    silences: Silences,
    announcements: Announcements,
    /// Subscriptions that end once their last picture is sent.
    endings: Vec<DownKey>,
    stages: FxHashMap<RoomKey, TopSpeakers<FeedKey>>,

    timers: Timers<PeerKey>,
    /// Peers with datagrams, events or RTCP to drain.
    dirty: Vec<PeerKey>,
    /// Peers with media to send, in the order in which they got their first packet.
    egress_dirty: Vec<PeerKey>,
    hold: Hold,
    /// Packets that egress entries refer to.
    batch: Vec<MediaPacket>,
    pool: BodyPool,
    outbox: Outbox,
    /// Scratch for the lengths of one receiver's packets.
    lens: Vec<u16>,
    /// Scratch for what a pacer lets go.
    paced: Vec<Egress>,
    fillers: Vec<Filler>,
    /// Scratch for what an allocation changes.
    allocation_changes: Vec<Change<DownKey>>,
    /// Scratch for report blocks.
    blocks: Vec<ReportBlock>,
    /// Scratch for one outgoing datagram.
    datagram: Vec<u8>,
    /// Scratch for one datagram of another worker.
    handed_over: Vec<u8>,
    /// Whose state machine is running: who pays for a panic.
    blamed: PeerKey,
}

impl Core {
    pub(crate) fn new(params: CoreParams) -> Self {
        Self {
            worker: params.worker,
            identity: params.identity,
            clock: params.clock,
            congestion: params.congestion,
            media: params.media,
            data_latency: params.data_latency,
            links: params.links,
            events: params.events,
            load: params.load,
            paths: params.paths,
            stats: WorkerStats::default(),
            received_before: 0,
            peers: SlotMap::with_key(),
            peer_ids: FxHashMap::default(),
            ufrags: FxHashMap::default(),
            routes: FxHashMap::default(),
            foreign_routes: ForeignRoutes::default(),
            closed_routes: Vec::new(),
            tracks: SlotMap::with_key(),
            track_ids: FxHashMap::default(),
            early_attachments: FxHashMap::default(),
            feeds: SlotMap::with_key(),
            feed_ids: FxHashMap::default(),
            downs: SlotMap::with_key(),
            subscription_ids: FxHashMap::default(),
            levels: Levels::new(params.media.audio_levels.interval),
            silences: Silences::default(),
            announcements: Announcements::default(),
            endings: Vec::new(),
            stages: FxHashMap::default(),
            timers: Timers::new(),
            dirty: Vec::new(),
            egress_dirty: Vec::new(),
            hold: Hold::new(params.egress_hold),
            batch: Vec::new(),
            pool: BodyPool::new(MAX_POOLED_BODIES),
            outbox: Outbox::new(OUTBOX_BYTES),
            lens: Vec::new(),
            paced: Vec::new(),
            fillers: Vec::new(),
            allocation_changes: Vec::new(),
            blocks: Vec::new(),
            datagram: Vec::new(),
            handed_over: Vec::new(),
            blamed: PeerKey::null(),
        }
    }

    /// Ends the turn: passes on what waits for other threads.
    pub(crate) fn finish_turn(&mut self) {
        self.links.flush();
        self.events.retry();
    }

    /// Whether something waits for room in a queue of another thread.
    pub(crate) fn is_congested(&self) -> bool {
        self.links.is_congested() || self.events.backlog() > 0
    }

    /// Counts a turn of the worker.
    pub(crate) fn begin_turn(&mut self) {
        self.stats.turns += 1;
        self.received_before = self.stats.datagrams_in + self.stats.link_in;
    }

    /// Datagrams and link messages since the turn began.
    pub(crate) fn received_in_turn(&self) -> u64 {
        self.stats.datagrams_in + self.stats.link_in - self.received_before
    }

    /// The counters, with table sizes brought up to date.
    pub(crate) fn stats_mut(&mut self) -> &mut WorkerStats {
        let stats = &mut self.stats;
        stats.peers = self.peers.len() as u64;
        stats.tracks = self.tracks.len() as u64;
        stats.feeds = self.feeds.len() as u64;
        stats.subscriptions = self.downs.len() as u64;
        stats.routes = self.routes.len() as u64;
        stats.ufrags = self.ufrags.len() as u64;
        stats.foreign_routes = self.foreign_routes.len() as u64;
        stats.early_attachments = self.early_attachments.len() as u64;
        stats.event_backlog = self.events.backlog() as u64;
        stats.dropped[DropCause::EventData as usize] = self.events.dropped_data;
        stats.dropped[DropCause::EventEssential as usize] = self.events.dropped_essential;
        stats
    }

    /// Gives back memory that a peak left behind; to be called a few times a second.
    pub(crate) fn trim(&mut self) {
        self.pool.trim();
    }

    /// Runs a step of a peer's state machine. A panic inside ends the peer that was running, is
    /// counted, and nothing else happens: `None`.
    fn guarded<R>(
        &mut self,
        now: Instant,
        peer: PeerKey,
        step: impl FnOnce(&mut Self) -> R,
    ) -> Option<R> {
        let outer = std::mem::replace(&mut self.blamed, peer);
        let result = catch_unwind(AssertUnwindSafe(|| step(self))).ok();
        if result.is_none() {
            self.contain_panic(now);
        }
        self.blamed = outer;
        result
    }

    fn emit(&mut self, room: RoomKey, kind: EventKind) {
        self.events.push(Event { room, kind });
    }

    fn push_link(&mut self, to: WorkerId, message: LinkMessage) -> bool {
        let pushed = self.links.push(to, message);
        if pushed {
            self.stats.link_out += 1;
        } else {
            self.stats.drop_one(DropCause::LinkFull);
        }
        pushed
    }

    /// Sees to it that the next flush looks at a peer.
    fn mark_dirty(&mut self, peer: PeerKey) {
        if let Some(state) = self.peers.get_mut(peer)
            && !std::mem::replace(&mut state.dirty, true)
        {
            self.dirty.push(peer);
        }
    }
}

#[cfg(test)]
mod tests;
