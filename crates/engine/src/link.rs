//! Media links: bounded rings between workers. Everything that one worker must know of another's
//! tracks and addresses crosses a link; a track with receivers elsewhere crosses it once, and layer
//! choice, retransmission and pacing stay on the receivers' side.
//!
//! Media is dropped and counted when a ring is full, like on any congested path. What must not be
//! lost waits beside the ring, in order, and is tried again every turn.

use std::collections::VecDeque;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use slotmap::new_key_type;
use sluice_sfu::{LayerSet, MediaPacket, PacketBody, SourceReport};
use sluice_transport::Route;

use crate::api::{TrackId, WorkerId};
use crate::wake::Wake;

/// Essential messages that may wait beside a full ring. Reached only when the other worker has
/// stopped.
const MAX_WAITING: usize = 65_536;

new_key_type! {
    /// A track as one worker's receivers see it.
    pub(crate) struct FeedKey;
}

/// What workers tell each other.
#[derive(Debug)]
pub(crate) enum LinkMessage {
    /// Publisher → receivers: one packet.
    Media { feed: FeedKey, packet: MediaPacket },
    /// Publisher → receivers: clock of a layer.
    SenderReport { feed: FeedKey, report: SourceReport },
    /// Publisher → receivers: the layers that it sends changed without a packet.
    LiveLayers { feed: FeedKey, layers: LayerSet },
    /// Publisher → receivers: the publisher muted or unmuted.
    Muted { feed: FeedKey, muted: bool },
    /// Publisher → receivers: the track is over.
    TrackEnded { feed: FeedKey },
    /// Receivers → publisher: send the track's packets to this feed.
    Attach { track: TrackId, feed: FeedKey, wanted: Option<u8> },
    /// Receivers → publisher: stop sending.
    Detach { track: TrackId, feed: FeedKey },
    /// Receivers → publisher: the highest spatial layer that one of them wants.
    Wanted { track: TrackId, feed: FeedKey, max_spatial: Option<u8> },
    /// Receivers → publisher: a key frame of this layer is needed.
    KeyFrame { track: TrackId, layer: u8 },
    /// Socket → owner of the peer: a datagram that arrived at the wrong worker.
    Datagram { route: Route, bytes: PacketBody },
    /// Owner of the peer → socket: datagrams from here are mine.
    RouteUp { route: Route },
    /// Owner of the peer → socket: not any more.
    RouteDown { route: Route },
}

impl LinkMessage {
    /// Whether the state of both sides stays right without it.
    fn is_expendable(&self) -> bool {
        matches!(
            self,
            Self::Media { .. }
                | Self::SenderReport { .. }
                | Self::KeyFrame { .. }
                | Self::Datagram { .. }
        )
    }
}

/// The sending end of one link.
pub(crate) struct LinkSender {
    ring: Producer<LinkMessage>,
    waiting: VecDeque<LinkMessage>,
    wake: Arc<Wake>,
    dirty: bool,
}

/// The receiving end of one link.
pub(crate) struct LinkReceiver {
    ring: Consumer<LinkMessage>,
}

/// A link towards a worker that `wake` wakes.
pub(crate) fn link(capacity: usize, wake: Arc<Wake>) -> (LinkSender, LinkReceiver) {
    let (producer, consumer) = RingBuffer::new(capacity);
    let sender = LinkSender { ring: producer, waiting: VecDeque::new(), wake, dirty: false };
    (sender, LinkReceiver { ring: consumer })
}

impl LinkSender {
    /// Queues a message; the other worker sees it after [`flush`](Self::flush). False if it was
    /// dropped.
    pub(crate) fn push(&mut self, message: LinkMessage) -> bool {
        let expendable = message.is_expendable();
        if !expendable && !self.waiting.is_empty() {
            return self.wait(message);
        }
        match self.ring.push(message) {
            Ok(()) => {
                self.dirty = true;
                true
            }
            Err(rtrb::PushError::Full(_)) if expendable => false,
            Err(rtrb::PushError::Full(message)) => self.wait(message),
        }
    }

