//! What was sent to one receiver, as far as it may ask for it again: for each of our sequence
//! numbers, where the packet came from and how its header was rewritten. Bodies are not kept here;
//! every receiver on a worker shares the track's [`TrackHistory`](crate::history::TrackHistory).

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Packets remembered at first: a low video layer for two seconds.
const MIN_ENTRIES: usize = 64;

/// Packets remembered at most: as many as the history keeps of a layer.
const MAX_ENTRIES: usize = 1_024;

/// Packets in a row that are looked at together before they are overwritten. What was sent two seconds
/// ago is in no cache: to read each of them is to wait for memory with every packet.
const BLOCK: usize = 8;

/// The log grows rather than forget a packet younger than this, as the history does.
const MIN_AGE_MS: u32 = 2_000;

/// Retransmissions per packet. LiveKit's three leave one packet in 160,000 missing at five percent of
/// loss, which freezes a receiver every few minutes; what all of them may cost has its own budget.
const MAX_RESENDS: u8 = 6;

/// Repeated requests within this time are ignored, or within a round trip if that is shorter: by then
/// an answer may have been lost. LiveKit's two round trips (`sequencer.go`) ignore every other request
/// of a client, which leaves a packet that is lost twice too few attempts.
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
    /// Our active-decode-target mask, if it is not the source's.
    pub active_targets: Option<NonZeroU32>,
}

/// [`SentPacket`] in few bytes: there are hundreds for each of thousands of subscriptions. Numbers
/// are cut to 32 bits and completed from the newest ones.
#[derive(Debug, Clone, Copy)]
struct Entry {
    target: u32,
    ext_seq: u32,
    timestamp: u32,
    /// When it was sent last, milliseconds since the start of the log.
    sent_ms: u32,
    rewrite: PayloadRewrite,
    active_targets: Option<NonZeroU32>,
    resends: u8,
    stream: u8,
    marker: bool,
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
    /// Empty, or a power of two of slots; a packet lies at its number modulo their count.
    entries: Vec<Option<Entry>>,
    start: Option<Instant>,
    newest_target: u64,
    newest_ext_seq: u64,
}

impl SentLog {
    /// Notes a packet that is sent now.
    pub fn push(&mut self, now: Instant, packet: SentPacket) {
        let sent_ms = self.clock(now);
        let target = packet.target as u32;
        let is_first = self.entries.is_empty();
        if is_first {
            self.entries.resize(MIN_ENTRIES, None);
        }
        let is_newest = is_first || packet.target > self.newest_target;
        if is_newest {
            if packet.target / BLOCK as u64 != self.newest_target / BLOCK as u64 {
                self.make_room(target, sent_ms);
            }
            self.newest_target = packet.target;
        }
        self.newest_ext_seq = packet.ext_seq;
        let slot = self.index(target);
        // Numbers may wrap in 32 bits, hence the signed distance.
        let is_newer = |old: Entry| target.wrapping_sub(old.target) as i32 >= 0;
        if is_newest || self.entries[slot].is_none_or(is_newer) {
            self.entries[slot] = Some(Entry {
                target,
                ext_seq: packet.ext_seq as u32,
                timestamp: packet.timestamp,
                sent_ms,
                rewrite: packet.rewrite,
                active_targets: packet.active_targets,
                resends: 0,
                stream: packet.stream,
                marker: packet.marker,
            });
        }
    }

    /// Looks at a request for the packet of this number; [`note_resent`](Self::note_resent) follows
    /// if it is sent.
    ///
    /// # Errors
    /// Why it must not be sent (again).
    pub fn check(
        &mut self,
        now: Instant,
        target: u64,
        rtt: Option<Duration>,
    ) -> Result<SentPacket, Refusal> {
        if self.entries.is_empty() || target > self.newest_target {
            return Err(Refusal::Unknown);
        }
        let now_ms = self.clock(now);
        let entry = self.entries[self.index(target as u32)];
        let entry = entry.filter(|e| e.target == target as u32).ok_or(Refusal::Unknown)?;
        let interval = rtt.map_or(MAX_REPEAT_INTERVAL, |rtt| MAX_REPEAT_INTERVAL.min(rtt));
        let since_ms = u128::from(now_ms.wrapping_sub(entry.sent_ms));
        if entry.resends > 0 && since_ms < interval.as_millis() {
            return Err(Refusal::Repeated);
        }
        if entry.resends >= MAX_RESENDS {
            return Err(Refusal::Exhausted);
        }
        Ok(self.sent(target, &entry))
    }

    /// Notes that a packet is sent again.
    pub fn note_resent(&mut self, now: Instant, target: u64) {
        let now_ms = self.clock(now);
        let slot = self.index(target as u32);
        if let Some(entry) = self.entries[slot].as_mut().filter(|e| e.target == target as u32) {
            entry.resends += 1;
            entry.sent_ms = now_ms;
        }
    }

    /// The packets sent last but not within `age`, newest first; for padding, which repeats what the
    /// receiver has.
    pub fn newest(&mut self, now: Instant, age: Duration) -> impl Iterator<Item = SentPacket> {
        let now_ms = self.clock(now);
        let log = &*self;
        let targets =
            (0..log.entries.len() as u64).map_while(move |n| log.newest_target.checked_sub(n));
        targets.filter_map(move |target| {
            let entry = log.entries[log.index(target as u32)]?;
            let old = u128::from(now_ms.saturating_sub(entry.sent_ms)) >= age.as_millis();
            (entry.target == target as u32 && old).then(|| log.sent(target, &entry))
        })
    }

