//! A video track in several codecs: what its publisher is asked for, and which codec each receiver
//! gets.

use std::time::Duration;

use sluice_engine::api::{Command, EventKind, Subscribe, TrackId};
use sluice_proto as proto;
use sluice_proto::BackupCodecPolicy::{self, PreferRegression, Regression, Simulcast};
use sluice_proto::client_info::Sdk;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_room::{JoinParams, RoomConfig, RoomSettings};
use sluice_rtp::codec::Codec;

use crate::only;
use crate::support::*;

/// A section with VP9 and VP8, the given one first.
fn both_codecs(mid: &str, direction: &str, first: &str, more: &str) -> Section {
    let formats = if first == "VP9" { "98 96" } else { "96 98" };
    let codec = |pt: u8, name: &str| {
        format!(
            "a=rtpmap:{pt} {name}/90000\r\na=rtcp-fb:{pt} nack\r\na=rtcp-fb:{pt} nack pli\r\n\
             a=rtcp-fb:{pt} transport-cc\r\n"
        )
    };
    custom(&format!(
        "m=video 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 0.0.0.0\r\n{}{}\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
         a=rtcp-mux\r\na=rtcp-rsize\r\na=mid:{mid}\r\na={direction}\r\n{more}",
        codec(98, "VP9"),
        codec(96, "VP8"),
    ))
}

fn camera(mid: &str, track: &str) -> Section {
    both_codecs(mid, "sendonly", "VP8", &format!("a=msid:stream {track}\r\n"))
}

fn codec(codec: &str, cid: &str) -> proto::SimulcastCodec {
    proto::SimulcastCodec { codec: codec.into(), cid: cid.into(), ..Default::default() }
}

fn layers() -> Vec<proto::VideoLayer> {
    let sizes = [(320, 180), (640, 360), (1280, 720)];
    let layer = |(quality, (width, height))| proto::VideoLayer {
        quality,
        width,
        height,
        ..Default::default()
    };
    (0..3).zip(sizes).map(layer).collect()
}

/// A camera in VP9 whose publisher can send VP8 as well.
struct Stage {
    world: World,
    alice: Client,
    sid: String,
    track: TrackId,
}

impl Stage {
    fn new(policy: BackupCodecPolicy, config: RoomConfig) -> Self {
        let mut world = World::with(config, RoomSettings::default());
        let alice = world.join_active("alice");
        let mut request = Kind::Camera.request("cid");
        request.simulcast_codecs = vec![codec("vp9", "cid"), codec("vp8", "")];
        request.layers = layers();
        request.backup_codec_policy = policy.into();
        let info = world.add_track(&alice, request);
        world.offer(&alice, 1, offer_sdp("rem1", &[data("0"), camera("1", "cid")]));
        let receive = world.last_receive();
        assert_eq!(receive.sections[0].payload_types[0].codec, Codec::Vp9);
        let track = receive.sections[0].track.unwrap().track;
        world.take(&alice);
        Self { world, alice, sid: info.sid, track }
    }

    fn with(policy: BackupCodecPolicy) -> Self {
        Self::new(policy, RoomConfig::default())
    }

    /// Joins, and answers our offers without a codec.
    fn receiver(&mut self, identity: &str, sdk: Sdk, cannot: &str) -> Client {
        self.receiver_with(join_params(identity), sdk, cannot)
    }

    /// The same for one that asks to be spared.
    fn low_power_receiver(&mut self, identity: &str, sdk: Sdk, cannot: &str) -> Client {
        let mut params = join_params(identity);
        params.attributes.insert("low_power".into(), "true".into());
        params.grants.can_update_own_metadata = Some(true);
        self.receiver_with(params, sdk, cannot)
    }

    fn receiver_with(&mut self, mut params: JoinParams, sdk: Sdk, cannot: &str) -> Client {
        params.client_info.sdk = sdk.into();
        let client = self.world.join_with(params);
        let offer = only!(self.world.take(&client), Offer);
        self.answer_without(&client, &offer, cannot);
        client
    }

    fn answer_without(&mut self, client: &Client, offer: &proto::SessionDescription, cannot: &str) {
        let sdp = answer_sdp(&offer.sdp).replace(&format!("{cannot}/90000"), "H263/90000");
        let answer = proto::SessionDescription {
            r#type: "answer".into(),
            sdp,
            id: offer.id,
            ..Default::default()
        };
        self.world.signal(client, Request::Answer(answer));
    }

