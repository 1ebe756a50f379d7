//! Writes our descriptions: line by line into one string, since there are thousands of lines in the
//! description of a large room, and one of it for everybody.

use std::fmt::{Display, Write};
use std::sync::Arc;

use sluice_rtp::codec::MediaKind;
use sluice_rtp::ext::ExtensionMap;

use super::bindings::NegotiatedCodec;
use super::candidate::format_candidate;
use super::params::LocalDescription;
use super::remote::Direction;
use crate::Setup;

/// Our SCTP port; nothing but the convention of RFC 8841 examples and every browser.
const SCTP_PORT: &str = "5000";
/// Largest message that we accept, bytes: LiveKit's SCTP limit.
const MAX_MESSAGE_SIZE: &str = "65535";
/// The discard port of sections whose candidates stand in `a=candidate` (RFC 8829 §5.2.1).
const DISCARD_PORT: u16 = 9;
/// `<proto>` of media in our offers.
pub(super) const MEDIA_PROTO: &str = "UDP/TLS/RTP/SAVPF";
/// `<proto>` of data in our offers.
pub(super) const DATA_PROTO: &str = "UDP/DTLS/SCTP";
/// `<fmt>` of data in our offers.
pub(super) const DATA_FORMAT: &str = "webrtc-datachannel";

/// About how long a section is, bytes.
const SECTION_BYTES: usize = 768;

/// A description of ours.
pub(super) struct Description<'a> {
    pub(super) local: &'a LocalDescription,
    pub(super) session_id: u64,
    pub(super) version: u64,
    pub(super) setup: Setup,
    /// Whether `a=extmap-allow-mixed` is written.
    pub(super) allow_mixed: bool,
    pub(super) sections: Vec<Section>,
}

/// One `m=` section of ours.
pub(super) struct Section {
    pub(super) mid: String,
    /// `<media>`.
    pub(super) media: String,
    /// `<proto>`; echoed in answers.
    pub(super) proto: String,
    pub(super) body: Body,
}

pub(super) enum Body {
    /// Port 0 with the formats of the offer.
    Rejected {
        formats: Vec<String>,
    },
    /// SCTP with the format of the offer.
    Data {
        format: String,
    },
    Media(Box<Media>),
}

pub(super) struct Media {
    pub(super) kind: MediaKind,
    pub(super) direction: Direction,
    /// With our `a=fmtp` and the feedback we want or grant.
    pub(super) codecs: Vec<NegotiatedCodec>,
    pub(super) extensions: ExtensionMap,
    /// Rids that we accept.
    pub(super) receive_rids: Vec<String>,
    pub(super) source: Option<Source>,
}

/// What we send on a section.
pub(super) struct Source {
    pub(super) stream_id: Arc<str>,
    pub(super) track_id: Arc<str>,
    /// `None` leaves it to the header extensions of the packets.
    pub(super) ssrc: Option<u32>,
    pub(super) rtx_ssrc: Option<u32>,
}

impl Description<'_> {
    pub(super) fn write(self) -> String {
        let mut out = Lines(String::with_capacity(SECTION_BYTES * (self.sections.len() + 1)));
        out.line('v', 0);
        // The session id is a 63-bit number for many parsers (RFC 8829 §5.2.1).
        let session_id = self.session_id & (u64::MAX >> 1);
        out.line('o', format_args!("- {session_id} {} IN IP4 127.0.0.1", self.version));
        out.line('s', '-');
        out.line('t', "0 0");
        let in_use = || self.sections.iter().filter(|section| !section.is_rejected());
        if in_use().next().is_some() {
            out.list("group", "BUNDLE ", ' ', in_use().map(|section| &section.mid));
        }
        out.flag("ice-lite");
        out.value("ice-options", "trickle");
        if self.allow_mixed {
            out.flag("extmap-allow-mixed");
        }
        out.value("msid-semantic", " WMS *");
        let first_in_use = self.sections.iter().position(|section| !section.is_rejected());
        for (index, section) in self.sections.iter().enumerate() {
            self.section(&mut out, section, Some(index) == first_in_use);
        }
        out.0
    }

    fn section(&self, out: &mut Lines, section: &Section, with_candidates: bool) {
        let Section { mid, media, proto, body } = section;
        let port = if section.is_rejected() { 0 } else { DISCARD_PORT };
        out.line('m', format_args!("{media} {port} {proto}{}", Formats(body)));
        out.line('c', "IN IP4 0.0.0.0");
        out.value("mid", mid);
        match body {
            Body::Rejected { .. } => out.flag(Direction::Inactive.as_str()),
            Body::Data { format } => {
                self.transport(out, with_candidates);
                data(out, format);
            }
            Body::Media(media) => {
                self.transport(out, with_candidates);
                media.write(out);
            }
        }
    }

    /// The transport attributes stand in every section: not every client looks for them only in
    /// the first of the bundle. The candidates stand there alone.
    fn transport(&self, out: &mut Lines, with_candidates: bool) {
        let local = self.local;
        out.value("ice-ufrag", &local.ice.ufrag);
        out.value("ice-pwd", &local.ice.pwd);
        out.value("fingerprint", &local.fingerprint);
        out.value("setup", self.setup.as_str());
        if with_candidates {
            for candidate in &local.candidates {
                out.value("candidate", format_candidate(candidate));
            }
            out.flag("end-of-candidates");
        }
    }
}

