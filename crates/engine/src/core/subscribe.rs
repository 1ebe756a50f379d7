//! Subscriptions: a receiver of a track, and the feed that connects this worker to the publisher's
//! while there is one.

use std::time::Instant;

use sluice_rtp::codec::MediaKind;
use sluice_rtp::ext::ExtensionKind;
use sluice_sfu::{DownTrack, DownTrackConfig, DownTrackSettings, PlayoutDelayControl};

use crate::api::{RoomKey, SenderParams, Subscribe, SubscriptionId, SubscriptionSettings, TrackId};
use crate::core::Core;
use crate::core::outgoing::Template;
use crate::core::peer::{DownKey, PeerKey, PeerState, Retired};
use crate::core::track::{Down, Feed, PathFeedback, Wire};
use crate::link::{FeedKey, LinkMessage};
use crate::stats::DropCause;

/// SSRCs of ended subscriptions whose numbering is remembered per peer.
const MAX_RETIRED: usize = 2048;

/// First sequence numbers are random below this, so that the receiver cannot take a lost first
/// packet for one of an earlier rollover (RFC 3711 §3.3.1).
const FIRST_SEQ_MASK: u16 = 0x7fff;

impl Core {
    /// Starts to forward a track to a receiver. A subscription that exists and keeps its SSRC and
    /// codec only changes how its packets are written.
    pub(super) fn subscribe(&mut self, now: Instant, subscribe: Subscribe) {
        let Subscribe {
            subscription,
            peer,
            track,
            kind,
            encrypted,
            screen_share,
            playout_delay,
            announce,
            sender,
            settings,
        } = subscribe;
        let Some(peer) = self.peer_ids.get(&peer).copied() else {
            return self.stats.drop_one(DropCause::StaleCommand);
        };
        // One that just ended may have had the same SSRC: its numbers go on.
        self.forget_ended(now);
        if let Some(key) = self.subscription_ids.get(&subscription).copied() {
            if self.renegotiate(key, peer, track, &sender) {
                return self.update_subscription(now, subscription, settings);
            }
            self.remove_down(now, key);
        }
        let Some(room) = self.peers.get(peer).map(|state| state.room) else { return };
        let feed = self.feed_of(now, track, room, kind, settings);
        let Some(state) = self.peers.get_mut(peer) else { return };
        let config = DownTrackConfig {
            kind,
            codec: sender.codec,
            clock_rate: sender.clock_rate,
            ssrc: sender.ssrc,
            pt: sender.pt,
            rtx: sender.rtx_ssrc.zip(sender.rtx_pt),
            encrypted,
            first_seq: first_seq(state, sender.ssrc),
            first_rtx_seq: sender.rtx_ssrc.map_or(0, |ssrc| first_seq(state, ssrc)),
            live_layers: self.feeds.get(feed).map(|feed| feed.live_layers).unwrap_or_default(),
        };
        let before = state.retired.get(&sender.ssrc).and_then(|retired| retired.last_sent);
        let rtx_ssrc = sender.rtx_ssrc;
        let path_feedback = PathFeedback::of(&sender);
        let mut wire = Wire::new(sender);
        wire.playout = playout_delay
            .filter(|_| wire.extensions.contains(ExtensionKind::PlayoutDelay))
            .map(|range| Box::new(PlayoutDelayControl::new(range)));
        let ssrc = wire.ssrc;
        if let Some(feed) = self.feeds.get_mut(feed) {
            feed.forms.add(&wire);
        }
        let mut down_track = DownTrack::new(config, down_settings(settings), now);
        if let Some(newest) = before {
            down_track.continue_after(newest);
        }
        let key = self.downs.insert(Down {
            id: subscription,
            peer,
            feed,
            track: down_track,
            wire,
            settings,
            screen_share,
            path_feedback,
            connected: state.connected,
            announce,
            reported_packets: 0,
            packets_at_report: 0,
        });
        self.subscription_ids.insert(subscription, key);
        state.downs.push(key);
        state.down_by_ssrc.insert(ssrc, key);
        if let Some(rtx) = rtx_ssrc {
            state.down_by_ssrc.insert(rtx, key);
        }
        if let Some(feed) = self.feeds.get_mut(feed) {
            feed.downs.push(key);
            if feed.is_quiet()
                && let Some(down) = self.downs.get_mut(key)
            {
                down.track.set_source_muted(now, true);
            }
        }
        self.demand_changed(now, key);
        self.settle_congestion(now, peer);
        self.update_wanted(now, feed);
        self.ask_key_frame(now, key);
        self.begin_announcement(now, key);
    }

    /// Changes what a receiver wants.
    pub(super) fn update_subscription(
        &mut self,
        now: Instant,
        subscription: SubscriptionId,
        settings: SubscriptionSettings,
    ) {
        let key = self.subscription_ids.get(&subscription).copied();
        let Some((key, down)) = key.and_then(|key| Some((key, self.downs.get_mut(key)?))) else {
            return self.stats.drop_one(DropCause::StaleCommand);
        };
        let (feed, peer) = (down.feed, down.peer);
        let was_quiet = down.track.is_quiet();
        down.settings = settings;
        down.track.set_settings(now, down_settings(settings));
        if !was_quiet {
            self.begin_silence(now, key);
        }
        self.demand_changed(now, key);
        self.settle_congestion(now, peer);
        self.update_wanted(now, feed);
        self.ask_key_frame(now, key);
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&mut self, now: Instant, subscription: SubscriptionId) {
        if let Some(key) = self.subscription_ids.get(&subscription).copied() {
            self.end_down(now, key);
        }
    }

