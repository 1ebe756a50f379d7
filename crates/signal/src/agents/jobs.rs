//! How jobs find a worker, and how they end.

use std::collections::BTreeSet;
use std::time::Duration;

use sluice_proto::server_message::Message as ToWorker;
use sluice_proto::{self as proto, JobStatus};

use super::hub::{Deadline, Hub, Now, Output, WorkerId};
use super::job::{Home, Job, Stage};
use super::worker::choose;
use crate::token::{Claims, mint};

/// How long a worker may think about an offer (LiveKit's `AssignJobTimeout`).
const OFFER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a failed job is started again.
const MAX_RESTARTS: u32 = 3;

/// Validity of an agent's token (LiveKit's).
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// Attribute by which clients know an agent.
const AGENT_NAME_ATTRIBUTE: &str = "lk.agent_name";

/// Jobs known at once.
const MAX_JOBS: usize = 200_000;

/// Jobs of one dispatch that are kept after their end.
const MAX_ENDED_JOBS: usize = 100;

impl Hub {
    pub(super) fn add_job(
        &mut self,
        info: proto::Job,
        home: Option<Home>,
        may_restart: bool,
    ) -> Option<String> {
        if self.jobs.len() >= MAX_JOBS {
            tracing::warn!(job = info.id, "too many jobs: this one is not dispatched");
            self.stats.0.jobs_refused.add();
            return None;
        }
        let id = info.id.clone();
        let stage = Stage::Waiting;
        let excluded = BTreeSet::new();
        let agent_sid = String::new();
        let job = Job { info, home, stage, agent_sid, excluded, restarts: 0, may_restart };
        self.jobs.insert(id.clone(), job);
        self.waiting.insert(id.clone());
        Some(id)
    }

    pub(super) fn offer_waiting(&mut self, now: Now) {
        let waiting: Vec<String> = self.waiting.iter().cloned().collect();
        for job in waiting {
            self.offer(now, &job);
        }
    }

    /// Asks the best worker that was not asked yet; without one the job waits.
    pub(super) fn offer(&mut self, now: Now, id: &str) {
        let Some(job) = self.jobs.get(id) else { return };
        let target = self.config.target_load;
        let workers = self.workers.values();
        match choose(workers, &job.key(), &job.excluded, target, &mut self.rng) {
            Some(worker) => self.offer_to(now, id, worker),
            None => self.set_stage(id, Stage::Waiting),
        }
    }

    pub(super) fn offer_to(&mut self, now: Now, id: &str, worker_id: WorkerId) {
        let until = now.instant + OFFER_TIMEOUT;
        self.set_stage(id, Stage::Offered { worker: worker_id, until });
        let Some(worker) = self.workers.get_mut(&worker_id) else { return };
        let Some(job) = self.jobs.get_mut(id) else { return };
        worker.job_given();
        job.state().worker_id.clone_from(&worker.name);
        job.state().started_at = 0;
        job.set_status(JobStatus::JsRunning, "", now.nanos());
        let request =
            proto::AvailabilityRequest { job: Some(job.info.clone()), resuming: job.restarts > 0 };
        self.deadlines.insert((until, Deadline::Job(id.to_owned())));
        self.send(worker_id, ToWorker::Availability(request));
    }

    pub(super) fn answered(
        &mut self,
        now: Now,
        worker_id: WorkerId,
        answer: proto::AvailabilityResponse,
    ) {
        let Some(job) = self.jobs.get_mut(&answer.job_id) else { return };
        if !matches!(job.stage, Stage::Offered { worker, .. } if worker == worker_id) {
            return;
        }
        if answer.terminate {
            job.set_status(JobStatus::JsSuccess, "", now.nanos());
            self.set_stage(&answer.job_id, Stage::Ended);
        } else if answer.available {
            self.assign(now, worker_id, answer);
        } else {
            self.stats.0.offers_declined.add();
            self.exclude_and_offer(now, &answer.job_id, worker_id);
        }
    }

