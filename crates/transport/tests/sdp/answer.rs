//! Answers to a client that publishes.

use sluice_rtp::codec::Codec;
use sluice_rtp::ext::ExtensionKind;
use sluice_transport::sdp::{
    Answer, AnswerSession, CodecPolicy, OpusAnswer, ReceiverBinding, RemoteOffer,
    SectionPreference, SessionParams, SourceSsrc,
};
use sluice_transport::{Setup, sdp::SdpError};

use crate::support::{OFFERS, Sdp, assert_golden, golden, params};

fn answer(offer: &str) -> (RemoteOffer, Answer) {
    answer_with(params(), offer, &[])
}

fn answer_with(
    params: SessionParams,
    offer: &str,
    preferences: &[(&str, SectionPreference)],
) -> (RemoteOffer, Answer) {
    let mut session = AnswerSession::new(params);
    let offer = session.accept_offer(offer).unwrap();
    for (mid, preference) in preferences {
        session.set_section_preference(mid, preference.clone());
    }
    (offer, session.create_answer().unwrap())
}

fn receiver<'a>(answer: &'a Answer, mid: &str) -> &'a ReceiverBinding {
    answer.receivers.iter().find(|receiver| receiver.mid == mid).unwrap()
}

#[test]
fn every_captured_offer_gets_an_answer_section_by_section() {
    for (name, offer) in OFFERS {
        let (_, answer) = answer(offer);
        let (offered, answered) = (Sdp::read(offer), Sdp::read(&answer.sdp));
        answered.assert_well_formed();
        assert_eq!(offered.mids(), answered.mids(), "{name}");
        for (theirs, ours) in offered.sections.iter().zip(&answered.sections) {
            assert!(!ours.is_rejected(), "{name}");
            assert_eq!(theirs.media(), ours.media(), "{name}");
            let expected = match theirs.direction() {
                _ if !ours.is_media() => continue,
                "sendonly" | "sendrecv" => "recvonly",
                _ => "inactive",
            };
            assert_eq!(ours.direction(), expected, "{name}");
            for pt in ours.formats() {
                assert_eq!(theirs.rtpmap(pt), ours.rtpmap(pt), "{name}");
            }
            let ids = theirs.values("extmap:");
            assert!(ours.values("extmap:").iter().all(|entry| ids.contains(entry)), "{name}");
            assert!(ours.has("a=setup:passive"), "{name}");
        }
    }
}

#[test]
fn the_answer_to_a_simulcast_publisher_is_as_recorded() {
    let (_, answer) = answer(golden("chromium-av-simulcast-vp8"));
    assert_golden("expected-answer-av-simulcast-vp8", &answer.sdp);
}

#[test]
fn candidates_and_their_end_stand_in_the_first_section_only() {
    let (_, answer) = answer(golden("chromium-av-simulcast-vp8"));
    let sdp = Sdp::read(&answer.sdp);
    assert_eq!(sdp.sections[0].values("candidate:").len(), 2);
    assert!(sdp.sections[0].has("a=end-of-candidates"));
    assert!(sdp.sections[1].values("candidate:").is_empty());
}

#[test]
fn rids_come_back_in_the_order_of_the_simulcast_line() {
    let (_, answer) = answer(golden("chromium-av-simulcast-vp8"));
    let video = Sdp::read(&answer.sdp);
    assert!(video.sections[1].has("a=simulcast:recv q;h;f"));
    assert_eq!(video.sections[1].values("rid:"), ["q recv", "h recv", "f recv"]);
    let binding = receiver(&answer, "1");
    assert_eq!(binding.rids, ["q", "h", "f"]);
    assert!(binding.is_simulcast());
    for kind in [ExtensionKind::Mid, ExtensionKind::Rid, ExtensionKind::RepairedRid] {
        assert!(binding.extensions.contains(kind));
    }
}

#[test]
fn paused_and_alternative_rids_are_answered_without_marks() {
    let base = golden("chromium-av-simulcast-vp8");
    for (line, expected) in [
        ("a=simulcast:send f;~h;q", "a=simulcast:recv f;h;q"),
        ("a=simulcast:send q,x;h", "a=simulcast:recv q;h"),
        ("a=simulcast:recv x send q;h", "a=simulcast:recv q;h"),
        ("a=simulcast: send rid=q;h;f", "a=simulcast:recv q;h;f"),
        ("a=simulcast:send q;q;undeclared", "a=simulcast:recv q"),
    ] {
        let (_, answer) = answer(&base.replace("a=simulcast:send q;h;f", line));
        assert!(Sdp::read(&answer.sdp).sections[1].has(expected), "{line}");
    }
}

