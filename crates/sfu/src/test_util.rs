//! Helpers of the unit tests.

use std::time::Instant;

use sluice_rtp::codec::{Codec, PayloadInfo};
use sluice_rtp::packet::RtpHeaderWriter;

use crate::body::PacketBody;
use crate::packet::{ByteRange, MediaPacket};

/// A start of time for a test; only differences to it matter.
#[allow(clippy::disallowed_methods, reason = "std offers no other way to make a first Instant")]
pub(crate) fn epoch() -> Instant {
    Instant::now()
}

/// Fields of an RTP header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RtpBytes {
    pub(crate) pt: u8,
    pub(crate) seq: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) marker: bool,
}

impl Default for RtpBytes {
    fn default() -> Self {
        Self { pt: 96, seq: 1, timestamp: 0, ssrc: 1, marker: false }
    }
}

impl RtpBytes {
    /// The packet's bytes.
    pub(crate) fn build(self, extensions: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
        let header = RtpHeaderWriter {
            marker: self.marker,
            payload_type: self.pt,
            sequence_number: self.seq,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            padding: false,
        };
        let mut bytes = vec![0; 256];
        let len = header.write(extensions, &mut bytes).expect("the header fits");
        bytes.truncate(len);
        bytes.extend_from_slice(payload);
        bytes
    }
}

/// A video packet in the middle of a VP8-less frame: no key frame, no layers, all layers live.
pub(crate) fn media_packet(now: Instant, stream: u8, ext_seq: u64, timestamp: u32) -> MediaPacket {
    let payload = [0x55; 20];
    let bytes = RtpBytes { seq: ext_seq as u16, timestamp, ..RtpBytes::default() };
    let bytes = bytes.build(&[], &payload);
    MediaPacket {
        body: PacketBody::from_slice(&bytes),
        ext_seq,
        arrival: now,
        timestamp,
        codec: Codec::H264,
        stream,
        epoch: 0,
        newer: 0,
        marker: false,
        recovered: false,
        payload: ByteRange::from(bytes.len() - payload.len()..bytes.len()),
        info: PayloadInfo::default(),
        dependency_descriptor: None,
        described: None,
        abs_capture_time: None,
        audio_level: None,
        live_layers: (0..3).collect(),
    }
}
