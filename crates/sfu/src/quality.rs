//! How good a track arrives: a score from 0 to 100 that moves with loss and missing layers, and the
//! four levels that LiveKit's clients know. Numbers are LiveKit's (`connectionquality/scorer.go`);
//! like there, delay, jitter and bitrate do not enter.
//!
//! Every few seconds a track's window of packets enters with [`QualityScorer::update`]. Whether the
//! window counts depends on what was noted meanwhile: mute, pause, layers.

use std::time::{Duration, Instant};

use sluice_rtp::codec::Codec;

/// Time between two windows (LiveKit `connectionstats.go`).
pub const UPDATE_INTERVAL: Duration = Duration::from_secs(5);

/// A receiver that gets packets and sends no report for so long is not well (LiveKit).
pub const MAX_REPORT_AGE: Duration = Duration::from_secs(30);

/// The best score.
pub const MAX_SCORE: f32 = 100.0;

/// Scores do not fall below, so that they can rise again in time.
const MIN_SCORE: f32 = 30.0;

/// Share of a new value that enters when the score rises, and when it falls.
const RISE: f32 = 0.4;
const FALL: f32 = 0.8;

/// Points for each spatial layer that is missing.
const LAYER_WEIGHT: f32 = 35.0;

/// Lower bounds of the levels, excluded.
const EXCELLENT_ABOVE: f32 = 80.0;
const GOOD_ABOVE: f32 = 40.0;
const POOR_ABOVE: f32 = 20.0;

/// Share of a window that must have been unmuted.
const MIN_UNMUTED: f32 = 0.5;

/// Points per percent of loss. RED with two frames bears one loss of two; video has no repair of
/// its own; Opus carries some forward error correction unless it was negotiated away.
const OPUS_WEIGHT: f32 = 8.0;
const OPUS_FEC_WEIGHT: f32 = OPUS_WEIGHT / 1.5;
const RED_WEIGHT: f32 = 4.0;
const VIDEO_WEIGHT: f32 = 10.0;

/// Packet rates are sorted into bins of this width, packets per second.
const RATE_BIN: f32 = 2.0;
const RATE_BINS: usize = 64;

/// Windows before the usual packet rate is known.
const MIN_RATE_READINGS: u32 = 10;

/// LiveKit's `ConnectionQuality`, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quality {
    /// Nothing arrives.
    Lost,
    /// Hardly usable.
    Poor,
    /// With flaws.
    Good,
    /// As it should be.
    Excellent,
}

impl Quality {
    /// The level of a score, 0..=100.
    pub fn of(score: f32) -> Self {
        match score {
            score if score > EXCELLENT_ABOVE => Self::Excellent,
            score if score > GOOD_ABOVE => Self::Good,
            score if score > POOR_ABOVE => Self::Poor,
            _ => Self::Lost,
        }
    }
}

/// Mean opinion score, 1..=4.5, of a score of 0..=100 (E-model).
pub fn mean_opinion(score: f32) -> f32 {
    match score {
        score if score <= 0.0 => 1.0,
        score if score >= MAX_SCORE => 4.5,
        score => 1.0 + 0.035 * score + 7e-6 * score * (score - 60.0) * (100.0 - score),
    }
}

/// What a percent of lost packets costs. `fec`: Opus with in-band forward error correction.
pub fn loss_weight(codec: Codec, fec: bool) -> f32 {
    match codec {
        Codec::Opus if fec => OPUS_FEC_WEIGHT,
        Codec::Opus | Codec::Pcmu | Codec::Pcma => OPUS_WEIGHT,
        Codec::Red => RED_WEIGHT,
        _ => VIDEO_WEIGHT,
    }
}

/// What happened since the last window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Packets that should have arrived: received and lost.
    pub packets: u64,
    /// Of these, packets that did not, repaired ones not counted.
    pub lost: u64,
    /// Nothing arrives, not even RTCP.
    pub silent: bool,
}

/// The score of one track on one path.
#[derive(Debug, Clone)]
pub struct QualityScorer {
    loss_weight: f32,
    score: f32,
    updated: Instant,
    muted: bool,
    paused: bool,
    /// When it was unmuted or resumed last.
    unmuted_at: Option<Instant>,
    distance: TimedAverage,
    rates: RateHistogram,
}

impl QualityScorer {
    /// A track that is fine. `loss_weight`: see [`loss_weight`].
    pub fn new(now: Instant, loss_weight: f32) -> Self {
        Self {
            loss_weight,
            score: MAX_SCORE,
            updated: now,
            muted: false,
            paused: false,
            unmuted_at: None,
            distance: TimedAverage::new(now),
            rates: RateHistogram::default(),
        }
    }

    /// The score, 0..=100.
    pub fn score(&self) -> f32 {
        self.score
    }

