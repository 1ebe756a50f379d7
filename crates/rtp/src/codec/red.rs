//! Redundant audio data (RFC 2198): a primary block and earlier blocks in front of it.

use thiserror::Error;

use crate::bytes::be32;

/// Most redundant blocks that are accepted. LiveKit and libwebrtc send one or two; libwebrtc's
/// receiver accepts 32.
pub const MAX_BLOCKS: usize = 32;
/// Largest timestamp offset of a redundant block (14 bits).
pub const MAX_TIMESTAMP_OFFSET: u16 = 0x3FFF;
/// Longest redundant block, bytes (10 bits).
pub const MAX_REDUNDANT_LEN: usize = 0x3FF;

/// F bit: another block header follows.
const FOLLOW: u8 = 0x80;
/// Length of the header of a redundant block, bytes.
const BLOCK_HEADER_LEN: usize = 4;

/// The sender's payload is not RED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RedError {
    /// The block headers or the redundant blocks reach beyond the payload.
    #[error("RED blocks reach beyond the payload")]
    Truncated,
    /// More than [`MAX_BLOCKS`] redundant blocks.
    #[error("more redundant blocks than accepted")]
    TooManyBlocks,
    /// Writer: a block is too long or too old, or the output too small.
    #[error("block cannot be written")]
    Unwritable,
}

/// One block of a RED payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// Payload type of the data.
    pub payload_type: u8,
    /// How much earlier than the packet's timestamp the data belongs, units of the RTP clock; 0
    /// for the primary block.
    pub timestamp_offset: u16,
    /// The encoded audio; may be empty.
    pub data: &'a [u8],
    /// Whether this is the primary block, the last one.
    pub primary: bool,
}

/// A RED payload whose block lengths were checked.
#[derive(Debug, Clone, Copy)]
pub struct RedView<'a> {
    headers: &'a [u8],
    data: &'a [u8],
}

impl<'a> RedView<'a> {
    /// Checks the block headers of a payload.
    ///
    /// # Errors
    /// The payload is malformed.
    pub fn parse(payload: &'a [u8]) -> Result<Self, RedError> {
        let mut at = 0;
        let mut redundant = 0;
        let mut blocks = 0;
        while payload.get(at).ok_or(RedError::Truncated)? & FOLLOW != 0 {
            redundant += block_len(be32(payload, at).ok_or(RedError::Truncated)?);
            at += BLOCK_HEADER_LEN;
            blocks += 1;
            if blocks > MAX_BLOCKS {
                return Err(RedError::TooManyBlocks);
            }
        }
        let (headers, data) = payload.split_at(at + 1);
        if redundant > data.len() {
            return Err(RedError::Truncated);
        }
        Ok(Self { headers, data })
    }

    /// The blocks in wire order: oldest redundant block first, the primary block last.
    pub fn blocks(&self) -> Blocks<'a> {
        Blocks { headers: self.headers, data: self.data }
    }

    /// Bytes of block headers, in front of the blocks' data.
    pub fn header_len(&self) -> usize {
        self.headers.len()
    }

    /// The primary block.
    pub fn primary(&self) -> Block<'a> {
        let (mut data, mut headers) = (self.data, self.headers);
        while let Some((header, rest)) = headers.split_first_chunk::<BLOCK_HEADER_LEN>() {
            data = data.get(block_len(u32::from_be_bytes(*header))..).unwrap_or_default();
            headers = rest;
        }
        let payload_type = headers.first().copied().unwrap_or(0) & !FOLLOW;
        Block { payload_type, timestamp_offset: 0, data, primary: true }
    }
}

/// The primary block of a payload; `None` if the payload is malformed.
pub fn primary(payload: &[u8]) -> Option<Block<'_>> {
    RedView::parse(payload).ok().map(|view| view.primary())
}

/// Length field of a redundant block's header.
fn block_len(header: u32) -> usize {
    (header & 0x3FF) as usize
}

/// Iterator over [`Block`]s; see [`RedView::blocks`].
#[derive(Debug, Clone)]
pub struct Blocks<'a> {
    headers: &'a [u8],
    data: &'a [u8],
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = *self.headers.first()?;
        let payload_type = first & !FOLLOW;
        if first & FOLLOW == 0 {
            self.headers = &[];
            return Some(Block {
                payload_type,
                timestamp_offset: 0,
                data: self.data,
                primary: true,
            });
        }
        let (header, headers) = self.headers.split_first_chunk::<BLOCK_HEADER_LEN>()?;
        let header = u32::from_be_bytes(*header);
        let (data, rest) = self.data.split_at_checked(block_len(header))?;
        (self.headers, self.data) = (headers, rest);
        let timestamp_offset = (header >> 10) as u16 & MAX_TIMESTAMP_OFFSET;
        Some(Block { payload_type, timestamp_offset, data, primary: false })
    }
}

