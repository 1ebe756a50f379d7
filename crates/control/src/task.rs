//! The task of one room: takes inputs and time, drains outputs into client queues, the media
//! workers and webhooks. It waits for nobody.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use sluice_engine::SendError;
use sluice_engine::api::{Command, EventKind, PeerId};
use sluice_proto as proto;
use sluice_room::{
    ApiError, CloseReason, DataDrops, Forward, JoinError, JoinParams, Output, Room, RpcId,
    SessionId, WebhookEvent,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant as TokioInstant, sleep_until};

use crate::engine::MediaEngine;
use crate::session::{RESPONSE_QUEUE, Session, SessionOutput, SessionRequests, SessionResponses};
use crate::telemetry::Telemetry;

/// Inputs taken between two looks at the clock.
const INPUT_BATCH: usize = 64;

/// Commands that wait for a worker whose queue is full, per room.
const MAX_BACKLOG: usize = 65_536;

/// Waiting commands are tried again after this.
const BACKLOG_RETRY: Duration = Duration::from_millis(5);

/// Hands an input to another room, by name.
pub(crate) type ForwardInput = Box<dyn Fn(&str, RoomInput) + Send>;

/// A call of the server API into a room.
pub(crate) type Call = Box<dyn FnOnce(&mut Room, Instant) + Send>;

/// Input of a room task.
pub(crate) enum RoomInput {
    Join {
        params: Box<JoinParams>,
        reply: oneshot::Sender<Result<Session, JoinError>>,
    },
    Signal {
        session: SessionId,
        request: Box<proto::SignalRequest>,
        /// The client may send another message once this one is done with.
        turn: Option<OwnedSemaphorePermit>,
    },
    SignalClosed {
        session: SessionId,
    },
    Engine(EventKind),
    Call(Call),
    Forward(Box<Forward>),
    Rpc {
        request: Box<proto::PerformRpcRequest>,
        reply: oneshot::Sender<Result<String, ApiError>>,
    },
}

impl fmt::Debug for RoomInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Join { .. } => "Join",
            Self::Signal { .. } => "Signal",
            Self::SignalClosed { .. } => "SignalClosed",
            Self::Engine(_) => "Engine",
            Self::Call(_) => "Call",
            Self::Forward(_) => "Forward",
            Self::Rpc { .. } => "Rpc",
        })
    }
}

/// What went wrong where nobody waits, over all rooms since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Sessions closed because their client read too slowly.
    pub(crate) slow_sessions: AtomicU64,
    /// Data messages that a worker's queue had no room for.
    pub(crate) data_dropped: AtomicU64,
    /// Other commands that could not be delivered.
    pub(crate) commands_dropped: AtomicU64,
    /// Media events that a room's queue had no room for.
    pub(crate) events_dropped: AtomicU64,
    /// Events that the queue of an observer (webhooks, agents) had no room for.
    pub(crate) webhooks_dropped: AtomicU64,
    /// Rooms that ended in a panic.
    pub(crate) rooms_panicked: AtomicU64,
    /// Data packets of clients that were not passed on, with the reason.
    pub(crate) data: DataCounters,
    /// What rooms live through.
    pub(crate) telemetry: Telemetry,
}

/// [`DataDrops`] over all rooms since the start.
#[derive(Debug, Default)]
pub(crate) struct DataCounters {
    not_allowed: AtomicU64,
    malformed: AtomicU64,
    duplicate: AtomicU64,
    forbidden_kind: AtomicU64,
    waiting_overflow: AtomicU64,
    unknown_data_track: AtomicU64,
    not_connected: AtomicU64,
}

impl DataCounters {
    /// Adds what a room has dropped since it was asked last.
    fn add(&self, now: DataDrops, before: DataDrops) {
        let add = |counter: &AtomicU64, now: u64, before: u64| {
            counter.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        };
        add(&self.not_allowed, now.not_allowed, before.not_allowed);
        add(&self.malformed, now.malformed, before.malformed);
        add(&self.duplicate, now.duplicate, before.duplicate);
        add(&self.forbidden_kind, now.forbidden_kind, before.forbidden_kind);
        add(&self.waiting_overflow, now.waiting_overflow, before.waiting_overflow);
        add(&self.unknown_data_track, now.unknown_data_track, before.unknown_data_track);
        add(&self.not_connected, now.not_connected, before.not_connected);
    }

    pub(crate) fn read(&self) -> DataDrops {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DataDrops {
            not_allowed: read(&self.not_allowed),
            malformed: read(&self.malformed),
            duplicate: read(&self.duplicate),
            forbidden_kind: read(&self.forbidden_kind),
            waiting_overflow: read(&self.waiting_overflow),
            unknown_data_track: read(&self.unknown_data_track),
            not_connected: read(&self.not_connected),
        }
    }
}

