//! `livekit.AgentDispatchService`: who may send agents where.

use axum::response::Response;
use sluice_control::ApiError;
use sluice_proto as proto;

use super::error::TwirpError;
use super::grants::allow_admin;
use super::limits;
use super::wire::Call;
use crate::agents::{Agents, check_deployment};
use crate::auth::Caller;
use crate::host::RoomApi;
use crate::server::Shared;

/// Name of the service in paths.
pub(super) const NAME: &str = "livekit.AgentDispatchService";

/// Its methods.
pub(super) const METHODS: [&str; 3] = ["CreateDispatch", "DeleteDispatch", "ListDispatch"];

/// Runs one method.
pub(super) async fn serve<A: RoomApi>(
    shared: &Shared<A>,
    caller: &Caller,
    method: &str,
    call: Call,
) -> Result<Response, TwirpError> {
    match method {
        "CreateDispatch" => {
            let request: proto::CreateAgentDispatchRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            check_deployment(&request.deployment).map_err(TwirpError::invalid_argument)?;
            let limits = shared.limits();
            limits::metadata(limits, &request.metadata)?;
            limits::attributes(limits, &request.attributes)?;
            let agents = agents(shared)?;
            let room = dispatch_room(shared, &request.room).await?;
            call.encode(&agents.create_dispatch(room, request).await?)
        }
        "DeleteDispatch" => {
            let request: proto::DeleteAgentDispatchRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            let agents = agents(shared)?;
            existing_room(shared, &request.room).await?;
            call.encode(&agents.delete_dispatch(request).await?)
        }
        "ListDispatch" => {
            let request: proto::ListAgentDispatchRequest = call.decode()?;
            allow_admin(caller, &request.room)?;
            let agents = agents(shared)?;
            existing_room(shared, &request.room).await?;
            let agent_dispatches = agents.list_dispatches(request).await?;
            call.encode(&proto::ListAgentDispatchResponse { agent_dispatches })
        }
        _ => Err(TwirpError::no_route(NAME, method)),
    }
}

fn agents<A>(shared: &Shared<A>) -> Result<&Agents, TwirpError> {
    shared.agents().ok_or_else(|| TwirpError::unimplemented("agents are not enabled"))
}

/// The room of a dispatch, which is made if joining would make it.
async fn dispatch_room<A: RoomApi>(
    shared: &Shared<A>,
    name: &str,
) -> Result<proto::Room, TwirpError> {
    if !shared.host().auto_creates() {
        return existing_room(shared, name).await;
    }
    let request = proto::CreateRoomRequest { name: name.to_owned(), ..Default::default() };
    Ok(shared.host().create_room(request).await?)
}

async fn existing_room<A: RoomApi>(
    shared: &Shared<A>,
    name: &str,
) -> Result<proto::Room, TwirpError> {
    let rooms = shared.host().list_rooms(&[name.to_owned()]).await?;
    Ok(rooms.into_iter().next().ok_or(ApiError::ROOM_NOT_FOUND)?)
}
