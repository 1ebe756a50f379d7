//! Redundant audio: who is asked for it, and who is offered it.

use sluice_engine::api::Subscribe;
use sluice_proto as proto;
use sluice_rtp::codec::Codec;

use crate::only;
use crate::support::*;

/// Formats of the first audio section of a description, in order.
fn audio_formats(sdp: &str) -> Vec<&str> {
    let line = sdp.lines().find(|line| line.starts_with("m=audio")).expect("an audio section");
    line.split_whitespace().skip(3).collect()
}

/// Alice publishes a microphone; returns the answer, what others see of the track, and what the
/// workers were told about Bob's subscription.
fn publish(
    world: &mut World,
    bob: proto::ClientInfo,
    request: proto::AddTrackRequest,
    section: Section,
) -> (String, proto::TrackInfo, Option<Subscribe>) {
    let mut params = join_params("bob");
    params.client_info = proto::ClientInfo { protocol: PROTOCOL, ..bob };
    let bob = world.join_with(params);
    world.activate(&bob);
    let alice = world.join_active("alice");
    world.take(&bob);
    world.add_track(&alice, request);
    world.offer(&alice, 1, offer_sdp("rem1", &[data("0"), section]));
    let answer = only!(world.take(&alice), Answer).sdp;
    world.advance_ms(1000);
    let info = updated(&world.take(&bob)).remove(0).tracks.remove(0);
    world.take_commands();
    world.answer_pending(&bob);
    (answer, info, world.take_subscribes().pop())
}

fn microphone() -> proto::AddTrackRequest {
    Kind::Microphone.request("cid")
}

#[test]
fn a_client_that_can_is_asked_for_red_and_so_are_receivers() {
    let mut world = World::new();
    let (answer, info, subscribe) =
        publish(&mut world, Default::default(), microphone(), sending_red("1", "cid"));
    assert_eq!(audio_formats(&answer), ["63", "111"]);
    assert_eq!(info.mime_type, "audio/red");
    let sender = subscribe.expect("bob is subscribed").sender;
    assert_eq!((sender.codec, sender.pt, sender.red_primary_pt), (Codec::Red, 63, Some(111)));
    assert!(!sender.nack);
}

#[test]
fn browsers_without_red_get_plain_opus() {
    for browser in ["Firefox", "Safari"] {
        let mut world = World::new();
        let bob = proto::ClientInfo { browser: browser.into(), ..Default::default() };
        let (_, _, subscribe) = publish(&mut world, bob, microphone(), sending_red("1", "cid"));
        let sender = subscribe.expect("bob is subscribed").sender;
        assert_eq!((sender.codec, sender.pt, sender.red_primary_pt), (Codec::Opus, 111, None));
    }
}

#[test]
fn tracks_without_red_or_with_encryption_stay_plain() {
    let disabled = proto::AddTrackRequest { disable_red: true, ..microphone() };
    let gcm = proto::encryption::Type::Gcm.into();
    let encrypted = proto::AddTrackRequest { encryption: gcm, ..microphone() };
    for request in [disabled, encrypted] {
        let mut world = World::new();
        let (answer, info, subscribe) =
            publish(&mut world, Default::default(), request, sending_red("1", "cid"));
        assert_eq!(audio_formats(&answer)[0], "111");
        assert_eq!(info.mime_type, "audio/opus");
        assert_eq!(subscribe.expect("bob is subscribed").sender.codec, Codec::Opus);
    }
}

#[test]
fn plain_opus_is_offered_with_red_only_where_the_server_adds_it() {
    for (active_red_encoding, codec) in [(false, Codec::Opus), (true, Codec::Red)] {
        let config = sluice_room::RoomConfig { active_red_encoding, ..Default::default() };
        let mut world = World::with(config, Default::default());
        let section = sending(Kind::Microphone, "1", "cid");
        let (answer, info, subscribe) =
            publish(&mut world, Default::default(), microphone(), section);
        assert_eq!(audio_formats(&answer), ["111"]);
        assert_eq!(info.mime_type, "audio/opus");
        assert_eq!(subscribe.expect("bob is subscribed").sender.codec, codec);
    }
}
