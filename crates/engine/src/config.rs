//! What an engine is started with. Every bound of the media plane has a name here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use sluice_sfu::key_frame::DEFAULT_INTERVAL;
use sluice_sfu::{AudioLevelConfig, MAX_LAYERS};
use sluice_transport::DtlsIdentity;

/// Most workers an engine can have: a worker is named by one character of the ICE `ufrag`.
pub const MAX_WORKERS: u8 = 62;

/// Default size asked of the kernel for UDP receive and send buffers, bytes. A 100-packet burst
/// overflows the Linux default of 208 KiB.
pub const SOCKET_BUFFER_BYTES: usize = 5 << 20;

/// What a path is taken to carry until its receiver has reported, bits per second: the top layer of
/// one camera, so that a call on a usual path does not begin with a switch of layers.
const START_BPS: u64 = 2_500_000;

/// Default of [`EngineConfig::egress_hold`].
pub const DEFAULT_EGRESS_HOLD: Duration = Duration::from_millis(2);

/// Default of [`EngineConfig::room_affinity`], peers: a meeting of sixteen with two peer connections
/// each, which a tenth of a core carries.
pub const DEFAULT_ROOM_AFFINITY: usize = 32;

/// UDP ports of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpPorts {
    /// One port for all workers (`SO_REUSEPORT`): the kernel spreads the sources over the workers,
    /// which hand over what belongs to another. 0 asks the kernel for a free port.
    Shared(u16),
    /// A port per worker, `first..=last`; with fewer ports than workers they share again. A
    /// `first` of 0 asks the kernel for a free port for each worker.
    PerWorker {
        /// Lowest port.
        first: u16,
        /// Highest port.
        last: u16,
    },
}

/// Congestion control towards receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CongestionConfig {
    /// Whether a video of which not even the lowest layer fits is paused. Otherwise it keeps its
    /// lowest layer, come what may.
    pub allow_pause: bool,
    /// Estimate before anything is known of a path, bits per second.
    pub start_bps: u64,
    /// Most that is believed of a path, bits per second.
    pub max_bps: u64,
    /// Least that streams get between them, whatever the estimate says, bits per second.
    pub min_channel_bps: u64,
}

impl Default for CongestionConfig {
    /// Most is LiveKit's assumption of a path.
    fn default() -> Self {
        Self { allow_pause: false, start_bps: START_BPS, max_bps: 100_000_000, min_channel_bps: 0 }
    }
}

/// What a worker does with media where operators may choose.
#[derive(Debug, Clone, Copy)]
pub struct MediaConfig {
    /// Shortest time between two key-frame requests to a publisher, lowest layer first.
    pub key_frame_intervals: [Duration; MAX_LAYERS],
    /// When a microphone counts as speaking.
    pub audio_levels: AudioLevelConfig,
    /// Microphones of a room that are forwarded at a time, the loudest; 0 = all.
    pub max_forwarded_speakers: usize,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            key_frame_intervals: [DEFAULT_INTERVAL; MAX_LAYERS],
            audio_levels: AudioLevelConfig::default(),
            max_forwarded_speakers: 0,
        }
    }
}

/// Parameters of [`Engine::start`](crate::Engine::start).
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Worker threads, 1..=[`MAX_WORKERS`].
    pub workers: u8,
    /// Each worker stays on one of the cores that the process may use.
    pub pin_workers: bool,
    /// Local addresses to bind, each with its own socket per worker.
    pub bind: Vec<IpAddr>,
    /// UDP ports.
    pub udp: UdpPorts,
    /// ICE-TCP port (RFC 6544, passive); 0 asks the kernel for a free one, `None` = no ICE-TCP.
    pub tcp_port: Option<u16>,
    /// Addresses that candidates carry; empty = those of `bind` that are not wildcards.
    pub advertised: Vec<IpAddr>,
    /// Certificate of the node; `None` makes a fresh one.
    pub identity: Option<Arc<DtlsIdentity>>,
    /// Receive buffer asked of the kernel per UDP socket, bytes.
    pub recv_buffer_bytes: usize,
    /// Send buffer asked of the kernel per UDP socket, bytes.
    pub send_buffer_bytes: usize,
    /// How long a packet may wait for others of the same receiver so that they leave in one
    /// system call. Only a busy worker lets it wait, 2 ms at most unless it has much to send. Zero
    /// flushes after each receive batch.
    pub egress_hold: Duration,
    /// Congestion control towards receivers; `None`: everybody gets what they want.
    pub congestion: Option<CongestionConfig>,
    /// What workers do with media.
    pub media: MediaConfig,
    /// A room's participants stay on one worker while it has at most so many peers more than the
    /// emptiest: packets between workers cost more. 0 spreads every room.
    pub room_affinity: usize,
    /// How old messages of unreliable data channels may grow before they are sent.
    pub data_latency: DataLatency,
    /// Commands that may wait per worker.
    pub command_capacity: usize,
    /// Events that may wait for the control plane, all workers together.
    pub event_capacity: usize,
    /// Messages that may wait per ordered pair of workers.
    pub link_capacity: usize,
}

/// Ages at which waiting messages of LiveKit's unreliable channels are given up; `None` = never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataLatency {
    /// `_lossy`.
    pub lossy: Option<Duration>,
    /// `_data_track`.
    pub data_track: Option<Duration>,
}

impl Default for DataLatency {
    /// LiveKit's defaults.
    fn default() -> Self {
        Self { lossy: None, data_track: Some(Duration::from_millis(100)) }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            pin_workers: false,
            bind: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            udp: UdpPorts::Shared(7882),
            tcp_port: Some(7881),
            advertised: Vec::new(),
            identity: None,
            recv_buffer_bytes: SOCKET_BUFFER_BYTES,
            send_buffer_bytes: SOCKET_BUFFER_BYTES,
            egress_hold: DEFAULT_EGRESS_HOLD,
            data_latency: DataLatency::default(),
            congestion: Some(CongestionConfig::default()),
            media: MediaConfig::default(),
            room_affinity: DEFAULT_ROOM_AFFINITY,
            command_capacity: 8192,
            event_capacity: 16_384,
            link_capacity: 4096,
        }
    }
}
