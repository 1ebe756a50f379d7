//! Calls of LiveKit's server API that concern two rooms: a participant moves to another one, or is
//! shown there too.

use sluice_proto as proto;
use sluice_room::{ApiError, Room};

use super::RoomManager;

impl RoomManager {
    /// `MoveParticipant`; makes the destination if need be.
    ///
    /// # Errors
    /// No such participant, or it is reconnecting.
    pub async fn move_participant(
        &self,
        request: proto::MoveParticipantRequest,
    ) -> Result<(), ApiError> {
        let proto::MoveParticipantRequest { room, identity, destination_room } = request;
        // A move that fails makes no room.
        self.get_participant(&room, &identity).await?;
        let name = destination_room.clone();
        let request = proto::CreateRoomRequest { name, ..Default::default() };
        let destination = self.create_room(request).await?;
        let mut others = self.list_participants(&destination_room).await?;
        others.retain(|other| {
            let hidden = other.permission.as_ref().is_some_and(|permission| permission.hidden);
            !hidden && other.identity != identity
        });
        let leave =
            move |room: &mut Room, now| room.move_participant(now, &identity, &destination, others);
        self.call_about(&room, leave).await
    }

    /// `ForwardParticipant`; makes the destination if need be. Ends when the participant leaves its
    /// room or is removed from the destination.
    ///
    /// # Errors
    /// No such participant, or the destination cannot take it.
    pub async fn forward_participant(
        &self,
        request: proto::ForwardParticipantRequest,
    ) -> Result<(), ApiError> {
        let proto::ForwardParticipantRequest { room, identity, destination_room } = request;
        // A forward that fails makes no room.
        self.get_participant(&room, &identity).await?;
        let name = destination_room.clone();
        self.create_room(proto::CreateRoomRequest { name, ..Default::default() }).await?;
        let begin = || {
            let (who, to) = (identity.clone(), destination_room.clone());
            self.call_about(&room, move |room, _| room.forward_participant(&who, &to))
        };
        let forward = begin().await?;
        let news = forward.clone();
        let apply = move |room: &mut Room, now| room.apply_forward(now, news);
        if let Err(error) = self.call(&destination_room, apply).await.and_then(|result| result) {
            let stop = move |room: &mut Room, _| room.stop_forwarding(&identity, &destination_room);
            // A room that is gone forwards nobody.
            let _ = self.call(&room, stop).await;
            return Err(error);
        }
        // Who left in between was not there yet to be removed.
        if begin().await.map_or(true, |again| !again.is_about_same(&forward)) {
            let _ = self.remove_participant(&destination_room, &identity).await;
            return Err(ApiError::PARTICIPANT_NOT_FOUND);
        }
        Ok(())
    }
}
