//! Wakes a worker out of its poll. A worker that is already going to look is not woken again, so a
//! burst of commands or link messages costs one system call.

use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) struct Wake {
    waker: mio::Waker,
    pending: AtomicBool,
}

impl Wake {
    pub(crate) fn new(waker: mio::Waker) -> Self {
        Self { waker, pending: AtomicBool::new(false) }
    }

    /// Called after something was queued.
    pub(crate) fn notify(&self) {
        if !self.pending.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            // The next notification tries again.
            self.pending.store(false, Ordering::Release);
            tracing::error!(%error, "waking a media worker failed");
        }
    }

    /// Called by the worker before it drains its queues; what is queued later wakes it again.
    pub(crate) fn clear(&self) {
        self.pending.swap(false, Ordering::AcqRel);
    }
}
