//! Backup codecs: a video track that its publisher can send in further codecs, for receivers that
//! cannot decode the first. The client names them when it announces the track and publishes one when
//! dynacast asks for it: with an `AddTrackRequest` that names the track, and a media section of its
//! own. That is another stream with the workers behind the same SID.
//!
//! Codec regression: once a backup codec flows, the whole room gets it and dynacast turns the first
//! codec off, if the track's policy says so; a publisher need not encode twice then.

use std::time::Instant;

use sluice_engine::api::{Command, TrackId};
use sluice_proto as proto;
use sluice_proto::request_response::{Reason, Request};
use sluice_proto::signal_response::Message as Response;
use sluice_proto::{BackupCodecPolicy, TrackSource};
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::{CodecParameters, ReceiverBinding, SectionPreference};

use crate::ids::TrackSid;
use crate::participant::ParticipantKey;
use crate::pending::PendingTrack;
use crate::publish::{Accepted, kind_of};
use crate::room::Room;
use crate::track::{BackupCodec, Track, next_version};
use crate::track_info;

/// A further codec that a client announced for one of its tracks.
#[derive(Debug)]
pub(crate) struct AnnouncedBackup {
    track: TrackSid,
    /// `None` when the client left it open.
    codec: Option<Codec>,
    pub(crate) source: TrackSource,
}

impl AnnouncedBackup {
    /// What an answer says on its section.
    pub(crate) fn preference(&self, only_first: bool) -> SectionPreference {
        self.codec
            .map_or_else(SectionPreference::default, |codec| backup_preference(codec, only_first))
    }
}

/// What an answer says on a section for a backup codec.
pub(crate) fn backup_preference(codec: Codec, only_first: bool) -> SectionPreference {
    SectionPreference { codecs: vec![codec], only_first, ..SectionPreference::default() }
}

/// The announced codecs of a new track, beside the one that flows, that its publisher can send.
pub(crate) fn possible_backups(
    info: &proto::TrackInfo,
    receiver: &ReceiverBinding,
) -> Vec<BackupCodec> {
    if receiver.kind != MediaKind::Video {
        return Vec::new();
    }
    let announced =
        info.codecs.iter().skip(1).filter_map(|entry| Codec::from_mime(&entry.mime_type));
    let negotiated = announced.filter_map(|codec| negotiated(receiver, codec));
    negotiated.map(BackupCodec::possible).collect()
}

fn negotiated(receiver: &ReceiverBinding, codec: Codec) -> Option<CodecParameters> {
    let negotiated = receiver.codecs.iter().find(|negotiated| negotiated.codec == codec)?;
    Some(CodecParameters::new(codec, negotiated.fmtp.clone()))
}

impl Track {
    /// The further codec that a stream carries; `None` for the track's first.
    pub(crate) fn backup_of_stream(&self, stream: TrackId) -> Option<&BackupCodec> {
        self.backups.iter().find(|backup| backup.id == Some(stream))
    }
}

impl Room {
    /// The track that a stream of the workers belongs to.
    pub(crate) fn track_of_stream(&self, stream: TrackId) -> TrackId {
        self.backup_streams.get(&stream).copied().unwrap_or(stream)
    }

