//! LiveKit's messages as Rust types, generated from `/proto/livekit/*.proto`, and their JSON forms.
//!
//! Everything that speaks to a LiveKit client, server SDK or agent passes through these types:
//! signalling, data packets, the server API, webhooks. `bytes` fields are [`bytes::Bytes`], maps are
//! ordered, and enum fields are `i32` with typed accessors (prost's convention), because an unknown
//! value from a newer client must survive. The embedded [`descriptors`] drive [`json`].

pub mod json;

use std::sync::LazyLock;

pub use prost::{DecodeError, Message, Name};
pub use prost_reflect::{DescriptorPool, MessageDescriptor};

#[allow(missing_docs, clippy::all, clippy::large_enum_variant, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/livekit.rs"));
}

pub use generated::*;

/// The protobuf package of every message here.
pub const PACKAGE: &str = "livekit";

static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/livekit.fds"));
    // Built from the same sources by build.rs; a unit test decodes it.
    DescriptorPool::decode(bytes).expect("the embedded descriptor set is valid")
});

/// Descriptors of every message, enum and service in this crate.
pub fn descriptors() -> &'static DescriptorPool {
    &DESCRIPTORS
}

/// The descriptor of one generated message.
///
/// `None` only for a type which is not from this crate (or a well-known type that nothing uses).
pub fn descriptor_of<M: Name>() -> Option<MessageDescriptor> {
    descriptors().get_message_by_name(&M::full_name())
}
