//! The server API: Twirp over HTTP, `POST /twirp/livekit.<Service>/<Method>`, protobuf or JSON by
//! `Content-Type`, the answer in the same form. Errors are JSON whatever the request was.

mod agent_dispatch;
mod error;
mod grants;
mod limits;
mod room_service;
mod stats;
mod unavailable;
mod wire;

use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};

use crate::auth::Caller;
use crate::host::RoomApi;
use crate::server::Shared;
use error::TwirpError;
pub use stats::{CallKind, CallStats};
use wire::Call;

/// What the names of all services begin with.
const PACKAGE: &str = "livekit.";

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
    let begun = Instant::now();
    let result = match Call::read(request, &caller).await {
        Ok(Ok(call)) => match service.as_str() {
            room_service::NAME => {
                let call = call.unframe(&caller, &method);
                room_service::serve(&shared, &caller, &method, call).await
            }
            agent_dispatch::NAME => agent_dispatch::serve(&shared, &caller, &method, call).await,
            _ => unavailable::serve(&caller, &service, &method, &call)
                .unwrap_or_else(|| Err(TwirpError::no_route(&service, &method))),
        },
        Ok(Err(error)) => Err(error),
        // The body is too large or broke off: not a Twirp answer.
        Err(status) => return status.into_response(),
    };
    let code = result.as_ref().err().map_or("", TwirpError::code);
    let response = result.unwrap_or_else(IntoResponse::into_response);
    if let Some((service, method)) = known(&service, &method) {
        let kind = CallKind { service, method, status: stats::family(response.status()) };
        shared.stats().calls.count(kind, code, begun.elapsed());
    }
    response
}

/// The names of a method that exists: its service's without the package, and its own.
fn known(service: &str, method: &str) -> Option<(&'static str, &'static str)> {
    let (name, methods) = match service {
        room_service::NAME => (room_service::NAME, &room_service::METHODS[..]),
        agent_dispatch::NAME => (agent_dispatch::NAME, &agent_dispatch::METHODS[..]),
        _ => return unavailable::known(service, method),
    };
    let method = methods.iter().find(|known| **known == method)?;
    Some((name.strip_prefix(PACKAGE).unwrap_or(name), method))
}
