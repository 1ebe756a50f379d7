//! Who is speaking, from the audio levels that publishers put into each packet (RFC 6464).
//!
//! Levels are gathered over an interval: a packet at or above the threshold is active, and a
//! publisher speaks if enough of the interval was active. The loudest active level, lowered by the
//! inactive share, becomes a linear level that is smoothed over intervals. Numbers are LiveKit's
//! (`audio_level.go`; where its sample configuration differs, the code counts).

use std::time::{Duration, Instant};

use sluice_rtp::ext::AudioLevel;

/// Thresholds of speaker detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevelConfig {
    /// Quietest active level, dB below overload: smaller is louder.
    pub active_level_dbov: u8,
    /// Share of the interval that must be active, percent.
    pub min_percentile: u8,
    /// Length of an interval.
    pub interval: Duration,
    /// Intervals over which the level is smoothed; 0 or 1: none.
    pub smooth_intervals: u16,
}

impl Default for AudioLevelConfig {
    fn default() -> Self {
        Self {
            active_level_dbov: 35,
            min_percentile: 40,
            interval: Duration::from_millis(400),
            smooth_intervals: 2,
        }
    }
}

/// Level of silence, dB below overload (RFC 6464 §3).
const SILENCE_DBOV: u8 = 127;

/// Longest time for which one packet speaks. After a silence that was not sent (DTX) the distance
/// between timestamps says nothing of the packet's length.
const MAX_PACKET_TIME: Duration = Duration::from_millis(120);

/// Length of a packet of which nothing is known yet: an Opus frame.
const USUAL_PACKET_TIME: Duration = Duration::from_millis(20);

/// Speech level of one microphone.
#[derive(Debug, Clone)]
pub struct AudioLevelObserver {
    config: AudioLevelConfig,
    smoothing: f32,
    smoothed: f32,
    observed: Duration,
    active: Duration,
    loudest_dbov: u8,
    last_timestamp: Option<u32>,
    last_observed: Option<Instant>,
}

impl AudioLevelObserver {
    /// A microphone that has not been heard.
    pub fn new(config: AudioLevelConfig) -> Self {
        Self {
            config,
            smoothing: 2.0 / (f32::from(config.smooth_intervals.max(1)) + 1.0),
            smoothed: 0.0,
            observed: Duration::ZERO,
            active: Duration::ZERO,
            loudest_dbov: SILENCE_DBOV,
            last_timestamp: None,
            last_observed: None,
        }
    }

    /// Takes the level of a packet. `timestamp` in units of `clock_rate` (Hz).
    pub fn observe(&mut self, now: Instant, level: AudioLevel, timestamp: u32, clock_rate: u32) {
        let length = self.packet_time(timestamp, clock_rate);
        self.last_observed = Some(now);
        self.observed += length;
        let dbov = level.level_dbov;
        if dbov <= self.config.active_level_dbov {
            self.active += length;
            self.loudest_dbov = self.loudest_dbov.min(dbov);
        }
        if self.observed >= self.config.interval {
            self.close_interval();
        }
    }

    /// The level now: `Some(0..=1)` while speaking.
    pub fn level(&self, now: Instant) -> Option<f32> {
        let stale = self.config.interval * 2;
        let fresh = self.last_observed.is_some_and(|at| now.saturating_duration_since(at) < stale);
        let threshold = linear(f32::from(self.config.active_level_dbov));
        (fresh && self.smoothed >= threshold).then_some(self.smoothed.min(1.0))
    }

    fn packet_time(&mut self, timestamp: u32, clock_rate: u32) -> Duration {
        let step = self.last_timestamp.map(|last| timestamp.wrapping_sub(last));
        if step.is_none_or(|step| step < 1 << 31) {
            self.last_timestamp = Some(timestamp);
        }
        let step = step.filter(|step| (1..1 << 31).contains(step));
        let length = step.map(|step| {
            Duration::from_nanos(u64::from(step) * 1_000_000_000 / u64::from(clock_rate.max(1)))
        });
        length.filter(|length| *length <= MAX_PACKET_TIME).unwrap_or(USUAL_PACKET_TIME)
    }

