//! Temporal layers of each codec, told by whatever its streams carry: a receiver that wants the
//! lowest gets a stream of whole frames without gaps, and the others back at a frame where that works.

use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::{ExtensionKind, FrameMarking};
use sluice_rtp::packet::RtpView;

use crate::binder::StreamBinding;
use crate::body::BodyPool;
use crate::down_track::{DownTrack, DownTrackConfig, DownTrackSettings, Forwarded};
use crate::packet::LayerSet;
use crate::svc::encoder::{Encoder, Mode};
use crate::test_util::{RtpBytes, epoch};
use crate::track_receiver::{ReceivePayloadType, TrackReceiver, TrackReceiverConfig};

const DESCRIPTOR: u8 = 12;
const MARKING: u8 = 6;
const PT: u8 = 100;

/// A publisher of one stream with three temporal layers, and a receiver.
struct Call {
    track: TrackReceiver,
    pool: BodyPool,
    down: DownTrack,
    now: Instant,
    seq: u16,
}

impl Call {
    fn new(codec: Codec) -> Self {
        let now = epoch();
        let extensions = [
            (ExtensionKind::DependencyDescriptor, DESCRIPTOR),
            (ExtensionKind::FrameMarking, MARKING),
        ];
        let track = TrackReceiver::new(TrackReceiverConfig {
            kind: MediaKind::Video,
            payload_types: vec![ReceivePayloadType {
                pt: PT,
                codec,
                clock_rate: 90_000,
                rtx_pt: None,
            }],
            extensions: extensions.into_iter().collect(),
            nack: true,
            encrypted: false,
            screen_share: false,
        });
        let config = DownTrackConfig {
            kind: MediaKind::Video,
            codec,
            clock_rate: 90_000,
            ssrc: 1,
            pt: PT,
            rtx: None,
            encrypted: false,
            first_seq: 0,
            first_rtx_seq: 0,
            live_layers: LayerSet::single(0),
        };
        let down = DownTrack::new(config, DownTrackSettings::default(), now);
        Self { track, pool: BodyPool::new(64), down, now, seq: u16::MAX - 5 }
    }

    fn want_temporal(&mut self, max_temporal: u8) {
        let settings = DownTrackSettings { max_temporal, ..DownTrackSettings::default() };
        self.down.set_settings(self.now, settings);
    }

    /// Sends a frame of one packet; returns how the receiver gets it.
    fn send(&mut self, extension: (u8, &[u8]), payload: &[u8]) -> Option<Forwarded> {
        self.now += Duration::from_millis(33);
        self.seq = self.seq.wrapping_add(1);
        let timestamp = u32::from(self.seq) * 3_000;
        let header = RtpBytes { pt: PT, seq: self.seq, timestamp, ssrc: 7, marker: true };
        let extensions = if extension.1.is_empty() { &[][..] } else { &[extension] };
        let bytes = header.build(extensions, payload);
        let view = RtpView::parse(&bytes).expect("valid");
        let binding = StreamBinding { section: 0, layer: 0, rtx: false };
        let packet = self.track.on_rtp(self.now, binding, &view, &mut self.pool).expect("taken");
        self.down.forward(self.now, &packet)
    }
}

/// The temporal layer of picture `n` in L1T3.
fn temporal(n: u64) -> u8 {
    [0, 2, 1, 2][(n % 4) as usize]
}

/// An H.264 payload: parameter sets and the start of an IDR slice, or another slice.
fn h264(key: bool) -> &'static [u8] {
    match key {
        true => &[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1, 0, 2, 0x65, 0x88],
        false => &[0x41, 0x9a, 1, 2, 3],
    }
}

/// An H.265 payload of a temporal layer: an IDR picture or a trailing one.
fn h265(key: bool, temporal: u8) -> [u8; 5] {
    let nal_type: u8 = if key { 19 } else { 1 };
    [nal_type << 1, temporal + 1, 0x80, 1, 2]
}

/// Sends 16 pictures and wants the lowest layer from the fifth on, all from the eleventh on: the
/// layers that the receiver got of each picture.
fn layers_received(
    call: &mut Call,
    mut send: impl FnMut(&mut Call, u64) -> Option<Forwarded>,
) -> Vec<u8> {
    let mut got = Vec::new();
    let mut last: Option<u16> = None;
    for n in 0..20 {
        match n {
            4 => call.want_temporal(0),
            10 => call.want_temporal(3),
            _ => {}
        }
        let Some(form) = send(call, n) else { continue };
        assert!(last.is_none_or(|last| form.seq == last.wrapping_add(1)), "a gap before {n}");
        last = Some(form.seq);
        got.push(temporal(n));
    }
    got
}

/// All layers of the first four pictures, the lowest of the next six, and at the end all again.
fn assert_thinned(got: &[u8]) {
    assert_eq!(got[..4], [0, 2, 1, 2]);
    assert_eq!(got[4..6], [0, 0], "{got:?}");
    assert_eq!(got[got.len() - 4..], [0, 2, 1, 2], "{got:?}");
}

#[test]
fn h264_by_the_dependency_descriptor() {
    let mut call = Call::new(Codec::H264);
    let mut encoder = Encoder::new(Mode { spatial: 1, temporal: 3, key: false }, 65_530);
    let got = layers_received(&mut call, |call, n| {
        let packet = encoder.picture(n == 0, 1).remove(0);
        call.send((DESCRIPTOR, packet.descriptor()), h264(n == 0))
    });
    assert_thinned(&got);
}

#[test]
fn h264_by_frame_marking() {
    let mut call = Call::new(Codec::H264);
    let got = layers_received(&mut call, |call, n| {
        let marking = FrameMarking {
            start_of_frame: true,
            end_of_frame: true,
            independent: n == 0,
            discardable: temporal(n) == 2,
            base_layer_sync: temporal(n) > 0,
            temporal_id: temporal(n),
            layer_id: Some(0),
            tl0_pic_idx: Some((n / 4) as u8),
        };
        let mut bytes = [0; FrameMarking::MAX_LEN];
        let len = marking.write(&mut bytes);
        call.send((MARKING, &bytes[..len]), h264(n == 0))
    });
    assert_thinned(&got);
}

#[test]
fn h265_by_its_own_header_thins_out_and_waits_for_a_key_frame_to_come_back() {
    let mut call = Call::new(Codec::H265);
    let got = layers_received(&mut call, |call, n| {
        let key = n == 0 || n == 16;
        call.send((0, &[]), &h265(key, temporal(n)))
    });
    assert_thinned(&got);
}

#[test]
fn h264_that_says_nothing_is_never_thinned() {
    let mut call = Call::new(Codec::H264);
    let got = layers_received(&mut call, |call, n| call.send((0, &[]), h264(n == 0)));
    assert_eq!(got.len(), 20);
}
