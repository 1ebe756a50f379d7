//! Whether the path has just become slower than the estimate, seen within one feedback message.
//!
//! Results of feedback flow in; the rate of a path that became slower flows out. A packet that was sent
//! before the one in front of it had left the bottleneck waited behind it. While that goes on, packets
//! arrive at the rate of the path, however few they are: a busy period, in terms of queues. A trend needs
//! several messages to see what the first packets of one key frame show: that the path has halved just as
//! a higher layer began.

use super::history::PacketResult;

/// Below this share of the estimate a busy path is slower than thought. Of a path that two flows share,
/// one mostly sees more.
const SLOWER: f64 = 0.6;
/// Shortest busy period that is measured, microseconds, and least packets behind the first.
const MIN_SPAN_US: i64 = 50_000;
const MIN_PACKETS: u32 = 2;
/// A packet that found the path free less than this before had a packet of a bucket or jitter in front
/// of it, microseconds.
const WAITED_US: i64 = 10_000;
/// How much longer than usual the newest packet must have waited, microseconds.
const LONGER_US: i64 = 45_000;
/// Weight of a message in what is usual.
const USUAL_WEIGHT: i64 = 8;

/// A path that became slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slower {
    /// Rate of the path, bits per second.
    pub bps: u64,
    /// How long its newest packet waited, microseconds.
    pub waited_us: i64,
}

/// The detector.
#[derive(Debug, Default)]
pub struct BusyPeriod {
    /// When the newest packet of the last message arrived.
    arrival_us: Option<i64>,
    /// Delay of the newest packet of a message, above the least of the path; smoothed, microseconds.
    usual_us: i64,
}

impl BusyPeriod {
    /// Takes the results of one feedback message, the least delay of the path on their two clocks,
    /// microseconds, and the estimate. Returns how long the newest packet waited, microseconds, if the
    /// path is slower.
    pub fn on_results(
        &mut self,
        results: &[PacketResult],
        base_us: i64,
        estimate_bps: u64,
    ) -> Option<Slower> {
        let (mut bytes, mut packets, mut began_us) = (0, 0, None);
        let (mut before_us, mut waited_us) = (self.arrival_us, 0);
        for result in results {
            let Some(arrival_us) = result.arrival_us.filter(|at| Some(*at) >= before_us) else {
                continue;
            };
            let free_us = result.sent_us + base_us + WAITED_US;
            let waited_behind = before_us.filter(|before| free_us < *before);
            match waited_behind {
                Some(before) => {
                    began_us.get_or_insert(before);
                    bytes += u64::from(result.size);
                    packets += 1;
                }
                None => (bytes, packets, began_us) = (0, 0, None),
            }
            before_us = Some(arrival_us);
            waited_us = arrival_us - result.sent_us - base_us;
        }
        self.arrival_us = before_us;
        let longer = waited_us > self.usual_us + LONGER_US;
        self.usual_us += (waited_us - self.usual_us) / USUAL_WEIGHT;
        let span_us = before_us? - began_us?;
        let long = span_us >= MIN_SPAN_US && packets >= MIN_PACKETS;
        let bps = bytes as f64 * 8e6 / span_us.max(1) as f64;
        let slower = longer && long && bps < SLOWER * estimate_bps as f64;
        slower.then_some(Slower { bps: bps as u64, waited_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE_US: i64 = 20_000;

    /// Frames of packets of 1,000 bytes, each frame sent at once, over a path of a rate that lets a bucket
    /// pass, bytes. `frames` are times of sending, ms, and packets.
    fn sent(rate_bps: i64, mut bucket: i64, frames: &[(i64, i64)]) -> Vec<PacketResult> {
        let mut free_us = 0;
        let packets = frames.iter().flat_map(|(at, count)| (0..*count).map(move |_| at * 1_000));
        let through = |(seq, sent_us): (usize, i64)| {
            let queued = 1_000 - bucket.min(1_000);
            bucket = (bucket - 1_000).max(0);
            free_us = free_us.max(sent_us) + queued * 8_000_000 / rate_bps;
            let arrival_us = Some(free_us + BASE_US);
            PacketResult {
                seq: seq as u64,
                sent_us,
                arrival_us,
                size: 1_000,
                probe: None,
                was_lost: false,
            }
        };
        packets.enumerate().map(through).collect()
    }

    fn rate(results: &[PacketResult], estimate_bps: u64) -> Option<u64> {
        let slower = BusyPeriod::default().on_results(results, BASE_US, estimate_bps)?;
        Some(slower.bps)
    }

    #[test]
    fn four_packets_of_a_key_frame_show_that_the_path_has_halved() {
        let seen = rate(&sent(300_000, 0, &[(0, 1), (33, 4)]), 600_000).expect("slower");
        assert!((290_000..=310_000).contains(&seen), "{seen}");
    }

    #[test]
    fn a_key_frame_on_a_path_as_fast_as_thought_shows_nothing() {
        assert_eq!(rate(&sent(600_000, 0, &[(0, 1), (33, 10)]), 600_000), None);
    }

    #[test]
    fn what_a_bucket_lets_pass_does_not_count() {
        let seen = rate(&sent(600_000, 3_000, &[(0, 7), (33, 7)]), 3_000_000).expect("slower");
        assert!((560_000..=640_000).contains(&seen), "{seen}");
    }

    #[test]
    fn a_source_below_the_estimate_shows_nothing() {
        let frames: Vec<(i64, i64)> = (0..10).map(|i| (i * 33, 1)).collect();
        assert_eq!(rate(&sent(300_000, 0, &frames), 2_000_000), None);
    }

    #[test]
    fn a_wait_that_is_usual_shows_nothing() {
        let mut busy = BusyPeriod::default();
        let mut seen = 0;
        for round in 0..100 {
            let results = sent(300_000, 0, &[(round * 400, 4)]);
            seen = busy.on_results(&results, BASE_US, 600_000).map_or(seen, |_| round);
        }
        assert!(seen < 20, "until message {seen}");
    }
}
