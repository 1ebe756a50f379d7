//! Who works for which room: workers, dispatches and jobs as one value, without I/O and clock.
//!
//! Registrations and messages of workers, events of rooms, calls of the API and time flow in;
//! [`Output`]s flow out. For every room and each of its dispatches it is known which jobs there
//! should be (one per room, publisher or participant, per namespace of the workers that fit); what is
//! missing is made and offered to workers, one after the other, until one takes it. A job that
//! nobody can take waits for a worker. A job whose worker dies is given to another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_proto::server_message::Message as ToWorker;
use sluice_proto::worker_message::Message as FromWorker;
use sluice_proto::{self as proto, JobStatus, JobType};

use super::dispatch::check_deployment;
use super::job::{Job, Stage};
use super::rooms::AgentRoom;
use super::worker::Worker;
use super::{AgentStats, AgentsConfig};
use crate::id::random_id;
use crate::token::ApiKeys;

/// A worker that lost its connection may claim its jobs again for this long.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// Workers registered at once.
const MAX_WORKERS: usize = 10_000;

/// One connection of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WorkerId(pub(super) u64);

/// Now, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    /// Since 1970.
    pub(super) unix: Duration,
}

impl Now {
    pub(super) fn nanos(self) -> i64 {
        self.unix.as_nanos().try_into().unwrap_or(i64::MAX)
    }
}

/// What the hub wants done.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    /// Send a message to a worker.
    Send(WorkerId, Box<ToWorker>),
    /// Remove an agent from its room, if it is still there.
    RemoveParticipant { room: String, identity: String },
}

/// See the module documentation.
pub(super) struct Hub {
    pub(super) config: AgentsConfig,
    pub(super) keys: ApiKeys,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) rooms: BTreeMap<String, AgentRoom>,
    /// SID of the room that has a name now.
    pub(super) names: BTreeMap<String, String>,
    pub(super) jobs: BTreeMap<String, Job>,
    pub(super) waiting: BTreeSet<String>,
    pub(super) deadlines: BTreeSet<(Instant, Deadline)>,
    pub(super) out: VecDeque<Output>,
    pub(super) stats: AgentStats,
    pub(super) rng: StdRng,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// The stage of a job ends.
    Job(String),
    /// An agent has to be gone.
    Farewell { room_sid: String, identity: String },
}

