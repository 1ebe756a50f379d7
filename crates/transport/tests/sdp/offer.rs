//! Offers to a subscriber, and what its answers mean.

use sluice_rtp::codec::Codec;
use sluice_rtp::ext::ExtensionKind;
use sluice_transport::Setup;
use sluice_transport::sdp::{
    AnswerResult, CodecPolicy, Misuse, OfferSession, SdpError, SenderSpec, SessionParams,
};

use crate::support::{Sdp, assert_golden, credentials, opus, params, track, vp8};

/// Chromium's answers to the offers of `chromium_follows_a_subscription_history`, in its order.
const CHROMIUM: [&str; 5] = [
    include_str!("golden/chromium-answer-subscriber-first.sdp"),
    include_str!("golden/chromium-answer-subscriber-second.sdp"),
    include_str!("golden/chromium-answer-subscriber-third.sdp"),
    include_str!("golden/chromium-answer-subscriber-restart.sdp"),
    include_str!("golden/chromium-answer-subscriber-idle.sdp"),
];
const CHROMIUM_EMPTY: &str = include_str!("golden/chromium-answer-subscriber-empty.sdp");
const CHROMIUM_EMPTY_PLUS: &str = include_str!("golden/chromium-answer-subscriber-empty-plus.sdp");

/// Transport lines of a client that takes the DTLS client's role.
fn transport(ufrag: &str) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 {}\r\n\
         a=setup:active\r\n",
        ["CD"; 32].join(":")
    )
}

/// What a client that likes everything answers; `change` may rewrite a section's answer.
pub(crate) fn answer_to(offer: &str, change: impl Fn(&str, String) -> String) -> String {
    let offer = Sdp::read(offer);
    let mut sections = String::new();
    let mut bundle = Vec::new();
    for section in &offer.sections {
        let mut lines: Vec<String> = Vec::new();
        for line in &section.lines {
            let skip =
                ["a=ssrc", "a=msid", "a=candidate", "a=end-of", "a=ice-", "a=finger", "a=setup"];
            if skip.iter().any(|prefix| line.starts_with(prefix)) {
                continue;
            }
            lines.push(line.replace("a=sendonly", "a=recvonly"));
        }
        let text = format!("{}\r\n{}", lines.join("\r\n"), transport("peer"));
        let text = change(section.mid(), text);
        if !text.lines().next().unwrap().contains(" 0 UDP") {
            bundle.push(section.mid().to_owned());
        }
        sections.push_str(&text);
    }
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=extmap-allow-mixed\r\n{sections}",
        bundle.join(" ")
    )
}

fn exchange(session: &mut OfferSession) -> (Sdp, AnswerResult) {
    exchange_with(session, |_, section| section)
}

fn exchange_with(
    session: &mut OfferSession,
    change: impl Fn(&str, String) -> String,
) -> (Sdp, AnswerResult) {
    let offer = session.create_offer().unwrap();
    let sdp = Sdp::read(&offer);
    sdp.assert_well_formed();
    (sdp, session.accept_answer(&answer_to(&offer, change)).unwrap())
}

/// Turns the answer of section `mid` into a rejection.
fn reject(mid: &'static str) -> impl Fn(&str, String) -> String {
    move |it, section| if it == mid { section.replacen(" 9 UDP", " 0 UDP", 1) } else { section }
}

#[test]
fn chromium_follows_a_subscription_history() {
    let mut session = OfferSession::new(SessionParams { playout_delay: true, ..params() }, true);
    let round = |session: &mut OfferSession, index: usize| {
        let offer = session.create_offer().unwrap();
        Sdp::read(&offer).assert_well_formed();
        (offer, session.accept_answer(CHROMIUM[index]).unwrap())
    };
    session.add_sender(SenderSpec { stereo: true, ..opus(0) });
    let camera = session.add_sender(vp8(1));
    let (offer, result) = round(&mut session, 0);
    assert_golden("expected-offer-subscriber-first", &offer);
    assert_eq!(result.senders.len(), 2);
    assert_eq!(result.remote.setup, Setup::Active);

    session.remove_sender(camera);
    let high = "profile-level-id=640c1f;packetization-mode=1";
    let h264 = session.add_sender(track(2, &[(Codec::H264, high)]));
    let hevc = session.add_sender(track(3, &[(Codec::H265, "")]));
    session.add_sender(track(4, &[(Codec::Red, ""), (Codec::Opus, "")]));
    let (offer, result) = round(&mut session, 1);
    assert_golden("expected-offer-subscriber-second", &offer);
    assert_eq!(result.unsupported, [hevc]);
    assert!(result.senders.iter().all(|binding| binding.codec.feedback.transport_cc));
    let binding = result.senders.iter().find(|binding| binding.id == h264).unwrap();
    assert_eq!((binding.codec.pt, binding.codec.rtx_pt), (108, Some(109)));

    session.add_sender(track(5, &[(Codec::Av1, "")]));
    session.add_sender(track(6, &[(Codec::Vp9, "profile-id=0")]));
    let (_, result) = round(&mut session, 2);
    assert_eq!(result.senders.len(), 5);
    assert!(!result.ice_restart);

    session.restart_ice(credentials('B'));
    let (offer, result) = round(&mut session, 3);
    assert!(offer.contains("a=ice-ufrag:Babcdefg"));
    assert!(result.ice_restart);
    assert!(result.senders.iter().all(|binding| !binding.changed));
    let (_, result) = round(&mut session, 4);
    assert!(!result.ice_restart);
}

