//! Clients that offer once and hear nothing more: WHIP publishers and WHEP players.

use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;

use crate::only;
use crate::support::*;

fn one_shot_params(identity: &str, sections: &[Section]) -> sluice_room::JoinParams {
    let mut params = single_params(identity);
    params.options.one_shot = true;
    params.publisher_offer = Some(proto::SessionDescription {
        r#type: "offer".into(),
        sdp: offer_sdp("rem1", sections),
        id: 1,
        ..Default::default()
    });
    params
}

#[test]
fn player_gets_tracks_that_come_later_without_being_asked_to_offer() {
    let mut world = World::new();
    let sections = [receiving(Kind::Microphone, "0"), receiving(Kind::Camera, "1")];
    let player = world.join_with(one_shot_params("player", &sections));
    let answer = only!(world.take(&player), Answer);
    assert_eq!(answer.sdp.matches("a=sendonly").count(), 2, "{}", answer.sdp);
    world.take_commands();

    let alice = world.join_active("alice");
    let (_, first) = world.publish(&alice, Kind::Camera);
    world.advance_ms(1000);
    let subscribe = world.take_subscribes().remove(0);
    assert_eq!((subscribe.track, &*subscribe.sender.mid), (first, "1"));
    let heard = names(&world.take(&player)).join(" ");
    assert!(!heard.contains("media_sections_requirement") && !heard.contains("answer"), "{heard}");

    // The section goes to the next track when the first one ends.
    world.signal(&alice, Request::Leave(proto::LeaveRequest::default()));
    let bob = world.join_active("bob");
    let (_, second) = world.publish(&bob, Kind::Camera);
    world.advance_ms(1000);
    let subscribe = world.take_subscribes().remove(0);
    assert_eq!((subscribe.track, &*subscribe.sender.mid), (second, "1"));
}

#[test]
fn client_whose_media_fails_is_gone_at_once() {
    let mut world = World::new();
    let params = one_shot_params("camera", &[receiving(Kind::Camera, "0")]);
    let camera = world.join_with(params);
    let peer = world.subscriber_peer(&camera);
    world.connect(peer);
    world.fail(peer);
    assert!(world.room.list_participants().is_empty());
    assert!(names(&world.take(&camera)).contains(&"leave"));
}
