//! What a room and a join are made from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_engine::PlayoutDelayRange;
use sluice_engine::api::{PeerId, RoomKey, SubscriptionId, TrackId, WorkerId};
use sluice_proto as proto;
use sluice_transport::{Candidate, Fingerprint, IceCredentials};

use crate::Grants;
use crate::ids::ParticipantSid;
use crate::low_power::LowPower;
use crate::outputs::SessionId;
use crate::turn_login::TurnSecret;

/// What a room needs to know of the media plane besides the commands it sends.
pub trait MediaHost: Send {
    /// Chooses the worker for the peers of a new participant of a room.
    fn place(&mut self, room: RoomKey) -> WorkerId;
    /// A fresh id for a peer on a worker.
    fn next_peer_id(&mut self, worker: WorkerId) -> PeerId;
    /// A fresh id for a track published from a worker.
    fn next_track_id(&mut self, worker: WorkerId) -> TrackId;
    /// A fresh id for a subscription of a receiver on a worker.
    fn next_subscription_id(&mut self, worker: WorkerId) -> SubscriptionId;
    /// Fresh local ICE credentials whose `ufrag` leads STUN to a worker.
    fn ice_credentials(&mut self, worker: WorkerId) -> IceCredentials;
    /// Addresses that clients can reach this worker's peers at.
    fn candidates(&self, worker: WorkerId) -> Vec<Candidate>;
    /// Fingerprint of the node's DTLS certificate.
    fn fingerprint(&self) -> Fingerprint;
}

/// Sizes and counts that a client may not exceed (`limit.*` of the config; bytes unless named).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Participant or room metadata.
    pub max_metadata_size: usize,
    /// Sum of the sizes of attribute keys and values.
    pub max_attributes_size: usize,
    /// Room name.
    pub max_room_name_length: usize,
    /// Participant identity.
    pub max_participant_identity_length: usize,
    /// Participant name.
    pub max_participant_name_length: usize,
    /// Key of a data blob.
    pub max_data_blob_key_length: usize,
    /// Sum of the sizes of a participant's data blobs and their keys.
    pub max_data_blobs_size: usize,
    /// Name that a client gives to an encoding of its own.
    pub max_data_track_custom_encoding_length: usize,
    /// Video tracks that one participant receives at a time, 0 = no limit.
    pub subscription_limit_video: u32,
    /// Audio tracks that one participant receives at a time, 0 = no limit.
    pub subscription_limit_audio: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_metadata_size: 512 * 1024,
            max_attributes_size: 64 * 1024,
            max_room_name_length: 256,
            max_participant_identity_length: 256,
            max_participant_name_length: 256,
            max_data_blob_key_length: 256,
            max_data_blobs_size: 64_000,
            max_data_track_custom_encoding_length: 32,
            subscription_limit_video: 0,
            subscription_limit_audio: 0,
        }
    }
}

/// Settings of the node that all rooms share.
#[derive(Debug, Clone)]
pub struct RoomConfig {
    /// `ND_…`.
    pub node_id: String,
    /// Region of the node, may be empty.
    pub region: String,
    /// LiveKit-compatible version; clients gate features on it (RPC wants >= 1.8).
    pub server_version: String,
    /// ICE servers sent to clients; empty = the server's host candidates suffice.
    pub ice_servers: Vec<proto::IceServer>,
    /// TURN servers for which each participant gets a login of its own.
    pub turn_secrets: Vec<TurnSecret>,
    /// Mime types that rooms accept, e.g. `video/VP8`.
    pub enabled_codecs: Vec<proto::Codec>,
    /// A room nobody joined closes after this.
    pub empty_timeout: Duration,
    /// A room closes this long after the last participant left.
    pub departure_timeout: Duration,
    /// Participants per room, 0 = no limit.
    pub max_participants: u32,
    /// Whether the API may unmute tracks.
    pub enable_remote_unmute: bool,
    /// Adds redundancy (RED) to Opus that is published without, for receivers that take it.
    pub active_red_encoding: bool,
    /// Time between the workers' reports of audio levels.
    pub audio_update_interval: Duration,
    /// What receivers with the attribute `low_power` get at most.
    pub low_power: LowPower,
    /// Limits of receivers' jitter buffers; `None` leaves them alone.
    pub playout_delay: Option<PlayoutDelayRange>,
    /// How long a lower wanted quality must last before the publisher hears of it.
    pub dynacast_pause_delay: Duration,
    /// Rooms of fewer participants give up a video track's first codec once a receiver needs its
    /// backup codec, if the publisher leaves it to us; 0 = rooms of any size.
    pub codec_regression_threshold: u32,
    /// Data tracks are offered to clients.
    pub enable_data_tracks: bool,
    /// Participants may store blobs for others to fetch.
    pub enable_participant_data_blob: bool,
    /// Clients whose connections fail early or often are told TCP candidates only, then relays.
    pub allow_tcp_fallback: bool,
    /// All tracks of a participant's source group share a stream, so that clients synchronise them.
    pub sync_streams: bool,
    /// A published track without media costs its publisher a full reconnect.
    pub reconnect_on_publication_error: bool,
    /// A subscription that cannot be started costs the subscriber a full reconnect.
    pub reconnect_on_subscription_error: bool,
    /// Encoded size at which a participant update is split, bytes.
    pub update_batch_target_size: usize,
    /// Limits on what clients send.
    pub limits: Limits,
}

