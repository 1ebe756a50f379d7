//! A microphone beside the camera, and what a viewer hears of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::ExtensionKind;
use sluice_rtp::packet::RtpView;
use sluice_sfu::pacer::Urgency;
use sluice_sfu::{
    BodyPool, DownTrack, DownTrackConfig, DownTrackSettings, LayerSet, MediaPacket,
    ReceivePayloadType, StreamBinding, TrackReceiver, TrackReceiverConfig,
};
use sluice_sim::Link;
use sluice_sim::audio_receiver::AudioReceiver;
use sluice_sim::opus::{OpusConfig, OpusPublisher};
use sluice_sim::outgoing::StreamIds;

use super::{Sent, Viewer, write_rtp};

const SSRC: u32 = 50;
const PT: u8 = 111;
const LEVEL_ID: u8 = 6;
/// First timestamp of the microphone, shortly before the wrap.
pub const FIRST_TIMESTAMP: u32 = u32::MAX - 5 * 48_000;

pub fn is_of_microphone(packet: &[u8]) -> bool {
    packet.get(8..12) == Some(&SSRC.to_be_bytes())
}

/// A microphone and the server's state for it.
pub struct Microphone {
    pub publisher: OpusPublisher,
    pub track: TrackReceiver,
    pool: BodyPool,
}

impl Microphone {
    pub fn new(now: Instant) -> Self {
        let config = OpusConfig {
            ids: StreamIds { ssrc: SSRC, pt: PT, rtx: None },
            mid: (4, "0".to_owned()),
            audio_level_id: LEVEL_ID,
            frame_bytes: 80,
            first_seq: 65_300,
            first_timestamp: FIRST_TIMESTAMP,
        };
        let payload_type =
            ReceivePayloadType { pt: PT, codec: Codec::Opus, clock_rate: 48_000, rtx_pt: None };
        let track = TrackReceiver::new(TrackReceiverConfig {
            kind: MediaKind::Audio,
            payload_types: vec![payload_type],
            extensions: [(ExtensionKind::AudioLevel, LEVEL_ID)].into_iter().collect(),
            nack: false,
            encrypted: false,
            screen_share: false,
        });
        Self { publisher: OpusPublisher::new(config, now), track, pool: BodyPool::new(64) }
    }

    /// Takes a packet of the publisher.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) -> Option<MediaPacket> {
        let view = RtpView::parse(bytes).expect("the simulated microphone writes RTP");
        let binding = StreamBinding { section: 0, layer: 0, rtx: false };
        self.track.on_rtp(now, binding, &view, &mut self.pool).ok()
    }
}

/// What a viewer hears.
pub struct Listener {
    pub down: DownTrack,
    pub receiver: AudioReceiver,
    /// Packets that were sent, and those among them that the link dropped.
    pub sent: u64,
    pub dropped: u64,
    /// Packets that the server had and did not send at once.
    pub withheld: u64,
    /// Packets that left while video waited for its turn.
    pub overtaking: u64,
    /// When the packets left that have not arrived, by number.
    underway: HashMap<u16, Instant>,
    /// For each that arrived: when it left, and how long it took.
    pub delays: Vec<(Instant, Duration)>,
}

impl Listener {
    pub fn new(ssrc: u32, now: Instant) -> Self {
        let config = DownTrackConfig {
            kind: MediaKind::Audio,
            codec: Codec::Opus,
            clock_rate: 48_000,
            ssrc,
            pt: PT,
            rtx: None,
            encrypted: false,
            first_seq: 65_400,
            first_rtx_seq: 0,
            live_layers: LayerSet::NONE,
        };
        Self {
            down: DownTrack::new(config, DownTrackSettings::default(), now),
            receiver: AudioReceiver::default(),
            sent: 0,
            dropped: 0,
            withheld: 0,
            overtaking: 0,
            underway: HashMap::new(),
            delays: Vec::new(),
        }
    }

    pub fn is_for(&self, packet: &[u8]) -> bool {
        packet.get(8..12) == Some(&self.down.config().ssrc.to_be_bytes())
    }

    pub fn on_rtp(&mut self, now: Instant, packet: &[u8]) {
        let number = u16::from_be_bytes([packet[2], packet[3]]);
        if let Some(left) = self.underway.remove(&number) {
            self.delays.push((left, now - left));
        }
        self.receiver.on_rtp(packet);
    }

    /// Packets that were sent, not dropped by the link, and have not come.
    pub fn missing(&self) -> u64 {
        self.sent - self.dropped - self.receiver.frames() as u64
    }

    /// The longest time that a packet took which left at or after `from`.
    pub fn longest_delay(&self, from: Instant) -> Duration {
        let delays = self.delays.iter().filter(|(left, _)| *left >= from);
        delays.map(|(_, delay)| *delay).max().unwrap_or_default()
    }
}

impl Viewer {
    /// A packet of the microphone came.
    pub fn hear(&mut self, now: Instant, at: Duration, packet: &MediaPacket) {
        let Some(listener) = &mut self.listener else { return };
        if let Some(control) = &mut self.control {
            control.measure_sound(now, packet);
        }
        let Some(forwarded) = listener.down.forward(now, packet) else {
            listener.withheld += 1;
            return;
        };
        let bytes = write_rtp(&listener.down, packet, &forwarded, None);
        let before = (offered(&self.link), dropped(&self.link));
        let waiting = self.control.as_ref().is_some_and(|control| control.waiting() > 0);
        self.send(now, bytes, Urgency::Immediate);
        let after = (offered(&self.link), dropped(&self.link));
        let Some(listener) = &mut self.listener else { return };
        listener.sent += 1;
        listener.withheld += u64::from(after.0 == before.0);
        listener.overtaking += u64::from(waiting);
        if after.1 > before.1 {
            listener.dropped += 1;
        } else {
            listener.underway.insert(forwarded.seq, now);
        }
        if let Some(record) = &mut self.record {
            let (stream, source) = (packet.stream, packet.timestamp);
            record.audio.push(Sent { at, stream, source, target: forwarded.timestamp });
        }
    }

    /// Sends the sender reports that are due.
    pub fn report(&mut self, now: Instant, at: Duration) {
        let video = self.down.sender_report(now);
        let audio = self.listener.as_mut().and_then(|listener| listener.down.sender_report(now));
        if let Some(record) = &mut self.record {
            record.video_reports.extend(video.map(|info| (at, info)));
            record.audio_reports.extend(audio.map(|info| (at, info)));
        }
    }
}

fn offered(link: &Link) -> u64 {
    link.stats().offered
}

fn dropped(link: &Link) -> u64 {
    let stats = link.stats();
    stats.lost + stats.overflowed + stats.too_large
}
