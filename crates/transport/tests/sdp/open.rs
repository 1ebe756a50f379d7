//! Sections that stay open: a client that offers once (WHEP) and whose senders come and go.

use sluice_rtp::codec::MediaKind;
use sluice_rtp::ext::ExtensionKind;
use sluice_transport::sdp::{AnswerSession, Limits, RemoteOffer};

use crate::support::{Sdp, golden, opus, params, vp8};

/// Three audio and three video sections on which the client receives.
const PLACEHOLDERS: &str = "livekit-js-join";

fn open_session() -> AnswerSession {
    let mut session = AnswerSession::new(params());
    session.keep_sections_open();
    session
}

#[test]
fn receiving_sections_are_answered_as_if_we_sent_and_name_no_ssrc() {
    let mut session = open_session();
    session.accept_offer(golden(PLACEHOLDERS)).unwrap();
    let sdp = session.create_answer().unwrap().sdp;
    Sdp::read(&sdp).assert_well_formed();
    let directions: Vec<String> =
        Sdp::read(&sdp).sections[..6].iter().map(|it| it.direction().to_owned()).collect();
    assert_eq!(directions, vec!["sendonly"; 6]);
    assert!(!sdp.contains("a=ssrc"), "{sdp}");
    assert!(sdp.contains("urn:ietf:params:rtp-hdrext:sdes:mid"), "{sdp}");
    for codec in ["opus/48000/2", "VP8/90000", "VP9/90000", "H264/90000", "AV1/90000"] {
        assert!(sdp.contains(codec), "{codec}: {sdp}");
    }
}

#[test]
fn senders_take_and_leave_sections_without_another_offer() {
    let mut session = open_session();
    assert!(session.reassign().is_none());
    session.accept_offer(golden(PLACEHOLDERS)).unwrap();
    session.create_answer().unwrap();
    let first = session.add_sender(vp8(1));
    let audio = session.add_sender(opus(2));
    let answer = session.reassign().unwrap();
    assert_eq!(answer.mid_to_sender, [("0".to_owned(), audio), ("3".to_owned(), first)]);
    let video = answer.senders.iter().find(|binding| binding.id == first).unwrap();
    assert_eq!(video.codec.codec.kind(), MediaKind::Video);
    assert!(video.extensions.contains(ExtensionKind::Mid));
    // A section changes hands at once: the client sees no description in between.
    session.remove_sender(first);
    let second = session.add_sender(vp8(3));
    let answer = session.reassign().unwrap();
    assert!(answer.mid_to_sender.contains(&("3".to_owned(), second)));
    assert!(!session.needs_offer());
}

#[test]
fn more_senders_than_sections_wait_for_one_to_leave() {
    let mut session = open_session();
    session.accept_offer(golden(PLACEHOLDERS)).unwrap();
    session.create_answer().unwrap();
    let senders: Vec<_> = (1..=4).map(|n| session.add_sender(vp8(n))).collect();
    assert_eq!(session.reassign().unwrap().senders.len(), 3);
    session.remove_sender(senders[0]);
    let answer = session.reassign().unwrap();
    assert!(answer.senders.iter().any(|binding| binding.id == senders[3]));
}

#[test]
fn offer_can_be_read_by_itself() {
    let offer =
        RemoteOffer::parse(golden("chromium-av-simulcast-vp8"), &Limits::default()).unwrap();
    assert_eq!(offer.sections.iter().filter(|section| section.sends()).count(), 2);
    assert!(RemoteOffer::parse("v=0\r\n", &Limits::default()).is_err());
}
