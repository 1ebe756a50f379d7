//! Data channels of one peer: SCTP over DTLS (RFC 8831) with in-band establishment (RFC 8832).
//!
//! [`Channels`] owns channel states, send queues and the DCEP handshake; the SCTP association sits
//! behind [`association::SctpAssociation`]. SCTP packets and messages go in, SCTP packets and
//! [`ChannelEvent`]s come out.
//!
//! The association is `sctp-proto`. Measured beside `dcsctp` 0.1.16, both ends on one core, release
//! build:
//!
//! | | `sctp-proto` 0.10.8 | `dcsctp` 0.1.16 |
//! | --- | --- | --- |
//! | 100 B message, paced | 2.5–3.8 µs | 7.3–8.7 µs |
//! | 1 KB message, paced | 3.1 µs | 49 µs |
//! | 15 KB message, paced | 43 µs | 862–924 µs |
//! | 2,000 × 1 KB ordered in bulk, 50 ms RTT, no loss | 0.5 s | 0.5 s |
//! | same, 1 % loss (five seeds) | 6.3–9.6 s | 7.4–9.3 s |
//! | same, 5 % loss | 18.6–20.6 s | 16.9–17.7 s |
//! | same, 20 % loss | 91–105 s | 46–57 s |
//!
//! `dcsctp` recovers better from heavy loss, but formats a hex dump of every packet even with
//! logging off, which a room of a thousand receivers cannot afford. `sctp-proto` needs a lower RTO
//! than its default (1 s minimum: 250 s instead of 100 s at 20 % loss) and slows down with the
//! length of its own send queue (63 µs per 1 KB message with 1 MB queued, 15 µs with 128 KB), so
//! that queue is kept short and the rest waits here.

mod association;
#[cfg(test)]
mod association_tests;
mod channels;
pub mod dcep;

pub(crate) use association::SctpProtoAssociation;
pub(crate) use channels::{ChannelEvent, Channels};

/// Largest message we accept, bytes: the value for `a=max-message-size` (LiveKit's read buffer).
pub const MAX_MESSAGE_SIZE: u32 = 65_535;

/// SCTP stream id of a data channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u16);

/// How hard a channel tries (RFC 8831 §6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reliability {
    /// Retransmits without bound.
    Reliable,
    /// At most this many retransmissions per message.
    MaxRetransmits(u32),
    /// Retransmits for at most this long, milliseconds.
    MaxLifetimeMs(u32),
}

/// A data channel that we open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSpec {
    /// Label.
    pub label: String,
    /// Subprotocol, usually empty.
    pub protocol: String,
    /// In-order delivery.
    pub ordered: bool,
    /// Limit on retransmission.
    pub reliability: Reliability,
    /// `Some(id)`: agreed outside of DCEP (`negotiated: true` in JavaScript), no OPEN is sent.
    pub negotiated: Option<ChannelId>,
}

impl ChannelSpec {
    /// LiveKit's three channels as its server opens them on a subscriber connection.
    pub fn livekit() -> Vec<Self> {
        vec![
            Self::new("_reliable", true, Reliability::Reliable),
            Self::new("_lossy", false, Reliability::MaxRetransmits(0)),
            Self::new("_data_track", false, Reliability::MaxRetransmits(0)),
        ]
    }

    /// The same three with the fixed ids 100, 101 and 102, for clients that negotiate them outside
    /// of DCEP.
    pub fn livekit_negotiated() -> Vec<Self> {
        let mut specs = Self::livekit();
        for (spec, id) in specs.iter_mut().zip(100..) {
            spec.negotiated = Some(ChannelId(id));
        }
        specs
    }

    fn new(label: &str, ordered: bool, reliability: Reliability) -> Self {
        let (label, protocol) = (label.to_owned(), String::new());
        Self { label, protocol, ordered, reliability, negotiated: None }
    }
}

/// Why a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No such channel, not open yet, or closed.
    #[error("the data channel is not open")]
    NotOpen,
    /// The send buffer is full; try again when `buffered_amount` has fallen.
    #[error("the send buffer is full")]
    BufferFull,
    /// Larger than the remote's `a=max-message-size`.
    #[error("the message is larger than the remote accepts")]
    TooLarge,
}
