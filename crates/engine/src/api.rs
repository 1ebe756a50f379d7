//! The contract between the control plane and the media workers: commands go down, events come up.
//!
//! Ids are made by the control plane from `Engine` counters and carry the index of the worker that
//! owns the thing they name, so that routing a command is a shift and never a look-up.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::ExtensionMap;
use sluice_sfu::PlayoutDelayRange;
use sluice_transport::{IceCredentials, RemoteParams};

/// Index of a worker thread of this node, `0..workers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

macro_rules! worker_scoped_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// Packs a worker index (top 8 bits) and a serial number (low 56 bits).
            pub fn new(worker: WorkerId, serial: u64) -> Self {
                Self((u64::from(worker.0) << 56) | (serial & ((1 << 56) - 1)))
            }

            /// The worker that owns the thing this id names.
            pub fn worker(self) -> WorkerId {
                WorkerId((self.0 >> 56) as u8)
            }

            /// The packed value, for logs and maps.
            pub fn as_u64(self) -> u64 {
                self.0
            }
        }
    };
}

worker_scoped_id! {
    /// One peer connection (v0 participants have two, v1 participants one).
    PeerId
}
worker_scoped_id! {
    /// One published track; owned by the publisher's worker.
    TrackId
}
worker_scoped_id! {
    /// One receiver's subscription to one track; owned by the receiver's worker.
    SubscriptionId
}

/// LiveKit's data channels, by label; see `reliability` for labels that are not LiveKit's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ChannelLabel {
    /// `_reliable`: ordered, fully reliable.
    Reliable,
    /// `_lossy`: unordered, no retransmission.
    Lossy,
    /// `_data_track`: unordered, no retransmission, binary frames of data tracks.
    DataTrack,
    /// Any other label that a client opened.
    Other {
        /// The label as the peer wrote it.
        label: Arc<str>,
        /// Whether the channel retransmits without bound.
        reliable: bool,
    },
}

/// What the control plane asks of a worker. Commands of one worker are carried out in order.
#[derive(Debug)]
pub enum Command {
    /// Makes a peer that answers STUN for `local.ufrag`.
    CreatePeer(Box<CreatePeer>),
    /// Sets or replaces what the remote description said about the transport.
    SetRemote { peer: PeerId, remote: Box<RemoteParams> },
    /// New local credentials; the old ones stay valid until the first check with the new.
    RestartIce { peer: PeerId, local: IceCredentials },
    /// Ends a peer, its tracks and subscriptions. No event follows.
    ClosePeer { peer: PeerId },
    /// What the peer may send us, after each negotiation; replaces the earlier value. Streams that
    /// stay keep their state.
    SetReceive { peer: PeerId, receive: Box<ReceiveParams> },
    /// Publisher muted or unmuted a track (receivers' state is kept).
    SetTrackMuted { track: TrackId, muted: bool },
    /// Ends a published track on every worker.
    Unpublish { track: TrackId },
    /// Starts to forward `track` to a receiver. For a subscription that exists: takes over what was
    /// negotiated anew; the stream goes on if its SSRC and codec are the same.
    Subscribe(Box<Subscribe>),
    /// Changes what a receiver wants of a subscription.
    UpdateSubscription { subscription: SubscriptionId, settings: SubscriptionSettings },
    /// Ends a subscription.
    Unsubscribe { subscription: SubscriptionId },
    /// Sends one message on the named channel of each peer, all of one worker.
    SendData { peers: Arc<[PeerId]>, channel: ChannelLabel, binary: bool, payload: Bytes },
    /// Lets the estimate of a receiver's bandwidth not rise above this; `None` ends it. For tests of
    /// clients (`SimulateScenario.subscriber_bandwidth`).
    LimitBandwidth { peer: PeerId, max_bps: Option<u64> },
    /// Asks for statistics of a peer; answered with [`Event::PeerStats`].
    PeerStats { peer: PeerId },
    /// Ends the worker thread after closing all of its peers.
    Shutdown,
}

impl Command {
    /// The worker that carries this command out; `None` for [`Command::Shutdown`], which
    /// [`Engine::shutdown`](crate::Engine::shutdown) sends to all, and for data without peers.
    pub fn worker(&self) -> Option<WorkerId> {
        match self {
            Self::CreatePeer(create) => Some(create.peer.worker()),
            Self::SetRemote { peer, .. }
            | Self::RestartIce { peer, .. }
            | Self::ClosePeer { peer }
            | Self::SetReceive { peer, .. }
            | Self::LimitBandwidth { peer, .. }
            | Self::PeerStats { peer } => Some(peer.worker()),
            Self::SetTrackMuted { track, .. } | Self::Unpublish { track } => Some(track.worker()),
            Self::Subscribe(subscribe) => Some(subscribe.subscription.worker()),
            Self::UpdateSubscription { subscription, .. } | Self::Unsubscribe { subscription } => {
                Some(subscription.worker())
            }
            Self::SendData { peers, .. } => peers.first().map(|peer| peer.worker()),
            Self::Shutdown => None,
        }
    }
}

