//! Key-frame requests to the publisher: many receivers ask, the publisher hears it once per window.

use std::time::{Duration, Instant};

/// Shortest time between two requests for one layer, unless the operator sets another. LiveKit's
/// value for the lowest layer; its second for the upper ones would keep somebody who joins just
/// after another waiting that long for the first picture.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(500);

/// Requests for one layer of one track.
#[derive(Debug, Clone)]
pub struct KeyFrameThrottle {
    interval: Duration,
    last_sent: Option<Instant>,
    pending: bool,
    sent: u64,
}

impl Default for KeyFrameThrottle {
    fn default() -> Self {
        Self::new(DEFAULT_INTERVAL)
    }
}

impl KeyFrameThrottle {
    /// At most one request per `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, last_sent: None, pending: false, sent: 0 }
    }

    /// A receiver needs a key frame.
    pub fn request(&mut self) {
        self.pending = true;
    }

    /// A key frame began: everyone who asked before is served.
    pub fn on_key_frame(&mut self) {
        self.pending = false;
    }

    /// Whether to send a request now.
    pub fn poll(&mut self, now: Instant) -> bool {
        let due = self.deadline().is_some_and(|at| now >= at)
            || (self.pending && self.last_sent.is_none());
        if due {
            self.pending = false;
            self.last_sent = Some(now);
            self.sent += 1;
        }
        due
    }

    /// When [`poll`](Self::poll) sends a request that is being held back; `None` if none is, or if
    /// one may go at once.
    pub fn deadline(&self) -> Option<Instant> {
        self.last_sent.filter(|_| self.pending).map(|at| at + self.interval)
    }

    /// Whether a request waits to be sent.
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    /// Requests sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    #[test]
    fn five_hundred_joiners_cause_one_request_per_window() {
        let t0 = epoch();
        let mut throttle = KeyFrameThrottle::default();
        let mut sent = 0;
        for at in 0..2_000u64 {
            throttle.request();
            sent += u32::from(throttle.poll(t0 + Duration::from_millis(at)));
        }
        assert_eq!(sent, 4);
    }

    #[test]
    fn the_window_is_the_operators() {
        let t0 = epoch();
        let mut throttle = KeyFrameThrottle::new(Duration::from_secs(1));
        let mut sent = 0;
        for at in 0..3_000u64 {
            throttle.request();
            sent += u32::from(throttle.poll(t0 + Duration::from_millis(at)));
        }
        assert_eq!(sent, 3);
    }

    #[test]
    fn a_request_held_back_goes_out_at_the_end_of_the_window() {
        let t0 = epoch();
        let mut throttle = KeyFrameThrottle::default();
        throttle.request();
        assert!(throttle.poll(t0));
        throttle.request();
        assert!(!throttle.poll(t0 + Duration::from_millis(10)));
        assert_eq!(throttle.deadline(), Some(t0 + DEFAULT_INTERVAL));
        assert!(throttle.poll(t0 + DEFAULT_INTERVAL));
        assert_eq!(throttle.deadline(), None);
    }

    #[test]
    fn a_key_frame_serves_everyone_who_asked_before_it() {
        let t0 = epoch();
        let mut throttle = KeyFrameThrottle::default();
        throttle.request();
        assert!(throttle.poll(t0));
        throttle.request();
        throttle.on_key_frame();
        assert!(!throttle.poll(t0 + DEFAULT_INTERVAL));
    }
}
