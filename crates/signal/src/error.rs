//! Refusals before the WebSocket upgrade: a status and one line of plain text, which clients read.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use sluice_control::JoinError;

use crate::token::TokenError;

/// An HTTP error with a plain-text body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
pub struct HttpError {
    /// Status of the answer.
    pub status: StatusCode,
    /// Body of the answer.
    pub text: String,
}

impl HttpError {
    /// The caller's request is wrong.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    /// The caller's token is missing, wrong, or allows too little.
    pub fn unauthorized(text: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, text: text.into() }
    }

    /// A good token that lacks the right.
    pub fn permission_denied() -> Self {
        Self::unauthorized("permission denied")
    }

    /// Our fault.
    pub fn internal(text: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: text.into() }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
        (self.status, headers, self.text).into_response()
    }
}

impl From<TokenError> for HttpError {
    fn from(error: TokenError) -> Self {
        Self::unauthorized(error.to_string())
    }
}

impl From<JoinError> for HttpError {
    fn from(error: JoinError) -> Self {
        let status = StatusCode::from_u16(error.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, text: error.to_string() }
    }
}
