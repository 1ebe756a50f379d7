//! What reaches the rooms: query parameters of v0, the join request of v1, and the token's claims.

mod support;

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use prost::Message;
use serde_json::json;
use sluice_proto as proto;
use sluice_proto::client_info::{Capability, Sdk};
use sluice_proto::participant_info::Kind;
use sluice_proto::wrapped_join_request::Compression;
use support::{SECRET, TestServer, join_claims, sign, token};

fn join_request(request: &proto::JoinRequest, compression: Compression) -> String {
    let bytes = request.encode_to_vec();
    let join_request = match compression {
        Compression::None => bytes,
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Level::default());
            encoder.write_all(&bytes).expect("into memory");
            encoder.finish().expect("into memory")
        }
    };
    let wrapped = proto::WrappedJoinRequest {
        compression: compression.into(),
        join_request: join_request.into(),
    };
    URL_SAFE.encode(wrapped.encode_to_vec())
}

#[tokio::test]
async fn v0_takes_everything_from_the_query() {
    let server = TestServer::start().await;
    let path = format!(
        "/rtc?access_token={}&sdk=python&protocol=16&client_protocol=2&version=1.2.1&os=Debian\
         &os_version=12&device_model=Unknown&network=wifi&capabilities=CAP_PACKET_TRAILER\
         &auto_subscribe=0&adaptive_stream=1&subscriber_allow_pause=0&reconnect=1\
         &reconnect_reason=2&sid=PA_old",
        token("lobby")
    );
    let _socket = server.connect(&path).await;
    let joined = server.joined().await;
    assert_eq!((joined.room.as_str(), joined.params.identity.as_str()), ("lobby", "alice"));
    let (client, options) = (&joined.params.client_info, &joined.params.options);
    assert_eq!((client.sdk(), client.protocol, client.client_protocol), (Sdk::Python, 16, 2));
    assert_eq!((client.os.as_str(), client.network.as_str()), ("Debian", "wifi"));
    assert_eq!(client.capabilities, [i32::from(Capability::CapPacketTrailer)]);
    assert_eq!(client.address, "127.0.0.1");
    assert!(!options.auto_subscribe && options.adaptive_stream);
    assert!(!options.single_peer_connection && !options.auto_subscribe_data_track);
    assert_eq!(options.subscriber_allow_pause, Some(false));
    assert!(joined.params.reconnect);
    assert_eq!(joined.params.reconnect_reason, proto::ReconnectReason::RrPublisherFailed);
    assert_eq!(joined.params.participant_sid, "PA_old");
}

#[tokio::test]
async fn v0_defaults_to_subscribing_and_a_new_session() {
    let server = TestServer::start().await;
    let path = format!("/rtc?access_token={}&sid=PA_ignored&reconnect=yes", token("r"));
    let _socket = server.connect(&path).await;
    let params = server.joined().await.params;
    assert!(params.options.auto_subscribe && !params.reconnect);
    assert_eq!(
        (params.options.subscriber_allow_pause, params.participant_sid.as_str()),
        (None, "")
    );
}

#[tokio::test]
async fn the_publish_parameter_makes_a_second_publish_only_participant() {
    let server = TestServer::start().await;
    let path = format!("/rtc?access_token={}&publish=screen", token("r"));
    let _socket = server.connect(&path).await;
    let params = server.joined().await.params;
    assert_eq!(params.identity, "alice#screen");
    assert!(!params.grants.can_subscribe());

    let mut claims = join_claims("r");
    claims["video"]["canPublish"] = json!(false);
    let path = format!("/rtc?access_token={}&publish=screen", sign(&claims, SECRET));
    assert_eq!(server.refused(&path).await.0, 401);
}

