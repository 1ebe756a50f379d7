//! Writes our descriptions.

use std::sync::Arc;

use rtc_sdp::description::common::{Address, Attribute, ConnectionInformation};
use rtc_sdp::description::media::{MediaDescription, MediaName, RangedPort};
use rtc_sdp::description::session::{Origin, SessionDescription, TimeDescription};
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
const DISCARD_PORT: isize = 9;
/// `<proto>` of media in our offers.
pub(super) const MEDIA_PROTO: &str = "UDP/TLS/RTP/SAVPF";
/// `<proto>` of data in our offers.
pub(super) const DATA_PROTO: &str = "UDP/DTLS/SCTP";
/// `<fmt>` of data in our offers.
pub(super) const DATA_FORMAT: &str = "webrtc-datachannel";

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
        let mids: Vec<&str> = self
            .sections
            .iter()
            .filter(|section| !section.is_rejected())
            .map(|section| section.mid.as_str())
            .collect();
        let mut session = Attributes::default();
        if !mids.is_empty() {
            session.value("group", format!("BUNDLE {}", mids.join(" ")));
        }
        session.flag("ice-lite");
        session.value("ice-options", "trickle");
        if self.allow_mixed {
            session.flag("extmap-allow-mixed");
        }
        session.value("msid-semantic", " WMS *");

        let first_in_use = self.sections.iter().position(|section| !section.is_rejected());
        let media_descriptions = self
            .sections
            .iter()
            .enumerate()
            .map(|(index, section)| self.section(section, Some(index) == first_in_use))
            .collect();
        let description = SessionDescription {
            version: 0,
            origin: Origin {
                username: "-".to_owned(),
                // The session id is a 63-bit number for many parsers (RFC 8829 §5.2.1).
                session_id: self.session_id & (u64::MAX >> 1),
                session_version: self.version,
                network_type: "IN".to_owned(),
                address_type: "IP4".to_owned(),
                unicast_address: "127.0.0.1".to_owned(),
            },
            session_name: "-".to_owned(),
            time_descriptions: vec![TimeDescription::default()],
            attributes: session.0,
            media_descriptions,
            ..SessionDescription::default()
        };
        description.marshal()
    }

    fn section(&self, section: &Section, with_candidates: bool) -> MediaDescription {
        let mut attributes = Attributes::default();
        attributes.value("mid", &section.mid);
        let formats = match &section.body {
            Body::Rejected { formats } => {
                attributes.flag(Direction::Inactive.as_str());
                formats.clone()
            }
            Body::Data { format } => {
                self.transport(&mut attributes, with_candidates);
                data(&mut attributes, format);
                vec![format.clone()]
            }
            Body::Media(media) => {
                self.transport(&mut attributes, with_candidates);
                media.write(&mut attributes);
                media.formats()
            }
        };
        MediaDescription {
            media_name: MediaName {
                media: section.media.clone(),
                port: RangedPort {
                    value: if section.is_rejected() { 0 } else { DISCARD_PORT },
                    range: None,
                },
                protos: section.proto.split('/').map(str::to_owned).collect(),
                formats,
            },
            connection_information: Some(ConnectionInformation {
                network_type: "IN".to_owned(),
                address_type: "IP4".to_owned(),
                address: Some(Address { address: "0.0.0.0".to_owned(), ttl: None, range: None }),
            }),
            attributes: attributes.0,
            ..MediaDescription::default()
        }
    }

    /// The transport attributes stand in every section: not every client looks for them only in
    /// the first of the bundle. The candidates stand there alone.
    fn transport(&self, attributes: &mut Attributes, with_candidates: bool) {
        let local = self.local;
        attributes.value("ice-ufrag", &local.ice.ufrag);
        attributes.value("ice-pwd", &local.ice.pwd);
        attributes.value("fingerprint", local.fingerprint.to_string());
        attributes.value("setup", self.setup.as_str());
        if with_candidates {
            for candidate in &local.candidates {
                attributes.value("candidate", format_candidate(candidate));
            }
            attributes.flag("end-of-candidates");
        }
    }
}

impl Section {
    fn is_rejected(&self) -> bool {
        matches!(self.body, Body::Rejected { .. })
    }
}

fn data(attributes: &mut Attributes, format: &str) {
    if format == DATA_FORMAT {
        attributes.value("sctp-port", SCTP_PORT);
    } else {
        // The old syntax names the port as the format (draft-ietf-mmusic-sctp-sdp-07).
        attributes.value("sctpmap", format!("{format} {DATA_FORMAT} 1024"));
    }
    attributes.value("max-message-size", MAX_MESSAGE_SIZE);
}

impl Media {
    fn formats(&self) -> Vec<String> {
        let codecs = self.codecs.iter();
        codecs
            .flat_map(|codec| [Some(codec.pt), codec.rtx_pt])
            .flatten()
            .map(|pt| pt.to_string())
            .collect()
    }

    fn write(&self, attributes: &mut Attributes) {
        for (kind, id) in self.extensions.iter() {
            attributes.value("extmap", format!("{id} {}", kind.uri()));
        }
        attributes.flag(self.direction.as_str());
        if let Some(source) = &self.source {
            attributes.value("msid", format!("{} {}", source.stream_id, source.track_id));
        }
        attributes.flag("rtcp-mux");
        attributes.flag("rtcp-rsize");
        for codec in &self.codecs {
            write_codec(attributes, codec);
        }
        if let Some(source) = &self.source {
            source.write(attributes);
        }
        for rid in &self.receive_rids {
            attributes.value("rid", format!("{rid} recv"));
        }
        if !self.receive_rids.is_empty() {
            attributes.value("simulcast", format!("recv {}", self.receive_rids.join(";")));
        }
    }
}

fn write_codec(attributes: &mut Attributes, codec: &NegotiatedCodec) {
    let (pt, name, clock) = (codec.pt, codec.codec.name(), codec.clock_rate);
    let channels = codec.codec.channels().map(|count| format!("/{count}")).unwrap_or_default();
    attributes.value("rtpmap", format!("{pt} {name}/{clock}{channels}"));
    for feedback in codec.feedback.values() {
        attributes.value("rtcp-fb", format!("{pt} {feedback}"));
    }
    if !codec.fmtp.is_empty() {
        attributes.value("fmtp", format!("{pt} {}", codec.fmtp));
    }
    if let Some(rtx) = codec.rtx_pt {
        attributes.value("rtpmap", format!("{rtx} rtx/{clock}"));
        attributes.value("fmtp", format!("{rtx} apt={pt}"));
    }
}

impl Source {
    fn write(&self, attributes: &mut Attributes) {
        if let (Some(ssrc), Some(rtx)) = (self.ssrc, self.rtx_ssrc) {
            attributes.value("ssrc-group", format!("FID {ssrc} {rtx}"));
        }
        for ssrc in [self.ssrc, self.rtx_ssrc].into_iter().flatten() {
            attributes.value("ssrc", format!("{ssrc} cname:{}", self.stream_id));
        }
    }
}

/// Attributes in the making.
#[derive(Default)]
struct Attributes(Vec<Attribute>);

impl Attributes {
    fn flag(&mut self, key: &str) {
        self.0.push(Attribute::new(key.to_owned(), None));
    }

    fn value(&mut self, key: &str, value: impl Into<String>) {
        self.0.push(Attribute::new(key.to_owned(), Some(value.into())));
    }
}
