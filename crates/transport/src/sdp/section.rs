//! Reads one media section of a remote description.

use std::sync::Arc;

use rtc_sdp::description::common::Attribute;
use rtc_sdp::description::media::MediaDescription;
use rustc_hash::{FxHashMap, FxHashSet};
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};

use super::bindings::{Feedback, NegotiatedCodec, SourceSsrc};
use super::error::SdpError;
use super::fmtp;
use super::params::Limits;
use super::parse::{attribute, values};
use super::remote::{Direction, RejectReason, RemoteSection, SectionKind};

/// Bytes of a rid: what fits into a one-byte header extension element (RFC 8285 §4.2).
const MAX_RID_BYTES: usize = 16;
/// Largest id of a one-byte header extension element (RFC 8285 §4.2).
const MAX_ONE_BYTE_ID: u8 = 14;
/// Payload types that RTCP packets look like when multiplexed (RFC 5761 §4).
const RTCP_CONFLICTS: std::ops::Range<u8> = 64..96;

/// The `a=fmtp` values of a description: its sections repeat them, and each is kept once.
#[derive(Default)]
pub(super) struct Formats(FxHashSet<Arc<str>>);

impl Formats {
    fn share(&mut self, fmtp: &str) -> Arc<str> {
        if let Some(known) = self.0.get(fmtp) {
            return known.clone();
        }
        let new = Arc::<str>::from(fmtp);
        self.0.insert(new.clone());
        new
    }
}

pub(super) fn parse(
    media: &MediaDescription,
    session: &[Attribute],
    allow_mixed: bool,
    limits: &Limits,
    formats: &mut Formats,
) -> Result<RemoteSection, SdpError> {
    let attributes = &media.attributes;
    let name = &media.media_name;
    let kind = section_kind(media);
    let bundle_only = attribute(attributes, "bundle-only").is_some();
    let mut section = RemoteSection {
        mid: attribute(attributes, "mid").unwrap_or_default().to_owned(),
        kind,
        direction: direction(attributes).or_else(|| direction(session)).unwrap_or_default(),
        rejected: match kind {
            _ if name.port.value == 0 && !bundle_only => Some(RejectReason::Remote),
            SectionKind::Other => Some(RejectReason::Transport),
            SectionKind::Media(_) if attribute(attributes, "rtcp-mux").is_none() => {
                Some(RejectReason::NoRtcpMux)
            }
            _ => None,
        },
        msid: None,
        codecs: Vec::new(),
        rids: Vec::new(),
        ssrcs: Vec::new(),
        extensions: ExtensionMap::new(),
        cname: None,
        receive_extensions: ExtensionMap::new(),
        media: name.media.clone(),
        proto: name.protos.join("/"),
        formats: name.formats.clone(),
    };
    if let SectionKind::Media(kind) = kind {
        let sources = Sources::read(attributes, limits)?;
        section.codecs = codecs(media, kind, limits, formats)?;
        section.rids = rids(attributes, limits)?;
        section.msid = msid(attributes).or(sources.msid.clone());
        section.cname = sources.cname.clone();
        section.ssrcs = sources.in_order();
        (section.extensions, section.receive_extensions) = extensions(attributes, allow_mixed);
    }
    Ok(section)
}

fn section_kind(media: &MediaDescription) -> SectionKind {
    let name = &media.media_name;
    let protos: Vec<&str> = name.protos.iter().map(String::as_str).collect();
    let is_rtp = matches!(protos.as_slice(), [.., "RTP", "SAVPF" | "SAVP"]);
    let is_sctp = matches!(protos.as_slice(), [.., "DTLS", "SCTP"]);
    match name.media.as_str() {
        "audio" if is_rtp => SectionKind::Media(MediaKind::Audio),
        "video" if is_rtp => SectionKind::Media(MediaKind::Video),
        "application" if is_sctp => SectionKind::Data,
        _ => SectionKind::Other,
    }
}

fn direction(attributes: &[Attribute]) -> Option<Direction> {
    attributes.iter().find_map(|attribute| Direction::from_name(&attribute.key))
}

