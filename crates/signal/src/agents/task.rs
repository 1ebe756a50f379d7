//! The task that owns the hub: takes inputs and time, carries out what the hub wants.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_control::{ApiError, WebhookEvent};
use sluice_proto as proto;
use sluice_proto::server_message::Message as ToWorker;
use sluice_proto::worker_message::Message as FromWorker;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::hub::{Hub, Now, Output, WorkerId};
use crate::host::RoomApi;
use crate::server::unix_time;

/// Input of the task.
#[derive(Debug)]
pub(super) enum Input {
    Register {
        id: WorkerId,
        api_key: String,
        request: Box<proto::RegisterWorkerRequest>,
        /// Messages to the worker; dropped when the worker has to go.
        messages: mpsc::Sender<ToWorker>,
    },
    Message {
        id: WorkerId,
        message: Box<FromWorker>,
    },
    Gone {
        id: WorkerId,
    },
    CreateDispatch {
        room: Box<proto::Room>,
        request: proto::CreateAgentDispatchRequest,
        reply: oneshot::Sender<proto::AgentDispatch>,
    },
    DeleteDispatch {
        request: proto::DeleteAgentDispatchRequest,
        reply: oneshot::Sender<Result<proto::AgentDispatch, ApiError>>,
    },
    ListDispatches {
        request: proto::ListAgentDispatchRequest,
        reply: oneshot::Sender<Vec<proto::AgentDispatch>>,
    },
}

/// See the module documentation.
pub(super) struct Task<A> {
    hub: Hub,
    rooms: A,
    workers: HashMap<WorkerId, mpsc::Sender<ToWorker>>,
}

impl<A: RoomApi> Task<A> {
    pub(super) fn new(hub: Hub, rooms: A) -> Self {
        Self { hub, rooms, workers: HashMap::new() }
    }

    /// Runs until nobody can ask for anything any more.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut events: mpsc::Receiver<Arc<WebhookEvent>>,
    ) {
        loop {
            let timeout = self.hub.poll_timeout().map(Instant::from_std);
            tokio::select! {
                // Rooms first: a call that follows an event must find it done.
                biased;
                Some(event) = events.recv() => self.hub.room_event(now(), &event),
                input = inputs.recv() => match input {
                    Some(input) => self.handle(input),
                    None => return,
                },
                () = wait_until(timeout) => {}
            }
            self.hub.handle_timeout(now());
            self.carry_out();
        }
    }

    fn handle(&mut self, input: Input) {
        let now = now();
        match input {
            Input::Register { id, api_key, request, messages } => {
                self.workers.insert(id, messages);
                if let Err(error) = self.hub.register(now, id, api_key, *request) {
                    tracing::warn!(error, "worker refused");
                    self.workers.remove(&id);
                }
            }
            Input::Message { id, message } => self.hub.message(now, id, *message),
            Input::Gone { id } => self.gone(id),
            // A caller that gave up needs no answer.
            Input::CreateDispatch { room, request, reply } => {
                let _ = reply.send(self.hub.create_dispatch(now, &room, request));
            }
            Input::DeleteDispatch { request, reply } => {
                let result = self.hub.delete_dispatch(now, &request.room, &request.dispatch_id);
                let _ = reply.send(result);
            }
            Input::ListDispatches { request, reply } => {
                let _ = reply.send(self.hub.list_dispatches(&request.room, &request.dispatch_id));
            }
        }
    }

    fn gone(&mut self, id: WorkerId) {
        self.workers.remove(&id);
        self.hub.worker_gone(now(), id);
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Send(id, message) => {
                    let Some(worker) = self.workers.get(&id) else { continue };
                    if let Err(mpsc::error::TrySendError::Full(_)) = worker.try_send(*message) {
                        tracing::warn!("worker reads too slowly: it is disconnected");
                        self.hub.stats.workers_overflowed.add();
                        self.gone(id);
                    }
                }
                Output::RemoveParticipant { room, identity } => {
                    let rooms = self.rooms.clone();
                    tokio::spawn(async move {
                        // Whoever is gone already needs no removing.
                        let _ = rooms.remove_participant(&room, &identity).await;
                    });
                }
            }
        }
    }
}

fn now() -> Now {
    Now { instant: Instant::now().into_std(), unix: unix_time() }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
