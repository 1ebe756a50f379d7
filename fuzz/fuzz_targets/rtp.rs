//! RTP view: header, contributing sources, extension block and its typed values, padding; the
//! header is written again and must read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_rtp::ext::{self, AbsCaptureTime, AbsSendTime, AudioLevel, FrameMarking, PlayoutDelay};
use sluice_rtp::{RtpHeaderWriter, RtpView, demux, rtx};

fuzz_target!(|packet: &[u8]| {
    demux::classify(packet);
    let Ok(view) = RtpView::parse(packet) else { return };
    assert_eq!(&packet[view.payload_range()], view.payload());
    assert_eq!(view.payload_range().end + usize::from(view.padding_len()), packet.len());
    assert_eq!(view.csrcs().count(), usize::from(view.csrc_count()));
    rtx::split(view.payload());

    let mut elements = Vec::new();
    for element in view.extensions() {
        let start = usize::from(element.offset);
        assert_eq!(&packet[start..start + element.data.len()], element.data);
        assert!(start + element.data.len() <= view.header_len());
        assert!(view.extension(element.id).is_some());
        values(element.data);
        elements.push((element.id, element.data));
    }
    write_again(&view, &elements);
});

fn values(data: &[u8]) {
    ext::parse_text(data);
    ext::parse_transport_cc(data);
    ext::parse_transmission_offset(data);
    ext::parse_screen_share(data);
    ext::VideoOrientation::parse(data);
    if let Some(level) = AudioLevel::parse(data) {
        assert_eq!(level.write()[0], data[0]);
    }
    if let Some(time) = AbsSendTime::parse(data) {
        time.to_duration();
        assert_eq!(time.write()[..], data[..3]);
    }
    if let Some(time) = AbsCaptureTime::parse(data) {
        time.capture.to_unix();
        let mut out = [0; AbsCaptureTime::MAX_LEN];
        let len = time.write(&mut out);
        assert_eq!(out[..len], data[..len]);
    }
    if let Some(delay) = PlayoutDelay::parse(data) {
        assert_eq!(delay.write()[..], data[..3]);
    }
    if let Some(marking) = FrameMarking::parse(data) {
        let mut out = [0; FrameMarking::MAX_LEN];
        let len = marking.write(&mut out);
        assert_eq!(FrameMarking::parse(&out[..len]), Some(marking));
    }
}

fn write_again(view: &RtpView<'_>, elements: &[(u8, &[u8])]) {
    let header = RtpHeaderWriter {
        marker: view.marker(),
        payload_type: view.payload_type(),
        sequence_number: view.sequence_number(),
        timestamp: view.timestamp(),
        ssrc: view.ssrc(),
        padding: false,
    };
    let mut out = vec![0xFF; RtpHeaderWriter::len_with(elements).expect("valid elements")];
    let len = header.write(elements, &mut out).expect("the exact length");
    assert_eq!(len, out.len());
    let read = RtpView::parse(&out).expect("a written header");
    assert_eq!(read.sequence_number(), view.sequence_number());
    assert_eq!(read.timestamp(), view.timestamp());
    assert_eq!(read.ssrc(), view.ssrc());
    assert!(read.payload().is_empty());
    assert!(read.extensions().map(|e| (e.id, e.data)).eq(elements.iter().copied()));
}
