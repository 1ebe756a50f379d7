//! LiveKit semantics in one place, without I/O: rooms, participants, permissions, published tracks,
//! subscriptions, negotiation, data packets.
//!
//! One [`Room`] value is one room. Joins, signal requests, API calls, media events and time flow
//! in; [`Output`]s flow out: signal responses per session, commands for the media workers, and the
//! end of the room. Time and randomness are arguments, so a room runs under virtual time in tests.

mod api;
mod backup_codec;
mod binding;
mod client;
mod data;
mod data_blobs;
mod data_tracks;
mod describe;
mod dynacast;
mod error;
mod forward;
mod ice_fallback;
mod ids;
mod join;
mod lifecycle;
mod low_power;
mod negotiation;
mod outputs;
pub mod packet;
mod params;
mod participant;
mod pending;
mod permissions;
mod publish;
mod receive;
mod resume;
mod room;
mod rpc;
mod signal;
mod speakers;
mod subscribe;
mod timers;
mod track;
mod track_info;
mod turn_login;
mod updates;

pub use data::DataDrops;
pub use describe::{
    ParticipantDescription, PeerDescription, RoomDescription, SubscriptionDescription,
    TrackDescription,
};
pub use error::{ApiError, JoinError};
pub use forward::Forward;
pub use ids::{ParticipantSid, RoomSid, TrackSid};
pub use join::server_info;
pub use low_power::LowPower;
pub use outputs::{
    CloseReason, Output, SessionId, SharedResponse, TokenClaims, WebhookEvent, WebhookKind,
};
pub use params::{
    COMPATIBLE_SERVER_VERSION, JoinParams, Joined, Limits, MediaHost, RoomConfig, RoomParams,
    RoomSettings, SessionOptions,
};
pub use permissions::Grants;
pub use room::Room;
pub use rpc::RpcId;
pub use turn_login::TurnSecret;
