//! Bodies of the server API as Turms' stock plugin frames them. A bare message with a room's name is
//! never taken for a framed one, and framing it is undone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_turms::compat::{Framing, frame, unframe};

fuzz_target!(|body: &[u8]| {
    let (framing, message) = unframe(body);
    match framing {
        Framing::Bare => assert_eq!(message, body),
        Framing::Delimited => {
            assert!(message.len() < body.len() && body.ends_with(message));
            // What came out is a bare message itself.
            assert_eq!(unframe(message), (Framing::Bare, message));
            // The length may have been written with more bytes than needed; ours is the shortest.
            let again = frame(framing, message);
            assert!(again.len() <= body.len() && again.ends_with(message));
        }
    }
});
