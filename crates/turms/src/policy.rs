//! From what Turms says of a user and a group to what LiveKit lets that user do in the room.
//!
//! Pure functions over facts; the tables stand in `docs/turms.md`. Time is Unix milliseconds, as on
//! Turms' admin API. A mute counts only while `muteEndDate > now`.

use crate::ids::UserId;

/// Unix time in milliseconds.
pub type UnixMillis = i64;

/// `GroupMemberRole` of Turms' protocol, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `OWNER`
    Owner,
    /// `MANAGER`
    Manager,
    /// `MEMBER`
    Member,
    /// `GUEST`
    Guest,
    /// `ANONYMOUS_GUEST`
    AnonymousGuest,
}

impl Role {
    /// The role that the admin API names; `None` for a name this version does not know.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "OWNER" => Self::Owner,
            "MANAGER" => Self::Manager,
            "MEMBER" => Self::Member,
            "GUEST" => Self::Guest,
            "ANONYMOUS_GUEST" => Self::AnonymousGuest,
            _ => return None,
        })
    }

    /// The name that the admin API has for the role.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "OWNER",
            Self::Manager => "MANAGER",
            Self::Member => "MEMBER",
            Self::Guest => "GUEST",
            Self::AnonymousGuest => "ANONYMOUS_GUEST",
        }
    }

    /// Whether the role administrates the group and so the room.
    pub fn is_admin(self) -> bool {
        self <= Self::Manager
    }
}

/// What Turms says of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupFacts {
    /// `isActive`
    pub active: bool,
    /// Whether `deletionDate` is set.
    pub deleted: bool,
    /// `muteEndDate` of the whole group.
    pub mute_end: Option<UnixMillis>,
    /// `guestSpeakable` of the group's type.
    pub guest_speakable: bool,
}

/// What Turms says of a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberFacts {
    /// `role`
    pub role: Role,
    /// `muteEndDate` of the member.
    pub mute_end: Option<UnixMillis>,
}

/// What Turms says of an account apart from any group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserFacts {
    /// `isActive`; `None` where Turms stores no user records (login by JWT, HTTP or LDAP), which
    /// must not count as inactive.
    pub active: Option<bool>,
    /// `blockEndTime` of the global block list.
    pub blocked_until: Option<UnixMillis>,
    /// In a room of two: the other one has blocked this user.
    pub blocked_by_other: bool,
}

/// Choices of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Let guests publish where the group's type is `guestSpeakable`. Off by default.
    pub guests_may_publish: bool,
    /// Owners and managers may speak while the whole group is muted. On by default.
    pub admins_exempt_from_group_mute: bool,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { guests_may_publish: false, admins_exempt_from_group_mute: true }
    }
}

/// Why somebody may not be in the room; `reason` of the 403 answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// Not a member of the group, or not one of the two users.
    NotMember,
    /// In the group's block list or in the global one, or blocked by the other one of two.
    Blocked,
    /// The account is inactive.
    Inactive,
    /// The group is inactive or deleted.
    GroupGone,
    /// The token's policy statements do not allow meetings.
    Policy,
}

impl DenyReason {
    /// The word in JSON, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotMember => "not_member",
            Self::Blocked => "blocked",
            Self::Inactive => "inactive",
            Self::GroupGone => "group_gone",
            Self::Policy => "policy",
        }
    }
}

/// What a participant may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// LiveKit `roomAdmin`.
    pub room_admin: bool,
    /// LiveKit `canPublish`.
    pub can_publish: bool,
    /// LiveKit `canPublishData`.
    pub can_publish_data: bool,
    /// When a mute that takes away publishing ends by itself; a timer restores the rights then.
    pub muted_until: Option<UnixMillis>,
}

impl Rights {
    const FULL: Self =
        Self { room_admin: false, can_publish: true, can_publish_data: true, muted_until: None };
}

/// The verdict over one user and one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// May join with these rights (always including join and subscribe).
    Allow(Rights),
    /// May not be there; a live participant is removed.
    Deny(DenyReason),
}

fn still_running(end: Option<UnixMillis>, now: UnixMillis) -> Option<UnixMillis> {
    end.filter(|end| *end > now)
}

fn account(user: &UserFacts, now: UnixMillis) -> Option<DenyReason> {
    if still_running(user.blocked_until, now).is_some() || user.blocked_by_other {
        return Some(DenyReason::Blocked);
    }
    (user.active == Some(false)).then_some(DenyReason::Inactive)
}

