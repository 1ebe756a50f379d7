//! The result of a run: figures, a timeline, a verdict by thresholds, and a table for a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::measure::{ReceiveTotals, TimeSummary};
use crate::outcome::Counts;
use crate::plan::Options;
use crate::publish::PublishTotals;
use crate::worker::Snapshot;

/// One second of a run. Rates are of that second.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Second {
    /// Seconds since the start.
    pub at_s: f64,
    /// Participants that joined so far, and those that could not.
    pub joined: usize,
    /// See `joined`.
    pub failed: usize,
    /// RTP packets received.
    pub packets_in: u64,
    /// Bits received.
    pub bits_in: u64,
    /// RTP packets sent.
    pub packets_out: u64,
    /// Packets lost for good.
    pub lost: u64,
    /// Latency in this second, milliseconds.
    pub latency_p50_ms: f64,
    /// See `latency_p50_ms`.
    pub latency_p99_ms: f64,
    #[serde(skip)]
    totals: (ReceiveTotals, PublishTotals),
}

impl Second {
    pub(crate) fn new(
        at: Duration,
        snapshot: &Snapshot,
        counts: &Counts,
        before: Option<&Self>,
    ) -> Self {
        let (received, published) = (snapshot.received, snapshot.published);
        let earlier = before.map(|before| before.totals).unwrap_or_default();
        // A restart of the counters makes them smaller than before.
        let restarted =
            received.packets < earlier.0.packets || published.packets < earlier.1.packets;
        let since = |now: u64, then: u64| if restarted { now } else { now.saturating_sub(then) };
        let latency = &snapshot.measurements.recent_latency;
        Self {
            at_s: at.as_secs_f64(),
            joined: counts.joined,
            failed: counts.failed + counts.dropped,
            packets_in: since(received.packets, earlier.0.packets),
            bits_in: since(received.bytes, earlier.0.bytes) * 8,
            packets_out: since(published.packets, earlier.1.packets),
            lost: since(received.lost, earlier.0.lost),
            latency_p50_ms: latency.quantile_ms(0.5),
            latency_p99_ms: latency.quantile_ms(0.99),
            totals: (received, published),
        }
    }

    /// RTP packets sent and received so far in the current count.
    pub fn totals(&self) -> (u64, u64) {
        (self.totals.1.packets, self.totals.0.packets)
    }
}

/// The joins of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Joins {
    /// Participants whose primary peer connection came up.
    pub joined: usize,
    /// Participants that could not join.
    pub failed: usize,
    /// Participants that were lost after they had joined.
    pub dropped: usize,
    /// Sessions that were taken up again after a storm.
    pub resumed: usize,
    /// Participants who saw others than were there at the end.
    pub inconsistent: usize,
    /// From opening the WebSocket to the connected primary peer connection.
    pub time: TimeSummary,
    /// Reasons of failures, with how often each occurred.
    pub errors: Vec<(String, usize)>,
}

/// Figures of the measured window.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub options: Options,
    /// Length of the window, seconds.
    pub seconds: f64,
    /// Joins.
    pub joins: Joins,
    /// What subscribers received.
    pub received: ReceiveTotals,
    /// What publishers sent.
    pub published: PublishTotals,
    /// Packets received per second.
    pub packets_per_second: f64,
    /// Bits received per second.
    pub bits_per_second: f64,
    /// Lost for good, of all that should have come, percent.
    pub loss_percent: f64,
    /// From sealing at the publisher to arrival at the subscriber.
    pub audio_latency: TimeSummary,
    /// The same of video.
    pub video_latency: TimeSummary,
    /// The same of data messages.
    pub data_latency: TimeSummary,
    /// Change of the transit time from one packet or frame to the next.
    pub jitter: TimeSummary,
    /// From asking for a track to its first packet.
    pub first_packet: TimeSummary,
    /// From asking for a track to its first whole frame.
    pub first_frame: TimeSummary,
    /// What the load tester itself used and lost.
    pub tester: TesterUse,
    /// Its CPU time per packet sent or received, microseconds.
    pub tester_cpu_us_per_packet: f64,
    /// Quantile and milliseconds of the latency of all media.
    pub latency_curve: Vec<(f64, f64)>,
    /// Second by second, from the first join on.
    pub timeline: Vec<Second>,
}

