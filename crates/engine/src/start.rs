//! Binds the sockets and starts the threads of an engine.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use mio::{Poll, Waker};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sluice_net::{BindOptions, UdpEndpoint, bind_tcp_listener};
use sluice_transport::DtlsIdentity;
use tokio::sync::mpsc;

use crate::api::{Event, WorkerId};
use crate::clock::Clock;
use crate::config::{EngineConfig, MAX_WORKERS, UdpPorts};
use crate::core::{Core, CoreParams};
use crate::engine::{Shared, StartError, WorkerHandle};
use crate::events::EventSink;
use crate::io::Io;
use crate::link::{LinkReceiver, LinkSender, Links, link};
use crate::stats::SharedStats;
use crate::tcp_listener::{self, TcpAcceptor};
use crate::wake::Wake;
use crate::worker::{WAKE_TOKEN, Worker, WorkerSender};

/// Link capacity is divided among this many workers before it shrinks: rings grow with the square
/// of the number of workers.
const WORKERS_AT_FULL_LINK_CAPACITY: usize = 8;

/// Smallest ring between two workers.
const MIN_LINK_CAPACITY: usize = 256;

pub(crate) fn start(config: &EngineConfig) -> Result<(Shared, mpsc::Receiver<Event>), StartError> {
    check(config)?;
    let identity = match &config.identity {
        Some(identity) => Arc::clone(identity),
        None => {
            Arc::new(DtlsIdentity::generate().map_err(|e| StartError::Identity(e.to_string()))?)
        }
    };
    let clock = Clock::new(Instant::now());
    let sockets = bind_udp(config)?;
    let (listeners, tcp_addrs) = bind_tcp(config)?;
    let (events, event_receiver) = mpsc::channel(config.event_capacity);
    let stop = Arc::new(AtomicBool::new(false));
    let polls = make_polls(usize::from(config.workers))?;
    let mut links = make_links(config, &polls);

    let mut shared = Shared {
        workers: Vec::new(),
        tcp_candidates: advertised(config, &tcp_addrs),
        identity: Arc::clone(&identity),
        tcp_refused: Arc::new(AtomicU64::new(0)),
        paths: Arc::default(),
        commands_refused: AtomicU64::new(0),
        serial: AtomicU64::new(0),
        room_affinity: config.room_affinity,
        stop: Box::new(|| {}),
        threads: Mutex::new(Vec::new()),
    };
    let mut threads = Vec::new();
    for (index, (sockets, (poll, wake))) in sockets.into_iter().zip(polls).enumerate() {
        let addrs: Vec<_> = sockets.iter().map(UdpEndpoint::local_addr).collect();
        let (inbox, receiver) = std_mpsc::sync_channel(config.command_capacity);
        let queued = Arc::new(AtomicUsize::new(0));
        let handle = WorkerHandle {
            sender: WorkerSender::new(
                inbox,
                Arc::clone(&wake),
                Arc::clone(&queued),
                config.command_capacity,
            ),
            stats: Arc::new(SharedStats::default()),
            load: Arc::new(AtomicUsize::new(0)),
            udp_candidates: advertised(config, &addrs),
        };
        let (senders, receivers) = std::mem::take(&mut links[index]);
        let core = Core::new(CoreParams {
            worker: WorkerId(index as u8),
            identity: Arc::clone(&identity),
            clock,
            egress_hold: config.egress_hold,
            data_latency: config.data_latency,
            congestion: config.congestion,
            media: config.media,
            links: Links::new(senders),
            events: EventSink::new(events.clone()),
            load: Arc::clone(&handle.load),
            paths: Arc::clone(&shared.paths),
        });
        let worker = Worker {
            poll,
            wake,
            stop: Arc::clone(&stop),
            inbox: receiver,
            queued,
            links: receivers,
            io: Io::new(sockets),
            core,
            shared_stats: Arc::clone(&handle.stats),
        };
        shared.workers.push(handle);
        let pin = config.pin_workers.then_some(index);
        let worker = Thread::Worker { worker: Box::new(worker), pin };
        threads.push((format!("sluice-media-{index}"), worker));
    }
    let acceptor_wake = if listeners.is_empty() {
        None
    } else {
        let (acceptor, wake) = make_acceptor(&shared, listeners, &stop)?;
        threads.push(("sluice-ice-tcp".to_owned(), Thread::Acceptor(Box::new(acceptor))));
        Some(wake)
    };
    let senders: Vec<_> = shared.workers.iter().map(|worker| worker.sender.clone()).collect();
    shared.stop = Box::new(move || {
        stop.store(true, Ordering::Release);
        senders.iter().for_each(WorkerSender::wake);
        acceptor_wake.iter().for_each(Wake::notify);
    });
    shared.threads = Mutex::new(spawn_all(threads, &shared.stop)?);
    Ok((shared, event_receiver))
}

