//! RTCP compounds: what is read from malformed ones, and that written packets read back.

use proptest::prelude::*;
use sluice_rtp::rtcp::{ReportBlock, SenderInfo, is_rtcp, nack_pairs, write};
use sluice_rtp::{NtpTime, Rtcp, RtcpError, RtcpIter};

/// The only packet of a compound.
fn only(compound: &[u8]) -> Rtcp<'_> {
    let mut iter = RtcpIter::new(compound);
    let packet = iter.next().unwrap().unwrap();
    assert!(iter.next().is_none());
    packet
}

/// The errors of a compound.
fn errors(compound: &[u8]) -> Vec<RtcpError> {
    RtcpIter::new(compound).filter_map(Result::err).collect()
}

fn block(ssrc: u32) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: 12,
        cumulative_lost: -3,
        highest_seq: 0x0001_0002,
        jitter: 77,
        last_sr: 0xAABB_CCDD,
        delay_since_last_sr: 65_536,
    }
}

#[test]
fn receiver_report_of_rfc_3550() {
    let compound = [
        0x81, 201, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0x40, 0xFF, 0xFF, 0xFE, 0, 1, 0, 9, 0, 0, 0, 5, 1,
        2, 3, 4, 0, 1, 0, 0,
    ];
    let Rtcp::ReceiverReport(report) = only(&compound) else { panic!("not a receiver report") };
    assert_eq!(report.sender_ssrc, 1);
    let expected = ReportBlock {
        ssrc: 2,
        fraction_lost: 0x40,
        cumulative_lost: -2,
        highest_seq: 0x0001_0009,
        jitter: 5,
        last_sr: 0x0102_0304,
        delay_since_last_sr: 0x0001_0000,
    };
    assert_eq!(report.blocks.iter().collect::<Vec<_>>(), [expected]);
}

#[test]
fn sender_report_with_description_and_goodbye_is_one_compound() {
    let info = SenderInfo {
        ssrc: 10,
        ntp: NtpTime::from_bits(0x0102_0304_0506_0708),
        rtp_timestamp: 90_000,
        packet_count: 100,
        octet_count: 100_000,
    };
    let mut out = Vec::new();
    write::sender_report(&mut out, &info, &[block(20)]);
    write::sdes_cname(&mut out, 10, "PA_abc|TR_def");
    write::bye(&mut out, &[10, 11]);
    assert!(is_rtcp(&out));

    let packets: Vec<_> = RtcpIter::new(&out).map(Result::unwrap).collect();
    let [Rtcp::SenderReport(report), Rtcp::Sdes(sdes), Rtcp::Bye(bye)] = &packets[..] else {
        panic!("{packets:?}")
    };
    assert_eq!(report.info, info);
    assert_eq!(report.blocks.iter().collect::<Vec<_>>(), [block(20)]);
    let chunk = sdes.chunks().next().unwrap();
    assert_eq!((chunk.ssrc, chunk.cname()), (10, Some(&b"PA_abc|TR_def"[..])));
    assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [10, 11]);
    assert!(bye.reason().is_empty());
}

#[test]
fn canonical_names_of_every_length_end_in_a_zero_octet() {
    for len in 0..=300 {
        let mut out = Vec::new();
        write::sdes_cname(&mut out, 1, &"x".repeat(len));
        assert_eq!(out.len() % 4, 0);
        let Rtcp::Sdes(sdes) = only(&out) else { panic!("not a description") };
        let chunk = sdes.chunks().next().unwrap();
        assert_eq!(chunk.cname().map(<[u8]>::len), Some(len.min(255)));
    }
}

