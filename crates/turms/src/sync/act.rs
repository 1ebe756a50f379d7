//! What follows from an answer: participants are muted, unmuted, promoted, removed; rooms are
//! closed.

use std::time::Duration;

use tokio::time::Instant;

use super::poll::{Answer, Question};
use super::watch::{Belief, Signs, believe, verdict};
use super::{SECOND_LOOK, Sync};
use crate::adapter::{MUTED_ATTRIBUTE, ROLE_ATTRIBUTE, Standing};
use crate::config::OnStale;
use crate::ids::{UserId, user_of_identity};
use crate::policy::{Decision, DenyReason, Rights, UnixMillis};
use crate::rooms::{Attendee, RightsChange, RoomError};

/// So many groups that vanish at once are more likely a fault of Turms than a wish.
const MANY_GROUPS: usize = 3;

impl Sync {
    /// Turms answered about a room.
    pub(super) async fn take_answer(
        &mut self,
        question: Question,
        answer: Answer,
        many_vanish: bool,
    ) {
        let now = Instant::now();
        let interval = self.interval();
        let room = question.room;
        let Some(watch) = self.watches.get_mut(&room) else { return };
        watch.polling = false;
        if std::mem::take(&mut watch.again) {
            // Something changed since the question.
            watch.due = now;
            watch.urgent = true;
        } else {
            watch.due = now + interval;
        }
        // A deletion that was announced and did not come.
        watch.told_deleted &= watch.missing || watch.urgent;
        if answer.whole {
            watch.estimate = answer.seen_members;
        }
        let (suspect, told_deleted) = (watch.suspect, watch.told_deleted);
        let verdicts: Vec<Option<Decision>> =
            question.users.iter().map(|user| self.verdict(&room, &answer, *user)).collect();
        let guard = self.adapter.config().sync.mass_removal_guard_percent;
        let signs = Signs { suspect, told_deleted, many_vanish };
        let Some(watch) = self.watches.get_mut(&room) else { return };
        match believe(&answer, signs, &verdicts, guard) {
            Belief::Believe => {
                watch.suspect = false;
                let gap = now.saturating_duration_since(watch.answered);
                watch.answered = now;
                let stats = self.adapter.stats();
                stats.polls.add();
                stats.poll_round_ms.set(u64::try_from(gap.as_millis()).unwrap_or(u64::MAX));
                self.act_on(&room, answer).await;
            }
            Belief::LookTwice => {
                watch.suspect = true;
                watch.urgent = true;
                watch.due = now + SECOND_LOOK;
                self.adapter.stats().removals_held.add();
                tracing::warn!(room, "Turms' answer would remove many: looking again");
            }
            Belief::Disbelieve => {
                // Facts get old, and `on_stale` decides.
                self.adapter.stats().removals_held.add();
                tracing::error!(room, "Turms' answer is not believed: nobody is removed");
            }
        }
    }

    /// Whether a large part of all groups was missing when last looked at.
    pub(super) fn many_groups_vanish(&self) -> bool {
        let guard = self.adapter.config().sync.mass_removal_guard_percent as usize;
        let missing = self.watches.values().filter(|watch| watch.missing).count();
        missing >= MANY_GROUPS && missing * 100 >= self.watches.len() * guard
    }

    fn verdict(&self, room: &str, answer: &Answer, user: UserId) -> Option<Decision> {
        let target = self.watches.get(room)?.target;
        let subject = self.adapter.subject(target);
        let account = self.accounts.facts(&subject, user);
        verdict(&self.adapter, &subject, answer, account, user).map(|(decision, _)| decision)
    }

    /// Acts on the facts that are known: time has passed, or the block list changed.
    pub(super) async fn act_again(&mut self, room: &str) {
        if let Some(answer) = self.watches.get(room).and_then(|watch| watch.answer.clone()) {
            self.act_on(room, answer).await;
        }
    }

