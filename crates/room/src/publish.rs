//! Publishing: a client announces a track (`add_track`), later a media section of its offer carries
//! it, and then it exists for the others.

use std::time::{Duration, Instant};

use sluice_engine::api::{
    AnnouncedSsrc, Command, PayloadType, PublishedTrack, ReceiveParams, ReceiveSection, TrackId,
};
use sluice_proto as proto;
use sluice_proto::request_response::{Reason, Request};
use sluice_proto::signal_response::Message as Response;
use sluice_proto::{AudioTrackFeature, TrackSource, TrackType};
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::{
    CodecParameters, CodecPolicy, OpusAnswer, ReceiverBinding, RemoteOffer, SectionPreference,
};

use crate::ids::TrackSid;
use crate::lifecycle::Departure;
use crate::outputs::WebhookKind;
use crate::participant::{Participant, ParticipantKey};
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

/// A track that was announced and has no media section yet.
#[derive(Debug)]
pub(crate) struct PendingTrack {
    pub(crate) cid: String,
    pub(crate) kind: MediaKind,
    state: Pending,
}

#[derive(Debug)]
enum Pending {
    /// The same cid is in use; announced when it is free.
    Queued(Box<proto::AddTrackRequest>),
    /// The client knows the SID; a media section will match.
    Announced(Box<proto::TrackInfo>),
    /// A section of the offer that is being answered matches.
    Claimed(Box<proto::TrackInfo>, String),
    /// A second codec of an existing track. It is not requested from the client (dynacast never
    /// names it), so that a section for it is answered but not forwarded.
    Backup,
}

impl PendingTrack {
    /// The announced track; `None` while it waits for its cid.
    pub(crate) fn info(&self) -> Option<&proto::TrackInfo> {
        match &self.state {
            Pending::Announced(info) | Pending::Claimed(info, _) => Some(info),
            Pending::Queued(_) | Pending::Backup => None,
        }
    }

    fn info_mut(&mut self) -> Option<&mut proto::TrackInfo> {
        match &mut self.state {
            Pending::Announced(info) | Pending::Claimed(info, _) => Some(info),
            Pending::Queued(_) | Pending::Backup => None,
        }
    }

    fn is_queued(&self) -> bool {
        matches!(self.state, Pending::Queued(_))
    }

    fn is_announced(&self) -> bool {
        matches!(self.state, Pending::Announced(_))
    }

    fn has_cid(&self, id: &str) -> bool {
        let of_codec = |info: &proto::TrackInfo| info.codecs.iter().any(|codec| codec.cid == id);
        self.cid == id || self.info().is_some_and(of_codec)
    }
}

