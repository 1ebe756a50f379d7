//! One packet towards one receiver: header, payload and padding, written where they are sealed.

use sluice_rtp::dd;
use sluice_rtp::ext::{ExtensionKind, write_transport_cc};
use sluice_rtp::packet::{MAX_PADDING, RtpHeaderWriter, RtpView, mark_padded, write_padding};
use sluice_rtp::rtx::{OSN_LEN, write_osn};
use sluice_sfu::{ByteRange, Forwarded, MediaPacket};
use sluice_transport::{Peer, StreamSlot};

use crate::core::track::Wire;

/// Longest header that we write, bytes: fixed part, extension block with every element that we
/// send, a dependency descriptor of 255 bytes included.
pub(super) const MAX_HEADER_LEN: usize = 384;

/// Header extensions of one packet at most.
const MAX_EXTENSIONS: usize = 6;

/// Longest header of [`Template`], bytes.
const MAX_TEMPLATE_LEN: usize = 32;

/// The header that most packets of a subscription have: written once, filled in for each packet.
#[derive(Debug, Default)]
pub(crate) struct Template {
    bytes: [u8; MAX_TEMPLATE_LEN],
    /// 0 = none.
    len: u8,
    /// Where the data of the extensions stand, if they are in it.
    twcc: Option<u8>,
    send_time: Option<u8>,
}

impl Template {
    /// The header with these extensions; empty if they do not fit it.
    pub(crate) fn new(twcc_id: Option<u8>, send_time_id: Option<u8>) -> Self {
        let elements =
            [twcc_id.map(|id| (id, &[0; 2][..])), send_time_id.map(|id| (id, &[0; 3][..]))];
        let mut extensions: [(u8, &[u8]); 2] = [(0, &[]); 2];
        let mut count = 0;
        for element in elements.into_iter().flatten() {
            extensions[count] = element;
            count += 1;
        }
        let header = RtpHeaderWriter {
            marker: false,
            payload_type: 0,
            sequence_number: 0,
            timestamp: 0,
            ssrc: 0,
            padding: false,
        };
        let mut template = Self::default();
        let Ok(len) = header.write(&extensions[..count], &mut template.bytes) else {
            return Self::default();
        };
        template.len = len as u8;
        if let Ok(view) = RtpView::parse(&template.bytes[..len]) {
            let place = |id: Option<u8>| Some(view.extension_range(id?)?.start as u8);
            (template.twcc, template.send_time) = (place(twcc_id), place(send_time_id));
        }
        template
    }

    /// Writes the header of one packet; returns its length.
    fn write(
        &self,
        header: &RtpHeaderWriter,
        twcc: [u8; 2],
        send_time: [u8; 3],
        out: &mut [u8],
    ) -> Option<usize> {
        let out = out.first_chunk_mut::<MAX_TEMPLATE_LEN>()?;
        *out = self.bytes;
        out[1] = (u8::from(header.marker) << 7) | (header.payload_type & 0x7f);
        out[2..4].copy_from_slice(&header.sequence_number.to_be_bytes());
        out[4..8].copy_from_slice(&header.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&header.ssrc.to_be_bytes());
        if let Some(at) = self.twcc.map(usize::from) {
            out.get_mut(at..at + 2)?.copy_from_slice(&twcc);
        }
        if let Some(at) = self.send_time.map(usize::from) {
            out.get_mut(at..at + 3)?.copy_from_slice(&send_time);
        }
        Some(self.len.into())
    }
}

/// See the module.
pub(super) struct Outgoing<'a> {
    pub(super) wire: &'a Wire,
    pub(super) packet: &'a MediaPacket,
    pub(super) form: &'a Forwarded,
    /// Number on the RTX stream, if it is a retransmission there (RFC 4588).
    pub(super) rtx_seq: Option<u16>,
    /// Absolute send time.
    pub(super) send_time: [u8; 3],
    /// Transport-wide sequence number, if anybody reads the feedback.
    pub(super) twcc_seq: Option<u16>,
}

/// What was written.
pub(super) struct Written {
    /// Before encryption, padding included.
    pub(super) len: usize,
    pub(super) padding: usize,
    pub(super) sealed_len: usize,
    /// Where the transport keeps the state of the stream.
    pub(super) slot: StreamSlot,
    /// The transport-wide number that it carries.
    pub(super) twcc_seq: Option<u16>,
}

