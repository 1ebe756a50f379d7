//! The receiving side of one published track: from decrypted RTP packets of its layers to
//! [`MediaPacket`]s for the receivers, and back to the publisher NACKs, report blocks and
//! key-frame requests.
//!
//! It lives on the publisher's worker. The packet path, in order: payload type, layer, RTX
//! de-encapsulation, placement (duplicates, gaps, restarts), body, payload.

use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, MediaKind, PayloadInfo};
use sluice_rtp::ext::{AudioLevel, ExtensionKind, ExtensionMap, FrameMarking};
use sluice_rtp::packet::RtpView;
use sluice_rtp::rtcp::{ReportBlock, SenderInfo};
use sluice_rtp::rtx;

use crate::binder::StreamBinding;
use crate::body::BodyPool;
use crate::descriptor::StructureTracker;
use crate::drop_reason::{DropCounters, DropReason};
use crate::key_frame::KeyFrameThrottle;
use crate::liveness::LayerLiveness;
use crate::packet::{ByteRange, LayerSet, MAX_LAYERS, MediaPacket};
use crate::sender_report::SourceReport;
use crate::stream::{Placement, ReceiveStream};

mod layers;
mod quality;

/// A payload type that the publisher may use for the track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivePayloadType {
    /// RTP payload type.
    pub pt: u8,
    /// Codec.
    pub codec: Codec,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// Payload type of the RTX stream that repairs it.
    pub rtx_pt: Option<u8>,
}

/// What was negotiated for a published track.
#[derive(Debug, Clone)]
pub struct TrackReceiverConfig {
    /// Audio or video.
    pub kind: MediaKind,
    /// Payload types of media.
    pub payload_types: Vec<ReceivePayloadType>,
    /// Header extension ids.
    pub extensions: ExtensionMap,
    /// Whether the publisher answers generic NACK.
    pub nack: bool,
    /// Whether the payload is end-to-end encrypted.
    pub encrypted: bool,
    /// Whether the source is a screen share: it may stand still for seconds.
    pub screen_share: bool,
}

/// The first packet of a layer arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerStarted {
    /// Layer, 0 = lowest.
    pub layer: u8,
    /// SSRC of its media.
    pub ssrc: u32,
    /// Codec of the packet.
    pub codec: Codec,
}

#[derive(Debug)]
struct Layer {
    stream: Option<ReceiveStream>,
    liveness: LayerLiveness,
    key_frames: KeyFrameThrottle,
    structures: StructureTracker,
    started: Started,
}

/// Whether a layer's first packet has arrived, and has been told.
#[derive(Debug, Clone, Copy)]
enum Started {
    No,
    Untold(Codec),
    Told,
}

/// Receiving state of one published track.
#[derive(Debug)]
pub struct TrackReceiver {
    config: TrackReceiverConfig,
    layers: [Layer; MAX_LAYERS],
    live: LayerSet,
    rtt: Option<Duration>,
    scratch: Vec<u16>,
    quality: quality::SourceQuality,
    dropped: DropCounters,
}

impl TrackReceiver {
    /// A track of which nothing has arrived.
    pub fn new(config: TrackReceiverConfig) -> Self {
        let layers = std::array::from_fn(|layer| Layer {
            stream: None,
            liveness: LayerLiveness::new(layer as u8, config.screen_share),
            key_frames: KeyFrameThrottle::default(),
            structures: StructureTracker::default(),
            started: Started::No,
        });
        Self {
            config,
            layers,
            live: LayerSet::NONE,
            rtt: None,
            scratch: Vec::new(),
            quality: quality::SourceQuality::default(),
            dropped: DropCounters::default(),
        }
    }

    /// Sets the shortest time between two key-frame requests for each layer, lowest first.
    #[must_use]
    pub fn with_key_frame_intervals(mut self, intervals: [Duration; MAX_LAYERS]) -> Self {
        for (layer, interval) in self.layers.iter_mut().zip(intervals) {
            layer.key_frames = KeyFrameThrottle::new(interval);
        }
        self
    }

