//! Whether a simulcast layer is being sent: publishers start and stop layers on their own, with
//! their bandwidth and their processor.
//!
//! Packets are counted in cycles of 500 ms. A layer is live from its first packet on. The lowest
//! layer needs one packet per cycle and is given up after four empty cycles; a layer above needs
//! five and is given up after one cycle with fewer, so that receivers do not stare at a frozen
//! picture. A layer that came back must hold for some cycles before it is offered again, else
//! receivers flap with the publisher's bandwidth.

use std::time::{Duration, Instant};

/// Length of a cycle (LiveKit `StreamTracker`).
const CYCLE: Duration = Duration::from_millis(500);

/// Cycle for screen shares, which send a still picture rarely (LiveKit: one packet per 2 s).
const SCREEN_CYCLE: Duration = Duration::from_secs(2);

/// Thresholds of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thresholds {
    cycle: Duration,
    packets_per_cycle: u32,
    cycles_to_stop: u32,
    cycles_to_return: u32,
}

/// Lowest layer: LiveKit's one packet in four cycles.
const BASE: Thresholds =
    Thresholds { cycle: CYCLE, packets_per_cycle: 1, cycles_to_stop: 4, cycles_to_return: 1 };

/// Upper layers: LiveKit's five packets per cycle. They return after 2 s, as in mediasoup's
/// `SimulcastConsumer` (LiveKit waits for 20 cycles, which delays a wanted up-switch by 10 s).
const UPPER: Thresholds =
    Thresholds { cycle: CYCLE, packets_per_cycle: 5, cycles_to_stop: 1, cycles_to_return: 4 };

/// Any layer of a screen share.
const SCREEN: Thresholds = Thresholds {
    cycle: SCREEN_CYCLE,
    packets_per_cycle: 1,
    cycles_to_stop: 2,
    cycles_to_return: 1,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not one packet since the start or the last reset.
    Idle,
    Live {
        cycle_end: Instant,
        packets: u32,
        poor_cycles: u32,
    },
    Stopped {
        cycle_end: Instant,
        packets: u32,
        good_cycles: u32,
    },
}

/// Liveness of one layer.
#[derive(Debug, Clone)]
pub struct LayerLiveness {
    thresholds: Thresholds,
    state: State,
}

impl LayerLiveness {
    /// A layer that has not been seen yet; `layer` 0 is the lowest.
    pub fn new(layer: u8, screen_share: bool) -> Self {
        let thresholds = match (screen_share, layer) {
            (true, _) => SCREEN,
            (false, 0) => BASE,
            (false, _) => UPPER,
        };
        Self { thresholds, state: State::Idle }
    }

    /// Counts a media packet.
    pub fn on_packet(&mut self, now: Instant) {
        self.on_time(now);
        match &mut self.state {
            State::Idle => {
                let cycle_end = now + self.thresholds.cycle;
                self.state = State::Live { cycle_end, packets: 1, poor_cycles: 0 };
            }
            State::Live { packets, .. } | State::Stopped { packets, .. } => *packets += 1,
        }
    }

    /// Closes the cycles that ended.
    pub fn on_time(&mut self, now: Instant) {
        // At most the longest memory plus one turn; then time is simply caught up with.
        for _ in 0..8 {
            if !self.close_cycle(now) {
                return;
            }
        }
        match &mut self.state {
            State::Idle => {}
            State::Live { cycle_end, .. } | State::Stopped { cycle_end, .. } => *cycle_end = now,
        }
    }

    /// Forgets the layer: mute, restart, or a layer that the publisher was just asked to send, so
    /// that its first packet makes it live.
    pub fn reset(&mut self) {
        self.state = State::Idle;
    }

