//! Dynacast: tells a publisher which qualities anybody wants, so that it encodes no others. More is
//! told at once, less only when it has lasted.

use std::time::Instant;

use sluice_engine::api::TrackId;
use sluice_proto as proto;
use sluice_proto::VideoQuality;
use sluice_proto::signal_response::Message as Response;
use sluice_rtp::codec::MediaKind;

use crate::room::Room;
use crate::timers::Timer;
use crate::track::{Track, short_codec_name};

const QUALITIES: [VideoQuality; 3] = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];

/// What a publisher assumes before it was told anything: everything is wanted.
const ASSUMED: Option<u8> = Some(2);

impl Room {
    /// The workers report the highest layer that any receiver wants; `None` = nobody wants it.
    pub(crate) fn max_wanted(&mut self, now: Instant, id: TrackId, max_spatial: Option<u8>) {
        if let Some(track) = self.tracks.get_mut(&id) {
            track.wanted.latest = Some(max_spatial);
            self.update_dynacast(now, id);
        }
    }

    /// Compares what is wanted with what the publisher knows.
    pub(crate) fn update_dynacast(&mut self, now: Instant, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else { return };
        let Some(latest) = track.wanted.latest else { return };
        // A muted track sends nothing anyway, and clients take the update for an unmute.
        if track.kind != MediaKind::Video || track.info.muted {
            self.timers.cancel(Timer::Dynacast(id));
            return;
        }
        let announced = track.wanted.announced.unwrap_or(ASSUMED);
        // `None` orders below every layer.
        if latest < announced {
            if !self.timers.is_set(Timer::Dynacast(id)) {
                self.timers.set(Timer::Dynacast(id), now + self.config.dynacast_pause_delay);
            }
        } else {
            self.timers.cancel(Timer::Dynacast(id));
            if latest > announced || track.wanted.announced.is_none() {
                self.announce_wanted(id);
            }
        }
    }

    /// Tells the publisher what is wanted now.
    pub(crate) fn announce_wanted(&mut self, id: TrackId) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let Some(latest) = track.wanted.latest else { return };
        track.wanted.announced = Some(latest);
        let update = quality_update(track, latest);
        let owner = track.owner;
        self.send(owner, Response::SubscribedQualityUpdate(update));
    }

    pub(crate) fn forget_dynacast(&mut self, id: TrackId) {
        self.timers.cancel(Timer::Dynacast(id));
    }
}

fn quality_update(track: &Track, wanted: Option<u8>) -> proto::SubscribedQualityUpdate {
    let max = wanted.map(|spatial| track.quality_of(spatial) as i32);
    let qualities: Vec<proto::SubscribedQuality> = QUALITIES
        .iter()
        .map(|&quality| proto::SubscribedQuality {
            quality: quality.into(),
            enabled: max.is_some_and(|max| quality as i32 <= max),
        })
        .collect();
    proto::SubscribedQualityUpdate {
        track_sid: (&track.sid).into(),
        subscribed_qualities: qualities.clone(),
        subscribed_codecs: vec![proto::SubscribedCodec {
            codec: short_codec_name(&track.info.mime_type),
            qualities,
        }],
    }
}
