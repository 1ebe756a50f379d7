//! One connection for both directions: the client offers, we ask for more when tracks wait.

use sluice_engine::api::Command;
use sluice_proto as proto;
use sluice_proto::participant_info::State;

use crate::only;
use crate::support::*;

fn placeholders() -> Vec<Section> {
    vec![data("0"), receiving(Kind::Microphone, "1"), receiving(Kind::Camera, "2")]
}

fn joining_offer(id: u32, sections: &[Section]) -> Option<proto::SessionDescription> {
    let sdp = offer_sdp("rem1", sections);
    Some(proto::SessionDescription { r#type: "offer".into(), sdp, id, ..Default::default() })
}

#[test]
fn an_offer_in_the_join_is_answered_with_the_tracks_that_are_there() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, track) = world.publish(&alice, Kind::Camera);
    world.take_commands();
    let mut params = single_params("bob");
    params.publisher_offer = joining_offer(0, &placeholders());
    let bob = world.join_with(params);
    let heard = world.take(&bob);
    assert_eq!(names(&heard)[..2], ["join", "answer"]);
    let answer = only!(heard, Answer);
    assert_eq!(answer.id, 0);
    assert_eq!(answer.mid_to_track_id.get("2"), Some(&info.sid));
    assert!(answer.sdp.contains(&format!("{}|{}", alice.sid, info.sid)));
    let subscribe = world.take_subscribes().remove(0);
    assert_eq!((subscribe.track, &*subscribe.sender.mid), (track, "2"));
}

#[test]
fn tracks_of_the_join_are_confirmed_before_the_answer() {
    let mut world = World::new();
    let mut params = single_params("alice");
    params.add_track_requests = vec![Kind::Microphone.request("cid")];
    params.publisher_offer = joining_offer(3, &[data("0"), sending(Kind::Microphone, "1", "cid")]);
    let alice = world.join_with(params);
    let heard = world.take(&alice);
    assert_eq!(names(&heard)[..3], ["join", "track_published", "answer"]);
    assert!(world.last_receive().sections[0].track.is_some());
}

#[test]
fn a_track_that_fits_into_a_free_section_asks_for_a_plain_offer() {
    let mut world = World::new();
    let mut params = single_params("bob");
    params.publisher_offer = joining_offer(1, &placeholders());
    let bob = world.join_with(params);
    world.take(&bob);
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    world.advance_ms(1000);
    let heard = world.take(&bob);
    assert!(position(&heard, "update") < position(&heard, "media_sections_requirement"));
    let requirement = only!(heard, MediaSectionsRequirement);
    assert_eq!((requirement.num_audios, requirement.num_videos), (0, 0));
    world.take_commands();
    world.offer(&bob, 2, offer_sdp("rem1", &placeholders()));
    let answer = only!(world.take(&bob), Answer);
    assert_eq!(answer.mid_to_track_id.get("2"), Some(&info.sid));
    assert_eq!(world.take_subscribes().len(), 1);
}

#[test]
fn a_track_without_a_free_section_asks_for_one_more() {
    let mut world = World::new();
    let mut params = single_params("bob");
    params.publisher_offer = joining_offer(1, &[data("0")]);
    let bob = world.join_with(params);
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Camera);
    world.advance_ms(1000);
    let requirement = only!(world.take(&bob), MediaSectionsRequirement);
    assert_eq!((requirement.num_audios, requirement.num_videos), (0, 1));
    // It is not asked for twice.
    world.advance_ms(5000);
    assert!(!names(&world.take(&bob)).contains(&"media_sections_requirement"));
}

#[test]
fn an_unsubscribed_track_leaves_the_map_with_the_next_answer() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    let mut params = single_params("bob");
    params.publisher_offer = joining_offer(1, &placeholders());
    let bob = world.join_with(params);
    world.take(&bob);
    world.signal(
        &bob,
        proto::signal_request::Message::Subscription(proto::UpdateSubscription {
            track_sids: vec![info.sid],
            ..Default::default()
        }),
    );
    world.advance_ms(1000);
    let requirement = only!(world.take(&bob), MediaSectionsRequirement);
    assert_eq!((requirement.num_audios, requirement.num_videos), (0, 0));
    world.offer(&bob, 2, offer_sdp("rem1", &placeholders()));
    assert!(only!(world.take(&bob), Answer).mid_to_track_id.is_empty());
}

#[test]
fn the_client_becomes_active_with_its_only_connection() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let mut params = single_params("bob");
    params.publisher_offer = joining_offer(1, &placeholders());
    let bob = world.join_with(params);
    world.take(&alice);
    world.connect(world.subscriber_peer(&bob));
    let participant = updated(&world.take(&alice)).remove(0);
    assert_eq!((participant.identity.as_str(), participant.state()), ("bob", State::Active));
}

#[test]
fn the_connection_is_made_for_the_workers_with_the_first_offer() {
    let mut world = World::new();
    let bob = world.join_with(single_params("bob"));
    assert!(world.take_commands().is_empty());
    world.offer(&bob, 1, offer_sdp("rem1", &placeholders()));
    let commands = world.take_commands();
    let Command::CreatePeer(create) = &commands[0] else { panic!("{commands:?}") };
    assert!(!create.open_channels);
}