#[test]
fn without_tracks_the_data_section_is_first_and_stays_there() {
    let mut session = OfferSession::new(params(), true);
    assert!(session.needs_offer());
    let offer = Sdp::read(&session.create_offer().unwrap());
    assert_eq!(offer.sections[0].lines[0], "m=application 9 UDP/DTLS/SCTP webrtc-datachannel");
    let result = session.accept_answer(CHROMIUM_EMPTY).unwrap();
    assert!(result.remote.sctp.is_some());
    assert!(!session.needs_offer());
    session.add_sender(vp8(0));
    let offer = Sdp::read(&session.create_offer().unwrap());
    assert_eq!(offer.mids(), ["0", "1"]);
    assert_eq!(offer.sections[1].media(), "video");
    assert_eq!(session.accept_answer(CHROMIUM_EMPTY_PLUS).unwrap().senders.len(), 1);
}

#[test]
fn the_first_offer_puts_tracks_before_data_and_later_ones_append() {
    let mut session = OfferSession::new(params(), true);
    session.add_sender(opus(1));
    session.add_sender(vp8(2));
    let (sdp, _) = exchange(&mut session);
    let media: Vec<&str> = sdp.sections.iter().map(|it| it.media()).collect();
    assert_eq!(media, ["audio", "video", "application"]);
    session.add_sender(opus(3));
    let (sdp, _) = exchange(&mut session);
    assert_eq!(sdp.mids(), ["0", "1", "2", "3"]);
    assert!(sdp.sections.iter().all(|it| it.has("a=setup:actpass")));
}

#[test]
fn payload_types_feedback_and_extensions_are_livekits() {
    let mut session = OfferSession::new(params(), true);
    session.add_sender(opus(1));
    let video = [(Codec::Vp8, ""), (Codec::Vp9, ""), (Codec::Av1, ""), (Codec::H265, "")];
    session.add_sender(track(2, &video));
    let (sdp, _) = exchange(&mut session);
    let formats = ["96", "97", "98", "99", "35", "36", "116", "117"];
    assert_eq!(sdp.sections[1].formats(), formats);
    assert_eq!(sdp.sections[0].formats(), ["111"]);
    assert_eq!(sdp.sections[0].feedback("111"), ["transport-cc", "nack"]);
    let expected = ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"];
    assert_eq!(sdp.sections[1].feedback("96"), expected);
    for (section, kinds) in [
        (0, &[ExtensionKind::TransportCc, ExtensionKind::AbsSendTime][..]),
        (
            1,
            &[
                ExtensionKind::TransportCc,
                ExtensionKind::AbsSendTime,
                ExtensionKind::DependencyDescriptor,
            ],
        ),
    ] {
        let extensions = sdp.sections[section].values("extmap:");
        for kind in kinds {
            assert!(extensions.iter().any(|entry| entry.ends_with(kind.uri())));
        }
    }
}

#[test]
fn stereo_and_red_shape_the_audio_section() {
    let mut session = OfferSession::new(params(), true);
    session.add_sender(SenderSpec { stereo: true, ..opus(1) });
    session.add_sender(track(2, &[(Codec::Red, "")]));
    let (sdp, result) = exchange(&mut session);
    assert_eq!(sdp.sections[0].fmtp("111"), Some("minptime=10;useinbandfec=1;sprop-stereo=1"));
    assert_eq!(sdp.sections[1].formats(), ["63", "111"]);
    assert!(!sdp.sections[1].feedback("111").contains(&"nack"));
    assert_eq!(result.senders[1].red_primary_pt, Some(111));
}

