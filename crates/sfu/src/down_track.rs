//! One track towards one receiver: which packets it gets, under which numbers, and what it can ask
//! for again.
//!
//! Packets of the track, all layers, flow in through [`DownTrack::forward`]; what flows out is the
//! rewritten header of those that go on. Sender reports of the publisher, and RTCP of the receiver,
//! come in beside; sender reports, key-frame requests and retransmissions come out.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::rtcp::{ReportBlock, SenderInfo};

use crate::drop_reason::{DropCounters, DropReason};
use crate::packet::{LayerSet, MediaPacket};
use crate::selector::{Choice, Goal, LayerSelector, Passthrough, Simulcast};
use crate::sender_report::{ReportClock, SourceClocks, SourceReport};
use crate::sent_log::{PayloadRewrite, SentLog, SentPacket};
use crate::seq_munger::SeqMunger;
use crate::svc::{Form, Svc};
use crate::ts_munger::{Transition, TsMunger};
use crate::vp8_munger::Vp8Munger;

mod fill;
mod quality;
mod repair;

pub use repair::{NackCounters, Resend};

/// Shortest and longest time between requests for the same key frame (LiveKit); in between, two
/// round trips.
const KEY_FRAME_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// Round-trip time before the first report block.
const DEFAULT_RTT: Duration = Duration::from_millis(100);

/// Switches refused for stepping back in time before the publisher's clock is no longer believed.
const MAX_REFUSED_SWITCHES: u8 = 3;

/// After a receiver asked for a key frame, its NACKs are ignored until it comes, this long at most:
/// it no longer needs what it lost. Not if a key frame went out within this time before: the request
/// crossed it, or it is the key frame itself whose losses must be repaired.
const NACK_SILENCE: Duration = Duration::from_secs(1);

/// What was negotiated with a receiver for one track.
#[derive(Debug, Clone)]
pub struct DownTrackConfig {
    /// Audio or video.
    pub kind: MediaKind,
    /// Codec that the receiver expects; packets of others are dropped.
    pub codec: Codec,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// SSRC of the media stream.
    pub ssrc: u32,
    /// Payload type of the media stream.
    pub pt: u8,
    /// SSRC and payload type of the RTX stream.
    pub rtx: Option<(u32, u8)>,
    /// Whether the payload is end-to-end encrypted.
    pub encrypted: bool,
    /// First sequence number of the media stream; random, below 2^15 (RFC 3711 §3.3.1).
    pub first_seq: u16,
    /// First sequence number of the RTX stream; random, below 2^15.
    pub first_rtx_seq: u16,
    /// Layers that the publisher sends now, if known.
    pub live_layers: LayerSet,
}

/// What the receiver wants of the track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownTrackSettings {
    /// False: nothing is sent.
    pub enabled: bool,
    /// Highest spatial layer, 0..=2.
    pub max_spatial: u8,
    /// Highest temporal layer, 0..=3.
    pub max_temporal: u8,
}

impl Default for DownTrackSettings {
    fn default() -> Self {
        Self { enabled: true, max_spatial: 2, max_temporal: 3 }
    }
}

/// What the receiver's network can carry of the track, as the allocator decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// No limit known.
    Unlimited,
    /// Up to these layers.
    UpTo {
        /// Highest spatial layer.
        spatial: u8,
        /// Highest temporal layer.
        temporal: u8,
        /// Whether a layer above is left at once, before the lower one's key frame has come.
        urgent: bool,
    },
    /// Not even the lowest layer.
    Paused,
}

/// A packet to send: the rewritten parts of its header and payload. The rest is the source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Marker.
    pub marker: bool,
    /// Start of the payload, if it differs.
    pub rewrite: PayloadRewrite,
    /// Active-decode-target mask that the dependency descriptor must state, if it is not the
    /// source's; see [`MediaPacket::rewrite_descriptor`].
    pub active_targets: Option<NonZeroU32>,
}

impl From<SentPacket> for Forwarded {
    fn from(sent: SentPacket) -> Self {
        let SentPacket { target, timestamp, marker, rewrite, active_targets, .. } = sent;
        Self { seq: target as u16, timestamp, marker, rewrite, active_targets }
    }
}

