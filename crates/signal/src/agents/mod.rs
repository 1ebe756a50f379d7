//! Agents: programs that register as workers on `/agent`, are given jobs, and join rooms as
//! participants.
//!
//! Workers' messages, events of rooms and API calls flow into one task, which owns the [`hub::Hub`];
//! messages to workers flow out through a bounded queue per worker. A worker that does not read
//! loses its connection, and its jobs go to others.

mod dispatch;
mod hub;
mod job;
mod jobs;
mod rooms;
mod socket;
mod task;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use sluice_control::{ApiError, WebhookEvent};
use sluice_proto as proto;
use tokio::sync::{mpsc, oneshot};

use crate::host::RoomApi;
use crate::stats::Counter;
use crate::token::ApiKeys;
use task::{Input, Task};

pub(crate) use dispatch::check_deployment;
pub(crate) use socket::connect;
pub use socket::decode_worker_message;

/// Inputs that may wait for the task, which never waits itself.
const INPUT_QUEUE: usize = 4096;

/// Load below which a worker is preferred (LiveKit: `agents.target_load`).
const TARGET_LOAD: f32 = 0.7;

/// What agents are run with.
#[derive(Debug, Clone)]
pub struct AgentsConfig {
    /// What workers learn about this server.
    pub server_info: proto::ServerInfo,
    /// Workers below this load (0 to 1) are preferred.
    pub target_load: f32,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self { server_info: proto::ServerInfo::default(), target_load: TARGET_LOAD }
    }
}

/// Counters of agents. Clones count the same. Totals since the start unless named otherwise.
#[derive(Debug, Clone, Default)]
pub struct AgentStats(Arc<AgentCounters>);

/// See [`AgentStats`].
#[derive(Debug, Default)]
pub struct AgentCounters {
    /// Workers registered now.
    pub workers: Counter,
    /// Jobs given to a worker.
    pub jobs_assigned: Counter,
    /// Jobs given to another worker after the first one failed or died.
    pub jobs_restarted: Counter,
    /// Jobs that failed.
    pub jobs_failed: Counter,
    /// Jobs not made because there are too many.
    pub jobs_refused: Counter,
    /// Offers that a worker declined.
    pub offers_declined: Counter,
    /// Offers that a worker did not answer in time.
    pub offers_timed_out: Counter,
    /// Workers disconnected because they did not read.
    pub workers_overflowed: Counter,
    /// Workers disconnected because nothing was heard of them.
    pub workers_silent: Counter,
}

impl std::ops::Deref for AgentStats {
    type Target = AgentCounters;

    fn deref(&self) -> &AgentCounters {
        &self.0
    }
}

/// The agents of this node. Clones are the same.
#[derive(Debug, Clone)]
pub struct Agents {
    inputs: mpsc::Sender<Input>,
    stats: AgentStats,
}

impl Agents {
    /// Starts the task; it ends with the last clone and the event channel.
    pub fn start<A: RoomApi>(
        rooms: A,
        events: mpsc::Receiver<Arc<WebhookEvent>>,
        config: AgentsConfig,
        keys: ApiKeys,
    ) -> Self {
        let stats = AgentStats::default();
        let (inputs, receiver) = mpsc::channel(INPUT_QUEUE);
        let hub = hub::Hub::new(config, keys, stats.clone(), rand::random());
        tokio::spawn(Task::new(hub, rooms).run(receiver, events));
        Self { inputs, stats }
    }

    /// Counters, for metrics.
    pub fn stats(&self) -> &AgentStats {
        &self.stats
    }

    /// `CreateDispatch` for a room that exists.
    pub(crate) async fn create_dispatch(
        &self,
        room: proto::Room,
        request: proto::CreateAgentDispatchRequest,
    ) -> Result<proto::AgentDispatch, ApiError> {
        self.call(|reply| Input::CreateDispatch { room: Box::new(room), request, reply }).await
    }

    /// `DeleteDispatch`.
    pub(crate) async fn delete_dispatch(
        &self,
        request: proto::DeleteAgentDispatchRequest,
    ) -> Result<proto::AgentDispatch, ApiError> {
        self.call(|reply| Input::DeleteDispatch { request, reply }).await?
    }

    /// `ListDispatch`.
    pub(crate) async fn list_dispatches(
        &self,
        request: proto::ListAgentDispatchRequest,
    ) -> Result<Vec<proto::AgentDispatch>, ApiError> {
        self.call(|reply| Input::ListDispatches { request, reply }).await
    }

    async fn call<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, ApiError> {
        const ENDED: ApiError = ApiError::Unavailable("agents are shutting down");
        let (reply, result) = oneshot::channel();
        self.inputs.send(input(reply)).await.map_err(|_| ENDED)?;
        result.await.map_err(|_| ENDED)
    }
}
