//! The adapter itself: what the HTTP face, the synchronisation and the notices share, and the
//! decisions about users and rooms that both tokens and live participants follow.

mod meetings;
mod tokens;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::admin::{Directory, Priority, TurmsResult, id_chunks};
use crate::clock::Clock;
use crate::config::TurmsConfig;
use crate::gate::TurmsGate;
use crate::http::{Refusal, router};
use crate::identity::{Identity, IdentityError, Principal, Proof};
use crate::ids::{GroupId, MeetingId, Target, UserId};
use crate::lookup::Lookup;
use crate::memory::{Meeting, Memory};
use crate::notices::Notices;
use crate::policy::{
    Decision, GroupCase, Rights, Role, UnixMillis, UserFacts, decide_group, decide_private,
};
use crate::rooms::{RoomEvent, Rooms};
use crate::signed::{SignedError, SignedRequests};
use crate::stats::TurmsStats;
use crate::sync::{Sync, SyncMessage};
use crate::throttle::{Seldom, Throttle};

pub(crate) use tokens::TokenWish;

/// The participant's role in the group, as an attribute.
pub const ROLE_ATTRIBUTE: &str = "turms.role";
/// When the participant's mute ends, Unix milliseconds, as an attribute.
pub const MUTED_ATTRIBUTE: &str = "turms.muted_until";

/// Messages that wait for the synchronisation.
const SYNC_QUEUE: usize = 1024;

/// Rights, and the role that they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) rights: Rights,
    pub(crate) role: Option<Role>,
}

impl Standing {
    /// The attributes that tell clients; empty values take an attribute away.
    pub(crate) fn attributes(&self) -> BTreeMap<String, String> {
        let role = self.role.map(Role::name).unwrap_or_default();
        let muted = self.rights.muted_until.map(|end| end.to_string()).unwrap_or_default();
        BTreeMap::from([
            (ROLE_ATTRIBUTE.to_owned(), role.to_owned()),
            (MUTED_ATTRIBUTE.to_owned(), muted),
        ])
    }
}

/// Everything that an adapter is made from.
pub struct AdapterParts {
    /// What the operator chose.
    pub config: TurmsConfig,
    /// The rooms.
    pub rooms: Arc<dyn Rooms>,
    /// What Turms knows.
    pub directory: Arc<dyn Directory>,
    /// Wall-clock time.
    pub clock: Clock,
    /// Where to count.
    pub stats: Arc<TurmsStats>,
}

/// See the module. Made with [`Adapter::new`]; [`AdapterTasks::run`] keeps it going.
pub struct Adapter {
    config: TurmsConfig,
    rooms: Arc<dyn Rooms>,
    directory: Arc<dyn Directory>,
    clock: Clock,
    stats: Arc<TurmsStats>,
    identity: Identity,
    lookup: Lookup,
    gate: Arc<TurmsGate>,
    signed: Option<SignedRequests>,
    refused_requests: Seldom,
    memory: Arc<Memory>,
    notices: Arc<Notices>,
    sync: mpsc::Sender<SyncMessage>,
    pub(crate) per_user: Throttle<UserId>,
    pub(crate) per_address: Throttle<IpAddr>,
}

/// What must run for an adapter to follow Turms.
pub struct AdapterTasks {
    adapter: Arc<Adapter>,
    messages: mpsc::Receiver<SyncMessage>,
}

impl AdapterTasks {
    /// Follows Turms and the events of rooms until the rooms end.
    pub async fn run(self, events: mpsc::Receiver<RoomEvent>) {
        let notices = self.adapter.notices.clone();
        let directory = self.adapter.directory.clone();
        let sync = Sync::new(self.adapter, self.messages);
        tokio::select! {
            () = sync.run(events) => {}
            () = notices.deliver(directory) => {}
        }
    }
}

