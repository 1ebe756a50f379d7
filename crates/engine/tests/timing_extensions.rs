//! Header extensions that tell a receiver when something was captured, and when to play it.

mod common;

use std::time::{Duration, SystemTime};

use common::{OWN_PORTS, World};
use sluice_engine::PlayoutDelayRange;
use str0m::media::MediaTime;
use str0m::rtp::AbsCaptureTime;

/// Seconds from the publisher's clock to the one of its camera, 32.32.
const CLOCK_OFFSET: i64 = -3 << 31;

fn captured(second: u64, clock_offset: Option<i64>) -> AbsCaptureTime {
    let capture_time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000 + second);
    AbsCaptureTime { capture_time, clock_offset }
}

#[test]
fn capture_times_reach_every_receiver_on_the_packets_that_had_them() {
    let mut world = World::new(2, OWN_PORTS);
    let publisher = world.connect(0);
    let receivers = [world.connect(0), world.connect(1)];
    let (audio, video) = (world.publish_audio(publisher), world.publish_video(publisher, &[]));
    let hears = receivers.map(|receiver| world.subscribe(receiver, &audio));
    let sees = receivers.map(|receiver| world.subscribe(receiver, &video));
    world.run_for(Duration::from_millis(50));
    // Sender reports keep the publisher's clock, so that the offset to it keeps its meaning.
    let told = |seq: u64| match seq % 10 {
        0 => Some(captured(seq, None)),
        5 => Some(captured(seq, Some(CLOCK_OFFSET))),
        _ => None,
    };
    for seq in 1_000..1_050 {
        world.clients[publisher].captured = told(seq);
        world.speak(publisher, &audio, seq);
        world.show(publisher, &video, 0, seq, seq == 1_000);
        world.turn();
    }
    for (receiver, subscription) in receivers.iter().zip(hears).chain(receivers.iter().zip(sees)) {
        world.until("received", |w| w.numbers(*receiver, subscription).len() == 50);
        let numbers = world.numbers(*receiver, subscription);
        let packets = world.clients[*receiver].received(subscription.ssrc);
        for (number, packet) in numbers.into_iter().zip(packets) {
            assert_eq!(packet.header.ext_vals.abs_capture_time, told(number), "{number}");
        }
    }
}

#[test]
fn a_playout_delay_is_told_with_video_until_the_receiver_has_it() {
    let mut world = World::new(1, OWN_PORTS);
    let (publisher, receiver) = (world.connect(0), world.connect(0));
    let (audio, video) = (world.publish_audio(publisher), world.publish_video(publisher, &[]));
    let hears = world.subscribe(receiver, &audio);
    world.playout_delay = Some(PlayoutDelayRange { min_ms: 100, max_ms: 2_000 });
    let sees = world.subscribe(receiver, &video);
    let limits = |packet: &str0m::rtp::RtpPacket| {
        let values = &packet.header.ext_vals;
        values.play_delay_min.zip(values.play_delay_max)
    };
    let wanted = (MediaTime::from_hundredths(10), MediaTime::from_hundredths(200));
    let mut seq = 1_000;
    world.until("told and taken", |w| {
        w.speak(publisher, &audio, seq);
        w.show(publisher, &video, 0, seq, seq.is_multiple_of(20));
        seq += 1;
        // As the timestamps say: the delay grows with jitter.
        w.run_for(Duration::from_millis(33));
        let packets = w.clients[receiver].received(sees.ssrc);
        packets.last().is_some_and(|last| limits(last).is_none())
    });
    let packets = world.clients[receiver].received(sees.ssrc);
    let told = packets.iter().take_while(|packet| limits(packet) == Some(wanted)).count();
    assert!(told > 0, "{:?}", packets.first().map(|packet| limits(packet)));
    assert!(packets[told..].iter().all(|packet| limits(packet).is_none()));
    let heard = world.clients[receiver].received(hears.ssrc);
    assert!(heard.iter().all(|packet| limits(packet).is_none()));
}
