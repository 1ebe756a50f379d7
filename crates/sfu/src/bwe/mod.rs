//! Bandwidth estimation towards one receiver: how many bits per second its path takes.
//!
//! What was sent and what the receiver says about it flow in; an estimate and requests to probe
//! flow out. [`SendSideEstimator`] reads transport-wide feedback: [`history`] joins it with what was
//! sent, [`delay`] and [`loss`] each form an opinion, [`acked`] measures what arrives, [`probe`]
//! decides when to send more than needed to learn whether more fits. [`RembEstimator`] is for peers
//! that only tell an estimate of their own. Both hide behind [`BandwidthEstimator`], so that another
//! congestion control can take their place.

pub mod acked;
pub mod aimd;
pub mod alr;
pub mod busy_period;
pub mod delay;
pub mod history;
pub mod inter_arrival;
pub mod loss;
pub mod probe;
pub mod probe_result;
pub mod proof;
pub mod remb;
pub mod send_side;
pub mod standing_queue;
pub mod trendline;

use std::time::{Duration, Instant};

use sluice_rtp::rtcp::TransportFeedback;

pub use probe::ProbeCluster;
pub use remb::RembEstimator;
pub use send_side::SendSideEstimator;

/// Limits of an estimate, bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BweConfig {
    /// Estimate before anything is known.
    pub start_bps: u64,
    /// Never less.
    pub min_bps: u64,
    /// Never more.
    pub max_bps: u64,
}

impl Default for BweConfig {
    /// The start is twice libwebrtc's (300 kbit/s, a camera's): receivers mostly have more than
    /// publishers, and the first probes follow within a round trip. The limits are JVB's.
    fn default() -> Self {
        Self { start_bps: 600_000, min_bps: 30_000, max_bps: 20_000_000 }
    }
}

/// A packet that left towards the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketSent {
    /// Transport-wide sequence number.
    pub transport_seq: u16,
    /// Bytes, RTP header included.
    pub size: usize,
    /// The probe that it is part of: [`ProbeCluster::id`].
    pub probe: Option<u16>,
}

/// How the path is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkState {
    /// Nothing waits in the path.
    #[default]
    Normal,
    /// Queues grow.
    Overuse,
    /// Queues drain.
    Underuse,
}

/// What the estimator thinks, for statistics.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BweStats {
    /// The estimate, bits per second.
    pub estimate_bps: u64,
    /// That of delay.
    pub delay_bps: u64,
    /// That of loss, if it limits.
    pub loss_bps: Option<u64>,
    /// What arrives.
    pub acked_bps: Option<u64>,
    /// Weighted loss of the last seconds, 0..=1.
    pub loss: f64,
    /// What the path does.
    pub network: NetworkState,
    /// Time that packets wait in the path.
    pub queue: Duration,
    /// Feedback messages at which queues grew.
    pub overuses: u32,
    /// Clusters sent.
    pub probes: u64,
    /// Bytes underway.
    pub in_flight: u64,
    /// Since when we are the limit.
    pub limited_by_us: bool,
}

/// Congestion control of the path to one receiver.
pub trait BandwidthEstimator: std::fmt::Debug {
    /// Notes a packet that was sent, in the order of the transport-wide numbers.
    fn on_packet_sent(&mut self, now: Instant, packet: PacketSent);

    /// Takes transport-wide feedback.
    fn on_transport_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>);

    /// Takes the receiver's own estimate, bits per second.
    fn on_remb(&mut self, now: Instant, bitrate_bps: u64);

    /// Takes the loss of the last interval, 0..=1, that a report block tells of a stream on which
    /// `packets` were sent since its last one.
    fn on_loss_report(&mut self, now: Instant, fraction_lost: f32, packets: u64);

    /// Takes a round-trip time from report blocks.
    fn on_rtt(&mut self, now: Instant, rtt: Duration);

    /// Tells what would be sent if the path took everything, bits per second. Beyond it, and some,
    /// nothing needs to be probed.
    fn set_desired(&mut self, now: Instant, desired_bps: u64);

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The next probe to send. To be called after every input.
    fn poll_probe(&mut self, now: Instant) -> Option<ProbeCluster>;

    /// What the path takes, bits per second.
    fn estimate_bps(&self) -> u64;

    /// What the path was lately seen to carry, bits per second; `None` if that is not known of it, so
    /// that the estimate has to be believed. For steps upwards, since an estimate can be old.
    fn proven_bps(&self, _now: Instant) -> Option<u64> {
        None
    }

    /// Asks for a probe of a rate, bits per second, that is about to be used. It may take a while, or
    /// never be sent: at most one is underway, and none while the path is congested.
    fn prove(&mut self, _now: Instant, _bitrate_bps: u64) {}

    /// What may be sent now, bits per second: the estimate, less what a long queue on the path needs
    /// to drain soon. For the allocator and the pacer.
    fn usable_bps(&self) -> u64 {
        self.estimate_bps()
    }

    /// Round-trip time, if known.
    fn rtt(&self) -> Option<Duration>;

    /// What it thinks, for statistics.
    fn stats(&self) -> BweStats;
}
