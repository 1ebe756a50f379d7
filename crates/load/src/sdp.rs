//! Session descriptions as a client needs them: reads what a server offers or answers, writes the
//! answers of a receiving connection and the offers of a sending one. Only what a load tester acts
//! on is understood; everything else is echoed or ignored.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context, bail};
use sluice_rtp::ExtensionKind;
use sluice_transport::sdp::{RemoteCandidate, format_candidate, host_candidate, parse_candidate};
use sluice_transport::{
    Fingerprint, IceCredentials, RemoteParams, SctpParams, Setup, TransportProto,
};

/// Rids of simulcast layers, lowest first, as LiveKit's clients name them.
pub(crate) const RIDS: [&str; 3] = ["q", "h", "f"];

/// Payload types of our offers, as Chromium and LiveKit use them.
pub(crate) const OPUS_PT: u8 = 111;
/// See [`OPUS_PT`].
pub(crate) const VP8_PT: u8 = 96;
/// See [`OPUS_PT`].
pub(crate) const VP8_RTX_PT: u8 = 97;

/// Header extensions of our offers.
const OFFERED: [(u8, ExtensionKind); 6] = [
    (1, ExtensionKind::AudioLevel),
    (2, ExtensionKind::AbsSendTime),
    (3, ExtensionKind::TransportCc),
    (4, ExtensionKind::Mid),
    (10, ExtensionKind::Rid),
    (11, ExtensionKind::RepairedRid),
];

/// What a media section carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Video,
    Application,
    Other,
}

/// One payload type of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) pt: u8,
    /// Encoding name in lower case.
    pub(crate) name: String,
    pub(crate) clock_rate: u32,
    /// Value of `a=fmtp` behind the payload type.
    pub(crate) fmtp: String,
}

/// One `m=` section.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) kind: Kind,
    pub(crate) mid: String,
    /// The sender of the description sends here.
    pub(crate) sends: bool,
    pub(crate) rejected: bool,
    pub(crate) formats: Vec<Format>,
    pub(crate) extensions: Vec<(u8, String)>,
    /// Stream and track of `a=msid`.
    pub(crate) msid: Option<(String, String)>,
    /// SSRCs in the order of their first line.
    pub(crate) ssrcs: Vec<u32>,
    /// `FID` groups: media and repair.
    pub(crate) repairs: Vec<(u32, u32)>,
    /// Words of the `m=` line and lines that an answer echoes.
    media_line: Vec<String>,
    echoed: Vec<String>,
}

/// A description of the server.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) remote: RemoteParams,
    pub(crate) ice_lite: bool,
    /// UDP candidates with literal addresses.
    pub(crate) candidates: Vec<SocketAddr>,
    pub(crate) sections: Vec<Section>,
}

#[derive(Debug, Default)]
struct Transport {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprints: Vec<Fingerprint>,
    setup: Option<Setup>,
    sctp_port: Option<u16>,
    max_message_size: Option<u32>,
}

