//! Bodies of the API: which form a call is in, and both directions of it.

use axum::body::{Bytes, to_bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use prost::{Message, Name};
use sluice_proto::json;

use super::error::TwirpError;
use crate::auth::Caller;

/// What is read of a caller without a token, bytes: enough to say what is wrong with it.
const MAX_UNKNOWN_BODY: usize = 16 << 10;

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

/// One call: its body, not decoded yet.
#[derive(Debug)]
pub(super) struct Call {
    form: Form,
    body: Bytes,
    /// The answer is protobuf behind a varint with its length.
    delimited: bool,
}

impl Call {
    /// Reads the body. The outer error is one of HTTP (the body is too large), the inner of Twirp.
    pub(super) async fn read(
        request: Request,
        caller: &Caller,
    ) -> Result<Result<Self, TwirpError>, BytesRejection> {
        if request.method() != Method::POST {
            let text =
                format!("unsupported method \"{}\" (only POST is allowed)", request.method());
            let error = TwirpError::bad_route(text);
            return Ok(Err(error.invalid_route(request.method().as_str(), request.uri().path())));
        }
        let form = match form(request.headers().get(CONTENT_TYPE)) {
            Ok(form) => form,
            Err(error) => return Ok(Err(error.invalid_route("POST", request.uri().path()))),
        };
        let body = match caller.token() {
            Some(_) => Bytes::from_request(request, &()).await?,
            None => match to_bytes(request.into_body(), MAX_UNKNOWN_BODY).await {
                Ok(body) => body,
                Err(_) => return Ok(Err(TwirpError::permission_denied())),
            },
        };
        Ok(Ok(Self { form, body, delimited: false }))
    }

    /// Takes off a framing that the gate knows; only known callers may use one.
    pub(super) fn unframe(self, caller: &Caller, method: &str) -> Self {
        match caller.gate() {
            Some((gate, _)) if self.form == Form::Protobuf => {
                let framed = gate.unframe(method, self.body);
                Self { body: framed.message, delimited: framed.delimited, ..self }
            }
            _ => self,
        }
    }

    /// Whether the caller is one that frames messages, see [`crate::Gate::unframe`].
    pub(super) fn is_delimited(&self) -> bool {
        self.delimited
    }

    /// The request of the method.
    pub(super) fn decode<M: Message + Name + Default>(&self) -> Result<M, TwirpError> {
        match self.form {
            Form::Protobuf => M::decode(self.body.clone())
                .map_err(|_| TwirpError::malformed("the protobuf request could not be decoded")),
            Form::Json => json::from_json(&self.body)
                .map_err(|_| TwirpError::malformed("the json request could not be decoded")),
        }
    }

    /// An answer whose message has no fields set: no bytes, or this text.
    pub(super) fn encode_empty(&self, json: &'static str) -> Response {
        match self.form {
            Form::Protobuf => ([(CONTENT_TYPE, "application/protobuf")], "").into_response(),
            Form::Json => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        }
    }

    /// The answer of the method, in the form of the request.
    pub(super) fn encode<M: Message + Name>(&self, message: &M) -> Result<Response, TwirpError> {
        match self.form {
            Form::Protobuf => {
                let headers = [(CONTENT_TYPE, "application/protobuf")];
                let body = if self.delimited {
                    message.encode_length_delimited_to_vec()
                } else {
                    message.encode_to_vec()
                };
                Ok((headers, body).into_response())
            }
            Form::Json => {
                let text = json::to_twirp(message);
                let text = text.map_err(|error| TwirpError::internal(error.to_string()))?;
                Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
            }
        }
    }
}

/// Parameters such as a charset are ignored.
fn form(content_type: Option<&HeaderValue>) -> Result<Form, TwirpError> {
    let value = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    match media_type.to_ascii_lowercase().as_str() {
        "application/protobuf" => Ok(Form::Protobuf),
        "application/json" => Ok(Form::Json),
        _ => Err(TwirpError::bad_route(format!("unexpected Content-Type: \"{value}\""))),
    }
}
