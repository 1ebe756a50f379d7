//! The send arena: datagrams, written back to back, and the runs in which they leave. Those of one
//! receiver are a parcel; several parcels leave together.
//! GSO sends one buffer as segments of one size of which only the last may be shorter, so a
//! run ends where a datagram is longer than its first, or after one that is shorter.

/// Most segments of one GSO send (`UDP_MAX_SEGMENTS` in linux/udp.h).
const MAX_SEGMENTS: usize = 64;

/// Most bytes of one GSO send: the kernel builds one UDP datagram of it before segmentation.
const MAX_RUN_BYTES: usize = 65_000;

/// Datagrams that leave together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// The datagrams, back to back.
    pub contents: &'a [u8],
    /// Bytes of each, the last may be shorter.
    pub segment_size: usize,
    /// How many.
    pub segments: usize,
}

impl Run<'_> {
    /// No datagram.
    pub(crate) const EMPTY: Self = Self { contents: &[], segment_size: 0, segments: 0 };
}

/// The datagrams of one receiver in an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parcel {
    /// Where its bytes begin and end, and its lengths.
    bytes: (usize, usize),
    lens: (usize, usize),
}

impl Parcel {
    /// How many datagrams.
    pub fn datagrams(&self) -> usize {
        self.lens.1 - self.lens.0
    }
}

/// See the module.
#[derive(Debug)]
pub struct SendArena {
    bytes: Box<[u8]>,
    used: usize,
    lens: Vec<u16>,
    /// Bytes and datagrams that belong to parcels.
    sealed: (usize, usize),
}

impl SendArena {
    /// An arena of `capacity` bytes; never grows.
    pub fn new(capacity: usize) -> Self {
        let bytes = vec![0; capacity].into_boxed_slice();
        Self { bytes, used: 0, lens: Vec::with_capacity(256), sealed: (0, 0) }
    }

    /// Free bytes behind the last datagram. Write the next one to its start, then
    /// [`commit`](Self::commit) it.
    pub fn tail(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used..]
    }

    /// Free bytes.
    pub fn free(&self) -> usize {
        self.bytes.len() - self.used
    }

    /// Makes the first `len` bytes of the tail a datagram. Lengths beyond the tail or a datagram
    /// are ignored: nothing could have been written there.
    pub fn commit(&mut self, len: usize) {
        if len > 0 && len <= self.free() && len <= usize::from(u16::MAX) {
            self.lens.push(len as u16);
            self.used += len;
        }
    }

    /// Makes a parcel of the datagrams committed since the last one; `None` if there are none.
    pub fn close(&mut self) -> Option<Parcel> {
        let (bytes, lens) = std::mem::replace(&mut self.sealed, (self.used, self.lens.len()));
        let parcel = Parcel { bytes: (bytes, self.used), lens: (lens, self.lens.len()) };
        (parcel.datagrams() > 0).then_some(parcel)
    }

    /// Forgets the datagrams that belong to no parcel.
    pub fn discard(&mut self) {
        self.used = self.sealed.0;
        self.lens.truncate(self.sealed.1);
    }

    /// Whether nothing is committed.
    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// Forgets all datagrams and parcels.
    pub fn clear(&mut self) {
        self.used = 0;
        self.lens.clear();
        self.sealed = (0, 0);
    }

    /// All datagrams in order, as runs of at most `max_segments`.
    pub fn runs(&self, max_segments: usize) -> Runs<'_> {
        self.runs_between((0, self.used), (0, self.lens.len()), max_segments)
    }

    /// The datagrams of a parcel that was closed since the last clear, in the same way.
    pub fn runs_of(&self, parcel: &Parcel, max_segments: usize) -> Runs<'_> {
        self.runs_between(parcel.bytes, parcel.lens, max_segments)
    }

    fn runs_between(
        &self,
        bytes: (usize, usize),
        lens: (usize, usize),
        max_segments: usize,
    ) -> Runs<'_> {
        let max_segments = max_segments.clamp(1, MAX_SEGMENTS);
        let bytes = self.bytes.get(bytes.0..bytes.1).unwrap_or_default();
        let lens = self.lens.get(lens.0..lens.1).unwrap_or_default();
        Runs { bytes, lens, max_segments }
    }
}