/// What a receiver said in its newest report block.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReceiverFeedback {
    /// Loss in the last interval, 0..=1.
    pub fraction_lost: f32,
    /// Packets lost since the start.
    pub cumulative_lost: i32,
    /// Interarrival jitter.
    pub jitter: Duration,
    /// Round-trip time.
    pub rtt: Option<Duration>,
}

/// State of one subscription. Most of them are quiet at any time, in a large room: what only a flowing
/// one needs takes memory when it begins to flow.
#[derive(Debug)]
pub struct DownTrack {
    config: DownTrackConfig,
    settings: DownTrackSettings,
    allocation: Allocation,
    source_muted: bool,
    live: LayerSet,
    rtx_seq: u16,
    selector: LayerSelector,
    key_frame_asked: Option<Instant>,
    feedback: ReceiverFeedback,
    /// From the first packet on, also one of our own.
    flow: Option<Box<Flow>>,
    /// From the publisher's first report on.
    clocks: Option<Box<SourceClocks>>,
    /// Present once it is asked for.
    quality: Option<Box<quality::PathQuality>>,
    /// From the first packet on that is not forwarded.
    dropped: Option<Box<DropCounters>>,
}

impl DownTrack {
    /// A subscription to which nothing has been sent.
    pub fn new(config: DownTrackConfig, settings: DownTrackSettings, now: Instant) -> Self {
        // Without a descriptor the start of an encrypted AV1 frame cannot be seen; such a receiver
        // begins anywhere and its decoder waits.
        let blind = config.encrypted && config.codec == Codec::Av1;
        let selector = match config.kind {
            MediaKind::Audio => LayerSelector::Passthrough(Passthrough::default()),
            MediaKind::Video if config.codec.is_svc() => LayerSelector::Svc(Svc::new(now, blind)),
            MediaKind::Video => LayerSelector::Simulcast(Simulcast::new(now, blind)),
        };
        Self {
            settings,
            allocation: Allocation::Unlimited,
            source_muted: false,
            live: config.live_layers,
            rtx_seq: config.first_rtx_seq,
            selector,
            key_frame_asked: None,
            feedback: ReceiverFeedback::default(),
            flow: None,
            clocks: None,
            quality: None,
            dropped: None,
            config,
        }
    }

    /// What was negotiated.
    pub fn config(&self) -> &DownTrackConfig {
        &self.config
    }

    /// Lets timestamps go on after another subscription of the same SSRC: the newest one that it
    /// sent, and when. Receivers drop what seems older than what they have played.
    pub fn continue_after(&mut self, newest: (u32, Instant)) {
        self.flow().ts.continue_after(newest);
    }

    /// The newest timestamp that was sent, and when.
    pub fn last_sent(&self) -> Option<(u32, Instant)> {
        self.flow.as_ref()?.ts.last_sent()
    }

    /// Changes what the receiver wants.
    pub fn set_settings(&mut self, now: Instant, settings: DownTrackSettings) {
        self.settings = settings;
        self.on_goal_changed(now, false);
    }

    /// Changes what the receiver's network can carry. Returns whether a layer was left at once for want of
    /// it: packets of the track that wait in the pacer are in the way of the key frame that the receiver
    /// needs then, and are dropped (see [`count_left`](Self::count_left)).
    pub fn set_allocation(&mut self, now: Instant, allocation: Allocation) -> bool {
        self.allocation = allocation;
        let urgent = matches!(allocation, Allocation::UpTo { urgent: true, .. });
        self.on_goal_changed(now, urgent)
    }

    /// Counts packets that waited in the pacer when their layer was left. To the receiver they are lost,
    /// and not sent again.
    pub fn count_left(&mut self, packets: u64) {
        if packets > 0 {
            self.dropped.get_or_insert_default().count_many(DropReason::LayerLeft, packets);
        }
    }

    /// Notes a sender report of the publisher.
    pub fn on_source_report(&mut self, report: SourceReport) {
        self.clocks.get_or_insert_default().set(report);
    }

    /// Notes the layers that the publisher sends; packets bring the same news.
    pub fn set_live_layers(&mut self, live: LayerSet) {
        self.live = live;
    }

    /// Decides about a packet of the track, of any layer. Returns how to send it, or `None` if this
    /// receiver does not get it (counted by reason).
    pub fn forward(&mut self, now: Instant, packet: &MediaPacket) -> Option<Forwarded> {
        self.live = packet.live_layers;
        let result = self.try_forward(now, packet);
        result.inspect_err(|reason| self.dropped.get_or_insert_default().count(*reason)).ok()
    }

