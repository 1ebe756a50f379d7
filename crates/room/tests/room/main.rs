//! Rooms under virtual time: what clients and workers hear, one behaviour per test.

mod api;
mod backup_codec;
mod data;
mod data_blobs;
mod data_tracks;
mod dynacast;
mod forward;
mod ice_fallback;
mod join;
mod lifecycle;
mod negotiation;
mod one_shot;
mod publish;
mod receivers;
mod red;
mod resume;
mod rpc;
mod sdp;
mod signal;
mod single_connection;
mod speakers;
mod subscribe;
mod support;
mod traps_media;
mod traps_session;
mod troubled_tracks;
