//! What clients check strictly about tracks and descriptions, numbered as in the list of LiveKit's
//! client traps.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use sluice_engine::api::{ChannelLabel, Command, EventKind};
use sluice_proto as proto;
use sluice_proto::data_packet::Value;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;

use crate::only;
use crate::support::*;

fn joining_offer(id: u32, sections: &[Section]) -> Option<proto::SessionDescription> {
    let sdp = offer_sdp("rem1", sections);
    Some(proto::SessionDescription { r#type: "offer".into(), sdp, id, ..Default::default() })
}

/// Three audio and three video placeholders and data, as clients with one connection begin.
fn placeholders() -> Vec<Section> {
    let mut sections: Vec<Section> =
        (0..3).map(|n| receiving(Kind::Microphone, &n.to_string())).collect();
    sections.extend((3..6).map(|n| receiving(Kind::Camera, &n.to_string())));
    sections.push(data("6"));
    sections
}

fn mids(sdp: &str) -> Vec<(String, String)> {
    let mut result: Vec<(String, String)> = Vec::new();
    for line in sdp.lines() {
        if let Some(kind) = line.strip_prefix("m=") {
            result.push((kind.split(' ').next().unwrap().into(), String::new()));
        } else if let (Some(mid), Some(last)) = (line.strip_prefix("a=mid:"), result.last_mut()) {
            last.1 = mid.into();
        }
    }
    result
}

#[test]
fn trap_05_a_participant_is_announced_before_its_media_and_named_in_the_stream_id() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.take(&bob);
    let (info, _) = world.publish(&alice, Kind::Camera);
    world.advance_ms(1000);
    let heard = world.take(&bob);
    assert!(position(&heard, "update") < position(&heard, "offer"));
    assert_eq!(updated(&heard)[0].tracks[0].sid, info.sid);
    let msid = format!("a=msid:{}|{} {}", alice.sid, info.sid, info.sid);
    assert!(only!(heard, Offer).sdp.contains(&msid));
    // A late joiner finds the publisher in the join response, before the first offer.
    let late = world.join("late");
    let heard = world.take(&late);
    assert!(position(&heard, "join") < position(&heard, "offer"));
    assert_eq!(only!(heard, Join).other_participants.len(), 2);
}

#[test]
fn trap_07_answers_echo_ids_one_offer_is_in_flight_and_sections_keep_their_order() {
    let mut world = World::new();
    let mut params = single_params("single");
    params.publisher_offer = joining_offer(0, &placeholders());
    let single = world.join_with(params);
    assert_eq!(only!(world.take(&single), Answer).id, 0);

    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Microphone);
    world.advance_ms(1000);
    let first = only!(world.take(&bob), Offer);
    let camera = world.add_track(&alice, Kind::Camera.request("camera"));
    let sections =
        [data("0"), sending(Kind::Microphone, "1", "cid"), sending(Kind::Camera, "2", "camera")];
    world.offer(&alice, 2, offer_sdp("rem1", &sections));
    world.advance_ms(5000);
    assert!(!names(&world.take(&bob)).contains(&"offer"), "one is in flight");
    world.answer(&bob, &first);
    world.advance_ms(1000);
    let second = only!(world.take(&bob), Offer);
    assert_eq!(second.id, first.id + 1);
    assert!(second.sdp.contains(&camera.sid));
    let (before, after) = (mids(&first.sdp), mids(&second.sdp));
    assert_eq!(after[..before.len()], before);
}

