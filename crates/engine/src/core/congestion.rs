//! Congestion control towards each receiver: what its path takes, what each of its streams gets of
//! that, and when packets leave.
//!
//! Sent packets and the receiver's RTCP flow in; layers for its down tracks, padding for probes and
//! word of paused streams flow out. A peer has it once it watches a video and sends feedback that
//! tells something; audio is never limited.

use std::time::{Duration, Instant};

use slotmap::SlotMap;
use sluice_rtp::codec::MediaKind;
use sluice_rtp::rtcp::{ReportBlock, TransportFeedback};
use sluice_sfu::allocator::{
    Allocator, AllocatorConfig, Change, StreamDemand, StreamKind, StreamState,
};
use sluice_sfu::bwe::{
    BandwidthEstimator, BweConfig, PacketSent, RembEstimator, SendSideEstimator,
};
use sluice_sfu::meter::LayerRates;
use sluice_sfu::pacer::{MAX_PADDING_ONLY, PADDING_HEADER, Paced, Pacer, Urgency};
use sluice_sfu::{Allocation, LayerSet, MediaPacket, Resend};

use crate::api::EventKind;
use crate::config::CongestionConfig;
use crate::core::Core;
use crate::core::peer::{DownKey, Egress, Pace, PeerKey};
use crate::core::track::{Down, Feed, PathFeedback};
use crate::link::FeedKey;
use crate::stats::{WorkerStats, estimate_bucket};

/// Time between looks at what the streams cost.
const METER_INTERVAL: Duration = Duration::from_millis(100);

/// Feedback comes in between, which is a look at it as well; without, it can wait.
const METER_SLACK: Duration = Duration::from_millis(150);

/// A peer that has sent no feedback by then sends none: its path is not estimated.
const FEEDBACK_DUE: Duration = Duration::from_secs(3);

/// The first estimate is a guess; nothing is paused until probes have had their say.
const PAUSE_GRACE: Duration = Duration::from_secs(3);

/// Without packets for this long there is nothing to control.
const IDLE: Duration = Duration::from_secs(2);

/// Congestion control towards one receiver.
#[derive(Debug)]
pub(crate) struct Congestion {
    estimator: Box<dyn BandwidthEstimator + Send>,
    allocator: Allocator<DownKey>,
    pacer: Pacer<Held>,
    config: CongestionConfig,
    /// The estimate counts as no more than this.
    cap_bps: Option<u64>,
    since: Instant,
    first_sent: Option<Instant>,
    last_sent: Option<Instant>,
    /// The receiver's feedback has begun.
    heard: bool,
    next_meter: Instant,
    /// Where the estimate stands in [`WorkerStats::receivers_by_estimate`].
    bucket: Option<usize>,
    counted_delays: u64,
}

/// A packet that waits for its turn.
#[derive(Debug)]
struct Held {
    packet: MediaPacket,
    egress: Egress,
}

/// A packet of padding only that fills a probe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filler {
    pub(crate) down: DownKey,
    /// Number on the RTX stream.
    pub(crate) seq: u16,
    pub(crate) len: u8,
    pub(crate) probe: Option<u16>,
}

/// What a flush has for one receiver, and what a pacer changes about it.
pub(crate) struct Load<'a> {
    /// What was meant to leave; becomes what leaves.
    pub(crate) entries: &'a mut Vec<Egress>,
    pub(crate) fillers: &'a mut Vec<Filler>,
    /// The packets that entries refer to.
    pub(crate) batch: &'a mut Vec<MediaPacket>,
    /// Empty; what it holds afterwards is of no use.
    pub(crate) scratch: &'a mut Vec<Egress>,
    /// The receiver's subscriptions.
    pub(crate) keys: &'a [DownKey],
    pub(crate) downs: &'a mut SlotMap<DownKey, Down>,
    pub(crate) feeds: &'a SlotMap<FeedKey, Feed>,
}

