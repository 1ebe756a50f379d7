//! What was sent to one receiver, as far as it may ask for it again: for each of our sequence
//! numbers, where the packet came from and how its header was rewritten. Bodies are not kept here;
//! every receiver on a worker shares the track's [`TrackHistory`](crate::history::TrackHistory).

use std::time::{Duration, Instant};

/// Packets remembered: as many as the history keeps of a video layer.
const CAPACITY: usize = 512;

/// Retransmissions per packet (LiveKit `sequencer.go`).
const MAX_RESENDS: u8 = 3;

/// Repeated requests within this time are ignored, or within two round trips if that is shorter
/// (LiveKit `sequencer.go`).
const MAX_REPEAT_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes at the start of a payload that a receiver gets in place of the source's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PayloadRewrite {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
    replaces: u8,
}

impl PayloadRewrite {
    /// Longest replacement, bytes: the longest VP8 payload descriptor has 6.
    pub const MAX_LEN: usize = 6;

    /// Replaces the first `replaces` bytes of the payload by the first `len` of `bytes`.
    pub fn new(bytes: [u8; Self::MAX_LEN], len: usize, replaces: usize) -> Self {
        Self { bytes, len: len.min(Self::MAX_LEN) as u8, replaces: replaces as u8 }
    }

    /// The new bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// How many bytes of the source's payload they stand for.
    pub fn replaces(&self) -> usize {
        usize::from(self.replaces)
    }
}

/// One packet as it was sent.
#[derive(Debug, Clone, Copy)]
pub struct SentPacket {
    /// Our extended sequence number.
    pub target: u64,
    /// Extended sequence number in the source.
    pub ext_seq: u64,
    /// Our timestamp.
    pub timestamp: u32,
    /// Simulcast layer of the source.
    pub stream: u8,
    /// Our marker.
    pub marker: bool,
    /// Our payload descriptor.
    pub rewrite: PayloadRewrite,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    packet: SentPacket,
    resends: u8,
    last_resend: Option<Instant>,
}

/// Why a packet is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Never sent under this number, or too long ago.
    Unknown,
    /// Asked for again before an answer can have arrived.
    Repeated,
    /// Sent [`MAX_RESENDS`] times already.
    Exhausted,
}

/// The packets that one receiver may ask for again. Takes memory with the first packet.
#[derive(Debug, Default)]
pub struct SentLog {
    entries: Vec<Option<Entry>>,
}

impl SentLog {
    /// Notes a packet.
    pub fn push(&mut self, packet: SentPacket) {
        if self.entries.is_empty() {
            self.entries.resize(CAPACITY, None);
        }
        let slot = &mut self.entries[index(packet.target)];
        if slot.as_ref().is_none_or(|old| old.packet.target <= packet.target) {
            *slot = Some(Entry { packet, resends: 0, last_resend: None });
        }
    }

    /// Whether a packet went out under this number.
    pub fn contains(&self, target: u64) -> bool {
        let entry = self.entries.get(index(target)).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.packet.target == target)
    }

    /// Takes a request for the packet of this number.
    ///
    /// # Errors
    /// Why it must not be sent (again).
    pub fn request(
        &mut self,
        now: Instant,
        target: u64,
        rtt: Option<Duration>,
    ) -> Result<SentPacket, Refusal> {
        let entry = self.entries.get_mut(index(target)).and_then(Option::as_mut);
        let entry = entry.filter(|e| e.packet.target == target).ok_or(Refusal::Unknown)?;
        let interval = rtt.map_or(MAX_REPEAT_INTERVAL, |rtt| MAX_REPEAT_INTERVAL.min(rtt * 2));
        if entry.last_resend.is_some_and(|at| now.saturating_duration_since(at) < interval) {
            return Err(Refusal::Repeated);
        }
        if entry.resends >= MAX_RESENDS {
            return Err(Refusal::Exhausted);
        }
        entry.resends += 1;
        entry.last_resend = Some(now);
        Ok(entry.packet)
    }
}

fn index(target: u64) -> usize {
    (target % CAPACITY as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    fn packet(target: u64) -> SentPacket {
        SentPacket {
            target,
            ext_seq: target + 1_000,
            timestamp: 0,
            stream: 0,
            marker: false,
            rewrite: PayloadRewrite::default(),
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_packet_is_sent_again_three_times_at_most() {
        let t0 = epoch();
        let mut log = SentLog::default();
        log.push(packet(5));
        for i in 0..3 {
            let found = log.request(t0 + ms(i * 100), 5, None).map(|p| p.ext_seq);
            assert_eq!(found, Ok(1_005));
        }
        assert_eq!(log.request(t0 + ms(900), 5, None).err(), Some(Refusal::Exhausted));
    }

    #[test]
    fn repeats_are_ignored_for_100_ms_or_two_round_trips() {
        let t0 = epoch();
        for (rtt, interval) in [(None, 100), (Some(ms(300)), 100), (Some(ms(20)), 40)] {
            let mut log = SentLog::default();
            log.push(packet(5));
            assert!(log.request(t0, 5, rtt).is_ok());
            let early = log.request(t0 + ms(interval - 1), 5, rtt);
            assert_eq!(early.err(), Some(Refusal::Repeated));
            assert!(log.request(t0 + ms(interval), 5, rtt).is_ok());
        }
    }

    #[test]
    fn old_and_foreign_numbers_are_unknown() {
        let t0 = epoch();
        let mut log = SentLog::default();
        assert_eq!(log.request(t0, 5, None).err(), Some(Refusal::Unknown));
        log.push(packet(5));
        log.push(packet(5 + CAPACITY as u64));
        assert_eq!(log.request(t0, 5, None).err(), Some(Refusal::Unknown));
        log.push(packet(6));
        log.push(packet(4));
        assert!(log.contains(4) && log.contains(6) && !log.contains(5));
    }
}
