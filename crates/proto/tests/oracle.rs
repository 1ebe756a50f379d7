//! Our messages against LiveKit's own Rust types: every message of this crate is filled with values
//! that are not defaults, once per oneof variant and enum value, and must survive both libraries in
//! both directions, as bytes (numbers, wire types, labels) and as JSON (names, exact types).

mod support;

use std::collections::BTreeSet;
use std::fmt::Debug;

use prost::{Message, Name};
use prost_reflect::DynamicMessage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_proto::json;
use support::fill::samples;

/// Runs `check` on each pair of types with the same path in both crates, and lists our names.
macro_rules! for_each_message {
    ($($($path:ident)::+),+ $(,)?) => {
        fn check_every_message() -> BTreeSet<String> {
            let mut seen = BTreeSet::new();
            $(
                check::<sluice_proto::$($path)::+, livekit_protocol::$($path)::+>();
                seen.insert(<sluice_proto::$($path)::+ as Name>::full_name());
            )+
            seen
        }
    };
}

#[test]
fn every_message_survives_both_libraries_in_both_directions() {
    let seen = check_every_message();
    let ours: BTreeSet<String> = sluice_proto::descriptors()
        .all_messages()
        .filter(|message| {
            message.package_name() == sluice_proto::PACKAGE && !message.is_map_entry()
        })
        .map(|message| message.full_name().to_owned())
        .collect();
    let unlisted: Vec<_> = ours.difference(&seen).collect();
    assert!(unlisted.is_empty(), "add to for_each_message!: {unlisted:?}");
    assert!(seen.len() > 200, "only {} messages", seen.len());
}

