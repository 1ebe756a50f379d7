//! Deadlines of a room: at most one per key, ordered by time, without a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use sluice_engine::api::TrackId;

use crate::participant::ParticipantKey;
use crate::rpc::RpcId;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Nobody is here: close the room.
    RoomIdle,
    /// Send the participant updates that were collected.
    ParticipantUpdates,
    /// Send the room update that was delayed.
    RoomUpdate,
    /// Speakers whose levels stopped coming are silent.
    SpeakersStale,
    /// The participant never became active.
    Join(ParticipantKey),
    /// Send an offer, or ask a client for one.
    Negotiate(ParticipantKey),
    /// The client has not answered our offer.
    Answer(ParticipantKey),
    /// The connection failed and the client has not resumed.
    Resume(ParticipantKey),
    /// Hand out a fresh token.
    TokenRefresh(ParticipantKey),
    /// Subscriptions to tracks that never came.
    MissingTracks(ParticipantKey),
    /// End of a simulated speech.
    SimulatedSpeech(ParticipantKey),
    /// Subscriptions that the client's descriptions never took up.
    Unbound(ParticipantKey),
    /// A call of the server API has waited too long.
    Rpc(RpcId),
    /// A lower wanted quality has lasted long enough to tell the publisher.
    Dynacast(TrackId),
    /// A published track that should have brought media by now.
    Publication(TrackId),
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: BTreeMap<Timer, Instant>,
    order: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        self.deadlines.insert(timer, at);
        self.order.insert((at, timer));
    }

    /// Sets a deadline unless an earlier one is set.
    pub(crate) fn set_earlier(&mut self, timer: Timer, at: Instant) {
        if self.deadlines.get(&timer).is_none_or(|&current| at < current) {
            self.set(timer, at);
        }
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.deadlines.remove(&timer) {
            self.order.remove(&(at, timer));
        }
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.deadlines.contains_key(&timer)
    }

    pub(crate) fn cancel_participant(&mut self, key: ParticipantKey) {
        for timer in [
            Timer::Join(key),
            Timer::Negotiate(key),
            Timer::Answer(key),
            Timer::Resume(key),
            Timer::TokenRefresh(key),
            Timer::MissingTracks(key),
            Timer::Unbound(key),
            Timer::SimulatedSpeech(key),
        ] {
            self.cancel(timer);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.deadlines.clear();
        self.order.clear();
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|&(at, _)| at)
    }

    /// Takes the earliest deadline that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.order.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant does as the origin")]
    fn due_timers_come_in_order_and_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(Timer::RoomUpdate, at(30));
        timers.set(Timer::RoomIdle, at(20));
        timers.set(Timer::RoomIdle, at(40));
        timers.set_earlier(Timer::RoomUpdate, at(50));
        timers.set(Timer::SpeakersStale, at(10));
        timers.cancel(Timer::SpeakersStale);
        assert_eq!(timers.next(), Some(at(30)));
        assert_eq!(timers.pop(at(29)), None);
        assert_eq!(timers.pop(at(99)), Some(Timer::RoomUpdate));
        assert_eq!(timers.pop(at(99)), Some(Timer::RoomIdle));
        assert_eq!(timers.pop(at(99)), None);
    }
}
