//! Who is speaking: levels from the workers become deltas that each participant hears about those
//! it is subscribed to, and about itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sluice_engine::api::{TrackId, WorkerId};
use sluice_proto as proto;
use sluice_proto::signal_response::Message as Response;

use crate::outputs::SharedResponse;
use crate::participant::ParticipantKey;
use crate::room::Room;
use crate::timers::Timer;
use crate::track::Level;

/// Levels are rounded up to this many steps, so that small changes are not sent.
const LEVEL_STEPS: f32 = 8.0;

/// A level that is not repeated is over after this many halves of the workers' interval: two
/// intervals and some.
const LEVEL_LIFETIME_HALVES: u32 = 5;

/// Level of a simulated speaker.
const SIMULATED_LEVEL: f32 = 0.9;

/// Longest simulated speech, seconds.
const MAX_SIMULATED_SPEECH_S: u64 = 600;

/// Levels per track and what was announced per participant.
#[derive(Debug, Default)]
pub(crate) struct Speakers {
    levels: BTreeMap<TrackId, Level>,
    announced: BTreeMap<ParticipantKey, f32>,
}

impl Room {
    /// Takes the levels of one worker's interval; microphones of that worker that are not named
    /// are silent.
    pub(crate) fn audio_levels(&mut self, now: Instant, levels: &[(TrackId, f32)]) {
        let mut workers: Vec<WorkerId> = levels.iter().map(|(id, _)| id.worker()).collect();
        workers.dedup();
        // Those of forwarded tracks come by another way.
        let tracks = &self.tracks;
        let is_forwarded = |id: &TrackId| tracks.get(id).is_some_and(|track| track.forwarded);
        self.speakers.levels.retain(|id, _| is_forwarded(id) || !workers.contains(&id.worker()));
        for &(id, level) in levels {
            if self.tracks.get(&id).is_some_and(|track| !track.info.muted) {
                self.speakers.levels.insert(id, Level { level, at: now });
            }
        }
        self.update_speakers(now);
    }

    /// Takes the levels of all tracks of a participant that is forwarded to this room.
    pub(crate) fn forwarded_levels(
        &mut self,
        now: Instant,
        owner: ParticipantKey,
        levels: &[(TrackId, f32)],
    ) {
        let tracks = &self.tracks;
        let of_owner = |id: &TrackId| tracks.get(id).is_some_and(|track| track.owner == owner);
        self.speakers.levels.retain(|id, _| !of_owner(id));
        let news = levels.iter().filter(|(id, _)| of_owner(id));
        self.speakers.levels.extend(news.map(|&(id, level)| (id, Level { level, at: now })));
        self.update_speakers(now);
    }

