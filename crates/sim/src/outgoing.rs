//! One RTP stream of a simulated sender, with its history and its RTX stream.

use std::collections::VecDeque;

use sluice_rtp::packet::RtpHeaderWriter;
use sluice_rtp::rtcp::SenderInfo;
use sluice_rtp::{NtpTime, rtx};

/// Packets kept for retransmission (libwebrtc keeps up to one second and more).
const HISTORY: usize = 600;

/// Longest header with extensions, bytes.
const MAX_HEADER: usize = 128;

/// Payload and header extensions of one packet.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker.
    pub marker: bool,
    /// Header extensions `(id, data)`.
    pub extensions: &'a [(u8, &'a [u8])],
    /// Payload.
    pub payload: &'a [u8],
}

/// Identity of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamIds {
    /// SSRC of media.
    pub ssrc: u32,
    /// Payload type of media.
    pub pt: u8,
    /// SSRC and payload type of RTX.
    pub rtx: Option<(u32, u8)>,
}

/// A sent packet.
#[derive(Debug, Clone)]
struct Sent {
    seq: u16,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

/// Writes the packets of one stream.
#[derive(Debug)]
pub struct OutgoingStream {
    ids: StreamIds,
    next_seq: u16,
    next_rtx_seq: u16,
    history: VecDeque<Sent>,
    packets: u32,
    octets: u32,
    retransmitted: u64,
}

impl OutgoingStream {
    /// A stream whose first packet carries `first_seq`.
    pub fn new(ids: StreamIds, first_seq: u16) -> Self {
        Self {
            ids,
            next_seq: first_seq,
            next_rtx_seq: first_seq.wrapping_mul(31),
            history: VecDeque::new(),
            packets: 0,
            octets: 0,
            retransmitted: 0,
        }
    }

    /// Identity of the stream.
    pub fn ids(&self) -> StreamIds {
        self.ids
    }

    /// Writes the next packet.
    pub fn packet(&mut self, content: &Content<'_>) -> Vec<u8> {
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(content.payload.len() as u32);
        if self.ids.rtx.is_some() {
            if self.history.len() >= HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(Sent {
                seq,
                timestamp: content.timestamp,
                marker: content.marker,
                payload: content.payload.to_vec(),
            });
        }
        write(self.ids.ssrc, self.ids.pt, seq, content)
    }

    /// Writes a packet of padding only, as probes on the media stream are.
    pub fn padding(&mut self, timestamp: u32) -> Vec<u8> {
        let content = Content { timestamp, marker: false, extensions: &[], payload: &[0, 0, 3] };
        let mut packet = self.packet(&content);
        self.history.pop_back();
        packet[0] |= 0x20;
        packet
    }

    /// Writes the retransmission of a packet, if it is still kept.
    pub fn retransmit(&mut self, seq: u16, extensions: &[(u8, &[u8])]) -> Option<Vec<u8>> {
        let (ssrc, pt) = self.ids.rtx?;
        let sent = self.history.iter().rfind(|sent| sent.seq == seq)?;
        let mut payload = vec![0; rtx::OSN_LEN];
        rtx::write_osn(&mut payload, seq)?;
        payload.extend_from_slice(&sent.payload);
        let (timestamp, marker) = (sent.timestamp, sent.marker);
        let rtx_seq = self.next_rtx_seq;
        self.next_rtx_seq = rtx_seq.wrapping_add(1);
        self.retransmitted += 1;
        let content = Content { timestamp, marker, extensions, payload: &payload };
        Some(write(ssrc, pt, rtx_seq, &content))
    }

    /// The fields of a sender report.
    pub fn sender_info(&self, ntp: NtpTime, rtp_timestamp: u32) -> SenderInfo {
        SenderInfo {
            ssrc: self.ids.ssrc,
            ntp,
            rtp_timestamp,
            packet_count: self.packets,
            octet_count: self.octets,
        }
    }

    /// Packets sent, retransmissions apart.
    pub fn packets(&self) -> u32 {
        self.packets
    }

    /// Packets sent again.
    pub fn retransmitted(&self) -> u64 {
        self.retransmitted
    }
}

fn write(ssrc: u32, pt: u8, seq: u16, content: &Content<'_>) -> Vec<u8> {
    let header = RtpHeaderWriter {
        marker: content.marker,
        payload_type: pt,
        sequence_number: seq,
        timestamp: content.timestamp,
        ssrc,
        padding: false,
    };
    let mut packet = vec![0; MAX_HEADER];
    let len = header.write(content.extensions, &mut packet).unwrap_or(0);
    packet.truncate(len);
    packet.extend_from_slice(content.payload);
    packet
}
