//! One media worker: a thread with its sockets, its queues and its poll. A turn drains the sockets
//! in batches, then links and commands, runs timers, and flushes every receiver once. A worker with
//! nothing to do sleeps in the poll until a packet, a message or a deadline wakes it; one to which
//! packets come all the time sleeps for a while at once, and looks then.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use sluice_net::{RECV_BATCH, RecvBatch};
use sluice_transport::{Route, TransportProto};

use crate::api::{Command, WorkerId};
use crate::core::Core;
use crate::io::{Io, TCP_TOKEN_BASE};
use crate::link::LinkReceiver;
use crate::stats::SharedStats;
use crate::wake::Wake;

/// Token of the waker.
pub(crate) const WAKE_TOKEN: Token = Token(0);

/// Token of the first UDP socket.
const UDP_TOKEN_BASE: usize = 1;

/// Receive batches per socket and turn: bounds the time until what they caused is flushed.
const BATCHES_PER_TURN: usize = 4;

/// Reads per ICE-TCP connection and turn.
const TCP_READS_PER_TURN: usize = 16;

/// Messages per link and turn.
const LINK_MESSAGES_PER_TURN: usize = 1024;

/// Commands per turn.
const INPUTS_PER_TURN: usize = 256;

/// Datagrams and link messages in a turn after which more are sure to come while the worker rests: to
/// wait for the first of them would be one more wake-up.
const STEADY: u64 = 4;

/// How long to sleep at most while events or link messages wait for room.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Longest sleep of a worker.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How old the published counters may become while the worker is busy.
const STATS_INTERVAL: Duration = Duration::from_millis(250);

/// What reaches a worker from outside of the data plane.
#[derive(Debug)]
pub(crate) enum Input {
    /// From the control plane.
    Command(Command),
    /// From the ICE-TCP listener.
    Tcp(TcpHandOver),
}

/// An accepted connection whose first frame was read.
#[derive(Debug)]
pub(crate) struct TcpHandOver {
    pub(crate) stream: TcpStream,
    pub(crate) received: Vec<u8>,
}

/// The queue into a worker.
#[derive(Clone)]
pub(crate) struct WorkerSender {
    inbox: SyncSender<Input>,
    wake: Arc<Wake>,
    queued: Arc<AtomicUsize>,
    capacity: usize,
}

impl WorkerSender {
    pub(crate) fn new(
        inbox: SyncSender<Input>,
        wake: Arc<Wake>,
        queued: Arc<AtomicUsize>,
        capacity: usize,
    ) -> Self {
        Self { inbox, wake, queued, capacity }
    }

    /// Queues an input and wakes the worker.
    pub(crate) fn push(&self, input: Input) -> Result<(), TrySendError<Input>> {
        self.queued.fetch_add(1, Ordering::Relaxed);
        let result = self.inbox.try_send(input);
        if result.is_ok() {
            self.wake.notify();
        } else {
            self.queued.fetch_sub(1, Ordering::Relaxed);
        }
        result
    }

    /// Whether more than half of the queue is in use.
    pub(crate) fn is_half_full(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > self.capacity / 2
    }

    pub(crate) fn wake(&self) {
        self.wake.notify();
    }
}

/// What a worker thread owns.
pub(crate) struct Worker {
    pub(crate) poll: Poll,
    pub(crate) wake: Arc<Wake>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) inbox: Receiver<Input>,
    pub(crate) queued: Arc<AtomicUsize>,
    pub(crate) links: Vec<(WorkerId, LinkReceiver)>,
    pub(crate) io: Io,
    pub(crate) core: Core,
    pub(crate) shared_stats: Arc<SharedStats>,
}

/// What a turn left undone.
#[derive(Default)]
struct Ready {
    udp: Vec<bool>,
    tcp: Vec<u32>,
    more: bool,
}

