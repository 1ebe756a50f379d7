//! What a client may send: in which codec, as the answer asks of it, and as the workers are told.

use sluice_engine::api::{
    AnnouncedSsrc, Command, PayloadType, PublishedTrack, ReceiveParams, ReceiveSection, TrackId,
};
use sluice_proto as proto;
use sluice_proto::{AudioTrackFeature, TrackSource};
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::{CodecPolicy, OpusAnswer, ReceiverBinding, SectionPreference};

use crate::backup_codec::backup_preference;
use crate::participant::ParticipantKey;
use crate::pending::PendingTrack;
use crate::publish::may_be_redundant;
use crate::room::Room;
use crate::track::Track;
use crate::track_info;

impl Room {
    /// Says what the answer prefers on each section.
    pub(crate) fn prefer_codecs(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        let only_first = participant.client.ignores_codec_order();
        let mut preferences = Vec::new();
        for (mid, section) in &participant.sections {
            let claimed = participant.pending.iter().find(|p| p.is_claimed_by(mid));
            let info = claimed.and_then(PendingTrack::info);
            let published = section.track.map(|stream| (stream, self.track_of_stream(stream)));
            let published =
                published.and_then(|(stream, id)| Some((stream, self.tracks.get(&id)?)));
            let preference = match (claimed.and_then(PendingTrack::as_backup), info, published) {
                (Some(backup), ..) => backup.preference(only_first),
                (None, Some(info), _) => preference(info, section.kind, only_first),
                (None, None, Some((stream, track))) => match track.backup_of_stream(stream) {
                    Some(backup) => backup_preference(backup.codec.codec, only_first),
                    None => preference(&track.info, section.kind, only_first),
                },
                (None, None, None) => continue,
            };
            preferences.push((mid.clone(), preference));
        }
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let session = &mut participant.links.answering.session;
        for (mid, preference) in preferences {
            session.set_section_preference(&mid, preference);
        }
    }

    /// Tells the workers what the client may send.
    pub(crate) fn send_receive_params(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        let (tracks, backups) = (&self.tracks, &self.backup_streams);
        let sections = participant.sections.values();
        let sections = sections.filter_map(|section| {
            let receiver = section.receiver.as_ref()?;
            let track = section.track.and_then(|stream| {
                let id = backups.get(&stream).unwrap_or(&stream);
                Some((stream, tracks.get(id)?))
            });
            Some(receive_section(receiver, track))
        });
        let receive = Box::new(ReceiveParams { sections: sections.collect() });
        let peer = participant.links.answering.peer.id;
        self.out.engine(Command::SetReceive { peer, receive });
    }
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
                fmtp: codec.fmtp.as_ref().to_owned(),
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
