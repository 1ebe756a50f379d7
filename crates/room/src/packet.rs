//! One data packet as bytes: who sent it is written by us, to whom it goes is read from it,
//! everything else passes through untouched, including fields that we do not know.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, decode_varint, encode_key, encode_varint};
use sluice_proto as proto;

/// Destinations that one packet may name.
const MAX_DESTINATIONS: usize = 10_000;

/// Field numbers of `DataPacket`.
mod field {
    pub(super) const KIND: u32 = 1;
    pub(super) const USER: u32 = 2;
    pub(super) const SPEAKER: u32 = 3;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 4;
    pub(super) const DESTINATION_IDENTITIES: u32 = 5;
    pub(super) const TRANSCRIPTION: u32 = 7;
    pub(super) const METRICS: u32 = 8;
    pub(super) const CHAT_MESSAGE: u32 = 9;
    pub(super) const STREAM_HEADER: u32 = 13;
    pub(super) const STREAM_TRAILER: u32 = 15;
    pub(super) const SEQUENCE: u32 = 16;
    pub(super) const PARTICIPANT_SID: u32 = 17;
}

/// Field numbers of `UserPacket`.
mod user_field {
    pub(super) const PARTICIPANT_SID: u32 = 1;
    pub(super) const DESTINATION_SIDS: u32 = 3;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 5;
    pub(super) const DESTINATION_IDENTITIES: u32 = 6;
}

/// Where a packet goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    /// Identities of the receivers.
    pub identities: Vec<String>,
    /// SIDs of the receivers (older clients).
    pub sids: Vec<String>,
}

impl Destinations {
    /// Whether a participant is meant: named, or nobody is named.
    pub fn includes(&self, identity: &str, sid: &str) -> bool {
        self.identities.is_empty() && self.sids.is_empty()
            || self.identities.iter().any(|named| named == identity)
            || self.sids.iter().any(|named| named == sid)
    }
}

/// What a packet says to us, and the packet as the receivers get it.
#[derive(Debug)]
pub struct Rewritten {
    /// The packet for the receivers.
    pub payload: Bytes,
    /// Who they are.
    pub destinations: Destinations,
    /// Number of a reliable packet, 0 without one.
    pub sequence: u32,
    /// Whether only those who subscribe to metrics get it.
    pub metrics: bool,
}

/// Who a packet is from, as the server knows it. Empty texts are not written.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// SID.
    pub sid: &'a str,
    /// Identity.
    pub identity: &'a str,
    /// Agents relay what others said and may say so.
    pub agent: bool,
}

/// Why a packet is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a protobuf message, or one whose text is not UTF-8.
    #[error("malformed data packet")]
    Malformed,
    /// A kind that this sender may not send.
    #[error("kind of data packet that this sender may not send")]
    Forbidden,
}

/// One field of a protobuf message: its number and type, where it lies, where its value lies.
struct Field {
    number: u32,
    wire_type: WireType,
    whole: Range<usize>,
    value: Range<usize>,
}

/// Splits a message into its fields without knowing its type.
fn fields(message: &[u8]) -> Result<Vec<Field>, Refused> {
    let mut result = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = message.len() - rest.len();
        let key = decode_varint(&mut rest).map_err(|_| Refused::Malformed)?;
        let wire_type = WireType::try_from(key & 7).map_err(|_| Refused::Malformed)?;
        let number = u32::try_from(key >> 3).map_err(|_| Refused::Malformed)?;
        let mut value_start = message.len() - rest.len();
        let len = match wire_type {
            WireType::Varint => {
                let before = rest.len();
                decode_varint(&mut rest).map_err(|_| Refused::Malformed)?;
                let len = before - rest.len();
                rest = &message[value_start..];
                len
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                let len = decode_varint(&mut rest).map_err(|_| Refused::Malformed)?;
                value_start = message.len() - rest.len();
                usize::try_from(len).map_err(|_| Refused::Malformed)?
            }
            // Groups were never part of this schema.
            WireType::StartGroup | WireType::EndGroup => return Err(Refused::Malformed),
        };
        rest = rest.get(len..).ok_or(Refused::Malformed)?;
        let end = value_start + len;
        if number == 0 {
            return Err(Refused::Malformed);
        }
        result.push(Field { number, wire_type, whole: start..end, value: value_start..end });
    }
    Ok(result)
}

