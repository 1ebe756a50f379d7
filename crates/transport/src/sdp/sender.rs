//! Bookkeeping of senders that both sessions share, and the choice of a codec for one.

use std::sync::Arc;

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};

use super::bindings::{Feedback, NegotiatedCodec, SenderBinding, SenderId, SenderSpec};
use super::codecs::CodecPolicy;
use super::fmtp;
use super::write::Source;

/// Bytes of a stream or track id; longer ones are cut. RFC 8830 §2 allows 64, LiveKit's have 29.
const MAX_MSID_BYTES: usize = 256;

/// What we want to send, and where it stands.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) spec: SenderSpec,
    /// Index of its section.
    pub(super) section: Option<usize>,
    /// No codec of it can be decoded by the client.
    pub(super) unsupported: bool,
    /// What the latest negotiation said.
    bound: Option<SenderBinding>,
}

/// All living senders in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Senders {
    next: u32,
    /// By id, which only grows.
    all: Vec<(SenderId, Sender)>,
}

impl Senders {
    pub(super) fn add(&mut self, mut spec: SenderSpec) -> SenderId {
        let id = SenderId(self.next);
        self.next += 1;
        spec.stream_id = token(spec.stream_id);
        spec.track_id = token(spec.track_id);
        // Most tracks come in the codecs of the one before.
        if let Some((_, last)) = self.all.last()
            && last.spec.codecs == spec.codecs
        {
            spec.codecs = last.spec.codecs.clone();
        }
        self.all.push((id, Sender { spec, section: None, unsupported: false, bound: None }));
        id
    }

    pub(super) fn remove(&mut self, id: SenderId) -> Option<Sender> {
        Some(self.all.remove(self.index(id)?).1)
    }

    pub(super) fn get(&self, id: SenderId) -> Option<&Sender> {
        Some(&self.all[self.index(id)?].1)
    }

    pub(super) fn get_mut(&mut self, id: SenderId) -> Option<&mut Sender> {
        let index = self.index(id)?;
        Some(&mut self.all[index].1)
    }

    pub(super) fn contains(&self, id: SenderId) -> bool {
        self.index(id).is_some()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SenderId, &mut Sender)> {
        self.all.iter_mut().map(|(id, sender)| (*id, sender))
    }

    /// Senders without a section that could use one.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (SenderId, &Sender)> {
        let all = self.all.iter().map(|(id, sender)| (*id, sender));
        all.filter(|(_, sender)| sender.section.is_none() && !sender.unsupported)
    }

    /// What the latest negotiation said of a sender.
    pub(super) fn binding(&self, id: SenderId) -> Option<&SenderBinding> {
        self.get(id)?.bound.as_ref()
    }

    pub(super) fn unsupported(&self) -> Vec<SenderId> {
        let all = self.all.iter();
        all.filter(|(_, sender)| sender.unsupported).map(|(id, _)| *id).collect()
    }

    /// Records what was negotiated for a sender and says whether that is news.
    pub(super) fn bind(&mut self, mut binding: SenderBinding) -> SenderBinding {
        if let Some(sender) = self.get_mut(binding.id) {
            binding.changed = false;
            let changed = sender.bound.as_ref() != Some(&binding);
            if changed {
                sender.bound = Some(binding.clone());
            }
            binding.changed = changed;
        }
        binding
    }

    fn index(&self, id: SenderId) -> Option<usize> {
        self.all.binary_search_by_key(&id, |(id, _)| *id).ok()
    }
}

impl Sender {
    /// The lines of this sender in a description, once its RTX is decided.
    pub(super) fn source(&self, with_rtx: bool) -> Source {
        Source {
            stream_id: self.spec.stream_id.clone(),
            track_id: self.spec.track_id.clone(),
            ssrc: Some(self.spec.ssrc),
            rtx_ssrc: self.spec.rtx_ssrc.filter(|_| with_rtx),
        }
    }
}

/// Ids can hold what a client typed (`PA_x|<stream>`): nothing of it may leave its line or word.
fn token(text: Arc<str>) -> Arc<str> {
    let is_graphic = |c: char| c.is_ascii_graphic();
    if (1..=MAX_MSID_BYTES).contains(&text.len()) && text.chars().all(is_graphic) {
        return text;
    }
    let graphic = |c: char| if is_graphic(c) { c } else { '_' };
    let text: String = text.chars().take(MAX_MSID_BYTES).map(graphic).collect();
    if text.is_empty() { "-".into() } else { text.into() }
}

/// For each codec of a track that the client can decode: its index in the spec and the client's
/// format. Most wanted first; the first is the one to bind.
pub(super) fn decodable<'a>(
    spec: &SenderSpec,
    policy: &CodecPolicy,
    theirs: &'a [NegotiatedCodec],
) -> Vec<(usize, &'a NegotiatedCodec)> {
    let mut chosen: Vec<(usize, &NegotiatedCodec)> = Vec::new();
    for (index, wanted) in spec.codecs.iter().enumerate() {
        let best = theirs
            .iter()
            .filter(|theirs| theirs.codec == wanted.codec && policy.enables(theirs.codec))
            .filter(|red| red.codec != Codec::Red || is_opus(theirs, red_primary(red)))
            .filter_map(|theirs| {
                Some((fmtp::fitness(theirs.codec, &wanted.fmtp, &theirs.fmtp)?, theirs))
            })
            .min_by_key(|(fitness, _)| *fitness);
        if let Some((_, best)) = best
            && !chosen.iter().any(|(_, codec)| codec.pt == best.pt)
        {
            chosen.push((index, best));
        }
    }
    chosen
}

