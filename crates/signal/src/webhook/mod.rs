//! Webhooks: what happens in rooms, told to the operator's own servers.
//!
//! Events flow in from rooms (one bounded channel, in order) or one by one through
//! [`Webhooks::notify`]; signed `POST` requests flow out. Each receiver has a queue per resource (a
//! room, an egress): the events of one room arrive in order, and a room whose events are stuck does
//! not hold up another. Every queue is bounded in length and age; what is dropped is counted, and
//! the next event that gets through says how many are missing before it.

mod deliver;
mod event;
mod queue;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use sluice_control::{Histogram, WebhookEvent};
use sluice_proto as proto;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::id::random_id;
use crate::server::unix_time;
use crate::stats::Counter;
use crate::token::ApiKeys;
use deliver::Sender;
use queue::{Next, Pushed, ResourceQueue};

pub use event::{EVENT_NAMES, EventFilter};

/// Events of rooms that may wait for the dispatcher, which never waits itself.
pub const EVENT_QUEUE: usize = 16_384;

/// Requests on their way at once, over all receivers, and to one of them: one that does not answer must
/// not keep the others waiting.
const MAX_IN_FLIGHT: usize = 256;
const MAX_IN_FLIGHT_PER_RECEIVER: usize = 64;

/// Buckets of queue lengths (LiveKit's).
const QUEUE_LENGTHS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 40.0, 80.0];

/// Queues kept, beyond which one that only has losses to report ends without reporting them.
const MAX_QUEUES: usize = 10_000;

/// Where events go and how long they may take (`webhook.*` of the config).
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// Receivers of every event.
    pub urls: Vec<String>,
    /// Key that signs, one of the server's; empty without URLs.
    pub api_key: String,
    /// Which events are sent to `urls`.
    pub filter: EventFilter,
    /// An event that has waited longer for its turn is dropped.
    pub max_age: Duration,
    /// Events that may wait per receiver and resource.
    pub max_depth: usize,
    /// Whether events of tracks carry the whole room instead of its SID and name.
    pub full_room: bool,
    /// Pause before the first repetition; doubles with each.
    pub retry_min: Duration,
    /// Longest pause between repetitions.
    pub retry_max: Duration,
}

impl Default for WebhookConfig {
    /// LiveKit's defaults, without receivers.
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            api_key: String::new(),
            filter: EventFilter::default(),
            max_age: Duration::from_secs(30),
            max_depth: 200,
            full_room: false,
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
        }
    }
}

impl WebhookConfig {
    /// Whether events could be sent.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub fn check(&self, keys: &ApiKeys) -> Result<(), WebhookError> {
        if let Some(url) = self.urls.iter().find(|url| !deliver::is_callable(url)) {
            return Err(WebhookError::Url(url.clone()));
        }
        match self.api_key.as_str() {
            "" if self.urls.is_empty() => Ok(()),
            "" => Err(WebhookError::NoKey),
            key if keys.secret(key).is_none() => Err(WebhookError::UnknownKey(key.to_owned())),
            _ => Ok(()),
        }
    }
}

/// Why webhooks cannot be started: the config is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// `webhook.api_key` is missing.
    #[error("`webhook.urls` needs `webhook.api_key`: name the API key that signs webhooks")]
    NoKey,
    /// `webhook.api_key` is not one of the server's keys.
    #[error("`webhook.api_key` names `{0}`, which is not among the API keys: add it to `keys`")]
    UnknownKey(String),
    /// A URL cannot be called.
    #[error("`webhook.urls` holds `{0}`, which is not an http or https URL")]
    Url(String),
    /// The HTTP client cannot be made.
    #[error("cannot make the webhook client: {0}")]
    Client(String),
}

/// What became of events, per receiver.
#[derive(Debug)]
pub struct WebhookStats {
    /// Answered with success.
    pub sent: Counter,
    /// Given up after the last repetition, or refused by the receiver.
    pub failed: Counter,
    /// Dropped because the queue of their resource was full.
    pub dropped_full: Counter,
    /// Dropped because they had waited too long.
    pub dropped_age: Counter,
    /// Requests repeated.
    pub retried: Counter,
    /// Events that wait or are on their way now.
    pub queued: Counter,
    /// Events in the queue of a resource, each time that one joins them.
    pub queue_length: Histogram,
}

impl Default for WebhookStats {
    fn default() -> Self {
        let [sent, failed, dropped_full, dropped_age, retried, queued] = Default::default();
        let queue_length = Histogram::new(QUEUE_LENGTHS);
        Self { sent, failed, dropped_full, dropped_age, retried, queued, queue_length }
    }
}

/// Sends webhooks. Clones are the same.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    config: WebhookConfig,
    keys: ApiKeys,
    sender: Sender,
    stats: Arc<WebhookStats>,
    queues: DashMap<QueueKey, ResourceQueue>,
    in_flight: Semaphore,
    /// Turns of each receiver, by URL, while something waits for it.
    receivers: DashMap<Arc<str>, Arc<Semaphore>>,
    /// Signalled when the last queue has emptied.
    idle: Notify,
}

/// A receiver and a resource whose events must reach it in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct QueueKey {
    url: Arc<str>,
    api_key: Arc<str>,
    resource: Arc<str>,
}