impl Hub {
    pub(super) fn new(config: AgentsConfig, keys: ApiKeys, stats: AgentStats, seed: u64) -> Self {
        Self {
            config,
            keys,
            workers: BTreeMap::new(),
            rooms: BTreeMap::new(),
            names: BTreeMap::new(),
            jobs: BTreeMap::new(),
            waiting: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            out: VecDeque::new(),
            stats,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A worker registers.
    ///
    /// # Errors
    /// Why it has to go.
    pub(super) fn register(
        &mut self,
        now: Now,
        id: WorkerId,
        api_key: String,
        request: proto::RegisterWorkerRequest,
    ) -> Result<(), String> {
        if JobType::try_from(request.r#type).is_err() {
            return Err("unknown job type".into());
        }
        check_deployment(&request.deployment)?;
        if self.workers.len() >= MAX_WORKERS {
            return Err("too many workers".into());
        }
        let name = self.new_id("AW_");
        let response = proto::RegisterWorkerResponse {
            worker_id: name.clone(),
            server_info: Some(self.config.server_info.clone()),
            ..proto::RegisterWorkerResponse::default()
        };
        let worker = Worker::new(id, name, api_key, request);
        tracing::info!(
            worker = worker.name,
            agent = worker.key.agent_name,
            job_type = worker.job_type().as_str_name(),
            "worker registered"
        );
        self.workers.insert(id, worker);
        self.stats.0.workers.add();
        self.send(id, ToWorker::Register(response));
        let rooms: Vec<String> = self.rooms.keys().cloned().collect();
        for room in rooms {
            self.reconcile(now, &room);
        }
        self.offer_waiting(now);
        Ok(())
    }

    /// A registered worker says something.
    pub(super) fn message(&mut self, now: Now, id: WorkerId, message: FromWorker) {
        match message {
            FromWorker::Availability(answer) => self.answered(now, id, answer),
            FromWorker::UpdateWorker(update) => {
                if self.workers.get_mut(&id).is_some_and(|worker| worker.update(&update)) {
                    self.offer_waiting(now);
                }
            }
            FromWorker::UpdateJob(update) => self.job_updated(now, id, &update),
            FromWorker::MigrateJob(request) => self.claim(now, id, &request.job_ids),
            FromWorker::SimulateJob(request) => self.simulate(now, id, request),
            // The socket answers pings and lets nobody register twice.
            FromWorker::Ping(_) | FromWorker::Register(_) => {}
        }
    }

    /// The connection of a worker is gone.
    pub(super) fn worker_gone(&mut self, now: Now, id: WorkerId) {
        let Some(worker) = self.workers.remove(&id) else { return };
        tracing::info!(worker = worker.name, agent = worker.key.agent_name, "worker is gone");
        self.stats.0.workers.sub();
        let its = self.jobs.iter().filter(|(_, job)| job.worker() == Some(id));
        let its: Vec<(String, Stage)> = its.map(|(id, job)| (id.clone(), job.stage)).collect();
        for (job, stage) in its {
            match stage {
                Stage::Offered { .. } => self.exclude_and_offer(now, &job, id),
                Stage::Running { .. } if self.may_be_claimed(now, &job) => {
                    let until = now.instant + ORPHAN_GRACE;
                    self.set_stage(&job, Stage::Orphaned { until });
                    self.deadlines.insert((until, Deadline::Job(job)));
                }
                Stage::Running { .. } => self.failed(now, &job, "worker is gone"),
                Stage::Left { until, .. } if now.instant <= until => {
                    self.failed(now, &job, "worker is gone");
                }
                _ => self.set_stage(&job, Stage::Ended),
            }
        }
    }

    /// Whether a job may survive the connection of its worker: its agent is in the room, or may
    /// still be on its way.
    fn may_be_claimed(&self, now: Now, job: &str) -> bool {
        let Some(job) = self.jobs.get(job) else { return false };
        let grace = i64::try_from(ORPHAN_GRACE.as_nanos()).unwrap_or(i64::MAX);
        let started = job.info.state.as_ref().map_or(0, |state| state.started_at);
        !job.agent_sid.is_empty() || now.nanos().saturating_sub(started) < grace
    }

    /// A worker that connected anew tells which jobs it still runs.
    fn claim(&mut self, now: Now, id: WorkerId, jobs: &[String]) {
        let Some(name) = self.workers.get(&id).map(|worker| worker.name.clone()) else { return };
        for job_id in jobs {
            let Some(job) = self.jobs.get_mut(job_id) else { continue };
            if matches!(job.stage, Stage::Orphaned { .. }) {
                job.stage = Stage::Running { worker: id };
                job.state().worker_id = name.clone();
                job.set_status(JobStatus::JsRunning, "", now.nanos());
            }
        }
    }

    fn simulate(&mut self, now: Now, id: WorkerId, request: proto::SimulateJobRequest) {
        let Some(worker) = self.workers.get(&id) else { return };
        let key = worker.key.clone();
        let job_type = match request.participant {
            Some(_) => JobType::JtPublisher,
            None => JobType::JtRoom,
        };
        let info = proto::Job {
            id: self.new_id("AJ_"),
            r#type: job_type.into(),
            room: request.room,
            participant: request.participant,
            namespace: key.namespace,
            agent_name: key.agent_name,
            ..proto::Job::default()
        };
        if let Some(job) = self.add_job(info, None, false) {
            self.offer_to(now, &job, id);
        }
    }

    /// Fires what is due.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        while let Some((at, _)) = self.deadlines.first()
            && *at <= now.instant
        {
            let Some((at, deadline)) = self.deadlines.pop_first() else { return };
            match deadline {
                Deadline::Job(id) => match self.jobs.get(&id).map(|job| job.stage) {
                    Some(Stage::Offered { worker, until }) if until == at => {
                        self.stats.0.offers_timed_out.add();
                        self.exclude_and_offer(now, &id, worker);
                    }
                    Some(Stage::Orphaned { until }) if until == at => {
                        self.failed(now, &id, "worker is gone");
                    }
                    _ => {}
                },
                Deadline::Farewell { room_sid, identity } => {
                    let Some(room) = self.rooms.get(&room_sid) else { continue };
                    if room.agents.contains_key(&identity) {
                        let room = room.info.name.clone();
                        self.out.push_back(Output::RemoveParticipant { room, identity });
                    }
                }
            }
        }
    }

    pub(super) fn send(&mut self, worker: WorkerId, message: ToWorker) {
        self.out.push_back(Output::Send(worker, Box::new(message)));
    }

    pub(super) fn new_id(&mut self, prefix: &str) -> String {
        random_id(prefix, &mut self.rng)
    }
}