#[test]
fn trap_08_payload_types_and_extension_ids_mean_the_same_in_every_section_and_offer() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    let mut formats: BTreeMap<String, String> = BTreeMap::new();
    let mut extensions: BTreeMap<String, String> = BTreeMap::new();
    let mut sections = vec![data("0")];
    for (index, kind) in [Kind::Microphone, Kind::Camera, Kind::Camera].into_iter().enumerate() {
        let cid = format!("cid{index}");
        world.add_track(&alice, kind.request(&cid));
        sections.push(sending(kind, &(index + 1).to_string(), &cid));
        world.offer(&alice, 1, offer_sdp("rem1", &sections));
        world.advance_ms(1000);
        let offer = only!(world.take(&bob), Offer);
        let mut kind_now = "";
        for line in offer.sdp.lines() {
            if let Some(section) = line.strip_prefix("m=") {
                kind_now = section.split(' ').next().unwrap();
            }
            for (key, known) in [("a=rtpmap:", &mut formats), ("a=extmap:", &mut extensions)] {
                if let Some((id, meaning)) = line.strip_prefix(key).and_then(|l| l.split_once(' '))
                {
                    let of_kind = if key == "a=extmap:" { "" } else { kind_now };
                    let known = known.entry(format!("{of_kind}{id}")).or_insert(meaning.into());
                    assert_eq!(known, meaning, "{line}");
                }
            }
        }
        let in_bundle = offer.sdp.lines().find(|line| line.starts_with("a=group:BUNDLE")).unwrap();
        assert_eq!(in_bundle.split(' ').count() - 1, mids(&offer.sdp).len());
        assert!(offer.sdp.contains("a=extmap-allow-mixed"));
        let media = mids(&offer.sdp).iter().filter(|(kind, _)| kind != "application").count();
        assert_eq!(offer.sdp.matches("a=rtcp-mux").count(), media);
        world.answer(&bob, &offer);
    }
}

#[test]
fn trap_10_a_track_is_confirmed_once_with_the_clients_id_before_any_media() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.signal(&alice, Request::AddTrack(Kind::Camera.request("my-cid")));
    let published = only!(world.take(&alice), TrackPublished);
    assert_eq!(published.cid, "my-cid");
    world.offer(&alice, 1, offer_sdp("rem1", &[sending(Kind::Camera, "0", "my-cid")]));
    world.advance_ms(20_000);
    assert!(!names(&world.take(&alice)).contains(&"track_published"));
}

#[test]
fn trap_11_a_section_with_another_id_takes_the_track_of_its_kind_and_says_so() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.add_track(&alice, Kind::Microphone.request("audio-cid"));
    let camera = world.add_track(&alice, Kind::Camera.request("video-cid"));
    world.take(&bob);
    world.offer(&alice, 1, offer_sdp("rem1", &[sending(Kind::Camera, "0", "native-id")]));
    let track = updated(&world.take(&bob)).pop().unwrap().tracks.remove(0);
    assert_eq!(track.sid, camera.sid);
    assert_eq!(track.codecs[0].sdp_cid, "native-id");
}

#[test]
fn trap_19_forwarded_reliable_packets_carry_sender_and_sequence() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.join_active("bob");
    world.take_commands();
    let user = proto::UserPacket { payload: Bytes::from_static(b"x"), ..Default::default() };
    for sequence in [1, 2, 2, 1, 3] {
        let value = Some(Value::User(user.clone()));
        let packet = proto::DataPacket { sequence, value, ..Default::default() };
        let (peer, channel) = (world.subscriber_peer(&alice), ChannelLabel::Reliable);
        let payload = packet.encode_to_vec().into();
        world.engine(EventKind::Data { peer, channel, binary: true, payload });
    }
    let sent = |command| match command {
        Command::SendData { payload, .. } => Some(proto::DataPacket::decode(payload).unwrap()),
        _ => None,
    };
    let sent: Vec<proto::DataPacket> = world.take_commands().into_iter().filter_map(sent).collect();
    let sequences: Vec<u32> = sent.iter().map(|packet| packet.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert!(sent.iter().all(|packet| packet.participant_sid == alice.sid));
}

#[test]
fn trap_20_speakers_are_told_as_changes_and_end_with_level_zero() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (_, track) = world.publish(&alice, Kind::Microphone);
    let bob = world.join_active("bob");
    world.engine(EventKind::AudioLevels { levels: vec![(track, 0.5)] });
    assert!(only!(world.take(&bob), SpeakersChanged).speakers[0].active);
    world.engine(EventKind::AudioLevels { levels: vec![(track, 0.5)] });
    assert!(!names(&world.take(&bob)).contains(&"speakers_changed"));
    world.engine(EventKind::AudioLevels { levels: vec![(track, 0.0)] });
    let ended = only!(world.take(&bob), SpeakersChanged).speakers.remove(0);
    assert_eq!((ended.level, ended.active), (0.0, false));
}