    /// Forgets a subscription, and the feed with its last one.
    pub(super) fn remove_down(&mut self, now: Instant, key: DownKey) {
        let Some(down) = self.downs.remove(key) else { return };
        self.subscription_ids.remove(&down.id);
        self.demand_ended(down.peer, key);
        if let Some(state) = self.peers.get_mut(down.peer) {
            state.downs.retain(|other| *other != key);
            state.awaiting.retain(|other| *other != key);
            state.down_by_ssrc.retain(|_, other| *other != key);
            retire(state, &down);
        }
        let Some(feed) = self.feeds.get_mut(down.feed) else { return };
        feed.downs.retain(|other| *other != key);
        feed.forms.remove(&down.wire);
        if !feed.downs.is_empty() {
            return self.update_wanted(now, down.feed);
        }
        let (track, room) = (feed.track, feed.room);
        self.feeds.remove(down.feed);
        self.leave_stage(room, down.feed);
        self.feed_ids.remove(&track);
        let message = LinkMessage::Detach { track, feed: down.feed };
        self.tell_worker(now, track.worker(), message);
    }

    /// Tells the publisher's worker what the receivers here want, when it changed.
    pub(super) fn update_wanted(&mut self, now: Instant, key: FeedKey) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let downs = feed.downs.iter().filter_map(|down| self.downs.get(*down));
        let max_spatial = downs.filter_map(|down| down.track.wanted_layer()).max();
        if std::mem::replace(&mut feed.wanted_told, max_spatial) == max_spatial {
            return;
        }
        let track = feed.track;
        let message = LinkMessage::Wanted { track, feed: key, max_spatial };
        self.tell_worker(now, track.worker(), message);
    }

    /// The feed of a track, attached to its publisher's worker.
    fn feed_of(
        &mut self,
        now: Instant,
        track: TrackId,
        room: RoomKey,
        kind: MediaKind,
        settings: SubscriptionSettings,
    ) -> FeedKey {
        if let Some(feed) = self.feed_ids.get(&track) {
            return *feed;
        }
        let wanted = settings.enabled.then_some(settings.max_spatial);
        let feed = self.feeds.insert(Feed::new(track, room, kind, wanted));
        self.feed_ids.insert(track, feed);
        self.tell_worker(now, track.worker(), LinkMessage::Attach { track, feed, wanted });
        feed
    }

    /// Takes over changed parameters of a running subscription; false if it must start anew.
    fn renegotiate(
        &mut self,
        key: DownKey,
        peer: PeerKey,
        track: TrackId,
        sender: &SenderParams,
    ) -> bool {
        let Some(down) = self.downs.get_mut(key) else { return false };
        let same_track = self.feeds.get(down.feed).is_some_and(|feed| feed.track == track);
        let config = down.track.config();
        let same_stream = config.codec == sender.codec
            && config.ssrc == sender.ssrc
            && config.rtx.map(|(ssrc, _)| ssrc) == sender.rtx_ssrc;
        if down.peer != peer || !same_track || !same_stream {
            return false;
        }
        let playout = down.wire.playout.take();
        let wire = Wire { last_seq: down.wire.last_seq, playout, ..Wire::new(sender.clone()) };
        if let Some(feed) = self.feeds.get_mut(down.feed) {
            feed.forms.remove(&down.wire);
            feed.forms.add(&wire);
        }
        down.wire = wire;
        true
    }
}

impl Wire {
    fn new(sender: SenderParams) -> Self {
        let twcc_id = sender.extensions.id(ExtensionKind::TransportCc);
        let twcc_id = twcc_id.filter(|_| sender.transport_cc);
        Self {
            ssrc: sender.ssrc,
            pt: sender.pt,
            rtx: sender.rtx_ssrc.zip(sender.rtx_pt),
            red_primary_pt: sender.red_primary_pt,
            mid: sender.mid,
            cname: sender.cname,
            template: Template::new(twcc_id, sender.extensions.id(ExtensionKind::AbsSendTime)),
            twcc_id,
            extensions: sender.extensions,
            playout: None,
            send_mid: true,
            last_seq: None,
            last_rtx_seq: None,
            slots: Default::default(),
        }
    }
}

fn down_settings(settings: SubscriptionSettings) -> DownTrackSettings {
    DownTrackSettings {
        enabled: settings.enabled,
        max_spatial: settings.max_spatial,
        max_temporal: settings.max_temporal,
    }
}

/// Where the numbering of an SSRC goes on: SRTP must not see a number twice under one key.
fn first_seq(state: &PeerState, ssrc: u32) -> u16 {
    let next = state.retired.get(&ssrc).map(|retired| retired.last_seq.wrapping_add(1));
    next.unwrap_or_else(|| rand::random::<u16>() & FIRST_SEQ_MASK)
}

/// Remembers how far the SSRCs of a subscription were numbered.
fn retire(state: &mut PeerState, Down { wire, track, .. }: &Down) {
    if state.retired.len() >= MAX_RETIRED {
        state.retired.clear();
    }
    let of_stream = |(ssrc, last_seq), last_sent| (ssrc, Retired { last_seq, last_sent });
    let rtx = wire.rtx.map(|(ssrc, _)| ssrc).zip(wire.last_rtx_seq);
    let media = wire.last_seq.map(|seq| (wire.ssrc, seq));
    let media = media.map(|media| of_stream(media, track.last_sent()));
    let rtx = rtx.map(|rtx| of_stream(rtx, None));
    state.retired.extend([media, rtx].into_iter().flatten());
}
