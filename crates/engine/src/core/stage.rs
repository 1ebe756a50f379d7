//! Large audio rooms: only the loudest microphones of a room are forwarded, if the operator says so.
//! Each worker decides for its own receivers; it sees every microphone that one of them is
//! subscribed to. Audio without levels, or that is no microphone, is always forwarded.

use std::time::Instant;

use sluice_sfu::{MediaPacket, TopSpeakers};

use crate::api::RoomKey;
use crate::core::Core;
use crate::link::FeedKey;

impl Core {
    /// Notes how loud a microphone is. False if its packets are not forwarded now.
    pub(super) fn is_on_stage(
        &mut self,
        now: Instant,
        feed: FeedKey,
        packet: &MediaPacket,
    ) -> bool {
        let limit = self.media.max_forwarded_speakers;
        let Some(level) = packet.audio_level.filter(|_| limit > 0) else { return true };
        let Some(room) = self.feeds.get(feed).map(|state| state.room) else { return true };
        let stage = self.stages.entry(room).or_insert_with(|| TopSpeakers::new(limit));
        let (on_stage, displaced) = stage.observe(now, feed, level.level_dbov);
        if let Some(other) = displaced {
            self.set_off_stage(now, other, true);
        }
        self.set_off_stage(now, feed, !on_stage);
        on_stage
    }

    /// A feed ended.
    pub(super) fn leave_stage(&mut self, room: RoomKey, feed: FeedKey) {
        if let Some(stage) = self.stages.get_mut(&room) {
            stage.remove(feed);
            if stage.is_empty() {
                self.stages.remove(&room);
            }
        }
    }

    fn set_off_stage(&mut self, now: Instant, feed: FeedKey, off_stage: bool) {
        let Some(state) = self.feeds.get_mut(feed) else { return };
        if std::mem::replace(&mut state.off_stage, off_stage) != off_stage {
            self.update_quiet(now, feed);
        }
    }
}