    /// Replaces what was negotiated; streams that are running keep their state.
    pub fn set_config(&mut self, config: TrackReceiverConfig) {
        self.config = config;
    }

    /// What was negotiated.
    pub fn config(&self) -> &TrackReceiverConfig {
        &self.config
    }

    /// Takes a decrypted packet that the binder placed in this track.
    ///
    /// # Errors
    /// Why the packet goes no further; it has been counted.
    pub fn on_rtp(
        &mut self,
        now: Instant,
        binding: StreamBinding,
        view: &RtpView<'_>,
        pool: &mut BodyPool,
    ) -> Result<MediaPacket, DropReason> {
        let result = if binding.rtx {
            self.on_rtx(now, binding.layer, view, pool)
        } else {
            self.on_media(now, binding.layer, view, pool)
        };
        result.inspect_err(|reason| self.dropped.count(*reason))
    }

    /// Notes a sender report of one of the track's SSRCs. The answer goes to every receiver of the
    /// track; `None` if the SSRC is not one of its media streams.
    pub fn on_sender_report(&mut self, now: Instant, report: &SenderInfo) -> Option<SourceReport> {
        let (layer, stream) = self.streams_mut().find(|(_, s)| s.ssrc() == report.ssrc)?;
        stream.on_sender_report(now, report.ntp);
        let epoch = stream.epoch();
        self.quality.reported = Some(now);
        Some(SourceReport {
            stream: layer,
            epoch,
            ntp: report.ntp,
            timestamp: report.rtp_timestamp,
            arrival: now,
        })
    }