#[test]
fn ssrc_groups_give_layers_and_their_rtx() {
    let lines = "a=ssrc-group:SIM 11 12 13\r\na=ssrc-group:FID 11 21\r\na=ssrc-group:FID 12 22\r\n\
                 a=ssrc-group:FID 13 23\r\na=ssrc-group:FEC-FR 11 31\r\na=ssrc:13 cname:c\r\n\
                 a=ssrc:21 cname:c\r\na=ssrc:22 cname:c\r\na=ssrc:23 cname:c\r\na=ssrc:11 cname:c\r\n\
                 a=ssrc:12 msid:s t\r\na=ssrc:31 cname:c\r\na=ssrc:0 cname:c\r\na=ssrc:x cname:c\r\n";
    let base = golden("chromium-av-simulcast-vp8");
    let start = base.find("a=rid:q send").unwrap();
    let end = base.find("m=application").unwrap();
    let (_, answer) = answer(&format!("{}{lines}{}", &base[..start], &base[end..]));
    let video = receiver(&answer, "1");
    let source = |ssrc, rtx| SourceSsrc { ssrc, rtx_ssrc: Some(rtx) };
    assert_eq!(video.ssrcs, [source(11, 21), source(12, 22), source(13, 23)]);
    assert!(video.rids.is_empty() && video.is_simulcast());
    assert_eq!(video.cname.as_deref(), Some("c"));
}

#[test]
fn msid_and_cname_reach_the_binding() {
    let (_, answer) = answer(golden("firefox-av-simulcast-vp8"));
    let audio = receiver(&answer, "0");
    let (stream, track) = audio.msid.clone().unwrap();
    assert_eq!(stream, "{9b2b8b1e-6d3c-4c5e-8d0a-1a2b3c4d5e6f}");
    assert_eq!(track, "{f0e1d2c3-b4a5-4697-8877-665544332211}");
    assert_eq!(audio.ssrcs, [SourceSsrc { ssrc: 3_735_928_559, rtx_ssrc: None }]);
}

#[test]
fn firefox_keeps_its_payload_types_and_extension_ids() {
    let (offer, answer) = answer(golden("firefox-av-simulcast-vp8"));
    let video = receiver(&answer, "1");
    assert_eq!((video.codecs[0].codec, video.codecs[0].pt), (Codec::Vp8, 120));
    assert_eq!(video.codecs[0].rtx_pt, Some(124));
    assert_eq!(video.extensions.id(ExtensionKind::TransportCc), Some(7));
    assert_eq!(receiver(&answer, "0").codecs[0].pt, 109);
    assert_eq!(offer.remote.sctp.unwrap().max_message_size, 1_073_741_823);
    // Offered for receiving only: not something that the client will send.
    assert!(!video.extensions.contains(ExtensionKind::PlayoutDelay));
}

#[test]
fn opus_is_asked_for_dtx_and_stereo_as_the_track_wants() {
    let fmtp = |opus| {
        let preference = SectionPreference { opus, ..SectionPreference::default() };
        let offer = golden("chromium-av-simulcast-vp8");
        let (_, answer) = answer_with(params(), offer, &[("0", preference)]);
        Sdp::read(&answer.sdp).sections[0].fmtp("111").unwrap().to_owned()
    };
    let base = "minptime=10;useinbandfec=1";
    assert_eq!(fmtp(OpusAnswer { dtx: false, stereo: false }), base);
    assert_eq!(fmtp(OpusAnswer { dtx: true, stereo: false }), format!("{base};usedtx=1"));
    assert_eq!(
        fmtp(OpusAnswer { dtx: false, stereo: true }),
        format!("{base};stereo=1;maxaveragebitrate=510000")
    );
}

#[test]
fn opus_gets_nack_and_red_does_not() {
    let (_, answer) = answer(golden("chromium-av-simulcast-vp8"));
    let sdp = Sdp::read(&answer.sdp);
    assert_eq!(sdp.sections[0].feedback("111"), ["transport-cc", "nack"]);
    assert!(sdp.sections[0].feedback("63").is_empty());
    let expected = ["transport-cc", "ccm fir", "nack", "nack pli"];
    assert_eq!(sdp.sections[1].feedback("96"), expected);
}

#[test]
fn preferred_codecs_come_first_and_the_rest_keeps_its_order() {
    let offer = golden("chromium-av-simulcast-vp8");
    let prefer = |codecs: &[Codec], only_first| {
        let preference =
            SectionPreference { codecs: codecs.to_vec(), only_first, opus: OpusAnswer::default() };
        let both = [("0", preference.clone()), ("1", preference)];
        Sdp::read(&answer_with(params(), offer, &both).1.sdp)
    };
    let sdp = prefer(&[Codec::Vp9, Codec::Red], false);
    assert_eq!(sdp.sections[0].codecs(), ["red", "opus", "PCMU", "PCMA"]);
    assert_eq!(sdp.sections[1].codecs(), ["VP9", "VP8", "H264", "H264", "AV1"]);
    let sdp = prefer(&[Codec::H264, Codec::Red], true);
    assert_eq!(sdp.sections[0].codecs(), ["red", "opus"], "RED carries Opus");
    assert_eq!(sdp.sections[1].codecs(), ["H264", "H264"]);
}

#[test]
fn h264_is_accepted_as_constrained_baseline_in_both_packetization_modes() {
    let (_, answer) = answer(golden("chromium-video-simulcast-h264"));
    let video = &answer.receivers[0];
    let h264: Vec<u8> =
        video.codecs.iter().filter(|it| it.codec == Codec::H264).map(|it| it.pt).collect();
    assert_eq!(h264, [108, 114]);
}