    /// The receiver asked for a key frame (PLI or FIR). Returns the layer of which the publisher
    /// must be asked for one.
    pub fn on_key_frame_request(&mut self, now: Instant) -> Option<u8> {
        if self.config.kind == MediaKind::Audio || self.goal().is_none() {
            return None;
        }
        if let Some(flow) = &mut self.flow
            && flow.key_frame_sent.is_none_or(|at| now >= at + NACK_SILENCE)
        {
            flow.silent_until = Some(now + NACK_SILENCE);
        }
        let current = self.selector.current().map(|(layer, _)| layer);
        self.awaited_layer().or(current)
    }

    /// The layer of which a key frame must be asked for now, so that this receiver can start or
    /// switch. To be called after every change and at [`poll_timeout`](Self::poll_timeout).
    pub fn poll_key_frame_request(&mut self, now: Instant) -> Option<u8> {
        let layer = self.awaited_layer();
        if layer.is_none() {
            self.key_frame_asked = None;
            return None;
        }
        if self.key_frame_asked.is_some_and(|at| now < at + self.key_frame_retry()) {
            return None;
        }
        self.key_frame_asked = Some(now);
        layer
    }

    /// When [`poll_key_frame_request`](Self::poll_key_frame_request) repeats a request.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.awaited_layer()?;
        self.key_frame_asked.map(|at| at + self.key_frame_retry())
    }

    /// The sender report for the receiver, about every three seconds. `None` before the publisher
    /// has reported on the stream that is being sent.
    pub fn sender_report(&mut self, now: Instant) -> Option<SenderInfo> {
        let flow = self.flow.as_mut()?;
        let (stream, epoch) = flow.last_source?;
        let source = self.clocks.as_ref()?.get(stream, epoch)?;
        let (ntp, timestamp) = flow.reports.advance(now, source, self.config.clock_rate)?;
        Some(SenderInfo {
            ssrc: self.config.ssrc,
            ntp,
            rtp_timestamp: flow.ts.target_of(timestamp),
            packet_count: flow.packets as u32,
            octet_count: flow.octets as u32,
        })
    }

    /// Takes the receiver's report block about the media stream.
    pub fn on_receiver_report(&mut self, now: Instant, block: &ReportBlock) {
        let reports = self.flow.as_mut().map(|flow| &mut flow.reports);
        let rtt = reports
            .and_then(|it| it.on_report_block(now, block.last_sr, block.delay_since_last_sr));
        if let Some(quality) = &mut self.quality {
            quality.on_report(now, block);
        }
        let clock_rate = u64::from(self.config.clock_rate.max(1));
        self.feedback = ReceiverFeedback {
            fraction_lost: f32::from(block.fraction_lost) / 256.0,
            cumulative_lost: block.cumulative_lost,
            jitter: Duration::from_nanos(u64::from(block.jitter) * 1_000_000_000 / clock_rate),
            rtt: rtt.or(self.feedback.rtt),
        };
    }

    /// Sets the round-trip time to the receiver, if another measurement is better.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.feedback.rtt = Some(rtt);
    }

    /// Spatial layer that is being sent.
    pub fn current_layer(&self) -> Option<u8> {
        self.selector.current_spatial()
    }

    /// Temporal layer that is being sent, if they are told apart.
    pub fn current_temporal(&self) -> Option<u8> {
        self.selector.current_temporal()
    }

    /// Layer that would be sent if a key frame of each came now.
    pub fn target_layer(&self) -> Option<u8> {
        self.goal().and_then(|goal| self.selector.target(self.live, &goal))
    }

    /// Highest layer that the receiver wants, for dynacast; `None` if it wants none.
    pub fn wanted_layer(&self) -> Option<u8> {
        self.settings.enabled.then_some(self.settings.max_spatial)
    }

    /// The receiver's newest report.
    pub fn feedback(&self) -> &ReceiverFeedback {
        &self.feedback
    }

    /// What became of the receiver's NACKs.
    pub fn nacks(&self) -> NackCounters {
        self.flow.as_ref().map(|flow| flow.nacks).unwrap_or_default()
    }

    /// Packets of the track that this receiver did not get; `None` before the first.
    pub fn dropped(&self) -> Option<&DropCounters> {
        self.dropped.as_deref()
    }

    /// Packets and payload bytes sent on the media stream.
    pub fn sent(&self) -> (u64, u64) {
        self.flow.as_ref().map(|flow| (flow.packets, flow.octets)).unwrap_or_default()
    }

    /// Whether a packet of this codec may go out. RED is negotiated together with the Opus inside.
    fn accepts(&self, codec: Codec) -> bool {
        codec == self.config.codec || (self.config.codec == Codec::Red && codec == Codec::Opus)
    }

    fn try_forward(&mut self, now: Instant, packet: &MediaPacket) -> Result<Forwarded, DropReason> {
        if !self.accepts(packet.codec) && !packet.is_padding() {
            return Err(DropReason::CodecMismatch);
        }
        let goal = self.goal().ok_or(DropReason::Paused)?;
        if packet.newer == 0 {
            self.selector.on_frame(packet, &goal);
        }
        match self.selector.choose(now, packet, &goal) {
            Choice::Ignore(reason) => return Err(reason),
            Choice::Skip(reason) => {
                self.flow().skip(packet);
                return Err(reason);
            }
            Choice::Start => self.start(now, packet, &goal)?,
            Choice::Forward => {}
        }
        let Form { marker, active_targets } = self.selector.form(packet);
        let with_log = self.config.rtx.is_some();
        let flow = self.flow();
        let rewrite = flow.rewrite_payload(packet)?;
        let target = flow.seq.forward(packet.ext_seq).ok_or(DropReason::NoGap)?;
        if packet.starts_key_frame() && std::mem::take(&mut flow.needs_key_frame) {
            flow.worthless_below = target;
        }
        let timestamp = flow.ts.map(now, packet.timestamp);
        flow.packets += 1;
        flow.octets += u64::from(packet.payload.len);
        if packet.starts_key_frame() {
            flow.silent_until = None;
            flow.key_frame_sent = Some(now);
        }
        if with_log {
            let MediaPacket { ext_seq, stream, .. } = *packet;
            flow.sent.push(
                now,
                SentPacket { target, ext_seq, timestamp, stream, marker, rewrite, active_targets },
            );
        }
        Ok(Forwarded { seq: target as u16, timestamp, marker, rewrite, active_targets })
    }

    /// Makes the packet's stream the one that is sent, from this packet on.
    fn start(&mut self, now: Instant, packet: &MediaPacket, goal: &Goal) -> Result<(), DropReason> {
        let source = (packet.stream, packet.epoch);
        let flow = self.flow.get_or_insert_with(|| Flow::new(&self.config));
        let (aligned, transition) = match flow.last_source {
            Some(last) if last == source => {
                (Some(flow.ts.target_of(packet.timestamp)), Transition::Resume)
            }
            Some(last) => {
                let clock_rate = self.config.clock_rate;
                let clocks = self.clocks.as_ref();
                let in_last =
                    clocks.and_then(|it| it.translate(packet.timestamp, source, last, clock_rate));
                let same_pictures = last.0 != source.0 && self.selector.current().is_some();
                let transition =
                    if same_pictures { Transition::Switch } else { Transition::Resume };
                (in_last.map(|ts| flow.ts.target_of(ts)), transition)
            }
            None => (None, Transition::Resume),
        };
        let believed = aligned.filter(|_| flow.refused_switches < MAX_REFUSED_SWITCHES);
        if flow.ts.start(now, packet.timestamp, believed, transition).is_err() {
            flow.refused_switches += 1;
            return Err(DropReason::TimestampBehind);
        }
        flow.refused_switches = 0;
        flow.seq.start(packet.ext_seq, packet.newer);
        if let (Some(munger), Some(descriptor)) = (&mut flow.vp8, &packet.info.vp8) {
            munger.start(descriptor);
        }
        flow.last_source = Some(source);
        self.selector.start(packet, goal);
        self.note_layer_distance(now);
        Ok(())
    }

    /// What was sent; from now on something is.
    fn flow(&mut self) -> &mut Flow {
        self.flow.get_or_insert_with(|| Flow::new(&self.config))
    }

    /// What the receiver may have now; `None` while paused.
    fn goal(&self) -> Option<Goal> {
        let DownTrackSettings { enabled, max_spatial, max_temporal } = self.settings;
        if !enabled || self.source_muted {
            return None;
        }
        let goal = match self.allocation {
            Allocation::Paused => return None,
            Allocation::Unlimited => {
                Goal { spatial: max_spatial, temporal: max_temporal, overshoot: true }
            }
            Allocation::UpTo { spatial, temporal, .. } => Goal {
                spatial: spatial.min(max_spatial),
                temporal: temporal.min(max_temporal),
                overshoot: false,
            },
        };
        Some(goal)
    }

    fn on_goal_changed(&mut self, now: Instant, urgent: bool) -> bool {
        let Some(goal) = self.goal() else {
            self.selector.stop(now);
            return false;
        };
        let current = self.current_layer();
        let above = current.is_some_and(|current| current > goal.spatial);
        let leaves = urgent && above && !self.selector.can_step_down(&goal);
        if let Some(flow) = self.flow.as_mut().filter(|_| above) {
            flow.lowered = Some(now);
            flow.needs_key_frame |= leaves;
        }
        if leaves {
            self.selector.stop(now);
        }
        // A new wish is asked for at once, not after the interval of the old one.
        self.key_frame_asked = None;
        self.note_layer_distance(now);
        leaves
    }

    fn awaited_layer(&self) -> Option<u8> {
        let awaited = self.selector.awaited(self.live, &self.goal()?);
        let broken = self.flow.as_ref().is_some_and(|flow| flow.needs_key_frame);
        let broken = self.selector.current().filter(|_| broken);
        awaited.or(broken.map(|(layer, _)| layer))
    }

    fn key_frame_retry(&self) -> Duration {
        let rtt = self.feedback.rtt.unwrap_or(DEFAULT_RTT);
        (rtt * 2).clamp(KEY_FRAME_RETRY.0, KEY_FRAME_RETRY.1)
    }
}

