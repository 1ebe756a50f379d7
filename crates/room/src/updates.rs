//! What participants hear about each other and the room: participant updates with versions, room
//! updates, connection quality, and the sending of responses.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use prost::Message;
use sluice_engine::api::TrackId;
use sluice_engine::quality::{MAX_SCORE, Quality, mean_opinion};
use sluice_proto as proto;
use sluice_proto::request_response::{Reason, Request};
use sluice_proto::signal_response::Message as Response;

use crate::negotiation::{PeerLink, PeerState};
use crate::outputs::{Output, SharedResponse, WebhookEvent, WebhookKind};
use crate::participant::{Participant, ParticipantKey};
use crate::room::Room;
use crate::timers::Timer;

/// Up to this many participants everyone hears of arrivals at once.
const IMMEDIATE_UPDATES_BELOW: usize = 32;

/// Arrivals and departures of larger rooms are collected for this long (LiveKit's batch interval).
const UPDATE_BATCH_INTERVAL: Duration = Duration::from_secs(3);

/// Changes of counts are collected for this long (LiveKit's room update interval).
const ROOM_UPDATE_INTERVAL: Duration = Duration::from_secs(5);

/// Updates that wait for the next batch.
#[derive(Debug, Default)]
pub(crate) struct PendingUpdates {
    changed: BTreeSet<ParticipantKey>,
    departed: Vec<proto::ParticipantInfo>,
}

impl PendingUpdates {
    pub(crate) fn forget(&mut self, key: ParticipantKey) {
        self.changed.remove(&key);
    }
}

impl Room {
    /// Sends a message to one participant, if it has a signal connection.
    pub(crate) fn send(&mut self, key: ParticipantKey, message: Response) {
        self.send_shared(key, &SharedResponse::new(message));
    }

    pub(crate) fn send_shared(&mut self, key: ParticipantKey, response: &SharedResponse) {
        let session = self.participants.get(&key).and_then(|participant| participant.session);
        if let Some(session) = session {
            self.out.push(Output::Signal { session, response: response.clone() });
        }
    }

    /// Sends one message to everyone but `except`.
    pub(crate) fn send_to_all(&mut self, message: Response, except: Option<ParticipantKey>) {
        let response = SharedResponse::new(message);
        for (key, participant) in &self.participants {
            if let Some(session) = participant.session.filter(|_| Some(*key) != except) {
                self.out.push(Output::Signal { session, response: response.clone() });
            }
        }
    }

    /// Answers a request that is not granted, or queued.
    pub(crate) fn refuse(
        &mut self,
        key: ParticipantKey,
        request_id: u32,
        reason: Reason,
        message: &str,
        request: Request,
    ) {
        let Some(participant) = self.participants.get(&key) else { return };
        let client = &participant.client;
        if !client.knows_request_response() || reason == Reason::Ok && !client.wants_ok_responses()
        {
            return;
        }
        let response = proto::RequestResponse {
            request_id,
            reason: reason.into(),
            message: message.to_owned(),
            request: Some(request),
        };
        self.send(key, Response::RequestResponse(response));
    }

    /// A participant as the wire shows it, with its tracks.
    pub(crate) fn info_of(&self, participant: &Participant) -> proto::ParticipantInfo {
        let tracks = participant.published.iter().filter_map(|id| self.tracks.get(id));
        participant.to_proto(tracks.map(|track| track.info.clone()).collect())
    }

    /// A change that the others must hear of. `immediate` for publishers and for whatever must
    /// not wait; arrivals in large rooms may.
    pub(crate) fn participant_changed(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        immediate: bool,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        participant.version += 1;
        let (hidden, at_once) = (participant.is_hidden(), immediate || participant.is_publisher);
        self.forward_change(key);
        if hidden {
            return;
        }
        if at_once || self.participants.len() < IMMEDIATE_UPDATES_BELOW {
            self.updates.forget(key);
            let Some(participant) = self.participants.get(&key) else { return };
            let participants = vec![self.info_of(participant)];
            self.send_to_all(
                Response::Update(proto::ParticipantUpdate { participants }),
                Some(key),
            );
        } else {
            self.updates.changed.insert(key);
            self.timers.set_earlier(Timer::ParticipantUpdates, now + UPDATE_BATCH_INTERVAL);
        }
    }

    /// A change of name, metadata, attributes or permission: the participant hears of it as well.
    pub(crate) fn participant_edited(&mut self, now: Instant, key: ParticipantKey) {
        self.participant_changed(now, key, true);
        if let Some(participant) = self.participants.get(&key) {
            let participants = vec![self.info_of(participant)];
            self.send(key, Response::Update(proto::ParticipantUpdate { participants }));
        }
    }

    /// Tells the others that a participant is gone; `info` says DISCONNECTED.
    pub(crate) fn announce_departure(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        info: proto::ParticipantInfo,
    ) {
        // Whoever was not announced yet need not be announced any more, but a resuming client may
        // have seen it in its join response: the departure is sent in any case.
        self.updates.forget(key);
        self.departed.push(now, info.clone());
        if info.is_publisher || self.participants.len() < IMMEDIATE_UPDATES_BELOW {
            let update = proto::ParticipantUpdate { participants: vec![info] };
            self.send_to_all(Response::Update(update), None);
        } else {
            self.updates.departed.push(info);
            self.timers.set_earlier(Timer::ParticipantUpdates, now + UPDATE_BATCH_INTERVAL);
        }
    }

