//! Who is dominant: one speaker of a room at a time, found as Volfin and Cohen describe ("Dominant
//! Speaker Identification for Multipoint Videoconferencing", 2012). Where the list of speakers
//! follows every breath, this one changes only when somebody else clearly has the floor.
//!
//! Audio levels of every speaker flow in, one per packet. Three activities are derived of each: how
//! loud a moment is, how many moments of a short while are loud, how many short whiles of a long
//! one are. Each is scored by how much more likely it is under speech than under silence. Every
//! interval the dominant speaker is compared with all others, score by score. Numbers are those of
//! Jitsi's `DominantSpeakerIdentification` and mediasoup's `ActiveSpeakerObserver`.

use std::time::{Duration, Instant};

/// Time between two decisions.
pub const DECISION_INTERVAL: Duration = Duration::from_millis(300);

/// Levels kept of a speaker, one per packet: a long while.
const LEVELS: usize = N2 * N3;

/// Sub-units that the range of levels is divided in, and the length of each, dB.
const N1: usize = 13;
const SUB_UNIT: u8 = MAX_LEVEL.div_ceil(N1 as u8);

/// Moments in a short while, and short whiles in a long one.
const N2: usize = 5;
const N3: usize = 10;

/// Sub-units that make a moment active, and active moments that make a short while so.
const MEDIUM_THRESHOLD: u8 = 7;
const LONG_THRESHOLD: u8 = 4;

/// Loudest level on the scale of this module: 127 less the dB below overload.
const MAX_LEVEL: u8 = 127;

/// A challenger must be better by these log ratios of its immediate, medium and long scores.
const C1: f64 = 3.0;
const C2: f64 = 2.0;
const C3: f64 = 0.0;

/// Rates of the exponential that stands for silence.
const IMMEDIATE_LAMBDA: f64 = 0.78;
const MEDIUM_LAMBDA: f64 = 24.0;
const LONG_LAMBDA: f64 = 47.0;

/// Chance of each sub-unit, moment or while to be active under speech.
const SPEECH: f64 = 0.5;

/// Scores do not fall below.
const MIN_SCORE: f64 = 1e-10;

/// A speaker that sends nothing for so long is silent.
const IDLE: Duration = Duration::from_millis(40);

/// One that sent nothing for so long does not keep the floor against anybody.
const LONG_IDLE: Duration = Duration::from_secs(2);

/// How long a speaker's quietest level is believed.
const MIN_LEVEL_WINDOW: Duration = Duration::from_secs(15);

/// Levels that are needed before the quietest is known, packets.
const MIN_LEVEL_COUNT: u32 = 50;

/// What one speaker said of late.
#[derive(Debug, Clone)]
struct Speaker<Id> {
    id: Id,
    /// Newest first.
    levels: [u8; LEVELS],
    heard: Instant,
    quietest: Quietest,
    scores: Scores,
}

/// Scores of the three activities.
#[derive(Debug, Clone, Copy)]
struct Scores {
    immediate: f64,
    medium: f64,
    long: f64,
}

/// The quietest level of the last window or two: what the speaker's room sounds like.
#[derive(Debug, Clone)]
struct Quietest {
    known: u8,
    next: u8,
    count: u32,
    since: Instant,
}

/// The dominant speaker of one room.
#[derive(Debug)]
pub struct DominantSpeaker<Id> {
    speakers: Vec<Speaker<Id>>,
    dominant: Option<Id>,
    next_decision: Option<Instant>,
}

impl<Id: Copy + PartialEq> Default for DominantSpeaker<Id> {
    fn default() -> Self {
        Self { speakers: Vec::new(), dominant: None, next_decision: None }
    }
}

impl<Id: Copy + PartialEq> DominantSpeaker<Id> {
    /// Takes the level of a packet, dB below overload (RFC 6464: 127 is silence).
    pub fn observe(&mut self, now: Instant, id: Id, level_dbov: u8) {
        let level = MAX_LEVEL - level_dbov.min(MAX_LEVEL);
        let known = self.speakers.iter().position(|speaker| speaker.id == id);
        let index = known.unwrap_or_else(|| {
            self.speakers.push(Speaker::new(now, id));
            self.speakers.len() - 1
        });
        self.speakers[index].observe(now, level);
        self.next_decision.get_or_insert(now + DECISION_INTERVAL);
    }

    /// Forgets a speaker who left or was muted for good.
    pub fn remove(&mut self, id: Id) {
        self.speakers.retain(|speaker| speaker.id != id);
        if self.dominant == Some(id) {
            self.dominant = None;
        }
    }

    /// Who has the floor.
    pub fn dominant(&self) -> Option<Id> {
        self.dominant
    }

