//! Writer of transport-wide congestion control feedback: packs statuses into chunks.

use super::{begin_feedback, end, pad};
use crate::rtcp::transport_cc::{
    MAX_RUN, ONE_BIT_STATUSES, TICK_US, TICKS_PER_REFERENCE, TWO_BIT_STATUSES, symbol,
};
use crate::rtcp::{feedback_type, packet_type};

/// Longest message that is written, bytes: fits a datagram beside a report.
pub const MAX_FEEDBACK_LEN: usize = 1_100;

/// Bytes in front of the chunks: common header, two SSRCs, fixed fields (draft §3.1).
const FIXED_LEN: usize = 20;
/// Bytes that one more arrival can add: pending chunks, chunks of the gap in front of it, delta,
/// padding.
const ARRIVAL_MAX_LEN: usize = 2 * (3 + MAX_STATUSES / MAX_RUN + 1) + 2 + 3;
/// Most sequence numbers that one message reports on.
const MAX_STATUSES: usize = 0x7FFF;
/// Padding bit of the common header (RFC 3550 §6.4.1).
const PADDING_BIT: u8 = 0x20;

/// The fixed fields of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedbackHeader {
    /// Who received.
    pub sender_ssrc: u32,
    /// A stream of the transport.
    pub media_ssrc: u32,
    /// First extended sequence number to report on: the one after the last message's last. Gaps
    /// between it and the first arrival are reported as not received.
    pub base_seq: u64,
    /// Running number of the message.
    pub feedback_count: u8,
}

/// One packet that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Extended transport-wide sequence number.
    pub seq: u64,
    /// Arrival, microseconds since any epoch that stays the same over messages.
    pub time_us: i64,
}

impl Arrival {
    fn ticks(self) -> i64 {
        self.time_us.div_euclid(TICK_US)
    }
}

/// Appends one message for `arrivals`, sorted by sequence number without repetition, and returns
/// how many of them it covers. Fewer than all if a delta between two of them exceeds ±8.19 s or the
/// message would grow beyond [`MAX_FEEDBACK_LEN`]: call again with the rest, `base_seq` after the
/// last one covered and the next `feedback_count`. Nothing is appended for no arrivals.
///
/// If the first arrival is 32,767 or more above `base_seq`, or below it, the message starts at the
/// arrival.
pub fn transport_cc(out: &mut Vec<u8>, header: &FeedbackHeader, arrivals: &[Arrival]) -> usize {
    let Some(first) = arrivals.first() else { return 0 };
    let base_seq = match first.seq.checked_sub(header.base_seq) {
        Some(gap) if gap < MAX_STATUSES as u64 => header.base_seq,
        _ => first.seq,
    };
    let reference = first.ticks().div_euclid(TICKS_PER_REFERENCE);

    let start = begin_feedback(
        out,
        packet_type::RTPFB,
        feedback_type::TRANSPORT_CC,
        header.sender_ssrc,
        header.media_ssrc,
    );
    out.extend_from_slice(&(base_seq as u16).to_be_bytes());
    let count_at = out.len();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(reference as i32).to_be_bytes()[1..]);
    out.push(header.feedback_count);

    let (covered, statuses) = put_chunks(out, start, base_seq, reference, arrivals);
    let mut ticks = reference * TICKS_PER_REFERENCE;
    for arrival in &arrivals[..covered] {
        // `put_chunks` stopped before the first delta that does not fit.
        let delta = (arrival.ticks() - ticks) as i16;
        match u8::try_from(delta) {
            Ok(small) => out.push(small),
            Err(_) => out.extend_from_slice(&delta.to_be_bytes()),
        }
        ticks = arrival.ticks();
    }
    out[count_at..count_at + 2].copy_from_slice(&statuses.to_be_bytes());

    let unpadded = out.len();
    pad(out, start);
    let padding = (out.len() - unpadded) as u8;
    if let Some(last) = out[unpadded..].last_mut() {
        *last = padding;
        out[start] |= PADDING_BIT;
    }
    end(out, start);
    covered
}

