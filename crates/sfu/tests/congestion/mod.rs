//! One receiver behind a simulated link, and what the engine does around estimator and pacer.

#![allow(dead_code, unreachable_pub, reason = "each test file uses another part")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluice_rtp::ext::write_transport_cc;
use sluice_rtp::packet::RtpHeaderWriter;
use sluice_rtp::rtcp::{Rtcp, RtcpIter};
use sluice_sfu::bwe::{
    BandwidthEstimator, BweConfig, PacketSent, RembEstimator, SendSideEstimator,
};
use sluice_sfu::pacer::{Paced, Pacer, Urgency};
use sluice_sim::feedback_receiver::{Feedback, FeedbackReceiver};
use sluice_sim::{Clock, Link, LinkConfig};

/// Extension id of transport-wide sequence numbers.
pub const TWCC_ID: u8 = 5;
/// Time between frames.
const FRAME: Duration = Duration::from_micros(33_333);
/// Largest packet of a frame, bytes.
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
    pub desired_bps: u64,
}

impl FlowConfig {
    pub fn twcc(desired_bps: u64) -> Self {
        Self { feedback: Feedback::TransportCc(TWCC_ID), desired_bps }
    }

    pub fn remb(desired_bps: u64) -> Self {
        Self { feedback: Feedback::Remb, desired_bps }
    }
}

/// What happened since the start of measuring.
#[derive(Debug)]
pub struct Measured {
    /// Share of the link's rate that was delivered.
    pub utilisation: f64,
    /// Share of packets that the queue dropped.
    pub loss: f64,
    pub queue_p50: Duration,
    pub queue_p95: Duration,
    pub queue_max: Duration,
    /// What never drained within 100 ms, 95th percentile.
    pub standing_p95: Duration,
    pub mean_estimate_bps: u64,
}

/// A link that several flows share.
#[derive(Debug, Clone)]
pub struct Bottleneck(Rc<RefCell<Shared>>);

#[derive(Debug)]
struct Shared {
    link: Link,
    /// What arrived, by flow.
    arrived: Vec<VecDeque<Vec<u8>>>,
}

impl Bottleneck {
    pub fn new(config: LinkConfig, flows: usize, seed: u64) -> Self {
        let arrived = (0..flows).map(|_| VecDeque::new()).collect();
        Self(Rc::new(RefCell::new(Shared { link: Link::new(config, seed), arrived })))
    }

    /// The next packet that has arrived of a flow; its number is the SSRC.
    fn poll(&self, now: Instant, flow: usize) -> Option<Vec<u8>> {
        let Shared { link, arrived } = &mut *self.0.borrow_mut();
        while let Some(packet) = link.poll(now) {
            arrived[usize::from(packet[11])].push_back(packet);
        }
        arrived[flow].pop_front()
    }
}

/// A sender with an estimator, a link, a receiver.
pub struct Flow {
    pub clock: Clock,
    config: FlowConfig,
    estimator: Box<dyn BandwidthEstimator>,
    pacer: Pacer<usize>,
    link: Link,
    /// In place of the link, and this flow's number in it.
    shared: Option<(Bottleneck, usize)>,
    back: Link,
    receiver: FeedbackReceiver,
    underway: VecDeque<(u16, Instant)>,
    rng: StdRng,
    twcc_seq: u16,
    next_frame: Instant,
    since: Instant,
    base: (u64, u64, u64),
    delays: Vec<Duration>,
    standing: Vec<Duration>,
    least: Option<Duration>,
    window_end: Instant,
    estimates: Vec<u64>,
}

impl Flow {
    pub fn new(config: FlowConfig, link: LinkConfig, seed: u64) -> Self {
        let bwe = BweConfig::default();
        Self::with(config, link, seed, |now| match config.feedback {
            Feedback::TransportCc(_) => Box::new(SendSideEstimator::new(bwe, now)),
            Feedback::Remb => Box::new(RembEstimator::new(bwe)),
        })
    }

