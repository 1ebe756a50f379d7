//! Quality of both halves of a path: what the receiver reports, what the publisher loses.

use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::packet::RtpView;
use sluice_rtp::rtcp::ReportBlock;

use crate::binder::StreamBinding;
use crate::body::BodyPool;
use crate::down_track::{DownTrack, DownTrackConfig, DownTrackSettings};
use crate::packet::LayerSet;
use crate::quality::{Quality, UPDATE_INTERVAL};
use crate::test_util::{RtpBytes, epoch};
use crate::track_receiver::{ReceivePayloadType, TrackReceiver, TrackReceiverConfig};

const PACKET_TIME: Duration = Duration::from_millis(20);

/// One microphone, one receiver, and networks that lose every so many packets.
struct Call {
    now: Instant,
    seq: u16,
    track: TrackReceiver,
    pool: BodyPool,
    down: DownTrack,
    /// The receiver's highest number and losses.
    highest: u32,
    lost: i32,
}

impl Call {
    fn new() -> Self {
        let now = epoch();
        let track = TrackReceiver::new(TrackReceiverConfig {
            kind: MediaKind::Audio,
            payload_types: vec![ReceivePayloadType {
                pt: 111,
                codec: Codec::Opus,
                clock_rate: 48_000,
                rtx_pt: None,
            }],
            extensions: Default::default(),
            nack: false,
            encrypted: false,
            screen_share: false,
        });
        let config = DownTrackConfig {
            kind: MediaKind::Audio,
            codec: Codec::Opus,
            clock_rate: 48_000,
            ssrc: 1,
            pt: 111,
            rtx: None,
            encrypted: false,
            first_seq: 1_000,
            first_rtx_seq: 0,
            live_layers: LayerSet::NONE,
        };
        let down = DownTrack::new(config, DownTrackSettings::default(), now);
        Self { now, seq: 0, track, pool: BodyPool::new(8), down, highest: 0, lost: 0 }
    }

    /// Speaks for some windows; of `up` and `down` packets each, one is lost on that side. Returns
    /// the levels of the publisher and of the receiver.
    fn speak(&mut self, windows: u32, up: u16, down: u16) -> (Quality, Quality) {
        let mut scores = (0.0, 0.0);
        for _ in 0..windows {
            for _ in 0..UPDATE_INTERVAL.as_millis() / PACKET_TIME.as_millis() {
                self.now += PACKET_TIME;
                self.seq += 1;
                if self.seq.is_multiple_of(up) {
                    self.lost += 1;
                    continue;
                }
                let timestamp = u32::from(self.seq) * 960;
                let header = RtpBytes { pt: 111, seq: self.seq, timestamp, ..RtpBytes::default() };
                let bytes = header.build(&[], &[0x78; 30]);
                let view = RtpView::parse(&bytes).expect("valid");
                let binding = StreamBinding { section: 0, layer: 0, rtx: false };
                let packet = self.track.on_rtp(self.now, binding, &view, &mut self.pool);
                let sent = self.down.forward(self.now, &packet.expect("taken")).expect("audio");
                self.highest = sent.seq.into();
                self.lost += i32::from(self.seq.is_multiple_of(down));
            }
            let block = ReportBlock {
                ssrc: 1,
                fraction_lost: 0,
                cumulative_lost: self.lost,
                highest_seq: self.highest,
                jitter: 0,
                last_sr: 0,
                delay_since_last_sr: 0,
            };
            self.down.on_receiver_report(self.now, &block);
            scores = (
                self.track.update_quality(self.now, false, Some(0)),
                self.down.update_quality(self.now),
            );
        }
        (Quality::of(scores.0), Quality::of(scores.1))
    }
}

#[test]
fn without_loss_both_are_excellent() {
    assert_eq!(Call::new().speak(5, 0, 0), (Quality::Excellent, Quality::Excellent));
}

#[test]
fn the_receivers_loss_is_the_receivers() {
    let mut call = Call::new();
    call.speak(2, 0, 0);
    assert_eq!(call.speak(5, 0, 10), (Quality::Excellent, Quality::Good));
    assert_eq!(call.speak(10, 0, 0), (Quality::Excellent, Quality::Excellent));
}

#[test]
fn the_publishers_loss_is_not_blamed_on_the_receiver() {
    let mut call = Call::new();
    call.speak(2, 0, 0);
    assert_eq!(call.speak(6, 10, 0), (Quality::Good, Quality::Excellent));
}

#[test]
fn a_receiver_that_stops_reporting_is_poor_after_half_a_minute() {
    let mut call = Call::new();
    call.speak(3, 0, 0);
    let mut levels = Vec::new();
    for window in 0..9u16 {
        call.now += UPDATE_INTERVAL;
        call.seq += 1;
        let timestamp = u32::from(call.seq) * 960;
        let header = RtpBytes { pt: 111, seq: call.seq, timestamp, ..RtpBytes::default() };
        let bytes = header.build(&[], &[0x78; 30]);
        let view = RtpView::parse(&bytes).expect("valid");
        let binding = StreamBinding { section: 0, layer: 0, rtx: false };
        let packet = call.track.on_rtp(call.now, binding, &view, &mut call.pool).expect("taken");
        call.down.forward(call.now, &packet).expect("audio");
        levels.push((window, Quality::of(call.down.update_quality(call.now))));
    }
    let first_poor = levels.iter().find(|(_, level)| *level == Quality::Poor);
    assert_eq!(first_poor.map(|(window, _)| *window), Some(6), "{levels:?}");
}
