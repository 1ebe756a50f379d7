//! Which microphones are forwarded when a room forwards only its loudest: an audio room of `n`
//! people costs `n` times the limit, not `n` times `n`.
//!
//! Levels of every microphone flow in; out flows who is in and who is out. Who got in stays for a
//! while after the last word, so that nobody is cut off between two sentences, and gives up the
//! place earlier only to somebody louder. The dominant speaker's place is never taken.

use std::time::{Duration, Instant};

use crate::dominant_speaker::DominantSpeaker;

/// How long a speaker keeps the place after having been loud (between Jitsi's 1.5 s and 2 s).
const HANGOVER: Duration = Duration::from_secs(2);

/// Quietest level that asks for a place, dB below overload: speech, not a quiet room.
const SPEECH_DBOV: f32 = 50.0;

/// Share of a new level in a microphone's mean.
const SMOOTHING: f32 = 0.2;

/// A place is taken from somebody who is quieter by this much, dB.
const MARGIN_DB: f32 = 6.0;

/// Level of silence, dB below overload.
const SILENCE_DBOV: f32 = 127.0;

#[derive(Debug, Clone)]
struct Microphone<Id> {
    id: Id,
    mean_dbov: f32,
    /// When it was last as loud as speech.
    spoke: Option<Instant>,
    forwarded: bool,
}

/// The loudest microphones of one room.
#[derive(Debug)]
pub struct TopSpeakers<Id> {
    limit: usize,
    microphones: Vec<Microphone<Id>>,
    dominant: DominantSpeaker<Id>,
}

impl<Id: Copy + PartialEq> TopSpeakers<Id> {
    /// Forwards `limit` microphones at most, at least one.
    pub fn new(limit: usize) -> Self {
        let dominant = DominantSpeaker::default();
        Self { limit: limit.max(1), microphones: Vec::new(), dominant }
    }

    /// Takes the level of a packet, dB below overload. Says whether it is forwarded, and who lost the
    /// place to it.
    pub fn observe(&mut self, now: Instant, id: Id, level_dbov: u8) -> (bool, Option<Id>) {
        self.dominant.observe(now, id, level_dbov);
        self.dominant.handle_timeout(now);
        let known = self.microphones.iter().position(|microphone| microphone.id == id);
        let index = known.unwrap_or_else(|| {
            self.microphones.push(Microphone {
                id,
                mean_dbov: SILENCE_DBOV,
                spoke: None,
                forwarded: false,
            });
            self.microphones.len() - 1
        });
        let microphone = &mut self.microphones[index];
        microphone.mean_dbov += (f32::from(level_dbov) - microphone.mean_dbov) * SMOOTHING;
        // The first loud packet counts at once: a mean would cut off the first syllable.
        if f32::from(level_dbov) <= SPEECH_DBOV {
            microphone.spoke = Some(now);
        }
        if microphone.forwarded {
            return (true, None);
        }
        if microphone.spoke != Some(now) {
            return (false, None);
        }
        let loudness = microphone.mean_dbov;
        self.take_place(now, index, loudness)
    }

    /// Forgets a microphone.
    pub fn remove(&mut self, id: Id) {
        self.microphones.retain(|microphone| microphone.id != id);
        self.dominant.remove(id);
    }

    /// Whether no microphone is known.
    pub fn is_empty(&self) -> bool {
        self.microphones.is_empty()
    }

    /// Microphones that hold a place.
    pub fn forwarded(&self) -> impl Iterator<Item = Id> {
        self.microphones.iter().filter(|m| m.forwarded).map(|m| m.id)
    }

