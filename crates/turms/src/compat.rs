//! What Turms' stock `turms-plugin-livekit` sends and expects on the Twirp surface.
//!
//! The plugin writes protobuf request bodies with a varint length in front and reads the reply the
//! same way, which no LiveKit server understands. Both forms are told apart here: a body is taken
//! bare when it parses with a non-empty room name, and delimited when its first varint is the
//! length of a rest that does. No delimited body of the plugin parses bare with a name, so that
//! other clients never meet this path.

/// Field 1 of both `CreateRoomRequest` (`name`) and `DeleteRoomRequest` (`room`).
const ROOM_NAME_FIELD: u64 = 1;

/// Bytes of the longest varint (protobuf encoding specification).
const MAX_VARINT: usize = 10;

/// How the body of a request was framed; the reply takes the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A protobuf message alone, as Twirp has it.
    Bare,
    /// A varint with the message's length, then the message.
    Delimited,
}

/// Finds the framing of a CreateRoom or DeleteRoom body and returns the bare message.
/// A body that is neither is returned as [`Framing::Bare`] for the ordinary parser to refuse.
pub fn unframe(body: &[u8]) -> (Framing, &[u8]) {
    if has_room_name(body) {
        return (Framing::Bare, body);
    }
    match varint(body) {
        Some((length, rest)) if length == rest.len() as u64 && has_room_name(rest) => {
            (Framing::Delimited, rest)
        }
        _ => (Framing::Bare, body),
    }
}

/// Puts a reply into the framing of its request.
pub fn frame(framing: Framing, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + MAX_VARINT);
    if framing == Framing::Delimited {
        let mut length = message.len() as u64;
        while length >= 0x80 {
            out.push((length as u8) | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(message);
    out
}

/// Whether the bytes are a well-formed message with a non-empty UTF-8 string in field 1.
fn has_room_name(mut body: &[u8]) -> bool {
    let mut named = false;
    while !body.is_empty() {
        let Some((key, rest)) = varint(body) else { return false };
        let (field, wire_type) = (key >> 3, key & 7);
        let Some((value, rest)) = field_value(wire_type, rest) else { return false };
        if field == 0 {
            return false;
        }
        if field == ROOM_NAME_FIELD {
            match value {
                Some(text) if std::str::from_utf8(text).is_ok() => named = !text.is_empty(),
                _ => return false,
            }
        }
        body = rest;
    }
    named
}

/// Skips one value; returns its bytes when it is length-delimited. Groups are not accepted.
fn field_value(wire_type: u64, bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    match wire_type {
        0 => varint(bytes).map(|(_, rest)| (None, rest)),
        1 => bytes.get(8..).map(|rest| (None, rest)),
        2 => {
            let (length, rest) = varint(bytes)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Some(value), rest))
        }
        5 => bytes.get(4..).map(|rest| (None, rest)),
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `CreateRoom{"123456789", 3600, 100}` as the plugin writes it.
    const CREATE: [u8; 17] = [
        0x10, 0x0a, 0x09, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x10, 0x90, 0x1c,
        0x18, 0x64,
    ];
    /// `DeleteRoom{"123456789"}` as the plugin writes it.
    const DELETE: [u8; 12] =
        [0x0b, 0x0a, 0x09, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39];

    #[test]
    fn bodies_of_the_stock_plugin_are_delimited() {
        assert_eq!(unframe(&CREATE), (Framing::Delimited, &CREATE[1..]));
        assert_eq!(unframe(&DELETE), (Framing::Delimited, &DELETE[1..]));
    }

    #[test]
    fn the_same_bodies_without_the_length_are_bare() {
        assert_eq!(unframe(&CREATE[1..]), (Framing::Bare, &CREATE[1..]));
        assert_eq!(unframe(&DELETE[1..]), (Framing::Bare, &DELETE[1..]));
    }

    #[test]
    fn anything_else_goes_to_the_ordinary_parser() {
        for body in [&[][..], &[0], &[5, 1, 2], &[0x0a, 0x00], &[0xff; 12], &[1, 0x0a, 0x00]] {
            assert_eq!(unframe(body), (Framing::Bare, body));
        }
    }

    #[test]
    fn replies_take_the_form_of_the_request() {
        let message = vec![7u8; 300];
        assert_eq!(frame(Framing::Bare, &message), message);
        let framed = frame(Framing::Delimited, &message);
        assert_eq!(framed[..2], [0xac, 0x02]);
        assert_eq!(framed[2..], message[..]);
    }

    fn create_room(id: u64, timeout: u64, max: u64) -> Vec<u8> {
        let name = id.to_string();
        let mut body = vec![0x0a, name.len() as u8];
        body.extend_from_slice(name.as_bytes());
        for (key, mut value) in [(0x10u8, timeout), (0x18, max)] {
            body.push(key);
            while value >= 0x80 {
                body.push(value as u8 | 0x80);
                value >>= 7;
            }
            body.push(value as u8);
        }
        body
    }

    proptest! {
        #[test]
        fn framing_is_told_apart_for_every_meeting(id in 1u64..10_000_000_000, pair in any::<bool>()) {
            let bare = create_room(id, 3600, if pair { 2 } else { 100 });
            let delimited = frame(Framing::Delimited, &bare);
            prop_assert_eq!(unframe(&bare), (Framing::Bare, &bare[..]));
            prop_assert_eq!(unframe(&delimited), (Framing::Delimited, &bare[..]));
        }

        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (framing, message) = unframe(&body);
            prop_assert!(framing == Framing::Bare || message.len() < body.len());
        }
    }
}
