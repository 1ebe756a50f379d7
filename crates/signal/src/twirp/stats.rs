//! How calls of the server API ended and how long they took, by method.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use dashmap::DashMap;
use sluice_control::Histogram;

/// Upper bounds of the time that a call takes, milliseconds (LiveKit's).
const LATENCY_MS: &[f64] = &[
    5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0,
    60_000.0,
];

/// A method, and how its calls ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKind {
    /// Name of the service without its package.
    pub service: &'static str,
    /// Name of the method.
    pub method: &'static str,
    /// Family of the HTTP status: `200`, `4xx` or `5xx`.
    pub status: &'static str,
}

/// See the module. Only methods that exist are counted, so that callers cannot make it grow.
#[derive(Debug, Default)]
pub struct CallStats {
    /// Also by Twirp's code, empty for a call that went well.
    ended: DashMap<(CallKind, &'static str), AtomicU64>,
    latency: DashMap<CallKind, Histogram>,
}

impl CallStats {
    /// Counts a call; `code` is Twirp's, empty for one that went well.
    pub(super) fn count(&self, kind: CallKind, code: &'static str, took: Duration) {
        self.ended.entry((kind, code)).or_default().fetch_add(1, Ordering::Relaxed);
        let latency = self.latency.entry(kind).or_insert_with(|| Histogram::new(LATENCY_MS));
        latency.observe(took.as_secs_f64() * 1000.0);
    }

    /// Calls so far, by kind and Twirp's code.
    pub fn ended(&self) -> BTreeMap<(CallKind, &'static str), u64> {
        let counts = self.ended.iter();
        counts.map(|entry| (*entry.key(), entry.value().load(Ordering::Relaxed))).collect()
    }

    /// Calls `step` with the time that calls of each kind took, milliseconds.
    pub fn latency(&self, mut step: impl FnMut(CallKind, &Histogram)) {
        for entry in &self.latency {
            step(*entry.key(), entry.value());
        }
    }
}

/// The family that LiveKit files a status under.
pub(super) fn family(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "200",
    }
}