impl Webhooks {
    /// Checks the config and makes the client. Nothing is sent yet.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub fn new(config: WebhookConfig, keys: ApiKeys) -> Result<Self, WebhookError> {
        config.check(&keys)?;
        let stats = Arc::<WebhookStats>::default();
        let sender = Sender::new(&config, keys.clone(), stats.clone())?;
        Ok(Self(Arc::new(Inner {
            config,
            keys,
            sender,
            stats,
            queues: DashMap::new(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            receivers: DashMap::new(),
            idle: Notify::new(),
        })))
    }

    /// Whether anybody listens to what happens in rooms.
    pub fn has_receivers(&self) -> bool {
        !self.0.config.urls.is_empty()
    }

    /// Counters, for metrics.
    pub fn stats(&self) -> &Arc<WebhookStats> {
        &self.0.stats
    }

    /// Sends the events of rooms until the channel ends.
    pub async fn run(self, mut events: mpsc::Receiver<Arc<WebhookEvent>>) {
        while let Some(event) = events.recv().await {
            let event = event::of_room(&event, self.0.config.full_room);
            self.notify(event, &[]);
        }
    }

    /// Queues one event for the configured receivers and for those of one request. The id and the
    /// time of the event are set here. Never waits.
    pub fn notify(&self, mut event: proto::WebhookEvent, extra: &[proto::WebhookConfig]) {
        event.id = random_id("EV_", &mut rand::rng());
        event.created_at = unix_time().as_secs().try_into().unwrap_or(i64::MAX);
        let event = Arc::new(event);
        let config = &self.0.config;
        if config.filter.allows(&event.event) {
            for url in &config.urls {
                self.enqueue(url, &config.api_key, &event);
            }
        }
        for webhook in extra {
            let filter = webhook.filter_params.clone().map(EventFilter::from);
            if filter.is_some_and(|filter| !filter.allows(&event.event)) {
                continue;
            }
            let key = match webhook.signing_key.as_str() {
                "" => config.api_key.as_str(),
                key => key,
            };
            if self.0.keys.secret(key).is_none() || !deliver::is_callable(&webhook.url) {
                tracing::warn!(url = webhook.url, key, "webhook of a request cannot be sent");
                self.0.stats.failed.add();
                continue;
            }
            self.enqueue(&webhook.url, key, &event);
        }
    }

    fn enqueue(&self, url: &str, api_key: &str, event: &Arc<proto::WebhookEvent>) {
        let key = QueueKey {
            url: url.into(),
            api_key: api_key.into(),
            resource: event::resource(event).into(),
        };
        let (pushed, len) = {
            let mut queue = self.0.queues.entry(key.clone()).or_default();
            let pushed = queue.push(Instant::now(), event.clone(), self.0.config.max_depth);
            (pushed, queue.len())
        };
        self.0.stats.queue_length.observe(len as f64);
        match pushed {
            Pushed::Full => {
                tracing::info!(url, event = event.event, "webhook dropped: too many wait");
                self.0.stats.dropped_full.add();
            }
            Pushed::Queued => self.0.stats.queued.add(),
            Pushed::First => {
                self.0.stats.queued.add();
                tokio::spawn(self.clone().deliver(key));
            }
        }
    }

    /// Empties one queue, in order, then ends with it.
    async fn deliver(self, key: QueueKey) {
        let inner = &self.0;
        let turns = inner.turns(&key.url);
        let mut lost = 0;
        loop {
            let next = inner.next(&key, std::mem::take(&mut lost));
            for _ in 0..next.too_old {
                inner.stats.dropped_age.add();
                inner.stats.queued.sub();
            }
            let Some(event) = next.event else {
                drop(turns);
                inner.receivers.remove_if(&key.url, |_, turns| Arc::strong_count(turns) == 1);
                inner.idle.notify_waiters();
                return;
            };
            // Closed never.
            let _turn = turns.acquire().await;
            let _permit = inner.in_flight.acquire().await;
            let event = proto::WebhookEvent { num_dropped: next.lost, ..(*event).clone() };
            match inner.sender.send(&key.url, &key.api_key, &event).await {
                Ok(()) => inner.stats.sent.add(),
                Err(error) => {
                    tracing::warn!(url = &*key.url, event = event.event, %error, "webhook failed");
                    inner.stats.failed.add();
                    lost = next.lost.saturating_add(1);
                }
            }
            inner.stats.queued.sub();
        }
    }

    /// Waits until nothing is on its way any more, at most for `patience`.
    pub async fn drain(&self, patience: Duration) {
        let emptied = async {
            loop {
                let idle = self.0.idle.notified();
                if self.0.stats.queued.get() == 0 {
                    return;
                }
                idle.await;
            }
        };
        if tokio::time::timeout(patience, emptied).await.is_err() {
            tracing::warn!(waiting = self.0.stats.queued.get(), "webhooks were not sent in time");
        }
    }
}

impl Inner {
    fn turns(&self, url: &Arc<str>) -> Arc<Semaphore> {
        let entry = self.receivers.entry(url.clone());
        entry.or_insert_with(|| Arc::new(Semaphore::new(MAX_IN_FLIGHT_PER_RECEIVER))).clone()
    }

    /// The next event of a queue. An empty queue ends, unless it still has losses to report.
    fn next(&self, key: &QueueKey, lost: i32) -> Next {
        let next = match self.queues.get_mut(key) {
            Some(mut queue) => {
                queue.add_lost(lost);
                queue.pop(Instant::now(), self.config.max_age)
            }
            None => Next::default(),
        };
        if next.event.is_none() {
            let crowded = self.queues.len() > MAX_QUEUES;
            self.queues
                .remove_if(key, |_, queue| queue.is_idle() && (crowded || !queue.has_losses()));
        }
        next
    }
}
