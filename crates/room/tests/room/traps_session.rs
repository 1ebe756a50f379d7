//! What clients check strictly about sessions, numbered as in the list of LiveKit's client traps:
//! join, identity, permissions, resume, reconnect storms.

use std::collections::BTreeSet;

use sluice_engine::api::{ChannelLabel, Command, EventKind};
use sluice_proto as proto;
use sluice_proto::leave_request::Action;
use sluice_proto::participant_info::{Kind as ParticipantKind, State};
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_proto::{DisconnectReason, TrackSource};
use sluice_room::{CloseReason, Grants, JoinParams};
use sluice_transport::ChannelSpec;

use crate::only;
use crate::support::*;

fn resume_params(identity: &str) -> JoinParams {
    JoinParams { reconnect: true, ..join_params(identity) }
}

#[test]
fn trap_01_the_first_message_is_join_or_reconnect_or_leave() {
    let mut world = World::new();
    let alice = world.join("alice");
    assert_eq!(names(&world.take(&alice))[0], "join");
    world.answer_pending(&alice);
    world.connect(world.subscriber_peer(&alice));
    let resumed = world.join_with(resume_params("alice"));
    assert_eq!(names(&world.take(&resumed))[0], "reconnect");
    let unknown = world.join_with(resume_params("nobody"));
    assert_eq!(names(&world.take(&unknown)), ["leave"]);
    let single = world.join_with(single_params("single"));
    assert_eq!(names(&world.take(&single))[0], "join");
}

#[test]
fn trap_04_the_join_response_asks_for_pings() {
    let mut world = World::new();
    let alice = world.join("alice");
    let join = only!(world.take(&alice), Join);
    assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
}

#[test]
fn trap_06_sids_carry_the_prefixes_that_clients_parse() {
    let mut world = World::new();
    let alice = world.join("alice");
    let join = only!(world.take(&alice), Join);
    let track = world.add_track(&alice, Kind::Camera.request("cid"));
    let participant = join.participant.unwrap().sid;
    for (sid, prefix) in [(join.room.unwrap().sid, "RM_"), (participant, "PA_"), (track.sid, "TR_")]
    {
        let random = sid.strip_prefix(prefix).expect("the prefix");
        assert!(random.len() >= 12 && random.bytes().all(|b| b.is_ascii_alphanumeric()), "{sid}");
    }
}

#[test]
fn trap_09_the_server_opens_livekits_channels_where_it_offers_and_nowhere_else() {
    let labels: Vec<String> = ChannelSpec::livekit().into_iter().map(|spec| spec.label).collect();
    assert_eq!(labels, ["_reliable", "_lossy", "_data_track"]);
    assert!(ChannelSpec::livekit().iter().all(|spec| spec.negotiated.is_none()));
    let mut world = World::new();
    let alice = world.join("alice");
    world.offer(&alice, 1, offer_sdp("rem1", &[data("0")]));
    let mut single = single_params("single");
    single.publisher_offer = Some(proto::SessionDescription {
        r#type: "offer".into(),
        sdp: offer_sdp("rem1", &[data("0")]),
        ..Default::default()
    });
    world.join_with(single);
    let opens = |command: Command| match command {
        Command::CreatePeer(create) => Some(create.open_channels),
        _ => None,
    };
    let opened: Vec<bool> = world.take_commands().into_iter().filter_map(opens).collect();
    assert_eq!(opened, [true, false, false], "subscriber, publisher, single");
    let channel = ChannelLabel::Other { label: "mine".into(), reliable: true };
    let peer = world.subscriber_peer(&alice);
    world.engine(EventKind::ChannelOpen { peer, channel });
    assert!(!world.closed.contains_key(&alice.session));
}

#[test]
fn trap_12_versions_rise_and_a_rejoin_shows_no_departure_to_clients_that_know() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let mut older = join_params("older");
    older.client_info.protocol = 11;
    let older = world.join_with(older);
    world.activate(&older);
    world.take(&bob);
    let first = world.join_active("alice");
    world.publish(&first, Kind::Microphone);
    let versions: Vec<u32> = updated(&world.take(&bob)).iter().map(|p| p.version).collect();
    assert!(versions.len() >= 2 && versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    world.take(&older);
    world.forget_peers(&first);
    let second = world.join_active("alice");
    let seen: Vec<(String, State)> =
        updated(&world.take(&bob)).iter().map(|p| (p.sid.clone(), p.state())).collect();
    assert_eq!(seen, [(second.sid, State::Active)]);
    let seen: Vec<(String, State)> =
        updated(&world.take(&older)).iter().map(|p| (p.sid.clone(), p.state())).collect();
    assert_eq!(seen[0], (first.sid, State::Disconnected));
}