    /// The publisher sends VP8 too, and is answered. Returns its stream.
    fn publish_backup(&mut self) -> TrackId {
        let mut request = Kind::Camera.request("backup");
        request.sid = self.sid.clone();
        request.simulcast_codecs = vec![codec("vp8", "backup")];
        (request.width, request.height) = (0, 0);
        request.layers = layers().into_iter().take(2).collect();
        let info = self.world.add_track(&self.alice, request);
        assert_eq!(info.sid, self.sid);
        let sections = [data("0"), camera("1", "cid"), camera("2", "backup")];
        self.world.offer(&self.alice.clone(), 2, offer_sdp("rem1", &sections));
        let commands = self.world.take_commands();
        let receive = commands.iter().rev().find_map(|command| match command {
            Command::SetReceive { receive, .. } => Some(receive.clone()),
            _ => None,
        });
        let section = &receive.unwrap().sections[1];
        assert_eq!(section.payload_types[0].codec, Codec::Vp8);
        self.commands(commands);
        section.track.expect("the backup codec is forwarded").track
    }

    /// Puts commands back that a later assertion wants.
    fn commands(&mut self, commands: Vec<Command>) {
        self.world.put_back(commands);
    }

    fn flows(&mut self, backup: TrackId) {
        self.world.engine(EventKind::LayerStarted {
            track: backup,
            layer: 0,
            ssrc: 77,
            rid: None,
            codec: Codec::Vp8,
        });
    }

    fn max_wanted(&mut self, track: TrackId, max_spatial: Option<u8>) {
        self.world.engine(EventKind::MaxWanted { track, max_spatial });
    }

    /// What the publisher heard last: each codec with its enabled qualities.
    fn told(&mut self) -> Option<Vec<(String, usize)>> {
        let heard = self.world.take(&self.alice);
        let update = heard.into_iter().rev().find_map(|message| match message {
            Response::SubscribedQualityUpdate(update) => Some(update),
            _ => None,
        })?;
        assert_eq!(update.track_sid, self.sid);
        assert_eq!(update.subscribed_qualities, update.subscribed_codecs[0].qualities);
        let enabled = |codec: &proto::SubscribedCodec| {
            assert_eq!(codec.qualities.len(), 3);
            codec.qualities.iter().filter(|quality| quality.enabled).count()
        };
        Some(update.subscribed_codecs.iter().map(|c| (c.codec.clone(), enabled(c))).collect())
    }

    fn subscribe(&mut self) -> Subscribe {
        let mut subscribes = self.world.take_subscribes();
        assert_eq!(subscribes.len(), 1, "{subscribes:?}");
        subscribes.remove(0)
    }
}

fn told(codecs: &[(&str, usize)]) -> Option<Vec<(String, usize)>> {
    Some(codecs.iter().map(|&(codec, count)| (codec.to_owned(), count)).collect())
}

#[test]
fn a_receiver_without_the_first_codec_makes_the_publisher_send_its_backup() {
    let mut stage = Stage::with(Simulcast);
    stage.receiver("bob", Sdk::Js, "none");
    let of_bob = stage.subscribe();
    assert_eq!((of_bob.sender.codec, of_bob.track), (Codec::Vp9, stage.track));
    stage.max_wanted(stage.track, Some(2));
    assert_eq!(stage.told(), told(&[("vp9", 3)]));

    let carol = stage.receiver("carol", Sdk::Js, "VP9");
    let heard = stage.world.take(&carol);
    assert!(!names(&heard).contains(&"subscription_response"), "{:?}", names(&heard));
    assert!(stage.world.take_subscribes().is_empty(), "there is no VP8 yet");
    assert_eq!(stage.told(), told(&[("vp9", 3), ("vp8", 3)]));

    let backup = stage.publish_backup();
    let of_carol = stage.subscribe();
    assert_eq!((of_carol.sender.codec, of_carol.track), (Codec::Vp8, backup));
    assert_eq!(of_carol.settings.max_spatial, 1, "the backup has two layers");
    let infos = updated(&stage.world.take(&carol));
    let info = &infos.last().unwrap().tracks[0];
    assert_eq!((info.sid.as_str(), info.mime_type.as_str()), (stage.sid.as_str(), "video/VP9"));
    assert_eq!((info.codecs[0].mid.as_str(), info.codecs[1].mid.as_str()), ("1", "2"));
    assert_eq!(info.codecs[1].cid, "backup");
    assert_eq!(info.codecs[1].layers[1].width, 640, "the size of the first announcement");

    stage.flows(backup);
    assert!(stage.world.take_subscribes().is_empty(), "both codecs go on");
}

