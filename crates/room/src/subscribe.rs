//! Subscriptions: what each participant wants, what it may have, and what flows.
//!
//! A wish outlives the track it names and may come before it. [`Room::reconcile`] compares one wish
//! with permissions and published tracks and starts or stops a sender; the sender flows once the
//! negotiation has bound it (`binding`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::api::{Command, SubscriptionId, SubscriptionSettings, TrackId};
use sluice_proto as proto;
use sluice_proto::signal_response::Message as Response;
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::{SenderId, SenderSpec};

use crate::ids::TrackSid;
use crate::lifecycle::Departure;
use crate::participant::{Participant, ParticipantKey};
use crate::room::Room;
use crate::timers::Timer;

/// A wanted track that does not come is reported after this (LiveKit's track-not-found timeout).
const MISSING_TRACK_TIMEOUT: Duration = Duration::from_secs(60);

/// A subscription that the client's description does not take up within this is reported
/// (LiveKit's subscription timeout).
const UNBOUND_TIMEOUT: Duration = Duration::from_secs(15);

/// Wishes that one participant may hold for tracks that do not exist.
const MAX_MISSING_TRACKS: usize = 1000;

/// One participant's relation to one track.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    /// The latest wish; `None` until the client, the API or auto-subscribe expressed one.
    desired: Option<Desire>,
    /// The latest settings, kept even before the track exists.
    pub(crate) settings: Option<Box<proto::UpdateTrackSettings>>,
    pub(crate) active: Option<Active>,
    /// Whether the client was told that the publisher does not allow it.
    denied: bool,
}

#[derive(Debug, Clone, Copy)]
enum Desire {
    Subscribed {
        /// For the report that the track never came; `None` once reported.
        since: Option<Instant>,
    },
    Unsubscribed,
}

/// A sender towards the participant.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) track: TrackId,
    pub(crate) sender: SenderId,
    pub(crate) bound: Option<Bound>,
    /// For the report that it never flowed; `None` once bound or reported.
    pub(crate) unbound_since: Option<Instant>,
    /// Whether the client was told that it cannot decode the track.
    pub(crate) unsupported: bool,
}

#[derive(Debug)]
pub(crate) struct Bound {
    /// With the workers; `None` while the codec is not published.
    pub(crate) id: Option<SubscriptionId>,
    pub(crate) codec: Codec,
    pub(crate) mid: Arc<str>,
    pub(crate) pt: u8,
    pub(crate) settings: SubscriptionSettings,
}

impl Subscription {
    pub(crate) fn wants(&self) -> bool {
        matches!(self.desired, Some(Desire::Subscribed { .. }))
    }

    /// The media section on which the track flows.
    pub(crate) fn bound_mid(&self) -> Option<&str> {
        Some(self.active.as_ref()?.bound.as_ref()?.mid.as_ref())
    }

    /// The codec in which the track flows, or will.
    pub(crate) fn bound_codec(&self) -> Option<Codec> {
        Some(self.active.as_ref()?.bound.as_ref()?.codec)
    }

    /// The layer that the subscription wants of a codec of a track which is not published yet.
    pub(crate) fn waits_for(&self, track: TrackId, codec: Codec) -> Option<u8> {
        let active = self.active.as_ref().filter(|active| active.track == track)?;
        let bound = active.bound.as_ref()?;
        let waits = bound.id.is_none() && bound.codec == codec && bound.settings.enabled;
        waits.then_some(bound.settings.max_spatial)
    }

    /// The sender, and the codec and layer in which a track flows at present.
    pub(crate) fn flowing(&self, track: TrackId) -> Option<(SenderId, Codec, u8)> {
        let active = self.active.as_ref().filter(|active| active.track == track)?;
        let bound = active.bound.as_ref().filter(|bound| bound.settings.enabled)?;
        bound.id?;
        Some((active.sender, bound.codec, bound.settings.max_spatial))
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active.is_some()
    }
}

