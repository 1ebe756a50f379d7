//! The Turms adapter: Turms keeps the accounts and groups, Sluice keeps the calls.
//!
//! In flow Turms JWTs, facts about users and groups (admin API, change notices) and the requests of
//! Turms' own LiveKit plugin. Out flow LiveKit tokens bound to a Turms user id, changes of rights of
//! live participants, and system messages. Identity ([`jwt`]), policy ([`policy`]), what joins must
//! pass ([`gate`]) and plugin compatibility ([`compat`]) are pure: no clock, no socket. The rest is
//! on tokio: [`http`] takes requests, [`admin`] asks Turms, and [`AdapterTasks`] makes rooms
//! follow it. Rooms are a [`Rooms`], Turms is a [`Directory`](admin::Directory): tests stand in for
//! both.

// This crate talks to Turms and to clients: it meets clocks, and tables behind short locks.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod adapter;
pub mod admin;
mod cache;
pub mod clock;
pub mod compat;
pub mod config;
pub mod gate;
pub mod gateway;
pub mod http;
pub mod identity;
pub mod ids;
pub mod jwt;
mod lookup;
mod memory;
mod notices;
pub mod policy;
pub mod rooms;
pub mod signed;
mod stats;
mod sync;
mod sync_util;
mod throttle;
mod web;

pub use adapter::{Adapter, AdapterParts, AdapterTasks, MUTED_ATTRIBUTE, ROLE_ATTRIBUTE};
pub use clock::Clock;
pub use config::TurmsConfig;
pub use memory::Memory;
pub use rooms::Rooms;
pub use stats::{Counter, TurmsStats};
