//! A room with a virtual clock, clients who keep what they hear, workers who keep what they are
//! told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::api::{
    ChannelLabel, Command, EventKind, PeerFailure, PeerId, ReceiveParams, RoomKey, Subscribe,
    SubscriptionId, TrackId, WorkerId,
};
use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_room::{
    ApiError, CloseReason, Forward, JoinError, JoinParams, MediaHost, Output, Room, RoomConfig,
    RoomParams, RoomSettings, SessionId, SessionOptions, TokenClaims, WebhookEvent, WebhookKind,
};
use sluice_transport::sdp::host_candidate;
use sluice_transport::{Candidate, Fingerprint, IceCredentials, TransportProto};

pub(crate) use crate::sdp::{
    Kind, Section, answer_sdp, custom, data, idle, offer_sdp, receiving, sending, sending_red,
    simulcast,
};

/// Protocol version of today's clients.
pub(crate) const PROTOCOL: i32 = 16;

/// Unix time at which the worlds begin.
pub(crate) const START: Duration = Duration::from_secs(1_700_000_000);

/// Workers who number things and know one address.
#[derive(Default)]
struct Host {
    serial: u64,
    placed: u8,
    tcp: bool,
}

impl Host {
    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

impl MediaHost for Host {
    fn place(&mut self, _: RoomKey) -> WorkerId {
        self.placed = (self.placed + 1) % 2;
        WorkerId(self.placed)
    }

    fn next_peer_id(&mut self, worker: WorkerId) -> PeerId {
        PeerId::new(worker, self.next())
    }

    fn next_track_id(&mut self, worker: WorkerId) -> TrackId {
        TrackId::new(worker, self.next())
    }

    fn next_subscription_id(&mut self, worker: WorkerId) -> SubscriptionId {
        SubscriptionId::new(worker, self.next())
    }

    fn ice_credentials(&mut self, _worker: WorkerId) -> IceCredentials {
        let serial = self.next();
        IceCredentials { ufrag: format!("Aloc{serial:04}"), pwd: "p".repeat(24) }
    }

    fn candidates(&self, _worker: WorkerId) -> Vec<Candidate> {
        let udp = host_candidate("127.0.0.1:7882".parse().unwrap(), TransportProto::Udp, 0);
        let tcp = host_candidate("127.0.0.1:7881".parse().unwrap(), TransportProto::Tcp, 0);
        if self.tcp { vec![udp, tcp] } else { vec![udp] }
    }

    fn fingerprint(&self) -> Fingerprint {
        format!("sha-256 {}", ["AB"; 32].join(":")).parse().unwrap()
    }
}

/// One signal connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) identity: String,
    pub(crate) sid: String,
    pub(crate) session: SessionId,
}

