use sluice_rtp::NtpTime;
use sluice_rtp::codec::PayloadInfo;

use super::repair::PADDING_AGE;
use super::*;
use crate::history::TrackHistory;
use crate::test_util::{epoch, media_packet};

const FIRST: u16 = 65_530;
const RTX_FIRST: u16 = 65_535;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config(codec: Codec) -> DownTrackConfig {
    DownTrackConfig {
        kind: codec.kind(),
        codec,
        clock_rate: codec.clock_rate(),
        ssrc: 42,
        pt: 96,
        rtx: Some((43, 97)),
        encrypted: false,
        first_seq: FIRST,
        first_rtx_seq: RTX_FIRST,
        live_layers: (0..3).collect(),
    }
}

/// A receiver with its history, as on a worker.
struct Fixture {
    down: DownTrack,
    history: TrackHistory,
    t0: Instant,
}

impl Fixture {
    fn new(codec: Codec) -> Self {
        let t0 = epoch();
        Self {
            down: DownTrack::new(config(codec), DownTrackSettings::default(), t0),
            history: TrackHistory::new(codec.kind()),
            t0,
        }
    }

    /// Delivers a packet at `at` ms.
    fn put(&mut self, at: u64, packet: &MediaPacket) -> Option<Forwarded> {
        self.history.push(packet);
        self.down.forward(self.t0 + ms(at), packet)
    }

    fn seq(&mut self, at: u64, packet: &MediaPacket) -> Option<u16> {
        self.put(at, packet).map(|f| f.seq)
    }

    fn nack(&mut self, at: u64, seqs: &[u16]) -> Vec<(u16, Option<u16>, u64)> {
        let mut out = Vec::new();
        self.down.on_nack(
            self.t0 + ms(at),
            seqs.iter().copied(),
            &self.history,
            |_| true,
            |resend| {
                out.push((resend.forwarded.seq, resend.rtx_seq, resend.packet.ext_seq));
            },
        );
        out
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.down.dropped().map_or(0, |dropped| dropped.get(reason))
    }

    fn source_report(&mut self, stream: u8, at: u64, ntp_ms: u64, timestamp: u32) {
        let ntp = NtpTime::from_unix(Duration::from_secs(1_000_000) + ms(ntp_ms));
        let arrival = self.t0 + ms(at);
        self.down.on_source_report(SourceReport { stream, epoch: 0, ntp, timestamp, arrival });
    }
}

/// A packet of H.264, which has nothing to rewrite in its payload.
fn delta(stream: u8, ext_seq: u64, timestamp: u32) -> MediaPacket {
    media_packet(epoch(), stream, ext_seq, timestamp)
}

fn key(stream: u8, ext_seq: u64, timestamp: u32) -> MediaPacket {
    let mut packet = delta(stream, ext_seq, timestamp);
    packet.info = PayloadInfo { key_frame: true, start_of_frame: true, ..PayloadInfo::default() };
    packet
}

fn padding(stream: u8, ext_seq: u64) -> MediaPacket {
    let mut packet = delta(stream, ext_seq, 0);
    packet.payload.len = 0;
    packet
}

fn vp8(ext_seq: u64, picture_id: u16, tl0: u8, temporal: u8, key: bool) -> MediaPacket {
    let payload = [
        0x90,
        0xF0,
        0x80 | (picture_id >> 8) as u8,
        picture_id as u8,
        tl0,
        temporal << 6,
        u8::from(!key),
    ];
    let mut packet = delta(0, ext_seq, picture_id.into());
    packet.codec = Codec::Vp8;
    packet.live_layers = LayerSet::single(0);
    packet.info = PayloadInfo::inspect(Codec::Vp8, &payload, true);
    packet
}

#[test]
fn audio_passes_from_the_first_packet_with_its_own_timestamps() {
    let mut f = Fixture::new(Codec::Opus);
    for i in 0..20u32 {
        let mut packet = delta(0, 70_000 + u64::from(i), 960 * i);
        packet.codec = Codec::Opus;
        let out = f.put(u64::from(i) * 20, &packet).expect("audio is never held back");
        assert_eq!((out.seq, out.timestamp), (FIRST.wrapping_add(i as u16), 960 * i));
        assert!(out.rewrite.bytes().is_empty());
    }
}

#[test]
fn audio_goes_on_at_once_after_a_restart_of_the_source() {
    let mut f = Fixture::new(Codec::Opus);
    let packet = |seq, ts, epoch| {
        let packet = delta(0, seq, ts);
        MediaPacket { codec: Codec::Opus, epoch, ..packet }
    };
    f.put(0, &packet(100_000, 5_000, 0));
    let out = f.put(20, &packet(200_000, 9_999_999, 1)).expect("audio is never held back");
    assert_eq!(out.seq, FIRST.wrapping_add(1));
    assert_eq!(out.timestamp, 5_000 + 960);
}

