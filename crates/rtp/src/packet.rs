//! RTP packets: a checked view of received bytes and a writer for new headers (RFC 3550 §5.1,
//! RFC 8285).
//!
//! [`RtpView`] answers for the header once and then only hands out sub-slices. [`RtpHeaderWriter`]
//! writes the header of an outgoing packet in front of a payload that the caller places itself.

use std::ops::Range;

use thiserror::Error;

use crate::bytes::{be16, be32};

/// Length of the fixed header, bytes (RFC 3550 §5.1).
pub const RTP_HEADER_LEN: usize = 12;
/// Most padding that one packet can carry, bytes: the count is one octet (RFC 3550 §5.1).
pub const MAX_PADDING: u8 = 255;
/// The padding bit of the first byte (RFC 3550 §5.1).
const PADDING_BIT: u8 = 0x20;

/// Extension profile with one-byte element headers (RFC 8285 §4.2).
const PROFILE_ONE_BYTE: u16 = 0xBEDE;
/// Extension profile with two-byte element headers, low four bits free (RFC 8285 §4.3).
const PROFILE_TWO_BYTE: u16 = 0x1000;
/// Highest id of a one-byte element; 15 is reserved (RFC 8285 §4.2).
const ONE_BYTE_MAX_ID: u8 = 14;
/// Longest data of a one-byte element, bytes (RFC 8285 §4.2).
const ONE_BYTE_MAX_LEN: usize = 16;
/// Longest data of a two-byte element, bytes (RFC 8285 §4.3).
const TWO_BYTE_MAX_LEN: usize = 255;

/// Why bytes are not an RTP packet, or why one cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RtpError {
    /// The sender's packet ends inside its fixed header.
    #[error("packet of {0} bytes is shorter than an RTP header")]
    TooShort(usize),
    /// No IP datagram is that long: a bug of the caller.
    #[error("packet of {0} bytes is longer than a datagram")]
    TooLong(usize),
    /// The sender wrote another version than 2.
    #[error("RTP version {0}, expected 2")]
    Version(u8),
    /// The sender's CSRC count reaches beyond the packet.
    #[error("contributing sources reach beyond the packet")]
    Csrc,
    /// The sender's extension length reaches beyond the packet.
    #[error("header extension reaches beyond the packet")]
    Extension,
    /// The sender's padding count is zero or reaches into the header.
    #[error("padding count {0} does not fit the payload")]
    Padding(u8),
    /// Our output buffer is too small.
    #[error("output buffer is too small")]
    BufferTooSmall,
    /// We were asked to write an extension with id 0 or with more than 255 bytes.
    #[error("extension {id} with {len} bytes cannot be written")]
    ExtensionElement {
        /// Negotiated id.
        id: u8,
        /// Length of the data, bytes.
        len: usize,
    },
}

/// An RTP packet whose header, extension block and padding were checked to lie within the bytes.
#[derive(Debug, Clone, Copy)]
pub struct RtpView<'a> {
    packet: &'a [u8],
    payload: &'a [u8],
    extension_block: &'a [u8],
    timestamp: u32,
    ssrc: u32,
    sequence_number: u16,
    extension_offset: u16,
    extension_profile: u16,
    csrc_count: u8,
    padding_len: u8,
}

impl<'a> RtpView<'a> {
    /// Checks the header of a decrypted packet.
    ///
    /// # Errors
    /// Each one means that the sender's packet is malformed and must be dropped.
    pub fn parse(packet: &'a [u8]) -> Result<Self, RtpError> {
        let too_short = RtpError::TooShort(packet.len());
        if packet.len() > usize::from(u16::MAX) {
            return Err(RtpError::TooLong(packet.len()));
        }
        let first = *packet.first().ok_or(too_short)?;
        if first >> 6 != 2 {
            return Err(RtpError::Version(first >> 6));
        }
        let sequence_number = be16(packet, 2).ok_or(too_short)?;
        let timestamp = be32(packet, 4).ok_or(too_short)?;
        let ssrc = be32(packet, 8).ok_or(too_short)?;
        let csrc_count = first & 0x0F;
        let csrc_end = RTP_HEADER_LEN + 4 * usize::from(csrc_count);
        if csrc_end > packet.len() {
            return Err(RtpError::Csrc);
        }

        let mut view = Self {
            packet,
            payload: &[],
            extension_block: &[],
            timestamp,
            ssrc,
            sequence_number,
            extension_offset: csrc_end as u16,
            extension_profile: 0,
            csrc_count,
            padding_len: 0,
        };
        let mut payload_start = csrc_end;
        if first & 0x10 != 0 {
            view.extension_profile = be16(packet, csrc_end).ok_or(RtpError::Extension)?;
            let words = be16(packet, csrc_end + 2).ok_or(RtpError::Extension)?;
            let block_start = csrc_end + 4;
            payload_start = block_start + 4 * usize::from(words);
            view.extension_block =
                packet.get(block_start..payload_start).ok_or(RtpError::Extension)?;
            view.extension_offset = block_start as u16;
        }
        let padded = packet.get(payload_start..).unwrap_or_default();
        if first & PADDING_BIT != 0 {
            view.padding_len = padded.last().copied().unwrap_or(0);
            if view.padding_len == 0 || usize::from(view.padding_len) > padded.len() {
                return Err(RtpError::Padding(view.padding_len));
            }
        }
        view.payload = &padded[..padded.len() - usize::from(view.padding_len)];
        Ok(view)
    }

