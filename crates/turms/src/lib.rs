//! The Turms adapter: Turms keeps the accounts and groups, Sluice keeps the calls.
//!
//! In flow Turms JWTs, facts about users and groups (admin API, change notices) and the requests of
//! Turms' own LiveKit plugin. Out flow LiveKit tokens bound to a Turms user id, changes of rights of
//! live participants, and system messages. Identity ([`jwt`]), policy ([`policy`]) and plugin
//! compatibility ([`compat`]) are pure: no clock, no socket.

pub mod compat;
pub mod ids;
pub mod jwt;
pub mod policy;