    /// The track is muted, or wanted by nobody: it is fine, unless it was lost.
    pub fn set_muted(&mut self, now: Instant, muted: bool) {
        if std::mem::replace(&mut self.muted, muted) == muted {
            return;
        }
        if !muted {
            self.unmuted_at = Some(now);
        } else if Quality::of(self.score) != Quality::Lost {
            self.score = MAX_SCORE;
        }
    }

    /// The track is not sent for want of bandwidth: the worst that is not lost.
    pub fn set_paused(&mut self, now: Instant, paused: bool) {
        if std::mem::replace(&mut self.paused, paused) == paused {
            return;
        }
        match paused {
            true => self.score = MIN_SCORE,
            false => self.unmuted_at = Some(now),
        }
        self.distance = TimedAverage::new(now);
    }

    /// Spatial layers between what should flow and what flows, from now on.
    pub fn set_layer_distance(&mut self, now: Instant, distance: f32) {
        self.distance.set(now, distance);
    }

    /// Takes the window since the last call.
    pub fn update(&mut self, now: Instant, window: Window) {
        let elapsed = now.saturating_duration_since(self.updated);
        let distance = self.distance.restart(now);
        let unmuted = self.unmuted_at.map_or(elapsed, |at| now.saturating_duration_since(at));
        self.updated = now;
        if elapsed.is_zero()
            || self.muted
            || self.paused
            || unmuted.as_secs_f32() <= elapsed.as_secs_f32() * MIN_UNMUTED
        {
            return;
        }
        if window.packets == 0 {
            self.score = if window.silent { POOR_ABOVE } else { GOOD_ABOVE };
            return;
        }
        let rate = window.packets as f32 / elapsed.as_secs_f32();
        let lost = 100.0 * window.lost as f32 / window.packets as f32;
        let by_loss = MAX_SCORE - lost * self.loss_weight * self.rates.weight(rate);
        let by_layers = MAX_SCORE - LAYER_WEIGHT * distance;
        let score = by_loss.min(by_layers).max(0.0);
        let share = if score < self.score { FALL } else { RISE };
        self.score = (self.score + (score - self.score) * share).max(MIN_SCORE);
    }
}

/// The mean of a value over time.
#[derive(Debug, Clone)]
struct TimedAverage {
    started: Instant,
    changed: Instant,
    value: f32,
    /// Value times seconds up to `changed`.
    sum: f32,
}

impl TimedAverage {
    fn new(now: Instant) -> Self {
        Self { started: now, changed: now, value: 0.0, sum: 0.0 }
    }

    fn set(&mut self, now: Instant, value: f32) {
        self.sum += self.value * now.saturating_duration_since(self.changed).as_secs_f32();
        (self.changed, self.value) = (now, value.max(0.0));
    }

    /// The mean since the last call; the value stays.
    fn restart(&mut self, now: Instant) -> f32 {
        self.set(now, self.value);
        let span = now.saturating_duration_since(self.started).as_secs_f32();
        let mean = if span > 0.0 { self.sum / span } else { self.value };
        (self.started, self.sum) = (now, 0.0);
        mean
    }
}

/// How often a track had which packet rate. Loss while it sends far less than usual, silence in
/// discontinuous transmission or a screen that stands still, is heard and seen less.
#[derive(Debug, Clone)]
struct RateHistogram {
    counts: [u8; RATE_BINS],
    readings: u32,
}

impl Default for RateHistogram {
    fn default() -> Self {
        Self { counts: [0; RATE_BINS], readings: 0 }
    }
}

