//! Events that wait for one receiver about one resource. Time is an argument.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::WebhookEvent;

/// What became of a new event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Nobody empties this queue yet.
    First,
    /// It waits behind others.
    Queued,
    /// Dropped.
    Full,
}

/// The next event to send.
#[derive(Debug, Default)]
pub(super) struct Next {
    /// `None`: the queue is empty, and nobody empties it any more.
    pub(super) event: Option<Arc<WebhookEvent>>,
    /// Events lost since the last one was handed out.
    pub(super) lost: i32,
    /// Of these, the ones found too old just now.
    pub(super) too_old: usize,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct ResourceQueue {
    waiting: VecDeque<(Instant, Arc<WebhookEvent>)>,
    lost: i32,
    emptied_by_someone: bool,
}

impl ResourceQueue {
    /// Adds an event unless `max_depth` wait already.
    pub(super) fn push(
        &mut self,
        now: Instant,
        event: Arc<WebhookEvent>,
        max_depth: usize,
    ) -> Pushed {
        if self.waiting.len() >= max_depth {
            self.add_lost(1);
            return Pushed::Full;
        }
        self.waiting.push_back((now, event));
        if std::mem::replace(&mut self.emptied_by_someone, true) {
            Pushed::Queued
        } else {
            Pushed::First
        }
    }

    /// Events that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits and nobody empties the queue.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.emptied_by_someone
    }

    /// Whether the next event has losses to report.
    pub(super) fn has_losses(&self) -> bool {
        self.lost > 0
    }

    /// Counts events that were lost on their way.
    pub(super) fn add_lost(&mut self, count: i32) {
        self.lost = self.lost.saturating_add(count);
    }

    /// Takes the oldest event that has not waited for longer than `max_age`.
    pub(super) fn pop(&mut self, now: Instant, max_age: Duration) -> Next {
        let mut next = Next::default();
        while let Some((since, event)) = self.waiting.pop_front() {
            if now.saturating_duration_since(since) <= max_age {
                next.event = Some(event);
                break;
            }
            next.too_old += 1;
            self.add_lost(1);
        }
        match next.event {
            Some(_) => next.lost = std::mem::take(&mut self.lost),
            None => self.emptied_by_someone = false,
        }
        next
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant does as the origin")]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(30);

    fn event(id: &str) -> Arc<WebhookEvent> {
        Arc::new(WebhookEvent { id: id.into(), ..WebhookEvent::default() })
    }

    fn id(next: &Next) -> Option<&str> {
        next.event.as_ref().map(|event| event.id.as_str())
    }

    #[test]
    fn order_is_kept_and_only_the_first_needs_someone_to_send_it() {
        let (now, mut queue) = (Instant::now(), ResourceQueue::default());
        assert_eq!(queue.push(now, event("1"), 9), Pushed::First);
        assert_eq!(queue.push(now, event("2"), 9), Pushed::Queued);
        assert_eq!(id(&queue.pop(now, AGE)), Some("1"));
        assert_eq!(queue.push(now, event("3"), 9), Pushed::Queued);
        assert_eq!(id(&queue.pop(now, AGE)), Some("2"));
        assert_eq!(id(&queue.pop(now, AGE)), Some("3"));
        assert_eq!(id(&queue.pop(now, AGE)), None);
        assert_eq!(queue.push(now, event("4"), 9), Pushed::First);
    }

    #[test]
    fn the_next_event_tells_how_many_are_missing_before_it() {
        let (now, mut queue) = (Instant::now(), ResourceQueue::default());
        queue.push(now, event("1"), 2);
        queue.push(now, event("2"), 2);
        assert_eq!(queue.push(now, event("3"), 2), Pushed::Full);
        assert_eq!(queue.pop(now, AGE).lost, 1);
        queue.add_lost(2);
        let next = queue.pop(now, AGE);
        assert_eq!((id(&next), next.lost), (Some("2"), 2));
    }

    #[test]
    fn what_waited_too_long_is_dropped_and_counted() {
        let (start, mut queue) = (Instant::now(), ResourceQueue::default());
        queue.push(start, event("old"), 9);
        queue.push(start + AGE, event("new"), 9);
        let next = queue.pop(start + AGE + Duration::from_millis(1), AGE);
        assert_eq!((id(&next), next.lost, next.too_old), (Some("new"), 1, 1));
    }
}
