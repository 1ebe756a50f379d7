//! Transport-wide feedback: chunks of the draft, and that written messages read back.

use proptest::prelude::*;
use sluice_rtp::rtcp::write::{Arrival, FeedbackHeader, MAX_FEEDBACK_LEN, transport_cc};
use sluice_rtp::rtcp::{PacketStatus, TransportFeedback};
use sluice_rtp::{Rtcp, RtcpError, RtcpIter};

const HEADER: FeedbackHeader =
    FeedbackHeader { sender_ssrc: 1, media_ssrc: 2, base_seq: 65_536 + 100, feedback_count: 7 };

/// A message from its fields after the two SSRCs; `rest` holds chunks and deltas.
fn message(base: u16, count: u16, reference: u32, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![0x8F, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    out.extend_from_slice(&base.to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&((reference << 8) | 7).to_be_bytes());
    out.extend_from_slice(rest);
    out.resize(out.len().next_multiple_of(4), 0);
    let words = (out.len() / 4 - 1) as u16;
    out[2..4].copy_from_slice(&words.to_be_bytes());
    out
}

fn parse(compound: &[u8]) -> Result<TransportFeedback<'_>, RtcpError> {
    match RtcpIter::new(compound).next().unwrap()? {
        Rtcp::TransportCc(feedback) => Ok(feedback),
        other => panic!("{other:?}"),
    }
}

/// Arrival ticks by status.
fn arrivals(compound: &[u8]) -> Vec<Option<i64>> {
    parse(compound).unwrap().statuses().map(|status| status.arrival_ticks).collect()
}

#[test]
fn run_length_chunk_of_the_draft() {
    // §3.1.3, second example: 24 packets received with small deltas.
    let mut rest = vec![0x20, 24];
    rest.extend_from_slice(&[4; 24]);
    let compound = message(10, 24, 1, &rest);
    let feedback = parse(&compound).unwrap();
    assert_eq!((feedback.base_seq, feedback.status_count), (10, 24));
    assert_eq!((feedback.reference_time, feedback.feedback_count), (1, 7));
    let statuses: Vec<_> = feedback.statuses().collect();
    assert_eq!(statuses.len(), 24);
    assert_eq!(statuses[0], PacketStatus { seq: 10, arrival_ticks: Some(256 + 4) });
    assert_eq!(statuses[23], PacketStatus { seq: 33, arrival_ticks: Some(256 + 96) });
}

#[test]
fn long_run_of_lost_packets_needs_no_deltas() {
    // §3.1.3, first example: 221 packets not received.
    assert_eq!(arrivals(&message(0, 221, 0, &[0x00, 0xDD])), vec![None; 221]);
}

#[test]
fn one_bit_vector_of_the_draft() {
    // §3.1.4, first example: 1 lost, 5 received, 3 lost, 3 received, 2 lost.
    let compound = message(0, 14, 0, &[0x9F, 0x1C, 1, 1, 1, 1, 1, 1, 1, 1]);
    let received: Vec<bool> = arrivals(&compound).iter().map(Option::is_some).collect();
    let expected = [0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0].map(|bit| bit == 1);
    assert_eq!(received, expected);
}

#[test]
fn two_bit_vector_with_negative_delta() {
    // Lost, small, large, small, lost, then two statuses that are not reported on.
    let compound = message(65_534, 5, 0, &[0xC6, 0x40, 8, 0xFF, 0xFC, 2]);
    assert_eq!(arrivals(&compound), [None, Some(8), Some(4), Some(6), None]);
    let last = parse(&compound).unwrap().statuses().last().unwrap();
    assert_eq!(last.seq, 2);
}

#[test]
fn reference_time_is_signed() {
    let compound = message(0, 1, 0xFF_FFFF, &[0x20, 1, 0]);
    assert_eq!(arrivals(&compound), [Some(-256)]);
}

#[test]
fn cut_chunks_and_deltas_are_malformed() {
    let malformed = |count, rest: &[u8]| {
        assert_eq!(parse(&message(0, count, 0, rest)).unwrap_err(), RtcpError::Body(205));
    };
    malformed(0, &[]);
    malformed(1, &[]);
    malformed(8, &[0xC0, 0x00]);
    malformed(6, &[0x20, 6, 1, 1]);
    malformed(3, &[0x40, 3, 1, 1]);
    // Runs of length zero never reach the count.
    malformed(3, &[0x20, 0, 0x20, 0]);
    // The reserved symbol.
    malformed(2, &[0x60, 2]);
    malformed(2, &[0xF0, 0, 0, 0]);
}

