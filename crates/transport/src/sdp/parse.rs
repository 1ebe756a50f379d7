//! From lines to a [`RemoteDescription`]: session level, bundle and transport. What stands inside
//! one media section is read by [`section`](super::section).

use rtc_sdp::description::common::Attribute;
use rtc_sdp::description::session::SessionDescription;
use rustc_hash::{FxHashMap, FxHashSet};
use sluice_rtp::codec::Codec;
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};

use super::candidate::{RemoteCandidate, parse_candidate};
use super::error::SdpError;
use super::params::Limits;
use super::remote::{RejectReason, RemoteDescription, RemoteSection, SectionKind};
use super::{section, text};
use crate::{Fingerprint, IceCredentials, RemoteParams, SctpParams, Setup};

/// `max-message-size` when the attribute is absent (RFC 8841 §6.1).
const DEFAULT_MAX_MESSAGE_SIZE: u32 = 65_536;
/// SCTP port when the attribute is absent.
const DEFAULT_SCTP_PORT: u16 = 5000;
/// Fingerprints that are kept; a certificate needs one per hash.
const MAX_FINGERPRINTS: usize = 16;
/// Bytes of `a=mid`: what fits into a one-byte header extension element (RFC 8285 §4.2).
const MAX_MID_BYTES: usize = 16;
/// Length of ICE credentials (RFC 8839 §5.4).
const UFRAG_BYTES: std::ops::RangeInclusive<usize> = 4..=256;
const PWD_BYTES: std::ops::RangeInclusive<usize> = 22..=256;

/// Whether a description is an offer or an answer, as far as reading it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Offer,
    Answer,
}

/// Reads a description of the remote.
pub(super) fn parse(sdp: &str, role: Role, limits: &Limits) -> Result<RemoteDescription, SdpError> {
    let lines = text::parse(sdp, limits)?;
    let allow_mixed = has_everywhere(&lines, "extmap-allow-mixed");
    let mut sections = Vec::with_capacity(lines.media_descriptions.len());
    let mut formats = section::Formats::default();
    for media in &lines.media_descriptions {
        let attributes = &lines.attributes;
        sections.push(section::parse(media, attributes, allow_mixed, limits, &mut formats)?);
    }
    check_mids(&sections)?;
    reject_unbundled(&lines, &mut sections);
    drop_conflicts(&mut sections);
    Ok(RemoteDescription {
        transport: transport(&lines, &sections, role)?,
        candidates: candidates(&lines, limits),
        sections,
        allow_mixed,
    })
}

/// The value of the first attribute with this key, the empty string for a flag.
pub(super) fn attribute<'a>(attributes: &'a [Attribute], key: &str) -> Option<&'a str> {
    values(attributes, key).next()
}

/// The values of all attributes with this key, in order.
pub(super) fn values<'a>(attributes: &'a [Attribute], key: &str) -> impl Iterator<Item = &'a str> {
    attributes
        .iter()
        .filter(move |attribute| attribute.key == key)
        .map(|attribute| attribute.value.as_deref().unwrap_or_default().trim())
}

/// Whether the session level, or else every media section, has a flag.
fn has_everywhere(lines: &SessionDescription, key: &str) -> bool {
    let media = &lines.media_descriptions;
    attribute(&lines.attributes, key).is_some()
        || (!media.is_empty()
            && media.iter().all(|media| attribute(&media.attributes, key).is_some()))
}

fn check_mids(sections: &[RemoteSection]) -> Result<(), SdpError> {
    let mut seen = FxHashSet::default();
    for section in sections {
        let mid = &section.mid;
        if mid.is_empty() {
            return Err(SdpError::Missing("a=mid"));
        }
        if mid.len() > MAX_MID_BYTES {
            return Err(SdpError::LimitExceeded("length of a=mid"));
        }
        if !mid.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SdpError::Syntax("a=mid is not a token".to_owned()));
        }
        if !seen.insert(mid.as_str()) {
            return Err(SdpError::Conflict(format!("a=mid:{mid} stands in two sections")));
        }
    }
    Ok(())
}

/// There is one transport: sections outside of the first BUNDLE group get none. Without any group
/// (RFC 8843 §7.2) that leaves the first section that is in use.
fn reject_unbundled(lines: &SessionDescription, sections: &mut [RemoteSection]) {
    let group = values(&lines.attributes, "group").find_map(|group| group.strip_prefix("BUNDLE"));
    let bundled: FxHashSet<&str> = match group {
        Some(mids) => mids.split_ascii_whitespace().collect(),
        None => FxHashSet::default(),
    };
    let mut alone = group.is_none();
    for section in sections.iter_mut().filter(|section| section.rejected.is_none()) {
        let in_use = std::mem::take(&mut alone) || bundled.contains(section.mid.as_str());
        if !in_use {
            section.rejected = Some(RejectReason::NotBundled);
        }
    }
}

