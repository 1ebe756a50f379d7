//! One receiver behind a simulated link, and what the engine does around estimator and pacer.

#![allow(dead_code, unreachable_pub, reason = "each test file uses another part")]

mod path;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluice_rtp::ext::write_transport_cc;
use sluice_rtp::packet::RtpHeaderWriter;
use sluice_rtp::rtcp::{Rtcp, RtcpIter};
use sluice_sfu::bwe::{
    BandwidthEstimator, BweConfig, PacketSent, RembEstimator, SendSideEstimator,
};
use sluice_sfu::pacer::{PADDING_HEADER, Paced, Pacer, Urgency};
use sluice_sim::feedback_receiver::{Feedback, FeedbackReceiver};
use sluice_sim::{Clock, Link, LinkConfig};

pub use path::{Bottleneck, Measured, Path};

/// Extension id of transport-wide sequence numbers.
pub const TWCC_ID: u8 = 5;
/// Time between frames.
const FRAME: Duration = Duration::from_micros(33_333);
/// Smallest and largest packet of a frame, bytes.
const MIN_PACKET: usize = 60;
const MAX_PACKET: usize = 1_200;

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Seeds to run; more by `SIM_SEEDS`.
pub fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

/// How the receiver reports.
#[derive(Debug, Clone, Copy)]
pub struct FlowConfig {
    pub feedback: Feedback,
    pub shape: Shape,
    pub desired_bps: u64,
}

impl FlowConfig {
    pub fn twcc(desired_bps: u64) -> Self {
        Self { feedback: Feedback::TransportCc(TWCC_ID), shape: Shape::Frames, desired_bps }
    }

    pub fn remb(desired_bps: u64) -> Self {
        Self { feedback: Feedback::Remb, shape: Shape::Frames, desired_bps }
    }
}

/// How a source spreads what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Frames of varying size, each at once.
    Frames,
    /// Packet after packet, as a publisher's pacer would.
    Even,
}

/// A source that sends what it is told: sizes of its packets.
pub struct Source {
    shape: Shape,
    rng: StdRng,
    next: Instant,
}

impl Source {
    pub fn new(shape: Shape, now: Instant, seed: u64) -> Self {
        Self { shape, rng: StdRng::seed_from_u64(seed), next: now }
    }

    pub fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// The packets that are due, bytes each.
    pub fn poll(&mut self, now: Instant, rate_bps: u64) -> impl Iterator<Item = usize> + use<> {
        let mut bytes = 0;
        if now >= self.next {
            bytes = match self.shape {
                Shape::Frames => self.frame(rate_bps),
                Shape::Even => MAX_PACKET,
            };
            self.next += match self.shape {
                Shape::Frames => FRAME,
                Shape::Even => Duration::from_secs_f64(bytes as f64 * 8.0 / rate_bps as f64),
            };
        }
        std::iter::from_fn(move || {
            let size = (bytes > 0).then(|| bytes.clamp(MIN_PACKET, MAX_PACKET));
            bytes = bytes.saturating_sub(MAX_PACKET);
            size
        })
    }

    fn frame(&mut self, rate_bps: u64) -> usize {
        let spread = self.rng.random_range(0.7..1.3);
        (rate_bps as f64 / 8.0 * FRAME.as_secs_f64() * spread) as usize
    }
}

/// A sender with an estimator, a link, a receiver.
pub struct Flow {
    pub clock: Clock,
    config: FlowConfig,
    estimator: Box<dyn BandwidthEstimator>,
    pacer: Pacer<usize>,
    pub path: Path,
    back: Link,
    receiver: FeedbackReceiver,
    source: Source,
    twcc_seq: u16,
}

impl Flow {
    pub fn new(config: FlowConfig, link: LinkConfig, seed: u64) -> Self {
        let bwe = BweConfig::default();
        let clock = Clock::new();
        let estimator: Box<dyn BandwidthEstimator> = match config.feedback {
            Feedback::TransportCc(_) => Box::new(SendSideEstimator::new(bwe, clock.now())),
            Feedback::Remb => Box::new(RembEstimator::new(bwe)),
        };
        Self::over(&Bottleneck::new(link, seed), config, clock, seed, estimator)
    }

