//! Where a worker's packets leave: its UDP sockets and ICE-TCP connections, behind the one trait
//! that the state machines know.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use rustc_hash::FxHashMap;
use sluice_net::{Parcel, Run, SendArena, SendOutcome, TcpConn, UdpEndpoint};
use sluice_transport::{Route, TransportProto};

use crate::stats::{DropCause, WorkerStats};

/// Token of the first ICE-TCP connection; those below are the waker and the UDP sockets.
pub(crate) const TCP_TOKEN_BASE: usize = 1 << 16;

/// Longest frame that a client may send over ICE-TCP, bytes: what it would send in one datagram.
pub(crate) const MAX_TCP_FRAME: usize = 8192;

/// ICE-TCP connections of one worker at most.
const MAX_TCP_CONNECTIONS: usize = 16_384;

/// How long a connection may exist before one of its STUN checks authenticates.
const TCP_VALIDATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Sink of a worker's datagrams.
pub(crate) trait Outbound {
    /// Sends one datagram, or frame.
    fn send(&mut self, route: Route, datagram: &[u8]);

    /// Sends all parcels, in order.
    fn send_all(&mut self, outbox: &Outbox);

    /// Ends an ICE-TCP connection.
    fn close(&mut self, route: Route);
}

/// Datagrams that are written and sealed, and where each parcel of them goes. Receivers share it, so
/// that they share system calls.
#[derive(Debug)]
pub(crate) struct Outbox {
    arena: SendArena,
    parcels: Vec<(Route, Parcel)>,
}

impl Outbox {
    /// Room for this many bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { arena: SendArena::new(capacity), parcels: Vec::new() }
    }

    /// Begins the datagrams of a receiver. What a receiver wrote before it failed is forgotten.
    pub(crate) fn begin(&mut self) {
        self.arena.discard();
    }

    /// Sends what is there, that of the receiver at `route` included, unless `bytes` are free.
    pub(crate) fn make_room(&mut self, bytes: usize, route: Route, out: &mut dyn Outbound) {
        if self.arena.free() < bytes {
            self.end(route);
            self.send(out);
        }
    }

    /// Where the next datagram of the receiver is written; [`commit`](Self::commit) it then.
    pub(crate) fn tail(&mut self) -> &mut [u8] {
        self.arena.tail()
    }

    /// Makes the first bytes of the tail a datagram.
    pub(crate) fn commit(&mut self, len: usize) {
        self.arena.commit(len);
    }

    /// Ends the datagrams of a receiver.
    pub(crate) fn end(&mut self, route: Route) {
        self.parcels.extend(self.arena.close().map(|parcel| (route, parcel)));
    }

    /// Sends everything and empties itself.
    pub(crate) fn send(&mut self, out: &mut dyn Outbound) {
        if !self.parcels.is_empty() {
            out.send_all(self);
        }
        self.parcels.clear();
        self.arena.clear();
    }

    /// The parcels, in the order of sending.
    pub(crate) fn parcels(&self) -> &[(Route, Parcel)] {
        &self.parcels
    }

    /// The runs of a parcel.
    pub(crate) fn runs_of(
        &self,
        parcel: &Parcel,
        max_segments: usize,
    ) -> impl Iterator<Item = Run<'_>> {
        self.arena.runs_of(parcel, max_segments)
    }
}

/// See the module.
pub(crate) struct Io {
    pub(crate) udp: Vec<UdpEndpoint>,
    tcp: FxHashMap<u32, Tcp>,
    /// Connections with frames that are not written yet.
    tcp_dirty: Vec<u32>,
    /// Connections to forget.
    tcp_closed: Vec<u32>,
    /// When to ask whether a connection validated, in order.
    tcp_deadlines: VecDeque<(Instant, u32)>,
    next_conn: u32,
    tcp_frames_out: u64,
    tcp_bytes_out: u64,
    tcp_slow_reader: u64,
    no_route: u64,
}

struct Tcp {
    conn: TcpConn,
    dirty: bool,
}

impl Io {
    pub(crate) fn new(udp: Vec<UdpEndpoint>) -> Self {
        Self {
            udp,
            tcp: FxHashMap::default(),
            tcp_dirty: Vec::new(),
            tcp_closed: Vec::new(),
            tcp_deadlines: VecDeque::new(),
            next_conn: 0,
            tcp_frames_out: 0,
            tcp_bytes_out: 0,
            tcp_slow_reader: 0,
            no_route: 0,
        }
    }

    /// Takes over an accepted connection; `received` was read from it. Returns its id.
    pub(crate) fn adopt(
        &mut self,
        now: Instant,
        registry: &Registry,
        stream: TcpStream,
        received: &[u8],
    ) -> io::Result<u32> {
        if self.tcp.len() >= MAX_TCP_CONNECTIONS {
            return Err(io::Error::other("too many ICE-TCP connections"));
        }
        let mut conn = TcpConn::new(stream, received, MAX_TCP_FRAME)?;
        let id = self.next_conn;
        conn.register(registry, Token(TCP_TOKEN_BASE + id as usize))?;
        self.next_conn = self.next_conn.wrapping_add(1);
        self.tcp.insert(id, Tcp { conn, dirty: false });
        self.tcp_deadlines.push_back((now + TCP_VALIDATION_TIMEOUT, id));
        Ok(id)
    }

