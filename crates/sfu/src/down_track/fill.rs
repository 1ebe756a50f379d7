//! Frames that the server makes itself, between packets of the publisher: silence after a
//! microphone was muted, a black picture where a video ends. They take the next number and the
//! present time, so that what follows goes on behind them.

use std::time::Instant;

use sluice_rtp::codec::{Codec, MediaKind};

use super::{DownTrack, Forwarded};
use crate::sent_log::PayloadRewrite;

impl DownTrack {
    /// The publisher muted or unmuted the track. While it is muted nothing is sent or asked for;
    /// afterwards numbers go on without a gap.
    pub fn set_source_muted(&mut self, now: Instant, muted: bool) {
        if std::mem::replace(&mut self.source_muted, muted) != muted {
            self.on_goal_changed(now, false);
        }
    }

    /// Whether the receiver gets nothing at present by anybody's wish.
    pub fn is_quiet(&self) -> bool {
        self.goal().is_none()
    }

    /// Header of a frame that the server makes, to send now. `None` before the first packet, and
    /// for encrypted tracks, whose receivers could not read it.
    pub fn fill(&mut self, now: Instant) -> Option<Forwarded> {
        if self.config.encrypted || !self.has_started() {
            return None;
        }
        let rewrite = match (self.config.codec, &mut self.flow().vp8) {
            (Codec::Vp8, Some(munger)) => munger.fill(),
            _ => PayloadRewrite::default(),
        };
        Some(Forwarded { rewrite, ..self.insert(now) })
    }

    /// Header of a packet without a picture, or of silence, that shows the stream to a receiver
    /// while the track has sent it nothing. `None` once it has.
    pub fn announce(&mut self, now: Instant) -> Option<Forwarded> {
        (!self.has_started()).then(|| self.insert(now))
    }

    /// Whether a packet of the track itself was sent.
    pub fn has_started(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.last_source.is_some())
    }

    /// The next number and the present time.
    fn insert(&mut self, now: Instant) -> Forwarded {
        let flow = self.flow();
        let seq = flow.seq.insert() as u16;
        let timestamp = flow.ts.insert(now);
        flow.packets += 1;
        let marker = self.config.kind == MediaKind::Video;
        let rewrite = PayloadRewrite::default();
        Forwarded { seq, timestamp, marker, rewrite, active_targets: None }
    }
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