/// Everything that a room task owns.
pub(crate) struct RoomTask {
    pub(crate) room: Room,
    pub(crate) inbox: mpsc::Receiver<RoomInput>,
    /// For sessions; weak, so that the room's end is not kept off by itself.
    pub(crate) sender: mpsc::WeakSender<RoomInput>,
    pub(crate) commands: CommandQueue,
    pub(crate) observers: Vec<mpsc::Sender<Arc<WebhookEvent>>>,
    /// Hands an input to another room, by name.
    pub(crate) forward: ForwardInput,
    pub(crate) summary: Arc<ArcSwap<proto::Room>>,
    pub(crate) counters: Arc<Counters>,
    sessions: HashMap<SessionId, mpsc::Sender<SessionOutput>>,
    /// Who waits for the answer of a call.
    rpcs: HashMap<RpcId, oneshot::Sender<Result<String, ApiError>>>,
    published_revision: Option<u64>,
    counted_drops: DataDrops,
}

/// Parts of a [`RoomTask`] that others choose.
pub(crate) struct RoomTaskParams {
    pub(crate) room: Room,
    pub(crate) inbox: mpsc::Receiver<RoomInput>,
    pub(crate) sender: mpsc::WeakSender<RoomInput>,
    pub(crate) engine: Arc<dyn MediaEngine>,
    pub(crate) observers: Vec<mpsc::Sender<Arc<WebhookEvent>>>,
    /// Hands an input to another room, by name.
    pub(crate) forward: ForwardInput,
    pub(crate) summary: Arc<ArcSwap<proto::Room>>,
    pub(crate) counters: Arc<Counters>,
}

impl RoomTask {
    pub(crate) fn new(params: RoomTaskParams) -> Self {
        let RoomTaskParams { room, inbox, sender, engine, observers, forward, summary, counters } =
            params;
        Self {
            room,
            inbox,
            sender,
            commands: CommandQueue {
                engine,
                backlog: VecDeque::new(),
                peers: HashSet::new(),
                counters: counters.clone(),
            },
            observers,
            forward,
            summary,
            counters,
            sessions: HashMap::new(),
            rpcs: HashMap::new(),
            published_revision: None,
            counted_drops: DataDrops::default(),
        }
    }

    /// Runs until the room closes.
    pub(crate) async fn run(mut self) {
        let mut inputs = Vec::with_capacity(INPUT_BATCH);
        self.drain();
        while !self.room.is_closed() {
            let timeout = self.next_wakeup();
            tokio::select! {
                count = self.inbox.recv_many(&mut inputs, INPUT_BATCH) => {
                    if count == 0 {
                        // The manager is gone: nobody can come in any more.
                        self.room.close(now(), proto::DisconnectReason::ServerShutdown);
                    }
                }
                () = wait_until(timeout) => {}
            }
            for input in inputs.drain(..) {
                self.handle(input);
            }
            self.room.handle_timeout(now());
            self.drain();
        }
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let retry = (!self.commands.backlog.is_empty()).then(|| now() + BACKLOG_RETRY);
        match (self.room.poll_timeout(), retry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn handle(&mut self, input: RoomInput) {
        let now = now();
        match input {
            RoomInput::Join { params, reply } => {
                let result = self.join(now, *params);
                // Someone who no longer waits drops the session, which closes it.
                let _ = reply.send(result);
            }
            RoomInput::Signal { session, request, turn } => {
                self.room.handle_signal(now, session, *request);
                drop(turn);
            }
            RoomInput::SignalClosed { session } => {
                self.sessions.remove(&session);
                self.room.signal_closed(now, session);
            }
            RoomInput::Engine(event) => self.room.handle_engine(now, event),
            RoomInput::Call(call) => call(&mut self.room, now),
            // Who cannot be shown here was refused when it was asked for.
            RoomInput::Forward(forward) => drop(self.room.apply_forward(now, *forward)),
            RoomInput::Rpc { request, reply } => match self.room.perform_rpc(now, &request) {
                Ok(rpc) => {
                    self.rpcs.insert(rpc, reply);
                }
                // A caller that gave up needs no answer.
                Err(error) => drop(reply.send(Err(error))),
            },
        }
        self.drain();
    }

    fn join(&mut self, now: Instant, params: JoinParams) -> Result<Session, JoinError> {
        let room = self.sender.upgrade().ok_or(JoinError::Unavailable)?;
        let joined = self.room.join(now, params)?;
        let (sender, queue) = mpsc::channel(RESPONSE_QUEUE);
        self.sessions.insert(joined.session, sender);
        Ok(Session {
            participant_sid: joined.participant_sid.map(|sid| sid.as_str().to_owned()),
            requests: SessionRequests::new(joined.session, room),
            responses: SessionResponses { queue },
        })
    }

    /// Carries out everything that the room wants done.
    fn drain(&mut self) {
        self.commands.retry();
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Signal { session, response } => {
                    if let Some(response) = response.response() {
                        self.counters.telemetry.observe_response(response);
                    }
                    self.deliver(session, SessionOutput::Message(response));
                }
                Output::RefreshToken { session, claims } => {
                    self.deliver(session, SessionOutput::RefreshToken(claims));
                }
                Output::RoomMoved { session, claims, moved } => {
                    self.deliver(session, SessionOutput::RoomMoved(Box::new((*claims, *moved))));
                }
                Output::CloseSignal { session, reason } => {
                    self.deliver(session, SessionOutput::Close(reason));
                    self.sessions.remove(&session);
                }
                Output::Engine(command) => self.commands.send(command),
                Output::Webhook(event) => {
                    let unix_time = SystemTime::now().duration_since(UNIX_EPOCH);
                    self.counters.telemetry.observe(&event, unix_time.unwrap_or_default());
                    self.report(event);
                }
                Output::Forward { destination, forward } => {
                    (self.forward)(&destination, RoomInput::Forward(forward));
                }
                Output::RpcDone { rpc, result } => {
                    if let Some(reply) = self.rpcs.remove(&rpc) {
                        let _ = reply.send(result);
                    }
                }
                Output::Closed => {}
            }
        }
        let drops = self.room.data_drops();
        if drops != self.counted_drops {
            self.counters.data.add(drops, self.counted_drops);
            self.counted_drops = drops;
        }
        let revision = self.room.revision();
        if self.published_revision.replace(revision) != Some(revision) {
            self.summary.store(Arc::new(self.room.to_proto()));
        }
    }