    /// The connection with this id, and its route.
    pub(crate) fn tcp_mut(&mut self, id: u32) -> Option<(&mut TcpConn, Route)> {
        let conn = &mut self.tcp.get_mut(&id)?.conn;
        let route = Route { proto: TransportProto::Tcp, remote: conn.remote_addr(), conn: id };
        Some((conn, route))
    }

    /// Takes the next connection whose time to validate is over.
    pub(crate) fn pop_tcp_deadline(&mut self, now: Instant) -> Option<u32> {
        self.tcp_deadlines.pop_front_if(|(at, _)| *at <= now).map(|(_, id)| id)
    }

    /// When to call [`pop_tcp_deadline`](Self::pop_tcp_deadline) next.
    pub(crate) fn next_tcp_deadline(&self) -> Option<Instant> {
        self.tcp_deadlines.front().map(|(at, _)| *at)
    }

    /// Ends a connection at the end of the turn.
    pub(crate) fn close_tcp(&mut self, id: u32) {
        self.tcp_closed.push(id);
    }

    /// Ends the turn: writes frames, closes connections, asks for writability where needed. The
    /// routes of connections that ended are appended to `gone`.
    pub(crate) fn finish(
        &mut self,
        registry: &Registry,
        udp_token_base: usize,
        gone: &mut Vec<Route>,
    ) {
        for id in self.tcp_dirty.drain(..) {
            let Some(tcp) = self.tcp.get_mut(&id) else { continue };
            tcp.dirty = false;
            if tcp.conn.flush().is_err() {
                self.tcp_closed.push(id);
            }
        }
        for id in self.tcp_closed.drain(..) {
            let Some(mut tcp) = self.tcp.remove(&id) else { continue };
            // The descriptor is closed next, which removes it from the poll as well.
            let _ = tcp.conn.deregister(registry);
            let remote = tcp.conn.remote_addr();
            gone.push(Route { proto: TransportProto::Tcp, remote, conn: id });
        }
        for (index, udp) in self.udp.iter_mut().enumerate() {
            if let Err(error) = udp.update_interest(registry, Token(udp_token_base + index)) {
                tracing::error!(%error, "changing the poll interest of a UDP socket failed");
            }
        }
    }

    /// Copies the counters of sockets and connections.
    pub(crate) fn fill_stats(&self, stats: &mut WorkerStats) {
        let mut refused = 0;
        let mut queue_full = 0;
        (stats.datagrams_out, stats.datagram_bytes_out) = (self.tcp_frames_out, self.tcp_bytes_out);
        (stats.send_runs, stats.send_calls) = (0, 0);
        for counters in self.udp.iter().map(UdpEndpoint::counters) {
            stats.datagrams_out += counters.datagrams_out;
            stats.datagram_bytes_out += counters.bytes_out;
            stats.send_runs += counters.runs_out;
            stats.send_calls += counters.send_calls;
            refused += counters.refused;
            queue_full += counters.queue_full;
        }
        stats.tcp_connections = self.tcp.len() as u64;
        stats.dropped[DropCause::SendError as usize] = refused;
        stats.dropped[DropCause::SendQueue as usize] = queue_full;
        stats.dropped[DropCause::TcpSlowReader as usize] = self.tcp_slow_reader;
        stats.dropped[DropCause::NoRoute as usize] = self.no_route;
    }

    fn send_tcp(&mut self, id: u32, frame: &[u8]) {
        let Some(tcp) = self.tcp.get_mut(&id) else {
            self.no_route += 1;
            return;
        };
        if !tcp.conn.send(frame) {
            self.tcp_slow_reader += 1;
            return;
        }
        self.tcp_frames_out += 1;
        self.tcp_bytes_out += frame.len() as u64;
        if !std::mem::replace(&mut tcp.dirty, true) {
            self.tcp_dirty.push(id);
        }
    }
}

impl Outbound for Io {
    fn send(&mut self, route: Route, datagram: &[u8]) {
        match route.proto {
            TransportProto::Tcp => self.send_tcp(route.conn, datagram),
            TransportProto::Udp => match self.udp.get_mut(route.conn as usize) {
                // Its counters tell what was not sent.
                Some(udp) => drop::<SendOutcome>(udp.send_one(route.remote, datagram)),
                None => self.no_route += 1,
            },
        }
    }

    fn send_all(&mut self, outbox: &Outbox) {
        // Parcels of one socket are sent together; usually that is all of them.
        for parcels in
            outbox.parcels().chunk_by(|(a, _), (b, _)| (a.proto, a.conn) == (b.proto, b.conn))
        {
            let Some((Route { proto, conn, .. }, _)) = parcels.first() else { continue };
            match proto {
                TransportProto::Tcp => {
                    for (_, parcel) in parcels {
                        for Run { contents, .. } in outbox.runs_of(parcel, 1) {
                            self.send_tcp(*conn, contents);
                        }
                    }
                }
                TransportProto::Udp => match self.udp.get_mut(*conn as usize) {
                    Some(udp) => {
                        let segments = udp.max_segments();
                        udp.send_many(parcels.iter().flat_map(|(route, parcel)| {
                            outbox.runs_of(parcel, segments).map(|run| (route.remote, run))
                        }));
                    }
                    None => {
                        let datagrams = parcels.iter().map(|(_, parcel)| parcel.datagrams());
                        self.no_route += datagrams.sum::<usize>() as u64;
                    }
                },
            }
        }
    }

    fn close(&mut self, route: Route) {
        if route.proto == TransportProto::Tcp {
            self.close_tcp(route.conn);
        }
    }
}
