//! Sockets of the media plane: batched UDP with segmentation offload, and RFC 4571 frames over TCP.
//!
//! Everything here is non-blocking and knows nothing of peers or protocols. Datagrams come in as
//! batches in caller-owned memory, leave as runs of equal size, and what the kernel does not take
//! at once waits in a bounded queue in order. Counters are plain integers read by the caller.

mod arena;
mod equalize;
pub mod framing;
#[cfg(target_os = "linux")]
mod messages;
mod tcp;
mod udp;

pub use arena::{Parcel, Run, SendArena};
pub use equalize::equalize;
pub use framing::{FrameDecoder, FrameError};
pub use tcp::{TcpConn, TcpError};
pub use udp::{
    BindOptions, RECV_BATCH, RecvBatch, SendOutcome, UdpCounters, UdpEndpoint, bind_tcp_listener,
};

/// Longest UDP payload over IPv4, bytes.
pub const MAX_DATAGRAM: usize = 65_507;
