//! Counters of a worker. The worker adds to plain integers and copies them, a few times a second
//! and before it sleeps, into atomics that nothing but [`Engine::stats`](crate::Engine::stats) reads.

use std::sync::atomic::{AtomicU64, Ordering};

pub use sluice_sfu::DropReason as MediaDrop;
pub use sluice_transport::DropReason as TransportDrop;

const TRANSPORT_REASONS: usize = TransportDrop::ALL.len();
const MEDIA_REASONS: usize = MediaDrop::ALL.len();

/// Upper ends of the groups into which receivers fall by the estimate of their path, bits per
/// second; the last group has no end.
pub const ESTIMATE_BUCKETS_BPS: [u64; 8] =
    [100_000, 300_000, 600_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 20_000_000];
const ESTIMATE_BUCKETS: usize = ESTIMATE_BUCKETS_BPS.len() + 1;

/// The group of an estimate.
pub(crate) fn estimate_bucket(bps: u64) -> usize {
    ESTIMATE_BUCKETS_BPS.partition_point(|end| *end < bps)
}

macro_rules! worker_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters and table sizes of one worker.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct WorkerStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Receivers whose path is estimated, by their estimate: [`ESTIMATE_BUCKETS_BPS`].
            pub receivers_by_estimate: [u64; ESTIMATE_BUCKETS],
            /// Datagrams, packets and messages dropped, by [`DropCause`].
            pub dropped: [u64; DropCause::COUNT],
            /// Datagrams that a peer's transport refused, by [`TransportDrop`].
            pub transport_dropped: [u64; TRANSPORT_REASONS],
            /// Packets that a track did not take, by [`MediaDrop`].
            pub media_dropped: [u64; MEDIA_REASONS],
        }

        /// Latest snapshot of a [`WorkerStats`].
        #[derive(Debug, Default)]
        pub(crate) struct SharedStats {
            $($name: AtomicU64,)*
            receivers_by_estimate: [AtomicU64; ESTIMATE_BUCKETS],
            dropped: [AtomicU64; DropCause::COUNT],
            transport_dropped: [AtomicU64; TRANSPORT_REASONS],
            media_dropped: [AtomicU64; MEDIA_REASONS],
        }

        impl SharedStats {
            pub(crate) fn store(&self, stats: &WorkerStats) {
                $(self.$name.store(stats.$name, Ordering::Relaxed);)*
                store_all(&self.receivers_by_estimate, &stats.receivers_by_estimate);
                store_all(&self.dropped, &stats.dropped);
                store_all(&self.transport_dropped, &stats.transport_dropped);
                store_all(&self.media_dropped, &stats.media_dropped);
            }

            pub(crate) fn load(&self) -> WorkerStats {
                WorkerStats {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    receivers_by_estimate: load_all(&self.receivers_by_estimate),
                    dropped: load_all(&self.dropped),
                    transport_dropped: load_all(&self.transport_dropped),
                    media_dropped: load_all(&self.media_dropped),
                }
            }
        }

        impl WorkerStats {
            /// Name and value of every counter and table size, for metrics.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                add_all(&mut self.receivers_by_estimate, &other.receivers_by_estimate);
                add_all(&mut self.dropped, &other.dropped);
                add_all(&mut self.transport_dropped, &other.transport_dropped);
                add_all(&mut self.media_dropped, &other.media_dropped);
            }
        }
    };
}

