//! Writers: each function appends complete packets to `out`; calls in a row make a compound.
//!
//! RFC 3550 §6.1 wants a compound to start with a report; peers of WebRTC accept reduced size (RFC
//! 5506) where it was negotiated.

mod transport_cc;

pub use transport_cc::{Arrival, FeedbackHeader, MAX_FEEDBACK_LEN, transport_cc};

use super::feedback::{REMB_IDENTIFIER, nack_pairs};
use super::report::{ReportBlock, SDES_CNAME, SenderInfo};
use super::{HEADER_LEN, feedback_type, packet_type};

/// Most report blocks, chunks or sources of one packet: the count has 5 bits (RFC 3550 §6.4).
const MAX_COUNT: usize = 31;
/// Longest SDES item and BYE reason, bytes (RFC 3550 §6.5).
const MAX_TEXT_LEN: usize = 255;
/// Most pairs in one NACK packet: 1,012 bytes, which fits every path MTU of the Internet. Longer
/// lists become several packets.
const MAX_NACK_PAIRS: usize = 250;
/// Most streams in one REMB: the count has 8 bits (draft-alvestrand-rmcat-remb-03 §2.2).
const MAX_REMB_SSRCS: usize = 255;

/// Appends SR, and RR packets for blocks beyond the 31st.
pub fn sender_report(out: &mut Vec<u8>, info: &SenderInfo, blocks: &[ReportBlock]) {
    let (first, rest) = blocks.split_at(blocks.len().min(MAX_COUNT));
    let packet = begin(out, first.len() as u8, packet_type::SR);
    put32(out, info.ssrc);
    out.extend_from_slice(&info.ntp.to_bits().to_be_bytes());
    put32(out, info.rtp_timestamp);
    put32(out, info.packet_count);
    put32(out, info.octet_count);
    put_blocks(out, first);
    end(out, packet);
    if !rest.is_empty() {
        receiver_report(out, info.ssrc, rest);
    }
}

/// Appends RR: one packet per 31 blocks, one without blocks if there are none.
pub fn receiver_report(out: &mut Vec<u8>, sender_ssrc: u32, blocks: &[ReportBlock]) {
    let mut rest = blocks;
    loop {
        let (blocks, tail) = rest.split_at(rest.len().min(MAX_COUNT));
        let packet = begin(out, blocks.len() as u8, packet_type::RR);
        put32(out, sender_ssrc);
        put_blocks(out, blocks);
        end(out, packet);
        rest = tail;
        if rest.is_empty() {
            return;
        }
    }
}

/// Appends SDES with one source and its canonical name, cut to 255 bytes.
pub fn sdes_cname(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let name = &cname.as_bytes()[..cname.len().min(MAX_TEXT_LEN)];
    let packet = begin(out, 1, packet_type::SDES);
    put32(out, ssrc);
    out.extend_from_slice(&[SDES_CNAME, name.len() as u8]);
    out.extend_from_slice(name);
    // At least one zero octet ends the items.
    out.push(0);
    pad(out, packet);
    end(out, packet);
}

/// Appends BYE, one packet per 31 sources; nothing if there are none.
pub fn bye(out: &mut Vec<u8>, ssrcs: &[u32]) {
    for ssrcs in ssrcs.chunks(MAX_COUNT) {
        let packet = begin(out, ssrcs.len() as u8, packet_type::BYE);
        ssrcs.iter().for_each(|ssrc| put32(out, *ssrc));
        end(out, packet);
    }
}

/// Appends NACK for sequence numbers in ascending wrapping order; nothing if there are none.
pub fn nack(
    out: &mut Vec<u8>,
    sender_ssrc: u32,
    media_ssrc: u32,
    seqs: impl IntoIterator<Item = u16>,
) {
    let mut pairs = nack_pairs(seqs).peekable();
    while pairs.peek().is_some() {
        let packet =
            begin_feedback(out, packet_type::RTPFB, feedback_type::NACK, sender_ssrc, media_ssrc);
        for (id, mask) in pairs.by_ref().take(MAX_NACK_PAIRS) {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&mask.to_be_bytes());
        }
        end(out, packet);
    }
}

/// Appends PLI.
pub fn pli(out: &mut Vec<u8>, sender_ssrc: u32, media_ssrc: u32) {
    let packet =
        begin_feedback(out, packet_type::PSFB, feedback_type::PLI, sender_ssrc, media_ssrc);
    end(out, packet);
}

/// Appends FIR for one stream. `command_seq` must change for each new request (RFC 5104 §4.3.1.1).
pub fn fir(out: &mut Vec<u8>, sender_ssrc: u32, media_ssrc: u32, command_seq: u8) {
    let packet = begin_feedback(out, packet_type::PSFB, feedback_type::FIR, sender_ssrc, 0);
    put32(out, media_ssrc);
    out.extend_from_slice(&[command_seq, 0, 0, 0]);
    end(out, packet);
}

/// Appends REMB for at most 255 streams. The bitrate is rounded down to an 18-bit mantissa.
pub fn remb(out: &mut Vec<u8>, sender_ssrc: u32, bitrate_bps: u64, ssrcs: &[u32]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(MAX_REMB_SSRCS)];
    let exponent = (u64::BITS - bitrate_bps.leading_zeros()).saturating_sub(18);
    let mantissa = (bitrate_bps >> exponent) as u32;
    let packet = begin_feedback(out, packet_type::PSFB, feedback_type::APPLICATION, sender_ssrc, 0);
    out.extend_from_slice(&REMB_IDENTIFIER);
    put32(out, ((ssrcs.len() as u32) << 24) | (exponent << 18) | mantissa);
    ssrcs.iter().for_each(|ssrc| put32(out, *ssrc));
    end(out, packet);
}

/// Starts a packet; returns where it starts.
fn begin(out: &mut Vec<u8>, count: u8, packet_type: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0x80 | count, packet_type, 0, 0]);
    start
}

/// Starts a feedback message with its two SSRCs.
fn begin_feedback(
    out: &mut Vec<u8>,
    packet_type: u8,
    format: u8,
    sender_ssrc: u32,
    media_ssrc: u32,
) -> usize {
    let start = begin(out, format, packet_type);
    put32(out, sender_ssrc);
    put32(out, media_ssrc);
    start
}

/// Fills the packet up with zeros to a multiple of 4 bytes.
fn pad(out: &mut Vec<u8>, start: usize) {
    let len = (out.len() - start).next_multiple_of(4);
    out.resize(start + len, 0);
}

/// Writes the length of a packet whose size is a multiple of 4. No writer comes near 256 KiB.
fn end(out: &mut [u8], start: usize) {
    let words = (out.len() - start - HEADER_LEN) / 4;
    out[start + 2..start + 4].copy_from_slice(&(words as u16).to_be_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_blocks(out: &mut Vec<u8>, blocks: &[ReportBlock]) {
    blocks.iter().for_each(|block| out.extend_from_slice(&block.to_bytes()));
}