    /// Levels of tracks that are not silent.
    pub(crate) fn track_levels(&self) -> impl Iterator<Item = (TrackId, f32)> + '_ {
        self.speakers.levels.iter().map(|(id, level)| (*id, level.level))
    }

    /// Recomputes the speakers and sends what changed.
    pub(crate) fn update_speakers(&mut self, now: Instant) {
        let tracks = &self.tracks;
        let lifetime = self.config.audio_update_interval * LEVEL_LIFETIME_HALVES / 2;
        self.speakers.levels.retain(|id, level| {
            tracks.contains_key(id) && now.saturating_duration_since(level.at) < lifetime
        });
        let mut current: BTreeMap<ParticipantKey, f32> = BTreeMap::new();
        for (id, level) in &self.speakers.levels {
            let Some(track) = tracks.get(id) else { continue };
            let loudest = current.entry(track.owner).or_default();
            *loudest = loudest.max(quantise(level.level));
        }
        current.retain(|_, level| *level > 0.0);
        let before = std::mem::replace(&mut self.speakers.announced, current);
        let current = &self.speakers.announced;
        let ended = before.keys().filter(|key| !current.contains_key(key)).map(|key| (*key, 0.0));
        let changed = current.iter().filter(|(key, level)| before.get(key) != Some(level));
        let mut changes: Vec<(ParticipantKey, f32)> =
            changed.map(|(key, level)| (*key, *level)).chain(ended).collect();
        changes.sort_by(|a, b| b.1.total_cmp(&a.1));
        if self.speakers.levels.is_empty() {
            self.timers.cancel(Timer::SpeakersStale);
        } else {
            self.timers.set(Timer::SpeakersStale, now + lifetime);
        }
        if !changes.is_empty() {
            self.send_speakers(&changes);
        }
        self.forward_levels();
    }

    fn send_speakers(&mut self, changes: &[(ParticipantKey, f32)]) {
        let infos: Vec<(ParticipantKey, proto::SpeakerInfo)> = changes
            .iter()
            .filter_map(|(key, level)| Some((*key, self.speaker_info(*key, *level)?)))
            .collect();
        let receivers: Vec<ParticipantKey> = self.participants.keys().copied().collect();
        let mut encoded: FxHashMap<Vec<usize>, SharedResponse> = FxHashMap::default();
        for receiver in receivers {
            let heard: Vec<usize> =
                (0..infos.len()).filter(|&index| self.hears(receiver, infos[index].0)).collect();
            if heard.is_empty() {
                continue;
            }
            let response = encoded.entry(heard).or_insert_with_key(|heard| {
                let speakers = heard.iter().map(|&index| infos[index].1.clone()).collect();
                SharedResponse::new(Response::SpeakersChanged(proto::SpeakersChanged { speakers }))
            });
            let response = response.clone();
            self.send_shared(receiver, &response);
        }
    }

    /// Whether a participant is told about a speaker: itself and those it subscribes to.
    fn hears(&self, receiver: ParticipantKey, speaker: ParticipantKey) -> bool {
        receiver == speaker
            || self.participants.get(&speaker).is_some_and(|speaker| {
                let mut tracks = speaker.published.iter().filter_map(|id| self.tracks.get(id));
                tracks.any(|track| track.subscribers.contains(&receiver))
            })
    }

    fn speaker_info(&self, key: ParticipantKey, level: f32) -> Option<proto::SpeakerInfo> {
        let participant = self.participants.get(&key)?;
        Some(proto::SpeakerInfo { sid: (&participant.sid).into(), level, active: level > 0.0 })
    }

    /// A new subscriber hears of a speech that is going on.
    pub(crate) fn send_speaker_to(&mut self, key: ParticipantKey, track: TrackId) {
        self.send_level(key, track, 1.0);
    }

    /// Who unsubscribes from a speaker hears that it is silent.
    pub(crate) fn silence_speaker_for(&mut self, key: ParticipantKey, track: TrackId) {
        self.send_level(key, track, 0.0);
    }

    fn send_level(&mut self, key: ParticipantKey, track: TrackId, factor: f32) {
        if !self.speakers.levels.contains_key(&track) {
            return;
        }
        let Some(owner) = self.tracks.get(&track).map(|track| track.owner) else { return };
        let Some(level) = self.speakers.announced.get(&owner) else { return };
        if let Some(info) = self.speaker_info(owner, level * factor) {
            let changed = proto::SpeakersChanged { speakers: vec![info] };
            self.send(key, Response::SpeakersChanged(changed));
        }
    }

    /// `SimulateScenario.speaker_update`: pretends that a participant speaks.
    pub(crate) fn simulate_speech(&mut self, now: Instant, key: ParticipantKey, seconds: i32) {
        let seconds = u64::try_from(seconds).unwrap_or(0).min(MAX_SIMULATED_SPEECH_S);
        self.timers.set(Timer::SimulatedSpeech(key), now + Duration::from_secs(seconds));
        self.broadcast_level(key, SIMULATED_LEVEL);
    }

    pub(crate) fn end_simulated_speech(&mut self, key: ParticipantKey) {
        self.broadcast_level(key, 0.0);
    }

    fn broadcast_level(&mut self, key: ParticipantKey, level: f32) {
        if let Some(info) = self.speaker_info(key, level) {
            let changed = proto::SpeakersChanged { speakers: vec![info] };
            self.send_to_all(Response::SpeakersChanged(changed), None);
        }
    }

    pub(crate) fn forget_speaker(&mut self, key: ParticipantKey) {
        self.speakers.announced.remove(&key);
    }
}

fn quantise(level: f32) -> f32 {
    (level.clamp(0.0, 1.0) * LEVEL_STEPS).ceil() / LEVEL_STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_rounded_up_in_eighths() {
        assert_eq!(quantise(0.0), 0.0);
        assert_eq!(quantise(0.01), 0.125);
        assert_eq!(quantise(0.5), 0.5);
        assert_eq!(quantise(7.0), 1.0);
    }
}