/// Writes a RED payload: `redundant` blocks (oldest first; their `primary` flag is ignored), then
/// the primary block. Returns the length.
///
/// # Errors
/// [`RedError::Unwritable`] if a redundant block does not fit its fields or `out` is too small.
pub fn write(
    redundant: &[Block<'_>],
    primary: Block<'_>,
    out: &mut [u8],
) -> Result<usize, RedError> {
    let data_start = redundant.len() * BLOCK_HEADER_LEN + 1;
    let total =
        data_start + primary.data.len() + redundant.iter().map(|b| b.data.len()).sum::<usize>();
    let out = out.get_mut(..total).ok_or(RedError::Unwritable)?;
    let (headers, mut data) = out.split_at_mut(data_start);
    let (block_headers, last) = headers.as_chunks_mut::<BLOCK_HEADER_LEN>();
    for (header, block) in block_headers.iter_mut().zip(redundant) {
        if block.data.len() > MAX_REDUNDANT_LEN || block.timestamp_offset > MAX_TIMESTAMP_OFFSET {
            return Err(RedError::Unwritable);
        }
        let bits = (u32::from(FOLLOW | block.payload_type) << 24)
            | (u32::from(block.timestamp_offset) << 10)
            | block.data.len() as u32;
        *header = bits.to_be_bytes();
        let (target, rest) = data.split_at_mut(block.data.len());
        target.copy_from_slice(block.data);
        data = rest;
    }
    last[0] = primary.payload_type & !FOLLOW;
    data.copy_from_slice(primary.data);
    Ok(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_blocks_and_a_primary() {
        // 111, offset 1920, 2 bytes; 111, offset 960, 1 byte; primary 111.
        let payload =
            [0xEF, 0x1E, 0x00, 0x02, 0xEF, 0x0F, 0x00, 0x01, 0x6F, b'a', b'b', b'c', b'd', b'e'];
        let view = RedView::parse(&payload).unwrap();
        let blocks: Vec<_> = view.blocks().collect();
        assert_eq!(
            blocks,
            [
                Block { payload_type: 111, timestamp_offset: 1920, data: b"ab", primary: false },
                Block { payload_type: 111, timestamp_offset: 960, data: b"c", primary: false },
                Block { payload_type: 111, timestamp_offset: 0, data: b"de", primary: true },
            ]
        );
        assert_eq!(view.primary(), blocks[2]);
    }

    #[test]
    fn primary_alone_has_a_one_byte_header() {
        let view = RedView::parse(&[0x6F, 1, 2, 3]).unwrap();
        assert_eq!(view.primary().data, [1, 2, 3]);
        assert_eq!(view.blocks().count(), 1);
    }

    #[test]
    fn truncated_payloads_are_refused() {
        assert_eq!(RedView::parse(&[]).unwrap_err(), RedError::Truncated);
        assert_eq!(RedView::parse(&[0xEF, 0, 0]).unwrap_err(), RedError::Truncated);
        assert_eq!(RedView::parse(&[0xEF, 0, 0, 0]).unwrap_err(), RedError::Truncated);
        assert_eq!(RedView::parse(&[0xEF, 0, 0, 2, 0x6F, 1]).unwrap_err(), RedError::Truncated);
    }

    #[test]
    fn endless_block_headers_are_refused() {
        let payload = [0xFF; 4 * 40];
        assert_eq!(RedView::parse(&payload).unwrap_err(), RedError::TooManyBlocks);
    }

    #[test]
    fn blocks_that_do_not_fit_their_fields_are_not_written() {
        let primary = Block { payload_type: 111, timestamp_offset: 0, data: &[1], primary: true };
        let long = Block { data: &[0; 1024], primary: false, ..primary };
        let old = Block { timestamp_offset: 0x4000, primary: false, ..primary };
        let mut out = [0; 2048];
        assert_eq!(write(&[long], primary, &mut out), Err(RedError::Unwritable));
        assert_eq!(write(&[old], primary, &mut out), Err(RedError::Unwritable));
        assert_eq!(write(&[], primary, &mut out[..1]), Err(RedError::Unwritable));
    }

    proptest! {
        #[test]
        fn written_blocks_are_read_back(
            redundant in prop::collection::vec(
                (0u8..128, 0u16..0x4000, prop::collection::vec(any::<u8>(), 0..40)), 0..5),
            payload_type in 0u8..128,
            data in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut blocks: Vec<_> = redundant
                .iter()
                .map(|(payload_type, timestamp_offset, data)| Block {
                    payload_type: *payload_type,
                    timestamp_offset: *timestamp_offset,
                    data,
                    primary: false,
                })
                .collect();
            let primary = Block { payload_type, timestamp_offset: 0, data: &data, primary: true };
            let mut out = [0; 512];
            let len = write(&blocks, primary, &mut out).unwrap();
            blocks.push(primary);
            let view = RedView::parse(&out[..len]).unwrap();
            prop_assert_eq!(view.blocks().collect::<Vec<_>>(), blocks);
        }
    }
}
