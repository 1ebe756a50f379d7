//! Limits for a receiver's jitter buffer (`playout-delay` extension), in rooms that set some. The
//! lower limit follows the jitter that the receiver reports, slowly, so that audio and video stay
//! together. The element is written until a report shows that it arrived, and again when it
//! changes. Numbers are LiveKit's (`playoutdelay.go`).

use std::time::{Duration, Instant};

use sluice_rtp::ext::PlayoutDelay;
use sluice_rtp::seq::seq_newer;

/// The lower limit wanted, in jitters.
const JITTERS: u32 = 10;

/// Fastest change of the lower limit, milliseconds per second.
const MAX_CHANGE_PER_SECOND: u32 = 80;

/// Upper limit where a room sets only a lower one, milliseconds.
const DEFAULT_MAX_MS: u32 = 10_000;

/// Largest value of the extension, milliseconds: 12 bits of 10 ms.
const LARGEST_MS: u32 = 40_950;

/// What a room sets, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayoutDelayRange {
    /// Least delay.
    pub min_ms: u32,
    /// Greatest delay; 0 with a least one means ten seconds.
    pub max_ms: u32,
}

/// The extension towards one receiver of one video track.
#[derive(Debug, Clone)]
pub struct PlayoutDelayControl {
    range: PlayoutDelayRange,
    current_ms: u32,
    element: [u8; 3],
    state: State,
    changed_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not sent with this value.
    Changed,
    /// Sent since this sequence number.
    Sending(u16),
    Arrived,
}

impl PlayoutDelayControl {
    /// Begins with the room's lower limit.
    pub fn new(range: PlayoutDelayRange) -> Self {
        let max_ms = match range.max_ms {
            0 if range.min_ms > 0 => DEFAULT_MAX_MS,
            max => max,
        };
        let max_ms = max_ms.min(LARGEST_MS);
        let range = PlayoutDelayRange { min_ms: range.min_ms.min(max_ms), max_ms };
        let current_ms = range.min_ms;
        let element = PlayoutDelay::from_millis(current_ms, max_ms).write();
        Self { range, current_ms, element, state: State::Changed, changed_at: None }
    }

    /// The element's data, while packets should carry it.
    pub fn element(&self) -> Option<&[u8; 3]> {
        (self.state != State::Arrived).then_some(&self.element)
    }

    /// A packet with the element was sent.
    pub fn on_sent(&mut self, now: Instant, seq: u16) {
        if self.state == State::Changed {
            self.state = State::Sending(seq);
            self.changed_at = Some(now);
        }
    }

    /// The receiver reported its highest sequence number and its jitter.
    pub fn on_report(&mut self, now: Instant, highest: u16, jitter: Duration) {
        if let State::Sending(first) = self.state
            && (highest == first || seq_newer(highest, first))
        {
            self.state = State::Arrived;
        }
        let Some(changed_at) = self.changed_at else { return };
        let elapsed = now.saturating_duration_since(changed_at).min(Duration::from_secs(1));
        let step = (elapsed.as_millis() as u32 * MAX_CHANGE_PER_SECOND) / 1_000;
        let wanted = u32::try_from(jitter.as_millis()).unwrap_or(LARGEST_MS).min(LARGEST_MS);
        let wanted = wanted.saturating_mul(JITTERS);
        let reachable = self.current_ms.saturating_sub(step)..=self.current_ms + step;
        let next = wanted.clamp(*reachable.start(), *reachable.end());
        let next = next.clamp(self.range.min_ms, self.range.max_ms);
        let element = PlayoutDelay::from_millis(next, self.range.max_ms).write();
        if element != self.element {
            (self.current_ms, self.element, self.state) = (next, element, State::Changed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    fn control(min_ms: u32, max_ms: u32) -> PlayoutDelayControl {
        PlayoutDelayControl::new(PlayoutDelayRange { min_ms, max_ms })
    }

    fn limits(control: &PlayoutDelayControl) -> Option<(u16, u16)> {
        let delay = PlayoutDelay::parse(control.element()?)?;
        Some((delay.min_10ms * 10, delay.max_10ms * 10))
    }

    #[test]
    fn the_rooms_limits_are_sent_until_they_arrived() {
        let t0 = epoch();
        let mut c = control(100, 2_000);
        assert_eq!(limits(&c), Some((100, 2_000)));
        c.on_sent(t0, 65_535);
        c.on_report(t0, 65_000, Duration::ZERO);
        assert!(c.element().is_some(), "the report is older");
        c.on_report(t0, 3, Duration::ZERO);
        assert_eq!(c.element(), None);
    }

    #[test]
    fn a_lower_limit_alone_gets_ten_seconds_and_values_stay_in_range() {
        assert_eq!(limits(&control(200, 0)), Some((200, 10_000)));
        assert_eq!(limits(&control(0, 400)), Some((0, 400)));
        assert_eq!(limits(&control(90_000, 90_000)), Some((40_950, 40_950)));
        assert_eq!(limits(&control(500, 300)), Some((300, 300)));
    }

    #[test]
    fn jitter_raises_the_lower_limit_slowly_and_within_the_upper_one() {
        let mut now = epoch();
        let mut c = control(100, 300);
        let mut seen = Vec::new();
        for seq in 0..8 {
            c.on_sent(now, seq);
            now += Duration::from_secs(1);
            c.on_report(now, seq, Duration::from_millis(50));
            seen.extend(limits(&c).map(|(min, _)| min));
        }
        assert_eq!(seen, [180, 260, 300]);
        for seq in 8..20 {
            c.on_sent(now, seq);
            now += Duration::from_secs(1);
            c.on_report(now, seq, Duration::ZERO);
        }
        assert_eq!(c.current_ms, 100);
    }
}
