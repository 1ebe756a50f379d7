//! The server API's view of a room: what `RoomService` reads and changes.

use std::time::Instant;

use sluice_proto as proto;
use sluice_proto::DisconnectReason;
use sluice_proto::signal_response::Message as Response;

use crate::error::ApiError;
use crate::lifecycle::Departure;
use crate::outputs::Output;
use crate::params::RoomSettings;
use crate::participant::{Participant, ParticipantKey};
use crate::room::Room;
use crate::signal::Edit;
use crate::track::next_version;

impl Room {
    /// The room as `ListRooms` and clients see it.
    pub fn to_proto(&self) -> proto::Room {
        let counted = || self.participants.values().filter(|p| !p.is_dependent());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        proto::Room {
            sid: (&self.sid).into(),
            name: self.name.clone(),
            empty_timeout: count(self.empty_timeout.as_secs() as usize),
            departure_timeout: count(self.departure_timeout.as_secs() as usize),
            max_participants: self.max_participants,
            creation_time: self.created.as_secs().try_into().unwrap_or(i64::MAX),
            creation_time_ms: self.created.as_millis().try_into().unwrap_or(i64::MAX),
            turn_password: String::new(),
            enabled_codecs: self.config.enabled_codecs.clone(),
            metadata: self.metadata.clone(),
            num_participants: count(counted().count()),
            num_publishers: count(counted().filter(|p| !p.published.is_empty()).count()),
            active_recording: self.participants.values().any(Participant::is_recorder),
            version: self.version,
        }
    }

    /// `ListParticipants`: everybody, hidden ones included.
    pub fn list_participants(&self) -> Vec<proto::ParticipantInfo> {
        self.participants.values().map(|participant| self.info_of(participant)).collect()
    }

    /// `GetParticipant`.
    ///
    /// # Errors
    /// No such participant.
    pub fn get_participant(&self, identity: &str) -> Result<proto::ParticipantInfo, ApiError> {
        let key = self.key_of(identity)?;
        self.participants
            .get(&key)
            .map(|participant| self.info_of(participant))
            .ok_or(ApiError::PARTICIPANT_NOT_FOUND)
    }

    pub(crate) fn key_of(&self, identity: &str) -> Result<ParticipantKey, ApiError> {
        self.identities.get(identity).copied().ok_or(ApiError::PARTICIPANT_NOT_FOUND)
    }

    /// `RemoveParticipant`.
    ///
    /// # Errors
    /// No such participant.
    pub fn remove_participant(&mut self, now: Instant, identity: &str) -> Result<(), ApiError> {
        let key = self.key_of(identity)?;
        self.depart(now, key, Departure::Server(DisconnectReason::ParticipantRemoved));
        Ok(())
    }

    /// `MoveParticipant`: the client gets a token for the other room, `destination`, and is told to
    /// start anew, which it does there. One that knows of moves tells its application where it is
    /// now and with whom (`others`). Those in this room see it leave.
    ///
    /// # Errors
    /// No such participant, or it has no signal connection at the moment.
    pub fn move_participant(
        &mut self,
        now: Instant,
        identity: &str,
        destination: &proto::Room,
        others: Vec<proto::ParticipantInfo>,
    ) -> Result<(), ApiError> {
        let key = self.key_of(identity)?;
        let participant = self.participants.get(&key).ok_or(ApiError::PARTICIPANT_NOT_FOUND)?;
        let Some(session) = participant.session else {
            let text = "the participant is reconnecting: try again when it is back";
            return Err(ApiError::Unavailable(text));
        };
        let claims = Box::new(participant.claims(&destination.name));
        let moved = participant.client.knows_room_moved().then(|| {
            let moved = Box::new(proto::RoomMovedResponse {
                room: Some(destination.clone()),
                token: String::new(),
                participant: Some(self.info_of(participant)),
                other_participants: others,
            });
            Output::RoomMoved { session, claims: claims.clone(), moved }
        });
        // First: not every client joins anew with the token of `room_moved` (the Rust SDK does not).
        self.out.push(Output::RefreshToken { session, claims });
        if let Some(moved) = moved {
            self.out.push(moved);
        }
        self.depart(now, key, Departure::Restart(DisconnectReason::Migration));
        Ok(())
    }

