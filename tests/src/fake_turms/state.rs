//! What the stand-in knows: users, groups, memberships, block lists and messages, and what is wrong
//! with it at the moment. Tests change it directly or with script commands.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

/// A group. Dates are Unix milliseconds.
#[derive(Debug, Clone)]
pub struct Group {
    /// Type.
    pub type_id: i64,
    /// `isActive`
    pub active: bool,
    /// `deletionDate`
    pub deleted: Option<i64>,
    /// `muteEndDate`
    pub mute_end: Option<i64>,
}

/// A membership.
#[derive(Debug, Clone)]
pub struct Member {
    /// `OWNER` to `ANONYMOUS_GUEST`
    pub role: String,
    /// `muteEndDate`
    pub mute_end: Option<i64>,
}

/// An account, in deployments that store them.
#[derive(Debug, Clone)]
pub struct User {
    /// Password of the gateway login.
    pub password: String,
    /// `isActive`
    pub active: bool,
}

/// What is wrong with the admin API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// No answer at all until the fault ends.
    Hang,
    /// 500 with code 1200.
    ServerError,
    /// The first half of the right answer.
    HalfAnswer,
    /// 204 to every query: a database that lost its data.
    Empty,
    /// 401 to everybody: the service account was removed.
    Unauthorized,
    /// 429 to everything.
    RateLimited,
}

/// See the module.
#[derive(Debug, Default)]
pub struct State {
    /// Groups by id.
    pub groups: BTreeMap<i64, Group>,
    /// Memberships by group and user.
    pub members: BTreeMap<(i64, i64), Member>,
    /// Block lists of groups.
    pub group_blocks: BTreeSet<(i64, i64)>,
    /// Global block list: until when.
    pub blocks: BTreeMap<i64, i64>,
    /// Who has blocked whom.
    pub user_blocks: BTreeSet<(i64, i64)>,
    /// Accounts.
    pub users: BTreeMap<i64, User>,
    /// Types of groups in which guests may speak.
    pub speakable_types: BTreeSet<i64>,
    /// Messages, as they were posted.
    pub messages: Vec<Value>,
    /// Permissions by role.
    pub roles: BTreeMap<i64, Vec<String>>,
    /// Roles by admin account.
    pub admins: BTreeMap<String, Vec<i64>>,
    /// What is wrong.
    pub fault: Fault,
    /// Admin requests answered.
    pub requests: u64,
    /// Admin requests refused for the rate limit.
    pub rate_limited: u64,
    /// Admin requests refused as wrong.
    pub refused: Vec<String>,
    /// Gateway logins that worked.
    pub logins: u64,
}

/// A change, as a script says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "each does what it is called")]
pub enum Command {
    Group {
        id: i64,
        #[serde(default)]
        mute_end: Option<i64>,
        #[serde(default)]
        inactive: bool,
    },
    DeleteGroup {
        id: i64,
    },
    Member {
        group: i64,
        user: i64,
        role: String,
        #[serde(default)]
        mute_end: Option<i64>,
    },
    RemoveMember {
        group: i64,
        user: i64,
    },
    GroupBlock {
        group: i64,
        user: i64,
    },
    Block {
        user: i64,
        until: i64,
    },
    Unblock {
        user: i64,
    },
    UserBlock {
        owner: i64,
        user: i64,
    },
    User {
        id: i64,
        password: String,
        #[serde(default)]
        inactive: bool,
    },
    Fault {
        fault: Fault,
    },
}

impl State {
    /// Carries out a change. Blocking a user in a group ends the membership, as Turms does it.
    pub fn apply(&mut self, command: Command) {
        match command {
            Command::Group { id, mute_end, inactive } => {
                let group = Group { type_id: 0, active: !inactive, deleted: None, mute_end };
                self.groups.insert(id, group);
            }
            Command::DeleteGroup { id } => {
                // Turms removes the memberships with the group.
                self.groups.remove(&id);
                self.members.retain(|(group, _), _| *group != id);
            }
            Command::Member { group, user, role, mute_end } => {
                self.members.insert((group, user), Member { role, mute_end });
            }
            Command::RemoveMember { group, user } => {
                self.members.remove(&(group, user));
            }
            Command::GroupBlock { group, user } => {
                self.members.remove(&(group, user));
                self.group_blocks.insert((group, user));
            }
            Command::Block { user, until } => {
                self.blocks.insert(user, until);
            }
            Command::Unblock { user } => {
                self.blocks.remove(&user);
            }
            Command::UserBlock { owner, user } => {
                self.user_blocks.insert((owner, user));
            }
            Command::User { id, password, inactive } => {
                self.users.insert(id, User { password, active: !inactive });
            }
            Command::Fault { fault } => self.fault = fault,
        }
    }
}
