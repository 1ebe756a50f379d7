//! All rooms of this node: finds or makes the room of a join, passes API calls on, routes media
//! events, and removes rooms that are over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use sluice_engine::api::{
    ChannelLabel, Event, EventKind, PeerId, RoomKey, SubscriptionId, TrackId, WorkerId,
};
use sluice_proto as proto;
use sluice_proto::signal_response::Message as Response;
use sluice_room::{
    ApiError, CloseReason, DataDrops, Grants, JoinError, JoinParams, MediaHost, Room, RoomConfig,
    RoomDescription, RoomParams, RoomSettings, SharedResponse, WebhookEvent,
};
use sluice_transport::{Candidate, Fingerprint, IceCredentials};
use tokio::sync::{mpsc, oneshot};

use crate::engine::MediaEngine;
use crate::revocation::Revocations;
use crate::session::Session;
use crate::task::{Counters, ForwardInput, RoomInput, RoomTask, RoomTaskParams, now};
use crate::telemetry::{ByKind, Telemetry};

/// Inputs that may wait for one room.
const ROOM_QUEUE: usize = 4096;

/// A room that takes no event for this long has lost it.
const EVENT_TIMEOUT: Duration = Duration::from_secs(1);

/// A join that meets rooms which are just closing tries this often.
const JOIN_ATTEMPTS: usize = 3;

/// API calls and shutdown wait this long for a room (`api.execution_timeout`).
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

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

/// What the rooms of a node are like and what went wrong in them since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ManagerStats {
    /// Open rooms.
    pub rooms: u64,
    /// Participants in them.
    pub participants: u64,
    /// Participants who publish.
    pub publishers: u64,
    /// Sessions closed because their client read too slowly.
    pub slow_sessions: u64,
    /// Data messages that a worker's queue had no room for.
    pub data_dropped: u64,
    /// Other commands that could not be delivered.
    pub commands_dropped: u64,
    /// Media events that a room's queue had no room for.
    pub events_dropped: u64,
    /// Events that the queue of an observer (webhooks, agents) had no room for.
    pub webhooks_dropped: u64,
    /// Rooms that ended in a panic.
    pub rooms_panicked: u64,
    /// Data packets of clients that were not passed on, with the reason.
    pub data: DataDrops,
}

/// All rooms of this node. Clones are the same manager.
#[derive(Clone)]
pub struct RoomManager {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn MediaEngine>,
    config: ManagerConfig,
    rooms: DashMap<String, RoomHandle>,
    /// The same rooms by the key that media events carry.
    by_key: DashMap<RoomKey, mpsc::Sender<RoomInput>>,
    last_key: AtomicU64,
    shutting_down: AtomicBool,
    counters: Arc<Counters>,
}

#[derive(Clone)]
struct RoomHandle {
    key: RoomKey,
    inbox: mpsc::Sender<RoomInput>,
    summary: Arc<ArcSwap<proto::Room>>,
}