    pub(crate) fn flush_participant_updates(&mut self) {
        let PendingUpdates { changed, mut departed } = std::mem::take(&mut self.updates);
        let changed = changed.iter().filter_map(|key| self.participants.get(key));
        departed.extend(changed.map(|participant| self.info_of(participant)));
        for participants in chunks(departed, self.config.update_batch_target_size) {
            self.send_to_all(Response::Update(proto::ParticipantUpdate { participants }), None);
        }
    }

    /// The room changed. Counts may wait; metadata and the recording flag may not.
    pub(crate) fn room_changed(&mut self, now: Instant, immediate: bool) {
        self.revision += 1;
        if immediate {
            self.send_room_update();
        } else {
            self.timers.set_earlier(Timer::RoomUpdate, now + ROOM_UPDATE_INTERVAL);
        }
    }

    pub(crate) fn send_room_update(&mut self) {
        self.timers.cancel(Timer::RoomUpdate);
        let room = Some(self.to_proto());
        self.send_to_all(Response::RoomUpdate(proto::RoomUpdate { room }), None);
    }

    /// Tells participants how the connection of `of` is: as good as its worst peer.
    pub(crate) fn send_quality_of(&mut self, of: ParticipantKey, to: &[ParticipantKey]) {
        let Some(participant) = self.participants.get(&of) else { return };
        let score = score_of(participant);
        let participant_sid = String::from(&participant.sid);
        for &key in to {
            let knows_lost =
                self.participants.get(&key).is_some_and(|p| p.client.knows_quality_lost());
            let quality = match Quality::of(score) {
                Quality::Excellent => proto::ConnectionQuality::Excellent,
                Quality::Good => proto::ConnectionQuality::Good,
                Quality::Lost if knows_lost => proto::ConnectionQuality::Lost,
                Quality::Poor | Quality::Lost => proto::ConnectionQuality::Poor,
            };
            let info = proto::ConnectionQualityInfo {
                participant_sid: participant_sid.clone(),
                quality: quality.into(),
                score: mean_opinion(score),
            };
            let update = proto::ConnectionQualityUpdate { updates: vec![info] };
            self.send(key, Response::ConnectionQuality(update));
        }
    }

    /// Tells a participant and its subscribers how its connection is now.
    pub(crate) fn broadcast_quality_of(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        let published = participant.published.iter().filter_map(|id| self.tracks.get(id));
        let mut to: BTreeSet<ParticipantKey> =
            published.flat_map(|track| track.subscribers.iter().copied()).collect();
        to.insert(key);
        let to: Vec<ParticipantKey> = to.into_iter().collect();
        let score = score_of(participant);
        self.send_quality_of(key, &to);
        self.forward_quality(key, score);
    }

    /// Reports something of a participant, and of one of its tracks.
    pub(crate) fn webhook(
        &mut self,
        kind: WebhookKind,
        participant: ParticipantKey,
        track: Option<TrackId>,
    ) {
        let participant = self.participants.get(&participant);
        let event = WebhookEvent {
            participant: participant.map(|participant| self.info_of(participant)),
            track: track.and_then(|id| self.tracks.get(&id)).map(|track| track.info.clone()),
            ..self.webhook_event(kind)
        };
        self.report(event);
    }

    /// An event of the room as it is now.
    pub(crate) fn webhook_event(&self, kind: WebhookKind) -> WebhookEvent {
        WebhookEvent { kind, room: self.to_proto(), ..WebhookEvent::default() }
    }

    pub(crate) fn report(&mut self, event: WebhookEvent) {
        self.out.push(Output::Webhook(Box::new(event)));
    }
}

/// Splits a long list so that no message grows far beyond the target size.
fn chunks(
    infos: Vec<proto::ParticipantInfo>,
    target_size: usize,
) -> Vec<Vec<proto::ParticipantInfo>> {
    let mut chunks: Vec<Vec<proto::ParticipantInfo>> = Vec::new();
    let mut size = target_size;
    for info in infos {
        let len = info.encoded_len();
        if size + len > target_size || chunks.is_empty() {
            chunks.push(Vec::new());
            size = 0;
        }
        size += len;
        if let Some(last) = chunks.last_mut() {
            last.push(info);
        }
    }
    chunks
}

/// How the worst connection of a participant is, 0..=100.
fn score_of(participant: &Participant) -> f32 {
    let of_peer = |peer: &PeerLink| match peer.state {
        PeerState::Disconnected | PeerState::Failed => 0.0,
        _ => peer.score,
    };
    participant.links.peers().map(of_peer).fold(MAX_SCORE, f32::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_split_by_size_and_keep_their_order() {
        let info = |index: usize| proto::ParticipantInfo {
            identity: index.to_string(),
            metadata: "x".repeat(50 * 1024),
            ..Default::default()
        };
        let split = chunks((0..5).map(info).collect(), 128 * 1024);
        assert_eq!(split.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(split[2][0].identity, "4");
        assert!(chunks(Vec::new(), 1).is_empty());
    }
}
