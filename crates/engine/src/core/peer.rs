//! What a worker keeps of one peer connection.

use std::collections::VecDeque;
use std::time::Instant;

use rustc_hash::FxHashMap;
use slotmap::new_key_type;
use sluice_sfu::{Forwarded, PacketBody, StreamBinder, TwccReceiver};
use sluice_transport::{ChannelId, Peer, Route};

use crate::api::{ChannelLabel, PeerId, PeerStats, PublishedTrack, RoomKey, WorkerId};
use crate::core::congestion::Congestion;
use crate::core::quality::PeerQuality;
use crate::core::ufrag::Ufrag;
use crate::timers::Armed;

new_key_type! {
    /// A peer of this worker.
    pub(crate) struct PeerKey;
    /// A track published by a peer of this worker.
    pub(crate) struct TrackKey;
    /// A subscription of a peer of this worker.
    pub(crate) struct DownKey;
}

/// How far the stream of an ended subscription came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retired {
    pub(crate) last_seq: u16,
    /// Newest timestamp of media, and when it was sent.
    pub(crate) last_sent: Option<(u32, Instant)>,
}

/// One peer connection.
pub(crate) struct PeerState {
    pub(crate) id: PeerId,
    pub(crate) room: RoomKey,
    pub(crate) transport: Peer,
    pub(crate) connected: bool,
    /// Goes with the next flush.
    pub(crate) closing: bool,
    /// Local ufrags that lead here: the current one and, during an ICE restart, the one before.
    pub(crate) ufrags: Vec<Ufrag>,
    /// Validated remote addresses, oldest first.
    pub(crate) routes: VecDeque<KnownRoute>,
    pub(crate) channels: Vec<(ChannelId, ChannelLabel)>,

    // What the peer sends.
    pub(crate) binder: StreamBinder,
    /// In the order of the binder's sections.
    pub(crate) sections: Vec<Section>,
    pub(crate) twcc: TwccReceiver,
    /// Extension id of transport-wide sequence numbers from the peer.
    pub(crate) twcc_id: Option<u8>,

    // What the peer gets.
    pub(crate) downs: Vec<DownKey>,
    pub(crate) down_by_ssrc: FxHashMap<u32, DownKey>,
    /// Those that wait for a key frame and repeat their request.
    pub(crate) awaiting: Vec<DownKey>,
    /// Last sequence number of SSRCs whose subscription ended.
    pub(crate) retired: FxHashMap<u32, Retired>,
    /// Next transport-wide sequence number towards the peer.
    pub(crate) twcc_seq: u16,
    pub(crate) egress: Vec<Egress>,
    /// What limits and paces all that it gets.
    pub(crate) congestion: Option<Box<Congestion>>,
    /// RTCP packets that go out as one compound with the next flush.
    pub(crate) rtcp: Vec<u8>,

    // When and why to look at it again.
    pub(crate) armed: Armed,
    pub(crate) dirty: bool,
    pub(crate) egress_dirty: bool,
    pub(crate) next_report: Option<Instant>,
    pub(crate) next_sender_report: Option<Instant>,
    pub(crate) quality: PeerQuality,
    pub(crate) stats: PeerStats,
}

/// A validated address, and the worker on whose socket it arrives if that is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownRoute {
    pub(crate) route: Route,
    pub(crate) via: Option<WorkerId>,
}

/// A media section on which the peer may send.
pub(crate) struct Section {
    pub(crate) mid: String,
    /// The control plane's name for what it carries.
    pub(crate) track: Option<PublishedTrack>,
    /// The receiving state; present with `track`.
    pub(crate) key: Option<TrackKey>,
    /// Packets that came before the control plane matched a track.
    pub(crate) held: VecDeque<Held>,
    pub(crate) unmatched_told: bool,
}

/// A decrypted packet that waits for its track.
pub(crate) struct Held {
    pub(crate) arrival: Instant,
    pub(crate) body: PacketBody,
}

/// What a pacer needs to know of a packet, and says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Video: may wait behind a burst.
    Patient,
    /// Audio and what was asked for again: leaves at once.
    Urgent,
    /// Leaves, as part of this probe if there is one.
    Released(Option<u16>),
}

/// One packet on its way to one receiver: which, and how its header and payload differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Egress {
    /// Index into the worker's batch.
    pub(crate) packet: u32,
    pub(crate) down: DownKey,
    pub(crate) form: Forwarded,
    /// Number on the RTX stream, if it is a retransmission there.
    pub(crate) rtx_seq: Option<u16>,
    /// Whether the pacer may let it wait, and once it is through, the probe that it is part of.
    pub(crate) pace: Pace,
}
