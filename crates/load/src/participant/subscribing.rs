//! What a participant receives: it subscribes to what its layout shows, answers the offers of its
//! receiving connection, and tells the media thread which tracks to expect.

use std::time::Instant;

use anyhow::Context as _;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::{
    ParticipantInfo, SessionDescription, SignalTarget, TrackInfo, TrackType, UpdateSubscription,
    UpdateTrackSettings,
};
use sluice_rtp::{Codec, ExtensionKind, MediaKind};

use super::Participant;
use crate::receive::{ExpectedTrack, ReceiveOptions};
use crate::sdp::{Description, Kind, answer};
use crate::signal::Signal;
use crate::worker::Command;

impl Participant {
    /// Subscribes to what the layout shows.
    pub(super) async fn watch(
        &mut self,
        signal: &mut Signal,
        participants: &[ParticipantInfo],
    ) -> anyhow::Result<()> {
        if !self.plan.subscribes {
            return Ok(());
        }
        if !*self.shared.subscribe.borrow() {
            self.deferred.extend_from_slice(participants);
            return Ok(());
        }
        let (mut sids, mut settings) = (Vec::new(), Vec::new());
        let tracks =
            participants.iter().flat_map(|info| info.tracks.iter().map(move |t| (info, t)));
        for (info, track) in tracks {
            if info.identity == self.plan.identity || self.wanted.contains_key(&track.sid) {
                continue;
            }
            let tile = self.tile(info, track);
            if track.r#type() == TrackType::Video && tile.is_none() {
                continue;
            }
            self.wanted.insert(track.sid.clone(), self.wanted_since());
            sids.push(track.sid.clone());
            settings.extend(tile.map(|(width, height)| UpdateTrackSettings {
                track_sids: vec![track.sid.clone()],
                width,
                height,
                ..UpdateTrackSettings::default()
            }));
        }
        if sids.is_empty() || self.plan.auto_subscribe() {
            return Ok(());
        }
        for settings in settings {
            signal.send(Request::TrackSetting(settings)).await?;
        }
        let update = UpdateSubscription { track_sids: sids, subscribe: true, ..Default::default() };
        signal.send(Request::Subscription(update)).await
    }

    /// Size of the tile of a video track, if it has one; remembers who is shown.
    fn tile(&mut self, info: &ParticipantInfo, track: &TrackInfo) -> Option<(u32, u32)> {
        if track.r#type() != TrackType::Video {
            return None;
        }
        let tile = self.plan.layout.tile(self.watched_videos.len())?;
        self.watched_videos.insert(info.identity.clone(), track.sid.clone());
        Some(tile)
    }

    /// Tracks that are there when we join are wanted since the beginning.
    fn wanted_since(&self) -> Instant {
        if self.joined { Instant::now() } else { self.started }
    }

    pub(super) async fn on_offer(
        &mut self,
        signal: &mut Signal,
        offer: &SessionDescription,
    ) -> anyhow::Result<()> {
        let description = Description::parse(&offer.sdp).context("the server's offer")?;
        let local = self.subscriber.prepare(&self.shared)?.clone();
        let sdp = answer(&description, &local);
        let (r#type, id) = ("answer".to_owned(), offer.id);
        let reply = SessionDescription { r#type, sdp, id, ..SessionDescription::default() };
        // The offerer controls, unless it is lite (RFC 8445 §6.1.1).
        self.start(SignalTarget::Subscriber, &description, description.ice_lite);
        // Media may follow the answer at once.
        let (options, tracks) = self.expected(&description);
        self.worker().send(Command::Expect(self.subscriber_id(), options, tracks));
        signal.send(Request::Answer(reply)).await
    }

    fn expected(&self, offer: &Description) -> (ReceiveOptions, Vec<ExpectedTrack>) {
        let mut options = ReceiveOptions {
            sample_every: self.shared.options.sample_every,
            transport_cc: None,
            remb: false,
        };
        let mut tracks = Vec::new();
        for section in offer.sections.iter().filter(|s| s.sends && !s.rejected) {
            let kind = match section.kind {
                Kind::Audio => MediaKind::Audio,
                Kind::Video => MediaKind::Video,
                Kind::Application | Kind::Other => continue,
            };
            let (Some(&ssrc), Some(format)) = (section.ssrcs.first(), section.codec()) else {
                continue;
            };
            let transport_cc = section.extension(ExtensionKind::TransportCc);
            options.transport_cc = options.transport_cc.or(transport_cc);
            options.remb |= section.has_feedback("goog-remb") && transport_cc.is_none();
            let repair = section.repairs.iter().find(|(media, _)| *media == ssrc);
            let sid = section.msid.as_ref().map(|(_, track)| track.as_str()).unwrap_or_default();
            tracks.push(ExpectedTrack {
                ssrc,
                repair_ssrc: repair.map(|(_, repair)| *repair),
                codec: Codec::from_name(kind, &format.name),
                clock_rate: format.clock_rate,
                nack: section.has_feedback("nack"),
                wanted_at: self.wanted.get(sid).copied().unwrap_or(self.started),
            });
        }
        (options, tracks)
    }
}
