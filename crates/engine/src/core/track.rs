//! A published track, the same track as the receivers of one worker see it, and one receiver of it.
//!
//! A [`Publication`] lives on the publisher's worker, a [`Feed`] on each worker with receivers, the
//! publisher's included; between them go the messages of [`crate::link`], over a ring or, on the
//! same worker, as a call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};
use sluice_rtp::rtcp::ReportBlock;
use sluice_rtp::seq::seq_newer;
use sluice_sfu::meter::{LayerRates, TrackMeter};
use sluice_sfu::{
    AudioLevelObserver, DownTrack, LayerSet, PlayoutDelayControl, TrackHistory, TrackReceiver,
};
use sluice_transport::StreamSlot;

use crate::api::{
    PublishedTrack, RoomKey, SenderParams, SubscriptionId, SubscriptionSettings, TrackId, WorkerId,
};
use crate::core::outgoing::Template;
use crate::core::peer::{DownKey, PeerKey};
use crate::core::red::AudioForms;
use crate::link::FeedKey;

/// Time between looks at what the layers of a track cost.
const RATES_INTERVAL: Duration = Duration::from_millis(50);

/// A track that a peer of this worker publishes.
pub(crate) struct Publication {
    pub(crate) id: TrackId,
    pub(crate) peer: PeerKey,
    pub(crate) room: RoomKey,
    pub(crate) published: PublishedTrack,
    pub(crate) receiver: TrackReceiver,
    pub(crate) muted: bool,
    /// Bit per layer whose first packet was told.
    pub(crate) layers_told: u8,
    /// Speech level of a microphone.
    pub(crate) level: Option<AudioLevelObserver>,
    /// The next report of levels looks at it.
    pub(crate) level_due: bool,
    /// The last report said that it speaks.
    pub(crate) speaking: bool,
    /// Feeds on this and other workers.
    pub(crate) attached: Vec<Attachment>,
    /// What [`EventKind::MaxWanted`](crate::EventKind::MaxWanted) said last.
    pub(crate) max_wanted_told: Option<Option<u8>>,
    /// Packets lost of all layers, as the last report to the publisher said.
    pub(crate) lost_told: i32,
}

/// A feed of a track, as its publisher's worker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) worker: WorkerId,
    pub(crate) feed: FeedKey,
    /// Highest spatial layer that a receiver of the feed wants.
    pub(crate) wanted: Option<u8>,
}

impl Publication {
    /// The highest spatial layer that anyone wants.
    pub(crate) fn max_wanted(&self) -> Option<u8> {
        self.attached.iter().filter_map(|attachment| attachment.wanted).max()
    }
}

/// A track with receivers on this worker.
pub(crate) struct Feed {
    pub(crate) track: TrackId,
    /// Room of the receivers.
    pub(crate) room: RoomKey,
    pub(crate) downs: Vec<DownKey>,
    pub(crate) kind: MediaKind,
    pub(crate) history: TrackHistory,
    /// Forms in which the receivers take audio.
    pub(crate) forms: AudioForms,
    /// What its layers cost, from the first packet on.
    pub(crate) meter: Option<Box<Metered>>,
    /// What the publisher's worker was told last.
    pub(crate) wanted_told: Option<u8>,
    /// Layers that the publisher sends.
    pub(crate) live_layers: LayerSet,
    /// The publisher muted the track.
    pub(crate) muted: bool,
    /// Others are louder, and only so many are forwarded.
    pub(crate) off_stage: bool,
    /// Changes when the publisher's stream starts anew.
    pub(crate) epoch: u8,
    pub(crate) ended: bool,
}

impl Feed {
    pub(crate) fn new(track: TrackId, room: RoomKey, kind: MediaKind, wanted: Option<u8>) -> Self {
        Self {
            kind,
            meter: None,
            track,
            room,
            downs: Vec::new(),
            history: TrackHistory::new(kind),
            forms: AudioForms::default(),
            wanted_told: wanted,
            live_layers: LayerSet::NONE,
            muted: false,
            off_stage: false,
            epoch: 0,
            ended: false,
        }
    }

    /// Whether nothing is forwarded at present, to no receiver.
    pub(crate) fn is_quiet(&self) -> bool {
        self.muted || self.off_stage
    }
}

/// What the layers of a track cost.
pub(crate) struct Metered {
    pub(crate) meter: TrackMeter,
    last: (Option<(Instant, LayerSet)>, LayerRates),
}

impl Metered {
    pub(crate) fn new(now: Instant) -> Self {
        Self { meter: TrackMeter::new(false, now), last: (None, LayerRates::default()) }
    }

