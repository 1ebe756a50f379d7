//! Just enough SDP: what clients offer and answer.

use sluice_proto as proto;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Microphone,
    Camera,
}

impl Kind {
    pub(crate) fn request(self, cid: &str) -> proto::AddTrackRequest {
        let (kind, source) = match self {
            Self::Microphone => (proto::TrackType::Audio, proto::TrackSource::Microphone),
            Self::Camera => (proto::TrackType::Video, proto::TrackSource::Camera),
        };
        proto::AddTrackRequest {
            cid: cid.into(),
            name: "a track".into(),
            r#type: kind.into(),
            source: source.into(),
            width: if self == Self::Camera { 1280 } else { 0 },
            height: if self == Self::Camera { 720 } else { 0 },
            ..Default::default()
        }
    }
}

/// One section of a client's offer.
pub(crate) struct Section(String);

pub(crate) fn data(mid: &str) -> Section {
    Section(format!(
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
         a=sctp-port:5000\r\na=max-message-size:262144\r\n"
    ))
}

/// A section as a test writes it, without its transport.
pub(crate) fn custom(text: &str) -> Section {
    Section(text.into())
}

pub(crate) fn sending(kind: Kind, mid: &str, track: &str) -> Section {
    media(kind, mid, "sendonly", &format!("a=msid:stream {track}\r\n"))
}

pub(crate) fn receiving(kind: Kind, mid: &str) -> Section {
    media(kind, mid, "recvonly", "")
}

pub(crate) fn idle(kind: Kind, mid: &str) -> Section {
    media(kind, mid, "inactive", "")
}

/// A camera with three encodings.
pub(crate) fn simulcast(mid: &str, track: &str) -> Section {
    let rids = "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n";
    media(Kind::Camera, mid, "sendonly", &format!("a=msid:stream {track}\r\n{rids}"))
}

/// A microphone of a client that can send redundancy.
pub(crate) fn sending_red(mid: &str, track: &str) -> Section {
    let Section(section) = sending(Kind::Microphone, mid, track);
    let section = section.replace("SAVPF 111", "SAVPF 111 63");
    Section(section + "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n")
}

fn media(kind: Kind, mid: &str, direction: &str, more: &str) -> Section {
    let head = match kind {
        Kind::Microphone => {
            "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:111 opus/48000/2\r\n\
             a=fmtp:111 minptime=10;useinbandfec=1\r\n\
             a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
        }
        Kind::Camera => {
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:96 VP8/90000\r\n\
             a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 transport-cc\r\n\
             a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
             a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"
        }
    };
    Section(format!("{head}a=rtcp-mux\r\na=rtcp-rsize\r\na=mid:{mid}\r\na={direction}\r\n{more}"))
}

fn transport_lines(ufrag: &str, setup: &str) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {}\r\na=setup:{setup}\r\n",
        "x".repeat(24),
        ["CD"; 32].join(":")
    )
}

fn session_lines(mids: &[&str]) -> String {
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n",
        mids.join(" ")
    )
}

/// A client's offer.
pub(crate) fn offer_sdp(ufrag: &str, sections: &[Section]) -> String {
    let mids: Vec<&str> = sections.iter().map(|section| value(&section.0, "a=mid:")).collect();
    let mut sdp = session_lines(&mids);
    for Section(section) in sections {
        sdp.push_str(section);
        sdp.push_str(&transport_lines(ufrag, "actpass"));
    }
    sdp
}

fn value<'a>(section: &'a str, key: &str) -> &'a str {
    section.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim()
}

/// A client's answer that takes everything in an offer of ours.
pub(crate) fn answer_sdp(offer: &str) -> String {
    let kept = ["m=", "c=", "a=mid:", "a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "a=extmap:"];
    let kept_whole = ["a=rtcp-mux", "a=rtcp-rsize", "a=inactive"];
    let mut mids = Vec::new();
    let mut sections = String::new();
    let mut in_section = false;
    for line in offer.lines().map(str::trim) {
        if line.starts_with("m=") {
            in_section = true;
        }
        if !in_section {
            continue;
        }
        if kept.iter().any(|prefix| line.starts_with(prefix)) || kept_whole.contains(&line) {
            sections.push_str(&format!("{line}\r\n"));
        } else if line == "a=sendonly" {
            sections.push_str("a=recvonly\r\n");
        } else if line.starts_with("a=sctp-port") {
            sections.push_str("a=sctp-port:5000\r\na=max-message-size:262144\r\n");
        }
        if let Some(mid) = line.strip_prefix("a=mid:") {
            mids.push(mid);
            sections.push_str(&transport_lines("ansr", "active"));
        }
    }
    format!("{}{sections}", session_lines(&mids))
}
