//! Agents over the real socket: registration, offers, tokens, dispatch by room, participant and API,
//! and what happens when a worker dies.

mod support;

use std::sync::Arc;

use futures_util::SinkExt;
use prost::Message as _;
use reqwest::Client;
use serde_json::{Value, json};
use sluice_control::{WebhookEvent, WebhookKind};
use sluice_proto as proto;
use sluice_proto::server_message::Message as FromServer;
use sluice_proto::worker_message::Message as ToServer;
use sluice_proto::{JobStatus, JobType};
use sluice_signal::token::{ApiKeys, verify};
use support::{KEY, SECRET, Socket, TestServer, next_frame, now, sign, within};
use tokio_tungstenite::tungstenite::Message as Frame;

struct Worker {
    socket: Socket,
}

impl Worker {
    async fn register(server: &TestServer, request: proto::RegisterWorkerRequest) -> Self {
        let mut worker = Self::connect(server).await;
        worker.send(ToServer::Register(request)).await;
        match worker.next().await {
            FromServer::Register(response) => assert!(response.worker_id.starts_with("AW_")),
            other => panic!("{other:?}"),
        }
        worker
    }

    async fn connect(server: &TestServer) -> Self {
        let claims = json!({ "iss": KEY, "exp": now() + 60, "video": { "agent": true } });
        let path = format!("/agent?access_token={}", sign(&claims, SECRET));
        Self { socket: server.open(&path).await.expect("upgrades") }
    }

    async fn named(server: &TestServer, name: &str, job_type: JobType) -> Self {
        let request = proto::RegisterWorkerRequest {
            agent_name: name.into(),
            r#type: job_type.into(),
            ..Default::default()
        };
        Self::register(server, request).await
    }

    async fn send(&mut self, message: ToServer) {
        let message = proto::WorkerMessage { message: Some(message) };
        let frame = Frame::Binary(message.encode_to_vec().into());
        within(self.socket.send(frame)).await.expect("sends");
    }

    async fn next(&mut self) -> FromServer {
        match next_frame(&mut self.socket).await {
            Frame::Binary(bytes) => {
                let message = proto::ServerMessage::decode(bytes).expect("a message");
                message.message.expect("a variant")
            }
            other => panic!("{other:?}"),
        }
    }

    async fn offered(&mut self) -> proto::AvailabilityRequest {
        match self.next().await {
            FromServer::Availability(offer) => offer,
            other => panic!("{other:?}"),
        }
    }

    async fn answer(&mut self, job: &str, available: bool) {
        let answer = proto::AvailabilityResponse {
            job_id: job.into(),
            available,
            participant_identity: format!("agent-{job}"),
            participant_name: "Agent".into(),
            ..Default::default()
        };
        self.send(ToServer::Availability(answer)).await;
    }

    /// Takes the next job.
    async fn take(&mut self) -> proto::JobAssignment {
        let job = self.offered().await.job.expect("a job").id;
        self.answer(&job, true).await;
        match self.next().await {
            FromServer::Assignment(assignment) => assignment,
            other => panic!("{other:?}"),
        }
    }

    async fn terminated(&mut self) -> String {
        match self.next().await {
            FromServer::Termination(termination) => termination.job_id,
            other => panic!("{other:?}"),
        }
    }
}

fn room() -> proto::Room {
    proto::Room { sid: "RM_test".into(), name: "r".into(), ..Default::default() }
}

fn participant(identity: &str) -> proto::ParticipantInfo {
    proto::ParticipantInfo {
        sid: format!("PA_{identity}"),
        identity: identity.into(),
        ..Default::default()
    }
}

async fn happens(server: &TestServer, event: WebhookEvent) {
    server.events.send(Arc::new(event)).await.expect("running");
}

async fn room_starts(server: &TestServer, agents: &[&str]) {
    let dispatch = |&agent_name: &&str| proto::RoomAgentDispatch {
        agent_name: agent_name.into(),
        metadata: "m".into(),
        ..Default::default()
    };
    let agents = agents.iter().map(dispatch).collect();
    happens(server, WebhookEvent { room: room(), agents, ..Default::default() }).await;
}

