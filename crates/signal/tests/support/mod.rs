//! A signal server on a free port over rooms that a test plays itself.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::disallowed_methods, reason = "tokens are made for the real clock")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use serde_json::{Value, json};
use sluice_control::{
    ApiError, Grants, JoinError, JoinParams, RoomSettings, SessionOutput, SharedResponse,
    WebhookEvent,
};
use sluice_proto as proto;
use sluice_proto::signal_response::Message as Response;
use sluice_signal::token::ApiKeys;
use sluice_signal::{
    Agents, AgentsConfig, Gate, HostedSession, RoomApi, SessionHost, SessionSink, SessionSource,
    SignalConfig, SignalServer, SignalStats,
};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub const KEY: &str = "devkey";
pub const SECRET: &str = "secret";

/// A test that hangs is a failed test.
const PATIENCE: Duration = Duration::from_secs(20);

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One join that reached the rooms.
pub struct Joined {
    pub room: String,
    pub settings: RoomSettings,
    pub params: JoinParams,
    /// What the client sends.
    pub requests: mpsc::Receiver<proto::SignalRequest>,
    /// What the client gets. Dropping it is an overflow.
    pub responses: mpsc::Sender<SessionOutput>,
}

/// A call of the API that leaves no trace in its answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// Room, identity, and before when tokens were issued.
    Revoke((String, String, u64)),
    /// Room and identity.
    Remove((String, String)),
}

/// Rooms played by a test.
#[derive(Clone)]
pub struct FakeHost {
    calls: mpsc::UnboundedSender<Call>,
    joins: mpsc::Sender<Joined>,
    refuse: Arc<Mutex<Option<JoinError>>>,
    silent: bool,
}

pub struct FakeSink(mpsc::Sender<proto::SignalRequest>);
pub struct FakeSource(mpsc::Receiver<SessionOutput>);

impl SessionSink for FakeSink {
    async fn send(&self, request: proto::SignalRequest) -> bool {
        self.0.send(request).await.is_ok()
    }
}

impl SessionSource for FakeSource {
    async fn next(&mut self) -> Option<SessionOutput> {
        self.0.recv().await
    }

    fn has_next(&self) -> bool {
        !self.0.is_empty()
    }
}

impl SessionHost for FakeHost {
    type Requests = FakeSink;
    type Responses = FakeSource;

    fn check_join(&self, room: &str, _grants: &Grants) -> Result<(), JoinError> {
        if room == "missing" { Err(JoinError::RoomNotFound) } else { Ok(()) }
    }

    async fn join(
        &self,
        room: &str,
        settings: RoomSettings,
        params: JoinParams,
    ) -> Result<HostedSession<Self>, JoinError> {
        if let Some(error) = self.refuse.lock().await.clone() {
            return Err(error);
        }
        let (requests, requests_out) = mpsc::channel(1000);
        let (responses, responses_out) = mpsc::channel(1000);
        if !self.silent {
            responses.send(message(Response::Join(proto::JoinResponse::default()))).await.ok();
        }
        let room = room.to_owned();
        let joined = Joined { room, settings, params, requests: requests_out, responses };
        self.joins.send(joined).await.expect("the test lives");
        Ok(HostedSession {
            participant_sid: Some("PA_test".into()),
            requests: FakeSink(requests),
            responses: FakeSource(responses_out),
        })
    }
}

impl RoomApi for FakeHost {
    async fn create_room(
        &self,
        request: proto::CreateRoomRequest,
    ) -> Result<proto::Room, ApiError> {
        Ok(proto::Room { name: request.name, sid: "RM_test".into(), ..Default::default() })
    }

    async fn list_rooms(&self, names: &[String]) -> Result<Vec<proto::Room>, ApiError> {
        let named = |name: &String| proto::Room {
            name: name.clone(),
            sid: "RM_test".into(),
            ..Default::default()
        };
        Ok(names.iter().filter(|name| *name != "missing").map(named).collect())
    }

    async fn delete_room(&self, _room: &str) -> Result<(), ApiError> {
        Err(ApiError::ROOM_NOT_FOUND)
    }

    fn auto_creates(&self) -> bool {
        true
    }

    async fn revoke_tokens(
        &self,
        room: &str,
        identity: &str,
        issued_before: u64,
    ) -> Result<(), ApiError> {
        let revoked = (room.to_owned(), identity.to_owned(), issued_before);
        self.calls.send(Call::Revoke(revoked)).expect("the test lives");
        Ok(())
    }

