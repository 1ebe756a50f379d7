//! Differences of sending and arrival times between groups of packets.
//!
//! Packets sent within 5 ms are one group, as are those that a queue on the way released together.
//! Comparing groups instead of packets takes the sender's bursts out of the delay (libwebrtc
//! `inter_arrival_delta.cc`).

/// Packets sent within this time are a group (libwebrtc `kSendTimeGroupLength`), microseconds.
const GROUP_US: i64 = 5_000;

/// Arrivals this close may be a burst released by the path (libwebrtc `kBurstDeltaThreshold`).
const BURST_GAP_US: i64 = 5_000;

/// A burst is no longer than this (libwebrtc `kMaxBurstDuration`).
const MAX_BURST_US: i64 = 100_000;

/// The receiver's clock jumped by this: start anew (libwebrtc `kArrivalTimeOffsetThreshold`).
const CLOCK_JUMP_US: i64 = 3_000_000;

/// Groups in a row that arrive before their predecessor until we start anew (libwebrtc
/// `kReorderedResetThreshold`).
const MAX_REORDERED: u8 = 3;

/// Distance between two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupDelta {
    /// Of their last sendings, microseconds.
    pub send_us: i64,
    /// Of their last arrivals, microseconds.
    pub arrival_us: i64,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent: i64,
    last_sent: i64,
    first_arrival: i64,
    last_arrival: i64,
    /// Our time at the feedback about its newest packet.
    told: i64,
}

/// Groups the packets that arrived.
#[derive(Debug, Default)]
pub struct InterArrival {
    current: Option<Group>,
    previous: Option<Group>,
    reordered: u8,
}

impl InterArrival {
    /// Takes a packet that arrived, and our time now; all in microseconds. Returns the distance of
    /// the two groups before, when this packet begins a new one.
    pub fn on_packet(&mut self, sent: i64, arrival: i64, now: i64) -> Option<GroupDelta> {
        let fresh = Group {
            first_sent: sent,
            last_sent: sent,
            first_arrival: arrival,
            last_arrival: arrival,
            told: now,
        };
        let Some(current) = &mut self.current else {
            self.current = Some(fresh);
            return None;
        };
        if sent < current.first_sent {
            return None;
        }
        if !current.ends_before(sent, arrival) {
            current.last_sent = current.last_sent.max(sent);
            current.last_arrival = current.last_arrival.max(arrival);
            current.told = now;
            return None;
        }
        let done = *current;
        let previous = self.previous.replace(done);
        self.current = Some(fresh);
        self.delta(previous?, done)
    }

    fn delta(&mut self, previous: Group, done: Group) -> Option<GroupDelta> {
        let arrival_us = done.last_arrival - previous.last_arrival;
        if arrival_us - (done.told - previous.told) >= CLOCK_JUMP_US {
            *self = Self::default();
            return None;
        }
        if arrival_us < 0 {
            self.reordered += 1;
            if self.reordered >= MAX_REORDERED {
                *self = Self::default();
            }
            return None;
        }
        self.reordered = 0;
        Some(GroupDelta { send_us: done.last_sent - previous.last_sent, arrival_us })
    }
}

impl Group {
    fn ends_before(&self, sent: i64, arrival: i64) -> bool {
        !self.is_burst(sent, arrival) && sent - self.first_sent > GROUP_US
    }

    fn is_burst(&self, sent: i64, arrival: i64) -> bool {
        let send_delta = sent - self.last_sent;
        if send_delta == 0 {
            return true;
        }
        let arrival_delta = arrival - self.last_arrival;
        arrival_delta < send_delta
            && arrival_delta <= BURST_GAP_US
            && arrival - self.first_arrival < MAX_BURST_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_frame_are_one_group() {
        let mut groups = InterArrival::default();
        let mut deltas = Vec::new();
        for frame in 0..4i64 {
            for packet in 0..3 {
                let sent = frame * 33_000 + packet * 1_000;
                let arrival = sent + 20_000 + frame * 2_000;
                deltas.extend(groups.on_packet(sent, arrival, arrival));
            }
        }
        let expected = GroupDelta { send_us: 33_000, arrival_us: 35_000 };
        assert_eq!(deltas, [expected, expected]);
    }

    #[test]
    fn what_the_path_held_back_and_released_together_is_one_group() {
        let mut groups = InterArrival::default();
        let mut deltas = Vec::new();
        for (sent, arrival) in [(0, 50), (20, 51), (40, 52), (60, 110), (80, 130)] {
            deltas.extend(groups.on_packet(sent * 1_000, arrival * 1_000, arrival * 1_000));
        }
        assert_eq!(deltas, [GroupDelta { send_us: 20_000, arrival_us: 58_000 }]);
    }

    #[test]
    fn a_jump_of_the_receivers_clock_starts_anew() {
        let mut groups = InterArrival::default();
        for i in 0..3 {
            groups.on_packet(i * 20_000, i * 20_000, i * 20_000);
        }
        let jumped = |i: i64| (i * 20_000, i * 20_000 + 10_000_000, i * 20_000);
        for i in 3..5 {
            let (sent, arrival, now) = jumped(i);
            let delta = groups.on_packet(sent, arrival, now);
            assert!(delta.is_none_or(|d| d.arrival_us < CLOCK_JUMP_US), "{delta:?}");
        }
    }
}
