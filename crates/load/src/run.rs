//! A run: participants join at a rate, everybody settles, then a window is measured, then all leave.

use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sluice_transport::DtlsIdentity;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cpu::{own_cpu_time, threads};
use crate::drops::{Ports, ReceiveDrops};
use crate::participant::{self, Shared};
use crate::plan::{Muted, Options};
use crate::report::{Report, Second, TesterUse};
use crate::roster::Census;
use crate::stamp::Clock;
use crate::worker::{Command, Snapshot, Worker};

/// How media threads are called, before their number.
const MEDIA_THREAD: &str = "load-media-";
/// How long a speaker speaks.
const SPEAKER_TURN: Duration = Duration::from_secs(3);
/// How long goodbyes may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What the last joins leave behind, as renegotiation, takes at most about so long.
const JOIN_AFTERMATH: Duration = Duration::from_secs(1);
/// How long after the last start of a join the last may be up.
const JOIN_PATIENCE: Duration = Duration::from_secs(35);

/// Moments of a run, for whoever watches the server meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the first join.
    Starting,
    /// Everybody who could has joined.
    Joined,
    /// Everybody subscribes to what it watches; what was to start muted still is.
    Subscribed,
    /// The window begins.
    Measuring,
    /// The window is over; everybody is still there.
    Measured,
}

/// Watches a run.
pub trait Observer {
    /// Called once at each moment.
    fn at(&mut self, moment: Moment);

    /// Called every second of the run.
    fn second(&mut self, second: &Second);
}

impl Observer for () {
    fn at(&mut self, _: Moment) {}

    fn second(&mut self, _: &Second) {}
}

/// Runs it all on this thread and the media threads.
///
/// # Errors
/// The server's address cannot be resolved, or the system refuses threads or sockets. Failures of
/// participants are in the report.
pub fn run(options: &Options, observer: &mut dyn Observer) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_async(options, observer))
}

async fn run_async(options: &Options, observer: &mut dyn Observer) -> anyhow::Result<Report> {
    let (stop, stopped) = watch::channel(false);
    let (storm, storms) = watch::channel(false);
    let (subscribe, subscribing) = watch::channel(!options.subscribe_late);
    let (unmute, unmuting) = watch::channel(options.muted == Muted::Never);
    let (census, counted) = watch::channel(false);
    let (speaker, speakers) = watch::channel(options.simulate_speakers.then_some(0));
    let clock = Clock::new();
    let workers: anyhow::Result<Vec<Worker>> = (0..options.threads.max(1))
        .map(|index| Worker::start(format!("{MEDIA_THREAD}{index}"), clock))
        .collect();
    let shared = Arc::new(Shared {
        options: options.clone(),
        identity: Arc::new(DtlsIdentity::generate()?),
        workers: workers?,
        local_ip: local_ip(options)?,
        outcomes: crate::outcome::Outcomes::default(),
        stop: stopped,
        storm: storms,
        subscribe: subscribing,
        unmute: unmuting,
        count: counted,
        census: Census::default(),
        ports: Ports::default(),
        speaker: speakers,
    });
    let mut run = Run { shared, observer, start: Instant::now(), timeline: Vec::new() };
    run.observer.at(Moment::Starting);
    let mut participants = JoinSet::new();
    run.join_all(&mut participants).await;
    if options.muted != Muted::Never || options.subscribe_late {
        run.pass(JOIN_AFTERMATH, None).await;
    }
    run.observer.at(Moment::Joined);
    if options.subscribe_late {
        let _ = subscribe.send(true);
        run.pass(options.settle, None).await;
    }
    run.observer.at(Moment::Subscribed);
    if options.muted != Muted::Always {
        let _ = unmute.send(true);
        run.shared.workers.iter().for_each(|worker| worker.send(Command::Unmuted));
    }
    if options.storm_percent > 0 {
        let _ = storm.send(true);
    }
    run.pass(options.settle, None).await;

    run.shared.workers.iter().for_each(|worker| worker.send(Command::Restart));
    let before = run.snapshot().await;
    run.observer.at(Moment::Measuring);
    let began = Instant::now();
    let before = Sample::take(&run.shared, before.send_drops);
    let talk = options.simulate_speakers.then_some(&speaker);
    run.pass(options.duration, talk).await;
    run.observer.at(Moment::Measured);
    let measured = began.elapsed();
    let after = run.snapshot().await;
    let used = Sample::take(&run.shared, after.send_drops).since(&before, measured);
    let counts = run.shared.outcomes.counts();
    let _ = census.send(true);
    let inconsistent = run.take_census().await;

    let _ = stop.send(true);
    let leave = async { while participants.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LEAVE_TIMEOUT, leave).await;
    let mut report = Report::new(options, &after, used, &counts, measured, run.timeline);
    report.joins.resumed = counts.resumed;
    report.joins.inconsistent = inconsistent;
    Ok(report)
}

