//! What kind of protocol a datagram of a multiplexed transport carries (RFC 7983, RFC 5761).

/// The protocols that share one 5-tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatagramKind {
    /// First byte 0..=3.
    Stun,
    /// First byte 20..=63.
    Dtls,
    /// First byte 64..=79: a TURN channel message.
    TurnChannel,
    /// First byte 128..=191 and not RTCP.
    Rtp,
    /// First byte 128..=191 and packet type 192..=223.
    Rtcp,
    /// Empty, too short for its protocol, or of none of them.
    Unknown,
}

/// Length of a STUN header, bytes (RFC 8489 §5).
const STUN_HEADER_LEN: usize = 20;
/// Length of a DTLS record header, bytes (RFC 6347 §4.1). DTLS 1.3 records may be shorter.
const DTLS_MIN_LEN: usize = 3;
/// Length of the fixed RTP header, bytes (RFC 3550 §5.1).
const RTP_MIN_LEN: usize = 12;
/// Length of the smallest RTCP packet with a sender, bytes (RFC 3550 §6.4).
const RTCP_MIN_LEN: usize = 8;

/// Sorts a datagram by its first bytes (RFC 7983 §7). No content is checked beyond the length that
/// the protocol's header needs.
pub fn classify(datagram: &[u8]) -> DatagramKind {
    let len = datagram.len();
    match datagram.first() {
        Some(0..=3) if len >= STUN_HEADER_LEN => DatagramKind::Stun,
        Some(20..=63) if len >= DTLS_MIN_LEN => DatagramKind::Dtls,
        Some(64..=79) if len >= 4 => DatagramKind::TurnChannel,
        Some(128..=191) if is_rtcp(datagram) => DatagramKind::Rtcp,
        Some(128..=191) if len >= RTP_MIN_LEN => DatagramKind::Rtp,
        _ => DatagramKind::Unknown,
    }
}

/// Whether a packet of version 2 is RTCP: its packet type lies in 192..=223, which payload types
/// 64..=95 with marker would shadow and are therefore not used by RTP (RFC 5761 §4).
pub fn is_rtcp(packet: &[u8]) -> bool {
    packet.len() >= RTCP_MIN_LEN
        && packet.first().is_some_and(|first| first >> 6 == 2)
        && packet.get(1).is_some_and(|kind| (192..=223).contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_byte_ranges_follow_rfc_7983() {
        let kind = |first: u8| {
            let mut datagram = [0u8; 32];
            datagram[0] = first;
            classify(&datagram)
        };
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => DatagramKind::Stun,
                20..=63 => DatagramKind::Dtls,
                64..=79 => DatagramKind::TurnChannel,
                128..=191 => DatagramKind::Rtp,
                _ => DatagramKind::Unknown,
            };
            assert_eq!(kind(first), expected, "first byte {first}");
        }
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_the_packet_type() {
        for second in 0..=255u8 {
            let datagram = [0x80, second, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
            let expected =
                if (192..=223).contains(&second) { DatagramKind::Rtcp } else { DatagramKind::Rtp };
            assert_eq!(classify(&datagram), expected, "second byte {second}");
        }
    }

    #[test]
    fn datagrams_too_short_for_their_protocol_are_unknown() {
        assert_eq!(classify(&[]), DatagramKind::Unknown);
        assert_eq!(classify(&[0; 19]), DatagramKind::Unknown);
        assert_eq!(classify(&[22, 254]), DatagramKind::Unknown);
        assert_eq!(classify(&[0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0]), DatagramKind::Unknown);
        assert_eq!(classify(&[0x80, 200, 0, 0]), DatagramKind::Unknown);
    }
}