#[test]
fn a_late_joiner_starts_at_a_key_frame_and_asks_for_it_until_it_comes() {
    let mut f = Fixture::new(Codec::H264);
    let t0 = f.t0;
    assert_eq!(f.down.poll_key_frame_request(t0), Some(2));
    assert_eq!(f.seq(10, &delta(2, 70_000, 0)), None);
    assert_eq!(f.down.poll_key_frame_request(t0 + ms(199)), None);
    assert_eq!(f.down.poll_timeout(), Some(t0 + ms(200)));
    assert_eq!(f.down.poll_key_frame_request(t0 + ms(200)), Some(2));
    assert_eq!(f.seq(210, &key(2, 70_001, 0)), Some(FIRST));
    assert_eq!(f.down.poll_key_frame_request(t0 + ms(900)), None);
    assert_eq!(f.down.poll_timeout(), None);
    assert_eq!(f.dropped(DropReason::AwaitingKeyFrame), 1);
}

#[test]
fn key_frame_requests_are_repeated_every_two_round_trips_within_bounds() {
    for (rtt, interval) in [(20, 200), (300, 600), (3_000, 1_000)] {
        let mut f = Fixture::new(Codec::H264);
        f.down.set_rtt(ms(rtt));
        f.down.poll_key_frame_request(f.t0);
        assert_eq!(f.down.poll_timeout(), Some(f.t0 + ms(interval)));
    }
}

#[test]
fn a_switch_keeps_numbers_contiguous_and_time_aligned() {
    let mut f = Fixture::new(Codec::H264);
    // Layer 1 is captured at the same instants as layer 0, with another origin of timestamps.
    f.source_report(0, 0, 0, 0);
    f.source_report(2, 0, 500, 45_000 + 7_000_000);
    f.down.set_settings(f.t0, DownTrackSettings { max_spatial: 0, ..Default::default() });
    assert_eq!(f.seq(0, &key(0, 70_000, 0)), Some(FIRST));
    assert_eq!(f.seq(33, &delta(0, 70_001, 2_970)), Some(FIRST + 1));
    f.down.set_settings(f.t0 + ms(40), DownTrackSettings::default());
    assert_eq!(f.down.poll_key_frame_request(f.t0 + ms(40)), Some(2));
    assert_eq!(f.seq(66, &delta(0, 70_002, 5_940)), Some(FIRST + 2));
    assert_eq!(f.seq(66, &delta(2, 90_000, 7_005_940)), None);
    // Arrives 30 ms late, is still placed by its capture time.
    let out = f.put(129, &key(2, 90_001, 7_008_910)).expect("the switch");
    assert_eq!((out.seq, out.timestamp), (FIRST + 3, 8_910));
    assert_eq!(f.down.current_layer(), Some(2));
    assert_eq!(f.seq(130, &delta(0, 70_003, 8_910)), None);
    let out = f.put(132, &delta(2, 90_002, 7_011_880)).expect("the new layer");
    assert_eq!((out.seq, out.timestamp), (FIRST + 4, 11_880));
}

#[test]
fn a_switch_into_the_past_is_refused_three_times() {
    let mut f = Fixture::new(Codec::H264);
    f.source_report(0, 0, 0, 0);
    f.source_report(1, 0, 0, 0);
    f.down.set_settings(f.t0, DownTrackSettings { max_spatial: 0, ..Default::default() });
    f.put(0, &key(0, 70_000, 90_000));
    f.down.set_settings(f.t0, DownTrackSettings { max_spatial: 1, ..Default::default() });
    for i in 0..3 {
        assert_eq!(f.seq(10, &key(1, 80_000 + i, 90_000 - 60 * 90)), None);
        assert_eq!(f.down.current_layer(), Some(0));
    }
    assert_eq!(f.dropped(DropReason::TimestampBehind), 3);
    let out = f.put(20, &key(1, 80_003, 90_000 - 60 * 90)).expect("no longer believed");
    assert_eq!(out.timestamp, 90_000 + 20 * 90);
}

#[test]
fn congestion_leaves_the_high_layer_at_once() {
    let mut f = Fixture::new(Codec::H264);
    f.put(0, &key(2, 70_000, 0));
    let cut = |urgent| Allocation::UpTo { spatial: 0, temporal: 3, urgent };
    f.down.set_allocation(f.t0 + ms(10), cut(false));
    assert!(f.put(20, &delta(2, 70_001, 900)).is_some());
    f.down.set_allocation(f.t0 + ms(30), cut(true));
    assert_eq!(f.put(40, &delta(2, 70_002, 1_800)), None);
    assert_eq!(f.down.poll_key_frame_request(f.t0 + ms(40)), Some(0));
    assert_eq!(f.seq(50, &key(0, 80_000, 0)), Some(FIRST + 2));
}

