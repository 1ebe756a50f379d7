//! Retransmission payloads (RFC 4588): the original sequence number in front of the original
//! payload, on a stream with its own SSRC, payload type and sequence numbers.

/// Length of the original sequence number, bytes (RFC 4588 §4).
pub const OSN_LEN: usize = 2;

/// Splits an RTX payload into the original sequence number and the original payload. `None` for
/// padding-only packets, which probes use on the RTX stream.
pub fn split(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (osn, original) = payload.split_first_chunk::<OSN_LEN>()?;
    Some((u16::from_be_bytes(*osn), original))
}

/// Writes the original sequence number at the start of `out`. `None` if `out` is too short.
pub fn write_osn(out: &mut [u8], original_seq: u16) -> Option<usize> {
    out.first_chunk_mut::<OSN_LEN>()?.copy_from_slice(&original_seq.to_be_bytes());
    Some(OSN_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn osn_comes_before_the_payload() {
        assert_eq!(split(&[0x12, 0x34, 9, 8]), Some((0x1234, &[9u8, 8][..])));
        assert_eq!(split(&[0x12, 0x34]), Some((0x1234, &[][..])));
    }

    #[test]
    fn padding_only_packets_have_no_original() {
        assert_eq!(split(&[]), None);
        assert_eq!(split(&[1]), None);
    }

    #[test]
    fn written_osn_is_read_back() {
        let mut out = [0u8; 4];
        assert_eq!(write_osn(&mut out, 65_535), Some(2));
        assert_eq!(split(&out), Some((65_535, &[0u8, 0][..])));
        assert_eq!(write_osn(&mut out[..1], 1), None);
    }
}