/// Writes the sender into a packet and reads its destinations.
///
/// # Errors
/// See [`Refused`].
pub fn rewrite(packet: &Bytes, reliable: bool, sender: &Sender<'_>) -> Result<Rewritten, Refused> {
    let parsed = fields(packet)?;
    let mut out =
        BytesMut::with_capacity(packet.len() + sender.sid.len() + sender.identity.len() + 32);
    let mut destinations = Destinations::default();
    let mut user_destinations = Destinations::default();
    let (mut sequence, mut metrics, mut speaks_for, mut may_speak_for) = (0, false, "", false);
    for field in &parsed {
        let value = &packet[field.value.clone()];
        match (field.number, field.wire_type) {
            (field::SPEAKER, _) => return Err(Refused::Forbidden),
            (field::TRANSCRIPTION, _) if !sender.agent => return Err(Refused::Forbidden),
            (field::KIND | field::PARTICIPANT_SID, _) => continue,
            (field::PARTICIPANT_IDENTITY, WireType::LengthDelimited) => {
                speaks_for = std::str::from_utf8(value).map_err(|_| Refused::Malformed)?;
                continue;
            }
            (field::PARTICIPANT_IDENTITY, _) => continue,
            (field::USER, WireType::LengthDelimited) => {
                rewrite_user(value, sender, &mut user_destinations, &mut out)?;
                continue;
            }
            (field::DESTINATION_IDENTITIES, WireType::LengthDelimited) => {
                push_text(&mut destinations.identities, value)?;
            }
            (field::SEQUENCE, WireType::Varint) => {
                let number = decode_varint(&mut &*value).map_err(|_| Refused::Malformed)?;
                sequence = number as u32;
            }
            (field::METRICS, _) => metrics = true,
            (field::CHAT_MESSAGE | field::TRANSCRIPTION, _) => may_speak_for = sender.agent,
            (field::STREAM_HEADER..=field::STREAM_TRAILER, _) => may_speak_for = sender.agent,
            _ => {}
        }
        out.put_slice(&packet[field.whole.clone()]);
    }
    // An agent relays what another participant said or wrote.
    let identity =
        if may_speak_for && !speaks_for.is_empty() { speaks_for } else { sender.identity };
    if !reliable {
        encode_key(field::KIND, WireType::Varint, &mut out);
        encode_varint(proto::data_packet::Kind::Lossy as u64, &mut out);
    }
    put_text(field::PARTICIPANT_IDENTITY, identity, &mut out);
    put_text(field::PARTICIPANT_SID, sender.sid, &mut out);
    if destinations.identities.is_empty() {
        destinations = user_destinations;
    }
    Ok(Rewritten { payload: out.freeze(), destinations, sequence, metrics })
}

/// The same for the deprecated fields within a user packet.
fn rewrite_user(
    user: &[u8],
    sender: &Sender<'_>,
    destinations: &mut Destinations,
    out: &mut BytesMut,
) -> Result<(), Refused> {
    let mut inner =
        BytesMut::with_capacity(user.len() + sender.sid.len() + sender.identity.len() + 8);
    for field in fields(user)? {
        let value = &user[field.value.clone()];
        match (field.number, field.wire_type) {
            (user_field::PARTICIPANT_SID | user_field::PARTICIPANT_IDENTITY, _) => continue,
            (user_field::DESTINATION_SIDS, WireType::LengthDelimited) => {
                push_text(&mut destinations.sids, value)?;
            }
            (user_field::DESTINATION_IDENTITIES, WireType::LengthDelimited) => {
                push_text(&mut destinations.identities, value)?;
            }
            _ => {}
        }
        inner.put_slice(&user[field.whole]);
    }
    put_text(user_field::PARTICIPANT_SID, sender.sid, &mut inner);
    put_text(user_field::PARTICIPANT_IDENTITY, sender.identity, &mut inner);
    encode_key(field::USER, WireType::LengthDelimited, out);
    encode_varint(inner.len() as u64, out);
    out.put_slice(&inner);
    Ok(())
}

fn push_text(list: &mut Vec<String>, value: &[u8]) -> Result<(), Refused> {
    if list.len() >= MAX_DESTINATIONS {
        return Err(Refused::Malformed);
    }
    list.push(std::str::from_utf8(value).map_err(|_| Refused::Malformed)?.to_owned());
    Ok(())
}

