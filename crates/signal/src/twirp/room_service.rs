//! `livekit.RoomService`: who may call what, and the way from requests to rooms.

use axum::response::Response;
use sluice_control::ApiError;
use sluice_proto as proto;

use super::error::TwirpError;
use super::wire::Call;
use crate::auth::Caller;
use crate::host::RoomApi;
use crate::token::VideoGrant;

/// Name of the service in paths.
pub(super) const NAME: &str = "livekit.RoomService";

/// Length of a data packet's nonce, bytes (a UUID).
const NONCE_LEN: usize = 16;

/// Runs one method.
pub(super) async fn serve<A: RoomApi>(
    api: &A,
    caller: &Caller,
    method: &str,
    call: Call,
) -> Result<Response, TwirpError> {
    match method {
        "CreateRoom" => {
            let request: proto::CreateRoomRequest = call.decode()?;
            allow(caller, |grant| grant.room_create)?;
            if request.egress.is_some() {
                allow(caller, |grant| grant.room_record)?;
            }
            allow_manage(caller, &request.name)?;
            call.encode(&api.create_room(request).await?)
        }
        "ListRooms" => {
            let request: proto::ListRoomsRequest = call.decode()?;
            allow(caller, |grant| grant.room_list)?;
            let rooms = api.list_rooms(&request.names).await?;
            call.encode(&proto::ListRoomsResponse { rooms })
        }
        "DeleteRoom" => {
            let request: proto::DeleteRoomRequest = call.decode()?;
            allow(caller, |grant| grant.room_create)?;
            allow_manage(caller, &request.room)?;
            let deleted = api.delete_room(&request.room).await;
            if let Some((gate, _)) = caller.gate() {
                // Also when there is none: one that nobody has joined yet stays closed too.
                gate.room_deleted(&request.room);
            }
            match deleted {
                // Such a caller cancels meetings that nobody has joined yet, and must succeed.
                Err(ApiError::NotFound(_)) if call.is_delimited() => {}
                other => other?,
            }
            call.encode(&proto::DeleteRoomResponse {})
        }
        "UpdateRoomMetadata" => {
            let request: proto::UpdateRoomMetadataRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            call.encode(&api.update_room_metadata(&request.room, request.metadata).await?)
        }
        "SendData" => {
            let request: proto::SendDataRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            if !matches!(request.nonce.len(), 0 | NONCE_LEN) {
                let text = format!("nonce should be {NONCE_LEN}-bytes or not present");
                return Err(TwirpError::invalid_argument(text));
            }
            api.send_data(request).await?;
            call.encode(&proto::SendDataResponse {})
        }
        _ => serve_participants(api, caller, method, call).await,
    }
}

/// The methods about one participant.
async fn serve_participants<A: RoomApi>(
    api: &A,
    caller: &Caller,
    method: &str,
    call: Call,
) -> Result<Response, TwirpError> {
    match method {
        "ListParticipants" => {
            let request: proto::ListParticipantsRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            let participants = api.list_participants(&request.room).await?;
            call.encode(&proto::ListParticipantsResponse { participants })
        }
        "GetParticipant" => {
            let request: proto::RoomParticipantIdentity = call.decode()?;
            allow_admin(caller, &request.room)?;
            call.encode(&api.get_participant(&request.room, &request.identity).await?)
        }
        "RemoveParticipant" => {
            let request: proto::RoomParticipantIdentity = call.decode()?;
            allow_admin(caller, &request.room)?;
            api.remove_participant(&request.room, &request.identity).await?;
            call.encode(&proto::RemoveParticipantResponse {})
        }
        "MutePublishedTrack" => {
            let request: proto::MuteRoomTrackRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            let track = Some(api.mute_track(request).await?);
            call.encode(&proto::MuteRoomTrackResponse { track })
        }
        "UpdateParticipant" => {
            let request: proto::UpdateParticipantRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            call.encode(&api.update_participant(request).await?)
        }
        "UpdateSubscriptions" => {
            let request: proto::UpdateSubscriptionsRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            api.update_subscriptions(request).await?;
            call.encode(&proto::UpdateSubscriptionsResponse {})
        }
        "ForwardParticipant" => {
            let request: proto::ForwardParticipantRequest = call.decode()?;
            allow_destination(caller, &request.room, &request.destination_room)?;
            Err(TwirpError::unimplemented("not implemented"))
        }
        "MoveParticipant" => {
            let request: proto::MoveParticipantRequest = call.decode()?;
            allow_destination(caller, &request.room, &request.destination_room)?;
            Err(TwirpError::unimplemented("not implemented"))
        }
        "PerformRpc" => {
            let request: proto::PerformRpcRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            Err(TwirpError::unimplemented("not implemented"))
        }
        _ => Err(TwirpError::no_route(NAME, method)),
    }
}

fn allow(caller: &Caller, right: impl FnOnce(&VideoGrant) -> bool) -> Result<(), TwirpError> {
    let grant = caller.claims().and_then(|claims| claims.video.as_ref());
    if grant.is_some_and(right) { Ok(()) } else { Err(TwirpError::permission_denied()) }
}

/// Whether the name is free for this caller.
fn allow_manage(caller: &Caller, room: &str) -> Result<(), TwirpError> {
    match caller.gate() {
        Some((gate, token)) if !gate.may_manage(room, token) => {
            Err(TwirpError::permission_denied())
        }
        _ => Ok(()),
    }
}

/// An administrator's token is for one room.
fn allow_admin(caller: &Caller, room: &str) -> Result<(), TwirpError> {
    allow(caller, |grant| grant.room_admin && grant.room == room)?;
    match caller.gate() {
        Some((gate, token)) if !gate.may_administer(room, token) => {
            Err(TwirpError::permission_denied())
        }
        _ => Ok(()),
    }
}

fn allow_destination(caller: &Caller, room: &str, destination: &str) -> Result<(), TwirpError> {
    allow_admin(caller, room)?;
    allow(caller, |grant| grant.destination_room == destination)
}
