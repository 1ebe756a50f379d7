//! The server API: Twirp over HTTP, `POST /twirp/livekit.<Service>/<Method>`, protobuf or JSON by
//! `Content-Type`, the answer in the same form. Errors are JSON whatever the request was.

mod agent_dispatch;
mod error;
mod grants;
mod limits;
mod room_service;
mod unavailable;
mod wire;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};

use crate::auth::Caller;
use crate::host::RoomApi;
use crate::server::Shared;
use error::TwirpError;
use wire::Call;

/// The API's paths.
pub(crate) fn routes<H: RoomApi>() -> Router<Shared<H>> {
    Router::new().route("/twirp/{service}/{method}", any(serve::<H>))
}

async fn serve<H: RoomApi>(
    State(shared): State<Shared<H>>,
    Extension(caller): Extension<Caller>,
    Path((service, method)): Path<(String, String)>,
    request: Request,
) -> Response {
    let result = match Call::read(request).await {
        Ok(Ok(call)) => match service.as_str() {
            room_service::NAME => {
                let call = call.unframe(&caller, &method);
                room_service::serve(&shared, &caller, &method, call).await
            }
            agent_dispatch::NAME => agent_dispatch::serve(&shared, &caller, &method, call).await,
            _ => unavailable::serve(&caller, &service, &method)
                .unwrap_or_else(|| Err(TwirpError::no_route(&service, &method))),
        },
        Ok(Err(error)) => Err(error),
        // The body is too large or broke off: not a Twirp answer.
        Err(status) => return status.into_response(),
    };
    result.unwrap_or_else(IntoResponse::into_response)
}
