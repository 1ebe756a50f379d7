//! Which jobs there should be: dispatches of rooms and of the API, and the people they are for.

use std::collections::BTreeSet;
use std::time::Duration;

use sluice_control::{ApiError, WebhookEvent, WebhookKind};
use sluice_proto::{self as proto, JobRestartPolicy, JobStatus};

use super::hub::{Deadline, Hub, Now};
use super::job::{Home, Slot, Stage};
use super::rooms::{AgentRoom, Dispatch};
use super::worker::WorkerKey;

/// Length limit of a deployment's name, bytes (LiveKit's).
const MAX_DEPLOYMENT_LEN: usize = 64;

/// A worker that goes this soon after its agent left has died with it.
const DEATH_WINDOW: Duration = Duration::from_secs(5);

/// An agent whose dispatch was deleted may say goodbye for this long (LiveKit's 3 s).
const FAREWELL: Duration = Duration::from_secs(3);

impl Hub {
    /// Something happened in a room.
    pub(super) fn room_event(&mut self, now: Now, event: &WebhookEvent) {
        let sid = event.room.sid.clone();
        match event.kind {
            WebhookKind::RoomStarted => {
                self.know_room(&event.room);
                // A room that names no agents is for every worker without a name.
                let anyone = [proto::RoomAgentDispatch::default()];
                let wanted = if event.agents.is_empty() { &anyone[..] } else { &event.agents[..] };
                for agent in wanted {
                    if let Err(error) = check_deployment(&agent.deployment) {
                        tracing::warn!(room = event.room.name, error, "agent is not dispatched");
                        continue;
                    }
                    let dispatch = proto::AgentDispatch {
                        id: self.new_id("AD_"),
                        agent_name: agent.agent_name.clone(),
                        room: event.room.name.clone(),
                        metadata: agent.metadata.clone(),
                        restart_policy: agent.restart_policy,
                        deployment: agent.deployment.clone(),
                        attributes: agent.attributes.clone(),
                        state: None,
                    };
                    self.add_dispatch(now, &sid, dispatch);
                }
            }
            WebhookKind::RoomFinished => self.room_finished(&sid),
            kind => {
                let Some(participant) = &event.participant else { return };
                let Some(room) = self.rooms.get_mut(&sid) else { return };
                room.info = event.room.clone();
                match kind {
                    WebhookKind::ParticipantJoined => {
                        room.joined(participant);
                        self.agent_joined(&sid, participant);
                    }
                    WebhookKind::TrackPublished => room.published(participant),
                    WebhookKind::ParticipantLeft => {
                        room.left(participant);
                        return self.left(now, &sid, participant);
                    }
                    _ => return,
                }
            }
        }
        self.reconcile(now, &sid);
    }

    pub(super) fn agent_joined(&mut self, room_sid: &str, participant: &proto::ParticipantInfo) {
        let Some(room) = self.rooms.get(room_sid) else { return };
        if !room.agents.contains_key(&participant.identity) {
            return;
        }
        for id in room.dispatches.values().flat_map(|dispatch| dispatch.slots.values()) {
            if let Some(job) = self.jobs.get_mut(id)
                && job.agent() == participant.identity
            {
                job.agent_sid.clone_from(&participant.sid);
            }
        }
    }

    pub(super) fn know_room(&mut self, room: &proto::Room) {
        self.names.insert(room.name.clone(), room.sid.clone());
        let entry = self.rooms.entry(room.sid.clone());
        entry.or_insert_with(|| AgentRoom::new(room.clone()));
    }

    pub(super) fn room_finished(&mut self, sid: &str) {
        let Some(room) = self.rooms.remove(sid) else { return };
        if self.names.get(&room.info.name).is_some_and(|current| current == sid) {
            self.names.remove(&room.info.name);
        }
        for job in room.dispatches.into_values().flat_map(|dispatch| dispatch.slots.into_values()) {
            self.end_job(&job);
        }
    }

