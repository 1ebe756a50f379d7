//! Google congestion control of `rtc-interceptor` behind our trait.

use std::fmt;
use std::time::{Duration, Instant};

use rtc_interceptor::{BandwidthEstimator as _, Gcc, PacketReport};
use rtc_rtcp::transport_feedbacks::cc_feedback_report::Ecn;
use sluice_rtp::rtcp::TransportFeedback;
use sluice_sfu::bwe::history::{PacketResult, SentHistory};
use sluice_sfu::bwe::{BandwidthEstimator, BweConfig, BweStats, PacketSent, ProbeCluster};

/// It gets the same packets, joined with the same feedback.
pub(crate) struct RtcGcc {
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
    pub(crate) fn new(config: BweConfig, now: Instant) -> Self {
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
