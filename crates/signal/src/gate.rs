//! What may stand between callers and rooms: an adapter that knows more of some rooms than a token
//! says. It can refuse a join, name a participant whose token does not, keep room names for itself,
//! and speak another framing on the server API. Without one every valid token decides for itself.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::HttpError;
use crate::token::VerifiedToken;

/// What a gate adds to a join that it lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Identity of a participant whose token has none.
    pub identity: Option<String>,
    /// Attributes on top of the token's.
    pub attributes: BTreeMap<String, String>,
}

/// See the module. Nothing here may wait: joins and calls of all rooms pass through.
pub trait Gate: Send + Sync + 'static {
    /// Looks at a join, or at the question whether one would be allowed, before the room does.
    ///
    /// # Errors
    /// The caller sees the error instead of the room.
    fn admit(&self, room: &str, token: &VerifiedToken) -> Result<Admission, HttpError>;

    /// Whether a token that grants it may create or delete the room `room`.
    fn may_manage(&self, room: &str, token: &VerifiedToken) -> bool;

    /// Whether a token that grants it may administer the room `room` now.
    fn may_administer(&self, room: &str, token: &VerifiedToken) -> bool;

    /// Finds the protobuf message in the body of `CreateRoom` and `DeleteRoom`.
    fn unframe(&self, method: &str, body: Bytes) -> FramedBody;

    /// The room was closed through the server API.
    fn room_deleted(&self, room: &str);
}

/// A body of the server API after [`Gate::unframe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramedBody {
    /// The protobuf message alone.
    pub message: Bytes,
    /// A varint with the message's length stood in front, and the caller expects one in the answer.
    pub delimited: bool,
}
