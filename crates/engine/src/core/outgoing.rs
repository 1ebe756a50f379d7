//! One packet towards one receiver: header, payload and padding, written where they are sealed.

use sluice_rtp::dd;
use sluice_rtp::ext::{ExtensionKind, write_transport_cc};
use sluice_rtp::packet::{MAX_PADDING, RtpHeaderWriter, mark_padded, write_padding};
use sluice_rtp::rtx::{OSN_LEN, write_osn};
use sluice_sfu::{ByteRange, Forwarded, MediaPacket};
use sluice_transport::Peer;

use crate::core::track::Wire;

/// Longest header that we write, bytes: fixed part, extension block with every element that we
/// send, a dependency descriptor of 255 bytes included.
pub(super) const MAX_HEADER_LEN: usize = 384;

/// Header extensions of one packet at most.
const MAX_EXTENSIONS: usize = 6;

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
    /// The transport-wide number that it carries.
    pub(super) twcc_seq: Option<u16>,
}

impl Outgoing<'_> {
    /// Length before encryption and without padding, bytes. `None` if [`write`](Self::write) would
    /// fail.
    pub(super) fn len(&self) -> Option<usize> {
        let mut rewritten = [0; dd::MAX_LEN];
        let descriptor = self.descriptor(&mut rewritten);
        let twcc = self.twcc_seq().map(write_transport_cc);
        let mut extensions: [(u8, &[u8]); MAX_EXTENSIONS] = [(0, &[]); MAX_EXTENSIONS];
        let count = self.extensions(twcc.as_ref(), descriptor, &mut extensions);
        let header_len = RtpHeaderWriter::len_with(&extensions[..count]).ok()?;
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
        let mut rewritten = [0; dd::MAX_LEN];
        let descriptor = self.descriptor(&mut rewritten);
        let twcc = self.twcc_seq().map(write_transport_cc);
        let mut extensions: [(u8, &[u8]); MAX_EXTENSIONS] = [(0, &[]); MAX_EXTENSIONS];
        let count = self.extensions(twcc.as_ref(), descriptor, &mut extensions);
        let header_len = header.write(&extensions[..count], tail).ok()?;
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
        let padding = wanted.saturating_sub(len).min(usize::from(MAX_PADDING));
        if padding > 0 {
            write_padding(tail.get_mut(len..len + padding)?)?;
            mark_padded(tail);
            len += padding;
        }
        let sealed_len = transport.seal_rtp(tail, header_len, len).ok()?;
        Some(Written { len, padding, sealed_len, twcc_seq: self.twcc_seq() })
    }

    fn twcc_seq(&self) -> Option<u16> {
        self.twcc_seq.filter(|_| self.wire.twcc_id.is_some())
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
        let sealed_len = transport.seal_rtp(tail, header_len, len).ok()?;
        Some(Written { len, padding, sealed_len, twcc_seq })
    }
}
