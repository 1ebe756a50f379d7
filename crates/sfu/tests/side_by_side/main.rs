//! Our estimator beside that of `rtc-interceptor` (the webrtc-rs family) and that of `str0m`, over
//! the same links with the same source: `benches/README.md` shows the tables that this prints.
//! `rtc-interceptor` gets our pacer and our feedback too, `str0m` brings all of its own.
#![allow(clippy::print_stdout, reason = "the table, shown with --nocapture")]

#[path = "../congestion/mod.rs"]
mod congestion;
mod rtc_gcc;
mod str0m_flow;

use std::time::{Duration, Instant};

use congestion::{Bottleneck, Flow, FlowConfig, Measured, Path, Shape, ms};
use rtc_gcc::RtcGcc;
use sluice_sfu::bwe::{BandwidthEstimator, BweConfig, SendSideEstimator};
use sluice_sim::{Clock, LinkConfig, Loss};
use str0m_flow::Str0mFlow;

/// What the source would send if it could, bits per second.
const DESIRED_BPS: u64 = 8_000_000;

/// Frames that leave at once are the hardest source, a publisher's pacer makes the easiest.
const SHAPES: [Shape; 2] = [Shape::Frames, Shape::Even];

/// Runs per row.
const SEEDS: u64 = 8;

/// The least of few runs moves by this, as a share, when anything changes.
const LEAST_ALIKE: f64 = 0.05;

/// Whose estimator a flow has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Ours,
    RtcInterceptor,
    Str0m,
}

impl Who {
    const OTHERS: [Self; 2] = [Self::RtcInterceptor, Self::Str0m];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::RtcInterceptor => "rtc-interceptor",
            Self::Str0m => "str0m",
        }
    }

    /// A flow of this kind that begins now.
    fn flow(
        self,
        bottleneck: &Bottleneck,
        shape: Shape,
        clock: Clock,
        seed: u64,
    ) -> Box<dyn Contestant> {
        let (bwe, now) = (BweConfig::default(), clock.now());
        let config = FlowConfig { shape, ..FlowConfig::twcc(DESIRED_BPS) };
        let estimator: Box<dyn BandwidthEstimator> = match self {
            Self::Ours => Box::new(SendSideEstimator::new(bwe, now)),
            Self::RtcInterceptor => Box::new(RtcGcc::new(bwe, now)),
            Self::Str0m => {
                return Box::new(Str0mFlow::new(bottleneck, config, clock, seed));
            }
        };
        Box::new(Flow::over(bottleneck, config, clock, seed, estimator))
    }
}

fn shape_name(shape: Shape) -> &'static str {
    match shape {
        Shape::Frames => "frames",
        Shape::Even => "even",
    }
}

/// A flow of whatever kind.
trait Contestant {
    fn run_for(&mut self, duration: Duration);
    fn estimate_bps(&self) -> u64;
    fn now(&self) -> Instant;
    fn path(&mut self) -> &mut Path;

    fn start_measuring(&mut self) {
        let now = self.now();
        self.path().start_measuring(now);
    }

    fn measured(&mut self) -> Measured {
        let now = self.now();
        self.path().measured(now)
    }
}

impl Contestant for Flow {
    fn run_for(&mut self, duration: Duration) {
        Self::run_for(self, duration);
    }

    fn estimate_bps(&self) -> u64 {
        Self::estimate_bps(self)
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn path(&mut self) -> &mut Path {
        &mut self.path
    }
}

/// Means over the runs of a row.
#[derive(Debug, Default, Clone, Copy)]
struct Row {
    /// Until the estimate is 70 % of the link, seconds; 30 if never.
    convergence_s: f64,
    utilisation: f64,
    /// Delay in the link's queue, 95th percentile, milliseconds.
    queue_ms: f64,
    loss: f64,
    /// Until the estimate is below 110 % of half the link, after the link became half as fast.
    down_s: f64,
}

impl Row {
    fn line(&self, link: &str, who: Who) -> String {
        let who = who.name();
        let Self { convergence_s, utilisation, queue_ms, loss, down_s } = self;
        let (used, lost) = (utilisation * 100.0, loss * 100.0);
        format!(
            "| {link} | {who} | {convergence_s:.2} | {used:.1} | {queue_ms:.0} | {lost:.2} | {down_s:.2} |"
        )
    }

    /// Whether no figure is worse by more than a tenth, or by what cannot be told apart.
    fn holds_against(&self, other: &Self) -> bool {
        let below = |ours: f64, theirs: f64, alike: f64| ours <= theirs * 1.1 + alike;
        self.utilisation >= 0.9 * other.utilisation
            && below(self.queue_ms, other.queue_ms, 5.0)
            && below(self.loss, other.loss, 0.005)
            && below(self.convergence_s, other.convergence_s, 0.1)
            && below(self.down_s, other.down_s, 0.1)
    }
}

/// What two flows of a kind get from one link.
#[derive(Debug, Clone, Copy)]
struct Fairness {
    /// Share of the smaller one of what both get: mean of the runs, and least.
    share: f64,
    least: f64,
    /// What both use of the link.
    used: f64,
}

impl Fairness {
    fn line(&self, shape: Shape, who: Who) -> String {
        let [share, least, used] = [self.share, self.least, self.used].map(|part| part * 100.0);
        let (shape, who) = (shape_name(shape), who.name());
        format!("| {shape} | {who} | {share:.1} | {least:.1} | {used:.1} |")
    }

