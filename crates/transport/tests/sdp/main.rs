//! Offer/answer sessions held against descriptions that real clients wrote, against hostile text,
//! and against random histories of a connection.
//!
//! `golden/` holds offers captured from Chromium 156 (bare and through livekit-client 2.23), the
//! Python SDK 1.2.1 and the Node SDK 1.1.0, an offer in the form of Firefox 153, and Chromium's
//! answers to the offers that `offer.rs` makes in the same order. `expected-*` are descriptions of
//! ours that Chromium accepted; set `UPDATE_GOLDEN=1` to write them anew.

mod answer;
mod hostile;
mod offer;
mod open;
mod renegotiation;
mod sections;
mod single;
mod support;
