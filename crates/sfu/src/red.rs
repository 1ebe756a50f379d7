//! Redundant audio (RFC 2198) for some receivers of a track and plain Opus for others.
//!
//! [`RedSplitter`] makes Opus packets of RED packets: the primary block of each, and from redundant
//! blocks those that were lost on the way from the publisher. The blocks stay where they are, only
//! the payload range moves. [`RedJoiner`] makes RED packets of Opus packets. Either way a packet
//! keeps its sequence number and timestamp, so that one receiver may get a mix of both forms.

use sluice_rtp::codec::red::{self, Block, RedView};
use sluice_rtp::codec::{Codec, PayloadInfo};

use crate::body::BodyPool;
use crate::drop_reason::DropReason;
use crate::packet::{ByteRange, MediaPacket};

/// Packets behind the newest that are still told apart from their recovered copies.
const WINDOW: u64 = 64;

/// Redundant blocks that are looked at: more than any client sends (libwebrtc: 2).
const MAX_REDUNDANT: usize = 8;

/// Earlier frames that a joined packet repeats (LiveKit `redreceiver.go`).
const JOINED_FRAMES: usize = 2;

/// Longest joined payload, bytes: the packet stays below every path's MTU.
const MAX_JOINED_LEN: usize = 1_100;

/// Payload type of the blocks of a RED packet; `None` if the payload is malformed.
pub fn primary_payload_type(packet: &MediaPacket) -> Option<u8> {
    red::primary(packet.payload()).map(|block| block.payload_type)
}

/// Turns the RED packets of one track into Opus packets.
#[derive(Debug, Default)]
pub struct RedSplitter {
    epoch: u8,
    /// First packet passed on: what came before it is not missed.
    first: u64,
    /// Newest packet passed on.
    highest: Option<u64>,
    /// Bit `n`: the packet `n` before the newest was passed on.
    passed: u64,
    recovered: u64,
}

impl RedSplitter {
    /// Calls `send` with the Opus packets that a packet brings, oldest first: lost ones, then its
    /// own. A packet that was recovered before brings none.
    ///
    /// # Errors
    /// The payload is not RED.
    pub fn split(
        &mut self,
        packet: &MediaPacket,
        mut send: impl FnMut(MediaPacket),
    ) -> Result<(), DropReason> {
        if packet.epoch != self.epoch {
            (self.epoch, self.highest, self.passed) = (packet.epoch, None, 0);
        }
        if packet.is_padding() {
            self.pass(packet.ext_seq);
            send(packet.clone());
            return Ok(());
        }
        let view = RedView::parse(packet.payload()).map_err(|_| DropReason::BadPayload)?;
        let primary_pt = view.primary().payload_type;
        let count = view.blocks().count();
        let mut start = usize::from(packet.payload.start) + view.header_len();
        for (index, block) in view.blocks().enumerate() {
            let range = ByteRange::from(start..start + block.data.len());
            start += block.data.len();
            if block.primary {
                if self.pass(packet.ext_seq) {
                    send(opus_packet(packet, packet.ext_seq, 0, range));
                }
                continue;
            }
            // Blocks repeat the packets directly before, the last block the nearest.
            let distance = count - 1 - index;
            let usable = distance <= MAX_REDUNDANT
                && block.timestamp_offset > 0
                && !block.data.is_empty()
                && block.payload_type == primary_pt;
            let ext_seq = packet.ext_seq.saturating_sub(distance as u64);
            if usable && self.is_lost(ext_seq) {
                let newer = self.highest.map_or(0, |highest| highest.saturating_sub(ext_seq));
                self.pass(ext_seq);
                self.recovered += 1;
                let mut lost = opus_packet(packet, ext_seq, block.timestamp_offset, range);
                lost.newer = newer as u16;
                lost.marker = false;
                lost.recovered = true;
                // Both are of the packet that brought it.
                lost.abs_capture_time = None;
                lost.audio_level = None;
                send(lost);
            }
        }
        Ok(())
    }