impl Report {
    pub(crate) fn new(
        options: &Options,
        end: &Snapshot,
        tester: TesterUse,
        counts: &Counts,
        measured: Duration,
        timeline: Vec<Second>,
    ) -> Self {
        let seconds = measured.as_secs_f64().max(1e-9);
        let (received, published) = (end.received, end.published);
        let expected =
            received.packets - received.repair_packets.min(received.packets) + received.lost;
        let packets = received.packets + published.packets;
        let cpu_us = tester.cpu_s * 1e6;
        let mut media = end.measurements.audio_latency.clone();
        media.add(&end.measurements.video_latency);
        Self {
            options: options.clone(),
            seconds,
            joins: Joins {
                joined: counts.joined,
                failed: counts.failed,
                dropped: counts.dropped,
                resumed: 0,
                inconsistent: 0,
                time: counts.join_time.summary(),
                errors: counts.errors.clone().into_iter().collect(),
            },
            packets_per_second: received.packets as f64 / seconds,
            bits_per_second: received.bytes as f64 * 8.0 / seconds,
            loss_percent: 100.0 * received.lost as f64 / expected.max(1) as f64,
            audio_latency: end.measurements.audio_latency.summary(),
            video_latency: end.measurements.video_latency.summary(),
            data_latency: end.measurements.data_latency.summary(),
            jitter: end.measurements.jitter.summary(),
            first_packet: end.measurements.first_packet.summary(),
            first_frame: end.measurements.first_frame.summary(),
            tester,
            tester_cpu_us_per_packet: if packets == 0 { 0.0 } else { cpu_us / packets as f64 },
            latency_curve: media.curve(),
            timeline,
            received,
            published,
        }
    }

    /// Worst 99th percentile of the latencies of media.
    pub fn latency_p99_ms(&self) -> f64 {
        self.audio_latency.p99_ms.max(self.video_latency.p99_ms)
    }

    /// What was missed, in words; empty if all is well.
    pub fn violations(&self, thresholds: &Thresholds) -> Vec<String> {
        let mut violations = Vec::new();
        let lost_participants = self.joins.failed + self.joins.dropped;
        if lost_participants > thresholds.max_failures {
            violations.push(format!("{lost_participants} participants failed or were dropped"));
        }
        if self.joins.inconsistent > 0 {
            violations.push(format!(
                "{} participants saw others than were there",
                self.joins.inconsistent
            ));
        }
        if let Some(max) = thresholds.max_loss_percent
            && self.loss_percent > max
        {
            violations.push(format!("loss {:.3} % is above {max} %", self.loss_percent));
        }
        if let Some(max) = thresholds.max_latency_p99_ms
            && self.latency_p99_ms() > max
        {
            violations
                .push(format!("latency p99 {:.2} ms is above {max} ms", self.latency_p99_ms()));
        }
        let silent = self.received.tracks.saturating_sub(self.received.tracks_with_media);
        if silent > 0 {
            violations
                .push(format!("{silent} tracks of {} brought no media", self.received.tracks));
        }
        violations
    }

