//! Records of Turms' admin API, read leniently: unknown fields are ignored, absent ones have a
//! meaning, ids are 63-bit integers, dates are ISO text or Unix milliseconds.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use crate::clock::parse_date;
use crate::ids::{GroupId, UserId};
use crate::policy::{GroupFacts, MemberFacts, Role, UnixMillis};

/// The envelope around every answer.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) code: i64,
    pub(super) data: Option<T>,
}

/// `data` of the `/page` endpoints.
#[derive(Debug, Deserialize)]
pub(super) struct PageData<T> {
    #[serde(default)]
    pub(super) total: u64,
    #[serde(default = "Vec::new")]
    pub(super) records: Vec<T>,
}

/// Records of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// How many there are in all; `None` where the endpoint does not say.
    pub total: Option<u64>,
    /// Those of this answer.
    pub records: Vec<T>,
}

impl<T> Page<T> {
    /// No records.
    pub fn empty() -> Self {
        Self { total: Some(0), records: Vec::new() }
    }
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRecord {
    /// Id.
    pub id: i64,
    /// Type, which says whether guests may speak.
    #[serde(default)]
    pub type_id: Option<i64>,
    /// Absent means active, as in Turms' own checks.
    #[serde(default)]
    pub is_active: Option<bool>,
    /// Set when deleted.
    #[serde(default, deserialize_with = "date")]
    pub deletion_date: Option<UnixMillis>,
    /// Mute of the whole group.
    #[serde(default, deserialize_with = "date")]
    pub mute_end_date: Option<UnixMillis>,
}

impl GroupRecord {
    /// The facts for the policy; `guest_speakable` comes from the group's type.
    pub fn facts(&self, guest_speakable: bool) -> GroupFacts {
        GroupFacts {
            active: self.is_active != Some(false),
            deleted: self.deletion_date.is_some(),
            mute_end: self.mute_end_date,
            guest_speakable,
        }
    }
}

/// Key of a membership or a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupUserKey {
    /// Group.
    pub group_id: i64,
    /// User.
    pub user_id: i64,
}

impl GroupUserKey {
    /// Both ids, checked.
    pub fn ids(self) -> Option<(GroupId, UserId)> {
        Some((GroupId::new(self.group_id).ok()?, UserId::new(self.user_id).ok()?))
    }
}

/// A membership.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRecord {
    /// Who, where.
    pub key: GroupUserKey,
    /// `OWNER` to `ANONYMOUS_GUEST`.
    #[serde(default)]
    pub role: Option<String>,
    /// Mute of this member.
    #[serde(default, deserialize_with = "date")]
    pub mute_end_date: Option<UnixMillis>,
}

impl MemberRecord {
    /// The facts for the policy. A role that this version does not know has the fewest rights.
    pub fn facts(&self) -> MemberFacts {
        let role = self.role.as_deref().and_then(Role::from_name).unwrap_or(Role::AnonymousGuest);
        MemberFacts { role, mute_end: self.mute_end_date }
    }
}

/// A user in a group's block list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GroupBlockRecord {
    /// Who, where.
    pub key: GroupUserKey,
}

/// A user in the global block list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedUserRecord {
    /// User.
    pub id: i64,
    /// Until when; absent means for good.
    #[serde(default, deserialize_with = "date")]
    pub block_end_time: Option<UnixMillis>,
}

impl BlockedUserRecord {
    /// Until when, with a date for "for good".
    pub fn until(&self) -> UnixMillis {
        self.block_end_time.unwrap_or(UnixMillis::MAX)
    }
}

/// An account; the password hash that Turms sends along is not read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserRecord {
    /// User.
    pub id: i64,
    /// Whether the account is active.
    #[serde(default)]
    pub is_active: Option<bool>,
    /// Set when deleted.
    #[serde(default, deserialize_with = "date")]
    pub deletion_date: Option<UnixMillis>,
}

impl UserRecord {
    /// Whether the account may be used; absent fields mean that it may.
    pub fn is_usable(&self) -> bool {
        self.is_active != Some(false) && self.deletion_date.is_none()
    }
}

/// Key of a relationship.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelationshipKey {
    /// Whose relationship it is.
    pub owner_id: i64,
    /// The other one.
    pub related_user_id: i64,
}

/// What a user has noted about another one; asked for where the other one is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelationshipRecord {
    /// Who, of whom.
    pub key: RelationshipKey,
    /// Since when the other one is blocked.
    #[serde(default, deserialize_with = "date")]
    pub block_date: Option<UnixMillis>,
}

impl RelationshipRecord {
    /// Whether `owner` has blocked `other`.
    pub fn blocks(&self, owner: UserId, other: UserId) -> bool {
        let key = (self.key.owner_id, self.key.related_user_id);
        self.block_date.is_some() && key == (owner.get(), other.get())
    }
}

/// A type of groups.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupTypeRecord {
    /// Id.
    pub id: i64,
    /// Whether non-members may speak in groups of this type.
    #[serde(default)]
    pub guest_speakable: Option<bool>,
}

/// A system message to a group or a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemMessage {
    /// Makes repeating the request harmless.
    pub id: i64,
    /// Whether `target_id` is a group.
    pub is_group_message: bool,
    /// Always true: from the system, no permission checks.
    pub is_system_message: bool,
    /// For people, at most 500 characters.
    pub text: String,
    /// base64: a type byte, then JSON.
    pub records: Vec<String>,
    /// Group or user.
    pub target_id: i64,
}

/// Text, a number or nothing.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnixMillis>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Date {
        Number(i64),
        Text(String),
    }
    match Option::<Date>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Date::Number(millis)) => Ok(Some(millis)),
        Some(Date::Text(text)) => {
            parse_date(&text).map(Some).ok_or_else(|| de::Error::custom("not a date"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_turms_are_read() {
        let text = r#"{"code":1000,"reason":"ok","timestamp":"2025-07-29T11:32:52.000+00:00",
            "data":[{"key":{"groupId":9007199254740993,"userId":2},"name":"","role":"MANAGER",
            "joinDate":"2025-01-01T00:00:00.000+00:00","muteEndDate":"2025-07-29T11:32:52.000+00:00"}]}"#;
        let envelope: Envelope<Vec<MemberRecord>> = serde_json::from_str(text).unwrap();
        let record = &envelope.data.unwrap()[0];
        assert_eq!(record.key.group_id, 9_007_199_254_740_993, "beyond what a double holds");
        let facts = MemberFacts { role: Role::Manager, mute_end: Some(1_753_788_772_000) };
        assert_eq!(record.facts(), facts);
    }

    #[test]
    fn an_unknown_role_has_the_fewest_rights() {
        let record: MemberRecord =
            serde_json::from_str(r#"{"key":{"groupId":1,"userId":2},"role":"EMPEROR"}"#).unwrap();
        assert_eq!(record.facts().role, Role::AnonymousGuest);
    }
}
