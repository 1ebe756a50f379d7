//! `POST /turms/v1/events`: our plugin inside Turms says that something changed. A notice is a
//! reason to ask Turms at once, never a fact by itself.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Refusal;
use crate::adapter::Adapter;
use crate::ids::{GroupId, UserId};

/// Purpose of the signature.
const OP: &str = "events";

/// Most users in one notice that are looked at one by one.
const MAX_USERS: usize = 200;

/// The notice, besides what the signature needs.
#[derive(Debug, Deserialize)]
struct Notice {
    /// What changed: `members_removed`, `members_added`, `member_updated`, `group_updated`,
    /// `group_deleted`, `user_blocked`, `unknown`.
    kind: String,
    #[serde(default)]
    group_id: Option<String>,
    #[serde(default)]
    user_ids: Vec<String>,
}

pub(super) async fn receive(
    State(adapter): State<Arc<Adapter>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let payload = adapter.signed_request(&body, OP)?;
    let notice: Notice = serde_json::from_value(payload)
        .map_err(|error| Refusal::bad_request(format!("not a notice: {error}")))?;
    let bad_id = |error: crate::ids::InvalidId| Refusal::bad_request(error.to_string());
    let group: Option<GroupId> =
        notice.group_id.as_deref().map(str::parse).transpose().map_err(bad_id)?;
    let users: Vec<UserId> = notice
        .user_ids
        .iter()
        .take(MAX_USERS)
        .map(|id| id.parse())
        .collect::<Result<_, _>>()
        .map_err(bad_id)?;
    tracing::debug!(kind = notice.kind, group = ?group, users = users.len(), "change notice");
    match (group, users.as_slice()) {
        (Some(group), _) if notice.kind == "group_deleted" => adapter.group_deleted(group).await,
        (Some(group), users) if notice.kind == "members_removed" => {
            adapter.group_changed(group).await;
            adapter.shut_out(group, users).await;
        }
        (Some(group), _) => adapter.group_changed(group).await,
        (None, []) => adapter.something_changed().await,
        (None, users) => {
            for user in users {
                adapter.user_changed(*user).await;
            }
        }
    }
    // A body is needed: the plugin's HTTP client never ends on an answer without one.
    Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": true }))))
}
