//! The adapter itself: what the HTTP face, the synchronisation and the notices share, and the
//! decisions about users and rooms that both tokens and live participants follow.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::admin::{Directory, Priority, TurmsResult, id_chunks};
use crate::clock::Clock;
use crate::config::TurmsConfig;
use crate::gate::{TokenFacts, TurmsGate};
use crate::http::{Refusal, router};
use crate::identity::{Identity, IdentityError, Principal, Proof};
use crate::ids::{GroupId, MeetingId, Target, UserId, user_of_identity};
use crate::jwt::Action;
use crate::lookup::Lookup;
use crate::memory::{Entry, Meeting, Memory};
use crate::notices::Notices;
use crate::policy::{
    Decision, GroupCase, Rights, Role, UnixMillis, UserFacts, decide_group, decide_private,
};
use crate::rooms::{RoomError, RoomEvent, Rooms, TokenSpec};
use crate::signed::{SignedError, SignedRequests};
use crate::stats::TurmsStats;
use crate::sync::{Sync, SyncMessage};
use crate::throttle::{Seldom, Throttle};

/// The participant's role in the group, as an attribute.
pub const ROLE_ATTRIBUTE: &str = "turms.role";
/// When the participant's mute ends, Unix milliseconds, as an attribute.
pub const MUTED_ATTRIBUTE: &str = "turms.muted_until";

/// Messages that wait for the synchronisation.
const SYNC_QUEUE: usize = 1024;

/// What a user wants a token for.
#[derive(Debug)]
pub(crate) struct TokenWish {
    pub(crate) target: Target,
    pub(crate) plugin_token: Option<String>,
    pub(crate) device_type: Option<String>,
    pub(crate) name: String,
    pub(crate) ttl: Option<Duration>,
}

