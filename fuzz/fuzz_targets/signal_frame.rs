//! Frames of the signal socket. The first byte chooses the encoding: even is protobuf, odd is JSON.
//! What was read must survive being written and read again, in both encodings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use sluice_proto::json;
use sluice_signal::{Encoding, decode_request};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, payload)) = input.split_first() else { return };
    let encoding = if choice & 1 == 0 { Encoding::Protobuf } else { Encoding::Json };
    let Ok(request) = decode_request(encoding, payload) else { return };

    let bytes = request.encode_to_vec();
    let read = decode_request(Encoding::Protobuf, &bytes).expect("what was written can be read");
    assert_eq!(read, request);

    let text = json::to_camel(&request).expect("every request has a JSON form");
    let read = decode_request(Encoding::Json, text.as_bytes()).expect("our own JSON");
    assert_eq!(read, request, "{text}");
});