/// Parameters of [`Command::CreatePeer`].
#[derive(Debug)]
pub struct CreatePeer {
    /// Id with this worker's index.
    pub peer: PeerId,
    /// Opaque key of the room, echoed in every event of this peer.
    pub room: RoomKey,
    /// Local ICE credentials; the first character of `ufrag` names the worker.
    pub local: IceCredentials,
    /// Whether the server opens LiveKit's data channels on this peer (v0 subscriber) or the client
    /// does (publisher and single peer connection).
    pub open_channels: bool,
}

/// Names a room to the event router; chosen by the control plane, unique within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomKey(pub u64);

/// Parameters of [`Command::SetReceive`]: the negotiated sending half of the client.
#[derive(Debug, Clone, Default)]
pub struct ReceiveParams {
    /// Media sections on which the client may send.
    pub sections: Vec<ReceiveSection>,
}

/// One `m=` section that carries media from the client.
#[derive(Debug, Clone)]
pub struct ReceiveSection {
    /// `a=mid`.
    pub mid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// The published track this section feeds; `None` until the control plane has matched one.
    pub track: Option<PublishedTrack>,
    /// Payload types that the client may use here.
    pub payload_types: Vec<PayloadType>,
    /// Negotiated header extension ids.
    pub extensions: ExtensionMap,
    /// Simulcast rids, lowest quality first (`q`, `h`, `f`); empty without simulcast rids.
    pub rids: Vec<String>,
    /// SSRCs that the SDP announced, lowest layer first.
    pub ssrcs: Vec<AnnouncedSsrc>,
    /// Whether transport-wide congestion control was negotiated.
    pub transport_cc: bool,
    /// Whether generic NACK was negotiated.
    pub nack: bool,
}

/// The control plane's name for what a section carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedTrack {
    /// Id with the publisher's worker.
    pub track: TrackId,
    /// Whether the payload is end-to-end encrypted: then it is never parsed or invented.
    pub encrypted: bool,
    /// Whether speaker detection considers it (source microphone).
    pub microphone: bool,
    /// Whether the source is a screen share.
    pub screen_share: bool,
}

/// One `a=rtpmap` that the client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadType {
    /// RTP payload type.
    pub pt: u8,
    /// Codec.
    pub codec: Codec,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// Payload type of the RTX stream that repairs this one (RFC 4588).
    pub rtx_pt: Option<u8>,
    /// `a=fmtp` as the client wrote it.
    pub fmtp: String,
}

/// One `a=ssrc` with its FID partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnouncedSsrc {
    /// Media SSRC.
    pub ssrc: u32,
    /// RTX SSRC.
    pub rtx_ssrc: Option<u32>,
}

/// Parameters of [`Command::Subscribe`].
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// Id with the receiver's worker.
    pub subscription: SubscriptionId,
    /// The receiving peer, on the same worker.
    pub peer: PeerId,
    /// The track, on any worker.
    pub track: TrackId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Whether the payload is end-to-end encrypted: then it is never parsed or invented.
    pub encrypted: bool,
    /// Whether the source is a screen share: it is served before cameras.
    pub screen_share: bool,
    /// Limits of the receiver's jitter buffer, where the room sets some.
    pub playout_delay: Option<PlayoutDelayRange>,
    /// Whether packets of our own open the stream while the track has none: pion, under LiveKit's
    /// Go SDK, shows a track to its application with the first packet only.
    pub announce: bool,
    /// What was negotiated with the receiver.
    pub sender: SenderParams,
    /// What the receiver wants now.
    pub settings: SubscriptionSettings,
}

