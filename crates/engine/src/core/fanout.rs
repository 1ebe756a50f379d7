//! One packet to every receiver of a worker. The packet is kept once; a receiver's egress list gets
//! only what differs for it.

use std::time::Instant;

use sluice_rtp::codec::MediaKind;
use sluice_sfu::MediaPacket;

use crate::core::Core;
use crate::core::peer::{DownKey, Egress, Pace, PeerKey};
use crate::core::red::Receivers;
use crate::core::rtcp_out::FIRST_SENDER_REPORT;
use crate::core::track::Metered;
use crate::link::{FeedKey, LinkMessage};
use crate::stats::DropCause;

impl Core {
    /// Appends a packet to the egress list of each of the receivers that gets it.
    pub(super) fn forward_to(
        &mut self,
        now: Instant,
        feed: FeedKey,
        packet: MediaPacket,
        receivers: Receivers,
    ) {
        let Some(state) = self.feeds.get_mut(feed) else {
            return self.stats.drop_one(DropCause::LinkStale);
        };
        // What was rebuilt for some is not asked for by the others.
        if !matches!(receivers, Receivers::NotRed(_)) {
            state.history.push(&packet);
        }
        let begins = state.meter.is_none();
        let metered = state.meter.get_or_insert_with(|| Box::new(Metered::new(now)));
        metered.meter.on_media(now, &packet);
        let layers_changed = state.live_layers != packet.live_layers || state.epoch != packet.epoch;
        state.live_layers = packet.live_layers;
        state.epoch = packet.epoch;

        // Before the packet is offered: a layer often begins with its key frame.
        if begins || layers_changed {
            self.demands_changed(now, feed);
        }
        let Some(state) = self.feeds.get_mut(feed) else { return };
        let pace = match state.kind {
            MediaKind::Audio => Pace::Urgent,
            MediaKind::Video => Pace::Patient,
        };

        // Kept before the first entry refers to it: a panic below leaves no entry that would refer
        // to the next packet instead.
        let index = self.batch.len();
        self.batch.push(packet);
        let packet = &self.batch[index];
        let publisher = self.blamed;
        for key in &state.downs {
            let Some(down) = self.downs.get_mut(*key).filter(|down| down.connected) else {
                continue;
            };
            if !receivers.include(&down.wire) {
                continue;
            }
            self.blamed = down.peer;
            let Some(form) = down.track.forward(now, packet) else { continue };
            let Some(receiver) = self.peers.get_mut(down.peer) else { continue };
            let entry = Egress { packet: index as u32, down: *key, form, rtx_seq: None, pace };
            receiver.egress.push(entry);
            if !std::mem::replace(&mut receiver.egress_dirty, true) {
                self.egress_dirty.push(down.peer);
            }
            if receiver.next_sender_report.is_none() {
                let at = now + FIRST_SENDER_REPORT;
                receiver.next_sender_report = Some(at);
                self.timers.arm(&mut receiver.armed, down.peer, at);
                if let Some(at) = receiver.quality.begin(now) {
                    self.timers.arm(&mut receiver.armed, down.peer, at);
                }
            }
        }
        self.blamed = publisher;
        if self.egress_dirty.is_empty() {
            self.batch.clear();
        } else {
            self.hold.begin(now);
        }
        if layers_changed {
            self.ask_key_frames(now, feed);
        }
    }

    /// Sees to it that the next flush of media looks at a peer.
    pub(super) fn mark_egress(&mut self, now: Instant, peer: PeerKey) {
        if let Some(state) = self.peers.get_mut(peer)
            && !std::mem::replace(&mut state.egress_dirty, true)
        {
            self.egress_dirty.push(peer);
            self.hold.begin(now);
        }
    }

    /// Asks the publisher for what the receivers of a feed need to start or switch.
    pub(super) fn ask_key_frames(&mut self, now: Instant, feed: FeedKey) {
        let mut index = 0;
        while let Some(down) = self.feeds.get(feed).and_then(|f| f.downs.get(index)).copied() {
            index += 1;
            self.ask_key_frame(now, down);
        }
    }

    /// Asks the publisher for what one receiver needs to start or switch.
    pub(super) fn ask_key_frame(&mut self, now: Instant, key: DownKey) {
        let Some(down) = self.downs.get_mut(key).filter(|down| down.connected) else { return };
        let layer = down.track.poll_key_frame_request(now);
        let again = down.track.poll_timeout();
        let feed = down.feed;
        if let Some(at) = again
            && let Some(receiver) = self.peers.get_mut(down.peer)
        {
            if !receiver.awaiting.contains(&key) {
                receiver.awaiting.push(key);
            }
            self.timers.arm(&mut receiver.armed, down.peer, at);
        }
        if let Some(layer) = layer {
            self.send_key_frame_request(now, feed, layer);
        }
    }

    /// Passes a request for a key frame to the publisher's worker.
    pub(super) fn send_key_frame_request(&mut self, now: Instant, feed: FeedKey, layer: u8) {
        let Some(feed) = self.feeds.get(feed).filter(|feed| !feed.ended) else { return };
        let track = feed.track;
        self.tell_worker(now, track.worker(), LinkMessage::KeyFrame { track, layer });
    }
}