impl Participant {
    /// SID of the track that a sender of this participant carries.
    pub(crate) fn track_of_sender(&self, sender: SenderId) -> Option<&TrackSid> {
        let of_sender = |subscription: &Subscription| {
            subscription.active.as_ref().is_some_and(|active| active.sender == sender)
        };
        self.subscriptions.iter().find(|(_, s)| of_sender(s)).map(|(sid, _)| sid)
    }
}

impl Room {
    /// `UpdateSubscription`: records wishes and acts on them.
    pub(crate) fn update_subscription(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        update: &proto::UpdateSubscription,
    ) {
        let of_participants =
            update.participant_tracks.iter().flat_map(|tracks| &tracks.track_sids);
        let sids: Vec<&String> = update.track_sids.iter().chain(of_participants).collect();
        for sid in sids {
            self.wish(now, key, sid, update.subscribe);
        }
    }

    fn wish(&mut self, now: Instant, key: ParticipantKey, sid: &str, subscribe: bool) {
        let exists = self.track_sids.contains_key(sid);
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let known = participant.subscriptions.contains_key(sid);
        if !exists && !known && participant.subscriptions.len() >= MAX_MISSING_TRACKS {
            tracing::debug!(participant = %participant.sid, "too many wishes for unknown tracks");
            return;
        }
        let Some(sid) = TrackSid::parse(sid) else { return };
        let subscription = participant.subscriptions.entry(sid.clone()).or_default();
        subscription.desired = Some(match subscribe {
            true => Desire::Subscribed { since: Some(now) },
            false => Desire::Unsubscribed,
        });
        if subscribe && !exists {
            self.timers.set_earlier(Timer::MissingTracks(key), now + MISSING_TRACK_TIMEOUT);
        }
        self.reconcile(now, key, &sid);
    }

    /// A new track or a new participant: everyone with auto-subscribe wants it, unless they said no.
    pub(crate) fn auto_subscribe(&mut self, now: Instant, key: ParticipantKey, track: TrackId) {
        let Some(track) = self.tracks.get(&track) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if track.owner == key {
            return;
        }
        let sid = track.sid.clone();
        if participant.options.auto_subscribe {
            let subscription = participant.subscriptions.entry(sid.clone()).or_default();
            subscription.desired.get_or_insert(Desire::Subscribed { since: Some(now) });
        }
        self.reconcile(now, key, &sid);
    }

    /// Subscribes a participant who is joining to what is there.
    pub(crate) fn subscribe_to_existing(&mut self, now: Instant, key: ParticipantKey) {
        let tracks: Vec<TrackId> = self.tracks.keys().copied().collect();
        for track in tracks {
            self.auto_subscribe(now, key, track);
        }
    }

    /// Every subscription of one participant, after its grants changed.
    pub(crate) fn reconcile_subscriber(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        let sids: Vec<TrackSid> = participant.subscriptions.keys().cloned().collect();
        for sid in sids {
            self.reconcile(now, key, &sid);
        }
    }

    /// Everyone's subscription to one participant's tracks, after it changed who may subscribe.
    pub(crate) fn reconcile_publisher(&mut self, now: Instant, key: ParticipantKey) {
        let Some(publisher) = self.participants.get(&key) else { return };
        let published = publisher.published.iter();
        let sids: Vec<TrackSid> =
            published.filter_map(|id| self.tracks.get(id)).map(|t| t.sid.clone()).collect();
        let subscribers: Vec<ParticipantKey> = self.participants.keys().copied().collect();
        for subscriber in subscribers {
            for sid in &sids {
                self.reconcile(now, subscriber, sid);
            }
        }
    }

    /// Makes what flows equal to what is wanted, allowed and there.
    pub(crate) fn reconcile(&mut self, now: Instant, key: ParticipantKey, sid: &TrackSid) {
        let Some(participant) = self.participants.get(&key) else { return };
        let Some(subscription) = participant.subscriptions.get(sid) else { return };
        let track = self.track_sids.get(sid).copied();
        let wanted = subscription.wants() && participant.grants.can_subscribe();
        let denied = subscription.denied;
        let active = subscription.is_active();
        let allowed = track.is_some_and(|track| self.allows(track, key));
        if wanted && track.is_some() && allowed == denied {
            self.tell_permission(key, sid, allowed);
        }
        match track {
            Some(track) if wanted && allowed && !active && self.has_room_for(key, track) => {
                self.activate(now, key, sid, track);
            }
            _ if active && !(wanted && allowed) => self.deactivate(now, key, sid),
            _ => {}
        }
    }

