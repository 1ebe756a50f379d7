//! What workers tell each other. A track and its receivers on the same worker use the same messages,
//! as calls.

use std::time::Instant;

use crate::api::WorkerId;
use crate::core::Core;
use crate::core::peer::PeerKey;
use crate::link::{FeedKey, LinkMessage};
use crate::stats::DropCause;

impl Core {
    /// Takes a message of another worker.
    pub(crate) fn handle_link(&mut self, now: Instant, from: WorkerId, message: LinkMessage) {
        self.stats.link_in += 1;
        self.guarded(now, PeerKey::default(), |core| core.take_message(now, from, message));
    }

    /// Sends a message over a link, or takes it here if it is for this worker.
    pub(super) fn tell_worker(&mut self, now: Instant, to: WorkerId, message: LinkMessage) {
        if to == self.worker {
            self.take_message(now, to, message);
        } else {
            self.push_link(to, message);
        }
    }

    fn take_message(&mut self, now: Instant, from: WorkerId, message: LinkMessage) {
        match message {
            LinkMessage::Media { feed, packet } => self.forward(now, feed, packet),
            LinkMessage::SenderReport { feed, report } => {
                let Some(feed) = self.feeds.get(feed) else {
                    return self.stats.drop_one(DropCause::LinkStale);
                };
                for key in &feed.downs {
                    if let Some(down) = self.downs.get_mut(*key) {
                        down.track.on_source_report(report);
                    }
                }
            }
            LinkMessage::LiveLayers { feed, layers } => {
                self.set_live_layers(feed, layers);
                self.ask_key_frames(now, feed);
            }
            LinkMessage::Muted { feed, muted } => {
                self.set_source_muted(now, feed, muted);
                self.demands_changed(now, feed);
                // What it cost says nothing of what it will.
                if let Some(feed) = self.feeds.get_mut(feed).filter(|_| muted) {
                    feed.meter = None;
                }
            }
            LinkMessage::TrackEnded { feed } => {
                if let Some(feed) = self.feeds.get_mut(feed) {
                    feed.ended = true;
                    feed.history.clear();
                    feed.meter = None;
                }
            }
            LinkMessage::Attach { track, feed, wanted } => {
                self.attach(now, from, track, feed, wanted);
            }
            LinkMessage::Detach { track, feed } => self.detach(track, feed, from),
            LinkMessage::Wanted { track, feed, max_spatial } => {
                self.set_wanted(from, track, feed, max_spatial);
            }
            LinkMessage::KeyFrame { track, layer } => self.request_key_frame(now, track, layer),
            LinkMessage::Datagram { route, bytes } => {
                self.handle_handed_over(now, from, route, bytes.bytes());
            }
            LinkMessage::RouteUp { route } => self.foreign_routes.insert(route, from),
            LinkMessage::RouteDown { route } => self.foreign_routes.remove(&route, from),
        }
    }

    fn set_live_layers(&mut self, feed: FeedKey, layers: sluice_sfu::LayerSet) {
        let Some(feed) = self.feeds.get_mut(feed) else { return };
        feed.live_layers = layers;
        for key in &feed.downs {
            if let Some(down) = self.downs.get_mut(*key) {
                down.track.set_live_layers(layers);
            }
        }
    }
}