/// Everything Turms says that matters for one user in one group's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCase {
    /// The account.
    pub user: UserFacts,
    /// The group; `None` when Turms knows no such group.
    pub group: Option<GroupFacts>,
    /// The membership; `None` when there is none.
    pub member: Option<MemberFacts>,
    /// Whether the user is in the group's block list.
    pub group_blocked: bool,
}

/// The verdict for a group's room.
pub fn decide_group(config: &PolicyConfig, case: &GroupCase, now: UnixMillis) -> Decision {
    if let Some(reason) = account(&case.user, now) {
        return Decision::Deny(reason);
    }
    let Some(group) = case.group.filter(|g| g.active && !g.deleted) else {
        return Decision::Deny(DenyReason::GroupGone);
    };
    if case.group_blocked {
        return Decision::Deny(DenyReason::Blocked);
    }
    let Some(member) = case.member else {
        return Decision::Deny(DenyReason::NotMember);
    };
    let admin = member.role.is_admin();
    if member.role >= Role::Guest && !(config.guests_may_publish && group.guest_speakable) {
        return Decision::Allow(Rights {
            can_publish: false,
            can_publish_data: false,
            ..Rights::FULL
        });
    }
    let group_mute = still_running(group.mute_end, now)
        .filter(|_| !(admin && config.admins_exempt_from_group_mute));
    let muted_until = still_running(member.mute_end, now).max(group_mute);
    Decision::Allow(Rights {
        room_admin: admin,
        can_publish: muted_until.is_none(),
        can_publish_data: muted_until.is_none(),
        muted_until,
    })
}

