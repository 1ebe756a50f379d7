use sluice_rtp::NtpTime;

use super::*;
use crate::test_util::{RtpBytes, epoch};

const MEDIA_PT: u8 = 96;
const RTX_PT: u8 = 97;
const DD: u8 = 12;

/// VP8 payloads: descriptor of one byte, then the frame tag.
const KEY: &[u8] = &[0x10, 0x00, 1, 2, 3];
const DELTA: &[u8] = &[0x10, 0x01, 1, 2, 3];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config() -> TrackReceiverConfig {
    TrackReceiverConfig {
        kind: MediaKind::Video,
        payload_types: vec![ReceivePayloadType {
            pt: MEDIA_PT,
            codec: Codec::Vp8,
            clock_rate: 90_000,
            rtx_pt: Some(RTX_PT),
        }],
        extensions: [(ExtensionKind::DependencyDescriptor, DD)].into_iter().collect(),
        nack: true,
        encrypted: false,
        screen_share: false,
    }
}

struct Fixture {
    track: TrackReceiver,
    pool: BodyPool,
    t0: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self { track: TrackReceiver::new(config()), pool: BodyPool::new(64), t0: epoch() }
    }

    /// Delivers a packet on the SSRC `100 + layer` or, as RTX, `200 + layer`.
    fn put(
        &mut self,
        at: u64,
        layer: u8,
        rtx: bool,
        seq: u16,
        payload: &[u8],
    ) -> Result<MediaPacket, DropReason> {
        let (pt, base) = if rtx { (RTX_PT, 200) } else { (MEDIA_PT, 100) };
        let header =
            RtpBytes { pt, seq, ssrc: base + u32::from(layer), timestamp: 7, marker: true };
        self.put_bytes(at, layer, rtx, &header.build(&[], payload))
    }

    fn put_bytes(
        &mut self,
        at: u64,
        layer: u8,
        rtx: bool,
        bytes: &[u8],
    ) -> Result<MediaPacket, DropReason> {
        let view = RtpView::parse(bytes).expect("the test wrote a valid packet");
        let binding = StreamBinding { section: 0, layer, rtx };
        self.track.on_rtp(self.t0 + ms(at), binding, &view, &mut self.pool)
    }

    fn nacks(&mut self, at: u64) -> Vec<(u32, Vec<u16>)> {
        let mut out = Vec::new();
        self.track.poll_nacks(self.t0 + ms(at), |ssrc, seqs| out.push((ssrc, seqs.to_vec())));
        out
    }

    fn plis(&mut self, at: u64) -> Vec<u32> {
        let mut out = Vec::new();
        self.track.poll_key_frame_requests(self.t0 + ms(at), |ssrc| out.push(ssrc));
        out
    }
}

#[test]
fn a_packet_carries_what_receivers_need() {
    let mut f = Fixture::new();
    let packet = f.put(5, 1, false, 40_000, KEY).expect("taken");
    assert_eq!(packet.payload(), KEY);
    assert_eq!(packet.ext_seq as u16, 40_000);
    assert_eq!((packet.stream, packet.timestamp, packet.marker), (1, 7, true));
    assert!(packet.starts_key_frame() && !packet.recovered);
    assert_eq!(packet.live_layers, LayerSet::single(1));
    assert_eq!(packet.arrival, f.t0 + ms(5));
    let started = LayerStarted { layer: 1, ssrc: 101, codec: Codec::Vp8 };
    assert_eq!(f.track.poll_layer_started(), Some(started));
    assert_eq!(f.track.poll_layer_started(), None);
}

#[test]
fn rtx_goes_back_into_the_original_sequence() {
    let mut f = Fixture::new();
    f.put(0, 0, false, 65_535, KEY).expect("taken");
    f.put(1, 0, false, 1, DELTA).expect("taken");
    let mut payload = vec![0, 0];
    payload.extend_from_slice(DELTA);
    let packet = f.put(30, 0, true, 777, &payload).expect("recovered");
    assert_eq!(packet.ext_seq, (1 << 16) + 65_536);
    assert_eq!(packet.payload(), DELTA);
    assert_eq!(packet.newer, 1);
    assert!(packet.recovered);
    assert_eq!(f.put(31, 0, true, 778, &payload).err(), Some(DropReason::Duplicate));
    assert_eq!(f.track.dropped().get(DropReason::Duplicate), 1);
}

