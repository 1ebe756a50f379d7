//! Which packets to ask the publisher for again, and when (RFC 4585 generic NACK).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Missing packets asked for at a time (LiveKit `mediatransportutil/nack`); the oldest go first.
const MAX_OUTSTANDING: usize = 100;

/// Requests per packet (LiveKit).
const MAX_TRIES: u8 = 5;

/// Shortest time between requests, and the time granted to reordering before the first (LiveKit).
const MIN_INTERVAL: Duration = Duration::from_millis(20);

/// Longest time between requests (LiveKit).
const MAX_INTERVAL: Duration = Duration::from_millis(400);

/// Growth of the interval per try, as a fraction (LiveKit: 1.25).
const BACKOFF: (u32, u32) = (5, 4);

/// Round-trip time before one has been measured (LiveKit).
const DEFAULT_RTT: Duration = Duration::from_millis(70);

/// Weight of the old value when a retransmission's delay is a sample, eighths (RFC 6298 SRTT).
const RTT_SMOOTHING: u32 = 7;

#[derive(Debug, Clone, Copy)]
struct Missing {
    ext_seq: u64,
    tries: u8,
    /// When the last request was made, or the loss was seen.
    last: Instant,
    interval: Duration,
}

impl Missing {
    fn due(&self) -> Instant {
        self.last + self.interval
    }
}

/// The missing packets of one stream.
#[derive(Debug)]
pub struct NackGenerator {
    missing: VecDeque<Missing>,
    rtt: Duration,
    rtt_from_rtcp: bool,
    given_up: u64,
}

impl Default for NackGenerator {
    fn default() -> Self {
        Self { missing: VecDeque::new(), rtt: DEFAULT_RTT, rtt_from_rtcp: false, given_up: 0 }
    }
}

impl NackGenerator {
    /// Sets the round-trip time as RTCP measured it.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
        self.rtt_from_rtcp = true;
    }

    /// The round-trip time that spaces requests.
    pub fn rtt(&self) -> Duration {
        self.rtt
    }

    /// Notes that the packets from `first` to before `end` did not come in their turn.
    pub fn missing(&mut self, now: Instant, first: u64, end: u64) {
        let first = first.max(end.saturating_sub(MAX_OUTSTANDING as u64));
        for ext_seq in first..end {
            if self.missing.len() >= MAX_OUTSTANDING {
                self.missing.pop_front();
                self.given_up += 1;
            }
            let entry = Missing { ext_seq, tries: 0, last: now, interval: MIN_INTERVAL };
            self.missing.push_back(entry);
        }
    }

    /// Notes a packet that came after newer ones. `rtx`: as a retransmission.
    pub fn arrived(&mut self, now: Instant, ext_seq: u64, rtx: bool) {
        let Ok(index) = self.missing.binary_search_by_key(&ext_seq, |m| m.ext_seq) else { return };
        let Some(missing) = self.missing.remove(index) else { return };
        // After a second request it is unknown which one was answered (Karn's rule).
        if rtx && missing.tries == 1 && !self.rtt_from_rtcp {
            let sample = now.saturating_duration_since(missing.last);
            self.rtt = (self.rtt * RTT_SMOOTHING + sample) / (RTT_SMOOTHING + 1);
        }
    }

    /// Forgets everything, at a restart of the stream.
    pub fn clear(&mut self) {
        self.missing.clear();
    }

    /// Appends the packets to ask for now, ascending; packets that used up their tries are
    /// forgotten.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<u16>) {
        let rtt = self.rtt;
        let before = self.missing.len();
        self.missing.retain(|m| m.tries < MAX_TRIES || now < m.due());
        self.given_up += (before - self.missing.len()) as u64;
        for missing in self.missing.iter_mut().filter(|m| m.tries < MAX_TRIES) {
            if now < missing.due() {
                continue;
            }
            missing.interval = match missing.tries {
                0 => rtt,
                _ => missing.interval * BACKOFF.0 / BACKOFF.1,
            }
            .clamp(MIN_INTERVAL, MAX_INTERVAL);
            missing.tries += 1;
            missing.last = now;
            out.push(missing.ext_seq as u16);
        }
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.missing.iter().map(Missing::due).min()
    }

    /// Packets being asked for.
    pub fn outstanding(&self) -> usize {
        self.missing.len()
    }

    /// Packets that never came, or were pushed out by newer losses.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn poll(nack: &mut NackGenerator, now: Instant) -> Vec<u16> {
        let mut out = Vec::new();
        nack.poll(now, &mut out);
        out
    }

    #[test]
    fn reordering_within_20_ms_is_not_asked_for() {
        let t0 = epoch();
        let mut nack = NackGenerator::default();
        nack.missing(t0, 10, 11);
        assert!(poll(&mut nack, t0 + ms(19)).is_empty());
        nack.arrived(t0 + ms(19), 10, false);
        assert!(poll(&mut nack, t0 + ms(500)).is_empty());
        assert_eq!(nack.deadline(), None);
    }

    #[test]
    fn requests_back_off_from_the_rtt_and_end_after_five() {
        let t0 = epoch();
        let mut nack = NackGenerator::default();
        nack.missing(t0, 65_536 + 7, 65_536 + 8);
        let mut at = Vec::new();
        while let Some(due) = nack.deadline() {
            if poll(&mut nack, due) == [7] {
                at.push((due - t0).as_millis());
            }
        }
        // 20, then 70, 87.5, 109.4, 136.7 ms apart.
        assert_eq!(at, [20, 90, 177, 286, 423]);
        assert_eq!(nack.given_up(), 1);
    }

    #[test]
    fn intervals_stay_within_20_and_400_ms() {
        for (rtt, first_gap) in [(ms(1), ms(20)), (ms(2_000), ms(400))] {
            let t0 = epoch();
            let mut nack = NackGenerator::default();
            nack.set_rtt(rtt);
            nack.missing(t0, 1, 2);
            let first = nack.deadline().expect("one is missing");
            poll(&mut nack, first);
            assert_eq!(nack.deadline(), Some(first + first_gap));
        }
    }

    #[test]
    fn a_long_loss_keeps_the_newest_hundred() {
        let t0 = epoch();
        let mut nack = NackGenerator::default();
        nack.missing(t0, 0, 250);
        nack.missing(t0, 260, 270);
        let asked = poll(&mut nack, t0 + ms(20));
        assert_eq!(asked.len(), MAX_OUTSTANDING);
        assert_eq!(asked.first(), Some(&160));
        assert_eq!(asked.last(), Some(&269));
        assert!(asked.is_sorted());
    }

    #[test]
    fn retransmissions_measure_the_rtt_until_rtcp_does() {
        let t0 = epoch();
        let mut nack = NackGenerator::default();
        for i in 0..50u64 {
            let seen = t0 + ms(i * 1_000);
            nack.missing(seen, i * 2, i * 2 + 1);
            poll(&mut nack, seen + ms(20));
            nack.arrived(seen + ms(20 + 200), i * 2, true);
        }
        assert!(nack.rtt() > ms(195) && nack.rtt() <= ms(200));
        nack.set_rtt(ms(30));
        nack.missing(t0, 1_000, 1_001);
        poll(&mut nack, t0 + ms(20));
        nack.arrived(t0 + ms(400), 1_000, true);
        assert_eq!(nack.rtt(), ms(30));
    }
}
