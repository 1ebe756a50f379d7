//! Who calls: the access token of a request, from the header or the query, verified before any
//! handler runs. A request without a token goes on; what it may do is each handler's decision.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::HttpError;
use crate::rtc::Query;
use crate::server::{Shared, unix_time};
use crate::token::{Claims, VerifiedToken, verify};

const BEARER: &str = "Bearer ";

/// The caller of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller(Option<Arc<VerifiedToken>>);

impl Caller {
    /// The verified token, if the request had one.
    pub(crate) fn token(&self) -> Option<&VerifiedToken> {
        self.0.as_deref()
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
    Ok(Caller(Some(Arc::new(verify(token, shared.keys(), unix_time())?))))
}
