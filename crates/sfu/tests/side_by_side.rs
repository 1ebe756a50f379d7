//! Our estimator beside that of `rtc-interceptor` (the webrtc-rs family), over the same links, with
//! the same source, pacer and feedback: `benches/README.md` shows the table that this prints.
#![allow(clippy::print_stdout, reason = "the table, shown with --nocapture")]

mod congestion;

use std::fmt;
use std::time::{Duration, Instant};

use congestion::{Bottleneck, Flow, FlowConfig, ms};
use rtc_interceptor::{BandwidthEstimator as _, Gcc, PacketReport};
use rtc_rtcp::transport_feedbacks::cc_feedback_report::Ecn;
use sluice_rtp::rtcp::TransportFeedback;
use sluice_sfu::bwe::history::{PacketResult, SentHistory};
use sluice_sfu::bwe::{
    BandwidthEstimator, BweConfig, BweStats, PacketSent, ProbeCluster, SendSideEstimator,
};
use sluice_sim::{LinkConfig, Loss};

/// Runs per row.
const SEEDS: u64 = 8;

/// Google congestion control of `rtc-interceptor` behind our trait: it gets the same packets, joined
/// with the same feedback.
struct RtcGcc {
    gcc: Gcc,
    history: SentHistory,
    epoch: Instant,
    results: Vec<PacketResult>,
}

impl fmt::Debug for RtcGcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtcGcc").finish_non_exhaustive()
    }
}

impl RtcGcc {
    fn new(config: BweConfig, now: Instant) -> Self {
        let [start, min, max] = [config.start_bps, config.min_bps, config.max_bps];
        Self {
            gcc: Gcc::new(start as f64, min as f64, max as f64),
            history: SentHistory::new(now),
            epoch: now,
            results: Vec::new(),
        }
    }

    fn report(&self, result: &PacketResult) -> PacketReport {
        PacketReport {
            ssrc: 1,
            id: result.seq,
            rtp_sequence_number: result.seq as u16,
            is_twcc: true,
            twcc_sequence_number: result.seq as u16,
            size: result.size as usize,
            arrived: result.arrival_us.is_some(),
            departure: self.epoch + Duration::from_micros(result.sent_us as u64),
            arrival: result.arrival_us.map(|us| Duration::from_micros(us.max(0) as u64)),
            ecn: Ecn::default(),
        }
    }
}

impl BandwidthEstimator for RtcGcc {
    fn on_packet_sent(&mut self, now: Instant, packet: PacketSent) {
        self.history.push(now, &packet);
    }

    fn on_transport_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>) {
        let mut results = std::mem::take(&mut self.results);
        self.history.on_feedback(now, feedback, &mut results);
        let reports: Vec<PacketReport> = results.iter().map(|r| self.report(r)).collect();
        self.gcc.on_reports(now, &reports);
        self.results = results;
    }

    fn on_remb(&mut self, _now: Instant, _bitrate_bps: u64) {}

    fn on_loss_report(&mut self, _now: Instant, _fraction_lost: f32, _packets: u64) {}

    fn on_rtt(&mut self, _now: Instant, _rtt: Duration) {}

    fn set_desired(&mut self, _now: Instant, _desired_bps: u64) {}

    fn handle_timeout(&mut self, now: Instant) {
        self.gcc.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.gcc.poll_timeout()
    }

    fn poll_probe(&mut self, _now: Instant) -> Option<ProbeCluster> {
        None
    }

    fn estimate_bps(&self) -> u64 {
        self.gcc.target_bitrate() as u64
    }

    fn rtt(&self) -> Option<Duration> {
        None
    }

    fn stats(&self) -> BweStats {
        BweStats { estimate_bps: self.estimate_bps(), ..BweStats::default() }
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
    fn line(&self, link: &str, who: &str) -> String {
        let Self { convergence_s, utilisation, queue_ms, loss, down_s } = self;
        let (used, lost) = (utilisation * 100.0, loss * 100.0);
        format!(
            "| {link} | {who} | {convergence_s:.2} | {used:.1} | {queue_ms:.0} | {lost:.2} | {down_s:.2} |"
        )
    }

    /// Whether no figure is worse by more than a tenth, or by what cannot be told apart.
    fn holds_against(&self, other: &Self) -> bool {
        let below = |ours: f64, theirs: f64, alike: f64| ours <= theirs * 1.1 + alike;
        // A link that is not filled has no queue.
        let queue = other.utilisation < 0.85 || below(self.queue_ms, other.queue_ms, 5.0);
        queue
            && self.utilisation >= 0.9 * other.utilisation
            && below(self.loss, other.loss, 0.005)
            && below(self.convergence_s, other.convergence_s, 0.1)
            && below(self.down_s, other.down_s, 0.1)
    }
}

