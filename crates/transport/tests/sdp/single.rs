//! The single connection: the client offers receiving sections, we fill them with senders.

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::ExtensionKind;
use sluice_transport::sdp::{Answer, AnswerSession, SectionsRequirement, SenderSpec};

use crate::support::{Sdp, assert_golden, golden, opus, params, track, vp8};

/// The offer of livekit-client at join: three audio, three video, data.
const JOIN: &str = "livekit-js-join";

fn joined() -> AnswerSession {
    let mut session = AnswerSession::new(params());
    negotiate(&mut session, golden(JOIN));
    session
}

fn negotiate(session: &mut AnswerSession, offer: &str) -> Answer {
    session.accept_offer(offer).unwrap();
    let answer = session.create_answer().unwrap();
    Sdp::read(&answer.sdp).assert_well_formed();
    answer
}

fn requirement(audios: u32, videos: u32) -> SectionsRequirement {
    SectionsRequirement { audios, videos }
}

/// The join offer with one more receiving section of `media`.
fn grown(offer: &str, media: &str, mid: &str) -> String {
    let start = offer.find(&format!("m={media}")).unwrap();
    let len = offer[start + 2..].find("m=").unwrap() + 2;
    let section = &offer[start..start + len];
    let old_mid = section.lines().find(|line| line.starts_with("a=mid:")).unwrap();
    let section = section.replace(old_mid, &format!("a=mid:{mid}"));
    let group = offer.lines().find(|line| line.starts_with("a=group:BUNDLE")).unwrap();
    offer.replace(group, &format!("{group} {mid}")) + &section
}

#[test]
fn placeholders_are_answered_inactive_until_a_sender_needs_them() {
    let mut session = joined();
    assert!(!session.needs_offer());
    let audio = session.add_sender(opus(1));
    let video = session.add_sender(vp8(2));
    assert!(session.needs_offer());
    assert_eq!(session.unmet_senders(), requirement(0, 0));

    let answer = negotiate(&mut session, golden(JOIN));
    assert_eq!(answer.mid_to_sender, [("0".to_owned(), audio), ("3".to_owned(), video)]);
    let sdp = Sdp::read(&answer.sdp);
    let directions: Vec<&str> = sdp.sections[..6].iter().map(|it| it.direction()).collect();
    let expected = ["sendonly", "inactive", "inactive", "sendonly", "inactive", "inactive"];
    assert_eq!(directions, expected);
    assert_golden("expected-answer-single", &answer.sdp);
    assert!(!session.needs_offer());
}

#[test]
fn the_first_answer_already_carries_known_senders() {
    let mut session = AnswerSession::new(params());
    session.add_sender(vp8(1));
    let answer = negotiate(&mut session, golden("livekit-python-join"));
    assert_eq!(answer.mid_to_sender.len(), 1);
    let video = Sdp::read(&answer.sdp);
    let video = video.section("3");
    assert_eq!(video.values("msid:"), ["PA_a1|TR_b1 TR_b1"]);
    assert_eq!(video.values("ssrc-group:"), ["FID 1001 2001"]);
    assert_eq!(video.values("ssrc:"), ["1001 cname:PA_a1|TR_b1", "2001 cname:PA_a1|TR_b1"]);
    assert_eq!(video.codecs(), ["VP8"]);
}

#[test]
fn the_binding_holds_what_the_packets_need() {
    let mut session = AnswerSession::new(params());
    session.add_sender(vp8(1));
    let answer = negotiate(&mut session, golden("livekit-python-join"));
    let binding = &answer.senders[0];
    assert_eq!((binding.codec.codec, binding.codec.pt), (Codec::Vp8, 96));
    assert_eq!((binding.codec.rtx_pt, binding.rtx_ssrc), (Some(97), Some(2001)));
    assert_eq!(binding.extensions.id(ExtensionKind::TransportCc), Some(3));
    assert_eq!(binding.extensions.id(ExtensionKind::AbsSendTime), Some(2));
    assert!(!binding.extensions.contains(ExtensionKind::AudioLevel));
    let feedback = binding.codec.feedback;
    assert!(feedback.nack && feedback.pli && feedback.transport_cc && feedback.remb);
    assert!(binding.changed);
    let again = negotiate(&mut session, golden("livekit-python-join"));
    assert!(!again.senders[0].changed);
}

