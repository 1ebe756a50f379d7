//! All rooms of this node: finds or makes the room of a join, routes media events, and removes rooms
//! that are over. Calls of the server API are in [`api`] and [`transfer`], numbers in [`stats`].

mod api;
mod stats;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use sluice_engine::api::{ChannelLabel, Event, EventKind};
use sluice_proto as proto;
use sluice_proto::signal_response::Message as Response;
use sluice_room::{
    ApiError, CloseReason, Grants, JoinError, JoinParams, Room, RoomConfig, RoomParams,
    RoomSettings, SharedResponse, WebhookEvent,
};
use tokio::sync::mpsc;

pub use self::stats::ManagerStats;
use crate::engine::{Host, MediaEngine};
use crate::registry::Registry;
use crate::revocation::Revocations;
use crate::room_handle::RoomHandle;
use crate::session::Session;
use crate::task::{Counters, ForwardInput, RoomInput, RoomTask, RoomTaskParams, now};

/// Inputs that may wait for one room.
const ROOM_QUEUE: usize = 4096;

/// A room that takes no event for this long has lost it.
const EVENT_TIMEOUT: Duration = Duration::from_secs(1);

/// A join that meets rooms which are just closing tries this often.
const JOIN_ATTEMPTS: usize = 3;

/// Settings of the manager.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// Settings that all rooms share.
    pub room: Arc<RoomConfig>,
    /// Whether a join creates its room; otherwise only callers with `roomCreate` do.
    pub auto_create: bool,
    /// Named settings that a token or `CreateRoom` may ask for (`room.room_configurations`).
    pub presets: BTreeMap<String, proto::RoomConfiguration>,
    /// Each receives every event of every room, those of one room in order. A full queue drops
    /// them, counted.
    pub observers: Vec<mpsc::Sender<Arc<WebhookEvent>>>,
    /// Tokens that were taken back.
    pub revocations: Arc<Revocations>,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self {
            room: Arc::new(RoomConfig::default()),
            auto_create: true,
            presets: BTreeMap::new(),
            observers: Vec::new(),
            revocations: Arc::default(),
        }
    }
}

/// All rooms of this node. Clones are the same manager.
#[derive(Clone)]
pub struct RoomManager {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn MediaEngine>,
    config: ManagerConfig,
    rooms: Registry,
    shutting_down: AtomicBool,
    counters: Arc<Counters>,
}

