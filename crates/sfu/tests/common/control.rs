//! What the engine does around estimator, allocator and pacer of one receiver.

use std::time::{Duration, Instant};

use sluice_rtp::ext::write_transport_cc;
use sluice_rtp::packet::{RtpHeaderWriter, RtpView};
use sluice_rtp::rtcp::TransportFeedback;
use sluice_sfu::allocator::{Allocator, AllocatorConfig, StreamDemand, StreamKind, StreamState};
use sluice_sfu::bwe::{BandwidthEstimator, BweConfig, PacketSent, SendSideEstimator};
use sluice_sfu::meter::{LayerRates, TrackMeter};
use sluice_sfu::pacer::{MAX_PADDING_ONLY, Paced, Pacer, Urgency};
use sluice_sfu::{DownTrack, LayerSet, MediaPacket, TrackHistory};
use sluice_sim::Link;
use sluice_sim::feedback_receiver::{Feedback, FeedbackReceiver};

use super::write_rtp;

/// Extension id of transport-wide sequence numbers.
const TWCC_ID: u8 = 5;
/// Time between looks at the rates of the layers.
const METER_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of a packet that the payload is not.
const OVERHEAD: usize = 20;

/// The streams of the allocator.
const CAMERA: u8 = 0;
const MICROPHONE: u8 = 1;

/// Congestion control towards one viewer of one camera, with or without a microphone.
pub struct Control {
    pub estimator: SendSideEstimator,
    pub allocator: Allocator<u8>,
    pub feedback: FeedbackReceiver,
    pub state: StreamState,
    pacer: Pacer<Vec<u8>>,
    meter: TrackMeter,
    sound_meter: Option<TrackMeter>,
    live: LayerSet,
    twcc_seq: u16,
    next_meter: Instant,
}

impl Control {
    pub fn new(allow_pause: bool, bwe: BweConfig, now: Instant) -> Self {
        Self {
            estimator: SendSideEstimator::new(bwe, now),
            allocator: Allocator::new(AllocatorConfig { allow_pause }),
            feedback: FeedbackReceiver::new(Feedback::TransportCc(TWCC_ID), now),
            state: StreamState::Active,
            pacer: Pacer::new(now, bwe.start_bps),
            meter: TrackMeter::new(false, now),
            sound_meter: None,
            live: LayerSet::NONE,
            twcc_seq: 65_500,
            next_meter: now,
        }
    }

    /// Counts a packet of the track, of any layer.
    pub fn measure(&mut self, now: Instant, packet: &MediaPacket) {
        self.meter.on_media(now, packet);
        self.live = packet.live_layers;
    }

    /// Counts a packet of the microphone.
    pub fn measure_sound(&mut self, now: Instant, packet: &MediaPacket) {
        let meter = self.sound_meter.get_or_insert_with(|| TrackMeter::new(false, now));
        meter.on_media(now, packet);
    }

