//! The HTTP client of the admin API.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::budget::{Breaker, Budget};
use super::records::{Envelope, PageData};
use super::{
    BlockedUserRecord, Directory, GroupBlockRecord, GroupRecord, GroupTypeRecord, MemberRecord,
    Page, Posted, Priority, SystemMessage, TurmsError, TurmsResult, UserRecord, id_list,
};
use crate::config::AdminConfig;
use crate::ids::{GroupId, UserId};
use crate::stats::TurmsStats;

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
    stats: Arc<TurmsStats>,
}

struct Answer {
    status: StatusCode,
    body: Bytes,
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
            budget: Budget::new(config.max_rps, config.max_in_flight),
            breaker: Breaker::default(),
            config,
            stats,
        })
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        priority: Priority,
    ) -> TurmsResult<Option<T>> {
        let answer = match self.send(Method::GET, path_and_query, None, priority).await {
            // Somebody waits: once more, after the pause that the budget makes.
            Err(TurmsError::RateLimited) if priority == Priority::Urgent => {
                self.send(Method::GET, path_and_query, None, priority).await?
            }
            other => other?,
        };
        if answer.status == StatusCode::NO_CONTENT || answer.body.is_empty() {
            return Ok(None);
        }
        match serde_json::from_slice::<Envelope<T>>(&answer.body) {
            Ok(Envelope { code: CODE_OK, data }) => Ok(data),
            Ok(Envelope { code: CODE_NO_CONTENT, .. }) => Ok(None),
            Ok(_) | Err(_) => Err(self.failed("an answer that is none of the admin API")),
        }
    }

    async fn list<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        priority: Priority,
    ) -> TurmsResult<Vec<T>> {
        Ok(self.get(path_and_query, priority).await?.unwrap_or_default())
    }

    async fn page<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        priority: Priority,
    ) -> TurmsResult<Page<T>> {
        let data: Option<PageData<T>> = self.get(path_and_query, priority).await?;
        let page = data.map(|data| Page { total: Some(data.total), records: data.records });
        Ok(page.unwrap_or_else(Page::empty))
    }

    /// One exchange; statuses that say that nothing is wrong come back as an answer.
    async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<String>,
        priority: Priority,
    ) -> TurmsResult<Answer> {
        if let Err(retry_after) = self.breaker.check() {
            self.stats.admin_breaker_refusals.add();
            return Err(TurmsError::Unreachable { retry_after });
        }
        let _turn = self.budget.acquire(priority).await;
        self.stats.admin_requests.add();
        let answer = match self.exchange(method, path_and_query, body).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.failed(&error)),
        };
        match answer.status.as_u16() {
            200..=299 | 409 => {
                self.breaker.succeeded();
                Ok(answer)
            }
            401 | 403 => {
                self.breaker.succeeded();
                self.stats.admin_unauthorized.add();
                tracing::error!("{}", TurmsError::Unauthorized);
                Err(TurmsError::Unauthorized)
            }
            429 => {
                self.breaker.succeeded();
                self.stats.admin_rate_limited.add();
                self.budget.pause();
                Err(TurmsError::RateLimited)
            }
            status @ 400..=499 => {
                self.breaker.succeeded();
                self.stats.admin_failures.add();
                let path = path_and_query.split('?').next().unwrap_or_default();
                tracing::error!(status, path, "Turms calls a request wrong");
                Err(TurmsError::Refused(status))
            }
            status => Err(self.failed(&format!("status {status}"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<String>,
    ) -> Result<Answer, String> {
        let url = format!("{}{path_and_query}", self.base);
        let mut request = self
            .http
            .request(method, url)
            .basic_auth(&self.config.login, Some(self.config.password.text()));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| crate::web::describe(&error))?;
        let status = response.status();
        let body = crate::web::read_body(response, MAX_ANSWER).await?;
        Ok(Answer { status, body })
    }

    fn failed(&self, what: &str) -> TurmsError {
        self.stats.admin_failures.add();
        self.breaker.failed();
        tracing::warn!(what, "no usable answer of Turms' admin API");
        TurmsError::Unreachable { retry_after: RETRY_AFTER }
    }

    fn size(&self) -> String {
        format!("size={}", self.config.page_size)
    }
}

/// Ids of groups and users as query parameters. Nothing in it needs an escape, which Turms' parser
/// would refuse.
fn group_user_query(groups: &[GroupId], users: &[UserId]) -> String {
    let mut query = format!("groupIds={}", id_list(groups));
    if !users.is_empty() {
        query.push_str(&format!("&userIds={}", id_list(users)));
    }
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
        async move {
            let query = format!("/groups?ids={}&{}", id_list(ids), self.size());
            self.list(&query, priority).await
        }
        .boxed()
    }

    fn members<'a>(
        &'a self,
        groups: &'a [GroupId],
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<MemberRecord>>> {
        async move {
            let query = group_user_query(groups, users);
            self.list(&format!("/groups/members?{query}&{}", self.size()), priority).await
        }
        .boxed()
    }

    fn count_members<'a>(
        &'a self,
        group: GroupId,
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<u64>> {
        async move {
            let query = format!("/groups/members/page?groupIds={group}&page=0&size=1");
            let page: Page<MemberRecord> = self.page(&query, priority).await?;
            Ok(page.total.unwrap_or_default())
        }
        .boxed()
    }

    fn count_groups(&self, priority: Priority) -> BoxFuture<'_, TurmsResult<u64>> {
        async move {
            let page: Page<GroupRecord> = self.page("/groups/page?page=0&size=1", priority).await?;
            Ok(page.total.unwrap_or_default())
        }
        .boxed()
    }

    fn group_blocks<'a>(
        &'a self,
        groups: &'a [GroupId],
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<GroupBlockRecord>>> {
        async move {
            let query = group_user_query(groups, users);
            self.list(&format!("/groups/blocked-users?{query}&{}", self.size()), priority).await
        }
        .boxed()
    }

    fn blocked_users<'a>(
        &'a self,
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<BlockedUserRecord>>> {
        async move {
            self.list(&format!("/blocked-clients/users?ids={}", id_list(users)), priority).await
        }
        .boxed()
    }

    fn blocked_users_page(
        &self,
        page: u32,
        priority: Priority,
    ) -> BoxFuture<'_, TurmsResult<Page<BlockedUserRecord>>> {
        async move {
            let query = format!("/blocked-clients/users/page?page={page}&{}", self.size());
            self.page(&query, priority).await
        }
        .boxed()
    }

    fn users<'a>(
        &'a self,
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<UserRecord>>> {
        async move {
            self.list(&format!("/users?ids={}&{}", id_list(users), self.size()), priority).await
        }
        .boxed()
    }

    fn speakable_types(&self, priority: Priority) -> BoxFuture<'_, TurmsResult<HashSet<i64>>> {
        async move {
            let types: Vec<GroupTypeRecord> =
                self.list(&format!("/groups/types?{}", self.size()), priority).await?;
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
            let path = "/messages?send=true";
            let answer = self.send(Method::POST, path, Some(body), Priority::Poll).await?;
            if answer.status != StatusCode::CONFLICT {
                return Ok(Posted::Stored);
            }
            // A conflict is success only when it is about our own id.
            match serde_json::from_slice::<Envelope<serde_json::Value>>(&answer.body) {
                Ok(Envelope { code: CODE_DUPLICATE, .. }) => Ok(Posted::Duplicate),
                _ => Err(TurmsError::Refused(409)),
            }
        }
        .boxed()
    }
}
