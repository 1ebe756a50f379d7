//! Sender and receiver reports, source descriptions, goodbyes and extended reports.

use crate::bytes::{be16, be24, be32, be64};
use crate::ntp::NtpTime;

/// Length of a report block, bytes (RFC 3550 §6.4.1).
pub(crate) const REPORT_BLOCK_LEN: usize = 24;
/// Length of the sender information with its SSRC, bytes (RFC 3550 §6.4.1).
const SENDER_INFO_LEN: usize = 24;
/// CNAME item (RFC 3550 §6.5.1).
pub(crate) const SDES_CNAME: u8 = 1;

/// What one receiver says about one stream (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream reported on.
    pub ssrc: u32,
    /// Share of packets lost since the last report, units of 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the start; negative with duplicates. 24 bits on the wire.
    pub cumulative_lost: i32,
    /// Highest sequence number received, with cycles in the upper 16 bits.
    pub highest_seq: u32,
    /// Interarrival jitter, units of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0 = none yet.
    pub last_sr: u32,
    /// Time since that report was received, units of 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// Bounds of the 24-bit cumulative loss.
const CUMULATIVE_LOST: std::ops::RangeInclusive<i32> = -0x80_0000..=0x7F_FFFF;

impl ReportBlock {
    fn parse(block: &[u8; REPORT_BLOCK_LEN]) -> Option<Self> {
        Some(Self {
            ssrc: be32(block, 0)?,
            fraction_lost: block[4],
            cumulative_lost: (be24(block, 5)? << 8) as i32 >> 8,
            highest_seq: be32(block, 8)?,
            jitter: be32(block, 12)?,
            last_sr: be32(block, 16)?,
            delay_since_last_sr: be32(block, 20)?,
        })
    }

    /// The block's bytes. The cumulative loss saturates at its 24 bits.
    pub(crate) fn to_bytes(self) -> [u8; REPORT_BLOCK_LEN] {
        let mut out = [0; REPORT_BLOCK_LEN];
        let lost = self.cumulative_lost.clamp(*CUMULATIVE_LOST.start(), *CUMULATIVE_LOST.end());
        out[..4].copy_from_slice(&self.ssrc.to_be_bytes());
        out[4..8].copy_from_slice(&lost.to_be_bytes());
        out[4] = self.fraction_lost;
        out[8..12].copy_from_slice(&self.highest_seq.to_be_bytes());
        out[12..16].copy_from_slice(&self.jitter.to_be_bytes());
        out[16..20].copy_from_slice(&self.last_sr.to_be_bytes());
        out[20..].copy_from_slice(&self.delay_since_last_sr.to_be_bytes());
        out
    }
}

/// The report blocks of a sender or receiver report.
#[derive(Debug, Clone, Copy)]
pub struct ReportBlocks<'a> {
    blocks: &'a [[u8; REPORT_BLOCK_LEN]],
}

impl<'a> ReportBlocks<'a> {
    fn parse(count: u8, data: &'a [u8]) -> Option<Self> {
        let (blocks, _) = data.as_chunks();
        Some(Self { blocks: blocks.get(..usize::from(count))? })
    }

    /// Number of blocks, 0..=31.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The blocks in wire order.
    pub fn iter(&self) -> ReportBlockIter<'a> {
        ReportBlockIter { blocks: self.blocks }
    }
}

impl<'a> IntoIterator for ReportBlocks<'a> {
    type Item = ReportBlock;
    type IntoIter = ReportBlockIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator over [`ReportBlock`]s.
#[derive(Debug, Clone)]
pub struct ReportBlockIter<'a> {
    blocks: &'a [[u8; REPORT_BLOCK_LEN]],
}

impl Iterator for ReportBlockIter<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.blocks.split_first()?;
        self.blocks = rest;
        ReportBlock::parse(block)
    }
}

/// What a sender says about its own stream (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// The stream.
    pub ssrc: u32,
    /// Wall clock of the sender.
    pub ntp: NtpTime,
    /// RTP timestamp of the same instant.
    pub rtp_timestamp: u32,
    /// Packets sent, wrapping.
    pub packet_count: u32,
    /// Payload bytes sent, wrapping.
    pub octet_count: u32,
}

/// SR.
#[derive(Debug, Clone, Copy)]
pub struct SenderReport<'a> {
    /// The sender's own stream.
    pub info: SenderInfo,
    /// Streams that the sender receives.
    pub blocks: ReportBlocks<'a>,
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let info = SenderInfo {
            ssrc: be32(body, 0)?,
            ntp: NtpTime::from_bits(be64(body, 4)?),
            rtp_timestamp: be32(body, 12)?,
            packet_count: be32(body, 16)?,
            octet_count: be32(body, 20)?,
        };
        let blocks = ReportBlocks::parse(count, body.get(SENDER_INFO_LEN..)?)?;
        Some(Self { info, blocks })
    }
}

