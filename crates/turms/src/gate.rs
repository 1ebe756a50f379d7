//! What joins and server API calls must pass besides their token: users who were removed stay out
//! until their last token has expired, cancelled meetings stay closed, meeting rooms belong to
//! Turms, and tokens of the stock plugin get an identity.
//!
//! Time comes in as an argument; what is decided here is kept in a [`Memory`].

use std::sync::Arc;
use std::time::Duration;

use crate::config::{CompatConfig, MissingIdentity};
use crate::ids::{MeetingId, Target, UserId, is_meeting_room, user_of_identity};
use crate::memory::{Entry, Memory, Revocation};
use crate::policy::UnixMillis;
use crate::stats::TurmsStats;

/// Marks participants whose identity we made.
pub const UNBOUND_ATTRIBUTE: &str = "turms.unbound";

/// How long tokens may live that the server itself renews for connected participants, plus the
/// clock difference that it tolerates.
const REFRESHED_TOKENS_LIVE: Duration = Duration::from_secs(11 * 60);

/// A token as far as the gate looks at it.
#[derive(Debug, Clone, Copy)]
pub struct TokenFacts<'a> {
    /// The API key that signed it.
    pub api_key: &'a str,
    /// Identity; may be empty.
    pub identity: &'a str,
    /// When it was issued, Unix seconds.
    pub issued_at: i64,
}

/// Why a join is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateRefusal {
    /// The token was issued before its holder was removed from the room.
    #[error("the token was issued before you were removed from this room: ask for a new one")]
    Revoked,
    /// The meeting was cancelled.
    #[error("the meeting has been cancelled")]
    Closed,
    /// The room's name is one of a meeting, and the token is not one of Turms' plugin.
    #[error("room names of 9 or 10 digits are reserved for Turms meetings")]
    Reserved,
}

/// See the module.
#[derive(Debug)]
pub struct TurmsGate {
    config: CompatConfig,
    /// How long revocations must be kept.
    token_life: Duration,
    memory: Arc<Memory>,
    stats: Arc<TurmsStats>,
}

impl TurmsGate {
    /// A gate for tokens that live at most `token_ttl`.
    pub fn new(
        config: CompatConfig,
        token_ttl: Duration,
        memory: Arc<Memory>,
        stats: Arc<TurmsStats>,
    ) -> Self {
        let token_life = token_ttl.max(REFRESHED_TOKENS_LIVE) + Duration::from_secs(60);
        Self { config, token_life, memory, stats }
    }

    /// Looks at a join.
    ///
    /// # Errors
    /// The join must be refused.
    pub fn admit(
        &self,
        room: &str,
        token: TokenFacts<'_>,
        now: UnixMillis,
    ) -> Result<(), GateRefusal> {
        if self.is_cancelled(room, now) {
            self.stats.joins_to_closed_meetings.add();
            return Err(GateRefusal::Closed);
        }
        let tables = self.memory.tables();
        let user = user_of_identity(token.identity);
        let denied = user.and_then(|user| tables.denied.get(&(room.to_owned(), user)));
        let revocations = [denied, tables.closed.get(room)];
        if revocations.into_iter().flatten().any(|revocation| revocation.revokes(token, now)) {
            self.stats.joins_denied.add();
            return Err(GateRefusal::Revoked);
        }
        drop(tables);
        if self.is_reserved(room, token.api_key) {
            self.stats.compat_reserved_refusals.add();
            return Err(GateRefusal::Reserved);
        }
        Ok(())
    }

    /// The identity of a participant whose token has none; `None` = refuse as ever. `random` makes
    /// it unique.
    pub fn identity_for(&self, room: &str, random: u64) -> Option<String> {
        let generate = self.config.missing_identity == MissingIdentity::Generate;
        if !generate || !is_meeting_room(room) {
            return None;
        }
        self.stats.compat_generated_identities.add();
        Some(format!("turms-{random:016x}"))
    }

