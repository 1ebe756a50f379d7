//! `POST /turms/v1/conference/{create|cancel|accept}`: the conference provider of our plugin inside
//! Turms. Turms has checked the requester already; what comes back is bound to that user.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Refusal;
use crate::adapter::Adapter;
use crate::ids::{InvalidId, MeetingId, is_meeting_room};
use crate::memory::Meeting;

#[derive(Debug, Deserialize)]
struct Call {
    requester_id: String,
    meeting: MeetingFields,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Deserialize)]
struct MeetingFields {
    id: String,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    group_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Options {
    #[serde(default)]
    max_participants: Option<u32>,
    #[serde(default)]
    idle_timeout_ms: Option<u64>,
}

pub(super) async fn serve(
    State(adapter): State<Arc<Adapter>>,
    Path(op): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let purpose = match op.as_str() {
        "create" => "conference/create",
        "cancel" => "conference/cancel",
        "accept" => "conference/accept",
        _ => return Err(Refusal::bad_request("the path must end in create, cancel or accept")),
    };
    let payload = adapter.signed_request(&body, purpose)?;
    let call: Call = serde_json::from_value(payload)
        .map_err(|error| Refusal::bad_request(format!("not a conference call: {error}")))?;
    let requester = call.requester_id.parse().map_err(bad_id)?;
    if !is_meeting_room(&call.meeting.id) {
        return Err(Refusal::bad_request("`meeting.id` must have 9 or 10 digits"));
    }
    let id: MeetingId = call.meeting.id.parse().map_err(bad_id)?;
    match op.as_str() {
        "create" => {
            let meeting = Meeting {
                creator: requester,
                user: optional_id(call.meeting.user_id.as_deref())?,
                group: optional_id(call.meeting.group_id.as_deref())?,
                made: adapter.now(),
            };
            let idle = call.options.idle_timeout_ms.map(Duration::from_millis);
            adapter.open_meeting(id, meeting, idle, call.options.max_participants).await?;
            let token = adapter.meeting_token(id, requester).await?;
            Ok(Json(json!({ "access_token": token })))
        }
        "accept" => {
            let token = adapter.meeting_token(id, requester).await?;
            Ok(Json(json!({ "access_token": token })))
        }
        _ => {
            adapter.cancel_meeting(id).await?;
            Ok(Json(json!({ "cancelled": true })))
        }
    }
}

fn optional_id<T: FromStr<Err = InvalidId>>(text: Option<&str>) -> Result<Option<T>, Refusal> {
    text.map(str::parse).transpose().map_err(bad_id)
}

fn bad_id(error: InvalidId) -> Refusal {
    Refusal::bad_request(error.to_string())
}
