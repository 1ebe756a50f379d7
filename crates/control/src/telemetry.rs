//! What rooms live through, in numbers: how many start and end, how long sessions take to get going
//! and how long they last. Fed by the events that webhooks tell, read by metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_proto as proto;
use sluice_proto::signal_response::Message as Response;
use sluice_room::{WebhookEvent, WebhookKind};

/// Upper bounds of room durations, seconds (LiveKit's buckets).
const ROOM_SECONDS: &[f64] =
    &[5.0, 10.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 18_000.0, 36_000.0];

/// Upper bounds of the time from join to connected media, milliseconds (LiveKit's, rounded).
const START_MS: &[f64] = &[
    100.0, 138.95, 193.07, 268.27, 372.759, 517.947, 719.686, 1000.0, 1389.495, 1930.698, 2682.696,
    3727.594, 5179.475, 7196.857, 10_000.0,
];

/// Upper bounds of session durations, milliseconds: up to four hours (LiveKit's, rounded).
const SESSION_MS: &[f64] = &[
    100.0,
    233.59,
    545.643,
    1274.569,
    2977.267,
    6954.603,
    16_245.264,
    37_947.332,
    88_641.217,
    207_057.122,
    483_664.973,
    1_129_793.576,
    2_639_086.133,
    6_164_644.378,
    14_400_000.0,
];

/// Counts of values by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<AtomicU64>,
    /// Sum of the values, thousandths.
    sum_milli: AtomicU64,
}

impl Histogram {
    /// An empty histogram.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_milli: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_milli.fetch_add((value * 1000.0) as u64, Ordering::Relaxed);
    }

    /// Upper bounds of the buckets; one more bucket has none.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// Values per bucket.
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum_milli.load(Ordering::Relaxed) as f64 / 1000.0
    }
}

/// Audio and video, in this order.
pub type ByKind = [u64; 2];

/// Everything that rooms have lived through since the start of the node.
#[derive(Debug)]
pub struct Telemetry {
    /// Duration of rooms that ended, seconds.
    pub room_seconds: Histogram,
    /// Time from a join to connected media, milliseconds.
    pub start_ms: Histogram,
    /// Duration of sessions that ended, milliseconds.
    pub session_ms: Histogram,
    joined: AtomicU64,
    aborted: AtomicU64,
    publishing: [AtomicU64; 2],
    published: [AtomicU64; 2],
    subscribed: [AtomicU64; 2],
    subscriptions_failed: AtomicU64,
    welcomed: AtomicU64,
    offers: AtomicU64,
    answers: AtomicU64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            room_seconds: Histogram::new(ROOM_SECONDS),
            start_ms: Histogram::new(START_MS),
            session_ms: Histogram::new(SESSION_MS),
            joined: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            publishing: Default::default(),
            published: Default::default(),
            subscribed: Default::default(),
            subscriptions_failed: AtomicU64::new(0),
            welcomed: AtomicU64::new(0),
            offers: AtomicU64::new(0),
            answers: AtomicU64::new(0),
        }
    }
}

impl Telemetry {
    /// Takes note of an event at a Unix time.
    pub(crate) fn observe(&self, event: &WebhookEvent, unix_time: Duration) {
        let now_ms = unix_time.as_millis() as f64;
        let since = |ms: i64| (now_ms - ms as f64).max(0.0);
        match (event.kind, &event.participant, &event.track) {
            (WebhookKind::RoomFinished, ..) => {
                self.room_seconds.observe(since(event.room.creation_time_ms) / 1000.0);
            }
            (WebhookKind::ParticipantJoined, Some(participant), _) => {
                self.joined.fetch_add(1, Ordering::Relaxed);
                self.start_ms.observe(since(participant.joined_at_ms));
            }
            (WebhookKind::ParticipantLeft, Some(participant), _) => {
                self.session_ms.observe(since(participant.joined_at_ms));
            }
            (WebhookKind::ParticipantConnectionAborted, ..) => {
                self.aborted.fetch_add(1, Ordering::Relaxed);
            }
            (WebhookKind::TrackPublished, _, Some(track)) => {
                let video = track.r#type() == proto::TrackType::Video;
                self.published[usize::from(video)].fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Takes note of what a room sends to a client.
    pub(crate) fn observe_response(&self, response: &Response) {
        let counter = match response {
            Response::Join(_) => &self.welcomed,
            Response::Offer(_) => &self.offers,
            Response::Answer(_) => &self.answers,
            Response::SubscriptionResponse(_) => &self.subscriptions_failed,
            Response::TrackPublished(published) => {
                let track = published.track.as_ref();
                let video = track.is_some_and(|t| t.r#type() == proto::TrackType::Video);
                &self.publishing[usize::from(video)]
            }
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of a subscription that starts to flow.
    pub(crate) fn subscribed(&self, video: bool) {
        self.subscribed[usize::from(video)].fetch_add(1, Ordering::Relaxed);
    }

    /// Participants whose media connected.
    pub fn participants_joined(&self) -> u64 {
        self.joined.load(Ordering::Relaxed)
    }

    /// Participants who left before their media connected.
    pub fn participants_aborted(&self) -> u64 {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Participants who were told that they are in their room.
    pub fn participants_welcomed(&self) -> u64 {
        self.welcomed.load(Ordering::Relaxed)
    }

    /// Session descriptions sent: offers and answers.
    pub fn descriptions(&self) -> (u64, u64) {
        (self.offers.load(Ordering::Relaxed), self.answers.load(Ordering::Relaxed))
    }

    /// Tracks announced, whether or not they were published then.
    pub fn tracks_announced(&self) -> ByKind {
        self.publishing.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Subscriptions that a client was told will not flow.
    pub fn subscriptions_failed(&self) -> u64 {
        self.subscriptions_failed.load(Ordering::Relaxed)
    }

    /// Tracks published.
    pub fn tracks_published(&self) -> ByKind {
        self.published.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Subscriptions that started to flow.
    pub fn tracks_subscribed(&self) -> ByKind {
        self.subscribed.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_that_ends_at_or_above_them() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 7.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.counts(), [2, 1, 1]);
        assert_eq!(histogram.sum(), 10.0);
    }

    #[test]
    fn sessions_are_measured_from_their_join() {
        let telemetry = Telemetry::default();
        let participant = proto::ParticipantInfo { joined_at_ms: 10_000, ..Default::default() };
        let event = |kind| WebhookEvent {
            kind,
            room: proto::Room { creation_time_ms: 9_000, ..Default::default() },
            participant: Some(participant.clone()),
            track: None,
            agents: Vec::new(),
            end_reason: Default::default(),
        };
        telemetry.observe(&event(WebhookKind::ParticipantJoined), Duration::from_millis(10_250));
        telemetry.observe(&event(WebhookKind::ParticipantLeft), Duration::from_millis(14_000));
        telemetry.observe(&event(WebhookKind::RoomFinished), Duration::from_millis(39_000));
        assert_eq!(telemetry.start_ms.sum(), 250.0);
        assert_eq!(telemetry.session_ms.sum(), 4000.0);
        assert_eq!(telemetry.room_seconds.sum(), 30.0);
        assert_eq!(telemetry.participants_joined(), 1);
    }
}