#[test]
fn only_who_can_decode_no_codec_is_told_so() {
    let mut stage = Stage::with(PreferRegression);
    let mut params = join_params("carol");
    params.client_info.sdk = Sdk::Js.into();
    let carol = stage.world.join_with(params);
    let mut offer = only!(stage.world.take(&carol), Offer);
    assert!(offer.sdp.contains("VP9/90000") && offer.sdp.contains("VP8/90000"));
    offer.sdp = offer.sdp.replace("VP9/90000", "H261/90000");
    stage.answer_without(&carol, &offer, "VP8");
    let response = only!(stage.world.take(&carol), SubscriptionResponse);
    assert_eq!(response.err(), proto::SubscriptionError::SeCodecUnsupported);
    assert_eq!(stage.told(), None);
}

#[test]
fn the_room_moves_to_the_backup_codec_as_soon_as_it_flows() {
    let mut stage = Stage::with(PreferRegression);
    stage.receiver("bob", Sdk::Js, "none");
    let before = stage.subscribe();
    stage.max_wanted(stage.track, Some(2));
    stage.receiver("carol", Sdk::Js, "VP9");
    let backup = stage.publish_backup();
    stage.subscribe();
    stage.max_wanted(backup, Some(1));
    stage.told();

    stage.flows(backup);
    let commands = stage.world.take_commands();
    let ended = |command: &Command| matches!(command, Command::Unsubscribe { subscription } if *subscription == before.subscription);
    let ended = commands.iter().position(ended).expect("VP9 ends for bob");
    let moved = commands.iter().position(|c| matches!(c, Command::Subscribe(_))).unwrap();
    assert!(ended < moved, "a stream keeps its SSRC: one after the other");
    stage.commands(commands);
    let after = stage.subscribe();
    assert_eq!((after.track, after.sender.codec), (backup, Codec::Vp8));
    assert_eq!(after.sender.mid, before.sender.mid);
    assert_eq!(after.sender.ssrc, before.sender.ssrc);
    assert_ne!(after.sender.pt, before.sender.pt);

    stage.max_wanted(stage.track, None);
    assert_eq!(stage.told(), None, "less is told after a pause");
    stage.world.advance(Duration::from_secs(6));
    assert_eq!(stage.told(), told(&[("vp9", 0), ("vp8", 3)]));

    stage.receiver("dave", Sdk::Js, "none");
    assert_eq!(stage.subscribe().track, backup, "who comes later gets it too");
}

#[test]
fn policy_and_size_of_the_room_decide_about_regression() {
    let moved = |policy, threshold| {
        let config = RoomConfig { codec_regression_threshold: threshold, ..RoomConfig::default() };
        let mut stage = Stage::new(policy, config);
        stage.receiver("bob", Sdk::Js, "none");
        stage.receiver("carol", Sdk::Js, "VP9");
        let backup = stage.publish_backup();
        stage.world.take_commands();
        stage.flows(backup);
        !stage.world.take_subscribes().is_empty()
    };
    assert!(moved(PreferRegression, 4));
    assert!(!moved(PreferRegression, 3), "three are here");
    assert!(moved(PreferRegression, 0), "any number");
    assert!(moved(Regression, 3));
    assert!(!moved(Simulcast, 0));
}

#[test]
fn who_cannot_decode_the_backup_keeps_the_first_codec() {
    let mut stage = Stage::with(Regression);
    stage.receiver("bob", Sdk::Js, "VP8");
    stage.receiver("carol", Sdk::Js, "VP9");
    let backup = stage.publish_backup();
    stage.world.take_commands();
    stage.flows(backup);
    assert!(stage.world.take_commands().is_empty());
}

#[test]
fn a_client_whose_streams_keep_their_codec_is_subscribed_anew() {
    let mut stage = Stage::with(PreferRegression);
    let bob = stage.receiver("bob", Sdk::Go, "none");
    let before = stage.subscribe();
    stage.receiver("carol", Sdk::Js, "VP9");
    let backup = stage.publish_backup();
    stage.world.take_commands();
    stage.world.take(&bob);
    stage.flows(backup);
    assert!(stage.world.take_subscribes().is_empty(), "it needs an offer first");
    stage.world.advance_ms(200);
    let offer = only!(stage.world.take(&bob), Offer);
    stage.world.answer(&bob, &offer);
    let after = stage.subscribe();
    assert_eq!((after.track, after.sender.codec), (backup, Codec::Vp8));
    assert_ne!(after.sender.ssrc, before.sender.ssrc);
}

