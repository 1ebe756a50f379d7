//! One direction of a network path.
//!
//! A packet passes, in order: the size limit, random loss, the bottleneck (a queue of bounded
//! length in front of a serialiser of a given rate), and the way (delay, jitter, reordering,
//! duplication). Jitter alone never reorders.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Random loss in front of the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each packet with this probability.
    Uniform(f64),
    /// In bursts (Gilbert-Elliott): a burst begins at a packet with probability `enter`, ends with
    /// `leave`, and loses each packet in it with `lose`.
    Burst {
        /// Probability to enter a burst.
        enter: f64,
        /// Probability to leave it.
        leave: f64,
        /// Loss within it.
        lose: f64,
    },
}

/// Properties of a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkConfig {
    /// Bits per second of the bottleneck; `None` is unlimited.
    pub rate_bps: Option<u64>,
    /// Bytes that pass the bottleneck at once after it was idle, as a token bucket lets them (`tbf`'s
    /// `burst`); zero: a serial line.
    pub bucket: usize,
    /// Longest time that a packet may wait for the bottleneck; later ones are dropped.
    pub max_queue: Duration,
    /// Propagation delay.
    pub delay: Duration,
    /// Further delay, uniform between zero and this.
    pub jitter: Duration,
    /// Share of packets that are overtaken, by `reorder_delay`.
    pub reorder: f64,
    /// Further delay of packets that are overtaken.
    pub reorder_delay: Duration,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Random loss.
    pub loss: Loss,
    /// Largest packet, bytes; larger ones are dropped.
    pub mtu: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            rate_bps: None,
            bucket: 0,
            max_queue: Duration::from_millis(300),
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(15),
            duplicate: 0.0,
            loss: Loss::None,
            mtu: 1_500,
        }
    }
}

/// What a link did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets given to the link.
    pub offered: u64,
    /// Packets that left it, duplicates included.
    pub delivered: u64,
    /// Lost at random.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub overflowed: u64,
    /// Dropped because they were too large.
    pub too_large: u64,
    /// Longest wait for the bottleneck.
    pub max_queue_delay: Duration,
}

/// A packet underway. Ordered by time, then by the order of departure.
type Underway = Reverse<(Instant, u64)>;

/// One direction of a path.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    rng: StdRng,
    in_burst: bool,
    /// When the last packet has left the bottleneck, and what its bucket holds then, bytes; `None`: it
    /// is full.
    left: Option<(Instant, u64)>,
    /// When the last packet that keeps its order arrives.
    last_arrival: Option<Instant>,
    underway: BinaryHeap<Underway>,
    packets: rustc_hash::FxHashMap<u64, Vec<u8>>,
    next: u64,
    stats: LinkStats,
}