fn put_text(number: u32, text: &str, out: &mut BytesMut) {
    if !text.is_empty() {
        encode_key(number, WireType::LengthDelimited, out);
        encode_varint(text.len() as u64, out);
        out.put_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use sluice_proto::data_packet::Value;

    use super::*;

    const SENDER: Sender<'_> = Sender { sid: "PA_me", identity: "me", agent: false };

    fn rewritten(packet: &proto::DataPacket) -> (proto::DataPacket, Rewritten) {
        let result = rewrite(&packet.encode_to_vec().into(), true, &SENDER).unwrap();
        (proto::DataPacket::decode(result.payload.clone()).unwrap(), result)
    }

    #[test]
    fn the_sender_is_written_by_the_server() {
        let user = proto::UserPacket {
            payload: Bytes::from_static(b"hi"),
            participant_sid: "PA_fake".into(),
            participant_identity: "fake".into(),
            topic: Some("t".into()),
            ..Default::default()
        };
        let (packet, result) = rewritten(&proto::DataPacket {
            participant_sid: "PA_fake".into(),
            participant_identity: "fake".into(),
            sequence: 7,
            value: Some(Value::User(user)),
            ..Default::default()
        });
        assert_eq!(
            (packet.participant_sid.as_str(), packet.participant_identity.as_str()),
            ("PA_me", "me")
        );
        let Some(Value::User(user)) = packet.value else { panic!("not a user packet") };
        assert_eq!(
            (user.participant_sid.as_str(), user.participant_identity.as_str()),
            ("PA_me", "me")
        );
        assert_eq!((user.payload.as_ref(), user.topic.as_deref()), (&b"hi"[..], Some("t")));
        assert_eq!((result.sequence, packet.sequence), (7, 7));
    }

    #[test]
    fn unknown_kinds_and_fields_pass_through() {
        let mut bytes = BytesMut::new();
        encode_key(99, WireType::LengthDelimited, &mut bytes);
        encode_varint(3, &mut bytes);
        bytes.put_slice(b"new");
        let result = rewrite(&bytes.freeze(), false, &SENDER).unwrap();
        assert!(result.payload.windows(3).any(|window| window == b"new"));
        let packet = proto::DataPacket::decode(result.payload).unwrap();
        assert_eq!(packet.kind(), proto::data_packet::Kind::Lossy);
        assert_eq!(packet.participant_identity, "me");
    }

    #[test]
    fn destinations_of_the_packet_win_over_those_of_the_user_packet() {
        let user = proto::UserPacket {
            destination_identities: vec!["b".into()],
            destination_sids: vec!["PA_c".into()],
            ..Default::default()
        };
        let mut packet = proto::DataPacket { value: Some(Value::User(user)), ..Default::default() };
        let (_, from_user) = rewritten(&packet);
        assert_eq!(from_user.destinations.identities, ["b"]);
        assert_eq!(from_user.destinations.sids, ["PA_c"]);
        packet.destination_identities = vec!["a".into()];
        let (_, from_packet) = rewritten(&packet);
        assert_eq!(from_packet.destinations.identities, ["a"]);
        assert!(from_packet.destinations.sids.is_empty());
    }

    #[test]
    fn only_agents_speak_for_others() {
        let chat = proto::DataPacket {
            participant_identity: "user".into(),
            value: Some(Value::ChatMessage(proto::ChatMessage::default())),
            ..Default::default()
        };
        let bytes: Bytes = chat.encode_to_vec().into();
        let identity = |sender: &Sender<'_>| {
            let result = rewrite(&bytes, true, sender).unwrap();
            proto::DataPacket::decode(result.payload).unwrap().participant_identity
        };
        assert_eq!(identity(&SENDER), "me");
        assert_eq!(identity(&Sender { agent: true, ..SENDER }), "user");
    }

    #[test]
    fn transcriptions_come_from_agents_and_speaker_updates_from_nobody() {
        let of = |value| proto::DataPacket { value: Some(value), ..Default::default() };
        let transcription: Bytes =
            of(Value::Transcription(proto::Transcription::default())).encode_to_vec().into();
        assert_eq!(rewrite(&transcription, true, &SENDER).unwrap_err(), Refused::Forbidden);
        assert!(rewrite(&transcription, true, &Sender { agent: true, ..SENDER }).is_ok());
        let speaker: Bytes =
            of(Value::Speaker(proto::ActiveSpeakerUpdate::default())).encode_to_vec().into();
        assert_eq!(rewrite(&speaker, true, &SENDER).unwrap_err(), Refused::Forbidden);
    }

    proptest! {
        #[test]
        fn rewriting_never_panics_and_keeps_valid_packets_valid(bytes: Vec<u8>) {
            let packet = Bytes::from(bytes);
            if let Ok(result) = rewrite(&packet, true, &SENDER) {
                prop_assert!(fields(&result.payload).is_ok());
            }
        }
    }
}
