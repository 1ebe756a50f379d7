//! NACK, PLI, FIR and REMB.

use super::feedback_head;
use crate::bytes::be32;

/// Identifier of a REMB message (draft-alvestrand-rmcat-remb-03 §2.2).
pub(crate) const REMB_IDENTIFIER: [u8; 4] = *b"REMB";

/// Generic NACK (RFC 4585 §6.2.1).
#[derive(Debug, Clone, Copy)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    /// The stream that has gaps.
    pub media_ssrc: u32,
    pairs: &'a [[u8; 4]],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, media_ssrc, fci) = feedback_head(body)?;
        let (pairs, rest) = fci.as_chunks();
        rest.is_empty().then_some(Self { sender_ssrc, media_ssrc, pairs })
    }

    /// The sequence numbers asked for, in wire order; may repeat.
    pub fn seqs(&self) -> NackSeqs<'a> {
        NackSeqs { pairs: self.pairs, base: 0, mask: 0 }
    }
}

/// Iterator over the sequence numbers of a [`Nack`].
#[derive(Debug, Clone)]
pub struct NackSeqs<'a> {
    pairs: &'a [[u8; 4]],
    /// Packet id of the current pair.
    base: u16,
    /// Bits of the current pair that were not yielded yet.
    mask: u16,
}

impl Iterator for NackSeqs<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask != 0 {
            let bit = self.mask.trailing_zeros() as u16;
            self.mask &= self.mask - 1;
            return Some(self.base.wrapping_add(bit + 1));
        }
        let (&[id_high, id_low, mask_high, mask_low], rest) = self.pairs.split_first()?;
        self.pairs = rest;
        self.base = u16::from_be_bytes([id_high, id_low]);
        self.mask = u16::from_be_bytes([mask_high, mask_low]);
        Some(self.base)
    }
}

/// Packs sequence numbers, in ascending wrapping order, into pairs of packet id and bitmask of the
/// 16 that follow (RFC 4585 §6.2.1).
pub fn nack_pairs(seqs: impl IntoIterator<Item = u16>) -> impl Iterator<Item = (u16, u16)> {
    let mut seqs = seqs.into_iter().peekable();
    std::iter::from_fn(move || {
        let base = seqs.next()?;
        let mut mask = 0u16;
        while let Some(seq) = seqs.next_if(|seq| seq.wrapping_sub(base) <= 16) {
            // A repeated number is already asked for.
            mask |= match seq.wrapping_sub(base) {
                0 => 0,
                distance => 1 << (distance - 1),
            };
        }
        Some((base, mask))
    })
}

/// Picture loss indication (RFC 4585 §6.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pli {
    /// Who asks.
    pub sender_ssrc: u32,
    /// The stream that must send a key frame.
    pub media_ssrc: u32,
}

impl Pli {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let (sender_ssrc, media_ssrc, _) = feedback_head(body)?;
        Some(Self { sender_ssrc, media_ssrc })
    }
}

/// Full intra request (RFC 5104 §4.3.1).
#[derive(Debug, Clone, Copy)]
pub struct Fir<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    entries: &'a [[u8; 8]],
}

impl<'a> Fir<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, _, fci) = feedback_head(body)?;
        let (entries, rest) = fci.as_chunks();
        rest.is_empty().then_some(Self { sender_ssrc, entries })
    }

    /// The streams that must send a key frame: SSRC and command sequence number. A repeated number
    /// repeats the same request.
    pub fn entries(&self) -> FirEntries<'a> {
        FirEntries { entries: self.entries }
    }
}

/// Iterator over the entries of a [`Fir`].
#[derive(Debug, Clone)]
pub struct FirEntries<'a> {
    entries: &'a [[u8; 8]],
}

impl Iterator for FirEntries<'_> {
    type Item = (u32, u8);

    fn next(&mut self) -> Option<(u32, u8)> {
        let (entry, rest) = self.entries.split_first()?;
        self.entries = rest;
        Some((be32(entry, 0)?, entry[4]))
    }
}

/// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03 §2.2).
#[derive(Debug, Clone, Copy)]
pub struct Remb<'a> {
    /// Who estimates.
    pub sender_ssrc: u32,
    /// Total bitrate, bit/s; saturates where exponent and mantissa exceed 64 bits.
    pub bitrate_bps: u64,
    ssrcs: &'a [[u8; 4]],
}

/// Whether the body of an application feedback message is a REMB.
pub(super) fn is_remb(body: &[u8]) -> bool {
    body.get(8..12) == Some(&REMB_IDENTIFIER)
}

impl<'a> Remb<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, _, fci) = feedback_head(body)?;
        let word = be32(fci, 4)?;
        let count = (word >> 24) as usize;
        let exponent = (word >> 18) & 0x3F;
        let mantissa = u64::from(word & 0x3_FFFF);
        let bitrate_bps =
            if mantissa.leading_zeros() < exponent { u64::MAX } else { mantissa << exponent };
        let (words, _) = fci.get(8..)?.as_chunks();
        Some(Self { sender_ssrc, bitrate_bps, ssrcs: words.get(..count)? })
    }

    /// The streams that share the bitrate.
    pub fn ssrcs(&self) -> RembSsrcs<'a> {
        RembSsrcs { ssrcs: self.ssrcs }
    }
}

/// Iterator over the streams of a [`Remb`].
#[derive(Debug, Clone)]
pub struct RembSsrcs<'a> {
    ssrcs: &'a [[u8; 4]],
}

impl Iterator for RembSsrcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (word, rest) = self.ssrcs.split_first()?;
        self.ssrcs = rest;
        Some(u32::from_be_bytes(*word))
    }
}