#[test]
fn pause_and_resume_leave_no_gap() {
    let mut f = Fixture::new(Codec::H264);
    f.put(0, &key(2, 70_000, 0));
    let off = DownTrackSettings { enabled: false, ..Default::default() };
    f.down.set_settings(f.t0, off);
    assert_eq!(f.put(10, &delta(2, 70_001, 900)), None);
    assert_eq!(f.down.poll_key_frame_request(f.t0 + ms(10)), None);
    assert_eq!(f.down.on_key_frame_request(f.t0), None);
    assert_eq!(f.down.wanted_layer(), None);
    f.down.set_settings(f.t0 + ms(5_000), DownTrackSettings::default());
    assert_eq!(f.put(5_010, &delta(2, 70_500, 450_900)), None);
    let out = f.put(5_020, &key(2, 70_501, 451_800)).expect("resumed");
    assert_eq!((out.seq, out.timestamp), (FIRST + 1, 451_800));
    f.down.set_allocation(f.t0, Allocation::Paused);
    assert_eq!(f.put(5_030, &delta(2, 70_502, 452_700)), None);
    assert_eq!(f.dropped(DropReason::Paused), 2);
}

#[test]
fn padding_leaves_no_gap_even_of_another_codec() {
    let mut f = Fixture::new(Codec::H264);
    f.put(0, &key(2, 70_000, 0));
    assert_eq!(f.seq(1, &padding(2, 70_001)), None);
    let mut foreign = delta(2, 70_002, 0);
    foreign.codec = Codec::Vp9;
    assert_eq!(f.seq(1, &foreign), None);
    assert_eq!(f.seq(2, &padding(0, 80_000)), None);
    assert_eq!(f.seq(3, &delta(2, 70_002, 0)), Some(FIRST + 1));
}

#[test]
fn losses_are_asked_back_on_rtx_with_the_numbers_of_the_first_time() {
    let mut f = Fixture::new(Codec::H264);
    f.down.set_rtt(ms(80));
    f.put(0, &key(2, 70_000, 0));
    f.put(0, &delta(2, 70_001, 90));
    f.put(0, &delta(2, 70_003, 90));
    let lost = FIRST.wrapping_add(1);
    assert_eq!(f.nack(100, &[lost]), [(lost, Some(RTX_FIRST), 70_001)]);
    assert_eq!(f.nack(150, &[lost]), []);
    // Not seen by us either, so not even a place of the source's packet can be filled.
    assert_eq!(f.nack(150, &[lost + 1]), []);
    assert_eq!(f.nack(200, &[lost]), [(lost, Some(0), 70_001)]);
    for i in 1..=4 {
        let at = 200 + u64::from(i) * 100;
        assert_eq!(f.nack(at, &[lost]), [(lost, Some(i), 70_001)]);
    }
    assert_eq!(f.nack(900, &[lost]), []);
    let expected = NackCounters {
        requested: 9,
        resent: 6,
        suppressed: 1,
        exhausted: 1,
        unavailable: 1,
        ..NackCounters::default()
    };
    assert_eq!(f.down.nacks(), expected);
}

#[test]
fn without_rtx_nothing_is_sent_twice() {
    let mut f = Fixture::new(Codec::H264);
    f.down.config.rtx = None;
    f.put(0, &key(2, 70_000, 0));
    assert_eq!(f.nack(100, &[FIRST]), []);
    assert_eq!(f.down.nacks().without_rtx, 1);
}

#[test]
fn a_key_frame_request_silences_nacks_until_the_key_frame() {
    let mut f = Fixture::new(Codec::H264);
    f.put(0, &key(2, 70_000, 0));
    f.put(1_000, &delta(2, 70_001, 90));
    assert_eq!(f.down.on_key_frame_request(f.t0 + ms(1_010)), Some(2));
    assert_eq!(f.nack(1_020, &[FIRST + 1]), []);
    f.put(1_030, &key(2, 70_002, 180));
    assert_eq!(f.nack(1_040, &[FIRST + 1]).len(), 1);
}