fn msid(attributes: &[Attribute]) -> Option<(String, String)> {
    split_msid(attribute(attributes, "msid")?)
}

fn split_msid(value: &str) -> Option<(String, String)> {
    let mut words = value.split_ascii_whitespace();
    let stream = words.next()?;
    // The track id is optional (RFC 8830 §2); the stream then names the track too.
    Some((stream.to_owned(), words.next().unwrap_or(stream).to_owned()))
}

/// `a=ssrc` and `a=ssrc-group` (RFC 5576) of one section.
#[derive(Default)]
struct Sources {
    /// Distinct SSRCs in order of appearance.
    ssrcs: Vec<u32>,
    /// RTX SSRC by media SSRC, `ssrc-group:FID` (RFC 4588 §8.7).
    rtx: FxHashMap<u32, u32>,
    /// SSRCs that repair others: RTX and FEC.
    repair: Vec<u32>,
    /// `ssrc-group:SIM`, lowest layer first.
    simulcast: Vec<u32>,
    cname: Option<String>,
    msid: Option<(String, String)>,
}

impl Sources {
    fn read(attributes: &[Attribute], limits: &Limits) -> Result<Self, SdpError> {
        let mut sources = Self::default();
        for value in values(attributes, "ssrc") {
            sources.read_ssrc(value);
            if sources.ssrcs.len() > limits.ssrcs {
                return Err(SdpError::LimitExceeded("SSRCs of a section"));
            }
        }
        for value in values(attributes, "ssrc-group") {
            let mut words = value.split_ascii_whitespace();
            let semantics = words.next().unwrap_or_default();
            let group: Vec<u32> = words
                .take(limits.ssrcs)
                .filter_map(|ssrc| ssrc.parse().ok())
                .filter(|ssrc| sources.ssrcs.contains(ssrc))
                .collect();
            sources.read_group(semantics, &group);
        }
        Ok(sources)
    }

    fn read_ssrc(&mut self, value: &str) {
        let (ssrc, attribute) = value.split_once(' ').unwrap_or((value, ""));
        let Some(ssrc) = ssrc.parse().ok().filter(|ssrc| *ssrc != 0) else { return };
        if !self.ssrcs.contains(&ssrc) {
            self.ssrcs.push(ssrc);
        }
        match attribute.split_once(':') {
            Some(("cname", cname)) if self.cname.is_none() => self.cname = Some(cname.to_owned()),
            Some(("msid", msid)) if self.msid.is_none() => self.msid = split_msid(msid),
            _ => {}
        }
    }

    fn read_group(&mut self, semantics: &str, group: &[u32]) {
        match (semantics, group) {
            ("FID", [media, rtx]) if media != rtx => {
                self.rtx.insert(*media, *rtx);
                self.repair.push(*rtx);
            }
            ("FEC-FR" | "FEC", [_, fec]) => self.repair.push(*fec),
            ("SIM", layers) if self.simulcast.is_empty() => self.simulcast = layers.to_vec(),
            _ => {}
        }
    }

    fn in_order(&self) -> Vec<SourceSsrc> {
        let rest = self.ssrcs.iter().filter(|ssrc| !self.simulcast.contains(ssrc));
        let mut order: Vec<u32> = Vec::with_capacity(self.ssrcs.len());
        for ssrc in self.simulcast.iter().chain(rest) {
            if !self.repair.contains(ssrc) && !order.contains(ssrc) {
                order.push(*ssrc);
            }
        }
        order
            .into_iter()
            .map(|ssrc| SourceSsrc { ssrc, rtx_ssrc: self.rtx.get(&ssrc).copied() })
            .collect()
    }
}

