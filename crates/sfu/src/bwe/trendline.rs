//! Whether queues on the path grow: the slope of the one-way delay over the last groups, against a
//! threshold that adapts to what the path does by itself (libwebrtc `trendline_estimator.cc`;
//! Carlucci et al., "Analysis and design of the Google congestion control", 2016).

use super::NetworkState;
use super::inter_arrival::GroupDelta;

/// Groups of the regression.
const WINDOW: usize = 20;
/// Weight of the past in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// Factor from the slope to the scale of the threshold.
const GAIN: f64 = 4.0;
/// Groups that count in the scale at most.
const MAX_GROUPS: u32 = 60;
/// Threshold at the start and its limits, ms.
const THRESHOLD_MS: f64 = 12.5;
const THRESHOLD_RANGE_MS: (f64, f64) = (6.0, 600.0);
/// Speed at which the threshold follows the trend up and down, per ms.
const K_UP: f64 = 0.0087;
const K_DOWN: f64 = 0.039;
/// A trend this far above the threshold is a spike and does not move it, ms.
const MAX_ADAPT_OFFSET_MS: f64 = 15.0;
/// Longest step of the adaptation, ms.
const MAX_ADAPT_STEP_MS: f64 = 100.0;
/// The trend must be above the threshold for this long, ms.
const OVERUSE_TIME_MS: f64 = 10.0;

/// The detector.
#[derive(Debug)]
pub struct Trendline {
    /// Arrival since the first, and smoothed delay; ms.
    points: [(f64, f64); WINDOW],
    len: usize,
    at: usize,
    groups: u32,
    first_arrival_us: Option<i64>,
    accumulated_ms: f64,
    smoothed_ms: f64,
    threshold_ms: f64,
    adapted_us: Option<i64>,
    previous_trend: f64,
    time_over_ms: f64,
    overuses: u32,
    state: NetworkState,
}

impl Default for Trendline {
    fn default() -> Self {
        Self {
            points: [(0.0, 0.0); WINDOW],
            len: 0,
            at: 0,
            groups: 0,
            first_arrival_us: None,
            accumulated_ms: 0.0,
            smoothed_ms: 0.0,
            threshold_ms: THRESHOLD_MS,
            adapted_us: None,
            previous_trend: 0.0,
            time_over_ms: -1.0,
            overuses: 0,
            state: NetworkState::Normal,
        }
    }
}

impl Trendline {
    /// Takes the distance between two groups; the later one arrived at `arrival_us`.
    pub fn on_group(&mut self, delta: GroupDelta, arrival_us: i64) {
        let send_ms = delta.send_us as f64 / 1_000.0;
        let arrival_ms = delta.arrival_us as f64 / 1_000.0;
        let first = *self.first_arrival_us.get_or_insert(arrival_us);
        self.groups = (self.groups + 1).min(1_000);
        self.accumulated_ms += arrival_ms - send_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.accumulated_ms;
        self.points[self.at] = ((arrival_us - first) as f64 / 1_000.0, self.smoothed_ms);
        self.at = (self.at + 1) % WINDOW;
        self.len = (self.len + 1).min(WINDOW);
        let trend = match self.len {
            WINDOW => self.slope().unwrap_or(self.previous_trend),
            _ => self.previous_trend,
        };
        self.detect(trend, send_ms, arrival_us);
    }

    /// What the path does.
    pub fn state(&self) -> NetworkState {
        self.state
    }

    /// Least squares over the window.
    fn slope(&self) -> Option<f64> {
        let points = &self.points[..self.len];
        let n = points.len() as f64;
        let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
        let (mean_x, mean_y) = (sum_x / n, sum_y / n);
        let (mut numerator, mut denominator) = (0.0, 0.0);
        for (x, y) in points {
            numerator += (x - mean_x) * (y - mean_y);
            denominator += (x - mean_x) * (x - mean_x);
        }
        (denominator > 0.0).then(|| numerator / denominator)
    }

    fn detect(&mut self, trend: f64, send_ms: f64, arrival_us: i64) {
        if self.groups < 2 {
            return;
        }
        let scaled = f64::from(self.groups.min(MAX_GROUPS)) * trend * GAIN;
        if scaled > self.threshold_ms {
            // At the first crossing half of the interval counts: when it happened is unknown.
            self.time_over_ms =
                if self.time_over_ms < 0.0 { send_ms / 2.0 } else { self.time_over_ms + send_ms };
            self.overuses += 1;
            if self.time_over_ms > OVERUSE_TIME_MS
                && self.overuses > 1
                && trend >= self.previous_trend
            {
                self.time_over_ms = 0.0;
                self.overuses = 0;
                self.state = NetworkState::Overuse;
            }
        } else {
            self.time_over_ms = -1.0;
            self.overuses = 0;
            let under = scaled < -self.threshold_ms;
            self.state = if under { NetworkState::Underuse } else { NetworkState::Normal };
        }
        self.previous_trend = trend;
        self.adapt(scaled, arrival_us);
    }

    fn adapt(&mut self, scaled: f64, arrival_us: i64) {
        let elapsed_us = arrival_us - self.adapted_us.unwrap_or(arrival_us);
        self.adapted_us = Some(arrival_us);
        let size = scaled.abs();
        if size > self.threshold_ms + MAX_ADAPT_OFFSET_MS {
            return;
        }
        let k = if size < self.threshold_ms { K_DOWN } else { K_UP };
        let step_ms = (elapsed_us as f64 / 1_000.0).clamp(0.0, MAX_ADAPT_STEP_MS);
        let moved = self.threshold_ms + k * (size - self.threshold_ms) * step_ms;
        self.threshold_ms = moved.clamp(THRESHOLD_RANGE_MS.0, THRESHOLD_RANGE_MS.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups every 20 ms whose delay changes by `step` ms each; the state after the last.
    fn run(trendline: &mut Trendline, groups: i64, step_us: i64, from_us: i64) -> (i64, bool) {
        let (mut at, mut overused) = (from_us, false);
        for _ in 0..groups {
            let delta = GroupDelta { send_us: 20_000, arrival_us: 20_000 + step_us };
            at += delta.arrival_us;
            trendline.on_group(delta, at);
            overused |= trendline.state() == NetworkState::Overuse;
        }
        (at, overused)
    }

    #[test]
    fn a_steady_path_is_normal() {
        let mut trendline = Trendline::default();
        assert!(!run(&mut trendline, 500, 0, 0).1);
        assert_eq!(trendline.state(), NetworkState::Normal);
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_draining_one_underuse() {
        let mut trendline = Trendline::default();
        let (at, _) = run(&mut trendline, 30, 0, 0);
        let (at, overused) = run(&mut trendline, 15, 5_000, at);
        assert!(overused);
        run(&mut trendline, 25, -5_000, at);
        assert_eq!(trendline.state(), NetworkState::Underuse);
    }
}