impl RateHistogram {
    /// Notes a rate, packets per second; returns the weight of its losses, 0..=1.
    fn weight(&mut self, rate: f32) -> f32 {
        let bin = ((rate / RATE_BIN + 0.5) as usize).min(RATE_BINS - 1);
        if self.counts[bin] == u8::MAX {
            // What was long ago fades.
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
        self.counts[bin] += 1;
        self.readings += 1;
        if self.readings <= MIN_RATE_READINGS {
            return 1.0;
        }
        // The bin with most readings; of several, the highest rate.
        let most = self.counts.iter().enumerate().max_by_key(|(_, count)| **count);
        match most {
            // The last bin has no upper bound: nothing is less than usual.
            Some((mode, _)) if mode > 0 && mode < RATE_BINS - 1 => {
                (rate / (mode as f32 * RATE_BIN)).min(1.0).sqrt()
            }
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    struct Track {
        scorer: QualityScorer,
        now: Instant,
    }

    impl Track {
        fn new(codec: Codec) -> Self {
            let now = epoch();
            Self { scorer: QualityScorer::new(now, loss_weight(codec, false)), now }
        }

        fn windows(&mut self, count: u32, packets: u64, lost: u64) -> f32 {
            for _ in 0..count {
                self.now += UPDATE_INTERVAL;
                self.scorer.update(self.now, Window { packets, lost, silent: false });
            }
            self.scorer.score()
        }

        fn quality(&self) -> Quality {
            Quality::of(self.scorer.score())
        }
    }

    #[test]
    fn levels_fall_where_livekit_says() {
        // Percent of loss below which the level holds, and above which it does not: 8 points each.
        for (lost, quality) in [
            (24, Quality::Excellent),
            (26, Quality::Good),
            (74, Quality::Good),
            (76, Quality::Poor),
        ] {
            let mut track = Track::new(Codec::Opus);
            track.windows(20, 1_000, lost);
            assert_eq!(track.quality(), quality, "{lost} of 1,000");
        }
        let mut video = Track::new(Codec::Vp8);
        video.windows(20, 1_000, 21);
        assert_eq!(video.quality(), Quality::Good);
        let mut red = Track::new(Codec::Red);
        red.windows(20, 1_000, 49);
        assert_eq!(red.quality(), Quality::Excellent);
    }

    #[test]
    fn the_score_falls_fast_rises_slowly_and_never_below_its_floor() {
        let mut track = Track::new(Codec::Vp8);
        assert!((track.windows(1, 1_000, 50) - 60.0).abs() < 0.01, "80 % of the way to 50");
        let worst = track.windows(10, 1_000, 900);
        assert!((worst - MIN_SCORE).abs() < 0.01);
        assert!((track.windows(1, 1_000, 0) - 58.0).abs() < 0.01, "40 % of the way to 100");
    }

    #[test]
    fn each_missing_layer_costs_a_level() {
        let mut track = Track::new(Codec::Vp8);
        track.scorer.set_layer_distance(track.now, 1.0);
        track.windows(10, 1_000, 0);
        assert_eq!(track.quality(), Quality::Good);
        track.scorer.set_layer_distance(track.now, 2.0);
        track.windows(10, 1_000, 0);
        assert_eq!(track.quality(), Quality::Poor);
        // Half a window of one missing layer.
        let mut half = Track::new(Codec::Vp8);
        half.scorer.set_layer_distance(half.now, 1.0);
        half.scorer.set_layer_distance(half.now + UPDATE_INTERVAL / 2, 0.0);
        assert!((half.windows(1, 1_000, 0) - (100.0 - 17.5 * FALL)).abs() < 0.01);
    }

    #[test]
    fn muted_tracks_are_fine_and_windows_count_once_unmuted_long_enough() {
        let mut track = Track::new(Codec::Opus);
        track.windows(5, 1_000, 100);
        track.scorer.set_muted(track.now, true);
        assert_eq!(track.quality(), Quality::Excellent);
        assert_eq!(track.windows(3, 0, 0), MAX_SCORE);
        track.scorer.set_muted(track.now + Duration::from_secs(3), false);
        assert_eq!(track.windows(1, 1_000, 500), MAX_SCORE, "unmuted for two of five seconds");
        assert!(track.windows(1, 1_000, 500) < MAX_SCORE);
    }

    #[test]
    fn a_paused_track_is_poor_at_once() {
        let mut track = Track::new(Codec::Vp8);
        track.scorer.set_paused(track.now, true);
        assert_eq!(track.quality(), Quality::Poor);
        track.scorer.set_paused(track.now, false);
        track.windows(20, 1_000, 0);
        assert_eq!(track.quality(), Quality::Excellent);
    }

    #[test]
    fn nothing_at_all_is_lost_and_muting_does_not_hide_it() {
        let mut track = Track::new(Codec::Opus);
        track.now += UPDATE_INTERVAL;
        track.scorer.update(track.now, Window { silent: true, ..Window::default() });
        assert_eq!(track.quality(), Quality::Lost);
        track.scorer.set_muted(track.now, true);
        assert_eq!(track.quality(), Quality::Lost);
        let mut dry = Track::new(Codec::Opus);
        dry.windows(1, 0, 0);
        assert_eq!(dry.quality(), Quality::Poor);
    }

    #[test]
    fn loss_in_silence_weighs_less_once_the_usual_rate_is_known() {
        let mut track = Track::new(Codec::Opus);
        track.windows(20, 250, 0);
        // Discontinuous transmission: a twentieth of the packets, a tenth of them lost.
        let quiet = track.windows(1, 12, 1);
        let mut loud = Track::new(Codec::Opus);
        loud.windows(20, 250, 0);
        let loud = loud.windows(1, 250, 21);
        assert!(quiet > loud + 30.0, "{quiet} {loud}");
    }

    #[test]
    fn opinion_scores_span_one_to_four_and_a_half() {
        assert_eq!(mean_opinion(0.0), 1.0);
        assert_eq!(mean_opinion(100.0), 4.5);
        assert!((mean_opinion(80.0) - 4.024).abs() < 0.001);
    }
}
