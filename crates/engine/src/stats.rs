//! Counters of a worker. The worker adds to plain integers and copies them, a few times a second
//! and before it sleeps, into atomics that nothing but [`Engine::stats`](crate::Engine::stats) reads.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! worker_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters and table sizes of one worker.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct WorkerStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Datagrams, packets and messages dropped, by [`DropCause`].
            pub dropped: [u64; DropCause::COUNT],
        }

        /// Latest snapshot of a [`WorkerStats`].
        #[derive(Debug, Default)]
        pub(crate) struct SharedStats {
            $($name: AtomicU64,)*
            dropped: [AtomicU64; DropCause::COUNT],
        }

        impl SharedStats {
            pub(crate) fn store(&self, stats: &WorkerStats) {
                $(self.$name.store(stats.$name, Ordering::Relaxed);)*
                for (shared, value) in self.dropped.iter().zip(stats.dropped) {
                    shared.store(value, Ordering::Relaxed);
                }
            }

            pub(crate) fn load(&self) -> WorkerStats {
                WorkerStats {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    dropped: std::array::from_fn(|i| self.dropped[i].load(Ordering::Relaxed)),
                }
            }
        }

        impl WorkerStats {
            /// Name and value of every counter and table size, for metrics.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            fn add_counters(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

worker_counters! {
    /// UDP datagrams and TCP frames received.
    datagrams_in,
    /// Bytes of those.
    datagram_bytes_in,
    /// Datagrams and frames sent.
    datagrams_out,
    /// Bytes of those.
    datagram_bytes_out,
    /// System calls that sent UDP datagrams; below `datagrams_out` where segmentation offload works.
    send_calls,
    /// RTP packets authenticated and accepted.
    packets_in,
    /// RTP bytes of those, after decryption.
    packet_bytes_in,
    /// RTP packets sent, retransmissions and padding included.
    packets_out,
    /// RTP bytes of those, before encryption.
    packet_bytes_out,
    /// Packets of publishers written for receivers.
    forwarded,
    /// Packets that came repaired over RTX.
    rtx_in,
    /// Packets retransmitted to receivers.
    rtx_out,
    /// Sequence numbers that we asked publishers to retransmit.
    nacks_out,
    /// Sequence numbers that receivers asked us to retransmit.
    nacks_in,
    /// Key-frame requests sent to publishers.
    plis_out,
    /// Key-frame requests received.
    plis_in,
    /// RTCP datagrams received.
    rtcp_in,
    /// RTCP datagrams sent.
    rtcp_out,
    /// Messages handed to other workers.
    link_out,
    /// Messages taken from other workers.
    link_in,
    /// Datagrams handed to the worker that owns their peer.
    handed_over,
    /// Peers that ended because of a panic of ours.
    peer_panics,
    /// Now: peers.
    peers,
    /// Now: peers with ICE and DTLS up.
    peers_connected,
    /// Now: tracks published by this worker's peers.
    tracks,
    /// Now: tracks with subscribers on this worker.
    feeds,
    /// Now: subscriptions of this worker's peers.
    subscriptions,
    /// Now: remote addresses that lead to a peer here.
    routes,
    /// Now: local ICE ufrags.
    ufrags,
    /// Now: remote addresses that lead to another worker.
    foreign_routes,
    /// Now: ICE-TCP connections.
    tcp_connections,
    /// Now: events waiting for room in the event queue.
    event_backlog,
}

/// Why something was dropped; index into [`WorkerStats::dropped`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropCause {
    /// First byte fits no protocol we multiplex (RFC 7983).
    NotClassified,
    /// STUN without a USERNAME that names a peer here.
    UnknownUfrag,
    /// DTLS, SRTP or SRTCP from an address that no peer validated.
    UnknownSource,
    /// The peer refused it: failed authentication, replay, wrong state.
    Peer,
    /// Not well-formed RTP.
    MalformedRtp,
    /// Not well-formed RTCP.
    MalformedRtcp,
    /// RTP whose section could not be found by MID, RID, SSRC or payload type.
    UnboundRtp,
    /// RTP with a payload type that its section did not negotiate.
    PayloadType,
    /// Media of a section that no track was matched to, beyond what is held.
    Unmatched,
    /// Duplicate, too old, or not repairable.
    Receiver,
    /// Nothing to store the packet in: longer than a packet body.
    TooLong,
    /// Media of a muted track.
    Muted,
    /// Sealing failed.
    Seal,
    /// The socket's bounded queue was full.
    SendQueue,
    /// The system refused to send.
    SendError,
    /// A slow ICE-TCP reader's queue was full.
    TcpSlowReader,
    /// Receiver without a route.
    NoRoute,
    /// A ring to another worker was full.
    LinkFull,
    /// A message from another worker about something that is gone.
    LinkStale,
    /// The event queue was full: a data message.
    EventData,
    /// The event queue and its backlog were full: an event that mattered.
    EventEssential,
    /// A data message could not be sent: channel not open or its buffer full.
    DataSend,
    /// A command named something that does not exist (any more).
    StaleCommand,
    /// A table of bounded size was full.
    TableFull,
}