#[test]
fn trap_21_wanted_qualities_name_the_codec_shortly_and_every_level() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (_, track) = world.publish(&alice, Kind::Camera);
    world.take(&alice);
    world.engine(EventKind::MaxWanted { track, max_spatial: Some(2) });
    let update = only!(world.take(&alice), SubscribedQualityUpdate);
    assert_eq!(update.subscribed_codecs[0].codec, "vp8");
    let qualities: Vec<i32> =
        update.subscribed_codecs[0].qualities.iter().map(|quality| quality.quality).collect();
    assert_eq!(qualities, [0, 1, 2]);
}

/// A camera section with VP8, and H.264 in both packetization modes.
fn h264_section() -> Section {
    custom(
        "m=video 9 UDP/TLS/RTP/SAVPF 96 102 125\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:96 VP8/90000\r\n\
         a=rtpmap:102 H264/90000\r\n\
         a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
         a=rtpmap:125 H264/90000\r\n\
         a=fmtp:125 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
         a=mid:0\r\na=sendonly\r\na=msid:stream cid\r\n",
    )
}

#[test]
fn trap_22_h264_is_baseline_in_mode_1_and_not_published_by_firefox_on_linux() {
    for (browser, has_h264) in [("Chrome", true), ("Firefox", false)] {
        let mut world = World::new();
        let mut params = join_params("alice");
        params.client_info.browser = browser.into();
        params.client_info.os = "Linux".into();
        let alice = world.join_with(params);
        let join = only!(world.take(&alice), Join);
        let publishable = |c: &proto::Codec| c.mime.eq_ignore_ascii_case("video/h264");
        assert_eq!(join.enabled_publish_codecs.iter().any(publishable), has_h264);
        let mut request = Kind::Camera.request("cid");
        request.simulcast_codecs =
            vec![proto::SimulcastCodec { codec: "h264".into(), ..Default::default() }];
        world.signal(&alice, Request::AddTrack(request));
        world.offer(&alice, 1, offer_sdp("rem1", &[h264_section()]));
        let answer = only!(world.take(&alice), Answer).sdp;
        let mode_1 = "packetization-mode=1;profile-level-id=42e01f";
        assert_eq!(answer.contains(mode_1), has_h264, "{answer}");
        assert_eq!(answer.contains("H264/90000"), has_h264);
    }
}

#[test]
fn trap_23_opus_says_stereo_and_dtx_where_they_are_wanted() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let mut request = Kind::Microphone.request("cid");
    request.stereo = true;
    world.add_track(&alice, request);
    world.offer(&alice, 1, offer_sdp("rem1", &[sending(Kind::Microphone, "0", "cid")]));
    let answer = only!(world.take(&alice), Answer).sdp;
    assert!(answer.contains("usedtx=1") && answer.contains("stereo=1"), "{answer}");
    let bob = world.join("bob");
    assert!(only!(world.take(&bob), Offer).sdp.contains("sprop-stereo=1"));
}

#[test]
fn trap_24_placeholders_and_unknown_attributes_are_answered_and_more_is_asked_only_beyond() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let mut sections = vec![data("0")];
    for index in 1..=4 {
        let cid = format!("cid{index}");
        world.add_track(&alice, Kind::Camera.request(&cid));
        sections.push(sending(Kind::Camera, &index.to_string(), &cid));
    }
    let mut params = single_params("bob");
    params.publisher_offer = joining_offer(1, &placeholders());
    let offer = params.publisher_offer.as_mut().unwrap();
    offer.sdp = offer.sdp.replace(
        "a=rtpmap:96 VP8/90000\r\n",
        "a=rtpmap:96 VP8/90000\r\na=fmtp:96 x-google-start-bitrate=1200\r\na=x-new:thing\r\n",
    );
    let bob = world.join_with(params);
    let answer = only!(world.take(&bob), Answer);
    assert_eq!(answer.sdp.matches("a=inactive").count(), 6, "{}", answer.sdp);
    world.offer(&alice, 1, offer_sdp("rem1", &sections));
    world.advance_ms(1000);
    let asked = only!(world.take(&bob), MediaSectionsRequirement);
    assert_eq!((asked.num_audios, asked.num_videos), (0, 1), "three of four fit");
}