    /// Whether one more track is within the participant's subscription limit. What is not waits
    /// until another subscription ends.
    fn has_room_for(&self, key: ParticipantKey, track: TrackId) -> bool {
        let Some(kind) = self.tracks.get(&track).map(|track| track.kind) else { return false };
        let limits = &self.config.limits;
        let limit = match kind {
            MediaKind::Video => limits.subscription_limit_video,
            MediaKind::Audio => limits.subscription_limit_audio,
        };
        if limit == 0 {
            return true;
        }
        let Some(participant) = self.participants.get(&key) else { return false };
        let active = participant.subscriptions.values().filter_map(|s| s.active.as_ref());
        let of_kind = active.filter(|a| self.tracks.get(&a.track).is_some_and(|t| t.kind == kind));
        of_kind.count() < limit as usize
    }

    fn has_subscription_limit(&self) -> bool {
        let limits = &self.config.limits;
        limits.subscription_limit_video > 0 || limits.subscription_limit_audio > 0
    }

    /// Whether the publisher of a track lets a participant subscribe to it.
    fn allows(&self, track: TrackId, subscriber: ParticipantKey) -> bool {
        let Some(track) = self.tracks.get(&track) else { return false };
        let Some(publisher) = self.participants.get(&track.owner) else { return false };
        let Some(subscriber) = self.participants.get(&subscriber) else { return false };
        // Clients cannot attribute the media of somebody they were not told about.
        !publisher.is_hidden() && permits(publisher, subscriber, track.sid.as_str())
    }

    fn tell_permission(&mut self, key: ParticipantKey, sid: &TrackSid, allowed: bool) {
        let Some(track) = self.track_sids.get(sid).and_then(|id| self.tracks.get(id)) else {
            return;
        };
        let Some(publisher) = self.participants.get(&track.owner) else { return };
        let update = proto::SubscriptionPermissionUpdate {
            participant_sid: (&publisher.sid).into(),
            track_sid: sid.into(),
            allowed,
        };
        if let Some(subscription) =
            self.participants.get_mut(&key).and_then(|p| p.subscriptions.get_mut(sid))
        {
            subscription.denied = !allowed;
        }
        self.send(key, Response::SubscriptionPermissionUpdate(update));
    }