/// A token and what it says.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) room: String,
    pub(crate) identity: String,
    pub(crate) expires_at: i64,
    pub(crate) rights: Rights,
}

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

    /// Hands out a token, if Turms says that the user may be there.
    pub(crate) async fn issue(
        &self,
        principal: &Principal,
        wish: TokenWish,
    ) -> Result<Issued, Refusal> {
        let room = wish.target.room_name();
        let result = self.standing_for(principal, &wish, &room).await;
        let standing = result.inspect_err(|refusal| self.count_refusal(refusal))?;
        let user = principal.user;
        let identity = self.config.identity_mode.identity(user, wish.device_type.as_deref());
        let ttl = wish.ttl.map_or(self.config.token_ttl, |ttl| ttl.min(self.config.token_ttl));
        let issued_at = self.gate.issue_from(&room, user, self.now());
        let is_meeting = matches!(wish.target, Target::Meeting(_));
        let key = &self.config.compat.api_key;
        let mut attributes = standing.attributes();
        attributes.retain(|_, value| !value.is_empty());
        let token = self.rooms.mint(&TokenSpec {
            room: room.clone(),
            identity: identity.clone(),
            name: wish.name,
            rights: standing.rights,
            attributes,
            issued_at,
            ttl,
            api_key: (is_meeting && !key.is_empty()).then(|| key.clone()),
        })?;
        self.stats.tokens_issued.add();
        let expires_at = issued_at + i64::try_from(ttl.as_secs()).unwrap_or_default();
        Ok(Issued { token, room, identity, expires_at, rights: standing.rights })
    }

    async fn standing_for(
        &self,
        principal: &Principal,
        wish: &TokenWish,
        room: &str,
    ) -> Result<Standing, Refusal> {
        let denied = || Refusal::denied(crate::policy::DenyReason::Policy);
        if !principal.policy.allows(Action::Update) {
            return Err(denied());
        }
        match self.rooms.open_room(room) {
            // The first one there opens the room.
            None if !principal.policy.allows(Action::Create) => return Err(denied()),
            Some(open)
                if open.max_participants > 0 && open.participants >= open.max_participants =>
            {
                return Err(Refusal::room_full());
            }
            _ => {}
        }
        self.standing(principal.user, wish.target, wish.plugin_token.as_deref()).await
    }

    /// Whether a user may look at the roster of a room.
    pub(crate) async fn may_see(
        &self,
        principal: &Principal,
        target: Target,
    ) -> Result<(), Refusal> {
        if !principal.policy.allows(Action::Query) {
            return Err(Refusal::denied(crate::policy::DenyReason::Policy));
        }
        self.standing(principal.user, target, None).await.map(|_| ())
    }

    /// The user and the room of one of our own tokens, as long as it lets its holder join.
    pub(crate) fn holder(&self, token: &str) -> Option<(UserId, String)> {
        let proof = self.rooms.verify_join(token)?;
        let facts = TokenFacts {
            api_key: &proof.api_key,
            identity: &proof.identity,
            issued_at: proof.issued_at,
        };
        self.gate.admit(&proof.room, facts, self.now()).ok()?;
        Some((user_of_identity(&proof.identity)?, proof.room))
    }

    /// Whether Turms lets a user join the room now that `token` is for.
    pub(crate) async fn still_may_join(
        &self,
        user: UserId,
        target: Target,
        token: &str,
    ) -> Result<(), Refusal> {
        self.standing(user, target, Some(token)).await.map(|_| ())
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

    /// Membership of a meeting that we know nothing of is shown by a token for its room, which
    /// Turms' plugin gives to those who accept the invitation.
    fn check_proof(&self, room: &str, plugin_token: Option<&str>) -> Result<(), Refusal> {
        let unproven = |text: &str| Refusal::new(StatusCode::FORBIDDEN, "not_member", text);
        if self.gate.is_cancelled(room, self.now()) {
            return Err(cancelled());
        }
        let token = plugin_token
            .ok_or_else(|| unproven("`target.plugin_token` is needed: accept the invitation"))?;
        let key = &self.config.compat.api_key;
        let proof = self.rooms.verify_join(token);
        let good = proof
            .is_some_and(|proof| proof.room == room && (key.is_empty() || proof.api_key == *key));
        if good { Ok(()) } else { Err(unproven("`target.plugin_token` is not for this meeting")) }
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

    /// Our plugin says that a meeting was made.
    pub(crate) async fn open_meeting(
        &self,
        id: MeetingId,
        meeting: Meeting,
        idle: Option<Duration>,
        max_participants: Option<u32>,
    ) -> Result<(), Refusal> {
        let room = Target::Meeting(id).room_name();
        if self.gate.is_cancelled(&room, self.now()) {
            return Err(cancelled());
        }
        self.memory.put(Entry::Made { meeting: id, facts: meeting }, self.now());
        self.rooms.open(&room, idle, max_participants).await?;
        Ok(())
    }

    /// A token for a meeting, bound to a user that Turms has checked.
    pub(crate) async fn meeting_token(
        &self,
        id: MeetingId,
        user: UserId,
    ) -> Result<String, Refusal> {
        let target = Target::Meeting(id);
        let subject = self.subject(target);
        if self.gate.is_cancelled(&target.room_name(), self.now()) {
            return Err(cancelled());
        }
        if matches!(subject, Subject::Unknown(_)) {
            // Made before we started, or by another node: Turms has let the user in.
            tracing::debug!(%id, "a meeting that is not known here");
        }
        let principal = Principal { user, policy: crate::jwt::MeetingPolicy::ALL };
        let standing = match subject {
            Subject::Unknown(_) => {
                let account = self.lookup.user(user, None).await?;
                match self.decide(&subject, user, None, &account).0 {
                    Decision::Allow(rights) => Standing { rights, role: None },
                    Decision::Deny(reason) => return Err(Refusal::denied(reason)),
                }
            }
            _ => self.standing(principal.user, target, None).await?,
        };
        let room = target.room_name();
        let key = &self.config.compat.api_key;
        let mut attributes = standing.attributes();
        attributes.retain(|_, value| !value.is_empty());
        let token = self.rooms.mint(&TokenSpec {
            issued_at: self.gate.issue_from(&room, user, self.now()),
            room,
            identity: self.config.identity_mode.identity(user, None),
            name: String::new(),
            rights: standing.rights,
            attributes,
            ttl: self.config.token_ttl,
            api_key: (!key.is_empty()).then(|| key.clone()),
        })?;
        self.stats.tokens_issued.add();
        Ok(token)
    }

    /// Our plugin says that a meeting was cancelled: it is closed and stays closed.
    pub(crate) async fn cancel_meeting(&self, id: MeetingId) -> Result<(), Refusal> {
        let room = Target::Meeting(id).room_name();
        let meeting = self.meeting(id);
        self.gate.room_deleted(&room, self.now());
        if let Some(group) = meeting.and_then(|meeting| meeting.group) {
            self.notices.cancelled(&room, group);
        }
        match self.rooms.close(&room).await {
            Ok(()) | Err(RoomError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn meeting(&self, id: MeetingId) -> Option<Meeting> {
        self.memory.tables().meetings.get(&id).copied()
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

    fn count_refusal(&self, refusal: &Refusal) {
        match refusal.status {
            StatusCode::SERVICE_UNAVAILABLE => self.stats.tokens_unavailable.add(),
            _ => self.stats.tokens_denied.add(),
        }
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

fn cancelled() -> Refusal {
    Refusal::new(StatusCode::GONE, "meeting_cancelled", "the meeting has been cancelled")
}
