//! Receivers that ask to be spared: phones on battery or a small data plan. A participant asks by
//! the attribute `low_power`, in its token or later; the node says what it then gets at most. Of the
//! codecs of a track it gets the one that costs least to decode (`Track::sender_codecs`).

use sluice_proto::VideoQuality;

use crate::participant::Participant;

/// Attribute with which a participant asks; `true` or `1`.
const ATTRIBUTE: &str = "low_power";

/// The most that a low-power receiver gets (`room.low_power`). It also gets no redundant audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowPower {
    /// Of cameras; the text of a shared screen stays readable.
    pub max_quality: VideoQuality,
    /// Frames per second, as far as temporal layers allow; 0 = no limit.
    pub max_fps: u32,
}

impl Default for LowPower {
    fn default() -> Self {
        Self { max_quality: VideoQuality::Medium, max_fps: 15 }
    }
}

impl Participant {
    /// Whether it asked to be spared.
    pub(crate) fn is_low_power(&self) -> bool {
        self.attributes.get(ATTRIBUTE).is_some_and(|value| value == "true" || value == "1")
    }
}
