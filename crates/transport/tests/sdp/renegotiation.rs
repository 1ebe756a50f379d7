//! Random histories: senders come and go, offers and answers cross, and what was once said stays
//! true.

use std::collections::HashMap;

use proptest::prelude::*;
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::{AnswerSession, OfferSession, SenderId, SenderSpec, SessionParams};

use crate::offer::answer_to;
use crate::support::{Sdp, credentials, params, track};

/// Largest number of senders alive at once.
const MAX_SENDERS: usize = 12;

#[derive(Debug, Clone)]
enum Step {
    Add(usize),
    Remove(prop::sample::Index),
    Negotiate { reject: Option<prop::sample::Index> },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..6).prop_map(Step::Add),
        3 => any::<prop::sample::Index>().prop_map(Step::Remove),
        4 => proptest::option::weighted(0.2, any::<prop::sample::Index>())
            .prop_map(|reject| Step::Negotiate { reject }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

fn spec(n: u32, which: usize) -> SenderSpec {
    let codecs: &[(Codec, &str)] = match which {
        0 => &[(Codec::Opus, "")],
        1 => &[(Codec::Red, ""), (Codec::Opus, "")],
        2 => &[(Codec::Vp8, "")],
        3 => &[(Codec::H264, "packetization-mode=1;profile-level-id=42e01f")],
        4 => &[(Codec::Vp9, "profile-id=0"), (Codec::Vp8, "")],
        _ => &[(Codec::Av1, "")],
    };
    track(n, codecs)
}

/// What a reader has seen of a connection; each new description must agree.
#[derive(Default)]
struct History {
    sections: Vec<(String, String, bool)>,
    meaning: HashMap<String, String>,
    /// Stream of each section in the latest description.
    streams: HashMap<String, String>,
}

impl History {
    fn check(&mut self, sdp: &Sdp) {
        sdp.assert_well_formed();
        assert!(sdp.sections.len() >= self.sections.len());
        for (section, (mid, media, rejected)) in sdp.sections.iter().zip(&self.sections) {
            assert_eq!(section.media(), media);
            assert!(section.mid() == mid || *rejected, "{mid} became {}", section.mid());
        }
        let mut streams = HashMap::new();
        for section in sdp.sections.iter().filter(|it| it.is_media() && !it.is_rejected()) {
            for pt in section.formats() {
                let map = section.rtpmap(pt).unwrap().to_owned();
                let known = self.meaning.entry(format!("pt {pt}")).or_insert_with(|| map.clone());
                assert_eq!(*known, map);
            }
            for entry in section.values("extmap:") {
                let (id, uri) = entry.split_once(' ').unwrap();
                let known =
                    self.meaning.entry(format!("ext {id}")).or_insert_with(|| uri.to_owned());
                assert_eq!(known, uri);
            }
            if let Some(stream) = section.values("msid:").first() {
                let before = self.streams.get(section.mid());
                assert!(before.is_none_or(|it| it == stream), "a section changed hands directly");
                streams.insert(section.mid().to_owned(), (*stream).to_owned());
            }
        }
        self.streams = streams;
        self.sections = sdp
            .sections
            .iter()
            .map(|it| (it.mid().to_owned(), it.media().to_owned(), it.is_rejected()))
            .collect();
    }

    /// The answerer rejected a section; it may come back under another mid.
    fn reject(&mut self, mid: &str) {
        for section in self.sections.iter_mut().filter(|section| section.0 == mid) {
            section.2 = true;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn offers_agree_with_all_earlier_ones(steps in steps(), reuse in any::<bool>()) {
        let mut session =
            OfferSession::new(SessionParams { reuse_sections: reuse, ..params() }, true);
        let mut history = History::default();
        let mut alive: Vec<SenderId> = Vec::new();
        for (n, step) in (0u32..).zip(steps) {
            match step {
                Step::Add(which) if alive.len() < MAX_SENDERS => {
                    alive.push(session.add_sender(spec(n, which)));
                }
                Step::Add(_) => {}
                Step::Remove(index) if !alive.is_empty() => {
                    session.remove_sender(alive.swap_remove(index.index(alive.len())));
                }
                Step::Remove(_) => {}
                Step::Restart => session.restart_ice(credentials('B')),
                Step::Negotiate { reject } => {
                    let offer = session.create_offer().unwrap();
                    let sdp = Sdp::read(&offer);
                    history.check(&sdp);
                    let mids = sdp.mids();
                    let media: Vec<&str> = mids
                        .iter()
                        .copied()
                        .filter(|mid| sdp.section(mid).is_media() && !sdp.section(mid).is_rejected())
                        .collect();
                    let rejected = reject
                        .filter(|_| !media.is_empty())
                        .map(|index| media[index.index(media.len())].to_owned());
                    let answer = answer_to(&offer, |mid, section| match &rejected {
                        Some(rejected) if rejected == mid => section.replacen(" 9 UDP", " 0 UDP", 1),
                        _ => section,
                    });
                    let result = session.accept_answer(&answer).unwrap();
                    if let Some(rejected) = &rejected {
                        history.reject(rejected);
                    }
                    let accounted = result.senders.len() + result.unsupported.len();
                    prop_assert_eq!(accounted, alive.len(), "every sender is somewhere");
                    for binding in &result.senders {
                        prop_assert!(alive.contains(&binding.id));
                        prop_assert_eq!(sdp.section(&binding.mid).direction(), "sendonly");
                    }
                }
            }
        }
    }

    #[test]
    fn answers_fill_the_sections_of_a_client_that_meets_every_requirement(steps in steps()) {
        let mut session = AnswerSession::new(params());
        let mut client = Client::default();
        let mut history = History::default();
        let mut alive: Vec<SenderId> = Vec::new();
        for (n, step) in (0u32..).zip(steps) {
            match step {
                Step::Add(which) if alive.len() < MAX_SENDERS => {
                    alive.push(session.add_sender(spec(n, which)));
                }
                Step::Remove(index) if !alive.is_empty() => {
                    session.remove_sender(alive.swap_remove(index.index(alive.len())));
                }
                Step::Negotiate { .. } => {
                    if let Some(requirement) = session.take_requirement() {
                        client.grow(MediaKind::Audio, requirement.audios);
                        client.grow(MediaKind::Video, requirement.videos);
                    }
                    session.accept_offer(&client.offer()).unwrap();
                    let answer = session.create_answer().unwrap();
                    let sdp = Sdp::read(&answer.sdp);
                    history.check(&sdp);
                    prop_assert_eq!(sdp.mids(), client.mids());
                    prop_assert_eq!(answer.senders.len(), alive.len(), "all requirements are met");
                    prop_assert!(!session.needs_offer());
                }
                _ => {}
            }
        }
        prop_assert!(client.sections.len() <= 2 * 2 * MAX_SENDERS + 1, "sections are reused");
    }
}

/// A single-connection client: receiving sections that only grow in number.
#[derive(Default)]
struct Client {
    sections: Vec<MediaKind>,
}

impl Client {
    fn grow(&mut self, kind: MediaKind, count: u32) {
        self.sections.extend((0..count).map(|_| kind));
    }

    fn mids(&self) -> Vec<String> {
        (0..=self.sections.len()).map(|mid| mid.to_string()).collect()
    }

    fn offer(&self) -> String {
        let transport = format!(
            "a=ice-ufrag:peer\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
             a=fingerprint:sha-256 {}\r\na=setup:actpass\r\n",
            ["CD"; 32].join(":")
        );
        let mut sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
             m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n{transport}",
            self.mids().join(" ")
        );
        for (index, kind) in self.sections.iter().enumerate() {
            let codecs = match kind {
                MediaKind::Audio => {
                    "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=rtpmap:111 opus/48000/2\r\n\
                     a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"
                }
                MediaKind::Video => {
                    "m=video 9 UDP/TLS/RTP/SAVPF 96 97 108 98 45\r\na=rtpmap:96 VP8/90000\r\n\
                     a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtcp-fb:96 nack\r\n\
                     a=rtpmap:108 H264/90000\r\n\
                     a=fmtp:108 packetization-mode=1;profile-level-id=42e01f\r\n\
                     a=rtpmap:98 VP9/90000\r\na=rtpmap:45 AV1/90000\r\n"
                }
            };
            sdp += &format!(
                "{codecs}a=mid:{}\r\n{transport}a=recvonly\r\na=rtcp-mux\r\n\
                 a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n",
                index + 1
            );
        }
        sdp
    }
}