#[tokio::test]
async fn claims_reach_the_room() {
    let server = TestServer::start().await;
    let mut claims = join_claims("r");
    claims["name"] = json!("Alice");
    claims["metadata"] = json!("token");
    claims["attributes"] = json!({ "a": "1" });
    claims["kind"] = json!("agent");
    claims["video"]["canPublish"] = json!(false);
    claims["video"]["canSubscribe"] = json!(null);
    claims["video"]["canPublishSources"] = json!(["camera", "screen_share_audio", "hologram"]);
    claims["video"]["hidden"] = json!(true);
    claims["roomConfig"] = json!({ "emptyTimeout": 7, "departure_timeout": 8, "maxParticipants": 3,
        "metadata": "of the room", "agents": [{ "agentName": "x" }], "unknown": 1 });
    let _socket = server.connect(&format!("/rtc?access_token={}", sign(&claims, SECRET))).await;
    let joined = server.joined().await;
    let params = joined.params;
    assert_eq!((params.name.as_str(), params.metadata.as_str()), ("Alice", "token"));
    assert_eq!((params.kind, params.attributes["a"].as_str()), (Kind::Agent, "1"));
    assert_eq!((params.grants.can_publish, params.grants.can_subscribe), (Some(false), None));
    assert!(params.grants.hidden);
    let sources = [
        proto::TrackSource::Camera,
        proto::TrackSource::ScreenShareAudio,
        // Not dropped: an empty list would allow everything.
        proto::TrackSource::Unknown,
    ];
    assert_eq!(params.grants.can_publish_sources, sources);
    assert_eq!(joined.settings.empty_timeout.map(|t| t.as_secs()), Some(7));
    assert_eq!(joined.settings.departure_timeout.map(|t| t.as_secs()), Some(8));
    assert_eq!(joined.settings.max_participants, Some(3));
    assert_eq!(joined.settings.metadata, "of the room");
}