impl Congestion {
    /// For a receiver with these capabilities; `None` if it tells nothing of its path.
    fn new(config: CongestionConfig, feedback: PathFeedback, now: Instant) -> Option<Self> {
        let limits = BweConfig {
            start_bps: config.start_bps,
            max_bps: config.max_bps,
            ..BweConfig::default()
        };
        let estimator: Box<dyn BandwidthEstimator + Send> = match feedback {
            PathFeedback::TransportWide => Box::new(SendSideEstimator::new(limits, now)),
            PathFeedback::Estimate => Box::new(RembEstimator::new(limits)),
            PathFeedback::None => return None,
        };
        Some(Self {
            estimator,
            allocator: Allocator::new(AllocatorConfig::default()),
            pacer: Pacer::new(now, config.start_bps),
            config,
            cap_bps: None,
            since: now,
            first_sent: None,
            last_sent: None,
            heard: false,
            next_meter: now,
            bucket: None,
            counted_delays: 0,
        })
    }

    /// Lets go what may leave now: what waited first, then what came, then padding for a probe.
    pub(crate) fn pace(&mut self, now: Instant, load: &mut Load<'_>) {
        let packets = load.entries.iter().filter_map(|entry| load.batch.get(entry.packet as usize));
        if self.pacer.pass(now, packets.map(|packet| packet.body.len()).sum()) {
            return load.entries.iter_mut().for_each(|entry| entry.pace = Pace::Released(None));
        }
        self.release(now, load);
        for index in 0..load.entries.len() {
            let egress = load.entries[index];
            let urgency = match egress.pace {
                Pace::Patient => Urgency::Video,
                Pace::Urgent | Pace::Released(_) => Urgency::Immediate,
            };
            let Some(packet) = load.batch.get(egress.packet as usize) else { continue };
            let size = packet.body.len();
            if self.pacer.admits(now, urgency) {
                self.let_go(now, size, egress, load.scratch);
            } else {
                let held = Held { packet: packet.clone(), egress };
                if let Some(oldest) = self.pacer.hold(now, held, size) {
                    self.unhold(now, oldest, load);
                }
            }
        }
        self.release(now, load);
        std::mem::swap(load.entries, load.scratch);
        load.scratch.clear();
    }

    /// Takes from the pacer what is due.
    fn release(&mut self, now: Instant, load: &mut Load<'_>) {
        while let Some(paced) = self.pacer.poll(now) {
            match paced {
                Paced::Packet(held) => self.unhold(now, held, load),
                Paced::Padding { bytes } => self.pad(now, bytes, load),
            }
        }
    }

    fn unhold(&mut self, now: Instant, held: Held, load: &mut Load<'_>) {
        let egress = Egress { packet: load.batch.len() as u32, ..held.egress };
        let size = held.packet.body.len();
        load.batch.push(held.packet);
        self.let_go(now, size, egress, load.scratch);
    }

    fn let_go(&mut self, now: Instant, size: usize, egress: Egress, out: &mut Vec<Egress>) {
        let probe = self.pacer.on_sent(now, size);
        out.push(Egress { pace: Pace::Released(probe), ..egress });
    }

    /// Fills a probe: with a packet that the receiver already got, else with nothing at all.
    fn pad(&mut self, now: Instant, bytes: usize, load: &mut Load<'_>) {
        let downs = &*load.downs;
        let able = load.keys.iter().filter_map(|key| Some((*key, downs.get(*key)?)));
        let able = able.filter(|(_, down)| down.connected && down.wire.rtx.is_some());
        // What was sent most is most likely to have a packet of the size.
        let best = able.max_by_key(|(_, down)| down.track.sent().0).map(|(key, _)| key);
        let Some((key, down)) = best.and_then(|key| Some((key, load.downs.get_mut(key)?))) else {
            return self.pacer.cancel_probe();
        };
        let history = load.feeds.get(down.feed).map(|feed| &feed.history);
        let repeated = history
            .filter(|_| bytes > MAX_PADDING_ONLY)
            .and_then(|history| down.track.padding(now, history, bytes * 3 / 4));
        if let Some(Resend { packet, forwarded: form, rtx_seq }) = repeated {
            let egress = Egress { packet: 0, down: key, form, rtx_seq, pace: Pace::Urgent };
            let held = Held { packet: packet.clone(), egress };
            return self.unhold(now, held, load);
        }
        let Some(seq) = down.track.padding_seq() else { return self.pacer.cancel_probe() };
        let len = bytes.min(MAX_PADDING_ONLY) as u8;
        let probe = self.pacer.on_sent(now, usize::from(len) + PADDING_HEADER);
        load.fillers.push(Filler { down: key, seq, len, probe });
    }

