//! Who speaks, told to the control plane every interval while somebody does. Microphones that send
//! nothing, or nothing but silence, cost no timer.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::api::{EventKind, RoomKey, TrackId};
use crate::core::Core;
use crate::core::peer::TrackKey;
use crate::core::track::Publication;

/// Microphones that were heard, and when to report on them.
#[derive(Debug)]
pub(super) struct Levels {
    /// Time between reports (`audio.update_interval`).
    interval: Duration,
    heard: Vec<TrackKey>,
    due: Option<Instant>,
}

impl Levels {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, heard: Vec::new(), due: None }
    }

    /// A packet with a level came.
    pub(super) fn heard(&mut self, now: Instant, key: TrackKey, publication: &mut Publication) {
        if publication.level_due
            || publication.level.as_ref().is_none_or(|level| level.level(now).is_none())
        {
            return;
        }
        publication.level_due = true;
        self.heard.push(key);
        self.due.get_or_insert(now + self.interval);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

impl Core {
    /// Reports levels if it is time. A microphone that fell silent is in one report with level 0.
    pub(super) fn report_levels(&mut self, now: Instant) {
        if self.levels.due.is_none_or(|at| at > now) {
            return;
        }
        let mut by_room: FxHashMap<RoomKey, Vec<(TrackId, f32)>> = FxHashMap::default();
        let mut speaking = Vec::new();
        for key in std::mem::take(&mut self.levels.heard) {
            let Some(publication) = self.tracks.get_mut(key) else { continue };
            let level = publication.level.as_ref().and_then(|level| level.level(now));
            if level.is_some() || publication.speaking {
                let levels = by_room.entry(publication.room).or_default();
                levels.push((publication.id, level.unwrap_or(0.0)));
            }
            publication.speaking = level.is_some();
            publication.level_due = publication.speaking;
            if publication.speaking {
                speaking.push(key);
            }
        }
        self.levels.due = (!speaking.is_empty()).then(|| now + self.levels.interval);
        self.levels.heard = speaking;
        for (room, levels) in by_room {
            self.emit(room, EventKind::AudioLevels { levels });
        }
    }
}
