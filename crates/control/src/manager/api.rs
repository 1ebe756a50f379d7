//! Calls of LiveKit's server API that concern one room, and listing them. What a call means is the
//! room's business (`sluice_room::api`).

use std::sync::atomic::Ordering;
use std::time::Instant;

use sluice_proto as proto;
use sluice_room::{ApiError, Room, RoomSettings};

use super::RoomManager;

impl RoomManager {
    /// `CreateRoom`: makes a room or returns the existing one with explicit overrides applied.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_room(
        &self,
        request: proto::CreateRoomRequest,
    ) -> Result<proto::Room, ApiError> {
        if self.inner.shutting_down.load(Ordering::Relaxed) {
            return Err(ApiError::Unavailable("node is shutting down"));
        }
        let limits = &self.inner.config.room.limits;
        if request.name.is_empty() {
            return Err(ApiError::InvalidArgument("room name is required".into()));
        }
        if request.name.len() > limits.max_room_name_length {
            return Err(ApiError::InvalidArgument("room name length exceeds limits".into()));
        }
        if request.metadata.len() > limits.max_metadata_size {
            let argument = "metadata size exceeds limits";
            return Err(ApiError::Argument {
                argument,
                problem: limits.max_metadata_size.to_string(),
            });
        }
        let settings = self.complete(RoomSettings::from(&request));
        let settings = settings.map_err(ApiError::InvalidArgument)?;
        let handle = self.get_or_create(&request.name, &settings);
        handle.call(move |room, now| room.update_settings(now, &settings)).await
    }

    /// `ListRooms`; empty `names` = all.
    pub fn list_rooms(&self, names: &[String]) -> Vec<proto::Room> {
        let rooms = self.inner.rooms.list(names);
        rooms.iter().map(|room| room.summary.load().as_ref().clone()).collect()
    }

    /// `DeleteRoom`.
    ///
    /// # Errors
    /// No such room.
    pub async fn delete_room(&self, room: &str) -> Result<(), ApiError> {
        let close = |room: &mut Room, now| room.close(now, proto::DisconnectReason::RoomDeleted);
        self.call(room, close).await?;
        // The name is free as soon as the caller knows.
        self.inner.rooms.free_name(room);
        Ok(())
    }

    /// `ListParticipants`; nobody is in a room that does not exist.
    ///
    /// # Errors
    /// The room does not answer.
    pub async fn list_participants(
        &self,
        room: &str,
    ) -> Result<Vec<proto::ParticipantInfo>, ApiError> {
        match self.call(room, |room, _| room.list_participants()).await {
            Err(ApiError::NotFound(_)) => Ok(Vec::new()),
            result => result,
        }
    }

    /// `GetParticipant`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn get_participant(
        &self,
        room: &str,
        identity: &str,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        let identity = identity.to_owned();
        self.call_about(room, move |room, _| room.get_participant(&identity)).await
    }

    /// `RemoveParticipant`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn remove_participant(&self, room: &str, identity: &str) -> Result<(), ApiError> {
        let identity = identity.to_owned();
        self.call_about(room, move |room, now| room.remove_participant(now, &identity)).await
    }

    /// `MutePublishedTrack`.
    ///
    /// # Errors
    /// No such participant, or unmuting is not enabled.
    pub async fn mute_track(
        &self,
        request: proto::MuteRoomTrackRequest,
    ) -> Result<Option<proto::TrackInfo>, ApiError> {
        let room = request.room.clone();
        self.call_about(&room, move |room, now| room.mute_track(now, &request)).await
    }

    /// `SendData`.
    ///
    /// # Errors
    /// No such room, or the request is wrong.
    pub async fn send_data(&self, request: proto::SendDataRequest) -> Result<(), ApiError> {
        let room = request.room.clone();
        self.call(&room, move |room, now| room.send_data(now, &request)).await?
    }

    /// `UpdateParticipant`.
    ///
    /// # Errors
    /// No such room or participant, or a limit is exceeded.
    pub async fn update_participant(
        &self,
        request: proto::UpdateParticipantRequest,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        let room = request.room.clone();
        self.call_about(&room, move |room, now| room.update_participant(now, &request)).await
    }

    /// Gives or takes a participant's `roomAdmin`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn set_room_admin(
        &self,
        room: &str,
        identity: &str,
        room_admin: bool,
    ) -> Result<(), ApiError> {
        let identity = identity.to_owned();
        self.call(room, move |room, now| room.set_room_admin(now, &identity, room_admin)).await?
    }

    /// `UpdateSubscriptions`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn update_subscriptions(
        &self,
        request: proto::UpdateSubscriptionsRequest,
    ) -> Result<(), ApiError> {
        let room = request.room.clone();
        self.call_about(&room, move |room, now| room.update_subscriptions(now, &request)).await
    }

    /// `UpdateRoomMetadata`.
    ///
    /// # Errors
    /// No such room, or the metadata is too large.
    pub async fn update_room_metadata(
        &self,
        room: &str,
        metadata: String,
    ) -> Result<proto::Room, ApiError> {
        self.call(room, move |room, now| room.update_metadata(now, &metadata)).await?
    }

    /// `PerformRpc`: waits for the answer of the participant, at most as long as the request says.
    ///
    /// # Errors
    /// No such room or participant, or the call failed.
    pub async fn perform_rpc(&self, request: proto::PerformRpcRequest) -> Result<String, ApiError> {
        self.room(&request.room)?.perform_rpc(request).await
    }

    /// Runs a call in the task of a room.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        room: &str,
        call: impl FnOnce(&mut Room, Instant) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.room(room)?.call(call).await
    }

    /// Like [`Self::call`], about a participant: whoever asks for one in a room that does not exist
    /// misses the participant, as in LiveKit.
    pub(super) async fn call_about<T: Send + 'static>(
        &self,
        room: &str,
        call: impl FnOnce(&mut Room, Instant) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        match self.call(room, call).await {
            Err(ApiError::NotFound(_)) => Err(ApiError::PARTICIPANT_NOT_FOUND),
            result => result?,
        }
    }
}
