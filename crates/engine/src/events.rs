//! Events on their way to the control plane. The queue is bounded; when it is full, what the control
//! plane must not miss waits here and is tried again, and data messages are dropped and counted.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::api::{Event, EventKind};

/// Essential events that may wait on one worker. Reached only when the control plane has stopped:
/// then they are dropped and counted.
const MAX_BACKLOG: usize = 65_536;

pub(crate) struct EventSink {
    sender: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
    pub(crate) dropped_data: u64,
    pub(crate) dropped_essential: u64,
}

impl EventSink {
    pub(crate) fn new(sender: mpsc::Sender<Event>) -> Self {
        Self { sender, backlog: VecDeque::new(), dropped_data: 0, dropped_essential: 0 }
    }

    /// Passes an event on, or keeps it.
    pub(crate) fn push(&mut self, event: Event) {
        if !self.backlog.is_empty() {
            return self.keep(event);
        }
        match self.sender.try_send(event) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(event)) => self.keep(event),
        }
    }

    /// Tries again what waits. Call once per turn.
    pub(crate) fn retry(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => self.backlog.clear(),
                Err(TrySendError::Full(event)) => return self.backlog.push_front(event),
            }
        }
    }

    /// Events that wait.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.len()
    }

    fn keep(&mut self, event: Event) {
        if is_expendable(&event.kind) {
            self.dropped_data += 1;
        } else if self.backlog.len() >= MAX_BACKLOG {
            self.dropped_essential += 1;
        } else {
            self.backlog.push_back(event);
        }
    }
}

/// Whether the control plane's state stays right without it.
fn is_expendable(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Data { .. } | EventKind::AudioLevels { .. })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::{ChannelLabel, PeerId, RoomKey, WorkerId};

    fn event(serial: u64, data: bool) -> Event {
        let peer = PeerId::new(WorkerId(0), serial);
        let kind = if data {
            let channel = ChannelLabel::Reliable;
            EventKind::Data { peer, channel, binary: true, payload: Bytes::new() }
        } else {
            EventKind::PeerDisconnected { peer }
        };
        Event { room: RoomKey(serial), kind }
    }

    #[test]
    fn essential_events_wait_in_order_and_data_is_dropped_and_counted() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut sink = EventSink::new(sender);
        for serial in 0..5 {
            sink.push(event(serial, false));
            sink.push(event(serial, true));
        }
        let mut seen = Vec::new();
        while sink.backlog() > 0 || !receiver.is_empty() {
            while let Ok(event) = receiver.try_recv() {
                if matches!(event.kind, EventKind::PeerDisconnected { .. }) {
                    seen.push(event.room.0);
                }
            }
            sink.retry();
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!((sink.dropped_data, sink.dropped_essential), (4, 0));
    }

    #[test]
    fn a_control_plane_that_is_gone_is_not_waited_for() {
        let (sender, receiver) = mpsc::channel(1);
        let mut sink = EventSink::new(sender);
        sink.push(event(0, false));
        sink.push(event(1, false));
        drop(receiver);
        sink.retry();
        assert_eq!(sink.backlog(), 0);
    }
}
