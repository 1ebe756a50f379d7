//! Session descriptions and trickled candidates. The first byte chooses what the text is: an offer
//! (twice, with a sender), an answer to an offer of ours, or a candidate.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_rtp::Codec;
use sluice_transport::sdp::{
    AnswerSession, CodecParameters, CodecPolicy, Limits, LocalDescription, OfferSession,
    RemoteCandidate, SenderSpec, SessionParams, format_candidate, host_candidate, parse_candidate,
    parse_candidate_init,
};
use sluice_transport::{IceCredentials, TransportProto};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match choice {
        b'o' => offer(text),
        b'a' => answer(text),
        _ => candidate(text),
    }
});

fn offer(text: &str) {
    let mut session = AnswerSession::new(params());
    session.add_sender(sender(1, Codec::Opus));
    session.add_sender(sender(2, Codec::H264));
    let Ok(first) = session.accept_offer(text) else { return };
    let answer = session.create_answer().expect("an accepted offer is answered");
    assert!(answer.senders.len() + answer.unsupported.len() <= 2);
    assert!(answer.receivers.len() <= first.sections.len());

    let again = session.accept_offer(text).expect("the same offer fits what it made");
    assert!(!again.ice_restart);
    let second = session.create_answer().expect("an accepted offer is answered");
    assert!(second.senders.iter().all(|binding| !binding.changed));
    assert_eq!(second.mid_to_sender, answer.mid_to_sender);

    // What we write can be read, unless every section was rejected.
    let written = AnswerSession::new(params()).accept_offer(&answer.sdp);
    assert!(written.is_ok() || !answer.sdp.contains("a=group:BUNDLE"), "{written:?}");
}

fn answer(text: &str) {
    let mut session = OfferSession::new(params(), true);
    session.add_sender(sender(1, Codec::Opus));
    session.add_sender(sender(2, Codec::Vp8));
    session.create_offer().expect("nothing is in flight");
    let Ok(result) = session.accept_answer(text) else {
        assert!(session.offer_in_flight());
        return;
    };
    assert_eq!(result.senders.len() + result.unsupported.len(), 2);
    session.create_offer().expect("nothing is in flight");
}

fn candidate(text: &str) {
    let _ = parse_candidate_init(text);
    if let Ok(RemoteCandidate::Address(candidate)) = parse_candidate(text) {
        let line = format_candidate(&candidate);
        assert_eq!(parse_candidate(&line), Ok(RemoteCandidate::Address(candidate)));
    }
}

fn sender(n: u32, codec: Codec) -> SenderSpec {
    SenderSpec {
        kind: codec.kind(),
        codecs: [CodecParameters::new(codec, "")].into(),
        stream_id: format!("PA_{n}|TR_{n}").into(),
        track_id: format!("TR_{n}").into(),
        ssrc: n,
        rtx_ssrc: Some(n + 100),
        stereo: true,
    }
}

fn params() -> SessionParams {
    let fingerprint = format!("sha-256 {}", ["AB"; 32].join(":"));
    SessionParams {
        local: LocalDescription {
            ice: IceCredentials { ufrag: "abcd".into(), pwd: "abcdefghijklmnopqrstuvwx".into() },
            fingerprint: fingerprint.parse().expect("a fingerprint"),
            candidates: vec![host_candidate(([192, 0, 2, 1], 7882).into(), TransportProto::Udp, 0)],
        },
        receive: CodecPolicy::default(),
        send: CodecPolicy::default(),
        session_id: 1,
        reuse_sections: true,
        playout_delay: true,
        limits: Limits::default(),
    }
}