    /// When [`handle_timeout`](Self::handle_timeout) decides next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_decision
    }

    /// Decides, if it is time. Returns the dominant speaker if it is another one than before.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Id> {
        if self.next_decision.is_none_or(|at| at > now) {
            return None;
        }
        for speaker in &mut self.speakers {
            speaker.on_time(now);
        }
        // While all are silent there is nothing to decide; the next packet wakes us.
        let any = self.speakers.iter().any(|s| s.levels.iter().any(|level| *level > 0));
        self.next_decision = any.then(|| now + DECISION_INTERVAL);
        let before = self.dominant;
        self.dominant = self.decide(now).or(before);
        self.dominant.filter(|dominant| Some(*dominant) != before)
    }

    /// The speaker who takes the floor, if one does.
    fn decide(&mut self, now: Instant) -> Option<Id> {
        for speaker in &mut self.speakers {
            speaker.scores = speaker.score();
        }
        let dominant = self.dominant.and_then(|id| self.speakers.iter().find(|s| s.id == id));
        let Some(dominant) = dominant else {
            // The first one is whoever speaks most, and of several the loudest.
            let loudness = |s: &Speaker<Id>| s.levels.iter().map(|l| u32::from(*l)).sum::<u32>();
            let speaking = self.speakers.iter().filter(|s| s.scores.immediate > MIN_SCORE);
            return speaking
                .max_by(|a, b| {
                    let by_activity = a.scores.medium.total_cmp(&b.scores.medium);
                    by_activity.then_with(|| loudness(a).cmp(&loudness(b)))
                })
                .map(|speaker| speaker.id);
        };
        let gone = now.saturating_duration_since(dominant.heard) >= LONG_IDLE;
        let ratios = |speaker: &Speaker<Id>| {
            let ratio = |theirs: f64, own: f64| (theirs / own).ln();
            (
                ratio(speaker.scores.immediate, dominant.scores.immediate),
                ratio(speaker.scores.medium, dominant.scores.medium),
                ratio(speaker.scores.long, dominant.scores.long),
            )
        };
        self.speakers
            .iter()
            .filter(|speaker| speaker.id != dominant.id && speaker.scores.immediate > MIN_SCORE)
            .map(|speaker| (speaker, ratios(speaker)))
            .filter(|(_, (c1, c2, c3))| gone || (*c1 > C1 && *c2 > C2 && *c3 > C3))
            .max_by(|(_, a), (_, b)| a.1.total_cmp(&b.1))
            .map(|(speaker, _)| speaker.id)
    }
}

impl<Id> Speaker<Id> {
    fn new(now: Instant, id: Id) -> Self {
        Self {
            id,
            levels: [0; LEVELS],
            heard: now,
            quietest: Quietest { known: 0, next: MAX_LEVEL, count: 0, since: now },
            scores: Scores { immediate: MIN_SCORE, medium: MIN_SCORE, long: MIN_SCORE },
        }
    }

    fn observe(&mut self, now: Instant, level: u8) {
        self.heard = now;
        self.quietest.observe(now, level);
        // A level near the room's own noise is silence.
        let speech = if level > self.quietest.known.saturating_add(N1 as u8) { level } else { 0 };
        self.push(speech);
    }

    fn on_time(&mut self, now: Instant) {
        if now.saturating_duration_since(self.heard) > IDLE {
            self.push(0);
        }
    }

    fn push(&mut self, level: u8) {
        self.levels.copy_within(..LEVELS - 1, 1);
        self.levels[0] = level;
    }

    fn score(&self) -> Scores {
        let immediates = self.levels.map(|level| level / SUB_UNIT);
        let mut mediums = [0; N3];
        for (medium, moments) in mediums.iter_mut().zip(immediates.chunks_exact(N2)) {
            *medium = moments.iter().filter(|moment| **moment > MEDIUM_THRESHOLD).count() as u8;
        }
        let long = mediums.iter().filter(|medium| **medium > LONG_THRESHOLD).count();
        Scores {
            immediate: score(usize::from(immediates[0]), N1, IMMEDIATE_LAMBDA),
            medium: score(usize::from(mediums[0]), N2, MEDIUM_LAMBDA),
            long: score(long, N3, LONG_LAMBDA),
        }
    }
}

impl Quietest {
    fn observe(&mut self, now: Instant, level: u8) {
        if level == 0 {
            return;
        }
        self.next = self.next.min(level);
        self.count += 1;
        if now.saturating_duration_since(self.since) >= MIN_LEVEL_WINDOW
            && self.count >= MIN_LEVEL_COUNT
        {
            (self.known, self.next, self.count, self.since) = (self.next, MAX_LEVEL, 0, now);
        } else if self.known > self.next {
            self.known = self.next;
        }
    }
}