/// LiveKit version that we report: clients compare it to gate features.
pub const COMPATIBLE_SERVER_VERSION: &str = "1.13.5";

impl Default for RoomConfig {
    fn default() -> Self {
        let codecs = [
            "audio/PCMU",
            "audio/PCMA",
            "audio/opus",
            "audio/red",
            "video/VP8",
            "video/H264",
            "video/VP9",
            "video/AV1",
            "video/H265",
            "video/rtx",
        ];
        Self {
            node_id: "ND_sluice".into(),
            region: String::new(),
            server_version: COMPATIBLE_SERVER_VERSION.into(),
            ice_servers: Vec::new(),
            turn_secrets: Vec::new(),
            enabled_codecs: codecs
                .iter()
                .map(|&mime| proto::Codec { mime: mime.into(), fmtp_line: String::new() })
                .collect(),
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            max_participants: 0,
            enable_remote_unmute: false,
            active_red_encoding: false,
            audio_update_interval: Duration::from_millis(400),
            low_power: LowPower::default(),
            playout_delay: None,
            dynacast_pause_delay: Duration::from_secs(5),
            codec_regression_threshold: 5,
            enable_data_tracks: true,
            enable_participant_data_blob: false,
            allow_tcp_fallback: true,
            sync_streams: false,
            reconnect_on_publication_error: false,
            reconnect_on_subscription_error: false,
            update_batch_target_size: 128 * 1024,
            limits: Limits::default(),
        }
    }
}

/// Settings of one room; `None` takes the node's value.
#[derive(Debug, Clone, Default)]
pub struct RoomSettings {
    /// See [`RoomConfig::empty_timeout`].
    pub empty_timeout: Option<Duration>,
    /// See [`RoomConfig::departure_timeout`].
    pub departure_timeout: Option<Duration>,
    /// See [`RoomConfig::max_participants`].
    pub max_participants: Option<u32>,
    /// See [`RoomConfig::playout_delay`].
    pub playout_delay: Option<PlayoutDelayRange>,
    /// Initial room metadata.
    pub metadata: String,
    /// Name of configured settings that fill in what these leave out; empty = none.
    pub preset: String,
    /// Agents to call; empty = every worker that waits for rooms which name none.
    pub agents: Vec<proto::RoomAgentDispatch>,
    /// See [`RoomConfig::sync_streams`]; `true` on either side turns it on.
    pub sync_streams: bool,
}

impl RoomSettings {
    /// These settings, and those of a preset where these say nothing.
    #[must_use]
    pub fn or(self, preset: Self) -> Self {
        Self {
            empty_timeout: self.empty_timeout.or(preset.empty_timeout),
            departure_timeout: self.departure_timeout.or(preset.departure_timeout),
            max_participants: self.max_participants.or(preset.max_participants),
            playout_delay: self.playout_delay.or(preset.playout_delay),
            metadata: if self.metadata.is_empty() { preset.metadata } else { self.metadata },
            agents: if self.agents.is_empty() { preset.agents } else { self.agents },
            preset: String::new(),
            sync_streams: self.sync_streams || preset.sync_streams,
        }
    }
}

/// Zero and empty mean "not given".
impl From<&proto::CreateRoomRequest> for RoomSettings {
    fn from(request: &proto::CreateRoomRequest) -> Self {
        Self {
            empty_timeout: seconds(request.empty_timeout),
            departure_timeout: seconds(request.departure_timeout),
            max_participants: Some(request.max_participants).filter(|&max| max > 0),
            playout_delay: playout_delay(request.min_playout_delay, request.max_playout_delay),
            metadata: request.metadata.clone(),
            preset: request.room_preset.clone(),
            agents: request.agents.clone(),
            sync_streams: request.sync_streams,
        }
    }
}