#[test]
fn more_than_31_report_blocks_become_several_packets() {
    let blocks: Vec<_> = (0..70).map(block).collect();
    let mut out = Vec::new();
    write::sender_report(&mut out, &SenderInfo::default(), &blocks);
    let mut read = Vec::new();
    for packet in RtcpIter::new(&out) {
        match packet.unwrap() {
            Rtcp::SenderReport(report) => read.extend(report.blocks),
            Rtcp::ReceiverReport(report) => read.extend(report.blocks),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(read, blocks);
}

#[test]
fn an_empty_receiver_report_is_written() {
    let mut out = Vec::new();
    write::receiver_report(&mut out, 5, &[]);
    assert_eq!(out, [0x80, 201, 0, 1, 0, 0, 0, 5]);
}

#[test]
fn nack_of_rfc_4585_has_a_packet_id_and_a_mask() {
    let compound = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0xFF, 0xFE, 0x80, 0x05];
    let Rtcp::Nack(nack) = only(&compound) else { panic!("not a NACK") };
    assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
    assert_eq!(nack.seqs().collect::<Vec<_>>(), [0xFFFE, 0xFFFF, 1, 14]);
}

#[test]
fn nack_pairs_reach_over_16_numbers_and_the_wrap() {
    let pairs = |seqs: &[u16]| nack_pairs(seqs.iter().copied()).collect::<Vec<_>>();
    assert_eq!(pairs(&[]), []);
    assert_eq!(pairs(&[5, 6, 21]), [(5, 0x8001)]);
    assert_eq!(pairs(&[5, 22]), [(5, 0), (22, 0)]);
    assert_eq!(pairs(&[65_535, 0, 0, 15]), [(65_535, 0x8001)]);
}

#[test]
fn long_nack_lists_become_several_packets() {
    let seqs: Vec<u16> = (0..1_000).map(|index| index * 20).collect();
    let mut out = Vec::new();
    write::nack(&mut out, 1, 2, seqs.iter().copied());
    let mut read = Vec::new();
    let mut packets = 0;
    for packet in RtcpIter::new(&out) {
        let Rtcp::Nack(nack) = packet.unwrap() else { panic!("not a NACK") };
        read.extend(nack.seqs());
        packets += 1;
    }
    assert_eq!((read, packets), (seqs, 4));
    let mut none = Vec::new();
    write::nack(&mut none, 1, 2, []);
    assert!(none.is_empty());
}

#[test]
fn key_frame_requests_name_their_stream() {
    let mut out = Vec::new();
    write::pli(&mut out, 1, 2);
    write::fir(&mut out, 1, 3, 9);
    assert_eq!(out[..12], [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    let packets: Vec<_> = RtcpIter::new(&out).map(Result::unwrap).collect();
    let [Rtcp::Pli(pli), Rtcp::Fir(fir)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!((pli.sender_ssrc, pli.media_ssrc), (1, 2));
    assert_eq!(fir.entries().collect::<Vec<_>>(), [(3, 9)]);
}

#[test]
fn remb_of_the_draft_has_mantissa_and_exponent() {
    // draft-alvestrand-rmcat-remb-03 §2.2: 6 bits exponent, 18 bits mantissa. 0x3FB85 << 3.
    let compound = [
        0x8F, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x0F, 0xFB, 0x85, 0x48,
        0xF5, 0x0B, 0x35,
    ];
    let Rtcp::Remb(remb) = only(&compound) else { panic!("not a REMB") };
    assert_eq!(remb.bitrate_bps, 0x3_FB85 << 3);
    assert_eq!(remb.ssrcs().collect::<Vec<_>>(), [0x48F5_0B35]);
}

#[test]
fn remb_beyond_64_bits_saturates() {
    let compound =
        [0x8F, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0, 0xFF, 0xFF, 0xFF];
    let Rtcp::Remb(remb) = only(&compound) else { panic!("not a REMB") };
    assert_eq!(remb.bitrate_bps, u64::MAX);
}

#[test]
fn remb_with_fewer_streams_than_it_says_is_malformed() {
    let compound =
        [0x8F, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x0F, 0xFB, 0x85];
    assert_eq!(errors(&compound), [RtcpError::Body(206)]);
}

#[test]
fn application_feedback_that_is_not_remb_is_passed_by() {
    let compound = [0x8F, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'L', b'N', b'T', b'F'];
    let Rtcp::Other { packet_type, count, body } = only(&compound) else { panic!("not other") };
    assert_eq!((packet_type, count, body.len()), (206, 15, 12));
}

#[test]
fn extended_report_blocks_are_walked() {
    let compound = [0x80, 207, 0, 5, 0, 0, 0, 1, 4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 5, 9, 0, 0];
    let Rtcp::ExtendedReport(report) = only(&compound) else { panic!("not an extended report") };
    let blocks: Vec<_> = report.blocks().map(|b| (b.block_type, b.content.len())).collect();
    assert_eq!((report.sender_ssrc, blocks), (1, vec![(4, 8), (5, 0)]));
}

#[test]
fn a_broken_header_ends_the_walk_with_one_error() {
    assert_eq!(errors(&[0x81, 205]), [RtcpError::Truncated]);
    assert_eq!(errors(&[0x81, 205, 0, 3, 0, 0, 0, 1]), [RtcpError::Truncated]);
    assert_eq!(errors(&[0x41, 205, 0, 0, 0x81, 205, 0, 0]), [RtcpError::Version(1)]);
    assert_eq!(RtcpIter::new(&[]).count(), 0);
}

#[test]
fn a_broken_body_does_not_hide_the_packets_after_it() {
    let mut out = vec![0x81, 201, 0, 1, 0, 0, 0, 1];
    write::pli(&mut out, 1, 2);
    let packets: Vec<_> = RtcpIter::new(&out).collect();
    assert!(matches!(packets[..], [Err(RtcpError::Body(201)), Ok(Rtcp::Pli(_))]));
}

#[test]
fn padding_is_cut_and_checked() {
    let padded = [0xA1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
    let Rtcp::Pli(pli) = only(&padded) else { panic!("not a PLI") };
    assert_eq!(pli.media_ssrc, 2);
    for count in [0, 13, 255] {
        let mut broken = padded;
        broken[15] = count;
        assert_eq!(errors(&broken), [RtcpError::Padding], "{count}");
    }
    assert_eq!(errors(&[0xA0, 201, 0, 0]), [RtcpError::Padding]);
}

#[test]
fn counts_beyond_the_packet_are_malformed() {
    assert_eq!(errors(&[0x82, 203, 0, 1, 0, 0, 0, 1]), [RtcpError::Body(203)]);
    assert_eq!(errors(&[0x81, 203, 0, 2, 0, 0, 0, 1, 9, 0, 0, 0]), [RtcpError::Body(203)]);
    assert_eq!(errors(&[0x82, 202, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0]), [RtcpError::Body(202)]);
    assert_eq!(errors(&[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 9, 0, 0]), [RtcpError::Body(202)]);
    assert_eq!(errors(&[0x81, 200, 0, 1, 0, 0, 0, 1]), [RtcpError::Body(200)]);
}

proptest! {
    #[test]
    fn any_compound_is_walked_to_an_end(
        mut compound in prop::collection::vec(any::<u8>(), 0..128), packet_type in 200u8..208,
    ) {
        if compound.len() >= 4 {
            compound[0] = 0x80 | (compound[0] & 0x3F);
            compound[1] = packet_type;
            compound[2] = 0;
            compound[3] %= 32;
        }
        prop_assert!(RtcpIter::new(&compound).count() <= compound.len() / 4 + 1);
    }

    #[test]
    fn nacked_numbers_are_read_back(
        start in any::<u16>(), steps in prop::collection::vec(1u16..40, 1..400),
    ) {
        let seqs: Vec<u16> = steps
            .iter()
            .scan(start, |seq, step| {
                *seq = seq.wrapping_add(*step);
                Some(*seq)
            })
            .collect();
        let mut out = Vec::new();
        write::nack(&mut out, 1, 2, seqs.iter().copied());
        let read: Vec<u16> = RtcpIter::new(&out)
            .filter_map(Result::ok)
            .flat_map(|packet| match packet {
                Rtcp::Nack(nack) => nack.seqs().collect(),
                _ => Vec::new(),
            })
            .collect();
        prop_assert_eq!(read, seqs);
    }

    #[test]
    fn remb_loses_less_than_one_in_131072(bitrate in any::<u64>(), count in 0usize..300) {
        let ssrcs: Vec<u32> = (0..count as u32).collect();
        let mut out = Vec::new();
        write::remb(&mut out, 1, bitrate, &ssrcs);
        let Rtcp::Remb(remb) = only(&out) else { panic!("not a REMB") };
        prop_assert!(remb.bitrate_bps <= bitrate);
        prop_assert!(bitrate - remb.bitrate_bps <= bitrate >> 17);
        prop_assert_eq!(remb.ssrcs().count(), count.min(255));
    }

    #[test]
    fn report_blocks_are_read_back(
        ssrc in any::<u32>(), fraction_lost in any::<u8>(), cumulative_lost in any::<i32>(),
        highest_seq in any::<u32>(), jitter in any::<u32>(), last_sr in any::<u32>(),
        delay_since_last_sr in any::<u32>(),
    ) {
        let block = ReportBlock {
            ssrc, fraction_lost, cumulative_lost, highest_seq, jitter, last_sr,
            delay_since_last_sr,
        };
        let mut out = Vec::new();
        write::receiver_report(&mut out, 1, &[block]);
        let Rtcp::ReceiverReport(report) = only(&out) else { panic!("not a receiver report") };
        let saturated = cumulative_lost.clamp(-0x80_0000, 0x7F_FFFF);
        let expected = ReportBlock { cumulative_lost: saturated, ..block };
        prop_assert_eq!(report.blocks.iter().next(), Some(expected));
    }
}