    /// Packets that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.pacer.queued().0
    }

    pub fn on_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>) {
        self.estimator.on_transport_feedback(now, feedback);
    }

    /// Sends a packet, now or later.
    pub fn push(&mut self, now: Instant, packet: Vec<u8>, urgency: Urgency, link: &mut Link) {
        let size = packet.len() + 8;
        if let Some(packet) = self.pacer.push(now, packet, size, urgency) {
            self.send(now, &packet, link);
        }
    }

    /// Whether a packet of so many bytes of payload may be sent again.
    pub fn may_retransmit(&mut self, now: Instant, len: usize) -> bool {
        self.pacer.may_retransmit(now, len + OVERHEAD)
    }

    /// Does what is due.
    pub fn step(
        &mut self,
        now: Instant,
        down: &mut DownTrack,
        mut sound: Option<&mut DownTrack>,
        history: &TrackHistory,
        link: &mut Link,
    ) {
        self.estimator.handle_timeout(now);
        let estimate = self.estimator.estimate_bps();
        let usable = self.estimator.usable_bps();
        self.pacer.set_rates(now, estimate, usable, self.allocator.allocated_bps());
        if now >= self.next_meter {
            self.next_meter = now + METER_INTERVAL;
            let rates = self.meter.expected_rates(now, self.live);
            self.allocator.set_stream(CAMERA, demand(StreamKind::Camera, rates));
            if let Some(meter) = &mut self.sound_meter {
                let rates = meter.expected_rates(now, LayerSet::NONE);
                self.allocator.set_stream(MICROPHONE, demand(StreamKind::Audio, rates));
            }
        }
        self.allocator.set_estimate(Some((estimate, usable)));
        self.allocator.set_proven(self.estimator.proven_bps(now));
        let (state, pacer) = (&mut self.state, &mut self.pacer);
        self.allocator.allocate(now, |change| match (change.stream, &mut sound) {
            (MICROPHONE, Some(sound)) => _ = sound.set_allocation(now, change.allocation),
            _ => {
                if down.set_allocation(now, change.allocation) {
                    let ssrc = down.config().ssrc;
                    down.count_left(pacer.make_way(|packet| !is_of(packet, ssrc)));
                }
                *state = change.state.unwrap_or(*state);
            }
        });
        self.estimator.set_desired(now, self.allocator.desired_bps());
        if let Some(bps) = self.allocator.unproven_bps() {
            self.estimator.prove(now, bps);
        }
        while let Some(cluster) = self.estimator.poll_probe(now) {
            self.pacer.start_probe(now, cluster);
        }
        while let Some(paced) = self.pacer.poll(now) {
            match paced {
                Paced::Packet(packet) => self.send(now, &packet, link),
                Paced::Padding { bytes } => {
                    let packet = padding(now, down, history, bytes);
                    self.send(now, &packet, link);
                }
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.estimator.poll_timeout(),
            self.pacer.poll_timeout(),
            self.allocator.poll_timeout(),
            Some(self.next_meter),
            Some(self.feedback.poll_timeout()),
        ];
        timers.into_iter().flatten().min()
    }

    /// Puts the transport-wide number into a packet without extensions and sends it.
    fn send(&mut self, now: Instant, packet: &[u8], link: &mut Link) {
        let seq = self.twcc_seq;
        self.twcc_seq = seq.wrapping_add(1);
        let number = write_transport_cc(seq);
        let mut bytes = packet[..12].to_vec();
        bytes[0] |= 0x10;
        bytes.extend([0xBE, 0xDE, 0, 1, TWCC_ID << 4 | 1, number[0], number[1], 0]);
        bytes.extend_from_slice(&packet[12..]);
        let size = bytes.len();
        let probe = self.pacer.on_sent(now, size);
        self.estimator.on_packet_sent(now, PacketSent { transport_seq: seq, size, probe });
        link.send(now, bytes);
    }
}

/// Whether a packet belongs to the stream.
fn is_of(packet: &[u8], ssrc: u32) -> bool {
    RtpView::parse(packet).is_ok_and(|packet| packet.ssrc() == ssrc)
}

fn demand(kind: StreamKind, rates: LayerRates) -> StreamDemand {
    StreamDemand { kind, priority: 0, enabled: true, max_spatial: 2, max_temporal: 3, rates }
}

/// A packet of the RTX stream that the receiver does not need.
fn padding(now: Instant, down: &mut DownTrack, history: &TrackHistory, bytes: usize) -> Vec<u8> {
    if bytes > MAX_PADDING_ONLY
        && let Some(resend) = down.padding(now, history, bytes * 3 / 4)
    {
        return write_rtp(down, resend.packet, &resend.forwarded, resend.rtx_seq);
    }
    let (ssrc, payload_type) = down.config().rtx.expect("viewers have RTX");
    let header = RtpHeaderWriter {
        marker: false,
        payload_type,
        sequence_number: down.padding_seq().expect("viewers have RTX"),
        timestamp: 0,
        ssrc,
        padding: true,
    };
    let bytes = bytes.min(MAX_PADDING_ONLY);
    let mut packet = vec![0; 12 + bytes];
    header.write(&[], &mut packet).expect("twelve bytes");
    *packet.last_mut().expect("not empty") = bytes as u8;
    packet
}