impl RoomManager {
    /// A manager without rooms. Also spawn [`Self::run_events`].
    pub fn new(engine: Arc<dyn MediaEngine>, config: ManagerConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                engine,
                config,
                rooms: DashMap::new(),
                by_key: DashMap::new(),
                last_key: AtomicU64::new(0),
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
        let Some(inbox) = self.inner.by_key.get(&event.room).map(|inbox| inbox.clone()) else {
            return;
        };
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
        if !may_create && !self.inner.rooms.contains_key(room) {
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
        if params.reconnect && !self.inner.rooms.contains_key(room) {
            return Ok(refused_resume());
        }
        for _ in 0..JOIN_ATTEMPTS {
            let handle = self.get_or_create(room, &settings);
            let (reply, result) = oneshot::channel();
            let params = Box::new(params.clone());
            if handle.inbox.send(RoomInput::Join { params, reply }).await.is_ok() {
                match result.await {
                    Ok(Err(JoinError::Unavailable)) | Err(_) => {}
                    Ok(result) => return result,
                }
            }
            // The room closed meanwhile; the next round makes a new one.
            self.inner.forget(room, handle.key);
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

    fn get_or_create(&self, name: &str, settings: &RoomSettings) -> RoomHandle {
        if let Some(handle) = self.inner.rooms.get(name) {
            return handle.clone();
        }
        match self.inner.rooms.entry(name.to_owned()) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                let handle = self.spawn_room(name, settings.clone());
                entry.insert(handle.clone());
                handle
            }
        }
    }

    /// Starts the task of a new room, and one that clears up behind it.
    fn spawn_room(&self, name: &str, settings: RoomSettings) -> RoomHandle {
        let inner = &self.inner;
        let key = RoomKey(inner.last_key.fetch_add(1, Ordering::Relaxed) + 1);
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
        inner.by_key.insert(key, inbox.clone());
        let (inner, name) = (inner.clone(), name.to_owned());
        let running = tokio::spawn(task.run());
        tokio::spawn(async move {
            if running.await.is_err_and(|error| error.is_panic()) {
                tracing::error!(room = name, "a room ended in a panic");
                inner.counters.rooms_panicked.fetch_add(1, Ordering::Relaxed);
            }
            inner.forget(&name, key);
        });
        RoomHandle { key, inbox, summary }
    }

    /// Runs a call in the task of a room.
    async fn call<T: Send + 'static>(
        &self,
        room: &str,
        call: impl FnOnce(&mut Room, Instant) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let handle = self.inner.rooms.get(room).map(|handle| handle.clone());
        let handle = handle.ok_or(ApiError::ROOM_NOT_FOUND)?;
        call_room(&handle, call).await
    }