impl DropCause {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 24] = [
        Self::NotClassified,
        Self::UnknownUfrag,
        Self::UnknownSource,
        Self::Peer,
        Self::MalformedRtp,
        Self::MalformedRtcp,
        Self::UnboundRtp,
        Self::PayloadType,
        Self::Unmatched,
        Self::Receiver,
        Self::TooLong,
        Self::Muted,
        Self::Seal,
        Self::SendQueue,
        Self::SendError,
        Self::TcpSlowReader,
        Self::NoRoute,
        Self::LinkFull,
        Self::LinkStale,
        Self::EventData,
        Self::EventEssential,
        Self::DataSend,
        Self::StaleCommand,
        Self::TableFull,
    ];

    /// Name for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotClassified => "not_classified",
            Self::UnknownUfrag => "unknown_ufrag",
            Self::UnknownSource => "unknown_source",
            Self::Peer => "peer",
            Self::MalformedRtp => "malformed_rtp",
            Self::MalformedRtcp => "malformed_rtcp",
            Self::UnboundRtp => "unbound_rtp",
            Self::PayloadType => "payload_type",
            Self::Unmatched => "unmatched",
            Self::Receiver => "receiver",
            Self::TooLong => "too_long",
            Self::Muted => "muted",
            Self::Seal => "seal",
            Self::SendQueue => "send_queue",
            Self::SendError => "send_error",
            Self::TcpSlowReader => "tcp_slow_reader",
            Self::NoRoute => "no_route",
            Self::LinkFull => "link_full",
            Self::LinkStale => "link_stale",
            Self::EventData => "event_data",
            Self::EventEssential => "event_essential",
            Self::DataSend => "data_send",
            Self::StaleCommand => "stale_command",
            Self::TableFull => "table_full",
        }
    }
}

impl WorkerStats {
    /// Counts `count` drops for one reason.
    pub(crate) fn drop_many(&mut self, reason: DropCause, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// Counts one drop.
    pub(crate) fn drop_one(&mut self, reason: DropCause) {
        self.drop_many(reason, 1);
    }

    /// Drops for a reason.
    pub fn dropped_for(&self, reason: DropCause) -> u64 {
        self.dropped[reason as usize]
    }
}

/// Snapshot of all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// One entry per worker, in order.
    pub workers: Vec<WorkerStats>,
    /// Commands refused because a worker's queue was full.
    pub commands_refused: u64,
    /// ICE-TCP connections refused or closed before they reached a worker.
    pub tcp_refused: u64,
}

impl EngineStats {
    /// Sum over the workers.
    pub fn total(&self) -> WorkerStats {
        let mut total = WorkerStats::default();
        for worker in &self.workers {
            total.add_counters(worker);
            for (sum, value) in total.dropped.iter_mut().zip(worker.dropped) {
                *sum += value;
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_reason_stands_at_its_own_index() {
        for (index, reason) in DropCause::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn snapshot_round_trips_and_totals_add_up() {
        let mut stats = WorkerStats { packets_in: 3, ..Default::default() };
        stats.drop_many(DropCause::UnknownSource, 2);
        let shared = SharedStats::default();
        shared.store(&stats);
        assert_eq!(shared.load(), stats);
        let engine = EngineStats { workers: vec![stats, stats], ..Default::default() };
        assert_eq!(engine.total().packets_in, 6);
        assert_eq!(engine.total().dropped_for(DropCause::UnknownSource), 4);
    }
}
