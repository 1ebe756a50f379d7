//! A media thread: many connections, one poll, one timer heap. Commands come over a channel from the
//! participants' tasks; counters go back when asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as CommandReceiver, Sender as CommandSender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use mio::{Events, Poll, Token, Waker};
use rustc_hash::FxHashMap;
use sluice_net::{RecvBatch, SendArena};
use tokio::sync::oneshot;

use crate::connection::{Connection, ConnectionParams, Shared};
use crate::measure::{Measurements, ReceiveTotals};
use crate::publish::{PublishTotals, Publisher, TrackSpec};
use crate::receive::{ExpectedTrack, ReceiveOptions};
use crate::stamp::Clock;

/// Bytes of datagrams that one connection sends at once: more than a burst of its publisher and the
/// answers to one NACK.
const ARENA_BYTES: usize = 512 * 1024;
/// Longest sleep of a thread.
const MAX_SLEEP: Duration = Duration::from_millis(500);
/// Readiness events per poll.
const EVENTS: usize = 1024;
/// Readiness events in a turn after which a thread rests before it polls again, and how long at most: on
/// one machine the server pays for each time that it wakes a receiver, as it does not over a network.
const BUSY: usize = 4;
const REST: Duration = Duration::from_millis(1);
/// Token of the waker; connections count from 0.
const WAKER: Token = Token(usize::MAX);

/// Names a connection in the whole tester.
pub(crate) type ConnectionId = usize;

/// What a media thread can be told.
pub(crate) enum Command {
    Add(ConnectionId, Box<ConnectionParams>),
    AddCandidates(ConnectionId, Vec<SocketAddr>),
    Expect(ConnectionId, ReceiveOptions, Vec<ExpectedTrack>),
    Publish(ConnectionId, TrackSpec),
    SetLayers {
        id: ConnectionId,
        sid: String,
        enabled: [bool; 3],
    },
    SetSpeaking(ConnectionId, bool),
    Unmute(ConnectionId),
    SendData {
        id: ConnectionId,
        reliable: bool,
        data: Bytes,
    },
    Close(ConnectionId),
    /// Counters so far.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Counters and distributions start anew.
    Restart,
    /// What was published muted is unmuted now: until then nobody waited for media.
    Unmuted,
    Stop,
}

/// Counters of a thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) received: ReceiveTotals,
    pub(crate) published: PublishTotals,
    pub(crate) connected: usize,
    pub(crate) measurements: Measurements,
    /// Datagrams that the kernel refused or that found the queue full.
    pub(crate) send_drops: u64,
}

/// A running media thread.
pub(crate) struct Worker {
    commands: CommandSender<Command>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread.
    ///
    /// # Errors
    /// Of the operating system.
    pub(crate) fn start(name: String, clock: Clock) -> anyhow::Result<Self> {
        let poll = Poll::new().context("epoll")?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).context("waker")?);
        let (commands, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || Loop::new(poll, receiver, clock).run())?;
        Ok(Self { commands, waker, thread: Some(thread) })
    }

    /// Tells the thread something. A thread that ended ignores it.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }

    /// Counters now.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Snapshot(reply));
        answer.await.unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic was printed already.
            let _ = thread.join();
        }
    }
}

struct Loop {
    poll: Poll,
    commands: CommandReceiver<Command>,
    connections: FxHashMap<ConnectionId, Connection>,
    timers: BinaryHeap<Reverse<(Instant, ConnectionId)>>,
    batch: RecvBatch,
    shared: Shared,
    /// Totals of connections that were closed.
    closed: Snapshot,
}

impl Loop {
    fn new(poll: Poll, commands: CommandReceiver<Command>, clock: Clock) -> Self {
        Self {
            poll,
            commands,
            connections: FxHashMap::default(),
            timers: BinaryHeap::new(),
            batch: RecvBatch::new(),
            shared: Shared {
                clock,
                arena: SendArena::new(ARENA_BYTES),
                buffer: Vec::with_capacity(4096),
                reply: Vec::with_capacity(256),
                measurements: Measurements::default(),
            },
            closed: Snapshot::default(),
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let mut timeout = self.sleep();
            if events.iter().count() >= BUSY {
                let rest = timeout.min(REST);
                std::thread::sleep(rest);
                timeout -= rest;
            }
            if self.poll.poll(&mut events, Some(timeout)).is_err() {
                // Interrupted; nothing is ready.
                continue;
            }
            let mut now = Instant::now();
            // What is to be expected is known before it comes.
            if events.iter().any(|event| event.token() == WAKER) && !self.take_commands(now) {
                return;
            }
            for event in &events {
                let id = event.token().0;
                if let Some(connection) = self.connections.get_mut(&id) {
                    // Packets of a long batch did not arrive when it began.
                    now = Instant::now();
                    if event.is_writable() {
                        connection.socket.flush();
                    }
                    connection.on_readable(now, &mut self.batch, &mut self.shared);
                    self.rearm(id);
                }
            }
            self.run_timers();
        }
    }