    /// Does to a room what an answer says.
    pub(super) async fn act_on(&mut self, room: &str, answer: Answer) {
        let Some(watch) = self.watches.get_mut(room) else { return };
        let subject = self.adapter.subject(watch.target);
        watch.stale = false;
        watch.wake = None;
        let gone = subject.group().is_some()
            && !answer.group.is_some_and(|group| group.active && !group.deleted);
        if gone {
            tracing::info!(room, "the group is gone: closing its room");
            self.close(room).await;
            return;
        }
        let attendees = match self.adapter.rooms().attendees(room).await {
            Ok(attendees) => attendees,
            Err(_) => {
                self.watches.remove(room);
                return;
            }
        };
        for attendee in &attendees {
            let Some(user) = user_of_identity(&attendee.identity) else { continue };
            let account = self.accounts.facts(&subject, user);
            match verdict(&self.adapter, &subject, &answer, account, user) {
                None => {}
                Some((Decision::Deny(reason), _)) => {
                    self.remove(room, attendee, user, reason).await
                }
                Some((Decision::Allow(rights), role)) => {
                    self.give(room, attendee, user, Standing { rights, role }).await;
                }
            }
        }
        if let Some(watch) = self.watches.get_mut(room) {
            watch.answer = Some(answer);
        }
    }

    async fn remove(&mut self, room: &str, attendee: &Attendee, user: UserId, reason: DenyReason) {
        tracing::info!(room, %user, reason = reason.as_str(), "removing a participant");
        self.adapter.gate().deny(room, user, self.adapter.now());
        if let Some(watch) = self.watches.get_mut(room) {
            watch.applied.remove(&attendee.identity);
        }
        match self.adapter.rooms().remove(room, &attendee.identity).await {
            Ok(()) => self.adapter.stats().participants_removed.add(),
            Err(RoomError::NotFound) => {}
            Err(error) => tracing::error!(room, %error, "a participant could not be removed"),
        }
    }

    /// Gives a participant their standing, if it is another one than before. What others changed
    /// through the server API meanwhile stays as it is.
    async fn give(&mut self, room: &str, attendee: &Attendee, user: UserId, standing: Standing) {
        if let Some(end) = standing.rights.muted_until {
            self.wake_at(room, end);
        }
        let Some(watch) = self.watches.get_mut(room) else { return };
        let before = watch.applied.get(&attendee.identity).copied();
        let rights = standing.rights;
        let may = attendee.can_publish || attendee.can_publish_data;
        let (change_rights, change_admin) = match before {
            // What Turms forbids stays forbidden, whoever allowed it meanwhile.
            Some(before) => (
                before.rights.can_publish != rights.can_publish || (may && !rights.can_publish),
                before.rights.room_admin != rights.room_admin,
            ),
            // First seen: the token said what was right then, and its attributes tell.
            None => {
                let muted_by_us = attendee.attributes.contains_key(MUTED_ATTRIBUTE);
                let admin_by_us = attendee
                    .attributes
                    .get(ROLE_ATTRIBUTE)
                    .and_then(|role| crate::policy::Role::from_name(role))
                    .map(crate::policy::Role::is_admin);
                (
                    (may && !rights.can_publish) || (!may && rights.can_publish && muted_by_us),
                    admin_by_us.is_some_and(|admin| admin != rights.room_admin),
                )
            }
        };
        let change_attributes = match before {
            Some(before) => before.attributes() != standing.attributes(),
            None => standing.attributes().iter().any(|(name, value)| {
                attendee.attributes.get(name).map_or("", String::as_str) != value
            }),
        };
        watch.applied.insert(attendee.identity.clone(), standing);
        if change_admin {
            self.set_admin(room, &attendee.identity, user, rights.room_admin).await;
        }
        if change_rights || change_attributes {
            let kept = if change_rights { rights } else { as_they_are(attendee, rights) };
            self.set_rights(room, &attendee.identity, kept, &standing).await;
        }
        if change_rights {
            let stats = self.adapter.stats();
            let counter = if rights.can_publish {
                &stats.participants_unmuted
            } else {
                &stats.participants_muted
            };
            counter.add();
        }
    }

    async fn set_rights(
        &mut self,
        room: &str,
        identity: &str,
        rights: Rights,
        standing: &Standing,
    ) {
        let change = RightsChange { room, identity, rights, attributes: standing.attributes() };
        let done = self.adapter.rooms().set_rights(change).await;
        self.check_done(room, identity, done);
    }

