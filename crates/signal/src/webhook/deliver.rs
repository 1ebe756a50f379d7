//! One event to one receiver: signs the body, posts it, repeats what may succeed later.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use sha2::{Digest, Sha256};
use sluice_proto::{WebhookEvent, json};

use super::{WebhookConfig, WebhookError, WebhookStats};
use crate::server::unix_time;
use crate::token::{ApiKeys, Claims, mint};

/// Its own type, so that no framework parses the body before the signature was checked.
const CONTENT: &str = "application/webhook+json";

/// Receivers' firewalls know senders by this.
const AGENT: &str = "LiveKit";

/// How long a signature is good for.
const TOKEN_TTL: Duration = Duration::from_secs(5 * 60);

/// A receiver that has not answered by then failed this attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Repetitions after the first attempt.
const MAX_RETRIES: u32 = 4;

/// Redirects followed per attempt.
const MAX_REDIRECTS: usize = 5;

/// Why an event did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error("the receiver answered {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Connection(String),
    #[error("cannot write the event: {0}")]
    Encode(String),
}

/// Whether the URL names something that can be posted to.
pub(super) fn is_callable(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// See the module documentation.
pub(super) struct Sender {
    client: Client,
    keys: ApiKeys,
    retry_min: Duration,
    retry_max: Duration,
    stats: Arc<WebhookStats>,
}

impl Sender {
    pub(super) fn new(
        config: &WebhookConfig,
        keys: ApiKeys,
        stats: Arc<WebhookStats>,
    ) -> Result<Self, WebhookError> {
        let client = Client::builder()
            .use_preconfigured_tls(tls().map_err(WebhookError::Client)?)
            .timeout(ATTEMPT_TIMEOUT)
            .redirect(Policy::limited(MAX_REDIRECTS))
            .build()
            .map_err(|error| WebhookError::Client(error.to_string()))?;
        let (retry_min, retry_max) = (config.retry_min, config.retry_max);
        Ok(Self { client, keys, retry_min, retry_max, stats })
    }

    /// Posts until the receiver takes the event, refuses it, or the attempts are used up.
    pub(super) async fn send(
        &self,
        url: &str,
        api_key: &str,
        event: &WebhookEvent,
    ) -> Result<(), DeliveryError> {
        let body =
            json::to_camel(event).map_err(|error| DeliveryError::Encode(error.to_string()))?;
        let claims = Claims { sha256: BASE64.encode(Sha256::digest(&body)), ..Claims::default() };
        let mut attempt = 0;
        loop {
            let token = mint(&self.keys, api_key, &claims, TOKEN_TTL, unix_time())
                .map_err(|error| DeliveryError::Encode(error.to_string()))?;
            let request = self
                .client
                .post(url)
                .header(AUTHORIZATION, token)
                .header(CONTENT_TYPE, CONTENT)
                .header(USER_AGENT, AGENT)
                .body(body.clone());
            let (error, wanted_pause) = match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => {
                    let error = DeliveryError::Status(answer.status());
                    if !may_succeed_later(answer.status()) {
                        return Err(error);
                    }
                    (error, retry_after(&answer))
                }
                // The URL stays out of it: it may hold a password.
                Err(error) => (DeliveryError::Connection(error.without_url().to_string()), None),
            };
            if attempt == MAX_RETRIES {
                return Err(error);
            }
            let pause = wanted_pause.unwrap_or(self.retry_min * 2u32.pow(attempt));
            tokio::time::sleep(pause.min(self.retry_max)).await;
            attempt += 1;
            self.stats.retried.add();
        }
    }
}

/// TLS 1.2 and 1.3 with the roots that the system trusts; `SSL_CERT_FILE` names others.
fn tls() -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn may_succeed_later(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// Seconds, if the receiver says so.
fn retry_after(answer: &reqwest::Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_by_itself_is_repeated() {
        for (status, repeated) in
            [(429, true), (500, true), (503, true), (501, false), (404, false)]
        {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(may_succeed_later(status), repeated, "{status}");
        }
    }

    #[test]
    fn only_http_urls_can_be_called() {
        assert!(is_callable("http://127.0.0.1:8080/hook?a=b") && is_callable("https://x.test"));
        assert!(!is_callable("ftp://x.test/") && !is_callable("x.test/hook") && !is_callable(""));
    }
}
