use std::time::Duration;

use super::*;
use crate::test_util::{epoch, media_packet};

const GOAL: Goal = Goal { spatial: 2, temporal: 3, overshoot: true };

fn delta(stream: u8) -> MediaPacket {
    media_packet(epoch(), stream, 100_000, 0)
}

fn key(stream: u8) -> MediaPacket {
    let mut packet = delta(stream);
    packet.info.key_frame = true;
    packet.info.start_of_frame = true;
    packet
}

fn live(mut packet: MediaPacket, layers: &[u8]) -> MediaPacket {
    packet.live_layers = layers.iter().copied().collect();
    packet
}

fn temporal(temporal: u8, switching_up: bool) -> MediaPacket {
    let mut packet = delta(2);
    packet.info.start_of_frame = true;
    packet.info.temporal_id = Some(temporal);
    packet.info.switching_up = switching_up;
    packet
}

fn simulcast(now: Instant) -> LayerSelector {
    LayerSelector::Simulcast(Simulcast::new(now, false))
}

fn sending(now: Instant, stream: u8) -> LayerSelector {
    let mut selector = simulcast(now);
    selector.start(&key(stream), &GOAL);
    selector
}

#[test]
fn nothing_is_sent_before_a_key_frame() {
    let t0 = epoch();
    let mut selector = simulcast(t0);
    let ignored = Choice::Ignore(DropReason::AwaitingKeyFrame);
    assert_eq!(selector.choose(t0, &delta(2), &GOAL), ignored);
    assert_eq!(selector.choose(t0, &key(2), &GOAL), Choice::Start);
}

#[test]
fn the_first_second_waits_for_the_best_layer() {
    let t0 = epoch();
    let mut selector = simulcast(t0);
    let ignored = Choice::Ignore(DropReason::OtherLayer);
    assert_eq!(selector.choose(t0, &key(0), &GOAL), ignored);
    assert_eq!(selector.choose(t0 + Duration::from_secs(1), &key(0), &GOAL), Choice::Start);
    // A layer that is not sent is not waited for.
    assert_eq!(selector.choose(t0, &live(key(0), &[0]), &GOAL), Choice::Start);
}

#[test]
fn layers_above_the_goal_are_taken_only_for_want_of_others() {
    let t0 = epoch();
    let mut selector = simulcast(t0);
    let low = Goal { spatial: 0, ..GOAL };
    assert_eq!(selector.choose(t0, &live(key(1), &[1, 2]), &low), Choice::Start);
    let strict = Goal { overshoot: false, ..low };
    let late = t0 + Duration::from_secs(9);
    let ignored = Choice::Ignore(DropReason::OtherLayer);
    assert_eq!(selector.choose(late, &live(key(1), &[1, 2]), &strict), ignored);
}

#[test]
fn the_old_layer_goes_on_until_the_key_frame_of_the_new_one() {
    let t0 = epoch();
    for (from, to) in [(0, 2), (2, 0)] {
        let mut selector = sending(t0, from);
        let goal = Goal { spatial: to, ..GOAL };
        let ignored = Choice::Ignore(DropReason::OtherLayer);
        assert_eq!(selector.choose(t0, &delta(from), &goal), Choice::Forward);
        assert_eq!(selector.choose(t0, &delta(to), &goal), ignored);
        assert_eq!(selector.choose(t0, &key(1), &goal), ignored);
        assert_eq!(selector.choose(t0, &key(to), &goal), Choice::Start);
        assert_eq!(selector.awaited(delta(0).live_layers, &goal), Some(to));
    }
}

#[test]
fn a_dead_layer_is_left_for_the_best_live_one() {
    let t0 = epoch();
    let mut selector = sending(t0, 2);
    let key = live(key(1), &[0, 1]);
    assert_eq!(selector.awaited(key.live_layers, &GOAL), Some(1));
    assert_eq!(selector.choose(t0, &key, &GOAL), Choice::Start);
}

