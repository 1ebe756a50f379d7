//! `GET /turms/v1/rooms/{type}/{id}`: who is in a room, for users who may join it and have not. They
//! show a Turms JWT, or, where users have passwords, the token that they got for the room.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Extension, Path, State};
use axum::http::HeaderMap;
use serde::Serialize;

use super::error::Refusal;
use super::token::parse_target;
use super::{address, bearer, identify, limit};
use crate::adapter::Adapter;
use crate::identity::Proof;
use crate::ids::user_of_identity;
use crate::policy::UnixMillis;
use crate::rooms::RoomError;

#[derive(Debug, Serialize)]
pub(super) struct Roster {
    room_name: String,
    open: bool,
    participants: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    identity: String,
    /// `None` for participants who are no Turms users: agents, unbound ones.
    user_id: Option<String>,
    name: String,
    joined_at: UnixMillis,
    can_publish: bool,
    is_publishing: bool,
}

pub(super) async fn show(
    State(adapter): State<Arc<Adapter>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Roster>, Refusal> {
    let token = bearer(&headers).ok_or_else(|| {
        Refusal::unauthorized(
            "an Authorization header with a Turms JWT, or the room's token, is needed",
        )
    })?;
    let peer = address(peer.as_ref().map(|Extension(peer)| peer), &headers);
    let target = match adapter.holder(token) {
        Some((user, room)) => {
            limit(&adapter, peer.map_or(Ok(()), |peer| adapter.per_address.check(peer)))?;
            limit(&adapter, adapter.per_user.check(user))?;
            let target = parse_target(&kind, &id, user)?;
            if target.room_name() != room {
                return Err(Refusal::unauthorized("the token is for another room"));
            }
            adapter.still_may_join(user, target, token).await?;
            target
        }
        None => {
            let principal = identify(&adapter, peer, Proof::Jwt(token)).await?;
            let target = parse_target(&kind, &id, principal.user)?;
            adapter.may_see(&principal, target).await?;
            target
        }
    };
    let room_name = target.room_name();
    let attendees = match adapter.rooms().attendees(&room_name).await {
        Ok(attendees) => Some(attendees),
        Err(RoomError::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let open = attendees.is_some();
    let visible = attendees.unwrap_or_default().into_iter().filter(|attendee| !attendee.hidden);
    let participants = visible.map(|attendee| Entry {
        user_id: user_of_identity(&attendee.identity).map(|user| user.to_string()),
        identity: attendee.identity,
        name: attendee.name,
        joined_at: attendee.joined_at,
        can_publish: attendee.can_publish,
        is_publishing: attendee.is_publishing,
    });
    Ok(Json(Roster { room_name, open, participants: participants.collect() }))
}