    /// Whether no figure is worse by more than a tenth, or by what cannot be told apart.
    fn holds_against(&self, other: &Self) -> bool {
        self.share >= 0.9 * other.share
            && self.least >= 0.9 * other.least - LEAST_ALIKE
            && self.used >= 0.9 * other.used
    }
}

/// Two flows on one link, the second ten seconds later, from 30 to 90 seconds.
fn fairness(who: Who, shape: Shape, link: LinkConfig) -> Fairness {
    let mut seen = Fairness { share: 0.0, least: f64::INFINITY, used: 0.0 };
    for seed in 0..SEEDS {
        let mut clock = Clock::new();
        let bottleneck = Bottleneck::new(link, seed);
        let mut first = who.flow(&bottleneck, shape, clock, seed);
        first.run_for(ms(10_000));
        clock.advance_to(clock.at(ms(10_000)));
        let second = who.flow(&bottleneck, shape, clock, seed + 1_000);
        let mut flows = [first, second];
        for at in 10_000..90_000 {
            if at == 30_000 {
                flows.iter_mut().for_each(|flow| flow.start_measuring());
            }
            flows.iter_mut().for_each(|flow| flow.run_for(ms(1)));
        }
        let [a, b] = flows.map(|mut flow| flow.measured().utilisation);
        let smaller = a.min(b) / (a + b);
        seen.share += smaller / SEEDS as f64;
        seen.least = seen.least.min(smaller);
        seen.used += (a + b) / SEEDS as f64;
    }
    seen
}

fn run(who: Who, shape: Shape, link: LinkConfig) -> Row {
    let rate = link.rate_bps.expect("a bottleneck");
    let mut row = Row::default();
    for seed in 0..SEEDS {
        let mut flow = who.flow(&Bottleneck::new(link, seed), shape, Clock::new(), seed);
        row.convergence_s += until(&mut *flow, |bps| bps * 10 >= rate * 7);
        flow.run_for(ms(10_000));
        flow.start_measuring();
        flow.run_for(ms(30_000));
        let seen = flow.measured();
        row.utilisation += seen.utilisation;
        row.queue_ms += seen.queue_p95.as_secs_f64() * 1_000.0;
        row.loss += seen.loss;
        flow.path().set_config(LinkConfig { rate_bps: Some(rate / 2), ..link });
        row.down_s += until(&mut *flow, |bps| bps * 10 <= rate / 2 * 11);
    }
    let n = SEEDS as f64;
    Row {
        convergence_s: row.convergence_s / n,
        utilisation: row.utilisation / n,
        queue_ms: row.queue_ms / n,
        loss: row.loss / n,
        down_s: row.down_s / n,
    }
}

/// Seconds until the estimate is as wanted, 30 at most.
fn until(flow: &mut dyn Contestant, wanted: impl Fn(u64) -> bool) -> f64 {
    for step in 0..600 {
        if wanted(flow.estimate_bps()) {
            return f64::from(step) * 0.05;
        }
        flow.run_for(ms(50));
    }
    30.0
}

#[test]
fn no_row_is_lost() {
    let link =
        |rate_bps| LinkConfig { rate_bps: Some(rate_bps), jitter: ms(2), ..Default::default() };
    let links = [
        ("300 kbit/s", link(300_000)),
        ("1 Mbit/s", link(1_000_000)),
        ("4 Mbit/s", link(4_000_000)),
        ("2 Mbit/s, 5 % loss", LinkConfig { loss: Loss::Uniform(0.05), ..link(2_000_000) }),
        ("2 Mbit/s, 10 ms jitter", LinkConfig { jitter: ms(10), ..link(2_000_000) }),
    ];
    let rows = SHAPES.into_iter().flat_map(|shape| links.map(|(name, link)| (shape, name, link)));
    println!(
        "| source, link | estimator | converges s | used % | queue p95 ms | loss % | halved s |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (shape, name, link) in rows {
        let name = format!("{}, {name}", shape_name(shape));
        let ours = run(Who::Ours, shape, link);
        println!("{}", ours.line(&name, Who::Ours));
        for who in Who::OTHERS {
            let theirs = run(who, shape, link);
            println!("{}", theirs.line(&name, who));
            assert!(ours.holds_against(&theirs), "{name}: {ours:?} against {who:?} {theirs:?}");
        }
    }
}

#[test]
fn two_flows_share_a_link() {
    let link = LinkConfig { rate_bps: Some(3_000_000), jitter: ms(2), ..LinkConfig::default() };
    for shape in SHAPES {
        let ours = fairness(Who::Ours, shape, link);
        println!("{}", ours.line(shape, Who::Ours));
        assert!(ours.share >= 0.3 && ours.least >= 0.1 && ours.used >= 0.85, "{ours:?}");
        for who in Who::OTHERS {
            let theirs = fairness(who, shape, link);
            println!("{}", theirs.line(shape, who));
            assert!(ours.holds_against(&theirs), "{ours:?} against {who:?} {theirs:?}");
        }
    }
}
