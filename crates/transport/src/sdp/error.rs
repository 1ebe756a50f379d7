//! Errors of the SDP sessions: who was wrong and about what.

/// Why a description was refused. Nothing of the session has changed when one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// The remote description exceeds a limit of [`Limits`](super::Limits); names the limit.
    #[error("session description exceeds the limit on {0}")]
    LimitExceeded(&'static str),
    /// The remote description is not SDP; says what is wrong with it.
    #[error("malformed session description: {0}")]
    Syntax(String),
    /// The remote description lacks something that every WebRTC description must have.
    #[error("session description lacks {0}")]
    Missing(&'static str),
    /// Two sections have the same `a=mid`, or a payload type or extension id has two meanings.
    #[error("session description contradicts itself: {0}")]
    Conflict(String),
    /// The remote changed the number or order of media sections (RFC 8829 §5.3.1, §5.10).
    #[error("media sections changed: {0}")]
    SectionsChanged(String),
    /// A call that the negotiation state does not allow: our bug or a stray signal message.
    #[error("{0}")]
    State(#[from] Misuse),
}

/// A call that does not fit the state of the negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// `create_answer` without an offer that waits for one.
    #[error("no offer waits for an answer")]
    NoOffer,
    /// `accept_answer` without an offer in flight.
    #[error("no offer of ours waits for an answer")]
    NoLocalOffer,
    /// `create_offer` while one is in flight.
    #[error("an offer is already in flight")]
    OfferInFlight,
}
