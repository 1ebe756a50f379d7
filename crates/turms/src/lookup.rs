//! Facts about one user and one group, for token requests: fresh enough or asked for now. When
//! Turms cannot be asked there is no answer, and so no token.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{Directory, GroupRecord, Priority, TurmsResult};
use crate::cache::Cache;
use crate::config::TurmsConfig;
use crate::ids::{GroupId, UserId};
use crate::policy::{GroupCase, MemberFacts, UnixMillis, UserFacts};
use crate::stats::TurmsStats;

/// How long the types of groups count: operators change them rarely.
const TYPES_TTL: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Lookup {
    directory: Arc<dyn Directory>,
    check_users: bool,
    check_relationships: bool,
    guests_matter: bool,
    ttl: crate::config::CacheConfig,
    groups: Cache<GroupId, Option<GroupRecord>>,
    members: Cache<(GroupId, UserId), Option<MemberFacts>>,
    group_blocks: Cache<(GroupId, UserId), bool>,
    blocks: Cache<UserId, Option<UnixMillis>>,
    accounts: Cache<UserId, Option<bool>>,
    /// Whether the first has blocked the second.
    relationships: Cache<(UserId, UserId), bool>,
    types: Cache<(), Arc<HashSet<i64>>>,
}

impl Lookup {
    pub(crate) fn new(
        directory: Arc<dyn Directory>,
        config: &TurmsConfig,
        stats: &Arc<TurmsStats>,
    ) -> Self {
        let max = config.cache.max_entries;
        Self {
            directory,
            check_users: config.admin.check_users,
            check_relationships: config.admin.check_relationships,
            guests_matter: config.policy.guests_may_publish,
            ttl: config.cache.clone(),
            groups: Cache::new(max, stats.clone()),
            members: Cache::new(max, stats.clone()),
            group_blocks: Cache::new(max, stats.clone()),
            blocks: Cache::new(max, stats.clone()),
            accounts: Cache::new(max, stats.clone()),
            relationships: Cache::new(max, stats.clone()),
            types: Cache::new(1, stats.clone()),
        }
    }

    /// Everything that the policy for a group's room asks.
    pub(crate) async fn group_case(&self, group: GroupId, user: UserId) -> TurmsResult<GroupCase> {
        let (group, member, group_blocked, user) = tokio::try_join!(
            self.group(group),
            self.member(group, user),
            self.group_block(group, user),
            self.user(user, None),
        )?;
        let group = match group {
            Some(record) => {
                let kind = record.type_id;
                let speakable = self.guests_matter
                    && kind.is_some()
                    && self.speakable_types().await?.contains(&kind.unwrap_or_default());
                Some(record.facts(speakable))
            }
            None => None,
        };
        Ok(GroupCase { user, group, member, group_blocked })
    }

    /// What is known of an account apart from groups, in a room with `other` where it is of two.
    pub(crate) async fn user(&self, user: UserId, other: Option<UserId>) -> TurmsResult<UserFacts> {
        let blocked_by_other = async {
            match other {
                Some(other) => self.relationship_block(other, user).await,
                None => Ok(false),
            }
        };
        let (blocked_until, active, blocked_by_other) =
            tokio::try_join!(self.block(user), self.account(user), blocked_by_other)?;
        Ok(UserFacts { active, blocked_until, blocked_by_other })
    }

    /// Types of groups in which guests may speak.
    pub(crate) async fn speakable_types(&self) -> TurmsResult<Arc<HashSet<i64>>> {
        let ask = async || self.directory.speakable_types(Priority::Urgent).await.map(Arc::new);
        self.types.get((), |_| TYPES_TTL, ask).await
    }

    /// A notice says that something about a group changed.
    pub(crate) fn forget_group(&self, group: GroupId) {
        self.groups.forget(|key| *key == group);
        self.members.forget(|(key, _)| *key == group);
        self.group_blocks.forget(|(key, _)| *key == group);
    }

