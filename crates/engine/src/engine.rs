//! The control plane's handle on the media workers: starts them, names things, passes commands
//! down and hands out the receiver of events. Nothing here blocks, except [`Engine::shutdown`].

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rand::RngExt;
use sluice_transport::{
    Candidate, CandidateKind, DtlsIdentity, Fingerprint, IceCredentials, TransportProto,
};
use tokio::sync::mpsc;

use crate::api::{Command, Event, PeerId, RoomKey, SubscriptionId, TrackId, WorkerId};
use crate::config::EngineConfig;
use crate::paths::PathStats;
use crate::stats::{EngineStats, SharedStats};
use crate::worker::{Input, WorkerSender};

/// Characters of ICE credentials (RFC 8445 `ice-char` without `+` and `/`); the index of the first
/// one of a `ufrag` is the worker.
const ICE_CHARS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Length of local `ufrag`s: the worker's character and seven random ones.
pub(crate) const UFRAG_LEN: usize = 8;

/// Length of local passwords; 24 of 62 characters are 142 bits (RFC 8445 §5.3 asks for 128).
const PWD_LEN: usize = 24;

/// Type preference of our UDP host candidates (RFC 8445 §5.1.2.2).
const UDP_TYPE_PREFERENCE: u32 = 126;

/// Type preference of our TCP host candidates: below every UDP candidate (RFC 6544 §4.2).
const TCP_TYPE_PREFERENCE: u32 = 90;