#[test]
fn a_restarted_stream_needs_a_key_frame() {
    let t0 = epoch();
    let mut selector = sending(t0, 2);
    let restarted = |packet: MediaPacket| MediaPacket { epoch: 1, ..packet };
    let ignored = Choice::Ignore(DropReason::AwaitingKeyFrame);
    assert_eq!(selector.choose(t0, &restarted(delta(2)), &GOAL), ignored);
    assert_eq!(selector.choose(t0, &restarted(key(2)), &GOAL), Choice::Start);
}

#[test]
fn temporal_layers_go_down_at_once_and_up_at_a_switching_point() {
    let t0 = epoch();
    let mut selector = sending(t0, 2);
    let low = Goal { temporal: 0, ..GOAL };
    let skipped = Choice::Skip(DropReason::TemporalLayer);

    selector.on_frame(&temporal(2, false), &low);
    assert_eq!(selector.choose(t0, &temporal(2, false), &low), skipped);
    assert_eq!(selector.choose(t0, &temporal(0, false), &low), Choice::Forward);

    selector.on_frame(&temporal(2, false), &GOAL);
    assert_eq!(selector.choose(t0, &temporal(2, false), &GOAL), skipped);
    selector.on_frame(&temporal(1, true), &GOAL);
    assert_eq!(selector.choose(t0, &temporal(1, true), &GOAL), Choice::Forward);
    assert_eq!(selector.choose(t0, &temporal(2, false), &GOAL), skipped);
    selector.on_frame(&temporal(2, true), &GOAL);
    assert_eq!(selector.choose(t0, &temporal(2, true), &GOAL), Choice::Forward);
}

#[test]
fn a_temporal_change_waits_for_the_end_of_the_frame() {
    let t0 = epoch();
    let mut selector = sending(t0, 2);
    let low = Goal { temporal: 0, ..GOAL };
    let mut middle = temporal(2, false);
    middle.info.start_of_frame = false;
    selector.on_frame(&middle, &low);
    assert_eq!(selector.choose(t0, &middle, &low), Choice::Forward);
}

#[test]
fn a_key_frame_brings_all_temporal_layers_back() {
    let t0 = epoch();
    let mut selector = sending(t0, 2);
    selector.on_frame(&temporal(0, false), &Goal { temporal: 0, ..GOAL });
    assert_eq!(selector.current_temporal(), Some(0));
    selector.on_frame(&key(2), &GOAL);
    assert_eq!(selector.current_temporal(), Some(3));
}

#[test]
fn padding_is_skipped_in_the_current_stream_and_never_starts_one() {
    let t0 = epoch();
    let mut padding = key(2);
    padding.payload.len = 0;
    assert_eq!(sending(t0, 2).choose(t0, &padding, &GOAL), Choice::Skip(DropReason::Padding));
    assert!(matches!(simulcast(t0).choose(t0, &padding, &GOAL), Choice::Ignore(_)));
    let mut audio = LayerSelector::Passthrough(Passthrough::default());
    assert!(matches!(audio.choose(t0, &padding, &GOAL), Choice::Ignore(_)));
    assert_eq!(audio.choose(t0, &delta(2), &GOAL), Choice::Start);
    audio.start(&delta(2), &GOAL);
    assert_eq!(audio.choose(t0, &delta(2), &GOAL), Choice::Forward);
    assert_eq!(audio.choose(t0, &padding, &GOAL), Choice::Skip(DropReason::Padding));
}

#[test]
fn what_cannot_be_seen_starts_anywhere() {
    let t0 = epoch();
    let mut blind = LayerSelector::Simulcast(Simulcast::new(t0, true));
    assert_eq!(blind.choose(t0, &delta(2), &GOAL), Choice::Start);
}

#[test]
fn before_the_first_packet_the_wanted_layer_is_asked_for() {
    let t0 = epoch();
    let goal = Goal { spatial: 1, ..GOAL };
    assert_eq!(simulcast(t0).awaited(LayerSet::NONE, &goal), Some(1));
    assert_eq!(sending(t0, 2).awaited(LayerSet::NONE, &goal), None);
}