    /// Whether a key may create and delete the room.
    pub fn may_manage(&self, room: &str, api_key: &str) -> bool {
        let reserved = self.is_reserved(room, api_key);
        if reserved {
            self.stats.compat_reserved_refusals.add();
        }
        !reserved
    }

    /// Whether a token's `roomAdmin` still counts.
    pub fn may_administer(&self, room: &str, token: TokenFacts<'_>, now: UnixMillis) -> bool {
        let Some(user) = user_of_identity(token.identity) else { return true };
        let key = (room.to_owned(), user);
        let tables = self.memory.tables();
        let revocations =
            [tables.demoted.get(&key), tables.denied.get(&key), tables.closed.get(room)];
        !revocations.into_iter().flatten().any(|revocation| revocation.revokes(token, now))
    }

    /// Whether to look for the stock plugin's framing.
    pub fn unframes(&self) -> bool {
        self.config.delimited_twirp
    }

    /// A call in the stock plugin's framing came.
    pub fn count_delimited(&self) {
        self.stats.compat_delimited.add();
    }

    /// A room was closed through the server API: a meeting stays closed.
    pub fn room_deleted(&self, room: &str, now: UnixMillis) {
        let keep = self.config.deleted_room_tombstone;
        if let Some(meeting) = meeting_of(room)
            && !keep.is_zero()
        {
            self.memory.put(&Entry::Cancelled { meeting, until: now + millis(keep) }, now);
        }
    }

    /// Whether a meeting was cancelled.
    pub fn is_cancelled(&self, room: &str, now: UnixMillis) -> bool {
        let until = |meeting| self.memory.tables().cancelled.get(&meeting).copied();
        meeting_of(room).and_then(until).is_some_and(|until| until > now)
    }

    /// Keeps a user out of a room until the last of their tokens has expired.
    pub fn deny(&self, room: &str, user: UserId, now: UnixMillis) {
        let (room, revocation) = (room.to_owned(), self.revocation(now));
        self.memory.put(&Entry::Denied { room, user, revocation }, now);
    }

    /// Tokens that a user has by now make no administrator any more.
    pub fn demote(&self, room: &str, user: UserId, now: UnixMillis) {
        let (room, revocation) = (room.to_owned(), self.revocation(now));
        self.memory.put(&Entry::Demoted { room, user, revocation }, now);
    }

    /// Keeps everybody out of a room who has a token by now.
    pub fn close(&self, room: &str, now: UnixMillis) {
        let (room, revocation) = (room.to_owned(), self.revocation(now));
        self.memory.put(&Entry::Closed { room, revocation }, now);
    }

    /// The earliest issue time, Unix seconds, of a token that counts for this user and room.
    pub fn issue_from(&self, room: &str, user: UserId, now: UnixMillis) -> i64 {
        let tables = self.memory.tables();
        let key = (room.to_owned(), user);
        let revoked = [tables.denied.get(&key), tables.demoted.get(&key), tables.closed.get(room)];
        let after = revoked.into_iter().flatten().map(|r| r.issued_up_to_s + 1).max();
        after.unwrap_or(i64::MIN).max(now.div_euclid(1000))
    }

    fn is_reserved(&self, room: &str, api_key: &str) -> bool {
        self.config.digit_rooms_reserved && is_meeting_room(room) && api_key != self.config.api_key
    }

    fn revocation(&self, now: UnixMillis) -> Revocation {
        Revocation { issued_up_to_s: now.div_euclid(1000), until: now + millis(self.token_life) }
    }
}

impl Revocation {
    fn revokes(&self, token: TokenFacts<'_>, now: UnixMillis) -> bool {
        self.until > now && token.issued_at <= self.issued_up_to_s
    }
}