impl Outgoing<'_> {
    /// Length before encryption and without padding, bytes. `None` if [`write`](Self::write) would
    /// fail.
    pub(super) fn len(&self) -> Option<usize> {
        let header_len = match self.template() {
            Some(template) => template.len.into(),
            None => self.with_extensions(RtpHeaderWriter::len_with).ok()?,
        };
        let osn = if self.rtx_seq.is_some() { OSN_LEN } else { 0 };
        let rest = self.packet.payload().len().checked_sub(self.form.rewrite.replaces())?;
        Some(header_len + osn + self.form.rewrite.bytes().len() + rest)
    }

    /// Writes header, payload and padding up to `wanted` bytes to the start of `tail` and encrypts
    /// them there; does not pad what is as long already. `None` if that cannot be done: no keys, a
    /// sequence number used before, no room.
    pub(super) fn write(
        &self,
        transport: &mut Peer,
        wanted: usize,
        tail: &mut [u8],
    ) -> Option<Written> {
        let (ssrc, payload_type) = match self.rtx_seq {
            None => (self.wire.ssrc, self.wire.payload_type(self.packet.codec)),
            Some(_) => self.wire.rtx?,
        };
        let header = RtpHeaderWriter {
            marker: self.form.marker,
            payload_type,
            sequence_number: self.rtx_seq.unwrap_or(self.form.seq),
            timestamp: self.form.timestamp,
            ssrc,
            padding: false,
        };
        let header_len = match self.template() {
            Some(template) => {
                let twcc = write_transport_cc(self.twcc_seq.unwrap_or_default());
                template.write(&header, twcc, self.send_time, tail)?
            }
            None => self.with_extensions(|extensions| header.write(extensions, tail)).ok()?,
        };
        let mut len = header_len;
        if self.rtx_seq.is_some() {
            len += write_osn(tail.get_mut(len..)?, self.form.seq)?;
        }
        let replacement = self.form.rewrite.bytes();
        let rest = self.packet.payload().get(self.form.rewrite.replaces()..)?;
        for part in [replacement, rest] {
            tail.get_mut(len..len + part.len())?.copy_from_slice(part);
            len += part.len();
        }
        // What carries nothing says that it is padding, and of which length.
        let least = usize::from(len == header_len);
        let padding = wanted.saturating_sub(len).clamp(least, usize::from(MAX_PADDING));
        if padding > 0 {
            write_padding(tail.get_mut(len..len + padding)?)?;
            mark_padded(tail);
            len += padding;
        }
        let mut slot = self.wire.slot(self.rtx_seq.is_some());
        let sealed_len = transport.seal_rtp(&mut slot, tail, header_len, len).ok()?;
        Some(Written { len, padding, sealed_len, slot, twcc_seq: self.twcc_seq() })
    }

    fn twcc_seq(&self) -> Option<u16> {
        self.twcc_seq.filter(|_| self.wire.twcc_id.is_some())
    }

    /// The header that was written before, if this packet has no extension of its own.
    fn template(&self) -> Option<&Template> {
        let template = &self.wire.template;
        let has_own = self.wire.send_mid
            || self.packet.dependency_descriptor.is_some()
            || self.packet.abs_capture_time.is_some()
            || self.wire.playout_element().is_some();
        let fits = template.len > 0 && template.twcc.is_some() == self.twcc_seq().is_some();
        (fits && !has_own).then_some(template)
    }

    /// Calls `step` with all extensions of this packet.
    fn with_extensions<R>(&self, step: impl FnOnce(&[(u8, &[u8])]) -> R) -> R {
        let mut rewritten = [0; dd::MAX_LEN];
        let descriptor = self.descriptor(&mut rewritten);
        let twcc = self.twcc_seq().map(write_transport_cc);
        let mut extensions: [(u8, &[u8]); MAX_EXTENSIONS] = [(0, &[]); MAX_EXTENSIONS];
        let count = self.extensions(twcc.as_ref(), descriptor, &mut extensions);
        step(&extensions[..count])
    }

    /// The dependency descriptor as this receiver gets it.
    fn descriptor<'e>(&'e self, rewritten: &'e mut [u8; dd::MAX_LEN]) -> Option<&'e [u8]> {
        let range = self.packet.dependency_descriptor?;
        let mask = self.form.active_targets;
        let len = mask.and_then(|mask| self.packet.rewrite_descriptor(mask, rewritten));
        Some(match len.and_then(|len| rewritten.get(..len)) {
            Some(rewritten) => rewritten,
            None => self.packet.slice(range),
        })
    }

    fn extensions<'e>(
        &'e self,
        twcc: Option<&'e [u8; 2]>,
        descriptor: Option<&'e [u8]>,
        out: &mut [(u8, &'e [u8]); MAX_EXTENSIONS],
    ) -> usize {
        let map = &self.wire.extensions;
        let forwarded =
            |kind, range: Option<ByteRange>| Some((map.id(kind)?, self.packet.slice(range?)));
        let mid = self.wire.send_mid.then(|| map.id(ExtensionKind::Mid)).flatten();
        let elements = [
            mid.map(|id| (id, self.wire.mid.as_bytes())),
            self.wire.twcc_id.zip(twcc).map(|(id, seq)| (id, &seq[..])),
            map.id(ExtensionKind::AbsSendTime).map(|id| (id, &self.send_time[..])),
            self.wire.playout_element(),
            forwarded(ExtensionKind::AbsCaptureTime, self.packet.abs_capture_time),
            descriptor.and_then(|data| Some((map.id(ExtensionKind::DependencyDescriptor)?, data))),
        ];
        let mut count = 0;
        for element in elements.into_iter().flatten() {
            out[count] = element;
            count += 1;
        }
        count
    }
}