#[test]
fn trap_13_the_join_response_says_what_may_be_published() {
    let mut world = World::new();
    let mut params = join_params("alice");
    params.grants = Grants {
        can_publish: Some(true),
        can_publish_sources: vec![TrackSource::Microphone],
        ..Grants::default()
    };
    let alice = world.join_with(params);
    let permission =
        only!(world.take(&alice), Join).participant.unwrap().permission.expect("a permission");
    assert!(permission.can_publish && permission.can_subscribe);
    assert_eq!(permission.can_publish_sources, [i32::from(TrackSource::Microphone)]);
}

#[test]
fn trap_14_a_resume_goes_by_identity_restarts_ice_and_an_unknown_one_starts_anew() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.offer(&alice, 1, offer_sdp("rem1", &[data("0")]));
    world.take_commands();
    // No SID, as older clients do.
    let resumed = world.join_with(resume_params("alice"));
    assert_eq!(resumed.sid, alice.sid);
    let heard = world.take(&resumed);
    assert!(position(&heard, "reconnect") < position(&heard, "offer"));
    world.offer(&resumed, 2, offer_sdp("rem2", &[data("0")]));
    let restarts =
        world.take_commands().iter().filter(|c| matches!(c, Command::RestartIce { .. })).count();
    assert_eq!(restarts, 2, "both connections");
    let unknown = world.join_with(resume_params("nobody"));
    let leave = only!(world.take(&unknown), Leave);
    assert_eq!(
        (leave.action(), leave.reason()),
        (Action::Reconnect, DisconnectReason::StateMismatch)
    );
}

#[test]
fn trap_16_old_clients_get_can_reconnect_and_newer_ones_an_action() {
    for (protocol, action) in [(12, 0), (13, Action::Reconnect.into())] {
        let mut world = World::new();
        let mut params = resume_params("alice");
        params.client_info.protocol = protocol;
        let alice = world.join_with(params);
        let leave = only!(world.take(&alice), Leave);
        assert!(leave.can_reconnect);
        assert_eq!(leave.action, action);
    }
    // Who does not know actions resumes when the connection breaks, and only without a leave.
    let mut world = World::new();
    let mut params = join_params("old");
    params.client_info.protocol = 12;
    let old = world.join_with(params);
    world.activate(&old);
    world.fail(world.subscriber_peer(&old));
    assert!(!names(&world.take(&old)).contains(&"leave"));
    assert_eq!(world.closed[&old.session], CloseReason::Resume);
}

#[test]
fn trap_17_the_server_looks_like_a_recent_livekit() {
    let mut world = World::new();
    let alice = world.join("alice");
    let info = only!(world.take(&alice), Join).server_info.expect("server info");
    let parts: Vec<u32> = info.version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(parts >= vec![1, 8, 0], "{}", info.version);
    assert_eq!(info.protocol, 17);
    assert_eq!(info.edition(), proto::server_info::Edition::Standard);
}

#[test]
fn trap_18_peers_see_protocol_capabilities_kind_details_and_attributes_as_they_are() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let mut params = join_params("alice");
    params.kind = ParticipantKind::Agent;
    params.kind_details = vec![proto::participant_info::KindDetail::Forwarded];
    params.attributes = [("key".to_owned(), "value".to_owned())].into();
    params.client_info.client_protocol = 2;
    params.client_info.capabilities = vec![1, 2];
    let alice = world.join_with(params.clone());
    world.activate(&alice);
    let info = updated(&world.take(&bob)).pop().expect("an update");
    assert_eq!((info.client_protocol, info.capabilities), (2, vec![1, 2]));
    assert_eq!(info.kind_details, [i32::from(proto::participant_info::KindDetail::Forwarded)]);
    assert_eq!((info.attributes, info.kind), (params.attributes, params.kind.into()));
}

fn hidden(identity: &str) -> JoinParams {
    let grants = Grants { hidden: true, recorder: true, ..Grants::default() };
    JoinParams { grants, kind: ParticipantKind::Egress, ..join_params(identity) }
}

#[test]
fn trap_28_hidden_participants_are_not_listed_and_receive_everything() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    let recorder = world.join_with(hidden("EG_1"));
    let heard = world.take(&recorder);
    let join = heard.iter().find_map(|m| match m {
        Response::Join(join) => Some(join.clone()),
        _ => None,
    });
    let others = join.expect("a join").other_participants;
    let others: Vec<&str> = others.iter().map(|p| p.identity.as_str()).collect();
    assert_eq!(others, ["alice"]);
    assert!(only!(heard, Offer).sdp.contains(&info.sid));
    let bob = world.join("bob");
    let others = only!(world.take(&bob), Join).other_participants;
    let others: Vec<&str> = others.iter().map(|p| p.identity.as_str()).collect();
    assert_eq!(others, ["alice"]);
}