#[test]
fn a_client_without_red_gets_the_opus_inside() {
    let mut session = OfferSession::new(params(), true);
    session.add_sender(track(2, &[(Codec::Red, ""), (Codec::Opus, "")]));
    let (_, result) = exchange_with(&mut session, |_, section| {
        section.replace("SAVPF 63 111", "SAVPF 111").replace("a=rtpmap:63 red/48000/2\r\n", "")
    });
    let binding = &result.senders[0];
    assert_eq!((binding.codec.codec, binding.codec_index), (Codec::Opus, 1));
}

#[test]
fn the_payload_types_of_the_answer_are_used() {
    let mut session = OfferSession::new(params(), true);
    session.add_sender(vp8(1));
    let (_, result) = exchange_with(&mut session, |_, section| {
        section
            .replace("SAVPF 96 97", "SAVPF 120 124")
            .replace(":96 ", ":120 ")
            .replace(":97 ", ":124 ")
            .replace("apt=96", "apt=120")
    });
    let binding = &result.senders[0];
    assert_eq!((binding.codec.pt, binding.codec.rtx_pt), (120, Some(124)));
}

#[test]
fn a_client_without_rtx_or_extensions_gets_neither() {
    let mut session = OfferSession::new(params(), true);
    session.add_sender(vp8(1));
    let (_, result) = exchange_with(&mut session, |_, section| {
        let plain = |line: &&str| !line.contains("extmap") && !line.contains(":97 ");
        let lines: Vec<&str> = section.lines().filter(plain).collect();
        lines.join("\r\n").replace("SAVPF 96 97", "SAVPF 96") + "\r\n"
    });
    let binding = &result.senders[0];
    assert_eq!((binding.codec.rtx_pt, binding.rtx_ssrc), (None, None));
    assert!(binding.extensions.is_empty());
    assert!(!binding.codec.feedback.transport_cc && binding.codec.feedback.remb);
}

#[test]
fn a_removed_sender_leaves_an_inactive_section_for_the_next_of_its_kind() {
    let mut session = OfferSession::new(params(), true);
    let first = session.add_sender(vp8(1));
    exchange(&mut session);
    session.remove_sender(first);
    assert!(session.needs_offer());
    session.add_sender(opus(2));
    let (sdp, _) = exchange(&mut session);
    assert_eq!(sdp.section("0").direction(), "inactive");
    assert_eq!(sdp.mids(), ["0", "1", "2"], "audio does not go into a video section");
    session.add_sender(vp8(3));
    let (sdp, result) = exchange(&mut session);
    assert_eq!(sdp.section("0").values("msid:"), ["PA_a3|TR_b3 TR_b3"]);
    assert_eq!(sdp.mids().len(), 3);
    assert_eq!(result.senders.len(), 2);
}

#[test]
fn a_section_does_not_change_hands_within_one_offer() {
    let mut session = OfferSession::new(params(), true);
    let first = session.add_sender(vp8(1));
    exchange(&mut session);
    session.remove_sender(first);
    session.add_sender(vp8(2));
    let (sdp, _) = exchange(&mut session);
    assert_eq!(sdp.section("0").direction(), "inactive");
    assert_eq!(sdp.section("2").direction(), "sendonly");
}

#[test]
fn clients_without_reuse_get_a_new_section_each_time() {
    let mut session = OfferSession::new(SessionParams { reuse_sections: false, ..params() }, true);
    for n in 0..3 {
        let id = session.add_sender(vp8(n));
        exchange(&mut session);
        session.remove_sender(id);
        exchange(&mut session);
    }
    let (sdp, _) = exchange(&mut session);
    assert_eq!(sdp.mids(), ["0", "1", "2", "3"]);
}

#[test]
fn a_rejected_section_is_recycled_under_a_new_mid() {
    let mut session = OfferSession::new(params(), true);
    let hevc = session.add_sender(track(1, &[(Codec::H265, "")]));
    let (_, result) = exchange_with(&mut session, reject("0"));
    assert_eq!(result.unsupported, [hevc]);
    assert!(result.senders.is_empty());
    session.remove_sender(hevc);
    let (sdp, _) = exchange_with(&mut session, reject("0"));
    assert!(sdp.section("0").is_rejected());
    session.add_sender(vp8(2));
    let (sdp, result) = exchange(&mut session);
    assert_eq!(sdp.mids(), ["2", "1"]);
    assert_eq!(result.senders.len(), 1);
}

