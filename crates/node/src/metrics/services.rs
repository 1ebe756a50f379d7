//! Samples of what surrounds the rooms: the HTTP listener, webhooks and agents.

use std::sync::atomic::Ordering;

use sluice_signal::{AgentStats, WebhookStats};

use super::exposition::{Exposition, Kind};
use crate::http::HttpStats;

/// Connections of the public listener.
pub(super) fn http_samples(page: &mut Exposition, stats: &HttpStats) {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let help = "HTTP connections now, WebSockets left out";
    page.gauge("sluice_http_connections", help, load(&stats.open));
    let help = "HTTP connections accepted";
    page.counter("sluice_http_connections_total", help, load(&stats.accepted));
    let help = "HTTP connections and requests that were cut off";
    page.family("sluice_http_refused_total", Kind::Counter, help);
    for (reason, count) in [
        ("too_many", &stats.refused),
        ("header_timeout", &stats.header_timeouts),
        ("body_timeout", &stats.body_timeouts),
    ] {
        page.sample(&[("reason", reason)], load(count));
    }
}

/// Under LiveKit's names, and how many wait.
pub(super) fn webhook_samples(page: &mut Exposition, stats: &WebhookStats) {
    let name = "livekit_webhook_dispatch_total";
    page.family(name, Kind::Counter, "Webhook events by what became of them");
    for (status, reason, count) in [
        ("success", "", stats.sent.get()),
        ("failure", "", stats.failed.get()),
        ("drop", "queue is full", stats.dropped_full.get()),
        ("drop", "age", stats.dropped_age.get()),
    ] {
        page.sample(&[("status", status), ("reason", reason)], count);
    }
    let length = &stats.queue_length;
    let help = "Events that waited when another was queued";
    page.family("livekit_webhook_queue_length", Kind::Histogram, help);
    page.histogram(&[], length.bounds(), &length.counts(), length.sum());
    page.counter("sluice_webhook_retries_total", "Webhook requests repeated", stats.retried.get());
    page.gauge("sluice_webhook_queued", "Webhook events that wait now", stats.queued.get());
}

pub(super) fn agent_samples(page: &mut Exposition, stats: &AgentStats) {
    page.gauge("sluice_agent_workers", "Agent workers registered now", stats.workers.get());
    page.family("sluice_agent_jobs_total", Kind::Counter, "Jobs of agents");
    for (event, count) in [
        ("assigned", stats.jobs_assigned.get()),
        ("restarted", stats.jobs_restarted.get()),
        ("failed", stats.jobs_failed.get()),
        ("refused", stats.jobs_refused.get()),
    ] {
        page.sample(&[("event", event)], count);
    }
    page.family("sluice_agent_offers_lost_total", Kind::Counter, "Offers that no worker took");
    for (reason, count) in
        [("declined", stats.offers_declined.get()), ("timeout", stats.offers_timed_out.get())]
    {
        page.sample(&[("reason", reason)], count);
    }
    let help = "Agent workers that were disconnected";
    page.family("sluice_agent_workers_dropped_total", Kind::Counter, help);
    for (reason, count) in
        [("overflow", stats.workers_overflowed.get()), ("silence", stats.workers_silent.get())]
    {
        page.sample(&[("reason", reason)], count);
    }
}
