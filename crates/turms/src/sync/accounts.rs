//! What Turms says of users apart from groups: the global block list, and, for rooms that depend on
//! no group, whose account is inactive and which of two users has blocked the other one.

use std::collections::{HashMap, HashSet};

use super::poll::Asker;
use crate::adapter::Subject;
use crate::admin::{MAX_ID_LIST, TurmsResult, id_chunks};
use crate::ids::UserId;
use crate::policy::{UnixMillis, UserFacts};

/// Pages of the global block list that are read whole; a longer list is asked about by user.
const MAX_BLOCK_PAGES: u64 = 10;

/// Whom to ask about.
#[derive(Debug, Default)]
pub(super) struct Persons {
    /// Those in any room.
    pub(super) present: HashSet<UserId>,
    /// Those in rooms that depend on no group.
    pub(super) apart: HashSet<UserId>,
    /// Those in private rooms.
    pub(super) pairs: HashSet<(UserId, UserId)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Until when.
    blocked: HashMap<UserId, UnixMillis>,
    inactive: HashSet<UserId>,
    /// Who has blocked whom.
    shunned: HashSet<(UserId, UserId)>,
}

impl Accounts {
    /// The facts about a user in a room.
    pub(super) fn facts(&self, subject: &Subject, user: UserId) -> UserFacts {
        let other = subject.other_than(user);
        UserFacts {
            active: self.inactive.contains(&user).then_some(false),
            blocked_until: self.blocked.get(&user).copied(),
            blocked_by_other: other.is_some_and(|other| self.shunned.contains(&(other, user))),
        }
    }

    /// Users of whom something else is said than before.
    pub(super) fn changed(&self, before: &Self) -> HashSet<UserId> {
        let blocks = |one: &Self, other: &Self| {
            let differ = one.blocked.iter().filter(|(user, t)| other.blocked.get(user) != Some(t));
            differ.map(|(user, _)| *user).collect::<Vec<_>>()
        };
        let inactive = self.inactive.symmetric_difference(&before.inactive).copied();
        let shunned = self.shunned.symmetric_difference(&before.shunned).map(|(_, user)| *user);
        let blocked = blocks(self, before).into_iter().chain(blocks(before, self));
        blocked.chain(inactive).chain(shunned).collect()
    }
}

impl Asker {
    /// Asks everything about users apart from groups.
    pub(super) async fn accounts_of(&self, persons: Persons) -> TurmsResult<Accounts> {
        let config = &self.adapter.config().admin;
        let mut accounts =
            Accounts { blocked: self.blocked(&persons.present).await?, ..Accounts::default() };
        if config.check_users {
            let users: Vec<UserId> = persons.apart.into_iter().collect();
            let active = self.are_active(&users).await?;
            accounts.inactive = active.into_iter().filter(|(_, a)| !a).map(|(u, _)| u).collect();
        }
        if config.check_relationships {
            accounts.shunned = self.shunned(persons.pairs).await?;
        }
        Ok(accounts)
    }

    /// The global block list, or, where it is very long, what it says of `users`.
    async fn blocked(&self, users: &HashSet<UserId>) -> TurmsResult<HashMap<UserId, UnixMillis>> {
        let (directory, priority) = (self.directory(), self.priority);
        let first = directory.blocked_users_page(0, priority).await?;
        let pages = first.total.unwrap_or_default().div_ceil(directory.page_size().max(1) as u64);
        let mut records = Vec::new();
        if pages <= MAX_BLOCK_PAGES {
            records = first.records;
            for page in 1..pages {
                let page = u32::try_from(page).unwrap_or(u32::MAX);
                records.extend(directory.blocked_users_page(page, priority).await?.records);
            }
        } else {
            let users: Vec<UserId> = users.iter().copied().collect();
            for chunk in id_chunks(&users, 0) {
                records.extend(directory.blocked_users(chunk, priority).await?);
            }
        }
        let ids = records.iter().filter_map(|r| Some((UserId::new(r.id).ok()?, r.until())));
        Ok(ids.collect())
    }

    /// Whether accounts are active, of those that Turms has records of.
    pub(super) async fn are_active(&self, users: &[UserId]) -> TurmsResult<HashMap<UserId, bool>> {
        let directory = self.directory();
        let mut active = HashMap::new();
        for page in users.chunks(directory.page_size().max(1)) {
            for chunk in id_chunks(page, 0) {
                let records = directory.users(chunk, self.priority).await?;
                let known = records.iter().filter_map(|r| Some((UserId::new(r.id).ok()?, r)));
                active.extend(known.map(|(user, record)| (user, record.is_usable())));
            }
        }
        Ok(active)
    }

    /// Who of these pairs has blocked whom.
    async fn shunned(
        &self,
        pairs: HashSet<(UserId, UserId)>,
    ) -> TurmsResult<HashSet<(UserId, UserId)>> {
        /// The ids stand in a request twice, and both of a pair in the same one.
        const MAX_PAIRS: usize = MAX_ID_LIST / 2 / (2 * "9223372036854775807,".len());
        let pairs: Vec<(UserId, UserId)> = pairs.into_iter().collect();
        let mut shunned = HashSet::new();
        for chunk in pairs.chunks(MAX_PAIRS) {
            let mut ask = vec![chunk];
            while let Some(pairs) = ask.pop() {
                let users: Vec<UserId> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
                let records = self.directory().relationship_blocks(&users, self.priority).await?;
                if records.len() >= self.directory().page_size() && pairs.len() > 1 {
                    // Some may be missing.
                    let (first, second) = pairs.split_at(pairs.len() / 2);
                    ask.extend([first, second]);
                    continue;
                }
                for (a, b) in pairs.iter().copied() {
                    for (owner, other) in [(a, b), (b, a)] {
                        if records.iter().any(|record| record.blocks(owner, other)) {
                            shunned.insert((owner, other));
                        }
                    }
                }
            }
        }
        Ok(shunned)
    }
}
