//! Refusals as JSON: a word for programs, a sentence for people, and when to ask again.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::admin::TurmsError;
use crate::identity::IdentityError;
use crate::policy::DenyReason;
use crate::rooms::RoomError;
use crate::signed::SignedError;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Status.
    pub status: StatusCode,
    /// The word.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { status, reason, message: message.into(), retry_after: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(crate) fn throttled(wait: Duration) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests");
        Self { retry_after: Some(wait), ..refusal }
    }

    pub(crate) fn room_full() -> Self {
        Self::new(StatusCode::CONFLICT, "room_full", "the room is full")
    }

    pub(crate) fn denied(reason: DenyReason) -> Self {
        let status = match reason {
            DenyReason::GroupGone => StatusCode::NOT_FOUND,
            _ => StatusCode::FORBIDDEN,
        };
        let message = match reason {
            DenyReason::NotMember => "you are not a member",
            DenyReason::Blocked => "you are blocked",
            DenyReason::Inactive => "your account is not active",
            DenyReason::GroupGone => "the group does not exist",
            DenyReason::Policy => "your token does not allow this",
        };
        Self::new(status, reason.as_str(), message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "reason": self.reason, "message": self.message });
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        let message = error.to_string();
        match error {
            IdentityError::UserId => Self::bad_request(message),
            IdentityError::Throttled(wait) => Self::throttled(wait),
            IdentityError::Unavailable => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let refusal = Self::new(status, "identity_unavailable", message);
                Self { retry_after: Some(Duration::from_secs(5)), ..refusal }
            }
            _ => Self::unauthorized(message),
        }
    }
}

impl From<TurmsError> for Refusal {
    fn from(error: TurmsError) -> Self {
        // Which of our passwords is wrong is nobody's business.
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let refusal = Self::new(status, "turms_unavailable", "Turms cannot be asked at the moment");
        Self { retry_after: Some(error.retry_after()), ..refusal }
    }
}

impl From<RoomError> for Refusal {
    fn from(error: RoomError) -> Self {
        let status = match error {
            RoomError::NotFound => StatusCode::NOT_FOUND,
            RoomError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, "room", error.to_string())
    }
}

impl From<SignedError> for Refusal {
    fn from(error: SignedError) -> Self {
        let message = error.to_string();
        match error {
            SignedError::Malformed => Self::bad_request(message),
            SignedError::Replay => Self::new(StatusCode::CONFLICT, "replay", message),
            SignedError::Busy => Self::throttled(Duration::from_secs(1)),
            _ => Self::unauthorized(message),
        }
    }
}
