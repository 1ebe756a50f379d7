//! `ForwardParticipant`: a participant of one room appears in another one as well, with the same
//! tracks. Its own room sends snapshots of it; the other room keeps a participant without any
//! connection that looks like the latest one. The workers know nothing of it: a track has receivers
//! wherever they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use sluice_engine::api::TrackId;
use sluice_proto as proto;
use sluice_proto::DisconnectReason;
use sluice_proto::participant_info::{KindDetail, State};
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::CodecParameters;

use crate::Grants;
use crate::error::{ApiError, JoinError};
use crate::ids::{ParticipantSid, TrackSid};
use crate::lifecycle::Departure;
use crate::outputs::{Output, WebhookKind};
use crate::params::{JoinParams, SessionOptions};
use crate::participant::ParticipantKey;
use crate::room::Room;
use crate::timers::Timer;
use crate::track::{BackupCodec, Track, Wanted};

/// Rooms that one participant may be forwarded to.
const MAX_DESTINATIONS: usize = 100;

/// News of a forwarded participant for one other room.
#[derive(Debug, Clone)]
pub struct Forward {
    /// SID of the participant in its own room.
    origin: ParticipantSid,
    /// Asked for just now. Otherwise news of someone who was removed from the other room is
    /// ignored there.
    requested: bool,
    /// Version of the participant: older news may come after newer ones.
    version: u32,
    news: News,
}

#[derive(Debug, Clone)]
enum News {
    /// How it is now.
    Is(Box<Snapshot>),
    /// It left.
    Left,
    /// How loud its tracks are; those that are not named are silent.
    Speaks(Vec<(TrackId, f32)>),
    /// How its own connection is, 0..=100.
    Quality(f32),
}

impl Forward {
    /// Whether both are about the same session of a participant.
    pub fn is_about_same(&self, other: &Self) -> bool {
        self.origin == other.origin
    }
}

#[derive(Debug, Clone)]
struct Snapshot {
    params: JoinParams,
    tracks: Vec<ForwardedTrack>,
}

#[derive(Debug, Clone)]
struct ForwardedTrack {
    id: TrackId,
    kind: MediaKind,
    codec: CodecParameters,
    backups: Vec<BackupCodec>,
    regressed: Option<Codec>,
    redundant: bool,
    info: proto::TrackInfo,
}

/// Who is forwarded from this room, and who is forwarded to it.
#[derive(Debug, Default)]
pub(crate) struct Forwards {
    /// Names of the other rooms.
    out: BTreeMap<ParticipantKey, BTreeSet<String>>,
    /// Who of those is speaking, as the other rooms know.
    speaking: BTreeSet<ParticipantKey>,
    /// By SID in its own room.
    incoming: BTreeMap<ParticipantSid, Incoming>,
}

#[derive(Debug, Clone, Copy)]
struct Incoming {
    /// `None`: removed here while it is still in its own room.
    key: Option<ParticipantKey>,
    /// Version of the latest news.
    version: u32,
}

impl Room {
    /// Begins to forward a participant; hand the result to the other room.
    ///
    /// # Errors
    /// No such participant, it is forwarded itself, or it is forwarded to too many rooms.
    pub fn forward_participant(
        &mut self,
        identity: &str,
        destination: &str,
    ) -> Result<Forward, ApiError> {
        let key = self.key_of(identity)?;
        let participant = self.participants.get(&key).ok_or(ApiError::PARTICIPANT_NOT_FOUND)?;
        if participant.is_forwarded() {
            let text = "a forwarded participant can only be forwarded from its own room";
            return Err(ApiError::FailedPrecondition(text));
        }
        let destinations = self.forwards.out.entry(key).or_default();
        if destinations.len() >= MAX_DESTINATIONS && !destinations.contains(destination) {
            let text = format!("participant is forwarded to {MAX_DESTINATIONS} rooms already");
            return Err(ApiError::ResourceExhausted(text));
        }
        destinations.insert(destination.to_owned());
        self.forward_of(key, true).ok_or(ApiError::PARTICIPANT_NOT_FOUND)
    }

    /// Ends forwarding to one room, which did not take the participant.
    pub fn stop_forwarding(&mut self, identity: &str, destination: &str) {
        if let Ok(key) = self.key_of(identity)
            && let Some(destinations) = self.forwards.out.get_mut(&key)
        {
            destinations.remove(destination);
        }
    }