/// Iterator of [`SendArena::runs`].
#[derive(Debug)]
pub struct Runs<'a> {
    bytes: &'a [u8],
    lens: &'a [u16],
    max_segments: usize,
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let (&first, _) = self.lens.split_first()?;
        let (mut segments, mut total) = (1, usize::from(first));
        for &len in &self.lens[1..] {
            let full = segments == self.max_segments || total + usize::from(len) > MAX_RUN_BYTES;
            if len > first || full {
                break;
            }
            segments += 1;
            total += usize::from(len);
            if len < first {
                break;
            }
        }
        let (contents, rest) = self.bytes.split_at(total);
        self.bytes = rest;
        self.lens = &self.lens[segments..];
        Some(Run { contents, segment_size: usize::from(first), segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs_of(lens: &[usize], max_segments: usize) -> Vec<(usize, usize, usize)> {
        let mut arena = SendArena::new(1 << 20);
        for (index, &len) in lens.iter().enumerate() {
            arena.tail()[..len].fill(index as u8);
            arena.commit(len);
        }
        let mut seen = Vec::new();
        let result = arena
            .runs(max_segments)
            .map(|run| {
                seen.extend(run.contents.chunks(run.segment_size).map(<[u8]>::to_vec));
                (run.segments, run.segment_size, run.contents.len())
            })
            .collect();
        let wanted: Vec<_> = lens.iter().enumerate().map(|(i, &len)| vec![i as u8; len]).collect();
        assert_eq!(seen, wanted, "a run changed the datagrams");
        result
    }

    #[test]
    fn equal_sizes_make_one_run_which_a_shorter_last_one_may_join() {
        assert_eq!(runs_of(&[1200, 1200, 1200, 700], 64), [(4, 1200, 4300)]);
    }

    #[test]
    fn last_packets_of_a_frame_that_are_one_byte_longer_make_their_own_run() {
        assert_eq!(runs_of(&[1100, 1100, 1101, 1101], 64), [(2, 1100, 2200), (2, 1101, 2202)]);
    }

    #[test]
    fn a_shorter_packet_ends_its_run() {
        assert_eq!(
            runs_of(&[1200, 90, 90, 1200], 64),
            [(2, 1200, 1290), (1, 90, 90), (1, 1200, 1200)]
        );
    }

    #[test]
    fn runs_respect_segment_and_byte_limits() {
        assert_eq!(runs_of(&[100; 5], 2), [(2, 100, 200), (2, 100, 200), (1, 100, 100)]);
        assert_eq!(runs_of(&[100; 70], 1000), [(64, 100, 6400), (6, 100, 600)]);
        assert_eq!(runs_of(&[1300; 60], 64), [(50, 1300, 65_000), (10, 1300, 13_000)]);
    }

    #[test]
    fn a_commit_beyond_the_tail_is_ignored() {
        let mut arena = SendArena::new(100);
        arena.commit(101);
        assert!(arena.is_empty());
        arena.commit(100);
        assert_eq!((arena.runs(64).count(), arena.free()), (1, 0));
    }

    #[test]
    fn parcels_keep_their_datagrams_apart_and_what_is_discarded_joins_none() {
        let mut arena = SendArena::new(1_000);
        let commit = |arena: &mut SendArena, byte: u8, len: usize| {
            arena.tail()[..len].fill(byte);
            arena.commit(len);
        };
        assert_eq!(arena.close(), None);
        commit(&mut arena, 1, 100);
        commit(&mut arena, 1, 100);
        let first = arena.close().expect("two datagrams");
        commit(&mut arena, 9, 100);
        arena.discard();
        commit(&mut arena, 2, 100);
        let second = arena.close().expect("one datagram");
        let of = |parcel| arena.runs_of(parcel, 64).map(|r| (r.contents[0], r.segments)).collect();
        let (first, second): (Vec<_>, Vec<_>) = (of(&first), of(&second));
        assert_eq!((first, second), (vec![(1, 2)], vec![(2, 1)]));
    }
}