/// The meeting that a room's name stands for.
fn meeting_of(room: &str) -> Option<MeetingId> {
    match Target::from_room_name(room) {
        Some(Target::Meeting(meeting)) => Some(meeting),
        _ => None,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = 1_700_000_000_500;
    const ROOM: &str = "turms:g:42";
    const MEETING: &str = "123456789";

    fn gate() -> TurmsGate {
        let config = CompatConfig { api_key: "turms".into(), ..CompatConfig::default() };
        let memory = Memory::open(None, 3, NOW, Arc::default()).unwrap();
        TurmsGate::new(config, Duration::from_secs(600), Arc::new(memory), Arc::default())
    }

    fn token(identity: &str, issued_at: i64) -> TokenFacts<'_> {
        TokenFacts { api_key: "turms", identity, issued_at }
    }

    fn user(id: i64) -> UserId {
        UserId::new(id).unwrap()
    }

    #[test]
    fn a_removed_user_cannot_return_with_an_old_token_but_with_a_new_one() {
        let gate = gate();
        let old = token("7", NOW / 1000 - 60);
        assert_eq!(gate.admit(ROOM, old, NOW), Ok(()));
        gate.deny(ROOM, user(7), NOW);
        assert_eq!(gate.admit(ROOM, old, NOW), Err(GateRefusal::Revoked));
        assert_eq!(gate.admit(ROOM, token("7:IOS", NOW / 1000), NOW), Err(GateRefusal::Revoked));
        assert_eq!(gate.admit("turms:g:43", old, NOW), Ok(()), "another room");
        assert_eq!(gate.admit(ROOM, token("8", NOW / 1000), NOW), Ok(()), "another user");
        let fresh = gate.issue_from(ROOM, user(7), NOW);
        assert_eq!(gate.admit(ROOM, token("7", fresh), NOW), Ok(()));
        assert!(!gate.may_administer(ROOM, old, NOW));
        let later = NOW + 20 * 60_000;
        assert_eq!(gate.admit(ROOM, old, later), Ok(()), "expired by itself meanwhile");
    }

    #[test]
    fn a_demoted_administrator_needs_a_new_token() {
        let gate = gate();
        let old = token("7", NOW / 1000);
        assert!(gate.may_administer(ROOM, old, NOW));
        gate.demote(ROOM, user(7), NOW);
        assert!(!gate.may_administer(ROOM, old, NOW));
        assert_eq!(gate.admit(ROOM, old, NOW), Ok(()), "may still be there");
        assert!(gate.may_administer(ROOM, token("backend", 0), NOW), "not of Turms");
    }

    #[test]
    fn a_cancelled_meeting_stays_closed_for_its_time() {
        let gate = gate();
        gate.room_deleted(MEETING, NOW);
        gate.room_deleted("lobby", NOW);
        assert_eq!(gate.admit(MEETING, token("", 0), NOW), Err(GateRefusal::Closed));
        assert!(gate.is_cancelled(MEETING, NOW));
        assert_eq!(gate.admit(MEETING, token("", 0), NOW + 24 * 3_600_000), Ok(()));
        assert_eq!(gate.admit("lobby", token("", 0), NOW), Ok(()));
    }

    #[test]
    fn meeting_rooms_belong_to_the_key_of_turms() {
        let gate = gate();
        let foreign = TokenFacts { api_key: "other", ..token("x", 0) };
        assert_eq!(gate.admit(MEETING, foreign, NOW), Err(GateRefusal::Reserved));
        assert!(!gate.may_manage(MEETING, "other"));
        assert!(gate.may_manage(MEETING, "turms"));
        assert!(gate.may_manage("12345678", "other"), "eight digits are no meeting");
    }

    #[test]
    fn only_meetings_get_an_identity() {
        let gate = gate();
        assert_eq!(gate.identity_for(MEETING, 1), Some("turms-0000000000000001".into()));
        assert_eq!(gate.identity_for("lobby", 1), None);
    }

    #[test]
    fn a_closed_room_refuses_everybodys_old_tokens() {
        let gate = gate();
        gate.close(ROOM, NOW);
        assert_eq!(gate.admit(ROOM, token("7", NOW / 1000), NOW), Err(GateRefusal::Revoked));
        let fresh = gate.issue_from(ROOM, user(7), NOW);
        assert_eq!(gate.admit(ROOM, token("7", fresh), NOW), Ok(()));
    }
}