/// The negotiated sending half of the server for one subscription.
#[derive(Debug, Clone)]
pub struct SenderParams {
    /// `a=mid` of the section.
    pub mid: Arc<str>,
    /// Codec that flows; packets of another codec are dropped and counted.
    pub codec: Codec,
    /// Payload type towards the receiver.
    pub pt: u8,
    /// RTX payload type towards the receiver.
    pub rtx_pt: Option<u8>,
    /// With RED: payload type of the Opus inside, under which plain Opus may be sent as well.
    pub red_primary_pt: Option<u8>,
    /// SSRC of the media stream.
    pub ssrc: u32,
    /// SSRC of the RTX stream.
    pub rtx_ssrc: Option<u32>,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// Header extension ids towards the receiver.
    pub extensions: ExtensionMap,
    /// Canonical name for SDES, the stream id.
    pub cname: Arc<str>,
    /// Whether the receiver may send NACK.
    pub nack: bool,
    /// Whether the receiver sends transport-wide feedback.
    pub transport_cc: bool,
    /// Whether the receiver sends estimates of its own (REMB); not looked at beside transport-wide
    /// feedback.
    pub remb: bool,
}

/// What a receiver wants of one subscription (`UpdateTrackSettings`, already mapped to layers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionSettings {
    /// False pauses forwarding at once, the section stays.
    pub enabled: bool,
    /// Highest spatial layer wanted, 0..=2.
    pub max_spatial: u8,
    /// Highest temporal layer wanted, 0..=3.
    pub max_temporal: u8,
    /// Larger is served first by the allocator, and more: steps per round, 1..=8.
    pub priority: u8,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self { enabled: true, max_spatial: 2, max_temporal: 3, priority: 1 }
    }
}

/// What a worker tells the control plane. Order holds per worker.
#[derive(Debug)]
pub struct Event {
    /// The room of the peer or track concerned.
    pub room: RoomKey,
    /// What happened.
    pub kind: EventKind,
}

/// See [`Event`].
#[derive(Debug)]
pub enum EventKind {
    /// ICE and DTLS are up.
    PeerConnected { peer: PeerId, remote: SocketAddr, tcp: bool, srtp_profile: &'static str },
    /// No authenticated traffic for [`ICE_DISCONNECTED`](crate::ICE_DISCONNECTED); may come back.
    PeerDisconnected { peer: PeerId },
    /// Traffic came back after `PeerDisconnected`, or the address changed.
    PeerRecovered { peer: PeerId, remote: SocketAddr, tcp: bool },
    /// The peer failed. After [`PeerFailure::IceTimeout`] it is kept until it is closed, and comes
    /// back with `PeerRecovered` or `PeerConnected`; after anything else it is over.
    PeerFailed { peer: PeerId, reason: PeerFailure },
    /// A data channel opened.
    ChannelOpen { peer: PeerId, channel: ChannelLabel },
    /// A message arrived on a data channel.
    Data { peer: PeerId, channel: ChannelLabel, binary: bool, payload: Bytes },
    /// First media packet of a layer of a track.
    LayerStarted { track: TrackId, layer: u8, ssrc: u32, rid: Option<String>, codec: Codec },
    /// A section without a matched track carries media (the control plane may still match it).
    UnmatchedMedia { peer: PeerId, mid: String },
    /// The highest spatial layer that any receiver on any worker wants, for dynacast; `None` = no
    /// receiver wants the track.
    MaxWanted { track: TrackId, max_spatial: Option<u8> },
    /// Audio levels of microphones that were active in the last interval: linear level 0..=1. One
    /// that fell silent is told once with level 0. Others are not mentioned; in particular those
    /// of other workers, which tell their own.
    AudioLevels { levels: Vec<(TrackId, f32)> },
    /// How good a peer's connection is, sent when its level changes: the worst score, 0..=100, of
    /// what it publishes and gets (see [`quality`](crate::quality)).
    ConnectionQuality { peer: PeerId, score: f32 },
    /// Answer to [`Command::PeerStats`].
    PeerStats { peer: PeerId, stats: Box<PeerStats> },
    /// A subscription's stream was paused or resumed by the allocator.
    StreamState { subscription: SubscriptionId, paused: bool },
}

/// Why a peer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerFailure {
    /// No authenticated STUN within the ICE timeouts.
    IceTimeout,
    /// The DTLS handshake failed or timed out.
    Dtls(String),
    /// A bug in our state machine, contained to this peer.
    Panic,
}

/// Counters of a peer since its creation.
#[derive(Debug, Clone, Default)]
pub struct PeerStats {
    /// RTP packets received and accepted.
    pub packets_in: u64,
    /// RTP bytes received and accepted.
    pub bytes_in: u64,
    /// RTP packets sent.
    pub packets_out: u64,
    /// RTP bytes sent.
    pub bytes_out: u64,
    /// Packets dropped with their reason.
    pub dropped: Vec<(&'static str, u64)>,
}
