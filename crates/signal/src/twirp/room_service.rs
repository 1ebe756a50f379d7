//! `livekit.RoomService`: who may call what, and the way from requests to rooms.

use axum::response::Response;
use sluice_control::ApiError;
use sluice_proto as proto;

use super::error::TwirpError;
use super::grants::{allow, allow_admin, allow_destination, allow_manage};
use super::limits;
use super::wire::Call;
use crate::auth::Caller;
use crate::host::RoomApi;
use crate::server::Shared;

/// Name of the service in paths.
pub(super) const NAME: &str = "livekit.RoomService";

/// Its methods.
pub(super) const METHODS: [&str; 14] = [
    "CreateRoom",
    "ListRooms",
    "DeleteRoom",
    "UpdateRoomMetadata",
    "SendData",
    "ListParticipants",
    "GetParticipant",
    "RemoveParticipant",
    "MutePublishedTrack",
    "UpdateParticipant",
    "UpdateSubscriptions",
    "ForwardParticipant",
    "MoveParticipant",
    "PerformRpc",
];

/// Length of a data packet's nonce, bytes (a UUID).
const NONCE_LEN: usize = 16;

/// Runs one method.
pub(super) async fn serve<A: RoomApi>(
    shared: &Shared<A>,
    caller: &Caller,
    method: &str,
    call: Call,
) -> Result<Response, TwirpError> {
    let api = shared.host();
    match method {
        "CreateRoom" => {
            let request: proto::CreateRoomRequest = call.decode()?;
            allow(caller, |grant| grant.room_create)?;
            if request.egress.is_some() {
                allow(caller, |grant| grant.room_record)?;
                let text = "egress is not available: leave `egress` out of CreateRoom";
                return Err(ApiError::FailedPrecondition(text).into());
            }
            for agent in &request.agents {
                limits::metadata(shared.limits(), &agent.metadata)?;
                limits::attributes(shared.limits(), &agent.attributes)?;
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
            limits::metadata(shared.limits(), &request.metadata)?;
            call.encode(&api.update_room_metadata(&request.room, request.metadata).await?)
        }
        "SendData" => {
            let request: proto::SendDataRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            let len = request.nonce.len();
            if !matches!(len, 0 | NONCE_LEN) {
                let text =
                    format!("nonce should be {NONCE_LEN}-bytes or not present, got: {len} bytes");
                return Err(TwirpError::invalid_argument(text));
            }
            api.send_data(request).await?;
            call.encode(&proto::SendDataResponse {})
        }
        _ => serve_participants(shared, caller, method, call).await,
    }
}

/// The methods about one participant.
async fn serve_participants<A: RoomApi>(
    shared: &Shared<A>,
    caller: &Caller,
    method: &str,
    call: Call,
) -> Result<Response, TwirpError> {
    let api = shared.host();
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
            remove(api, &request).await?;
            call.encode(&proto::RemoveParticipantResponse {})
        }
        "MutePublishedTrack" => {
            let request: proto::MuteRoomTrackRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            let track = api.mute_track(request).await?;
            call.encode(&proto::MuteRoomTrackResponse { track })
        }
        "UpdateParticipant" => {
            let request: proto::UpdateParticipantRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            limits::name(shared.limits(), &request.name)?;
            limits::metadata(shared.limits(), &request.metadata)?;
            limits::attributes(shared.limits(), &request.attributes)?;
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
            allow_transfer(caller, &request.room, &request.destination_room)?;
            api.forward_participant(request).await?;
            call.encode(&proto::ForwardParticipantResponse {})
        }
        "MoveParticipant" => {
            let request: proto::MoveParticipantRequest = call.decode()?;
            allow_transfer(caller, &request.room, &request.destination_room)?;
            api.move_participant(request).await?;
            call.encode(&proto::MoveParticipantResponse {})
        }
        "PerformRpc" => {
            let request: proto::PerformRpcRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            if request.destination_identity.is_empty() {
                return Err(TwirpError::invalid_argument("destination identity is required"));
            }
            let payload = api.perform_rpc(request).await?;
            call.encode(&proto::PerformRpcResponse { payload })
        }
        _ => Err(TwirpError::no_route(NAME, method)),
    }
}

/// Tokens are taken back first, so that nobody slips in again. Taking them back needs nobody to be
/// there; otherwise removing nobody is an error.
async fn remove<A: RoomApi>(
    api: &A,
    request: &proto::RoomParticipantIdentity,
) -> Result<(), ApiError> {
    let issued_before = u64::try_from(request.revoke_token_ts).unwrap_or(0);
    let revoked = match issued_before {
        0 => Ok(()),
        _ => api.revoke_tokens(&request.room, &request.identity, issued_before).await,
    };
    match api.remove_participant(&request.room, &request.identity).await {
        Err(ApiError::NotFound(_)) if issued_before > 0 => revoked,
        // One that could not be stored is in force all the same.
        result => result.and(revoked),
    }
}

/// Whether a participant may be moved or forwarded from one room to another.
fn allow_transfer(caller: &Caller, room: &str, destination: &str) -> Result<(), TwirpError> {
    allow_destination(caller, room, destination)?;
    if room == destination {
        let argument = "destination room cannot be the same as source room";
        return Err(ApiError::Argument { argument, problem: String::new() }.into());
    }
    Ok(())
}