#[test]
fn gaps_in_front_of_and_between_arrivals_are_reported() {
    let list = [
        Arrival { seq: HEADER.base_seq + 2, time_us: 64_000 + 1_000 },
        Arrival { seq: HEADER.base_seq + 3, time_us: 64_000 + 500 },
        Arrival { seq: HEADER.base_seq + 6, time_us: 64_000 + 100_000 },
    ];
    let mut out = Vec::new();
    assert_eq!(transport_cc(&mut out, &HEADER, &list), 3);
    let feedback = parse(&out).unwrap();
    assert_eq!((feedback.base_seq, feedback.status_count), (100, 7));
    let expected = [None, None, Some(260), Some(258), None, None, Some(656)];
    assert_eq!(arrivals(&out), expected);
}

#[test]
fn a_large_delta_after_a_short_gap_keeps_its_place() {
    // The seven statuses before it fill a vector of two bits each, not half of one with one bit.
    let list = [
        Arrival { seq: HEADER.base_seq, time_us: 0 },
        Arrival { seq: HEADER.base_seq + 7, time_us: -250 },
    ];
    let mut out = Vec::new();
    assert_eq!(transport_cc(&mut out, &HEADER, &list), 2);
    assert_eq!(arrivals(&out), [Some(0), None, None, None, None, None, None, Some(-1)]);
}

#[test]
fn steady_arrivals_are_one_run() {
    let list: Vec<_> = (0..50)
        .map(|index| Arrival { seq: HEADER.base_seq + index, time_us: index as i64 * 1_000 })
        .collect();
    let mut out = Vec::new();
    assert_eq!(transport_cc(&mut out, &HEADER, &list), 50);
    assert_eq!(out.len(), (20usize + 2 + 50).next_multiple_of(4));
}

#[test]
fn nothing_is_written_for_no_arrivals() {
    let mut out = Vec::new();
    assert_eq!(transport_cc(&mut out, &HEADER, &[]), 0);
    assert!(out.is_empty());
}

#[test]
fn a_delta_that_does_not_fit_starts_the_next_message() {
    let list = [
        Arrival { seq: HEADER.base_seq, time_us: 0 },
        Arrival { seq: HEADER.base_seq + 1, time_us: 9_000_000 },
    ];
    let mut out = Vec::new();
    assert_eq!(transport_cc(&mut out, &HEADER, &list), 1);
    assert_eq!(parse(&out).unwrap().status_count, 1);
}

#[test]
fn a_base_far_from_the_first_arrival_is_given_up() {
    for seq in [HEADER.base_seq - 1, HEADER.base_seq + 40_000] {
        let mut out = Vec::new();
        assert_eq!(transport_cc(&mut out, &HEADER, &[Arrival { seq, time_us: 0 }]), 1);
        let feedback = parse(&out).unwrap();
        assert_eq!((feedback.base_seq, feedback.status_count), (seq as u16, 1));
    }
}

proptest! {
    #[test]
    fn any_body_is_walked_within_its_count(
        count in any::<u16>(), rest in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let compound = message(0, count, 0, &rest);
        if let Ok(feedback) = parse(&compound) {
            prop_assert_eq!(feedback.statuses().count(), usize::from(count));
        }
    }

    #[test]
    fn written_arrivals_are_read_back(
        start in 65_536u64..1_000_000, lead in 0u64..40, time in -100_000_000i64..100_000_000,
        steps in prop::collection::vec(
            (prop_oneof![8 => Just(1u64), 2 => 2u64..20, 1 => 20u64..3_000],
             prop_oneof![6 => 0i64..40_000, 1 => -40_000i64..0, 1 => 0i64..9_000_000]),
            1..200),
    ) {
        let mut list = Vec::new();
        let (mut seq, mut time_us) = (start + lead, time);
        for (seq_step, time_step) in steps {
            list.push(Arrival { seq, time_us });
            seq += seq_step;
            time_us += time_step;
        }
        let mut header = FeedbackHeader { base_seq: start, ..HEADER };
        let mut read = Vec::new();
        let mut rest = &list[..];
        while !rest.is_empty() {
            let mut out = Vec::new();
            let covered = transport_cc(&mut out, &header, rest);
            prop_assert!(covered > 0);
            prop_assert!(out.len() <= MAX_FEEDBACK_LEN);
            let feedback = parse(&out).unwrap();
            prop_assert_eq!(feedback.statuses().count(), usize::from(feedback.status_count));
            read.extend(feedback.statuses().filter_map(|s| Some((s.seq, s.arrival_ticks?))));
            header.base_seq = rest[covered - 1].seq + 1;
            rest = &rest[covered..];
        }
        let expected: Vec<_> =
            list.iter().map(|a| (a.seq as u16, a.time_us.div_euclid(250))).collect();
        prop_assert_eq!(read, expected);
    }
}
