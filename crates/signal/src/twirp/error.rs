//! Twirp errors: a code, which is also an HTTP status, and a message for people.
//! Source: the Twirp v7 specification, "Errors".

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use sluice_control::ApiError;

/// An error of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TwirpError {
    code: &'static str,
    status: StatusCode,
    message: String,
    /// Name and value of one piece of metadata.
    meta: Option<(&'static str, String)>,
}

impl TwirpError {
    fn new(code: &'static str, status: StatusCode, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into(), meta: None }
    }

    /// The code.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// No such service or method, or not a Twirp request.
    pub(super) fn bad_route(message: impl Into<String>) -> Self {
        Self::new("bad_route", StatusCode::NOT_FOUND, message)
    }

    /// See [`Self::bad_route`].
    pub(super) fn no_route(service: &str, method: &str) -> Self {
        Self::bad_route(format!("no handler for path \"/twirp/{service}/{method}\""))
            .invalid_route("POST", &format!("/twirp/{service}/{method}"))
    }

    /// Names the request that met no method.
    pub(super) fn invalid_route(self, method: &str, path: &str) -> Self {
        Self { meta: Some(("twirp_invalid_route", format!("{method} {path}"))), ..self }
    }

    /// The body is not the method's request.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new("malformed", StatusCode::BAD_REQUEST, message)
    }

    /// A field of the request is wrong.
    pub(super) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new("invalid_argument", StatusCode::BAD_REQUEST, message)
    }

    /// The token is missing or grants too little. LiveKit uses this code for both.
    pub(super) fn permission_denied() -> Self {
        Self::new("unauthenticated", StatusCode::UNAUTHORIZED, "permissions denied")
    }

    /// Not offered.
    pub(super) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new("unimplemented", StatusCode::NOT_IMPLEMENTED, message)
    }

    /// Our fault.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new("internal", StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<ApiError> for TwirpError {
    fn from(error: ApiError) -> Self {
        let (code, status) = match &error {
            ApiError::NotFound(_) => ("not_found", StatusCode::NOT_FOUND),
            ApiError::InvalidArgument(_) | ApiError::Argument { .. } => {
                ("invalid_argument", StatusCode::BAD_REQUEST)
            }
            ApiError::Malformed(_) => ("malformed", StatusCode::BAD_REQUEST),
            ApiError::Canceled(_) => ("canceled", StatusCode::REQUEST_TIMEOUT),
            ApiError::FailedPrecondition(_) => {
                ("failed_precondition", StatusCode::PRECONDITION_FAILED)
            }
            ApiError::ResourceExhausted(_) => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
            ApiError::Unavailable(_) | ApiError::Gone(_) => {
                ("unavailable", StatusCode::SERVICE_UNAVAILABLE)
            }
            ApiError::Unimplemented(_) => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
            ApiError::Internal(_) => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        };
        let meta = match &error {
            ApiError::Argument { argument, .. } => Some(("argument", (*argument).to_owned())),
            _ => None,
        };
        Self { meta, ..Self::new(code, status, error.to_string()) }
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({ "code": self.code, "msg": self.message });
        if let Some((name, value)) = self.meta {
            body["meta"] = serde_json::json!({ name: value });
        }
        (self.status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }
}
