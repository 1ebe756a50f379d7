//! Sender reports: the publisher's, which tie its RTP clocks to one wall clock, and ours towards a
//! receiver, which carry that tie on through our rewriting of timestamps. A receiver that plays a
//! publisher's audio and video sees the publisher's own clock in both and keeps lips in step.

use std::time::{Duration, Instant};

use sluice_rtp::NtpTime;
use sluice_rtp::ntp;

use crate::packet::MAX_LAYERS;

/// Reports of ours that a receiver may still answer.
const REMEMBERED_REPORTS: usize = 4;

/// Larger round trips come from a broken receiver.
const MAX_RTT: Duration = Duration::from_secs(30);

/// A sender report of the publisher, as passed to every receiver of the track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceReport {
    /// Simulcast layer.
    pub stream: u8,
    /// [`MediaPacket::epoch`](crate::packet::MediaPacket::epoch) that the timestamp belongs to.
    pub epoch: u8,
    /// The publisher's wall clock.
    pub ntp: NtpTime,
    /// The layer's RTP timestamp at `ntp`.
    pub timestamp: u32,
    /// When the report arrived.
    pub arrival: Instant,
}

/// The newest sender report of each layer of a track.
#[derive(Debug, Clone, Default)]
pub struct SourceClocks {
    reports: [Option<SourceReport>; MAX_LAYERS],
}

impl SourceClocks {
    /// Keeps a report.
    pub fn set(&mut self, report: SourceReport) {
        if let Some(slot) = self.reports.get_mut(usize::from(report.stream)) {
            *slot = Some(report);
        }
    }

    /// The newest report of a stream, if it belongs to this epoch.
    pub fn get(&self, stream: u8, epoch: u8) -> Option<&SourceReport> {
        self.reports.get(usize::from(stream))?.as_ref().filter(|report| report.epoch == epoch)
    }

    /// The timestamp that stream `to` has at the moment when stream `from` has `timestamp`.
    /// Streams are `(layer, epoch)`. `None` while either has not sent a report.
    pub fn translate(
        &self,
        timestamp: u32,
        from: (u8, u8),
        to: (u8, u8),
        clock_rate: u32,
    ) -> Option<u32> {
        let from = self.get(from.0, from.1)?;
        let to = self.get(to.0, to.1)?;
        let since_report = timestamp.wrapping_sub(from.timestamp);
        let ntp_apart = i128::from(from.ntp.bits_since(to.ntp));
        let ticks_apart = (ntp_apart * i128::from(clock_rate)) >> 32;
        Some(to.timestamp.wrapping_add(since_report).wrapping_add(ticks_apart as u32))
    }
}

/// Our reports that await an answer, and the round-trip time from the answers.
#[derive(Debug, Clone, Default)]
pub struct ReportClock {
    sent: [Option<(u32, Instant)>; REMEMBERED_REPORTS],
    next: usize,
    last_ntp: Option<NtpTime>,
    rtt: Option<Duration>,
}

impl ReportClock {
    /// Extrapolates a publisher's report to now: `(ntp, source timestamp)`. `None` if that would be
    /// older than the last report sent, which receivers take for a broken clock.
    pub fn advance(
        &mut self,
        now: Instant,
        source: &SourceReport,
        clock_rate: u32,
    ) -> Option<(NtpTime, u32)> {
        let elapsed = now.saturating_duration_since(source.arrival);
        let ntp = source.ntp.plus(elapsed);
        if self.last_ntp.is_some_and(|last| ntp.bits_since(last) <= 0) {
            return None;
        }
        self.last_ntp = Some(ntp);
        self.sent[self.next] = Some((ntp.compact(), now));
        self.next = (self.next + 1) % REMEMBERED_REPORTS;
        Some((ntp, source.timestamp.wrapping_add(ticks(elapsed, clock_rate))))
    }

    /// Forgets the publisher's clock: the track goes on with another one.
    pub fn reset_source(&mut self) {
        self.last_ntp = None;
    }