#[test]
fn a_backup_codec_that_nobody_needs_any_more_is_turned_off() {
    let mut stage = Stage::with(Simulcast);
    stage.receiver("bob", Sdk::Js, "none");
    stage.max_wanted(stage.track, Some(2));
    let carol = stage.receiver("carol", Sdk::Js, "VP9");
    assert_eq!(stage.told(), told(&[("vp9", 3), ("vp8", 3)]));
    let unsubscribe = proto::UpdateSubscription {
        track_sids: vec![stage.sid.clone()],
        subscribe: false,
        ..Default::default()
    };
    stage.world.signal(&carol, Request::Subscription(unsubscribe));
    assert_eq!(stage.told(), None);
    stage.world.advance(Duration::from_secs(6));
    assert_eq!(stage.told(), told(&[("vp9", 3), ("vp8", 0)]));
}

#[test]
fn settings_count_while_a_codec_is_waited_for() {
    let mut stage = Stage::with(Simulcast);
    let carol = stage.receiver("carol", Sdk::Js, "VP9");
    assert_eq!(stage.told(), told(&[("vp9", 3), ("vp8", 3)]));
    let low = proto::UpdateTrackSettings {
        track_sids: vec![stage.sid.clone()],
        width: 320,
        height: 180,
        ..Default::default()
    };
    stage.world.signal(&carol, Request::TrackSetting(low));
    stage.world.advance(Duration::from_secs(6));
    assert_eq!(stage.told(), told(&[("vp9", 3), ("vp8", 1)]));
    stage.publish_backup();
    assert_eq!(stage.subscribe().settings.max_spatial, 0);
}