fn check<Ours, Theirs>()
where
    Ours: Message + Name + Default + PartialEq + Debug,
    Theirs: Message + Default + PartialEq + Debug + Serialize + DeserializeOwned,
{
    let name = Ours::full_name();
    let descriptor = sluice_proto::descriptor_of::<Ours>().expect("generated with a descriptor");
    for sample in samples(&descriptor) {
        let bytes = sample.encode_to_vec();
        let ours = Ours::decode(bytes.as_slice()).expect("ours decodes");
        let theirs = Theirs::decode(bytes.as_slice()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (our_bytes, their_bytes) = (ours.encode_to_vec(), theirs.encode_to_vec());
        assert_eq!(our_bytes.len(), bytes.len(), "{name}: our types dropped a field");
        assert_eq!(our_bytes, their_bytes, "{name}: bytes differ for {ours:?}");

        let back = DynamicMessage::decode(descriptor.clone(), their_bytes.as_slice())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(back.encode_to_vec(), bytes, "{name}: means something else for {ours:?}");

        let our_json = json::to_camel(&ours).expect("our JSON");
        let their_json = with_z(serde_json::to_value(&theirs).expect("their JSON"));
        let our_value: Value = serde_json::from_str(&our_json).expect("JSON");
        assert_eq!(our_value, their_json, "{name}: JSON differs");
        let read: Theirs =
            serde_json::from_str(&our_json).unwrap_or_else(|e| panic!("{name}: {e} in {our_json}"));
        assert_eq!(read, theirs, "{name}: they read our JSON differently");
        let read: Ours = json::from_json(their_json.to_string().as_bytes())
            .unwrap_or_else(|e| panic!("{name}: {e} in {their_json}"));
        assert_eq!(read, ours, "{name}: we read their JSON differently");
        let read: Ours = json::from_json(json::to_twirp(&ours).expect("JSON").as_bytes())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(read, ours, "{name}: we read our own API form differently");
    }
}

/// UTC as protobuf's JSON writes it; their library prints the offset.
fn with_z(value: Value) -> Value {
    match value {
        Value::String(text) => match text.strip_suffix("+00:00") {
            Some(time) => Value::String(format!("{time}Z")),
            None => Value::String(text),
        },
        Value::Array(items) => items.into_iter().map(with_z).collect(),
        Value::Object(fields) => fields.into_iter().map(|(k, v)| (k, with_z(v))).collect(),
        other => other,
    }
}

for_each_message! {
    ActiveSpeakerUpdate, AddTrackRequest, AgentDispatch, AgentDispatchState, AgentHttp,
    AliOssUpload, AudioConfig, AudioRoute, AutoParticipantEgress, AutoTrackEgress,
    AvailabilityRequest, AvailabilityResponse, AzureBlobUpload, ChatMessage, ClientConfiguration,
    ClientInfo, Codec, ConnectionQualityInfo, ConnectionQualityUpdate, ConnectionSettings,
    CreateAgentDispatchRequest, CreateRoomRequest, DataBlob, DataBlobKey, DataChannelInfo,
    DataChannelReceiveState, DataPacket, DataStream, DataTrackExtensionParticipantSid,
    DataTrackFrameEncoding, DataTrackInfo, DataTrackSchemaEncoding, DataTrackSchemaId,
    DataTrackSubscriberHandles, DataTrackSubscriptionOptions, DeleteAgentDispatchRequest,
    DeleteRoomRequest, DeleteRoomResponse, DirectFileOutput, DisabledCodecs, EgressInfo,
    EncodedFileOutput, EncodingOptions, EncryptedPacket, EncryptedPacketPayload, Encryption,
    EventMetric, ExportReplayRequest, FileInfo, FileOutput, FilterParams,
    ForwardParticipantRequest, ForwardParticipantResponse, GcpUpload, GetDataBlobRequest,
    GetDataBlobResponse, IceServer, ImageOutput, ImagesInfo, IngressAudioEncodingOptions,
    IngressAudioOptions, IngressInfo, IngressState, IngressVideoEncodingOptions,
    IngressVideoOptions, InputAudioState, InputVideoState, Job, JobAssignment, JobState,
    JobTermination, JoinRequest, JoinResponse, LeaveRequest, ListAgentDispatchRequest,
    ListAgentDispatchResponse, ListParticipantsRequest, ListParticipantsResponse,
    ListRoomsRequest, ListRoomsResponse, ListUpdate, MediaSectionsRequirement, MediaSource,
    MetricSample, MetricsBatch, MetricsRecordingHeader, MigrateJobRequest, MoveParticipantRequest,
    MoveParticipantResponse, MuteRoomTrackRequest, MuteRoomTrackResponse, MuteTrackRequest,
    Output, Pagination, ParticipantEgressRequest, ParticipantInfo, ParticipantPermission,
    ParticipantTracks, ParticipantUpdate, ParticipantVideo, PerformRpcRequest, PerformRpcResponse,
    Ping, PlayoutDelay, Pong, ProxyConfig, PublishDataTrackRequest, PublishDataTrackResponse,
    ReconnectResponse, RegionInfo, RegionSettings, RegisterWorkerRequest, RegisterWorkerResponse,
    RemoveParticipantResponse, RequestResponse, Room, RoomAgent, RoomAgentDispatch,
    RoomCompositeEgressRequest, RoomConfiguration, RoomEgress, RoomMovedResponse,
    RoomParticipantIdentity, RoomUpdate, RpcAck, RpcError, RpcRequest, RpcResponse, S3Upload,
    SegmentedFileOutput, SegmentsInfo, SendDataRequest, SendDataResponse, ServerInfo,
    ServerMessage, SessionDescription, SignalRequest, SignalResponse, SimulateJobRequest,
    SimulateScenario, SimulcastCodec, SimulcastCodecInfo, SipDtmf, SpeakerInfo, SpeakersChanged,
    StartEgressRequest, StorageConfig, StoreDataBlobRequest, StoreDataBlobResponse, StreamInfo,
    StreamInfoList, StreamOutput, StreamStateInfo, StreamStateUpdate, SubscribedAudioCodec,
    SubscribedAudioCodecUpdate, SubscribedCodec, SubscribedQuality, SubscribedQualityUpdate,
    SubscriptionPermission, SubscriptionPermissionUpdate, SubscriptionResponse, SyncState,
    TemplateSource, TimeSeriesMetric, TimedVersion, TokenPagination, TokenSourceRequest,
    TokenSourceResponse, TrackCompositeEgressRequest, TrackEgressRequest, TrackInfo,
    TrackPermission, TrackPublishedResponse, TrackSubscribed, TrackUnpublishedResponse,
    Transcription, TranscriptionSegment, TrickleRequest, UnpublishDataTrackRequest,
    UnpublishDataTrackResponse, UpdateDataSubscription, UpdateJobStatus, UpdateLocalAudioTrack,
    UpdateLocalVideoTrack, UpdateParticipantMetadata, UpdateParticipantRequest,
    UpdateRoomMetadataRequest, UpdateSubscription, UpdateSubscriptionsRequest,
    UpdateSubscriptionsResponse, UpdateTrackSettings, UpdateVideoLayers, UpdateWorkerStatus,
    UserPacket, VideoConfiguration, VideoLayer, WebEgressRequest, WebSource, WebhookConfig,
    WebhookEvent, WorkerMessage, WorkerPing, WorkerPong, WrappedJoinRequest,
    agent_http::AgentEndpoint, agent_http::AgentEndpointSettings, agent_http::GoAway,
    agent_http::StreamPreamble, data_stream::ByteHeader, data_stream::Chunk, data_stream::Header,
    data_stream::TextHeader, data_stream::Trailer,
    data_track_subscriber_handles::PublishedDataTrack, update_data_subscription::Update,
}
