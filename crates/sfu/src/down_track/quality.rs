//! How well a receiver gets the track: its report blocks, and the layers it misses.

use std::time::Instant;

use sluice_rtp::codec::Codec;
use sluice_rtp::rtcp::ReportBlock;

use super::{Allocation, DownTrack};
use crate::quality::{MAX_REPORT_AGE, QualityScorer, UPDATE_INTERVAL, Window, loss_weight};
use crate::selector::Goal;

/// What enters the score of one subscription.
#[derive(Debug)]
pub(super) struct PathQuality {
    scorer: QualityScorer,
    /// The receiver's newest report: when it came, highest number and packets lost.
    report: Option<(Instant, u32, i32)>,
    /// Highest number and packets lost at the last update with a report.
    counted: Option<(u32, i32)>,
    /// Packets sent at the last update.
    sent: u64,
    streaming_since: Option<Instant>,
}

impl PathQuality {
    fn new(now: Instant, codec: Codec) -> Self {
        Self {
            scorer: QualityScorer::new(now, loss_weight(codec, true)),
            report: None,
            counted: None,
            sent: 0,
            streaming_since: None,
        }
    }

    pub(super) fn on_report(&mut self, now: Instant, block: &ReportBlock) {
        self.report = Some((now, block.highest_seq, block.cumulative_lost));
    }

    /// The window since the last update; `None` if there is nothing to judge.
    fn window(&mut self, now: Instant, packets_sent: u64) -> Option<Window> {
        let sent = packets_sent - std::mem::replace(&mut self.sent, packets_sent);
        if sent == 0 {
            self.streaming_since = None;
            self.counted = self.report.map(|(_, highest, lost)| (highest, lost));
            return None;
        }
        // It may have begun anywhere in the window.
        let since = *self.streaming_since.get_or_insert(now);
        let heard = self.report.map(|(at, ..)| at);
        let fresh = heard.is_some_and(|at| now.saturating_duration_since(at) < UPDATE_INTERVAL);
        let Some((_, highest, lost)) = self.report.filter(|_| fresh) else {
            let quiet_since = heard.map_or(since, |at| at.max(since));
            let too_long = now.saturating_duration_since(quiet_since) > MAX_REPORT_AGE;
            return too_long.then(Window::default);
        };
        let (highest_before, lost_before) = self.counted.replace((highest, lost))?;
        let expected = u64::from(highest.wrapping_sub(highest_before));
        if expected == 0 || expected > u64::from(u32::MAX / 2) {
            return None;
        }
        // What the publisher's network lost is missing here as well, and not this path's fault.
        let missing = expected.saturating_sub(sent);
        let lost = u64::try_from(lost - lost_before).unwrap_or(0).min(expected);
        Some(Window { packets: expected, lost: lost.saturating_sub(missing), silent: false })
    }
}

impl DownTrack {
    /// Enters what happened since the last call, about every [`UPDATE_INTERVAL`], and returns the
    /// score, 0..=100.
    pub fn update_quality(&mut self, now: Instant) -> f32 {
        let paused = matches!(self.allocation, Allocation::Paused);
        let muted = !self.settings.enabled || self.source_muted;
        let codec = self.config.codec;
        let quality = self.quality.get_or_insert_with(|| Box::new(PathQuality::new(now, codec)));
        quality.scorer.set_muted(now, muted);
        quality.scorer.set_paused(now, paused);
        let packets = self.flow.as_ref().map_or(0, |flow| flow.packets);
        if let Some(window) = quality.window(now, packets) {
            quality.scorer.update(now, window);
        }
        let score = quality.scorer.score();
        self.note_layer_distance(now);
        score
    }

    /// Notes how many layers lie between what the receiver wants, as far as there is such a layer,
    /// and what it gets.
    pub(super) fn note_layer_distance(&mut self, now: Instant) {
        let started = self.has_started();
        let Some(quality) = &mut self.quality else { return };
        let wish = Goal {
            spatial: self.settings.max_spatial,
            temporal: self.settings.max_temporal,
            overshoot: true,
        };
        let wanted = self.selector.target(self.live, &wish).filter(|_| started);
        let missing = wanted.map_or(0, |wanted| match self.selector.current_spatial() {
            Some(current) => wanted.saturating_sub(current),
            None => wanted + 1,
        });
        quality.scorer.set_layer_distance(now, f32::from(missing));
    }
}

#[cfg(test)]
#[path = "quality_tests.rs"]
mod tests;