    fn close_interval(&mut self) {
        let AudioLevelConfig { min_percentile, interval, .. } = self.config;
        let level = if self.active * 100 >= interval * u32::from(min_percentile) {
            // A share of the interval costs 20·log10 of it.
            let share = self.active.as_secs_f32() / interval.as_secs_f32().max(f32::EPSILON);
            linear(f32::from(self.loudest_dbov) - 20.0 * share.log10())
        } else {
            0.0
        };
        self.smoothed += (level - self.smoothed) * self.smoothing;
        self.observed = Duration::ZERO;
        self.active = Duration::ZERO;
        self.loudest_dbov = SILENCE_DBOV;
    }
}

/// Levels are told in steps of an eighth, so that speakers do not change with every breath
/// (LiveKit `room.go`).
pub fn quantise(level: f32) -> f32 {
    (level * 8.0).ceil() / 8.0
}

/// A level in dB below overload as a share of the largest amplitude.
fn linear(dbov: f32) -> f32 {
    10f32.powf(-dbov / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    const CLOCK: u32 = 48_000;
    const FRAME: u32 = 960;

    struct Mic {
        observer: AudioLevelObserver,
        now: Instant,
        timestamp: u32,
    }

    impl Mic {
        fn new() -> Self {
            let observer = AudioLevelObserver::new(AudioLevelConfig::default());
            Self { observer, now: epoch(), timestamp: u32::MAX - 5_000 }
        }

        fn say(&mut self, frames: u32, dbov: u8) -> Option<f32> {
            for _ in 0..frames {
                self.now += Duration::from_millis(20);
                self.timestamp = self.timestamp.wrapping_add(FRAME);
                let level = AudioLevel { voice: true, level_dbov: dbov };
                self.observer.observe(self.now, level, self.timestamp, CLOCK);
            }
            self.observer.level(self.now)
        }
    }

    #[test]
    fn a_loud_microphone_speaks_after_one_interval() {
        let mut mic = Mic::new();
        assert_eq!(mic.say(19, 10), None);
        let level = mic.say(1, 10).expect("one interval is over");
        // Two thirds of 10^(-10/20).
        assert!((level - 0.316 * 2.0 / 3.0).abs() < 0.01, "{level}");
        let level = mic.say(200, 10).expect("still speaking");
        assert!((level - 0.316).abs() < 0.005, "{level}");
    }

    #[test]
    fn quiet_microphones_do_not_speak() {
        let mut mic = Mic::new();
        assert_eq!(mic.say(200, 36), None);
        assert_eq!(mic.say(200, 127), None);
    }

    #[test]
    fn less_than_forty_percent_of_an_interval_is_a_cough() {
        let mut mic = Mic::new();
        for _ in 0..10 {
            mic.say(7, 5);
            assert_eq!(mic.say(13, 127), None);
        }
        let mut mic = Mic::new();
        for _ in 0..10 {
            mic.say(8, 5);
            mic.say(12, 127);
        }
        assert!(mic.observer.level(mic.now).is_some());
    }

    #[test]
    fn a_share_of_the_interval_lowers_the_level() {
        let (mut whole, mut half) = (Mic::new(), Mic::new());
        for _ in 0..20 {
            whole.say(20, 12);
            half.say(10, 12);
            half.say(10, 127);
        }
        let (whole, half) = (whole.say(0, 0), half.say(0, 0));
        let ratio = half.expect("speaks") / whole.expect("speaks");
        assert!((ratio - 0.5).abs() < 0.01, "{ratio}");
    }

    #[test]
    fn who_stops_sending_stops_speaking_after_two_intervals() {
        let mut mic = Mic::new();
        mic.say(100, 5);
        assert!(mic.observer.level(mic.now + Duration::from_millis(799)).is_some());
        assert_eq!(mic.observer.level(mic.now + Duration::from_millis(800)), None);
    }

    #[test]
    fn a_gap_in_the_timestamps_is_no_speech() {
        let mut mic = Mic::new();
        mic.say(1, 5);
        mic.timestamp = mic.timestamp.wrapping_add(CLOCK * 10);
        assert_eq!(mic.say(1, 5), None);
    }

    #[test]
    fn levels_are_told_in_eighths_upwards() {
        assert_eq!(quantise(0.0), 0.0);
        assert_eq!(quantise(0.01), 0.125);
        assert_eq!(quantise(1.0), 1.0);
    }
}