enum Thread {
    /// Stays on the `pin`th core that the process may use.
    Worker {
        worker: Box<Worker>,
        pin: Option<usize>,
    },
    Acceptor(Box<TcpAcceptor>),
}

/// Keeps the calling thread on one of the cores that it may use; more threads than cores share them.
fn pin_to_core(index: usize) -> std::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let mut own = CpuSet::new();
    if let Some(core) = cores.get(index % cores.len().max(1)) {
        own.set(*core);
        sched_setaffinity(None, &own)?;
    }
    Ok(())
}

fn spawn_all(
    threads: Vec<(String, Thread)>,
    stop: &(dyn Fn() + Send + Sync),
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut handles = Vec::new();
    for (name, thread) in threads {
        let spawned = std::thread::Builder::new().name(name).spawn(move || match thread {
            Thread::Worker { worker, pin } => {
                if let Some(Err(error)) = pin.map(pin_to_core) {
                    tracing::warn!(%error, "a worker could not be pinned to a core");
                }
                worker.run();
            }
            Thread::Acceptor(acceptor) => acceptor.run(),
        });
        match spawned {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                stop();
                return Err(StartError::Thread(error));
            }
        }
    }
    Ok(handles)
}

fn check(config: &EngineConfig) -> Result<(), StartError> {
    if !(1..=MAX_WORKERS).contains(&config.workers) {
        return Err(StartError::Config("workers must be between 1 and 62"));
    }
    if config.bind.is_empty() {
        return Err(StartError::Config("no address to bind"));
    }
    if config.advertised.is_empty() && config.bind.iter().all(IpAddr::is_unspecified) {
        return Err(StartError::Config("a wildcard address needs an advertised address"));
    }
    if config.command_capacity == 0 || config.event_capacity == 0 || config.link_capacity == 0 {
        return Err(StartError::Config("queues need a capacity"));
    }
    match config.udp {
        UdpPorts::PerWorker { first, last } if first > last => {
            Err(StartError::Config("the UDP port range is empty"))
        }
        _ => Ok(()),
    }
}

/// Sockets by worker, one per bind address.
fn bind_udp(config: &EngineConfig) -> Result<Vec<Vec<UdpEndpoint>>, StartError> {
    let workers = usize::from(config.workers);
    let mut sockets: Vec<Vec<UdpEndpoint>> = (0..workers).map(|_| Vec::new()).collect();
    for ip in &config.bind {
        for worker in 0..workers {
            let (mut port, shared) = port_of(config, worker);
            if let (UdpPorts::Shared(0), Some(first)) = (config.udp, sockets[0].last())
                && worker > 0
            {
                port = first.local_addr().port();
            }
            let addr = SocketAddr::new(*ip, port);
            let endpoint = UdpEndpoint::bind(BindOptions {
                addr,
                reuse_port: shared,
                recv_buffer_bytes: config.recv_buffer_bytes,
                send_buffer_bytes: config.send_buffer_bytes,
            })
            .map_err(|source| StartError::Bind { proto: "UDP", addr, source })?;
            sockets[worker].push(endpoint);
        }
    }
    Ok(sockets)
}