/// See the module documentation.
pub(crate) struct World {
    pub(crate) room: Room,
    pub(crate) now: Instant,
    commands: Vec<Command>,
    inboxes: HashMap<SessionId, Vec<Response>>,
    pub(crate) closed: HashMap<SessionId, CloseReason>,
    pub(crate) tokens: Vec<(SessionId, TokenClaims)>,
    pub(crate) webhooks: Vec<WebhookKind>,
    pub(crate) reports: Vec<WebhookEvent>,
    pub(crate) rpcs: Vec<Result<String, ApiError>>,
    pub(crate) forwards: Vec<(String, Forward)>,
    pub(crate) room_closed: bool,
    /// Every peer that the workers were told of, with its owner's session at that time.
    pub(crate) peers: Vec<PeerId>,
    peers_of: HashMap<String, Vec<PeerId>>,
    last_offer: Option<proto::SessionDescription>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(RoomConfig::default(), RoomSettings::default())
    }

    pub(crate) fn with(config: RoomConfig, settings: RoomSettings) -> Self {
        Self::build(config, settings, Host::default())
    }

    /// Workers that also offer ICE-TCP.
    pub(crate) fn with_tcp(config: RoomConfig) -> Self {
        Self::build(config, RoomSettings::default(), Host { tcp: true, ..Host::default() })
    }

    #[expect(clippy::disallowed_methods, reason = "any instant does as the origin")]
    fn build(config: RoomConfig, settings: RoomSettings, host: Host) -> Self {
        let now = Instant::now();
        let params = RoomParams {
            name: "room".into(),
            key: RoomKey(7),
            config: Arc::new(config),
            settings,
            host: Box::new(host),
            seed: [3; 32],
            unix_time: START,
        };
        let mut world = Self {
            room: Room::new(params, now),
            now,
            commands: Vec::new(),
            inboxes: HashMap::new(),
            closed: HashMap::new(),
            tokens: Vec::new(),
            webhooks: Vec::new(),
            reports: Vec::new(),
            rpcs: Vec::new(),
            forwards: Vec::new(),
            room_closed: false,
            peers: Vec::new(),
            peers_of: HashMap::new(),
            last_offer: None,
        };
        world.drain();
        world
    }

    /// Takes every output of the room.
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Signal { session, response } => {
                    assert!(!self.closed.contains_key(&session), "message after the close");
                    let message = response.response().unwrap().clone();
                    if let Response::Offer(offer) = &message {
                        self.last_offer = Some(offer.clone());
                    }
                    self.inboxes.entry(session).or_default().push(message);
                }
                Output::RefreshToken { session, claims } => self.tokens.push((session, *claims)),
                Output::RoomMoved { session, claims, moved } => {
                    self.tokens.push((session, *claims));
                    self.inboxes.entry(session).or_default().push(Response::RoomMoved(*moved));
                }
                Output::CloseSignal { session, reason } => {
                    assert!(self.closed.insert(session, reason).is_none(), "closed twice");
                }
                Output::Engine(command) => {
                    if let Command::CreatePeer(create) = &command {
                        self.peers.push(create.peer);
                    }
                    self.commands.push(command);
                }
                Output::Webhook(event) => {
                    self.webhooks.push(event.kind);
                    self.reports.push(*event);
                }
                Output::RpcDone { result, .. } => self.rpcs.push(result),
                Output::Forward { destination, forward } => {
                    self.forwards.push((destination, *forward));
                }
                Output::Closed => self.room_closed = true,
            }
        }
    }

    /// Lets time pass, firing what is due on the way.
    pub(crate) fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.room.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.room.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.room.handle_timeout(end);
        self.drain();
    }

    pub(crate) fn advance_ms(&mut self, ms: u64) {
        self.advance(Duration::from_millis(ms));
    }

    pub(crate) fn try_join(&mut self, params: JoinParams) -> Result<Client, JoinError> {
        let identity = params.identity.clone();
        let peers = self.peers.len();
        let joined = self.room.join(self.now, params)?;
        self.drain();
        let new_peers = self.peers[peers..].to_vec();
        self.peers_of.entry(identity.clone()).or_default().extend(new_peers);
        let sid = joined.participant_sid.map(|sid| sid.as_str().to_owned()).unwrap_or_default();
        Ok(Client { identity, sid, session: joined.session })
    }

    pub(crate) fn join_with(&mut self, params: JoinParams) -> Client {
        self.try_join(params).unwrap()
    }

    /// Joins with two connections.
    pub(crate) fn join(&mut self, identity: &str) -> Client {
        self.join_with(join_params(identity))
    }

    /// Joins with two connections, answers the first offer, connects with open channels, and
    /// forgets what was heard so far.
    pub(crate) fn join_active(&mut self, identity: &str) -> Client {
        let client = self.join(identity);
        self.activate(&client);
        client
    }

    pub(crate) fn activate(&mut self, client: &Client) {
        self.answer_offer(client);
        self.connect(self.subscriber_peer(client));
        self.take(client);
    }

    /// The first peer that was made when this identity last joined: the subscriber's.
    pub(crate) fn subscriber_peer(&self, client: &Client) -> PeerId {
        self.peers_of[&client.identity][0]
    }

    pub(crate) fn forget_peers(&mut self, client: &Client) {
        self.peers_of.remove(&client.identity);
    }

    pub(crate) fn signal(&mut self, client: &Client, message: Request) {
        let peers = self.peers.len();
        let request = proto::SignalRequest { message: Some(message) };
        self.room.handle_signal(self.now, client.session, request);
        self.drain();
        let new_peers = self.peers[peers..].to_vec();
        self.peers_of.entry(client.identity.clone()).or_default().extend(new_peers);
    }

    pub(crate) fn engine(&mut self, event: EventKind) {
        self.room.handle_engine(self.now, event);
        self.drain();
    }

    pub(crate) fn connect(&mut self, peer: PeerId) {
        let remote = "127.0.0.1:9".parse().unwrap();
        self.engine(EventKind::PeerConnected { peer, remote, tcp: false, srtp_profile: "test" });
        self.engine(EventKind::ChannelOpen { peer, channel: ChannelLabel::Reliable });
        self.engine(EventKind::ChannelOpen { peer, channel: ChannelLabel::Lossy });
    }

    pub(crate) fn fail(&mut self, peer: PeerId) {
        self.engine(EventKind::PeerFailed { peer, reason: PeerFailure::IceTimeout });
    }

    pub(crate) fn recover(&mut self, peer: PeerId) {
        let remote = "127.0.0.1:10".parse().unwrap();
        self.engine(EventKind::PeerRecovered { peer, remote, tcp: false });
    }

    pub(crate) fn signal_closed(&mut self, client: &Client) {
        self.room.signal_closed(self.now, client.session);
        self.drain();
    }

    /// Everything a client has heard since the last call.
    pub(crate) fn take(&mut self, client: &Client) -> Vec<Response> {
        self.inboxes.remove(&client.session).unwrap_or_default()
    }

    /// Everything that the workers were told since the last call.
    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Gives taken commands back to a later question.
    pub(crate) fn put_back(&mut self, mut commands: Vec<Command>) {
        commands.append(&mut self.commands);
        self.commands = commands;
    }

    pub(crate) fn take_subscribes(&mut self) -> Vec<Subscribe> {
        let commands = self.take_commands().into_iter();
        let subscribe = |command| match command {
            Command::Subscribe(subscribe) => Some(*subscribe),
            _ => None,
        };
        commands.filter_map(subscribe).collect()
    }

    pub(crate) fn last_receive(&mut self) -> ReceiveParams {
        let mut commands = self.take_commands().into_iter().rev();
        commands
            .find_map(|command| match command {
                Command::SetReceive { receive, .. } => Some(*receive),
                _ => None,
            })
            .expect("receive parameters were set")
    }

    /// Answers the last offer that the client has heard, and keeps the other messages.
    pub(crate) fn answer_offer(&mut self, client: &Client) {
        let inbox = self.inboxes.get(&client.session).expect("something was heard");
        let offer = inbox.iter().rev().find_map(|message| match message {
            Response::Offer(offer) => Some(offer.clone()),
            _ => None,
        });
        let offer = offer.expect("an offer was heard");
        self.answer(client, &offer);
    }

    /// Answers an offer that was heard and taken already, with what a data connection has.
    pub(crate) fn answer_pending(&mut self, client: &Client) {
        let offer = self.last_offer.clone().expect("an offer was sent");
        self.answer(client, &offer);
    }

    pub(crate) fn answer(&mut self, client: &Client, offer: &proto::SessionDescription) {
        let answer = proto::SessionDescription {
            r#type: "answer".into(),
            sdp: answer_sdp(&offer.sdp),
            id: offer.id,
            ..Default::default()
        };
        self.signal(client, Request::Answer(answer));
    }

    /// Announces a track and returns what the publisher is told.
    pub(crate) fn add_track(
        &mut self,
        client: &Client,
        request: proto::AddTrackRequest,
    ) -> proto::TrackInfo {
        self.signal(client, Request::AddTrack(request));
        let published = self.take(client).into_iter().find_map(|message| match message {
            Response::TrackPublished(published) => published.track,
            _ => None,
        });
        published.expect("the track was announced")
    }

    pub(crate) fn offer(&mut self, client: &Client, id: u32, sdp: String) {
        let offer =
            proto::SessionDescription { r#type: "offer".into(), sdp, id, ..Default::default() };
        self.signal(client, Request::Offer(offer));
    }

    /// Takes everything from a participant but the right to subscribe.
    pub(crate) fn forbid_publishing(&mut self, identity: &str) {
        let request = proto::UpdateParticipantRequest {
            identity: identity.into(),
            permission: Some(proto::ParticipantPermission {
                can_subscribe: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        self.room.update_participant(self.now, &request).unwrap();
        self.drain();
    }

    /// Publishes a microphone or camera on the publisher connection.
    pub(crate) fn publish(&mut self, client: &Client, kind: Kind) -> (proto::TrackInfo, TrackId) {
        let info = self.add_track(client, kind.request("cid"));
        self.take_commands();
        self.offer(client, 1, offer_sdp("rem1", &[data("0"), sending(kind, "1", "cid")]));
        let receive = self.last_receive();
        let track = receive.sections[0].track.expect("the section is matched").track;
        (info, track)
    }
}

/// A join with two connections that subscribes to everything.
pub(crate) fn join_params(identity: &str) -> JoinParams {
    JoinParams {
        identity: identity.into(),
        name: format!("name of {identity}"),
        client_info: proto::ClientInfo { protocol: PROTOCOL, ..Default::default() },
        options: SessionOptions::default(),
        ..JoinParams::default()
    }
}

/// A join with one connection.
pub(crate) fn single_params(identity: &str) -> JoinParams {
    let mut params = join_params(identity);
    params.options.single_peer_connection = true;
    params
}

/// Names of messages, for assertions on order.
pub(crate) fn names(messages: &[Response]) -> Vec<&'static str> {
    messages.iter().map(name).collect()
}

fn name(message: &Response) -> &'static str {
    match message {
        Response::Join(_) => "join",
        Response::Answer(_) => "answer",
        Response::Offer(_) => "offer",
        Response::Trickle(_) => "trickle",
        Response::Update(_) => "update",
        Response::TrackPublished(_) => "track_published",
        Response::Leave(_) => "leave",
        Response::Mute(_) => "mute",
        Response::SpeakersChanged(_) => "speakers_changed",
        Response::RoomUpdate(_) => "room_update",
        Response::ConnectionQuality(_) => "connection_quality",
        Response::SubscribedQualityUpdate(_) => "subscribed_quality_update",
        Response::SubscriptionPermissionUpdate(_) => "subscription_permission_update",
        Response::TrackUnpublished(_) => "track_unpublished",
        Response::Reconnect(_) => "reconnect",
        Response::SubscriptionResponse(_) => "subscription_response",
        Response::RequestResponse(_) => "request_response",
        Response::TrackSubscribed(_) => "track_subscribed",
        Response::MediaSectionsRequirement(_) => "media_sections_requirement",
        Response::PublishDataTrackResponse(_) => "publish_data_track_response",
        Response::UnpublishDataTrackResponse(_) => "unpublish_data_track_response",
        Response::DataTrackSubscriberHandles(_) => "data_track_subscriber_handles",
        Response::StoreDataBlobResponse(_) => "store_data_blob_response",
        Response::GetDataBlobResponse(_) => "get_data_blob_response",
        _ => "other",
    }
}

/// Position of the first message of a name.
pub(crate) fn position(messages: &[Response], wanted: &str) -> usize {
    names(messages)
        .iter()
        .position(|name| *name == wanted)
        .unwrap_or_else(|| panic!("no {wanted} in {:?}", names(messages)))
}

/// The content of the only message of a variant.
#[macro_export]
macro_rules! only {
    ($messages:expr, $variant:ident) => {{
        // A `match` keeps a temporary list alive.
        match &$messages {
            messages => {
                let mut found = messages.iter().filter_map(|message| match message {
                    sluice_proto::signal_response::Message::$variant(content) => Some(content),
                    _ => None,
                });
                let first = found.next().cloned().unwrap_or_else(|| {
                    let heard = $crate::support::names(messages);
                    panic!("no {} in {heard:?}", stringify!($variant))
                });
                assert!(found.next().is_none(), "more than one {}", stringify!($variant));
                first
            }
        }
    }};
}

/// Participants in the updates that a client heard, in order.
pub(crate) fn updated(messages: &[Response]) -> Vec<proto::ParticipantInfo> {
    let participants = |message: &Response| match message {
        Response::Update(update) => update.participants.clone(),
        _ => Vec::new(),
    };
    messages.iter().flat_map(participants).collect()
}
