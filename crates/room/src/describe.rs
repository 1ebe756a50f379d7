//! The state of a room in words, for an operator who looks for what is wrong (`/debug/rooms`).

use serde::Serialize;
use sluice_rtp::codec::MediaKind;

use crate::participant::Participant;
use crate::room::Room;

/// A room.
#[derive(Debug, Clone, Serialize)]
pub struct RoomDescription {
    /// `RM_…`.
    pub sid: String,
    /// Name.
    pub name: String,
    /// Unix time of creation, seconds.
    pub created: u64,
    /// Participants in order of arrival, hidden ones included.
    pub participants: Vec<ParticipantDescription>,
    /// Tracks that participants publish.
    pub tracks: Vec<TrackDescription>,
}

/// A participant.
#[derive(Debug, Clone, Serialize)]
pub struct ParticipantDescription {
    /// `PA_…`.
    pub sid: String,
    /// Identity.
    pub identity: String,
    /// `JOINING`, `JOINED`, `ACTIVE`, `DISCONNECTED`.
    pub state: &'static str,
    /// `STANDARD`, `AGENT`, …
    pub kind: &'static str,
    /// Whether others see it.
    pub hidden: bool,
    /// SDK and version as the client says.
    pub client: String,
    /// Signalling protocol version.
    pub protocol: i32,
    /// Unix time of the join, seconds.
    pub joined: u64,
    /// Whether a signal connection exists.
    pub signal_connected: bool,
    /// Worker of its peer connections.
    pub worker: u8,
    /// Its peer connections.
    pub peers: Vec<PeerDescription>,
    /// SIDs of its published tracks.
    pub published: Vec<String>,
    /// Tracks announced and not yet sent.
    pub pending: Vec<String>,
    /// Its wishes for tracks.
    pub subscriptions: Vec<SubscriptionDescription>,
}

/// A peer connection.
#[derive(Debug, Clone, Serialize)]
pub struct PeerDescription {
    /// Id with the workers.
    pub id: u64,
    /// `Unused`, `Connecting`, `Connected`, `Disconnected`, `Failed`.
    pub state: String,
    /// Whether the reliable data channel is open.
    pub reliable: bool,
    /// Whether the lossy data channel is open.
    pub lossy: bool,
}

/// One participant's wish for one track.
#[derive(Debug, Clone, Serialize)]
pub struct SubscriptionDescription {
    /// SID of the track.
    pub track: String,
    /// Whether it is wanted.
    pub wanted: bool,
    /// Media section that it flows on; `None` while it does not.
    pub mid: Option<String>,
    /// Codec that flows, or will as soon as it is published.
    pub codec: Option<&'static str>,
}

/// A published track.
#[derive(Debug, Clone, Serialize)]
pub struct TrackDescription {
    /// `TR_…`.
    pub sid: String,
    /// Id with the workers.
    pub id: u64,
    /// Identity of the publisher.
    pub publisher: String,
    /// `audio` or `video`.
    pub kind: &'static str,
    /// MIME type.
    pub mime: String,
    /// MIME types of the further codecs that it is published in at the moment.
    pub backups: Vec<&'static str>,
    /// The codec that all receivers get in place of the first one where they can.
    pub regressed: Option<&'static str>,
    /// `CAMERA`, …
    pub source: &'static str,
    /// Whether it is muted.
    pub muted: bool,
    /// Participants who receive it.
    pub subscribers: usize,
}

impl Room {
    /// The room's state now.
    pub fn describe(&self) -> RoomDescription {
        RoomDescription {
            sid: (&self.sid).into(),
            name: self.name.clone(),
            created: self.created.as_secs(),
            participants: self
                .participants
                .values()
                .map(|p| self.describe_participant(p))
                .collect(),
            tracks: self.describe_tracks(),
        }
    }

    /// Tracks and subscriptions of audio, then of video.
    pub fn track_counts(&self) -> [(u64, u64); 2] {
        let mut counts = [(0, 0); 2];
        for track in self.tracks.values() {
            let (tracks, subscriptions) = &mut counts[usize::from(track.kind == MediaKind::Video)];
            *tracks += 1;
            *subscriptions += track.subscribers.len() as u64;
        }
        counts
    }

    fn describe_participant(&self, participant: &Participant) -> ParticipantDescription {
        let info = participant.client.info();
        let published = participant.published.iter().filter_map(|id| self.tracks.get(id));
        let pending = participant.pending.iter().filter_map(|pending| pending.info());
        let peers = participant.links.peers().map(|peer| PeerDescription {
            id: peer.id.as_u64(),
            state: format!("{:?}", peer.state),
            reliable: peer.reliable_open,
            lossy: peer.lossy_open,
        });
        let wishes = participant.subscriptions.iter();
        ParticipantDescription {
            sid: (&participant.sid).into(),
            identity: participant.identity.as_ref().to_owned(),
            state: participant.state.as_str_name(),
            kind: participant.kind.as_str_name(),
            hidden: participant.is_hidden(),
            client: format!("{} {}", info.sdk().as_str_name(), info.version),
            protocol: info.protocol,
            joined: participant.joined.as_secs(),
            signal_connected: participant.session.is_some(),
            worker: participant.links.worker.0,
            peers: peers.collect(),
            published: published.map(|track| (&track.sid).into()).collect(),
            pending: pending.map(|info| info.sid.clone()).collect(),
            subscriptions: wishes
                .map(|(sid, subscription)| SubscriptionDescription {
                    track: sid.into(),
                    wanted: subscription.wants(),
                    mid: subscription.bound_mid().map(str::to_owned),
                    codec: subscription.bound_codec().map(|codec| codec.mime()),
                })
                .collect(),
        }
    }

    fn describe_tracks(&self) -> Vec<TrackDescription> {
        let tracks = self.tracks.iter().map(|(id, track)| TrackDescription {
            sid: (&track.sid).into(),
            id: id.as_u64(),
            publisher: self
                .participants
                .get(&track.owner)
                .map_or_else(String::new, |owner| owner.identity.as_ref().to_owned()),
            kind: match track.kind {
                MediaKind::Audio => "audio",
                MediaKind::Video => "video",
            },
            mime: track.info.mime_type.clone(),
            backups: track
                .backups
                .iter()
                .filter(|backup| backup.id.is_some())
                .map(|backup| backup.codec.codec.mime())
                .collect(),
            regressed: track.regressed.map(|codec| codec.mime()),
            source: track.source().as_str_name(),
            muted: track.info.muted,
            subscribers: track.subscribers.len(),
        });
        tracks.collect()
    }
}