    fn activate(&mut self, now: Instant, key: ParticipantKey, sid: &TrackSid, id: TrackId) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let Some(publisher) = self.participants.get(&track.owner) else { return };
        let publisher_sid = publisher.sid.clone();
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let shared = self.sync_streams && participant.client.shares_stream_ids();
        let stream = shared.then(|| track.stream_name()).flatten();
        let stream_id = match stream {
            Some(stream) => format!("{publisher_sid}|{stream}").into(),
            None => track.stream_id.clone(),
        };
        let low_power = participant.is_low_power();
        let spec = SenderSpec {
            kind: track.kind,
            codecs: track
                .sender_codecs(participant.client.takes_red() && !low_power, low_power)
                .into(),
            stream_id,
            track_id: sid.into(),
            ssrc: participant.links.next_ssrc(),
            rtx_ssrc: (track.kind == MediaKind::Video).then(|| participant.links.next_ssrc()),
            stereo: track.is_stereo(),
        };
        let sender = participant.links.add_sender(spec);
        let subscription = participant.subscriptions.entry(sid.clone()).or_default();
        subscription.active = Some(Active {
            track: id,
            sender,
            bound: None,
            unbound_since: Some(now),
            unsupported: false,
        });
        track.subscribers.insert(key);
        self.timers.set_earlier(Timer::Unbound(key), now + UNBOUND_TIMEOUT);
        self.negotiate(now, key);
    }

    /// Stops a subscription; the wish stays.
    pub(crate) fn deactivate(&mut self, now: Instant, key: ParticipantKey, sid: &TrackSid) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let Some(subscription) = participant.subscriptions.get_mut(sid) else { return };
        let Some(active) = subscription.active.take() else { return };
        participant.links.remove_sender(active.sender);
        let waited = active.bound.as_ref().is_some_and(|bound| bound.id.is_none());
        self.stop_flow(active.bound.and_then(|bound| bound.id));
        if let Some(track) = self.tracks.get_mut(&active.track) {
            track.subscribers.remove(&key);
        }
        if waited {
            self.update_dynacast(now, active.track);
        }
        self.silence_speaker_for(key, active.track);
        self.negotiate(now, key);
        if self.has_subscription_limit() {
            self.reconcile_subscriber(now, key);
        }
    }

    /// Forgets a track that ended; wishes for it go with it, since its SID never comes back.
    pub(crate) fn forget_track(&mut self, now: Instant, sid: &TrackSid) {
        let holders: Vec<ParticipantKey> = self
            .participants
            .iter()
            .filter(|(_, participant)| participant.subscriptions.contains_key(sid))
            .map(|(key, _)| *key)
            .collect();
        for key in holders {
            self.deactivate(now, key, sid);
            if let Some(participant) = self.participants.get_mut(&key) {
                participant.subscriptions.remove(sid);
            }
        }
    }

    /// `UpdateTrackSettings`: kept for each track, applied where it flows.
    pub(crate) fn update_track_settings(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        update: &proto::UpdateTrackSettings,
    ) {
        for sid in &update.track_sids {
            let exists = self.track_sids.contains_key(sid.as_str());
            let Some(participant) = self.participants.get_mut(&key) else { return };
            if !exists && participant.subscriptions.len() >= MAX_MISSING_TRACKS {
                return;
            }
            let Some(sid) = TrackSid::parse(sid) else { continue };
            let settings = proto::UpdateTrackSettings { track_sids: Vec::new(), ..update.clone() };
            participant.subscriptions.entry(sid.clone()).or_default().settings =
                Some(settings.into());
            self.apply_settings(now, key, &sid);
        }
    }

    /// `SyncState.track_sids_disabled`.
    pub(crate) fn disable_tracks(&mut self, now: Instant, key: ParticipantKey, sids: &[String]) {
        for sid in sids {
            let Some(participant) = self.participants.get_mut(&key) else { return };
            let Some(sid) = TrackSid::parse(sid) else { continue };
            let Some(subscription) = participant.subscriptions.get_mut(&sid) else { continue };
            subscription.settings.get_or_insert_default().disabled = true;
            self.apply_settings(now, key, &sid);
        }
    }

    fn apply_settings(&mut self, now: Instant, key: ParticipantKey, sid: &TrackSid) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let adaptive = participant.options.adaptive_stream;
        let cap = participant.is_low_power().then_some(&self.config.low_power);
        let Some(subscription) = participant.subscriptions.get_mut(sid) else { return };
        let Some(active) = &mut subscription.active else { return };
        let Some(bound) = &mut active.bound else { return };
        let Some(track) = self.tracks.get(&active.track) else { return };
        let wish = subscription.settings.as_deref();
        let settings = track.subscription_settings(bound.codec, wish, adaptive, cap);
        if std::mem::replace(&mut bound.settings, settings) == settings {
            return;
        }
        match bound.id {
            Some(subscription) => {
                self.out.engine(Command::UpdateSubscription { subscription, settings });
            }
            None => {
                let track = active.track;
                self.update_dynacast(now, track);
            }
        }
    }

    /// Settings and codec of every subscription of a participant again, after what it needs changed.
    pub(crate) fn reapply_own_wishes(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        let active = participant.subscriptions.iter();
        let active = active.filter_map(|(sid, s)| Some((sid.clone(), s.active.as_ref()?.track)));
        let active: Vec<(TrackSid, TrackId)> = active.collect();
        for (sid, track) in active {
            self.apply_settings(now, key, &sid);
            self.rebind(now, key, track, &sid);
            self.update_dynacast(now, track);
        }
    }

    /// Settings of every subscriber again, after the dimensions or layers of a track changed.
    pub(crate) fn reapply_settings(&mut self, now: Instant, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else { return };
        let sid = track.sid.clone();
        let subscribers: Vec<ParticipantKey> = track.subscribers.iter().copied().collect();
        for key in subscribers {
            self.apply_settings(now, key, &sid);
        }
    }

    /// `SubscriptionPermission`: replaces the whole set of a publisher.
    pub(crate) fn update_subscription_permission(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        permission: proto::SubscriptionPermission,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        participant.subscription_permission = Some(permission);
        self.reconcile_publisher(now, key);
        self.reconcile_data_tracks_of(key);
    }

    /// Reports tracks that were wanted for too long without coming.
    pub(crate) fn report_missing_tracks(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let mut missing = Vec::new();
        let mut next: Option<Instant> = None;
        for (sid, subscription) in &mut participant.subscriptions {
            let Some(Desire::Subscribed { since }) = &mut subscription.desired else { continue };
            let Some(start) = *since else { continue };
            if self.track_sids.contains_key(sid) {
                continue;
            }
            let due = start + MISSING_TRACK_TIMEOUT;
            if due <= now {
                *since = None;
                missing.push(sid.clone());
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        if let Some(next) = next {
            self.timers.set(Timer::MissingTracks(key), next);
        }
        for sid in missing {
            let response = proto::SubscriptionResponse {
                track_sid: (&sid).into(),
                err: proto::SubscriptionError::SeTrackNotfound.into(),
            };
            self.send(key, Response::SubscriptionResponse(response));
        }
    }

    /// Reports subscriptions that were not taken up for too long, and makes the client start anew
    /// where that is configured.
    pub(crate) fn report_unbound(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        // While the client is away nothing can be negotiated.
        let away = participant.session.is_none() || participant.links.any_failed();
        let mut unbound = Vec::new();
        let mut next: Option<Instant> = None;
        for (sid, subscription) in &mut participant.subscriptions {
            let Some(active) = &mut subscription.active else { continue };
            let Some(since) = active.unbound_since.as_mut() else { continue };
            if away {
                *since = now;
            }
            let due = *since + UNBOUND_TIMEOUT;
            if due <= now {
                active.unbound_since = None;
                unbound.push(sid.clone());
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        if let Some(next) = next {
            self.timers.set(Timer::Unbound(key), next);
        }
        for sid in &unbound {
            let response = proto::SubscriptionResponse {
                track_sid: sid.into(),
                err: proto::SubscriptionError::SeUnknown.into(),
            };
            self.send(key, Response::SubscriptionResponse(response));
        }
        if !unbound.is_empty() && self.config.reconnect_on_subscription_error {
            self.depart(now, key, Departure::TrackFailed);
        }
    }

    /// The allocator paused or resumed a stream.
    pub(crate) fn stream_state(&mut self, id: SubscriptionId, paused: bool) {
        let Some(&(key, track)) = self.subscription_ids.get(&id) else { return };
        let Some(track) = self.tracks.get(&track) else { return };
        let Some(publisher) = self.participants.get(&track.owner) else { return };
        let state = if paused { proto::StreamState::Paused } else { proto::StreamState::Active };
        let info = proto::StreamStateInfo {
            participant_sid: (&publisher.sid).into(),
            track_sid: (&track.sid).into(),
            state: state.into(),
        };
        let update = proto::StreamStateUpdate { stream_states: vec![info] };
        self.send(key, Response::StreamStateUpdate(update));
    }
}

/// Whether a publisher's subscription permission covers a subscriber and a track.
pub(crate) fn permits(publisher: &Participant, subscriber: &Participant, sid: &str) -> bool {
    let Some(permission) = &publisher.subscription_permission else { return true };
    if permission.all_participants || subscriber.is_recorder() {
        return true;
    }
    permission.track_permissions.iter().any(|of_one| {
        let named = of_one.participant_identity == *subscriber.identity
            || of_one.participant_sid == subscriber.sid.as_str();
        named && (of_one.all_tracks || of_one.track_sids.iter().any(|track| track == sid))
    })
}
