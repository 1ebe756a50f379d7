//! Rooms under virtual time: what clients and workers hear, one behaviour per test.

mod api;
mod data;
mod data_tracks;
mod dynacast;
mod join;
mod lifecycle;
mod negotiation;
mod publish;
mod red;
mod resume;
mod signal;
mod single_connection;
mod speakers;
mod subscribe;
mod support;
