//! What a participant publishes: it asks for its tracks, offers them on its sending connection, and
//! does to them what the run and the server say.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::{
    AddTrackRequest, MuteTrackRequest, SessionDescription, SignalTarget, SubscribedQualityUpdate,
    TrackSource, TrackType, VideoLayer, VideoQuality,
};

use super::Participant;
use crate::encoder::{LayerSpec, StreamIds};
use crate::packet::ExtensionIds;
use crate::plan::ParticipantPlan;
use crate::publish::TrackSpec;
use crate::sdp::{Description, OPUS_PT, OfferedTrack, RIDS, Section, VP8_PT, VP8_RTX_PT, offer};
use crate::signal::Signal;
use crate::worker::Command;

impl Participant {
    /// Chooses numbers for our tracks, and asks to publish them.
    pub(super) fn track_requests(&mut self) -> Vec<AddTrackRequest> {
        let audio = self.plan.audio.then(|| microphone(&self.plan));
        let video = self.plan.video.as_ref().map(|layers| camera(&self.plan, layers));
        let (requests, offered) = audio.into_iter().chain(video).unzip();
        self.offered = offered;
        requests
    }

    pub(super) async fn send_offer(&mut self, signal: &mut Signal) -> anyhow::Result<()> {
        let local = self.publisher.prepare(&self.shared)?.clone();
        let sdp = offer(&self.offered, self.plan.data.is_some(), &local);
        self.offer_id += 1;
        let (r#type, id) = ("offer".to_owned(), self.offer_id);
        let offer = SessionDescription { r#type, sdp, id, ..SessionDescription::default() };
        signal.send(Request::Offer(offer)).await
    }

    pub(super) fn on_answer(&mut self, answer: &SessionDescription) -> anyhow::Result<()> {
        let answer = Description::parse(&answer.sdp).context("the server's answer")?;
        // We offered, so we control.
        self.start(SignalTarget::Publisher, &answer, true);
        for (track, section) in self.offered.iter().zip(&answer.sections) {
            if section.rejected {
                bail!("the server rejected the section of {}", track.cid);
            }
            let Some(sid) = self.published.get(&track.cid) else { continue };
            let command = Command::Publish(self.publisher_id(), self.track(track, section, sid));
            self.worker().send(command);
        }
        self.tell_who_speaks();
        Ok(())
    }

    fn track(&self, track: &OfferedTrack, section: &Section, sid: &str) -> TrackSpec {
        let layers = self.plan.video.iter().flatten();
        let layers: Vec<_> =
            if track.video { layers.map(|layer| Some(*layer)).collect() } else { vec![None] };
        let payload_type = if track.video {
            section.payload_type("vp8").unwrap_or(VP8_PT)
        } else {
            section.payload_type("opus").unwrap_or(OPUS_PT)
        };
        let repair = section.payload_type("rtx").map(|_| VP8_RTX_PT).filter(|_| track.video);
        let ids = track.ssrcs.iter().map(|(ssrc, repair_ssrc)| StreamIds {
            ssrc: *ssrc,
            repair_ssrc: repair_ssrc.unwrap_or_default(),
            payload_type,
            repair_payload_type: repair,
        });
        TrackSpec {
            sid: sid.to_owned(),
            mid: section.mid.clone(),
            muted: !self.unmuted,
            extensions: ExtensionIds::of(section),
            layers: ids.zip(layers).collect(),
        }
    }

    pub(super) async fn unmute(&self, signal: &mut Signal) -> anyhow::Result<()> {
        for sid in self.published.values() {
            let request = MuteTrackRequest { sid: sid.clone(), muted: false };
            signal.send(Request::Mute(request)).await?;
        }
        self.worker().send(Command::Unmute(self.publisher_id()));
        Ok(())
    }

    pub(super) fn tell_who_speaks(&self) {
        let speaker = *self.shared.speaker.borrow();
        let speaks = speaker.is_none_or(|index| index == self.plan.index_in_room);
        self.worker().send(Command::SetSpeaking(self.publisher_id(), speaks));
    }

    pub(super) fn on_qualities(&self, update: &SubscribedQualityUpdate) {
        let mut enabled = [true; 3];
        let listed = update.subscribed_codecs.iter().flat_map(|codec| &codec.qualities);
        for quality in listed.chain(&update.subscribed_qualities) {
            if let Some(layer) = enabled.get_mut(quality.quality as usize) {
                *layer = quality.enabled;
            }
        }
        // One layer serves every quality.
        if self.plan.video.as_ref().is_some_and(|layers| layers.len() == 1) {
            enabled = [enabled.contains(&true); 3];
        }
        let (id, sid) = (self.publisher_id(), update.track_sid.clone());
        self.worker().send(Command::SetLayers { id, sid, enabled });
    }

    pub(super) fn send_data(&self) {
        let Some(data) = self.plan.data else { return };
        let message = crate::data::message(data.bytes, data.reliable);
        let (id, reliable) = (self.publisher_id(), data.reliable);
        self.worker().send(Command::SendData { id, reliable, data: Bytes::from(message) });
    }
}

fn microphone(plan: &ParticipantPlan) -> (AddTrackRequest, OfferedTrack) {
    let cid = format!("audio-{:08x}", rand::random::<u32>());
    let request = AddTrackRequest {
        cid: cid.clone(),
        name: "microphone".into(),
        r#type: TrackType::Audio.into(),
        source: TrackSource::Microphone.into(),
        disable_red: true,
        muted: plan.muted,
        stream: stream(plan),
        ..AddTrackRequest::default()
    };
    let ssrcs = vec![(rand::random(), None)];
    (request, OfferedTrack { video: false, stream: stream(plan), cid, ssrcs })
}

fn camera(plan: &ParticipantPlan, layers: &[LayerSpec]) -> (AddTrackRequest, OfferedTrack) {
    let cid = format!("video-{:08x}", rand::random::<u32>());
    let top = layers.last().map_or((0, 0), |layer| (layer.width, layer.height));
    let request = AddTrackRequest {
        cid: cid.clone(),
        name: "camera".into(),
        r#type: TrackType::Video.into(),
        source: TrackSource::Camera.into(),
        muted: plan.muted,
        width: top.0.into(),
        height: top.1.into(),
        stream: stream(plan),
        layers: described(layers),
        ..AddTrackRequest::default()
    };
    let ssrcs = layers.iter().map(|_| (rand::random(), Some(rand::random()))).collect();
    (request, OfferedTrack { video: true, stream: stream(plan), cid, ssrcs })
}

fn stream(plan: &ParticipantPlan) -> String {
    format!("stream-{}", plan.identity)
}

fn described(layers: &[LayerSpec]) -> Vec<VideoLayer> {
    let qualities = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];
    // A single layer is the highest quality there is.
    let skip = qualities.len().saturating_sub(layers.len());
    let layers_by_quality = layers.iter().zip(&qualities[skip..]).enumerate();
    layers_by_quality
        .map(|(at, (layer, quality))| VideoLayer {
            quality: (*quality).into(),
            width: layer.width.into(),
            height: layer.height.into(),
            bitrate: layer.bitrate_bps,
            spatial_layer: at as i32,
            rid: if layers.len() > 1 { RIDS[at].to_owned() } else { String::new() },
            ..VideoLayer::default()
        })
        .collect()
}