#[tokio::test]
async fn attributes_of_the_request_need_the_grant_and_delete_nothing() {
    let server = TestServer::start().await;
    let attributes = URL_SAFE.encode(r#"{"a":"","b":"2"}"#);
    let path = format!("/rtc?access_token={}&attributes={attributes}", token("r"));
    assert_eq!(server.refused(&path).await, (401, "permission denied".into()));

    let mut claims = join_claims("r");
    claims["attributes"] = json!({ "a": "1" });
    claims["video"]["canUpdateOwnMetadata"] = json!(true);
    let token = sign(&claims, SECRET);
    let path = format!("/rtc?access_token={token}&attributes={attributes}");
    let _socket = server.connect(&path).await;
    let params = server.joined().await.params;
    assert_eq!((params.attributes["a"].as_str(), params.attributes["b"].as_str()), ("1", "2"));

    let path = format!("?access_token={token}&attributes=%25%25");
    let _ignored = server.connect(&format!("/rtc{path}")).await;
    let strict = reqwest::get(server.url(&format!("/rtc/validate{path}"))).await.expect("answers");
    assert_eq!(strict.status(), 400);
    assert_eq!(strict.text().await.expect("text"), "cannot decode attributes");
}

#[tokio::test]
async fn v1_takes_everything_from_the_join_request() {
    let server = TestServer::start().await;
    let mut claims = join_claims("r");
    claims["metadata"] = json!("token");
    claims["video"]["canUpdateOwnMetadata"] = json!(true);
    let offer = proto::SessionDescription { r#type: "offer".into(), ..Default::default() };
    let request = proto::JoinRequest {
        client_info: Some(proto::ClientInfo {
            sdk: Sdk::Js.into(),
            protocol: 17,
            ..Default::default()
        }),
        connection_settings: Some(proto::ConnectionSettings {
            adaptive_stream: true,
            auto_subscribe_data_track: Some(true),
            ..Default::default()
        }),
        metadata: "request".into(),
        participant_attributes: [("b".to_owned(), "2".to_owned())].into(),
        add_track_requests: vec![proto::AddTrackRequest { cid: "c".into(), ..Default::default() }],
        publisher_offer: Some(offer.clone()),
        ..Default::default()
    };
    let token = sign(&claims, SECRET);
    for (path, compression) in [("/rtc/v1", Compression::Gzip), ("/rtc", Compression::None)] {
        let value = join_request(&request, compression);
        let path = format!("{path}?access_token={token}&join_request={value}&auto_subscribe=1");
        let _socket = server.connect(&path).await;
        let params = server.joined().await.params;
        let options = &params.options;
        assert!(options.single_peer_connection && options.adaptive_stream);
        assert!(!options.auto_subscribe && options.auto_subscribe_data_track);
        assert_eq!(options.subscriber_allow_pause, Some(false));
        assert_eq!((params.client_info.sdk(), params.client_info.protocol), (Sdk::Js, 17));
        assert_eq!((params.metadata.as_str(), params.attributes["b"].as_str()), ("request", "2"));
        assert_eq!(params.add_track_requests[0].cid, "c");
        assert_eq!(params.publisher_offer, Some(offer.clone()));
        assert!(!params.reconnect);
    }
}

#[tokio::test]
async fn v1_resumes_by_the_join_request() {
    let server = TestServer::start().await;
    let request = proto::JoinRequest {
        reconnect: true,
        participant_sid: "PA_old".into(),
        reconnect_reason: proto::ReconnectReason::RrSignalDisconnected.into(),
        ..Default::default()
    };
    let value = join_request(&request, Compression::None);
    let path = format!("/rtc/v1?access_token={}&join_request={value}", token("r"));
    let _socket = server.connect(&path).await;
    let params = server.joined().await.params;
    assert!(params.reconnect);
    assert_eq!(params.participant_sid, "PA_old");
    assert_eq!(params.reconnect_reason, proto::ReconnectReason::RrSignalDisconnected);
}

#[tokio::test]
async fn a_bad_join_request_is_400_with_its_reason() {
    let server = TestServer::start().await;
    let token = token("r");
    let wrapped = |compression: Compression, bytes: &'static [u8]| {
        let join_request = prost::bytes::Bytes::from_static(bytes);
        let wrapped = proto::WrappedJoinRequest { compression: compression.into(), join_request };
        URL_SAFE.encode(wrapped.encode_to_vec())
    };
    for (value, reason) in [
        (String::new(), "join_request is required"),
        ("!!!!".into(), "cannot base64 decode wrapped join request"),
        (URL_SAFE.encode(b"\xff\xff"), "cannot unmarshal wrapped join request"),
        (wrapped(Compression::None, b"\xff\xff"), "cannot unmarshal join request"),
        (wrapped(Compression::Gzip, b"plain"), "cannot decompress join request"),
    ] {
        let path = format!("/rtc/v1?access_token={token}&join_request={value}");
        assert_eq!(server.refused(&path).await, (400, reason.to_owned()));
    }
    let request = proto::JoinRequest { metadata: "m".into(), ..Default::default() };
    let value = join_request(&request, Compression::None);
    let path = format!("/rtc/v1?access_token={token}&join_request={value}");
    assert_eq!(server.refused(&path).await, (401, "permission denied".into()));
}

#[tokio::test]
async fn a_long_address_is_accepted_and_a_longer_one_refused_politely() {
    let server = TestServer::start().await;
    // Hard to compress on purpose: an offer with many candidates is like that.
    let noise: String =
        (0..5_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let sdp = |len: usize| {
        let sdp = noise.chars().take(len).collect();
        let offer = proto::SessionDescription { sdp, ..Default::default() };
        let request = proto::JoinRequest { publisher_offer: Some(offer), ..Default::default() };
        let value = join_request(&request, Compression::None);
        format!("/rtc/v1?access_token={}&join_request={value}", token("r"))
    };
    let long = sdp(45_000);
    assert!(long.len() > 60_000);
    let _socket = server.connect(&long).await;
    let offer = server.joined().await.params.publisher_offer.expect("an offer");
    assert_eq!(offer.sdp.len(), 45_000);

    // 200 kB is more than the HTTP library can hold in an address: a status, not a dead socket.
    let status = raw_status(&server, &format!("/rtc?x={}", "y".repeat(200_000))).await;
    assert_eq!(status, 414);
}

/// Status of a request that well-behaved HTTP libraries refuse to send.
async fn raw_status(server: &TestServer, path: &str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = [0; 12];
    support::within(stream.read_exact(&mut answer)).await.expect("answers");
    std::str::from_utf8(&answer[9..]).expect("text").parse().expect("a status")
}
