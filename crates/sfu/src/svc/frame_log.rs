//! What was decided about the recent frames of a scalable stream, for one receiver: every packet of
//! a frame shares its fate, and frames that depend on it ask for it.

use std::num::NonZeroU32;

/// Frames remembered (LiveKit `dependencydescriptor.go`): several seconds of all layers.
const FRAMES: u64 = 256;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing of it has arrived.
    Unknown,
    /// Nothing of it has arrived, but a frame was sent that depends on it: it is sent when it comes.
    Expected,
    /// Sent, as far as it arrives.
    Sent(SentAs),
    /// Not sent.
    Dropped,
}

/// How the packets of a frame are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SentAs {
    /// No frame follows it in its picture: its last packet has the marker.
    pub(super) last_of_picture: bool,
    /// Active decode targets that its descriptor states in place of the source's.
    pub(super) active_targets: Option<NonZeroU32>,
}

/// The fates of the newest [`FRAMES`] frames. Takes memory with the first frame.
#[derive(Debug, Default)]
pub(super) struct FrameLog {
    entries: Vec<(u64, Fate)>,
    /// Highest number decided about.
    newest: Option<u64>,
    /// First frame of the stream as this receiver got it; none before was sent.
    first: u64,
}

impl FrameLog {
    /// Forgets everything; the stream begins with `first`.
    pub(super) fn start(&mut self, first: u64) {
        self.entries.clear();
        self.newest = None;
        self.first = first;
    }

    /// Highest number decided about.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// The extended number of a frame.
    pub(super) fn extend(&self, number: u16) -> u64 {
        let near = self.newest.unwrap_or(self.first);
        near.saturating_add_signed(i64::from(number.wrapping_sub(near as u16) as i16))
    }

    /// The fate of a frame. What lies before the start, or too far back, was not sent.
    pub(super) fn get(&self, number: u64) -> Fate {
        let oldest = self.newest.map_or(0, |newest| (newest + 1).saturating_sub(FRAMES));
        if number < self.first.max(oldest) {
            return Fate::Dropped;
        }
        match self.entries.get((number % FRAMES) as usize) {
            Some((at, fate)) if *at == number => *fate,
            _ => Fate::Unknown,
        }
    }

    /// Notes what became of a frame.
    pub(super) fn decide(&mut self, number: u64, fate: Fate) {
        self.newest = self.newest.max(Some(number));
        self.set(number, fate);
    }

    /// A frame that depends on this one is sent.
    pub(super) fn expect(&mut self, number: u64) {
        if self.get(number) == Fate::Unknown {
            self.set(number, Fate::Expected);
        }
    }

    fn set(&mut self, number: u64, fate: Fate) {
        if self.entries.is_empty() {
            self.entries.resize(FRAMES as usize, (u64::MAX, Fate::Unknown));
        }
        let entry = &mut self.entries[(number % FRAMES) as usize];
        if entry.0 == u64::MAX || entry.0 <= number {
            *entry = (number, fate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_before_the_start_and_beyond_the_memory_were_not_sent() {
        let mut log = FrameLog::default();
        log.start(1_000);
        assert_eq!(log.get(999), Fate::Dropped);
        assert_eq!(log.get(1_000), Fate::Unknown);
        log.decide(1_000, Fate::Sent(SentAs::default()));
        log.decide(1_000 + FRAMES, Fate::Dropped);
        assert_eq!(log.get(1_000), Fate::Dropped);
        assert_eq!(log.get(1_001), Fate::Unknown);
    }

    #[test]
    fn only_what_was_not_seen_is_expected() {
        let mut log = FrameLog::default();
        log.start(10);
        log.decide(10, Fate::Dropped);
        log.decide(12, Fate::Sent(SentAs::default()));
        log.expect(10);
        log.expect(11);
        assert_eq!(log.get(10), Fate::Dropped);
        assert_eq!(log.get(11), Fate::Expected);
        assert_eq!(log.newest(), Some(12));
    }

    #[test]
    fn numbers_go_on_over_the_wrap() {
        let mut log = FrameLog::default();
        log.start(65_535);
        log.decide(65_535, Fate::Dropped);
        assert_eq!(log.extend(0), 65_536);
        log.decide(65_536, Fate::Dropped);
        assert_eq!(log.extend(65_534), 65_534);
    }
}