/// A packet of the RTX stream that holds padding only (RFC 3550 §5.1), to fill a probe.
pub(super) struct Padding<'a> {
    pub(super) wire: &'a Wire,
    /// Number on the RTX stream.
    pub(super) seq: u16,
    /// Bytes of padding, at least 1.
    pub(super) len: u8,
    /// Transport-wide sequence number.
    pub(super) twcc_seq: u16,
}

impl Padding<'_> {
    /// Writes the packet to the start of `tail` and encrypts it there. `None` if that cannot be
    /// done.
    pub(super) fn write(&self, transport: &mut Peer, tail: &mut [u8]) -> Option<Written> {
        let (ssrc, payload_type) = self.wire.rtx?;
        let header = RtpHeaderWriter {
            marker: false,
            payload_type,
            sequence_number: self.seq,
            timestamp: 0,
            ssrc,
            padding: true,
        };
        let twcc_seq = self.wire.twcc_id.map(|_| self.twcc_seq);
        let number = write_transport_cc(self.twcc_seq);
        let map = &self.wire.extensions;
        let mid = self.wire.send_mid.then(|| map.id(ExtensionKind::Mid)).flatten();
        let mid = mid.map(|id| (id, self.wire.mid.as_bytes()));
        let twcc = self.wire.twcc_id.map(|id| (id, &number[..]));
        let header_len = match (mid, twcc) {
            (Some(mid), Some(twcc)) => header.write(&[mid, twcc], tail),
            (mid, twcc) => header.write(mid.or(twcc).as_slice(), tail),
        };
        let header_len = header_len.ok()?;
        let padding = usize::from(self.len);
        let len = header_len + padding;
        write_padding(tail.get_mut(header_len..len)?)?;
        let mut slot = self.wire.slot(true);
        let sealed_len = transport.seal_rtp(&mut slot, tail, header_len, len).ok()?;
        Some(Written { len, padding, sealed_len, slot, twcc_seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_gives_the_header_that_would_be_written() {
        let header = RtpHeaderWriter {
            marker: true,
            payload_type: 96,
            sequence_number: 0x1234,
            timestamp: 0x5678_9abc,
            ssrc: 0xdef0_1234,
            padding: false,
        };
        let (twcc, send_time) = ([1, 2], [3, 4, 5]);
        for ids in [(Some(3), Some(2)), (Some(3), None), (None, Some(20)), (None, None)] {
            let elements = [ids.0.map(|id| (id, &twcc[..])), ids.1.map(|id| (id, &send_time[..]))];
            let elements: Vec<_> = elements.into_iter().flatten().collect();
            let (mut expected, mut written) = ([0; 64], [0; 64]);
            let len = header.write(&elements, &mut expected).expect("room");
            let template = Template::new(ids.0, ids.1);
            assert_eq!(template.write(&header, twcc, send_time, &mut written), Some(len));
            assert_eq!(written[..len], expected[..len]);
        }
    }
}