/// What was sent, and under which numbers.
#[derive(Debug)]
struct Flow {
    seq: SeqMunger,
    ts: TsMunger,
    vp8: Option<Vp8Munger>,
    sent: SentLog,
    reports: ReportClock,
    /// Stream that was sent last, also while paused.
    last_source: Option<(u8, u8)>,
    refused_switches: u8,
    silent_until: Option<Instant>,
    /// When a higher layer was to be left.
    lowered: Option<Instant>,
    /// Only a key frame helps: all that was sent before it is worthless.
    needs_key_frame: bool,
    /// Numbers below this are not worth sending again.
    worthless_below: u64,
    key_frame_sent: Option<Instant>,
    packets: u64,
    octets: u64,
    nacks: NackCounters,
}

impl Flow {
    fn new(config: &DownTrackConfig) -> Box<Self> {
        Box::new(Self {
            seq: SeqMunger::new(config.first_seq),
            ts: TsMunger::new(config.clock_rate),
            vp8: (config.codec == Codec::Vp8).then(Vp8Munger::default),
            sent: SentLog::default(),
            reports: ReportClock::default(),
            last_source: None,
            refused_switches: 0,
            silent_until: None,
            lowered: None,
            needs_key_frame: false,
            worthless_below: 0,
            key_frame_sent: None,
            packets: 0,
            octets: 0,
            nacks: NackCounters::default(),
        })
    }

    /// Closes the number of a packet of the current stream that is not sent.
    fn skip(&mut self, packet: &MediaPacket) {
        self.seq.skip(packet.ext_seq);
        if let (Some(munger), Some(descriptor)) = (&mut self.vp8, &packet.info.vp8) {
            munger.map(descriptor, false);
        }
    }

    fn rewrite_payload(&mut self, packet: &MediaPacket) -> Result<PayloadRewrite, DropReason> {
        let (Some(munger), Some(descriptor)) = (&mut self.vp8, &packet.info.vp8) else {
            return Ok(PayloadRewrite::default());
        };
        let Some(indices) = munger.map(descriptor, true) else {
            // The rest of its picture was dropped, or is long gone.
            self.seq.skip(packet.ext_seq);
            return Err(DropReason::TemporalLayer);
        };
        let mut bytes = [0; PayloadRewrite::MAX_LEN];
        let len = descriptor.write(indices, &mut bytes);
        Ok(PayloadRewrite::new(bytes, len, descriptor.len()))
    }
}

#[cfg(test)]
#[path = "down_track_tests.rs"]
mod tests;