impl Description {
    /// Reads an offer or an answer.
    ///
    /// # Errors
    /// The server's description lacks ICE credentials or a fingerprint, or a line is malformed.
    pub(crate) fn parse(sdp: &str) -> anyhow::Result<Self> {
        let mut transport = Transport::default();
        let mut ice_lite = false;
        let mut candidates = Vec::new();
        let mut sections: Vec<Section> = Vec::new();
        for line in sdp.lines().map(str::trim_end) {
            if let Some(media) = line.strip_prefix("m=") {
                sections.push(Section::new(media)?);
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else { continue };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            match name {
                "ice-lite" => ice_lite = true,
                "candidate" => candidates.extend(udp_candidate(value)),
                _ if transport.take(name, value)? => {}
                _ => {
                    if let Some(section) = sections.last_mut() {
                        section.take(name, value, line)?;
                    }
                }
            }
        }
        let has_data = sections.iter().any(|s| s.kind == Kind::Application && !s.rejected);
        Ok(Self { remote: transport.finish(has_data)?, ice_lite, candidates, sections })
    }
}

impl Transport {
    /// Takes a line of the bundle's transport; sections repeat the same.
    fn take(&mut self, name: &str, value: &str) -> anyhow::Result<bool> {
        match name {
            "ice-ufrag" => self.ufrag = Some(value.to_owned()),
            "ice-pwd" => self.pwd = Some(value.to_owned()),
            "fingerprint" => {
                // Hashes that nobody should use are skipped.
                if let Ok(fingerprint) = Fingerprint::from_str(value)
                    && !self.fingerprints.contains(&fingerprint)
                {
                    self.fingerprints.push(fingerprint);
                }
            }
            "setup" => {
                self.setup = Some(match value {
                    "active" => Setup::Active,
                    "passive" => Setup::Passive,
                    _ => Setup::ActPass,
                });
            }
            "sctp-port" => self.sctp_port = Some(value.parse().context("a=sctp-port")?),
            "max-message-size" => {
                self.max_message_size = Some(value.parse().context("a=max-message-size")?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(self, has_data: bool) -> anyhow::Result<RemoteParams> {
        let ufrag = self.ufrag.context("the description has no ICE credentials")?;
        let pwd = self.pwd.context("the description has no ICE password")?;
        if self.fingerprints.is_empty() {
            bail!("the description has no usable fingerprint");
        }
        let sctp = SctpParams {
            port: self.sctp_port.unwrap_or(5000),
            max_message_size: self.max_message_size.unwrap_or(65_536),
        };
        Ok(RemoteParams {
            ice: IceCredentials { ufrag, pwd },
            fingerprints: self.fingerprints,
            // We take the client role whenever the server lets us choose.
            setup: match self.setup {
                Some(Setup::Active) => Setup::Active,
                _ => Setup::Passive,
            },
            sctp: has_data.then_some(sctp),
        })
    }
}

impl Section {
    fn new(media: &str) -> anyhow::Result<Self> {
        let words: Vec<String> = media.split_ascii_whitespace().map(str::to_owned).collect();
        let [kind, port, ..] = &words[..] else { bail!("malformed m= line") };
        Ok(Self {
            kind: match kind.as_str() {
                "audio" => Kind::Audio,
                "video" => Kind::Video,
                "application" => Kind::Application,
                _ => Kind::Other,
            },
            mid: String::new(),
            sends: true,
            rejected: port == "0",
            formats: Vec::new(),
            extensions: Vec::new(),
            msid: None,
            ssrcs: Vec::new(),
            repairs: Vec::new(),
            media_line: words,
            echoed: Vec::new(),
        })
    }

    fn take(&mut self, name: &str, value: &str, line: &str) -> anyhow::Result<()> {
        match name {
            "mid" => self.mid = value.to_owned(),
            "sendonly" | "sendrecv" => self.sends = true,
            "recvonly" | "inactive" => self.sends = false,
            "rtpmap" => {
                self.take_format(value)?;
                self.echoed.push(line.to_owned());
            }
            "fmtp" => {
                if let Some((pt, fmtp)) = value.split_once(' ')
                    && let Some(format) = self.formats.iter_mut().find(|f| f.pt.to_string() == pt)
                {
                    format.fmtp = fmtp.to_owned();
                }
                self.echoed.push(line.to_owned());
            }
            "rtcp-fb" | "rtcp-rsize" => self.echoed.push(line.to_owned()),
            "extmap" => {
                if let Some((id, uri)) = value.split_once(' ') {
                    let id = id.split('/').next().unwrap_or(id);
                    let uri = uri.split(' ').next().unwrap_or(uri);
                    self.extensions.push((id.parse().context("a=extmap")?, uri.to_owned()));
                }
                self.echoed.push(line.to_owned());
            }
            "msid" => {
                let (stream, track) = value.split_once(' ').unwrap_or((value, ""));
                self.msid = Some((stream.to_owned(), track.to_owned()));
            }
            "ssrc" => {
                let ssrc = value.split(' ').next().unwrap_or(value).parse().context("a=ssrc")?;
                if !self.ssrcs.contains(&ssrc) {
                    self.ssrcs.push(ssrc);
                }
            }
            "ssrc-group" => {
                let words: Vec<&str> = value.split(' ').collect();
                if let ["FID", media, repair] = words[..] {
                    self.repairs.push((media.parse()?, repair.parse()?));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_format(&mut self, value: &str) -> anyhow::Result<()> {
        let (pt, encoding) = value.split_once(' ').context("a=rtpmap")?;
        let mut parts = encoding.split('/');
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let clock_rate = parts.next().unwrap_or("0").parse().context("a=rtpmap")?;
        self.formats.push(Format {
            pt: pt.parse().context("a=rtpmap")?,
            name,
            clock_rate,
            fmtp: String::new(),
        });
        Ok(())
    }

    /// Negotiated id of a header extension.
    pub(crate) fn extension(&self, kind: ExtensionKind) -> Option<u8> {
        self.extensions.iter().find(|(_, uri)| uri == kind.uri()).map(|(id, _)| *id)
    }

    /// Whether a kind of RTCP feedback is negotiated for any payload type.
    pub(crate) fn has_feedback(&self, kind: &str) -> bool {
        self.echoed.iter().any(|line| {
            let value = line.strip_prefix("a=rtcp-fb:").and_then(|value| value.split_once(' '));
            value.is_some_and(|(_, feedback)| feedback == kind)
        })
    }

    /// Payload type of a codec by its name in lower case.
    pub(crate) fn payload_type(&self, name: &str) -> Option<u8> {
        self.formats.iter().find(|format| format.name == name).map(|format| format.pt)
    }

    /// The first payload type that is media, not repair.
    pub(crate) fn codec(&self) -> Option<&Format> {
        self.formats.iter().find(|format| !matches!(format.name.as_str(), "rtx" | "ulpfec"))
    }
}

fn udp_candidate(value: &str) -> Option<SocketAddr> {
    match parse_candidate(value) {
        Ok(RemoteCandidate::Address(candidate)) if candidate.proto == TransportProto::Udp => {
            Some(candidate.addr)
        }
        _ => None,
    }
}

/// Our side of a connection's transport.
#[derive(Debug, Clone)]
pub(crate) struct LocalTransport {
    pub(crate) ice: IceCredentials,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) addr: SocketAddr,
}

/// Writes the answer of a connection that receives everything it is offered.
pub(crate) fn answer(offer: &Description, local: &LocalTransport) -> String {
    let mids: Vec<&str> = offer.sections.iter().map(|s| s.mid.as_str()).collect();
    let mut out = session_lines(&mids);
    let setup = if offer.remote.setup == Setup::Active { "passive" } else { "active" };
    for section in &offer.sections {
        let mut words = section.media_line.clone();
        if let (Some(port), false) = (words.get_mut(1), section.rejected) {
            "9".clone_into(port);
        }
        line(&mut out, format_args!("m={}", words.join(" ")));
        transport_lines(&mut out, local, setup, &section.mid);
        if section.kind == Kind::Application {
            data_lines(&mut out);
            continue;
        }
        let direction = if section.sends { "recvonly" } else { "inactive" };
        line(&mut out, format_args!("a={direction}"));
        line(&mut out, format_args!("a=rtcp-mux"));
        section.echoed.iter().for_each(|echoed| line(&mut out, format_args!("{echoed}")));
    }
    out
}

/// A track to offer.
#[derive(Debug, Clone)]
pub(crate) struct OfferedTrack {
    pub(crate) video: bool,
    pub(crate) stream: String,
    /// Id of the track, the `cid` of its `AddTrackRequest`.
    pub(crate) cid: String,
    /// One per layer, with the SSRC that repairs it.
    pub(crate) ssrcs: Vec<(u32, Option<u32>)>,
}

/// Writes the offer of a connection that only sends. Mids are positions.
pub(crate) fn offer(tracks: &[OfferedTrack], with_data: bool, local: &LocalTransport) -> String {
    let count = tracks.len() + usize::from(with_data);
    let mids: Vec<String> = (0..count).map(|mid| mid.to_string()).collect();
    let mut out = session_lines(&mids.iter().map(String::as_str).collect::<Vec<_>>());
    for (track, mid) in tracks.iter().zip(&mids) {
        let (kind, formats) = if track.video {
            ("video", format!("{VP8_PT} {VP8_RTX_PT}"))
        } else {
            ("audio", OPUS_PT.to_string())
        };
        line(&mut out, format_args!("m={kind} 9 UDP/TLS/RTP/SAVPF {formats}"));
        transport_lines(&mut out, local, "actpass", mid);
        track_lines(&mut out, track);
    }
    if with_data {
        line(&mut out, format_args!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel"));
        transport_lines(&mut out, local, "actpass", &mids[tracks.len()]);
        data_lines(&mut out);
    }
    out
}

fn track_lines(out: &mut String, track: &OfferedTrack) {
    for (id, kind) in OFFERED {
        let fits = match kind {
            ExtensionKind::AudioLevel => !track.video,
            ExtensionKind::Rid | ExtensionKind::RepairedRid => track.ssrcs.len() > 1,
            _ => true,
        };
        if fits {
            line(out, format_args!("a=extmap:{id} {}", kind.uri()));
        }
    }
    line(out, format_args!("a=sendonly"));
    line(out, format_args!("a=msid:{} {}", track.stream, track.cid));
    line(out, format_args!("a=rtcp-mux"));
    line(out, format_args!("a=rtcp-rsize"));
    if track.video {
        line(out, format_args!("a=rtpmap:{VP8_PT} VP8/90000"));
        for feedback in ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"] {
            line(out, format_args!("a=rtcp-fb:{VP8_PT} {feedback}"));
        }
        line(out, format_args!("a=rtpmap:{VP8_RTX_PT} rtx/90000"));
        line(out, format_args!("a=fmtp:{VP8_RTX_PT} apt={VP8_PT}"));
    } else {
        line(out, format_args!("a=rtpmap:{OPUS_PT} opus/48000/2"));
        line(out, format_args!("a=rtcp-fb:{OPUS_PT} transport-cc"));
        line(out, format_args!("a=fmtp:{OPUS_PT} minptime=10;useinbandfec=1"));
    }
    if track.ssrcs.len() > 1 {
        // Like libwebrtc: layers are known by their rids, not by SSRC lines.
        for rid in &RIDS[..track.ssrcs.len().min(RIDS.len())] {
            line(out, format_args!("a=rid:{rid} send"));
        }
        let rids = RIDS[..track.ssrcs.len().min(RIDS.len())].join(";");
        line(out, format_args!("a=simulcast:send {rids}"));
        return;
    }
    for (ssrc, repair) in &track.ssrcs {
        if let Some(repair) = repair {
            line(out, format_args!("a=ssrc-group:FID {ssrc} {repair}"));
        }
        for ssrc in std::iter::once(ssrc).chain(repair) {
            line(out, format_args!("a=ssrc:{ssrc} cname:{}", track.stream));
            line(out, format_args!("a=ssrc:{ssrc} msid:{} {}", track.stream, track.cid));
        }
    }
}

fn session_lines(mids: &[&str]) -> String {
    let mut out = String::with_capacity(4096);
    line(&mut out, format_args!("v=0"));
    line(&mut out, format_args!("o=- 4611732141 2 IN IP4 127.0.0.1"));
    line(&mut out, format_args!("s=-"));
    line(&mut out, format_args!("t=0 0"));
    line(&mut out, format_args!("a=group:BUNDLE {}", mids.join(" ")));
    line(&mut out, format_args!("a=extmap-allow-mixed"));
    line(&mut out, format_args!("a=msid-semantic: WMS"));
    out
}

fn transport_lines(out: &mut String, local: &LocalTransport, setup: &str, mid: &str) {
    line(out, format_args!("c=IN IP4 0.0.0.0"));
    line(out, format_args!("a=mid:{mid}"));
    line(out, format_args!("a=ice-ufrag:{}", local.ice.ufrag));
    line(out, format_args!("a=ice-pwd:{}", local.ice.pwd));
    line(out, format_args!("a=fingerprint:{}", local.fingerprint));
    line(out, format_args!("a=setup:{setup}"));
    let candidate = host_candidate(local.addr, TransportProto::Udp, 0);
    line(out, format_args!("a=candidate:{}", format_candidate(&candidate)));
    line(out, format_args!("a=end-of-candidates"));
}

fn data_lines(out: &mut String) {
    line(out, format_args!("a=sctp-port:5000"));
    line(out, format_args!("a=max-message-size:65535"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{text}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str =
        include_str!("../../transport/tests/sdp/golden/expected-offer-subscriber-second.sdp");

    fn local() -> LocalTransport {
        LocalTransport {
            ice: IceCredentials { ufrag: "abcd".into(), pwd: "0123456789012345678901".into() },
            fingerprint: format!("sha-256 {}", ["AB"; 32].join(":")).parse().unwrap(),
            addr: "127.0.0.1:4000".parse().unwrap(),
        }
    }

    #[test]
    fn offer_of_the_server_names_its_tracks_and_transport() {
        let offer = Description::parse(OFFER).unwrap();
        assert!(offer.ice_lite);
        assert_eq!(offer.candidates, ["127.0.0.1:7882".parse().unwrap()]);
        assert_eq!(offer.remote.setup, Setup::Passive);
        assert_eq!(offer.remote.sctp.unwrap().port, 5000);
        let [audio, idle, _, video, ..] = &offer.sections[..] else { panic!() };
        assert_eq!(audio.msid, Some(("PA_a0|TR_b0".into(), "TR_b0".into())));
        assert_eq!((audio.kind, &audio.ssrcs[..]), (Kind::Audio, &[1000][..]));
        assert!(!idle.sends);
        assert_eq!(video.repairs, [(1002, 2002)]);
        assert_eq!(video.codec().unwrap().name, "h264");
        assert_eq!(video.extension(ExtensionKind::TransportCc), Some(3));
    }

    #[test]
    fn answer_receives_what_is_sent_and_echoes_the_rest() {
        let text = answer(&Description::parse(OFFER).unwrap(), &local());
        let answer = Description::parse(&text).unwrap();
        assert_eq!(answer.remote.setup, Setup::Active);
        assert_eq!(answer.sections.len(), 6);
        assert_eq!(text.matches("a=recvonly").count(), 4);
        assert_eq!(text.matches("a=inactive").count(), 1);
        assert!(text.contains("a=rtcp-fb:96 transport-cc\r\n"));
        assert!(!text.contains("a=ssrc"));
    }

    #[test]
    fn simulcast_is_offered_by_rid_and_a_single_stream_by_ssrc() {
        let track = |layers: usize| OfferedTrack {
            video: true,
            stream: "s".into(),
            cid: "c".into(),
            ssrcs: (0..layers as u32).map(|i| (i + 1, Some(i + 11))).collect(),
        };
        let simulcast = offer(&[track(3)], false, &local());
        assert!(simulcast.contains("a=simulcast:send q;h;f\r\n"));
        assert!(!simulcast.contains("a=ssrc"));
        let single = offer(&[track(1)], true, &local());
        assert!(single.contains("a=ssrc-group:FID 1 11\r\n"));
        assert!(single.contains("a=group:BUNDLE 0 1\r\n"));
    }

    #[test]
    fn description_without_fingerprint_is_refused() {
        let text = OFFER.replace("a=fingerprint", "a=ignored");
        assert!(Description::parse(&text).is_err());
    }
}
