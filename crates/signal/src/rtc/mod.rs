//! The signal connection: from the query of the upgrade request to the close of the socket.

mod client_info;
mod endpoint;
mod frame;
mod join_request;
mod params;
mod query;
mod socket;

pub(crate) use endpoint::{Version, connect, validate};
pub(crate) use frame::MAX_MESSAGE_SIZE;
pub use frame::{Encoding, FrameError, decode_request};
pub use join_request::{JoinRequestError, decode_join_request};
pub(crate) use params::{JoinAttempt, JoinTicket};
pub(crate) use query::Query;
