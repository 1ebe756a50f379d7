//! The media engine: worker threads that join sockets, peers and tracks.
//!
//! Commands flow down from the control plane, events flow up ([`api`]). One worker is one thread;
//! it owns its sockets, its peers, their subscriptions and all timers of these, and shares nothing:
//! what another worker must see crosses a bounded ring (`link`). The packet path takes no lock and
//! allocates nothing in steady state.

// The engine is where time enters the core crates, and the handle that joins the threads locks.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod api;
mod clock;
mod config;
mod core;
mod engine;
mod events;
mod io;
mod link;
mod paths;
#[cfg(feature = "rig")]
pub mod rig;
mod start;
mod stats;
mod tcp_listener;
mod timers;
mod wake;
mod worker;

pub use api::*;
pub use config::{
    CongestionConfig, DEFAULT_EGRESS_HOLD, DEFAULT_ROOM_AFFINITY, DataLatency, EngineConfig,
    MAX_WORKERS, MediaConfig, SOCKET_BUFFER_BYTES, UdpPorts,
};
pub use engine::{Engine, SendError, StartError};
pub use paths::{Buckets, PathStats, StreamStats, TrackKind};
pub use stats::{
    DropCause, ESTIMATE_BUCKETS_BPS, EngineStats, MediaDrop, TransportDrop, WorkerStats,
};

pub use sluice_sfu::{AudioLevelConfig, PlayoutDelayRange, quality};
pub use sluice_transport::peer::ICE_DISCONNECTED;
