//! The server API: Twirp over HTTP, `POST /twirp/livekit.<Service>/<Method>`, protobuf or JSON by
//! `Content-Type`, the answer in the same form. Errors are JSON whatever the request was.

mod error;
mod room_service;
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

/// Services of LiveKit that this server knows of but does not offer yet.
const UNAVAILABLE_SERVICES: [&str; 4] =
    ["livekit.Egress", "livekit.Ingress", "livekit.SIP", "livekit.AgentDispatchService"];

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
                room_service::serve(shared.host(), &caller, &method, call).await
            }
            known if UNAVAILABLE_SERVICES.contains(&known) => {
                let text = format!("{known} is not available on this server");
                Err(TwirpError::unimplemented(text))
            }
            _ => Err(TwirpError::no_route(&service, &method)),
        },
        Ok(Err(error)) => Err(error),
        // The body is too large or broke off: not a Twirp answer.
        Err(status) => return status.into_response(),
    };
    result.unwrap_or_else(IntoResponse::into_response)
}
