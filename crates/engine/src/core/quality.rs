//! Connection quality: each peer's worst score of what it sends and gets, looked at every few
//! seconds and told when its level changes. A peer without tracks costs no timer.

use std::time::Instant;

use sluice_sfu::quality::{MAX_SCORE, Quality, UPDATE_INTERVAL};

use crate::api::EventKind;
use crate::core::Core;
use crate::core::peer::PeerKey;

/// What was told of a peer's connection, and when to look again.
#[derive(Debug, Default)]
pub(crate) struct PeerQuality {
    pub(super) next: Option<Instant>,
    told: Option<Quality>,
}

impl PeerQuality {
    /// Something flows: from now on it is judged. Returns the deadline if it is news.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Instant> {
        match self.next {
            Some(_) => None,
            None => Some(*self.next.insert(now + UPDATE_INTERVAL)),
        }
    }
}

impl Core {
    /// Scores a peer's tracks if it is time.
    pub(super) fn update_quality(&mut self, now: Instant, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        if state.quality.next.is_none_or(|at| at > now) {
            return;
        }
        let mut score = MAX_SCORE;
        let mut tracks = 0;
        for key in state.sections.iter().filter_map(|section| section.key) {
            if let Some(publication) = self.tracks.get_mut(key) {
                let wanted = publication.max_wanted();
                let muted = publication.muted;
                score = score.min(publication.receiver.update_quality(now, muted, wanted));
                tracks += 1;
            }
        }
        for key in &state.downs {
            if let Some(down) = self.downs.get_mut(*key) {
                score = score.min(down.track.update_quality(now));
                tracks += 1;
            }
        }
        if tracks > 0 {
            self.paths.on_quality(score);
        }
        state.quality.next = (tracks > 0).then(|| now + UPDATE_INTERVAL);
        let quality = Quality::of(score);
        let told = state.quality.told.replace(quality).unwrap_or(Quality::Excellent);
        if told != quality {
            let (room, peer) = (state.room, state.id);
            self.emit(room, EventKind::ConnectionQuality { peer, score });
        }
    }
}
