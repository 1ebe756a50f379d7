//! A link that one or several flows share, and what is seen of each flow at its far end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sluice_sim::{Link, LinkConfig};

/// Start of a packet that tells it from all others underway: an RTP header without its extensions.
const NAME: usize = 12;
/// What never drains within this time stands.
const STANDING_WINDOW: Duration = Duration::from_millis(100);

/// What happened to a flow since the start of measuring.
#[derive(Debug)]
pub struct Measured {
    /// Share of the link's rate that was delivered.
    pub utilisation: f64,
    /// Share of packets that the queue dropped, of all flows.
    pub loss: f64,
    pub queue_p50: Duration,
    pub queue_p95: Duration,
    pub queue_max: Duration,
    /// What never drained within [`STANDING_WINDOW`], 95th percentile.
    pub standing_p95: Duration,
}

/// A link that several flows share, all run in turn, a millisecond each.
#[derive(Debug, Clone)]
pub struct Bottleneck(Rc<RefCell<Shared>>);

#[derive(Debug)]
struct Shared {
    link: Link,
    underway: VecDeque<Underway>,
    /// What arrived, by flow.
    arrived: Vec<VecDeque<Delivery>>,
}

#[derive(Debug)]
struct Underway {
    name: [u8; NAME],
    flow: usize,
    sent: Instant,
}

/// A packet that arrived.
#[derive(Debug)]
pub struct Delivery {
    pub sent: Instant,
    pub packet: Vec<u8>,
}

impl Bottleneck {
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        let link = Link::new(config, seed);
        let shared = Shared { link, underway: VecDeque::new(), arrived: Vec::new() };
        Self(Rc::new(RefCell::new(shared)))
    }

    /// The path of one more flow.
    pub fn path(&self, now: Instant) -> Path {
        let arrived = &mut self.0.borrow_mut().arrived;
        arrived.push(VecDeque::new());
        Path {
            flow: arrived.len() - 1,
            bottleneck: self.clone(),
            bytes: 0,
            since: now,
            base: (0, 0),
            delays: Vec::new(),
            standing: Vec::new(),
            least: None,
            window_end: now,
        }
    }
}

impl Shared {
    fn send(&mut self, now: Instant, flow: usize, packet: Vec<u8>) {
        self.underway.push_back(Underway { name: name(&packet), flow, sent: now });
        self.link.send(now, packet);
    }

    /// The next packet that has arrived of a flow.
    fn poll(&mut self, now: Instant, flow: usize) -> Option<Delivery> {
        while let Some(packet) = self.link.poll(now) {
            let name = name(&packet);
            // Those before it are lost: nothing is overtaken here.
            let at = self.underway.iter().position(|underway| underway.name == name)?;
            let Underway { flow, sent, .. } = self.underway.drain(..=at).next_back()?;
            self.arrived[flow].push_back(Delivery { sent, packet });
        }
        self.arrived[flow].pop_front()
    }
}

fn name(packet: &[u8]) -> [u8; NAME] {
    let mut name = [0; NAME];
    let len = packet.len().min(NAME);
    name[..len].copy_from_slice(&packet[..len]);
    name
}

/// A flow's way over a bottleneck.
#[derive(Debug)]
pub struct Path {
    bottleneck: Bottleneck,
    flow: usize,
    bytes: u64,
    since: Instant,
    /// Packets that had overflowed and been offered.
    base: (u64, u64),
    delays: Vec<Duration>,
    standing: Vec<Duration>,
    least: Option<Duration>,
    window_end: Instant,
}

impl Path {
    /// Number of the flow on its bottleneck.
    pub fn flow(&self) -> usize {
        self.flow
    }

    pub fn send(&self, now: Instant, packet: Vec<u8>) {
        self.bottleneck.0.borrow_mut().send(now, self.flow, packet);
    }

    /// The next packet that has arrived.
    pub fn poll(&mut self, now: Instant) -> Option<Delivery> {
        let delivery = self.bottleneck.0.borrow_mut().poll(now, self.flow)?;
        self.note(now, &delivery);
        Some(delivery)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.bottleneck.0.borrow().link.poll_timeout()
    }

    pub fn config(&self) -> LinkConfig {
        *self.bottleneck.0.borrow().link.config()
    }

    pub fn set_config(&mut self, config: LinkConfig) {
        self.bottleneck.0.borrow_mut().link.set_config(config);
    }

    pub fn start_measuring(&mut self, now: Instant) {
        let stats = self.bottleneck.0.borrow().link.stats();
        self.base = (stats.overflowed, stats.offered);
        self.since = now;
        self.bytes = 0;
        self.delays.clear();
        self.standing.clear();
    }

    pub fn measured(&mut self, now: Instant) -> Measured {
        let shared = self.bottleneck.0.borrow();
        let stats = shared.link.stats();
        let rate = shared.link.config().rate_bps.unwrap_or(u64::MAX) as f64;
        let (overflowed, offered) = (stats.overflowed - self.base.0, stats.offered - self.base.1);
        self.delays.sort();
        self.standing.sort();
        Measured {
            utilisation: self.bytes as f64 * 8.0 / (now - self.since).as_secs_f64() / rate,
            loss: overflowed as f64 / offered.max(1) as f64,
            queue_p50: percentile(&self.delays, 50),
            queue_p95: percentile(&self.delays, 95),
            queue_max: percentile(&self.delays, 100),
            standing_p95: percentile(&self.standing, 95),
        }
    }

    fn note(&mut self, now: Instant, delivery: &Delivery) {
        self.bytes += delivery.packet.len() as u64;
        let queueing = (now - delivery.sent).saturating_sub(self.config().delay);
        self.delays.push(queueing);
        self.least = Some(self.least.map_or(queueing, |least| least.min(queueing)));
        if now >= self.window_end {
            self.window_end = now + STANDING_WINDOW;
            self.standing.extend(self.least.take());
        }
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}