    /// Notes a packet that left, of whatever kind.
    pub(crate) fn on_sent(
        &mut self,
        now: Instant,
        transport_seq: Option<u16>,
        size: usize,
        probe: Option<u16>,
    ) {
        self.first_sent.get_or_insert(now);
        self.last_sent = Some(now);
        // Of a path that nobody tells of nothing needs to be remembered.
        if let Some(transport_seq) = transport_seq.filter(|_| !self.is_unknown(now)) {
            self.estimator.on_packet_sent(now, PacketSent { transport_seq, size, probe });
        }
    }

    /// Whether a retransmission of this many bytes fits what the path takes.
    pub(crate) fn may_retransmit(&mut self, now: Instant, len: usize) -> bool {
        self.pacer.may_retransmit(now, len)
    }

    /// When something is due. Nothing is while the receiver gets nothing and lacks nothing.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let last_sent = self.last_sent?;
        let idle = self.next_meter > last_sent + IDLE && !self.allocator.is_deficient();
        let allocate = self.allocator.poll_timeout().filter(|_| !idle);
        let meter = (!idle).then_some(self.next_meter + METER_SLACK);
        let timers = [self.estimator.poll_timeout(), self.pacer.poll_timeout(), allocate, meter];
        timers.into_iter().flatten().min()
    }

    /// The estimate and what of it is usable; `None` for a path that nothing is known of and
    /// nothing will be.
    fn estimate(&self, now: Instant) -> Option<(u64, u64)> {
        let cap = self.cap_bps.unwrap_or(u64::MAX);
        if self.is_unknown(now) {
            return self.cap_bps.map(|cap| (cap, cap));
        }
        let floor = self.config.min_channel_bps;
        let (estimate, usable) = (self.estimator.estimate_bps(), self.estimator.usable_bps());
        Some((estimate.max(floor).min(cap), usable.max(floor).min(cap)))
    }

    /// Whether the receiver's feedback is overdue since the first packet.
    fn is_unknown(&self, now: Instant) -> bool {
        !self.heard && self.first_sent.is_some_and(|at| now >= at + FEEDBACK_DUE)
    }

    /// Lets estimator, allocator and pacer agree; appends what changes for the streams.
    fn settle(&mut self, now: Instant, has_rtx: bool, changes: &mut Vec<Change<DownKey>>) {
        self.estimator.handle_timeout(now);
        let estimate = self.estimate(now);
        let (whole, usable) = estimate.unwrap_or((self.config.max_bps, self.config.max_bps));
        self.pacer.set_rates(now, whole, usable, self.allocator.allocated_bps());
        self.allocator.set_allow_pause(self.config.allow_pause && now >= self.since + PAUSE_GRACE);
        self.allocator.set_estimate(estimate);
        // Without RTX nothing can be proven; the estimate has to be believed.
        let heard = has_rtx && !self.is_unknown(now);
        let proven = self.estimator.proven_bps(now).filter(|_| heard);
        self.allocator.set_proven(proven);
        self.allocator.allocate(now, |change| changes.push(change));
        self.estimator.set_desired(now, self.allocator.desired_bps());
        if let Some(bps) = self.allocator.unproven_bps() {
            self.estimator.prove(now, bps);
        }
    }

    /// Moves new probes to the pacer. Without an RTX stream there is nothing to probe with.
    fn start_probes(&mut self, now: Instant, has_rtx: bool, stats: &mut WorkerStats) {
        while let Some(cluster) = self.estimator.poll_probe(now) {
            if has_rtx {
                stats.probes += 1;
                self.pacer.start_probe(now, cluster);
            }
        }
    }

    /// Keeps the statistics of the worker up to date.
    fn count(&mut self, stats: &mut WorkerStats) {
        let delayed = self.pacer.stats().delayed;
        stats.paced += delayed - self.counted_delays;
        self.counted_delays = delayed;
        let bucket = self.heard.then(|| estimate_bucket(self.estimator.estimate_bps()));
        if bucket != self.bucket {
            self.uncount(stats);
            self.bucket = bucket;
            if let Some(bucket) = bucket {
                stats.receivers_by_estimate[bucket] += 1;
            }
        }
    }

    /// Takes the receiver out of the statistics.
    pub(crate) fn uncount(&mut self, stats: &mut WorkerStats) {
        if let Some(bucket) = self.bucket.take() {
            stats.receivers_by_estimate[bucket] -= 1;
        }
    }
}