/// Port of a worker, and whether others use it too.
fn port_of(config: &EngineConfig, worker: usize) -> (u16, bool) {
    let workers = usize::from(config.workers);
    match config.udp {
        UdpPorts::Shared(port) => (port, workers > 1),
        UdpPorts::PerWorker { first: 0, .. } => (0, false),
        UdpPorts::PerWorker { first, last } => {
            let ports = usize::from(last - first) + 1;
            (first + (worker % ports) as u16, ports < workers)
        }
    }
}

fn bind_tcp(
    config: &EngineConfig,
) -> Result<(Vec<std::net::TcpListener>, Vec<SocketAddr>), StartError> {
    let Some(port) = config.tcp_port else { return Ok((Vec::new(), Vec::new())) };
    let (mut listeners, mut addrs) = (Vec::new(), Vec::new());
    for ip in &config.bind {
        let addr = SocketAddr::new(*ip, port);
        let failed = |source| StartError::Bind { proto: "TCP", addr, source };
        let listener = bind_tcp_listener(addr).map_err(failed)?;
        addrs.push(listener.local_addr().map_err(failed)?);
        listeners.push(listener);
    }
    Ok((listeners, addrs))
}

/// What candidates say of bound addresses: each advertised address of the same family with the
/// port, or the bound address itself.
fn advertised(config: &EngineConfig, bound: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for local in bound {
        let same_family = config.advertised.iter().filter(|ip| ip.is_ipv4() == local.is_ipv4());
        addrs.extend(same_family.map(|ip| SocketAddr::new(*ip, local.port())));
        if config.advertised.is_empty() && !local.ip().is_unspecified() {
            addrs.push(*local);
        }
    }
    addrs.dedup();
    addrs
}

fn make_polls(workers: usize) -> Result<Vec<(Poll, Arc<Wake>)>, StartError> {
    let make = |_| {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE_TOKEN)?;
        Ok((poll, Arc::new(Wake::new(waker))))
    };
    (0..workers).map(make).collect::<std::io::Result<_>>().map_err(StartError::Thread)
}

/// The ends of all links, by worker: senders by target, receivers with their origin.
type LinkEnds = (Vec<Option<LinkSender>>, Vec<(WorkerId, LinkReceiver)>);

fn make_links(config: &EngineConfig, polls: &[(Poll, Arc<Wake>)]) -> Vec<LinkEnds> {
    let workers = polls.len();
    let share = config.link_capacity * WORKERS_AT_FULL_LINK_CAPACITY
        / workers.max(WORKERS_AT_FULL_LINK_CAPACITY);
    let capacity = share.max(MIN_LINK_CAPACITY.min(config.link_capacity));
    let mut ends: Vec<LinkEnds> = (0..workers).map(|_| LinkEnds::default()).collect();
    for from in 0..workers {
        for (to, (_, wake)) in polls.iter().enumerate() {
            if from == to {
                ends[from].0.push(None);
                continue;
            }
            let (sender, receiver) = link(capacity, Arc::clone(wake));
            ends[from].0.push(Some(sender));
            ends[to].1.push((WorkerId(from as u8), receiver));
        }
    }
    ends
}

fn make_acceptor(
    shared: &Shared,
    listeners: Vec<std::net::TcpListener>,
    stop: &Arc<AtomicBool>,
) -> Result<(TcpAcceptor, Wake), StartError> {
    let senders = shared.workers.iter().map(|worker| worker.sender.clone()).collect();
    let make = || {
        let poll = Poll::new()?;
        let wake = Wake::new(Waker::new(poll.registry(), tcp_listener::WAKE_TOKEN)?);
        let refused = Arc::clone(&shared.tcp_refused);
        let acceptor = TcpAcceptor::new(poll, listeners, senders, refused, Arc::clone(stop))?;
        Ok((acceptor, wake))
    };
    make().map_err(StartError::Thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_stays_on_one_core_and_others_share_what_there_is() {
        for index in [0, 1_000] {
            let thread = std::thread::spawn(move || {
                pin_to_core(index)?;
                sched_getaffinity(None).map_err(std::io::Error::from)
            });
            let own = thread.join().expect("the thread only pins").expect("Linux can pin");
            assert_eq!(own.count(), 1);
        }
    }
}
