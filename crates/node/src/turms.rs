//! The Turms adapter on this node: rooms and tokens as the adapter sees them, and the adapter as
//! signalling sees it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use futures_util::FutureExt;
use rand::random;
use sluice_control::{ApiError, RoomManager, WebhookEvent, WebhookKind};
use sluice_proto as proto;
use sluice_signal::token::{ApiKeys, Claims, VerifiedToken, VideoGrant, mint, verify};
use sluice_signal::{Admission, FramedBody, Gate, HttpError};
use sluice_turms::admin::AdminClient;
use sluice_turms::compat::{Framing, unframe};
use sluice_turms::gate::{TokenFacts, TurmsGate, UNBOUND_ATTRIBUTE};
use sluice_turms::rooms::{
    Attendee, JoinProof, OpenRoom, RightsChange, RoomError, RoomEvent, RoomEventKind, RoomFuture,
    RoomResult, TokenSpec,
};
use sluice_turms::{Adapter, AdapterParts, AdapterTasks, Clock, Rooms, TurmsConfig, TurmsStats};
use tokio::sync::mpsc;

/// Room events that may wait for the adapter.
pub(crate) const EVENT_QUEUE: usize = 4096;

/// Methods of the stock plugin, the only ones that it frames in its own way.
const PLUGIN_METHODS: [&str; 2] = ["CreateRoom", "DeleteRoom"];

/// The adapter of this node.
pub(crate) struct TurmsNode {
    adapter: Arc<Adapter>,
}

impl TurmsNode {
    /// Starts the adapter over `rooms`, which report to `events`.
    ///
    /// # Errors
    /// The configuration is unusable.
    pub(crate) fn start(
        config: TurmsConfig,
        rooms: RoomManager,
        keys: ApiKeys,
        events: mpsc::Receiver<Arc<WebhookEvent>>,
    ) -> anyhow::Result<Self> {
        if config.state_file.is_none() {
            tracing::warn!(
                "a restart forgets who was removed and which meetings were cancelled: set \
                 `turms.state_file`"
            );
        }
        let stats = Arc::new(TurmsStats::default());
        let client = AdminClient::new(config.admin.clone(), stats.clone());
        let parts = AdapterParts {
            directory: Arc::new(client.map_err(anyhow::Error::msg)?),
            rooms: Arc::new(NodeRooms { rooms, keys }),
            clock: Clock::system(),
            config,
            stats,
        };
        let (adapter, tasks) = Adapter::new(parts).map_err(anyhow::Error::msg)?;
        tokio::spawn(follow(tasks, events));
        Ok(Self { adapter })
    }

    /// Paths under `/turms/v1`.
    pub(crate) fn router(&self) -> Router {
        self.adapter.router()
    }

    /// What joins must pass.
    pub(crate) fn gate(&self) -> Arc<dyn Gate> {
        Arc::new(NodeGate(self.adapter.gate().clone()))
    }

    /// Counters.
    pub(crate) fn stats(&self) -> Arc<TurmsStats> {
        self.adapter.stats().clone()
    }
}

/// Runs the adapter on the events of rooms.
async fn follow(tasks: AdapterTasks, mut events: mpsc::Receiver<Arc<WebhookEvent>>) {
    let (sender, receiver) = mpsc::channel(64);
    let translate = async {
        while let Some(event) = events.recv().await {
            if let Some(event) = room_event(&event)
                && sender.send(event).await.is_err()
            {
                break;
            }
        }
        drop(sender);
    };
    tokio::join!(tasks.run(receiver), translate);
}

fn room_event(event: &WebhookEvent) -> Option<RoomEvent> {
    let identity = || event.participant.as_ref().map(|participant| participant.identity.clone());
    let kind = match event.kind {
        WebhookKind::RoomStarted => RoomEventKind::Started,
        WebhookKind::RoomFinished => RoomEventKind::Finished,
        WebhookKind::ParticipantJoined => RoomEventKind::Joined(identity()?),
        WebhookKind::ParticipantLeft | WebhookKind::ParticipantConnectionAborted => {
            RoomEventKind::Left(identity()?)
        }
        WebhookKind::TrackPublished | WebhookKind::TrackUnpublished => return None,
    };
    Some(RoomEvent { room: event.room.name.clone(), sid: event.room.sid.clone(), kind })
}

/// Wall-clock time since 1970.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn unix_millis() -> i64 {
    i64::try_from(unix_time().as_millis()).unwrap_or(i64::MAX)
}

struct NodeGate(Arc<TurmsGate>);

fn facts(token: &VerifiedToken) -> TokenFacts<'_> {
    TokenFacts {
        api_key: &token.api_key,
        identity: &token.claims.identity,
        issued_at: i64::try_from(token.issued_at).unwrap_or(i64::MAX),
    }
}

impl Gate for NodeGate {
    fn admit(&self, room: &str, token: &VerifiedToken) -> Result<Admission, HttpError> {
        let admitted = self.0.admit(room, facts(token), unix_millis());
        admitted.map_err(|refusal| HttpError::unauthorized(refusal.to_string()))?;
        if !token.claims.identity.is_empty() {
            return Ok(Admission::default());
        }
        let identity = self.0.identity_for(room, random());
        let marked = identity.iter().map(|_| (UNBOUND_ATTRIBUTE.to_owned(), "1".to_owned()));
        Ok(Admission { attributes: marked.collect(), identity })
    }

    fn may_manage(&self, room: &str, token: &VerifiedToken) -> bool {
        self.0.may_manage(room, &token.api_key)
    }

