//! What the hub knows of one room: who is in it, and which agents it wants.

use std::collections::{BTreeMap, VecDeque};

use sluice_proto::participant_info::Kind;
use sluice_proto::{self as proto, JobType};

use super::job::Slot;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct AgentRoom {
    pub(super) info: proto::Room,
    pub(super) dispatches: BTreeMap<String, Dispatch>,
    /// Those whom agents may be for, by SID.
    people: BTreeMap<String, Person>,
    /// SIDs of the agents in the room, by identity.
    pub(super) agents: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Person {
    info: proto::ParticipantInfo,
    has_published: bool,
}

/// The wish for an agent.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) info: proto::AgentDispatch,
    /// Its jobs, by id.
    pub(super) slots: BTreeMap<Slot, String>,
    /// Those that are over, oldest first.
    pub(super) ended: VecDeque<String>,
}

impl Dispatch {
    pub(super) fn new(info: proto::AgentDispatch) -> Self {
        Self { info, slots: BTreeMap::new(), ended: VecDeque::new() }
    }
}

impl AgentRoom {
    pub(super) fn new(info: proto::Room) -> Self {
        let (dispatches, people, agents) = Default::default();
        Self { info, dispatches, people, agents }
    }

    pub(super) fn joined(&mut self, participant: &proto::ParticipantInfo) {
        if participant.kind() == Kind::Agent {
            self.agents.insert(participant.identity.clone(), participant.sid.clone());
        }
        if !is_dependent(participant) {
            let person = Person { info: participant.clone(), has_published: false };
            self.people.insert(participant.sid.clone(), person);
        }
    }

    pub(super) fn published(&mut self, participant: &proto::ParticipantInfo) {
        if is_dependent(participant) {
            return;
        }
        // Media may come before the connection counts as complete.
        let person = self.people.entry(participant.sid.clone());
        let person =
            person.or_insert_with(|| Person { info: participant.clone(), has_published: true });
        person.has_published = true;
        person.info = participant.clone();
    }

    pub(super) fn left(&mut self, participant: &proto::ParticipantInfo) {
        self.people.remove(&participant.sid);
        // Another one of that identity may be here already.
        if self.agents.get(&participant.identity).is_some_and(|sid| *sid == participant.sid) {
            self.agents.remove(&participant.identity);
        }
    }

    /// For whom a job of this type is wanted; one `None` for the room itself.
    pub(super) fn targets(&self, job_type: i32) -> Vec<Option<&proto::ParticipantInfo>> {
        match JobType::try_from(job_type) {
            Ok(JobType::JtRoom) => vec![None],
            Ok(JobType::JtPublisher) => {
                let publishers = self.people.values().filter(|person| person.has_published);
                publishers.map(|person| Some(&person.info)).collect()
            }
            Ok(JobType::JtParticipant) => {
                self.people.values().map(|person| Some(&person.info)).collect()
            }
            Err(_) => Vec::new(),
        }
    }
}

/// Agents and recorders get no agents of their own.
fn is_dependent(participant: &proto::ParticipantInfo) -> bool {
    let permission = participant.permission.as_ref();
    matches!(participant.kind(), Kind::Agent | Kind::Egress)
        || permission.is_some_and(|permission| permission.agent || permission.recorder)
}
