//! Counters of the adapter: totals since start unless named otherwise.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// For numbers that go up and down.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident: $kind:ident,)*) => {
        /// Everything that the adapter counts.
        #[derive(Debug, Default)]
        pub struct TurmsStats {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl TurmsStats {
            /// Name, whether it only grows, and value of each.
            pub fn named(&self) -> Vec<(&'static str, bool, u64)> {
                vec![$((stringify!($name), stats!(@grows $kind), self.$name.get()),)*]
            }
        }
    };
    (@grows total) => { true };
    (@grows now) => { false };
}

stats! {
    /// Tokens handed out.
    tokens_issued: total,
    /// Token requests refused because of who asked: wrong or missing proof of identity.
    tokens_unauthorized: total,
    /// Token requests refused by policy.
    tokens_denied: total,
    /// Token requests refused because Turms could not be asked.
    tokens_unavailable: total,
    /// Requests refused because their user or address asks too often.
    requests_throttled: total,
    /// Requests to Turms' admin API.
    admin_requests: total,
    /// Requests that got no usable answer.
    admin_failures: total,
    /// Requests refused by Turms for its rate limit.
    admin_rate_limited: total,
    /// Requests refused by Turms for our login: a configuration error.
    admin_unauthorized: total,
    /// Requests not sent because the circuit breaker was open.
    admin_breaker_refusals: total,
    /// Requests not sent because too many waited for their turn.
    admin_queue_refusals: total,
    /// Rooms that follow Turms now.
    watched_rooms: now,
    /// Rooms whose facts are stale now.
    stale_rooms: now,
    /// Looks at rooms finished.
    polls: total,
    /// Between the last two looks at the room that was looked at last, milliseconds: above the
    /// configured interval, the request budget is too small for so many rooms.
    poll_round_ms: now,
    /// Participants removed because Turms says so.
    participants_removed: total,
    /// Participants who lost the right to publish.
    participants_muted: total,
    /// Participants who got the right to publish back.
    participants_unmuted: total,
    /// Participants who became administrators of their room, or ceased to be.
    admins_changed: total,
    /// Rooms closed because their group is gone, or for stale facts.
    rooms_closed: total,
    /// Answers that would have removed many at once, held back until a second look.
    removals_held: total,
    /// Joins refused although their token is good: its holder was removed.
    joins_denied: total,
    /// Joins refused because their meeting was cancelled.
    joins_to_closed_meetings: total,
    /// Tables that were full, so that something was forgotten early.
    tables_full: total,
    /// Changes that could not be written to the state file, so that a restart forgets them.
    state_failures: total,
    /// Change notices accepted from the plugin.
    events_accepted: total,
    /// Signed requests refused: signature, age, or seen before.
    events_refused: total,
    /// System messages stored by Turms.
    messages_sent: total,
    /// System messages that Turms had already.
    messages_duplicate: total,
    /// System messages given up: the queue was full or Turms refused them.
    messages_dropped: total,
    /// Server API calls in the stock plugin's framing.
    compat_delimited: total,
    /// Identities made for tokens that have none.
    compat_generated_identities: total,
    /// Calls and joins refused because the room's name is reserved for meetings.
    compat_reserved_refusals: total,
}
