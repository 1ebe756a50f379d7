//! One signal connection of a client, as the signal server holds it.

use std::sync::Arc;

use sluice_proto as proto;
use sluice_room::{CloseReason, SessionId, SharedResponse, TokenClaims};
use tokio::sync::{Semaphore, mpsc};

use crate::task::RoomInput;

/// Messages that may wait for one client before it counts as too slow (LiveKit's
/// `signal_relay.stream_buffer_size`).
pub(crate) const RESPONSE_QUEUE: usize = 1000;

/// Messages of one client that may wait for its room; the next one waits in the client's socket. So
/// nobody fills the queue that all clients of a room share, nor memory with large messages.
const MAX_WAITING: usize = 32;

/// What the room sends to one client.
#[derive(Debug)]
pub enum SessionOutput {
    /// Send this message.
    Message(SharedResponse),
    /// Mint a token with these claims and send it as `refresh_token`.
    RefreshToken(Box<TokenClaims>),
    /// Mint a token with these claims, put it into the message and send that.
    RoomMoved(Box<(TokenClaims, proto::RoomMovedResponse)>),
    /// Close the connection; everything before this has to be sent first.
    Close(CloseReason),
}

/// A started session. The first output is `join`, `reconnect`, or a `leave` that tells the client
/// to start anew.
#[derive(Debug)]
pub struct Session {
    /// SID of the participant; `None` when a resume found no session to resume.
    pub participant_sid: Option<String>,
    /// Way in.
    pub requests: SessionRequests,
    /// Way out.
    pub responses: SessionResponses,
}

impl Session {
    /// A session without a room that says one thing and closes.
    pub(crate) fn refused(response: SharedResponse, reason: CloseReason) -> Self {
        let (sender, queue) = mpsc::channel(2);
        for output in [SessionOutput::Message(response), SessionOutput::Close(reason)] {
            // The queue was made for two.
            let _ = sender.try_send(output);
        }
        Self {
            participant_sid: None,
            requests: SessionRequests { way: None, turns: SessionRequests::turns() },
            responses: SessionResponses { queue },
        }
    }
}

/// Way of a client's messages to its room. Dropping it tells the room that the connection is gone.
#[derive(Debug)]
pub struct SessionRequests {
    way: Option<(SessionId, mpsc::Sender<RoomInput>)>,
    turns: Arc<Semaphore>,
}

impl SessionRequests {
    pub(crate) fn new(session: SessionId, room: mpsc::Sender<RoomInput>) -> Self {
        Self { way: Some((session, room)), turns: Self::turns() }
    }

    fn turns() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_WAITING))
    }

    /// Hands a message to the room; waits while the room is busy. False when the room is over.
    pub async fn send(&self, request: proto::SignalRequest) -> bool {
        let Some((session, room)) = &self.way else { return false };
        // Closed never.
        let turn = self.turns.clone().acquire_owned().await.ok();
        let input = RoomInput::Signal { session: *session, request: Box::new(request), turn };
        room.send(input).await.is_ok()
    }
}

impl Drop for SessionRequests {
    fn drop(&mut self) {
        let Some((session, room)) = self.way.take() else { return };
        // A full queue needs someone to wait, but a destructor cannot.
        if let Err(mpsc::error::TrySendError::Full(input)) =
            room.try_send(RoomInput::SignalClosed { session })
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { room.send(input).await });
        }
    }
}

/// Messages of the room to one client.
#[derive(Debug)]
pub struct SessionResponses {
    pub(crate) queue: mpsc::Receiver<SessionOutput>,
}

impl SessionResponses {
    /// The next output; `None` when the session is over. Without a `Close` before, the queue
    /// overflowed or the room ended.
    pub async fn next(&mut self) -> Option<SessionOutput> {
        self.queue.recv().await
    }

    /// Whether an output is there already.
    pub fn has_next(&self) -> bool {
        !self.queue.is_empty()
    }

    /// An output that is there already.
    pub fn try_next(&mut self) -> Option<SessionOutput> {
        self.queue.try_recv().ok()
    }
}
