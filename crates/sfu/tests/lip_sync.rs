//! A viewer sees the publisher's own clock in sound and picture: timestamps of what was captured
//! together lead, by the sender reports, to the same moment, whatever layers came and went. The same
//! holds for capture times between two packets that carry one (`abs-capture-time`), which receivers
//! derive from the distance of timestamps.

mod common;

use std::time::Duration;

use common::sound::FIRST_TIMESTAMP;
use common::{Call, Record, Sent, check, each_seed, ms, tell};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluice_rtp::NtpTime;
use sluice_rtp::rtcp::SenderInfo;
use sluice_sfu::{Allocation, DownTrackSettings};
use sluice_sim::vp8::{Vp8Config, usual_camera};
use sluice_sim::{Clock, LinkConfig, Loss};

/// Farther apart, seconds, than this is out of step.
const TOLERANCE: f64 = 0.001;

/// Before, the publisher has not reported on every layer.
const REPORTED: Duration = Duration::from_millis(500);

/// A viewer whose layers change all the time, by its own wish and by its network's; what it got.
fn watch(camera: &Vp8Config, seed: u64) -> Result<Record, String> {
    let loss = Loss::Uniform(0.03);
    let uplink = LinkConfig { jitter: ms(15), reorder: 0.02, loss, ..LinkConfig::default() };
    let mut call = Call::new(camera.clone(), uplink, seed).with_microphone();
    call.join(LinkConfig::default());
    call.viewers[0].record = Some(Record::default());
    let mut rng = StdRng::seed_from_u64(seed);
    call.run_until(ms(2_000));
    for _ in 0..30 {
        let now = call.clock.now();
        let (spatial, temporal) = (rng.random_range(0..3), rng.random_range(0..3));
        match rng.random_range(0..6) {
            0..3 => {
                let urgent = rng.random();
                let limit = Allocation::UpTo { spatial, temporal, urgent };
                call.viewers[0].down.set_allocation(now, limit);
            }
            3 => _ = call.viewers[0].down.set_allocation(now, Allocation::Paused),
            4 => call.camera.set_active(usize::from(spatial), rng.random()),
            _ => {
                let enabled = rng.random_range(0..4) > 0;
                let settings = DownTrackSettings { enabled, max_spatial: 2, max_temporal: 2 };
                call.want(0, settings);
            }
        }
        call.run_for(ms(rng.random_range(100..2_000)));
    }
    let violations = call.violations();
    check!(violations.is_empty(), "{violations:?}");
    Ok(call.viewers[0].record.take().expect("it was asked for"))
}

/// The moment of a timestamp by the last report before it, as a receiver reckons.
fn moment(sent: &Sent, reports: &[(Duration, SenderInfo)], clock_rate: f64) -> Option<f64> {
    let before = reports.partition_point(|(at, _)| *at <= sent.at);
    let (_, report) = reports.get(before.checked_sub(1)?)?;
    let ticks = sent.target.wrapping_sub(report.rtp_timestamp) as i32;
    Some(seconds(report.ntp) + f64::from(ticks) / clock_rate)
}

fn seconds(ntp: NtpTime) -> f64 {
    // Whole seconds since 2025 keep the fraction exact enough.
    (ntp.to_bits() - (3_944_678_400u64 << 32)) as f64 / 2f64.powi(32)
}

/// Packets with when they were captured, seconds from the start. A new layer may begin with pictures
/// older than those of the layer before; they have no place in time but after them, and are left out.
fn newest(sent: &[Sent], captured: impl Fn(&Sent) -> f64) -> Vec<(&Sent, f64)> {
    let mut newest = f64::MIN;
    let mut kept = Vec::new();
    for (sent, at) in sent.iter().map(|sent| (sent, captured(sent))) {
        if at >= newest {
            newest = at;
            kept.push((sent, at));
        }
    }
    kept
}

/// The largest distance, seconds, of moments by the reports to those when packets were captured.
fn worst_error(sent: &[(&Sent, f64)], reports: &[(Duration, SenderInfo)], clock_rate: f64) -> f64 {
    let clock = Clock::new();
    let start = seconds(clock.ntp(clock.now()));
    let errors = sent.iter().filter_map(|(sent, captured)| {
        Some((moment(sent, reports, clock_rate)? - start - captured).abs())
    });
    errors.fold(0.0, f64::max)
}

/// Seconds from the start to when a packet of the camera was captured.
fn captured_by(camera: &Vp8Config, sent: &Sent) -> f64 {
    let first = camera.layers[usize::from(sent.stream)].first_timestamp;
    f64::from(sent.source.wrapping_sub(first)) / 90_000.0
}

#[test]
fn sound_and_picture_lead_to_the_same_moment_after_any_switch() {
    let figures = each_seed(|seed| {
        let camera = usual_camera(3, 3, 100, seed);
        let got = watch(&camera, seed)?;
        let video = newest(&got.video, |sent| captured_by(&camera, sent));
        let video = worst_error(&video, &got.video_reports, 90_000.0);
        let since_first = |sent: &Sent| f64::from(sent.source.wrapping_sub(FIRST_TIMESTAMP));
        let audio = newest(&got.audio, |sent| since_first(sent) / 48_000.0);
        let audio = worst_error(&audio, &got.audio_reports, 48_000.0);
        check!(video <= TOLERANCE && audio <= TOLERANCE, "video {video} s, audio {audio} s off");
        let streams = got.video.windows(2).filter(|pair| pair[0].stream != pair[1].stream).count();
        Ok((video, audio, streams as f64))
    });
    tell("largest error of video, s", figures.iter().map(|f| f.0));
    tell("largest error of audio, s", figures.iter().map(|f| f.1));
    tell("switches", figures.iter().map(|f| f.2));
}

#[test]
fn timestamps_keep_the_distances_of_capture_over_any_switch() {
    let figures = each_seed(|seed| {
        let camera = usual_camera(3, 3, 100, seed);
        let got = watch(&camera, seed)?;
        let video = newest(&got.video, |sent| captured_by(&camera, sent));
        let reported = video.iter().skip_while(|(sent, _)| sent.at < REPORTED);
        let mut first = None;
        let errors = reported.map(|(sent, captured)| {
            let (target, at) = *first.get_or_insert((sent.target, *captured));
            let ticks = sent.target.wrapping_sub(target) as i32;
            (f64::from(ticks) / 90_000.0 - (captured - at)).abs()
        });
        let worst = errors.fold(0.0, f64::max);
        check!(worst <= TOLERANCE, "{worst} s off");
        Ok(worst)
    });
    tell("largest error of distances, s", figures);
}
