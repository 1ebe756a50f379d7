//! The send time that every payload of ours carries at its end: how latency is measured through any
//! server that forwards payloads unchanged. Also the clock behind it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes of a stamp: magic, stream, send time.
pub(crate) const STAMP_LEN: usize = 16;

/// Marks payloads of ours.
const MAGIC: [u8; 4] = *b"SLds";

/// Wall-clock time read once and continued by the monotonic clock, so that stamps of several
/// processes on one host compare and never jump.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    start_unix: Duration,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let start_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_unix }
    }

    /// Time since the Unix epoch at `now`.
    pub(crate) fn unix(&self, now: Instant) -> Duration {
        self.start_unix + now.saturating_duration_since(self.start)
    }

    /// The same in microseconds.
    pub(crate) fn unix_us(&self, now: Instant) -> u64 {
        self.unix(now).as_micros() as u64
    }
}

/// Writes the stamp into the last bytes of a payload; too short payloads stay as they are.
pub(crate) fn write(payload: &mut [u8], stream: u32, sent_us: u64) {
    let Some(at) = payload.len().checked_sub(STAMP_LEN) else { return };
    payload[at..at + 4].copy_from_slice(&MAGIC);
    payload[at + 4..at + 8].copy_from_slice(&stream.to_be_bytes());
    payload[at + 8..].copy_from_slice(&sent_us.to_be_bytes());
}

/// Send time in microseconds since the Unix epoch, if the payload is ours.
pub(crate) fn read(payload: &[u8]) -> Option<u64> {
    let stamp: &[u8; STAMP_LEN] = payload.last_chunk()?;
    let (magic, rest) = stamp.split_at(4);
    let sent: [u8; 8] = rest[4..].try_into().ok()?;
    (magic == MAGIC).then(|| u64::from_be_bytes(sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_is_read_from_the_end_of_a_payload() {
        let mut payload = [0u8; 60];
        write(&mut payload, 7, 1_234_567);
        assert_eq!(read(&payload), Some(1_234_567));
        assert_eq!(read(&payload[..59]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn payload_shorter_than_a_stamp_stays_as_it_is() {
        let mut payload = [9u8; 5];
        write(&mut payload, 1, 1);
        assert_eq!(payload, [9; 5]);
    }
}