    /// Someone left: jobs for them that nobody took are moot, and an agent's job is over.
    pub(super) fn left(&mut self, now: Now, room_sid: &str, participant: &proto::ParticipantInfo) {
        let Some(room) = self.rooms.get_mut(room_sid) else { return };
        let mut moot = Vec::new();
        let mut deserted = Vec::new();
        for dispatch in room.dispatches.values_mut() {
            dispatch.slots.retain(|slot, id| {
                let Some(job) = self.jobs.get_mut(id) else { return false };
                if job.agent_sid == participant.sid {
                    job.agent_sid.clear();
                    deserted.push(id.clone());
                }
                let is_moot = slot.participant == participant.sid
                    && matches!(job.stage, Stage::Waiting | Stage::Offered { .. } | Stage::Ended);
                if is_moot {
                    moot.push(id.clone());
                }
                !is_moot
            });
        }
        for job in moot {
            self.end_job(&job);
        }
        for job in deserted {
            match self.jobs.get(&job).map(|job| job.stage) {
                // The worker lives: it hears of it, and may still say that all went well.
                Some(Stage::Running { worker }) => {
                    let until = now.instant + DEATH_WINDOW;
                    self.send_termination(worker, &job);
                    self.set_stage(&job, Stage::Left { worker, until });
                    if let Some(job) = self.jobs.get_mut(&job) {
                        let error = "agent worker left the room";
                        job.set_status(JobStatus::JsFailed, error, now.nanos());
                    }
                }
                Some(Stage::Orphaned { .. }) => self.failed(now, &job, "worker is gone"),
                _ => {}
            }
        }
    }

    /// Makes the jobs that a room should have and has not.
    pub(super) fn reconcile(&mut self, now: Now, room_sid: &str) {
        let Some(room) = self.rooms.get(room_sid) else { return };
        let kinds: BTreeSet<&WorkerKey> = self.workers.values().map(|worker| &worker.key).collect();
        let mut missing = Vec::new();
        for (id, dispatch) in &room.dispatches {
            let fits = |key: &&&WorkerKey| {
                key.agent_name == dispatch.info.agent_name
                    && key.deployment == dispatch.info.deployment
            };
            for key in kinds.iter().filter(fits) {
                for participant in room.targets(key.job_type) {
                    let slot = Slot {
                        job_type: key.job_type,
                        namespace: key.namespace.clone(),
                        participant: participant.map(|info| info.sid.clone()).unwrap_or_default(),
                    };
                    if !dispatch.slots.contains_key(&slot) {
                        missing.push((id.clone(), slot, participant.cloned()));
                    }
                }
            }
        }
        for (dispatch, slot, participant) in missing {
            self.make_job(now, room_sid, &dispatch, slot, participant);
        }
    }

    pub(super) fn make_job(
        &mut self,
        now: Now,
        room_sid: &str,
        dispatch_id: &str,
        slot: Slot,
        participant: Option<proto::ParticipantInfo>,
    ) {
        let id = self.new_id("AJ_");
        let Some(room) = self.rooms.get_mut(room_sid) else { return };
        let Some(dispatch) = room.dispatches.get_mut(dispatch_id) else { return };
        let info = proto::Job {
            id: id.clone(),
            dispatch_id: dispatch_id.to_owned(),
            r#type: slot.job_type,
            room: Some(room.info.clone()),
            participant,
            namespace: slot.namespace.clone(),
            metadata: dispatch.info.metadata.clone(),
            agent_name: dispatch.info.agent_name.clone(),
            deployment: dispatch.info.deployment.clone(),
            attributes: dispatch.info.attributes.clone(),
            ..proto::Job::default()
        };
        let may_restart = dispatch.info.restart_policy() == JobRestartPolicy::JrpOnFailure;
        dispatch.slots.insert(slot, id);
        let home = Home { room_sid: room_sid.to_owned(), dispatch: dispatch_id.to_owned() };
        if let Some(job) = self.add_job(info, Some(home), may_restart) {
            self.offer(now, &job);
        }
    }