#[test]
fn a_mute_and_an_end_concern_every_codec() {
    let mut stage = Stage::with(Simulcast);
    stage.receiver("carol", Sdk::Js, "VP9");
    let backup = stage.publish_backup();
    stage.world.take_commands();
    let mute = proto::MuteTrackRequest { sid: stage.sid.clone(), muted: true };
    stage.world.signal(&stage.alice.clone(), Request::Mute(mute));
    let muted: Vec<TrackId> = (stage.world.take_commands().iter())
        .filter_map(|command| match command {
            Command::SetTrackMuted { track, muted: true } => Some(*track),
            _ => None,
        })
        .collect();
    assert_eq!(muted, [stage.track, backup]);

    let ended = |mid: &str| both_codecs(mid, "inactive", "VP8", "");
    let sections = [data("0"), ended("1"), ended("2")];
    stage.world.offer(&stage.alice.clone(), 3, offer_sdp("rem1", &sections));
    let ended: Vec<TrackId> = (stage.world.take_commands().iter())
        .filter_map(|command| match command {
            Command::Unpublish { track } => Some(*track),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [stage.track, backup]);
    assert!(stage.world.room.describe().tracks.is_empty());
}

#[test]
fn when_the_backup_ends_the_first_codec_is_back() {
    let mut stage = Stage::with(PreferRegression);
    stage.receiver("bob", Sdk::Js, "none");
    stage.receiver("carol", Sdk::Js, "VP9");
    let backup = stage.publish_backup();
    stage.flows(backup);
    stage.max_wanted(stage.track, None);
    stage.world.advance(Duration::from_secs(6));
    stage.told();
    stage.world.take_commands();
    let sections = [data("0"), camera("1", "cid"), both_codecs("2", "inactive", "VP8", "")];
    stage.world.offer(&stage.alice.clone(), 3, offer_sdp("rem1", &sections));
    let back = stage.subscribe();
    assert_eq!((back.track, back.sender.codec), (stage.track, Codec::Vp9));
    stage.max_wanted(stage.track, Some(2));
    assert_eq!(stage.told(), told(&[("vp9", 3), ("vp8", 3)]), "carol still waits for VP8");
    let again = stage.publish_backup();
    assert_ne!(again, backup);
    let descriptions = stage.world.room.describe();
    assert_eq!(descriptions.tracks[0].backups, ["video/VP8"]);
    assert_eq!(descriptions.tracks[0].regressed, None, "until it flows");
}

#[test]
fn a_single_connection_chooses_among_the_offered_codecs() {
    let mut stage = Stage::with(Simulcast);
    let mut params = single_params("bob");
    params.client_info.sdk = Sdk::Js.into();
    let bob = stage.world.join_with(params);
    stage.world.offer(&bob, 1, offer_sdp("rem2", &[data("0"), receiving(Kind::Camera, "1")]));
    let answer = only!(stage.world.take(&bob), Answer);
    assert!(answer.sdp.contains("VP8/90000"));
    assert!(stage.world.take_subscribes().is_empty());
    assert_eq!(stage.told(), told(&[("vp9", 3), ("vp8", 3)]));
    let backup = stage.publish_backup();
    assert_eq!(stage.subscribe().track, backup);

    let mut params = single_params("carol");
    params.client_info.sdk = Sdk::Js.into();
    let carol = stage.world.join_with(params);
    let both = both_codecs("1", "recvonly", "VP8", "");
    stage.world.offer(&carol, 1, offer_sdp("rem3", &[data("0"), both]));
    assert_eq!(stage.subscribe().track, stage.track, "the first codec is wanted most");
}

/// Says whether a receiver asks to be spared.
fn low_power(value: &str) -> Request {
    let attributes = [("low_power".to_owned(), value.to_owned())].into_iter().collect();
    Request::UpdateMetadata(proto::UpdateParticipantMetadata { attributes, ..Default::default() })
}

#[test]
fn a_low_power_receiver_moves_to_the_codec_that_costs_it_less() {
    let mut stage = Stage::with(Simulcast);
    stage.receiver("bob", Sdk::Js, "none");
    stage.subscribe();
    stage.max_wanted(stage.track, Some(2));
    assert_eq!(stage.told(), told(&[("vp9", 3)]));

    let carol = stage.low_power_receiver("carol", Sdk::Js, "none");
    let at_first = stage.subscribe();
    assert_eq!((at_first.track, at_first.sender.codec), (stage.track, Codec::Vp9));
    stage.max_wanted(stage.track, Some(2));
    assert_eq!(stage.told(), told(&[("vp9", 3), ("vp8", 2)]), "asked for while VP9 flows");

    let backup = stage.publish_backup();
    let moved = stage.subscribe();
    assert_eq!((moved.track, moved.sender.codec), (backup, Codec::Vp8));
    assert_eq!(moved.settings.max_spatial, 1);
    stage.flows(backup);
    assert!(stage.world.take_subscribes().is_empty(), "bob keeps VP9");

    stage.world.signal(&carol, low_power(""));
    let back = stage.subscribe();
    assert_eq!((back.track, back.sender.codec), (stage.track, Codec::Vp9));
    assert_eq!(back.settings.max_spatial, 2);
    stage.world.signal(&carol, low_power("1"));
    assert_eq!(stage.subscribe().track, backup);
}

#[test]
fn the_wish_of_a_low_power_receiver_moves_nobody_else() {
    for policy in [PreferRegression, Regression] {
        let mut stage = Stage::with(policy);
        stage.low_power_receiver("carol", Sdk::Js, "none");
        assert_eq!(stage.subscribe().track, stage.track);
        stage.max_wanted(stage.track, Some(2));
        assert_eq!(stage.told(), told(&[("vp9", 3)]), "the whole room would get VP8");

        stage.receiver("dave", Sdk::Js, "VP9");
        assert_eq!(stage.told(), told(&[("vp9", 3), ("vp8", 3)]), "dave has no choice");
        let backup = stage.publish_backup();
        let subscribes = stage.world.take_subscribes();
        assert_eq!(subscribes.len(), 2, "carol takes what is there as well");
        assert!(subscribes.iter().all(|it| it.track == backup), "{subscribes:?}");
    }
}

#[test]
fn a_low_power_receiver_without_the_cheaper_codec_keeps_the_other() {
    let mut stage = Stage::with(Simulcast);
    stage.low_power_receiver("carol", Sdk::Js, "VP8");
    assert_eq!(stage.subscribe().sender.codec, Codec::Vp9);
    stage.max_wanted(stage.track, Some(2));
    assert_eq!(stage.told(), told(&[("vp9", 3)]));
    stage.publish_backup();
    assert!(stage.world.take_subscribes().is_empty());
}