    fn sent(&self, target: u64, entry: &Entry) -> SentPacket {
        let step = entry.ext_seq.wrapping_sub(self.newest_ext_seq as u32) as i32;
        SentPacket {
            target,
            ext_seq: self.newest_ext_seq.wrapping_add_signed(i64::from(step)),
            timestamp: entry.timestamp,
            stream: entry.stream,
            marker: entry.marker,
            rewrite: entry.rewrite,
            active_targets: entry.active_targets,
        }
    }

    fn clock(&mut self, now: Instant) -> u32 {
        let start = *self.start.get_or_insert(now);
        now.saturating_duration_since(start).as_millis() as u32
    }

    /// Grows while the block of this number has packets that must not be forgotten yet.
    fn make_room(&mut self, target: u32, now_ms: u32) {
        while self.entries.len() < MAX_ENTRIES {
            let start = self.index(target) / BLOCK * BLOCK;
            let newest = self.entries[start..start + BLOCK].iter().rev().flatten().next();
            if newest.is_none_or(|old| now_ms.wrapping_sub(old.sent_ms) >= MIN_AGE_MS) {
                return;
            }
            self.grow();
        }
    }

    fn grow(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.entries.resize(entries.len() * 2, None);
        for entry in entries.into_iter().flatten() {
            let slot = self.index(entry.target);
            self.entries[slot] = Some(entry);
        }
    }

    fn index(&self, target: u32) -> usize {
        target as usize & (self.entries.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    fn request(
        log: &mut SentLog,
        now: Instant,
        target: u64,
        rtt: Option<Duration>,
    ) -> Result<SentPacket, Refusal> {
        log.check(now, target, rtt).inspect(|_| log.note_resent(now, target))
    }

    fn packet(target: u64) -> SentPacket {
        SentPacket {
            target,
            ext_seq: target + 1_000,
            timestamp: 0,
            stream: 0,
            marker: false,
            rewrite: PayloadRewrite::default(),
            active_targets: None,
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_packet_is_not_sent_again_for_ever() {
        let t0 = epoch();
        let mut log = SentLog::default();
        log.push(t0, packet(5));
        for i in 0..u64::from(MAX_RESENDS) {
            let found = request(&mut log, t0 + ms(i * 100), 5, None).map(|p| p.ext_seq);
            assert_eq!(found, Ok(1_005));
        }
        assert_eq!(request(&mut log, t0 + ms(900), 5, None).err(), Some(Refusal::Exhausted));
    }

    #[test]
    fn repeats_are_ignored_for_100_ms_or_a_round_trip() {
        let t0 = epoch();
        for (rtt, interval) in [(None, 100), (Some(ms(300)), 100), (Some(ms(20)), 20)] {
            let mut log = SentLog::default();
            log.push(t0, packet(5));
            assert!(request(&mut log, t0, 5, rtt).is_ok());
            let early = request(&mut log, t0 + ms(interval - 1), 5, rtt);
            assert_eq!(early.err(), Some(Refusal::Repeated));
            assert!(request(&mut log, t0 + ms(interval), 5, rtt).is_ok());
        }
    }

    #[test]
    fn old_and_foreign_numbers_are_unknown() {
        let t0 = epoch();
        let mut log = SentLog::default();
        assert_eq!(request(&mut log, t0, 5, None).err(), Some(Refusal::Unknown));
        for target in 0..2_000 {
            log.push(t0, packet(target));
        }
        assert_eq!(request(&mut log, t0, 5, None).err(), Some(Refusal::Unknown));
        assert_eq!(request(&mut log, t0, 2_000, None).err(), Some(Refusal::Unknown));
        let oldest = 2_000 - MAX_ENTRIES as u64;
        assert!(request(&mut log, t0, oldest, None).is_ok());
        assert!(request(&mut log, t0, oldest - 1, None).is_err());
    }

    #[test]
    fn the_log_grows_to_two_seconds_and_not_further() {
        for (every, entries) in [(40, 64), (10, 256), (1, MAX_ENTRIES)] {
            let t0 = epoch();
            let mut log = SentLog::default();
            for i in 0..5_000 {
                log.push(t0 + ms(i * every), packet(i));
            }
            assert_eq!(log.entries.len(), entries, "a packet every {every} ms");
            let two_seconds = (2_000 / every).min(MAX_ENTRIES as u64 - 1);
            let now = t0 + ms(5_000 * every);
            assert!(request(&mut log, now, 4_999 - two_seconds, None).is_ok());
        }
    }

    #[test]
    fn late_packets_and_restarted_sources_keep_their_own_numbers() {
        let t0 = epoch();
        let mut log = SentLog::default();
        let high = (1 << 40) + 7;
        log.push(t0, SentPacket { ext_seq: high, ..packet(6) });
        log.push(t0, SentPacket { ext_seq: high - 70_000, ..packet(4) });
        assert_eq!(request(&mut log, t0, 6, None).map(|p| p.ext_seq), Ok(high));
        assert_eq!(request(&mut log, t0, 4, None).map(|p| p.ext_seq), Ok(high - 70_000));
        assert_eq!(request(&mut log, t0, 5, None).err(), Some(Refusal::Unknown));
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Option<Entry>>() <= 32, "{}", size_of::<Option<Entry>>());
    }
}
