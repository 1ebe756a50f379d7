//! What each participant knows of the others, and whether all agree at the end of a run.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sluice_proto::ParticipantInfo;
use sluice_proto::participant_info::State;

/// The others as one participant knows them: SID and version by identity.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster(BTreeMap<String, (String, u32)>);

impl Roster {
    /// Starts over with the list of a join.
    pub(crate) fn replace(&mut self, infos: &[ParticipantInfo]) {
        self.0.clear();
        self.update(infos);
    }

    /// Takes an update as clients do: an older version says nothing, and who is gone is only gone
    /// if nobody else has its identity since.
    pub(crate) fn update(&mut self, infos: &[ParticipantInfo]) {
        for info in infos {
            let known = self.0.get(&info.identity);
            let same = known.is_some_and(|(sid, _)| *sid == info.sid);
            if same && known.is_some_and(|(_, version)| *version > info.version) {
                continue;
            }
            if info.state() != State::Disconnected {
                self.0.insert(info.identity.clone(), (info.sid.clone(), info.version));
            } else if same {
                self.0.remove(&info.identity);
            }
        }
    }
}

/// What one participant reports of itself and the others.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) identity: String,
    pub(crate) sid: String,
    pub(crate) roster: Roster,
}

/// Notes of everybody, by room.
#[derive(Debug, Default)]
pub(crate) struct Census(Mutex<BTreeMap<String, Vec<Note>>>);

impl Census {
    pub(crate) fn note(&self, room: &str, note: Note) {
        self.with(|rooms| rooms.entry(room.to_owned()).or_default().push(note));
    }

    pub(crate) fn len(&self) -> usize {
        self.with(|rooms| rooms.values().map(Vec::len).sum())
    }

    /// Participants who know another set of others than there is.
    pub(crate) fn inconsistent(&self) -> usize {
        self.with(|rooms| rooms.values().map(|notes| inconsistent(notes)).sum())
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Vec<Note>>) -> T) -> T {
        // A panic of another participant leaves whole notes behind.
        f(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn inconsistent(notes: &[Note]) -> usize {
    let everybody: BTreeMap<&str, &str> =
        notes.iter().map(|note| (note.identity.as_str(), note.sid.as_str())).collect();
    let is_wrong = |note: &&Note| {
        let others = note.roster.0.iter().filter(|(identity, _)| **identity != note.identity);
        let known: BTreeMap<&str, &str> =
            others.map(|(identity, (sid, _))| (identity.as_str(), sid.as_str())).collect();
        let mut expected = everybody.clone();
        expected.remove(note.identity.as_str());
        known != expected
    };
    notes.iter().filter(is_wrong).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(identity: &str, sid: &str, version: u32, state: State) -> ParticipantInfo {
        ParticipantInfo {
            identity: identity.into(),
            sid: sid.into(),
            version,
            state: state.into(),
            ..ParticipantInfo::default()
        }
    }

    fn note(identity: &str, sid: &str, others: &[ParticipantInfo]) -> Note {
        let mut roster = Roster::default();
        roster.update(others);
        Note { identity: identity.into(), sid: sid.into(), roster }
    }

    #[test]
    fn agreement_needs_the_present_sid_of_everybody() {
        let a = info("a", "PA_1", 1, State::Active);
        let b = info("b", "PA_2", 1, State::Active);
        let old = info("b", "PA_0", 9, State::Active);
        let gone = info("b", "PA_0", 10, State::Disconnected);
        let right = note("a", "PA_1", &[old.clone(), b.clone(), gone]);
        assert_eq!(inconsistent(&[right, note("b", "PA_2", std::slice::from_ref(&a))]), 0);
        let stale = note("a", "PA_1", &[b.clone(), old]);
        assert_eq!(inconsistent(&[stale, note("b", "PA_2", std::slice::from_ref(&a))]), 1);
        let missing = note("a", "PA_1", &[]);
        assert_eq!(inconsistent(&[missing, note("b", "PA_2", &[a, b])]), 1);
    }
}
