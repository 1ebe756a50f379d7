//! What came of the joins.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::measure::Distribution;

/// Shared by all participants; touched a few times in the life of each.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(Mutex<Counts>);

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) joined: usize,
    pub(crate) failed: usize,
    /// Participants that were thrown out or lost their connection.
    pub(crate) dropped: usize,
    /// Sessions taken up again.
    pub(crate) resumed: usize,
    /// From opening the WebSocket to a connected primary peer connection.
    pub(crate) join_time: Distribution,
    /// Reasons, with how often each occurred.
    pub(crate) errors: BTreeMap<String, usize>,
}

impl Outcomes {
    pub(crate) fn joined(&self, after: Duration) {
        self.with(|counts| {
            counts.joined += 1;
            counts.join_time.record_us(after.as_micros() as u64);
        });
    }

    pub(crate) fn resumed(&self) {
        self.with(|counts| counts.resumed += 1);
    }

    pub(crate) fn join_failed(&self, error: String) {
        self.with(|counts| {
            counts.failed += 1;
            *counts.errors.entry(error).or_default() += 1;
        });
    }

    pub(crate) fn dropped(&self, error: String) {
        self.with(|counts| {
            counts.dropped += 1;
            *counts.errors.entry(error).or_default() += 1;
        });
    }

    pub(crate) fn counts(&self) -> Counts {
        self.with(|counts| counts.clone())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Counts) -> T) -> T {
        // A panic of another participant leaves whole counters behind.
        f(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