impl Core {
    /// Tells the allocator what a receiver wants of a track, after that changed. Begins to control
    /// the path if it is the first video that flows to the receiver.
    pub(super) fn demand_changed(&mut self, now: Instant, key: DownKey) {
        let Some(down) = self.downs.get(key) else { return };
        let Some(state) = self.peers.get_mut(down.peer) else { return };
        let Some(feed) = self.feeds.get_mut(down.feed).filter(|feed| feed.meter.is_some()) else {
            return;
        };
        if let Some(congestion) = &mut state.congestion {
            return congestion.allocator.set_stream(key, demand(now, down, feed));
        }
        if let Some(config) = self.congestion.filter(|_| feed.kind == MediaKind::Video) {
            state.congestion = Congestion::new(config, down.path_feedback, now).map(Box::new);
            if state.congestion.is_some() {
                for down in state.downs.clone() {
                    self.demand_changed(now, down);
                }
            }
        }
    }

    /// The first packet of a track has come, or it was muted or unmuted: what its receivers want of
    /// it counts, or not.
    pub(super) fn demands_changed(&mut self, now: Instant, feed: FeedKey) {
        let mut index = 0;
        while let Some(key) = self.feeds.get(feed).and_then(|f| f.downs.get(index)).copied() {
            index += 1;
            self.demand_changed(now, key);
            if let Some(peer) = self.downs.get(key).map(|down| down.peer) {
                self.settle_congestion(now, peer);
            }
        }
    }

    /// Forgets a stream that ended.
    pub(super) fn demand_ended(&mut self, peer: PeerKey, key: DownKey) {
        let congestion = self.peers.get_mut(peer).and_then(|state| state.congestion.as_mut());
        if let Some(congestion) = congestion {
            congestion.allocator.remove_stream(key);
        }
    }

    /// Takes transport-wide feedback of a receiver.
    pub(super) fn on_transport_feedback(
        &mut self,
        now: Instant,
        peer: PeerKey,
        feedback: &TransportFeedback<'_>,
    ) {
        let congestion = self.peers.get_mut(peer).and_then(|state| state.congestion.as_mut());
        let Some(congestion) = congestion else { return };
        congestion.heard = true;
        congestion.estimator.on_transport_feedback(now, feedback);
        self.settle_congestion(now, peer);
    }

    /// Takes a receiver's own estimate.
    pub(super) fn on_remb(&mut self, now: Instant, peer: PeerKey, bitrate_bps: u64) {
        let congestion = self.peers.get_mut(peer).and_then(|state| state.congestion.as_mut());
        let Some(congestion) = congestion else { return };
        congestion.heard = true;
        congestion.estimator.on_remb(now, bitrate_bps);
        self.settle_congestion(now, peer);
    }

    /// Pretends that a receiver's path is no wider than this.
    pub(super) fn limit_bandwidth(&mut self, now: Instant, peer: PeerKey, max_bps: Option<u64>) {
        let congestion = self.peers.get_mut(peer).and_then(|state| state.congestion.as_mut());
        let Some(congestion) = congestion else { return };
        congestion.cap_bps = max_bps;
        self.settle_congestion(now, peer);
    }

