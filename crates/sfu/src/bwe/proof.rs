//! What the path has lately been seen to carry.
//!
//! An estimate says what would fit, as far as known: while little is sent it may be seconds old, and
//! the path may have become slower since. What arrived, of media and of probes, is no opinion.

use std::time::{Duration, Instant};

use super::probe_result::ProbeResult;

/// What was seen counts for this long: some messages of feedback, and no longer, since a layer that is
/// begun on it waits for its key frame, and the path may be slower by then.
const LIFETIME: Duration = Duration::from_millis(500);

/// The highest rate seen lately.
#[derive(Debug, Default)]
pub struct Proof {
    best: Option<(Instant, u64)>,
}

impl Proof {
    /// Takes what arrives, bits per second, and what a probe measured.
    pub fn note(&mut self, now: Instant, acked_bps: Option<u64>, probe: Option<ProbeResult>) {
        let Some(bps) = acked_bps.max(probe.map(|probe| probe.bps)) else { return };
        let disproved = probe.is_some_and(|probe| !probe.fitted);
        if disproved || self.bps(now).is_none_or(|best| bps >= best) {
            self.best = Some((now, bps));
        }
    }

    /// The rate, bits per second; `None` while nothing is known, 0 if all that is known is old.
    pub fn bps(&self, now: Instant) -> Option<u64> {
        let (at, bps) = self.best?;
        Some(if now < at + LIFETIME { bps } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn result(bps: u64, fitted: bool) -> ProbeResult {
        ProbeResult { cluster: 1, bps, fitted, bucket: None }
    }

    #[test]
    fn the_best_of_the_last_moment_counts() {
        let t0 = epoch();
        let mut proof = Proof::default();
        assert_eq!(proof.bps(t0), None);
        proof.note(t0, Some(300_000), Some(result(900_000, true)));
        proof.note(t0 + ms(100), Some(400_000), None);
        assert_eq!(proof.bps(t0 + ms(100)), Some(900_000));
        proof.note(t0 + LIFETIME, Some(400_000), None);
        assert_eq!(proof.bps(t0 + LIFETIME), Some(400_000));
        assert_eq!(proof.bps(t0 + LIFETIME * 2), Some(0));
    }

    #[test]
    fn a_probe_that_found_the_limit_replaces_what_was_seen_before() {
        let t0 = epoch();
        let mut proof = Proof::default();
        proof.note(t0, None, Some(result(900_000, true)));
        proof.note(t0 + ms(100), None, Some(result(300_000, false)));
        assert_eq!(proof.bps(t0 + ms(100)), Some(300_000));
    }
}
