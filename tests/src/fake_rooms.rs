//! Rooms without media, for tests of what decides about them: they remember who is there, with
//! which rights, and what was done to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use sluice_turms::policy::Rights;
use sluice_turms::rooms::{
    Attendee, JoinProof, OpenRoom, RightsChange, RoomError, RoomEvent, RoomEventKind, RoomFuture,
    RoomResult, Rooms, TokenSpec,
};
use tokio::sync::{mpsc, watch};

/// Something that was done to a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A participant's rights were set.
    Rights(String, String, Rights),
    /// A participant became an administrator or ceased to be.
    Admin(String, String, bool),
    /// A participant was removed.
    Removed(String, String),
    /// A room was closed.
    Closed(String),
}

#[derive(Debug, Default)]
struct Inner {
    rooms: BTreeMap<String, BTreeMap<String, Attendee>>,
    max_participants: BTreeMap<String, u32>,
    deeds: Vec<Deed>,
    minted: Vec<TokenSpec>,
}

/// See the module. Clones are the same rooms.
#[derive(Clone)]
pub struct FakeRooms {
    inner: Arc<Mutex<Inner>>,
    events: mpsc::UnboundedSender<RoomEvent>,
    /// Changes with everything that is done.
    changed: watch::Sender<u64>,
}

impl FakeRooms {
    /// Rooms, and what happens in them.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<RoomEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let rooms = Self { inner: Arc::default(), events, changed: watch::Sender::new(0) };
        (rooms, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, room: &str, kind: RoomEventKind) {
        let _ = self.events.send(RoomEvent { room: room.into(), sid: format!("RM_{room}"), kind });
        self.changed.send_modify(|count| *count += 1);
    }

    /// Somebody joins, with the right to publish.
    pub fn join(&self, room: &str, identity: &str) {
        self.join_with(room, identity, true, BTreeMap::new());
    }

    /// Somebody joins with a token that says this.
    pub fn join_with(
        &self,
        room: &str,
        identity: &str,
        can_publish: bool,
        attributes: BTreeMap<String, String>,
    ) {
        let attendee = Attendee {
            identity: identity.into(),
            can_publish,
            can_publish_data: can_publish,
            attributes,
            ..Attendee::default()
        };
        let mut inner = self.lock();
        let is_new = !inner.rooms.contains_key(room);
        inner.rooms.entry(room.into()).or_default().insert(identity.into(), attendee);
        drop(inner);
        if is_new {
            self.tell(room, RoomEventKind::Started);
        }
        self.tell(room, RoomEventKind::Joined(identity.into()));
    }

    /// Somebody leaves; a room without participants closes.
    pub fn leave(&self, room: &str, identity: &str) {
        let mut inner = self.lock();
        let Some(attendees) = inner.rooms.get_mut(room) else { return };
        attendees.remove(identity);
        let empty = attendees.is_empty();
        if empty {
            inner.rooms.remove(room);
        }
        drop(inner);
        self.tell(room, RoomEventKind::Left(identity.into()));
        if empty {
            self.tell(room, RoomEventKind::Finished);
        }
    }

    /// A participant, if there.
    pub fn attendee(&self, room: &str, identity: &str) -> Option<Attendee> {
        self.lock().rooms.get(room)?.get(identity).cloned()
    }

    /// Whether the room is open.
    pub fn is_open(&self, room: &str) -> bool {
        self.lock().rooms.contains_key(room)
    }

    /// Everything that was done so far.
    pub fn deeds(&self) -> Vec<Deed> {
        self.lock().deeds.clone()
    }

    /// The last token that was signed.
    pub fn last_token(&self) -> Option<TokenSpec> {
        self.lock().minted.last().cloned()
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// It does not for a minute.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            while !holds(self) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(),
            "not {what}: {:?}",
            self.deeds()
        );
    }

    fn done(&self, deed: Deed) {
        self.lock().deeds.push(deed);
        self.changed.send_modify(|count| *count += 1);
    }

    fn change(
        &self,
        room: &str,
        identity: &str,
        change: impl FnOnce(&mut Attendee),
    ) -> RoomResult<()> {
        let mut inner = self.lock();
        let attendee = inner.rooms.get_mut(room).and_then(|room| room.get_mut(identity));
        change(attendee.ok_or(RoomError::NotFound)?);
        Ok(())
    }
}

