//! Messages of agent workers. The first byte chooses the encoding: even is protobuf, odd is JSON. What
//! was read must survive being written and read again, in both encodings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use sluice_proto::{WorkerMessage, json};
use sluice_signal::{Encoding, decode_worker_message};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, payload)) = input.split_first() else { return };
    let encoding = if choice & 1 == 0 { Encoding::Protobuf } else { Encoding::Json };
    let Ok(Some(message)) = decode_worker_message(encoding, payload) else { return };

    let message = WorkerMessage { message: Some(message) };
    let bytes = message.encode_to_vec();
    // Bytes, because a load that is not a number equals nothing.
    let read = decode_worker_message(Encoding::Protobuf, &bytes).expect("what was written is read");
    assert_eq!(WorkerMessage { message: read }.encode_to_vec(), bytes);

    let text = json::to_camel(&message).expect("every message has a JSON form");
    decode_worker_message(Encoding::Json, text.as_bytes()).expect("our own JSON");
});
