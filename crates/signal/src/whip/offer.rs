//! What the offer of a WHIP or WHEP client asks for, and the track announcements that a LiveKit
//! client would have sent beside it.

use axum::http::StatusCode;
use sluice_proto::{AddTrackRequest, TrackSource, TrackType, VideoLayer};
use sluice_rtp::codec::MediaKind;
use sluice_transport::sdp::{Limits, RemoteOffer, RemoteSection};

use crate::error::HttpError;

/// Qualities that simulcast layers can have.
const MAX_LAYERS: usize = 3;

/// Stream that the tracks of one client share, so that receivers keep them in step (LiveKit's).
const STREAM: &str = "camera";

/// An offer that can be put to a room.
#[derive(Debug)]
pub(super) struct Offer {
    sections: Vec<RemoteSection>,
    has_data: bool,
}

impl Offer {
    /// Reads an offer: 400 when it is not SDP, 422 when it is and cannot be used.
    pub(super) fn parse(sdp: &str) -> Result<Self, HttpError> {
        if sdp.trim().is_empty() {
            return Err(HttpError::bad_request("body does not have SDP offer"));
        }
        let malformed = |error| HttpError::bad_request(format!("malformed SDP offer: {error}"));
        let offer = RemoteOffer::parse(sdp, &Limits::default()).map_err(malformed)?;
        Ok(Self { sections: offer.sections, has_data: offer.has_data })
    }

    /// Whether the client sends media.
    pub(super) fn sends(&self) -> bool {
        self.sections.iter().any(RemoteSection::sends)
    }

    /// Whether the client wants to receive media.
    pub(super) fn receives(&self) -> bool {
        let receives = |section: &RemoteSection| section.direction.receives();
        self.sections.iter().any(|section| section.media_kind().is_some() && receives(section))
    }

    /// 422 unless some section carries anything.
    pub(super) fn check_use(&self) -> Result<(), HttpError> {
        if self.sends() || self.receives() || self.has_data {
            return Ok(());
        }
        Err(unusable("the offer has no audio, video or data section that this server can use"))
    }

    /// One announcement per section on which the client sends. The first of a kind is the camera or
    /// the microphone; what further ones are nobody knows.
    pub(super) fn announcements(&self) -> Vec<AddTrackRequest> {
        let mut requests: Vec<AddTrackRequest> = Vec::new();
        for section in self.sections.iter().filter(|section| section.sends()) {
            let Some(kind) = section.media_kind() else { continue };
            let track_type = match kind {
                MediaKind::Audio => TrackType::Audio,
                MediaKind::Video => TrackType::Video,
            };
            let first = requests.iter().all(|request| request.r#type() != track_type);
            requests.push(announcement(section, kind, first));
        }
        requests
    }
}

fn announcement(section: &RemoteSection, kind: MediaKind, first: bool) -> AddTrackRequest {
    let (track_type, name, source) = match kind {
        MediaKind::Audio => (TrackType::Audio, "microphone", TrackSource::Microphone),
        MediaKind::Video => (TrackType::Video, "camera", TrackSource::Camera),
    };
    // Without `a=msid` the section's mid tells tracks apart as well.
    let cid = section.msid.as_ref().map_or(&section.mid, |(_, track)| track);
    let layer = |quality: usize| VideoLayer { quality: quality as i32, ..VideoLayer::default() };
    AddTrackRequest {
        cid: cid.clone(),
        name: if first { name.to_owned() } else { format!("{name}-{}", section.mid) },
        source: if first { source.into() } else { TrackSource::Unknown.into() },
        r#type: track_type.into(),
        disable_dtx: true,
        stream: STREAM.to_owned(),
        layers: match kind {
            // Sizes and frame rates stand nowhere in an offer.
            MediaKind::Video if section.rids.len() > 1 => {
                (0..section.rids.len().min(MAX_LAYERS)).map(layer).collect()
            }
            _ => Vec::new(),
        },
        ..AddTrackRequest::default()
    }
}

/// 422: understood, and impossible.
pub(super) fn unusable(text: &str) -> HttpError {
    HttpError { status: StatusCode::UNPROCESSABLE_ENTITY, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMULCAST: &str =
        include_str!("../../../transport/tests/sdp/golden/chromium-av-simulcast-vp8.sdp");
    const DATA_ONLY: &str =
        include_str!("../../../transport/tests/sdp/golden/chromium-data-only.sdp");

    #[test]
    fn browser_offer_becomes_a_microphone_and_a_camera_with_layers() {
        let offer = Offer::parse(SIMULCAST).unwrap();
        let requests = offer.announcements();
        assert_eq!(requests.len(), 2);
        let video = requests.iter().find(|r| r.r#type() == TrackType::Video).unwrap();
        assert_eq!((video.source(), video.layers.len()), (TrackSource::Camera, 3));
        let audio = requests.iter().find(|r| r.r#type() == TrackType::Audio).unwrap();
        assert_eq!((audio.source(), audio.layers.len()), (TrackSource::Microphone, 0));
        assert_ne!(audio.cid, video.cid);
        assert!(offer.sends());
    }

    #[test]
    fn data_alone_is_an_offer_that_sends_no_media() {
        let offer = Offer::parse(DATA_ONLY).unwrap();
        assert!(!offer.sends() && !offer.receives());
        offer.check_use().unwrap();
    }

    #[test]
    fn bad_offers_are_told_apart() {
        for text in ["", "hello", "v=0\r\n"] {
            assert_eq!(Offer::parse(text).unwrap_err().status, StatusCode::BAD_REQUEST, "{text}");
        }
    }
}
