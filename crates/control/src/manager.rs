//! All rooms of this node.

use std::sync::Arc;

use sluice_engine::api::{Event, EventKind};
use sluice_proto as proto;
use sluice_room::{
    ApiError, Grants, JoinError, JoinParams, RoomConfig, RoomSettings, SessionId, WebhookEvent,
};
use tokio::sync::mpsc;

use crate::engine::MediaEngine;
use crate::session::Session;

/// Settings of the manager.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// Settings that all rooms share.
    pub room: Arc<RoomConfig>,
    /// Whether a join creates its room; otherwise only callers with `roomCreate` do.
    pub auto_create: bool,
    /// Receives webhook events; full queues drop them, counted.
    pub webhooks: Option<mpsc::Sender<WebhookEvent>>,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self { room: Arc::new(RoomConfig::default()), auto_create: true, webhooks: None }
    }
}

/// Input of a room task.
pub(crate) enum RoomInput {
    Signal { session: SessionId, request: Box<proto::SignalRequest> },
    SignalClosed { session: SessionId },
    Engine(EventKind),
}

/// All rooms of this node. Clones are the same manager.
#[derive(Clone)]
pub struct RoomManager {
    inner: Arc<Inner>,
}

struct Inner {
    #[expect(dead_code)]
    engine: Arc<dyn MediaEngine>,
    #[expect(dead_code)]
    config: ManagerConfig,
}

impl RoomManager {
    /// A manager without rooms. Also spawn [`Self::run_events`].
    pub fn new(engine: Arc<dyn MediaEngine>, config: ManagerConfig) -> Self {
        Self { inner: Arc::new(Inner { engine, config }) }
    }

    /// Routes media events to rooms until the engine ends.
    pub async fn run_events(self, mut events: mpsc::Receiver<Event>) {
        while events.recv().await.is_some() {}
    }

    /// Checks what a join would check, without joining (`/rtc/validate`).
    ///
    /// # Errors
    /// See [`JoinError`].
    pub fn check_join(&self, _room: &str, _grants: &Grants) -> Result<(), JoinError> {
        Ok(())
    }

    /// Joins or resumes; creates the room if allowed. `settings` apply to a room created here.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(
        &self,
        _room: &str,
        _settings: RoomSettings,
        _params: JoinParams,
    ) -> Result<Session, JoinError> {
        Err(JoinError::Unavailable)
    }

    /// `CreateRoom`: makes a room or returns the existing one with explicit overrides applied.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_room(
        &self,
        _request: proto::CreateRoomRequest,
    ) -> Result<proto::Room, ApiError> {
        Err(ApiError::Unavailable("not ready"))
    }

    /// `ListRooms`; empty `names` = all.
    pub fn list_rooms(&self, _names: &[String]) -> Vec<proto::Room> {
        Vec::new()
    }

    /// `DeleteRoom`.
    ///
    /// # Errors
    /// No such room.
    pub async fn delete_room(&self, _room: &str) -> Result<(), ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    /// `ListParticipants`.
    ///
    /// # Errors
    /// No such room.
    pub async fn list_participants(
        &self,
        _room: &str,
    ) -> Result<Vec<proto::ParticipantInfo>, ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    /// `GetParticipant`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn get_participant(
        &self,
        _room: &str,
        _identity: &str,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    /// `RemoveParticipant`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn remove_participant(&self, _room: &str, _identity: &str) -> Result<(), ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    /// `MutePublishedTrack`.
    ///
    /// # Errors
    /// No such room, participant or track, or unmuting is not enabled.
    pub async fn mute_track(
        &self,
        _request: proto::MuteRoomTrackRequest,
    ) -> Result<proto::TrackInfo, ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    /// `SendData`.
    ///
    /// # Errors
    /// No such room, or the request is wrong.
    pub async fn send_data(&self, _request: proto::SendDataRequest) -> Result<(), ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    /// `UpdateParticipant`.
    ///
    /// # Errors
    /// No such room or participant, or a limit is exceeded.
    pub async fn update_participant(
        &self,
        _request: proto::UpdateParticipantRequest,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    /// `UpdateSubscriptions`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn update_subscriptions(
        &self,
        _request: proto::UpdateSubscriptionsRequest,
    ) -> Result<(), ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    /// `UpdateRoomMetadata`.
    ///
    /// # Errors
    /// No such room, or the metadata is too large.
    pub async fn update_room_metadata(
        &self,
        _room: &str,
        _metadata: String,
    ) -> Result<proto::Room, ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    /// Closes every room with reason `SERVER_SHUTDOWN` and refuses new ones.
    pub async fn shutdown(&self) {}
}
