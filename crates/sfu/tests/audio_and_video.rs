//! A microphone beside a camera, over links that are too small or bad for the video: whatever is
//! taken away from the picture, every frame of sound leaves at once, under gap-free numbers, and
//! arrives unless the network itself loses it.

mod common;

use std::time::Duration;

use common::{Call, check, each_seed, ms, tell};
use sluice_sfu::allocator::StreamState;
use sluice_sim::vp8::usual_camera;
use sluice_sim::{LinkConfig, Loss};

fn link(rate_bps: u64) -> LinkConfig {
    LinkConfig { rate_bps: Some(rate_bps), jitter: ms(2), ..LinkConfig::default() }
}

/// A call with camera and microphone, and one viewer.
fn call(link: LinkConfig, seed: u64) -> Call {
    let camera = usual_camera(3, 1, 100, seed);
    let mut call = Call::new(camera, LinkConfig::default(), seed).with_microphone();
    call.join_controlled(link, true);
    call
}

/// What the viewer heard since the start.
#[derive(Debug, Clone, Copy)]
struct Heard {
    sent: u64,
    dropped: u64,
    overtaking: u64,
}

/// Checks what holds under any network: all that came was sent on at once, in order, and came.
fn heard(call: &mut Call) -> Result<Heard, String> {
    let listener = call.viewers[0].listener.as_ref().expect("there is a microphone");
    let (sent, dropped, overtaking) = (listener.sent, listener.dropped, listener.overtaking);
    check!(listener.withheld == 0, "{} were withheld", listener.withheld);
    // Both on the way to the server and on the way to the viewer some may be underway.
    let frames = u64::from(call.microphone.as_ref().expect("there is one").publisher.frames());
    check!(sent + 2 >= frames, "{sent} of {frames} were sent");
    let underway = listener.missing();
    check!(underway <= 20, "{underway} of {sent} did not come, {dropped} were dropped");
    let violations = call.violations();
    check!(violations.is_empty(), "{violations:?}");
    Ok(Heard { sent, dropped, overtaking })
}

/// The same for what happens in a span of time: share that the network dropped.
fn dropped_in(call: &mut Call, span: Duration) -> Result<f64, String> {
    let before = heard(call)?;
    call.run_for(span);
    let after = heard(call)?;
    Ok((after.dropped - before.dropped) as f64 / (after.sent - before.sent) as f64)
}

#[test]
fn sound_goes_on_over_a_link_that_steps_down_and_up() {
    let figures = each_seed(|seed| {
        let mut call = call(link(4_000_000), seed);
        let mut dropped = [0.0; 4];
        let mut longest = [Duration::ZERO; 4];
        for (index, rate_bps) in [4_000_000, 600_000, 300_000, 4_000_000].into_iter().enumerate() {
            call.viewers[0].link.set_config(link(rate_bps));
            // While the picture still floods the smaller link, its queue drops what comes.
            call.run_for(ms(3_000));
            let from = call.clock.now();
            dropped[index] = dropped_in(&mut call, ms(7_000))?;
            let listener = call.viewers[0].listener.as_ref().expect("there is a microphone");
            longest[index] = listener.longest_delay(from);
            check!(dropped[index] <= 0.01, "{rate_bps} bps: {:.3} were dropped", dropped[index]);
        }
        let all = heard(&mut call)?;
        Ok((all.dropped as f64 / all.sent as f64, dropped, longest))
    });
    tell("share of sound dropped, all", figures.iter().map(|f| f.0));
    for (index, step) in ["4 Mbit/s", "600 kbit/s", "300 kbit/s", "back"].iter().enumerate() {
        tell(&format!("dropped at {step}, settled"), figures.iter().map(|f| f.1[index]));
        let longest = figures.iter().map(|f| f.2[index].as_secs_f64());
        tell(&format!("longest delay at {step}, settled, s"), longest);
    }
}

#[test]
fn sound_has_a_link_to_itself_that_is_too_small_for_any_picture() {
    let figures = each_seed(|seed| {
        let mut call = call(link(2_500_000), seed);
        call.run_until(ms(5_000));
        call.viewers[0].link.set_config(link(80_000));
        call.run_for(ms(8_000));
        let control = call.viewers[0].control.as_ref().expect("controlled");
        check!(control.state == StreamState::Paused, "the picture is not paused");
        let from = call.clock.now();
        let dropped = dropped_in(&mut call, ms(20_000))?;
        check!(dropped <= 0.01, "{dropped:.3} were dropped");
        let listener = call.viewers[0].listener.as_ref().expect("there is a microphone");
        Ok((dropped, listener.longest_delay(from).as_secs_f64()))
    });
    tell("share of sound dropped at 80 kbit/s", figures.iter().map(|f| f.0));
    tell("longest delay at 80 kbit/s, s", figures.iter().map(|f| f.1));
}

#[test]
fn sound_overtakes_the_picture_in_the_pacer() {
    let figures = each_seed(|seed| {
        let mut call = call(link(1_000_000), seed);
        call.run_until(ms(5_000));
        // Key frames several times the size of what the path takes at once.
        for _ in 0..20 {
            call.track.request_key_frame(1);
            call.run_for(ms(600));
        }
        let heard = heard(&mut call)?;
        check!(heard.overtaking > 0, "nothing waited: {heard:?}");
        Ok(heard.overtaking as f64)
    });
    tell("frames of sound that left before pictures that waited", figures);
}

#[test]
fn sound_is_lost_only_where_the_network_loses_it() {
    for loss in [0.05, 0.2] {
        let figures = each_seed(|seed| {
            let lossy = LinkConfig { loss: Loss::Uniform(loss), reorder: 0.02, ..link(2_000_000) };
            let mut call = call(lossy, seed);
            call.run_for(ms(5_000));
            let dropped = dropped_in(&mut call, ms(15_000))?;
            check!(dropped <= loss * 1.5 + 0.02, "{dropped:.3} were dropped at {loss}");
            Ok(dropped)
        });
        tell(&format!("share of sound dropped at {loss} loss"), figures);
    }
}

#[test]
fn silence_that_is_not_sent_stays_a_gap_in_time_only() {
    each_seed(|seed| {
        let mut call = call(link(1_000_000), seed);
        for turn in 0..10 {
            call.microphone.as_mut().expect("there is one").publisher.set_silent(turn % 2 == 1);
            call.run_for(ms(1_000 + 70 * (seed % 10)));
        }
        let heard = heard(&mut call)?;
        let frames = call.clock.elapsed().as_millis() as u64 / 20;
        check!(heard.sent * 10 < frames * 6, "{heard:?} of {frames}: silence was sent");
        let listener = call.viewers[0].listener.as_ref().expect("there is a microphone");
        check!(listener.receiver.missing() == heard.dropped, "{} are missing", heard.dropped);
        Ok(())
    });
}