    /// Marker bit; its meaning is the codec's.
    pub fn marker(&self) -> bool {
        self.packet[1] & 0x80 != 0
    }

    /// Payload type, 0..=127.
    pub fn payload_type(&self) -> u8 {
        self.packet[1] & 0x7F
    }

    /// Sequence number.
    pub fn sequence_number(&self) -> u16 {
        self.sequence_number
    }

    /// Timestamp, units of the codec's clock.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// Synchronization source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Number of contributing sources, 0..=15.
    pub fn csrc_count(&self) -> u8 {
        self.csrc_count
    }

    /// The contributing sources.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        let end = RTP_HEADER_LEN + 4 * usize::from(self.csrc_count);
        let (words, _) = self.packet[RTP_HEADER_LEN..end].as_chunks::<4>();
        words.iter().map(|word| u32::from_be_bytes(*word))
    }

    /// Length of the header with contributing sources and extension, bytes.
    pub fn header_len(&self) -> usize {
        self.packet.len() - self.payload.len() - usize::from(self.padding_len)
    }

    /// Payload without padding; may be empty.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Where [`payload`](Self::payload) lies in the packet.
    pub fn payload_range(&self) -> Range<usize> {
        let start = self.header_len();
        start..start + self.payload.len()
    }

    /// Padding with its count octet, bytes.
    pub fn padding_len(&self) -> u8 {
        self.padding_len
    }

    /// The whole packet as it was parsed.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.packet
    }

    /// Data of the first extension element with `id`.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions().find(|element| element.id == id).map(|element| element.data)
    }

    /// Where the data of the first extension element with `id` lies in the packet.
    pub fn extension_range(&self, id: u8) -> Option<Range<usize>> {
        let element = self.extensions().find(|element| element.id == id)?;
        let start = usize::from(element.offset);
        Some(start..start + element.data.len())
    }

    /// The extension elements in wire order. Stops at the first malformed element; empty for
    /// unknown profiles.
    pub fn extensions(&self) -> ExtensionIter<'a> {
        let form = match self.extension_profile {
            PROFILE_ONE_BYTE => Form::OneByte,
            profile if profile & 0xFFF0 == PROFILE_TWO_BYTE => Form::TwoByte,
            _ => return ExtensionIter { rest: &[], offset: 0, form: Form::OneByte },
        };
        ExtensionIter { rest: self.extension_block, offset: self.extension_offset, form }
    }
}

/// One element of a header extension block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionElement<'a> {
    /// Negotiated id, 1..=14 in the one-byte form, 1..=255 in the two-byte form.
    pub id: u8,
    /// Where `data` starts in the packet, bytes.
    pub offset: u16,
    /// The data, 1..=16 bytes in the one-byte form, 0..=255 in the two-byte form.
    pub data: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    OneByte,
    TwoByte,
}

/// Iterator over [`ExtensionElement`]s; see [`RtpView::extensions`].
#[derive(Debug, Clone)]
pub struct ExtensionIter<'a> {
    rest: &'a [u8],
    offset: u16,
    form: Form,
}

impl<'a> ExtensionIter<'a> {
    /// Drops `len` bytes of the block; `None` at its end.
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        // The block lies within a packet of at most 65,535 bytes.
        self.offset += len as u16;
        Some(taken)
    }

    /// Reads an element header: id and data length. `None` ends the block.
    fn element_header(&mut self) -> Option<(u8, usize)> {
        let first = self.take(1)?[0];
        match self.form {
            // RFC 8285 §4.2: id 15, and id 0 with a length, end the processing of the block.
            Form::OneByte => match (first >> 4, usize::from(first & 0x0F) + 1) {
                (0, _) | (15, _) => None,
                header => Some(header),
            },
            Form::TwoByte => Some((first, usize::from(self.take(1)?[0]))),
        }
    }
}

impl<'a> Iterator for ExtensionIter<'a> {
    type Item = ExtensionElement<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.rest.first() == Some(&0) {
            self.take(1);
        }
        let element = self.element_header().and_then(|(id, len)| {
            let offset = self.offset;
            self.take(len).map(|data| ExtensionElement { id, offset, data })
        });
        if element.is_none() {
            self.rest = &[];
        }
        element
    }
}

