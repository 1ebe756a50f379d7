//! What a received RTP packet may look like, and that written headers read back.

use proptest::prelude::*;
use sluice_rtp::packet::{ExtensionElement, write_padding};
use sluice_rtp::{RtpError, RtpHeaderWriter, RtpView};

/// Version 2, payload type 96 with marker, sequence number 0x1234, two bytes of payload.
const PLAIN: [u8; 14] = [0x80, 0xE0, 0x12, 0x34, 0, 0, 0, 100, 0xCA, 0xFE, 0xBA, 0xBE, 1, 2];

/// `PLAIN` with other flags in the first byte and `tail` in place of the payload.
fn packet(flags: u8, tail: &[u8]) -> Vec<u8> {
    let mut packet = PLAIN[..12].to_vec();
    packet[0] |= flags;
    packet.extend_from_slice(tail);
    packet
}

fn error(flags: u8, tail: &[u8]) -> RtpError {
    RtpView::parse(&packet(flags, tail)).unwrap_err()
}

/// Ids and data of all extension elements.
fn elements(packet: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let view = RtpView::parse(packet).unwrap();
    view.extensions().map(|element| (element.id, element.data.to_vec())).collect()
}

#[test]
fn fixed_fields_are_read() {
    let view = RtpView::parse(&PLAIN).unwrap();
    assert!(view.marker());
    assert_eq!(view.payload_type(), 96);
    assert_eq!(view.sequence_number(), 0x1234);
    assert_eq!(view.timestamp(), 100);
    assert_eq!(view.ssrc(), 0xCAFE_BABE);
    assert_eq!(view.header_len(), 12);
    assert_eq!(view.payload(), [1, 2]);
    assert_eq!(view.payload_range(), 12..14);
    assert_eq!(view.extensions().count(), 0);
}

#[test]
fn a_header_alone_has_an_empty_payload() {
    let view = RtpView::parse(&PLAIN[..12]).unwrap();
    assert!(view.payload().is_empty());
    assert_eq!(view.header_len(), 12);
}

#[test]
fn short_packets_and_other_versions_are_refused() {
    for len in 0..12 {
        assert_eq!(RtpView::parse(&PLAIN[..len]).unwrap_err(), RtpError::TooShort(len));
    }
    for version in [0u8, 1, 3] {
        let mut packet = PLAIN;
        packet[0] = version << 6;
        assert_eq!(RtpView::parse(&packet).unwrap_err(), RtpError::Version(version));
    }
    assert_eq!(RtpView::parse(&[0x80; 65_536]).unwrap_err(), RtpError::TooLong(65_536));
}

