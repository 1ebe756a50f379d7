//! What media workers do with packets: key-frame throttling, audio levels, forwarded speakers.

use std::time::Duration;

use sluice_engine::{AudioLevelConfig, MediaConfig};

use super::document::parse_duration;
use super::error::invalid;
use super::{ConfigError, Document};

/// Shortest time between reports of audio levels: each costs a message per room.
const MIN_LEVEL_INTERVAL: Duration = Duration::from_millis(50);

/// From the sections `rtc.pli_throttle`, `audio` and `room.audio`.
pub(super) fn media(doc: &Document) -> Result<MediaConfig, ConfigError> {
    let duration = |path: &str| {
        parse_duration(&doc.text(path)).ok_or_else(|| invalid(path, "a duration such as 500ms"))
    };
    let byte = |path: &str, most: u8| {
        let value = u8::try_from(doc.uint(path)).ok().filter(|value| *value <= most);
        value.ok_or_else(|| invalid(path, &format!("a number up to {most}")))
    };
    let interval = Duration::from_millis(doc.uint("audio.update_interval"));
    if interval < MIN_LEVEL_INTERVAL {
        return Err(invalid("audio.update_interval", "milliseconds, at least 50"));
    }
    Ok(MediaConfig {
        key_frame_intervals: [
            duration("rtc.pli_throttle.low_quality")?,
            duration("rtc.pli_throttle.mid_quality")?,
            duration("rtc.pli_throttle.high_quality")?,
        ],
        audio_levels: AudioLevelConfig {
            active_level_dbov: byte("audio.active_level", 127)?,
            min_percentile: byte("audio.min_percentile", 100)?,
            interval,
            smooth_intervals: byte("audio.smooth_intervals", 100)?.into(),
        },
        max_forwarded_speakers: doc.uint("room.audio.max_forwarded_speakers") as usize,
    })
}
