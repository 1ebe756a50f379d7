//! SCTP data channels (RFC 8831, RFC 8832).

/// SCTP stream id of a data channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u16);

/// A data channel that we open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSpec {
    /// Label.
    pub label: String,
    /// Subprotocol, usually empty.
    pub protocol: String,
    /// In-order delivery.
    pub ordered: bool,
    /// `None`: reliable. `Some(n)`: at most `n` retransmissions.
    pub max_retransmits: Option<u16>,
    /// `Some(id)`: agreed outside of DCEP (`negotiated: true` in JavaScript), no OPEN is sent.
    pub negotiated: Option<u16>,
}

impl ChannelSpec {
    /// LiveKit's three channels as its server opens them on a subscriber connection.
    pub fn livekit() -> Vec<Self> {
        let spec = |label: &str, ordered, max_retransmits| Self {
            label: label.to_owned(),
            protocol: String::new(),
            ordered,
            max_retransmits,
            negotiated: None,
        };
        vec![
            spec("_reliable", true, None),
            spec("_lossy", false, Some(0)),
            spec("_data_track", false, Some(0)),
        ]
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
