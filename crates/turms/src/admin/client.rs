//! The HTTP client of the admin API.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::{Method, StatusCode};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::budget::{Breaker, Budget};
use super::records::{Envelope, PageData};
use super::{
    BlockedUserRecord, Directory, GroupBlockRecord, GroupRecord, GroupTypeRecord, MemberRecord,
    Page, Posted, Priority, RelationshipRecord, SystemMessage, TurmsError, TurmsResult, UserRecord,
    id_list,
};
use crate::config::AdminConfig;
use crate::ids::{GroupId, UserId};
use crate::stats::TurmsStats;
use crate::throttle::Seldom;

/// Largest answer looked at, bytes: a page of a thousand users with long names is far below.
const MAX_ANSWER: usize = 8 << 20;

/// Code in the envelope for success; "nothing there" is another one (`NO_CONTENT`).
const CODE_OK: i64 = 1000;
const CODE_NO_CONTENT: i64 = 1001;
/// Code of a message whose id exists (`RECORD_CONTAINS_DUPLICATE_KEY`).
const CODE_DUPLICATE: i64 = 1103;

/// When to ask again after a request failed.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct AdminClient {
    http: reqwest::Client,
    config: AdminConfig,
    base: String,
    budget: Budget,
    breaker: Breaker,
    unauthorized: Seldom,
    refused: Seldom,
    stats: Arc<TurmsStats>,
}

/// A request before it is sent.
struct Ask<'a> {
    method: Method,
    path_and_query: &'a str,
    body: Option<String>,
    priority: Priority,
}

