use super::*;
use crate::test_util::epoch;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Pushes a frame; the numbers of the packets that left at once.
fn push_frame(pacer: &mut Pacer<u32>, now: Instant, packets: u32) -> Vec<u32> {
    let mut left = Vec::new();
    for i in 0..packets {
        if let Some(packet) = pacer.push(now, i, 1_200, Urgency::Video) {
            pacer.on_sent(now, 1_200);
            left.push(packet);
        }
    }
    left
}

/// Polls each millisecond; when which packets left.
fn drain(pacer: &mut Pacer<u32>, t0: Instant, until: u64) -> Vec<(u64, u32)> {
    let mut left = Vec::new();
    for at in 0..until {
        while let Some(Paced::Packet(packet)) = pacer.poll(t0 + ms(at)) {
            pacer.on_sent(t0 + ms(at), 1_200);
            left.push((at, packet));
        }
    }
    left
}

#[test]
fn ordinary_frames_are_not_touched() {
    let t0 = epoch();
    let mut pacer = Pacer::new(t0, 1_000_000);
    for frame in 0..100u32 {
        // 30 frames of 3 packets per second: 864 kbit/s.
        let left = push_frame(&mut pacer, t0 + ms(33) * frame, 3);
        assert_eq!(left, [0, 1, 2]);
    }
    assert_eq!(pacer.stats(), PacerStats::default());
}

#[test]
fn a_key_frame_beyond_the_burst_is_spread_and_keeps_its_order() {
    let t0 = epoch();
    let mut pacer = Pacer::new(t0, 1_000_000);
    let at_once = push_frame(&mut pacer, t0, 30);
    assert_eq!(at_once.len(), 6);
    let later = drain(&mut pacer, t0, 200);
    let order: Vec<u32> = later.iter().map(|(_, packet)| *packet).collect();
    assert_eq!(order, (6..30).collect::<Vec<_>>());
    // 24 packets of 1,200 bytes at 1.25 Mbit/s: 184 ms.
    let last = later.last().expect("packets waited").0;
    assert!((175..=190).contains(&last), "{last} ms");
}

#[test]
fn audio_never_waits_behind_video() {
    let t0 = epoch();
    let mut pacer = Pacer::new(t0, 100_000);
    push_frame(&mut pacer, t0, 20);
    assert!(pacer.queued().0 > 0);
    assert_eq!(pacer.push(t0, 99, 100, Urgency::Immediate), Some(99));
}

#[test]
fn nothing_waits_longer_than_the_limit_and_the_queue_is_bounded() {
    let t0 = epoch();
    let mut pacer = Pacer::new(t0, 30_000);
    push_frame(&mut pacer, t0, 100);
    let last = drain(&mut pacer, t0, 400).last().expect("packets waited").0;
    assert!(last <= 251, "{last} ms");
    push_frame(&mut pacer, t0 + ms(1_000), 1_000);
    assert_eq!(pacer.queued().0, MAX_QUEUED);
    assert!(pacer.stats().overflowed > 0);
}

#[test]
fn retransmissions_have_a_budget() {
    let t0 = epoch();
    let mut pacer: Pacer<u32> = Pacer::new(t0, 1_000_000);
    let now = t0 + ms(1_000);
    let granted = (0..100).filter(|_| pacer.may_retransmit(now, 1_200)).count();
    assert_eq!(granted, 12);
    assert!(pacer.may_retransmit(now + ms(100), 1_200));
}

#[test]
fn a_probe_is_filled_with_padding_at_its_rate() {
    let t0 = epoch();
    let mut pacer: Pacer<u32> = Pacer::new(t0, 300_000);
    pacer.start_probe(
        t0,
        ProbeCluster {
            id: 3,
            bitrate_bps: 2_000_000,
            min_bytes: 3_750,
            min_packets: 5,
            min_duration: ms(15),
            skip_bytes: 0,
        },
    );
    let (mut bytes, mut last) = (0, 0);
    for at in 0..100 {
        let now = t0 + ms(at);
        while let Some(Paced::Padding { bytes: padding }) = pacer.poll(now) {
            assert_eq!(pacer.on_sent(now, padding + PADDING_HEADER), Some(3));
            bytes += padding + PADDING_HEADER;
            last = at;
        }
    }
    assert!((3_750..5_500).contains(&bytes), "{bytes} bytes");
    assert!((13..=20).contains(&last), "{last} ms");
    assert_eq!(pacer.poll_timeout(), None);
}

