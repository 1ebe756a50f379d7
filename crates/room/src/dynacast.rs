//! Dynacast: tells a publisher which qualities of which codecs anybody wants, so that it encodes no
//! others. More is told at once, less only when it has lasted. A codec that a receiver needs and
//! that is not published yet is named as well: that makes the client publish it.

use std::time::Instant;

use sluice_engine::api::TrackId;
use sluice_proto as proto;
use sluice_proto::VideoQuality;
use sluice_proto::signal_response::Message as Response;
use sluice_rtp::codec::{Codec, MediaKind};

use crate::participant::Participant;
use crate::room::Room;
use crate::timers::Timer;
use crate::track::{BackupCodec, Track, short_codec_name};

const QUALITIES: [VideoQuality; 3] = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];

/// What a publisher assumes of the first codec before it was told anything: everything is wanted.
const ASSUMED: Option<VideoQuality> = Some(VideoQuality::High);

/// The highest wanted quality of each codec, the first codec first; `None` = not wanted.
type Demand = Vec<(Codec, Option<VideoQuality>)>;

impl Room {
    /// The workers report the highest layer of a stream that any receiver wants; `None` = nobody
    /// wants it.
    pub(crate) fn max_wanted(&mut self, now: Instant, stream: TrackId, max_spatial: Option<u8>) {
        let id = self.track_of_stream(stream);
        let Some(track) = self.tracks.get_mut(&id) else { return };
        match track.backups.iter_mut().find(|backup| backup.id == Some(stream)) {
            Some(backup) => backup.latest = Some(max_spatial),
            None => track.wanted.latest = Some(max_spatial),
        }
        self.update_dynacast(now, id);
    }

    /// Compares what is wanted with what the publisher knows.
    pub(crate) fn update_dynacast(&mut self, now: Instant, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else { return };
        // A muted track sends nothing anyway, and clients take the update for an unmute.
        if track.kind != MediaKind::Video || track.info.muted || track.forwarded {
            return self.forget_dynacast(id);
        }
        let Some(wanted) = self.demand(id, track) else { return };
        let more = wanted.iter().any(|&(codec, quality)| quality > track.told(codec));
        let less = wanted.iter().any(|&(codec, quality)| quality < track.told(codec));
        let first = track.wanted.announced.is_empty();
        if more || first && !less {
            let raised = wanted.into_iter();
            let raised = raised.map(|(codec, quality)| (codec, quality.max(track.told(codec))));
            let raised = raised.collect();
            self.tell_wanted(id, raised);
        }
        if !less {
            self.forget_dynacast(id);
        } else if !self.timers.is_set(Timer::Dynacast(id)) {
            self.timers.set(Timer::Dynacast(id), now + self.config.dynacast_pause_delay);
        }
    }

    /// Tells the publisher what is wanted now.
    pub(crate) fn announce_wanted(&mut self, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else { return };
        if let Some(wanted) = self.demand(id, track) {
            self.tell_wanted(id, wanted);
        }
    }

    pub(crate) fn forget_dynacast(&mut self, id: TrackId) {
        self.timers.cancel(Timer::Dynacast(id));
    }

    fn tell_wanted(&mut self, id: TrackId, wanted: Demand) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let update = quality_update(track, &wanted);
        track.wanted.announced = wanted;
        let owner = track.owner;
        self.send(owner, Response::SubscribedQualityUpdate(update));
    }

    /// What is wanted now; `None` while nothing is known.
    fn demand(&self, id: TrackId, track: &Track) -> Option<Demand> {
        let primary = track.codec.codec;
        let mut known = track.wanted.latest.is_some();
        let mut demand = vec![(
            primary,
            match track.wanted.latest {
                Some(spatial) => spatial.map(|spatial| track.quality_of(primary, spatial)),
                None => track.told(primary),
            },
        )];
        for backup in &track.backups {
            let codec = backup.codec.codec;
            let wanted = self.backup_demand(id, track, backup);
            known |= wanted.is_some();
            if wanted.is_some() || track.wanted.announced.iter().any(|(known, _)| *known == codec) {
                demand.push((codec, wanted));
            }
        }
        known.then_some(demand)
    }

    fn backup_demand(
        &self,
        id: TrackId,
        track: &Track,
        backup: &BackupCodec,
    ) -> Option<VideoQuality> {
        let codec = backup.codec.codec;
        match (backup.id, backup.latest) {
            (Some(_), Some(spatial)) => spatial.map(|spatial| track.quality_of(codec, spatial)),
            // Just published, for those who waited.
            (Some(_), None) => track.told(codec),
            (None, _) => {
                let subscribers =
                    track.subscribers.iter().filter_map(|key| self.participants.get(key));
                let wanted =
                    subscribers.filter_map(|one| unpublished_demand(id, track, one, codec));
                wanted.max()
            }
        }
    }
}

/// What one subscriber wants of a codec that is not published: it can decode no other, or the
/// others cost it too much.
fn unpublished_demand(
    id: TrackId,
    track: &Track,
    subscriber: &Participant,
    codec: Codec,
) -> Option<VideoQuality> {
    let subscription = subscriber.subscriptions.get(&track.sid)?;
    if let Some(spatial) = subscription.waits_for(id, codec) {
        return Some(track.quality_of(codec, spatial));
    }
    if !subscriber.is_low_power() || track.asked_for_low_power() != Some(codec) {
        return None;
    }
    let (sender, flowing, spatial) = subscription.flowing(id)?;
    let decodes = subscriber.links.binding(sender).is_some_and(|binding| binding.decodes(codec));
    decodes.then(|| track.quality_of(flowing, spatial))
}

impl Track {
    /// What the publisher takes to be wanted of a codec.
    fn told(&self, codec: Codec) -> Option<VideoQuality> {
        let announced = self.wanted.announced.iter().find(|(known, _)| *known == codec);
        match announced {
            Some((_, quality)) => *quality,
            None if codec == self.codec.codec => ASSUMED,
            None => None,
        }
    }
}

fn quality_update(track: &Track, wanted: &Demand) -> proto::SubscribedQualityUpdate {
    let subscribed_codecs: Vec<proto::SubscribedCodec> = wanted
        .iter()
        .map(|&(codec, max)| proto::SubscribedCodec {
            codec: short_codec_name(codec.mime()),
            qualities: QUALITIES
                .iter()
                .map(|&quality| proto::SubscribedQuality {
                    quality: quality.into(),
                    enabled: max.is_some_and(|max| quality <= max),
                })
                .collect(),
        })
        .collect();
    proto::SubscribedQualityUpdate {
        track_sid: (&track.sid).into(),
        // For clients from before there were several codecs.
        subscribed_qualities: subscribed_codecs
            .first()
            .map_or_else(Vec::new, |first| first.qualities.clone()),
        subscribed_codecs,
    }
}
