//! LiveKit's wire as clients and server SDKs meet it: the signal socket in both generations, access
//! tokens, and the server API.
//!
//! HTTP requests flow in. Before a socket opens, a request has become a [`sluice_control::JoinParams`]
//! or an HTTP error in LiveKit's words; then signal messages flow both ways between the client and
//! its room, in protobuf or JSON. The crate holds no room state: rooms are a [`SessionHost`] and a
//! [`RoomApi`], in production [`sluice_control::RoomManager`].

// Tokens expire and pongs carry the time of day: this crate meets the wall clock.
#![allow(clippy::disallowed_methods)]

mod agents;
mod auth;
mod error;
mod gate;
mod host;
mod id;
mod rtc;
mod server;
mod stats;
pub mod token;
mod twirp;
mod webhook;
mod websocket;
pub mod whip;

pub use agents::{AgentCounters, AgentStats, Agents, AgentsConfig, decode_worker_message};
pub use error::HttpError;
pub use gate::{Admission, FramedBody, Gate};
pub use host::{HostedSession, RoomApi, SessionHost, SessionSink, SessionSource};
pub use rtc::{Encoding, FrameError, JoinRequestError, decode_join_request, decode_request};
pub use server::{Probe, SignalConfig, SignalServer};
pub use stats::{Counter, JoinLatency, SignalStats};
pub use twirp::{CallKind, CallStats};
pub use webhook::{
    EVENT_NAMES, EVENT_QUEUE, EventFilter, WebhookConfig, WebhookError, WebhookStats, Webhooks,
};
