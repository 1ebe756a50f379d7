//! Timestamps towards one receiver: continuous over layer switches, pauses and restarts of the
//! source, never backwards.

use std::time::{Duration, Instant};

use sluice_rtp::seq::ts_diff;

use crate::sender_report::ticks;

/// A switch that would step back further waits for another key frame (LiveKit `forwarder.go`).
const MAX_SWITCH_BACK: Duration = Duration::from_millis(50);

/// After a pause, further behind the expected time than this counts as wrong (LiveKit).
const MAX_RESUME_BACK: Duration = Duration::from_millis(200);

/// Further from the expected time than this, in either direction, is never believed (LiveKit).
const MAX_DEVIATION: Duration = Duration::from_secs(2);

/// While a source that began before what was sent catches up with it, its time passes at this
/// fraction: fast enough that frames of up to 350 a second stay apart.
const CATCH_UP_FRACTION: u32 = 256;

/// Why the source changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// To another layer that plays the same pictures.
    Switch,
    /// Back from a pause, or on with a restarted stream.
    Resume,
}

/// The new source would step back in time by this much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepsBack(pub Duration);

/// Maps the timestamps of one source stream at a time to the receiver's.
#[derive(Debug, Clone)]
pub struct TsMunger {
    clock_rate: u32,
    /// `target = source + offset`, wrapping.
    offset: u32,
    newest: Option<(u32, Instant)>,
    catch_up: Option<CatchUp>,
}

/// A source whose first packets belong before what was sent. They follow it closely until the
/// source's own time is ahead of that: the distance to the publisher's clock stays what it was.
#[derive(Debug, Clone, Copy)]
struct CatchUp {
    first_source: u32,
    first_target: u32,
}