    /// Queues an output for a client; a full queue costs the client its connection.
    fn deliver(&mut self, session: SessionId, output: SessionOutput) {
        let Some(sender) = self.sessions.get(&session) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(output) {
            tracing::warn!(?session, reason = ?CloseReason::Overflow, "client reads too slowly");
            self.counters.slow_sessions.fetch_add(1, Ordering::Relaxed);
            self.sessions.remove(&session);
            self.room.signal_closed(now(), session);
        }
        // A closed queue is followed by `SignalClosed`.
    }

    fn report(&self, event: Box<WebhookEvent>) {
        let event = Arc::<WebhookEvent>::from(event);
        for observer in &self.observers {
            if let Err(mpsc::error::TrySendError::Full(_)) = observer.try_send(event.clone()) {
                self.counters.webhooks_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Commands on their way to the workers, in order even when a worker is busy.
pub(crate) struct CommandQueue {
    engine: Arc<dyn MediaEngine>,
    backlog: VecDeque<Command>,
    /// Peers that exist; closed if the room ends without closing them.
    peers: HashSet<PeerId>,
    counters: Arc<Counters>,
}

impl CommandQueue {
    fn send(&mut self, command: Command) {
        match &command {
            Command::CreatePeer(create) => {
                self.peers.insert(create.peer);
            }
            Command::ClosePeer { peer } => {
                self.peers.remove(peer);
            }
            Command::Subscribe(subscribe) => {
                self.counters
                    .telemetry
                    .subscribed(subscribe.sender.codec.mime().starts_with("video/"));
            }
            _ => {}
        }
        if !self.backlog.is_empty() {
            return self.push(command);
        }
        match self.engine.send(command) {
            Ok(()) => {}
            Err(SendError::Full(command)) if matches!(*command, Command::SendData { .. }) => {
                self.counters.data_dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(SendError::Full(command)) => self.push(*command),
            Err(SendError::Closed(_) | SendError::NoWorker(_)) => {
                self.counters.commands_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn push(&mut self, command: Command) {
        if self.backlog.len() < MAX_BACKLOG {
            self.backlog.push_back(command);
        } else {
            self.counters.commands_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn retry(&mut self) {
        while let Some(command) = self.backlog.pop_front() {
            match self.engine.send(command) {
                Ok(()) => {}
                Err(SendError::Full(command)) => {
                    self.backlog.push_front(*command);
                    return;
                }
                Err(SendError::Closed(_) | SendError::NoWorker(_)) => {
                    self.counters.commands_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Drop for CommandQueue {
    /// After a panic, or with a backlog, some peers are still open.
    fn drop(&mut self) {
        let unsent = self.backlog.drain(..).filter_map(|command| match command {
            Command::ClosePeer { peer } => Some(peer),
            _ => None,
        });
        for peer in self.peers.drain().chain(unsent) {
            if self.engine.send(Command::ClosePeer { peer }).is_err() {
                self.counters.commands_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Time as tokio sees it, so that tests can pause it.
pub(crate) fn now() -> Instant {
    TokioInstant::now().into_std()
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(TokioInstant::from_std(at)).await,
        None => std::future::pending().await,
    }
}