    /// Like [`Self::call`], about a participant: whoever asks for one in a room that does not exist
    /// misses the participant, as in LiveKit.
    async fn call_about<T: Send + 'static>(
        &self,
        room: &str,
        call: impl FnOnce(&mut Room, Instant) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        match self.call(room, call).await {
            Err(ApiError::NotFound(_)) => Err(ApiError::PARTICIPANT_NOT_FOUND),
            result => result?,
        }
    }

    /// Whether joining a room that does not exist makes it.
    pub fn auto_creates(&self) -> bool {
        self.inner.config.auto_create
    }

    /// `CreateRoom`: makes a room or returns the existing one with explicit overrides applied.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_room(
        &self,
        request: proto::CreateRoomRequest,
    ) -> Result<proto::Room, ApiError> {
        if self.inner.shutting_down.load(Ordering::Relaxed) {
            return Err(ApiError::Unavailable("node is shutting down"));
        }
        let limits = &self.inner.config.room.limits;
        if request.name.is_empty() {
            return Err(ApiError::InvalidArgument("room name is required".into()));
        }
        if request.name.len() > limits.max_room_name_length {
            return Err(ApiError::InvalidArgument("room name length exceeds limits".into()));
        }
        if request.metadata.len() > limits.max_metadata_size {
            let argument = "metadata size exceeds limits";
            return Err(ApiError::Argument {
                argument,
                problem: limits.max_metadata_size.to_string(),
            });
        }
        let settings = self.complete(RoomSettings::from(&request));
        let settings = settings.map_err(ApiError::InvalidArgument)?;
        let handle = self.get_or_create(&request.name, &settings);
        call_room(&handle, move |room, now| room.update_settings(now, &settings)).await
    }

    /// `ListRooms`; empty `names` = all.
    pub fn list_rooms(&self, names: &[String]) -> Vec<proto::Room> {
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        let rooms = self.inner.rooms.iter().filter(|entry| wanted(entry.key()));
        rooms.map(|entry| entry.value().summary.load().as_ref().clone()).collect()
    }

    /// `DeleteRoom`.
    ///
    /// # Errors
    /// No such room.
    pub async fn delete_room(&self, room: &str) -> Result<(), ApiError> {
        let close = |room: &mut Room, now| room.close(now, proto::DisconnectReason::RoomDeleted);
        self.call(room, close).await?;
        // The name is free as soon as the caller knows.
        self.inner.rooms.remove(room);
        Ok(())
    }

    /// `ListParticipants`; nobody is in a room that does not exist.
    ///
    /// # Errors
    /// The room does not answer.
    pub async fn list_participants(
        &self,
        room: &str,
    ) -> Result<Vec<proto::ParticipantInfo>, ApiError> {
        match self.call(room, |room, _| room.list_participants()).await {
            Err(ApiError::NotFound(_)) => Ok(Vec::new()),
            result => result,
        }
    }

    /// `GetParticipant`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn get_participant(
        &self,
        room: &str,
        identity: &str,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        let identity = identity.to_owned();
        self.call_about(room, move |room, _| room.get_participant(&identity)).await
    }

    /// `RemoveParticipant`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn remove_participant(&self, room: &str, identity: &str) -> Result<(), ApiError> {
        let identity = identity.to_owned();
        self.call_about(room, move |room, now| room.remove_participant(now, &identity)).await
    }

    /// `MutePublishedTrack`.
    ///
    /// # Errors
    /// No such participant, or unmuting is not enabled.
    pub async fn mute_track(
        &self,
        request: proto::MuteRoomTrackRequest,
    ) -> Result<Option<proto::TrackInfo>, ApiError> {
        let room = request.room.clone();
        self.call_about(&room, move |room, now| room.mute_track(now, &request)).await
    }

    /// `SendData`.
    ///
    /// # Errors
    /// No such room, or the request is wrong.
    pub async fn send_data(&self, request: proto::SendDataRequest) -> Result<(), ApiError> {
        let room = request.room.clone();
        self.call(&room, move |room, now| room.send_data(now, &request)).await?
    }

    /// `UpdateParticipant`.
    ///
    /// # Errors
    /// No such room or participant, or a limit is exceeded.
    pub async fn update_participant(
        &self,
        request: proto::UpdateParticipantRequest,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        let room = request.room.clone();
        self.call_about(&room, move |room, now| room.update_participant(now, &request)).await
    }

    /// Gives or takes a participant's `roomAdmin`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn set_room_admin(
        &self,
        room: &str,
        identity: &str,
        room_admin: bool,
    ) -> Result<(), ApiError> {
        let identity = identity.to_owned();
        self.call(room, move |room, now| room.set_room_admin(now, &identity, room_admin)).await?
    }

    /// `UpdateSubscriptions`.
    ///
    /// # Errors
    /// No such room or participant.
    pub async fn update_subscriptions(
        &self,
        request: proto::UpdateSubscriptionsRequest,
    ) -> Result<(), ApiError> {
        let room = request.room.clone();
        self.call_about(&room, move |room, now| room.update_subscriptions(now, &request)).await
    }

    /// `UpdateRoomMetadata`.
    ///
    /// # Errors
    /// No such room, or the metadata is too large.
    pub async fn update_room_metadata(
        &self,
        room: &str,
        metadata: String,
    ) -> Result<proto::Room, ApiError> {
        self.call(room, move |room, now| room.update_metadata(now, &metadata)).await?
    }

    /// What rooms have lived through.
    pub fn telemetry(&self) -> &Telemetry {
        &self.inner.counters.telemetry
    }

    /// Published tracks and subscriptions now, by kind: (published, subscribed).
    pub async fn track_counts(&self) -> (ByKind, ByKind) {
        let (mut published, mut subscribed) = (ByKind::default(), ByKind::default());
        for room in self.ask_rooms(Room::track_counts).await {
            for (video, (tracks, subscriptions)) in room.into_iter().enumerate() {
                published[video] += tracks;
                subscribed[video] += subscriptions;
            }
        }
        (published, subscribed)
    }

    /// The state of every room in words, rooms that do not answer left out.
    pub async fn describe_rooms(&self) -> Vec<RoomDescription> {
        self.ask_rooms(Room::describe).await
    }

    async fn ask_rooms<T: Send + 'static>(&self, question: fn(&Room) -> T) -> Vec<T> {
        let handles: Vec<RoomHandle> =
            self.inner.rooms.iter().map(|entry| entry.value().clone()).collect();
        let mut answers = Vec::with_capacity(handles.len());
        for handle in handles {
            answers.extend(call_room(&handle, move |room, _| question(room)).await.ok());
        }
        answers
    }

    /// `MoveParticipant`; makes the destination if need be.
    ///
    /// # Errors
    /// No such participant, or it is reconnecting.
    pub async fn move_participant(
        &self,
        request: proto::MoveParticipantRequest,
    ) -> Result<(), ApiError> {
        let proto::MoveParticipantRequest { room, identity, destination_room } = request;
        // A move that fails makes no room.
        self.get_participant(&room, &identity).await?;
        let name = destination_room.clone();
        let request = proto::CreateRoomRequest { name, ..Default::default() };
        let destination = self.create_room(request).await?;
        let mut others = self.list_participants(&destination_room).await?;
        others.retain(|other| {
            let hidden = other.permission.as_ref().is_some_and(|permission| permission.hidden);
            !hidden && other.identity != identity
        });
        let leave =
            move |room: &mut Room, now| room.move_participant(now, &identity, &destination, others);
        self.call_about(&room, leave).await
    }

    /// `ForwardParticipant`; makes the destination if need be. Ends when the participant leaves its
    /// room or is removed from the destination.
    ///
    /// # Errors
    /// No such participant, or the destination cannot take it.
    pub async fn forward_participant(
        &self,
        request: proto::ForwardParticipantRequest,
    ) -> Result<(), ApiError> {
        let proto::ForwardParticipantRequest { room, identity, destination_room } = request;
        // A forward that fails makes no room.
        self.get_participant(&room, &identity).await?;
        let name = destination_room.clone();
        self.create_room(proto::CreateRoomRequest { name, ..Default::default() }).await?;
        let begin = || {
            let (who, to) = (identity.clone(), destination_room.clone());
            self.call_about(&room, move |room, _| room.forward_participant(&who, &to))
        };
        let forward = begin().await?;
        let news = forward.clone();
        let apply = move |room: &mut Room, now| room.apply_forward(now, news);
        if let Err(error) = self.call(&destination_room, apply).await.and_then(|result| result) {
            let stop = move |room: &mut Room, _| room.stop_forwarding(&identity, &destination_room);
            // A room that is gone forwards nobody.
            let _ = self.call(&room, stop).await;
            return Err(error);
        }
        // Who left in between was not there yet to be removed.
        if begin().await.map_or(true, |again| !again.is_about_same(&forward)) {
            let _ = self.remove_participant(&destination_room, &identity).await;
            return Err(ApiError::PARTICIPANT_NOT_FOUND);
        }
        Ok(())
    }

    /// `PerformRpc`: waits for the answer of the participant, at most as long as the request says.
    ///
    /// # Errors
    /// No such room or participant, or the call failed.
    pub async fn perform_rpc(&self, request: proto::PerformRpcRequest) -> Result<String, ApiError> {
        let handle = self.inner.rooms.get(&request.room).map(|handle| handle.clone());
        let handle = handle.ok_or(ApiError::ROOM_NOT_FOUND)?;
        let (reply, result) = oneshot::channel();
        let input = RoomInput::Rpc { request: Box::new(request), reply };
        handle.inbox.send(input).await.map_err(|_| ApiError::ROOM_NOT_FOUND)?;
        result.await.map_err(|_| ApiError::Unavailable("the room closed"))?
    }

    /// What clients and agent workers learn about this server.
    pub fn server_info(&self) -> proto::ServerInfo {
        sluice_room::server_info(&self.inner.config.room)
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> ManagerStats {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = ManagerStats {
            slow_sessions: read(&counters.slow_sessions),
            data_dropped: read(&counters.data_dropped),
            commands_dropped: read(&counters.commands_dropped),
            events_dropped: read(&counters.events_dropped),
            webhooks_dropped: read(&counters.webhooks_dropped),
            rooms_panicked: read(&counters.rooms_panicked),
            data: counters.data.read(),
            ..ManagerStats::default()
        };
        for entry in &self.inner.rooms {
            let summary = entry.value().summary.load();
            stats.rooms += 1;
            stats.participants += u64::from(summary.num_participants);
            stats.publishers += u64::from(summary.num_publishers);
        }
        stats
    }

    /// Closes every room with reason `SERVER_SHUTDOWN` and refuses new ones.
    pub async fn shutdown(&self) {
        self.inner.shutting_down.store(true, Ordering::Relaxed);
        let handles: Vec<RoomHandle> =
            self.inner.rooms.iter().map(|entry| entry.value().clone()).collect();
        for handle in handles {
            let close =
                |room: &mut Room, now| room.close(now, proto::DisconnectReason::ServerShutdown);
            // A room that is over already needs no closing.
            let _ = call_room(&handle, close).await;
        }
    }
}

