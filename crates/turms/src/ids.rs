//! Turms ids and the names that rooms and participants get from them.
//!
//! Turms ids are positive 63-bit integers (JSON numbers on its admin API, strings in our JSON).
//! They are parsed strictly: decimal digits, no sign, no leading zero, not 0 (0 is the system).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Prefix of every room name that belongs to a Turms group or a pair of users.
pub const ROOM_PREFIX: &str = "turms:";

/// Digits of a Turms meeting id (`DIGIT_9` is Turms' default, `DIGIT_10` its alternative).
pub const MEETING_DIGITS: std::ops::RangeInclusive<usize> = 9..=10;

/// Text that is not a Turms id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a Turms id: expected a decimal number from 1 to 9223372036854775807 without leading zeros"
)]
pub struct InvalidId;

fn parse_id(text: &str) -> Result<i64, InvalidId> {
    let digits = text.as_bytes();
    if digits.is_empty() || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidId);
    }
    text.parse().map_err(|_| InvalidId)
}

macro_rules! turms_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(try_from = "i64", into = "i64")]
        pub struct $name(i64);

        impl TryFrom<i64> for $name {
            type Error = InvalidId;

            fn try_from(id: i64) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }

        impl From<$name> for i64 {
            fn from(id: $name) -> i64 {
                id.0
            }
        }

        impl $name {
            /// Checks a number from Turms' JSON or protobuf.
            pub fn new(id: i64) -> Result<Self, InvalidId> {
                if id > 0 { Ok(Self(id)) } else { Err(InvalidId) }
            }

            /// The number, always positive.
            pub fn get(self) -> i64 {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_id(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

turms_id! {
    /// A Turms account.
    UserId
}
turms_id! {
    /// A Turms group.
    GroupId
}
turms_id! {
    /// A Turms meeting; its decimal form is the name of the room.
    MeetingId
}

/// What a room is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A group; its members may join.
    Group(GroupId),
    /// Two users; the smaller id first.
    Private(UserId, UserId),
    /// A meeting that Turms made.
    Meeting(MeetingId),
}

/// Why a pair of users is no private room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a private room needs two different users")]
pub struct SameUser;

impl Target {
    /// The private room of two users, in either order.
    pub fn private(a: UserId, b: UserId) -> Result<Self, SameUser> {
        match a.cmp(&b) {
            std::cmp::Ordering::Less => Ok(Self::Private(a, b)),
            std::cmp::Ordering::Equal => Err(SameUser),
            std::cmp::Ordering::Greater => Ok(Self::Private(b, a)),
        }
    }

    /// The LiveKit room name: `turms:g:<group>`, `turms:u:<min>:<max>` or the meeting's digits.
    pub fn room_name(&self) -> String {
        match self {
            Self::Group(group) => format!("{ROOM_PREFIX}g:{group}"),
            Self::Private(a, b) => format!("{ROOM_PREFIX}u:{a}:{b}"),
            Self::Meeting(meeting) => meeting.to_string(),
        }
    }

    /// The inverse of [`Self::room_name`]; `None` for rooms that are not Turms' business.
    pub fn from_room_name(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix(ROOM_PREFIX) {
            if let Some(group) = rest.strip_prefix("g:") {
                return group.parse().ok().map(Self::Group);
            }
            let (a, b) = rest.strip_prefix("u:")?.split_once(':')?;
            let (a, b): (UserId, UserId) = (a.parse().ok()?, b.parse().ok()?);
            return (a < b).then_some(Self::Private(a, b));
        }
        is_meeting_room(name).then(|| name.parse().ok().map(Self::Meeting))?
    }
}

/// Whether a room name is reserved for Turms meetings: all digits, of a meeting id's length.
pub fn is_meeting_room(name: &str) -> bool {
    MEETING_DIGITS.contains(&name.len()) && name.bytes().all(|b| b.is_ascii_digit())
}

/// How a participant's identity is made from a Turms user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdentityMode {
    /// `<userId>`: one session per user, a second one replaces the first.
    #[default]
    User,
    /// `<userId>:<DEVICE_TYPE>`: one session per device type, as Turms itself has it.
    UserDevice,
}

/// Turms' device types (`DeviceType` of its client protocol).
pub const DEVICE_TYPES: [&str; 6] = ["ANDROID", "BROWSER", "DESKTOP", "IOS", "OTHERS", "UNKNOWN"];

impl IdentityMode {
    /// The identity of a user's session; an unknown device type counts as `UNKNOWN`.
    pub fn identity(self, user: UserId, device_type: Option<&str>) -> String {
        match self {
            Self::User => user.to_string(),
            Self::UserDevice => {
                let device = device_type
                    .and_then(|d| DEVICE_TYPES.iter().find(|known| **known == d))
                    .unwrap_or(&"UNKNOWN");
                format!("{user}:{device}")
            }
        }
    }
}

/// The Turms user behind an identity of either mode; `None` for participants of other origin.
pub fn user_of_identity(identity: &str) -> Option<UserId> {
    match identity.split_once(':') {
        None => identity.parse().ok(),
        Some((user, device)) if DEVICE_TYPES.contains(&device) => user.parse().ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_parsed_strictly() {
        for bad in ["", "0", "01", "-1", "+1", " 1", "1 ", "1.0", "1e3", "9223372036854775808", "٣"]
        {
            assert_eq!(bad.parse::<UserId>(), Err(InvalidId), "{bad:?}");
        }
        assert_eq!("9223372036854775807".parse::<UserId>().map(UserId::get), Ok(i64::MAX));
        assert_eq!(UserId::new(0), Err(InvalidId));
        assert_eq!(UserId::new(-5), Err(InvalidId));
    }

    #[test]
    fn a_private_room_has_one_name_for_both_users() {
        let (a, b) = (UserId(7), UserId(42));
        assert_eq!(Target::private(a, b).unwrap().room_name(), "turms:u:7:42");
        assert_eq!(Target::private(b, a), Target::private(a, b));
        assert_eq!(Target::private(a, a), Err(SameUser));
    }

    #[test]
    fn only_nine_or_ten_digits_are_a_meeting_room() {
        assert!(is_meeting_room("123456789"));
        assert!(is_meeting_room("1234567890"));
        for other in ["12345678", "12345678901", "12345678x", "", "turms:g:1"] {
            assert!(!is_meeting_room(other), "{other}");
        }
    }

    #[test]
    fn foreign_names_are_not_targets() {
        for name in [
            "turms:g:0",
            "turms:u:2:1",
            "turms:u:1:1",
            "turms:x:1",
            "turms:g:",
            "lobby",
            "000000001",
        ] {
            assert_eq!(Target::from_room_name(name), None, "{name}");
        }
    }

    #[test]
    fn an_identity_names_its_user_in_both_modes() {
        let user = UserId(9);
        assert_eq!(user_of_identity(&IdentityMode::User.identity(user, Some("IOS"))), Some(user));
        let device = IdentityMode::UserDevice.identity(user, Some("IOS"));
        assert_eq!(device, "9:IOS");
        assert_eq!(user_of_identity(&device), Some(user));
        assert_eq!(IdentityMode::UserDevice.identity(user, Some("toaster")), "9:UNKNOWN");
        assert_eq!(user_of_identity("9:toaster"), None);
        assert_eq!(user_of_identity("agent-AJ_x"), None);
    }

    proptest! {
        #[test]
        fn room_names_round_trip(a in 1i64.., b in 1i64..) {
            let group = Target::Group(GroupId(a));
            prop_assert_eq!(Target::from_room_name(&group.room_name()), Some(group));
            if let Ok(pair) = Target::private(UserId(a), UserId(b)) {
                prop_assert_eq!(Target::from_room_name(&pair.room_name()), Some(pair));
            }
        }
    }
}