impl Rooms for FakeRooms {
    fn open_rooms(&self) -> Vec<String> {
        self.lock().rooms.keys().cloned().collect()
    }

    fn open_room(&self, room: &str) -> Option<OpenRoom> {
        let inner = self.lock();
        let participants = inner.rooms.get(room)?.len() as u32;
        let max_participants = inner.max_participants.get(room).copied().unwrap_or_default();
        Some(OpenRoom { participants, max_participants })
    }

    fn open<'a>(
        &'a self,
        room: &'a str,
        _empty_timeout: Option<Duration>,
        max_participants: Option<u32>,
    ) -> RoomFuture<'a> {
        let mut inner = self.lock();
        inner.rooms.entry(room.into()).or_default();
        inner.max_participants.insert(room.into(), max_participants.unwrap_or_default());
        drop(inner);
        self.tell(room, RoomEventKind::Started);
        async { Ok(()) }.boxed()
    }

    fn attendees<'a>(&'a self, room: &'a str) -> RoomFuture<'a, Vec<Attendee>> {
        let inner = self.lock();
        let attendees = inner.rooms.get(room).map(|room| room.values().cloned().collect());
        async move { attendees.ok_or(RoomError::NotFound) }.boxed()
    }

    fn set_rights<'a>(&'a self, change: RightsChange<'a>) -> RoomFuture<'a> {
        let RightsChange { room, identity, rights, attributes } = change;
        let result = self.change(room, identity, |attendee| {
            attendee.can_publish = rights.can_publish;
            attendee.can_publish_data = rights.can_publish_data;
            attendee.attributes.extend(attributes);
            attendee.attributes.retain(|_, value| !value.is_empty());
        });
        self.done(Deed::Rights(room.into(), identity.into(), rights));
        async move { result }.boxed()
    }

    fn set_admin<'a>(&'a self, room: &'a str, identity: &'a str, admin: bool) -> RoomFuture<'a> {
        self.done(Deed::Admin(room.into(), identity.into(), admin));
        async { Ok(()) }.boxed()
    }

    fn remove<'a>(&'a self, room: &'a str, identity: &'a str) -> RoomFuture<'a> {
        let there = self.attendee(room, identity).is_some();
        if there {
            self.lock().deeds.push(Deed::Removed(room.into(), identity.into()));
            self.leave(room, identity);
        }
        async move { if there { Ok(()) } else { Err(RoomError::NotFound) } }.boxed()
    }

    fn close<'a>(&'a self, room: &'a str) -> RoomFuture<'a> {
        let there = self.lock().rooms.remove(room).is_some();
        if there {
            self.lock().deeds.push(Deed::Closed(room.into()));
            self.tell(room, RoomEventKind::Finished);
        }
        async move { if there { Ok(()) } else { Err(RoomError::NotFound) } }.boxed()
    }

    fn mint(&self, token: &TokenSpec) -> RoomResult<String> {
        self.lock().minted.push(token.clone());
        Ok(text_of(token))
    }

    /// Tokens of the stock plugin look like `proof:<key>:<room>`, our own ones as they were made.
    fn verify_join(&self, token: &str) -> Option<JoinProof> {
        if let Some(own) = self.lock().minted.iter().find(|spec| text_of(spec) == token) {
            return Some(JoinProof {
                room: own.room.clone(),
                api_key: own.api_key.clone().unwrap_or_default(),
                identity: own.identity.clone(),
                issued_at: own.issued_at,
            });
        }
        let (api_key, room) = token.strip_prefix("proof:")?.split_once(':')?;
        let (api_key, room) = (api_key.to_owned(), room.to_owned());
        Some(JoinProof { room, api_key, identity: String::new(), issued_at: 0 })
    }
}

fn text_of(token: &TokenSpec) -> String {
    format!("token of {} for {} from {}", token.identity, token.room, token.issued_at)
}
