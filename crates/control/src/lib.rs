//! The tokio face of rooms: creates, finds and closes them, runs each one in a task of its own,
//! carries signal messages and media events in and responses and commands out.
//!
//! A slow client overflows its own bounded queue and loses its own connection; nothing in here
//! waits for a client, and nothing waits for the media workers.

// This crate is where wall-clock time enters the rooms.
#![allow(clippy::disallowed_methods)]

mod engine;
mod manager;
mod registry;
mod revocation;
mod room_handle;
mod session;
mod task;
mod telemetry;

pub use engine::MediaEngine;
pub use manager::{ManagerConfig, ManagerStats, RoomManager};
pub use revocation::Revocations;
pub use session::{Session, SessionOutput, SessionRequests, SessionResponses};
pub use sluice_room::{
    ApiError, COMPATIBLE_SERVER_VERSION, CloseReason, DataDrops, Grants, JoinError, JoinParams,
    Limits, LowPower, RoomConfig, RoomDescription, RoomSettings, SessionId, SessionOptions,
    SharedResponse, TokenClaims, TurnSecret, WebhookEvent, WebhookKind,
};
pub use telemetry::{ByKind, Histogram, Telemetry};