impl Worker {
    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut batch = RecvBatch::new();
        // The first turn looks everywhere: something may have come before the poll existed.
        let mut ready = Ready { udp: vec![true; self.io.udp.len()], ..Ready::default() };
        for (index, udp) in self.io.udp.iter_mut().enumerate() {
            let token = Token(UDP_TOKEN_BASE + index);
            if let Err(error) = udp.register(self.poll.registry(), token) {
                tracing::error!(%error, "a UDP socket could not be polled; the worker ends");
                return;
            }
        }
        let mut stats_at = Instant::now();
        loop {
            let now = Instant::now();
            self.core.begin_turn();
            self.receive_udp(now, &mut batch, &mut ready);
            self.receive_tcp(now, &mut ready);
            self.receive_links(now, &mut ready);
            self.receive_inputs(now, &mut ready);
            let stopping = self.stop.load(Ordering::Acquire);
            if stopping {
                self.core.close_all(now);
            }
            self.core.handle_timeouts(now);
            self.core.flush(now, &mut self.io);
            self.finish_turn(now);
            if stopping {
                return self.publish_stats();
            }
            let timeout = self.sleep_limit(&ready);
            let due = now >= stats_at;
            if due {
                stats_at = now + STATS_INTERVAL;
                self.core.trim();
            }
            if due || timeout >= STATS_INTERVAL {
                self.publish_stats();
            }
            let steady = self.core.received_in_turn() >= STEADY && !timeout.is_zero();
            let rested = steady && self.gather();
            if !self.wait(&mut events, if rested { Duration::ZERO } else { timeout }) {
                return;
            }
            if !rested && !events.is_empty() {
                self.gather();
            }
            self.wake.clear();
            for event in &events {
                self.note_ready(event, &mut ready);
            }
        }
    }

    /// Lets packets gather in the kernel, if the worker is busy: many short wake-ups become one. The
    /// poll could not wait that briefly; it counts in milliseconds. False if it is not busy.
    fn gather(&mut self) -> bool {
        let until = self.core.gather_until(Instant::now());
        if let Some(until) = until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        until.is_some()
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> bool {
        match self.poll.poll(events, Some(timeout)) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                events.clear();
                true
            }
            Err(error) => {
                tracing::error!(%error, "the poll failed; the worker ends");
                false
            }
        }
    }

    fn note_ready(&mut self, event: &mio::event::Event, ready: &mut Ready) {
        let Token(token) = event.token();
        if token >= TCP_TOKEN_BASE {
            ready.tcp.push((token - TCP_TOKEN_BASE) as u32);
        } else if let Some(index) = token.checked_sub(UDP_TOKEN_BASE) {
            if event.is_writable() {
                self.io.udp[index].flush();
            }
            if event.is_readable() {
                ready.udp[index] = true;
            }
        }
    }

    fn receive_udp(&mut self, now: Instant, batch: &mut RecvBatch, ready: &mut Ready) {
        for index in 0..self.io.udp.len() {
            for attempt in 1..=BATCHES_PER_TURN {
                if !ready.udp[index] {
                    break;
                }
                match self.io.udp[index].recv(batch) {
                    Ok(received) => {
                        // The poll tells of what comes after the last of them.
                        ready.udp[index] = received == RECV_BATCH;
                        for (remote, bytes, stride) in batch.iter_mut() {
                            let proto = TransportProto::Udp;
                            let route = Route { proto, remote, conn: index as u32 };
                            self.core.handle_datagrams(now, route, bytes, stride);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => ready.udp[index] = false,
                    // An ICMP error of an earlier send; what waits behind it is still there. An
                    // error that stays is met again with the next datagram.
                    Err(_) => ready.udp[index] = attempt < BATCHES_PER_TURN,
                }
            }
        }
    }

    fn receive_tcp(&mut self, now: Instant, ready: &mut Ready) {
        let mut again = Vec::new();
        for id in std::mem::take(&mut ready.tcp) {
            if self.read_tcp(now, id) {
                again.push(id);
            }
        }
        ready.tcp = again;
    }

    /// True if the connection may have more to read.
    fn read_tcp(&mut self, now: Instant, id: u32) -> bool {
        for _ in 0..TCP_READS_PER_TURN {
            let Some((conn, route)) = self.io.tcp_mut(id) else { return false };
            let result = loop {
                match conn.next_frame() {
                    Ok(Some(frame)) => {
                        let len = frame.len();
                        self.core.handle_datagrams(now, route, frame, len);
                    }
                    Ok(None) => break conn.read(),
                    Err(error) => break Err(error),
                }
            };
            match result {
                Ok(true) => {}
                Ok(false) => {
                    // The event may have been about writability.
                    if conn.flush().is_err() {
                        self.io.close_tcp(id);
                    }
                    return false;
                }
                Err(_) => {
                    self.io.close_tcp(id);
                    return false;
                }
            }
        }
        true
    }

    fn receive_links(&mut self, now: Instant, ready: &mut Ready) {
        ready.more = false;
        for (from, link) in &mut self.links {
            for _ in 0..LINK_MESSAGES_PER_TURN {
                let Some(message) = link.pop() else { break };
                self.core.handle_link(now, *from, message);
            }
            ready.more |= link.has_more();
        }
    }

    fn receive_inputs(&mut self, now: Instant, ready: &mut Ready) {
        for _ in 0..INPUTS_PER_TURN {
            let Ok(input) = self.inbox.try_recv() else { return };
            self.queued.fetch_sub(1, Ordering::Relaxed);
            match input {
                Input::Command(command) => self.core.handle_command(now, command),
                Input::Tcp(TcpHandOver { stream, received }) => {
                    match self.io.adopt(now, self.poll.registry(), stream, &received) {
                        Ok(id) => ready.tcp.push(id),
                        Err(error) => tracing::debug!(%error, "an ICE-TCP connection was lost"),
                    }
                }
            }
        }
        ready.more = true;
    }

    fn finish_turn(&mut self, now: Instant) {
        while let Some(id) = self.io.pop_tcp_deadline(now) {
            if let Some((_, route)) = self.io.tcp_mut(id)
                && !self.core.has_route(&route)
            {
                self.io.close_tcp(id);
            }
        }
        let mut gone = Vec::new();
        self.io.finish(self.poll.registry(), UDP_TOKEN_BASE, &mut gone);
        for route in gone {
            self.core.route_gone(route);
        }
        self.core.finish_turn();
    }

    /// How long the poll may sleep.
    fn sleep_limit(&self, ready: &Ready) -> Duration {
        if ready.more || !ready.tcp.is_empty() || ready.udp.contains(&true) {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let timers = [self.core.poll_timeout(), self.io.next_tcp_deadline()];
        let timers =
            timers.into_iter().flatten().min().map(|at| at.max(now + self.core.timer_slack()));
        let deadlines = [timers, self.core.held_until()];
        let sleep =
            deadlines.into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
        // An idle worker turns as well, so that one that is stuck can be told from it.
        let longest = if self.core.is_congested() { RETRY_INTERVAL } else { HEARTBEAT };
        sleep.unwrap_or(longest).min(longest)
    }

    fn publish_stats(&mut self) {
        let stats = self.core.stats_mut();
        self.io.fill_stats(stats);
        self.shared_stats.store(stats);
    }
}