#[test]
fn senders_beyond_the_placeholders_are_asked_for_once() {
    let mut session = joined();
    for n in 0..5 {
        session.add_sender(vp8(n));
    }
    assert_eq!(session.take_requirement(), Some(requirement(0, 2)));
    assert_eq!(session.take_requirement(), None);
    session.add_sender(vp8(9));
    assert_eq!(session.take_requirement(), Some(requirement(0, 1)));

    // An offer that crossed ours with one section more leaves two unmet.
    let answer = negotiate(&mut session, &grown(golden(JOIN), "video", "7"));
    assert_eq!(answer.senders.len(), 4);
    assert_eq!(session.take_requirement(), Some(requirement(0, 2)));
}

#[test]
fn a_removed_sender_asks_for_an_offer_without_new_sections() {
    let mut session = joined();
    let id = session.add_sender(vp8(1));
    negotiate(&mut session, golden(JOIN));
    session.remove_sender(id);
    assert_eq!(session.take_requirement(), Some(requirement(0, 0)));
    let answer = negotiate(&mut session, golden(JOIN));
    assert!(answer.senders.is_empty());
    assert_eq!(Sdp::read(&answer.sdp).section("3").direction(), "inactive");
    assert_eq!(session.take_requirement(), None);
}

#[test]
fn a_section_changes_hands_only_after_it_was_inactive() {
    let mut session = joined();
    let ids: Vec<_> = (0..3).map(|n| session.add_sender(vp8(n))).collect();
    negotiate(&mut session, golden(JOIN));
    session.remove_sender(ids[1]);
    let next = session.add_sender(vp8(7));
    assert_eq!(session.unmet_senders(), requirement(0, 1));
    let answer = negotiate(&mut session, golden(JOIN));
    assert_eq!(Sdp::read(&answer.sdp).section("4").direction(), "inactive");
    assert!(answer.mid_to_sender.iter().all(|(_, id)| *id != next));
    let answer = negotiate(&mut session, golden(JOIN));
    assert!(answer.mid_to_sender.contains(&("4".to_owned(), next)));
}

#[test]
fn a_codec_that_the_client_cannot_decode_takes_no_section() {
    let mut session = joined();
    let hevc = session.add_sender(track(1, &[(Codec::H265, "")]));
    let other = session.add_sender(vp8(2));
    let answer = negotiate(&mut session, golden(JOIN));
    assert_eq!(answer.unsupported, [hevc]);
    assert_eq!(answer.mid_to_sender, [("3".to_owned(), other)]);
    assert!(!session.needs_offer(), "asking again would not help");
}

#[test]
fn the_first_codec_that_the_client_decodes_is_bound() {
    let mut session = joined();
    session.add_sender(track(1, &[(Codec::H265, ""), (Codec::Av1, ""), (Codec::Vp8, "")]));
    let answer = negotiate(&mut session, golden(JOIN));
    let binding = &answer.senders[0];
    assert_eq!((binding.codec.codec, binding.codec_index), (Codec::Av1, 1));
    let sdp = Sdp::read(&answer.sdp);
    assert_eq!(sdp.section("3").codecs(), ["AV1", "VP8"]);
}

#[test]
fn h264_finds_its_profile_or_one_that_decodes_it() {
    let bound = |fmtp: &str, offer: &str| {
        let mut session = AnswerSession::new(params());
        session.add_sender(track(1, &[(Codec::H264, fmtp)]));
        let answer = negotiate(&mut session, offer);
        answer.senders.first().map(|binding| binding.codec.fmtp.clone())
    };
    let offer = golden("livekit-python-join");
    let constrained = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    assert_eq!(bound(constrained, offer).as_deref(), Some(constrained));
    // Chromium names no High profile without hardware; its decoder plays it all the same.
    let high = "packetization-mode=1;profile-level-id=640c1f";
    assert!(bound(high, offer).unwrap().contains("packetization-mode=1"));
    // No constrained baseline: main decodes it, baseline need not.
    let without = offer.replace("42e01f", "42001f");
    assert!(bound(constrained, &without).is_some());
    let only_mode_0 = offer.replace("packetization-mode=1", "packetization-mode=0");
    assert_eq!(bound(constrained, &only_mode_0), None);
}

#[test]
fn red_brings_its_opus_and_asks_for_no_nack() {
    let mut session = joined();
    session.add_sender(track(1, &[(Codec::Red, ""), (Codec::Opus, "")]));
    let answer = negotiate(&mut session, golden("livekit-js-join"));
    let binding = &answer.senders[0];
    assert_eq!((binding.codec.codec, binding.red_primary_pt), (Codec::Red, Some(111)));
    assert!(!binding.codec.feedback.nack);
    let sdp = Sdp::read(&answer.sdp);
    assert_eq!(sdp.section("0").codecs(), ["red", "opus"]);
    assert!(!sdp.section("0").feedback("111").contains(&"nack"));
}

