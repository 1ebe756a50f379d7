//! Arithmetic on wrapping RTP sequence numbers and timestamps, and their unwrapping to 64 bits.

/// Where the first sequence number of a stream is placed: one cycle up, so that packets that were
/// sent before the first one received still have an extended number.
pub const SEQ_BASE: u64 = 1 << 16;

/// Where the first timestamp of a stream is placed; see [`SEQ_BASE`].
pub const TS_BASE: u64 = 1 << 32;

/// Distance from `b` to `a` on the circle of sequence numbers; positive if `a` is newer.
pub fn seq_diff(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b) as i16
}

/// Whether `a` is newer than `b`. Numbers half a circle apart are not newer than each other.
pub fn seq_newer(a: u16, b: u16) -> bool {
    seq_diff(a, b) > 0
}

/// Distance from `b` to `a` on the circle of timestamps; positive if `a` is newer.
pub fn ts_diff(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// Whether `a` is newer than `b`. Timestamps half a circle apart are not newer than each other.
pub fn ts_newer(a: u32, b: u32) -> bool {
    ts_diff(a, b) > 0
}

/// Extends 16-bit sequence numbers to 64 bits, each to the value nearest to the newest one seen.
///
/// The low 16 bits of an extended number are the sequence number. The first one is placed in cycle
/// 1 ([`SEQ_BASE`]); subtract it where RFC 3550 wants cycles counted from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeqUnwrapper {
    newest: Option<u64>,
}

impl SeqUnwrapper {
    /// An unwrapper that has seen nothing.
    pub const fn new() -> Self {
        Self { newest: None }
    }

    /// The extended number of `seq`; remembers it if it is the newest.
    pub fn unwrap(&mut self, seq: u16) -> u64 {
        let extended = self.peek(seq);
        self.newest = Some(self.newest.map_or(extended, |newest| newest.max(extended)));
        extended
    }

    /// The extended number that [`unwrap`](Self::unwrap) would give, without remembering it.
    pub fn peek(&self, seq: u16) -> u64 {
        match self.newest {
            None => SEQ_BASE + u64::from(seq),
            Some(newest) => {
                let step = seq_diff(seq, newest as u16);
                // A stream that walks backwards past its start would leave the 64-bit range.
                newest.checked_add_signed(i64::from(step)).unwrap_or(u64::from(seq))
            }
        }
    }

    /// The newest extended number seen.
    pub fn newest(&self) -> Option<u64> {
        self.newest
    }
}

/// Extends 32-bit timestamps to 64 bits; see [`SeqUnwrapper`]. The base is [`TS_BASE`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TsUnwrapper {
    newest: Option<u64>,
}

impl TsUnwrapper {
    /// An unwrapper that has seen nothing.
    pub const fn new() -> Self {
        Self { newest: None }
    }

    /// The extended timestamp of `ts`; remembers it if it is the newest.
    pub fn unwrap(&mut self, ts: u32) -> u64 {
        let extended = self.peek(ts);
        self.newest = Some(self.newest.map_or(extended, |newest| newest.max(extended)));
        extended
    }

    /// The extended timestamp that [`unwrap`](Self::unwrap) would give, without remembering it.
    pub fn peek(&self, ts: u32) -> u64 {
        match self.newest {
            None => TS_BASE + u64::from(ts),
            Some(newest) => {
                let step = ts_diff(ts, newest as u32);
                newest.checked_add_signed(i64::from(step)).unwrap_or(u64::from(ts))
            }
        }
    }

    /// The newest extended timestamp seen.
    pub fn newest(&self) -> Option<u64> {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comparison_wraps() {
        assert!(seq_newer(0, 65_535));
        assert!(!seq_newer(65_535, 0));
        assert!(!seq_newer(7, 7));
        assert_eq!(seq_diff(2, 65_534), 4);
        assert!(ts_newer(5, u32::MAX - 5));
        assert_eq!(ts_diff(u32::MAX, 0), -1);
    }

    #[test]
    fn unwrapping_counts_cycles_and_keeps_late_packets_in_the_old_cycle() {
        let mut unwrapper = SeqUnwrapper::new();
        assert_eq!(unwrapper.unwrap(65_534), SEQ_BASE + 65_534);
        assert_eq!(unwrapper.unwrap(1), SEQ_BASE + 65_537);
        assert_eq!(unwrapper.unwrap(65_535), SEQ_BASE + 65_535);
        assert_eq!(unwrapper.newest(), Some(SEQ_BASE + 65_537));
        assert_eq!(unwrapper.unwrap(2), SEQ_BASE + 65_538);
    }

    #[test]
    fn packets_before_the_first_one_have_a_place() {
        let mut unwrapper = SeqUnwrapper::new();
        unwrapper.unwrap(0);
        assert_eq!(unwrapper.peek(65_535), SEQ_BASE - 1);
    }

    #[test]
    fn half_a_circle_of_steps_back_never_underflows() {
        let mut unwrapper = TsUnwrapper::new();
        unwrapper.unwrap(0);
        assert_eq!(unwrapper.unwrap(1 << 31), TS_BASE - (1 << 31));
    }

    proptest! {
        #[test]
        fn sequence_numbers_with_bounded_jumps_are_recovered(
            start in 0u64..65_536,
            steps in prop::collection::vec(-300i64..2_000, 1..400),
        ) {
            let mut unwrapper = SeqUnwrapper::new();
            let mut position = start + SEQ_BASE;
            unwrapper.unwrap(position as u16);
            let mut newest = position;
            for step in steps {
                position = newest.saturating_add_signed(step);
                prop_assert_eq!(unwrapper.unwrap(position as u16), position);
                newest = newest.max(position);
            }
        }

        #[test]
        fn timestamps_keep_their_low_bits(values in prop::collection::vec(any::<u32>(), 1..100)) {
            let mut unwrapper = TsUnwrapper::new();
            for value in values {
                prop_assert_eq!(unwrapper.unwrap(value) as u32, value);
            }
        }
    }
}