    /// `CreateDispatch` for a room that exists.
    pub(super) fn create_dispatch(
        &mut self,
        now: Now,
        room: &proto::Room,
        request: proto::CreateAgentDispatchRequest,
    ) -> proto::AgentDispatch {
        self.know_room(room);
        let dispatch = proto::AgentDispatch {
            id: self.new_id("AD_"),
            agent_name: request.agent_name,
            room: room.name.clone(),
            metadata: request.metadata,
            restart_policy: request.restart_policy,
            deployment: request.deployment,
            attributes: request.attributes,
            state: None,
        };
        let id = self.add_dispatch(now, &room.sid, dispatch);
        self.reconcile(now, &room.sid);
        let room = self.rooms.get(&room.sid);
        let dispatch = room.and_then(|room| room.dispatches.get(&id));
        dispatch.map(|dispatch| self.show(dispatch)).unwrap_or_default()
    }

    pub(super) fn add_dispatch(
        &mut self,
        now: Now,
        room: &str,
        mut info: proto::AgentDispatch,
    ) -> String {
        info.state =
            Some(proto::AgentDispatchState { created_at: now.nanos(), ..Default::default() });
        let id = info.id.clone();
        if let Some(room) = self.rooms.get_mut(room) {
            room.dispatches.insert(id.clone(), Dispatch::new(info));
        }
        id
    }

    /// `DeleteDispatch`: its agents are told to go, and removed if they stay.
    ///
    /// # Errors
    /// No such dispatch.
    pub(super) fn delete_dispatch(
        &mut self,
        now: Now,
        room: &str,
        id: &str,
    ) -> Result<proto::AgentDispatch, ApiError> {
        let sid = self.names.get(room).cloned().unwrap_or_default();
        let removed = self.rooms.get_mut(&sid).and_then(|room| room.dispatches.remove(id));
        let dispatch = removed.ok_or(ApiError::NotFound("dispatch ID not found"))?;
        let mut shown = self.show(&dispatch);
        if let Some(state) = &mut shown.state {
            state.deleted_at = now.nanos();
        }
        for job in dispatch.slots.values() {
            let agent = self.jobs.get(job).map(|job| job.agent().to_owned()).unwrap_or_default();
            self.end_job(job);
            if !agent.is_empty() {
                let deadline = Deadline::Farewell { room_sid: sid.clone(), identity: agent };
                self.deadlines.insert((now.instant + FAREWELL, deadline));
            }
        }
        Ok(shown)
    }

    /// `ListDispatch`; empty `id` = all of the room.
    pub(super) fn list_dispatches(&self, room: &str, id: &str) -> Vec<proto::AgentDispatch> {
        let room = self.names.get(room).and_then(|sid| self.rooms.get(sid));
        let dispatches = room.into_iter().flat_map(|room| room.dispatches.values());
        let wanted = dispatches.filter(|dispatch| id.is_empty() || dispatch.info.id == id);
        wanted.map(|dispatch| self.show(dispatch)).collect()
    }

    pub(super) fn show(&self, dispatch: &Dispatch) -> proto::AgentDispatch {
        let mut info = dispatch.info.clone();
        let jobs = dispatch.slots.values().filter_map(|id| self.jobs.get(id));
        let jobs = jobs.filter(|job| job.was_assigned()).map(|job| job.info.clone());
        info.state.get_or_insert_default().jobs = jobs.collect();
        info
    }
}

/// What the name of a deployment may not hold.
///
/// # Errors
/// The rule that it breaks, in LiveKit's words.
pub(crate) fn check_deployment(deployment: &str) -> Result<(), String> {
    if deployment.len() > MAX_DEPLOYMENT_LEN {
        return Err(format!("deployment exceeds {MAX_DEPLOYMENT_LEN} bytes"));
    }
    for (index, byte) in deployment.bytes().enumerate() {
        if byte == b'_' {
            return Err("deployment contains reserved character '_'".into());
        }
        if byte <= b' ' || byte == 0x7f {
            return Err(format!(
                "deployment contains whitespace or control byte at position {index}"
            ));
        }
    }
    Ok(())
}