impl Adapter {
    /// An adapter, and its tasks.
    ///
    /// # Errors
    /// A URL, a certificate or the state file of the configuration is unusable.
    pub fn new(parts: AdapterParts) -> Result<(Arc<Self>, AdapterTasks), String> {
        let AdapterParts { config, rooms, directory, clock, stats } = parts;
        let (file, max) = (config.state_file.as_deref(), config.cache.max_entries);
        let memory = Arc::new(Memory::open(file, max, clock.now_ms(), stats.clone())?);
        let (compat, ttl) = (config.compat.clone(), config.token_ttl);
        let gate = TurmsGate::new(compat, ttl, memory.clone(), stats.clone());
        let signed = config.events.clone();
        let signed = signed.map(|events| SignedRequests::new(events, clock.clone(), stats.clone()));
        let (sync, messages) = mpsc::channel(SYNC_QUEUE);
        let adapter = Arc::new(Self {
            identity: Identity::new(&config, clock.clone())?,
            lookup: Lookup::new(directory.clone(), &config, &stats),
            gate: Arc::new(gate),
            signed,
            refused_requests: Seldom::default(),
            memory,
            notices: Arc::new(Notices::new(config.messages.clone(), clock.clone(), stats.clone())),
            sync,
            per_user: Throttle::new(config.requests_per_min),
            // Many users share an address behind a router.
            per_address: Throttle::new(config.requests_per_min.saturating_mul(20)),
            config,
            rooms,
            directory,
            clock,
            stats,
        });
        let tasks = AdapterTasks { adapter: adapter.clone(), messages };
        Ok((adapter, tasks))
    }

    /// The HTTP face, everything under `/turms/v1`.
    pub fn router(self: &Arc<Self>) -> Router {
        router(self.clone())
    }

    /// What joins must pass.
    pub fn gate(&self) -> &Arc<TurmsGate> {
        &self.gate
    }

    /// Counters.
    pub fn stats(&self) -> &Arc<TurmsStats> {
        &self.stats
    }

    pub(crate) fn config(&self) -> &TurmsConfig {
        &self.config
    }

    pub(crate) fn rooms(&self) -> &dyn Rooms {
        self.rooms.as_ref()
    }

    pub(crate) fn directory(&self) -> &Arc<dyn Directory> {
        &self.directory
    }

    pub(crate) fn notices(&self) -> &Notices {
        &self.notices
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now_ms()
    }

    pub(crate) fn turms_is_reachable(&self) -> bool {
        !self.directory.is_cut_off()
    }

    pub(crate) fn cache_entries(&self) -> usize {
        self.lookup.entries()
    }

    pub(crate) fn messages_waiting(&self) -> usize {
        self.notices.waiting()
    }

    pub(crate) async fn identify(&self, proof: Proof<'_>) -> Result<Principal, IdentityError> {
        self.identity.identify(proof).await
    }

    pub(crate) fn signed_request(&self, body: &[u8], op: &str) -> Result<Value, Refusal> {
        let Some(signed) = &self.signed else {
            let text =
                "this server accepts no requests of a plugin: set `turms.events.secret_file`";
            return Err(Refusal::new(StatusCode::NOT_FOUND, "not_configured", text));
        };
        signed.open(body, op).map_err(|error: SignedError| {
            if self.refused_requests.due() {
                tracing::warn!(%error, op, "a signed request was refused");
            }
            error.into()
        })
    }

    /// What Turms says of a user and a room now.
    async fn standing(
        &self,
        user: UserId,
        target: Target,
        plugin_token: Option<&str>,
    ) -> Result<Standing, Refusal> {
        let subject = self.subject(target);
        let decided = match subject {
            Subject::Group { group, .. } => {
                let case = self.lookup.group_case(group, user).await?;
                self.decide(&subject, user, Some(&case), &case.user)
            }
            Subject::Pair { .. } | Subject::Open { .. } | Subject::Unknown(_) => {
                if let Subject::Unknown(meeting) = subject {
                    let room = Target::Meeting(meeting).room_name();
                    self.check_proof(&room, plugin_token)?;
                }
                let account = self.lookup.user(user, subject.other_than(user)).await?;
                self.decide(&subject, user, None, &account)
            }
        };
        let (decision, role) = decided;
        match decision {
            Decision::Allow(rights) => Ok(Standing { rights, role }),
            Decision::Deny(reason) => Err(Refusal::denied(reason)),
        }
    }

    /// The verdict over a user in a room, given the facts.
    pub(crate) fn decide(
        &self,
        subject: &Subject,
        user: UserId,
        case: Option<&GroupCase>,
        account: &UserFacts,
    ) -> (Decision, Option<Role>) {
        let now = self.now();
        match *subject {
            Subject::Group { creator, .. } => {
                let Some(case) = case else {
                    return (Decision::Deny(crate::policy::DenyReason::GroupGone), None);
                };
                let decision = decide_group(&self.config.policy, case, now);
                let decision = match decision {
                    Decision::Allow(rights) if creator == Some(user) => {
                        Decision::Allow(Rights { room_admin: true, ..rights })
                    }
                    other => other,
                };
                (decision, case.member.map(|member| member.role))
            }
            Subject::Pair { pair, creator } => {
                let decision = decide_private(pair, user, account, now);
                (with_admin(decision, creator == Some(user)), None)
            }
            // Whoever has come here has shown a proof; what is left is the account.
            Subject::Open { creator } => {
                let decision = decide_private((user, user), user, account, now);
                (with_admin(decision, creator == user), None)
            }
            Subject::Unknown(_) => (decide_private((user, user), user, account, now), None),
        }
    }