/// Rids that the remote sends: in the order of `a=simulcast` (RFC 8853), else of `a=rid` (RFC 8851).
fn rids(attributes: &[Attribute], limits: &Limits) -> Result<Vec<String>, SdpError> {
    let mut declared: Vec<&str> = Vec::new();
    for value in values(attributes, "rid") {
        let mut words = value.split_ascii_whitespace();
        let (Some(rid), Some("send")) = (words.next(), words.next()) else { continue };
        if is_rid(rid) && !declared.contains(&rid) {
            declared.push(rid);
        }
        if declared.len() > limits.rids {
            return Err(SdpError::LimitExceeded("rids of a section"));
        }
    }
    let Some(simulcast) = attribute(attributes, "simulcast") else {
        return Ok(declared.into_iter().map(str::to_owned).collect());
    };
    let mut order: Vec<String> = Vec::new();
    for alternatives in simulcast_list(simulcast, "send").split(';') {
        // One stream may offer alternative formats; it has the first that was declared.
        let rid = alternatives
            .split(',')
            .map(|rid| rid.trim().trim_start_matches('~'))
            .find(|rid| declared.contains(rid) && !order.iter().any(|known| known == rid));
        order.extend(rid.map(str::to_owned));
    }
    Ok(order)
}

/// The list of one direction of `a=simulcast`, also in the drafts' spelling `send rid=q;h;f`.
fn simulcast_list<'a>(value: &'a str, direction: &str) -> &'a str {
    let mut words = value.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let Some(list) = words.next() else { break };
        if word == direction {
            return list.strip_prefix("rid=").unwrap_or(list);
        }
    }
    ""
}

fn is_rid(rid: &str) -> bool {
    (1..=MAX_RID_BYTES).contains(&rid.len())
        && rid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Extensions we know that the remote (may send, may receive). Entries can be limited to one
/// direction (RFC 8285 §5), seen from the writer.
fn extensions(attributes: &[Attribute], allow_mixed: bool) -> (ExtensionMap, ExtensionMap) {
    let (mut sends, mut receives) = (ExtensionMap::new(), ExtensionMap::new());
    for value in values(attributes, "extmap") {
        let mut words = value.split_ascii_whitespace();
        let (Some(entry), Some(uri)) = (words.next(), words.next()) else { continue };
        let (id, suffix) = entry.split_once('/').unwrap_or((entry, "sendrecv"));
        let (Ok(id), Some(direction)) = (id.parse::<u8>(), Direction::from_name(suffix)) else {
            continue;
        };
        let Some(kind) = ExtensionKind::from_uri(uri) else { continue };
        if id == 0 || (id > MAX_ONE_BYTE_ID && !allow_mixed) {
            continue;
        }
        for (map, applies) in
            [(&mut sends, direction.sends()), (&mut receives, direction.receives())]
        {
            if applies && map.kind(id).is_none() && !map.contains(kind) {
                map.insert(kind, id);
            }
        }
    }
    (sends, receives)
}

/// One `a=rtpmap`.
struct RtpMap<'a> {
    name: &'a str,
    clock_rate: u32,
    channels: u8,
}

fn codecs(
    media: &MediaDescription,
    kind: MediaKind,
    limits: &Limits,
    known_formats: &mut Formats,
) -> Result<Vec<NegotiatedCodec>, SdpError> {
    let formats = &media.media_name.formats;
    if formats.len() > limits.payload_types {
        return Err(SdpError::LimitExceeded("payload types of a section"));
    }
    let attributes = &media.attributes;
    let maps = rtp_maps(attributes);
    let fmtps = by_payload_type(attributes, "fmtp");
    let rtx = rtx_by_primary(&maps, &fmtps);
    let feedback = feedback(attributes);

    let mut codecs: Vec<NegotiatedCodec> = Vec::new();
    for pt in formats.iter().filter_map(|format| format.parse::<u8>().ok()) {
        let Some(map) = maps.get(&pt).or_else(|| static_map(pt)) else { continue };
        let Some(codec) = Codec::from_name(kind, map.name) else { continue };
        let known = map.clock_rate == codec.clock_rate()
            && codec.channels().is_none_or(|channels| channels == map.channels);
        if !known || codecs.iter().any(|codec| codec.pt == pt) {
            continue;
        }
        let specific = feedback.get(&Some(pt)).copied().unwrap_or_default();
        let general = feedback.get(&None).copied().unwrap_or_default();
        codecs.push(NegotiatedCodec {
            pt,
            codec,
            clock_rate: map.clock_rate,
            channels: if kind == MediaKind::Audio { map.channels } else { 0 },
            fmtp: known_formats.share(fmtps.get(&pt).copied().unwrap_or_default()),
            rtx_pt: rtx.get(&pt).copied().filter(|rtx| formats_contain(formats, *rtx)),
            feedback: specific.union(general),
        });
    }
    Ok(codecs)
}

