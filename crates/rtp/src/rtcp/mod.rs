//! RTCP: a zero-copy walk over compound packets, and writers (RFC 3550 §6, RFC 4585, RFC 5104,
//! draft-holmer-rmcat-transport-wide-cc-extensions-01, draft-alvestrand-rmcat-remb).
//!
//! [`RtcpIter`] yields one [`Rtcp`] per packet of a compound; the lists inside are iterators over
//! the received bytes whose lengths were checked. The functions of [`write`](mod@write) append one
//! packet each to a `Vec`, so that a compound is a sequence of calls.

mod feedback;
mod report;
mod transport_cc;
pub mod write;

use thiserror::Error;

pub use crate::demux::is_rtcp;
pub use feedback::{Fir, FirEntries, Nack, NackSeqs, Pli, Remb, RembSsrcs, nack_pairs};
pub use report::{
    Bye, ExtendedReport, ReceiverReport, ReportBlock, ReportBlockIter, ReportBlocks, Sdes,
    SdesChunk, SdesChunks, SenderInfo, SenderReport, XrBlock, XrBlocks,
};
pub use transport_cc::{PacketStatus, PacketStatuses, TICK_US, TransportFeedback};

use crate::bytes::{be16, be32};

/// RTCP packet types (RFC 3550 §12.1, RFC 4585 §6.1, RFC 3611 §2).
pub(crate) mod packet_type {
    pub(crate) const SR: u8 = 200;
    pub(crate) const RR: u8 = 201;
    pub(crate) const SDES: u8 = 202;
    pub(crate) const BYE: u8 = 203;
    pub(crate) const RTPFB: u8 = 205;
    pub(crate) const PSFB: u8 = 206;
    pub(crate) const XR: u8 = 207;
}

/// Feedback message types (RFC 4585 §6.2, §6.3, RFC 5104 §4.3.1, draft-holmer §3.1).
pub(crate) mod feedback_type {
    pub(crate) const NACK: u8 = 1;
    pub(crate) const TRANSPORT_CC: u8 = 15;
    pub(crate) const PLI: u8 = 1;
    pub(crate) const FIR: u8 = 4;
    pub(crate) const APPLICATION: u8 = 15;
}

/// Length of the common header, bytes.
pub(crate) const HEADER_LEN: usize = 4;

/// Why a compound, or one packet of it, was refused: the sender's bytes are malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RtcpError {
    /// The compound ends inside a packet; the walk stops.
    #[error("compound ends inside a packet")]
    Truncated,
    /// The version is not 2; the walk stops.
    #[error("RTCP version {0}, expected 2")]
    Version(u8),
    /// The padding count does not fit the packet; the walk goes on after it.
    #[error("padding does not fit the packet")]
    Padding,
    /// The body of a packet does not match its type; the walk goes on after it.
    #[error("malformed body of packet type {0}")]
    Body(u8),
}

