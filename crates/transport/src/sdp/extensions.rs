//! Which RTP header extensions we negotiate, per kind and direction, and their ids in our offers.

use sluice_rtp::codec::MediaKind;
use sluice_rtp::ext::ExtensionKind::{
    self, AbsCaptureTime, AbsSendTime, AudioLevel, DependencyDescriptor, FrameMarking, Mid,
    PlayoutDelay, RepairedRid, Rid, TransportCc,
};
use sluice_rtp::ext::ExtensionMap;

/// Extensions that we accept from a client. `video-orientation` is left out on purpose: a client
/// that may not signal rotation turns the pixels instead, and every receiver sees them upright.
pub(super) fn received(kind: MediaKind) -> &'static [ExtensionKind] {
    match kind {
        MediaKind::Audio => &[AudioLevel, Mid, AbsCaptureTime, TransportCc],
        MediaKind::Video => &[
            Mid,
            Rid,
            RepairedRid,
            TransportCc,
            FrameMarking,
            DependencyDescriptor,
            AbsCaptureTime,
        ],
    }
}

/// Extensions that we send to a client, with their ids in our offers. An id means the same on
/// every connection and in every section, for ever; the numbers are those of libwebrtc where it
/// has one. `abs-send-time` feeds the receiver-side estimate of clients without transport-cc.
fn sent_ids(kind: MediaKind) -> &'static [(ExtensionKind, u8)] {
    match kind {
        MediaKind::Audio => &[(AbsSendTime, 2), (TransportCc, 3), (AbsCaptureTime, 7)],
        MediaKind::Video => &[
            (AbsSendTime, 2),
            (TransportCc, 3),
            (PlayoutDelay, 5),
            (AbsCaptureTime, 7),
            (DependencyDescriptor, 12),
        ],
    }
}

/// What we offer to send. `playout-delay` only in rooms that set one.
pub(super) fn offered(kind: MediaKind, playout_delay: bool) -> ExtensionMap {
    let ids = sent_ids(kind).iter().copied();
    ids.filter(|(kind, _)| playout_delay || *kind != PlayoutDelay).collect()
}

/// The part of `theirs` that we accept on what the client sends.
pub(super) fn accept_received(kind: MediaKind, theirs: &ExtensionMap) -> ExtensionMap {
    theirs.iter().filter(|(extension, _)| received(kind).contains(extension)).collect()
}

/// The part of `theirs` that we use on what the client receives.
pub(super) fn accept_sent(
    kind: MediaKind,
    playout_delay: bool,
    theirs: &ExtensionMap,
) -> ExtensionMap {
    let ours = offered(kind, playout_delay);
    theirs.iter().filter(|(extension, _)| ours.contains(*extension)).collect()
}

/// As [`accept_sent`], and the mid, by which a client finds the section of an SSRC that no
/// description names.
pub(super) fn accept_sent_unnamed(
    kind: MediaKind,
    playout_delay: bool,
    theirs: &ExtensionMap,
) -> ExtensionMap {
    let mut accepted = accept_sent(kind, playout_delay, theirs);
    if let Some(id) = theirs.id(Mid) {
        accepted.insert(Mid, id);
    }
    accepted
}

/// Entries that stand in both maps with the same id.
pub(super) fn intersection(a: &ExtensionMap, b: &ExtensionMap) -> ExtensionMap {
    a.iter().filter(|(kind, id)| b.id(*kind) == Some(*id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_our_offers_means_the_same_for_audio_and_video() {
        let video = offered(MediaKind::Video, true);
        for (kind, id) in offered(MediaKind::Audio, true).iter() {
            assert_eq!(video.id(kind), Some(id));
        }
    }

    #[test]
    fn playout_delay_is_offered_only_where_a_room_sets_it() {
        assert!(!offered(MediaKind::Video, false).contains(PlayoutDelay));
        assert!(offered(MediaKind::Video, true).contains(PlayoutDelay));
    }
}