fn formats_contain(formats: &[String], pt: u8) -> bool {
    formats.iter().any(|format| format.parse() == Ok(pt))
}

/// Payload types that have a meaning without `a=rtpmap` (RFC 3551 §6).
fn static_map(pt: u8) -> Option<&'static RtpMap<'static>> {
    const PCMU: RtpMap<'static> = RtpMap { name: "PCMU", clock_rate: 8_000, channels: 1 };
    const PCMA: RtpMap<'static> = RtpMap { name: "PCMA", clock_rate: 8_000, channels: 1 };
    match pt {
        0 => Some(&PCMU),
        8 => Some(&PCMA),
        _ => None,
    }
}

/// Attributes of the form `<key>:<payload type> <value>`; the first of each payload type.
fn by_payload_type<'a>(attributes: &'a [Attribute], key: &str) -> FxHashMap<u8, &'a str> {
    let mut found = FxHashMap::default();
    for value in values(attributes, key) {
        let Some((pt, rest)) = value.split_once(' ') else { continue };
        match pt.parse::<u8>() {
            Ok(pt) if pt < 128 && !RTCP_CONFLICTS.contains(&pt) => {
                found.entry(pt).or_insert(rest.trim());
            }
            _ => {}
        }
    }
    found
}

fn rtp_maps(attributes: &[Attribute]) -> FxHashMap<u8, RtpMap<'_>> {
    let maps = by_payload_type(attributes, "rtpmap");
    maps.into_iter().filter_map(|(pt, value)| Some((pt, rtp_map(value)?))).collect()
}

fn rtp_map(value: &str) -> Option<RtpMap<'_>> {
    let mut parts = value.split('/');
    Some(RtpMap {
        name: parts.next()?,
        clock_rate: parts.next()?.trim().parse().ok()?,
        channels: parts.next().and_then(|channels| channels.trim().parse().ok()).unwrap_or(1),
    })
}

fn rtx_by_primary(
    maps: &FxHashMap<u8, RtpMap<'_>>,
    fmtps: &FxHashMap<u8, &str>,
) -> FxHashMap<u8, u8> {
    let mut rtx: Vec<u8> = maps
        .iter()
        .filter(|(_, map)| map.name.eq_ignore_ascii_case("rtx"))
        .map(|(pt, _)| *pt)
        .collect();
    // Of two for one primary the highest number stands, whatever the order of the map.
    rtx.sort_unstable();
    rtx.into_iter()
        .filter_map(|pt| {
            let apt = fmtp::parameter(fmtps.get(&pt)?, "apt")?;
            Some((apt.parse().ok()?, pt))
        })
        .collect()
}

/// Feedback by payload type; `None` is `*`, all of the section.
fn feedback(attributes: &[Attribute]) -> FxHashMap<Option<u8>, Feedback> {
    let mut found: FxHashMap<Option<u8>, Feedback> = FxHashMap::default();
    for value in values(attributes, "rtcp-fb") {
        let Some((pt, kind)) = value.split_once(' ') else { continue };
        let pt = match pt {
            "*" => None,
            pt => match pt.parse() {
                Ok(pt) => Some(pt),
                Err(_) => continue,
            },
        };
        let feedback = found.entry(pt).or_default();
        match kind.trim() {
            "nack" => feedback.nack = true,
            "nack pli" => feedback.pli = true,
            "ccm fir" => feedback.fir = true,
            "transport-cc" => feedback.transport_cc = true,
            "goog-remb" => feedback.remb = true,
            _ => {}
        }
    }
    found
}
