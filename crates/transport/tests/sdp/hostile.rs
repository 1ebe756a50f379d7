//! Descriptions from someone who wants us to fall over.

use proptest::prelude::*;
use sluice_transport::sdp::{AnswerSession, OfferSession, SdpError};

use crate::support::{OFFERS, Sdp, golden, opus, params, vp8};

const BASE: &str = "chromium-av-simulcast-vp8";

fn refused(offer: &str) -> SdpError {
    AnswerSession::new(params()).accept_offer(offer).unwrap_err()
}

fn with_lines(lines: &str) -> String {
    golden(BASE).replace("a=simulcast:send q;h;f\r\n", lines)
}

#[test]
fn each_flood_hits_the_limit_that_names_it() {
    let many = |n: u32, line: &dyn Fn(u32) -> String| (0..n).map(line).collect::<String>();
    for (offer, name) in [
        (format!("{}{}", golden(BASE), "a=x\r\n".repeat(200_000)), "bytes"),
        (golden(BASE).to_owned() + &many(2000, &|_| "a=x\r\n".into()), "attributes of a section"),
        (
            golden(BASE).to_owned() + &many(2000, &|n| format!("m=audio 9 X {n}\r\n")),
            "media sections",
        ),
        (golden(BASE).to_owned() + &format!("a={}\r\n", "x".repeat(9000)), "line length"),
        (with_lines(&many(99, &|n| format!("a=rid:r{n} send\r\n"))), "rids of a section"),
        (with_lines(&many(99, &|n| format!("a=ssrc:{} cname:x\r\n", n + 1))), "SSRCs of a section"),
        (
            golden(BASE).replace("SAVPF 96 97", &format!("SAVPF {} 97", "96 ".repeat(200))),
            "payload types of a section",
        ),
        (golden(BASE).replace("a=mid:0", &format!("a=mid:{}", "0".repeat(99))), "length of a=mid"),
    ] {
        assert_eq!(refused(&offer), SdpError::LimitExceeded(name));
    }
}

#[test]
fn candidates_beyond_the_limit_are_ignored() {
    let line = "a=candidate:1 1 udp 1 192.0.2.1 7000 typ host\r\n";
    let mut session = AnswerSession::new(params());
    let offer = session.accept_offer(&with_lines(&line.repeat(500))).unwrap();
    assert!(offer.candidates.len() <= params().limits.candidates);
}

#[test]
fn duplicate_mids_and_control_characters_are_refused() {
    let twice = golden(BASE).replace("a=mid:1", "a=mid:0");
    assert!(matches!(refused(&twice), SdpError::Conflict(_)));
    let bell = golden(BASE).replace("a=mid:0", "a=mid:0\u{7}");
    assert!(matches!(refused(&bell), SdpError::Syntax(_)));
}

#[test]
fn text_that_is_not_sdp_is_refused() {
    for text in ["", "\0", "v=0", "m=audio", "{\"type\":\"offer\"}", "v=1\r\no=\r\n", "a=x\r\nv=0"]
    {
        refused(text);
    }
}

#[test]
fn absurd_numbers_are_as_if_absent() {
    let offer = golden(BASE)
        .replace("a=rtpmap:96 VP8/90000", "a=rtpmap:99999999999 VP8/90000")
        .replace("a=extmap:4 ", "a=extmap:300 ")
        .replace("a=sctp-port:5000", "a=sctp-port:99999999")
        .replace("a=max-message-size:262144", "a=max-message-size:-1")
        .replace("apt=102", "apt=102000");
    let mut session = AnswerSession::new(params());
    let accepted = session.accept_offer(&offer).unwrap();
    assert_eq!(accepted.remote.sctp.unwrap().port, 5000);
    Sdp::read(&session.create_answer().unwrap().sdp).assert_well_formed();
}

/// Drives both sessions with a text; whatever they make of it, they stay usable.
fn feed(text: &str) {
    let mut answering = AnswerSession::new(params());
    answering.add_sender(vp8(1));
    if answering.accept_offer(text).is_ok() {
        let answer = answering.create_answer().unwrap();
        Sdp::read(&answer.sdp).assert_well_formed();
        let _ = answering.accept_offer(text);
        let _ = answering.create_answer();
    }
    let mut offering = OfferSession::new(params(), true);
    offering.add_sender(opus(1));
    offering.create_offer().unwrap();
    let _ = offering.accept_answer(text);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mangled_descriptions_never_panic(
        which in 0..OFFERS.len(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..40, "[ -~\r\n]{0,12}"), 0..8),
    ) {
        let mut text = OFFERS[which].1.to_owned();
        for (at, len, insert) in cuts {
            let start = at.index(text.len().max(1)).min(text.len());
            let end = (start + len).min(text.len());
            text.replace_range(start..end, &insert);
        }
        let mut answering = AnswerSession::new(params());
        answering.add_sender(vp8(1));
        if answering.accept_offer(&text).is_ok() {
            let sdp = answering.create_answer().unwrap().sdp;
            // What we write can be read again, unless nothing was left to write.
            let again = AnswerSession::new(params()).accept_offer(&sdp);
            prop_assert!(again.is_ok() || !sdp.contains("BUNDLE"));
        }
    }

    #[test]
    fn shuffled_lines_never_panic(which in 0..OFFERS.len(), seed in proptest::collection::vec(any::<prop::sample::Index>(), 0..60)) {
        let mut lines: Vec<&str> = OFFERS[which].1.lines().collect();
        for pair in seed.chunks_exact(2) {
            let (a, b) = (pair[0].index(lines.len()), pair[1].index(lines.len()));
            if a > 5 && b > 5 {
                lines.swap(a, b);
            }
        }
        let text = lines.join("\r\n");
        let mut answering = AnswerSession::new(params());
        if answering.accept_offer(&text).is_ok() {
            answering.create_answer().unwrap();
        }
        let mut offering = OfferSession::new(params(), true);
        offering.create_offer().unwrap();
        let _ = offering.accept_answer(&text);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,400}") {
        feed(&text);
    }
}
