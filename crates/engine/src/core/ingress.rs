//! Media from a peer: the section and layer of a packet, the track's receiving state, and on to
//! whoever watches the track.

use std::time::{Duration, Instant};

use sluice_rtp::ext::parse_transport_cc;
use sluice_rtp::packet::RtpView;
use sluice_sfu::StreamBinding;

use crate::api::EventKind;
use crate::core::Core;
use crate::core::peer::{Held, PeerKey, TrackKey};
use crate::link::LinkMessage;
use crate::stats::DropCause;

/// Packets of a section that are held until the control plane has matched its track.
const MAX_HELD: usize = 200;

/// How long they are held.
const MAX_HELD_FOR: Duration = Duration::from_secs(1);

/// Time between receiver reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Core {
    /// Takes a decrypted RTP packet.
    pub(super) fn receive_rtp(&mut self, now: Instant, peer: PeerKey, packet: &[u8]) {
        let Ok(view) = RtpView::parse(packet) else {
            return self.stats.drop_one(DropCause::MalformedRtp);
        };
        let Some(state) = self.peers.get_mut(peer) else { return };
        self.stats.packets_in += 1;
        self.stats.packet_bytes_in += packet.len() as u64;
        state.stats.packets_in += 1;
        state.stats.bytes_in += packet.len() as u64;
        let extension = state.twcc_id.and_then(|id| view.extension(id));
        if let Some(seq) = extension.and_then(parse_transport_cc) {
            state.twcc.on_packet(now, view.ssrc(), seq);
            if let Some(at) = state.twcc.poll_timeout() {
                self.timers.arm(&mut state.armed, peer, at);
            }
        }
        self.receive_bound(now, peer, &view);
    }

    /// Finds the track of a packet.
    pub(super) fn receive_bound(&mut self, now: Instant, peer: PeerKey, view: &RtpView<'_>) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let binding = match state.binder.resolve(view) {
            Ok(binding) => binding,
            Err(reason) => return self.stats.drop_media(reason),
        };
        let index = usize::from(binding.section);
        match state.sections.get(index).and_then(|section| section.key) {
            Some(track) => {
                if state.next_report.is_none() {
                    let at = now + REPORT_INTERVAL;
                    state.next_report = Some(at);
                    self.timers.arm(&mut state.armed, peer, at);
                    if let Some(at) = state.quality.begin(now) {
                        self.timers.arm(&mut state.armed, peer, at);
                    }
                }
                self.receive_media(now, track, binding, view);
            }
            None => self.hold(now, peer, index, view),
        }
    }

    /// Takes a packet of a track and passes it to every feed.
    fn receive_media(
        &mut self,
        now: Instant,
        track: TrackKey,
        binding: StreamBinding,
        view: &RtpView<'_>,
    ) {
        let Some(publication) = self.tracks.get_mut(track) else { return };
        let mut packet = match publication.receiver.on_rtp(now, binding, view, &mut self.pool) {
            Ok(packet) => packet,
            Err(reason) => return self.stats.drop_media(reason),
        };
        self.stats.rtx_in += u64::from(packet.recovered);
        // It was received all the same: the numbers after it have no gap.
        if publication.muted {
            return self.stats.drop_one(DropCause::Muted);
        }
        if !publication.published.microphone {
            packet.audio_level = None;
        }
        if let (Some(level), Some(observer)) = (packet.audio_level, &mut publication.level) {
            observer.observe(now, level, packet.timestamp, packet.codec.clock_rate());
            self.levels.heard(now, track, publication);
        }
        let first_of_layer = publication.layers_told & (1 << packet.stream) == 0;
        if let Some(at) = publication.receiver.poll_timeout()
            && let Some(state) = self.peers.get_mut(publication.peer)
        {
            self.timers.arm(&mut state.armed, publication.peer, at);
        }
        if first_of_layer {
            self.tell_layer(track, packet.stream);
        }
        let mut index = 0;
        while let Some(publication) = self.tracks.get(track)
            && let Some(attachment) = publication.attached.get(index).copied()
        {
            index += 1;
            if attachment.worker == self.worker {
                self.forward(now, attachment.feed, packet.clone());
            } else {
                let packet = packet.clone();
                let message = LinkMessage::Media { feed: attachment.feed, packet };
                self.push_link(attachment.worker, message);
            }
        }
    }

    /// Tells the control plane of layers whose first packet came.
    fn tell_layer(&mut self, track: TrackKey, layer: u8) {
        let Some(publication) = self.tracks.get_mut(track) else { return };
        publication.layers_told |= 1 << layer;
        while let Some(started) = publication.receiver.poll_layer_started() {
            let state = self.peers.get(publication.peer);
            let section = state.and_then(|s| s.sections.iter().position(|s| s.key == Some(track)));
            let rid = state
                .zip(section)
                .and_then(|(state, index)| state.binder.sections().get(index))
                .and_then(|section| section.rids.get(usize::from(started.layer)).cloned());
            let kind = EventKind::LayerStarted {
                track: publication.id,
                layer: started.layer,
                ssrc: started.ssrc,
                rid,
                codec: started.codec,
            };
            let event = crate::api::Event { room: publication.room, kind };
            self.events.push(event);
        }
    }

    /// Keeps a packet of a section without a track for a short while.
    fn hold(&mut self, now: Instant, peer: PeerKey, index: usize, view: &RtpView<'_>) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let Some(section) = state.sections.get_mut(index) else { return };
        let is_old = |held: &Held| now.saturating_duration_since(held.arrival) > MAX_HELD_FOR;
        while section.held.len() >= MAX_HELD || section.held.front().is_some_and(is_old) {
            section.held.pop_front();
            self.stats.drop_one(DropCause::Unmatched);
        }
        let body = self.pool.store(view.as_bytes());
        section.held.push_back(Held { arrival: now, body });
        if !std::mem::replace(&mut section.unmatched_told, true) {
            let mid = section.mid.clone();
            let (room, peer) = (state.room, state.id);
            self.emit(room, EventKind::UnmatchedMedia { peer, mid });
        }
    }
}
