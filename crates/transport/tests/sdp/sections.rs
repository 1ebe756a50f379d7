//! Sections over the life of a publishing connection: order, rejection, reuse, ICE restart.

use sluice_transport::sdp::{AnswerSession, RejectReason, SdpError};

use crate::support::{Sdp, credentials, golden, params};

const OFFER: &str = "chromium-av-simulcast-vp8";

fn reject(offer: &str, media: &str) -> String {
    let lines = offer.lines().map(|line| match line.strip_prefix(&format!("m={media} ")) {
        Some(rest) => format!("m={media} 0 {}", rest.split_once(' ').unwrap().1),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

#[test]
fn sections_cannot_vanish_move_or_change_their_kind() {
    let mut session = AnswerSession::new(params());
    session.accept_offer(golden(OFFER)).unwrap();
    session.create_answer().unwrap();
    let offer = golden(OFFER);
    let fewer = &offer[..offer.find("m=application").unwrap()];
    let renamed = offer.replace("a=mid:1", "a=mid:9").replace("BUNDLE 0 1 2", "BUNDLE 0 9 2");
    let retyped = offer.replace("m=audio", "m=video");
    for changed in [fewer, &renamed, &retyped] {
        let error = session.accept_offer(changed).unwrap_err();
        assert!(matches!(error, SdpError::SectionsChanged(_)), "{error}");
    }
    // The refused offers left nothing behind.
    assert!(matches!(session.create_answer(), Err(SdpError::State(_))));
    session.accept_offer(offer).unwrap();
    session.create_answer().unwrap();
}

#[test]
fn a_section_that_the_client_rejects_is_rejected_in_the_answer() {
    let mut session = AnswerSession::new(params());
    let offer = session.accept_offer(&reject(golden(OFFER), "video")).unwrap();
    assert_eq!(offer.sections[1].rejected, Some(RejectReason::Remote));
    let answer = session.create_answer().unwrap();
    let sdp = Sdp::read(&answer.sdp);
    sdp.assert_well_formed();
    assert!(sdp.sections[1].is_rejected());
    assert_eq!(answer.receivers.len(), 1);
}

#[test]
fn a_rejected_section_comes_back_under_a_new_mid() {
    let mut session = AnswerSession::new(params());
    session.accept_offer(&reject(golden(OFFER), "video")).unwrap();
    session.create_answer().unwrap();
    let recycled =
        golden(OFFER).replace("a=mid:1", "a=mid:5").replace("BUNDLE 0 1 2", "BUNDLE 0 5 2");
    session.accept_offer(&recycled).unwrap();
    let answer = session.create_answer().unwrap();
    assert_eq!(Sdp::read(&answer.sdp).mids(), ["0", "5", "2"]);
    assert_eq!(answer.receivers.len(), 2);
}

#[test]
fn an_offer_that_rejects_everything_keeps_the_transport() {
    let mut session = AnswerSession::new(params());
    let offer = golden("chromium-data-only");
    let first = session.accept_offer(offer).unwrap();
    session.create_answer().unwrap();
    let last = session.accept_offer(&reject(offer, "application")).unwrap();
    assert_eq!(last.remote.ice, first.remote.ice);
    assert!(Sdp::read(&session.create_answer().unwrap().sdp).bundle().is_empty());
}

#[test]
fn sections_we_cannot_carry_are_rejected_with_their_reason() {
    let offer = golden(OFFER);
    for (changed, index, reason) in [
        (offer.replace("BUNDLE 0 1 2", "BUNDLE 0 2"), 1, RejectReason::NotBundled),
        (offer.replacen("a=rtcp-mux\r\n", "", 1), 0, RejectReason::NoRtcpMux),
        (
            offer.replace("m=application 9 UDP/DTLS/SCTP", "m=text 9 TCP/X"),
            2,
            RejectReason::Transport,
        ),
        (
            offer.replace("opus/", "o/").replace("PCM", "P").replace("red/48", "r/48"),
            0,
            RejectReason::NoCodec,
        ),
    ] {
        let mut session = AnswerSession::new(params());
        let accepted = session.accept_offer(&changed).unwrap();
        assert_eq!(accepted.sections[index].rejected, Some(reason));
        let sdp = Sdp::read(&session.create_answer().unwrap().sdp);
        sdp.assert_well_formed();
        assert!(sdp.sections[index].is_rejected());
    }
}

#[test]
fn without_a_bundle_the_first_section_alone_is_used() {
    let offer = golden(OFFER).replace("a=group:BUNDLE 0 1 2\r\n", "");
    let mut session = AnswerSession::new(params());
    session.accept_offer(&offer).unwrap();
    let sdp = Sdp::read(&session.create_answer().unwrap().sdp);
    let rejected: Vec<bool> = sdp.sections.iter().map(|it| it.is_rejected()).collect();
    assert_eq!(rejected, [false, true, true]);
}

#[test]
fn new_remote_credentials_are_an_ice_restart_and_ours_follow() {
    let mut session = AnswerSession::new(params());
    let offer = golden("chromium-data-only");
    assert!(!session.accept_offer(offer).unwrap().ice_restart);
    session.create_answer().unwrap();
    assert!(!session.accept_offer(offer).unwrap().ice_restart);
    session.create_answer().unwrap();
    let ufrag = offer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();
    let restarted = offer.replace(&format!("ufrag:{ufrag}"), "ufrag:Next");
    assert!(session.accept_offer(&restarted).unwrap().ice_restart);
    session.set_local_ice(credentials('B'));
    let sdp = Sdp::read(&session.create_answer().unwrap().sdp);
    assert_eq!(sdp.sections[0].values("ice-ufrag:"), ["Babcdefg"]);
    assert!(!session.accept_offer(&restarted).unwrap().ice_restart);
}

#[test]
fn two_meanings_of_one_number_keep_the_first() {
    // The payload type of Opus turns up as a video codec, and the id of mid as another URI.
    let offer = golden(OFFER)
        .replace("SAVPF 96 97", "SAVPF 111 96 97")
        .replace("a=rtpmap:96 VP8/90000", "a=rtpmap:111 VP9/90000\r\na=rtpmap:96 VP8/90000")
        .replace(
            "a=extmap:13 urn:3gpp:video-orientation",
            "a=extmap:1 urn:ietf:params:rtp-hdrext:toffset",
        );
    let mut session = AnswerSession::new(params());
    session.accept_offer(&offer).unwrap();
    let answer = session.create_answer().unwrap();
    Sdp::read(&answer.sdp).assert_well_formed();
    assert!(answer.receivers[1].codecs.iter().all(|codec| codec.pt != 111));
}

#[test]
fn the_version_of_the_origin_grows_with_each_answer() {
    let mut session = AnswerSession::new(params());
    for version in 1..4 {
        session.accept_offer(golden(OFFER)).unwrap();
        let sdp = Sdp::read(&session.create_answer().unwrap().sdp);
        assert_eq!(sdp.session[1], format!("o=- 7 {version} IN IP4 127.0.0.1"));
    }
}