    fn forward_of(&self, key: ParticipantKey, requested: bool) -> Option<Forward> {
        let participant = self.participants.get(&key)?;
        let published =
            participant.published.iter().filter_map(|id| Some((*id, self.tracks.get(id)?)));
        let tracks = published.map(|(id, track)| ForwardedTrack {
            id,
            kind: track.kind,
            codec: track.codec.clone(),
            backups: track.backups.clone(),
            regressed: track.regressed,
            redundant: track.redundant,
            info: track.info.clone(),
        });
        let mut kind_details = participant.kind_details.clone();
        kind_details.push(KindDetail::Forwarded);
        let params = JoinParams {
            identity: participant.identity.as_ref().to_owned(),
            name: participant.name.clone(),
            kind: participant.kind,
            kind_details,
            // It is there to be seen only.
            grants: Grants { can_subscribe: Some(false), ..participant.grants.clone() },
            metadata: participant.metadata.clone(),
            attributes: participant.attributes.clone(),
            client_info: participant.client.info().clone(),
            options: SessionOptions { auto_subscribe: false, ..SessionOptions::default() },
            ..JoinParams::default()
        };
        let news = News::Is(Box::new(Snapshot { params, tracks: tracks.collect() }));
        let (origin, version) = (participant.sid.clone(), participant.version);
        Some(Forward { origin, requested, version, news })
    }

    /// A participant changed: the rooms that it is forwarded to hear of it.
    pub(crate) fn forward_change(&mut self, key: ParticipantKey) {
        let Some(destinations) = self.forwards.out.get(&key) else { return };
        let destinations = destinations.clone();
        let Some(forward) = self.forward_of(key, false) else { return };
        self.send_forward(destinations, &forward);
    }

    /// A participant left: so it does where it is forwarded to. One that was forwarded to here stays
    /// away until it is forwarded again.
    pub(crate) fn end_forwards(&mut self, key: ParticipantKey, origin: ParticipantSid) {
        self.forwards.speaking.remove(&key);
        if let Some(destinations) = self.forwards.out.remove(&key) {
            let version = u32::MAX;
            let forward = Forward { origin, requested: false, version, news: News::Left };
            self.send_forward(destinations, &forward);
        }
        for here in self.forwards.incoming.values_mut() {
            here.key.take_if(|here| *here == key);
        }
    }

    /// The levels of this room's tracks changed: the rooms that hear them are told.
    pub(crate) fn forward_levels(&mut self) {
        if self.forwards.out.is_empty() {
            return;
        }
        let mut spoken: BTreeMap<ParticipantKey, Vec<(TrackId, f32)>> = BTreeMap::new();
        for (id, level) in self.track_levels() {
            let owner = self.tracks.get(&id).map(|track| track.owner);
            if let Some(owner) = owner.filter(|owner| self.forwards.out.contains_key(owner)) {
                spoken.entry(owner).or_default().push((id, level));
            }
        }
        let silent = std::mem::take(&mut self.forwards.speaking);
        self.forwards.speaking = spoken.keys().copied().collect();
        for key in silent {
            spoken.entry(key).or_default();
        }
        for (key, levels) in spoken {
            self.forward_live(key, News::Speaks(levels));
        }
    }

    /// The connection of a participant is better or worse than before.
    pub(crate) fn forward_quality(&mut self, key: ParticipantKey, score: f32) {
        self.forward_live(key, News::Quality(score));
    }

    /// Sends what is not part of a snapshot.
    fn forward_live(&mut self, key: ParticipantKey, news: News) {
        let Some(destinations) = self.forwards.out.get(&key).cloned() else { return };
        let Some(participant) = self.participants.get(&key) else { return };
        let (origin, version) = (participant.sid.clone(), participant.version);
        self.send_forward(destinations, &Forward { origin, requested: false, version, news });
    }

    fn send_forward(&mut self, destinations: BTreeSet<String>, forward: &Forward) {
        for destination in destinations {
            self.out.push(Output::Forward { destination, forward: Box::new(forward.clone()) });
        }
    }