#[test]
fn nacks_are_silent_for_a_second_at_most() {
    let mut f = Fixture::new(Codec::H264);
    f.put(0, &key(2, 70_000, 0));
    f.put(1_000, &delta(2, 70_001, 90));
    f.down.on_key_frame_request(f.t0 + ms(1_010));
    assert_eq!(f.nack(2_009, &[FIRST + 1]), []);
    assert_eq!(f.nack(2_010, &[FIRST + 1]).len(), 1);
}

#[test]
fn a_key_frame_request_that_crosses_a_key_frame_does_not_stop_its_repair() {
    let mut f = Fixture::new(Codec::H264);
    f.put(0, &key(2, 70_000, 0));
    assert_eq!(f.down.on_key_frame_request(f.t0 + ms(30)), Some(2));
    assert_eq!(f.nack(40, &[FIRST]).len(), 1);
}

#[test]
fn a_late_start_of_a_key_frame_leaves_places_that_nack_fills_from_history() {
    let mut f = Fixture::new(Codec::H264);
    // The first packet of the key frame was lost and comes after the two behind it.
    f.put(0, &delta(2, 70_001, 0));
    f.put(0, &delta(2, 70_002, 0));
    let first = MediaPacket { newer: 2, recovered: true, ..key(2, 70_000, 0) };
    assert_eq!(f.seq(50, &first), Some(FIRST));
    assert_eq!(f.seq(60, &delta(2, 70_003, 3_000)), Some(FIRST + 3));
    let filled = f.nack(70, &[FIRST + 1, FIRST + 2]);
    assert_eq!(filled, [(FIRST + 1, None, 70_001), (FIRST + 2, None, 70_002)]);
    assert_eq!(f.nack(300, &[FIRST + 1]), [(FIRST + 1, Some(RTX_FIRST), 70_001)]);
    assert_eq!(f.down.nacks().filled, 2);
}

#[test]
fn vp8_temporal_layers_drop_without_gaps_in_numbers_or_pictures() {
    let mut f = Fixture::new(Codec::Vp8);
    f.down.set_settings(f.t0, DownTrackSettings { max_temporal: 0, ..Default::default() });
    let mut expected = 0u16;
    for i in 0..400u16 {
        let temporal = [0, 2, 1, 2][usize::from(i % 4)];
        let picture = (32_700 + i) & 0x7FFF;
        let packet = vp8(70_000 + u64::from(i), picture, (i / 4) as u8, temporal, i == 0);
        let out = f.put(u64::from(i) * 33, &packet);
        assert_eq!(out.is_some(), temporal == 0);
        let Some(out) = out else { continue };
        assert_eq!(out.seq, FIRST.wrapping_add(expected));
        let id = u16::from_be_bytes([out.rewrite.bytes()[2], out.rewrite.bytes()[3]]);
        assert_eq!(id, 0x8000 | ((32_700 + expected) & 0x7FFF));
        assert_eq!(out.rewrite.replaces(), 6);
        expected += 1;
    }
    assert_eq!(f.dropped(DropReason::TemporalLayer), 300);
}

#[test]
fn vp8_continues_its_pictures_over_a_pause() {
    let mut f = Fixture::new(Codec::Vp8);
    f.put(0, &vp8(70_000, 5, 9, 0, true));
    f.down.set_settings(f.t0, DownTrackSettings { enabled: false, ..Default::default() });
    f.down.set_settings(f.t0, DownTrackSettings::default());
    let out = f.put(900, &vp8(71_000, 900, 99, 0, true)).expect("resumed");
    assert_eq!(out.rewrite.bytes()[2..5], [0x80, 6, 10]);
}

#[test]
fn sender_reports_carry_the_publishers_clock_and_our_timestamps() {
    let mut f = Fixture::new(Codec::H264);
    assert!(f.down.sender_report(f.t0).is_none());
    f.put(0, &key(2, 70_000, 1_000));
    assert!(f.down.sender_report(f.t0).is_none());
    f.source_report(2, 10, 0, 1_900);
    let report = f.down.sender_report(f.t0 + ms(110)).expect("the source has reported");
    assert_eq!((report.ssrc, report.rtp_timestamp), (42, 1_900 + 9_000));
    assert_eq!((report.packet_count, report.octet_count), (1, 20));
    let moved = report.ntp.to_unix() - Duration::from_secs(1_000_000);
    assert_eq!(moved, ms(100));
}