    /// A sender on a link that it may share, with any estimator.
    pub fn over(
        bottleneck: &Bottleneck,
        config: FlowConfig,
        clock: Clock,
        seed: u64,
        mut estimator: Box<dyn BandwidthEstimator>,
    ) -> Self {
        let now = clock.now();
        estimator.set_desired(now, config.desired_bps);
        let path = bottleneck.path(now);
        Self {
            config,
            estimator,
            pacer: Pacer::new(now, BweConfig::default().start_bps),
            back: Link::new(way_back(path.config()), seed + 1),
            path,
            receiver: FeedbackReceiver::new(config.feedback, now),
            source: Source::new(config.shape, now, seed + 2),
            twcc_seq: 65_000,
            clock,
        }
    }

    pub fn estimate_bps(&self) -> u64 {
        self.estimator.estimate_bps()
    }

    pub fn stats(&self) -> String {
        let text = format!("{:?}", self.estimator.stats());
        format!("{text}, {:?}", self.pacer.stats())
    }

    pub fn set_link(&mut self, config: LinkConfig) {
        self.path.set_config(config);
    }

    pub fn start_measuring(&mut self) {
        self.path.start_measuring(self.clock.now());
    }

    pub fn measured(&mut self) -> Measured {
        self.path.measured(self.clock.now())
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            self.step();
            let next = self.next_event().max(self.clock.now() + ms(1)).min(end);
            self.clock.advance_to(next);
        }
    }

    fn step(&mut self) {
        let now = self.clock.now();
        while let Some(delivery) = self.path.poll(now) {
            self.receiver.on_rtp(now, delivery.sent, &delivery.packet);
        }
        let mut replies = Vec::new();
        self.receiver.poll(now, &mut replies);
        replies.drain(..).for_each(|packet| self.back.send(now, packet));
        while let Some(compound) = self.back.poll(now) {
            for packet in RtcpIter::new(&compound).flatten() {
                match packet {
                    Rtcp::TransportCc(feedback) => {
                        self.estimator.on_transport_feedback(now, &feedback);
                    }
                    Rtcp::Remb(remb) => self.estimator.on_remb(now, remb.bitrate_bps),
                    _ => {}
                }
            }
        }
        self.estimator.handle_timeout(now);
        let (estimate, usable) = (self.estimator.estimate_bps(), self.estimator.usable_bps());
        self.pacer.set_rates(now, estimate, usable, 0);
        while let Some(cluster) = self.estimator.poll_probe(now) {
            self.pacer.start_probe(now, cluster);
        }
        for size in self.source.poll(now, estimate.min(self.config.desired_bps)) {
            if let Some(size) = self.pacer.push(now, size, size, Urgency::Video) {
                self.send(now, size);
            }
        }
        while let Some(paced) = self.pacer.poll(now) {
            match paced {
                Paced::Packet(size) => self.send(now, size),
                Paced::Padding { bytes } => self.send(now, bytes + PADDING_HEADER),
            }
        }
    }

    fn send(&mut self, now: Instant, size: usize) {
        let seq = self.twcc_seq;
        self.twcc_seq = seq.wrapping_add(1);
        let probe = self.pacer.on_sent(now, size);
        self.estimator.on_packet_sent(now, PacketSent { transport_seq: seq, size, probe });
        let header = RtpHeaderWriter {
            marker: false,
            payload_type: 96,
            sequence_number: seq,
            timestamp: 0,
            ssrc: self.path.flow() as u32,
            padding: false,
        };
        let mut packet = vec![0; size.max(40)];
        header.write(&[(TWCC_ID, &write_transport_cc(seq))], &mut packet).expect("room for it");
        self.path.send(now, packet);
    }

    fn next_event(&self) -> Instant {
        let events = [
            self.path.poll_timeout(),
            self.back.poll_timeout(),
            self.estimator.poll_timeout(),
            self.pacer.poll_timeout(),
            Some(self.receiver.poll_timeout()),
            Some(self.source.poll_timeout()),
        ];
        events.into_iter().flatten().min().expect("the source never ends")
    }
}

/// The way of what the receiver says, over a link: as far, and nothing in it.
pub fn way_back(link: LinkConfig) -> LinkConfig {
    LinkConfig { delay: link.delay, ..LinkConfig::default() }
}