    fn may_administer(&self, room: &str, token: &VerifiedToken) -> bool {
        self.0.may_administer(room, facts(token), unix_millis())
    }

    fn unframe(&self, method: &str, body: bytes::Bytes) -> FramedBody {
        if !self.0.unframes() || !PLUGIN_METHODS.contains(&method) {
            return FramedBody { message: body, delimited: false };
        }
        let (framing, message) = unframe(&body);
        let delimited = framing == Framing::Delimited;
        if delimited {
            self.0.count_delimited();
        }
        FramedBody { message: body.slice_ref(message), delimited }
    }

    fn room_deleted(&self, room: &str) {
        self.0.room_deleted(room, unix_millis());
    }
}

/// Rooms and keys of this node.
struct NodeRooms {
    rooms: RoomManager,
    keys: ApiKeys,
}

fn room_error(error: ApiError) -> RoomError {
    match error {
        ApiError::NotFound(_) => RoomError::NotFound,
        other => RoomError::Failed(other.to_string()),
    }
}

fn attendee(info: proto::ParticipantInfo) -> Attendee {
    let permission = info.permission.unwrap_or_default();
    Attendee {
        identity: info.identity,
        name: info.name,
        joined_at: info.joined_at_ms,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        is_publishing: info.is_publisher,
        hidden: permission.hidden,
        attributes: info.attributes.into_iter().collect(),
    }
}

impl Rooms for NodeRooms {
    fn open_rooms(&self) -> Vec<String> {
        self.rooms.list_rooms(&[]).into_iter().map(|room| room.name).collect()
    }

    fn open_room(&self, room: &str) -> Option<OpenRoom> {
        self.rooms.list_rooms(&[room.to_owned()]).first().map(|room| OpenRoom {
            participants: room.num_participants,
            max_participants: room.max_participants,
        })
    }

    fn open<'a>(
        &'a self,
        room: &'a str,
        empty_timeout: Option<Duration>,
        max_participants: Option<u32>,
    ) -> RoomFuture<'a> {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let request = proto::CreateRoomRequest {
            name: room.to_owned(),
            empty_timeout: empty_timeout.map_or(0, seconds),
            max_participants: max_participants.unwrap_or_default(),
            ..Default::default()
        };
        async move { self.rooms.create_room(request).await.map(|_| ()).map_err(room_error) }.boxed()
    }

    fn attendees<'a>(&'a self, room: &'a str) -> RoomFuture<'a, Vec<Attendee>> {
        async move {
            let participants = self.rooms.list_participants(room).await.map_err(room_error)?;
            Ok(participants.into_iter().map(attendee).collect())
        }
        .boxed()
    }

    fn set_rights<'a>(&'a self, change: RightsChange<'a>) -> RoomFuture<'a> {
        async move {
            let RightsChange { room, identity, rights, attributes } = change;
            let now = self.rooms.get_participant(room, identity).await.map_err(room_error)?;
            // What the policy does not speak of stays as it is.
            let permission = proto::ParticipantPermission {
                can_publish: rights.can_publish,
                can_publish_data: rights.can_publish_data,
                ..now.permission.unwrap_or_default()
            };
            let request = proto::UpdateParticipantRequest {
                room: room.to_owned(),
                identity: identity.to_owned(),
                permission: Some(permission),
                attributes: attributes.into_iter().collect(),
                ..Default::default()
            };
            self.rooms.update_participant(request).await.map(|_| ()).map_err(room_error)
        }
        .boxed()
    }

    fn set_admin<'a>(&'a self, room: &'a str, identity: &'a str, admin: bool) -> RoomFuture<'a> {
        async move { self.rooms.set_room_admin(room, identity, admin).await.map_err(room_error) }
            .boxed()
    }

    fn remove<'a>(&'a self, room: &'a str, identity: &'a str) -> RoomFuture<'a> {
        async move { self.rooms.remove_participant(room, identity).await.map_err(room_error) }
            .boxed()
    }

    fn close<'a>(&'a self, room: &'a str) -> RoomFuture<'a> {
        async move { self.rooms.delete_room(room).await.map_err(room_error) }.boxed()
    }

    fn mint(&self, token: &TokenSpec) -> RoomResult<String> {
        let key = token.api_key.as_deref().or_else(|| self.keys.first());
        let key = key.ok_or_else(|| RoomError::Failed("no API key is configured".into()))?;
        let claims = Claims {
            identity: token.identity.clone(),
            name: token.name.clone(),
            attributes: token.attributes.clone(),
            video: Some(VideoGrant {
                room_join: true,
                room: token.room.clone(),
                room_admin: token.rights.room_admin,
                can_publish: Some(token.rights.can_publish),
                can_publish_data: Some(token.rights.can_publish_data),
                can_subscribe: Some(true),
                ..VideoGrant::default()
            }),
            ..Claims::default()
        };
        let issued = Duration::from_secs(u64::try_from(token.issued_at).unwrap_or_default());
        mint(&self.keys, key, &claims, token.ttl, issued)
            .map_err(|error| RoomError::Failed(error.to_string()))
    }

    fn verify_join(&self, token: &str) -> Option<JoinProof> {
        let verified = verify(token, &self.keys, unix_time()).ok()?;
        let video = verified.claims.video.filter(|video| video.room_join)?;
        Some(JoinProof {
            room: video.room,
            api_key: verified.api_key,
            identity: verified.claims.identity,
            issued_at: i64::try_from(verified.issued_at).unwrap_or(i64::MAX),
        })
    }
}