    /// Packets that were rebuilt from redundant blocks.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    /// Notes that a packet goes out. False if it did before, or if it is too old to know.
    fn pass(&mut self, ext_seq: u64) -> bool {
        let Some(highest) = self.highest else {
            (self.first, self.highest, self.passed) = (ext_seq, Some(ext_seq), 1);
            return true;
        };
        if ext_seq > highest {
            let step = ext_seq - highest;
            self.passed = if step < WINDOW { self.passed << step } else { 0 } | 1;
            self.highest = Some(ext_seq);
            return true;
        }
        let behind = highest - ext_seq;
        let fresh = behind < WINDOW && self.passed & (1 << behind) == 0;
        if fresh {
            self.passed |= 1 << behind;
        }
        fresh
    }

    /// Whether a packet should have come and has not.
    fn is_lost(&self, ext_seq: u64) -> bool {
        match self.highest {
            None => false,
            Some(highest) if ext_seq > highest => true,
            Some(highest) => {
                let behind = highest - ext_seq;
                ext_seq > self.first && behind < WINDOW && self.passed & (1 << behind) == 0
            }
        }
    }
}

fn opus_packet(red: &MediaPacket, ext_seq: u64, offset: u16, payload: ByteRange) -> MediaPacket {
    let mut packet = red.clone();
    packet.ext_seq = ext_seq;
    packet.timestamp = red.timestamp.wrapping_sub(u32::from(offset));
    packet.codec = Codec::Opus;
    packet.payload = payload;
    packet.info = PayloadInfo::inspect(Codec::Opus, packet.payload(), packet.marker);
    packet
}

/// Turns the Opus packets of one track into RED packets that repeat the frames before.
#[derive(Debug, Default)]
pub struct RedJoiner {
    /// Oldest first.
    earlier: Vec<MediaPacket>,
}

impl RedJoiner {
    /// The packet with earlier frames in front, under the payload type `opus_pt` for all blocks. A
    /// late packet repeats nothing. `None` if it cannot be written, for example for its length: then
    /// the packet goes out as it is.
    pub fn join(
        &mut self,
        packet: &MediaPacket,
        opus_pt: u8,
        pool: &mut BodyPool,
    ) -> Option<MediaPacket> {
        let in_order = packet.newer == 0;
        let own = Block {
            payload_type: opus_pt,
            timestamp_offset: 0,
            data: packet.payload(),
            primary: true,
        };
        let mut blocks = [own; JOINED_FRAMES];
        let mut count = 0;
        let mut room = MAX_JOINED_LEN.saturating_sub(own.data.len());
        // Newest first: a block stands for the packet directly before the next block's.
        for earlier in self.earlier.iter().rev().take(if in_order { JOINED_FRAMES } else { 0 }) {
            let offset = packet.timestamp.wrapping_sub(earlier.timestamp);
            let data = earlier.payload();
            let follows = earlier.epoch == packet.epoch
                && earlier.ext_seq + count as u64 + 1 == packet.ext_seq;
            let fits = data.len() <= red::MAX_REDUNDANT_LEN && data.len() <= room;
            if !follows || !fits || offset > u32::from(red::MAX_TIMESTAMP_OFFSET) {
                break;
            }
            room -= data.len();
            let timestamp_offset = offset as u16;
            blocks[count] = Block { payload_type: opus_pt, timestamp_offset, data, primary: false };
            count += 1;
        }
        blocks[..count].reverse();

        let header = packet.body.bytes().get(..usize::from(packet.payload.start))?;
        let mut bytes = [0; 2 * MAX_JOINED_LEN];
        bytes.get_mut(..header.len())?.copy_from_slice(header);
        let len = red::write(&blocks[..count], own, &mut bytes[header.len()..]).ok()?;
        let payload = ByteRange::from(header.len()..header.len() + len);
        let body = pool.store(bytes.get(..header.len() + len)?);
        if in_order && !packet.is_padding() {
            if self.earlier.len() == JOINED_FRAMES {
                self.earlier.remove(0);
            }
            self.earlier.push(packet.clone());
        }
        Some(MediaPacket { body, payload, codec: Codec::Red, ..packet.clone() })
    }
}

#[cfg(test)]
#[path = "red_tests.rs"]
mod tests;
