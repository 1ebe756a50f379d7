//! One UDP socket of a worker: batch receive with GRO, runs of equal size out with GSO, and a bounded
//! queue that keeps the order when the kernel's buffer is full.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use mio::{Interest, Registry, Token};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::arena::Run;
#[cfg(target_os = "linux")]
use crate::messages::{self, MAX_MESSAGES};

/// Runs that are looked at together.
#[cfg(not(target_os = "linux"))]
const MAX_MESSAGES: usize = 32;

/// Bytes of runs that may wait for the kernel on one socket: about 10 ms at 1 Gbit/s.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// Bytes per receive buffer: GRO joins datagrams to at most one full UDP payload.
const RECV_BUFFER_BYTES: usize = 65_535;

/// Connections that the kernel queues for an ICE-TCP listener.
const TCP_BACKLOG: i32 = 1024;

/// Buffers that one [`UdpEndpoint::recv`] fills at most; fewer mean that the socket was empty.
pub const RECV_BATCH: usize = quinn_udp::BATCH_SIZE;

/// How to bind a UDP socket.
#[derive(Debug, Clone, Copy)]
pub struct BindOptions {
    /// Address and port; port 0 asks for a free one.
    pub addr: SocketAddr,
    /// Join the group of sockets on this port (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// `SO_RCVBUF` to ask for, bytes.
    pub recv_buffer_bytes: usize,
    /// `SO_SNDBUF` to ask for, bytes.
    pub send_buffer_bytes: usize,
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// The kernel took it.
    Sent,
    /// It waits behind others until the socket is writable.
    Queued,
    /// The queue is full; dropped.
    QueueFull,
    /// The system refused it; dropped.
    Refused,
}

/// Counters of one socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpCounters {
    /// Datagrams that the kernel took.
    pub datagrams_out: u64,
    /// Bytes of those.
    pub bytes_out: u64,
    /// Runs that those left in.
    pub runs_out: u64,
    /// System calls for those.
    pub send_calls: u64,
    /// Datagrams dropped because the queue was full.
    pub queue_full: u64,
    /// Datagrams that the system refused.
    pub refused: u64,
}

/// A non-blocking UDP socket. Register it with [`register`](Self::register), and call
/// [`flush`](Self::flush) when it is writable.
#[derive(Debug)]
pub struct UdpEndpoint {
    socket: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    pending: VecDeque<PendingRun>,
    pending_bytes: usize,
    wants_writable: bool,
    counters: UdpCounters,
}

#[derive(Debug)]
struct PendingRun {
    to: SocketAddr,
    contents: Box<[u8]>,
    segment_size: usize,
}

impl PendingRun {
    fn segments(&self) -> usize {
        self.contents.len().div_ceil(self.segment_size.max(1))
    }
}

impl UdpEndpoint {
    /// Binds a socket. Warns once per call when the kernel grants smaller buffers than asked for.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn bind(options: BindOptions) -> io::Result<Self> {
        let socket =
            Socket::new(Domain::for_address(options.addr), Type::DGRAM, Some(Protocol::UDP))?;
        if options.addr.is_ipv6() {
            // IPv4 has sockets of its own, so that addresses compare without mapping.
            socket.set_only_v6(true)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        size_buffers(&socket, &options);
        socket.set_nonblocking(true)?;
        socket.bind(&options.addr.into())?;
        let socket = mio::net::UdpSocket::from_std(socket.into());
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        #[cfg(target_os = "linux")]
        messages::silence(&socket);
        Ok(Self {
            state,
            local: socket.local_addr()?,
            socket,
            pending: VecDeque::new(),
            pending_bytes: 0,
            wants_writable: false,
            counters: UdpCounters::default(),
        })
    }

    /// Address that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Datagrams of one size that one send may carry; 1 without GSO.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Counters since the socket was bound.
    pub fn counters(&self) -> UdpCounters {
        self.counters
    }