impl Link {
    /// An empty link.
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            rng: StdRng::seed_from_u64(seed),
            in_burst: false,
            left: None,
            last_arrival: None,
            underway: BinaryHeap::new(),
            packets: rustc_hash::FxHashMap::default(),
            next: 0,
            stats: LinkStats::default(),
        }
    }

    /// Changes the properties for packets to come.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// The properties.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What the link did.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Gives a packet to the link.
    pub fn send(&mut self, now: Instant, packet: Vec<u8>) {
        self.stats.offered += 1;
        if packet.len() > self.config.mtu {
            self.stats.too_large += 1;
            return;
        }
        if self.is_lost() {
            self.stats.lost += 1;
            return;
        }
        let Some(departure) = self.pass_bottleneck(now, packet.len()) else {
            self.stats.overflowed += 1;
            return;
        };
        let copies = 1 + u8::from(self.chance(self.config.duplicate));
        for _ in 1..copies {
            self.depart(departure, packet.clone());
        }
        self.depart(departure, packet);
    }

    /// The next packet that has arrived by now.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        let Reverse((at, id)) = *self.underway.peek()?;
        if at > now {
            return None;
        }
        self.underway.pop();
        self.stats.delivered += 1;
        self.packets.remove(&id)
    }

    /// When the next packet arrives.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.underway.peek().map(|Reverse((at, _))| *at)
    }

    fn is_lost(&mut self) -> bool {
        match self.config.loss {
            Loss::None => false,
            Loss::Uniform(p) => self.chance(p),
            Loss::Burst { enter, leave, lose } => {
                let change = self.chance(if self.in_burst { leave } else { enter });
                self.in_burst ^= change;
                self.in_burst && self.chance(lose)
            }
        }
    }

    /// When the packet has left the bottleneck; `None` if the queue is full.
    fn pass_bottleneck(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Some(rate_bps) = self.config.rate_bps else { return Some(now) };
        let rate_bps = rate_bps.max(1);
        let (len, bucket) = (len as u64, self.config.bucket as u64);
        let (left_at, held) = self.left.unwrap_or((now, bucket));
        let starts = left_at.max(now);
        let wait = starts - now;
        if wait > self.config.max_queue {
            return None;
        }
        self.stats.max_queue_delay = self.stats.max_queue_delay.max(wait);
        let filled = (starts - left_at).as_nanos() * u128::from(rate_bps) / 8_000_000_000;
        let held = bucket.min(held + filled as u64);
        let missing = len.saturating_sub(held);
        let ends = starts + Duration::from_nanos(missing * 8 * 1_000_000_000 / rate_bps);
        self.left = Some((ends, held.saturating_sub(len)));
        Some(ends)
    }

    fn depart(&mut self, departure: Instant, packet: Vec<u8>) {
        let LinkConfig { delay, jitter, reorder, reorder_delay, .. } = self.config;
        let mut arrival = departure + delay;
        if !jitter.is_zero() {
            arrival += jitter.mul_f64(self.rng.random::<f64>());
        }
        if self.chance(reorder) {
            arrival += reorder_delay;
        } else {
            arrival = self.last_arrival.map_or(arrival, |last| last.max(arrival));
            self.last_arrival = Some(arrival);
        }
        self.underway.push(Reverse((arrival, self.next)));
        self.packets.insert(self.next, packet);
        self.next += 1;
    }

    fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.rng.random::<f64>() < p
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Sends `count` packets of 125 bytes, one per `every`, and returns the arrivals in ms with the
    /// packet's number.
    fn run(config: LinkConfig, seed: u64, count: u32, every: Duration) -> Vec<(u64, u32)> {
        let clock = Clock::new();
        let mut link = Link::new(config, seed);
        for i in 0..count {
            let mut packet = vec![0; 125];
            packet[..4].copy_from_slice(&i.to_be_bytes());
            link.send(clock.at(every * i), packet);
        }
        let mut arrivals = Vec::new();
        while let Some(at) = link.poll_timeout() {
            let packet = link.poll(at).expect("one is due");
            let number = u32::from_be_bytes(packet[..4].try_into().expect("four bytes"));
            arrivals.push(((at - clock.at(Duration::ZERO)).as_millis() as u64, number));
        }
        arrivals
    }

    #[test]
    fn a_plain_link_only_delays() {
        let arrivals = run(LinkConfig::default(), 1, 3, ms(10));
        assert_eq!(arrivals, [(20, 0), (30, 1), (40, 2)]);
    }

    #[test]
    fn the_bottleneck_serialises_and_overflows() {
        // 125 bytes at 100 kbit/s take 10 ms each; the queue holds 300 ms.
        let config = LinkConfig { rate_bps: Some(100_000), ..LinkConfig::default() };
        let arrivals = run(config, 1, 100, Duration::ZERO);
        assert_eq!(arrivals.len(), 31);
        assert_eq!(arrivals[1].0 - arrivals[0].0, 10);
    }

    #[test]
    fn a_bucket_passes_at_once_what_it_holds_and_fills_again() {
        // 125 bytes at 100 kbit/s take 10 ms each.
        let config = LinkConfig { rate_bps: Some(100_000), bucket: 500, ..LinkConfig::default() };
        let times = |count, every| -> Vec<u64> {
            run(config, 1, count, every).iter().map(|(at, _)| *at).collect()
        };
        assert_eq!(times(6, Duration::ZERO), [20, 20, 20, 20, 30, 40]);
        assert_eq!(times(6, ms(5)), [20, 25, 30, 35, 40, 45]);
    }

    #[test]
    fn what_a_bucket_owes_is_bytes_and_soon_paid_at_a_higher_rate() {
        let config = LinkConfig { rate_bps: Some(100_000), bucket: 500, ..LinkConfig::default() };
        let clock = Clock::new();
        let mut link = Link::new(config, 1);
        (0..8).for_each(|_| link.send(clock.now(), vec![0; 125]));
        link.set_config(LinkConfig { rate_bps: Some(1_000_000), ..config });
        link.send(clock.now(), vec![0; 125]);
        let arrivals = std::iter::from_fn(|| {
            let at = link.poll_timeout()?;
            link.poll(at).map(|_| (at - clock.now()).as_millis() as u64)
        });
        assert_eq!(arrivals.collect::<Vec<_>>(), [20, 20, 20, 20, 30, 40, 50, 60, 61]);
    }

    #[test]
    fn one_seed_replays_exactly_and_another_differs() {
        let config = LinkConfig {
            loss: Loss::Uniform(0.2),
            jitter: ms(30),
            reorder: 0.1,
            duplicate: 0.1,
            ..LinkConfig::default()
        };
        assert_eq!(run(config, 7, 500, ms(5)), run(config, 7, 500, ms(5)));
        assert_ne!(run(config, 7, 500, ms(5)), run(config, 8, 500, ms(5)));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let config = LinkConfig { jitter: ms(50), ..LinkConfig::default() };
        assert!(run(config, 3, 300, ms(5)).is_sorted_by_key(|(_, n)| *n));
        let config = LinkConfig { reorder: 0.2, ..LinkConfig::default() };
        assert!(!run(config, 3, 300, ms(5)).is_sorted_by_key(|(_, n)| *n));
    }

    #[test]
    fn loss_is_as_configured() {
        let share = |loss| {
            let config = LinkConfig { loss, ..LinkConfig::default() };
            1.0 - run(config, 5, 20_000, ms(1)).len() as f64 / 20_000.0
        };
        assert!((share(Loss::Uniform(0.05)) - 0.05).abs() < 0.01);
        // In a burst for a share of 0.01 / (0.01 + 0.19).
        let burst = share(Loss::Burst { enter: 0.01, leave: 0.19, lose: 1.0 });
        assert!((burst - 0.05).abs() < 0.015, "{burst}");
    }
}
