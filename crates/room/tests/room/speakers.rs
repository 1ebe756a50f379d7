//! Speakers: deltas, to those who listen.

use std::time::Duration;

use sluice_engine::api::EventKind;
use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::simulate_scenario::Scenario;

use crate::only;
use crate::support::*;

#[test]
fn listeners_and_the_speaker_hear_changes_only() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (_, track) = world.publish(&alice, Kind::Microphone);
    let bob = world.join_active("bob");
    let mut deaf = join_params("deaf");
    deaf.options.auto_subscribe = false;
    let deaf = world.join_with(deaf);
    for client in [&alice, &bob, &deaf] {
        world.take(client);
    }
    let levels = |level| EventKind::AudioLevels { levels: vec![(track, level)] };
    world.engine(levels(0.3));
    for client in [&alice, &bob] {
        let speaker = only!(world.take(client), SpeakersChanged).speakers.remove(0);
        assert_eq!(
            (speaker.sid.as_str(), speaker.level, speaker.active),
            (&*alice.sid, 0.375, true)
        );
    }
    assert!(world.take(&deaf).is_empty());
    // The same eighth.
    world.engine(levels(0.35));
    assert!(world.take(&bob).is_empty());
    world.engine(EventKind::AudioLevels { levels: Vec::new() });
    world.advance(Duration::from_secs(2));
    let speaker = only!(world.take(&bob), SpeakersChanged).speakers.remove(0);
    assert_eq!((speaker.level, speaker.active), (0.0, false));
}

#[test]
fn a_new_listener_hears_of_a_speech_that_goes_on_and_who_unsubscribes_of_its_end() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, track) = world.publish(&alice, Kind::Microphone);
    world.engine(EventKind::AudioLevels { levels: vec![(track, 0.5)] });
    let bob = world.join("bob");
    world.answer_offer(&bob);
    assert!(only!(world.take(&bob), SpeakersChanged).speakers[0].active);
    world.signal(
        &bob,
        Request::Subscription(proto::UpdateSubscription {
            track_sids: vec![info.sid],
            ..Default::default()
        }),
    );
    assert!(!only!(world.take(&bob), SpeakersChanged).speakers[0].active);
}

#[test]
fn a_muted_microphone_does_not_speak() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, track) = world.publish(&alice, Kind::Microphone);
    let mute = proto::MuteTrackRequest { sid: info.sid, muted: true };
    world.signal(&alice, Request::Mute(mute));
    world.take(&alice);
    world.engine(EventKind::AudioLevels { levels: vec![(track, 0.5)] });
    assert!(world.take(&alice).is_empty());
}

#[test]
fn simulated_speech_begins_and_ends_for_everyone() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.take(&bob);
    let scenario = Some(Scenario::SpeakerUpdate(3));
    world.signal(&alice, Request::Simulate(proto::SimulateScenario { scenario }));
    let speaker = only!(world.take(&bob), SpeakersChanged).speakers.remove(0);
    assert!(speaker.active && speaker.level > 0.5);
    world.advance(Duration::from_millis(3100));
    assert!(!only!(world.take(&bob), SpeakersChanged).speakers[0].active);
}