/// Writes the chunks for as many arrivals as fit; returns their number and that of the statuses.
fn put_chunks(
    out: &mut Vec<u8>,
    start: usize,
    base_seq: u64,
    reference: i64,
    arrivals: &[Arrival],
) -> (usize, u16) {
    debug_assert!(out.len() - start == FIXED_LEN, "chunks follow the fixed fields");
    let mut chunks = ChunkWriter::default();
    let mut ticks = reference * TICKS_PER_REFERENCE;
    let mut next_seq = base_seq;
    let mut delta_len = 0;
    let mut covered = 0;
    for arrival in arrivals {
        let Some(gap) = arrival.seq.checked_sub(next_seq) else { break };
        let Ok(delta) = i16::try_from(arrival.ticks() - ticks) else { break };
        let full = out.len() - start + delta_len + ARRIVAL_MAX_LEN > MAX_FEEDBACK_LEN;
        if full || arrival.seq - base_seq >= MAX_STATUSES as u64 {
            break;
        }
        chunks.push_missing(out, gap as usize);
        let small = u8::try_from(delta).is_ok();
        chunks.push(out, if small { symbol::SMALL_DELTA } else { symbol::LARGE_DELTA });
        delta_len += if small { 1 } else { 2 };
        ticks = arrival.ticks();
        next_seq = arrival.seq + 1;
        covered += 1;
    }
    chunks.finish(out);
    // The loop bounds the distance to fewer than MAX_STATUSES.
    (covered, (next_seq - base_seq) as u16)
}

/// Collects symbols until a chunk is full: a run as long as all are equal, else a vector.
#[derive(Debug, Default)]
struct ChunkWriter {
    /// The first pending symbols; all of them unless they are a run.
    pending: [u8; ONE_BIT_STATUSES],
    len: usize,
}

impl ChunkWriter {
    fn push(&mut self, out: &mut Vec<u8>, symbol: u8) {
        if !self.fits(symbol) {
            self.emit(out, false);
        }
        if let Some(slot) = self.pending.get_mut(self.len) {
            *slot = symbol;
        }
        self.len += 1;
    }

    fn push_missing(&mut self, out: &mut Vec<u8>, mut count: usize) {
        while count > 0 {
            let long_run = self.len >= ONE_BIT_STATUSES && self.fits(symbol::NOT_RECEIVED);
            let step = if long_run { count.min(MAX_RUN - self.len) } else { 1 };
            if long_run {
                self.len += step;
            } else {
                self.push(out, symbol::NOT_RECEIVED);
            }
            count -= step;
        }
    }

    fn stored(&self) -> &[u8] {
        &self.pending[..self.len.min(ONE_BIT_STATUSES)]
    }

    fn is_run(&self) -> bool {
        self.len > ONE_BIT_STATUSES || self.stored().windows(2).all(|pair| pair[0] == pair[1])
    }

    fn has_large(&self) -> bool {
        self.stored().contains(&symbol::LARGE_DELTA)
    }

    /// Whether `symbol` can join the pending ones in one chunk.
    fn fits(&self, symbol: u8) -> bool {
        let run = self.len < MAX_RUN && self.is_run() && self.stored().first() == Some(&symbol);
        let one_bit =
            self.len < ONE_BIT_STATUSES && symbol != symbol::LARGE_DELTA && !self.has_large();
        run || one_bit || self.len < TWO_BIT_STATUSES
    }

    /// Writes one chunk; symbols that it does not take stay pending. Only the last chunk of a
    /// message may be a vector that is not full: the status count cuts it.
    fn emit(&mut self, out: &mut Vec<u8>, last: bool) {
        let stored = self.stored();
        let taken;
        let word = if self.is_run() {
            taken = self.len;
            (u16::from(self.pending[0]) << 13) | self.len as u16
        } else if !self.has_large() && (last || self.len == ONE_BIT_STATUSES) {
            taken = self.len;
            let bits = stored.iter().fold(0, |bits, symbol| (bits << 1) | u16::from(*symbol));
            0x8000 | (bits << (ONE_BIT_STATUSES - stored.len()))
        } else {
            let vector = &stored[..stored.len().min(TWO_BIT_STATUSES)];
            taken = vector.len();
            let bits = vector.iter().fold(0, |bits, symbol| (bits << 2) | u16::from(*symbol));
            0xC000 | (bits << (2 * (TWO_BIT_STATUSES - vector.len())))
        };
        out.extend_from_slice(&word.to_be_bytes());
        if taken < self.len {
            self.pending.copy_within(taken.., 0);
        }
        self.len -= taken;
    }

    fn finish(mut self, out: &mut Vec<u8>) {
        while self.len > 0 {
            self.emit(out, true);
        }
    }
}
