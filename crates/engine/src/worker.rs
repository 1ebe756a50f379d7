//! One media worker: a thread, its sockets, its queues and its poll.

use crate::api::Command;

/// What reaches a worker from outside of the data plane.
#[derive(Debug)]
pub(crate) enum Input {
    /// From the control plane.
    Command(Command),
}
