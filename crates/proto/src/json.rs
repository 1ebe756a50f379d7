//! JSON forms of the messages, by descriptor.
//!
//! LiveKit has two: the server API (Twirp) writes proto field names and every field, with `null` for
//! messages that are not set; signalling and webhooks write camelCase and leave defaults out. Both write 64-bit integers as strings, `bytes` as
//! base64 and enums as names; reading accepts either spelling and skips fields that it does not know.

use prost::{Message, Name};
use prost_reflect::{
    DeserializeOptions, DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage,
    SerializeOptions, Value as Field,
};
use serde_json::Value;

use crate::descriptor_of;

/// Why a message could not be read from or written as JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text is not JSON, or a value has the wrong shape for its field.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The type has no descriptor in this crate: our bug.
    #[error("no descriptor for {0}")]
    UnknownType(String),
    /// The dynamic and the generated form disagree: our bug.
    #[error("{0}")]
    Decode(#[from] prost::DecodeError),
}

/// Twirp's form: proto field names, defaults written, unset messages as `null`. Members of a oneof
/// and `optional` fields are left out unless set (protobuf-go's `EmitUnpopulated`).
///
/// # Errors
/// Only for types that are not from this crate.
pub fn to_twirp<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    let dynamic = dynamic(message)?;
    let mut value = dynamic.serialize_with_options(serde_json::value::Serializer, &options)?;
    add_nulls(&mut value, &dynamic);
    Ok(value.to_string())
}

/// The form of signalling frames and webhooks: camelCase, defaults left out.
///
/// # Errors
/// Only for types that are not from this crate.
pub fn to_camel<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    let mut out = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut out);
    dynamic(message)?.serialize_with_options(&mut serializer, &SerializeOptions::new())?;
    // serde_json writes UTF-8 only.
    Ok(String::from_utf8(out).unwrap_or_default())
}

/// Reads either form. Unknown fields are ignored, whole input must be one JSON value.
///
/// # Errors
/// The text is not JSON, or a value does not fit its field.
pub fn from_json<M: Message + Name + Default>(text: &[u8]) -> Result<M, JsonError> {
    let dynamic = read_dynamic(descriptor::<M>()?, text)?;
    Ok(dynamic.transcode_to()?)
}

fn dynamic<M: Message + Name>(message: &M) -> Result<DynamicMessage, JsonError> {
    let mut dynamic = DynamicMessage::new(descriptor::<M>()?);
    dynamic.transcode_from(message)?;
    Ok(dynamic)
}

/// Adds what the serializer has no notion of: `null` for messages that are not set, at any depth.
fn add_nulls(value: &mut Value, message: &DynamicMessage) {
    // Well-known types such as timestamps are strings.
    let Value::Object(object) = value else { return };
    for field in message.descriptor().fields() {
        if message.has_field(&field) {
            if let Some(value) = object.get_mut(field.name()) {
                add_nulls_to_field(value, &message.get_field(&field));
            }
        } else if matches!(field.kind(), Kind::Message(_))
            && !field.is_list()
            && !field.is_map()
            && field.containing_oneof().is_none()
        {
            object.insert(field.name().to_owned(), Value::Null);
        }
    }
}

fn add_nulls_to_field(value: &mut Value, field: &Field) {
    match (value, field) {
        (value, Field::Message(message)) => add_nulls(value, message),
        (Value::Array(values), Field::List(items)) => {
            values.iter_mut().zip(items).for_each(|(value, item)| add_nulls_to_field(value, item));
        }
        (Value::Object(values), Field::Map(items)) => {
            for (key, item) in items {
                if let (MapKey::String(key), Field::Message(message)) = (key, item)
                    && let Some(value) = values.get_mut(key)
                {
                    add_nulls(value, message);
                }
            }
        }
        _ => {}
    }
}

fn read_dynamic(
    descriptor: MessageDescriptor,
    text: &[u8],
) -> Result<DynamicMessage, serde_json::Error> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let message =
        DynamicMessage::deserialize_with_options(descriptor, &mut deserializer, &options)?;
    deserializer.end()?;
    Ok(message)
}

fn descriptor<M: Name>() -> Result<MessageDescriptor, JsonError> {
    descriptor_of::<M>().ok_or_else(|| JsonError::UnknownType(M::full_name()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{DataPacket, Job, ListRoomsResponse, Room, TimedVersion};

    fn twirp<M: Message + Name>(message: &M) -> Value {
        serde_json::from_str(&to_twirp(message).expect("our type")).expect("JSON")
    }

    #[test]
    fn the_api_writes_every_field_under_its_proto_name() {
        let room = Room { name: "r".into(), creation_time: 1 << 53, ..Room::default() };
        let expected = json!({
            "sid": "", "name": "r", "empty_timeout": 0, "departure_timeout": 0,
            "max_participants": 0, "creation_time": "9007199254740992", "creation_time_ms": "0",
            "turn_password": "", "enabled_codecs": [], "metadata": "", "num_participants": 0,
            "num_publishers": 0, "active_recording": false, "version": null,
        });
        assert_eq!(twirp(&room), expected);
        let version = Some(TimedVersion { unix_micro: 1, ticks: 0 });
        let rooms = vec![room, Room { version, ..Room::default() }];
        let list = twirp(&ListRoomsResponse { rooms });
        assert_eq!(list["rooms"][0]["version"], Value::Null);
        assert_eq!(list["rooms"][1]["version"], json!({ "unix_micro": "1", "ticks": 0 }));
    }

    #[test]
    fn unset_members_of_a_oneof_and_optional_fields_are_left_out() {
        let job = twirp(&Job::default());
        let fields = job.as_object().expect("an object");
        assert!(fields.contains_key("room") && fields.contains_key("state"));
        // `optional`, and there is none.
        assert!(!fields.contains_key("participant"));
        let packet = twirp(&DataPacket::default());
        let fields = packet.as_object().expect("an object");
        assert!(!fields.contains_key("user") && fields.contains_key("sequence"));
        assert_eq!(packet["kind"], "RELIABLE");
    }

    #[test]
    fn either_spelling_is_read_and_the_unknown_is_ignored() {
        for text in [
            r#"{"emptyTimeout": 5, "creationTime": "7", "version": null, "new": [1]}"#,
            r#"{"empty_timeout": 5, "creation_time": 7}"#,
        ] {
            let room: Room = from_json(text.as_bytes()).expect("reads");
            assert_eq!((room.empty_timeout, room.creation_time, room.version), (5, 7, None));
        }
        assert!(from_json::<Room>(b"{} {}").is_err());
        assert!(from_json::<Room>(br#"{"emptyTimeout": "x"}"#).is_err());
    }
}
