//! Publishing: announcing, matching with media sections, telling the others, ending.

use sluice_engine::api::Command;
use sluice_proto as proto;
use sluice_proto::request_response::Reason;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;

use crate::only;
use crate::support::*;

#[test]
fn an_announced_track_is_confirmed_at_once_with_the_clients_id() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.signal(&alice, Request::AddTrack(Kind::Camera.request("my-cid")));
    let published = only!(world.take(&alice), TrackPublished);
    assert_eq!(published.cid, "my-cid");
    let track = published.track.unwrap();
    assert!(track.sid.starts_with("TR_VC"));
    assert_eq!((track.name.as_str(), track.width, track.height), ("a track", 1280, 720));
    assert_eq!(track.source(), proto::TrackSource::Camera);
}

#[test]
fn others_hear_of_a_track_when_its_media_section_comes() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    let info = world.add_track(&alice, Kind::Microphone.request("cid"));
    assert!(world.take(&bob).is_empty());
    let sections = [data("0"), sending(Kind::Microphone, "1", "cid")];
    world.offer(&alice, 4, offer_sdp("rem1", &sections));
    let answer = only!(world.take(&alice), Answer);
    assert_eq!((answer.id, answer.r#type.as_str()), (4, "answer"));
    assert!(answer.mid_to_track_id.is_empty());
    let participant = updated(&world.take(&bob)).remove(0);
    assert!(participant.is_publisher);
    let track = &participant.tracks[0];
    assert_eq!(track.sid, info.sid);
    assert_eq!((track.mime_type.as_str(), track.mid.as_str()), ("audio/opus", "1"));
    assert_eq!(track.codecs[0].mime_type, "audio/opus");
    assert!(track.codecs[0].sdp_cid.is_empty());
    assert!(track.version.is_some());
}

#[test]
fn workers_learn_what_the_client_may_send() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.add_track(&alice, Kind::Camera.request("cid"));
    world.take_commands();
    world.offer(&alice, 1, offer_sdp("rem1", &[data("0"), simulcast("1", "cid")]));
    let commands = world.take_commands();
    let order: Vec<&str> = commands
        .iter()
        .map(|command| match command {
            Command::CreatePeer(_) => "create",
            Command::SetRemote { .. } => "remote",
            Command::SetReceive { .. } => "receive",
            _ => "other",
        })
        .collect();
    assert_eq!(order, ["create", "remote", "receive"]);
    let Command::SetReceive { receive, .. } = &commands[2] else { unreachable!() };
    let section = &receive.sections[0];
    assert_eq!(section.rids, ["q", "h", "f"]);
    assert_eq!((section.payload_types[0].pt, section.payload_types[0].rtx_pt), (96, Some(97)));
    assert!(section.track.is_some_and(|track| !track.encrypted && !track.microphone));
    assert!(section.nack && section.transport_cc);
}

#[test]
fn a_section_with_another_id_takes_the_first_track_of_its_kind() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    world.add_track(&alice, Kind::Microphone.request("mic"));
    let camera = world.add_track(&alice, Kind::Camera.request("cam"));
    world.offer(&alice, 1, offer_sdp("rem1", &[sending(Kind::Camera, "0", "other")]));
    let participant = updated(&world.take(&bob)).remove(0);
    assert_eq!(participant.tracks.len(), 1);
    assert_eq!(participant.tracks[0].sid, camera.sid);
    assert_eq!(participant.tracks[0].codecs[0].sdp_cid, "other");
}

#[test]
fn ids_win_over_the_order_of_announcements() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    let first = world.add_track(&alice, Kind::Camera.request("first"));
    let second = world.add_track(&alice, Kind::Camera.request("second"));
    let sections = [sending(Kind::Camera, "0", "second"), sending(Kind::Camera, "1", "first")];
    world.offer(&alice, 1, offer_sdp("rem1", &sections));
    let participant = updated(&world.take(&bob)).pop().unwrap();
    let mids: Vec<(&str, &str)> =
        participant.tracks.iter().map(|t| (t.sid.as_str(), t.mid.as_str())).collect();
    assert!(mids.contains(&(first.sid.as_str(), "1")));
    assert!(mids.contains(&(second.sid.as_str(), "0")));
}

#[test]
fn an_announcement_after_the_offer_takes_the_waiting_section() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    world.offer(&alice, 1, offer_sdp("rem1", &[sending(Kind::Microphone, "0", "cid")]));
    assert!(world.last_receive().sections[0].track.is_none());
    world.add_track(&alice, Kind::Microphone.request("cid"));
    assert!(world.last_receive().sections[0].track.is_some());
    assert_eq!(updated(&world.take(&bob))[0].tracks.len(), 1);
}