    fn take_place(&mut self, now: Instant, index: usize, mean_dbov: f32) -> (bool, Option<Id>) {
        let mut displaced = None;
        let held = self.microphones.iter().filter(|microphone| microphone.forwarded).count();
        if held >= self.limit {
            let is_over = |microphone: &Microphone<Id>| {
                let since = microphone.spoke.map(|at| now.saturating_duration_since(at));
                since.is_none_or(|since| since >= HANGOVER)
            };
            let dominant = self.dominant.dominant();
            let may_lose = |microphone: &&mut Microphone<Id>| {
                let is_dominant = Some(microphone.id) == dominant;
                microphone.forwarded && (!is_dominant || is_over(microphone))
            };
            let quietest = self.microphones.iter_mut().filter(may_lose).max_by(|a, b| {
                is_over(a).cmp(&is_over(b)).then(a.mean_dbov.total_cmp(&b.mean_dbov))
            });
            let Some(quietest) = quietest else { return (false, None) };
            if !is_over(quietest) && quietest.mean_dbov < mean_dbov + MARGIN_DB {
                return (false, None);
            }
            quietest.forwarded = false;
            displaced = Some(quietest.id);
        }
        self.microphones[index].forwarded = true;
        (true, displaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;
    use proptest::prelude::*;

    struct Room {
        top: TopSpeakers<u8>,
        now: Instant,
    }

    impl Room {
        fn new(limit: usize) -> Self {
            Self { top: TopSpeakers::new(limit), now: epoch() }
        }

        /// Packets of 20 ms with these levels; returns how many of each were forwarded.
        fn go_on<const N: usize>(&mut self, ms: u64, levels: [u8; N]) -> [u32; N] {
            let mut passed = [0; N];
            for _ in 0..ms / 20 {
                self.now += Duration::from_millis(20);
                for (id, level) in levels.iter().enumerate() {
                    passed[id] += u32::from(self.top.observe(self.now, id as u8, *level).0);
                }
            }
            passed
        }
    }

    #[test]
    fn whoever_speaks_is_heard_from_the_first_word_while_there_is_room() {
        let mut room = Room::new(2);
        assert_eq!(room.go_on(100, [127, 127, 127]), [0, 0, 0]);
        assert_eq!(room.go_on(100, [20, 127, 127]), [5, 0, 0]);
        assert_eq!(room.go_on(100, [20, 20, 127]), [5, 5, 0]);
    }

    #[test]
    fn a_full_room_makes_place_for_the_louder_only() {
        let mut room = Room::new(2);
        room.go_on(1_000, [20, 35, 127]);
        assert_eq!(room.go_on(1_000, [20, 35, 34]), [50, 50, 0], "not loud enough");
        let passed = room.go_on(1_000, [20, 35, 10]);
        assert_eq!(passed[0], 50);
        assert!(passed[2] > 25 && passed[1] < 25, "{passed:?}");
    }

    #[test]
    fn who_pauses_keeps_the_place_for_two_seconds() {
        let mut room = Room::new(1);
        room.go_on(1_000, [20, 127]);
        // Quiet packets of the pause are forwarded as well.
        assert_eq!(room.go_on(1_000, [127, 127]), [50, 0]);
        assert_eq!(room.go_on(1_000, [20, 127]), [50, 0]);
        room.go_on(2_000, [127, 127]);
        let passed = room.go_on(100, [127, 40]);
        assert_eq!(passed[1], 5, "the place was free");
    }

    #[test]
    fn who_leaves_frees_the_place() {
        let mut room = Room::new(1);
        room.go_on(1_000, [20, 127]);
        room.top.remove(0);
        assert_eq!(room.top.forwarded().count(), 0);
        assert!(room.top.observe(room.now, 1, 45).0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_hold_a_place(
            limit in 1usize..5,
            packets in prop::collection::vec((0u8..8, 0u8..128, 0u64..200), 1..400),
        ) {
            let mut room = Room::new(limit);
            for (id, level, wait) in packets {
                room.now += Duration::from_millis(wait);
                let before: Vec<u8> = room.top.forwarded().collect();
                let (passed, displaced) = room.top.observe(room.now, id, level);
                let lost = before.into_iter().find(|held| room.top.forwarded().all(|id| id != *held));
                prop_assert_eq!(displaced, lost);
                prop_assert!(room.top.forwarded().count() <= limit);
                prop_assert_eq!(passed, room.top.forwarded().any(|held| held == id));
            }
        }
    }
}
