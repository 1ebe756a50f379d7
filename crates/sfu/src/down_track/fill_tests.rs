//! Frames of our own between those of the source, and whole rooms that want key frames at once.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_rtp::codec::{Codec, MediaKind, PayloadInfo};

use crate::binder::StreamBinding;
use crate::body::BodyPool;
use crate::down_track::{DownTrack, DownTrackConfig, DownTrackSettings};
use crate::packet::{LayerSet, MediaPacket};
use crate::test_util::{RtpBytes, epoch, media_packet};
use crate::track_receiver::{ReceivePayloadType, TrackReceiver, TrackReceiverConfig};

fn config(codec: Codec, encrypted: bool) -> DownTrackConfig {
    DownTrackConfig {
        kind: codec.kind(),
        codec,
        clock_rate: codec.clock_rate(),
        ssrc: 1,
        pt: 96,
        rtx: None,
        encrypted,
        first_seq: u16::MAX - 3,
        first_rtx_seq: 0,
        live_layers: LayerSet::single(0),
    }
}

fn opus(now: Instant, ext_seq: u64, timestamp: u32) -> MediaPacket {
    let mut packet = media_packet(now, 0, ext_seq, timestamp);
    packet.codec = Codec::Opus;
    packet.live_layers = LayerSet::single(0);
    packet
}

#[test]
fn nothing_is_invented_for_an_encrypted_track_or_before_the_first_packet() {
    let t0 = epoch();
    for (encrypted, filled) in [(true, false), (false, true)] {
        let mut down =
            DownTrack::new(config(Codec::Opus, encrypted), DownTrackSettings::default(), t0);
        assert_eq!(down.fill(t0), None);
        down.forward(t0, &opus(t0, 70_000, 0)).expect("audio passes");
        assert_eq!(down.fill(t0).is_some(), filled);
    }
}

#[test]
fn what_announces_a_stream_is_followed_by_the_track_without_a_gap() {
    let t0 = epoch();
    for encrypted in [true, false] {
        let mut down =
            DownTrack::new(config(Codec::Opus, encrypted), DownTrackSettings::default(), t0);
        let at = |ms: u64| t0 + Duration::from_millis(ms);
        let own = [100, 200].map(|ms| down.announce(at(ms)).expect("nothing was sent"));
        assert_eq!(own[1].seq, own[0].seq.wrapping_add(1));
        assert_eq!(own[1].timestamp.wrapping_sub(own[0].timestamp), 4_800);
        let first = down.forward(at(300), &opus(at(300), 70_000, 0)).expect("audio passes");
        assert_eq!(first.seq, own[1].seq.wrapping_add(1));
        assert_eq!(first.timestamp.wrapping_sub(own[1].timestamp), 4_800);
        assert_eq!(down.announce(at(400)), None);
    }
}

#[test]
fn a_picture_of_our_own_carries_the_vp8_indices_on() {
    let t0 = epoch();
    let mut down = DownTrack::new(config(Codec::Vp8, false), DownTrackSettings::default(), t0);
    let picture = |ext_seq: u64, id: u16, tl0: u8, key: bool| {
        let payload = [0x90, 0xf0, 0x80 | (id >> 8) as u8, id as u8, tl0, 0, u8::from(!key)];
        let mut packet = media_packet(t0, 0, ext_seq, u32::from(id) * 3_000);
        packet.codec = Codec::Vp8;
        packet.live_layers = LayerSet::single(0);
        packet.info = PayloadInfo::inspect(Codec::Vp8, &payload, true);
        packet
    };
    down.forward(t0, &picture(70_000, 0x7fff, 255, true)).expect("a key frame");
    let black = down.fill(t0).expect("something was sent");
    assert_eq!(black.rewrite.bytes(), [0x90, 0xf0, 0x80, 0, 0, 1]);
    assert_eq!(black.rewrite.replaces(), 1);
    // The next picture of the source follows it.
    let next = down.forward(t0, &picture(70_001, 0, 0, false)).expect("goes on");
    assert_eq!(next.seq, black.seq.wrapping_add(1));
    assert_eq!(next.rewrite.bytes()[2..5], [0x80, 1, 1]);
}