    /// Takes `LSR` and `DLSR` of a receiver's report block; returns the round-trip time.
    ///
    /// `LSR` names one of our reports, whose sending time is remembered: its NTP time is the
    /// publisher's and says nothing of our clock.
    pub fn on_report_block(
        &mut self,
        now: Instant,
        last_sr: u32,
        delay_since_last_sr: u32,
    ) -> Option<Duration> {
        let sent_at = self.sent.iter().flatten().find(|(ntp, _)| *ntp == last_sr)?.1;
        let delay = ntp::compact_to_duration(delay_since_last_sr);
        let rtt = now.saturating_duration_since(sent_at).checked_sub(delay)?;
        if last_sr != 0 && rtt <= MAX_RTT {
            self.rtt = Some(rtt);
        }
        self.rtt
    }

    /// The newest round-trip time.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }
}

/// A duration in timestamp units, wrapping.
pub(crate) fn ticks(duration: Duration, clock_rate: u32) -> u32 {
    (duration.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    const CLOCK: u32 = 90_000;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn report(stream: u8, at_ms: u64, timestamp: u32, arrival: Instant) -> SourceReport {
        let ntp = NtpTime::from_unix(Duration::from_secs(1_700_000_000) + ms(at_ms));
        SourceReport { stream, epoch: 0, ntp, timestamp, arrival }
    }

    #[test]
    fn layers_translate_through_the_publishers_wall_clock() {
        let mut clocks = SourceClocks::default();
        clocks.set(report(0, 1_000, 5_000, epoch()));
        clocks.set(report(1, 3_000, u32::MAX - 100, epoch()));
        // 500 ms after the report of layer 0 is 1,500 ms before that of layer 1.
        let ts = clocks.translate(5_000 + 45_000, (0, 0), (1, 0), CLOCK);
        assert_eq!(ts, Some((u32::MAX - 100).wrapping_sub(135_000)));
        let back = clocks.translate(ts.expect("both reported"), (1, 0), (0, 0), CLOCK);
        assert!(back.is_some_and(|b| b.abs_diff(50_000) <= 1));
    }

    #[test]
    fn a_report_of_another_epoch_translates_nothing() {
        let mut clocks = SourceClocks::default();
        clocks.set(report(0, 0, 0, epoch()));
        clocks.set(report(1, 0, 0, epoch()));
        assert_eq!(clocks.translate(0, (0, 1), (1, 0), CLOCK), None);
        assert_eq!(clocks.translate(0, (0, 0), (2, 0), CLOCK), None);
    }

    #[test]
    fn our_report_is_the_publishers_moved_to_now() {
        let t0 = epoch();
        let source = report(0, 0, 1_000, t0);
        let mut clock = ReportClock::default();
        let (ntp, ts) = clock.advance(t0 + ms(250), &source, CLOCK).expect("newer than nothing");
        assert_eq!(ntp.since(source.ntp), Some(ms(250)));
        assert_eq!(ts, 1_000 + 22_500);
    }

    #[test]
    fn reports_never_go_back_in_time() {
        let t0 = epoch();
        let mut clock = ReportClock::default();
        assert!(clock.advance(t0, &report(0, 5_000, 0, t0), CLOCK).is_some());
        assert!(clock.advance(t0 + ms(10), &report(0, 4_000, 0, t0), CLOCK).is_none());
        clock.reset_source();
        assert!(clock.advance(t0 + ms(20), &report(0, 4_000, 0, t0), CLOCK).is_some());
    }

    #[test]
    fn round_trip_time_is_ours_whatever_the_publishers_clock_says() {
        let t0 = epoch();
        let mut clock = ReportClock::default();
        let (ntp, _) = clock.advance(t0, &report(0, 0, 0, t0), CLOCK).expect("the first");
        let delay = ntp::compact_from_duration(ms(500));
        let rtt = clock.on_report_block(t0 + ms(580), ntp.compact(), delay);
        let error = rtt.expect("answers our report").abs_diff(ms(80));
        assert!(error < ms(1), "{error:?}");
        assert_eq!(clock.on_report_block(t0 + ms(580), 12_345, delay), None);
        assert_eq!(clock.on_report_block(t0 + ms(100), ntp.compact(), delay), None);
    }
}