fn is_opus(codecs: &[NegotiatedCodec], pt: Option<u8>) -> bool {
    codecs.iter().any(|codec| codec.codec == Codec::Opus && Some(codec.pt) == pt)
}

/// Payload type of the blocks inside RED: its `a=fmtp` is `111/111` (RFC 2198 §5).
pub(super) fn red_primary(red: &NegotiatedCodec) -> Option<u8> {
    red.fmtp.split('/').next()?.trim().parse().ok()
}

/// Feedback that we understand about what we send.
pub(super) fn sent_feedback(codec: Codec) -> Feedback {
    match codec.kind() {
        // What RED repairs needs no retransmission.
        MediaKind::Audio => {
            Feedback { nack: codec != Codec::Red, transport_cc: true, ..Feedback::default() }
        }
        MediaKind::Video => {
            Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: true }
        }
    }
}

/// Codecs of a description of ours on which we send: the chosen ones, and the Opus that RED needs.
pub(super) fn answer_codecs(
    chosen: &[(usize, &NegotiatedCodec)],
    theirs: &[NegotiatedCodec],
    spec: &SenderSpec,
    extensions: &ExtensionMap,
) -> Vec<NegotiatedCodec> {
    let mut codecs: Vec<NegotiatedCodec> =
        chosen.iter().map(|(_, codec)| (*codec).clone()).collect();
    if let Some(primary) = codecs.iter().find_map(red_primary_of_red)
        && !codecs.iter().any(|codec| codec.pt == primary)
    {
        codecs.extend(theirs.iter().find(|codec| codec.pt == primary).cloned());
    }
    let transport_cc = extensions.contains(ExtensionKind::TransportCc);
    let redundant = codecs.first().is_some_and(|codec| codec.codec == Codec::Red);
    for codec in &mut codecs {
        codec.feedback = codec.feedback.intersection(sent_feedback(codec.codec));
        codec.feedback.nack &= !redundant;
        codec.feedback.transport_cc &= transport_cc;
        codec.rtx_pt = codec.rtx_pt.filter(|_| spec.rtx_ssrc.is_some());
        if codec.codec == Codec::Opus && spec.stereo {
            fmtp::extend(&mut codec.fmtp, "sprop-stereo", "1");
        }
    }
    codecs
}

fn red_primary_of_red(codec: &NegotiatedCodec) -> Option<u8> {
    (codec.codec == Codec::Red).then(|| red_primary(codec)).flatten()
}

/// A section of the client as the choice of a sender's binding sees it.
pub(super) struct Receiving<'a> {
    pub(super) mid: Arc<str>,
    /// Every codec of the section.
    pub(super) codecs: &'a [NegotiatedCodec],
    /// What we may write towards the client.
    pub(super) extensions: ExtensionMap,
}

/// The binding of a sender to the first of the codecs that the client can decode (see
/// [`decodable`]); `None` without any.
pub(super) fn binding(
    id: SenderId,
    spec: &SenderSpec,
    section: &Receiving<'_>,
    decodable: &[(usize, &NegotiatedCodec)],
) -> Option<SenderBinding> {
    let (&(codec_index, first), others) = decodable.split_first()?;
    let codec = sent_codec(spec, section, first);
    // Audio is converted, not published, in other codecs.
    let others = others.iter().filter(|_| spec.kind == MediaKind::Video);
    Some(SenderBinding {
        id,
        mid: section.mid.clone(),
        codec_index,
        red_primary_pt: red_primary_of_red(&codec),
        ssrc: spec.ssrc,
        rtx_ssrc: spec.rtx_ssrc.filter(|_| codec.rtx_pt.is_some()),
        extensions: section.extensions,
        cname: spec.stream_id.clone(),
        alternatives: others
            .map(|&(index, codec)| (index, sent_codec(spec, section, codec)))
            .collect(),
        changed: true,
        codec,
    })
}

/// A codec of the client as we send it.
fn sent_codec(
    spec: &SenderSpec,
    section: &Receiving<'_>,
    theirs: &NegotiatedCodec,
) -> NegotiatedCodec {
    let mut codec = theirs.clone();
    codec.feedback = codec.feedback.intersection(sent_feedback(codec.codec));
    // Transport-wide feedback belongs to the section: libwebrtc names it at Opus and means RED too.
    // Without the extension there is no sequence number to report.
    codec.feedback.transport_cc = section.extensions.contains(ExtensionKind::TransportCc)
        && section.codecs.iter().any(|codec| codec.feedback.transport_cc);
    codec.rtx_pt = codec.rtx_pt.filter(|_| spec.rtx_ssrc.is_some() && codec.feedback.nack);
    codec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_typed_by_a_client_cannot_break_out_of_their_line() {
        assert_eq!(&*token("PA_x|my stream\r\na=evil".into()), "PA_x|my_stream__a=evil");
        assert_eq!(&*token("".into()), "-");
        assert_eq!(token("ü".repeat(1000).into()).len(), MAX_MSID_BYTES);
    }
}
