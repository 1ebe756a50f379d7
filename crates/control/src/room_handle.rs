//! A running room as the rest of the node holds it: the way into its task, and what it last said of
//! itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sluice_engine::api::RoomKey;
use sluice_proto as proto;
use sluice_room::{ApiError, JoinError, JoinParams, Room};
use tokio::sync::{mpsc, oneshot};

use crate::session::Session;
use crate::task::RoomInput;

/// API calls and shutdown wait this long for a room (`api.execution_timeout`).
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module. Clones lead to the same room.
#[derive(Clone)]
pub(crate) struct RoomHandle {
    /// What media events of the room carry.
    pub(crate) key: RoomKey,
    pub(crate) inbox: mpsc::Sender<RoomInput>,
    pub(crate) summary: Arc<ArcSwap<proto::Room>>,
}

impl RoomHandle {
    /// Runs a call in the task of the room.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Room, Instant) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let (reply, result) = oneshot::channel();
        let call = Box::new(move |room: &mut Room, now| {
            // The caller may have given up.
            let _ = reply.send(call(room, now));
        });
        let exchange = async {
            self.inbox.send(RoomInput::Call(call)).await.ok()?;
            result.await.ok()
        };
        match tokio::time::timeout(CALL_TIMEOUT, exchange).await {
            Ok(Some(result)) => Ok(result),
            Ok(None) => Err(ApiError::ROOM_NOT_FOUND),
            Err(_) => Err(ApiError::Unavailable("the room did not answer in time")),
        }
    }

    /// Joins or resumes; `Unavailable` also means that the room closed meanwhile.
    pub(crate) async fn join(&self, params: JoinParams) -> Result<Session, JoinError> {
        let (reply, result) = oneshot::channel();
        let input = RoomInput::Join { params: Box::new(params), reply };
        self.inbox.send(input).await.map_err(|_| JoinError::Unavailable)?;
        result.await.unwrap_or(Err(JoinError::Unavailable))
    }

    /// Waits for the answer of a participant, at most as long as the request says.
    pub(crate) async fn perform_rpc(
        &self,
        request: proto::PerformRpcRequest,
    ) -> Result<String, ApiError> {
        let (reply, result) = oneshot::channel();
        let input = RoomInput::Rpc { request: Box::new(request), reply };
        self.inbox.send(input).await.map_err(|_| ApiError::ROOM_NOT_FOUND)?;
        result.await.map_err(|_| ApiError::Unavailable("the room closed"))?
    }
}