    pub(super) fn exclude_and_offer(&mut self, now: Now, id: &str, worker: WorkerId) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.excluded.insert(worker);
            self.offer(now, id);
        }
    }

    pub(super) fn assign(
        &mut self,
        now: Now,
        worker_id: WorkerId,
        answer: proto::AvailabilityResponse,
    ) {
        let Some(worker) = self.workers.get(&worker_id) else { return };
        let Some(job) = self.jobs.get_mut(&answer.job_id) else { return };
        let room = job.info.room.as_ref().map_or("", |room| room.name.as_str());
        let identity = match answer.participant_identity.as_str() {
            "" => format!("agent-{}", job.info.id),
            identity => identity.to_owned(),
        };
        let mut attributes = answer.participant_attributes;
        attributes.insert(AGENT_NAME_ATTRIBUTE.into(), worker.key.agent_name.clone());
        let claims = Claims {
            identity: identity.clone(),
            name: answer.participant_name,
            kind: "agent".into(),
            metadata: answer.participant_metadata,
            attributes,
            video: Some(worker.grant(room)),
            ..Claims::default()
        };
        let token = match mint(&self.keys, &worker.api_key, &claims, TOKEN_TTL, now.unix) {
            Ok(token) => token,
            Err(error) => {
                tracing::error!(%error, worker = worker.name, "cannot sign an agent's token");
                return self.exclude_and_offer(now, &answer.job_id, worker_id);
            }
        };
        job.state().participant_identity = identity;
        job.set_status(JobStatus::JsRunning, "", now.nanos());
        let assignment = proto::JobAssignment { job: Some(job.info.clone()), url: None, token };
        self.set_stage(&answer.job_id, Stage::Running { worker: worker_id });
        self.stats.0.jobs_assigned.add();
        self.send(worker_id, ToWorker::Assignment(assignment));
    }

    pub(super) fn job_updated(
        &mut self,
        now: Now,
        worker: WorkerId,
        update: &proto::UpdateJobStatus,
    ) {
        let Some(job) = self.jobs.get_mut(&update.job_id) else { return };
        let is_its = matches!(
            job.stage,
            Stage::Running { worker: its } | Stage::Left { worker: its, .. } if its == worker
        );
        if !is_its {
            return;
        }
        match update.status() {
            // The room knows better than the worker that the agent has left.
            status @ (JobStatus::JsPending | JobStatus::JsRunning) => {
                if matches!(job.stage, Stage::Running { .. }) {
                    job.set_status(status, &update.error, now.nanos());
                }
            }
            JobStatus::JsSuccess => {
                job.set_status(JobStatus::JsSuccess, &update.error, now.nanos());
                self.set_stage(&update.job_id, Stage::Ended);
            }
            JobStatus::JsFailed if matches!(job.stage, Stage::Running { .. }) => {
                self.failed(now, &update.job_id, &update.error);
            }
            JobStatus::JsFailed => self.set_stage(&update.job_id, Stage::Ended),
        }
    }

    /// A job failed: another worker gets it, if the dispatch allows.
    pub(super) fn failed(&mut self, now: Now, id: &str, error: &str) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.set_status(JobStatus::JsFailed, error, now.nanos());
        self.stats.0.jobs_failed.add();
        let home = job.home.as_ref().filter(|_| job.may_restart && job.restarts < MAX_RESTARTS);
        let Some(room) = home.and_then(|home| self.rooms.get(&home.room_sid)) else {
            return self.set_stage(id, Stage::Ended);
        };
        tracing::info!(job = id, room = room.info.name, error, "job is dispatched again");
        if room.agents.contains_key(job.agent()) {
            let (room, identity) = (room.info.name.clone(), job.agent().to_owned());
            self.out.push_back(Output::RemoveParticipant { room, identity });
        }
        job.restarts += 1;
        job.agent_sid.clear();
        // Those who declined before may be asked again: much may have changed.
        job.excluded.clear();
        job.set_status(JobStatus::JsPending, error, now.nanos());
        self.stats.0.jobs_restarted.add();
        self.offer(now, id);
    }

    /// A job whose room or dispatch is over; its worker is told.
    pub(super) fn end_job(&mut self, id: &str) {
        self.waiting.remove(id);
        let Some(job) = self.jobs.remove(id) else { return };
        if let Stage::Running { worker } = job.stage {
            self.send_termination(worker, id);
        }
    }

    pub(super) fn send_termination(&mut self, worker: WorkerId, job: &str) {
        let termination = proto::JobTermination { job_id: job.to_owned() };
        self.send(worker, ToWorker::Termination(termination));
    }

    pub(super) fn set_stage(&mut self, id: &str, stage: Stage) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.stage = stage;
        if stage == Stage::Waiting {
            self.waiting.insert(id.to_owned());
        } else {
            self.waiting.remove(id);
        }
        if stage == Stage::Ended {
            let home = job.home.clone();
            self.forget_ended(id, home);
        }
    }

    /// Keeps the list of what is over short.
    pub(super) fn forget_ended(&mut self, id: &str, home: Option<Home>) {
        let Some(home) = home else {
            self.jobs.remove(id);
            return;
        };
        let room = self.rooms.get_mut(&home.room_sid);
        let Some(dispatch) = room.and_then(|room| room.dispatches.get_mut(&home.dispatch)) else {
            self.jobs.remove(id);
            return;
        };
        dispatch.ended.push_back(id.to_owned());
        if dispatch.ended.len() > MAX_ENDED_JOBS
            && let Some(oldest) = dispatch.ended.pop_front()
        {
            // The slot stays: what is over is not begun again.
            self.jobs.remove(&oldest);
        }
    }
}