/// How much likelier `active` of `of` are under speech, a binomial, than under silence, an
/// exponential; as a log ratio.
fn score(active: usize, of: usize, lambda: f64) -> f64 {
    let (v, n) = (active as f64, of as f64);
    let speech = ln_choose(of, active) + v * SPEECH.ln() + (n - v) * (1.0 - SPEECH).ln();
    let silence = lambda.ln() - lambda * v;
    (speech - silence).max(MIN_SCORE)
}

fn ln_choose(n: usize, k: usize) -> f64 {
    (0..k).map(|i| ((n - i) as f64).ln() - ((i + 1) as f64).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    /// Levels of every 20 ms of some people who may all speak at once.
    struct Meeting {
        room: DominantSpeaker<u8>,
        now: Instant,
        changes: Vec<u8>,
    }

    impl Meeting {
        fn new() -> Self {
            Self { room: DominantSpeaker::default(), now: epoch(), changes: Vec::new() }
        }

        /// `levels[n]`: how loud speaker `n` is, dB below overload; `None` sends nothing.
        fn go_on(&mut self, ms: u64, levels: &[Option<u8>]) {
            for _ in 0..ms / 20 {
                self.now += Duration::from_millis(20);
                for (id, level) in levels.iter().enumerate() {
                    if let Some(level) = level {
                        self.room.observe(self.now, id as u8, *level);
                    }
                }
                self.changes.extend(self.room.handle_timeout(self.now));
            }
        }
    }

    const LOUD: Option<u8> = Some(15);
    const QUIET: Option<u8> = Some(127);

    #[test]
    fn the_first_to_speak_becomes_dominant_within_an_interval_or_two() {
        let mut meeting = Meeting::new();
        meeting.go_on(2_000, &[QUIET, QUIET, QUIET]);
        assert_eq!(meeting.room.dominant(), None);
        meeting.go_on(600, &[QUIET, LOUD, QUIET]);
        assert_eq!(meeting.room.dominant(), Some(1));
    }

    #[test]
    fn the_floor_passes_to_whoever_goes_on_alone() {
        let mut meeting = Meeting::new();
        meeting.go_on(3_000, &[LOUD, QUIET]);
        meeting.go_on(3_000, &[QUIET, LOUD]);
        assert_eq!(meeting.changes, [0, 1]);
    }

    #[test]
    fn a_pause_of_the_speaker_and_a_cough_of_another_change_nothing() {
        let mut meeting = Meeting::new();
        meeting.go_on(3_000, &[LOUD, QUIET, QUIET]);
        meeting.go_on(800, &[QUIET, QUIET, QUIET]);
        meeting.go_on(3_000, &[LOUD, QUIET, QUIET]);
        meeting.go_on(60, &[LOUD, QUIET, Some(5)]);
        meeting.go_on(3_000, &[LOUD, QUIET, QUIET]);
        assert_eq!(meeting.changes, [0]);
    }

    #[test]
    fn who_interrupts_without_success_does_not_take_over() {
        let mut meeting = Meeting::new();
        meeting.go_on(3_000, &[LOUD, QUIET]);
        meeting.go_on(2_000, &[LOUD, LOUD]);
        assert_eq!(meeting.changes, [0]);
    }

    #[test]
    fn steady_noise_is_not_speech() {
        let mut meeting = Meeting::new();
        // A fan at a level that would pass for speech, until its room is known.
        meeting.go_on(20_000, &[Some(50), QUIET]);
        meeting.go_on(3_000, &[Some(50), LOUD]);
        assert_eq!(meeting.room.dominant(), Some(1));
        meeting.go_on(5_000, &[Some(50), QUIET]);
        assert_eq!(meeting.room.dominant(), Some(1), "the fan does not win by default");
    }

    #[test]
    fn a_dominant_speaker_who_vanishes_gives_way() {
        let mut meeting = Meeting::new();
        meeting.go_on(3_000, &[LOUD, None]);
        meeting.go_on(4_000, &[None, Some(40)]);
        assert_eq!(meeting.room.dominant(), Some(1));
        meeting.room.remove(1);
        assert_eq!(meeting.room.dominant(), None);
    }

    #[test]
    fn silence_costs_no_decisions() {
        let mut meeting = Meeting::new();
        meeting.go_on(1_000, &[LOUD, QUIET]);
        meeting.go_on(20_000, &[None, None]);
        assert_eq!(meeting.room.poll_timeout(), None);
    }

    #[test]
    fn activity_scores_more_than_silence() {
        for (of, lambda) in [(N1, IMMEDIATE_LAMBDA), (N2, MEDIUM_LAMBDA), (N3, LONG_LAMBDA)] {
            assert_eq!(score(0, of, lambda), MIN_SCORE);
            assert!((of / 2..=of).all(|active| score(active, of, lambda) > 0.9));
        }
    }
}