worker_counters! {
    /// Turns of the worker: times that it woke up, or went on without sleeping.
    turns,
    /// UDP datagrams and TCP frames received.
    datagrams_in,
    /// Bytes of those.
    datagram_bytes_in,
    /// Datagrams and frames sent.
    datagrams_out,
    /// Bytes of those.
    datagram_bytes_out,
    /// Runs of UDP datagrams that the kernel took in one piece; below `datagrams_out` where
    /// segmentation offload works.
    send_runs,
    /// System calls that sent those: one takes the runs of several receivers.
    send_calls,
    /// RTP packets authenticated and accepted.
    packets_in,
    /// RTP bytes of those, after decryption.
    packet_bytes_in,
    /// RTP packets sent, retransmissions and padding included.
    packets_out,
    /// RTP bytes of those, before encryption.
    packet_bytes_out,
    /// Padding in those, which makes packets equal in size so that they leave in one system call.
    padding_bytes_out,
    /// Packets of publishers written for receivers.
    forwarded,
    /// Audio packets rebuilt from the redundancy of later ones.
    red_recovered,
    /// Frames of silence, and black pictures, that we made ourselves.
    fills_out,
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
    /// Key-frame requests received, by PLI.
    plis_in,
    /// Key-frame requests received, by FIR.
    firs_in,
    /// Packets of padding only, for probes; others are filled with what the receiver has already.
    fillers_out,
    /// Probes of the paths to receivers.
    probes,
    /// Video packets that waited behind a burst.
    paced,
    /// Times that bandwidth gave a stream other layers than before.
    allocation_changes,
    /// Streams paused for want of bandwidth.
    stream_pauses,
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
    /// Now: tracks with receivers that are not published yet.
    early_attachments,
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
    /// Not well-formed RTP.
    MalformedRtp,
    /// Not well-formed RTCP.
    MalformedRtcp,
    /// RTP whose section could not be found by MID, RID, SSRC or payload type.
    UnboundRtp,
    /// Media of a section that no track was matched to, beyond what is held.
    Unmatched,
    /// Media of a muted track.
    Muted,
    /// A microphone while others are louder, where only so many are forwarded.
    OffStage,
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
    /// A data message waited for its receiver for too long.
    DataExpired,
    /// A command named something that does not exist (any more).
    StaleCommand,
    /// A table of bounded size was full.
    TableFull,
}

impl DropCause {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 22] = [
        Self::NotClassified,
        Self::UnknownUfrag,
        Self::UnknownSource,
        Self::MalformedRtp,
        Self::MalformedRtcp,
        Self::UnboundRtp,
        Self::Unmatched,
        Self::Muted,
        Self::OffStage,
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
        Self::DataExpired,
        Self::StaleCommand,
        Self::TableFull,
    ];

    /// Name for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotClassified => "not_classified",
            Self::UnknownUfrag => "unknown_ufrag",
            Self::UnknownSource => "unknown_source",
            Self::MalformedRtp => "malformed_rtp",
            Self::MalformedRtcp => "malformed_rtcp",
            Self::UnboundRtp => "unbound_rtp",
            Self::Unmatched => "unmatched",
            Self::Muted => "muted",
            Self::OffStage => "off_stage",
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
            Self::DataExpired => "data_expired",
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

    /// Counts a datagram that a peer's transport refused.
    pub(crate) fn drop_transport(&mut self, reason: TransportDrop) {
        self.transport_dropped[reason as usize] += 1;
    }

    /// Counts a packet that a track did not take.
    pub(crate) fn drop_media(&mut self, reason: MediaDrop) {
        self.media_dropped[reason as usize] += 1;
    }

    /// Every reason for a drop with its counter, for metrics: where it was dropped, why, how often.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let engine = DropCause::ALL.into_iter().map(DropCause::as_str).zip(self.dropped);
        let transport =
            TransportDrop::ALL.into_iter().map(TransportDrop::as_str).zip(self.transport_dropped);
        let media = MediaDrop::ALL.into_iter().map(MediaDrop::label).zip(self.media_dropped);
        let engine = engine.map(|(reason, count)| ("engine", reason, count));
        let transport = transport.map(|(reason, count)| ("transport", reason, count));
        engine.chain(transport).chain(media.map(|(reason, count)| ("media", reason, count)))
    }

    /// Drops for a reason.
    pub fn dropped_for(&self, reason: DropCause) -> u64 {
        self.dropped[reason as usize]
    }
}

fn store_all<const N: usize>(shared: &[AtomicU64; N], values: &[u64; N]) {
    for (shared, value) in shared.iter().zip(values) {
        shared.store(*value, Ordering::Relaxed);
    }
}

fn load_all<const N: usize>(shared: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|i| shared[i].load(Ordering::Relaxed))
}

fn add_all<const N: usize>(sums: &mut [u64; N], values: &[u64; N]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
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
            total.add(worker);
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