    /// A notice says that something about a user changed.
    pub(crate) fn forget_user(&self, user: UserId) {
        self.blocks.forget(|key| *key == user);
        self.accounts.forget(|key| *key == user);
        self.members.forget(|(_, key)| *key == user);
        self.group_blocks.forget(|(_, key)| *key == user);
        self.relationships.forget(|(owner, other)| *owner == user || *other == user);
    }

    /// A notice says that something changed, not what.
    pub(crate) fn forget_all(&self) {
        self.groups.forget(|_| true);
        self.members.forget(|_| true);
        self.group_blocks.forget(|_| true);
        self.blocks.forget(|_| true);
        self.accounts.forget(|_| true);
        self.relationships.forget(|_| true);
    }

    /// Entries of all caches.
    pub(crate) fn entries(&self) -> usize {
        self.groups.len()
            + self.members.len()
            + self.group_blocks.len()
            + self.blocks.len()
            + self.accounts.len()
            + self.relationships.len()
    }

    async fn group(&self, group: GroupId) -> TurmsResult<Option<GroupRecord>> {
        let ttl = |found: &Option<_>| self.or_negative(found.is_some(), self.ttl.group_ttl);
        let ask = async || {
            let records = self.directory.groups(&[group], Priority::Urgent).await?;
            Ok(records.into_iter().find(|record| record.id == group.get()))
        };
        self.groups.get(group, ttl, ask).await
    }

    async fn member(&self, group: GroupId, user: UserId) -> TurmsResult<Option<MemberFacts>> {
        let ttl = |found: &Option<_>| self.or_negative(found.is_some(), self.ttl.membership_ttl);
        let ask = async || {
            let records = self.directory.members(&[group], &[user], Priority::Urgent).await?;
            let own = records.iter().find(|record| record.key.ids() == Some((group, user)));
            Ok(own.map(crate::admin::MemberRecord::facts))
        };
        self.members.get((group, user), ttl, ask).await
    }

    async fn group_block(&self, group: GroupId, user: UserId) -> TurmsResult<bool> {
        let ttl = |_: &bool| self.ttl.block_ttl;
        let ask = async || {
            let records = self.directory.group_blocks(&[group], &[user], Priority::Urgent).await?;
            Ok(records.iter().any(|record| record.key.ids() == Some((group, user))))
        };
        self.group_blocks.get((group, user), ttl, ask).await
    }

    async fn block(&self, user: UserId) -> TurmsResult<Option<UnixMillis>> {
        let ttl = |_: &Option<_>| self.ttl.block_ttl;
        let ask = async || {
            let records = self.directory.blocked_users(&[user], Priority::Urgent).await?;
            let own = records.iter().find(|record| record.id == user.get());
            Ok(own.map(crate::admin::BlockedUserRecord::until))
        };
        self.blocks.get(user, ttl, ask).await
    }

    /// `None` where Turms has no record of the user: it stores none in most login types.
    async fn account(&self, user: UserId) -> TurmsResult<Option<bool>> {
        if !self.check_users {
            return Ok(None);
        }
        let ttl = |_: &Option<_>| self.ttl.block_ttl;
        let ask = async || {
            let records = self.directory.users(&[user], Priority::Urgent).await?;
            let own = records.iter().find(|record| record.id == user.get());
            Ok(own.map(crate::admin::UserRecord::is_usable))
        };
        self.accounts.get(user, ttl, ask).await
    }

    async fn relationship_block(&self, owner: UserId, other: UserId) -> TurmsResult<bool> {
        if !self.check_relationships {
            return Ok(false);
        }
        let ttl = |_: &bool| self.ttl.block_ttl;
        let ask = async || {
            let users = [owner, other];
            let records = self.directory.relationship_blocks(&users, Priority::Urgent).await?;
            Ok(records.iter().any(|record| record.blocks(owner, other)))
        };
        self.relationships.get((owner, other), ttl, ask).await
    }

    fn or_negative(&self, found: bool, ttl: Duration) -> Duration {
        if found { ttl } else { self.ttl.negative_ttl.min(ttl) }
    }
}