/// The verdict for the private room of two users.
pub fn decide_private(
    pair: (UserId, UserId),
    user_id: UserId,
    user: &UserFacts,
    now: UnixMillis,
) -> Decision {
    if let Some(reason) = account(user, now) {
        return Decision::Deny(reason);
    }
    if user_id != pair.0 && user_id != pair.1 {
        return Decision::Deny(DenyReason::NotMember);
    }
    Decision::Allow(Rights::FULL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMillis = 1_700_000_000_000;
    const LATER: UnixMillis = NOW + 60_000;

    fn case(role: Role) -> GroupCase {
        GroupCase {
            user: UserFacts::default(),
            group: Some(GroupFacts {
                active: true,
                deleted: false,
                mute_end: None,
                guest_speakable: false,
            }),
            member: Some(MemberFacts { role, mute_end: None }),
            group_blocked: false,
        }
    }

    fn decide(case: &GroupCase) -> Decision {
        decide_group(&PolicyConfig::default(), case, NOW)
    }

    fn rights(case: &GroupCase) -> Rights {
        match decide(case) {
            Decision::Allow(rights) => rights,
            Decision::Deny(reason) => panic!("denied: {reason:?}"),
        }
    }

    #[test]
    fn owners_and_managers_administrate_the_room() {
        assert!(rights(&case(Role::Owner)).room_admin);
        assert!(rights(&case(Role::Manager)).room_admin);
        assert!(!rights(&case(Role::Member)).room_admin);
    }

    #[test]
    fn a_muted_member_listens_until_the_mute_ends() {
        let mut muted = case(Role::Member);
        muted.member = Some(MemberFacts { role: Role::Member, mute_end: Some(LATER) });
        let rights_now = rights(&muted);
        assert!(!rights_now.can_publish && !rights_now.can_publish_data);
        assert_eq!(rights_now.muted_until, Some(LATER));
        assert_eq!(
            decide_group(&PolicyConfig::default(), &muted, LATER),
            Decision::Allow(Rights::FULL),
            "a mute that ends now is over"
        );
    }

    #[test]
    fn a_group_mute_spares_its_administrators() {
        for (role, may) in [(Role::Owner, true), (Role::Manager, true), (Role::Member, false)] {
            let mut muted = case(role);
            if let Some(group) = &mut muted.group {
                group.mute_end = Some(LATER);
            }
            assert_eq!(rights(&muted).can_publish, may, "{role:?}");
        }
    }

    #[test]
    fn the_longer_of_two_mutes_counts() {
        let mut muted = case(Role::Member);
        muted.member = Some(MemberFacts { role: Role::Member, mute_end: Some(LATER) });
        if let Some(group) = &mut muted.group {
            group.mute_end = Some(LATER + 5);
        }
        assert_eq!(rights(&muted).muted_until, Some(LATER + 5));
    }

    #[test]
    fn guests_listen_unless_both_the_operator_and_the_group_let_them_speak() {
        for role in [Role::Guest, Role::AnonymousGuest] {
            let mut guest = case(role);
            assert!(!rights(&guest).can_publish);
            let open = PolicyConfig { guests_may_publish: true, ..PolicyConfig::default() };
            assert!(
                matches!(decide_group(&open, &guest, NOW), Decision::Allow(r) if !r.can_publish)
            );
            if let Some(group) = &mut guest.group {
                group.guest_speakable = true;
            }
            assert!(!rights(&guest).can_publish);
            assert!(
                matches!(decide_group(&open, &guest, NOW), Decision::Allow(r) if r.can_publish)
            );
        }
    }

    #[test]
    fn missing_user_records_do_not_make_a_user_inactive() {
        let mut user = case(Role::Member);
        user.user.active = None;
        assert!(matches!(decide(&user), Decision::Allow(_)));
        user.user.active = Some(false);
        assert_eq!(decide(&user), Decision::Deny(DenyReason::Inactive));
    }

    #[test]
    fn only_the_pair_may_enter_a_private_room() {
        let ids = |n| UserId::new(n).unwrap();
        let pair = (ids(1), ids(2));
        let user = UserFacts::default();
        assert_eq!(decide_private(pair, ids(2), &user, NOW), Decision::Allow(Rights::FULL));
        assert_eq!(decide_private(pair, ids(3), &user, NOW), Decision::Deny(DenyReason::NotMember));
        let blocked = UserFacts { blocked_until: Some(LATER), ..user };
        assert_eq!(
            decide_private(pair, ids(1), &blocked, NOW),
            Decision::Deny(DenyReason::Blocked)
        );
        let shunned = UserFacts { blocked_by_other: true, ..user };
        assert_eq!(
            decide_private(pair, ids(1), &shunned, NOW),
            Decision::Deny(DenyReason::Blocked)
        );
    }

    fn roles() -> impl Strategy<Value = Role> {
        prop_oneof![
            Just(Role::Owner),
            Just(Role::Manager),
            Just(Role::Member),
            Just(Role::Guest),
            Just(Role::AnonymousGuest)
        ]
    }

    fn ends() -> impl Strategy<Value = Option<UnixMillis>> {
        prop_oneof![Just(None), (NOW - 100_000..NOW + 100_000).prop_map(Some)]
    }

    proptest! {
        /// The table as implications: nobody blocked, gone or outside is let in, nobody muted
        /// publishes, and a mute always has an end that lies ahead.
        #[test]
        fn the_table_holds_for_every_case(
            role in roles(), member in any::<bool>(), known in any::<bool>(), active in any::<bool>(),
            deleted in any::<bool>(), group_mute in ends(), member_mute in ends(), user_active in any::<Option<bool>>(),
            blocked_until in ends(), group_blocked in any::<bool>(), guest_speakable in any::<bool>(),
            guests_may_publish in any::<bool>(), admins_exempt_from_group_mute in any::<bool>(),
        ) {
            let case = GroupCase {
                user: UserFacts { active: user_active, blocked_until, ..UserFacts::default() },
                group: known.then_some(GroupFacts { active, deleted, mute_end: group_mute, guest_speakable }),
                member: member.then_some(MemberFacts { role, mute_end: member_mute }),
                group_blocked,
            };
            let config = PolicyConfig { guests_may_publish, admins_exempt_from_group_mute };
            let out = decide_group(&config, &case, NOW);
            let shut_out = blocked_until.is_some_and(|t| t > NOW) || user_active == Some(false)
                || !known || !active || deleted || group_blocked || !member;
            prop_assert_eq!(shut_out, matches!(out, Decision::Deny(_)));
            if let Decision::Allow(rights) = out {
                prop_assert!(!rights.room_admin || role <= Role::Manager);
                prop_assert_eq!(rights.can_publish, rights.can_publish_data);
                if member_mute.is_some_and(|t| t > NOW) {
                    prop_assert!(!rights.can_publish);
                }
                if let Some(end) = rights.muted_until {
                    prop_assert!(end > NOW && !rights.can_publish);
                }
                if role >= Role::Guest {
                    prop_assert!(!rights.can_publish || (guest_speakable && guests_may_publish));
                }
            }
        }
    }
}