#[test]
fn a_section_that_stops_sending_ends_its_track() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    let (_, track) = world.publish(&alice, Kind::Microphone);
    world.take(&bob);
    world.take_commands();
    world.offer(&alice, 2, offer_sdp("rem1", &[data("0"), idle(Kind::Microphone, "1")]));
    let unpublished =
        |command: &Command| matches!(command, Command::Unpublish { track: t } if *t == track);
    assert!(world.take_commands().iter().any(unpublished));
    assert!(updated(&world.take(&bob))[0].tracks.is_empty());
}

#[test]
fn the_same_id_waits_until_the_earlier_track_has_ended() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (first, _) = world.publish(&alice, Kind::Microphone);
    world.take(&alice);
    world.signal(&alice, Request::AddTrack(Kind::Microphone.request("cid")));
    assert_eq!(only!(world.take(&alice), RequestResponse).reason(), Reason::Queued);
    world.offer(&alice, 2, offer_sdp("rem1", &[data("0"), idle(Kind::Microphone, "1")]));
    let published = only!(world.take(&alice), TrackPublished);
    assert_ne!(published.track.unwrap().sid, first.sid);
}

#[test]
fn the_number_of_pending_tracks_is_bounded() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    for index in 0..20 {
        world.add_track(&alice, Kind::Microphone.request(&index.to_string()));
    }
    world.signal(&alice, Request::AddTrack(Kind::Microphone.request("one more")));
    let response = only!(world.take(&alice), RequestResponse);
    assert_eq!(response.reason(), Reason::LimitExceeded);
    let Some(proto::request_response::Request::AddTrack(request)) = response.request else {
        panic!("the request is echoed");
    };
    assert_eq!(request.cid, "one more");
}

#[test]
fn tracks_need_permission_for_their_source() {
    let mut world = World::new();
    let mut params = join_params("alice");
    params.grants.can_publish_sources = vec![proto::TrackSource::Microphone];
    let alice = world.join_with(params);
    world.activate(&alice);
    world.signal(&alice, Request::AddTrack(Kind::Camera.request("cid")));
    assert_eq!(only!(world.take(&alice), RequestResponse).reason(), Reason::NotAllowed);
    world.add_track(&alice, Kind::Microphone.request("cid"));
}

#[test]
fn a_backup_codec_is_added_to_the_track_it_names() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    let mut request = Kind::Camera.request("backup");
    request.sid = info.sid.clone();
    request.simulcast_codecs = vec![proto::SimulcastCodec {
        codec: "h264".into(),
        cid: "c2".into(),
        ..Default::default()
    }];
    let again = world.add_track(&alice, request.clone());
    assert_eq!(again.sid, info.sid);
    assert_eq!(again.codecs[1].mime_type, "video/H264");
    request.sid = "TR_unknown".into();
    world.signal(&alice, Request::AddTrack(request));
    assert_eq!(only!(world.take(&alice), RequestResponse).reason(), Reason::NotFound);
}

#[test]
fn participant_versions_rise() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    let (info, _) = world.publish(&alice, Kind::Microphone);
    let mute = proto::MuteTrackRequest { sid: info.sid, muted: true };
    world.signal(&alice, Request::Mute(mute));
    let versions: Vec<u32> = updated(&world.take(&bob)).iter().map(|p| p.version).collect();
    assert!(versions.len() >= 2 && versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

#[test]
fn a_muted_track_is_not_echoed_to_its_publisher() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    let (info, track) = world.publish(&alice, Kind::Camera);
    world.take(&alice);
    world.take(&bob);
    world.take_commands();
    let mute = proto::MuteTrackRequest { sid: info.sid, muted: true };
    world.signal(&alice, Request::Mute(mute));
    assert!(world.take(&alice).iter().all(|m| !matches!(m, Response::Mute(_))));
    assert!(updated(&world.take(&bob))[0].tracks[0].muted);
    let commands = world.take_commands();
    assert!(
        commands
            .iter()
            .any(|c| matches!(c, Command::SetTrackMuted { track: t, muted: true } if *t == track))
    );
    let unknown = proto::MuteTrackRequest { sid: "TR_unknown".into(), muted: true };
    world.signal(&alice, Request::Mute(unknown));
    assert_eq!(only!(world.take(&alice), RequestResponse).reason(), Reason::NotFound);
}

#[test]
fn a_track_that_was_announced_muted_is_muted_for_the_workers() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let mut request = Kind::Microphone.request("cid");
    request.muted = true;
    world.add_track(&alice, request);
    world.take_commands();
    world.offer(&alice, 1, offer_sdp("rem1", &[sending(Kind::Microphone, "0", "cid")]));
    let muted = |c: &Command| matches!(c, Command::SetTrackMuted { muted: true, .. });
    assert!(world.take_commands().iter().any(muted));
}
