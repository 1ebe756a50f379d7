//! ICE-TCP connections before they have a worker: accepted here, on a thread of their own, until
//! their first frame, a STUN check, names the worker by its ufrag. Everything about them is bounded:
//! how many wait, for how long, and how much they may send.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use rustc_hash::FxHashMap;
use sluice_net::framing::LENGTH_BYTES;
use sluice_transport::stun;

use crate::engine::worker_of_ufrag;
use crate::worker::{Input, TcpHandOver, WorkerSender};

/// Connections that may wait for their first frame.
const MAX_WAITING: usize = 1024;

/// Connections that may wait for their first frame from one address.
const MAX_WAITING_PER_SOURCE: usize = 64;

/// How long a connection may wait for its first frame.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest first frame, bytes: a STUN check has far less.
const MAX_FIRST_FRAME: usize = 1024;

/// Tokens below are listeners.
const FIRST_CONNECTION: usize = 1024;

/// Token of the waker, above every connection.
pub(crate) const WAKE_TOKEN: Token = Token(usize::MAX);

/// See the module.
pub(crate) struct TcpAcceptor {
    poll: Poll,
    listeners: Vec<mio::net::TcpListener>,
    waiting: FxHashMap<usize, Waiting>,
    next_token: usize,
    workers: Vec<WorkerSender>,
    refused: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

struct Waiting {
    stream: mio::net::TcpStream,
    source: IpAddr,
    received: Vec<u8>,
    deadline: Instant,
}

/// What the bytes received so far say.
#[derive(Debug, PartialEq, Eq)]
enum FirstFrame {
    Incomplete,
    Worker(usize),
    Refused,
}

impl TcpAcceptor {
    /// # Errors
    /// Of the operating system.
    pub(crate) fn new(
        poll: Poll,
        listeners: Vec<TcpListener>,
        workers: Vec<WorkerSender>,
        refused: Arc<AtomicU64>,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let mut listeners: Vec<_> =
            listeners.into_iter().map(mio::net::TcpListener::from_std).collect();
        for (index, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(index), Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            listeners,
            waiting: FxHashMap::default(),
            next_token: FIRST_CONNECTION,
            workers,
            refused,
            stop,
        })
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.stop.load(Ordering::Acquire) {
            let timeout =
                self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the ICE-TCP poll failed; no more connections");
                    return;
                }
            }
            for event in &events {
                match event.token() {
                    WAKE_TOKEN => {}
                    Token(index) if index < FIRST_CONNECTION => self.accept(index),
                    Token(token) => self.read(token),
                }
            }
            self.expire();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.deadline).min()
    }

    fn accept(&mut self, listener: usize) {
        loop {
            let Some(listener) = self.listeners.get(listener) else { return };
            let (mut stream, source) = match listener.accept() {
                Ok((stream, source)) => (stream, source.ip()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    // Out of descriptors, most likely: later connections try again.
                    tracing::warn!(%error, "accepting an ICE-TCP connection failed");
                    return;
                }
            };
            let of_source = self.waiting.values().filter(|other| other.source == source).count();
            if self.waiting.len() >= MAX_WAITING || of_source >= MAX_WAITING_PER_SOURCE {
                self.refuse();
                continue;
            }
            let token = self.next_token;
            self.next_token =
                token.checked_add(1).filter(|t| *t < WAKE_TOKEN.0).unwrap_or(FIRST_CONNECTION);
            if self.poll.registry().register(&mut stream, Token(token), Interest::READABLE).is_err()
            {
                self.refuse();
                continue;
            }
            let deadline = Instant::now() + FIRST_FRAME_TIMEOUT;
            let waiting = Waiting { stream, source, received: Vec::new(), deadline };
            self.waiting.insert(token, waiting);
        }
    }

    fn read(&mut self, token: usize) {
        let workers = self.workers.len();
        let Some(waiting) = self.waiting.get_mut(&token) else { return };
        let mut chunk = [0; 2048];
        let verdict = loop {
            match waiting.stream.read(&mut chunk) {
                Ok(0) => break FirstFrame::Refused,
                Ok(len) => {
                    waiting.received.extend_from_slice(&chunk[..len]);
                    let verdict = examine(&waiting.received, workers);
                    if verdict != FirstFrame::Incomplete {
                        break verdict;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    break FirstFrame::Incomplete;
                }
                Err(_) => break FirstFrame::Refused,
            }
        };
        match verdict {
            FirstFrame::Incomplete => {}
            FirstFrame::Refused => {
                self.waiting.remove(&token);
                self.refuse();
            }
            FirstFrame::Worker(worker) => self.hand_over(token, worker),
        }
    }

    fn hand_over(&mut self, token: usize, worker: usize) {
        let Some(mut waiting) = self.waiting.remove(&token) else { return };
        let deregistered = self.poll.registry().deregister(&mut waiting.stream).is_ok();
        let stream = TcpStream::from(waiting.stream);
        let input = Input::Tcp(TcpHandOver { stream, received: waiting.received });
        if !deregistered || self.workers[worker].push(input).is_err() {
            self.refuse();
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let before = self.waiting.len();
        self.waiting.retain(|_, waiting| waiting.deadline > now);
        self.refused.fetch_add((before - self.waiting.len()) as u64, Ordering::Relaxed);
    }

    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks for a STUN check to one of `workers` in the first frame.
fn examine(received: &[u8], workers: usize) -> FirstFrame {
    let Some((&[high, low], rest)) = received.split_first_chunk::<LENGTH_BYTES>() else {
        return FirstFrame::Incomplete;
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len == 0 || len > MAX_FIRST_FRAME {
        return FirstFrame::Refused;
    }
    let Some(frame) = rest.get(..len) else { return FirstFrame::Incomplete };
    stun::peek_ufrag(frame)
        .and_then(|ufrag| worker_of_ufrag(ufrag.as_bytes()))
        .map(|worker| usize::from(worker.0))
        .filter(|worker| *worker < workers)
        .map_or(FirstFrame::Refused, FirstFrame::Worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_frame_that_is_no_check_for_a_worker_is_refused() {
        assert_eq!(examine(&[], 1), FirstFrame::Incomplete);
        assert_eq!(examine(&[0, 20, 1, 2], 1), FirstFrame::Incomplete);
        assert_eq!(examine(&[0, 0], 1), FirstFrame::Refused);
        assert_eq!(examine(&[0x16, 3, 1, 2], 1), FirstFrame::Refused, "a TLS ClientHello");
        assert_eq!(examine(b"GET / HTTP/1.1\r\n", 1), FirstFrame::Refused);
        assert_eq!(examine(&[0, 2, 9, 9], 1), FirstFrame::Refused);
    }
}
