//! One room: the state that its modules share, and the face that the control plane calls.

use std::time::Instant;

use sluice_engine::api::EventKind;
use sluice_proto as proto;

use crate::outputs::Outputs;
use crate::{ApiError, JoinError, JoinParams, Joined, Output, RoomParams, SessionId};

/// A room, see the crate documentation.
pub struct Room {
    params: RoomParams,
    outputs: Outputs,
}

impl Room {
    /// An empty room; it closes by itself when nobody joins within its empty timeout.
    pub fn new(params: RoomParams, _now: Instant) -> Self {
        Self { params, outputs: Outputs::default() }
    }

    /// Starts or resumes a session.
    ///
    /// # Errors
    /// See [`JoinError`]; nothing has changed then.
    pub fn join(&mut self, _now: Instant, _params: JoinParams) -> Result<Joined, JoinError> {
        Err(JoinError::Unavailable)
    }

    /// Handles one message of a client. Messages of sessions that are over are ignored.
    pub fn handle_signal(
        &mut self,
        _now: Instant,
        _session: SessionId,
        _request: proto::SignalRequest,
    ) {
    }

    /// The signal connection is gone without a leave.
    pub fn signal_closed(&mut self, _now: Instant, _session: SessionId) {}

    /// Handles what a media worker reports.
    pub fn handle_engine(&mut self, _now: Instant, _event: EventKind) {}

    /// Fires what is due.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When `handle_timeout` wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next effect; `None` when all are taken.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// The room as `ListRooms` shows it.
    pub fn to_proto(&self) -> proto::Room {
        proto::Room { name: self.params.name.clone(), ..Default::default() }
    }

    /// `ListParticipants`: everybody, hidden ones included.
    pub fn list_participants(&self) -> Vec<proto::ParticipantInfo> {
        Vec::new()
    }

    /// `GetParticipant`.
    ///
    /// # Errors
    /// No such participant.
    pub fn get_participant(&self, _identity: &str) -> Result<proto::ParticipantInfo, ApiError> {
        Err(ApiError::PARTICIPANT_NOT_FOUND)
    }

    /// `RemoveParticipant`.
    ///
    /// # Errors
    /// No such participant.
    pub fn remove_participant(&mut self, _now: Instant, _identity: &str) -> Result<(), ApiError> {
        Err(ApiError::PARTICIPANT_NOT_FOUND)
    }

    /// `MutePublishedTrack`.
    ///
    /// # Errors
    /// No such participant or track, or unmuting is not enabled.
    pub fn mute_track(
        &mut self,
        _now: Instant,
        _request: &proto::MuteRoomTrackRequest,
    ) -> Result<proto::TrackInfo, ApiError> {
        Err(ApiError::TRACK_NOT_FOUND)
    }

    /// `SendData`.
    ///
    /// # Errors
    /// The nonce has a wrong length.
    pub fn send_data(
        &mut self,
        _now: Instant,
        _request: &proto::SendDataRequest,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    /// `UpdateParticipant`.
    ///
    /// # Errors
    /// No such participant, or a limit is exceeded.
    pub fn update_participant(
        &mut self,
        _now: Instant,
        _request: &proto::UpdateParticipantRequest,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        Err(ApiError::PARTICIPANT_NOT_FOUND)
    }

    /// `UpdateSubscriptions`.
    ///
    /// # Errors
    /// No such participant.
    pub fn update_subscriptions(
        &mut self,
        _now: Instant,
        _request: &proto::UpdateSubscriptionsRequest,
    ) -> Result<(), ApiError> {
        Err(ApiError::PARTICIPANT_NOT_FOUND)
    }

    /// `UpdateRoomMetadata`.
    ///
    /// # Errors
    /// The metadata is too large.
    pub fn update_metadata(
        &mut self,
        _now: Instant,
        _metadata: &str,
    ) -> Result<proto::Room, ApiError> {
        Ok(self.to_proto())
    }

    /// Ends the room (`DeleteRoom`, shutdown): everybody gets a leave with `reason`.
    pub fn close(&mut self, _now: Instant, _reason: proto::DisconnectReason) {}
}