impl Inner {
    /// Removes a room that is over, unless a newer one has its name.
    fn forget(&self, name: &str, key: RoomKey) {
        self.rooms.remove_if(name, |_, handle| handle.key == key);
        self.by_key.remove(&key);
    }
}

/// How a room reaches another one. A room that is gone needs no news; a full queue loses them,
/// counted.
fn forward_input(inner: &Arc<Inner>) -> ForwardInput {
    let inner = Arc::downgrade(inner);
    Box::new(move |room, input| {
        let Some(inner) = inner.upgrade() else { return };
        let inbox = inner.rooms.get(room).map(|handle| handle.inbox.clone());
        if let Some(inbox) = inbox
            && let Err(mpsc::error::TrySendError::Full(_)) = inbox.try_send(input)
        {
            inner.counters.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    })
}

async fn call_room<T: Send + 'static>(
    handle: &RoomHandle,
    call: impl FnOnce(&mut Room, Instant) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let (reply, result) = oneshot::channel();
    let call = Box::new(move |room: &mut Room, now| {
        // The caller may have given up.
        let _ = reply.send(call(room, now));
    });
    let exchange = async {
        handle.inbox.send(RoomInput::Call(call)).await.ok()?;
        result.await.ok()
    };
    match tokio::time::timeout(CALL_TIMEOUT, exchange).await {
        Ok(Some(result)) => Ok(result),
        Ok(None) => Err(ApiError::ROOM_NOT_FOUND),
        Err(_) => Err(ApiError::Unavailable("the room did not answer in time")),
    }
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

/// The engine as a room sees it.
struct Host(Arc<dyn MediaEngine>);

impl MediaHost for Host {
    fn place(&mut self, room: RoomKey) -> WorkerId {
        self.0.place(room)
    }

    fn next_peer_id(&mut self, worker: WorkerId) -> PeerId {
        self.0.next_peer_id(worker)
    }

    fn next_track_id(&mut self, worker: WorkerId) -> TrackId {
        self.0.next_track_id(worker)
    }

    fn next_subscription_id(&mut self, worker: WorkerId) -> SubscriptionId {
        self.0.next_subscription_id(worker)
    }

    fn ice_credentials(&mut self, worker: WorkerId) -> IceCredentials {
        self.0.new_ice_credentials(worker)
    }

    fn candidates(&self, worker: WorkerId) -> Vec<Candidate> {
        self.0.candidates(worker)
    }

    fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint()
    }
}