    /// A further codec for a track that the client names by SID.
    pub(crate) fn add_backup_codec(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        request: proto::AddTrackRequest,
    ) {
        let announced = track_info::codecs_from_request(&request, &self.enabled_codecs());
        let sid = TrackSid::parse(&request.sid);
        let Some((sid, info)) = sid.zip(self.own_track_info(key, &request.sid)) else {
            let message = "track is not found";
            return self.refuse(key, 0, Reason::NotFound, message, Request::AddTrack(request));
        };
        let named = announced.into_iter().find(|codec| !codec.mime_type.is_empty());
        let codec = named.as_ref().and_then(|named| Codec::from_mime(&named.mime_type));
        if let Some(named) = named {
            track_info::add_codec(info, named);
        }
        let (info, source) = (info.clone(), info.source());
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let of_codec = request.simulcast_codecs.first().map(|codec| codec.cid.clone());
        let cid = of_codec.filter(|cid| !cid.is_empty()).unwrap_or_else(|| request.cid.clone());
        // A client that starts over announces it again.
        let same = |pending: &PendingTrack| {
            pending.as_backup().is_some_and(|backup| backup.track == sid && backup.codec == codec)
        };
        participant.pending.retain(|pending| !same(pending));
        let backup = AnnouncedBackup { track: sid, codec, source };
        participant.pending.push(PendingTrack::backup(cid, kind_of(request.r#type()), backup));
        let published = proto::TrackPublishedResponse { cid: request.cid, track: Some(info) };
        self.send(key, Response::TrackPublished(published));
        self.match_waiting_sections(now, key);
    }

    /// A section for a further codec was accepted: its stream, unless nobody could use it. `None`
    /// while the track itself is not published.
    pub(crate) fn publish_backup(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        backup: &AnnouncedBackup,
        accepted: &Accepted,
    ) -> Option<Option<TrackId>> {
        let unix_micros = self.unix_micros(now);
        let worker = self.participants.get(&key)?.links.worker;
        let id = self.track_sids.get(&backup.track).copied()?;
        let track = self.tracks.get_mut(&id)?;
        let Accepted { receiver, codec, sdp_track_id, mid } = accepted;
        let published = track.backup(codec.codec).is_some_and(|backup| backup.id.is_some());
        if track.kind != MediaKind::Video || codec.codec == track.codec.codec || published {
            tracing::debug!(track = %track.sid, mid, codec = codec.codec.mime(), "not forwarded");
            return Some(None);
        }
        let stream = self.host.next_track_id(worker);
        track_info::complete_backup(&mut track.info, receiver, codec.codec, sdp_track_id);
        track.info.version = Some(next_version(track.info.version, unix_micros));
        let of_stream = BackupCodec { id: Some(stream), ..BackupCodec::possible(codec.clone()) };
        match track.backup_mut(codec.codec) {
            Some(known) => *known = of_stream,
            None => track.backups.push(of_stream),
        }
        self.backup_streams.insert(stream, id);
        Some(Some(stream))
    }

    /// The workers know of the stream: those who waited get it.
    pub(crate) fn backup_published(&mut self, now: Instant, key: ParticipantKey, stream: TrackId) {
        let id = self.track_of_stream(stream);
        let Some(track) = self.tracks.get(&id) else { return };
        if track.info.muted {
            self.out.engine(Command::SetTrackMuted { track: stream, muted: true });
        }
        self.participant_changed(now, key, true);
        self.rebind_subscribers(now, id);
        self.retry_unsupported(now, id);
    }

    /// The first media of a further codec came. From now on it can stand in for the first codec.
    pub(crate) fn backup_flows(&mut self, now: Instant, id: TrackId, codec: Codec) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        // The one that the client named first, as in LiveKit.
        let target = track.backups.first().is_some_and(|backup| backup.codec.codec == codec);
        let threshold = self.config.codec_regression_threshold as usize;
        let regress = target
            && match track.info.backup_codec_policy() {
                BackupCodecPolicy::Simulcast => false,
                BackupCodecPolicy::Regression => true,
                BackupCodecPolicy::PreferRegression => {
                    threshold == 0 || self.participants.len() < threshold
                }
            };
        if regress {
            tracing::info!(track = %track.sid, from = track.codec.codec.mime(), to = codec.mime(),
                "codec regression");
            track.regressed = Some(codec);
            self.rebind_subscribers(now, id);
        }
    }

    /// A section stopped sending: ends the track, or its further codec.
    pub(crate) fn end_stream(&mut self, now: Instant, key: ParticipantKey, stream: TrackId) {
        let Some(id) = self.backup_streams.remove(&stream) else {
            return self.unpublish(now, key, stream);
        };
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let ended = track.backups.iter_mut().find(|backup| backup.id == Some(stream));
        let Some(ended) = ended else { return };
        let codec = ended.codec.codec;
        *ended = BackupCodec::possible(ended.codec.clone());
        if track.regressed == Some(codec) {
            track.regressed = None;
        }
        self.stop_flows_of(id, codec);
        self.out.engine(Command::Unpublish { track: stream });
        self.rebind_subscribers(now, id);
        self.update_dynacast(now, id);
        self.participant_changed(now, key, true);
    }

    /// Tells the workers that a track is muted or not, in each of its codecs.
    pub(crate) fn mute_streams(&mut self, id: TrackId, muted: bool) {
        let Some(track) = self.tracks.get(&id) else { return };
        let streams: Vec<TrackId> = track.streams(id).collect();
        for track in streams {
            self.out.engine(Command::SetTrackMuted { track, muted });
        }
    }
}