/// What the tester has used and lost so far.
struct Sample {
    cpu: Duration,
    /// CPU time of each media thread.
    threads: Vec<Duration>,
    send_drops: u64,
    receive_drops: ReceiveDrops,
}

impl Sample {
    fn take(shared: &Shared, send_drops: u64) -> Self {
        let media = threads(std::process::id()).filter(|(name, _)| name.starts_with(MEDIA_THREAD));
        Self {
            cpu: own_cpu_time(),
            threads: media.map(|(_, time)| time).collect(),
            send_drops,
            receive_drops: shared.ports.receive_drops(),
        }
    }

    fn since(&self, before: &Self, passed: Duration) -> TesterUse {
        let busy = self.threads.iter().zip(&before.threads);
        let busiest = busy.map(|(after, before)| after.saturating_sub(*before)).max();
        let drops = self.receive_drops.since(before.receive_drops);
        TesterUse {
            cpu_s: self.cpu.saturating_sub(before.cpu).as_secs_f64(),
            busiest_thread: busiest.unwrap_or_default().as_secs_f64()
                / passed.as_secs_f64().max(1e-9),
            send_drops: self.send_drops.saturating_sub(before.send_drops),
            receive_drops: drops.ours,
            server_receive_drops: drops.server,
        }
    }
}

struct Run<'a> {
    shared: Arc<Shared>,
    observer: &'a mut dyn Observer,
    start: Instant,
    timeline: Vec<Second>,
}

impl Run<'_> {
    /// Starts the joins at the ramp's rate and waits until each has succeeded or failed.
    async fn join_all(&mut self, participants: &mut JoinSet<()>) {
        let plans = self.shared.options.participants();
        let expected = plans.len();
        let pause = Duration::from_secs_f64(1.0 / self.shared.options.ramp.max(0.1));
        let first = Instant::now();
        let mut next_second = self.start + Duration::from_secs(1);
        for (index, plan) in plans.into_iter().enumerate() {
            let due = first + pause * index as u32;
            while Instant::now() < due {
                tokio::time::sleep_until(due.min(next_second).into()).await;
                self.tick(&mut next_second).await;
            }
            participants.spawn(participant::run(self.shared.clone(), index, plan));
        }
        let deadline = Instant::now() + JOIN_PATIENCE;
        while Instant::now() < deadline {
            let counts = self.shared.outcomes.counts();
            if counts.joined + counts.failed >= expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.tick(&mut next_second).await;
        }
    }

    /// Waits until everybody who is there has noted whom it sees; how many see wrong.
    async fn take_census(&self) -> usize {
        let counts = self.shared.outcomes.counts();
        let present = counts.joined.saturating_sub(counts.dropped);
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while self.shared.census.len() < present && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.shared.census.inconsistent() + present.saturating_sub(self.shared.census.len())
    }

    /// Lets time pass.
    async fn pass(&mut self, duration: Duration, talk: Option<&watch::Sender<Option<usize>>>) {
        let end = Instant::now() + duration;
        let mut next_second = Instant::now() + Duration::from_secs(1);
        let mut next_turn = Instant::now();
        let mut turn = 0;
        while Instant::now() < end {
            if let Some(talk) = talk.filter(|_| Instant::now() >= next_turn) {
                let _ = talk.send(Some(turn % self.shared.options.publishers.max(1)));
                turn += 1;
                next_turn += SPEAKER_TURN;
            }
            tokio::time::sleep_until(end.min(next_second).into()).await;
            self.tick(&mut next_second).await;
        }
    }

    async fn tick(&mut self, next_second: &mut Instant) {
        if Instant::now() < *next_second {
            return;
        }
        *next_second += Duration::from_secs(1);
        let snapshot = self.snapshot().await;
        let counts = self.shared.outcomes.counts();
        let second = Second::new(self.start.elapsed(), &snapshot, &counts, self.timeline.last());
        self.observer.second(&second);
        self.timeline.push(second);
    }

    async fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::default();
        for worker in &self.shared.workers {
            all.add(&worker.snapshot().await);
        }
        all
    }
}

/// Our address on the way to the server.
fn local_ip(options: &Options) -> anyhow::Result<IpAddr> {
    let url = &options.url;
    let host = url.host_str().context("the URL names no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(7880);
    let addr = (host, port).to_socket_addrs()?.next().context("the server's name is unknown")?;
    let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let probe = UdpSocket::bind(any)?;
    probe.connect(addr)?;
    Ok(probe.local_addr()?.ip())
}
