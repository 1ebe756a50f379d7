use proptest::prelude::*;

use super::*;
use crate::body::PacketBody;
use crate::test_util::{RtpBytes, epoch, media_packet};

const OPUS_PT: u8 = 111;
const FRAME: u32 = 960;

/// What Opus frame `n` of the tests holds.
fn frame(n: u64) -> Vec<u8> {
    let len = 3 + (n * 7 % 40) as usize;
    (0..len).map(|i| (n as u8).wrapping_mul(31).wrapping_add(i as u8)).collect()
}

fn packet(n: u64, codec: Codec, payload: &[u8]) -> MediaPacket {
    let timestamp = (n as u32).wrapping_mul(FRAME);
    let header = RtpBytes { seq: n as u16, timestamp, ..RtpBytes::default() };
    let bytes = header.build(&[(1, &[0x90])], payload);
    let mut packet = media_packet(epoch(), 0, n, timestamp);
    packet.payload = ByteRange::from(bytes.len() - payload.len()..bytes.len());
    packet.body = PacketBody::from_slice(&bytes);
    packet.codec = codec;
    packet
}

/// A RED packet that repeats the `redundancy` frames before, as libwebrtc writes it.
fn red(n: u64, redundancy: u64) -> MediaPacket {
    let frames: Vec<Vec<u8>> = (n - redundancy..=n).map(frame).collect();
    let blocks: Vec<Block<'_>> = frames
        .iter()
        .zip((0..=redundancy).rev())
        .map(|(data, distance)| Block {
            payload_type: OPUS_PT,
            timestamp_offset: (distance as u32 * FRAME) as u16,
            data,
            primary: distance == 0,
        })
        .collect();
    let (primary, redundant) = blocks.split_last().expect("at least the primary");
    let mut payload = [0; 1_000];
    let len = red::write(redundant, *primary, &mut payload).expect("it fits");
    packet(n, Codec::Red, &payload[..len])
}

fn split(splitter: &mut RedSplitter, packet: &MediaPacket) -> Vec<u64> {
    let mut out = Vec::new();
    let check = |opus: MediaPacket| {
        assert_eq!(opus.codec, Codec::Opus);
        assert_eq!(opus.payload(), frame(opus.ext_seq));
        assert_eq!(opus.timestamp, (opus.ext_seq as u32).wrapping_mul(FRAME));
        out.push(opus.ext_seq);
    };
    splitter.split(packet, check).expect("well-formed RED");
    out
}

#[test]
fn without_loss_each_packet_becomes_its_primary_block() {
    let mut splitter = RedSplitter::default();
    for n in 1_000..1_100 {
        assert_eq!(split(&mut splitter, &red(n, 2)), [n]);
    }
    assert_eq!(splitter.recovered(), 0);
}

#[test]
fn lost_packets_come_out_of_the_next_one_oldest_first() {
    let mut splitter = RedSplitter::default();
    split(&mut splitter, &red(1_000, 2));
    assert_eq!(split(&mut splitter, &red(1_003, 2)), [1_001, 1_002, 1_003]);
    // Only as far back as there are blocks.
    assert_eq!(split(&mut splitter, &red(1_007, 2)), [1_005, 1_006, 1_007]);
    assert_eq!(splitter.recovered(), 4);
}

#[test]
fn a_packet_that_was_recovered_is_not_passed_on_again_when_it_comes_late() {
    let mut splitter = RedSplitter::default();
    split(&mut splitter, &red(1_000, 2));
    assert_eq!(split(&mut splitter, &red(1_002, 1)), [1_001, 1_002]);
    assert_eq!(split(&mut splitter, &red(1_001, 2)), [0u64; 0]);
    // One that was not recovered is.
    assert_eq!(split(&mut splitter, &red(1_006, 1)), [1_005, 1_006]);
    assert_eq!(split(&mut splitter, &red(1_004, 0)), [1_004]);
}

#[test]
fn nothing_from_before_the_first_packet_is_recovered() {
    let mut splitter = RedSplitter::default();
    assert_eq!(split(&mut splitter, &red(1_000, 2)), [1_000]);
    let mut restarted = red(5_000, 2);
    restarted.epoch = 1;
    assert_eq!(split(&mut splitter, &restarted), [5_000]);
}

#[test]
fn malformed_red_is_refused_and_padding_passes() {
    let mut splitter = RedSplitter::default();
    let broken = packet(7, Codec::Red, &[0xef, 0, 0, 200, 0x6f]);
    assert_eq!(splitter.split(&broken, |_| panic!("sent")), Err(DropReason::BadPayload));
    let mut sent = 0;
    splitter.split(&packet(8, Codec::Red, &[]), |p| sent += u64::from(p.is_padding())).expect("ok");
    assert_eq!(sent, 1);
}

