//! SDP fragments of WHIP and WHEP clients: what is accepted restarts ICE in an offer that is read
//! again, and a fragment of ours is one that we would accept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_signal::whip::{Fragment, of_answer, with_credentials};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Ok(fragment) = Fragment::parse(&text) else { return };
    // A fragment reads the same with other line ends.
    let unix = text.replace("\r\n", "\n");
    assert_eq!(Fragment::parse(&unix).as_ref(), Ok(&fragment));
    let (Some(ufrag), Some(pwd)) = (&fragment.ufrag, &fragment.pwd) else { return };
    let restarted = with_credentials(&text, ufrag, pwd);
    let again = Fragment::parse(&restarted).expect("an accepted fragment");
    assert_eq!((&again.ufrag, &again.pwd), (&fragment.ufrag, &fragment.pwd));
    assert_eq!((again.candidates, again.end), (0, false));
    let answer = format!("v=0\r\nm=audio 9 X 0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n{text}");
    let ours = Fragment::parse(&of_answer(&answer)).expect("our own fragment");
    assert_eq!(ours.ufrag.as_ref(), Some(ufrag));
});