/// Zero and empty mean "not given".
impl From<&proto::RoomConfiguration> for RoomSettings {
    fn from(config: &proto::RoomConfiguration) -> Self {
        Self {
            empty_timeout: seconds(config.empty_timeout),
            departure_timeout: seconds(config.departure_timeout),
            max_participants: Some(config.max_participants).filter(|&max| max > 0),
            playout_delay: playout_delay(config.min_playout_delay, config.max_playout_delay),
            metadata: config.metadata.clone(),
            preset: String::new(),
            agents: config.agents.clone(),
            sync_streams: config.sync_streams,
        }
    }
}

fn playout_delay(min_ms: u32, max_ms: u32) -> Option<PlayoutDelayRange> {
    (min_ms > 0 || max_ms > 0).then_some(PlayoutDelayRange { min_ms, max_ms })
}

fn seconds(value: u32) -> Option<Duration> {
    (value > 0).then(|| Duration::from_secs(value.into()))
}

/// Parameters of [`Room::new`](crate::Room::new).
pub struct RoomParams {
    /// Name of the room.
    pub name: String,
    /// Echoed by every media event of this room.
    pub key: RoomKey,
    /// Node settings.
    pub config: Arc<RoomConfig>,
    /// Room settings.
    pub settings: RoomSettings,
    /// The media plane.
    pub host: Box<dyn MediaHost>,
    /// Seed of the room's generator of ids: from the operating system.
    pub seed: [u8; 32],
    /// Unix time at the `now` given to `Room::new`.
    pub unix_time: Duration,
}

/// What a client asked of its session (query parameters of `/rtc`, `ConnectionSettings` of v1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// Subscribe to every track.
    pub auto_subscribe: bool,
    /// Subscribe to every data track.
    pub auto_subscribe_data_track: bool,
    /// The client sends `UpdateTrackSettings` as its views change: start with low quality.
    pub adaptive_stream: bool,
    /// Whether tracks may be paused for lack of bandwidth; `None` = the server decides.
    pub subscriber_allow_pause: Option<bool>,
    /// The client wants full ICE (kept, has no effect on us: we are always lite).
    pub disable_ice_lite: bool,
    /// One peer connection for both directions (v1).
    pub single_peer_connection: bool,
    /// The client offers once and hears nothing more (WHIP, WHEP).
    pub one_shot: bool,
}

impl Default for SessionOptions {
    /// Defaults of v0: subscribe to everything.
    fn default() -> Self {
        Self {
            auto_subscribe: true,
            auto_subscribe_data_track: false,
            adaptive_stream: false,
            subscriber_allow_pause: None,
            disable_ice_lite: false,
            single_peer_connection: false,
            one_shot: false,
        }
    }
}

/// One validated join: the token's claims and the client's request.
#[derive(Debug, Clone, Default)]
pub struct JoinParams {
    /// `sub` of the token.
    pub identity: String,
    /// Display name.
    pub name: String,
    /// Kind claim.
    pub kind: proto::participant_info::Kind,
    /// Kind details claim.
    pub kind_details: Vec<proto::participant_info::KindDetail>,
    /// Video grant.
    pub grants: Grants,
    /// Metadata, the request's if it may override the token's.
    pub metadata: String,
    /// Attributes, token and request merged.
    pub attributes: BTreeMap<String, String>,
    /// SDK, versions, protocol.
    pub client_info: proto::ClientInfo,
    /// When the token was issued, Unix seconds; 0 = it does not say.
    pub token_issued_at: u64,
    /// What the client asked for.
    pub options: SessionOptions,
    /// The client resumes a session instead of starting one.
    pub reconnect: bool,
    /// Why, as the client says.
    pub reconnect_reason: proto::ReconnectReason,
    /// SID of the session to resume; empty with older clients (the identity decides).
    pub participant_sid: String,
    /// v1: handled in order right after the join response.
    pub add_track_requests: Vec<proto::AddTrackRequest>,
    /// v1: handled after `add_track_requests`.
    pub publisher_offer: Option<proto::SessionDescription>,
}

/// Result of a join: where its messages will come from. The first one is the join response, or the
/// reconnect response, or a leave that tells the client to start anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// SID of the participant; `None` when a resume found no session.
    pub participant_sid: Option<ParticipantSid>,
    /// Names the session in [`Output`](crate::Output)s and later calls.
    pub session: SessionId,
}