impl AdminClient {
    /// A client for the configured API. Nothing is sent yet.
    ///
    /// # Errors
    /// The URL or the certificates are unusable; the text says which.
    pub fn new(config: AdminConfig, stats: Arc<TurmsStats>) -> Result<Self, String> {
        let url: url::Url =
            config.url.parse().map_err(|error| format!("`turms.admin.url`: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("`turms.admin.url` must be `http://host:port` or `https://…`".into());
        }
        let http = crate::web::client(config.ca_pem.as_deref(), config.timeout)
            .map_err(|error| format!("`turms.admin.ca_file`: {error}"))?;
        Ok(Self {
            http,
            base: config.url.trim_end_matches('/').to_owned(),
            budget: Budget::new(config.max_rps, config.max_in_flight, config.max_waiting),
            breaker: Breaker::default(),
            unauthorized: Seldom::default(),
            refused: Seldom::default(),
            config,
            stats,
        })
    }

    /// Asks, and once more where somebody waits and Turms wants fewer requests.
    async fn ask<T: DeserializeOwned>(&self, ask: Ask<'_>) -> TurmsResult<Option<T>> {
        match self.ask_once(&ask).await {
            // After the pause that the budget makes.
            Err(TurmsError::RateLimited) if ask.priority == Priority::Urgent => {
                self.ask_once(&ask).await
            }
            other => other,
        }
    }

    /// One exchange, from the breaker to the data in the envelope; `None` = nothing there.
    async fn ask_once<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> TurmsResult<Option<T>> {
        let pass = self.breaker.pass().map_err(|retry_after| {
            self.stats.admin_breaker_refusals.add();
            TurmsError::Unreachable { retry_after }
        })?;
        let turn = self.budget.acquire(ask.priority).await;
        let _turn = turn.ok_or_else(|| {
            self.stats.admin_queue_refusals.add();
            TurmsError::RateLimited
        })?;
        self.stats.admin_requests.add();
        let read = match self.exchange(ask).await {
            Ok((status, body)) => self.read(ask, status, &body),
            Err(error) => Err(Unusable(error).into()),
        };
        match read {
            Err(Failure::Unusable(Unusable(what))) => {
                pass.failed();
                self.stats.admin_failures.add();
                tracing::warn!(what, "no usable answer of Turms' admin API");
                Err(TurmsError::Unreachable { retry_after: RETRY_AFTER })
            }
            Err(Failure::Turms(error)) => {
                pass.succeeded();
                Err(error)
            }
            Ok(data) => {
                pass.succeeded();
                Ok(data)
            }
        }
    }

    /// What an answer says.
    fn read<T: DeserializeOwned>(
        &self,
        ask: &Ask<'_>,
        status: StatusCode,
        body: &[u8],
    ) -> Result<Option<T>, Failure> {
        match status.as_u16() {
            204 => Ok(None),
            200..=299 if body.is_empty() => Ok(None),
            200..=299 => match serde_json::from_slice::<Envelope<T>>(body) {
                Ok(Envelope { code: CODE_OK, data }) => Ok(data),
                Ok(Envelope { code: CODE_NO_CONTENT, .. }) => Ok(None),
                Ok(_) | Err(_) => {
                    Err(Unusable("an answer that is none of the admin API".into()).into())
                }
            },
            401 | 403 => {
                self.stats.admin_unauthorized.add();
                if self.unauthorized.due() {
                    tracing::error!("{}", TurmsError::Unauthorized);
                }
                Err(TurmsError::Unauthorized.into())
            }
            // A conflict is about our own id, or it is a refusal.
            409 if duplicate(body) => Err(TurmsError::Duplicate.into()),
            429 => {
                self.stats.admin_rate_limited.add();
                self.budget.pause();
                Err(TurmsError::RateLimited.into())
            }
            status @ 400..=499 => {
                self.stats.admin_failures.add();
                let path = ask.path_and_query.split('?').next().unwrap_or_default();
                if self.refused.due() {
                    tracing::error!(status, path, "Turms calls a request wrong");
                }
                Err(TurmsError::Refused(status).into())
            }
            status => Err(Unusable(format!("status {status}")).into()),
        }
    }

    async fn exchange(&self, ask: &Ask<'_>) -> Result<(StatusCode, Bytes), String> {
        let url = format!("{}{}", self.base, ask.path_and_query);
        let mut request = self
            .http
            .request(ask.method.clone(), url)
            .basic_auth(&self.config.login, Some(self.config.password.text()));
        if let Some(body) = &ask.body {
            request = request.header("content-type", "application/json").body(body.clone());
        }
        let response = request.send().await.map_err(|error| crate::web::describe(&error))?;
        let status = response.status();
        Ok((status, crate::web::read_body(response, MAX_ANSWER).await?))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        priority: Priority,
    ) -> TurmsResult<Option<T>> {
        self.ask(Ask { method: Method::GET, path_and_query, body: None, priority }).await
    }

    /// A list, at most a page of it.
    fn list<T: DeserializeOwned + Send>(
        &self,
        query: String,
        priority: Priority,
    ) -> BoxFuture<'_, TurmsResult<Vec<T>>> {
        async move {
            let path_and_query = format!("{query}size={}", self.config.page_size);
            Ok(self.get(&path_and_query, priority).await?.unwrap_or_default())
        }
        .boxed()
    }

    /// The first page of a `/page` endpoint, of which the total counts.
    fn count(&self, query: String, priority: Priority) -> BoxFuture<'_, TurmsResult<u64>> {
        async move {
            let page: Option<PageData<IgnoredAny>> =
                self.get(&format!("{query}page=0&size=1"), priority).await?;
            Ok(page.map(|page| page.total).unwrap_or_default())
        }
        .boxed()
    }
}

/// Why an exchange came to nothing: through Turms' word, or for want of one.
enum Failure {
    Turms(TurmsError),
    Unusable(Unusable),
}

struct Unusable(String);

impl From<TurmsError> for Failure {
    fn from(error: TurmsError) -> Self {
        Self::Turms(error)
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(unusable)
    }
}

fn duplicate(body: &[u8]) -> bool {
    matches!(
        serde_json::from_slice::<Envelope<IgnoredAny>>(body),
        Ok(Envelope { code: CODE_DUPLICATE, .. })
    )
}

