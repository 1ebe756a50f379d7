//! JSON forms of the messages, by descriptor.
//!
//! LiveKit has two: the server API (Twirp) writes proto field names and every field, signalling and
//! webhooks write camelCase and leave defaults out. Both write 64-bit integers as strings, `bytes` as
//! base64 and enums as names; reading accepts either spelling and skips fields that it does not know.

use prost::{Message, Name};
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};

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

/// Twirp's form: proto field names, defaults written.
pub fn to_twirp<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    write(message, &options)
}

/// The form of signalling frames and webhooks: camelCase, defaults left out.
pub fn to_camel<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    write(message, &SerializeOptions::new())
}

/// Reads either form. Unknown fields are ignored, whole input must be one JSON value.
pub fn from_json<M: Message + Name + Default>(text: &[u8]) -> Result<M, JsonError> {
    let dynamic = read_dynamic(descriptor::<M>()?, text)?;
    Ok(dynamic.transcode_to()?)
}

fn write<M: Message + Name>(message: &M, options: &SerializeOptions) -> Result<String, JsonError> {
    let mut dynamic = DynamicMessage::new(descriptor::<M>()?);
    dynamic.transcode_from(message)?;
    let mut out = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut out);
    dynamic.serialize_with_options(&mut serializer, options)?;
    // serde_json writes UTF-8 only.
    Ok(String::from_utf8(out).unwrap_or_default())
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
