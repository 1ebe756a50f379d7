//! Data Channel Establishment Protocol messages (RFC 8832 §5).

use super::Reliability;

/// Message type of DATA_CHANNEL_OPEN.
const OPEN: u8 = 0x03;
/// Message type of DATA_CHANNEL_ACK.
const ACK: u8 = 0x02;
/// Length of OPEN before label and protocol, bytes.
const OPEN_HEADER_LEN: usize = 12;
/// "Unordered" bit of the channel type.
const UNORDERED: u8 = 0x80;
/// Longest label or protocol that we accept, bytes; LiveKit's labels are below 16.
const MAX_TEXT_LEN: usize = 1024;

/// A parsed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dcep {
    /// DATA_CHANNEL_OPEN.
    Open(DcepOpen),
    /// DATA_CHANNEL_ACK.
    Ack,
}

/// Parameters of a new channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DcepOpen {
    /// Label.
    pub label: String,
    /// Subprotocol.
    pub protocol: String,
    /// In-order delivery.
    pub ordered: bool,
    /// Limit on retransmission.
    pub reliability: Reliability,
}

/// The peer sent something that is not DCEP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed DCEP message")]
pub struct DcepError;

impl Dcep {
    /// Parses one message of PPID 50.
    pub fn parse(data: &[u8]) -> Result<Self, DcepError> {
        match data.first() {
            Some(&ACK) => Ok(Self::Ack),
            Some(&OPEN) => DcepOpen::parse(data).map(Self::Open),
            _ => Err(DcepError),
        }
    }

    /// Serializes the message.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ack => vec![ACK],
            Self::Open(open) => open.to_bytes(),
        }
    }
}

impl DcepOpen {
    fn parse(data: &[u8]) -> Result<Self, DcepError> {
        let (header, text) = data.split_first_chunk::<OPEN_HEADER_LEN>().ok_or(DcepError)?;
        let parameter = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let label_len = usize::from(u16::from_be_bytes([header[8], header[9]]));
        let protocol_len = usize::from(u16::from_be_bytes([header[10], header[11]]));
        if label_len > MAX_TEXT_LEN || protocol_len > MAX_TEXT_LEN {
            return Err(DcepError);
        }
        let label = text.get(..label_len).ok_or(DcepError)?;
        let protocol = text.get(label_len..label_len + protocol_len).ok_or(DcepError)?;
        let reliability = match header[1] & !UNORDERED {
            0 => Reliability::Reliable,
            1 => Reliability::MaxRetransmits(parameter),
            2 => Reliability::MaxLifetimeMs(parameter),
            _ => return Err(DcepError),
        };
        let utf8 = |bytes| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DcepError);
        Ok(Self {
            label: utf8(label)?,
            protocol: utf8(protocol)?,
            ordered: header[1] & UNORDERED == 0,
            reliability,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let (kind, parameter) = match self.reliability {
            Reliability::Reliable => (0, 0),
            Reliability::MaxRetransmits(count) => (1, count),
            Reliability::MaxLifetimeMs(ms) => (2, ms),
        };
        let kind = if self.ordered { kind } else { kind | UNORDERED };
        let mut out = Vec::with_capacity(OPEN_HEADER_LEN + self.label.len() + self.protocol.len());
        // Priority 256 is "normal" (RFC 8831 §6.4).
        out.extend_from_slice(&[OPEN, kind, 1, 0]);
        out.extend_from_slice(&parameter.to_be_bytes());
        out.extend_from_slice(&(self.label.len() as u16).to_be_bytes());
        out.extend_from_slice(&(self.protocol.len() as u16).to_be_bytes());
        out.extend_from_slice(self.label.as_bytes());
        out.extend_from_slice(self.protocol.as_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> DcepOpen {
        DcepOpen {
            label: "_lossy".into(),
            protocol: "p".into(),
            ordered: false,
            reliability: Reliability::MaxRetransmits(0),
        }
    }

    #[test]
    fn lossy_open_has_the_bytes_of_rfc_8832() {
        let bytes = Dcep::Open(open()).to_bytes();
        assert_eq!(bytes, b"\x03\x81\x01\x00\x00\x00\x00\x00\x00\x06\x00\x01_lossyp");
        assert_eq!(Dcep::parse(&bytes), Ok(Dcep::Open(open())));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = Dcep::Open(open()).to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(Dcep::parse(&bytes[..len]), Err(DcepError));
        }
    }

    #[test]
    fn unknown_types_and_bad_text_are_refused() {
        let mut bytes = Dcep::Open(open()).to_bytes();
        bytes[1] = 0x83;
        assert_eq!(Dcep::parse(&bytes), Err(DcepError));
        bytes[1] = 0x81;
        bytes[12] = 0xFF;
        assert_eq!(Dcep::parse(&bytes), Err(DcepError));
        assert_eq!(Dcep::parse(&[2]), Ok(Dcep::Ack));
    }
}
