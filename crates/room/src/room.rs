//! One room: the state that its modules share, and the face that the control plane calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustc_hash::FxHashMap;
use sluice_engine::PlayoutDelayRange;
use sluice_engine::api::{PeerId, RoomKey, SubscriptionId, TrackId};
use sluice_proto as proto;

use crate::data::DataDrops;
use crate::forward::Forwards;
use crate::ice_fallback::IceMemory;
use crate::ids::{ParticipantSid, RoomSid, TrackSid};
use crate::outputs::{Output, Outputs, SessionId, WebhookEvent, WebhookKind};
use crate::params::{MediaHost, RoomConfig, RoomParams};
use crate::participant::{Participant, ParticipantKey};
use crate::resume::Departed;
use crate::rpc::Rpcs;
use crate::speakers::Speakers;
use crate::timers::Timers;
use crate::track::{Track, next_version};
use crate::updates::PendingUpdates;

/// Length of the secret that marks frames which the server makes itself, bytes.
const SIF_TRAILER_LEN: usize = 15;

/// A room, see the crate documentation.
///
/// After each call take all outputs with [`poll_output`](Self::poll_output), then call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout).
pub struct Room {
    pub(crate) sid: RoomSid,
    pub(crate) name: String,
    pub(crate) key: RoomKey,
    pub(crate) config: Arc<RoomConfig>,
    pub(crate) metadata: String,
    pub(crate) empty_timeout: Duration,
    pub(crate) departure_timeout: Duration,
    pub(crate) max_participants: u32,
    pub(crate) playout_delay: Option<PlayoutDelayRange>,
    pub(crate) sync_streams: bool,
    pub(crate) version: Option<proto::TimedVersion>,
    /// Unix time of creation.
    pub(crate) created: Duration,
    pub(crate) sif_trailer: Bytes,
    /// Whether anybody whose absence would close the room ever joined.
    pub(crate) was_joined: bool,
    pub(crate) closed: bool,

    pub(crate) participants: BTreeMap<ParticipantKey, Participant>,
    pub(crate) identities: FxHashMap<Arc<str>, ParticipantKey>,
    pub(crate) sids: FxHashMap<ParticipantSid, ParticipantKey>,
    pub(crate) sessions: FxHashMap<SessionId, ParticipantKey>,
    pub(crate) peers: FxHashMap<PeerId, ParticipantKey>,
    pub(crate) tracks: BTreeMap<TrackId, Track>,
    pub(crate) track_sids: FxHashMap<TrackSid, TrackId>,
    /// The track of each stream that is a further codec of one.
    pub(crate) backup_streams: FxHashMap<TrackId, TrackId>,
    pub(crate) subscription_ids: FxHashMap<SubscriptionId, (ParticipantKey, TrackId)>,

    pub(crate) updates: PendingUpdates,
    pub(crate) departed: Departed,
    pub(crate) ice_memory: IceMemory,
    pub(crate) speakers: Speakers,
    /// Nonces of recent API packets, for de-duplication.
    pub(crate) nonces: VecDeque<Bytes>,
    pub(crate) drops: DataDrops,
    pub(crate) rpcs: Rpcs,
    pub(crate) forwards: Forwards,

    pub(crate) timers: Timers,
    pub(crate) out: Outputs,
    pub(crate) host: Box<dyn MediaHost>,
    pub(crate) rng: StdRng,
    /// The instant at which `created` was taken.
    started: Instant,
    last_key: u64,
    last_session: u64,
    pub(crate) revision: u64,
}

impl Room {
    /// An empty room; it closes by itself when nobody joins within its empty timeout.
    pub fn new(params: RoomParams, now: Instant) -> Self {
        let RoomParams { name, key, config, settings, host, seed, unix_time } = params;
        let mut rng = StdRng::from_seed(seed);
        let mut sif_trailer = [0; SIF_TRAILER_LEN];
        rng.fill_bytes(&mut sif_trailer);
        let unix_micros = unix_time.as_micros().try_into().unwrap_or(i64::MAX);
        let mut room = Self {
            sid: RoomSid::random(&mut rng),
            name,
            key,
            metadata: settings.metadata,
            empty_timeout: settings.empty_timeout.unwrap_or(config.empty_timeout),
            departure_timeout: settings.departure_timeout.unwrap_or(config.departure_timeout),
            max_participants: settings.max_participants.unwrap_or(config.max_participants),
            sync_streams: settings.sync_streams || config.sync_streams,
            playout_delay: settings.playout_delay.or(config.playout_delay),
            config,
            version: Some(next_version(None, unix_micros)),
            created: unix_time,
            sif_trailer: Bytes::copy_from_slice(&sif_trailer),
            was_joined: false,
            closed: false,
            participants: BTreeMap::new(),
            identities: FxHashMap::default(),
            sids: FxHashMap::default(),
            sessions: FxHashMap::default(),
            peers: FxHashMap::default(),
            tracks: BTreeMap::new(),
            track_sids: FxHashMap::default(),
            backup_streams: FxHashMap::default(),
            subscription_ids: FxHashMap::default(),
            updates: PendingUpdates::default(),
            departed: Departed::default(),
            ice_memory: IceMemory::default(),
            speakers: Speakers::default(),
            nonces: VecDeque::new(),
            drops: DataDrops::default(),
            rpcs: Rpcs::default(),
            forwards: Forwards::default(),
            timers: Timers::default(),
            out: Outputs::default(),
            host,
            rng,
            started: now,
            last_key: 0,
            last_session: 0,
            revision: 0,
        };
        room.check_idle(now);
        let started = WebhookEvent {
            agents: settings.agents,
            ..room.webhook_event(WebhookKind::RoomStarted)
        };
        room.report(started);
        room
    }

    /// SID of the room.
    pub fn sid(&self) -> &RoomSid {
        &self.sid
    }

    /// Whether the room is over.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Rises whenever [`to_proto`](Self::to_proto) may say something new.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next effect; `None` when all are taken.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    pub(crate) fn unix_time(&self, now: Instant) -> Duration {
        self.created + now.saturating_duration_since(self.started)
    }

    pub(crate) fn unix_micros(&self, now: Instant) -> i64 {
        self.unix_time(now).as_micros().try_into().unwrap_or(i64::MAX)
    }

    pub(crate) fn next_random(&mut self) -> u32 {
        self.rng.next_u32()
    }

    pub(crate) fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    pub(crate) fn next_session_id(&mut self) -> SessionId {
        self.last_session += 1;
        SessionId(self.last_session)
    }

    pub(crate) fn new_session(&mut self, key: ParticipantKey) -> SessionId {
        let session = self.next_session_id();
        self.sessions.insert(session, key);
        session
    }
}