impl RoomManager {
    /// A manager without rooms. Also spawn [`Self::run_events`].
    pub fn new(engine: Arc<dyn MediaEngine>, config: ManagerConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                engine,
                config,
                rooms: Registry::default(),
                shutting_down: AtomicBool::new(false),
                counters: Arc::default(),
            }),
        }
    }

    /// Routes media events to rooms until the engine ends.
    pub async fn run_events(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            self.route(event).await;
        }
    }

    async fn route(&self, event: Event) {
        let Some(inbox) = self.inner.rooms.inbox_of(event.room) else { return };
        let input = match inbox.try_send(RoomInput::Engine(event.kind)) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            Err(mpsc::error::TrySendError::Full(input)) => input,
        };
        if may_be_lost(&input) || inbox.send_timeout(input, EVENT_TIMEOUT).await.is_err() {
            self.inner.counters.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Checks what a join would check, without joining (`/rtc/validate`).
    ///
    /// # Errors
    /// See [`JoinError`].
    pub fn check_join(&self, room: &str, grants: &Grants) -> Result<(), JoinError> {
        if self.inner.shutting_down.load(Ordering::Relaxed) {
            return Err(JoinError::Unavailable);
        }
        let may_create = self.inner.config.auto_create || grants.room_create;
        if !may_create && !self.inner.rooms.contains(room) {
            return Err(JoinError::RoomNotFound);
        }
        Ok(())
    }

    /// Joins or resumes; creates the room if allowed. `settings` apply to a room created here.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(
        &self,
        room: &str,
        settings: RoomSettings,
        params: JoinParams,
    ) -> Result<Session, JoinError> {
        self.check_join(room, &params.grants)?;
        if self.inner.config.revocations.covers(room, &params.identity, params.token_issued_at) {
            return Err(JoinError::NotAllowed("token has been revoked".into()));
        }
        let settings = self.complete(settings).map_err(JoinError::Invalid)?;
        // A session can only be resumed in the room where it lives.
        if params.reconnect && !self.inner.rooms.contains(room) {
            return Ok(refused_resume());
        }
        for _ in 0..JOIN_ATTEMPTS {
            let handle = self.get_or_create(room, &settings);
            match handle.join(params.clone()).await {
                // The room closed meanwhile; the next round makes a new one.
                Err(JoinError::Unavailable) => self.inner.rooms.forget(room, handle.key),
                result => return result,
            }
        }
        Err(JoinError::Unavailable)
    }

    /// Settings with those of their preset filled in.
    fn complete(&self, settings: RoomSettings) -> Result<RoomSettings, String> {
        if settings.preset.is_empty() {
            return Ok(settings);
        }
        let preset = self.inner.config.presets.get(&settings.preset);
        let preset = preset.ok_or("unknown room configuration in create room request")?;
        Ok(settings.or(preset.into()))
    }

    /// Refuses joins of `identity` to `room` with tokens issued before `issued_before` (Unix
    /// seconds): for as long as this node runs, and longer if [`Revocations`] has a file.
    ///
    /// # Errors
    /// It could not be stored, and holds for as long as this node runs.
    pub async fn revoke_tokens(
        &self,
        room: &str,
        identity: &str,
        issued_before: u64,
    ) -> Result<(), ApiError> {
        let stored = self.inner.config.revocations.add(room, identity, issued_before).await;
        stored.map_err(|error| {
            tracing::error!(%error, "cannot store a revoked token (`state_dir`)");
            ApiError::Internal("the revocation is in force but could not be stored".into())
        })
    }

    fn room(&self, name: &str) -> Result<RoomHandle, ApiError> {
        self.inner.rooms.get(name).ok_or(ApiError::ROOM_NOT_FOUND)
    }

    fn get_or_create(&self, name: &str, settings: &RoomSettings) -> RoomHandle {
        self.inner.rooms.get_or_insert_with(name, || self.spawn_room(name, settings.clone()))
    }

    /// Starts the task of a new room, and one that clears up behind it.
    fn spawn_room(&self, name: &str, settings: RoomSettings) -> RoomHandle {
        let inner = &self.inner;
        let key = inner.rooms.next_key();
        let params = RoomParams {
            name: name.to_owned(),
            key,
            config: inner.config.room.clone(),
            settings,
            host: Box::new(Host(inner.engine.clone())),
            seed: rand::random(),
            unix_time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        let room = Room::new(params, now());
        let (inbox, receiver) = mpsc::channel(ROOM_QUEUE);
        let summary = Arc::new(ArcSwap::from_pointee(room.to_proto()));
        let task = RoomTask::new(RoomTaskParams {
            room,
            inbox: receiver,
            sender: inbox.downgrade(),
            engine: inner.engine.clone(),
            observers: inner.config.observers.clone(),
            forward: forward_input(inner),
            summary: summary.clone(),
            counters: inner.counters.clone(),
        });
        inner.rooms.route(key, inbox.clone());
        let (inner, name) = (inner.clone(), name.to_owned());
        let running = tokio::spawn(task.run());
        tokio::spawn(async move {
            if running.await.is_err_and(|error| error.is_panic()) {
                tracing::error!(room = name, "a room ended in a panic");
                inner.counters.rooms_panicked.fetch_add(1, Ordering::Relaxed);
            }
            inner.rooms.forget(&name, key);
        });
        RoomHandle { key, inbox, summary }
    }

    /// Whether joining a room that does not exist makes it.
    pub fn auto_creates(&self) -> bool {
        self.inner.config.auto_create
    }

    /// What clients and agent workers learn about this server.
    pub fn server_info(&self) -> proto::ServerInfo {
        sluice_room::server_info(&self.inner.config.room)
    }

    /// Closes every room with reason `SERVER_SHUTDOWN` and refuses new ones.
    pub async fn shutdown(&self) {
        self.inner.shutting_down.store(true, Ordering::Relaxed);
        for room in self.inner.rooms.list(&[]) {
            let close =
                |room: &mut Room, now| room.close(now, proto::DisconnectReason::ServerShutdown);
            // A room that is over already needs no closing.
            let _ = room.call(close).await;
        }
    }
}

/// How a room reaches another one. A room that is gone needs no news; a full queue loses them,
/// counted.
fn forward_input(inner: &Arc<Inner>) -> ForwardInput {
    let inner = Arc::downgrade(inner);
    Box::new(move |room, input| {
        let Some(inner) = inner.upgrade() else { return };
        if let Some(room) = inner.rooms.get(room)
            && let Err(mpsc::error::TrySendError::Full(_)) = room.inbox.try_send(input)
        {
            inner.counters.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// Events that a later one replaces or that media does not need.
fn may_be_lost(input: &RoomInput) -> bool {
    match input {
        RoomInput::Engine(EventKind::AudioLevels { .. }) => true,
        RoomInput::Engine(EventKind::Data { channel, .. }) => match channel {
            ChannelLabel::Lossy | ChannelLabel::DataTrack => true,
            ChannelLabel::Other { reliable, .. } => !reliable,
            ChannelLabel::Reliable => false,
        },
        _ => false,
    }
}

/// What a client gets that wants to resume in a room which does not exist.
fn refused_resume() -> Session {
    let reason = proto::DisconnectReason::StateMismatch;
    let leave = proto::LeaveRequest {
        can_reconnect: true,
        reason: reason.into(),
        action: proto::leave_request::Action::Reconnect.into(),
        regions: None,
    };
    Session::refused(SharedResponse::new(Response::Leave(leave)), CloseReason::Left(reason))
}