#[test]
fn receiver_reports_give_loss_jitter_and_round_trip_time() {
    let mut f = Fixture::new(Codec::H264);
    f.put(0, &key(2, 70_000, 1_000));
    f.source_report(2, 0, 0, 1_000);
    let report = f.down.sender_report(f.t0 + ms(100)).expect("the source has reported");
    let block = ReportBlock {
        ssrc: 42,
        fraction_lost: 64,
        cumulative_lost: 3,
        highest_seq: 0,
        jitter: 900,
        last_sr: report.ntp.compact(),
        delay_since_last_sr: 1 << 16,
    };
    f.down.on_receiver_report(f.t0 + ms(1_150), &block);
    let feedback = *f.down.feedback();
    assert_eq!((feedback.fraction_lost, feedback.cumulative_lost), (0.25, 3));
    assert_eq!(feedback.jitter, ms(10));
    assert_eq!(feedback.rtt, Some(ms(50)));
}

#[test]
fn other_codecs_are_not_forwarded() {
    let mut f = Fixture::new(Codec::Vp8);
    assert_eq!(f.put(0, &key(2, 70_000, 0)), None);
    assert_eq!(f.dropped(DropReason::CodecMismatch), 1);
}

#[test]
fn an_idle_subscription_is_small() {
    let size = size_of::<DownTrack>();
    assert!(size <= 1_024, "{size} bytes");
    let size = size_of::<MediaPacket>();
    assert!(size <= 160, "{size} bytes");
}

#[test]
fn padding_repeats_only_what_can_no_longer_wait_in_the_pacer() {
    let mut f = Fixture::new(Codec::H264);
    f.put(0, &key(2, 100, 0));
    f.put(100, &delta(2, 101, 9_000));
    let pad = |f: &mut Fixture, at| {
        let resend = f.down.padding(f.t0 + ms(at), &f.history, 1);
        resend.map(|resend| (resend.packet.ext_seq, resend.rtx_seq))
    };
    let wait = PADDING_AGE.as_millis() as u64;
    assert_eq!(pad(&mut f, wait - 1), None);
    assert_eq!(pad(&mut f, wait), Some((100, Some(RTX_FIRST))));
    assert_eq!(pad(&mut f, wait + 100), Some((101, Some(RTX_FIRST.wrapping_add(1)))));
}

#[test]
fn only_a_layer_that_is_left_at_once_makes_what_waits_worthless() {
    let mut f = Fixture::new(Codec::H264);
    f.seq(0, &key(2, 100, 0)).expect("starts");
    let mut limit = |spatial, urgent| {
        f.down.set_allocation(f.t0, Allocation::UpTo { spatial, temporal: 3, urgent })
    };
    assert!(!limit(1, false));
    assert!(!limit(2, true));
    assert!(limit(1, true));
    assert!(!limit(0, true), "nothing is being sent any more");
    f.down.count_left(3);
    assert_eq!(f.dropped(DropReason::LayerLeft), 3);
}

#[test]
fn what_was_lost_of_a_layer_left_for_want_of_bandwidth_is_not_sent_again() {
    let mut f = Fixture::new(Codec::H264);
    f.source_report(2, 0, 0, 0);
    f.source_report(0, 0, 0, 0);
    let old = f.seq(0, &key(2, 100, 0)).expect("starts");
    let allocation = Allocation::UpTo { spatial: 0, temporal: 3, urgent: true };
    f.down.set_allocation(f.t0 + ms(40), allocation);
    assert_eq!(f.nack(50, &[old]).len(), 0);
    let first = f.seq(200, &key(0, 500, 18_000)).expect("starts");
    let second = f.seq(240, &delta(0, 501, 21_600)).expect("goes on");
    let resent: Vec<u16> = f.nack(400, &[old, first, second]).iter().map(|r| r.0).collect();
    assert_eq!(resent, [first, second]);
}

#[test]
fn a_key_frame_is_asked_for_if_a_layer_that_was_left_lost_more_than_can_be_sent_again() {
    let mut f = Fixture::new(Codec::H264);
    f.source_report(2, 0, 0, 0);
    f.source_report(0, 0, 0, 0);
    f.seq(0, &key(2, 100, 0)).expect("starts");
    let allocation = Allocation::UpTo { spatial: 0, temporal: 3, urgent: false };
    f.down.set_allocation(f.t0 + ms(40), allocation);
    f.seq(200, &key(0, 500, 18_000)).expect("starts");
    let lost = f.seq(240, &delta(0, 501, 21_600)).expect("goes on");
    assert_eq!(f.down.poll_key_frame_request(f.t0 + ms(300)), None);
    f.down.on_nack(f.t0 + ms(300), [lost], &f.history, |_| false, |_| panic!("does not fit"));
    assert_eq!(f.down.poll_key_frame_request(f.t0 + ms(300)), Some(0));
    f.seq(400, &key(0, 502, 36_000)).expect("goes on");
    assert_eq!(f.down.poll_key_frame_request(f.t0 + ms(400)), None);
    assert_eq!(f.nack(500, &[lost]).len(), 0);
}