    /// A table for a terminal.
    pub fn table(&self) -> String {
        let Self { received, published, joins, .. } = self;
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<28}{value}");
        };
        row(
            "participants",
            format!("{} joined, {} failed, {} dropped", joins.joined, joins.failed, joins.dropped),
        );
        if self.options.storm_percent > 0 {
            let (resumed, wrong) = (joins.resumed, joins.inconsistent);
            row("storm", format!("{resumed} resumed, {wrong} saw others than were there"));
        }
        row("join time", times(&joins.time));
        row("tracks", format!("{} of {} with media", received.tracks_with_media, received.tracks));
        row("time to first packet", times(&self.first_packet));
        row("time to first frame", times(&self.first_frame));
        row(
            "received",
            format!(
                "{} packets, {:.0}/s, {:.1} Mbit/s",
                received.packets,
                self.packets_per_second,
                self.bits_per_second / 1e6
            ),
        );
        row("sent", format!("{} packets, {} key frames", published.packets, published.key_frames));
        row(
            "loss",
            format!(
                "{:.4} % ({} lost, {} gaps, {} recovered, {} duplicates)",
                self.loss_percent,
                received.lost,
                received.gaps,
                received.recovered,
                received.duplicates
            ),
        );
        row(
            "feedback",
            format!(
                "{} NACKed by us, {} by the server; {} key frames asked by us, {} by the server",
                received.nacked, published.nacked, received.plis, published.plis
            ),
        );
        for (name, summary) in [
            ("latency, audio", &self.audio_latency),
            ("latency, video", &self.video_latency),
            ("latency, data", &self.data_latency),
            ("jitter", &self.jitter),
        ] {
            if summary.count > 0 {
                row(name, times(summary));
            }
        }
        row(
            "video",
            format!(
                "{} frames, {} freezes, {} ms frozen",
                received.frames, received.freezes, received.freeze_ms
            ),
        );
        let odd = received.unknown_ssrc
            + received.malformed
            + received.not_authentic
            + received.unstamped
            + published.unsent
            + self.tester.send_drops;
        if odd > 0 {
            row(
                "odd packets",
                format!(
                    "{} unknown SSRC, {} malformed, {} not authentic, {} unstamped, {} unsent, {} refused \
                 by the tester's sockets",
                    received.unknown_ssrc,
                    received.malformed,
                    received.not_authentic,
                    received.unstamped,
                    published.unsent,
                    self.tester.send_drops
                ),
            );
        }
        row(
            "load tester",
            format!(
                "{:.1} % of a core, {:.2} us per packet, {} packets authenticated",
                100.0 * self.tester.cpu_s / self.seconds,
                self.tester_cpu_us_per_packet,
                received.authenticated
            ),
        );
        for limit in self.tester.limits() {
            row("limited by", limit);
        }
        for (error, count) in &joins.errors {
            row("error", format!("{count} x {error}"));
        }
        out
    }
}

/// What the load tester used and lost in the measured window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TesterUse {
    /// CPU time, seconds.
    pub cpu_s: f64,
    /// Share of a core that its busiest media thread used, 0..=1.
    pub busiest_thread: f64,
    /// Packets that its own sockets refused: not the server's loss.
    pub send_drops: u64,
    /// Datagrams that arrived and found the buffer of its socket full: not the server's loss.
    pub receive_drops: u64,
    /// The same of the server's sockets, if it runs on this machine.
    pub server_receive_drops: u64,
}

/// Above this share of a core a media thread of the tester delays and loses packets by itself.
const BUSY_THREAD: f64 = 0.9;

impl TesterUse {
    /// What limited the run, as far as it can be seen from here.
    fn limits(&self) -> Vec<String> {
        let mut limits = Vec::new();
        let busy = 100.0 * self.busiest_thread;
        if self.busiest_thread > BUSY_THREAD {
            limits.push(format!("the tester: a media thread used {busy:.0} % of a core"));
        }
        if self.receive_drops > 0 {
            let lost = self.receive_drops;
            limits.push(format!("the tester: its sockets overflowed, {lost} datagrams"));
        }
        if self.server_receive_drops > 0 {
            let lost = self.server_receive_drops;
            limits.push(format!("the server: its sockets overflowed, {lost} datagrams"));
        }
        limits
    }
}

/// What a run must reach to succeed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Thresholds {
    /// Participants that may fail.
    pub max_failures: usize,
    /// Loss, percent.
    pub max_loss_percent: Option<f64>,
    /// 99th percentile of the latency of media, milliseconds.
    pub max_latency_p99_ms: Option<f64>,
}

fn times(summary: &TimeSummary) -> String {
    format!(
        "p50 {:.2} ms, p90 {:.2}, p99 {:.2}, max {:.2} ({} samples)",
        summary.p50_ms, summary.p90_ms, summary.p99_ms, summary.max_ms, summary.count
    )
}
