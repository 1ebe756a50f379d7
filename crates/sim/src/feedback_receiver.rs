//! The congestion-control side of a receiver: transport-wide feedback for what arrives, or an
//! estimate of its own, as libwebrtc sends them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sluice_rtp::SeqUnwrapper;
use sluice_rtp::ext::parse_transport_cc;
use sluice_rtp::packet::RtpView;
use sluice_rtp::rtcp::write::{self, Arrival, FeedbackHeader};

/// Time between messages of feedback (libwebrtc's default).
const TWCC_INTERVAL: Duration = Duration::from_millis(100);
/// Time between estimates, and window of what they are made of.
const REMB_INTERVAL: Duration = Duration::from_millis(250);
const REMB_WINDOW: Duration = Duration::from_millis(500);
/// Least time between estimates.
const REMB_MIN_INTERVAL: Duration = Duration::from_millis(100);
/// A receiver's estimate is at most this multiple of what it receives, and it falls to this share
/// when queues grow (libwebrtc `remote_bitrate_estimator`).
const REMB_HEADROOM: f64 = 1.5;
const REMB_BACKOFF: f64 = 0.85;
/// Queueing delay at which the simulated estimator takes the path for full.
const REMB_MAX_DELAY: Duration = Duration::from_millis(30);

/// What the receiver tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// Transport-wide feedback; the id of the header extension.
    TransportCc(u8),
    /// Its own estimate.
    Remb,
}

/// A receiver's feedback generator.
#[derive(Debug)]
pub struct FeedbackReceiver {
    feedback: Feedback,
    start: Instant,
    next: Instant,
    seqs: SeqUnwrapper,
    arrivals: Vec<Arrival>,
    base_seq: Option<u64>,
    count: u8,
    /// Arrival, bytes and one-way delay of the last packets.
    window: VecDeque<(Instant, usize, Duration)>,
    least_delay: Option<Duration>,
    remb_bps: f64,
    bytes: u64,
    packets: u64,
}

impl FeedbackReceiver {
    /// Nothing received.
    pub fn new(feedback: Feedback, now: Instant) -> Self {
        Self {
            feedback,
            start: now,
            next: now + TWCC_INTERVAL,
            seqs: SeqUnwrapper::new(),
            arrivals: Vec::new(),
            base_seq: None,
            count: 0,
            window: VecDeque::new(),
            least_delay: None,
            remb_bps: 300_000.0,
            bytes: 0,
            packets: 0,
        }
    }

    /// Takes an RTP packet that was sent at `sent` (a receiver knows it by `abs-send-time`).
    pub fn on_rtp(&mut self, now: Instant, sent: Instant, packet: &[u8]) {
        self.bytes += packet.len() as u64;
        self.packets += 1;
        match self.feedback {
            Feedback::TransportCc(id) => self.note_arrival(now, id, packet),
            Feedback::Remb => {
                let delay = now.saturating_duration_since(sent);
                self.least_delay = Some(self.least_delay.map_or(delay, |least| least.min(delay)));
                self.window.push_back((now, packet.len(), delay));
                // Bad news does not wait for the interval.
                let full = self.least_delay.is_some_and(|least| delay > least + REMB_MAX_DELAY);
                if full && now + REMB_INTERVAL >= self.next + REMB_MIN_INTERVAL {
                    self.next = now;
                }
            }
        }
    }

    /// Appends the message that is due.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        if now < self.next {
            return;
        }
        match self.feedback {
            Feedback::TransportCc(_) => {
                self.next = now + TWCC_INTERVAL;
                self.write_transport_cc(out);
            }
            Feedback::Remb => {
                self.next = now + REMB_INTERVAL;
                self.write_remb(now, out);
            }
        }
    }

    /// When [`poll`](Self::poll) has something.
    pub fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// Packets and bytes received.
    pub fn received(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    fn note_arrival(&mut self, now: Instant, id: u8, packet: &[u8]) {
        let view = RtpView::parse(packet).ok();
        let Some(seq) = view.and_then(|v| parse_transport_cc(v.extension(id)?)) else { return };
        let seq = self.seqs.unwrap(seq);
        let time_us = now.saturating_duration_since(self.start).as_micros() as i64;
        let at = self.arrivals.partition_point(|arrival| arrival.seq < seq);
        let known = self.arrivals.get(at).is_some_and(|arrival| arrival.seq == seq);
        if !known {
            self.arrivals.insert(at, Arrival { seq, time_us });
        }
    }

    fn write_transport_cc(&mut self, out: &mut Vec<Vec<u8>>) {
        let mut rest = self.arrivals.as_slice();
        while let Some(first) = rest.first() {
            let base_seq = self.base_seq.filter(|base| *base <= first.seq).unwrap_or(first.seq);
            let header = FeedbackHeader {
                sender_ssrc: 1,
                media_ssrc: 2,
                base_seq,
                feedback_count: self.count,
            };
            self.count = self.count.wrapping_add(1);
            let mut packet = Vec::new();
            let covered = write::transport_cc(&mut packet, &header, rest).max(1);
            out.push(packet);
            self.base_seq = Some(rest[covered - 1].seq + 1);
            rest = &rest[covered..];
        }
        self.arrivals.clear();
    }

    fn write_remb(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        while self.window.front().is_some_and(|(at, ..)| *at + REMB_WINDOW < now) {
            self.window.pop_front();
        }
        let bytes: usize = self.window.iter().map(|(_, size, _)| size).sum();
        let incoming = bytes as f64 * 8.0 / REMB_WINDOW.as_secs_f64();
        let newest = self.window.iter().rev().take(10).map(|(.., delay)| *delay).min();
        let queueing = newest.zip(self.least_delay).map(|(newest, least)| newest - least);
        if queueing.is_some_and(|delay| delay > REMB_MAX_DELAY) {
            self.remb_bps = self.remb_bps.min(REMB_BACKOFF * incoming);
        } else {
            let grown = self.remb_bps * 1.02 + 1_000.0;
            let most = REMB_HEADROOM * incoming + 10_000.0;
            self.remb_bps = grown.max(incoming).min(most).max(self.remb_bps.min(most));
        }
        let mut packet = Vec::new();
        write::remb(&mut packet, 1, self.remb_bps.max(10_000.0) as u64, &[2]);
        out.push(packet);
    }
}
