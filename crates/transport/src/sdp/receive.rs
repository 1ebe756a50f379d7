//! What we accept of the codecs that a client offers to send, and how the answer words it.

use std::sync::Arc;

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};

use super::bindings::{Feedback, NegotiatedCodec};
use super::codecs::{CodecPolicy, is_receivable};
use super::fmtp;
use super::params::{OpusAnswer, SectionPreference};
use super::remote::RemoteSection;
use super::sender::red_primary;

/// Opus bitrate that music in stereo may take, bit/s: the codec's maximum (RFC 7587 §6.1).
const STEREO_BITRATE_BPS: &str = "510000";

/// Codecs of the answer for a section on which the client sends: those of the offer that the
/// policy enables, preferred ones first, else in the order of the offer.
pub(super) fn receive_codecs(
    section: &RemoteSection,
    policy: &CodecPolicy,
    preference: &SectionPreference,
    extensions: &ExtensionMap,
) -> Vec<NegotiatedCodec> {
    let mut codecs = acceptable(section, policy);
    let rank = |codec: Codec| {
        let wanted = preference.codecs.iter();
        wanted.clone().position(|wanted| *wanted == codec).unwrap_or(wanted.len())
    };
    codecs.sort_by_key(|codec| rank(codec.codec));
    if preference.only_first
        && let Some(first) = codecs.first().map(|codec| codec.codec)
    {
        let needs_opus = first == Codec::Red;
        codecs.retain(|it| it.codec == first || (needs_opus && it.codec == Codec::Opus));
    }
    let transport_cc = extensions.contains(ExtensionKind::TransportCc);
    for codec in &mut codecs {
        codec.feedback = received_feedback(codec, transport_cc);
        if codec.codec == Codec::Opus {
            opus_fmtp(&mut codec.fmtp, preference.opus);
        }
    }
    codecs
}

fn acceptable(section: &RemoteSection, policy: &CodecPolicy) -> Vec<NegotiatedCodec> {
    let offered = section.codecs.iter().filter(|codec| policy.enables(codec.codec));
    let is_common = |codec: &NegotiatedCodec| is_receivable(codec.codec, &codec.fmtp, false);
    let common: Vec<Codec> =
        offered.clone().filter(|codec| is_common(codec)).map(|codec| codec.codec).collect();
    let accepted: Vec<NegotiatedCodec> = offered
        .filter(|codec| {
            let fallbacks = !common.contains(&codec.codec);
            is_receivable(codec.codec, &codec.fmtp, fallbacks)
        })
        .cloned()
        .collect();
    let has_opus = |pt| accepted.iter().any(|codec| codec.codec == Codec::Opus && codec.pt == pt);
    let unusable_red: Vec<u8> = accepted
        .iter()
        .filter(|codec| codec.codec == Codec::Red && !red_primary(codec).is_some_and(has_opus))
        .map(|codec| codec.pt)
        .collect();
    accepted.into_iter().filter(|codec| !unusable_red.contains(&codec.pt)).collect()
}

/// Feedback that we send about what we receive. Opus gets `nack` whether offered or not: only then
/// does libwebrtc keep sent packets for retransmission, and LiveKit's clients count on it.
fn received_feedback(codec: &NegotiatedCodec, transport_cc: bool) -> Feedback {
    let offered = codec.feedback;
    let transport_cc = offered.transport_cc && transport_cc;
    match codec.codec.kind() {
        MediaKind::Audio => {
            Feedback { nack: codec.codec == Codec::Opus, transport_cc, ..Feedback::default() }
        }
        MediaKind::Video => Feedback { transport_cc, remb: false, ..offered },
    }
}

fn opus_fmtp(value: &mut Arc<str>, opus: OpusAnswer) {
    if opus.dtx {
        fmtp::extend(value, "usedtx", "1");
    }
    if opus.stereo {
        fmtp::extend(value, "stereo", "1");
        fmtp::extend(value, "maxaveragebitrate", STEREO_BITRATE_BPS);
    }
}
