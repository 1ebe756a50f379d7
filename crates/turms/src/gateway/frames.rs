//! The few messages of Turms' client protocol that a login needs, and the framing of its TCP
//! transport. Field numbers are those of `turms-im/proto`; everything else in a message is skipped.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

/// Version of the protocol; Turms refuses any other.
const PROTOCOL_VERSION: i32 = 1;

/// `DeviceType.UNKNOWN`: a login of ours takes the place of no real device.
pub const DEVICE_UNKNOWN: i32 = 5;

/// Success (`ResponseStatusCode.OK`).
pub const CODE_OK: i32 = 1000;

/// Longest message accepted, bytes. A login's answer has some hundred.
pub const MAX_MESSAGE: usize = 64 << 10;

/// `TurmsRequest`
#[derive(Clone, PartialEq, Message)]
pub struct TurmsRequest {
    /// Echoed by the answer.
    #[prost(int64, optional, tag = "1")]
    pub request_id: Option<i64>,
    /// What is wanted.
    #[prost(oneof = "RequestKind", tags = "3, 4")]
    pub kind: Option<RequestKind>,
}

/// The requests that we send.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum RequestKind {
    /// Login.
    #[prost(message, tag = "3")]
    CreateSession(CreateSessionRequest),
    /// Logout.
    #[prost(message, tag = "4")]
    DeleteSession(DeleteSessionRequest),
}

/// `CreateSessionRequest`
#[derive(Clone, PartialEq, Message)]
pub struct CreateSessionRequest {
    /// Always 1.
    #[prost(int32, tag = "1")]
    pub version: i32,
    /// User.
    #[prost(int64, tag = "2")]
    pub user_id: i64,
    /// Password, or a JWT.
    #[prost(string, optional, tag = "3")]
    pub password: Option<String>,
    /// `UserStatus`; 2 = invisible.
    #[prost(int32, optional, tag = "4")]
    pub user_status: Option<i32>,
    /// `DeviceType`.
    #[prost(int32, tag = "5")]
    pub device_type: i32,
}

/// `DeleteSessionRequest`
#[derive(Clone, PartialEq, Message)]
pub struct DeleteSessionRequest {}

/// `TurmsNotification`: answers, and what the server says by itself.
#[derive(Clone, PartialEq, Message)]
pub struct TurmsNotification {
    /// When it was sent, Unix milliseconds.
    #[prost(int64, tag = "1")]
    pub timestamp: i64,
    /// The request that this answers.
    #[prost(int64, optional, tag = "4")]
    pub request_id: Option<i64>,
    /// `ResponseStatusCode`
    #[prost(int32, optional, tag = "5")]
    pub code: Option<i32>,
    /// For developers.
    #[prost(string, optional, tag = "6")]
    pub reason: Option<String>,
    /// Set when the server is about to close the session.
    #[prost(int32, optional, tag = "11")]
    pub close_status: Option<i32>,
}

impl TurmsRequest {
    /// A login. It is invisible, so that nobody is told that the user is online.
    pub fn login(request_id: i64, user_id: i64, password: &str) -> Self {
        const INVISIBLE: i32 = 2;
        Self {
            request_id: Some(request_id),
            kind: Some(RequestKind::CreateSession(CreateSessionRequest {
                version: PROTOCOL_VERSION,
                user_id,
                password: Some(password.to_owned()),
                user_status: Some(INVISIBLE),
                device_type: DEVICE_UNKNOWN,
            })),
        }
    }

    /// A logout.
    pub fn logout(request_id: i64) -> Self {
        Self {
            request_id: Some(request_id),
            kind: Some(RequestKind::DeleteSession(DeleteSessionRequest {})),
        }
    }
}

/// Bytes that are no frame, or a message too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of Turms' client protocol")]
pub struct FrameError;

/// Takes the next message off a TCP stream: a varint with its length, then the message. `None` =
/// not all of it has arrived. An empty message is a heartbeat.
///
/// # Errors
/// The length is no varint, or too large.
pub fn next_frame(stream: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    /// A length that we accept fits in three bytes of seven bits.
    const MAX_LENGTH_BYTES: usize = 3;
    let mut length = 0usize;
    for (index, byte) in stream.iter().copied().enumerate() {
        if index >= MAX_LENGTH_BYTES {
            return Err(FrameError);
        }
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if length > MAX_MESSAGE {
                return Err(FrameError);
            }
            let whole = index + 1 + length;
            if stream.len() < whole {
                return Ok(None);
            }
            stream.advance(index + 1);
            return Ok(Some(stream.split_to(length).freeze()));
        }
    }
    if stream.len() >= MAX_LENGTH_BYTES { Err(FrameError) } else { Ok(None) }
}

/// Reads a notification.
///
/// # Errors
/// The bytes are not one.
pub fn decode_notification(message: &[u8]) -> Result<TurmsNotification, FrameError> {
    TurmsNotification::decode(message).map_err(|_| FrameError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_off_a_stream_as_they_arrive() {
        let mut stream = BytesMut::new();
        assert_eq!(next_frame(&mut stream), Ok(None));
        stream.extend_from_slice(&[0x00, 0x03, 1, 2]);
        assert_eq!(next_frame(&mut stream), Ok(Some(Bytes::new())), "a heartbeat");
        assert_eq!(next_frame(&mut stream), Ok(None));
        stream.extend_from_slice(&[3, 0x80]);
        assert_eq!(next_frame(&mut stream), Ok(Some(Bytes::from_static(&[1, 2, 3]))));
        assert_eq!(next_frame(&mut stream), Ok(None), "half a length");
        stream.extend_from_slice(&[0x80, 0x80, 0x01]);
        assert_eq!(next_frame(&mut stream), Err(FrameError));
    }

    #[test]
    fn a_refusal_carries_its_code() {
        let bytes = TurmsNotification { code: Some(2011), ..Default::default() }.encode_to_vec();
        assert_eq!(decode_notification(&bytes).unwrap().code, Some(2011));
        assert_eq!(decode_notification(&[0xff; 3]), Err(FrameError));
    }
}