proptest! {
    /// Whatever is lost, muted or made by us: numbers rise by one except over what the network
    /// lost, and time only moves forward.
    #[test]
    fn mutes_and_our_own_frames_leave_no_trace_in_the_numbering(
        steps in prop::collection::vec((0u8..10, 1u64..60), 1..300),
        first_timestamp: u32,
    ) {
        let mut now = epoch();
        let mut down =
            DownTrack::new(config(Codec::Opus, false), DownTrackSettings::default(), now);
        let (mut source, mut timestamp) = (70_000u64, first_timestamp);
        let mut muted = false;
        let mut last: Option<(u16, u32)> = None;
        let mut lost = 0u16;
        for (action, ms) in steps {
            now += Duration::from_millis(ms);
            timestamp = timestamp.wrapping_add(ms as u32 * 48);
            let sent = match action {
                0 => {
                    muted = !muted;
                    down.set_source_muted(now, muted);
                    lost = 0;
                    None
                }
                1 => down.fill(now),
                2 => {
                    source += 1;
                    lost += u16::from(!muted && last.is_some());
                    None
                }
                _ => {
                    source += 1;
                    down.forward(now, &opus(now, source, timestamp))
                }
            };
            let Some(form) = sent else { continue };
            if let Some((seq, before)) = last {
                // A loss just before a frame of ours is seen with the next packet of the source.
                let step = form.seq.wrapping_sub(seq);
                prop_assert!(step == 1 || (action > 2 && step == 1 + lost), "{step} {lost}");
                prop_assert!((form.timestamp.wrapping_sub(before) as i32) > 0);
            }
            if action > 2 {
                lost = 0;
            }
            last = Some((form.seq, form.timestamp));
        }
    }
}

/// A VP8 publisher that answers each request with a key frame, a moment later.
#[test]
fn five_hundred_joiners_cost_the_publisher_one_key_frame_per_window() {
    let t0 = epoch();
    let mut track = TrackReceiver::new(TrackReceiverConfig {
        kind: MediaKind::Video,
        payload_types: vec![ReceivePayloadType {
            pt: 96,
            codec: Codec::Vp8,
            clock_rate: 90_000,
            rtx_pt: None,
        }],
        extensions: Default::default(),
        nack: true,
        encrypted: false,
        screen_share: false,
    });
    let mut pool = BodyPool::new(64);
    let mut downs: Vec<DownTrack> = Vec::new();
    let mut waiting_since: Vec<Option<Instant>> = Vec::new();
    let (mut requests, mut key_due, mut longest) = (0u32, None, Duration::ZERO);
    for ms in 0..3_000u64 {
        let now = t0 + Duration::from_millis(ms);
        // They come within two seconds, four a millisecond at the worst.
        if ms >= 500 && downs.len() < 500 {
            let joining = if ms < 560 { 4 } else { 1 };
            for _ in 0..joining.min(500 - downs.len()) {
                downs.push(DownTrack::new(
                    config(Codec::Vp8, false),
                    DownTrackSettings::default(),
                    now,
                ));
                waiting_since.push(Some(now));
            }
        }
        for down in &mut downs {
            if let Some(layer) = down.poll_key_frame_request(now) {
                track.request_key_frame(layer);
            }
        }
        track.poll_key_frame_requests(now, |_| {
            requests += 1;
            key_due = Some(now + Duration::from_millis(30));
        });
        if ms % 33 != 0 {
            continue;
        }
        let key = ms == 0 || key_due.take_if(|due| *due <= now).is_some();
        let seq = (ms / 33) as u16;
        let header = RtpBytes { seq, timestamp: ms as u32 * 90, ssrc: 9, marker: true, pt: 96 };
        let bytes = header.build(&[], &[0x10, u8::from(!key), 1, 2, 3]);
        let view = sluice_rtp::packet::RtpView::parse(&bytes).expect("valid");
        let binding = StreamBinding { section: 0, layer: 0, rtx: false };
        let packet = track.on_rtp(now, binding, &view, &mut pool).expect("taken");
        for (down, waiting) in downs.iter_mut().zip(&mut waiting_since) {
            if down.forward(now, &packet).is_some()
                && let Some(since) = waiting.take()
            {
                longest = longest.max(now - since);
            }
        }
    }
    assert_eq!(downs.len(), 500);
    assert!(waiting_since.iter().all(Option::is_none), "somebody sees nothing");
    assert!(requests <= 3, "{requests} requests in a second of joining");
    assert!(longest <= Duration::from_millis(600), "{longest:?}");
}