    /// Sets the round-trip time to the publisher, as RTCP measured it.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = Some(rtt);
        self.streams_mut().for_each(|(_, stream)| stream.set_rtt(rtt));
    }

    /// A receiver needs a key frame of a layer, or of the nearest that the publisher has sent.
    pub fn request_key_frame(&mut self, layer: u8) {
        if self.config.kind != MediaKind::Video {
            return;
        }
        let wanted = usize::from(layer).min(MAX_LAYERS - 1);
        let exists = |layer: &usize| self.layers[*layer].stream.is_some();
        let below = (0..=wanted).rev().find(exists);
        let nearest = below.or_else(|| (wanted..MAX_LAYERS).find(exists));
        self.layers[nearest.unwrap_or(wanted)].key_frames.request();
    }

    /// The publisher was asked (dynacast) for the layers up to `max`: each is live again with its
    /// first packet, without proving itself.
    pub fn expect_layers(&mut self, max: u8) {
        for layer in self.layers.iter_mut().take(usize::from(max) + 1) {
            if !layer.liveness.is_live() {
                layer.liveness.reset();
            }
        }
    }

    /// The publisher muted or unmuted: liveness starts anew with the next packet.
    pub fn set_muted(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.liveness.reset());
        self.live = LayerSet::NONE;
    }

    /// A layer whose first packet has arrived since the last call.
    pub fn poll_layer_started(&mut self) -> Option<LayerStarted> {
        self.layers.iter_mut().enumerate().find_map(|(index, layer)| {
            let Started::Untold(codec) = layer.started else { return None };
            layer.started = Started::Told;
            let ssrc = layer.stream.as_ref()?.ssrc();
            Some(LayerStarted { layer: index as u8, ssrc, codec })
        })
    }

    /// Calls `send` with `(media SSRC, sequence numbers ascending)` for each NACK that is due.
    pub fn poll_nacks(&mut self, now: Instant, mut send: impl FnMut(u32, &[u16])) {
        for stream in self.layers.iter_mut().filter_map(|l| l.stream.as_mut()) {
            self.scratch.clear();
            stream.poll_nack(now, &mut self.scratch);
            if !self.scratch.is_empty() {
                send(stream.ssrc(), &self.scratch);
            }
        }
    }

    /// Calls `send` with the media SSRC of each layer that must be asked for a key frame now.
    pub fn poll_key_frame_requests(&mut self, now: Instant, mut send: impl FnMut(u32)) {
        for layer in &mut self.layers {
            // Before the first packet there is no SSRC to name; the request waits.
            if let Some(stream) = &layer.stream
                && layer.key_frames.poll(now)
            {
                send(stream.ssrc());
            }
        }
    }

    /// Appends the report blocks since the last call, one per layer; due about every second.
    pub fn report_blocks(&mut self, now: Instant, out: &mut Vec<ReportBlock>) {
        out.extend(self.streams_mut().filter_map(|(_, stream)| stream.report(now)));
    }

    /// Advances the liveness of layers. Returns the live layers if they changed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<LayerSet> {
        let before = self.live;
        self.update_live(now);
        (self.live != before).then_some(self.live)
    }

    /// When one of the polls or [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_layer = |layer: &Layer| {
            [
                layer.stream.as_ref().and_then(ReceiveStream::nack_deadline),
                layer.stream.as_ref().and_then(|_| layer.key_frames.deadline()),
                layer.liveness.deadline(),
            ]
        };
        self.layers.iter().flat_map(of_layer).flatten().min()
    }

    /// Layers that the publisher is sending.
    pub fn live_layers(&self) -> LayerSet {
        self.live
    }

    /// The stream of a layer, for statistics.
    pub fn stream(&self, layer: u8) -> Option<&ReceiveStream> {
        self.layers.get(usize::from(layer))?.stream.as_ref()
    }

    /// Packets that went no further.
    pub fn dropped(&self) -> &DropCounters {
        &self.dropped
    }

    fn on_media(
        &mut self,
        now: Instant,
        layer: u8,
        view: &RtpView<'_>,
        pool: &mut BodyPool,
    ) -> Result<MediaPacket, DropReason> {
        let pt = view.payload_type();
        let pt = self.config.payload_types.iter().find(|p| p.pt == pt);
        let pt = *pt.ok_or(DropReason::UnknownPayloadType)?;
        // RED repairs itself (LiveKit asks for no retransmission either).
        let (nack, rtt) = (self.config.nack && pt.codec != Codec::Red, self.rtt);
        let state = self.layer_mut(layer)?;
        let stream = state.stream.get_or_insert_with(|| {
            let mut stream = ReceiveStream::new(view.ssrc(), pt.clock_rate, nack);
            if let Some(rtt) = rtt {
                stream.set_rtt(rtt);
            }
            stream
        });
        if stream.ssrc() != view.ssrc() {
            stream.replace_ssrc(view.ssrc(), pt.clock_rate);
        }
        let len = view.as_bytes().len();
        let placement = stream.on_packet(now, view.sequence_number(), view.timestamp(), len)?;
        let source = Source { layer, epoch: stream.epoch(), placement, recovered: false };
        self.finish(now, source, pt.codec, view, view.payload_range().into(), pool)
    }

    fn on_rtx(
        &mut self,
        now: Instant,
        layer: u8,
        view: &RtpView<'_>,
        pool: &mut BodyPool,
    ) -> Result<MediaPacket, DropReason> {
        let pt = Some(view.payload_type());
        let pt = self.config.payload_types.iter().find(|p| p.rtx_pt == pt);
        let codec = pt.ok_or(DropReason::UnknownPayloadType)?.codec;
        let Some((original_seq, payload)) = rtx::split(view.payload()) else {
            let empty = view.payload().is_empty();
            return Err(if empty { DropReason::RtxProbe } else { DropReason::RtxInvalid });
        };
        let stream = self.layer_mut(layer)?.stream.as_mut().ok_or(DropReason::RtxInvalid)?;
        let len = view.as_bytes().len();
        let placement = stream.on_retransmission(now, original_seq, len)?;
        let source = Source { layer, epoch: stream.epoch(), placement, recovered: true };
        let range = view.payload_range();
        let payload = ByteRange::from(range.end - payload.len()..range.end);
        self.finish(now, source, codec, view, payload, pool)
    }

    /// Makes the packet for the receivers.
    fn finish(
        &mut self,
        now: Instant,
        source: Source,
        codec: Codec,
        view: &RtpView<'_>,
        payload: ByteRange,
        pool: &mut BodyPool,
    ) -> Result<MediaPacket, DropReason> {
        let Source { layer, epoch, placement, recovered } = source;
        let bytes = view.as_bytes();
        let extensions = self.config.extensions;
        let extension = |kind| {
            let range = view.extension_range(extensions.id(kind)?)?;
            Some(ByteRange::from(range))
        };
        let dependency_descriptor = extension(ExtensionKind::DependencyDescriptor);
        // The frame headers of AV1 lie in the encrypted part; only a descriptor tells.
        let opaque = self.config.encrypted
            && (codec == Codec::Av1 || codec.is_svc() && dependency_descriptor.is_some());
        let mut info = match payload.len {
            0 => PayloadInfo::default(),
            _ if opaque => PayloadInfo::default(),
            _ => PayloadInfo::inspect(codec, &bytes[payload.as_range()], view.marker()),
        };
        let mut described = None;
        if let Some(range) = dependency_descriptor {
            let data = &bytes[range.as_range()];
            layers::by_descriptor(&mut info, codec, data);
            if payload.len > 0 {
                let structures = &mut self.layer_mut(layer)?.structures;
                if placement.restarted {
                    structures.reset();
                }
                described = structures.parse(data);
                if !codec.is_svc()
                    && let Some(described) = described.take()
                {
                    layers::temporal_by_descriptor(&mut info, &described);
                }
            }
        } else if payload.len > 0
            && let Some(range) = extension(ExtensionKind::FrameMarking)
            && let Some(marking) = FrameMarking::parse(&bytes[range.as_range()])
        {
            layers::by_frame_marking(&mut info, codec, marking);
        }
        let abs_capture_time = extension(ExtensionKind::AbsCaptureTime);
        let audio_level = extension(ExtensionKind::AudioLevel)
            .and_then(|range| AudioLevel::parse(&bytes[range.as_range()]));
        if payload.len > 0 {
            let state = self.layer_mut(layer)?;
            state.liveness.on_packet(now);
            if matches!(state.started, Started::No) {
                state.started = Started::Untold(codec);
            }
            if info.key_frame && info.start_of_frame {
                state.key_frames.on_key_frame();
            }
            self.update_live(now);
        }
        // A publisher's only layer is never left out for being thin.
        let live_layers = match self.live.is_empty() && payload.len > 0 {
            true => LayerSet::single(layer),
            false => self.live,
        };
        Ok(MediaPacket {
            body: pool.store(bytes),
            ext_seq: placement.ext_seq,
            arrival: now,
            timestamp: view.timestamp(),
            codec,
            stream: layer,
            epoch,
            newer: placement.newer,
            marker: view.marker(),
            recovered,
            payload,
            info,
            dependency_descriptor,
            described,
            abs_capture_time,
            audio_level,
            live_layers,
        })
    }

    fn update_live(&mut self, now: Instant) {
        self.layers.iter_mut().for_each(|layer| layer.liveness.on_time(now));
        self.live = (0..MAX_LAYERS as u8)
            .filter(|layer| self.layers[usize::from(*layer)].liveness.is_live())
            .collect();
    }

    fn layer_mut(&mut self, layer: u8) -> Result<&mut Layer, DropReason> {
        self.layers.get_mut(usize::from(layer)).ok_or(DropReason::UnknownSsrc)
    }

    fn streams_mut(&mut self) -> impl Iterator<Item = (u8, &mut ReceiveStream)> {
        let streams = self.layers.iter_mut().enumerate();
        streams.filter_map(|(index, layer)| Some((index as u8, layer.stream.as_mut()?)))
    }
}

/// Where a packet came from and where it was placed.
#[derive(Debug, Clone, Copy)]
struct Source {
    layer: u8,
    epoch: u8,
    placement: Placement,
    recovered: bool,
}

#[cfg(test)]
#[path = "track_receiver_tests.rs"]
mod tests;
