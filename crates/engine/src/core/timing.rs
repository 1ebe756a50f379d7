//! What happens by itself: each peer has one deadline, the earliest of everything that it owns.

use std::time::{Duration, Instant};

use crate::core::Core;
use crate::core::peer::PeerKey;
use crate::core::track::Attachment;
use crate::link::LinkMessage;

/// A deadline that is at least this far away may be met late by up to [`COARSENESS`] of the time until
/// then.
const COARSE_FROM: Duration = Duration::from_secs(1);

/// See [`COARSE_FROM`]: what is that far away is a keepalive, a report or a time-out.
const COARSENESS: u32 = 8;

/// A deadline that has passed is looked at again after this time, not at once.
pub(super) const MIN_DELAY: Duration = Duration::from_millis(1);

impl Core {
    /// When [`handle_timeouts`](Self::handle_timeouts) or a flush has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [
            self.timers.next(),
            self.levels.poll_timeout(),
            self.silences.poll_timeout(),
            self.announcements.poll_timeout(),
            self.hold.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Something is there to be received: until when it may wait, so that what comes meanwhile is
    /// received in one go. `None` while there is little to do.
    pub(crate) fn gather_until(&mut self, now: Instant) -> Option<Instant> {
        self.hold.gather_until(now)
    }

    /// How late a timer may run, so that a busy worker does not wake up for each.
    pub(crate) fn timer_slack(&self) -> Duration {
        self.hold.slack()
    }

    /// When media that is held must leave.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.hold.deadline()
    }

    /// Runs every deadline that has passed.
    pub(crate) fn handle_timeouts(&mut self, now: Instant) {
        while let Some((at, peer)) = self.timers.pop_due(now) {
            let fires = self.peers.get_mut(peer).is_some_and(|state| state.armed.fires(at));
            if fires {
                self.guarded(now, peer, |core| core.on_timer(now, peer));
            }
        }
        self.report_levels(now);
        self.send_silence(now);
        self.send_announcements(now);
    }

    fn on_timer(&mut self, now: Instant, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        if state.transport.poll_timeout().is_some_and(|at| at <= now) {
            state.transport.handle_timeout(now);
            self.mark_dirty(peer);
        }
        let congestion = self.peers.get(peer).and_then(|state| state.congestion.as_ref());
        if congestion.and_then(|congestion| congestion.poll_timeout()).is_some_and(|at| at <= now) {
            self.settle_congestion(now, peer);
        }
        self.update_liveness(now, peer);
        self.write_feedback(now, peer);
        self.write_reports(now, peer);
        self.repeat_key_frame_requests(now, peer);
        self.update_quality(now, peer);
        self.rearm(now, peer);
    }

    /// Arms the timer of a peer for the earliest thing that it waits for.
    pub(super) fn rearm(&mut self, now: Instant, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let tracks = state.sections.iter().filter_map(|section| section.key);
        let tracks = tracks.filter_map(|key| self.tracks.get(key)?.receiver.poll_timeout());
        let awaiting = state.awaiting.iter();
        let awaiting = awaiting.filter_map(|key| self.downs.get(*key)?.track.poll_timeout());
        let own = [
            state.transport.poll_timeout(),
            state.twcc.poll_timeout(),
            state.next_report,
            state.next_sender_report,
            state.quality.next,
            state.congestion.as_ref().and_then(|congestion| congestion.poll_timeout()),
        ];
        let next = own.into_iter().flatten().chain(tracks).chain(awaiting).min();
        if let Some(at) = next {
            let at = coarse(self.clock.since_start(now), at.max(now + MIN_DELAY) - now);
            self.timers.arm(&mut state.armed, peer, now + at);
        }
    }

    /// Tells receivers of layers that stopped.
    fn update_liveness(&mut self, now: Instant, peer: PeerKey) {
        let mut index = 0;
        while let Some(section) = self.peers.get(peer).and_then(|s| s.sections.get(index)) {
            index += 1;
            let Some(publication) = section.key.and_then(|key| self.tracks.get_mut(key)) else {
                continue;
            };
            let Some(layers) = publication.receiver.handle_timeout(now) else { continue };
            for Attachment { worker, feed, .. } in publication.attached.clone() {
                self.tell_worker(now, worker, LinkMessage::LiveLayers { feed, layers });
            }
        }
    }

    fn repeat_key_frame_requests(&mut self, now: Instant, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        for key in std::mem::take(&mut state.awaiting) {
            self.ask_key_frame(now, key);
        }
    }
}

/// Moves a distant deadline to the next point of a grid, so that peers that only wait for something
/// to go wrong wake their worker together. Takes and returns the time until then; the grid counts
/// `since_start`.
fn coarse(since_start: Duration, until: Duration) -> Duration {
    if until < COARSE_FROM {
        return until;
    }
    let step = (until / COARSENESS).as_millis().next_power_of_two() / 2;
    let at = (since_start + until).as_millis();
    let on_grid = Duration::from_millis((at / step + 1).saturating_mul(step) as u64);
    on_grid.saturating_sub(since_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_deadlines_are_met_exactly() {
        let until = Duration::from_millis(999);
        assert_eq!(coarse(Duration::from_millis(17), until), until);
    }

    #[test]
    fn distant_deadlines_share_few_instants_and_are_never_early() {
        let mut instants = std::collections::BTreeSet::new();
        for start in (0..2_000).map(Duration::from_millis) {
            let until = Duration::from_secs(10);
            let at = coarse(start, until);
            assert!(at >= until && at <= until + until / COARSENESS, "{start:?}: {at:?}");
            instants.insert(start + at);
        }
        assert!(instants.len() <= 3, "{instants:?}");
    }
}
