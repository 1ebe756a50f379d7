//! One participant: who it is, what it may do, its signal session and its peer connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::api::{PeerId, TrackId};
use sluice_proto as proto;
use sluice_proto::participant_info::{Kind, KindDetail, State};

use crate::client::Client;
use crate::data::Waiting;
use crate::data_blobs::DataBlobs;
use crate::data_tracks::ParticipantDataTracks;
use crate::ice_fallback::IceHistory;
use crate::ids::{ParticipantSid, TrackSid};
use crate::negotiation::Links;
use crate::outputs::{SessionId, TokenClaims};
use crate::params::SessionOptions;
use crate::pending::PendingTrack;
use crate::permissions::Grants;
use crate::publish::PublishSection;
use crate::resume::ResumeSimulation;
use crate::subscribe::Subscription;

/// Order of arrival; names a participant within its room and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ParticipantKey(pub(crate) u64);

/// See the module documentation.
pub(crate) struct Participant {
    pub(crate) sid: ParticipantSid,
    pub(crate) identity: Arc<str>,
    pub(crate) name: String,
    pub(crate) metadata: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) kind: Kind,
    pub(crate) kind_details: Vec<KindDetail>,
    pub(crate) grants: Grants,
    pub(crate) client: Client,
    pub(crate) options: SessionOptions,
    pub(crate) state: State,
    /// Unix time of the join.
    pub(crate) joined: Duration,
    /// Rises with every change that others hear of.
    pub(crate) version: u32,
    /// Whether a track was ever published.
    pub(crate) is_publisher: bool,
    /// The signal connection; `None` between a loss and a resume.
    pub(crate) session: Option<SessionId>,
    /// When the client was last heard.
    pub(crate) last_signal: Instant,
    pub(crate) links: Links,
    /// Announced with `add_track`, no media section yet. In order of announcement.
    pub(crate) pending: Vec<PendingTrack>,
    /// Media sections on which the client sends, by mid.
    pub(crate) sections: BTreeMap<String, PublishSection>,
    /// Published tracks in order.
    pub(crate) published: Vec<TrackId>,
    pub(crate) subscriptions: BTreeMap<TrackSid, Subscription>,
    /// Who may subscribe to this participant's tracks; `None` = everyone.
    pub(crate) subscription_permission: Option<proto::SubscriptionPermission>,
    /// Highest sequence of a reliable packet from this participant.
    pub(crate) last_reliable_sequence: u32,
    /// Reliable packets for this participant until its data channels are open.
    pub(crate) waiting: Waiting,
    pub(crate) data_tracks: ParticipantDataTracks,
    pub(crate) data_blobs: DataBlobs,
    pub(crate) ice: IceHistory,
    pub(crate) resume_simulation: Option<ResumeSimulation>,
}

impl Participant {
    /// The participant as others see it; `tracks` are its published tracks.
    pub(crate) fn to_proto(&self, tracks: Vec<proto::TrackInfo>) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            sid: (&self.sid).into(),
            identity: self.identity.as_ref().to_owned(),
            state: self.state.into(),
            tracks,
            metadata: self.metadata.clone(),
            joined_at: self.joined.as_secs().try_into().unwrap_or(i64::MAX),
            joined_at_ms: self.joined.as_millis().try_into().unwrap_or(i64::MAX),
            name: self.name.clone(),
            version: self.version,
            permission: Some(self.grants.to_permission()),
            region: String::new(),
            is_publisher: self.is_publisher,
            kind: self.kind.into(),
            attributes: self.attributes.clone(),
            disconnect_reason: 0,
            kind_details: self.kind_details.iter().map(|&detail| detail.into()).collect(),
            data_tracks: self.data_tracks.to_proto(),
            client_protocol: self.client.info().client_protocol,
            capabilities: self.client.capabilities(),
        }
    }

    /// Whether the participant is not announced to others.
    pub(crate) fn is_hidden(&self) -> bool {
        self.grants.hidden
    }

    pub(crate) fn is_agent(&self) -> bool {
        self.kind == Kind::Agent || self.grants.agent
    }

    pub(crate) fn is_recorder(&self) -> bool {
        self.kind == Kind::Egress || self.grants.recorder
    }

    /// Whether it is in another room, and only shown here.
    pub(crate) fn is_forwarded(&self) -> bool {
        self.kind_details.contains(&KindDetail::Forwarded)
    }

    /// Agents and recorders neither count nor keep a room open.
    pub(crate) fn is_dependent(&self) -> bool {
        self.is_agent() || self.is_recorder()
    }

    /// Whether the server's offers, not the client's, make the primary connection.
    pub(crate) fn subscriber_primary(&self) -> bool {
        self.client.can_have_subscriber_primary()
            && self.grants.can_subscribe()
            && !self.options.single_peer_connection
    }

    /// The connection whose state decides the participant's.
    pub(crate) fn is_primary(&self, peer: PeerId) -> bool {
        match &self.links.offering {
            Some(offering) if self.subscriber_primary() => offering.peer.id == peer,
            _ => self.links.answering.peer.id == peer,
        }
    }

    /// The connection on which this participant receives data.
    pub(crate) fn data_peer(&self) -> PeerId {
        self.links.sending_peer().id
    }

    /// Whether data that is sent now arrives: both of LiveKit's channels are open.
    pub(crate) fn can_receive_data(&self) -> bool {
        let peer = self.links.sending_peer();
        peer.is_connected() && peer.reliable_open && peer.lossy_open
    }

    /// Whether a section of the SDP is waiting for the client to name its track.
    pub(crate) fn unmatched_sections(&self) -> impl Iterator<Item = &str> {
        self.sections
            .iter()
            .filter(|(_, section)| section.track.is_none() && !section.ignored)
            .map(|(mid, _)| mid.as_str())
    }

    /// What a fresh token must say.
    pub(crate) fn claims(&self, room: &str) -> TokenClaims {
        TokenClaims {
            identity: self.identity.as_ref().to_owned(),
            name: self.name.clone(),
            kind: self.kind,
            metadata: self.metadata.clone(),
            attributes: self.attributes.clone(),
            grants: Grants { room: room.to_owned(), ..self.grants.clone() },
        }
    }
}
