//! Packet indices of one SSRC (RFC 3711 §3.3.1, §3.3.2): estimates the 48-bit index of a sequence
//! number, and remembers which of the last [`WINDOW`] indices were used.

/// Indices behind the highest one that are told apart. RFC 3711 §3.3.2 asks for at least 64;
/// 1,024 covers retransmissions of half a second of video at 20 Mbit/s.
pub(super) const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// Highest index and a ring of bits below it.
#[derive(Debug, Clone, Default)]
pub(super) struct IndexWindow {
    /// One past the highest index marked; 0 before the first.
    end: u64,
    used: [u64; WORDS],
}

impl IndexWindow {
    /// The index closest to the highest one that ends in `seq`; `None` if it would lie before 0.
    /// The first sequence number has rollover counter 0.
    pub(super) fn estimate(&self, seq: u16) -> Option<u64> {
        let Some(highest) = self.end.checked_sub(1) else { return Some(u64::from(seq)) };
        let delta = seq.wrapping_sub(highest as u16) as i16;
        highest.checked_add_signed(i64::from(delta))
    }

    /// Whether `index` is inside or ahead of the window and was not marked.
    pub(super) fn is_new(&self, index: u64) -> bool {
        if index >= self.end {
            return true;
        }
        let (word, bit) = position(index);
        self.end - index <= WINDOW && self.used[word] & bit == 0
    }

    /// Marks `index` as used and moves the window if it is ahead.
    pub(super) fn mark(&mut self, index: u64) {
        if index >= self.end {
            self.clear_for(index);
            self.end = index + 1;
        }
        let (word, bit) = position(index);
        self.used[word] |= bit;
    }

    /// Frees the bits of everything from the old end up to and including `index`.
    fn clear_for(&mut self, index: u64) {
        if index - self.end >= WINDOW {
            self.used = [0; WORDS];
            return;
        }
        for skipped in self.end..=index {
            let (word, bit) = position(skipped);
            self.used[word] &= !bit;
        }
    }
}

fn position(index: u64) -> (usize, u64) {
    ((index / 64) as usize % WORDS, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn window_at(index: u64) -> IndexWindow {
        let mut window = IndexWindow::default();
        window.mark(index);
        window
    }

    #[test]
    fn sequence_wrap_advances_the_rollover_counter() {
        assert_eq!(window_at(65_535).estimate(0), Some(65_536));
        assert_eq!(window_at(65_500).estimate(40), Some(65_576));
    }

    #[test]
    fn late_packet_from_before_the_wrap_keeps_the_old_rollover_counter() {
        assert_eq!(window_at(65_540).estimate(65_535), Some(65_535));
        assert_eq!(window_at(2 * 65_536).estimate(65_000), Some(65_536 + 65_000));
    }

    #[test]
    fn nothing_lies_before_the_first_rollover() {
        assert_eq!(window_at(5).estimate(65_535), None);
    }

    #[test]
    fn an_index_is_new_once_and_only_inside_the_window() {
        let mut window = window_at(5_000);
        assert!(!window.is_new(5_000));
        assert!(window.is_new(5_001));
        assert!(window.is_new(5_001 - WINDOW));
        assert!(!window.is_new(5_000 - WINDOW));
        window.mark(4_999);
        assert!(!window.is_new(4_999));
    }

    proptest! {
        #[test]
        fn window_agrees_with_a_set(steps in prop::collection::vec(-1100i64..1100, 1..400)) {
            let mut window = IndexWindow::default();
            let mut seen = HashSet::new();
            let mut highest = None::<u64>;
            let mut at = 10_000i64;
            for step in steps {
                at = (at + step).max(0);
                let index = at as u64;
                let in_window = highest.is_none_or(|h| index > h || h - index < WINDOW);
                prop_assert_eq!(window.is_new(index), in_window && !seen.contains(&index));
                if in_window {
                    window.mark(index);
                    seen.insert(index);
                    highest = highest.max(Some(index));
                }
            }
        }
    }
}