#[test]
fn contributing_sources_lie_between_header_and_payload() {
    let packet = packet(0x02, &[0, 0, 0, 1, 0, 0, 0, 2, 9]);
    let view = RtpView::parse(&packet).unwrap();
    assert_eq!(view.csrc_count(), 2);
    assert_eq!(view.csrcs().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(view.payload(), [9]);
}

#[test]
fn contributing_sources_beyond_the_packet_are_refused() {
    assert_eq!(error(0x02, &[0, 0, 0, 1, 0, 0, 0]), RtpError::Csrc);
    assert_eq!(error(0x0F, &[0; 59]), RtpError::Csrc);
    assert!(RtpView::parse(&packet(0x0F, &[0; 60])).is_ok());
}

#[test]
fn extension_bit_with_truncated_extension_header_is_refused() {
    for len in 0..4 {
        assert_eq!(error(0x10, &[0xBE, 0xDE, 0, 0][..len]), RtpError::Extension, "{len}");
    }
    assert_eq!(error(0x10, &[0xBE, 0xDE, 0, 1, 0x10, 0, 0]), RtpError::Extension);
    assert_eq!(error(0x10, &[0xBE, 0xDE, 0xFF, 0xFF, 0, 0, 0, 0]), RtpError::Extension);
}

#[test]
fn an_empty_extension_block_is_fine() {
    let packet = packet(0x10, &[0xBE, 0xDE, 0, 0, 7]);
    let view = RtpView::parse(&packet).unwrap();
    assert_eq!(view.header_len(), 16);
    assert_eq!(view.payload(), [7]);
    assert_eq!(view.extensions().count(), 0);
}

#[test]
fn padding_is_not_payload() {
    let packet = packet(0x20, &[1, 2, 0, 0, 3]);
    let view = RtpView::parse(&packet).unwrap();
    assert_eq!(view.payload(), [1, 2]);
    assert_eq!(view.padding_len(), 3);
    assert_eq!(view.header_len(), 12);
}

#[test]
fn a_packet_may_be_all_padding() {
    let packet = packet(0x20, &[0, 0, 0, 4]);
    let view = RtpView::parse(&packet).unwrap();
    assert!(view.payload().is_empty());
    assert_eq!(view.payload_range(), 12..12);
}

#[test]
fn padding_of_zero_or_into_the_header_is_refused() {
    assert_eq!(error(0x20, &[]), RtpError::Padding(0));
    assert_eq!(error(0x20, &[1, 2, 0]), RtpError::Padding(0));
    assert_eq!(error(0x20, &[1, 2, 4]), RtpError::Padding(4));
    assert_eq!(error(0x20, &[255]), RtpError::Padding(255));
    // The count must not come from the extension block either.
    assert_eq!(error(0x30, &[0xBE, 0xDE, 0, 1, 0x10, 0, 0, 1]), RtpError::Padding(0));
}

#[test]
fn one_byte_elements_with_padding_between_them() {
    // RFC 8285 §4.2: id 1 with one byte, padding, id 2 with three bytes, padding.
    let tail = [0xBE, 0xDE, 0, 2, 0x10, 0xAA, 0, 0x22, 1, 2, 3, 0, 9];
    assert_eq!(elements(&packet(0x10, &tail)), [(1, vec![0xAA]), (2, vec![1, 2, 3])]);
}

#[test]
fn two_byte_elements_may_be_empty() {
    // RFC 8285 §4.3: id 1 empty, id 200 with one byte, padding, id 3 with two bytes.
    let tail = [0x10, 0x05, 0, 3, 1, 0, 200, 1, 0xAA, 0, 3, 2, 7, 8, 0, 0];
    let expected = [(1, vec![]), (200, vec![0xAA]), (3, vec![7, 8])];
    assert_eq!(elements(&packet(0x10, &tail)), expected);
}

#[test]
fn element_that_reaches_beyond_the_block_ends_the_walk() {
    assert_eq!(elements(&packet(0x10, &[0xBE, 0xDE, 0, 1, 0x10, 1, 0x22, 5])), [(1, vec![1])]);
    assert_eq!(elements(&packet(0x10, &[0x10, 0, 0, 1, 1, 9, 5, 6])), []);
    assert_eq!(elements(&packet(0x10, &[0x10, 0, 0, 1, 0, 0, 0, 6])), []);
}

#[test]
fn reserved_ids_end_the_walk() {
    let with_15 = [0xBE, 0xDE, 0, 2, 0x10, 1, 0xF0, 2, 0x20, 3, 0, 0];
    assert_eq!(elements(&packet(0x10, &with_15)), [(1, vec![1])]);
    let with_0_and_length = [0xBE, 0xDE, 0, 2, 0x10, 1, 0x01, 2, 3, 0x20, 3, 0];
    assert_eq!(elements(&packet(0x10, &with_0_and_length)), [(1, vec![1])]);
}

#[test]
fn unknown_profiles_have_no_elements() {
    assert_eq!(elements(&packet(0x10, &[0xAB, 0xCD, 0, 1, 0x10, 1, 0, 0])), []);
}

#[test]
fn an_element_is_found_with_its_place_in_the_packet() {
    let packet = packet(0x11, &[0, 0, 0, 9, 0xBE, 0xDE, 0, 1, 0, 0x31, 5, 6, 7]);
    let view = RtpView::parse(&packet).unwrap();
    assert_eq!(view.extension(3), Some(&[5u8, 6][..]));
    assert_eq!(view.extension(4), None);
    let range = view.extension_range(3).unwrap();
    assert_eq!(range, 22..24);
    assert_eq!(packet[range], [5, 6]);
    assert_eq!(
        view.extensions().next(),
        Some(ExtensionElement { id: 3, offset: 22, data: &[5, 6] })
    );
}

#[test]
fn the_writer_takes_the_one_byte_form_while_it_can() {
    let header = RtpHeaderWriter {
        marker: true,
        payload_type: 111,
        sequence_number: 7,
        timestamp: 8,
        ssrc: 9,
        padding: false,
    };
    let mut out = [0xFF; 64];
    let len = header.write(&[(1, &[0xAA]), (14, &[1, 2, 3])], &mut out).unwrap();
    assert_eq!(len, 24);
    assert_eq!(out[12..24], [0xBE, 0xDE, 0, 2, 0x10, 0xAA, 0xE2, 1, 2, 3, 0, 0]);
    for extensions in [&[(15u8, &[1u8][..])], &[(1, &[])], &[(1, &[0; 17])]] {
        header.write(extensions, &mut out).unwrap();
        assert_eq!(out[12..14], [0x10, 0x00]);
    }
}

#[test]
fn the_writer_refuses_what_does_not_fit() {
    let header = RtpHeaderWriter {
        marker: false,
        payload_type: 0,
        sequence_number: 0,
        timestamp: 0,
        ssrc: 0,
        padding: false,
    };
    let mut out = [0; 300];
    assert_eq!(header.write(&[], &mut out[..11]), Err(RtpError::BufferTooSmall));
    assert_eq!(header.write(&[(1, &[1])], &mut out[..19]), Err(RtpError::BufferTooSmall));
    assert_eq!(
        header.write(&[(0, &[1])], &mut out),
        Err(RtpError::ExtensionElement { id: 0, len: 1 })
    );
    assert_eq!(
        header.write(&[(1, &[0; 256])], &mut out),
        Err(RtpError::ExtensionElement { id: 1, len: 256 })
    );
}

#[test]
fn written_padding_is_stripped_again() {
    let mut packet = packet(0x20, &[0xFF; 10]);
    assert_eq!(write_padding(&mut packet[14..]), Some(8));
    let view = RtpView::parse(&packet).unwrap();
    assert_eq!((view.payload(), view.padding_len()), (&[0xFF, 0xFF][..], 8));
    assert_eq!(write_padding(&mut []), None);
    assert_eq!(write_padding(&mut [0; 256]), None);
}

proptest! {
    #[test]
    fn any_bytes_give_slices_within_the_packet(
        mut packet in prop::collection::vec(any::<u8>(), 0..200), version_2 in any::<bool>(),
    ) {
        if let Some(first) = packet.first_mut().filter(|_| version_2) {
            *first = 0x80 | (*first & 0x3F);
        }
        if let Ok(view) = RtpView::parse(&packet) {
            prop_assert_eq!(&packet[view.payload_range()], view.payload());
            let end = view.payload_range().end + usize::from(view.padding_len());
            prop_assert_eq!(end, packet.len());
            for element in view.extensions() {
                let start = usize::from(element.offset);
                prop_assert_eq!(&packet[start..start + element.data.len()], element.data);
                prop_assert!(start + element.data.len() <= view.header_len());
            }
        }
    }

    #[test]
    fn written_headers_are_read_back(
        marker in any::<bool>(), payload_type in 0u8..128, sequence_number in any::<u16>(),
        timestamp in any::<u32>(), ssrc in any::<u32>(),
        extensions in prop::collection::vec(
            (1u8..=20, prop::collection::vec(any::<u8>(), 0..20)), 0..6),
        payload in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let header = RtpHeaderWriter {
            marker, payload_type, sequence_number, timestamp, ssrc, padding: false,
        };
        let list: Vec<(u8, &[u8])> =
            extensions.iter().map(|(id, data)| (*id, &data[..])).collect();
        let mut out = vec![0xFF; 256];
        let len = header.write(&list, &mut out).unwrap();
        prop_assert_eq!(RtpHeaderWriter::len_with(&list), Ok(len));
        out.truncate(len);
        out.extend_from_slice(&payload);
        let view = RtpView::parse(&out).unwrap();
        let read = RtpHeaderWriter {
            marker: view.marker(),
            payload_type: view.payload_type(),
            sequence_number: view.sequence_number(),
            timestamp: view.timestamp(),
            ssrc: view.ssrc(),
            padding: false,
        };
        prop_assert_eq!(read, header);
        prop_assert_eq!(view.payload(), &payload[..]);
        let read: Vec<_> = view.extensions().map(|e| (e.id, e.data)).collect();
        prop_assert_eq!(read, list);
    }
}
