//! What a caller of a room can be refused, in the words that LiveKit's clients look for.

/// Why a join was refused. Each variant maps to one HTTP status before the WebSocket upgrade.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// HTTP 404. Clients match this exact sentence to tell a missing room from a missing path.
    #[error("requested room does not exist")]
    RoomNotFound,
    /// HTTP 400: the request itself is wrong (identity, name, room name).
    #[error("{0}")]
    Invalid(String),
    /// HTTP 401: the token does not allow it.
    #[error("{0}")]
    NotAllowed(String),
    /// HTTP 429: metadata, attributes or a name is larger than its limit.
    #[error("{0}")]
    LimitExceeded(String),
    /// HTTP 429: the room is full.
    #[error("room has exceeded its max participants")]
    MaxParticipants,
    /// HTTP 503: the node does not take new sessions.
    #[error("node is not accepting new participants")]
    Unavailable,
    /// HTTP 500: our fault.
    #[error("{0}")]
    Internal(String),
}

impl JoinError {
    /// The HTTP status that answers the upgrade request.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::RoomNotFound => 404,
            Self::Invalid(_) => 400,
            Self::NotAllowed(_) => 401,
            Self::LimitExceeded(_) | Self::MaxParticipants => 429,
            Self::Unavailable => 503,
            Self::Internal(_) => 500,
        }
    }
}

/// Why a server API call failed; the variant is the Twirp code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Twirp `not_found`.
    #[error("{0}")]
    NotFound(&'static str),
    /// Twirp `invalid_argument`.
    #[error("{0}")]
    InvalidArgument(String),
    /// Twirp `invalid_argument` that names the argument apart, as LiveKit does for limits.
    #[error("{argument} {problem}")]
    Argument {
        /// What is wrong.
        argument: &'static str,
        /// The limit, or nothing.
        problem: String,
    },
    /// Twirp `malformed`: too large to pass on.
    #[error("{0}")]
    Malformed(String),
    /// Twirp `canceled`: nobody answered in time.
    #[error("{0}")]
    Canceled(String),
    /// Twirp `failed_precondition`.
    #[error("{0}")]
    FailedPrecondition(&'static str),
    /// Twirp `resource_exhausted`.
    #[error("{0}")]
    ResourceExhausted(String),
    /// Twirp `unavailable`: the room closed or the node is shutting down meanwhile.
    #[error("{0}")]
    Unavailable(&'static str),
    /// Twirp `unavailable`: the participant left meanwhile.
    #[error("{0}")]
    Gone(String),
    /// Twirp `unimplemented`.
    #[error("{0}")]
    Unimplemented(&'static str),
    /// Twirp `internal`.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// The participant named in the request is not in the room.
    pub const PARTICIPANT_NOT_FOUND: Self = Self::NotFound("participant does not exist");
    /// The room named in the request does not exist.
    pub const ROOM_NOT_FOUND: Self = Self::NotFound("requested room does not exist");
}