async fn person(server: &TestServer, kind: WebhookKind, info: proto::ParticipantInfo) {
    let participant = Some(info);
    happens(server, WebhookEvent { kind, room: room(), participant, ..Default::default() }).await;
}

async fn call(server: &TestServer, method: &str, body: &Value) -> (u16, Value) {
    let video = json!({ "roomAdmin": true, "room": body["room"] });
    let token = sign(&json!({ "iss": KEY, "exp": now() + 60, "video": video }), SECRET);
    let url = server.url(&format!("/twirp/livekit.AgentDispatchService/{method}"));
    let request = Client::new().post(url).bearer_auth(token).json(body);
    let response = within(request.send()).await.expect("answers");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

/// Waits until the dispatches of the room look as wanted.
async fn dispatches(server: &TestServer, wanted: impl Fn(&Value) -> bool) -> Value {
    within(async {
        loop {
            let (_, list) = call(server, "ListDispatch", &json!({ "room": "r" })).await;
            if wanted(&list["agent_dispatches"]) {
                return list["agent_dispatches"].clone();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn only_tokens_for_agents_register_and_only_over_a_socket() {
    let server = TestServer::start().await;
    let (status, text) =
        server.refused(&format!("/agent?access_token={}", support::token("r"))).await;
    assert_eq!((status, text.as_str()), (401, "no permissions to access the room"));
    let response = Client::new().get(server.url("/agent")).send().await.expect("answers");
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn a_room_without_agents_calls_the_worker_without_a_name() {
    let server = TestServer::start().await;
    let mut worker = Worker::named(&server, "", JobType::JtRoom).await;
    room_starts(&server, &[]).await;
    let offer = worker.offered().await;
    let job = offer.job.expect("a job");
    assert!(job.id.starts_with("AJ_") && job.dispatch_id.starts_with("AD_") && !offer.resuming);
    assert_eq!(job.room.as_ref().map(|room| room.name.as_str()), Some("r"));
    assert_eq!(job.state.expect("a state").status(), JobStatus::JsRunning);
    worker.answer(&job.id, true).await;
    let FromServer::Assignment(assignment) = worker.next().await else { panic!("no assignment") };

    let keys = ApiKeys::new([(KEY, SECRET)]);
    let time = std::time::Duration::from_secs(now() as u64);
    let token = verify(&assignment.token, &keys, time).expect("a good token");
    let claims = token.claims;
    assert_eq!((claims.identity, claims.name.as_str()), (format!("agent-{}", job.id), "Agent"));
    assert_eq!((claims.kind.as_str(), claims.attributes["lk.agent_name"].as_str()), ("agent", ""));
    let video = claims.video.expect("a grant");
    assert!(video.room_join && video.agent && video.room == "r");
    assert_eq!((video.can_publish, video.can_update_own_metadata), (Some(true), Some(true)));
}

#[tokio::test]
async fn json_workers_are_answered_in_json() {
    let server = TestServer::start().await;
    let mut worker = Worker::connect(&server).await;
    let text = r#"{"register":{"agentName":"a","type":"JT_ROOM"}}"#;
    within(worker.socket.send(Frame::Text(text.into()))).await.expect("sends");
    let frame = next_frame(&mut worker.socket).await.into_text().expect("text");
    assert!(frame.contains("\"workerId\":\"AW_"), "{frame}");
    let ping = r#"{"ping":{"timestamp":"7"}}"#;
    within(worker.socket.send(Frame::Text(ping.into()))).await.expect("sends");
    let frame = next_frame(&mut worker.socket).await.into_text().expect("text");
    assert!(frame.contains("\"lastTimestamp\":\"7\""), "{frame}");
}

#[tokio::test]
async fn jobs_of_publishers_and_participants_come_with_them() {
    let server = TestServer::start().await;
    let mut publishers = Worker::named(&server, "p", JobType::JtPublisher).await;
    let mut everyone = Worker::named(&server, "p", JobType::JtParticipant).await;
    room_starts(&server, &["p"]).await;
    person(&server, WebhookKind::ParticipantJoined, participant("alice")).await;
    let job = everyone.take().await.job.expect("a job");
    assert_eq!(job.participant.map(|p| p.identity).as_deref(), Some("alice"));
    assert_eq!((job.metadata.as_str(), job.agent_name.as_str()), ("m", "p"));
    // An agent gets no agent.
    let agent = proto::ParticipantInfo {
        kind: proto::participant_info::Kind::Agent.into(),
        ..participant("agent")
    };
    person(&server, WebhookKind::ParticipantJoined, agent).await;
    person(&server, WebhookKind::TrackPublished, participant("alice")).await;
    person(&server, WebhookKind::TrackPublished, participant("alice")).await;
    person(&server, WebhookKind::ParticipantJoined, participant("bob")).await;
    let job = publishers.take().await.job.expect("a job");
    assert_eq!(job.participant.map(|p| p.identity).as_deref(), Some("alice"));
    let job = everyone.take().await.job.expect("a job");
    assert_eq!(job.participant.map(|p| p.identity).as_deref(), Some("bob"));
}

#[tokio::test]
async fn a_declined_job_goes_to_the_next_worker_and_never_back() {
    let server = TestServer::start().await;
    let mut first = Worker::named(&server, "a", JobType::JtRoom).await;
    room_starts(&server, &["a"]).await;
    let job = first.offered().await.job.expect("a job").id;
    first.answer(&job, false).await;
    // It waits for whoever comes.
    let mut second = Worker::named(&server, "a", JobType::JtRoom).await;
    assert_eq!(second.take().await.job.expect("a job").id, job);
}

#[tokio::test]
async fn a_full_worker_gets_its_job_when_it_has_room_again() {
    let server = TestServer::start().await;
    let mut worker = Worker::named(&server, "a", JobType::JtRoom).await;
    let status = |status: proto::WorkerStatus| {
        ToServer::UpdateWorker(proto::UpdateWorkerStatus {
            status: Some(status.into()),
            ..Default::default()
        })
    };
    worker.send(status(proto::WorkerStatus::WsFull)).await;
    // Answered after the status was read.
    worker.send(ToServer::Ping(proto::WorkerPing { timestamp: 1 })).await;
    assert!(matches!(worker.next().await, FromServer::Pong(_)));
    call(&server, "ListDispatch", &json!({ "room": "r" })).await;
    room_starts(&server, &["a"]).await;
    dispatches(&server, |list| list.as_array().is_some_and(|list| list.len() == 1)).await;
    worker.send(status(proto::WorkerStatus::WsAvailable)).await;
    worker.take().await;
}

#[tokio::test]
async fn the_api_creates_lists_and_deletes_dispatches() {
    let server = TestServer::start().await;
    let mut worker = Worker::named(&server, "a", JobType::JtRoom).await;
    let body = json!({ "room": "r", "agent_name": "a", "metadata": "m" });
    let (status, created) = call(&server, "CreateDispatch", &body).await;
    assert_eq!((status, &created["agent_name"], &created["room"]), (200, &json!("a"), &json!("r")));
    assert_eq!(created["state"]["jobs"], json!([]));
    let assignment = worker.take().await;
    let job = assignment.job.expect("a job");
    let list = dispatches(&server, |list| list[0]["state"]["jobs"][0].is_object()).await;
    assert_eq!(list[0]["state"]["jobs"][0]["state"]["status"], "JS_RUNNING");
    assert_eq!(list[0]["state"]["jobs"][0]["id"], json!(job.id));

    let body = json!({ "room": "r", "dispatch_id": created["id"] });
    let (status, deleted) = call(&server, "DeleteDispatch", &body).await;
    assert_eq!((status, &deleted["id"]), (200, &created["id"]));
    assert_eq!(worker.terminated().await, job.id);
    let (status, error) = call(&server, "DeleteDispatch", &body).await;
    assert_eq!((status, &error["msg"]), (404, &json!("dispatch ID not found")));
    let (status, error) = call(&server, "ListDispatch", &json!({ "room": "missing" })).await;
    assert_eq!((status, &error["msg"]), (404, &json!("requested room does not exist")));
    let body = json!({ "room": "r", "deployment": "a_b" });
    let (status, error) = call(&server, "CreateDispatch", &body).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_argument")));
}

#[tokio::test]
async fn the_job_of_a_dead_worker_goes_to_another() {
    let server = TestServer::start().await;
    let mut first = Worker::named(&server, "a", JobType::JtRoom).await;
    room_starts(&server, &["a"]).await;
    let job = first.take().await.job.expect("a job").id;
    let agent = proto::ParticipantInfo {
        kind: proto::participant_info::Kind::Agent.into(),
        ..participant(&format!("agent-{job}"))
    };
    person(&server, WebhookKind::ParticipantJoined, agent.clone()).await;
    let mut second = Worker::named(&server, "a", JobType::JtRoom).await;
    drop(first);
    // Its agent goes with it: nothing to wait for.
    person(&server, WebhookKind::ParticipantLeft, agent).await;
    let offer = second.offered().await;
    assert!(offer.resuming);
    assert_eq!(offer.job.expect("a job").id, job);
    second.answer(&job, true).await;
    assert!(matches!(second.next().await, FromServer::Assignment(_)));
    let list = dispatches(&server, |list| list[0]["state"]["jobs"][0].is_object()).await;
    assert_eq!(list[0]["state"]["jobs"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_worker_that_comes_back_keeps_its_jobs() {
    let server = TestServer::start().await;
    let mut worker = Worker::named(&server, "a", JobType::JtRoom).await;
    room_starts(&server, &["a"]).await;
    let job = worker.take().await.job.expect("a job").id;
    drop(worker);
    let mut worker = Worker::named(&server, "a", JobType::JtRoom).await;
    let claim = proto::MigrateJobRequest { job_ids: vec![job.clone()] };
    worker.send(ToServer::MigrateJob(claim)).await;
    let update = proto::UpdateJobStatus {
        job_id: job.clone(),
        status: JobStatus::JsSuccess.into(),
        ..Default::default()
    };
    worker.send(ToServer::UpdateJob(update)).await;
    let list =
        dispatches(&server, |list| list[0]["state"]["jobs"][0]["state"]["status"] == "JS_SUCCESS");
    assert_eq!(list.await[0]["state"]["jobs"][0]["id"], json!(job));
}

#[tokio::test]
async fn an_agent_that_leaves_is_not_replaced_while_its_worker_lives() {
    let server = TestServer::start().await;
    let mut worker = Worker::named(&server, "a", JobType::JtRoom).await;
    room_starts(&server, &["a"]).await;
    let job = worker.take().await.job.expect("a job").id;
    let agent = proto::ParticipantInfo {
        kind: proto::participant_info::Kind::Agent.into(),
        ..participant(&format!("agent-{job}"))
    };
    person(&server, WebhookKind::ParticipantJoined, agent.clone()).await;
    person(&server, WebhookKind::ParticipantLeft, agent).await;
    assert_eq!(worker.terminated().await, job);
    let list =
        dispatches(&server, |list| list[0]["state"]["jobs"][0]["state"]["status"] == "JS_FAILED");
    let error = list.await[0]["state"]["jobs"][0]["state"]["error"].clone();
    assert_eq!(error, "agent worker left the room");
}

#[tokio::test]
async fn the_end_of_a_room_ends_its_jobs() {
    let server = TestServer::start().await;
    let mut worker = Worker::named(&server, "a", JobType::JtRoom).await;
    room_starts(&server, &["a"]).await;
    let job = worker.take().await.job.expect("a job").id;
    let kind = WebhookKind::RoomFinished;
    happens(&server, WebhookEvent { kind, room: room(), ..Default::default() }).await;
    assert_eq!(worker.terminated().await, job);
    assert!(server.calls.lock().await.try_recv().is_err(), "nobody needs to be removed");
}

#[tokio::test]
async fn registering_twice_or_as_nothing_known_ends_the_connection() {
    let server = TestServer::start().await;
    let mut worker = Worker::named(&server, "a", JobType::JtRoom).await;
    worker.send(ToServer::Register(proto::RegisterWorkerRequest::default())).await;
    assert!(matches!(next_frame(&mut worker.socket).await, Frame::Close(_)));
    let mut worker = Worker::connect(&server).await;
    let request = proto::RegisterWorkerRequest { deployment: "a b".into(), ..Default::default() };
    worker.send(ToServer::Register(request)).await;
    assert!(matches!(next_frame(&mut worker.socket).await, Frame::Close(_)));
}
