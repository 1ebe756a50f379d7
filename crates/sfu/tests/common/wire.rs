//! Packets as the engine writes them.

use sluice_rtp::packet::RtpHeaderWriter;
use sluice_rtp::rtx;
use sluice_sfu::{DownTrack, Forwarded, MediaPacket};

/// The packet as it goes to a viewer.
pub fn write_rtp(
    down: &DownTrack,
    packet: &MediaPacket,
    forwarded: &Forwarded,
    rtx_seq: Option<u16>,
) -> Vec<u8> {
    let config = down.config();
    let (ssrc, pt) = match rtx_seq {
        Some(_) => config.rtx.expect("only receivers with RTX get retransmissions"),
        None => (config.ssrc, config.pt),
    };
    let header = RtpHeaderWriter {
        marker: forwarded.marker,
        payload_type: pt,
        sequence_number: rtx_seq.unwrap_or(forwarded.seq),
        timestamp: forwarded.timestamp,
        ssrc,
        padding: false,
    };
    let mut bytes = vec![0; 12];
    header.write(&[], &mut bytes).expect("twelve bytes");
    if rtx_seq.is_some() {
        let mut osn = [0; rtx::OSN_LEN];
        rtx::write_osn(&mut osn, forwarded.seq).expect("two bytes");
        bytes.extend_from_slice(&osn);
    }
    bytes.extend_from_slice(forwarded.rewrite.bytes());
    bytes.extend_from_slice(&packet.payload()[forwarded.rewrite.replaces()..]);
    bytes
}
