//! Publishing: a client announces a track (`add_track`), later a media section of its offer carries
//! it, and then it exists for the others.

use std::time::{Duration, Instant};

use sluice_engine::api::{Command, TrackId};
use sluice_proto as proto;
use sluice_proto::TrackType;
use sluice_proto::request_response::{Reason, Request};
use sluice_proto::signal_response::Message as Response;
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::{CodecParameters, CodecPolicy, ReceiverBinding, RemoteOffer};

use crate::backup_codec::possible_backups;
use crate::ids::TrackSid;
use crate::lifecycle::Departure;
use crate::outputs::WebhookKind;
use crate::participant::{Participant, ParticipantKey};
use crate::pending::{Announced, Pending, PendingTrack};
use crate::room::Room;
use crate::timers::Timer;
use crate::track::{Track, Wanted, next_version};
use crate::track_info;

/// Announced tracks without media that a participant may have (LiveKit's limit).
const MAX_PENDING_TRACKS: usize = 20;

/// An unmuted track must bring media within this time (LiveKit's publish time-out).
const PUBLICATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Announcements that may wait for an earlier track of the same cid to end (LiveKit's limit).
const MAX_QUEUED_PER_CID: usize = 3;

/// A media section on which the client sends.
#[derive(Debug)]
pub(crate) struct PublishSection {
    pub(crate) kind: MediaKind,
    /// Track id of `a=msid`, empty without one.
    pub(crate) sdp_track_id: String,
    /// The stream that it feeds: a track, or a further codec of one.
    pub(crate) track: Option<TrackId>,
    /// Whether what it was announced for is not forwarded.
    pub(crate) ignored: bool,
    /// What the latest answer allows on it.
    pub(crate) receiver: Option<ReceiverBinding>,
}

/// A section that an answer accepted.
pub(crate) struct Accepted {
    pub(crate) mid: String,
    pub(crate) receiver: ReceiverBinding,
    pub(crate) codec: CodecParameters,
    pub(crate) sdp_track_id: String,
}

impl Room {
    /// `AddTrackRequest`.
    pub(crate) fn add_track(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        request: proto::AddTrackRequest,
    ) {
        let Some(participant) = self.participants.get(&key) else { return };
        let refusal = match request.r#type() {
            TrackType::Data => Some((Reason::UnsupportedType, "track type is not supported")),
            _ if !participant.grants.can_publish_source(request.source()) => {
                Some((Reason::NotAllowed, "does not have permission to publish this source"))
            }
            _ if participant.pending.len() >= MAX_PENDING_TRACKS => {
                Some((Reason::LimitExceeded, "too many pending tracks"))
            }
            _ => None,
        };
        if let Some((reason, message)) = refusal {
            return self.refuse(key, 0, reason, message, Request::AddTrack(request));
        }
        if !request.sid.is_empty() {
            return self.add_backup_codec(now, key, request);
        }
        if self.cid_in_use(key, &request.cid) {
            return self.queue_track(key, request);
        }
        self.announce(key, &request);
        self.match_waiting_sections(now, key);
    }

    pub(crate) fn enabled_codecs(&self) -> CodecPolicy {
        let enabled = self.config.enabled_codecs.iter();
        CodecPolicy::from_mime_types(enabled.map(|codec| codec.mime.as_str()))
    }

    /// Makes the track known to its publisher.
    fn announce(&mut self, key: ParticipantKey, request: &proto::AddTrackRequest) {
        let sid = TrackSid::random(request.r#type(), request.source(), &mut self.rng);
        let info = track_info::from_request(request, &sid, &self.enabled_codecs());
        let Some(participant) = self.participants.get_mut(&key) else { return };
        participant.pending.push(PendingTrack {
            cid: request.cid.clone(),
            kind: kind_of(request.r#type()),
            state: Pending::Announced(Announced::Track(Box::new(info.clone()))),
        });
        let published =
            proto::TrackPublishedResponse { cid: request.cid.clone(), track: Some(info) };
        self.send(key, Response::TrackPublished(published));
    }

    fn queue_track(&mut self, key: ParticipantKey, request: proto::AddTrackRequest) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let same = |pending: &&PendingTrack| pending.is_queued() && pending.cid == request.cid;
        if participant.pending.iter().filter(same).count() >= MAX_QUEUED_PER_CID {
            let message = "too many tracks are queued for this cid";
            return self.refuse(key, 0, Reason::LimitExceeded, message, Request::AddTrack(request));
        }
        participant.pending.push(PendingTrack {
            cid: request.cid.clone(),
            kind: kind_of(request.r#type()),
            state: Pending::Queued(Box::new(request.clone())),
        });
        let message = "another track of this cid is published";
        self.refuse(key, 0, Reason::Queued, message, Request::AddTrack(request));
    }

    fn cid_in_use(&self, key: ParticipantKey, cid: &str) -> bool {
        let Some(participant) = self.participants.get(&key) else { return false };
        let published = participant.published.iter().filter_map(|id| self.tracks.get(id));
        participant.pending.iter().any(|pending| pending.has_cid(cid))
            || published
                .flat_map(|track| &track.info.codecs)
                .any(|codec| codec.cid == cid || codec.sdp_cid == cid)
    }

    /// A published or announced track of this participant.
    pub(crate) fn own_track_info(
        &mut self,
        key: ParticipantKey,
        sid: &str,
    ) -> Option<&mut proto::TrackInfo> {
        let participant = self.participants.get_mut(&key)?;
        if let Some(id) = self.track_sids.get(sid)
            && participant.published.contains(id)
        {
            return self.tracks.get_mut(id).map(|track| &mut track.info);
        }
        let mut pending = participant.pending.iter_mut().filter_map(PendingTrack::info_mut);
        pending.find(|info| info.sid == sid)
    }

    /// Reads an offer: which sections send what, which stopped. Claims announced tracks for the
    /// new ones and says what the answer should prefer.
    pub(crate) fn match_offered_sections(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        offer: &RemoteOffer,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let mut ended = Vec::new();
        for section in &offer.sections {
            let id = section.msid.as_ref().map_or("", |(_, track)| track.as_str());
            let Some(kind) = section.media_kind().filter(|_| section.sends()) else {
                let stopped = participant.sections.remove(&section.mid);
                ended.extend(stopped.and_then(|section| section.track));
                continue;
            };
            let known = participant.sections.entry(section.mid.clone());
            let known = known.or_insert_with(|| PublishSection {
                kind,
                sdp_track_id: String::new(),
                track: None,
                ignored: false,
                receiver: None,
            });
            let announced = |p: &PendingTrack| p.is_announced() && p.kind == kind && p.has_cid(id);
            // The id changes when a section is used again; without an announcement it is noise.
            if known.sdp_track_id != id && participant.pending.iter().any(announced) {
                ended.extend(known.track.take());
                known.ignored = false;
            }
            if known.track.is_none() {
                known.sdp_track_id = id.to_owned();
            }
        }
        for stream in ended {
            self.end_stream(now, key, stream);
        }
        self.claim_pending(key);
        self.prefer_codecs(key);
    }

    /// Pairs unmatched sections with announced tracks: by id first, then first come first served.
    fn claim_pending(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        for exact in [true, false] {
            let unmatched: Vec<String> =
                participant.unmatched_sections().map(str::to_owned).collect();
            for mid in unmatched {
                let section = &participant.sections[&mid];
                let (kind, id) = (section.kind, section.sdp_track_id.clone());
                let pending = &mut participant.pending;
                if pending.iter().any(|p| p.is_claimed_by(&mid)) {
                    continue;
                }
                let found = pending
                    .iter_mut()
                    .find(|p| p.is_announced() && p.kind == kind && (!exact || p.has_cid(&id)));
                if let Some(found) = found {
                    found.claim(mid);
                }
            }
        }
    }

    /// Takes over what an answer allows the client to send: publishes claimed tracks and tells the
    /// workers.
    pub(crate) fn apply_receivers(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        receivers: &[ReceiverBinding],
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        for section in participant.sections.values_mut() {
            section.receiver = None;
        }
        for receiver in receivers {
            if let Some(section) = participant.sections.get_mut(&receiver.mid) {
                section.receiver = Some(receiver.clone());
            }
        }
        let published = self.publish_claimed(now, key);
        self.send_receive_params(key);
        for track in published {
            self.announce_published(now, key, track);
        }
    }

    /// An announcement that came after the section it belongs to.
    pub(crate) fn match_waiting_sections(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        if participant.unmatched_sections().next().is_none() {
            return;
        }
        self.claim_pending(key);
        let published = self.publish_claimed(now, key);
        if published.is_empty() {
            return;
        }
        self.send_receive_params(key);
        for track in published {
            self.announce_published(now, key, track);
        }
    }

    /// Publishes what was claimed where the answer accepted its section; the rest goes back to
    /// waiting. Returns the new streams.
    fn publish_claimed(&mut self, now: Instant, key: ParticipantKey) -> Vec<TrackId> {
        let Some(participant) = self.participants.get_mut(&key) else { return Vec::new() };
        let mut published = Vec::new();
        let mut waiting = Vec::new();
        for mut pending in std::mem::take(&mut participant.pending) {
            let Pending::Claimed(announced, mid) = pending.state else {
                waiting.push(pending);
                continue;
            };
            match self.publish_section(now, key, &announced, &mid) {
                Some(stream) => published.extend(stream),
                None => {
                    pending.state = Pending::Announced(announced);
                    waiting.push(pending);
                }
            }
        }
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.pending = waiting;
        }
        published
    }

    /// The stream that a section feeds from now on, if it is forwarded. `None` while the section is
    /// not accepted.
    fn publish_section(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        announced: &Announced,
        mid: &str,
    ) -> Option<Option<TrackId>> {
        let section = self.participants.get(&key)?.sections.get(mid)?;
        let receiver = section.receiver.clone()?;
        let accepted = Accepted {
            mid: mid.to_owned(),
            codec: chosen_codec(&receiver)?,
            receiver,
            sdp_track_id: section.sdp_track_id.clone(),
        };
        let stream = match announced {
            Announced::Track(info) => self.publish_track(now, key, info, &accepted),
            Announced::Backup(backup) => self.publish_backup(now, key, backup, &accepted)?,
        };
        let section = self.participants.get_mut(&key)?.sections.get_mut(mid)?;
        section.track = stream;
        section.ignored = stream.is_none();
        Some(stream)
    }

    fn publish_track(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        info: &proto::TrackInfo,
        accepted: &Accepted,
    ) -> Option<TrackId> {
        let unix_micros = self.unix_micros(now);
        let participant = self.participants.get_mut(&key)?;
        let Accepted { receiver, codec, sdp_track_id, .. } = accepted;
        // The SID was made here and never left.
        let sid = TrackSid::parse(&info.sid)?;
        let id = self.host.next_track_id(participant.links.worker);
        let mut info = info.clone();
        let with_red = publishes_red(receiver);
        let flowing = if with_red { Codec::Red } else { codec.codec };
        track_info::complete(&mut info, receiver, flowing, sdp_track_id);
        let gets_red = self.config.active_red_encoding && codec.codec == Codec::Opus;
        let redundant = with_red || (gets_red && may_be_redundant(&info));
        info.version = Some(next_version(None, unix_micros));
        participant.published.push(id);
        participant.is_publisher = true;
        self.track_sids.insert(sid.clone(), id);
        self.tracks.insert(
            id,
            Track {
                stream_id: format!("{}|{sid}", participant.sid).into(),
                sid,
                owner: key,
                kind: receiver.kind,
                codec: codec.clone(),
                backups: possible_backups(&info, receiver),
                regressed: None,
                redundant,
                info,
                subscribers: std::collections::BTreeSet::new(),
                subscribed_once: false,
                wanted: Wanted::default(),
                has_media: false,
                forwarded: false,
            },
        );
        Some(id)
    }

    /// Tells everyone of a new track, then subscribes those who want it: in this order, because
    /// clients drop media of tracks that they were not told about.
    fn announce_published(&mut self, now: Instant, key: ParticipantKey, id: TrackId) {
        if self.backup_streams.contains_key(&id) {
            return self.backup_published(now, key, id);
        }
        let Some(track) = self.tracks.get(&id) else { return };
        if track.info.muted {
            self.out.engine(Command::SetTrackMuted { track: id, muted: true });
        }
        self.expect_media(now, id);
        self.announce_track(now, key, id);
    }

    /// See [`Self::announce_published`]; the workers know what they need to.
    pub(crate) fn announce_track(&mut self, now: Instant, key: ParticipantKey, id: TrackId) {
        self.webhook(WebhookKind::TrackPublished, key, Some(id));
        self.participant_changed(now, key, true);
        self.room_changed(now, false);
        let others: Vec<ParticipantKey> = self.participants.keys().copied().collect();
        for other in others {
            self.auto_subscribe(now, other, id);
        }
    }

    /// Ends a published track for everyone.
    pub(crate) fn unpublish(&mut self, now: Instant, key: ParticipantKey, id: TrackId) {
        if !self.tracks.contains_key(&id) {
            return;
        }
        self.webhook(WebhookKind::TrackUnpublished, key, Some(id));
        let ended = self.remove_track(now, id);
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.published.retain(|published| *published != id);
            for section in participant.sections.values_mut() {
                section.track = section.track.filter(|stream| !ended.contains(stream));
            }
        }
        self.participant_changed(now, key, true);
        self.room_changed(now, false);
        self.announce_queued(now, key);
    }

    /// Forgets a track and everyone's subscription to it. Returns its streams.
    pub(crate) fn remove_track(&mut self, now: Instant, id: TrackId) -> Vec<TrackId> {
        let Some(track) = self.tracks.get(&id) else { return Vec::new() };
        let (sid, forwarded) = (track.sid.clone(), track.forwarded);
        let streams: Vec<TrackId> = track.streams(id).collect();
        self.forget_track(now, &sid);
        self.forget_dynacast(id);
        self.timers.cancel(Timer::Publication(id));
        self.track_sids.remove(&sid);
        self.tracks.remove(&id);
        for &track in &streams {
            self.backup_streams.remove(&track);
            if !forwarded {
                self.out.engine(Command::Unpublish { track });
            }
        }
        streams
    }

    /// Announces tracks whose cid has become free.
    fn announce_queued(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let mut queued = Vec::new();
        participant.pending.retain(|pending| match &pending.state {
            Pending::Queued(request) => {
                queued.push(request.as_ref().clone());
                false
            }
            _ => true,
        });
        for request in queued {
            if self.cid_in_use(key, &request.cid) {
                let Some(participant) = self.participants.get_mut(&key) else { return };
                participant.pending.push(PendingTrack {
                    cid: request.cid.clone(),
                    kind: kind_of(request.r#type()),
                    state: Pending::Queued(Box::new(request)),
                });
            } else {
                self.announce(key, &request);
            }
        }
        self.match_waiting_sections(now, key);
    }

    /// Ends the tracks that a participant may no longer publish.
    pub(crate) fn revoke_publications(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let grants = &participant.grants;
        participant.pending.retain(|pending| grants.can_publish_source(pending.source()));
        let forbidden: Vec<TrackId> = participant
            .published
            .iter()
            .copied()
            .filter(|id| {
                let track = self.tracks.get(id);
                track.is_some_and(|track| !grants.can_publish_source(track.source()))
            })
            .collect();
        let tell = participant.client.knows_track_unpublished();
        for id in forbidden {
            let Some(track_sid) = self.tracks.get(&id).map(|t| (&t.sid).into()) else { continue };
            let message = if tell {
                Response::TrackUnpublished(proto::TrackUnpublishedResponse { track_sid })
            } else {
                Response::Mute(proto::MuteTrackRequest { sid: track_sid, muted: true })
            };
            self.send(key, message);
            self.unpublish(now, key, id);
            self.send_receive_params(key);
        }
    }

    /// The first packet of a layer of a stream arrived: its SSRC is part of what others may know.
    pub(crate) fn layer_started(
        &mut self,
        now: Instant,
        stream: TrackId,
        layer: u8,
        ssrc: u32,
        rid: Option<&str>,
    ) {
        let id = self.track_of_stream(stream);
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let backup = track.backups.iter_mut().find(|backup| backup.id == Some(stream));
        let (codec, first_of_backup) = match backup {
            Some(backup) => {
                let first = !std::mem::replace(&mut backup.has_media, true);
                (Some(backup.codec.codec), first)
            }
            None => {
                track.has_media = true;
                self.timers.cancel(Timer::Publication(id));
                (None, false)
            }
        };
        track_info::set_layer_source(&mut track.info, codec, layer, ssrc, rid.unwrap_or_default());
        if let Some(codec) = codec.filter(|_| first_of_backup) {
            self.backup_flows(now, id, codec);
        }
    }

    /// Starts or stops waiting for the first media of a track, as it is muted or not.
    pub(crate) fn expect_media(&mut self, now: Instant, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else { return };
        if track.has_media || track.info.muted {
            self.timers.cancel(Timer::Publication(id));
        } else {
            self.timers.set(Timer::Publication(id), now + PUBLICATION_TIMEOUT);
        }
    }

    /// A published track never brought media.
    pub(crate) fn publication_timed_out(&mut self, now: Instant, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else { return };
        let (owner, sid) = (track.owner, track.sid.clone());
        let Some(participant) = self.participants.get(&owner) else { return };
        tracing::info!(participant = %participant.sid, track = %sid, "published without media");
        // While the client is away nothing can come.
        let present = participant.session.is_some() && !participant.links.any_failed();
        if present && self.config.reconnect_on_publication_error {
            self.depart(now, owner, Departure::TrackFailed);
        }
    }

    /// Whether this track may be named in `SyncState.publish_tracks`.
    pub(crate) fn owns_track(&self, participant: &Participant, sid: &str) -> bool {
        let published =
            self.track_sids.get(sid).is_some_and(|id| participant.published.contains(id));
        published
            || participant.pending.iter().filter_map(PendingTrack::info).any(|info| info.sid == sid)
    }
}

pub(crate) fn kind_of(kind: TrackType) -> MediaKind {
    match kind {
        TrackType::Video => MediaKind::Video,
        TrackType::Audio | TrackType::Data => MediaKind::Audio,
    }
}

/// Whether the answer asks the client for RED: it stands first.
fn publishes_red(receiver: &ReceiverBinding) -> bool {
    receiver.codecs.first().is_some_and(|codec| codec.codec == Codec::Red)
}

/// Whether redundancy is wanted for an audio track, and possible: what is encrypted end to end is
/// not taken apart.
pub(crate) fn may_be_redundant(info: &proto::TrackInfo) -> bool {
    !info.disable_red && info.encryption() == proto::encryption::Type::None
}

/// The codec that flows, RED aside: the first of the answer. The answer put the announced one
/// first.
fn chosen_codec(receiver: &ReceiverBinding) -> Option<CodecParameters> {
    let codec = receiver.codecs.iter().find(|codec| codec.codec != Codec::Red)?;
    Some(CodecParameters::new(codec.codec, codec.fmtp.clone()))
}
