//! Virtual time.

use std::time::{Duration, Instant};

use sluice_rtp::NtpTime;

/// The wall clock at the start of every simulation, seconds since the Unix epoch.
const START_UNIX: Duration = Duration::from_secs(1_750_000_000);

/// A clock that stands still until it is told to move.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    now: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock at the start of its time. Only differences to the start have a meaning.
    #[allow(clippy::disallowed_methods, reason = "std offers no other way to make a first Instant")]
    pub fn new() -> Self {
        let start = Instant::now();
        Self { start, now: start }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The moment at this distance from the start.
    pub fn at(&self, since_start: Duration) -> Instant {
        self.start + since_start
    }

    /// Moves on; never back.
    pub fn advance_to(&mut self, to: Instant) {
        self.now = self.now.max(to);
    }

    /// A peer's wall clock at a moment, if that peer's clock is right.
    pub fn ntp(&self, at: Instant) -> NtpTime {
        NtpTime::from_unix(START_UNIX + at.saturating_duration_since(self.start))
    }
}