/// The fixed header fields of a packet to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeaderWriter {
    /// Marker bit.
    pub marker: bool,
    /// Payload type, 0..=127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence_number: u16,
    /// Timestamp, units of the codec's clock.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
    /// Sets the padding bit; the caller appends the padding, see [`write_padding`].
    pub padding: bool,
}

impl RtpHeaderWriter {
    /// Writes the header with `extensions` (id, data) at the start of `out` and returns its length,
    /// a multiple of 4. The one-byte form is used if all elements fit it.
    ///
    /// # Errors
    /// [`RtpError::BufferTooSmall`], [`RtpError::ExtensionElement`]: mistakes of the caller. `out`
    /// then holds an unspecified prefix.
    pub fn write(&self, extensions: &[(u8, &[u8])], out: &mut [u8]) -> Result<usize, RtpError> {
        let has_extension = !extensions.is_empty();
        let fixed = out.first_chunk_mut::<RTP_HEADER_LEN>().ok_or(RtpError::BufferTooSmall)?;
        fixed[0] = 0x80 | (u8::from(self.padding) * PADDING_BIT) | (u8::from(has_extension) << 4);
        fixed[1] = (u8::from(self.marker) << 7) | (self.payload_type & 0x7F);
        fixed[2..4].copy_from_slice(&self.sequence_number.to_be_bytes());
        fixed[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        fixed[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        if !has_extension {
            return Ok(RTP_HEADER_LEN);
        }
        let block = out.get_mut(RTP_HEADER_LEN..).ok_or(RtpError::BufferTooSmall)?;
        Ok(RTP_HEADER_LEN + write_extensions(extensions, block)?)
    }

    /// The length that [`write`](Self::write) would return.
    ///
    /// # Errors
    /// [`RtpError::ExtensionElement`] as there.
    pub fn len_with(extensions: &[(u8, &[u8])]) -> Result<usize, RtpError> {
        if extensions.is_empty() {
            return Ok(RTP_HEADER_LEN);
        }
        let form = choose_form(extensions)?;
        Ok(RTP_HEADER_LEN + 4 + block_len(extensions, form).next_multiple_of(4))
    }
}

/// Fills `out` with padding that ends in its count (RFC 3550 §5.1). `None` unless `out` has 1..=255
/// bytes.
pub fn write_padding(out: &mut [u8]) -> Option<u8> {
    let count = u8::try_from(out.len()).ok()?;
    let (last, zeros) = out.split_last_mut()?;
    zeros.fill(0);
    *last = count;
    Some(count)
}

/// Sets the padding bit of a packet whose header was written without it.
pub fn mark_padded(packet: &mut [u8]) {
    if let Some(first) = packet.first_mut() {
        *first |= PADDING_BIT;
    }
}

/// The smaller form that can carry all elements.
fn choose_form(extensions: &[(u8, &[u8])]) -> Result<Form, RtpError> {
    let mut form = Form::OneByte;
    for &(id, data) in extensions {
        if id == 0 || data.len() > TWO_BYTE_MAX_LEN {
            return Err(RtpError::ExtensionElement { id, len: data.len() });
        }
        if id > ONE_BYTE_MAX_ID || !(1..=ONE_BYTE_MAX_LEN).contains(&data.len()) {
            form = Form::TwoByte;
        }
    }
    Ok(form)
}

/// Length of the elements without the block header and trailing padding, bytes.
fn block_len(extensions: &[(u8, &[u8])], form: Form) -> usize {
    let element_header = match form {
        Form::OneByte => 1,
        Form::TwoByte => 2,
    };
    extensions.iter().map(|(_, data)| element_header + data.len()).sum()
}

/// Writes block header, elements and padding; returns their length.
fn write_extensions(extensions: &[(u8, &[u8])], out: &mut [u8]) -> Result<usize, RtpError> {
    let form = choose_form(extensions)?;
    let len = block_len(extensions, form);
    let padded = len.next_multiple_of(4);
    let block = out.get_mut(..4 + padded).ok_or(RtpError::BufferTooSmall)?;
    let words = u16::try_from(padded / 4).map_err(|_| RtpError::TooLong(padded))?;
    let profile = match form {
        Form::OneByte => PROFILE_ONE_BYTE,
        Form::TwoByte => PROFILE_TWO_BYTE,
    };
    block[..2].copy_from_slice(&profile.to_be_bytes());
    block[2..4].copy_from_slice(&words.to_be_bytes());
    let mut at = 4;
    for &(id, data) in extensions {
        match form {
            Form::OneByte => block[at] = (id << 4) | (data.len() - 1) as u8,
            Form::TwoByte => {
                block[at] = id;
                at += 1;
                block[at] = data.len() as u8;
            }
        }
        at += 1;
        block[at..at + data.len()].copy_from_slice(data);
        at += data.len();
    }
    block[at..].fill(0);
    Ok(4 + padded)
}
