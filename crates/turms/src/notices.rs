//! What groups are told about their calls: that one began, who is there, that it is over, that a
//! meeting was cancelled. Each is a system message in Turms, with an id made from the event, so
//! that sending it again does no harm.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::admin::{Directory, Posted, SystemMessage, TurmsError};
use crate::clock::Clock;
use crate::config::MessagesConfig;
use crate::ids::{GroupId, UserId, user_of_identity};
use crate::policy::UnixMillis;
use crate::rooms::{RoomEvent, RoomEventKind};
use crate::stats::TurmsStats;
use crate::sync_util::lock;

/// Version of the JSON record.
const VERSION: u32 = 1;

/// Most users named in a digest, so that a message stays small.
const MAX_NAMED: usize = 100;

/// First pause after a failure; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// A call that is going on.
#[derive(Debug)]
struct Call {
    group: GroupId,
    sid: String,
    began: UnixMillis,
    present: BTreeSet<String>,
    peak: usize,
    /// When a digest may be sent again, and whether something changed since the last.
    digest_from: Instant,
    changed: bool,
    digests: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Notices {
    config: MessagesConfig,
    clock: Clock,
    stats: Arc<TurmsStats>,
    calls: Mutex<HashMap<String, Call>>,
    queue: Mutex<VecDeque<SystemMessage>>,
    wake: Notify,
}

impl Notices {
    pub(crate) fn new(config: MessagesConfig, clock: Clock, stats: Arc<TurmsStats>) -> Self {
        let (calls, queue) = (Mutex::default(), Mutex::default());
        Self { config, clock, stats, calls, queue, wake: Notify::new() }
    }

    /// Messages that wait for Turms.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.queue).len()
    }

    /// Something happened in the room of a group.
    pub(crate) fn room_event(&self, group: GroupId, event: &RoomEvent) {
        let mut calls = lock(&self.calls);
        let now = self.clock.now_ms();
        let is_new = calls.get(&event.room).is_none_or(|call| call.sid != event.sid);
        if is_new && event.kind != RoomEventKind::Finished {
            let call = Call {
                group,
                sid: event.sid.clone(),
                began: now,
                present: BTreeSet::new(),
                peak: 0,
                digest_from: Instant::now() + self.config.roster_digest,
                changed: false,
                digests: 0,
            };
            if self.config.room_started {
                let text = "A call has begun.";
                self.post(group, &event.sid, text, "room_started", &event.room, json!({}));
            }
            calls.insert(event.room.clone(), call);
        }
        match &event.kind {
            RoomEventKind::Started => {}
            RoomEventKind::Joined(identity) => {
                if let Some(call) = calls.get_mut(&event.room) {
                    call.changed |= call.present.insert(identity.clone());
                    call.peak = call.peak.max(call.present.len());
                }
            }
            RoomEventKind::Left(identity) => {
                if let Some(call) = calls.get_mut(&event.room) {
                    call.changed |= call.present.remove(identity);
                }
            }
            RoomEventKind::Finished => {
                if let Some(call) = calls.remove(&event.room) {
                    self.finished(&event.room, &call, now);
                }
            }
        }
    }

    fn finished(&self, room: &str, call: &Call, now: UnixMillis) {
        if !self.config.room_finished {
            return;
        }
        let seconds = (now - call.began).max(0) / 1000;
        let text = format!(
            "The call is over after {}, with up to {} {}.",
            duration_words(seconds),
            call.peak,
            if call.peak == 1 { "participant" } else { "participants" },
        );
        let more = json!({ "duration_seconds": seconds, "peak_participants": call.peak });
        self.post(call.group, &call.sid, &text, "room_finished", room, more);
    }

    /// The meeting of a group was cancelled.
    pub(crate) fn cancelled(&self, room: &str, group: GroupId) {
        let text = "The meeting has been cancelled.";
        let event = format!("{room}:{}", self.clock.now_ms());
        self.post(group, &event, text, "meeting_cancelled", room, json!({ "meeting_id": room }));
    }