#[test]
fn a_client_with_nothing_but_plain_baseline_still_publishes_h264() {
    let offer = golden("chromium-video-simulcast-h264").replace("42e01f", "42001f");
    let (_, answer) = answer(&offer);
    assert!(answer.receivers[0].codecs.iter().any(|codec| codec.codec == Codec::H264));
}

#[test]
fn a_disabled_codec_is_not_answered_and_a_section_without_codecs_is_rejected() {
    let offer = golden("chromium-av-simulcast-vp8");
    let policy = |codecs: &[Codec]| SessionParams {
        receive: CodecPolicy::new(codecs.iter().copied()),
        ..params()
    };
    let (_, some) = answer_with(policy(&[Codec::Opus, Codec::Vp8]), offer, &[]);
    assert_eq!(Sdp::read(&some.sdp).sections[1].codecs(), ["VP8"]);
    let (_, none) = answer_with(policy(&[Codec::Opus]), offer, &[]);
    let sdp = Sdp::read(&none.sdp);
    assert!(sdp.sections[1].is_rejected());
    assert_eq!(sdp.bundle(), ["0", "2"]);
    assert_eq!(none.receivers.len(), 1);
}

#[test]
fn red_without_its_opus_is_not_answered() {
    let (_, answer) =
        answer(&golden("chromium-av-simulcast-vp8").replace("63 111/111", "63 99/99"));
    assert!(receiver(&answer, "0").codecs.iter().all(|codec| codec.codec != Codec::Red));
}

#[test]
fn dtls_in_stun_and_early_sctp_degrade_to_plain_dtls_and_sctp() {
    let offer = golden("livekit-python-join");
    assert!(offer.contains("goog-sped-v1") && offer.contains("a=sctp-init:"));
    let (accepted, answer) = answer(offer);
    assert!(!answer.sdp.contains("goog-sped") && !answer.sdp.contains("sctp-init"));
    assert!(accepted.has_data);
    assert!(Sdp::read(&answer.sdp).section("6").has("a=sctp-port:5000"));
}

#[test]
fn the_data_section_states_our_limits() {
    let (offer, answer) = answer(golden("chromium-data-only"));
    let data = Sdp::read(&answer.sdp);
    assert_eq!(data.sections[0].lines[0], "m=application 9 UDP/DTLS/SCTP webrtc-datachannel");
    assert!(data.sections[0].has("a=max-message-size:65535"));
    assert_eq!(offer.remote.sctp.unwrap().max_message_size, 262_144);
}

#[test]
fn the_old_syntax_of_data_sections_is_answered_in_kind() {
    let old = golden("chromium-data-only")
        .replace("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5001")
        .replace("a=sctp-port:5000", "a=sctpmap:5001 webrtc-datachannel 1024");
    let (offer, answer) = answer(&old);
    assert_eq!(offer.remote.sctp.unwrap().port, 5001);
    let data = Sdp::read(&answer.sdp);
    assert_eq!(data.sections[0].lines[0], "m=application 9 DTLS/SCTP 5001");
    assert!(data.sections[0].has("a=sctpmap:5001 webrtc-datachannel 1024"));
}

#[test]
fn the_transport_of_the_offer_is_reported() {
    let (offer, _) = answer(golden("chromium-av-simulcast-vp8"));
    assert_eq!(offer.remote.ice.ufrag.len(), 4);
    assert_eq!(offer.remote.setup, Setup::ActPass);
    assert_eq!(offer.remote.fingerprints.len(), 1);
    assert!(!offer.candidates.is_empty());
    assert!(!offer.ice_restart);
}

#[test]
fn a_client_that_insists_on_being_dtls_server_gets_a_dtls_client() {
    let offer = golden("chromium-data-only").replace("setup:actpass", "setup:passive");
    let (offer, answer) = answer(&offer);
    assert_eq!(offer.remote.setup, Setup::Passive);
    assert!(Sdp::read(&answer.sdp).sections[0].has("a=setup:active"));
}

#[test]
fn offers_without_security_or_credentials_name_what_is_missing() {
    let base = golden("chromium-data-only");
    let without = |key: &str| {
        let kept: Vec<&str> = base.lines().filter(|line| !line.contains(key)).collect();
        AnswerSession::new(params()).accept_offer(&kept.join("\r\n")).unwrap_err()
    };
    assert_eq!(without("ice-ufrag"), SdpError::Missing("a=ice-ufrag"));
    assert_eq!(without("ice-pwd"), SdpError::Missing("a=ice-pwd"));
    assert_eq!(without("fingerprint"), SdpError::Missing("a usable a=fingerprint"));
    assert_eq!(without("a=mid"), SdpError::Missing("a=mid"));
    let weak = base.replace("sha-256", "sha-1");
    let error = AnswerSession::new(params()).accept_offer(&weak).unwrap_err();
    assert_eq!(error, SdpError::Missing("a usable a=fingerprint"));
}

#[test]
fn an_answer_needs_an_offer() {
    assert!(matches!(AnswerSession::new(params()).create_answer(), Err(SdpError::State(_))));
}