#[test]
fn a_sender_that_the_client_declines_is_unsupported() {
    let mut session = OfferSession::new(params(), true);
    let id = session.add_sender(vp8(1));
    let (_, result) =
        exchange_with(&mut session, |_, section| section.replace("a=recvonly", "a=inactive"));
    assert_eq!(result.unsupported, [id]);
    assert!(result.needs_offer, "the section must be let go");
    let (sdp, _) = exchange(&mut session);
    assert_eq!(sdp.section("0").direction(), "inactive");
    assert!(!session.needs_offer());
}

#[test]
fn a_track_in_a_disabled_codec_is_reported_and_never_offered() {
    let send = CodecPolicy::default().without(Codec::Av1);
    let mut session = OfferSession::new(SessionParams { send, ..params() }, true);
    let id = session.add_sender(track(1, &[(Codec::Av1, "")]));
    let (sdp, result) = exchange(&mut session);
    assert_eq!(sdp.mids(), ["0"]);
    assert_eq!(result.unsupported, [id]);
    assert!(!result.needs_offer);
}

#[test]
fn only_one_offer_is_in_flight_and_changes_wait_for_its_answer() {
    let mut session = OfferSession::new(params(), true);
    let first = session.add_sender(vp8(1));
    let offer = session.create_offer().unwrap();
    assert!(session.offer_in_flight());
    assert_eq!(session.create_offer(), Err(SdpError::State(Misuse::OfferInFlight)));
    session.remove_sender(first);
    session.add_sender(opus(2));
    let result = session.accept_answer(&answer_to(&offer, |_, it| it)).unwrap();
    assert!(result.senders.is_empty(), "the sender is gone");
    assert!(result.needs_offer);
    let (sdp, result) = exchange(&mut session);
    assert_eq!(sdp.section("0").direction(), "inactive");
    assert_eq!(result.senders.len(), 1);
    assert!(!result.needs_offer);
}

#[test]
fn a_restart_gives_up_the_offer_in_flight_and_repeats_its_sections() {
    let mut session = OfferSession::new(params(), true);
    let first = session.add_sender(vp8(1));
    let lost = session.create_offer().unwrap();
    session.restart_ice(credentials('B'));
    session.remove_sender(first);
    session.add_sender(vp8(2));
    assert!(session.needs_offer());
    let (sdp, _) = exchange(&mut session);
    assert_eq!(sdp.sections[0].values("ice-ufrag:"), ["Babcdefg"]);
    assert_eq!(sdp.mids()[..2], Sdp::read(&lost).mids()[..2]);
    // The client may have seen the lost offer: its section is not handed on at once.
    assert_eq!(sdp.section("0").direction(), "inactive");
    assert!(!session.needs_offer());
}

#[test]
fn answers_that_do_not_mirror_the_offer_are_refused() {
    let mut session = OfferSession::new(params(), true);
    session.add_sender(vp8(1));
    let offer = session.create_offer().unwrap();
    let answer = answer_to(&offer, |_, it| it);
    let fewer = &answer[..answer.find("m=application").unwrap()];
    let renamed = answer.replace("a=mid:0", "a=mid:7").replace("BUNDLE 0 1", "BUNDLE 7 1");
    let retyped = answer.replace("m=video", "m=audio");
    for wrong in [fewer, &renamed, &retyped] {
        let error = session.accept_answer(wrong).unwrap_err();
        assert!(matches!(error, SdpError::SectionsChanged(_)), "{error}");
    }
    assert!(session.accept_answer(&answer).is_ok());
    assert_eq!(session.accept_answer(&answer).unwrap_err(), Misuse::NoLocalOffer.into());
}

#[test]
fn an_answer_that_rejects_everything_is_an_error() {
    let mut session = OfferSession::new(params(), true);
    let offer = session.create_offer().unwrap();
    let answer = answer_to(&offer, reject("0"));
    assert!(matches!(session.accept_answer(&answer), Err(SdpError::Missing(_))));
}

#[test]
fn text_from_a_client_in_a_stream_id_stays_in_its_line() {
    let mut session = OfferSession::new(params(), true);
    let stream_id = "PA_x|a b\r\na=setup:passive".into();
    session.add_sender(SenderSpec { stream_id, ..opus(1) });
    let (sdp, _) = exchange(&mut session);
    assert_eq!(sdp.sections[0].values("msid:"), ["PA_x|a_b__a=setup:passive TR_b1"]);
}
