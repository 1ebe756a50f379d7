//! RFC 5769 vectors, round trips and refusals.

use super::*;

const ID: TransactionId = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";

/// RFC 5769 §2.1, password `VOkJxbRl1RmTxUk/WvJxBt`. USERNAME is padded with spaces there.
const RFC5769_REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
    \x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\
    \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
    \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

/// RFC 5769 §2.2, IPv4 response to 192.0.2.1:32853.
const RFC5769_RESPONSE: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\
    \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
    \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
    \x80\x28\x00\x04\xc0\x7d\x4c\x96";

fn key() -> IntegrityKey {
    IntegrityKey::new("VOkJxbRl1RmTxUk/WvJxBt")
}

fn request(out: &mut Vec<u8>) {
    BindingRequest {
        transaction_id: ID,
        username: "evtj:h6vY",
        role: IceRole::Controlling(7),
        priority: 1,
        use_candidate: true,
    }
    .write(&key(), out);
}

#[test]
fn rfc_5769_request_verifies_with_its_password_only() {
    let message = Message::parse(RFC5769_REQUEST).unwrap();
    assert_eq!(message.class, Class::Request);
    assert!(message.is_binding());
    assert_eq!(message.username, Some("evtj:h6vY"));
    assert_eq!(message.priority, Some(0x6e00_01ff));
    assert_eq!(message.ice_controlled, Some(0x932f_f9b1_5126_3b36));
    assert!(message.unknown_required.is_empty());
    assert!(message.verify(&key()));
    assert!(!message.verify(&IntegrityKey::new("VOkJxbRl1RmTxUk/WvJxBu")));
    assert_eq!(peek_ufrag(RFC5769_REQUEST), Some("evtj"));
}

#[test]
fn rfc_5769_response_yields_the_mapped_address() {
    let message = Message::parse(RFC5769_RESPONSE).unwrap();
    assert_eq!(message.class, Class::Success);
    assert_eq!(message.mapped_address, Some("192.0.2.1:32853".parse().unwrap()));
    assert!(message.verify(&key()));
}

#[test]
fn written_messages_parse_and_verify() {
    let mut out = Vec::new();
    request(&mut out);
    let message = Message::parse(&out).unwrap();
    assert!(message.use_candidate && message.verify(&key()));
    assert_eq!(message.ice_controlling, Some(7));

    for addr in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
        let addr = addr.parse().unwrap();
        write_success(&ID, addr, &key(), &mut out);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.mapped_address, Some(addr));
        assert_eq!(message.transaction_id(), ID);
        assert!(message.verify(&key()));
    }
    write_role_conflict(&ID, &key(), &mut out);
    assert_eq!(Message::parse(&out).unwrap().error_code, Some(487));
    write_unknown_attributes(&ID, &[0x7001, 0x7002, 0x7003], &key(), &mut out);
    assert_eq!(Message::parse(&out).unwrap().error_code, Some(420));
}

#[test]
fn a_v4_mapped_source_is_answered_with_its_v4_address() {
    let mut out = Vec::new();
    write_success(&ID, "[::ffff:192.0.2.1]:5".parse().unwrap(), &key(), &mut out);
    let mapped = Message::parse(&out).unwrap().mapped_address;
    assert_eq!(mapped, Some("192.0.2.1:5".parse().unwrap()));
}

#[test]
fn any_flipped_bit_under_integrity_is_refused() {
    let mut out = Vec::new();
    request(&mut out);
    for bit in 0..(out.len() - 8) * 8 {
        let mut bad = out.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let accepted = Message::parse(&bad).is_ok_and(|message| message.verify(&key()));
        assert!(!accepted, "bit {bit}");
    }
}

#[test]
fn attributes_behind_message_integrity_are_ignored() {
    let mut out = Vec::new();
    start(&mut out, Class::Request, &ID);
    put(&mut out, attribute::USERNAME, b"a:b");
    let tag = integrity_tag(&key(), &out);
    put(&mut out, attribute::MESSAGE_INTEGRITY, tag.as_ref());
    put(&mut out, attribute::USE_CANDIDATE, &[]);
    let length = (out.len() - HEADER_LEN) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    let message = Message::parse(&out).unwrap();
    assert!(message.verify(&key()));
    assert!(!message.use_candidate);
}

#[test]
fn unknown_comprehension_required_attributes_are_reported() {
    let mut out = Vec::new();
    start(&mut out, Class::Request, &ID);
    put(&mut out, 0x7FFF, b"?");
    put(&mut out, 0xC057, &[0, 0, 0, 0]);
    finish(&mut out, &key());
    let message = Message::parse(&out).unwrap();
    assert_eq!(message.unknown_required.as_slice(), [0x7FFF]);
}

#[test]
fn of_two_usernames_the_first_counts_everywhere() {
    let mut out = Vec::new();
    start(&mut out, Class::Request, &ID);
    put(&mut out, attribute::USERNAME, b"first:x");
    put(&mut out, attribute::USERNAME, b"second:x");
    finish(&mut out, &key());
    assert_eq!(Message::parse(&out).unwrap().username, Some("first:x"));
    assert_eq!(peek_ufrag(&out), Some("first"));
}

#[test]
fn truncated_or_overlong_datagrams_are_refused() {
    let mut out = Vec::new();
    request(&mut out);
    for len in 0..out.len() {
        assert!(Message::parse(&out[..len]).is_err());
    }
    out.extend_from_slice(&[0; 4]);
    assert_eq!(Message::parse(&out).unwrap_err(), StunError::Header);
}
