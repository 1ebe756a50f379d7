//! Audio goes through untouched but for its numbers: in order, at once, with its own clock.

mod common;

use std::time::Duration;

use common::over_seeds;
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::ExtensionKind;
use sluice_rtp::packet::{RtpHeaderWriter, RtpView};
use sluice_rtp::rtcp;
use sluice_sfu::{
    AudioLevelConfig, AudioLevelObserver, BodyPool, DownTrack, DownTrackConfig, DownTrackSettings,
    LayerSet, ReceivePayloadType, StreamBinding, TrackReceiver, TrackReceiverConfig,
};
use sluice_sim::audio_receiver::AudioReceiver;
use sluice_sim::opus::{OpusConfig, OpusPublisher};
use sluice_sim::outgoing::StreamIds;
use sluice_sim::{Clock, Link, LinkConfig, Loss};

const LEVEL_ID: u8 = 6;

struct Heard {
    sent: u32,
    listener: AudioReceiver,
    level: Option<f32>,
    reports: u32,
}

/// A microphone that speaks for ten seconds over a link of this kind.
fn listen(up: LinkConfig, seed: u64, first_seq: u16, first_timestamp: u32) -> Heard {
    let mut clock = Clock::new();
    let ids = StreamIds { ssrc: 5, pt: 111, rtx: None };
    let config = OpusConfig {
        ids,
        mid: (4, "0".to_owned()),
        audio_level_id: LEVEL_ID,
        frame_bytes: 80,
        first_seq,
        first_timestamp,
    };
    let mut microphone = OpusPublisher::new(config, clock.now());
    microphone.set_level(12);
    let mut link = Link::new(up, seed);
    let payload_type =
        ReceivePayloadType { pt: 111, codec: Codec::Opus, clock_rate: 48_000, rtx_pt: None };
    let mut track = TrackReceiver::new(TrackReceiverConfig {
        kind: MediaKind::Audio,
        payload_types: vec![payload_type],
        extensions: [(ExtensionKind::AudioLevel, LEVEL_ID)].into_iter().collect(),
        nack: false,
        encrypted: false,
        screen_share: false,
    });
    let down = DownTrackConfig {
        kind: MediaKind::Audio,
        codec: Codec::Opus,
        clock_rate: 48_000,
        ssrc: 77,
        pt: 111,
        rtx: None,
        encrypted: false,
        first_seq: 65_535,
        first_rtx_seq: 0,
        live_layers: LayerSet::NONE,
    };
    let mut down = DownTrack::new(down, DownTrackSettings::default(), clock.now());
    let mut observer = AudioLevelObserver::new(AudioLevelConfig::default());
    let mut pool = BodyPool::new(64);
    let mut listener = AudioReceiver::default();
    let (mut packets, mut reports) = (Vec::new(), 0);
    while clock.elapsed() < Duration::from_secs(10) {
        let now = clock.now();
        microphone.poll(&clock, &mut packets);
        packets.drain(..).for_each(|packet| link.send(now, packet));
        while let Some(bytes) = link.poll(now) {
            if rtcp::is_rtcp(&bytes) {
                reports += 1;
                continue;
            }
            let view = RtpView::parse(&bytes).expect("the simulated microphone writes RTP");
            let binding = StreamBinding { section: 0, layer: 0, rtx: false };
            let Ok(packet) = track.on_rtp(now, binding, &view, &mut pool) else { continue };
            let level = packet.audio_level.expect("every packet has a level");
            observer.observe(now, level, packet.timestamp, 48_000);
            let Some(forwarded) = down.forward(now, &packet) else {
                assert!(packet.newer > 0, "only what came before the first packet has no place");
                continue;
            };
            let header = RtpHeaderWriter {
                marker: forwarded.marker,
                payload_type: 111,
                sequence_number: forwarded.seq,
                timestamp: forwarded.timestamp,
                ssrc: 77,
                padding: false,
            };
            let mut out = vec![0; 12];
            header.write(&[], &mut out).expect("twelve bytes");
            out.extend_from_slice(packet.payload());
            listener.on_rtp(&out);
        }
        clock.advance_to(now + Duration::from_millis(1));
    }
    Heard { sent: microphone.frames(), listener, level: observer.level(clock.now()), reports }
}

#[test]
fn every_frame_is_heard_once_in_order() {
    let heard = listen(LinkConfig::default(), 1, 65_300, u32::MAX - 48_000);
    assert_eq!(heard.listener.violations(), [""; 0]);
    assert_eq!(heard.listener.missing(), 0);
    // The last one is underway.
    assert!(heard.listener.frames() + 1 >= heard.sent as usize);
    assert!(heard.reports >= 2);
}

#[test]
fn loss_and_disorder_stay_as_the_network_made_them() {
    over_seeds(|seed| {
        let config = LinkConfig {
            loss: Loss::Uniform(0.1),
            reorder: 0.1,
            reorder_delay: Duration::from_millis(50),
            duplicate: 0.05,
            ..LinkConfig::default()
        };
        let heard = listen(config, seed, 65_300, 0);
        assert_eq!(heard.listener.violations(), [""; 0], "seed {seed}");
        let frames = heard.listener.frames() as f64 / f64::from(heard.sent);
        assert!((0.82..0.96).contains(&frames), "seed {seed}: {frames}");
    });
}

#[test]
fn a_speaker_is_noticed_in_spite_of_loss() {
    let config = LinkConfig { loss: Loss::Uniform(0.1), ..LinkConfig::default() };
    let heard = listen(config, 2, 0, 0);
    assert!(heard.level.is_some_and(|level| (level - 0.25).abs() < 0.03), "{:?}", heard.level);
}
