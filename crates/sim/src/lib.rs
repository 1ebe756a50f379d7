//! A simulated network and simulated WebRTC peers, in virtual time: for tests, benches and the load
//! tester.
//!
//! Everything is driven by the caller's clock and one seed, so that a failing run replays exactly.
//! [`link::Link`] is one direction of a path: rate, queue, delay, jitter, reordering, loss. The
//! publishers ([`opus::OpusPublisher`], [`vp8::Vp8Publisher`],
//! [`vp9::Vp9Publisher`]) produce RTP as real clients packetise
//! it and answer RTCP; [`video_receiver::VideoReceiver`] and [`audio_receiver::AudioReceiver`]
//! behave like a client's jitter buffer and check every packet and frame: each payload carries a
//! [`stamp::Stamp`] that tells what it was when it left the encoder.

pub mod audio_receiver;
pub mod clock;
pub mod feedback_receiver;
pub mod link;
pub mod opus;
pub mod outgoing;
pub mod stamp;
pub mod video_receiver;
pub mod vp8;
pub mod vp9;

use std::time::Instant;

pub use clock::Clock;
pub use link::{Link, LinkConfig, LinkStats, Loss};

/// A publisher of video.
pub trait Camera {
    /// Takes RTCP from the server.
    fn on_rtcp(&mut self, compound: &[u8]);

    /// Appends the RTP and RTCP packets that are due.
    fn poll(&mut self, clock: &Clock, out: &mut Vec<Vec<u8>>);

    /// When [`poll`](Self::poll) has something.
    fn poll_timeout(&self) -> Instant;
}