#[test]
fn publishing_and_receiving_share_the_connection() {
    let mut session = joined();
    session.add_sender(opus(1));
    let publish = golden("chromium-av-simulcast-vp8");
    let start = publish.find("m=video").unwrap();
    let section = publish[start..publish.find("m=application").unwrap()]
        .replace("a=mid:1", "a=mid:9")
        .lines()
        .filter(|line| !line.starts_with("a=fmtp") && !line.starts_with("a=rtpmap"))
        .map(|line| match line.strip_prefix("m=video 9 UDP/TLS/RTP/SAVPF") {
            Some(_) => "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n".to_owned(),
            None => format!("{line}\r\n"),
        })
        .collect::<String>();
    let join = golden(JOIN);
    let offer = join.replace("BUNDLE 0 1 2 3 4 5 6", "BUNDLE 0 1 2 3 4 5 6 9") + &section;
    let answer = negotiate(&mut session, &offer);
    assert_eq!(answer.receivers.len(), 1);
    assert_eq!(answer.receivers[0].mid, "9");
    assert_eq!(answer.senders.len(), 1);
    let sdp = Sdp::read(&answer.sdp);
    assert_eq!(sdp.section("9").direction(), "recvonly");
    assert_eq!(sdp.section("0").direction(), "sendonly");
}

#[test]
fn a_section_that_also_sends_is_taken_last() {
    let mut session = AnswerSession::new(params());
    let both = golden("chromium-av-sendrecv");
    let id = session.add_sender(vp8(1));
    let answer = negotiate_sendrecv(&mut session, both);
    assert_eq!(answer.mid_to_sender, [("1".to_owned(), id)]);
    assert_eq!(Sdp::read(&answer.sdp).section("1").direction(), "sendrecv");
    assert_eq!(answer.receivers.len(), 2, "what the client sends there is still received");

    let mut session = AnswerSession::new(params());
    let id = session.add_sender(vp8(1));
    let receiving = grown_recvonly(both);
    let answer = negotiate_sendrecv(&mut session, &receiving);
    assert_eq!(answer.mid_to_sender, [("7".to_owned(), id)]);
}

fn negotiate_sendrecv(session: &mut AnswerSession, offer: &str) -> Answer {
    session.accept_offer(offer).unwrap();
    session.create_answer().unwrap()
}

fn grown_recvonly(offer: &str) -> String {
    let start = offer.find("m=video").unwrap();
    let section = offer[start..].replace("a=mid:1", "a=mid:7").replace("a=sendrecv", "a=recvonly");
    offer.replace("BUNDLE 0 1", "BUNDLE 0 1 7") + &section
}

#[test]
fn a_sender_whose_section_the_client_stops_waits_for_another() {
    let mut session = joined();
    let id = session.add_sender(vp8(1));
    negotiate(&mut session, golden(JOIN));
    let offer = golden(JOIN);
    let start = offer.find("a=mid:3").unwrap();
    let stopped =
        offer[..start].to_owned() + &offer[start..].replacen("a=recvonly", "a=inactive", 1);
    let answer = negotiate(&mut session, &stopped);
    assert_eq!(answer.mid_to_sender, [("4".to_owned(), id)]);
    assert!(answer.senders[0].changed);
}

#[test]
fn stereo_is_announced_on_the_section_of_the_track() {
    let mut session = joined();
    session.add_sender(SenderSpec { stereo: true, ..opus(1) });
    let answer = negotiate(&mut session, golden(JOIN));
    let sdp = Sdp::read(&answer.sdp);
    assert!(sdp.section("0").fmtp("111").unwrap().ends_with("sprop-stereo=1"));
}

#[test]
fn playout_delay_goes_only_where_the_room_sets_one() {
    for wanted in [false, true] {
        let mut params = params();
        params.playout_delay = wanted;
        let mut session = AnswerSession::new(params);
        session.add_sender(vp8(1));
        let answer = negotiate(&mut session, golden(JOIN));
        let extensions = answer.senders[0].extensions;
        assert_eq!(extensions.contains(ExtensionKind::PlayoutDelay), wanted);
    }
}

#[test]
fn senders_of_a_kind_without_sections_are_unmet() {
    let mut session = AnswerSession::new(params());
    session.add_sender(opus(1));
    session.add_sender(vp8(2));
    negotiate(&mut session, golden("chromium-data-only"));
    assert_eq!(session.unmet_senders(), requirement(1, 1));
    assert_eq!(opus(1).kind, MediaKind::Audio);
}