    /// Tries again what waits, and wakes the other worker if anything is new.
    pub(crate) fn flush(&mut self) {
        while let Some(message) = self.waiting.pop_front() {
            match self.ring.push(message) {
                Ok(()) => self.dirty = true,
                Err(rtrb::PushError::Full(message)) => {
                    self.waiting.push_front(message);
                    break;
                }
            }
        }
        if std::mem::take(&mut self.dirty) {
            self.wake.notify();
        }
    }

    /// Whether messages wait for room in the ring.
    pub(crate) fn is_congested(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn wait(&mut self, message: LinkMessage) -> bool {
        let room = self.waiting.len() < MAX_WAITING;
        if room {
            self.waiting.push_back(message);
        }
        room
    }
}

impl LinkReceiver {
    /// Next message.
    pub(crate) fn pop(&mut self) -> Option<LinkMessage> {
        self.ring.pop().ok()
    }

    /// Whether a message waits.
    pub(crate) fn has_more(&self) -> bool {
        !self.ring.is_empty()
    }
}

/// The sending ends of one worker, by target.
pub(crate) struct Links {
    senders: Vec<Option<LinkSender>>,
}

impl Links {
    /// `senders[w]` leads to worker `w`; `None` for the worker itself.
    pub(crate) fn new(senders: Vec<Option<LinkSender>>) -> Self {
        Self { senders }
    }

    /// Number of workers, this one included.
    pub(crate) fn workers(&self) -> usize {
        self.senders.len()
    }

    /// Queues a message for another worker. False if it was dropped.
    pub(crate) fn push(&mut self, to: WorkerId, message: LinkMessage) -> bool {
        match self.senders.get_mut(usize::from(to.0)) {
            Some(Some(sender)) => sender.push(message),
            _ => false,
        }
    }

    /// Ends the turn: retries, and wakes whoever has something new.
    pub(crate) fn flush(&mut self) {
        self.senders.iter_mut().flatten().for_each(LinkSender::flush);
    }

    /// Whether messages wait for room.
    pub(crate) fn is_congested(&self) -> bool {
        self.senders.iter().flatten().any(LinkSender::is_congested)
    }
}

#[cfg(test)]
mod tests {
    use slotmap::KeyData;

    use super::*;

    fn sender(capacity: usize) -> (LinkSender, LinkReceiver, mio::Poll) {
        let poll = mio::Poll::new().expect("poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("waker");
        let (sender, receiver) = link(capacity, Arc::new(Wake::new(waker)));
        (sender, receiver, poll)
    }

    fn key_frame(layer: u8) -> LinkMessage {
        LinkMessage::KeyFrame { track: TrackId::new(WorkerId(0), 1), layer }
    }

    fn ended(feed: u64) -> LinkMessage {
        LinkMessage::TrackEnded { feed: FeedKey::from(KeyData::from_ffi(feed)) }
    }

    #[test]
    fn a_full_ring_drops_what_can_be_lost_and_keeps_the_rest_in_order() {
        let (mut sender, mut receiver, _poll) = sender(2);
        assert!(sender.push(key_frame(0)) && sender.push(key_frame(1)));
        assert!(!sender.push(key_frame(2)));
        assert!(sender.push(ended(1)) && sender.push(ended(2)) && sender.push(ended(3)));
        assert!(sender.is_congested());
        let mut feeds = Vec::new();
        for _ in 0..4 {
            sender.flush();
            while let Some(message) = receiver.pop() {
                if let LinkMessage::TrackEnded { feed } = message {
                    feeds.push(feed);
                }
            }
        }
        let wanted = [1, 2, 3].map(|id| FeedKey::from(KeyData::from_ffi(id)));
        assert_eq!(feeds, wanted);
        assert!(!sender.is_congested());
    }

    #[test]
    fn a_flush_with_something_new_wakes_the_other_worker_once() {
        let (mut sender, _receiver, mut poll) = sender(8);
        let mut events = mio::Events::with_capacity(4);
        sender.flush();
        poll.poll(&mut events, Some(std::time::Duration::ZERO)).expect("poll");
        assert!(events.is_empty());
        sender.push(key_frame(0));
        sender.push(key_frame(1));
        sender.flush();
        poll.poll(&mut events, Some(std::time::Duration::ZERO)).expect("poll");
        assert_eq!(events.iter().count(), 1);
    }
}
