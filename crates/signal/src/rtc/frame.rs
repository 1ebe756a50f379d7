//! Frames of the signal socket: one message each, protobuf in binary frames, JSON in text frames.

use prost::Message;
use sluice_control::SharedResponse;
use sluice_proto::{SignalRequest, json};
use tokio_websockets::Message as Frame;

/// Largest message of a client unless configured otherwise, bytes (LiveKit's default).
pub(crate) const MAX_MESSAGE_SIZE: usize = 2 << 20;

/// How one side writes its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Binary frames.
    #[default]
    Protobuf,
    /// Text frames, camelCase.
    Json,
}

/// A frame that holds no signal request.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Binary, but not our protobuf.
    #[error("not a protobuf signal request: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Text, but not our JSON.
    #[error("not a JSON signal request: {0}")]
    Json(#[from] json::JsonError),
}

/// Reads the payload of one data frame. A request without a variant is one that this server does
/// not know.
///
/// # Errors
/// See [`FrameError`].
pub fn decode_request(encoding: Encoding, payload: &[u8]) -> Result<SignalRequest, FrameError> {
    Ok(match encoding {
        Encoding::Protobuf => SignalRequest::decode(payload)?,
        Encoding::Json => json::from_json(payload)?,
    })
}

/// Writes one response; the work is shared with every other receiver of it.
pub(super) fn encode_response(
    encoding: Encoding,
    response: &SharedResponse,
) -> Result<Frame, json::JsonError> {
    match encoding {
        Encoding::Protobuf => Ok(Frame::binary(response.binary())),
        Encoding::Json => {
            let mut failure = None;
            let text = response.json(|message| {
                json::to_camel(message).unwrap_or_else(|error| {
                    failure = Some(error);
                    String::new()
                })
            });
            match failure {
                Some(error) => Err(error),
                None => Ok(Frame::text((*text).to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::signal_request::Message as Request;
    use sluice_proto::signal_response::Message as Response;
    use sluice_proto::{Ping, Pong};

    use super::*;

    #[test]
    fn both_encodings_say_the_same() {
        let ping = Ping { timestamp: 1 << 60, rtt: 5 };
        let request = SignalRequest { message: Some(Request::PingReq(ping)) };
        let binary = decode_request(Encoding::Protobuf, &request.encode_to_vec());
        assert_eq!(binary.expect("protobuf"), request);
        for text in [
            r#"{"pingReq":{"timestamp":"1152921504606846976","rtt":"5","future":1}}"#,
            r#"{"ping_req":{"timestamp":1152921504606846976,"rtt":5},"futureField":{}}"#,
        ] {
            let json = decode_request(Encoding::Json, text.as_bytes());
            assert_eq!(json.expect("JSON"), request);
        }
    }

    #[test]
    fn an_unknown_variant_is_a_request_without_a_message() {
        // Field 100, length-delimited, empty.
        let request = decode_request(Encoding::Protobuf, &[0xa2, 0x06, 0x00]).expect("decodes");
        assert_eq!(request.message, None);
        let request = decode_request(Encoding::Json, br#"{"tomorrow":{}}"#).expect("decodes");
        assert_eq!(request.message, None);
    }

    #[test]
    fn garbage_is_an_error_in_either_encoding() {
        assert!(decode_request(Encoding::Protobuf, &[0x0a, 0xff]).is_err());
        assert!(decode_request(Encoding::Json, b"{").is_err());
        assert!(decode_request(Encoding::Json, b"[]").is_err());
        assert!(decode_request(Encoding::Json, br#"{"ping":1} x"#).is_err());
    }

    #[test]
    fn responses_are_camel_case_with_64_bit_numbers_as_strings() {
        let pong = Pong { last_ping_timestamp: 7, timestamp: 0 };
        let response = SharedResponse::new(Response::PongResp(pong));
        let frame = encode_response(Encoding::Json, &response).expect("encodes");
        assert_eq!(frame.as_text(), Some(r#"{"pongResp":{"lastPingTimestamp":"7"}}"#));
        let frame = encode_response(Encoding::Protobuf, &response).expect("encodes");
        assert!(frame.is_binary());
        assert_eq!(**frame.as_payload(), *response.binary());
    }
}