    /// Takes what a receiver reports of one of its streams.
    pub(super) fn on_path_report(
        &mut self,
        now: Instant,
        peer: PeerKey,
        key: DownKey,
        block: &ReportBlock,
    ) {
        let Some(down) = self.downs.get_mut(key) else { return };
        let packets = down.track.sent().0.saturating_sub(down.packets_at_report);
        down.packets_at_report = down.track.sent().0;
        let rtt = down.track.feedback().rtt;
        let congestion = self.peers.get_mut(peer).and_then(|state| state.congestion.as_mut());
        let Some(congestion) = congestion else { return };
        congestion.estimator.on_loss_report(now, f32::from(block.fraction_lost) / 256.0, packets);
        if let Some(rtt) = rtt {
            congestion.estimator.on_rtt(now, rtt);
        }
    }

    /// Does what is due for a receiver, and carries out what changes for its streams.
    pub(super) fn settle_congestion(&mut self, now: Instant, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let Some(congestion) = &mut state.congestion else { return };
        if now >= congestion.next_meter {
            congestion.next_meter = now + METER_INTERVAL;
            let (downs, feeds) = (&self.downs, &mut self.feeds);
            congestion.allocator.refresh_rates(|key| {
                let down = downs.get(key);
                let feed = down.and_then(|down| feeds.get_mut(down.feed));
                feed.map_or(LayerRates::default(), |feed| rates(now, feed))
            });
        }
        let mut changes = std::mem::take(&mut self.allocation_changes);
        let mut downs = state.downs.iter().filter_map(|key| self.downs.get(*key));
        let has_rtx = downs.any(|down| down.wire.rtx.is_some());
        congestion.settle(now, has_rtx, &mut changes);
        congestion.start_probes(now, has_rtx, &mut self.stats);
        congestion.count(&mut self.stats);
        let is_due = congestion.pacer.poll_timeout().is_some_and(|at| at <= now);
        if let Some(at) = congestion.poll_timeout() {
            self.timers.arm(&mut state.armed, peer, at.max(now + super::timing::MIN_DELAY));
        }
        if is_due {
            self.mark_egress(now, peer);
        }
        for change in changes.drain(..) {
            self.apply_allocation(now, change);
        }
        self.allocation_changes = changes;
    }

    fn apply_allocation(&mut self, now: Instant, change: Change<DownKey>) {
        let Some(down) = self.downs.get_mut(change.stream) else { return };
        let left = down.track.set_allocation(now, change.allocation);
        let state = self.peers.get_mut(down.peer).filter(|_| left);
        if let Some(congestion) = state.and_then(|state| state.congestion.as_mut()) {
            let is_other = |held: &Held| held.egress.down != change.stream;
            down.track.count_left(congestion.pacer.make_way(is_other));
        }
        self.stats.allocation_changes += 1;
        if let Some(state) = change.state {
            let paused = state == StreamState::Paused;
            self.stats.stream_pauses += u64::from(paused);
            let subscription = down.id;
            if let Some(room) = self.peers.get(down.peer).map(|peer| peer.room) {
                self.emit(room, EventKind::StreamState { subscription, paused });
            }
        }
        if change.allocation != Allocation::Paused {
            self.ask_key_frame(now, change.stream);
        }
    }
}

/// What a receiver wants of a track.
fn demand(now: Instant, down: &Down, feed: &mut Feed) -> StreamDemand {
    let kind = match (down.track.config().kind, down.screen_share) {
        (MediaKind::Audio, _) => StreamKind::Audio,
        (MediaKind::Video, true) => StreamKind::ScreenShare,
        (MediaKind::Video, false) => StreamKind::Camera,
    };
    StreamDemand {
        kind,
        priority: down.settings.priority.into(),
        enabled: down.settings.enabled && !feed.muted,
        max_spatial: down.settings.max_spatial,
        max_temporal: down.settings.max_temporal,
        rates: rates(now, feed),
    }
}

/// What the layers of a track cost.
fn rates(now: Instant, feed: &mut Feed) -> LayerRates {
    let live = match feed.kind {
        MediaKind::Video => feed.live_layers,
        MediaKind::Audio => LayerSet::NONE,
    };
    let metered = feed.meter.as_mut().filter(|_| !feed.ended);
    metered.map_or_else(LayerRates::default, |metered| metered.rates(now, live))
}