    /// Whether the layer is being sent.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    /// When the current cycle ends.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            // A stopped layer without packets changes only with one.
            State::Idle | State::Stopped { packets: 0, good_cycles: 0, .. } => None,
            State::Live { cycle_end, .. } | State::Stopped { cycle_end, .. } => Some(cycle_end),
        }
    }

    fn close_cycle(&mut self, now: Instant) -> bool {
        let Thresholds { cycle, packets_per_cycle, cycles_to_stop, cycles_to_return } =
            self.thresholds;
        match self.state {
            State::Live { cycle_end, packets, poor_cycles } if now >= cycle_end => {
                let poor_cycles = if packets < packets_per_cycle { poor_cycles + 1 } else { 0 };
                let cycle_end = cycle_end + cycle;
                self.state = if poor_cycles >= cycles_to_stop {
                    State::Stopped { cycle_end, packets: 0, good_cycles: 0 }
                } else {
                    State::Live { cycle_end, packets: 0, poor_cycles }
                };
                true
            }
            State::Stopped { cycle_end, packets, good_cycles } if now >= cycle_end => {
                let good_cycles = if packets >= packets_per_cycle { good_cycles + 1 } else { 0 };
                let cycle_end = cycle_end + cycle;
                self.state = if good_cycles >= cycles_to_return {
                    State::Live { cycle_end, packets: 0, poor_cycles: 0 }
                } else {
                    State::Stopped { cycle_end, packets: 0, good_cycles }
                };
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Packets evenly spaced by `every` from `from` to before `to`.
    fn send(layer: &mut LayerLiveness, t0: Instant, from: u64, to: u64, every: u64) {
        for at in (from..to).step_by(every as usize) {
            layer.on_packet(t0 + ms(at));
        }
    }

    #[test]
    fn a_layer_is_live_from_its_first_packet() {
        for layer in 0..3 {
            let mut liveness = LayerLiveness::new(layer, false);
            assert!(!liveness.is_live());
            liveness.on_packet(epoch());
            assert!(liveness.is_live());
        }
    }

    #[test]
    fn base_layer_is_given_up_after_four_empty_cycles() {
        let t0 = epoch();
        let mut liveness = LayerLiveness::new(0, false);
        liveness.on_packet(t0);
        liveness.on_time(t0 + ms(2_499));
        assert!(liveness.is_live());
        liveness.on_time(t0 + ms(2_500));
        assert!(!liveness.is_live());
    }

    #[test]
    fn upper_layer_is_given_up_after_one_thin_cycle() {
        let t0 = epoch();
        let mut liveness = LayerLiveness::new(2, false);
        send(&mut liveness, t0, 0, 2_000, 20);
        liveness.on_time(t0 + ms(2_499));
        assert!(liveness.is_live());
        liveness.on_time(t0 + ms(2_500));
        assert!(!liveness.is_live());
        assert_eq!(liveness.deadline(), None);
    }

    #[test]
    fn upper_layer_returns_after_two_steady_seconds() {
        let t0 = epoch();
        let mut liveness = LayerLiveness::new(1, false);
        liveness.on_packet(t0);
        liveness.on_time(t0 + ms(10_000));
        assert!(!liveness.is_live());
        send(&mut liveness, t0, 10_000, 11_900, 20);
        assert!(!liveness.is_live());
        send(&mut liveness, t0, 11_900, 13_000, 20);
        assert!(liveness.is_live());
    }

    #[test]
    fn after_a_reset_one_packet_is_enough() {
        let t0 = epoch();
        let mut liveness = LayerLiveness::new(1, false);
        liveness.on_packet(t0);
        liveness.on_time(t0 + ms(3_000));
        assert!(!liveness.is_live());
        liveness.reset();
        liveness.on_packet(t0 + ms(3_000));
        assert!(liveness.is_live());
    }

    #[test]
    fn a_still_screen_share_stays_live_with_a_packet_every_two_seconds() {
        let t0 = epoch();
        let mut liveness = LayerLiveness::new(2, true);
        send(&mut liveness, t0, 0, 60_000, 1_900);
        assert!(liveness.is_live());
        liveness.on_time(t0 + ms(68_000));
        assert!(!liveness.is_live());
    }
}
