//! The hub under virtual time: what happens when nobody answers, and how often a job is tried.

use std::time::{Duration, Instant};

use sluice_control::{WebhookEvent, WebhookKind};
use sluice_proto::participant_info::Kind;
use sluice_proto::server_message::Message as ToWorker;
use sluice_proto::worker_message::Message as FromWorker;
use sluice_proto::{self as proto, JobRestartPolicy, JobStatus, JobType};

use super::hub::{Hub, Now, Output, WorkerId};
use super::{AgentStats, AgentsConfig};
use crate::token::ApiKeys;

const KEY: &str = "devkey";

struct World {
    hub: Hub,
    now: Now,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any instant does as the origin")]
    fn new() -> Self {
        let keys = ApiKeys::new([(KEY, "secret")]);
        let hub = Hub::new(AgentsConfig::default(), keys, AgentStats::default(), 7);
        let unix = Duration::from_secs(1_700_000_000);
        Self { hub, now: Now { instant: Instant::now(), unix } }
    }

    fn advance(&mut self, seconds: u64) {
        let end = self.now.instant + Duration::from_secs(seconds);
        while let Some(at) = self.hub.poll_timeout().filter(|at| *at <= end) {
            self.now.unix += at.saturating_duration_since(self.now.instant);
            self.now.instant = self.now.instant.max(at);
            self.hub.handle_timeout(self.now);
        }
        self.now.unix += end.saturating_duration_since(self.now.instant);
        self.now.instant = end;
    }

    fn register(&mut self, id: u64) -> WorkerId {
        let id = WorkerId(id);
        let request = proto::RegisterWorkerRequest { agent_name: "a".into(), ..Default::default() };
        self.hub.register(self.now, id, KEY.into(), request).expect("a good worker");
        id
    }

    fn start_room(&mut self, policy: JobRestartPolicy) {
        let agent = proto::RoomAgentDispatch {
            agent_name: "a".into(),
            restart_policy: policy.into(),
            ..Default::default()
        };
        let event = WebhookEvent { room: room(), agents: vec![agent], ..Default::default() };
        self.hub.room_event(self.now, &event);
    }

    fn person(&mut self, kind: WebhookKind, participant: proto::ParticipantInfo) {
        let participant = Some(participant);
        let event = WebhookEvent { kind, room: room(), participant, ..Default::default() };
        self.hub.room_event(self.now, &event);
    }

    /// Everything the hub wants done, in order.
    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.hub.poll_output()).collect()
    }

    /// Who was offered a job since the last call, and which.
    fn offers(&mut self) -> Vec<(WorkerId, String)> {
        let offer = |output| match output {
            Output::Send(worker, message) => match *message {
                ToWorker::Availability(offer) => Some((worker, offer.job.expect("a job").id)),
                _ => None,
            },
            Output::RemoveParticipant { .. } => None,
        };
        self.outputs().into_iter().filter_map(offer).collect()
    }

    fn accept(&mut self, worker: WorkerId, job: &str) {
        let answer = proto::AvailabilityResponse {
            job_id: job.into(),
            available: true,
            ..Default::default()
        };
        self.hub.message(self.now, worker, FromWorker::Availability(answer));
    }

    fn report(&mut self, worker: WorkerId, job: &str, status: JobStatus) {
        let status = status.into();
        let update = proto::UpdateJobStatus { job_id: job.into(), status, ..Default::default() };
        self.hub.message(self.now, worker, FromWorker::UpdateJob(update));
    }

    /// The only job of the only dispatch, as the API shows it.
    fn job(&self) -> Option<proto::Job> {
        let mut dispatches = self.hub.list_dispatches("r", "");
        dispatches.remove(0).state.expect("a state").jobs.pop()
    }
}

fn room() -> proto::Room {
    proto::Room { sid: "RM_1".into(), name: "r".into(), ..Default::default() }
}

fn agent(job: &str) -> proto::ParticipantInfo {
    proto::ParticipantInfo {
        sid: "PA_agent".into(),
        identity: format!("agent-{job}"),
        kind: Kind::Agent.into(),
        ..Default::default()
    }
}

fn status(job: Option<proto::Job>) -> JobStatus {
    job.expect("a job").state.expect("a state").status()
}

#[test]
fn an_offer_without_an_answer_goes_to_the_next_worker() {
    let mut world = World::new();
    let first = world.register(1);
    world.start_room(JobRestartPolicy::JrpOnFailure);
    let [(offered, job)] = &world.offers()[..] else { panic!("one offer") };
    let (offered, job) = (*offered, job.clone());
    assert_eq!(offered, first);
    let second = world.register(2);
    world.outputs();
    world.advance(9);
    assert!(world.offers().is_empty());
    world.advance(1);
    assert_eq!(world.offers(), [(second, job.clone())]);
    // Too late.
    world.accept(first, &job);
    assert!(world.job().is_none());
    world.accept(second, &job);
    assert_eq!(status(world.job()), JobStatus::JsRunning);
}