#[test]
fn joined_packets_repeat_the_two_frames_before() {
    let mut joiner = RedJoiner::default();
    let mut pool = BodyPool::new(8);
    let mut splitter = RedSplitter::default();
    for n in 1_000..1_010u64 {
        let opus = packet(n, Codec::Opus, &frame(n));
        let joined = joiner.join(&opus, OPUS_PT, &mut pool).expect("it fits");
        assert_eq!((joined.codec, joined.ext_seq), (Codec::Red, n));
        assert_eq!(primary_payload_type(&joined), Some(OPUS_PT));
        // Header extensions are kept in place.
        assert_eq!(joined.body.bytes()[..12], opus.body.bytes()[..12]);
        // Every third arrives: nothing is missed.
        if n % 3 == 0 {
            let first = if n == 1_002 { n } else { n - 2 };
            assert_eq!(split(&mut splitter, &joined), (first..=n).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_gap_or_a_long_pause_is_not_bridged_by_joined_packets() {
    let mut joiner = RedJoiner::default();
    let mut pool = BodyPool::new(8);
    let blocks = |packet: Option<MediaPacket>| {
        RedView::parse(packet.expect("it fits").payload()).expect("RED").blocks().count()
    };
    assert_eq!(blocks(joiner.join(&packet(1, Codec::Opus, &frame(1)), OPUS_PT, &mut pool)), 1);
    assert_eq!(blocks(joiner.join(&packet(2, Codec::Opus, &frame(2)), OPUS_PT, &mut pool)), 2);
    assert_eq!(blocks(joiner.join(&packet(4, Codec::Opus, &frame(4)), OPUS_PT, &mut pool)), 1);
    // Discontinuous transmission: the next number, much later.
    let mut later = packet(5, Codec::Opus, &frame(5));
    later.timestamp = later.timestamp.wrapping_add(20 * FRAME);
    assert_eq!(blocks(joiner.join(&later, OPUS_PT, &mut pool)), 1);
    let mut late = packet(3, Codec::Opus, &frame(3));
    late.newer = 2;
    assert_eq!(blocks(joiner.join(&late, OPUS_PT, &mut pool)), 1);
}

proptest! {
    /// Whatever is lost or reordered: each packet at most once, and every packet that was lost
    /// alone or in a pair comes out.
    #[test]
    fn every_packet_comes_out_at_most_once_and_short_losses_are_repaired(
        start in 70u64..200_000,
        lost in prop::collection::vec(prop::bool::weighted(0.2), 200),
        swaps in prop::collection::vec(0usize..199, 0..40),
    ) {
        let mut order: Vec<u64> = (0..200).map(|i| start + i).collect();
        swaps.into_iter().for_each(|at| order.swap(at, at + 1));
        let arrived: Vec<u64> =
            order.into_iter().filter(|n| !lost[(n - start) as usize]).collect();
        let mut splitter = RedSplitter::default();
        let mut out = Vec::new();
        for n in &arrived {
            out.extend(split(&mut splitter, &red(*n, 2)));
        }
        let mut unique = out.clone();
        unique.sort_unstable();
        unique.dedup();
        prop_assert_eq!(unique.len(), out.len());
        let Some(first) = arrived.first() else { return Ok(()) };
        for n in first + 3..start + 198 {
            let near = arrived.iter().any(|a| (n..=n + 2).contains(a));
            prop_assert_eq!(unique.contains(&n), near, "{}", n);
        }
    }
}

proptest! {
    /// Whatever a payload holds, what comes out lies within it.
    #[test]
    fn no_payload_makes_the_splitter_leave_its_packet(
        packets in prop::collection::vec(
            (0u64..40, prop::collection::vec(any::<u8>(), 0..60)), 1..40),
    ) {
        let mut splitter = RedSplitter::default();
        let mut joiner = RedJoiner::default();
        let mut pool = BodyPool::new(8);
        for (n, payload) in packets {
            let red = packet(100_000 + n, Codec::Red, &payload);
            let mut out = Vec::new();
            let result = splitter.split(&red, |opus| out.push(opus));
            prop_assert!(result.is_ok() || out.is_empty());
            for opus in out {
                let data = opus.payload();
                prop_assert!(data.is_empty() || payload.windows(data.len()).any(|w| w == data));
                joiner.join(&opus, OPUS_PT, &mut pool);
            }
        }
    }
}