/// One packet of a compound.
#[derive(Debug, Clone, Copy)]
pub enum Rtcp<'a> {
    /// SR, 200.
    SenderReport(SenderReport<'a>),
    /// RR, 201.
    ReceiverReport(ReceiverReport<'a>),
    /// SDES, 202.
    Sdes(Sdes<'a>),
    /// BYE, 203.
    Bye(Bye<'a>),
    /// RTPFB 1.
    Nack(Nack<'a>),
    /// RTPFB 15.
    TransportCc(TransportFeedback<'a>),
    /// PSFB 1.
    Pli(Pli),
    /// PSFB 4.
    Fir(Fir<'a>),
    /// PSFB 15 with the identifier `REMB`.
    Remb(Remb<'a>),
    /// XR, 207.
    ExtendedReport(ExtendedReport<'a>),
    /// A well-formed packet of another kind: APP, other feedback.
    Other {
        /// Packet type.
        packet_type: u8,
        /// The five bits after version and padding: a count or a format.
        count: u8,
        /// Body without header and padding.
        body: &'a [u8],
    },
}

/// The raw parts of one packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) count: u8,
    pub(crate) packet_type: u8,
    /// Without header and padding.
    pub(crate) body: &'a [u8],
}

impl<'a> Rtcp<'a> {
    /// Reads one packet.
    fn parse(packet: Packet<'a>) -> Result<Self, RtcpError> {
        Self::parse_body(packet).ok_or(RtcpError::Body(packet.packet_type))
    }

    fn parse_body(packet: Packet<'a>) -> Option<Self> {
        let Packet { count, packet_type, body } = packet;
        Some(match (packet_type, count) {
            (packet_type::SR, _) => Self::SenderReport(SenderReport::parse(count, body)?),
            (packet_type::RR, _) => Self::ReceiverReport(ReceiverReport::parse(count, body)?),
            (packet_type::SDES, _) => Self::Sdes(Sdes::parse(count, body)?),
            (packet_type::BYE, _) => Self::Bye(Bye::parse(count, body)?),
            (packet_type::RTPFB, feedback_type::NACK) => Self::Nack(Nack::parse(body)?),
            (packet_type::RTPFB, feedback_type::TRANSPORT_CC) => {
                Self::TransportCc(TransportFeedback::parse(body)?)
            }
            (packet_type::PSFB, feedback_type::PLI) => Self::Pli(Pli::parse(body)?),
            (packet_type::PSFB, feedback_type::FIR) => Self::Fir(Fir::parse(body)?),
            (packet_type::PSFB, feedback_type::APPLICATION) if feedback::is_remb(body) => {
                Self::Remb(Remb::parse(body)?)
            }
            (packet_type::XR, _) => Self::ExtendedReport(ExtendedReport::parse(body)?),
            _ => Self::Other { packet_type, count, body },
        })
    }
}

/// Walks the packets of a decrypted compound. Reduced-size compounds (RFC 5506) are accepted.
///
/// A packet whose body is malformed yields an error and the walk goes on; a broken header ends it
/// after one error.
#[derive(Debug, Clone)]
pub struct RtcpIter<'a> {
    rest: &'a [u8],
}

impl<'a> RtcpIter<'a> {
    /// A walk over `compound`.
    pub fn new(compound: &'a [u8]) -> Self {
        Self { rest: compound }
    }

    /// Cuts the next packet off.
    fn split(&mut self) -> Result<Packet<'a>, RtcpError> {
        let rest = std::mem::take(&mut self.rest);
        let first = *rest.first().ok_or(RtcpError::Truncated)?;
        if first >> 6 != 2 {
            return Err(RtcpError::Version(first >> 6));
        }
        let packet_type = *rest.get(1).ok_or(RtcpError::Truncated)?;
        let words = be16(rest, 2).ok_or(RtcpError::Truncated)?;
        let len = HEADER_LEN + 4 * usize::from(words);
        let (packet, rest) = rest.split_at_checked(len).ok_or(RtcpError::Truncated)?;
        self.rest = rest;
        let mut body = &packet[HEADER_LEN..];
        if first & 0x20 != 0 {
            let padding = usize::from(body.last().copied().unwrap_or(0));
            let unpadded = body.len().checked_sub(padding).filter(|_| padding > 0);
            body = &body[..unpadded.ok_or(RtcpError::Padding)?];
        }
        Ok(Packet { count: first & 0x1F, packet_type, body })
    }
}

impl<'a> Iterator for RtcpIter<'a> {
    type Item = Result<Rtcp<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.split().and_then(Rtcp::parse))
    }
}

/// The two SSRCs in front of every feedback message (RFC 4585 §6.1), and what follows.
pub(crate) fn feedback_head(body: &[u8]) -> Option<(u32, u32, &[u8])> {
    Some((be32(body, 0)?, be32(body, 4)?, body.get(8..)?))
}