    /// A sender with another estimator.
    pub fn with(
        config: FlowConfig,
        link: LinkConfig,
        seed: u64,
        estimator: impl FnOnce(Instant) -> Box<dyn BandwidthEstimator>,
    ) -> Self {
        let clock = Clock::new();
        let now = clock.now();
        let bwe = BweConfig::default();
        let mut estimator = estimator(now);
        estimator.set_desired(now, config.desired_bps);
        Self {
            config,
            estimator,
            pacer: Pacer::new(now, bwe.start_bps),
            link: Link::new(link, seed),
            shared: None,
            back: Link::new(LinkConfig { delay: link.delay, ..LinkConfig::default() }, seed + 1),
            receiver: FeedbackReceiver::new(config.feedback, now),
            underway: VecDeque::new(),
            rng: StdRng::seed_from_u64(seed + 2),
            twcc_seq: 65_000,
            next_frame: now,
            since: now,
            base: (0, 0, 0),
            delays: Vec::new(),
            standing: Vec::new(),
            least: None,
            window_end: now,
            estimates: Vec::new(),
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

    /// Sends over a link shared with other flows; all are to be run in turn, a millisecond each.
    pub fn share(&mut self, bottleneck: &Bottleneck, number: usize) {
        self.shared = Some((bottleneck.clone(), number));
    }

    fn next_arrival(&mut self, now: Instant) -> Option<Vec<u8>> {
        match &self.shared {
            Some((bottleneck, number)) => bottleneck.poll(now, *number),
            None => self.link.poll(now),
        }
    }

    pub fn set_link(&mut self, config: LinkConfig) {
        self.link.set_config(config);
    }

    pub fn start_measuring(&mut self) {
        self.since = self.clock.now();
        let stats = self.link.stats();
        self.base = (self.receiver.received().1, stats.overflowed, stats.offered);
        self.delays.clear();
        self.standing.clear();
        self.estimates.clear();
    }

    pub fn measured(&mut self) -> Measured {
        let elapsed = (self.clock.now() - self.since).as_secs_f64();
        let stats = self.link.stats();
        let bytes = self.receiver.received().1 - self.base.0;
        let rate = self.link.config().rate_bps.unwrap_or(u64::MAX) as f64;
        self.delays.sort();
        let at = |share: f64| {
            let index = (self.delays.len() as f64 * share) as usize;
            self.delays.get(index.min(self.delays.len() - 1)).copied().unwrap_or_default()
        };
        self.standing.sort();
        let standing = self.standing.len() * 95 / 100;
        let offered = (stats.offered - self.base.2).max(1);
        Measured {
            utilisation: bytes as f64 * 8.0 / elapsed / rate,
            loss: (stats.overflowed - self.base.1) as f64 / offered as f64,
            queue_p50: at(0.5),
            queue_p95: at(0.95),
            queue_max: at(1.0),
            standing_p95: self.standing[standing.min(self.standing.len() - 1)],
            mean_estimate_bps: self.estimates.iter().sum::<u64>() / self.estimates.len() as u64,
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            self.step();
            let next = self.next_event().max(self.clock.now() + ms(1)).min(end);
            self.clock.advance_to(next);
        }
    }

    /// Lets time pass in which nothing is sent: the flow has not begun.
    pub fn wait(&mut self, duration: Duration) {
        let now = self.clock.now() + duration;
        self.clock.advance_to(now);
        self.next_frame = now;
    }

    fn step(&mut self) {
        let now = self.clock.now();
        while let Some(packet) = self.next_arrival(now) {
            let seq = u16::from_be_bytes([packet[2], packet[3]]);
            let at = self.underway.iter().position(|(number, _)| *number == seq);
            let sent = at.map_or(now, |at| self.underway.drain(..=at).next_back().expect("one").1);
            let queueing = (now - sent).saturating_sub(self.link.config().delay);
            self.delays.push(queueing);
            self.least = Some(self.least.map_or(queueing, |least| least.min(queueing)));
            if now >= self.window_end {
                self.window_end = now + ms(100);
                self.standing.extend(self.least.take());
            }
            self.receiver.on_rtp(now, sent, &packet);
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
        let estimate = self.estimator.estimate_bps();
        self.pacer.set_rates(now, estimate, self.estimator.usable_bps());
        while let Some(cluster) = self.estimator.poll_probe(now) {
            self.pacer.start_probe(now, cluster);
        }
        if now >= self.next_frame {
            self.next_frame += FRAME;
            self.estimates.push(estimate);
            self.encode(now, estimate);
        }
        while let Some(paced) = self.pacer.poll(now) {
            match paced {
                Paced::Packet(size) => self.send(now, size),
                Paced::Padding { bytes } => self.send(now, bytes + 20),
            }
        }
    }

    /// A frame of a source that follows the estimate.
    fn encode(&mut self, now: Instant, estimate_bps: u64) {
        let rate = estimate_bps.min(self.config.desired_bps) as f64;
        let spread = self.rng.random_range(0.7..1.3);
        let mut bytes = (rate / 8.0 * FRAME.as_secs_f64() * spread) as usize;
        while bytes > 0 {
            let size = bytes.clamp(60, MAX_PACKET);
            bytes = bytes.saturating_sub(MAX_PACKET);
            if let Some(size) = self.pacer.push(now, size, size, Urgency::Video) {
                self.send(now, size);
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
            ssrc: self.shared.as_ref().map_or(1, |(_, number)| *number as u32),
            padding: false,
        };
        let mut packet = vec![0; size.max(40)];
        header.write(&[(TWCC_ID, &write_transport_cc(seq))], &mut packet).expect("room for it");
        self.underway.push_back((seq, now));
        match &self.shared {
            Some((bottleneck, _)) => bottleneck.0.borrow_mut().link.send(now, packet),
            None => self.link.send(now, packet),
        }
    }

    fn next_event(&self) -> Instant {
        let events = [
            self.link.poll_timeout(),
            self.back.poll_timeout(),
            self.estimator.poll_timeout(),
            self.pacer.poll_timeout(),
            Some(self.receiver.poll_timeout()),
            Some(self.next_frame),
        ];
        events.into_iter().flatten().min().expect("the source never ends")
    }
}