#[test]
fn a_job_whose_worker_does_not_come_back_is_given_away_and_its_ghost_removed() {
    let mut world = World::new();
    let first = world.register(1);
    world.start_room(JobRestartPolicy::JrpOnFailure);
    let job = world.offers().remove(0).1;
    world.accept(first, &job);
    world.person(WebhookKind::ParticipantJoined, agent(&job));
    world.advance(60);
    let second = world.register(2);
    world.outputs();
    world.hub.worker_gone(world.now, first);
    world.advance(4);
    assert!(world.outputs().is_empty(), "its worker may come back");
    world.advance(1);
    let outputs = world.outputs();
    let ghost = Output::RemoveParticipant { room: "r".into(), identity: format!("agent-{job}") };
    assert_eq!(outputs[0], ghost);
    let Output::Send(to, message) = &outputs[1] else { panic!("{outputs:?}") };
    assert_eq!(*to, second);
    assert!(matches!(&**message, ToWorker::Availability(offer) if offer.resuming));
    world.accept(second, &job);
    // The ghost leaves only now, which is not the end of the new agent.
    world.person(WebhookKind::ParticipantLeft, agent(&job));
    assert_eq!(status(world.job()), JobStatus::JsRunning);
}

#[test]
fn a_job_that_keeps_failing_is_given_up() {
    let mut world = World::new();
    let worker = world.register(1);
    world.start_room(JobRestartPolicy::JrpOnFailure);
    let mut tries = 0;
    while let [(_, job)] = &world.offers()[..] {
        tries += 1;
        world.accept(worker, job);
        world.report(worker, job, JobStatus::JsFailed);
    }
    assert_eq!(tries, 4, "the first time and three more");
    assert_eq!(status(world.job()), JobStatus::JsFailed);
}

#[test]
fn a_dispatch_may_forbid_restarts() {
    let mut world = World::new();
    let worker = world.register(1);
    world.start_room(JobRestartPolicy::JrpNever);
    let job = world.offers().remove(0).1;
    world.accept(worker, &job);
    world.report(worker, &job, JobStatus::JsFailed);
    assert!(world.offers().is_empty());
    assert_eq!(status(world.job()), JobStatus::JsFailed);
}

#[test]
fn a_job_that_is_done_is_not_begun_again() {
    let mut world = World::new();
    let worker = world.register(1);
    world.start_room(JobRestartPolicy::JrpOnFailure);
    let job = world.offers().remove(0).1;
    world.accept(worker, &job);
    world.report(worker, &job, JobStatus::JsSuccess);
    world.outputs();
    world.register(2);
    world.advance(60);
    assert!(world.offers().is_empty());
}

#[test]
fn agents_of_a_deleted_dispatch_may_say_goodbye_for_three_seconds() {
    let mut world = World::new();
    let worker = world.register(1);
    world.start_room(JobRestartPolicy::JrpOnFailure);
    let job = world.offers().remove(0).1;
    world.accept(worker, &job);
    world.person(WebhookKind::ParticipantJoined, agent(&job));
    world.outputs();
    let id = world.hub.list_dispatches("r", "").remove(0).id;
    world.hub.delete_dispatch(world.now, "r", &id).expect("a dispatch");
    let termination = ToWorker::Termination(proto::JobTermination { job_id: job.clone() });
    assert_eq!(world.outputs(), [Output::Send(worker, Box::new(termination))]);
    world.advance(3);
    let identity = format!("agent-{job}");
    assert_eq!(world.outputs(), [Output::RemoveParticipant { room: "r".into(), identity }]);
}

#[test]
fn a_job_for_someone_who_left_is_not_offered_any_more() {
    let mut world = World::new();
    world.start_room(JobRestartPolicy::JrpOnFailure);
    let alice = proto::ParticipantInfo {
        sid: "PA_alice".into(),
        identity: "alice".into(),
        ..Default::default()
    };
    let request = proto::RegisterWorkerRequest {
        agent_name: "a".into(),
        r#type: JobType::JtParticipant.into(),
        ..Default::default()
    };
    let worker = WorkerId(1);
    world.hub.register(world.now, worker, KEY.into(), request).expect("a good worker");
    world.outputs();
    let full = proto::UpdateWorkerStatus {
        status: Some(proto::WorkerStatus::WsFull.into()),
        ..Default::default()
    };
    world.hub.message(world.now, worker, FromWorker::UpdateWorker(full));
    world.person(WebhookKind::ParticipantJoined, alice.clone());
    world.person(WebhookKind::ParticipantLeft, alice);
    let available = proto::UpdateWorkerStatus {
        status: Some(proto::WorkerStatus::WsAvailable.into()),
        ..Default::default()
    };
    world.hub.message(world.now, worker, FromWorker::UpdateWorker(available));
    assert!(world.offers().is_empty());
}
