//! What signalling needs of the rooms behind it, so that tests can stand in for them.

use std::future::Future;

use sluice_control::{
    ApiError, Grants, JoinError, JoinParams, RoomManager, RoomSettings, SessionOutput,
    SessionRequests, SessionResponses,
};
use sluice_proto as proto;

/// Where a client's messages go. Dropping it says that the connection is gone.
pub trait SessionSink: Send + Sync + 'static {
    /// Hands a message on; may wait while the room is busy. False when the room is over.
    fn send(&self, request: proto::SignalRequest) -> impl Future<Output = bool> + Send;
}

/// Where messages for a client come from.
pub trait SessionSource: Send + 'static {
    /// The next output; `None` when the session ended without a proper close.
    fn next(&mut self) -> impl Future<Output = Option<SessionOutput>> + Send;
    /// Whether an output is there already.
    fn has_next(&self) -> bool;
}

/// A started session.
pub struct HostedSession<H: SessionHost> {
    /// SID of the participant; `None` when a resume found no session.
    pub participant_sid: Option<String>,
    /// Way in.
    pub requests: H::Requests,
    /// Way out.
    pub responses: H::Responses,
}

/// Rooms, as the signal connection sees them. [`RoomManager`] is the one of production.
pub trait SessionHost: Clone + Send + Sync + 'static {
    /// Way of messages in.
    type Requests: SessionSink;
    /// Way of messages out.
    type Responses: SessionSource;

    /// What a join would be refused for, without joining.
    ///
    /// # Errors
    /// See [`JoinError`].
    fn check_join(&self, room: &str, grants: &Grants) -> Result<(), JoinError>;

    /// Joins or resumes.
    ///
    /// # Errors
    /// See [`JoinError`].
    fn join(
        &self,
        room: &str,
        settings: RoomSettings,
        params: JoinParams,
    ) -> impl Future<Output = Result<HostedSession<Self>, JoinError>> + Send;
}

