//! What the adapter needs of the rooms, so that tests can stand in for them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::policy::{Rights, UnixMillis};

/// An open room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRoom {
    /// Participants now.
    pub participants: u32,
    /// Most that may be there; 0 = no limit.
    pub max_participants: u32,
}

/// A participant of a room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attendee {
    /// Identity.
    pub identity: String,
    /// Display name.
    pub name: String,
    /// When the participant came.
    pub joined_at: UnixMillis,
    /// May publish tracks.
    pub can_publish: bool,
    /// May publish data.
    pub can_publish_data: bool,
    /// Publishes something.
    pub is_publishing: bool,
    /// Others do not see this participant.
    pub hidden: bool,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
}

/// What a token should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpec {
    /// Room.
    pub room: String,
    /// Identity.
    pub identity: String,
    /// Display name; may be empty.
    pub name: String,
    /// Rights in the room.
    pub rights: Rights,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Unix seconds from which it counts as issued.
    pub issued_at: i64,
    /// How long it is valid from then.
    pub ttl: Duration,
    /// The API key to sign with; `None` = the server's own choice.
    pub api_key: Option<String>,
}

/// What a participant may do from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RightsChange<'a> {
    /// Room.
    pub room: &'a str,
    /// Participant.
    pub identity: &'a str,
    /// Rights in the room.
    pub rights: Rights,
    /// Attributes that say so; an empty value takes one away.
    pub attributes: BTreeMap<String, String>,
}

/// A LiveKit token that lets its holder join a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinProof {
    /// The room that may be joined.
    pub room: String,
    /// The API key that signed it.
    pub api_key: String,
    /// Who may join; empty in tokens of Turms' stock plugin.
    pub identity: String,
    /// Unix seconds.
    pub issued_at: i64,
}

/// Why a room did not do as told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// There is no such room or participant: mostly they have just gone.
    #[error("no such room or participant")]
    NotFound,
    /// Our fault, or the room is busy.
    #[error("{0}")]
    Failed(String),
}

/// Result of a call into rooms.
pub type RoomResult<T = ()> = Result<T, RoomError>;

/// A call into rooms.
pub type RoomFuture<'a, T = ()> = BoxFuture<'a, RoomResult<T>>;

/// Something that happened to a room, in order per room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEvent {
    /// Name of the room.
    pub room: String,
    /// Its SID: a room that is closed and opened again is another one.
    pub sid: String,
    /// What happened.
    pub kind: RoomEventKind,
}

/// See [`RoomEvent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomEventKind {
    /// The room was opened.
    Started,
    /// The participant of this identity is there.
    Joined(String),
    /// The participant of this identity left.
    Left(String),
    /// The room is closed.
    Finished,
}

/// The rooms of this node.
pub trait Rooms: Send + Sync + 'static {
    /// Names of all rooms.
    fn open_rooms(&self) -> Vec<String>;
    /// A room, if it is open.
    fn open_room(&self, room: &str) -> Option<OpenRoom>;
    /// Makes a room, or finds it.
    fn open<'a>(
        &'a self,
        room: &'a str,
        empty_timeout: Option<Duration>,
        max_participants: Option<u32>,
    ) -> RoomFuture<'a>;
    /// Who is in a room.
    fn attendees<'a>(&'a self, room: &'a str) -> RoomFuture<'a, Vec<Attendee>>;
    /// Changes what a participant may do, and the attributes that say so. Tracks that may not be
    /// published any more are unpublished.
    fn set_rights<'a>(&'a self, change: RightsChange<'a>) -> RoomFuture<'a>;
    /// Makes a participant an administrator, or not; its next tokens say so.
    fn set_admin<'a>(&'a self, room: &'a str, identity: &'a str, admin: bool) -> RoomFuture<'a>;
    /// Removes a participant.
    fn remove<'a>(&'a self, room: &'a str, identity: &'a str) -> RoomFuture<'a>;
    /// Closes a room; its participants are told.
    fn close<'a>(&'a self, room: &'a str) -> RoomFuture<'a>;
    /// Signs a token.
    ///
    /// # Errors
    /// No such key.
    fn mint(&self, token: &TokenSpec) -> RoomResult<String>;
    /// Checks a token that should let its holder join a room.
    fn verify_join(&self, token: &str) -> Option<JoinProof>;
}