    /// Takes news of a participant of another room.
    ///
    /// # Errors
    /// The room is full, or someone of that identity is here.
    pub fn apply_forward(&mut self, now: Instant, forward: Forward) -> Result<(), ApiError> {
        let Forward { origin, requested, version, news } = forward;
        let snapshot = match news {
            News::Is(snapshot) => Some(snapshot),
            News::Left => None,
            News::Speaks(levels) => {
                if let Some(key) = self.forwarded_here(&origin) {
                    self.forwarded_levels(now, key, &levels);
                }
                return Ok(());
            }
            News::Quality(score) => {
                if let Some(key) = self.forwarded_here(&origin) {
                    self.forwarded_quality(key, score);
                }
                return Ok(());
            }
        };
        let here = match self.forwards.incoming.get_mut(&origin) {
            Some(here) if here.version > version => return Ok(()),
            Some(here) => {
                here.version = version;
                Some(here.key)
            }
            None => None,
        };
        match (snapshot, here) {
            (None, here) => {
                if let Some(Some(key)) = here {
                    let reason = DisconnectReason::ClientInitiated;
                    self.depart(now, key, Departure::Client(reason));
                }
                self.forwards.incoming.remove(&origin);
                Ok(())
            }
            (Some(_), Some(None)) if !requested => Ok(()),
            (Some(snapshot), Some(Some(key))) => {
                self.update_forwarded(now, key, *snapshot);
                Ok(())
            }
            (Some(snapshot), _) => {
                let key = self.appear(now, *snapshot)?;
                self.forwards.incoming.insert(origin, Incoming { key: Some(key), version });
                Ok(())
            }
        }
    }

    /// The participant that stands here for one of another room.
    fn forwarded_here(&self, origin: &ParticipantSid) -> Option<ParticipantKey> {
        self.forwards.incoming.get(origin)?.key
    }

    fn forwarded_quality(&mut self, key: ParticipantKey, score: f32) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        participant.links.set_score(score);
        self.broadcast_quality_of(key);
    }

    fn appear(&mut self, now: Instant, snapshot: Snapshot) -> Result<ParticipantKey, ApiError> {
        let Snapshot { params, tracks } = snapshot;
        if self.closed {
            return Err(ApiError::ROOM_NOT_FOUND);
        }
        if self.identities.contains_key(params.identity.as_str()) {
            let text = "a participant of this identity is in the destination room";
            return Err(ApiError::FailedPrecondition(text));
        }
        self.check_capacity(&params)
            .map_err(|error: JoinError| ApiError::ResourceExhausted(error.to_string()))?;
        let (key, session) = self.enter(now, params);
        self.sessions.remove(&session);
        self.timers.cancel(Timer::Join(key));
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.session = None;
            participant.state = State::Active;
        }
        self.webhook(WebhookKind::ParticipantJoined, key, None);
        self.participant_changed(now, key, true);
        self.room_changed(now, false);
        self.set_forwarded_tracks(now, key, tracks);
        Ok(key)
    }

    fn update_forwarded(&mut self, now: Instant, key: ParticipantKey, snapshot: Snapshot) {
        let Snapshot { params, tracks } = snapshot;
        let Some(participant) = self.participants.get_mut(&key) else { return };
        participant.name = params.name;
        participant.metadata = params.metadata;
        participant.attributes = params.attributes;
        participant.grants = params.grants;
        self.participant_changed(now, key, true);
        self.set_forwarded_tracks(now, key, tracks);
    }

    /// Makes the tracks of a forwarded participant those of its latest snapshot.
    fn set_forwarded_tracks(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        tracks: Vec<ForwardedTrack>,
    ) {
        let Some(participant) = self.participants.get(&key) else { return };
        let ended = participant.published.iter().filter(|id| tracks.iter().all(|t| t.id != **id));
        let ended: Vec<TrackId> = ended.copied().collect();
        for id in ended {
            self.unpublish(now, key, id);
        }
        for track in tracks {
            match self.tracks.get_mut(&track.id) {
                Some(known) => {
                    let flow_changed =
                        known.backups != track.backups || known.regressed != track.regressed;
                    known.backups = track.backups;
                    known.regressed = track.regressed;
                    if known.info != track.info {
                        known.info = track.info;
                        self.participant_changed(now, key, true);
                    }
                    if flow_changed {
                        self.rebind_subscribers(now, track.id);
                    }
                }
                None => self.add_forwarded_track(now, key, track),
            }
        }
    }

    fn add_forwarded_track(&mut self, now: Instant, key: ParticipantKey, track: ForwardedTrack) {
        let ForwardedTrack { id, kind, codec, backups, regressed, redundant, info } = track;
        let Some(sid) = TrackSid::parse(&info.sid) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        participant.published.push(id);
        participant.is_publisher = true;
        self.track_sids.insert(sid.clone(), id);
        let track = Track {
            stream_id: format!("{}|{sid}", participant.sid).into(),
            sid,
            owner: key,
            kind,
            codec,
            backups,
            regressed,
            redundant,
            info,
            subscribers: BTreeSet::new(),
            subscribed_once: false,
            wanted: Wanted::default(),
            has_media: true,
            forwarded: true,
        };
        self.tracks.insert(id, track);
        self.announce_track(now, key, id);
    }
}