/// Rooms, as the server API sees them. Each method is the API method of the same name.
#[expect(missing_docs, reason = "the names are LiveKit's, see proto/livekit/room_service.proto")]
pub trait RoomApi: Clone + Send + Sync + 'static {
    fn create_room(
        &self,
        request: proto::CreateRoomRequest,
    ) -> impl Future<Output = Result<proto::Room, ApiError>> + Send;
    fn list_rooms(
        &self,
        names: &[String],
    ) -> impl Future<Output = Result<Vec<proto::Room>, ApiError>> + Send;
    fn delete_room(&self, room: &str) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Whether joining a room that does not exist makes it.
    fn auto_creates(&self) -> bool;
    fn list_participants(
        &self,
        room: &str,
    ) -> impl Future<Output = Result<Vec<proto::ParticipantInfo>, ApiError>> + Send;
    fn get_participant(
        &self,
        room: &str,
        identity: &str,
    ) -> impl Future<Output = Result<proto::ParticipantInfo, ApiError>> + Send;
    fn remove_participant(
        &self,
        room: &str,
        identity: &str,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// `RemoveParticipant.revoke_token_ts`: Unix seconds.
    fn revoke_tokens(
        &self,
        room: &str,
        identity: &str,
        issued_before: u64,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// `None`: the participant has no such track.
    fn mute_track(
        &self,
        request: proto::MuteRoomTrackRequest,
    ) -> impl Future<Output = Result<Option<proto::TrackInfo>, ApiError>> + Send;
    fn send_data(
        &self,
        request: proto::SendDataRequest,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
    fn update_participant(
        &self,
        request: proto::UpdateParticipantRequest,
    ) -> impl Future<Output = Result<proto::ParticipantInfo, ApiError>> + Send;
    fn update_subscriptions(
        &self,
        request: proto::UpdateSubscriptionsRequest,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
    fn update_room_metadata(
        &self,
        room: &str,
        metadata: String,
    ) -> impl Future<Output = Result<proto::Room, ApiError>> + Send;
    fn forward_participant(
        &self,
        request: proto::ForwardParticipantRequest,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
    fn move_participant(
        &self,
        request: proto::MoveParticipantRequest,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// The payload of the answer.
    fn perform_rpc(
        &self,
        request: proto::PerformRpcRequest,
    ) -> impl Future<Output = Result<String, ApiError>> + Send;
}

impl SessionSink for SessionRequests {
    async fn send(&self, request: proto::SignalRequest) -> bool {
        Self::send(self, request).await
    }
}

impl SessionSource for SessionResponses {
    async fn next(&mut self) -> Option<SessionOutput> {
        Self::next(self).await
    }

    fn has_next(&self) -> bool {
        Self::has_next(self)
    }
}

impl SessionHost for RoomManager {
    type Requests = SessionRequests;
    type Responses = SessionResponses;

    fn check_join(&self, room: &str, grants: &Grants) -> Result<(), JoinError> {
        Self::check_join(self, room, grants)
    }

    async fn join(
        &self,
        room: &str,
        settings: RoomSettings,
        params: JoinParams,
    ) -> Result<HostedSession<Self>, JoinError> {
        let session = Self::join(self, room, settings, params).await?;
        Ok(HostedSession {
            participant_sid: session.participant_sid,
            requests: session.requests,
            responses: session.responses,
        })
    }
}

impl RoomApi for RoomManager {
    async fn create_room(
        &self,
        request: proto::CreateRoomRequest,
    ) -> Result<proto::Room, ApiError> {
        Self::create_room(self, request).await
    }

    async fn list_rooms(&self, names: &[String]) -> Result<Vec<proto::Room>, ApiError> {
        Ok(Self::list_rooms(self, names))
    }

    async fn delete_room(&self, room: &str) -> Result<(), ApiError> {
        Self::delete_room(self, room).await
    }

    fn auto_creates(&self) -> bool {
        Self::auto_creates(self)
    }

    async fn revoke_tokens(
        &self,
        room: &str,
        identity: &str,
        issued_before: u64,
    ) -> Result<(), ApiError> {
        Self::revoke_tokens(self, room, identity, issued_before).await
    }

    async fn list_participants(&self, room: &str) -> Result<Vec<proto::ParticipantInfo>, ApiError> {
        Self::list_participants(self, room).await
    }

    async fn get_participant(
        &self,
        room: &str,
        identity: &str,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        Self::get_participant(self, room, identity).await
    }

    async fn remove_participant(&self, room: &str, identity: &str) -> Result<(), ApiError> {
        Self::remove_participant(self, room, identity).await
    }

    async fn mute_track(
        &self,
        request: proto::MuteRoomTrackRequest,
    ) -> Result<Option<proto::TrackInfo>, ApiError> {
        Self::mute_track(self, request).await
    }

    async fn send_data(&self, request: proto::SendDataRequest) -> Result<(), ApiError> {
        Self::send_data(self, request).await
    }

    async fn update_participant(
        &self,
        request: proto::UpdateParticipantRequest,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        Self::update_participant(self, request).await
    }

    async fn update_subscriptions(
        &self,
        request: proto::UpdateSubscriptionsRequest,
    ) -> Result<(), ApiError> {
        Self::update_subscriptions(self, request).await
    }

    async fn update_room_metadata(
        &self,
        room: &str,
        metadata: String,
    ) -> Result<proto::Room, ApiError> {
        Self::update_room_metadata(self, room, metadata).await
    }

    async fn forward_participant(
        &self,
        request: proto::ForwardParticipantRequest,
    ) -> Result<(), ApiError> {
        Self::forward_participant(self, request).await
    }

    async fn move_participant(
        &self,
        request: proto::MoveParticipantRequest,
    ) -> Result<(), ApiError> {
        Self::move_participant(self, request).await
    }

    async fn perform_rpc(&self, request: proto::PerformRpcRequest) -> Result<String, ApiError> {
        Self::perform_rpc(self, request).await
    }
}
