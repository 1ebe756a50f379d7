//! The TCP stream of Turms' gateway: frames are taken off in order, whatever pieces the bytes come
//! in, and a message that is read is read the same after it was written again.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use sluice_turms::gateway::frames::{MAX_MESSAGE, decode_notification, next_frame};

fuzz_target!(|stream: &[u8]| {
    let mut whole = BytesMut::from(stream);
    let mut in_pieces = BytesMut::new();
    let mut rest = stream.iter();
    loop {
        let frame = next_frame(&mut whole);
        let piecewise = loop {
            match next_frame(&mut in_pieces) {
                Ok(None) => match rest.next() {
                    Some(byte) => in_pieces.extend_from_slice(&[*byte]),
                    None => break Ok(None),
                },
                other => break other,
            }
        };
        assert_eq!(frame, piecewise);
        let Ok(Some(message)) = frame else { return };
        assert!(message.len() <= MAX_MESSAGE);
        if let Ok(notification) = decode_notification(&message) {
            let again = decode_notification(&notification.encode_to_vec()).expect("our own");
            assert_eq!(again, notification);
        }
    }
});
