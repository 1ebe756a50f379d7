//! What flows out of a room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;
use sluice_engine::api::Command;
use sluice_proto as proto;
use sluice_proto::signal_response::Message as Response;

use crate::Grants;
use crate::error::ApiError;
use crate::forward::Forward;
use crate::rpc::RpcId;

/// One signal connection of one participant; a resume gets a new one. Unique within a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A response which several sessions share: encoded at most once per encoding.
#[derive(Debug, Clone)]
pub struct SharedResponse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    message: proto::SignalResponse,
    binary: OnceLock<Bytes>,
    json: OnceLock<Arc<str>>,
}

impl SharedResponse {
    /// Wraps one response.
    pub fn new(message: Response) -> Self {
        Self(Arc::new(Inner {
            message: proto::SignalResponse { message: Some(message) },
            binary: OnceLock::new(),
            json: OnceLock::new(),
        }))
    }

    /// The message itself.
    pub fn message(&self) -> &proto::SignalResponse {
        &self.0.message
    }

    /// The message's variant; always present.
    pub fn response(&self) -> Option<&Response> {
        self.0.message.message.as_ref()
    }

    /// Protobuf encoding.
    pub fn binary(&self) -> Bytes {
        self.0.binary.get_or_init(|| Bytes::from(self.0.message.encode_to_vec())).clone()
    }

    /// JSON encoding, made by `encode` on first use.
    pub fn json(&self, encode: impl FnOnce(&proto::SignalResponse) -> String) -> Arc<str> {
        self.0.json.get_or_init(|| encode(&self.0.message).into()).clone()
    }
}

/// Everything a refreshed token must say; signal mints it, because it knows the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// `sub`.
    pub identity: String,
    /// `name`.
    pub name: String,
    /// `kind`.
    pub kind: proto::participant_info::Kind,
    /// `metadata`.
    pub metadata: String,
    /// `attributes`.
    pub attributes: BTreeMap<String, String>,
    /// `video`, with `room` set.
    pub grants: Grants,
}

/// Why the server ends a signal connection, for logs and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The participant left or was removed; a leave was sent before.
    Left(proto::DisconnectReason),
    /// A newer connection of the same session took over.
    Replaced,
    /// The client should resume with a new connection; a leave may have been sent before.
    Resume,
    /// Pretend that the node failed: close without a leave and without a clean close frame.
    Abnormal,
    /// The client reads too slowly; its queue overflowed.
    Overflow,
}

/// What happened to a room, for webhooks and agents.
#[derive(Debug, Clone, Default)]
pub struct WebhookEvent {
    /// Event.
    pub kind: WebhookKind,
    /// Room at that moment: counts are those after the event.
    pub room: proto::Room,
    /// Participant concerned. Of one that left: DISCONNECTED, with the reason and without tracks.
    pub participant: Option<proto::ParticipantInfo>,
    /// Track concerned.
    pub track: Option<proto::TrackInfo>,
    /// Agents that the room was made with; of `RoomStarted` only.
    pub agents: Vec<proto::RoomAgentDispatch>,
    /// Why the room is over; of `RoomFinished` only.
    pub end_reason: proto::RoomEndReason,
}

/// Webhook events that a room causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WebhookKind {
    /// `room_started`.
    #[default]
    RoomStarted,
    /// `room_finished`.
    RoomFinished,
    /// `participant_joined`: media is connected.
    ParticipantJoined,
    /// `participant_left`.
    ParticipantLeft,
    /// `participant_connection_aborted`: left before media was connected.
    ParticipantConnectionAborted,
    /// `track_published`.
    TrackPublished,
    /// `track_unpublished`.
    TrackUnpublished,
}

/// One effect of a room, in order.
#[derive(Debug)]
pub enum Output {
    /// Send a message on a signal connection.
    Signal {
        /// Receiver.
        session: SessionId,
        /// Message.
        response: SharedResponse,
    },
    /// Mint a token and send it as `refresh_token`.
    RefreshToken {
        /// Receiver.
        session: SessionId,
        /// What the token says.
        claims: Box<TokenClaims>,
    },
    /// Mint a token, put it into the message, and send that.
    RoomMoved {
        /// Receiver.
        session: SessionId,
        /// What the token says.
        claims: Box<TokenClaims>,
        /// The message, without its token.
        moved: Box<proto::RoomMovedResponse>,
    },
    /// Send what is queued, then close the connection.
    CloseSignal {
        /// Connection to close.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// Command for the media workers.
    Engine(Command),
    /// For webhooks and agents.
    Webhook(Box<WebhookEvent>),
    /// News of a participant that is forwarded to another room, for
    /// [`Room::apply_forward`](crate::Room::apply_forward) of that room.
    Forward {
        /// Name of the other room.
        destination: String,
        /// The news.
        forward: Box<Forward>,
    },
    /// A call of [`Room::perform_rpc`](crate::Room::perform_rpc) is over.
    RpcDone {
        /// Which.
        rpc: RpcId,
        /// The payload of the answer.
        result: Result<String, ApiError>,
    },
    /// The room is over; nothing follows.
    Closed,
}

/// Queue of outputs within a room.
#[derive(Debug, Default)]
pub(crate) struct Outputs(VecDeque<Output>);

impl Outputs {
    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.0.push_back(output);
    }

    pub(crate) fn engine(&mut self, command: Command) {
        self.push(Output::Engine(command));
    }
}