    /// The rates, given the live layers; looked at anew a few times a second and whenever other
    /// layers are live, for all receivers.
    pub(crate) fn rates(&mut self, now: Instant, live: LayerSet) -> LayerRates {
        if self.last.0.is_none_or(|(at, of)| now >= at + RATES_INTERVAL || of != live) {
            self.last = (Some((now, live)), self.meter.expected_rates(now, live));
        }
        self.last.1
    }
}

/// What a receiver tells of the path to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathFeedback {
    /// When each packet arrived.
    TransportWide,
    /// An estimate of its own.
    Estimate,
    /// Nothing.
    None,
}

impl PathFeedback {
    /// The best that was negotiated.
    pub(crate) fn of(sender: &SenderParams) -> Self {
        match (sender.transport_cc, sender.remb) {
            (true, _) => Self::TransportWide,
            (false, true) => Self::Estimate,
            (false, false) => Self::None,
        }
    }
}

/// A subscription of a peer of this worker.
pub(crate) struct Down {
    pub(crate) id: SubscriptionId,
    pub(crate) peer: PeerKey,
    pub(crate) feed: FeedKey,
    pub(crate) track: DownTrack,
    pub(crate) wire: Wire,
    /// What the receiver wants.
    pub(crate) settings: SubscriptionSettings,
    pub(crate) screen_share: bool,
    pub(crate) path_feedback: PathFeedback,
    /// The receiver's transport is up.
    pub(crate) connected: bool,
    /// The receiver must get a packet to know of the track.
    pub(crate) announce: bool,
    /// Packets sent when the last sender report went out.
    pub(crate) reported_packets: u64,
    /// Packets sent when the receiver's last report block came.
    pub(crate) packets_at_report: u64,
}

/// What is the same in every packet of a subscription.
pub(crate) struct Wire {
    pub(crate) ssrc: u32,
    pub(crate) pt: u8,
    pub(crate) rtx: Option<(u32, u8)>,
    /// With RED: payload type of the Opus inside.
    pub(crate) red_primary_pt: Option<u8>,
    pub(crate) mid: Arc<str>,
    pub(crate) cname: Arc<str>,
    pub(crate) extensions: ExtensionMap,
    /// Extension id of transport-wide sequence numbers, if the receiver sends feedback.
    pub(crate) twcc_id: Option<u8>,
    /// Limits of the receiver's jitter buffer.
    pub(crate) playout: Option<Box<PlayoutDelayControl>>,
    /// The header of packets without an extension of their own.
    pub(crate) template: Template,
    /// The receiver has not confirmed by a report that it knows the SSRC.
    pub(crate) send_mid: bool,
    /// Highest numbers sent so far.
    pub(crate) last_seq: Option<u16>,
    pub(crate) last_rtx_seq: Option<u16>,
    /// Where the transport keeps the state of the media and of the RTX stream.
    pub(crate) slots: [StreamSlot; 2],
}

impl Wire {
    /// The playout-delay element, while packets should carry it.
    pub(crate) fn playout_element(&self) -> Option<(u8, &[u8])> {
        let element = self.playout.as_ref()?.element()?;
        Some((self.extensions.id(ExtensionKind::PlayoutDelay)?, element))
    }

    /// Payload type of a packet: with RED, plain Opus has its own.
    pub(crate) fn payload_type(&self, codec: Codec) -> u8 {
        self.red_primary_pt.filter(|_| codec == Codec::Opus).unwrap_or(self.pt)
    }

    /// The receiver's report block about the media stream.
    pub(crate) fn on_report(&mut self, now: Instant, block: &ReportBlock, jitter: Duration) {
        // It has placed the SSRC in its section.
        self.send_mid = false;
        if let Some(playout) = &mut self.playout {
            playout.on_report(now, block.highest_seq as u16, jitter);
        }
    }

    /// Where the transport keeps the state of a stream.
    pub(crate) fn slot(&self, is_rtx: bool) -> StreamSlot {
        self.slots[usize::from(is_rtx)]
    }

    /// Notes the numbers of a packet that was sealed.
    pub(crate) fn note_sent(
        &mut self,
        now: Instant,
        seq: u16,
        rtx_seq: Option<u16>,
        slot: StreamSlot,
    ) {
        self.slots[usize::from(rtx_seq.is_some())] = slot;
        if let (Some(playout), None) = (&mut self.playout, rtx_seq) {
            playout.on_sent(now, seq);
        }
        let (last, seq) = match rtx_seq {
            Some(seq) => (&mut self.last_rtx_seq, seq),
            None => (&mut self.last_seq, seq),
        };
        if last.is_none_or(|last| seq_newer(seq, last)) {
            *last = Some(seq);
        }
    }
}
