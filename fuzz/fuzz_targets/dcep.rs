//! Data channel establishment messages: what parses, reads the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_transport::sctp::dcep::Dcep;

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Dcep::parse(data) else { return };
    let again = Dcep::parse(&message.to_bytes()).expect("a written message");
    // A reliable channel has no parameter, whatever the peer wrote there.
    assert_eq!(again, message);
});
