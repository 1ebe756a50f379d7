//! The section `limit`: sizes and numbers that clients must respect.

use super::Document;

/// See the module; in bytes unless named otherwise.
#[derive(Debug, Clone)]
pub(crate) struct LimitConfig {
    /// Participant and room metadata.
    pub(crate) max_metadata: usize,
    /// Sum of a participant's attributes.
    pub(crate) max_attributes: usize,
    /// Room name.
    pub(crate) max_room_name: usize,
    /// Participant identity.
    pub(crate) max_identity: usize,
    /// Participant name.
    pub(crate) max_name: usize,
    /// Body of an HTTP request.
    pub(crate) max_request_body: usize,
    /// Tracks in and out of the node; 0 = no limit.
    pub(crate) num_tracks: u64,
    /// Bytes in and out of the node, per second; 0 = no limit.
    pub(crate) bytes_per_sec: u64,
    /// Key of a data blob.
    pub(crate) max_data_blob_key: usize,
    /// Sum of a participant's data blobs.
    pub(crate) max_data_blobs: usize,
    /// Name of a data track's own encoding.
    pub(crate) max_custom_encoding: usize,
    /// One message of a signal connection.
    pub(crate) signal_message: usize,
    /// One message of an agent worker.
    pub(crate) agent_signal_message: usize,
    /// Video tracks that a participant receives; 0 = no limit.
    pub(crate) subscriptions_video: u32,
    /// Audio tracks that a participant receives; 0 = no limit.
    pub(crate) subscriptions_audio: u32,
}

/// The section.
pub(super) fn limits(doc: &Document) -> LimitConfig {
    // LiveKit once had some of them under `room`, and takes zero as no limit.
    let bytes = |name: &str| {
        let (path, before) = (format!("limit.{name}"), format!("room.{name}"));
        let path = if doc.is_set(&before) && !doc.is_set(&path) { before } else { path };
        match doc.uint(&path) {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        }
    };
    // LiveKit takes anything below one as no limit.
    let positive = |path: &str| doc.float(path).clamp(0.0, f64::from(u32::MAX)) as u32;
    LimitConfig {
        max_request_body: bytes("max_api_request_body_size"),
        max_metadata: bytes("max_metadata_size"),
        max_attributes: bytes("max_attributes_size"),
        max_room_name: bytes("max_room_name_length"),
        max_identity: bytes("max_participant_identity_length"),
        max_name: bytes("max_participant_name_length"),
        num_tracks: doc.float("limit.num_tracks").max(0.0) as u64,
        bytes_per_sec: doc.float("limit.bytes_per_sec").max(0.0) as u64,
        max_data_blob_key: bytes("max_data_blob_key_length"),
        max_data_blobs: bytes("max_data_blobs_size"),
        max_custom_encoding: bytes("max_data_track_custom_encoding_length"),
        signal_message: bytes("signal_message_size_limit"),
        agent_signal_message: bytes("agent_signal_message_size_limit"),
        subscriptions_video: positive("limit.subscription_limit_video"),
        subscriptions_audio: positive("limit.subscription_limit_audio"),
    }
}
