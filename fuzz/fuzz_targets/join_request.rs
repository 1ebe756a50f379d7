//! The `join_request` parameter. The first byte chooses how deep the rest goes: the parameter
//! itself, the contents of its wrapper, gzip data, or what gzip data inflates to.
#![no_main]

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use sluice_proto::WrappedJoinRequest;
use sluice_proto::wrapped_join_request::Compression;
use sluice_signal::decode_join_request;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, payload)) = input.split_first() else { return };
    let value = match choice & 3 {
        0 => match std::str::from_utf8(payload) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
        1 => wrap(Compression::None, payload.to_vec()),
        2 => wrap(Compression::Gzip, payload.to_vec()),
        _ => wrap(Compression::Gzip, gzip(payload)),
    };
    let Ok(request) = decode_join_request(&value) else { return };
    let again = wrap(Compression::Gzip, gzip(&request.encode_to_vec()));
    assert_eq!(decode_join_request(&again), Ok(request));
});

fn wrap(compression: Compression, join_request: Vec<u8>) -> String {
    let join_request = join_request.into();
    let wrapped = WrappedJoinRequest { compression: compression.into(), join_request };
    URL_SAFE.encode(wrapped.encode_to_vec())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}