    /// `MutePublishedTrack`: the publisher is told, and the others see the change.
    ///
    /// `None`: the participant has no such track (LiveKit answers without one, too).
    ///
    /// # Errors
    /// No such participant, or unmuting is not enabled.
    pub fn mute_track(
        &mut self,
        now: Instant,
        request: &proto::MuteRoomTrackRequest,
    ) -> Result<Option<proto::TrackInfo>, ApiError> {
        let key = self.key_of(&request.identity)?;
        if !request.muted && !self.config.enable_remote_unmute {
            return Err(ApiError::FailedPrecondition("remote unmute not enabled"));
        }
        if self.participants.get(&key).is_some_and(Participant::is_forwarded) {
            let text = "a forwarded track can only be muted in its own room";
            return Err(ApiError::FailedPrecondition(text));
        }
        if self.own_track_info(key, &request.track_sid).is_none() {
            return Ok(None);
        }
        self.set_muted(now, key, &request.track_sid, request.muted);
        let mute = proto::MuteTrackRequest { sid: request.track_sid.clone(), muted: request.muted };
        self.send(key, Response::Mute(mute));
        Ok(self.own_track_info(key, &request.track_sid).cloned())
    }

    /// `UpdateParticipant`.
    ///
    /// # Errors
    /// No such participant, or a limit is exceeded.
    pub fn update_participant(
        &mut self,
        now: Instant,
        request: &proto::UpdateParticipantRequest,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        let key = self.key_of(&request.identity)?;
        let edit = Edit {
            name: &request.name,
            metadata: &request.metadata,
            attributes: &request.attributes,
        };
        self.edit(now, key, &edit).map_err(|message| ApiError::InvalidArgument(message.into()))?;
        if let Some(permission) = &request.permission {
            self.set_permission(now, key, permission);
        }
        self.get_participant(&request.identity)
    }

    fn set_permission(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        permission: &proto::ParticipantPermission,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let before = participant.grants.clone();
        participant.grants.apply_permission(permission);
        if participant.grants == before {
            return;
        }
        self.participant_edited(now, key);
        self.refresh_token(now, key);
        self.revoke_publications(now, key);
        self.revoke_data_tracks(now, key);
        self.reconcile_subscriber(now, key);
        if !before.can_subscribe() {
            self.subscribe_to_existing(now, key);
        }
        self.subscribe_to_existing_data_tracks(key);
        self.negotiate(now, key);
    }

    /// Gives or takes `roomAdmin`, which no permission speaks of; the participant's next tokens say
    /// so.
    ///
    /// # Errors
    /// No such participant.
    pub fn set_room_admin(
        &mut self,
        now: Instant,
        identity: &str,
        room_admin: bool,
    ) -> Result<(), ApiError> {
        let key = self.key_of(identity)?;
        let participant = self.participants.get_mut(&key).ok_or(ApiError::PARTICIPANT_NOT_FOUND)?;
        if participant.grants.room_admin != room_admin {
            participant.grants.room_admin = room_admin;
            self.refresh_token(now, key);
        }
        Ok(())
    }

    /// `UpdateSubscriptions`.
    ///
    /// # Errors
    /// No such participant.
    pub fn update_subscriptions(
        &mut self,
        now: Instant,
        request: &proto::UpdateSubscriptionsRequest,
    ) -> Result<(), ApiError> {
        let key = self.key_of(&request.identity)?;
        let update = proto::UpdateSubscription {
            track_sids: request.track_sids.clone(),
            subscribe: request.subscribe,
            participant_tracks: request.participant_tracks.clone(),
        };
        self.update_subscription(now, key, &update);
        Ok(())
    }

    /// `UpdateRoomMetadata`: everybody hears of it at once.
    ///
    /// # Errors
    /// The metadata is too large.
    pub fn update_metadata(
        &mut self,
        now: Instant,
        metadata: &str,
    ) -> Result<proto::Room, ApiError> {
        if metadata.len() > self.config.limits.max_metadata_size {
            return Err(ApiError::InvalidArgument("metadata size exceeds limits".into()));
        }
        metadata.clone_into(&mut self.metadata);
        self.version = Some(next_version(self.version, self.unix_micros(now)));
        self.room_changed(now, true);
        Ok(self.to_proto())
    }

    /// `CreateRoom` on a room that exists: takes over what the request says explicitly.
    pub fn update_settings(&mut self, now: Instant, settings: &RoomSettings) -> proto::Room {
        let before = (self.empty_timeout, self.departure_timeout, self.max_participants);
        self.empty_timeout = settings.empty_timeout.unwrap_or(self.empty_timeout);
        self.departure_timeout = settings.departure_timeout.unwrap_or(self.departure_timeout);
        self.max_participants = settings.max_participants.unwrap_or(self.max_participants);
        let mut changed =
            before != (self.empty_timeout, self.departure_timeout, self.max_participants);
        if !settings.metadata.is_empty() && settings.metadata != self.metadata {
            self.metadata.clone_from(&settings.metadata);
            changed = true;
        }
        if changed {
            self.version = Some(next_version(self.version, self.unix_micros(now)));
            self.room_changed(now, true);
        }
        self.to_proto()
    }
}