#[test]
fn into_a_full_path_nothing_bursts_and_nothing_is_probed() {
    let t0 = epoch();
    let mut pacer = Pacer::new(t0, 600_000);
    assert_eq!(push_frame(&mut pacer, t0, 4).len(), 4);
    let cluster = ProbeCluster {
        id: 1,
        bitrate_bps: 1_000_000,
        min_bytes: 20_000,
        min_packets: 5,
        min_duration: ms(15),
        skip_bytes: 0,
    };
    pacer.start_probe(t0, cluster);
    pacer.set_rates(t0 + ms(100), 300_000, 200_000, 0);
    assert_eq!(pacer.stats().abandoned_probes, 1);
    let t1 = t0 + ms(200);
    assert_eq!(push_frame(&mut pacer, t1, 3), [0]);
    // One packet each 32 ms, at the estimate.
    let left: Vec<u64> = drain(&mut pacer, t1, 100).iter().map(|(at, _)| *at).collect();
    assert_eq!(left, [0, 32]);
}

#[test]
fn way_is_made_for_a_lower_layer_until_the_queue_has_drained() {
    let t0 = epoch();
    let mut pacer = Pacer::new(t0, 300_000);
    push_frame(&mut pacer, t0, 10);
    let waiting = pacer.queued().0;
    assert_eq!(pacer.make_way(|packet| *packet == 9) as usize, waiting - 1);
    assert_eq!(pacer.queued(), (1, 1_200));
    pacer.set_rates(t0 + ms(500), 300_000, 290_000, 0);
    assert!(matches!(pacer.poll(t0 + ms(500)), Some(Paced::Packet(9))));
    assert_eq!(push_frame(&mut pacer, t0 + ms(500), 3), [0], "a queue drains");
    pacer.set_rates(t0 + ms(1_000), 300_000, 300_000, 0);
    while pacer.poll(t0 + ms(1_000)).is_some() {}
    assert_eq!(push_frame(&mut pacer, t0 + ms(1_000), 3), [0, 1, 2], "none does");
}

#[test]
fn what_leaves_little_of_the_estimate_does_not_burst() {
    let t0 = epoch();
    let mut pacer = Pacer::new(t0, 600_000);
    pacer.set_rates(t0, 600_000, 600_000, 520_000);
    // At the estimate, 16 ms each, and not at a multiple of it.
    assert_eq!(push_frame(&mut pacer, t0, 4), [0]);
    let left: Vec<u64> = drain(&mut pacer, t0, 100).iter().map(|(at, _)| *at).collect();
    assert_eq!(left, [0, 16, 32]);
    let t2 = t0 + ms(1_000);
    pacer.set_rates(t2, 600_000, 600_000, 160_000);
    assert_eq!(push_frame(&mut pacer, t2, 4).len(), 4);
}

#[test]
fn what_has_waited_for_long_where_the_estimate_is_tight_leaves_faster() {
    let t0 = epoch();
    let mut pacer = Pacer::new(t0, 480_000);
    let mut waiting = Vec::new();
    // A packet of 20 ms each 19.
    for at in 0..3_000 {
        let now = t0 + ms(at);
        pacer.set_rates(now, 480_000, 480_000, 480_000);
        if at % 19 == 0 && pacer.push(now, 0, 1_200, Urgency::Video).is_some() {
            pacer.on_sent(now, 1_200);
        }
        while pacer.poll(now).is_some() {
            pacer.on_sent(now, 1_200);
        }
        waiting.push(pacer.queued().0);
    }
    let most = |range: std::ops::Range<usize>| waiting[range].iter().max().copied();
    assert!(most(0..1_100) >= Some(2), "{waiting:?}");
    assert!(waiting[1_100..].contains(&0), "{waiting:?}");
}

#[test]
fn a_probe_without_padding_is_given_up() {
    let t0 = epoch();
    let mut pacer: Pacer<u32> = Pacer::new(t0, 300_000);
    let cluster = ProbeCluster {
        id: 1,
        bitrate_bps: 1_000_000,
        min_bytes: 2_000,
        min_packets: 5,
        min_duration: ms(15),
        skip_bytes: 0,
    };
    pacer.start_probe(t0, cluster);
    pacer.poll(t0 + ms(2_000));
    assert_eq!(pacer.poll_timeout(), None);
    assert_eq!(pacer.stats().abandoned_probes, 1);
}