/// Within a bundle a payload type means one codec and an extension id one URI (RFC 8843 §9.1).
/// The first meaning stands; what contradicts it is as if it had not been offered.
fn drop_conflicts(sections: &mut [RemoteSection]) {
    let mut codec_of: FxHashMap<u8, Option<Codec>> = FxHashMap::default();
    let mut kind_of: FxHashMap<u8, ExtensionKind> = FxHashMap::default();
    for section in sections.iter_mut().filter(|section| section.rejected.is_none()) {
        section.codecs.retain_mut(|codec| {
            let rtx_agrees =
                codec.rtx_pt.is_none_or(|pt| codec_of.entry(pt).or_insert(None).is_none());
            if !rtx_agrees {
                codec.rtx_pt = None;
            }
            *codec_of.entry(codec.pt).or_insert(Some(codec.codec)) == Some(codec.codec)
        });
        if section.codecs.is_empty() && matches!(section.kind, SectionKind::Media(_)) {
            section.rejected = Some(RejectReason::NoCodec);
        }
        for map in [&mut section.extensions, &mut section.receive_extensions] {
            retain(map, |kind, id| *kind_of.entry(id).or_insert(kind) == kind);
        }
    }
}

fn retain(map: &mut ExtensionMap, mut keep: impl FnMut(ExtensionKind, u8) -> bool) {
    *map = map.iter().filter(|(kind, id)| keep(*kind, *id)).collect();
}

/// The transport of the bundle is that of its first section in use (RFC 8843 §9).
fn transport(
    lines: &SessionDescription,
    sections: &[RemoteSection],
    role: Role,
) -> Result<Option<RemoteParams>, SdpError> {
    let Some(first) = sections.iter().position(|section| section.rejected.is_none()) else {
        return Ok(None);
    };
    let media = &lines.media_descriptions[first].attributes;
    let find = |key| attribute(media, key).or_else(|| attribute(&lines.attributes, key));
    let setup = match (find("setup"), role) {
        (Some("active"), _) => Setup::Active,
        (Some("passive"), _) => Setup::Passive,
        // An answer must choose; the one who does not is left with the usual role.
        (_, Role::Answer) => Setup::Active,
        (_, Role::Offer) => Setup::ActPass,
    };
    Ok(Some(RemoteParams {
        ice: ice(find("ice-ufrag"), find("ice-pwd"))?,
        fingerprints: fingerprints(media, &lines.attributes)?,
        setup,
        sctp: sctp(lines, sections),
    }))
}

fn ice(ufrag: Option<&str>, pwd: Option<&str>) -> Result<IceCredentials, SdpError> {
    let ufrag = ufrag.ok_or(SdpError::Missing("a=ice-ufrag"))?;
    let pwd = pwd.ok_or(SdpError::Missing("a=ice-pwd"))?;
    let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let valid = UFRAG_BYTES.contains(&ufrag.len()) && PWD_BYTES.contains(&pwd.len());
    if !valid || !printable(ufrag) || !printable(pwd) {
        return Err(SdpError::Syntax("ICE credentials of a wrong length or alphabet".to_owned()));
    }
    Ok(IceCredentials { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
}

fn fingerprints(media: &[Attribute], session: &[Attribute]) -> Result<Vec<Fingerprint>, SdpError> {
    let mut found: Vec<Fingerprint> = Vec::new();
    for value in values(media, "fingerprint").chain(values(session, "fingerprint")) {
        // Hashes we do not verify are no reason to refuse the others.
        if let Ok(fingerprint) = value.parse()
            && !found.contains(&fingerprint)
            && found.len() < MAX_FINGERPRINTS
        {
            found.push(fingerprint);
        }
    }
    if found.is_empty() { Err(SdpError::Missing("a usable a=fingerprint")) } else { Ok(found) }
}

fn sctp(lines: &SessionDescription, sections: &[RemoteSection]) -> Option<SctpParams> {
    let index = sections
        .iter()
        .position(|section| section.kind == SectionKind::Data && section.rejected.is_none())?;
    let media = &lines.media_descriptions[index];
    let number = |key| attribute(&media.attributes, key).and_then(|value| value.parse().ok());
    // `m=application 9 DTLS/SCTP 5000` (draft-ietf-mmusic-sctp-sdp-07) is still seen in the wild.
    let legacy = media.media_name.formats.first().and_then(|format| format.parse().ok());
    let port = attribute(&media.attributes, "sctp-port").and_then(|value| value.parse().ok());
    Some(SctpParams {
        port: port.or(legacy).unwrap_or(DEFAULT_SCTP_PORT),
        max_message_size: number("max-message-size").unwrap_or(DEFAULT_MAX_MESSAGE_SIZE),
    })
}

fn candidates(lines: &SessionDescription, limits: &Limits) -> Vec<RemoteCandidate> {
    let media = lines.media_descriptions.iter().map(|media| media.attributes.as_slice());
    std::iter::once(lines.attributes.as_slice())
        .chain(media)
        .flat_map(|attributes| values(attributes, "candidate"))
        .take(limits.candidates)
        .filter_map(|line| parse_candidate(line).ok())
        .collect()
}
