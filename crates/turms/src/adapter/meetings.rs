//! Meetings: those that our plugin inside Turms makes, accepts and cancels, and those that Turms'
//! stock plugin made, of which only a token tells.

use std::time::Duration;

use axum::http::StatusCode;

use super::{Adapter, Standing, Subject, TokenWish};
use crate::http::Refusal;
use crate::ids::{MeetingId, Target, UserId};
use crate::memory::{Entry, Meeting};
use crate::policy::Decision;
use crate::rooms::RoomError;

impl Adapter {
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
        self.memory.put(&Entry::Made { meeting: id, facts: meeting }, self.now());
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
        if self.gate.is_cancelled(&target.room_name(), self.now()) {
            return Err(cancelled());
        }
        let standing = match self.subject(target) {
            // Made by another plugin or for another node: Turms has let the user in.
            subject @ Subject::Unknown(_) => {
                let account = self.lookup.user(user, None).await?;
                match self.decide(&subject, user, None, &account).0 {
                    Decision::Allow(rights) => Standing { rights, role: None },
                    Decision::Deny(reason) => return Err(Refusal::denied(reason)),
                }
            }
            _ => self.standing(user, target, None).await?,
        };
        self.mint(user, TokenWish::plain(target), standing).map(|issued| issued.token)
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

    pub(super) fn meeting(&self, id: MeetingId) -> Option<Meeting> {
        self.memory.tables().meetings.get(&id).copied()
    }

    /// Membership of a meeting that we know nothing of is shown by a token for its room, which
    /// Turms' plugin gives to those who accept the invitation.
    pub(super) fn check_proof(
        &self,
        room: &str,
        plugin_token: Option<&str>,
    ) -> Result<(), Refusal> {
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
}

fn cancelled() -> Refusal {
    Refusal::new(StatusCode::GONE, "meeting_cancelled", "the meeting has been cancelled")
}