#[test]
fn trap_31_recorders_are_invisible_flip_the_recording_flag_and_do_not_keep_the_room() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let recorder = world.join_with(hidden("EG_1"));
    world.activate(&recorder);
    let heard = world.take(&alice);
    assert!(updated(&heard).is_empty());
    assert!(only!(heard, RoomUpdate).room.unwrap().active_recording);
    world.signal(&alice, Request::Leave(proto::LeaveRequest::default()));
    assert_eq!(world.room.to_proto().num_participants, 0);
    world.advance_ms(21_000);
    assert!(world.room_closed);
    assert_eq!(only!(world.take(&recorder), Leave).reason(), DisconnectReason::RoomClosed);
}

/// What a client knows of the others: identity, SID, version, state of each it has heard of.
#[derive(Default)]
struct View(std::collections::BTreeMap<String, proto::ParticipantInfo>);

impl View {
    fn hear(&mut self, own: &str, messages: &[Response]) {
        for message in messages {
            let (infos, all) = match message {
                Response::Join(join) => (&join.other_participants, true),
                Response::Update(update) => (&update.participants, false),
                _ => continue,
            };
            if all {
                self.0.clear();
            }
            for info in infos.iter().filter(|info| info.identity != own) {
                let known = self.0.get(&info.identity);
                if known.is_some_and(|k| k.sid == info.sid && k.version > info.version) {
                    continue;
                }
                if info.state() != State::Disconnected {
                    self.0.insert(info.identity.clone(), info.clone());
                } else if known.is_some_and(|known| known.sid == info.sid) {
                    self.0.remove(&info.identity);
                }
            }
        }
    }
}

#[test]
fn trap_33_everyone_agrees_on_everyone_after_a_storm_of_drops_and_resumes() {
    const COUNT: usize = 60;
    let mut world = World::new();
    let mut clients = Vec::new();
    let mut views: Vec<View> = Vec::new();
    for index in 0..COUNT {
        let client = world.join(&format!("p{index}"));
        views.push(View::default());
        views[index].hear(&client.identity, &world.take(&client));
        world.answer_pending(&client);
        world.connect(world.subscriber_peer(&client));
        clients.push(client);
    }
    // Three in ten drop at once; two of three resume, the third starts anew, one leaves.
    for index in (0..COUNT).filter(|index| index % 10 < 3) {
        world.signal_closed(&clients[index]);
    }
    world.signal(&clients[5], Request::Leave(proto::LeaveRequest::default()));
    for index in (0..COUNT).filter(|index| index % 10 < 3) {
        let identity = clients[index].identity.clone();
        let heard_before = world.take(&clients[index]);
        views[index].hear(&identity, &heard_before);
        if index % 10 < 2 {
            clients[index] = world.join_with(resume_params(&identity));
            views[index].hear(&identity, &world.take(&clients[index]));
            world.answer_pending(&clients[index]);
        } else {
            world.forget_peers(&clients[index]);
            clients[index] = world.join(&identity);
            views[index].hear(&identity, &world.take(&clients[index]));
            world.answer_pending(&clients[index]);
            world.connect(world.subscriber_peer(&clients[index]));
        }
    }
    world.advance_ms(10_000);
    let present: Vec<proto::ParticipantInfo> = world.room.list_participants();
    assert_eq!(present.len(), COUNT - 1);
    for (index, client) in clients.iter().enumerate().filter(|(index, _)| *index != 5) {
        views[index].hear(&client.identity, &world.take(client));
        let seen: BTreeSet<(&str, &str)> =
            views[index].0.values().map(|p| (p.identity.as_str(), p.sid.as_str())).collect();
        let others = present.iter().filter(|p| p.identity != client.identity);
        let expected: BTreeSet<(&str, &str)> =
            others.map(|p| (p.identity.as_str(), p.sid.as_str())).collect();
        assert_eq!(seen, expected, "as {} sees it", client.identity);
    }
}

#[test]
fn trap_34_nothing_that_a_client_waits_for_needs_time_to_pass() {
    let mut world = World::new();
    let alice = world.join("alice");
    assert_eq!(names(&world.take(&alice))[..2], ["join", "offer"]);
    world.answer_pending(&alice);
    world.connect(world.subscriber_peer(&alice));
    world.signal(&alice, Request::AddTrack(Kind::Camera.request("cid")));
    world.offer(&alice, 1, offer_sdp("rem1", &[sending(Kind::Camera, "0", "cid")]));
    let heard = names(&world.take(&alice));
    assert!(heard.contains(&"track_published") && heard.contains(&"answer"), "{heard:?}");
}

#[test]
fn trap_35_an_early_offer_with_nothing_but_data_is_answered() {
    let mut world = World::new();
    let alice = world.join("alice");
    assert!(only!(world.take(&alice), Join).fast_publish);
    world.offer(&alice, 1, offer_sdp("rem1", &[data("0")]));
    let answer = only!(world.take(&alice), Answer);
    assert!(answer.sdp.contains("m=application") && !answer.sdp.contains("m=audio"));
    assert_eq!(answer.id, 1);
}
