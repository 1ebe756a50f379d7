//! Feedback writers: values are taken from the input, written, parsed, and must come back. The
//! first byte chooses the message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_rtp::rtcp::write::{self, Arrival, FeedbackHeader, MAX_FEEDBACK_LEN};
use sluice_rtp::{Rtcp, RtcpIter};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, data)) = input.split_first() else { return };
    match choice % 3 {
        0 => transport_cc(data),
        1 => remb(data),
        _ => nack(data),
    }
});

/// Each 4 bytes: 12 bits of sequence step, 20 bits of signed time step in units of 64 us.
fn transport_cc(data: &[u8]) {
    let (words, _) = data.as_chunks::<4>();
    let (mut seq, mut time_us) = (1u64 << 20, 0i64);
    let mut arrivals = Vec::new();
    for word in words {
        let word = u32::from_be_bytes(*word);
        seq += u64::from(word >> 20) + 1;
        time_us += i64::from((word << 12) as i32 >> 12) * 64;
        arrivals.push(Arrival { seq, time_us });
    }
    let mut header =
        FeedbackHeader { sender_ssrc: 1, media_ssrc: 2, base_seq: 1 << 20, feedback_count: 0 };
    let mut rest = &arrivals[..];
    while let Some(first) = rest.first() {
        let mut out = Vec::new();
        let covered = write::transport_cc(&mut out, &header, rest);
        assert!(covered > 0 && out.len() <= MAX_FEEDBACK_LEN && out.len() % 4 == 0);
        let Some(Ok(Rtcp::TransportCc(feedback))) = RtcpIter::new(&out).next() else {
            panic!("not transport feedback")
        };
        assert_eq!(feedback.base_seq, header.base_seq as u16);
        let reference = i64::from(feedback.reference_time) * 256;
        // The reference time has 24 bits; compare on its circle.
        let base = first.time_us.div_euclid(250).div_euclid(256) * 256 - reference;
        let read = feedback.statuses().filter_map(|s| Some((s.seq, s.arrival_ticks? + base)));
        let expected = rest[..covered].iter().map(|a| (a.seq as u16, a.time_us.div_euclid(250)));
        assert!(read.eq(expected));
        header.base_seq = rest[covered - 1].seq + 1;
        header.feedback_count = header.feedback_count.wrapping_add(1);
        rest = &rest[covered..];
    }
}

fn remb(data: &[u8]) {
    let Some((bitrate, data)) = data.split_first_chunk::<8>() else { return };
    let bitrate = u64::from_be_bytes(*bitrate);
    let (words, _) = data.as_chunks::<4>();
    let ssrcs: Vec<u32> = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
    let mut out = Vec::new();
    write::remb(&mut out, 1, bitrate, &ssrcs);
    let Some(Ok(Rtcp::Remb(remb))) = RtcpIter::new(&out).next() else { panic!("not a REMB") };
    assert!(remb.bitrate_bps <= bitrate && bitrate - remb.bitrate_bps <= bitrate >> 17);
    assert!(remb.ssrcs().eq(ssrcs.into_iter().take(255)));
}

fn nack(data: &[u8]) {
    let mut seq = 0u16;
    let seqs: Vec<u16> = data
        .iter()
        .map(|step| {
            seq = seq.wrapping_add(u16::from(*step) + 1);
            seq
        })
        .collect();
    let mut out = Vec::new();
    write::nack(&mut out, 1, 2, seqs.iter().copied());
    let read: Vec<u16> = RtcpIter::new(&out)
        .flat_map(|packet| match packet {
            Ok(Rtcp::Nack(nack)) => nack.seqs().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(read, seqs);
}
