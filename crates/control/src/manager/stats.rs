//! What the rooms of a node are like: numbers for metrics, and descriptions for people.

use std::sync::atomic::{AtomicU64, Ordering};

use sluice_room::{DataDrops, Room, RoomDescription};

use super::RoomManager;
use crate::telemetry::{ByKind, Telemetry};

/// What the rooms of a node are like and what went wrong in them since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ManagerStats {
    /// Open rooms.
    pub rooms: u64,
    /// Participants in them.
    pub participants: u64,
    /// Participants who publish.
    pub publishers: u64,
    /// Sessions closed because their client read too slowly.
    pub slow_sessions: u64,
    /// Data messages that a worker's queue had no room for.
    pub data_dropped: u64,
    /// Other commands that could not be delivered.
    pub commands_dropped: u64,
    /// Media events that a room's queue had no room for.
    pub events_dropped: u64,
    /// Events that the queue of an observer (webhooks, agents) had no room for.
    pub webhooks_dropped: u64,
    /// Rooms that ended in a panic.
    pub rooms_panicked: u64,
    /// Data packets of clients that were not passed on, with the reason.
    pub data: DataDrops,
}

impl RoomManager {
    /// Numbers for metrics.
    pub fn stats(&self) -> ManagerStats {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = ManagerStats {
            slow_sessions: read(&counters.slow_sessions),
            data_dropped: read(&counters.data_dropped),
            commands_dropped: read(&counters.commands_dropped),
            events_dropped: read(&counters.events_dropped),
            webhooks_dropped: read(&counters.webhooks_dropped),
            rooms_panicked: read(&counters.rooms_panicked),
            data: counters.data.read(),
            ..ManagerStats::default()
        };
        for room in self.inner.rooms.list(&[]) {
            let summary = room.summary.load();
            stats.rooms += 1;
            stats.participants += u64::from(summary.num_participants);
            stats.publishers += u64::from(summary.num_publishers);
        }
        stats
    }

    /// What rooms have lived through.
    pub fn telemetry(&self) -> &Telemetry {
        &self.inner.counters.telemetry
    }

    /// Published tracks and subscriptions now, by kind: (published, subscribed).
    pub async fn track_counts(&self) -> (ByKind, ByKind) {
        let (mut published, mut subscribed) = (ByKind::default(), ByKind::default());
        for room in self.ask_rooms(Room::track_counts).await {
            for (video, (tracks, subscriptions)) in room.into_iter().enumerate() {
                published[video] += tracks;
                subscribed[video] += subscriptions;
            }
        }
        (published, subscribed)
    }

    /// The state of every room in words, rooms that do not answer left out.
    pub async fn describe_rooms(&self) -> Vec<RoomDescription> {
        self.ask_rooms(Room::describe).await
    }

    async fn ask_rooms<T: Send + 'static>(&self, question: fn(&Room) -> T) -> Vec<T> {
        let rooms = self.inner.rooms.list(&[]);
        let mut answers = Vec::with_capacity(rooms.len());
        for room in rooms {
            answers.extend(room.call(move |room, _| question(room)).await.ok());
        }
        answers
    }
}