impl Section {
    fn is_rejected(&self) -> bool {
        matches!(self.body, Body::Rejected { .. })
    }
}

/// The formats of an `m=` line, a space before each.
struct Formats<'a>(&'a Body);

impl Display for Formats<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Body::Rejected { formats } => formats.iter().try_for_each(|it| write!(f, " {it}")),
            Body::Data { format } => write!(f, " {format}"),
            Body::Media(media) => {
                let pts = media.codecs.iter().flat_map(|codec| [Some(codec.pt), codec.rtx_pt]);
                pts.flatten().try_for_each(|pt| write!(f, " {pt}"))
            }
        }
    }
}

fn data(out: &mut Lines, format: &str) {
    if format == DATA_FORMAT {
        out.value("sctp-port", SCTP_PORT);
    } else {
        // The old syntax names the port as the format (draft-ietf-mmusic-sctp-sdp-07).
        out.value("sctpmap", format_args!("{format} {DATA_FORMAT} 1024"));
    }
    out.value("max-message-size", MAX_MESSAGE_SIZE);
}

impl Media {
    fn write(&self, out: &mut Lines) {
        for (kind, id) in self.extensions.iter() {
            out.value("extmap", format_args!("{id} {}", kind.uri()));
        }
        out.flag(self.direction.as_str());
        if let Some(source) = &self.source {
            out.value("msid", format_args!("{} {}", source.stream_id, source.track_id));
        }
        out.flag("rtcp-mux");
        out.flag("rtcp-rsize");
        for codec in &self.codecs {
            write_codec(out, codec);
        }
        if let Some(source) = &self.source {
            source.write(out);
        }
        for rid in &self.receive_rids {
            out.value("rid", format_args!("{rid} recv"));
        }
        if !self.receive_rids.is_empty() {
            out.list("simulcast", "recv ", ';', &self.receive_rids);
        }
    }
}

fn write_codec(out: &mut Lines, codec: &NegotiatedCodec) {
    let (pt, name, clock) = (codec.pt, codec.codec.name(), codec.clock_rate);
    match codec.codec.channels() {
        Some(channels) => out.value("rtpmap", format_args!("{pt} {name}/{clock}/{channels}")),
        None => out.value("rtpmap", format_args!("{pt} {name}/{clock}")),
    }
    for feedback in codec.feedback.values() {
        out.value("rtcp-fb", format_args!("{pt} {feedback}"));
    }
    if !codec.fmtp.is_empty() {
        out.value("fmtp", format_args!("{pt} {}", codec.fmtp));
    }
    if let Some(rtx) = codec.rtx_pt {
        out.value("rtpmap", format_args!("{rtx} rtx/{clock}"));
        out.value("fmtp", format_args!("{rtx} apt={pt}"));
    }
}

impl Source {
    fn write(&self, out: &mut Lines) {
        if let (Some(ssrc), Some(rtx)) = (self.ssrc, self.rtx_ssrc) {
            out.value("ssrc-group", format_args!("FID {ssrc} {rtx}"));
        }
        for ssrc in [self.ssrc, self.rtx_ssrc].into_iter().flatten() {
            out.value("ssrc", format_args!("{ssrc} cname:{}", self.stream_id));
        }
    }
}

/// A description in the making. Writing to a string cannot fail.
struct Lines(String);

impl Lines {
    fn line(&mut self, kind: char, value: impl Display) {
        let _ = write!(self.0, "{kind}={value}\r\n");
    }

    fn flag(&mut self, key: &str) {
        self.line('a', key);
    }

    fn value(&mut self, key: &str, value: impl Display) {
        self.line('a', format_args!("{key}:{value}"));
    }

    /// An attribute with a list of words behind `head`.
    fn list<'a>(
        &mut self,
        key: &str,
        head: &str,
        separator: char,
        words: impl IntoIterator<Item = &'a String>,
    ) {
        let _ = write!(self.0, "a={key}:{head}");
        for (index, word) in words.into_iter().enumerate() {
            if index > 0 {
                self.0.push(separator);
            }
            self.0.push_str(word);
        }
        self.0.push_str("\r\n");
    }
}