    /// Sends the digests that are due. Cheap when none is.
    pub(crate) fn digests(&self) {
        if self.config.roster_digest.is_zero() {
            return;
        }
        let now = Instant::now();
        for (room, call) in lock(&self.calls).iter_mut() {
            if !call.changed || now < call.digest_from {
                continue;
            }
            call.changed = false;
            call.digest_from = now + self.config.roster_digest;
            call.digests += 1;
            let users: Vec<String> = call
                .present
                .iter()
                .filter_map(|identity| user_of_identity(identity))
                .collect::<BTreeSet<UserId>>()
                .into_iter()
                .take(MAX_NAMED)
                .map(|user| user.to_string())
                .collect();
            let count = call.present.len();
            let text = format!(
                "{count} {} in the call.",
                if count == 1 { "participant is" } else { "participants are" }
            );
            let event = format!("{}:{}", call.sid, call.digests);
            let more = json!({ "participants": users, "participant_count": count });
            self.post(call.group, &event, &text, "roster", room, more);
        }
    }

    /// Queues a message. The text is ours alone: no name that users choose is in it.
    fn post(
        &self,
        group: GroupId,
        event_id: &str,
        text: &str,
        event: &str,
        room: &str,
        more: Value,
    ) {
        let mut record = json!({
            "v": VERSION, "event": event, "room": room, "ts": self.clock.now_ms(),
        });
        if let (Some(record), Value::Object(more)) = (record.as_object_mut(), more) {
            record.extend(more);
        }
        let message = SystemMessage {
            id: message_id(event, room, event_id),
            is_group_message: true,
            is_system_message: true,
            text: text.to_owned(),
            records: vec![
                STANDARD.encode([self.config.type_byte]),
                STANDARD.encode(record.to_string()),
            ],
            target_id: group.get(),
        };
        let mut queue = lock(&self.queue);
        if queue.len() >= self.config.queue_size.max(1) {
            queue.pop_front();
            self.stats.messages_dropped.add();
        }
        queue.push_back(message);
        drop(queue);
        self.wake.notify_one();
    }

    /// Brings messages to Turms, in order, for ever. A message that Turms does not take at the
    /// moment is tried again; one that it calls wrong is given up.
    pub(crate) async fn deliver(&self, directory: Arc<dyn Directory>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(message) = lock(&self.queue).front().cloned() else {
                self.wake.notified().await;
                continue;
            };
            match directory.post_message(&message).await {
                Ok(Posted::Stored) => self.stats.messages_sent.add(),
                Ok(Posted::Duplicate) => self.stats.messages_duplicate.add(),
                Err(TurmsError::Refused(status)) => {
                    tracing::warn!(status, "Turms refuses a system message");
                    self.stats.messages_dropped.add();
                }
                Err(_) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                    continue;
                }
            }
            pause = FIRST_PAUSE;
            // It may have been dropped for a newer one meanwhile.
            let mut queue = lock(&self.queue);
            if queue.front().is_some_and(|front| front.id == message.id) {
                queue.pop_front();
            }
        }
    }
}

/// A positive 63-bit id that the same event always gets.
fn message_id(event: &str, room: &str, event_id: &str) -> i64 {
    let mut hash = Sha256::new();
    for part in [event, room, event_id] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    (i64::from_be_bytes(first) & i64::MAX).max(1)
}

fn duration_words(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_one_id_and_events_have_different_ones() {
        let id = message_id("room_started", "turms:g:1", "RM_a");
        assert_eq!(id, message_id("room_started", "turms:g:1", "RM_a"));
        assert_ne!(id, message_id("room_started", "turms:g:1", "RM_b"));
        assert_ne!(id, message_id("room_started", "turms:g:1R", "M_a"));
        assert!(id > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_drops_the_oldest() {
        let config = MessagesConfig { queue_size: 3, ..MessagesConfig::default() };
        let notices = Notices::new(config, Clock::from(0), Arc::default());
        let group = GroupId::new(1).unwrap();
        for meeting in 0..5 {
            notices.cancelled(&meeting.to_string(), group);
        }
        assert_eq!(notices.waiting(), 3);
        assert_eq!(notices.stats.messages_dropped.get(), 2);
    }
}