    /// Adds the socket to a poll, for reading.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// Asks the poll for writability while something is queued, and only then: a UDP socket would
    /// otherwise report it after every send.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn update_interest(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let wants_writable = !self.pending.is_empty();
        if wants_writable == self.wants_writable {
            return Ok(());
        }
        self.wants_writable = wants_writable;
        let writable = wants_writable.then_some(Interest::WRITABLE);
        let interest = writable.map_or(Interest::READABLE, |w| w | Interest::READABLE);
        registry.reregister(&mut self.socket, token, interest)
    }

    /// Receives what waits, up to the batch's size.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits; others of the operating system (an ICMP error of an earlier
    /// send may show up here; try again).
    pub fn recv(&mut self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.count = 0;
        let mut chunks = batch.bytes.chunks_exact_mut(RECV_BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; quinn_udp::BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        batch.count =
            self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut batch.meta)?;
        Ok(batch.count)
    }

    /// Sends a run, or queues it behind what is queued already.
    pub fn send(&mut self, to: SocketAddr, run: Run<'_>) -> SendOutcome {
        if !self.pending.is_empty() {
            return self.queue(to, run.contents, run.segment_size, run.segments);
        }
        match self.send_now(to, run.contents, run.segment_size, run.segments) {
            Ok(()) => SendOutcome::Sent,
            Err((error, sent)) if error.kind() == io::ErrorKind::WouldBlock => {
                let rest = &run.contents[(sent * run.segment_size).min(run.contents.len())..];
                self.queue(to, rest, run.segment_size, run.segments - sent)
            }
            Err((_, sent)) => {
                self.counters.refused += (run.segments - sent) as u64;
                SendOutcome::Refused
            }
        }
    }

    /// Sends runs in order, as [`send`](Self::send) would, in as few system calls as can be.
    pub fn send_many<'a>(&mut self, runs: impl IntoIterator<Item = (SocketAddr, Run<'a>)>) {
        let mut runs = runs.into_iter();
        let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let mut batch = [(unspecified, Run::EMPTY); MAX_MESSAGES];
        loop {
            let mut count = 0;
            for (place, run) in batch.iter_mut().zip(&mut runs) {
                *place = run;
                count += 1;
            }
            self.send_batch(&batch[..count]);
            if count < MAX_MESSAGES {
                return;
            }
        }
    }

    fn send_batch(&mut self, mut batch: &[(SocketAddr, Run<'_>)]) {
        while let Some((to, run)) = batch.first() {
            let sent = match batch.len() > 1 && self.pending.is_empty() {
                true => self.send_messages(batch),
                false => 0,
            };
            // What the kernel did not take goes the way of a single one, which knows what to do.
            if sent == 0 {
                self.send(*to, *run);
            }
            batch = &batch[sent.max(1)..];
        }
    }

    /// Sends the first few of a batch together; returns how many, none if that is not possible.
    #[cfg(target_os = "linux")]
    fn send_messages(&mut self, batch: &[(SocketAddr, Run<'_>)]) -> usize {
        let max_segments = self.state.max_gso_segments();
        let able = batch.iter().take_while(|(_, run)| run.segments <= max_segments).count();
        if able == 0 {
            return 0;
        }
        let sent = messages::send_messages(&self.socket, &batch[..able]).unwrap_or(0);
        for (_, run) in &batch[..sent] {
            self.counters.datagrams_out += run.segments as u64;
            self.counters.bytes_out += run.contents.len() as u64;
        }
        self.counters.runs_out += sent as u64;
        self.counters.send_calls += 1;
        sent
    }

    #[cfg(not(target_os = "linux"))]
    fn send_messages(&mut self, _batch: &[(SocketAddr, Run<'_>)]) -> usize {
        0
    }

    /// Sends one datagram.
    pub fn send_one(&mut self, to: SocketAddr, datagram: &[u8]) -> SendOutcome {
        self.send(to, Run { contents: datagram, segment_size: datagram.len(), segments: 1 })
    }

    /// Sends what is queued until the kernel's buffer is full again.
    pub fn flush(&mut self) {
        while let Some(run) = self.pending.pop_front() {
            self.pending_bytes -= run.contents.len();
            let segments = run.segments();
            match self.send_now(run.to, &run.contents, run.segment_size, segments) {
                Ok(()) => {}
                Err((error, sent)) if error.kind() == io::ErrorKind::WouldBlock => {
                    let contents: Box<[u8]> = run.contents[sent * run.segment_size..].into();
                    self.pending_bytes += contents.len();
                    self.pending.push_front(PendingRun { contents, ..run });
                    return;
                }
                Err((_, sent)) => self.counters.refused += (segments - sent) as u64,
            }
        }
    }

    fn queue(
        &mut self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: usize,
        segments: usize,
    ) -> SendOutcome {
        if self.pending_bytes + contents.len() > MAX_PENDING_BYTES {
            self.counters.queue_full += segments as u64;
            return SendOutcome::QueueFull;
        }
        self.pending_bytes += contents.len();
        self.pending.push_back(PendingRun { to, contents: contents.into(), segment_size });
        SendOutcome::Queued
    }

    /// The error carries how many datagrams went out before it.
    fn send_now(
        &mut self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: usize,
        segments: usize,
    ) -> Result<(), (io::Error, usize)> {
        if segments > 1 && segments <= self.state.max_gso_segments() {
            match self.transmit(to, contents, Some(segment_size), segments) {
                Ok(()) => return Ok(()),
                // The device refused segmentation offload; quinn-udp has switched it off.
                Err(_) if self.state.max_gso_segments() == 1 => {}
                Err(error) => return Err((error, 0)),
            }
        }
        for (sent, datagram) in contents.chunks(segment_size.max(1)).enumerate() {
            self.transmit(to, datagram, None, 1).map_err(|error| (error, sent))?;
        }
        Ok(())
    }

    fn transmit(
        &mut self,
        destination: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
        segments: usize,
    ) -> io::Result<()> {
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        let socket = UdpSockRef::from(&self.socket);
        let mut result = self.state.try_send(socket, &transmit);
        if matches!(&result, Err(e) if e.kind() == io::ErrorKind::ConnectionRefused) {
            // An ICMP error of an earlier datagram, reported once; this one was not tried yet.
            result = self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        }
        result?;
        self.counters.datagrams_out += segments as u64;
        self.counters.bytes_out += contents.len() as u64;
        self.counters.runs_out += 1;
        self.counters.send_calls += 1;
        Ok(())
    }
}

/// Memory for received datagrams, one per worker, used for all of its sockets in turn.
#[derive(Debug)]
pub struct RecvBatch {
    bytes: Box<[u8]>,
    meta: [RecvMeta; quinn_udp::BATCH_SIZE],
    count: usize,
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RecvBatch {
    /// Memory for a full batch: `quinn_udp::BATCH_SIZE` times a joined datagram.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; RECV_BUFFER_BYTES * quinn_udp::BATCH_SIZE].into_boxed_slice(),
            meta: [RecvMeta::default(); quinn_udp::BATCH_SIZE],
            count: 0,
        }
    }

    /// Received buffers: their source, their bytes, and the size at which they split into
    /// datagrams (the last may be shorter), as `chunks_mut` takes it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8], usize)> {
        let chunks = self.bytes.chunks_exact_mut(RECV_BUFFER_BYTES);
        chunks.zip(&self.meta).take(self.count).map(|(bytes, meta)| {
            let len = meta.len.min(bytes.len());
            (meta.addr, &mut bytes[..len], meta.stride.max(1))
        })
    }
}

/// Binds an ICE-TCP listener, non-blocking.
///
/// # Errors
/// Of the operating system.
pub fn bind_tcp_listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restarted server may bind while old connections linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket.into())
}

fn size_buffers(socket: &Socket, options: &BindOptions) {
    let received = socket
        .set_recv_buffer_size(options.recv_buffer_bytes)
        .and_then(|()| socket.recv_buffer_size());
    check_buffer("net.core.rmem_max", options.recv_buffer_bytes, received);
    let sent = socket
        .set_send_buffer_size(options.send_buffer_bytes)
        .and_then(|()| socket.send_buffer_size());
    check_buffer("net.core.wmem_max", options.send_buffer_bytes, sent);
}

fn check_buffer(sysctl: &str, wanted: usize, granted: io::Result<usize>) {
    match granted {
        // Linux reports twice the usable size (socket(7)).
        Ok(doubled) if cfg!(target_os = "linux") && doubled / 2 < wanted => tracing::warn!(
            sysctl,
            wanted_bytes = wanted,
            granted_bytes = doubled / 2,
            "UDP socket buffer is smaller than wanted: bursts may be lost; raise the sysctl"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(sysctl, %error, "UDP socket buffer could not be sized"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn endpoint() -> UdpEndpoint {
        UdpEndpoint::bind(BindOptions {
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            reuse_port: false,
            recv_buffer_bytes: 100_000,
            send_buffer_bytes: 100_000,
        })
        .expect("loopback binds")
    }

    fn run(contents: &[u8], segment_size: usize) -> Run<'_> {
        Run { contents, segment_size, segments: contents.len().div_ceil(segment_size) }
    }

    #[test]
    fn what_the_kernel_did_not_take_goes_first_and_in_order() {
        let (mut sender, mut receiver) = (endpoint(), endpoint());
        let to = receiver.local_addr();
        assert_eq!(sender.queue(to, &[1; 250], 100, 3), SendOutcome::Queued);
        assert_eq!(sender.send(to, run(&[2; 100], 100)), SendOutcome::Queued);
        assert_eq!(sender.counters().datagrams_out, 0);
        sender.flush();
        assert_eq!(sender.send_one(to, &[3; 10]), SendOutcome::Sent);
        assert_eq!((sender.counters().datagrams_out, sender.pending_bytes), (5, 0));
        let mut batch = RecvBatch::new();
        let mut lens = Vec::new();
        while receiver.recv(&mut batch).is_ok() {
            for (_, bytes, stride) in batch.iter_mut() {
                lens.extend(bytes.chunks(stride).map(|d| (d[0], d.len())));
            }
        }
        assert_eq!(lens, [(1, 100), (1, 100), (1, 50), (2, 100), (3, 10)]);
    }

    #[test]
    fn the_queue_is_bounded_and_counts_what_it_refuses() {
        let mut sender = endpoint();
        let to = sender.local_addr();
        let contents = vec![0; 50_000];
        while sender.queue(to, &contents, 1000, 50) == SendOutcome::Queued {}
        assert!(sender.pending_bytes <= MAX_PENDING_BYTES);
        assert_eq!(sender.counters().queue_full, 50);
    }
}
