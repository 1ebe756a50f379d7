//! One RTP packet to be: what it says, and how it is written into a send arena and sealed there.
//! Payloads are synthetic: a codec's headers, filler, and a [`stamp`]. They are a function of the
//! packet's fields, so a retransmission needs no copy.

use sluice_rtp::ext::write_transport_cc;
use sluice_rtp::{ExtensionKind, RtpHeaderWriter};
use sluice_transport::peer::SRTP_OVERHEAD;
use sluice_transport::{Peer, SealError, StreamSlot};

use sluice_net::SendArena;

use crate::sdp::{RIDS, Section};
use crate::stamp;

/// Bytes of codec headers in front of the filler at most.
pub(crate) const MAX_PREFIX: usize = 20;

/// Largest header that we write, bytes.
const MAX_HEADER: usize = 64;

/// Negotiated ids of the header extensions of one section.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ExtensionIds {
    pub(crate) mid: Option<u8>,
    pub(crate) rid: Option<u8>,
    pub(crate) repaired_rid: Option<u8>,
    pub(crate) transport_cc: Option<u8>,
    pub(crate) audio_level: Option<u8>,
}

impl ExtensionIds {
    /// Ids that the server accepted in its answer.
    pub(crate) fn of(section: &Section) -> Self {
        Self {
            mid: section.extension(ExtensionKind::Mid),
            rid: section.extension(ExtensionKind::Rid),
            repaired_rid: section.extension(ExtensionKind::RepairedRid),
            transport_cc: section.extension(ExtensionKind::TransportCc),
            audio_level: section.extension(ExtensionKind::AudioLevel),
        }
    }
}

/// A packet before it is written. Small and copied freely: histories hold thousands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) seq: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    /// Bytes of the payload with prefix and stamp.
    pub(crate) payload_len: u16,
    pub(crate) prefix: [u8; MAX_PREFIX],
    pub(crate) prefix_len: u8,
    /// Index of the layer whose rid is sent; `None`: no rid.
    pub(crate) layer: Option<u8>,
    /// Carries mid and rid.
    pub(crate) named: bool,
    /// Level of audio, -dBov.
    pub(crate) audio_level: Option<u8>,
    /// Microseconds since the Unix epoch, set when the packet is first sent.
    pub(crate) sent_us: u64,
    /// Original sequence number of a retransmission.
    pub(crate) osn: Option<u16>,
}

/// What all packets of a connection share.
pub(crate) struct Writer<'a> {
    pub(crate) peer: &'a mut Peer,
    pub(crate) arena: &'a mut SendArena,
}

impl Writer<'_> {
    /// Writes, seals and commits a packet; returns the payload's length.
    ///
    /// # Errors
    /// The peer is not connected, or the arena is full ([`SealError::Malformed`]).
    pub(crate) fn write(
        &mut self,
        packet: &Packet,
        mid: &str,
        ids: &ExtensionIds,
        transport_seq: u16,
    ) -> Result<usize, SealError> {
        let payload_len = usize::from(packet.payload_len) + 2 * usize::from(packet.osn.is_some());
        let tail = self.arena.tail();
        if tail.len() < MAX_HEADER + payload_len + SRTP_OVERHEAD {
            return Err(SealError::Malformed);
        }
        let transport_seq = write_transport_cc(transport_seq);
        let level = packet.audio_level.map(|level| [0x80 | (level & 0x7F)]);
        let rid = packet.layer.and_then(|layer| RIDS.get(usize::from(layer)));
        let rid_id = if packet.osn.is_some() { ids.repaired_rid } else { ids.rid };
        let wanted: [(Option<u8>, Option<&[u8]>); 4] = [
            (ids.transport_cc, Some(&transport_seq)),
            (ids.audio_level, level.as_ref().map(|level| &level[..])),
            (ids.mid, packet.named.then_some(mid.as_bytes())),
            (rid_id, rid.filter(|_| packet.named).map(|rid| rid.as_bytes())),
        ];
        let mut extensions: [(u8, &[u8]); 4] = [(0, &[]); 4];
        let mut count = 0;
        for (id, data) in wanted {
            if let (Some(id), Some(data)) = (id, data) {
                extensions[count] = (id, data);
                count += 1;
            }
        }
        let header = RtpHeaderWriter {
            marker: packet.marker,
            payload_type: packet.payload_type,
            sequence_number: packet.seq,
            timestamp: packet.timestamp,
            ssrc: packet.ssrc,
            padding: false,
        };
        let header_len =
            header.write(&extensions[..count], tail).map_err(|_| SealError::Malformed)?;
        packet.fill(&mut tail[header_len..header_len + payload_len]);
        let mut slot = StreamSlot::default();
        let len = self.peer.seal_rtp(&mut slot, tail, header_len, header_len + payload_len)?;
        self.arena.commit(len);
        Ok(payload_len)
    }
}

impl Packet {
    /// Writes the payload.
    pub(crate) fn fill(&self, payload: &mut [u8]) {
        let payload = match self.osn {
            Some(osn) => {
                payload[..2].copy_from_slice(&osn.to_be_bytes());
                &mut payload[2..]
            }
            None => payload,
        };
        let prefix = &self.prefix[..usize::from(self.prefix_len).min(payload.len())];
        // Filler that does not compress to nothing, and costs a memset.
        payload.fill(0xA5 ^ self.seq as u8);
        payload[..prefix.len()].copy_from_slice(prefix);
        stamp::write(payload, self.ssrc, self.sent_us);
    }
}
