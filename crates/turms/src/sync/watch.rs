//! One room that follows Turms: what was last heard, what was last done, and what an answer means.

use std::collections::HashMap;

use tokio::time::Instant;

use super::poll::Answer;
use crate::adapter::{Adapter, Standing, Subject};
use crate::ids::{Target, UserId};
use crate::policy::{Decision, DenyReason, GroupCase, UserFacts};

/// A participant who is a Turms user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) identity: String,
    pub(super) user: UserId,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) target: Target,
    /// When to look again.
    pub(super) due: Instant,
    /// Somebody waits for the next look.
    pub(super) urgent: bool,
    /// A look is under way.
    pub(super) polling: bool,
    /// Something changed while a look was under way: its answer may be too old.
    pub(super) again: bool,
    /// When Turms last answered.
    pub(super) answered: Instant,
    pub(super) answer: Option<Answer>,
    /// The last answer would have removed many: look twice.
    pub(super) suspect: bool,
    /// The last answer had no such group.
    pub(super) missing: bool,
    /// A notice says that the group was deleted.
    pub(super) told_deleted: bool,
    /// Facts are too old, and that has been dealt with.
    pub(super) stale: bool,
    /// When a mute ends.
    pub(super) wake: Option<Instant>,
    /// What each participant was last given.
    pub(super) applied: HashMap<String, Standing>,
    /// Members of the group, as far as known.
    pub(super) estimate: usize,
}

impl Watch {
    pub(super) fn new(target: Target, now: Instant) -> Self {
        Self {
            target,
            due: now,
            urgent: false,
            polling: false,
            again: false,
            answered: now,
            answer: None,
            suspect: false,
            missing: false,
            told_deleted: false,
            stale: false,
            wake: None,
            applied: HashMap::new(),
            estimate: 0,
        }
    }

    /// Whether a user is known to be there.
    pub(super) fn has(&self, user: UserId) -> bool {
        let mut identities = self.applied.keys();
        identities.any(|identity| crate::ids::user_of_identity(identity) == Some(user))
    }

    /// Look at once, and again if a look is under way.
    pub(super) fn look_now(&mut self, now: Instant) {
        self.due = now;
        self.urgent = true;
        self.again = self.polling;
    }
}

/// The verdict over one participant; `None` = the answer does not speak of them.
pub(super) fn verdict(
    adapter: &Adapter,
    subject: &Subject,
    answer: &Answer,
    account: UserFacts,
    user: UserId,
) -> Option<(Decision, Option<crate::policy::Role>)> {
    let account =
        UserFacts { active: answer.accounts.get(&user).copied().or(account.active), ..account };
    if subject.group().is_none() {
        return Some(adapter.decide(subject, user, None, &account));
    }
    if !answer.asked.contains(&user) {
        return None;
    }
    let case = GroupCase {
        user: account,
        group: answer.group,
        member: answer.members.get(&user).copied(),
        group_blocked: answer.blocked.contains(&user),
    };
    Some(adapter.decide(subject, user, Some(&case), &account))
}

/// What to make of an answer before anything is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belief {
    /// Act on it.
    Believe,
    /// Look again at once, counting the members.
    LookTwice,
    /// It contradicts itself, or too many groups vanish: act on nothing, and let facts get old.
    Disbelieve,
}

/// What else speaks for or against a group's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Signs {
    /// The answer before this one was suspicious, too.
    pub(super) suspect: bool,
    /// A signed notice says that the group was deleted.
    pub(super) told_deleted: bool,
    /// Many groups vanish at once.
    pub(super) many_vanish: bool,
}

/// Guards against an answer that would empty a room by mistake.
pub(super) fn believe(
    answer: &Answer,
    signs: Signs,
    verdicts: &[Option<Decision>],
    guard_percent: u32,
) -> Belief {
    let Signs { suspect, told_deleted, many_vanish } = signs;
    let Some(group) = answer.group else {
        // A Turms that knows no group at all has lost its data.
        let has_groups = answer.total.is_some_and(|total| total > 0);
        return match (suspect, told_deleted || (has_groups && !many_vanish)) {
            (false, _) => Belief::LookTwice,
            (true, true) => Belief::Believe,
            (true, false) => Belief::Disbelieve,
        };
    };
    if !group.active || group.deleted {
        // Turms says so in as many words.
        return Belief::Believe;
    }
    let known = verdicts.iter().flatten().count();
    let out = Decision::Deny(DenyReason::NotMember);
    let leaving = verdicts.iter().flatten().filter(|verdict| **verdict == out).count();
    let nobody = leaving > 0 && answer.seen_members == 0;
    let many = leaving >= 2 && leaving * 100 >= known * guard_percent as usize;
    match (nobody || many, suspect, answer.total) {
        (false, _, _) => Belief::Believe,
        (true, false, _) => Belief::LookTwice,
        // A group has at least its owner.
        (true, true, Some(0)) => Belief::Disbelieve,
        (true, true, _) => Belief::Believe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{GroupFacts, Rights};

    const OUT: Option<Decision> = Some(Decision::Deny(DenyReason::NotMember));
    const IN: Option<Decision> = Some(Decision::Allow(Rights {
        room_admin: false,
        can_publish: true,
        can_publish_data: true,
        muted_until: None,
    }));

    fn answer(seen_members: usize, total: Option<u64>) -> Answer {
        let group =
            GroupFacts { active: true, deleted: false, mute_end: None, guest_speakable: false };
        Answer { group: Some(group), seen_members, total, ..Answer::default() }
    }

    const FIRST: Signs = Signs { suspect: false, told_deleted: false, many_vanish: false };
    const SECOND: Signs = Signs { suspect: true, ..FIRST };

    #[test]
    fn one_who_leaves_a_living_group_is_believed_at_once() {
        assert_eq!(believe(&answer(1, None), FIRST, &[OUT, IN], 50), Belief::Believe);
    }

    #[test]
    fn a_group_that_empties_at_once_is_looked_at_twice() {
        assert_eq!(believe(&answer(0, None), FIRST, &[OUT], 50), Belief::LookTwice);
        assert_eq!(believe(&answer(0, Some(3)), SECOND, &[OUT], 50), Belief::Believe);
        assert_eq!(believe(&answer(0, Some(0)), SECOND, &[OUT], 50), Belief::Disbelieve);
    }

    #[test]
    fn many_removals_at_once_are_looked_at_twice() {
        let half = [OUT, OUT, IN, IN];
        assert_eq!(believe(&answer(2, None), FIRST, &half, 50), Belief::LookTwice);
        assert_eq!(believe(&answer(3, None), FIRST, &[OUT, IN, IN, IN], 50), Belief::Believe);
        assert_eq!(believe(&answer(2, Some(9)), SECOND, &half, 50), Belief::Believe);
    }

    #[test]
    fn a_group_that_is_not_there_must_be_missing_twice_from_a_turms_that_has_others() {
        let missing = |total| Answer { total, ..Answer::default() };
        assert_eq!(believe(&missing(None), FIRST, &[], 50), Belief::LookTwice);
        assert_eq!(believe(&missing(Some(9)), SECOND, &[], 50), Belief::Believe);
        assert_eq!(believe(&missing(Some(0)), SECOND, &[], 50), Belief::Disbelieve);
        let many = Signs { many_vanish: true, ..SECOND };
        assert_eq!(believe(&missing(Some(9)), many, &[], 50), Belief::Disbelieve);
        let told = Signs { told_deleted: true, ..SECOND };
        assert_eq!(believe(&missing(Some(0)), told, &[], 50), Belief::Believe);
    }
}
