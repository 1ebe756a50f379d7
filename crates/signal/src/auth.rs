//! Who calls: the access token of a request, from the header or the query, verified before any
//! handler runs. A request without a token goes on; what it may do is each handler's decision.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::HttpError;
use crate::gate::Gate;
use crate::rtc::Query;
use crate::server::{Shared, unix_time};
use crate::token::{Claims, VerifiedToken, verify};

const BEARER: &str = "Bearer ";

/// The caller of a request.
#[derive(Clone, Default)]
pub(crate) struct Caller {
    token: Option<Arc<VerifiedToken>>,
    gate: Option<Arc<dyn Gate>>,
}

impl Caller {
    /// The verified token, if the request had one.
    pub(crate) fn token(&self) -> Option<&VerifiedToken> {
        self.token.as_deref()
    }

    /// What stands between this caller and the rooms, and the caller's token.
    pub(crate) fn gate(&self) -> Option<(&dyn Gate, &VerifiedToken)> {
        self.gate.as_deref().zip(self.token())
    }

    /// What the token grants.
    pub(crate) fn claims(&self) -> Option<&Claims> {
        self.token().map(|token| &token.claims)
    }
}

/// Middleware: puts a [`Caller`] into the request, or refuses a bad token.
pub(crate) async fn authenticate<H: Clone>(
    State(shared): State<Shared<H>>,
    mut request: Request,
    next: Next,
) -> Response {
    match caller(&shared, request.headers(), request.uri().query()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            shared.stats().tokens_refused.add();
            tracing::debug!(text = error.text, "token refused");
            error.into_response()
        }
    }
}

fn caller<H>(
    shared: &Shared<H>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Caller, HttpError> {
    let query = Query::parse(query);
    let token = match headers.get(AUTHORIZATION) {
        Some(header) => {
            let header = header.to_str().unwrap_or_default();
            header.strip_prefix(BEARER).ok_or_else(|| {
                let text = "invalid authorization header. Must start with Bearer ";
                HttpError::unauthorized(text)
            })?
        }
        None => query.text("access_token"),
    };
    if token.is_empty() {
        return Ok(Caller::default());
    }
    let token = verify(token, shared.keys(), unix_time())?;
    Ok(Caller { token: Some(Arc::new(token)), gate: shared.gate().cloned() })
}
