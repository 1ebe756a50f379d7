//! The `join_request` parameter of v1: base64url of a `WrappedJoinRequest`, which holds a
//! `JoinRequest`, gzipped or not.

use std::io::Read;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::GzDecoder;
use prost::Message;
use sluice_proto::wrapped_join_request::Compression;
use sluice_proto::{JoinRequest, WrappedJoinRequest};

/// Largest join request, bytes, as sent and as inflated (Go's `http.DefaultMaxHeaderBytes`).
pub(crate) const MAX_JOIN_REQUEST: usize = 1 << 20;

/// Go clients pad, browsers often do not.
pub(crate) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a join request was refused; each is a 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinRequestError {
    /// `/rtc/v1` without the parameter.
    #[error("join_request is required")]
    Missing,
    /// Above [`MAX_JOIN_REQUEST`].
    #[error("join request too large")]
    TooLarge,
    /// Not base64url.
    #[error("cannot base64 decode wrapped join request")]
    Base64,
    /// Not a `WrappedJoinRequest`.
    #[error("cannot unmarshal wrapped join request")]
    Wrapper,
    /// Not gzip.
    #[error("cannot decompress join request")]
    Gzip,
    /// Not a `JoinRequest`.
    #[error("cannot unmarshal join request")]
    Inner,
}

/// Decodes the value of the parameter.
///
/// # Errors
/// See [`JoinRequestError`]. Never allocates more than the cap, whatever the input says.
pub fn decode_join_request(value: &str) -> Result<JoinRequest, JoinRequestError> {
    if value.is_empty() {
        return Err(JoinRequestError::Missing);
    }
    if value.len() > MAX_JOIN_REQUEST {
        return Err(JoinRequestError::TooLarge);
    }
    let wrapped = BASE64URL.decode(value).map_err(|_| JoinRequestError::Base64)?;
    let wrapped =
        WrappedJoinRequest::decode(wrapped.as_slice()).map_err(|_| JoinRequestError::Wrapper)?;
    match wrapped.compression() {
        Compression::None => JoinRequest::decode(wrapped.join_request),
        Compression::Gzip => JoinRequest::decode(inflate(&wrapped.join_request)?.as_slice()),
    }
    .map_err(|_| JoinRequestError::Inner)
}

fn inflate(compressed: &[u8]) -> Result<Vec<u8>, JoinRequestError> {
    let mut inflated = Vec::new();
    let mut limited = GzDecoder::new(compressed).take(MAX_JOIN_REQUEST as u64 + 1);
    limited.read_to_end(&mut inflated).map_err(|_| JoinRequestError::Gzip)?;
    if inflated.len() > MAX_JOIN_REQUEST {
        return Err(JoinRequestError::TooLarge);
    }
    Ok(inflated)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use base64::engine::general_purpose::{URL_SAFE as PADDED, URL_SAFE_NO_PAD as UNPADDED};
    use flate2::Compression as Level;
    use flate2::write::GzEncoder;
    use sluice_proto::ConnectionSettings;

    use super::*;

    fn request() -> JoinRequest {
        let settings = ConnectionSettings { auto_subscribe: true, ..Default::default() };
        JoinRequest {
            connection_settings: Some(settings),
            metadata: "m".repeat(40),
            ..Default::default()
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::default());
        encoder.write_all(bytes).expect("into memory");
        encoder.finish().expect("into memory")
    }

    fn wrap(compression: Compression, join_request: Vec<u8>) -> Vec<u8> {
        let join_request = join_request.into();
        WrappedJoinRequest { compression: compression.into(), join_request }.encode_to_vec()
    }

    #[test]
    fn plain_and_gzip_decode_with_and_without_padding() {
        let bytes = request().encode_to_vec();
        for wrapped in
            [wrap(Compression::None, bytes.clone()), wrap(Compression::Gzip, gzip(&bytes))]
        {
            assert_eq!(decode_join_request(&PADDED.encode(&wrapped)), Ok(request()));
            assert_eq!(decode_join_request(&UNPADDED.encode(&wrapped)), Ok(request()));
        }
    }

    #[test]
    fn each_layer_names_its_own_error() {
        let of = |bytes: &[u8]| decode_join_request(&PADDED.encode(bytes));
        assert_eq!(decode_join_request(""), Err(JoinRequestError::Missing));
        assert_eq!(decode_join_request("%%%"), Err(JoinRequestError::Base64));
        assert_eq!(of(b"\xff\xff\xff"), Err(JoinRequestError::Wrapper));
        assert_eq!(of(&wrap(Compression::Gzip, b"junk".to_vec())), Err(JoinRequestError::Gzip));
        let truncated = gzip(&request().encode_to_vec())[..20].to_vec();
        assert_eq!(of(&wrap(Compression::Gzip, truncated)), Err(JoinRequestError::Gzip));
        let inner = wrap(Compression::None, b"\xff\xff\xff".to_vec());
        assert_eq!(of(&inner), Err(JoinRequestError::Inner));
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let bomb = gzip(&vec![0; MAX_JOIN_REQUEST + 1]);
        assert!(bomb.len() < 10_000);
        let value = PADDED.encode(wrap(Compression::Gzip, bomb));
        assert_eq!(decode_join_request(&value), Err(JoinRequestError::TooLarge));
        let long = "A".repeat(MAX_JOIN_REQUEST + 1);
        assert_eq!(decode_join_request(&long), Err(JoinRequestError::TooLarge));
    }
}