#[test]
fn trap_25_early_settings_are_kept_and_disabling_keeps_the_section() {
    let mut world = World::new();
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    let info = world.add_track(&alice, Kind::Camera.request("cid"));
    let disable = |disabled| {
        Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids: vec![info.sid.clone()],
            disabled,
            ..Default::default()
        })
    };
    world.signal(&bob, disable(true));
    world.offer(&alice, 1, offer_sdp("rem1", &[sending(Kind::Camera, "0", "cid")]));
    world.advance_ms(1000);
    world.answer_offer(&bob);
    assert!(!world.take_subscribes()[0].settings.enabled);
    world.take(&bob);
    world.signal(&bob, disable(false));
    world.signal(&bob, disable(true));
    world.advance_ms(5000);
    let commands = world.take_commands();
    assert!(commands.iter().all(|c| matches!(c, Command::UpdateSubscription { .. })));
    assert_eq!(commands.len(), 2);
    assert!(!names(&world.take(&bob)).contains(&"offer"));
}

#[test]
fn trap_26_only_what_the_server_did_is_told_to_the_publisher() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Microphone);
    world.take(&alice);
    let mute = proto::MuteTrackRequest { sid: info.sid.clone(), muted: true };
    world.signal(&alice, Request::Mute(mute.clone()));
    assert!(world.take(&alice).iter().all(|m| !matches!(m, Response::Mute(_))));
    let request = proto::MuteRoomTrackRequest {
        identity: "alice".into(),
        track_sid: info.sid,
        muted: true,
        ..Default::default()
    };
    world.room.mute_track(world.now, &request).unwrap();
    world.drain();
    assert_eq!(only!(world.take(&alice), Mute), mute);
    world.offer(&alice, 2, offer_sdp("rem1", &[data("0"), idle(Kind::Microphone, "1")]));
    assert!(!names(&world.take(&alice)).contains(&"track_unpublished"));

    let mut world = World::new();
    let alice = world.join_active("alice");
    let (info, _) = world.publish(&alice, Kind::Camera);
    world.take(&alice);
    world.forbid_publishing("alice");
    assert_eq!(only!(world.take(&alice), TrackUnpublished).track_sid, info.sid);
}

#[test]
fn trap_27_every_single_connection_answer_maps_every_section_that_carries_a_track() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let (microphone, _) = world.publish(&alice, Kind::Microphone);
    let mut params = single_params("bob");
    params.publisher_offer = joining_offer(1, &placeholders());
    let bob = world.join_with(params);
    let first = only!(world.take(&bob), Answer).mid_to_track_id;
    assert_eq!(first.values().collect::<Vec<_>>(), [&microphone.sid]);
    let camera = world.add_track(&alice, Kind::Camera.request("camera"));
    let sections =
        [data("0"), sending(Kind::Microphone, "1", "cid"), sending(Kind::Camera, "2", "camera")];
    world.offer(&alice, 2, offer_sdp("rem1", &sections));
    world.advance_ms(1000);
    world.take(&bob);
    for id in 2..4 {
        world.offer(&bob, id, offer_sdp("rem1", &placeholders()));
        let answer = only!(world.take(&bob), Answer);
        let mapped: Vec<&String> = answer.mid_to_track_id.values().collect();
        assert!(mapped.contains(&&microphone.sid) && mapped.contains(&&camera.sid), "{mapped:?}");
        assert_eq!(answer.sdp.matches("a=sendonly").count(), mapped.len());
    }
}

#[test]
fn trap_30_the_go_sdk_gets_packets_of_tracks_that_have_none() {
    let mut world = World::new();
    let mut params = join_params("gopher");
    params.client_info.sdk = proto::client_info::Sdk::Go.into();
    let gopher = world.join_with(params);
    world.activate(&gopher);
    let bob = world.join_active("bob");
    let alice = world.join_active("alice");
    world.publish(&alice, Kind::Microphone);
    world.advance_ms(1000);
    world.take_commands();
    for (client, announce) in [(&gopher, true), (&bob, false)] {
        world.answer_offer(client);
        assert_eq!(world.take_subscribes()[0].announce, announce);
    }
}