/// Direction preference of a passive TCP candidate (RFC 6544 §4.2).
const TCP_PASSIVE_DIRECTION: u32 = 4;

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not usable.
    #[error("engine configuration: {0}")]
    Config(&'static str),
    /// A socket could not be made or bound.
    #[error("binding {proto} {addr}: {source}")]
    Bind {
        /// `UDP` or `TCP`.
        proto: &'static str,
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A thread or poll could not be made.
    #[error("starting a media worker: {0}")]
    Thread(#[source] std::io::Error),
    /// The certificate could not be made.
    #[error("making the DTLS certificate: {0}")]
    Identity(String),
}

/// A command that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The worker's queue is full; try again later.
    #[error("the media worker's command queue is full")]
    Full(Box<Command>),
    /// The engine is shut down.
    #[error("the media worker has ended")]
    Closed(Box<Command>),
    /// The command names no worker of this engine.
    #[error("the command names no worker of this engine")]
    NoWorker(Box<Command>),
}

/// Handle on the workers; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) identity: Arc<DtlsIdentity>,
    pub(crate) tcp_candidates: Vec<SocketAddr>,
    pub(crate) tcp_refused: Arc<AtomicU64>,
    pub(crate) paths: Arc<PathStats>,
    pub(crate) commands_refused: AtomicU64,
    pub(crate) serial: AtomicU64,
    pub(crate) room_affinity: usize,
    pub(crate) stop: Box<dyn Fn() + Send + Sync>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the engine keeps of a worker.
pub(crate) struct WorkerHandle {
    pub(crate) sender: WorkerSender,
    pub(crate) stats: Arc<SharedStats>,
    /// Peers that exist or are about to.
    pub(crate) load: Arc<AtomicUsize>,
    /// Addresses of this worker's UDP candidates.
    pub(crate) udp_candidates: Vec<SocketAddr>,
}

impl Drop for Shared {
    /// The last handle is gone: the threads end by themselves.
    fn drop(&mut self) {
        (self.stop)();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("workers", &self.workers()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Binds the sockets and starts the workers. Events of all workers come out of the receiver;
    /// when it is dropped they are discarded.
    ///
    /// # Errors
    /// See [`StartError`].
    #[expect(clippy::needless_pass_by_value, reason = "the caller has no use for it afterwards")]
    pub fn start(config: EngineConfig) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        let (shared, events) = crate::start::start(&config)?;
        Ok((Self { shared: Arc::new(shared) }, events))
    }

    /// Number of workers.
    pub fn workers(&self) -> u8 {
        // `EngineConfig::workers` is a u8.
        self.shared.workers.len() as u8
    }

    /// The worker that a new participant of a room should live on: the one with the fewest peers,
    /// unless the room's own has at most [`EngineConfig::room_affinity`] more.
    pub fn place(&self, room: RoomKey) -> WorkerId {
        let workers = &self.shared.workers;
        let load = |index: usize| workers[index].load.load(Ordering::Relaxed);
        let home = (room.0 % workers.len() as u64) as usize;
        let emptiest = (0..workers.len())
            .map(|step| (home + step) % workers.len())
            .min_by_key(|index| load(*index))
            .unwrap_or(home);
        let stays = load(home) <= load(emptiest) + self.shared.room_affinity;
        WorkerId(if stays { home } else { emptiest } as u8)
    }

    /// A fresh id for a peer on a worker.
    pub fn next_peer_id(&self, worker: WorkerId) -> PeerId {
        PeerId::new(worker, self.next_serial())
    }

    /// A fresh id for a track published from a worker.
    pub fn next_track_id(&self, worker: WorkerId) -> TrackId {
        TrackId::new(worker, self.next_serial())
    }

    /// A fresh id for a subscription of a receiver on a worker.
    pub fn next_subscription_id(&self, worker: WorkerId) -> SubscriptionId {
        SubscriptionId::new(worker, self.next_serial())
    }

    /// Fresh local credentials whose `ufrag` leads STUN to a worker.
    pub fn new_ice_credentials(&self, worker: WorkerId) -> IceCredentials {
        let mut rng = rand::rng();
        let mut chars = |count: usize| -> String {
            (0..count)
                .map(|_| char::from(ICE_CHARS[rng.random_range(0..ICE_CHARS.len())]))
                .collect()
        };
        let tag = char::from(ICE_CHARS[usize::from(worker.0) % ICE_CHARS.len()]);
        IceCredentials { ufrag: format!("{tag}{}", chars(UFRAG_LEN - 1)), pwd: chars(PWD_LEN) }
    }

    /// Candidates of a worker: its UDP addresses, then the ICE-TCP ones.
    pub fn candidates(&self, worker: WorkerId) -> Vec<Candidate> {
        let Some(handle) = self.shared.workers.get(usize::from(worker.0)) else {
            return Vec::new();
        };
        let udp = handle.udp_candidates.iter().map(|addr| (TransportProto::Udp, *addr));
        let tcp = self.shared.tcp_candidates.iter().map(|addr| (TransportProto::Tcp, *addr));
        udp.chain(tcp)
            .enumerate()
            .map(|(index, (proto, addr))| candidate(index, proto, addr))
            .collect()
    }

    /// Fingerprint of the node's certificate (SHA-256).
    pub fn fingerprint(&self) -> Fingerprint {
        self.shared.identity.fingerprint_sha256().clone()
    }

    /// Queues a command for the worker that owns what it names. Never blocks. The upper half of
    /// the queue is kept for commands other than [`Command::SendData`].
    ///
    /// # Errors
    /// [`SendError`] returns the command.
    pub fn send(&self, command: Command) -> Result<(), SendError> {
        let Some(worker) = command.worker() else {
            return Err(SendError::NoWorker(Box::new(command)));
        };
        let Some(handle) = self.shared.workers.get(usize::from(worker.0)) else {
            return Err(SendError::NoWorker(Box::new(command)));
        };
        if matches!(command, Command::SendData { .. }) && handle.sender.is_half_full() {
            self.shared.commands_refused.fetch_add(1, Ordering::Relaxed);
            return Err(SendError::Full(Box::new(command)));
        }
        let creates = matches!(command, Command::CreatePeer(_));
        if creates {
            handle.load.fetch_add(1, Ordering::Relaxed);
        }
        let error = match handle.sender.push(Input::Command(command)) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if creates {
            handle.load.fetch_sub(1, Ordering::Relaxed);
        }
        match error {
            TrySendError::Full(Input::Command(command)) => {
                self.shared.commands_refused.fetch_add(1, Ordering::Relaxed);
                Err(SendError::Full(Box::new(command)))
            }
            TrySendError::Disconnected(Input::Command(command)) => {
                Err(SendError::Closed(Box::new(command)))
            }
            // `push` gives back what it was given.
            _ => unreachable!("a command was queued"),
        }
    }

    /// Latest counters of every worker; at most a second old.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            workers: self.shared.workers.iter().map(|w| w.stats.load()).collect(),
            commands_refused: self.shared.commands_refused.load(Ordering::Relaxed),
            tcp_refused: self.shared.tcp_refused.load(Ordering::Relaxed),
        }
    }

    /// How media fares on its paths, over all workers.
    pub fn paths(&self) -> &PathStats {
        &self.shared.paths
    }

    /// Closes every peer, ends the threads and waits for them.
    pub fn shutdown(&self) {
        (self.shared.stop)();
        let threads = {
            let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *threads)
        };
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a media thread ended in a panic");
            }
        }
    }

    fn next_serial(&self) -> u64 {
        self.shared.serial.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Worker that a local `ufrag` leads to.
pub(crate) fn worker_of_ufrag(ufrag: &[u8]) -> Option<WorkerId> {
    let tag = ufrag.first()?;
    ICE_CHARS.iter().position(|c| c == tag).map(|index| WorkerId(index as u8))
}

/// RFC 8445 §5.1.2.1: `2^24 * type + 2^8 * local + (256 - component)`.
fn candidate(index: usize, proto: TransportProto, addr: SocketAddr) -> Candidate {
    // Earlier addresses are preferred; a node has few.
    let other = 255u32.saturating_sub(index as u32);
    let (type_preference, local, tcp_type) = match proto {
        TransportProto::Udp => (UDP_TYPE_PREFERENCE, 0xff00 | other, None),
        TransportProto::Tcp => {
            (TCP_TYPE_PREFERENCE, TCP_PASSIVE_DIRECTION << 13 | other, Some("passive".to_owned()))
        }
    };
    Candidate {
        foundation: (index + 1).to_string(),
        component: 1,
        proto,
        priority: type_preference << 24 | local << 8 | 255,
        addr,
        kind: CandidateKind::Host,
        tcp_type,
    }
}