#[test]
fn probes_and_broken_rtx_are_dropped() {
    let mut f = Fixture::new();
    assert_eq!(f.put(0, 0, true, 1, &[0, 1, 2]).err(), Some(DropReason::RtxInvalid));
    f.put(0, 0, false, 1, KEY).expect("taken");
    assert_eq!(f.put(0, 0, true, 1, &[]).err(), Some(DropReason::RtxProbe));
    assert_eq!(f.put(0, 0, true, 2, &[1]).err(), Some(DropReason::RtxInvalid));
}

#[test]
fn unknown_payload_types_are_dropped() {
    let mut f = Fixture::new();
    let bytes = RtpBytes { pt: 50, ..RtpBytes::default() }.build(&[], KEY);
    let result = f.put_bytes(0, 0, false, &bytes);
    assert_eq!(result.err(), Some(DropReason::UnknownPayloadType));
}

#[test]
fn padding_is_passed_on_empty_and_does_not_make_a_layer_live() {
    let mut f = Fixture::new();
    let packet = f.put(0, 2, false, 1, &[]).expect("passed on");
    assert!(packet.is_padding());
    assert!(packet.live_layers.is_empty());
    assert_eq!(f.track.poll_layer_started(), None);
}

#[test]
fn missing_packets_are_asked_for_per_layer() {
    let mut f = Fixture::new();
    for layer in [0, 2] {
        f.put(0, layer, false, 10, KEY).expect("taken");
        f.put(0, layer, false, 12 + u16::from(layer), DELTA).expect("taken");
    }
    assert_eq!(f.track.poll_timeout(), Some(f.t0 + ms(20)));
    assert!(f.nacks(19).is_empty());
    assert_eq!(f.nacks(20), [(100, vec![11]), (102, vec![11, 12, 13])]);
    assert!(f.nacks(21).is_empty());
}

#[test]
fn without_nack_nothing_is_asked_for() {
    let mut f = Fixture::new();
    f.track.set_config(TrackReceiverConfig { nack: false, ..config() });
    f.put(0, 0, false, 10, KEY).expect("taken");
    f.put(0, 0, false, 15, DELTA).expect("taken");
    assert!(f.nacks(1_000).is_empty());
}

#[test]
fn key_frame_requests_are_throttled_per_layer_and_served_by_any_key_frame() {
    let mut f = Fixture::new();
    f.put(0, 0, false, 1, DELTA).expect("taken");
    f.put(0, 2, false, 1, DELTA).expect("taken");
    for _ in 0..500 {
        f.track.request_key_frame(0);
        f.track.request_key_frame(2);
    }
    assert_eq!(f.plis(1), [100, 102]);
    f.track.request_key_frame(0);
    f.track.request_key_frame(2);
    assert!(f.plis(400).is_empty());
    assert_eq!(f.track.poll_timeout().map(|at| at - f.t0), Some(ms(500)));
    f.put(450, 2, false, 2, KEY).expect("taken");
    assert_eq!(f.plis(501), [100]);
    assert!(f.plis(1_100).is_empty());
}

#[test]
fn a_key_frame_of_a_layer_never_sent_is_asked_of_the_nearest() {
    let mut f = Fixture::new();
    f.track.request_key_frame(2);
    assert!(f.plis(0).is_empty());
    f.put(0, 0, false, 1, DELTA).expect("taken");
    f.track.request_key_frame(2);
    assert_eq!(f.plis(1), [100]);
}

#[test]
fn sender_reports_name_their_layer_and_come_back_in_report_blocks() {
    let mut f = Fixture::new();
    f.put(0, 1, false, 1, KEY).expect("taken");
    let ntp = NtpTime::from_bits(0x0000_1234_5678_0000);
    let report = SenderInfo { ssrc: 101, ntp, rtp_timestamp: 99, packet_count: 1, octet_count: 1 };
    let source = f.track.on_sender_report(f.t0, &report).expect("of a layer");
    assert_eq!((source.stream, source.timestamp, source.ntp), (1, 99, ntp));
    let foreign = SenderInfo { ssrc: 5, ..report };
    assert!(f.track.on_sender_report(f.t0, &foreign).is_none());
    let mut blocks = Vec::new();
    f.track.report_blocks(f.t0 + ms(1_000), &mut blocks);
    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].ssrc, blocks[0].last_sr), (101, 0x1234_5678));
    assert_eq!(blocks[0].delay_since_last_sr, 1 << 16);
}

