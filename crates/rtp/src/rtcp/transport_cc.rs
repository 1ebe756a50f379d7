//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01
//! §3.1): which transport-wide sequence numbers arrived, and when.

use super::feedback_head;
use crate::bytes::{be16, be24};

/// Unit of arrival times, microseconds (draft §3.1.5).
pub const TICK_US: i64 = 250;
/// Ticks in one unit of the reference time, 64 ms (draft §3.1).
pub(crate) const TICKS_PER_REFERENCE: i64 = 256;
/// Most statuses of a run length chunk: 13 bits (draft §3.1.3).
pub(crate) const MAX_RUN: usize = 0x1FFF;
/// Statuses in a vector chunk with one bit each (draft §3.1.4).
pub(crate) const ONE_BIT_STATUSES: usize = 14;
/// Statuses in a vector chunk with two bits each (draft §3.1.4).
pub(crate) const TWO_BIT_STATUSES: usize = 7;

/// Packet status symbols (draft §3.1.1).
pub(crate) mod symbol {
    pub(crate) const NOT_RECEIVED: u8 = 0;
    pub(crate) const SMALL_DELTA: u8 = 1;
    pub(crate) const LARGE_DELTA: u8 = 2;
}

/// A feedback message whose chunks and deltas were checked.
#[derive(Debug, Clone, Copy)]
pub struct TransportFeedback<'a> {
    /// Who received.
    pub sender_ssrc: u32,
    /// A stream of the transport; meaningless.
    pub media_ssrc: u32,
    /// First transport-wide sequence number reported on.
    pub base_seq: u16,
    /// Number of sequence numbers reported on, 1..=65535.
    pub status_count: u16,
    /// Reference time, units of 64 ms on the receiver's clock, signed 24 bits.
    pub reference_time: i32,
    /// Running number of the message, wrapping.
    pub feedback_count: u8,
    chunks: &'a [[u8; 2]],
    deltas: &'a [u8],
}

/// What the receiver says about one sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketStatus {
    /// Transport-wide sequence number.
    pub seq: u16,
    /// Arrival, [`TICK_US`] on the receiver's clock; `None` if it did not arrive (yet). The clock
    /// wraps with the 24 bits of the reference time.
    pub arrival_ticks: Option<i64>,
}

impl<'a> TransportFeedback<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, media_ssrc, fci) = feedback_head(body)?;
        let base_seq = be16(fci, 0)?;
        let status_count = be16(fci, 2).filter(|count| *count > 0)?;
        let reference_time = (be24(fci, 4)? << 8) as i32 >> 8;
        let feedback_count = *fci.get(7)?;
        let rest = fci.get(8..)?;

        let (words, _) = rest.as_chunks::<2>();
        let mut left = usize::from(status_count);
        let mut delta_len = 0;
        let mut used = 0;
        while left > 0 {
            let chunk = Chunk::parse(*words.get(used)?);
            delta_len += chunk.delta_len(left)?;
            left -= chunk.len().min(left);
            used += 1;
        }
        let deltas = rest.get(2 * used..)?.get(..delta_len)?;
        let chunks = &words[..used];
        Some(Self {
            sender_ssrc,
            media_ssrc,
            base_seq,
            status_count,
            reference_time,
            feedback_count,
            chunks,
            deltas,
        })
    }

    /// One status for every sequence number from `base_seq` on, `status_count` of them. A message
    /// of a few bytes can report on 65,535: check `status_count` against what was sent before
    /// walking.
    pub fn statuses(&self) -> PacketStatuses<'a> {
        PacketStatuses {
            seq: self.base_seq,
            left: self.status_count,
            ticks: i64::from(self.reference_time) * TICKS_PER_REFERENCE,
            chunk: Chunk::Run { symbol: symbol::NOT_RECEIVED, len: 0 },
            chunk_at: 0,
            chunks: self.chunks,
            deltas: self.deltas,
        }
    }
}

/// A packet status chunk.
#[derive(Debug, Clone, Copy)]
enum Chunk {
    Run { symbol: u8, len: u16 },
    OneBit(u16),
    TwoBits(u16),
}

impl Chunk {
    fn parse(bytes: [u8; 2]) -> Self {
        let word = u16::from_be_bytes(bytes);
        match word >> 14 {
            0 | 1 => Self::Run { symbol: (word >> 13) as u8 & 0x03, len: word & MAX_RUN as u16 },
            2 => Self::OneBit(word),
            _ => Self::TwoBits(word),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Run { len, .. } => usize::from(len),
            Self::OneBit(_) => ONE_BIT_STATUSES,
            Self::TwoBits(_) => TWO_BIT_STATUSES,
        }
    }

    /// The symbol at `index`, which is below [`len`](Self::len).
    fn symbol(self, index: usize) -> u8 {
        match self {
            Self::Run { symbol, .. } => symbol,
            Self::OneBit(word) => (word >> (ONE_BIT_STATUSES - 1 - index)) as u8 & 0x01,
            Self::TwoBits(word) => (word >> (2 * (TWO_BIT_STATUSES - 1 - index))) as u8 & 0x03,
        }
    }

    /// Bytes of the deltas that belong to the first `limit` statuses. `None` if one has the
    /// reserved symbol.
    fn delta_len(self, limit: usize) -> Option<usize> {
        let len = self.len().min(limit);
        if let Self::Run { symbol, .. } = self {
            return Some(len * delta_size(symbol)?);
        }
        (0..len).map(|index| delta_size(self.symbol(index))).sum()
    }
}

/// Bytes of the delta that a symbol announces; `None` for the reserved symbol 3.
fn delta_size(symbol: u8) -> Option<usize> {
    matches!(symbol, symbol::NOT_RECEIVED | symbol::SMALL_DELTA | symbol::LARGE_DELTA)
        .then_some(usize::from(symbol))
}

/// Iterator over [`PacketStatus`]es; see [`TransportFeedback::statuses`].
#[derive(Debug, Clone)]
pub struct PacketStatuses<'a> {
    seq: u16,
    left: u16,
    ticks: i64,
    chunk: Chunk,
    chunk_at: usize,
    chunks: &'a [[u8; 2]],
    deltas: &'a [u8],
}

impl PacketStatuses<'_> {
    fn next_symbol(&mut self) -> Option<u8> {
        while self.chunk_at >= self.chunk.len() {
            let (chunk, rest) = self.chunks.split_first()?;
            self.chunk = Chunk::parse(*chunk);
            self.chunks = rest;
            self.chunk_at = 0;
        }
        let symbol = self.chunk.symbol(self.chunk_at);
        self.chunk_at += 1;
        Some(symbol)
    }

    /// The next delta, ticks: an unsigned byte or a signed 16-bit value.
    fn next_delta(&mut self, size: usize) -> Option<i64> {
        let (delta, rest) = self.deltas.split_at_checked(size)?;
        self.deltas = rest;
        match delta {
            [small] => Some(i64::from(*small)),
            [high, low] => Some(i64::from(i16::from_be_bytes([*high, *low]))),
            _ => None,
        }
    }
}

impl Iterator for PacketStatuses<'_> {
    type Item = PacketStatus;

    fn next(&mut self) -> Option<PacketStatus> {
        self.left = self.left.checked_sub(1)?;
        let size = delta_size(self.next_symbol()?)?;
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let arrival_ticks = if size == 0 {
            None
        } else {
            self.ticks += self.next_delta(size)?;
            Some(self.ticks)
        };
        Some(PacketStatus { seq, arrival_ticks })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.left)))
    }
}