    async fn set_admin(&mut self, room: &str, identity: &str, user: UserId, admin: bool) {
        if !admin {
            self.adapter.gate().demote(room, user, self.adapter.now());
        }
        let done = self.adapter.rooms().set_admin(room, identity, admin).await;
        self.adapter.stats().admins_changed.add();
        self.check_done(room, identity, done);
    }

    /// What did not work is tried again with the next answer.
    fn check_done(&mut self, room: &str, identity: &str, done: Result<(), RoomError>) {
        let Err(error) = done else { return };
        if error != RoomError::NotFound {
            tracing::error!(room, %error, "a participant's rights could not be changed");
        }
        if let Some(watch) = self.watches.get_mut(room) {
            watch.applied.remove(identity);
        }
    }

    async fn close(&mut self, room: &str) {
        self.adapter.gate().close(room, self.adapter.now());
        self.watches.remove(room);
        match self.adapter.rooms().close(room).await {
            Ok(()) => self.adapter.stats().rooms_closed.add(),
            Err(RoomError::NotFound) => {}
            Err(error) => tracing::error!(room, %error, "a room could not be closed"),
        }
    }

    fn wake_at(&mut self, room: &str, end: UnixMillis) {
        let left = u64::try_from(end - self.adapter.now()).unwrap_or_default();
        // A mute until the year 9999 needs no timer.
        const LONGEST: Duration = Duration::from_secs(24 * 3600);
        let at = Instant::now() + Duration::from_millis(left).min(LONGEST);
        if let Some(watch) = self.watches.get_mut(room) {
            watch.wake = Some(watch.wake.map_or(at, |wake| wake.min(at)));
        }
    }

    /// Mutes that have ended, and facts that have become too old.
    pub(super) async fn wake_up(&mut self, now: Instant) {
        let stale_after = self.adapter.config().sync.stale_after;
        let woken: Vec<String> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.wake.is_some_and(|wake| wake <= now))
            .map(|(room, _)| room.clone())
            .collect();
        for room in woken {
            // Stale facts still end a mute on its date.
            let stale = self.watches.get(&room).is_some_and(|watch| watch.stale);
            self.act_again(&room).await;
            if let Some(watch) = self.watches.get_mut(&room) {
                watch.stale = stale;
            }
        }
        let stale: Vec<String> = self
            .watches
            .iter()
            .filter(|(_, watch)| !watch.stale && now >= watch.answered + stale_after)
            .map(|(room, _)| room.clone())
            .collect();
        for room in stale {
            self.became_stale(&room).await;
        }
    }

    async fn became_stale(&mut self, room: &str) {
        let on_stale = self.adapter.config().sync.on_stale;
        tracing::warn!(room, ?on_stale, "Turms has not been heard for long");
        if let Some(watch) = self.watches.get_mut(room) {
            watch.stale = true;
        }
        match on_stale {
            OnStale::Keep => {}
            OnStale::Close => self.close(room).await,
            OnStale::Mute => self.mute_all(room).await,
        }
        self.count_watches();
    }

    async fn mute_all(&mut self, room: &str) {
        let Some(watch) = self.watches.get(room) else { return };
        let present: Vec<(String, Standing)> = watch
            .applied
            .iter()
            .map(|(identity, standing)| (identity.clone(), *standing))
            .collect();
        for (identity, standing) in present {
            if !standing.rights.can_publish {
                continue;
            }
            let rights = Rights { can_publish: false, can_publish_data: false, ..standing.rights };
            let muted = Standing { rights, ..standing };
            if let Some(watch) = self.watches.get_mut(room) {
                watch.applied.insert(identity.clone(), muted);
            }
            self.set_rights(room, &identity, rights, &muted).await;
            self.adapter.stats().participants_muted.add();
        }
    }
}

/// The rights that a participant has now, for changes of attributes alone.
fn as_they_are(attendee: &Attendee, rights: Rights) -> Rights {
    Rights {
        can_publish: attendee.can_publish,
        can_publish_data: attendee.can_publish_data,
        ..rights
    }
}