    async fn forward_participant(
        &self,
        _request: proto::ForwardParticipantRequest,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    async fn move_participant(
        &self,
        _request: proto::MoveParticipantRequest,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    async fn perform_rpc(&self, request: proto::PerformRpcRequest) -> Result<String, ApiError> {
        match request.method.as_str() {
            "slow" => Err(ApiError::Canceled("RpcError 1502: Response timeout".into())),
            _ => Ok(request.payload),
        }
    }

    async fn list_participants(
        &self,
        _room: &str,
    ) -> Result<Vec<proto::ParticipantInfo>, ApiError> {
        Ok(vec![proto::ParticipantInfo { identity: "alice".into(), ..Default::default() }])
    }

    async fn get_participant(
        &self,
        _room: &str,
        identity: &str,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        Ok(proto::ParticipantInfo { identity: identity.into(), ..Default::default() })
    }

    async fn remove_participant(&self, room: &str, identity: &str) -> Result<(), ApiError> {
        let removed = (room.to_owned(), identity.to_owned());
        self.calls.send(Call::Remove(removed)).expect("the test lives");
        if identity == "nobody" { Err(ApiError::PARTICIPANT_NOT_FOUND) } else { Ok(()) }
    }

    async fn mute_track(
        &self,
        request: proto::MuteRoomTrackRequest,
    ) -> Result<Option<proto::TrackInfo>, ApiError> {
        let (sid, muted) = (request.track_sid, request.muted);
        Ok((sid != "none").then(|| proto::TrackInfo { sid, muted, ..Default::default() }))
    }

    async fn send_data(&self, _request: proto::SendDataRequest) -> Result<(), ApiError> {
        Ok(())
    }

    async fn update_participant(
        &self,
        _request: proto::UpdateParticipantRequest,
    ) -> Result<proto::ParticipantInfo, ApiError> {
        Err(ApiError::InvalidArgument("metadata exceeds limits".into()))
    }

    async fn update_subscriptions(
        &self,
        _request: proto::UpdateSubscriptionsRequest,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    async fn update_room_metadata(
        &self,
        room: &str,
        metadata: String,
    ) -> Result<proto::Room, ApiError> {
        Ok(proto::Room { name: room.into(), metadata, ..Default::default() })
    }
}

/// A running server.
pub struct TestServer {
    pub address: SocketAddr,
    pub stats: Arc<SignalStats>,
    /// Tells the agents what happens in rooms.
    pub events: mpsc::Sender<Arc<WebhookEvent>>,
    pub calls: Mutex<mpsc::UnboundedReceiver<Call>>,
    joins: Mutex<mpsc::Receiver<Joined>>,
    refuse: Arc<Mutex<Option<JoinError>>>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(false, None).await
    }

    /// Sessions of this server produce no first message by themselves.
    pub async fn start_silent() -> Self {
        Self::start_with(true, None).await
    }

    /// A server with an adapter between callers and rooms.
    pub async fn start_gated(gate: Arc<dyn Gate>) -> Self {
        Self::start_with(false, Some(gate)).await
    }

    async fn start_with(silent: bool, gate: Option<Arc<dyn Gate>>) -> Self {
        // The HTTP client of the tests wants to know how it would do TLS. Set by another test: fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (joins_in, joins) = mpsc::channel(16);
        let refuse = Arc::new(Mutex::new(None));
        let (calls_in, calls) = mpsc::unbounded_channel();
        let host = FakeHost { calls: calls_in, joins: joins_in, refuse: refuse.clone(), silent };
        let keys = ApiKeys::new([(KEY, SECRET), ("other", "other-secret")]);
        let (events, for_agents) = mpsc::channel(100);
        let config = AgentsConfig::default();
        let agents = Agents::start(host.clone(), for_agents, config, keys.clone());
        let config = SignalConfig { keys, agents: Some(agents), gate, ..SignalConfig::default() };
        let server = SignalServer::new(host, config);
        let stats = server.stats().clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let service = server.router().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let (calls, joins) = (Mutex::new(calls), Mutex::new(joins));
        Self { address, stats, events, calls, joins, refuse }
    }

    /// Every join from now on fails.
    pub async fn refuse(&self, error: JoinError) {
        *self.refuse.lock().await = Some(error);
    }

    /// The next join that reached the rooms.
    pub async fn joined(&self) -> Joined {
        within(self.joins.lock().await.recv()).await.expect("the server lives")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Opens a socket; the first message has been read.
    pub async fn connect(&self, path: &str) -> Socket {
        let mut socket = self.open(path).await.expect("upgrades");
        let first = receive(&mut socket).await;
        assert!(matches!(first, Response::Join(_)), "{first:?}");
        socket
    }

    pub async fn open(&self, path: &str) -> Result<Socket, tungstenite::Error> {
        let url = format!("ws://{}{path}", self.address);
        let request = url.into_client_request().expect("a good request");
        let config = WebSocketConfig::default();
        let opening = tokio_tungstenite::connect_async_with_config(request, Some(config), false);
        // Large: TLS is compiled in.
        within(Box::pin(opening)).await.map(|(socket, _)| socket)
    }

    /// Status and body of a refused upgrade.
    pub async fn refused(&self, path: &str) -> (u16, String) {
        match self.open(path).await {
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                (response.status().as_u16(), String::from_utf8(body).expect("text"))
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("upgraded"),
        }
    }
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

pub fn message(response: Response) -> SessionOutput {
    SessionOutput::Message(SharedResponse::new(response))
}

/// The next binary message.
pub async fn receive(socket: &mut Socket) -> Response {
    match next_frame(socket).await {
        Message::Binary(bytes) => {
            let response = proto::SignalResponse::decode(bytes).expect("a response");
            response.message.expect("a variant")
        }
        other => panic!("{other:?}"),
    }
}

/// The next frame that is not a ping.
pub async fn next_frame(socket: &mut Socket) -> Message {
    loop {
        match within(socket.next()).await.expect("open").expect("a frame") {
            Message::Ping(_) => {}
            frame => return frame,
        }
    }
}

/// The code of the close frame that must come next.
pub async fn close_code(socket: &mut Socket) -> u16 {
    match next_frame(socket).await {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("{other:?}"),
    }
}

pub async fn send(socket: &mut Socket, request: proto::signal_request::Message) {
    let request = proto::SignalRequest { message: Some(request) };
    within(socket.send(Message::Binary(request.encode_to_vec().into()))).await.expect("sends");
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// Claims of a token that may join `room`.
pub fn join_claims(room: &str) -> Value {
    json!({
        "iss": KEY,
        "sub": "alice",
        "exp": now() + 600,
        "video": { "roomJoin": true, "room": room },
    })
}

/// Signs any claims.
pub fn sign(claims: &Value, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    jsonwebtoken::encode(&header, claims, &key).expect("signs")
}

/// A token that may join `room`.
pub fn token(room: &str) -> String {
    sign(&join_claims(room), SECRET)
}