/// A media section on which the client sends.
#[derive(Debug)]
pub(crate) struct PublishSection {
    kind: MediaKind,
    /// Track id of `a=msid`, empty without one.
    sdp_track_id: String,
    /// The track it feeds.
    pub(crate) track: Option<TrackId>,
    /// What the latest answer allows on it.
    receiver: Option<ReceiverBinding>,
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
            return self.add_backup_codec(key, request);
        }
        if self.cid_in_use(key, &request.cid) {
            return self.queue_track(key, request);
        }
        self.announce(key, &request);
        self.match_waiting_sections(now, key);
    }

    /// Makes the track known to its publisher.
    fn announce(&mut self, key: ParticipantKey, request: &proto::AddTrackRequest) {
        let sid = TrackSid::random(request.r#type(), request.source(), &mut self.rng);
        let enabled = CodecPolicy::from_mime_types(
            self.config.enabled_codecs.iter().map(|codec| codec.mime.as_str()),
        );
        let info = track_info::from_request(request, &sid, &enabled);
        let Some(participant) = self.participants.get_mut(&key) else { return };
        participant.pending.push(PendingTrack {
            cid: request.cid.clone(),
            kind: kind_of(request.r#type()),
            state: Pending::Announced(Box::new(info.clone())),
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

    /// A second codec for a track that the client names by SID.
    fn add_backup_codec(&mut self, key: ParticipantKey, request: proto::AddTrackRequest) {
        let enabled = CodecPolicy::from_mime_types(
            self.config.enabled_codecs.iter().map(|codec| codec.mime.as_str()),
        );
        let codecs = track_info::codecs_from_request(&request, &enabled);
        let Some(info) = self.own_track_info(key, &request.sid) else {
            let message = "track is not found";
            return self.refuse(key, 0, Reason::NotFound, message, Request::AddTrack(request));
        };
        for codec in codecs {
            if !info.codecs.iter().any(|known| known.mime_type == codec.mime_type) {
                info.codecs.push(codec);
            }
        }
        let info = info.clone();
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let codec_cid = request.simulcast_codecs.first().map(|codec| codec.cid.clone());
        participant.pending.push(PendingTrack {
            cid: codec_cid.filter(|cid| !cid.is_empty()).unwrap_or_else(|| request.cid.clone()),
            kind: kind_of(request.r#type()),
            state: Pending::Backup,
        });
        let published = proto::TrackPublishedResponse { cid: request.cid, track: Some(info) };
        self.send(key, Response::TrackPublished(published));
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
                receiver: None,
            });
            let announced = |p: &PendingTrack| p.is_announced() && p.kind == kind && p.has_cid(id);
            // The id changes when a section is used again; without an announcement it is noise.
            if known.sdp_track_id != id && participant.pending.iter().any(announced) {
                ended.extend(known.track.take());
            }
            if known.track.is_none() {
                known.sdp_track_id = id.to_owned();
            }
        }
        for track in ended {
            self.unpublish(now, key, track);
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
                let claimed =
                    |p: &PendingTrack| matches!(&p.state, Pending::Claimed(_, m) if *m == mid);
                let is_backup =
                    |p: &PendingTrack| matches!(p.state, Pending::Backup) && p.has_cid(&id);
                if pending.iter().any(|p| claimed(p) || is_backup(p)) {
                    continue;
                }
                let found = pending
                    .iter_mut()
                    .find(|p| p.is_announced() && p.kind == kind && (!exact || p.has_cid(&id)));
                if let Some(found) = found
                    && let Pending::Announced(info) = &found.state
                {
                    found.state = Pending::Claimed(info.clone(), mid);
                }
            }
        }
    }

    fn prefer_codecs(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let only_first = participant.client.ignores_codec_order();
        let mut preferences = Vec::new();
        for (mid, section) in &participant.sections {
            let claimed = participant.pending.iter().find_map(|p| match &p.state {
                Pending::Claimed(info, of) if of == mid => Some(info.as_ref()),
                _ => None,
            });
            let published = section.track.and_then(|id| self.tracks.get(&id)).map(|t| &t.info);
            if let Some(info) = claimed.or(published) {
                preferences.push((mid.clone(), preference(info, section.kind, only_first)));
            }
        }
        let session = &mut participant.links.answering.session;
        for (mid, preference) in preferences {
            session.set_section_preference(&mid, preference);
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
    fn match_waiting_sections(&mut self, now: Instant, key: ParticipantKey) {
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

    /// Turns claimed tracks into published ones where the answer accepted their section; the
    /// others go back to waiting.
    fn publish_claimed(&mut self, now: Instant, key: ParticipantKey) -> Vec<TrackId> {
        let unix_micros = self.unix_micros(now);
        let Some(participant) = self.participants.get_mut(&key) else { return Vec::new() };
        let mut published = Vec::new();
        let mut index = 0;
        while index < participant.pending.len() {
            let pending = &mut participant.pending[index];
            let Pending::Claimed(info, mid) = &pending.state else {
                index += 1;
                continue;
            };
            let section = participant.sections.get_mut(mid);
            let accepted = section.and_then(|section| {
                let receiver = section.receiver.clone()?;
                let codec = chosen_codec(&receiver)?;
                Some((section, receiver, codec))
            });
            let Some((section, receiver, codec)) = accepted else {
                pending.state = Pending::Announced(info.clone());
                index += 1;
                continue;
            };
            let id = self.host.next_track_id(participant.links.worker);
            let mut info = info.as_ref().clone();
            let with_red = publishes_red(&receiver);
            let flowing = if with_red { Codec::Red } else { codec.codec };
            track_info::complete(&mut info, &receiver, flowing, &section.sdp_track_id);
            let gets_red = self.config.active_red_encoding && codec.codec == Codec::Opus;
            let redundant = with_red || (gets_red && may_be_redundant(&info));
            info.version = Some(next_version(None, unix_micros));
            section.track = Some(id);
            participant.published.push(id);
            participant.is_publisher = true;
            participant.pending.remove(index);
            // The SID was made here and never left.
            let Some(sid) = TrackSid::parse(&info.sid) else { continue };
            self.track_sids.insert(sid.clone(), id);
            self.tracks.insert(
                id,
                Track {
                    sid,
                    owner: key,
                    kind: section.kind,
                    codec,
                    redundant,
                    info,
                    subscribers: std::collections::BTreeSet::new(),
                    subscribed_once: false,
                    wanted: Wanted::default(),
                    has_media: false,
                    forwarded: false,
                },
            );
            published.push(id);
        }
        published
    }

    /// Tells everyone of a new track, then subscribes those who want it: in this order, because
    /// clients drop media of tracks that they were not told about.
    fn announce_published(&mut self, now: Instant, key: ParticipantKey, id: TrackId) {
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
        let Some(track) = self.tracks.get(&id) else { return };
        let (sid, forwarded) = (track.sid.clone(), track.forwarded);
        self.webhook(WebhookKind::TrackUnpublished, key, Some(id));
        self.forget_track(now, &sid);
        self.forget_dynacast(id);
        self.timers.cancel(Timer::Publication(id));
        self.track_sids.remove(&sid);
        self.tracks.remove(&id);
        if !forwarded {
            self.out.engine(Command::Unpublish { track: id });
        }
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.published.retain(|published| *published != id);
            for section in participant.sections.values_mut() {
                if section.track == Some(id) {
                    section.track = None;
                }
            }
        }
        self.participant_changed(now, key, true);
        self.room_changed(now, false);
        self.announce_queued(now, key);
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
        participant
            .pending
            .retain(|p| p.info().is_some_and(|info| grants.can_publish_source(info.source())));
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

    /// Tells the workers what the client may send.
    fn send_receive_params(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        let tracks = &self.tracks;
        let sections = participant.sections.values();
        let sections = sections.filter_map(|section| {
            let receiver = section.receiver.as_ref()?;
            let track = section.track.and_then(|id| Some((id, tracks.get(&id)?)));
            Some(receive_section(receiver, track))
        });
        let receive = Box::new(ReceiveParams { sections: sections.collect() });
        let peer = participant.links.answering.peer.id;
        self.out.engine(Command::SetReceive { peer, receive });
    }

    /// The first packet of a layer arrived: its SSRC is part of what others may know.
    pub(crate) fn layer_started(&mut self, id: TrackId, layer: u8, ssrc: u32, rid: Option<&str>) {
        self.timers.cancel(Timer::Publication(id));
        let Some(track) = self.tracks.get_mut(&id) else { return };
        track.has_media = true;
        let of_codec = track.info.codecs.first_mut().into_iter().flat_map(|c| &mut c.layers);
        for of_layer in of_codec.chain(&mut track.info.layers) {
            if of_layer.spatial_layer == i32::from(layer) {
                of_layer.ssrc = ssrc;
                of_layer.rid = rid.unwrap_or_default().to_owned();
            }
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

fn kind_of(kind: TrackType) -> MediaKind {
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
fn may_be_redundant(info: &proto::TrackInfo) -> bool {
    !info.disable_red && info.encryption() == proto::encryption::Type::None
}

/// The codec that flows, RED aside: the first of the answer. The answer put the announced one
/// first.
fn chosen_codec(receiver: &ReceiverBinding) -> Option<CodecParameters> {
    let codec = receiver.codecs.iter().find(|codec| codec.codec != Codec::Red)?;
    Some(CodecParameters::new(codec.codec, codec.fmtp.clone()))
}

fn preference(info: &proto::TrackInfo, kind: MediaKind, only_first: bool) -> SectionPreference {
    let mimes = info.codecs.iter().map(|codec| codec.mime_type.as_str());
    let mut codecs = CodecPolicy::from_mime_types(mimes).codecs().to_vec();
    if kind == MediaKind::Audio {
        codecs.retain(|codec| *codec != Codec::Red);
        if codecs.is_empty() {
            codecs.push(Codec::Opus);
        }
        if codecs[0] == Codec::Opus && may_be_redundant(info) {
            codecs.insert(0, Codec::Red);
        }
    }
    let has = |feature: AudioTrackFeature| info.audio_features.contains(&feature.into());
    SectionPreference {
        only_first: only_first && kind == MediaKind::Video && !codecs.is_empty(),
        codecs,
        opus: OpusAnswer {
            dtx: !has(AudioTrackFeature::TfNoDtx),
            stereo: has(AudioTrackFeature::TfStereo),
        },
    }
}

fn receive_section(receiver: &ReceiverBinding, track: Option<(TrackId, &Track)>) -> ReceiveSection {
    ReceiveSection {
        mid: receiver.mid.clone(),
        kind: receiver.kind,
        track: track.map(|(id, track)| PublishedTrack {
            track: id,
            encrypted: track.is_encrypted(),
            microphone: track.source() == TrackSource::Microphone,
            screen_share: track.is_screen_share(),
        }),
        // The blocks of encrypted RED cannot be told apart; it is not asked for either.
        payload_types: receiver
            .codecs
            .iter()
            .filter(|codec| codec.codec != Codec::Red || !track.is_some_and(|t| t.1.is_encrypted()))
            .map(|codec| PayloadType {
                pt: codec.pt,
                codec: codec.codec,
                clock_rate: codec.clock_rate,
                rtx_pt: codec.rtx_pt,
                fmtp: codec.fmtp.clone(),
            })
            .collect(),
        extensions: receiver.extensions,
        rids: track_info::rids_low_to_high(&receiver.rids),
        ssrcs: receiver
            .ssrcs
            .iter()
            .map(|ssrc| AnnouncedSsrc { ssrc: ssrc.ssrc, rtx_ssrc: ssrc.rtx_ssrc })
            .collect(),
        transport_cc: receiver.codecs.iter().any(|codec| codec.feedback.transport_cc),
        nack: receiver.codecs.iter().any(|codec| codec.feedback.nack),
    }
}
