//! The load tester: participants that join a LiveKit-compatible server over its real signalling, ICE,
//! DTLS and SRTP, publish and subscribe, and measure what arrives.
//!
//! [`Options`] go in, [`run`] joins, measures and leaves, a [`Report`] comes out. Signalling runs on
//! tokio ([`participant`]); media runs on few threads of its own ([`worker`]), where each peer
//! connection has a socket, and most packets are only counted by their header. Nothing here knows
//! which server it talks to.

// A program that meets the network, the clock and the terminal: nothing here runs in virtual time.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod cli;
mod connection;
mod cpu;
mod data;
mod drops;
mod encoder;
mod ice;
mod measure;
mod outcome;
mod packet;
mod page;
mod participant;
mod plan;
mod publish;
mod receive;
mod report;
mod roster;
mod run;
mod sdp;
mod side;
mod signal;
mod stamp;
mod stream;
mod token;
mod worker;

pub use cpu::{cpu_time, own_cpu_time, resident_bytes};
pub use encoder::{CAMERA_720P, LayerSpec};
pub use measure::{Distribution, ReceiveTotals, TimeSummary};
pub use plan::{DataLoad, Layout, Muted, Options};
pub use publish::PublishTotals;
pub use report::{Joins, Report, Second, TesterUse, Thresholds};
pub use run::{Moment, Observer, run};
