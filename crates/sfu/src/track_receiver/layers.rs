//! What header extensions say of a packet's layers, for codecs whose payload does not tell, or whose
//! payload is encrypted.

use sluice_rtp::codec::{Codec, PayloadInfo};
use sluice_rtp::dd::Dti;
use sluice_rtp::ext::FrameMarking;

use crate::descriptor::Described;

/// Corrects what the payload says by the dependency descriptor's mandatory fields and by whether it
/// brings a template structure, which only key frames do (AV1 RTP specification §A.8.1).
pub(super) fn by_descriptor(info: &mut PayloadInfo, codec: Codec, descriptor: &[u8]) {
    const START_OF_FRAME: u8 = 0x80;
    const END_OF_FRAME: u8 = 0x40;
    const STRUCTURE_PRESENT: u8 = 0x80;
    let Some((mandatory, extended)) = descriptor.split_first_chunk::<3>() else { return };
    info.start_of_frame = mandatory[0] & START_OF_FRAME != 0;
    info.end_of_frame = mandatory[0] & END_OF_FRAME != 0;
    let has_structure = extended.first().is_some_and(|flags| flags & STRUCTURE_PRESENT != 0);
    // In a scalable stream a layer's frame can look like a key frame and not be one.
    info.key_frame = has_structure || (info.key_frame && !codec.is_svc());
}

/// The temporal layer of a stream with one spatial layer, if its payload does not name one.
pub(super) fn temporal_by_descriptor(info: &mut PayloadInfo, described: &Described) {
    if info.temporal_id.is_some() {
        return;
    }
    let (frame, structure) = (described.frame(), described.structure());
    let temporal = frame.temporal_id;
    info.temporal_id = Some(temporal);
    let mut targets = 0..usize::from(structure.decode_targets);
    let own = targets.find(|target| structure.target_layers(*target) == Some((0, temporal)));
    info.switching_up = match temporal {
        // After it every layer can be followed.
        0 => frame.dtis.iter().all(|dti| dti == Dti::Switch),
        _ => own.and_then(|target| frame.dtis.get(target)) == Some(Dti::Switch),
    };
    let spare = |dti: Dti| matches!(dti, Dti::NotPresent | Dti::Discardable);
    info.discardable = frame.dtis.iter().all(spare);
}

/// RFC 9626: the frame marking of H.264 and H.265. (VP8 and VP9 say all of it in their payload.)
pub(super) fn by_frame_marking(info: &mut PayloadInfo, codec: Codec, marking: FrameMarking) {
    if !matches!(codec, Codec::H264 | Codec::H265) {
        return;
    }
    info.start_of_frame = marking.start_of_frame;
    info.end_of_frame = marking.end_of_frame;
    info.discardable = marking.discardable;
    info.key_frame |= marking.independent && marking.temporal_id == 0;
    if marking.layer_id.is_some() && info.temporal_id.is_none() {
        info.temporal_id = Some(marking.temporal_id);
        info.switching_up = marking.base_layer_sync;
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
