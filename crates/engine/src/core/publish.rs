//! What a peer may send: its sections after each negotiation, and the tracks they feed.

use std::collections::VecDeque;
use std::time::Instant;

use sluice_rtp::ext::ExtensionKind;
use sluice_rtp::packet::RtpView;
use sluice_sfu::{
    AudioLevelObserver, BinderSection, ReceivePayloadType, TrackReceiver, TrackReceiverConfig,
};

use crate::api::{EventKind, PublishedTrack, ReceiveParams, ReceiveSection, TrackId, WorkerId};
use crate::core::Core;
use crate::core::peer::{PeerKey, Section, TrackKey};
use crate::core::track::{Attachment, Publication};
use crate::link::{FeedKey, LinkMessage};
use crate::stats::DropCause;

impl Core {
    /// Replaces what a peer may send. Tracks that stay keep their state.
    pub(crate) fn set_receive(&mut self, now: Instant, peer: PeerKey, receive: ReceiveParams) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        state.binder.configure(receive.sections.iter().map(binder_section).collect());
        state.twcc_id = receive
            .sections
            .iter()
            .filter(|section| section.transport_cc)
            .find_map(|section| section.extensions.id(ExtensionKind::TransportCc));
        let mut old = std::mem::take(&mut state.sections);
        let mut sections = Vec::with_capacity(receive.sections.len());
        let mut matched = Vec::new();
        for params in receive.sections {
            let before = old.iter().position(|section| section.mid == params.mid);
            let mut section = match before {
                Some(index) => old.swap_remove(index),
                None => Section::new(params.mid.clone()),
            };
            if self.match_section(now, peer, &mut section, &params) {
                matched.push(sections.len());
            }
            sections.push(section);
        }
        for key in old.into_iter().filter_map(|section| section.key) {
            self.end_track(now, key);
        }
        if let Some(state) = self.peers.get_mut(peer) {
            state.sections = sections;
        }
        for index in matched {
            self.replay_held(peer, index);
        }
        self.mark_dirty(peer);
    }

    /// Brings a section's track in line with what was negotiated. True if it got a new one.
    fn match_section(
        &mut self,
        now: Instant,
        peer: PeerKey,
        section: &mut Section,
        params: &ReceiveSection,
    ) -> bool {
        let wanted = params.track.map(|published| published.track);
        let current = section.key.and_then(|key| self.tracks.get_mut(key));
        if let Some(publication) = current {
            if wanted == Some(publication.id) {
                if let Some(published) = params.track {
                    publication.receiver.set_config(receiver_config(params, published));
                    publication.published = published;
                    section.track = Some(published);
                }
                return false;
            }
            if let Some(key) = section.key.take() {
                self.end_track(now, key);
            }
            section.unmatched_told = false;
        }
        section.track = params.track;
        section.key = params.track.and_then(|published| self.publish(now, peer, params, published));
        section.key.is_some()
    }

    fn publish(
        &mut self,
        now: Instant,
        peer: PeerKey,
        params: &ReceiveSection,
        published: PublishedTrack,
    ) -> Option<TrackKey> {
        let room = self.peers.get(peer)?.room;
        let id = published.track;
        if let Some(moved) = self.track_ids.get(&id).copied() {
            // The client moved the track to another section.
            self.end_track(now, moved);
        }
        let attached = self.early_attachments.remove(&id).unwrap_or_default();
        let key = self.tracks.insert(Publication {
            id,
            peer,
            room,
            published,
            receiver: TrackReceiver::new(receiver_config(params, published))
                .with_key_frame_intervals(self.media.key_frame_intervals),
            muted: false,
            layers_told: 0,
            level: published.microphone.then(|| AudioLevelObserver::new(self.media.audio_levels)),
            level_due: false,
            speaking: false,
            attached,
            max_wanted_told: None,
            lost_told: 0,
        });
        self.track_ids.insert(id, key);
        self.tell_max_wanted(key);
        Some(key)
    }

    /// Feeds the packets that came before their track was known.
    fn replay_held(&mut self, peer: PeerKey, index: usize) {
        let Some(section) = self.peers.get_mut(peer).and_then(|s| s.sections.get_mut(index)) else {
            return;
        };
        for held in std::mem::take(&mut section.held) {
            if let Ok(view) = RtpView::parse(held.body.bytes()) {
                self.receive_bound(held.arrival, peer, &view);
            }
        }
    }

    /// Ends a track on every worker.
    pub(crate) fn end_track(&mut self, now: Instant, key: TrackKey) {
        let Some(publication) = self.tracks.remove(key) else { return };
        if self.track_ids.get(&publication.id) == Some(&key) {
            self.track_ids.remove(&publication.id);
        }
        if let Some(state) = self.peers.get_mut(publication.peer) {
            for section in state.sections.iter_mut().filter(|s| s.key == Some(key)) {
                section.key = None;
                section.track = None;
                // What still arrives is the rest of this track.
                section.unmatched_told = true;
            }
        }
        for Attachment { worker, feed, .. } in publication.attached {
            self.tell_worker(now, worker, LinkMessage::TrackEnded { feed });
        }
    }

    /// The publisher muted or unmuted.
    pub(crate) fn set_track_muted(&mut self, now: Instant, track: TrackId, muted: bool) {
        let key = self.track_ids.get(&track).copied();
        let Some(publication) = key.and_then(|key| self.tracks.get_mut(key)) else {
            return self.stats.drop_one(DropCause::StaleCommand);
        };
        if std::mem::replace(&mut publication.muted, muted) == muted {
            return;
        }
        publication.receiver.set_muted();
        let layers = publication.receiver.live_layers();
        for Attachment { worker, feed, .. } in publication.attached.clone() {
            self.tell_worker(now, worker, LinkMessage::LiveLayers { feed, layers });
            self.tell_worker(now, worker, LinkMessage::Muted { feed, muted });
        }
    }

    /// A worker has receivers for a track.
    pub(crate) fn attach(
        &mut self,
        now: Instant,
        worker: WorkerId,
        track: TrackId,
        feed: FeedKey,
        wanted: Option<u8>,
    ) {
        let attachment = Attachment { worker, feed, wanted };
        let Some(key) = self.track_ids.get(&track).copied() else {
            self.early_attachments.entry(track).or_default().push(attachment);
            return;
        };
        let Some(publication) = self.tracks.get_mut(key) else { return };
        publication.attached.push(attachment);
        let layers = publication.receiver.live_layers();
        let muted = publication.muted;
        self.tell_worker(now, worker, LinkMessage::LiveLayers { feed, layers });
        if muted {
            self.tell_worker(now, worker, LinkMessage::Muted { feed, muted });
        }
        self.tell_max_wanted(key);
    }

    /// A worker has no more receivers for a track.
    pub(crate) fn detach(&mut self, track: TrackId, feed: FeedKey, worker: WorkerId) {
        let is_other = |a: &Attachment| a.worker != worker || a.feed != feed;
        if let Some(early) = self.early_attachments.get_mut(&track) {
            early.retain(is_other);
            if early.is_empty() {
                self.early_attachments.remove(&track);
            }
        }
        let Some(key) = self.track_ids.get(&track).copied() else { return };
        if let Some(publication) = self.tracks.get_mut(key) {
            publication.attached.retain(is_other);
            self.tell_max_wanted(key);
        }
    }

    /// What the receivers of one worker want of a track changed.
    pub(crate) fn set_wanted(
        &mut self,
        worker: WorkerId,
        track: TrackId,
        feed: FeedKey,
        wanted: Option<u8>,
    ) {
        let key = self.track_ids.get(&track).copied();
        let attached = match key.and_then(|key| self.tracks.get_mut(key)) {
            Some(publication) => Some(&mut publication.attached),
            None => self.early_attachments.get_mut(&track),
        };
        let attachment = attached.and_then(|attached| {
            attached.iter_mut().find(|a| a.worker == worker && a.feed == feed)
        });
        if let Some(attachment) = attachment {
            attachment.wanted = wanted;
        }
        if let Some(key) = key {
            self.tell_max_wanted(key);
        }
    }

    /// Tells the control plane what dynacast must know, when it changed.
    fn tell_max_wanted(&mut self, key: TrackKey) {
        let Some(publication) = self.tracks.get_mut(key) else { return };
        let max_spatial = publication.max_wanted();
        if publication.max_wanted_told == Some(max_spatial) {
            return;
        }
        publication.max_wanted_told = Some(max_spatial);
        if let Some(max) = max_spatial {
            publication.receiver.expect_layers(max);
        }
        let (room, track) = (publication.room, publication.id);
        self.emit(room, EventKind::MaxWanted { track, max_spatial });
    }

    /// A receiver somewhere needs a key frame.
    pub(crate) fn request_key_frame(&mut self, now: Instant, track: TrackId, layer: u8) {
        let key = self.track_ids.get(&track).copied();
        if let Some(publication) = key.and_then(|key| self.tracks.get_mut(key)) {
            publication.receiver.request_key_frame(layer);
            let peer = publication.peer;
            self.guarded(now, peer, |core| core.write_feedback(now, peer));
        }
    }
}

impl Section {
    fn new(mid: String) -> Self {
        Self { mid, track: None, key: None, held: VecDeque::new(), unmatched_told: false }
    }
}

fn binder_section(section: &ReceiveSection) -> BinderSection {
    BinderSection {
        mid: section.mid.clone(),
        rids: section.rids.clone(),
        ssrcs: section.ssrcs.iter().map(|s| (s.ssrc, s.rtx_ssrc)).collect(),
        media_pts: section.payload_types.iter().map(|p| p.pt).collect(),
        rtx_pts: section.payload_types.iter().filter_map(|p| p.rtx_pt).collect(),
        extensions: section.extensions,
    }
}

fn receiver_config(section: &ReceiveSection, published: PublishedTrack) -> TrackReceiverConfig {
    let payload_types = section.payload_types.iter().map(|p| ReceivePayloadType {
        pt: p.pt,
        codec: p.codec,
        clock_rate: p.clock_rate,
        rtx_pt: p.rtx_pt,
    });
    TrackReceiverConfig {
        kind: section.kind,
        payload_types: payload_types.collect(),
        extensions: section.extensions,
        nack: section.nack,
        encrypted: published.encrypted,
        screen_share: published.screen_share,
    }
}
