//! Datagrams that wait to be polled, with their buffers recycled.

use std::collections::VecDeque;

use super::Route;

/// Datagrams that wait; a peer is polled after every call, which makes a few dozen at most.
const MAX_QUEUED: usize = 256;
/// Buffers kept for reuse.
const MAX_SPARE: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TransmitQueue {
    /// `None`: goes wherever the peer is when it is polled.
    queued: VecDeque<(Option<Route>, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    dropped: u64,
}

impl TransmitQueue {
    /// An empty buffer to fill and push.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    pub(super) fn push(&mut self, route: Option<Route>, datagram: Vec<u8>) {
        if self.queued.len() >= MAX_QUEUED {
            self.dropped += 1;
            self.recycle(datagram);
            return;
        }
        self.queued.push_back((route, datagram));
    }

    pub(super) fn push_copy(&mut self, datagram: &[u8]) {
        let mut buffer = self.buffer();
        buffer.extend_from_slice(datagram);
        self.push(None, buffer);
    }

    /// Swaps the next datagram into `out`. Datagrams without a route go to `fallback`.
    pub(super) fn pop(&mut self, fallback: Option<Route>, out: &mut Vec<u8>) -> Option<Route> {
        while let Some((route, mut datagram)) = self.queued.pop_front() {
            if let Some(route) = route.or(fallback) {
                std::mem::swap(out, &mut datagram);
                self.recycle(datagram);
                return Some(route);
            }
            self.dropped += 1;
            self.recycle(datagram);
        }
        None
    }

    /// Datagrams lost to the bound, or because no route was known.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
