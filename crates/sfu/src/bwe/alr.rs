//! Whether the path is limited by us: we send less than it would take, because nobody wants more
//! (libwebrtc `alr_detector.cc`). Then what arrives says little about what fits.

use std::time::{Duration, Instant};

/// Share of the estimate below which we are the limit.
const USAGE: f64 = 0.65;
/// Length of the budget (libwebrtc `IntervalBudget`).
const WINDOW: Duration = Duration::from_millis(500);
/// Unused share of the budget at which the state begins, and below which it ends.
const BEGIN: f64 = 0.8;
const END: f64 = 0.5;

/// The detector: a budget that fills at [`USAGE`] of the estimate and empties with what is sent.
#[derive(Debug)]
pub struct AlrDetector {
    budget: f64,
    max_budget: f64,
    updated: Instant,
    since: Option<Instant>,
}

impl AlrDetector {
    /// Not limited by us.
    pub fn new(now: Instant) -> Self {
        Self { budget: 0.0, max_budget: 1.0, updated: now, since: None }
    }

    /// Counts what was sent.
    pub fn on_sent(&mut self, now: Instant, bytes: usize, estimate_bps: u64) {
        // The packets of a flush all leave at one instant.
        if now != self.updated {
            self.on_time(now, estimate_bps);
        }
        self.budget = (self.budget - bytes as f64).max(-self.max_budget);
        self.judge(now);
    }

    /// Lets time pass.
    pub fn on_time(&mut self, now: Instant, estimate_bps: u64) {
        let rate = estimate_bps as f64 * USAGE / 8.0;
        let elapsed = now.saturating_duration_since(self.updated);
        self.updated = self.updated.max(now);
        self.max_budget = (rate * WINDOW.as_secs_f64()).max(1.0);
        self.budget = (self.budget + rate * elapsed.as_secs_f64()).min(self.max_budget);
        self.judge(now);
    }

    /// Since when we are the limit.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    fn judge(&mut self, now: Instant) {
        let level = self.budget / self.max_budget;
        if level > BEGIN {
            self.since.get_or_insert(now);
        } else if level < END {
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    fn limited_at(share: f64) -> bool {
        let t0 = epoch();
        let mut alr = AlrDetector::new(t0);
        for i in 1..300u32 {
            let bytes = (1_000_000.0 / 8.0 * 0.01 * share) as usize;
            alr.on_sent(t0 + Duration::from_millis(10) * i, bytes, 1_000_000);
        }
        alr.since().is_some()
    }

    #[test]
    fn below_the_share_we_are_the_limit() {
        assert!(limited_at(0.3));
        assert!(!limited_at(0.7));
        assert!(!limited_at(1.0));
    }
}