fn flow(ours: bool, link: LinkConfig, seed: u64) -> Flow {
    let bwe = BweConfig::default();
    Flow::with(FlowConfig::twcc(8_000_000), link, seed, |now| match ours {
        true => Box::new(SendSideEstimator::new(bwe, now)),
        false => Box::new(RtcGcc::new(bwe, now)),
    })
}

/// Two flows on one link, the second ten seconds later: the share of the smaller one of what both get
/// from 30 to 90 seconds, and what both use of the link; means and the smallest share.
fn share(ours: bool, link: LinkConfig) -> (f64, f64, f64) {
    let (mut shares, mut least, mut used) = (0.0, f64::INFINITY, 0.0);
    for seed in 0..SEEDS {
        let bottleneck = Bottleneck::new(link, 2, seed);
        let mut flows = [flow(ours, link, seed), flow(ours, link, seed + 1_000)];
        for (number, flow) in flows.iter_mut().enumerate() {
            flow.share(&bottleneck, number);
        }
        for at in 0..90_000 {
            if at == 30_000 {
                flows.iter_mut().for_each(Flow::start_measuring);
            }
            flows[0].run_for(ms(1));
            match at < 10_000 {
                true => flows[1].wait(ms(1)),
                false => flows[1].run_for(ms(1)),
            }
        }
        let [a, b] = flows.map(|mut flow| flow.measured().utilisation);
        let smaller = a.min(b) / (a + b);
        shares += smaller / SEEDS as f64;
        least = least.min(smaller);
        used += (a + b) / SEEDS as f64;
    }
    (shares, least, used)
}

fn run(ours: bool, link: LinkConfig) -> Row {
    let rate = link.rate_bps.expect("a bottleneck");
    let mut row = Row::default();
    for seed in 0..SEEDS {
        let mut flow = flow(ours, link, seed);
        row.convergence_s += until(&mut flow, |bps| bps * 10 >= rate * 7);
        flow.run_for(ms(10_000));
        flow.start_measuring();
        flow.run_for(ms(30_000));
        let seen = flow.measured();
        row.utilisation += seen.utilisation;
        row.queue_ms += seen.queue_p95.as_secs_f64() * 1_000.0;
        row.loss += seen.loss;
        flow.set_link(LinkConfig { rate_bps: Some(rate / 2), ..link });
        row.down_s += until(&mut flow, |bps| bps * 10 <= rate / 2 * 11);
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
fn until(flow: &mut Flow, wanted: impl Fn(u64) -> bool) -> f64 {
    for step in 0..600 {
        if wanted(flow.estimate_bps()) {
            return f64::from(step) * 0.05;
        }
        flow.run_for(ms(50));
    }
    30.0
}

#[test]
fn no_row_is_lost_to_rtc_interceptor() {
    let link =
        |rate_bps| LinkConfig { rate_bps: Some(rate_bps), jitter: ms(2), ..Default::default() };
    let rows = [
        ("300 kbit/s", link(300_000)),
        ("1 Mbit/s", link(1_000_000)),
        ("4 Mbit/s", link(4_000_000)),
        ("2 Mbit/s, 5 % loss", LinkConfig { loss: Loss::Uniform(0.05), ..link(2_000_000) }),
        ("2 Mbit/s, 10 ms jitter", LinkConfig { jitter: ms(10), ..link(2_000_000) }),
    ];
    println!("| link | estimator | converges s | used % | queue p95 ms | loss % | halved s |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (name, link) in rows {
        let (ours, theirs) = (run(true, link), run(false, link));
        println!("{}\n{}", ours.line(name, "ours"), theirs.line(name, "rtc-interceptor"));
        assert!(ours.holds_against(&theirs), "{name}: {ours:?} against {theirs:?}");
    }
}

#[test]
fn two_flows_share_a_link() {
    let link = LinkConfig { rate_bps: Some(3_000_000), jitter: ms(2), ..LinkConfig::default() };
    let (ours, theirs) = (share(true, link), share(false, link));
    for (who, (share, least, used)) in [("ours", ours), ("rtc-interceptor", theirs)] {
        println!("| {who} | {:.1} | {:.1} | {:.1} |", share * 100.0, least * 100.0, used * 100.0);
    }
    assert!(ours.0 >= 0.3 && ours.1 >= 0.1 && ours.2 >= 0.85, "{ours:?}");
    assert!(ours.0 >= 0.9 * theirs.0 && ours.2 >= 0.9 * theirs.2, "{ours:?} against {theirs:?}");
}