/// Ids of groups and users as query parameters. Nothing in it needs an escape, which Turms' parser
/// would refuse.
fn group_user_query(groups: &[GroupId], users: &[UserId]) -> String {
    let mut query = format!("groupIds={}", id_list(groups));
    if !users.is_empty() {
        query.push_str(&format!("&userIds={}", id_list(users)));
    }
    query.push('&');
    query
}

impl Directory for AdminClient {
    fn page_size(&self) -> usize {
        self.config.page_size as usize
    }

    fn is_cut_off(&self) -> bool {
        self.breaker.is_open()
    }

    fn groups<'a>(
        &'a self,
        ids: &'a [GroupId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<GroupRecord>>> {
        self.list(format!("/groups?ids={}&", id_list(ids)), priority)
    }

    fn members<'a>(
        &'a self,
        groups: &'a [GroupId],
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<MemberRecord>>> {
        self.list(format!("/groups/members?{}", group_user_query(groups, users)), priority)
    }

    fn count_members(&self, group: GroupId, priority: Priority) -> BoxFuture<'_, TurmsResult<u64>> {
        self.count(format!("/groups/members/page?groupIds={group}&"), priority)
    }

    fn count_groups(&self, priority: Priority) -> BoxFuture<'_, TurmsResult<u64>> {
        self.count("/groups/page?".into(), priority)
    }

    fn group_blocks<'a>(
        &'a self,
        groups: &'a [GroupId],
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<GroupBlockRecord>>> {
        self.list(format!("/groups/blocked-users?{}", group_user_query(groups, users)), priority)
    }

    fn blocked_users<'a>(
        &'a self,
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<BlockedUserRecord>>> {
        // This endpoint knows no size: it answers about every id.
        let query = format!("/blocked-clients/users?ids={}", id_list(users));
        async move { Ok(self.get(&query, priority).await?.unwrap_or_default()) }.boxed()
    }

    fn blocked_users_page(
        &self,
        page: u32,
        priority: Priority,
    ) -> BoxFuture<'_, TurmsResult<Page<BlockedUserRecord>>> {
        let size = self.config.page_size;
        let query = format!("/blocked-clients/users/page?page={page}&size={size}");
        async move {
            let data: Option<PageData<_>> = self.get(&query, priority).await?;
            let page = data.map(|data| Page { total: Some(data.total), records: data.records });
            Ok(page.unwrap_or_else(Page::empty))
        }
        .boxed()
    }

    fn users<'a>(
        &'a self,
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<UserRecord>>> {
        self.list(format!("/users?ids={}&", id_list(users)), priority)
    }

    fn relationship_blocks<'a>(
        &'a self,
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<RelationshipRecord>>> {
        let ids = id_list(users);
        let filter = "isBlocked=true&withGroupIndexes=false";
        let query = format!("/users/relationships?ownerIds={ids}&relatedUserIds={ids}&{filter}&");
        self.list(query, priority)
    }

    fn speakable_types(&self, priority: Priority) -> BoxFuture<'_, TurmsResult<HashSet<i64>>> {
        async move {
            let types: Vec<GroupTypeRecord> = self.list("/groups/types?".into(), priority).await?;
            let speakable = types.iter().filter(|kind| kind.guest_speakable == Some(true));
            Ok(speakable.map(|kind| kind.id).collect())
        }
        .boxed()
    }

    fn post_message<'a>(
        &'a self,
        message: &'a SystemMessage,
    ) -> BoxFuture<'a, TurmsResult<Posted>> {
        async move {
            let body = serde_json::to_string(message).map_err(|_| TurmsError::Refused(0))?;
            let ask = Ask {
                method: Method::POST,
                path_and_query: "/messages?send=true",
                body: Some(body),
                priority: Priority::Poll,
            };
            match self.ask::<IgnoredAny>(ask).await {
                Ok(_) => Ok(Posted::Stored),
                Err(TurmsError::Duplicate) => Ok(Posted::Duplicate),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}