    /// What the membership of a room depends on.
    pub(crate) fn subject(&self, target: Target) -> Subject {
        match target {
            Target::Group(group) => Subject::Group { group, creator: None },
            Target::Private(a, b) => Subject::Pair { pair: (a, b), creator: None },
            Target::Meeting(id) => match self.meeting(id) {
                None => Subject::Unknown(id),
                Some(Meeting { creator, group: Some(group), .. }) => {
                    Subject::Group { group, creator: Some(creator) }
                }
                Some(Meeting { creator, user: Some(user), .. }) => {
                    Subject::Pair { pair: (creator, user), creator: Some(creator) }
                }
                Some(Meeting { creator, .. }) => Subject::Open { creator },
            },
        }
    }

    pub(crate) async fn group_changed(&self, group: GroupId) {
        self.lookup.forget_group(group);
        self.tell_sync(SyncMessage::Group(group)).await;
    }

    /// Keeps users out of a group's rooms, in the call or not, if Turms says too that they are no
    /// members. Otherwise, and where it cannot be asked, the next look decides.
    pub(crate) async fn shut_out(&self, group: GroupId, users: &[UserId]) {
        for users in id_chunks(users, group.to_string().len()) {
            let asked = self.directory.members(&[group], users, Priority::Urgent).await;
            let Ok(records) = asked else { return };
            let members: HashSet<UserId> =
                records.iter().filter_map(|record| Some(record.key.ids()?.1)).collect();
            if records.len() >= self.directory.page_size() {
                return;
            }
            let gone: Vec<UserId> =
                users.iter().copied().filter(|user| !members.contains(user)).collect();
            for room in self.rooms_of(group) {
                for user in &gone {
                    self.gate.deny(&room, *user, self.now());
                }
            }
        }
    }

    /// Names of the rooms that a group may meet in.
    fn rooms_of(&self, group: GroupId) -> Vec<String> {
        let tables = self.memory.tables();
        let meetings = tables.meetings.iter().filter(|(_, m)| m.group == Some(group));
        let targets = meetings.map(|(id, _)| Target::Meeting(*id)).chain([Target::Group(group)]);
        targets.map(|target| target.room_name()).collect()
    }

    pub(crate) async fn group_deleted(&self, group: GroupId) {
        self.lookup.forget_group(group);
        self.tell_sync(SyncMessage::Deleted(group)).await;
    }

    pub(crate) async fn user_changed(&self, user: UserId) {
        self.lookup.forget_user(user);
        self.tell_sync(SyncMessage::User(user)).await;
    }

    pub(crate) async fn something_changed(&self) {
        self.lookup.forget_all();
        self.tell_sync(SyncMessage::Everything).await;
    }

    /// Types of groups in which guests may speak, where that matters.
    pub(crate) async fn speakable_types(&self) -> TurmsResult<Arc<HashSet<i64>>> {
        if !self.config.policy.guests_may_publish {
            return Ok(Arc::default());
        }
        self.lookup.speakable_types().await
    }

    async fn tell_sync(&self, message: SyncMessage) {
        // It ends only with the server.
        let _ = self.sync.send(message).await;
    }
}

/// What the membership of a room depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A group's members; the creator of its meeting administrates the room.
    Group { group: GroupId, creator: Option<UserId> },
    /// Two users.
    Pair { pair: (UserId, UserId), creator: Option<UserId> },
    /// A meeting for everybody who finds it.
    Open { creator: UserId },
    /// A meeting that only Turms knows.
    Unknown(MeetingId),
}

impl Subject {
    /// The other one, in a room of two.
    pub(crate) fn other_than(&self, user: UserId) -> Option<UserId> {
        match *self {
            Self::Pair { pair: (a, b), .. } if user == a => Some(b),
            Self::Pair { pair: (a, b), .. } if user == b => Some(a),
            _ => None,
        }
    }

    /// The group, where there is one.
    pub(crate) fn group(&self) -> Option<GroupId> {
        match self {
            Self::Group { group, .. } => Some(*group),
            _ => None,
        }
    }
}

fn with_admin(decision: Decision, admin: bool) -> Decision {
    match decision {
        Decision::Allow(rights) => Decision::Allow(Rights { room_admin: admin, ..rights }),
        deny @ Decision::Deny(_) => deny,
    }
}
