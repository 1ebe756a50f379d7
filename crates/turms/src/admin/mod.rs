//! Turms' admin API: what we ask it ([`Directory`]) and the client that asks ([`AdminClient`]).
//!
//! Its oddities are at home here: HTTP Basic, an envelope around data, 204 for "nothing", a query
//! parser that knows no percent escapes, and a rate limit per address.

mod budget;
mod client;
mod records;

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use budget::Priority;
pub use client::AdminClient;
pub use records::{
    BlockedUserRecord, GroupBlockRecord, GroupRecord, GroupTypeRecord, GroupUserKey, MemberRecord,
    Page, RelationshipRecord, SystemMessage, UserRecord,
};

use crate::ids::{GroupId, UserId};

/// Longest list of ids in one request, characters. Turms' HTTP server refuses request lines above
/// 4096 (Reactor Netty's default), and the rest of the line needs its part.
pub const MAX_ID_LIST: usize = 3_000;

/// Why Turms did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TurmsError {
    /// No connection, no answer in time, a server error, or nonsense.
    #[error("Turms cannot be reached; trying again in {} s", .retry_after.as_secs())]
    Unreachable {
        /// When asking again makes sense.
        retry_after: Duration,
    },
    /// Turms refuses our service account: `turms.admin.login`, its password or its permissions.
    #[error("Turms refuses the service account: check `turms.admin` and its permissions")]
    Unauthorized,
    /// Turms wants fewer requests.
    #[error("Turms limits the rate of requests")]
    RateLimited,
    /// Turms has a record of that id.
    #[error("Turms has a record of that id already")]
    Duplicate,
    /// Turms calls our request wrong.
    #[error("Turms refuses the request with status {0}")]
    Refused(u16),
}

impl TurmsError {
    /// When asking again makes sense.
    pub fn retry_after(self) -> Duration {
        match self {
            Self::Unreachable { retry_after } => retry_after,
            Self::Unauthorized | Self::Duplicate | Self::Refused(_) => Duration::from_secs(30),
            Self::RateLimited => Duration::from_secs(1),
        }
    }
}

/// Result of a request.
pub type TurmsResult<T> = Result<T, TurmsError>;

/// What became of a system message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// Turms has it now.
    Stored,
    /// Turms had it already.
    Duplicate,
}

/// What Turms knows. [`AdminClient`] is the one of production. Lists of ids must fit
/// [`MAX_ID_LIST`], see [`id_chunks`].
pub trait Directory: Send + Sync + 'static {
    /// Most records of one answer.
    fn page_size(&self) -> usize;
    /// Whether Turms did not answer lately, so that it is asked less.
    fn is_cut_off(&self) -> bool;
    /// `GET /groups`
    fn groups<'a>(
        &'a self,
        ids: &'a [GroupId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<GroupRecord>>>;
    /// `GET /groups/members`: memberships of any of `users` (empty = of everybody) in any of
    /// `groups`, at most a page.
    fn members<'a>(
        &'a self,
        groups: &'a [GroupId],
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<MemberRecord>>>;
    /// How many members a group has: `GET /groups/members/page`.
    fn count_members(&self, group: GroupId, priority: Priority) -> BoxFuture<'_, TurmsResult<u64>>;
    /// How many groups there are: `GET /groups/page`.
    fn count_groups(&self, priority: Priority) -> BoxFuture<'_, TurmsResult<u64>>;
    /// `GET /groups/blocked-users`, at most a page.
    fn group_blocks<'a>(
        &'a self,
        groups: &'a [GroupId],
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<GroupBlockRecord>>>;
    /// `GET /blocked-clients/users`
    fn blocked_users<'a>(
        &'a self,
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<BlockedUserRecord>>>;
    /// `GET /blocked-clients/users/page`
    fn blocked_users_page(
        &self,
        page: u32,
        priority: Priority,
    ) -> BoxFuture<'_, TurmsResult<Page<BlockedUserRecord>>>;
    /// `GET /users`
    fn users<'a>(
        &'a self,
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<UserRecord>>>;
    /// `GET /users/relationships`: who of `users` has blocked whom of them, at most a page.
    fn relationship_blocks<'a>(
        &'a self,
        users: &'a [UserId],
        priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<RelationshipRecord>>>;
    /// Types of groups in which guests may speak: `GET /groups/types`.
    fn speakable_types(&self, priority: Priority) -> BoxFuture<'_, TurmsResult<HashSet<i64>>>;
    /// `POST /messages?send=true`
    fn post_message<'a>(&'a self, message: &'a SystemMessage)
    -> BoxFuture<'a, TurmsResult<Posted>>;
}

/// Cuts a list of ids so that each part fits a request together with `taken` characters more.
pub fn id_chunks<T: ToString>(ids: &[T], taken: usize) -> Vec<&[T]> {
    let room = MAX_ID_LIST.saturating_sub(taken);
    let mut chunks = Vec::new();
    let (mut start, mut length) = (0, 0);
    for (at, id) in ids.iter().enumerate() {
        let own = id.to_string().len() + 1;
        if at > start && length + own > room {
            chunks.push(&ids[start..at]);
            (start, length) = (at, 0);
        }
        length += own;
    }
    if start < ids.len() {
        chunks.push(&ids[start..]);
    }
    chunks
}

/// `1,2,3`
pub(crate) fn id_list<T: ToString>(ids: &[T]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_lists_are_cut_to_fit_a_request_line() {
        let ids: Vec<UserId> = (0..500).map(|n| UserId::new(i64::MAX - n).unwrap()).collect();
        let chunks = id_chunks(&ids, 0);
        assert!(chunks.iter().all(|chunk| id_list(chunk).len() <= MAX_ID_LIST));
        assert_eq!(chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), ids.len());
        assert_eq!(chunks.len(), 4);
        assert!(id_chunks::<UserId>(&[], 0).is_empty());
        assert_eq!(id_chunks(&ids[..1], MAX_ID_LIST).len(), 1, "one always fits");
    }
}