impl TsMunger {
    /// Nothing sent yet: the first source keeps its own timestamps. `clock_rate` in Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate: clock_rate.max(1), offset: 0, newest: None, catch_up: None }
    }

    /// Continues with another source (or the same after a break), whose first packet has
    /// `source_ts`. `aligned` is the target timestamp of that packet by the publisher's own clock,
    /// if its sender reports tell; otherwise the time passed since the newest packet decides.
    ///
    /// # Errors
    /// For a [`Transition::Switch`]: the packet belongs too far before what was sent.
    pub fn start(
        &mut self,
        now: Instant,
        source_ts: u32,
        aligned: Option<u32>,
        transition: Transition,
    ) -> Result<(), StepsBack> {
        let Some((newest, at)) = self.newest else {
            self.offset = 0;
            return Ok(());
        };
        let elapsed = now.saturating_duration_since(at);
        let expected = newest.wrapping_add(ticks(elapsed, self.clock_rate));
        let mut target = aligned.unwrap_or(expected);
        let ahead = ts_diff(target, expected);
        let too_far_behind = match transition {
            Transition::Switch => MAX_DEVIATION,
            Transition::Resume => MAX_RESUME_BACK,
        };
        if ahead > self.span(MAX_DEVIATION) || ahead < -self.span(too_far_behind) {
            target = expected;
        }
        let back = ts_diff(newest, target);
        if transition == Transition::Switch && back > self.span(MAX_SWITCH_BACK) {
            let nanos = u64::from(back.unsigned_abs()) * 1_000_000_000 / u64::from(self.clock_rate);
            return Err(StepsBack(Duration::from_nanos(nanos)));
        }
        self.catch_up = None;
        if back >= 0 {
            let next = newest.wrapping_add(1);
            match transition {
                Transition::Switch => {
                    self.catch_up = Some(CatchUp { first_source: source_ts, first_target: next });
                }
                // Sound would stumble over steps that are not those of its frames.
                Transition::Resume => target = next,
            }
        }
        self.offset = target.wrapping_sub(source_ts);
        Ok(())
    }

    /// The timestamp of something that is not of the source and is sent now; the first is 0.
    pub fn insert(&mut self, now: Instant) -> u32 {
        let Some((newest, at)) = self.newest else {
            self.newest = Some((0, now));
            return 0;
        };
        let step = ticks(now.saturating_duration_since(at), self.clock_rate).max(1);
        let target = newest.wrapping_add(step);
        self.newest = Some((target, now));
        target
    }

    /// The target timestamp of a packet of the current source.
    pub fn map(&mut self, now: Instant, source_ts: u32) -> u32 {
        let target = self.target_in_order(source_ts);
        if self.newest.is_none_or(|(newest, _)| ts_diff(target, newest) > 0) {
            self.newest = Some((target, now));
        }
        target
    }

    /// The target timestamp of any moment of the current source.
    pub fn target_of(&self, source_ts: u32) -> u32 {
        source_ts.wrapping_add(self.offset)
    }

    /// [`target_of`](Self::target_of), but after what was sent before the source began.
    fn target_in_order(&mut self, source_ts: u32) -> u32 {
        let target = self.target_of(source_ts);
        let Some(CatchUp { first_source, first_target }) = self.catch_up else { return target };
        let since = ts_diff(source_ts, first_source);
        if since > self.span(MAX_DEVIATION) {
            self.catch_up = None;
        }
        let passed = since.max(0).unsigned_abs() / CATCH_UP_FRACTION;
        let least = first_target.wrapping_add(passed);
        if ts_diff(target, least) > 0 { target } else { least }
    }

    /// Goes on after another stream of the same SSRC, which sent `newest` at the given time last.
    pub fn continue_after(&mut self, newest: (u32, Instant)) {
        self.newest = Some(newest);
    }

    /// The newest target timestamp sent, and when.
    pub fn last_sent(&self) -> Option<(u32, Instant)> {
        self.newest
    }

    /// The newest target timestamp sent.
    pub fn newest(&self) -> Option<u32> {
        self.newest.map(|(ts, _)| ts)
    }

    fn span(&self, duration: Duration) -> i32 {
        ticks(duration, self.clock_rate) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;
    use proptest::prelude::*;

    const CLOCK: u32 = 90_000;
    const MS: u32 = 90;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A munger that has sent `newest` at the returned time.
    fn sent(newest: u32) -> (TsMunger, Instant) {
        let t0 = epoch();
        let mut munger = TsMunger::new(CLOCK);
        munger.start(t0, newest, None, Transition::Switch).expect("the first source");
        munger.map(t0, newest);
        (munger, t0)
    }

    #[test]
    fn the_first_source_keeps_its_timestamps() {
        let (munger, _) = sent(77);
        assert_eq!(munger.newest(), Some(77));
    }

    #[test]
    fn a_stream_that_continues_another_begins_where_time_has_brought_it() {
        let (before, t0) = sent(77);
        let mut munger = TsMunger::new(CLOCK);
        munger.continue_after(before.last_sent().expect("something was sent"));
        munger.start(t0 + ms(100), 3_000_000_000, None, Transition::Switch).expect("in time");
        assert_eq!(munger.map(t0 + ms(100), 3_000_000_000), 77 + 100 * MS);
    }

    #[test]
    fn a_switch_follows_the_publishers_clock() {
        for newest in [1_000_000, u32::MAX - 10] {
            let (mut munger, t0) = sent(newest);
            let aligned = newest.wrapping_add(33 * MS);
            munger.start(t0 + ms(60), 5, Some(aligned), Transition::Switch).expect("ahead");
            assert_eq!(munger.map(t0 + ms(60), 5), aligned);
            assert_eq!(munger.map(t0 + ms(90), 5 + 33 * MS), aligned.wrapping_add(33 * MS));
        }
    }

    #[test]
    fn without_reports_the_time_passed_decides() {
        let (mut munger, t0) = sent(1_000);
        munger.start(t0 + ms(40), 9_999_999, None, Transition::Switch).expect("ahead");
        assert_eq!(munger.map(t0 + ms(40), 9_999_999), 1_000 + 40 * MS);
    }

    #[test]
    fn a_small_step_back_becomes_one_tick_forward_and_a_large_one_is_refused() {
        let (mut munger, t0) = sent(1_000_000);
        let back = |by: u32| Some(1_000_000 - by * MS);
        let refused = munger.start(t0 + ms(10), 5, back(51), Transition::Switch);
        assert_eq!(refused, Err(StepsBack(ms(51))));
        munger.start(t0 + ms(10), 5, back(50), Transition::Switch).expect("tolerated");
        assert_eq!(munger.map(t0, 5), 1_000_001);
    }

    #[test]
    fn a_source_that_begins_too_early_catches_up_with_its_own_time() {
        let (mut munger, t0) = sent(u32::MAX - 100);
        let aligned = (u32::MAX - 100).wrapping_sub(40 * MS);
        munger.start(t0, 5, Some(aligned), Transition::Switch).expect("tolerated");
        let frames = [0, 16, 33, 50, 66].map(|at| munger.map(t0, 5 + at * MS));
        let own = |at: u32| aligned.wrapping_add(at * MS);
        assert!(frames.windows(2).all(|pair| ts_diff(pair[1], pair[0]) > 0), "{frames:?}");
        assert_eq!(frames[0], u32::MAX - 99);
        assert_eq!(frames[3..], [own(50), own(66)]);
        assert_eq!(munger.target_of(5), aligned, "reports tell the publisher's time at once");
        assert_eq!(munger.map(t0, 5 + 16 * MS), frames[1], "a late packet finds its frame");
    }

    #[test]
    fn a_refused_switch_changes_nothing_for_the_source_that_goes_on() {
        let (mut munger, t0) = sent(1_000_000);
        munger.start(t0, 5, Some(1_000_000), Transition::Switch).expect("tolerated");
        let begun = munger.map(t0, 5);
        assert_eq!((begun, munger.map(t0, 5 + 66 * MS)), (1_000_001, 1_000_000 + 66 * MS));
        let refused = munger.start(t0 + ms(10), 9, Some(1_000_000), Transition::Switch);
        assert_eq!(refused, Err(StepsBack(ms(66))));
        assert_eq!(munger.map(t0 + ms(20), 5), begun, "a packet of the same frame that was late");
    }

    #[test]
    fn a_nonsense_alignment_is_replaced_by_the_time_passed() {
        for aligned in [1_000_000 + 2_100 * MS, 1_000_000 - 2_100 * MS] {
            let (mut munger, t0) = sent(1_000_000);
            munger.start(t0 + ms(20), 5, Some(aligned), Transition::Switch).expect("replaced");
            assert_eq!(munger.map(t0, 5), 1_000_000 + 20 * MS);
        }
    }

    #[test]
    fn an_alignment_at_the_limit_is_believed() {
        let at_limits = [
            (Transition::Switch, 1_000_000 + 2_020 * MS),
            (Transition::Resume, 1_000_000 + 20 * MS),
        ];
        for (transition, aligned) in at_limits {
            let (mut munger, t0) = sent(1_000_000);
            let passed = if transition == Transition::Switch { ms(20) } else { ms(220) };
            munger.start(t0 + passed, 5, Some(aligned), transition).expect("ahead");
            assert_eq!(munger.map(t0, 5), aligned, "{transition:?}");
        }
    }

    #[test]
    fn time_passes_from_the_first_packet_of_the_newest_frame() {
        let (mut munger, t0) = sent(1_000);
        munger.map(t0 + ms(10), 1_000);
        assert_eq!(munger.last_sent(), Some((1_000, t0)));
    }

    #[test]
    fn a_source_that_has_caught_up_goes_on_over_the_wrap() {
        let (mut munger, t0) = sent(1_000_000);
        let aligned = 1_000_000 - 40 * MS;
        munger.start(t0, 5, Some(aligned), Transition::Switch).expect("tolerated");
        munger.map(t0, 5);
        munger.map(t0 + ms(3_000), 5 + 3_000 * MS);
        let hours_later = 5 + i32::MAX.unsigned_abs() + 1_000;
        let target = munger.map(t0 + ms(23_860_000), hours_later);
        assert_eq!(target, munger.target_of(hours_later));
    }

    #[test]
    fn after_a_pause_the_source_decides_unless_it_is_late() {
        let (mut munger, t0) = sent(1_000_000);
        let later = t0 + ms(10_000);
        let aligned = 1_000_000 + 9_900 * MS;
        munger.start(later, 5, Some(aligned), Transition::Resume).expect("resumes never fail");
        assert_eq!(munger.map(later, 5), aligned);

        let (mut munger, t0) = sent(1_000_000);
        let later = t0 + ms(10_000);
        let stale = 1_000_000 + 9_700 * MS;
        munger.start(later, 5, Some(stale), Transition::Resume).expect("resumes never fail");
        assert_eq!(munger.map(later, 5), 1_000_000 + 10_000 * MS);
    }

    proptest! {
        #[test]
        fn time_never_goes_back_over_a_transition(
            newest: u32, source_ts: u32, aligned: Option<u32>, elapsed in 0u64..100_000,
            resume: bool,
        ) {
            let (mut munger, t0) = sent(newest);
            let now = t0 + ms(elapsed);
            let transition = if resume { Transition::Resume } else { Transition::Switch };
            let started = munger.start(now, source_ts, aligned, transition);
            prop_assert!(started.is_ok() || !resume);
            if started.is_ok() {
                let target = munger.map(now, source_ts);
                prop_assert!(ts_diff(target, newest) > 0);
                let expected = newest.wrapping_add(ticks(ms(elapsed), CLOCK));
                let deviation = ts_diff(target, expected).unsigned_abs();
                prop_assert!(deviation <= ticks(MAX_DEVIATION, CLOCK) + 1);
            }
        }

        #[test]
        fn frames_stay_in_order_whatever_source_follows_which(
            first: u32,
            sources in prop::collection::vec((any::<u32>(), -60i32..200, 1usize..90), 1..20),
        ) {
            let (mut munger, mut now) = sent(first);
            let mut before = first;
            for (source, distance, frames) in sources {
                let aligned = before.wrapping_add_signed(distance * MS as i32);
                if munger.start(now, source, Some(aligned), Transition::Switch).is_err() {
                    continue;
                }
                for frame in 0..frames as u32 {
                    let source_ts = source.wrapping_add(frame * 33 * MS);
                    let target = munger.map(now, source_ts);
                    prop_assert!(ts_diff(target, before) > 0, "{target} after {before}");
                    prop_assert!(frame < 3 || target == munger.target_of(source_ts));
                    before = target;
                    now += ms(33);
                }
            }
        }
    }
}