#[test]
fn a_new_ssrc_continues_the_layer_in_a_new_epoch() {
    let mut f = Fixture::new();
    let before = f.put(0, 0, false, 500, KEY).expect("taken");
    let bytes = RtpBytes { ssrc: 900, seq: 20, ..RtpBytes::default() }.build(&[], KEY);
    let after = f.put_bytes(10, 0, false, &bytes).expect("taken");
    assert!(after.ext_seq > before.ext_seq);
    assert_eq!((before.epoch, after.epoch), (0, 1));
}

#[test]
fn layers_die_and_are_told() {
    let mut f = Fixture::new();
    f.put(0, 0, false, 1, KEY).expect("taken");
    f.put(0, 2, false, 1, KEY).expect("taken");
    for i in 1..40u16 {
        f.put(u64::from(i) * 50, 0, false, 1 + i, DELTA).expect("taken");
    }
    assert!(!f.track.live_layers().contains(2), "no packet in over a second");
    assert!(f.track.live_layers().contains(0));
    assert_eq!(f.track.handle_timeout(f.t0 + ms(9_000)), Some(LayerSet::NONE));
    assert_eq!(f.track.handle_timeout(f.t0 + ms(9_001)), None);
    f.track.expect_layers(2);
    let packet = f.put(9_100, 2, false, 2, DELTA).expect("taken");
    assert!(packet.live_layers.contains(2));
}

#[test]
fn the_dependency_descriptor_says_where_frames_begin() {
    let mut f = Fixture::new();
    let header = RtpBytes { ssrc: 100, ..RtpBytes::default() };
    // Start of frame, template structure present.
    let key = [0x80, 0, 1, 0x80, 0];
    let packet = f.put_bytes(0, 0, false, &header.build(&[(DD, &key)], DELTA)).expect("taken");
    assert!(packet.starts_key_frame() && !packet.info.end_of_frame);
    let range = packet.dependency_descriptor.expect("present");
    assert_eq!(packet.slice(range), key);
    let next = RtpBytes { seq: 2, ..header };
    let end = [0x40, 0, 1];
    let packet = f.put_bytes(0, 0, false, &next.build(&[(DD, &end)], DELTA)).expect("taken");
    assert!(!packet.info.start_of_frame && packet.info.end_of_frame);
}

#[test]
fn an_only_layer_is_offered_however_thin_it_is() {
    let mut f = Fixture::new();
    for i in 0..40 {
        let packet = f.put(i * 400, 2, false, i as u16, DELTA).expect("taken");
        assert_eq!(packet.live_layers, LayerSet::single(2));
    }
}

/// The payload of an encrypted scalable stream is not looked at: everything comes from the
/// descriptor.
#[test]
fn an_encrypted_scalable_stream_is_understood_by_its_descriptor_alone() {
    use crate::svc::encoder::{Encoder, Mode};
    for codec in [Codec::Vp9, Codec::Av1] {
        let mut f = Fixture::new();
        let mut encrypted = TrackReceiverConfig { encrypted: true, ..config() };
        encrypted.payload_types[0].codec = codec;
        f.track.set_config(encrypted);
        let mut encoder = Encoder::new(Mode { spatial: 2, temporal: 1, key: true }, 9);
        // As a VP9 payload: a key frame of the highest layers.
        let payload = [0x2C, 0xFF, 0xFF, 0xFF];
        let mut seen = Vec::new();
        for (index, wire) in (0..2).flat_map(|n| encoder.picture(n == 0, 1)).enumerate() {
            let header = RtpBytes { seq: index as u16, ..RtpBytes::default() };
            let bytes = header.build(&[(DD, wire.descriptor())], &payload);
            let packet = f.put_bytes(index as u64, 0, false, &bytes).expect("taken");
            assert_eq!(packet.info.spatial_id, None);
            let described = packet.described.as_ref().expect("the structure came first");
            seen.push((described.frame().spatial_id, packet.starts_key_frame()));
        }
        assert_eq!(seen, [(0, true), (1, false), (0, false), (1, false)], "{codec}");
    }
}