/// RR.
#[derive(Debug, Clone, Copy)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// Streams that it receives.
    pub blocks: ReportBlocks<'a>,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let blocks = ReportBlocks::parse(count, body.get(4..)?)?;
        Some(Self { sender_ssrc: be32(body, 0)?, blocks })
    }
}

/// SDES (RFC 3550 §6.5).
#[derive(Debug, Clone, Copy)]
pub struct Sdes<'a> {
    count: u8,
    body: &'a [u8],
}

impl<'a> Sdes<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let sdes = Self { count, body };
        (sdes.chunks().count() == usize::from(count)).then_some(sdes)
    }

    /// The sources described.
    pub fn chunks(&self) -> SdesChunks<'a> {
        SdesChunks { left: self.count, rest: self.body }
    }
}

/// One source of an [`Sdes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdesChunk<'a> {
    /// The source.
    pub ssrc: u32,
    items: &'a [u8],
}

impl<'a> SdesChunk<'a> {
    /// The items in wire order: type and value.
    pub fn items(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.items;
        std::iter::from_fn(move || {
            let (&[kind, len], tail) = rest.split_first_chunk::<2>()?;
            let (value, tail) = tail.split_at_checked(usize::from(len))?;
            rest = tail;
            Some((kind, value))
        })
    }

    /// The canonical name, as the sender wrote it.
    pub fn cname(&self) -> Option<&'a [u8]> {
        self.items().find(|(kind, _)| *kind == SDES_CNAME).map(|(_, value)| value)
    }
}

/// Iterator over [`SdesChunk`]s.
#[derive(Debug, Clone)]
pub struct SdesChunks<'a> {
    left: u8,
    rest: &'a [u8],
}

impl<'a> Iterator for SdesChunks<'a> {
    type Item = SdesChunk<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let ssrc = be32(self.rest, 0)?;
        let items = self.rest.get(4..)?;
        let mut end = 0;
        // Items end with a zero octet; the chunk is padded to a multiple of 4.
        while *items.get(end)? != 0 {
            end += 2 + usize::from(*items.get(end + 1)?);
        }
        let chunk_len = (4 + end + 1).next_multiple_of(4);
        self.rest = self.rest.get(chunk_len..)?;
        Some(SdesChunk { ssrc, items: &items[..end] })
    }
}

/// BYE (RFC 3550 §6.6).
#[derive(Debug, Clone, Copy)]
pub struct Bye<'a> {
    sources: &'a [[u8; 4]],
    reason: &'a [u8],
}

impl<'a> Bye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let (words, _) = body.as_chunks();
        let sources = words.get(..usize::from(count))?;
        let rest = &body[4 * sources.len()..];
        let reason = match rest.split_first() {
            Some((&len, text)) => text.get(..usize::from(len))?,
            None => &[],
        };
        Some(Self { sources, reason })
    }

    /// The sources that end.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.sources.iter().map(|word| u32::from_be_bytes(*word))
    }

    /// Why they end, as the sender wrote it; empty if it did not say.
    pub fn reason(&self) -> &'a [u8] {
        self.reason
    }
}

/// XR (RFC 3611): passed by as blocks; none is interpreted.
#[derive(Debug, Clone, Copy)]
pub struct ExtendedReport<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    blocks: &'a [u8],
}

impl<'a> ExtendedReport<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        Some(Self { sender_ssrc: be32(body, 0)?, blocks: body.get(4..)? })
    }

    /// The report blocks in wire order; stops at the first one that is cut.
    pub fn blocks(&self) -> XrBlocks<'a> {
        XrBlocks { rest: self.blocks }
    }
}

/// One block of an [`ExtendedReport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XrBlock<'a> {
    /// Block type (RFC 3611 §4: 4 = reference time, 5 = DLRR).
    pub block_type: u8,
    /// Meaning depends on the type.
    pub type_specific: u8,
    /// Content, a multiple of 4 bytes.
    pub content: &'a [u8],
}

/// Iterator over [`XrBlock`]s.
#[derive(Debug, Clone)]
pub struct XrBlocks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for XrBlocks<'a> {
    type Item = XrBlock<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest;
        let len = 4 + 4 * usize::from(be16(rest, 2)?);
        let (block, tail) = rest.split_at_checked(len)?;
        self.rest = tail;
        Some(XrBlock { block_type: block[0], type_specific: block[1], content: &block[4..] })
    }
}
