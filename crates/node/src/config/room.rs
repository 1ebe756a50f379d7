//! What rooms are like: the section `room`, and those keys of `audio` and `video` that are about
//! rooms as well.

use std::time::Duration;

use serde_json::Value;

use super::document::parse_duration;
use super::error::invalid;
use super::{ConfigError, Document};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct RoomConfig {
    /// Whether joining makes a missing room.
    pub(crate) auto_create: bool,
    /// Most participants; 0 = no limit.
    pub(crate) max_participants: u32,
    /// How long a room that nobody ever joined is kept.
    pub(crate) empty_timeout: Duration,
    /// How long a room is kept after the last participant left.
    pub(crate) departure_timeout: Duration,
    /// Whether the server API may unmute.
    pub(crate) enable_remote_unmute: bool,
    /// MIME types of the codecs that may be published; empty = all.
    pub(crate) enabled_codecs: Vec<String>,
    /// Whether plain Opus gets redundancy for receivers that take it.
    pub(crate) active_red_encoding: bool,
    /// Limits of receivers' jitter buffers, milliseconds: least and greatest.
    pub(crate) playout_delay: Option<(u32, u32)>,
    /// Best quality of cameras for low-power receivers: `low`, `medium` or `high`.
    pub(crate) low_power_quality: Quality,
    /// Frames per second for low-power receivers; 0 = no limit.
    pub(crate) low_power_fps: u32,
    /// How long less quality must be enough before the publisher hears of it.
    pub(crate) dynacast_pause_delay: Duration,
    /// Rooms of fewer participants move to a backup codec as a whole; 0 = of any size.
    pub(crate) codec_regression_threshold: u32,
    /// Whether clients may publish data tracks.
    pub(crate) enable_data_tracks: bool,
    /// Whether participants may store blobs.
    pub(crate) enable_participant_data_blob: bool,
    /// Whether a participant's tracks share a stream.
    pub(crate) sync_streams: bool,
    /// Size at which a participant update is split, bytes.
    pub(crate) update_batch_target_size: usize,
}

/// A quality of video, as LiveKit names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quality {
    Low,
    Medium,
    High,
}

/// The section.
pub(super) fn room(doc: &Document) -> Result<RoomConfig, ConfigError> {
    let seconds = |path| Duration::from_secs(doc.uint(path));
    let enabled_codecs = match doc.block("room.enabled_codecs") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.get("mime").and_then(Value::as_str).map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| invalid("room.enabled_codecs", "a list of `- mime: audio/opus`"))?,
        Some(_) => return Err(invalid("room.enabled_codecs", "a list of `- mime: audio/opus`")),
    };
    Ok(RoomConfig {
        auto_create: doc.bool("room.auto_create"),
        max_participants: doc.uint("room.max_participants") as u32,
        empty_timeout: seconds("room.empty_timeout"),
        departure_timeout: seconds("room.departure_timeout"),
        enable_remote_unmute: doc.bool("room.enable_remote_unmute"),
        enabled_codecs,
        active_red_encoding: doc.bool("audio.active_red_encoding"),
        playout_delay: doc.bool("room.playout_delay.enabled").then(|| {
            let ms = |path| u32::try_from(doc.uint(path)).unwrap_or(u32::MAX);
            (ms("room.playout_delay.min"), ms("room.playout_delay.max"))
        }),
        low_power_quality: quality("room.low_power.max_quality", doc)?,
        low_power_fps: u32::try_from(doc.uint("room.low_power.max_fps")).unwrap_or(u32::MAX),
        codec_regression_threshold: u32::try_from(doc.uint("video.codec_regression_threshold"))
            .unwrap_or(u32::MAX),
        dynacast_pause_delay: parse_duration(&doc.text("video.dynacast_pause_delay"))
            .unwrap_or_default(),
        enable_data_tracks: doc.bool("enable_data_tracks"),
        enable_participant_data_blob: doc.bool("enable_participant_data_blob"),
        sync_streams: doc.bool("room.sync_streams"),
        update_batch_target_size: doc.uint("room.update_batch_target_size") as usize,
    })
}

fn quality(path: &str, doc: &Document) -> Result<Quality, ConfigError> {
    match doc.text(path).as_str() {
        "low" => Ok(Quality::Low),
        "medium" => Ok(Quality::Medium),
        "high" => Ok(Quality::High),
        _ => Err(invalid(path, "low, medium or high")),
    }
}
