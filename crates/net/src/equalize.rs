//! Equal sizes for GSO: datagrams of one receiver that differ by a little are padded to one size, so
//! that they leave in one system call. A few bytes more cost less than a send of their own; and
//! libwebrtc, which cuts a frame into packets of nearly one size, makes the last of them a byte longer.

/// A datagram grows by at most its length divided by this, an eighth, ...
const MAX_GROWTH: u16 = 8;

/// ... or by so many bytes: audio of several speakers differs by that, and a system call for each
/// costs more than a few bytes beside some 60 of headers.
const SMALL_GROWTH: u16 = 32;

/// Bytes of RTP padding at most: its count is one byte (RFC 3550 §5.1).
const MAX_PADDING: u16 = 255;

/// Raises lengths, in the order of sending, to what [`SendArena::runs`](crate::SendArena::runs)
/// makes long runs of. The last of a run keeps its length: it may be shorter than the others.
pub fn equalize(lens: &mut [u16]) {
    let mut rest = lens;
    while !rest.is_empty() {
        let (run, size) = next_run(rest);
        let (members, others) = rest.split_at_mut(run);
        if let Some((_, padded)) = members.split_last_mut() {
            padded.fill(size);
        }
        rest = others;
    }
}

/// How many of the first datagrams may share a size, and that size: of the longest.
fn next_run(lens: &[u16]) -> (usize, u16) {
    let Some((&first, others)) = lens.split_first() else { return (0, 0) };
    let (mut size, mut limit, mut last) = (first, u16::MAX, first);
    for (index, &len) in others.iter().enumerate() {
        // What was the last of the run so far must now be padded like the others.
        let new_limit = limit.min(grown(last));
        let new_size = size.max(len);
        if new_size > new_limit {
            return (index + 1, size);
        }
        (size, limit, last) = (new_size, new_limit, len);
    }
    (lens.len(), size)
}

/// The longest that a datagram may become.
fn grown(len: u16) -> u16 {
    len.saturating_add((len / MAX_GROWTH).clamp(SMALL_GROWTH, MAX_PADDING))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SendArena;

    /// Lengths after padding, and how many runs they make.
    fn padded(lens: &[u16]) -> (Vec<u16>, usize) {
        let mut lens = lens.to_vec();
        equalize(&mut lens);
        let mut arena = SendArena::new(1 << 20);
        lens.iter().for_each(|len| arena.commit(usize::from(*len)));
        (lens, arena.runs(64).count())
    }

    #[test]
    fn packets_of_a_frame_leave_in_one_run() {
        let frame = [1_190, 1_190, 1_190, 1_191, 1_191];
        assert_eq!(padded(&frame), (vec![1_191; 5], 1));
    }

    #[test]
    fn the_last_of_a_run_keeps_its_length() {
        assert_eq!(padded(&[1_190, 1_191, 300]), (vec![1_191, 1_191, 300], 1));
        assert_eq!(padded(&[100]), (vec![100], 1));
        assert_eq!(padded(&[]), (vec![], 0));
    }

    #[test]
    fn a_long_packet_behind_a_short_one_starts_a_run() {
        let (lens, runs) = padded(&[1_190, 300, 1_190, 1_191, 300]);
        assert_eq!((lens, runs), (vec![1_190, 300, 1_191, 1_191, 300], 2));
    }

    #[test]
    fn audio_of_several_speakers_shares_a_run_where_sizes_are_near() {
        let (lens, runs) = padded(&[100, 128, 118, 160, 124]);
        assert_eq!((lens, runs), (vec![128, 128, 118, 160, 124], 2));
    }

    #[test]
    fn nothing_shrinks_and_nothing_grows_by_more_than_a_little() {
        let mut state = 1u32;
        for _ in 0..500 {
            let before: Vec<u16> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    40 + (state >> 16) as u16 % 1_300
                })
                .collect();
            let mut after = before.clone();
            equalize(&mut after);
            for (before, after) in before.iter().zip(&after) {
                assert!(after >= before && after - before <= (before / 8).max(SMALL_GROWTH));
            }
        }
    }
}