    fn sleep(&self) -> Duration {
        let next = self.timers.peek().map(|Reverse((at, _))| *at);
        let now = Instant::now();
        next.map_or(MAX_SLEEP, |at| at.saturating_duration_since(now).min(MAX_SLEEP))
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, id))) = self.timers.peek().copied().filter(|t| t.0.0 <= now) {
            self.timers.pop();
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if connection.armed != Some(at) {
                continue;
            }
            connection.armed = None;
            connection.run(now, &mut self.shared);
            let interest = connection.socket.update_interest(self.poll.registry(), Token(id));
            if let Err(error) = interest {
                tracing::warn!(%error, "a socket cannot be polled");
            }
            self.rearm(id);
        }
    }

    /// Puts a connection into the heap if it wants to run earlier than it is in there.
    fn rearm(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(at) = connection.poll_timeout() else { return };
        if connection.armed.is_none_or(|armed| at < armed) {
            connection.armed = Some(at);
            self.timers.push(Reverse((at, id)));
        }
    }

    /// False ends the thread.
    fn take_commands(&mut self, now: Instant) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop => return false,
                Command::Snapshot(reply) => {
                    let _ = reply.send(self.snapshot(now));
                }
                Command::Restart => self.restart(),
                Command::Unmuted => {
                    let receivers =
                        self.connections.values_mut().filter_map(|c| c.receiver.as_mut());
                    receivers.for_each(|receiver| receiver.expect_from(now));
                }
                Command::Add(id, params) => self.add(now, id, *params),
                Command::Close(id) => self.close(now, id),
                command => self.command_for_connection(now, command),
            }
        }
        true
    }

    fn command_for_connection(&mut self, now: Instant, command: Command) {
        let id = match &command {
            Command::AddCandidates(id, _)
            | Command::Expect(id, ..)
            | Command::Publish(id, _)
            | Command::SetLayers { id, .. }
            | Command::SetSpeaking(id, _)
            | Command::Unmute(id)
            | Command::SendData { id, .. } => *id,
            _ => return,
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match command {
            Command::AddCandidates(_, candidates) => connection.add_candidates(now, &candidates),
            Command::Expect(_, options, tracks) => {
                if let Some(receiver) = &mut connection.receiver {
                    receiver.expect(options, &tracks);
                }
            }
            Command::Publish(_, track) => {
                let publisher = connection.publisher.get_or_insert_with(|| Publisher::new(now));
                publisher.add_track(now, track);
            }
            Command::SetLayers { sid, enabled, .. } => {
                if let Some(publisher) = &mut connection.publisher {
                    publisher.set_layers(now, &sid, enabled);
                }
            }
            Command::SetSpeaking(_, speaking) => {
                if let Some(publisher) = &mut connection.publisher {
                    publisher.set_speaking(speaking);
                }
            }
            Command::Unmute(_) => {
                if let Some(publisher) = &mut connection.publisher {
                    publisher.unmute(now);
                }
            }
            Command::SendData { reliable, data, .. } => {
                connection.send_data(now, reliable, data);
                connection.run(now, &mut self.shared);
            }
            _ => {}
        }
        self.rearm(id);
    }

    fn add(&mut self, now: Instant, id: ConnectionId, params: ConnectionParams) {
        let mut connection = Connection::new(now, params);
        if let Err(error) = connection.socket.register(self.poll.registry(), Token(id)) {
            tracing::warn!(%error, "a socket cannot be polled");
        }
        connection.run(now, &mut self.shared);
        self.connections.insert(id, connection);
        self.rearm(id);
    }

    fn close(&mut self, now: Instant, id: ConnectionId) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        self.closed.take(&connection, now);
        connection.close(now, &mut self.shared);
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        let mut snapshot = self.closed.clone();
        self.connections.values().for_each(|connection| snapshot.take(connection, now));
        snapshot.connected = self.connections.values().filter(|c| c.is_connected()).count();
        snapshot.measurements = self.shared.measurements.clone();
        self.shared.measurements.recent_latency.clear();
        snapshot
    }

    fn restart(&mut self) {
        self.closed = Snapshot::default();
        self.shared.measurements.restart();
        for connection in self.connections.values_mut() {
            if let Some(receiver) = &mut connection.receiver {
                receiver.reset_totals();
            }
            if let Some(publisher) = &mut connection.publisher {
                publisher.totals = PublishTotals::default();
            }
        }
    }
}

impl Snapshot {
    fn take(&mut self, connection: &Connection, now: Instant) {
        self.received.add(&connection.receive_totals(now));
        if let Some(publisher) = &connection.publisher {
            self.published.add(&publisher.totals);
        }
        let counters = connection.socket.counters();
        self.send_drops += counters.queue_full + counters.refused;
    }

    /// Adds another thread's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.received.add(&other.received);
        self.published.add(&other.published);
        self.connected += other.connected;
        self.measurements.add(&other.measurements);
        self.send_drops += other.send_drops;
    }
}
