//! A participant enters: checks, the join response, and everything that follows it at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto as proto;
use sluice_proto::participant_info::State;
use sluice_proto::signal_response::Message as Response;

use crate::client::Client;
use crate::data::Waiting;
use crate::data_blobs::DataBlobs;
use crate::data_tracks::ParticipantDataTracks;
use crate::error::JoinError;
use crate::ice_fallback::IceHistory;
use crate::ids::ParticipantSid;
use crate::lifecycle::Departure;
use crate::negotiation::LinksParams;
use crate::outputs::SessionId;
use crate::params::{JoinParams, Joined, RoomConfig};
use crate::participant::{Participant, ParticipantKey};
use crate::room::Room;
use crate::timers::Timer;

/// A participant must be active within this time.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Client's interval of pings, seconds.
const PING_INTERVAL_S: i32 = 5;

/// Silence after which a client gives up a signal connection, seconds.
const PING_TIMEOUT_S: i32 = 15;

/// Signalling protocol that we speak (LiveKit's `CurrentProtocol`).
const PROTOCOL_VERSION: i32 = 17;

/// Agent worker protocol that we speak.
const AGENT_PROTOCOL_VERSION: i32 = 1;

impl Room {
    /// Starts or resumes a session. The first output for it is a join response, a reconnect
    /// response, or a leave that tells the client to start anew.
    ///
    /// # Errors
    /// See [`JoinError`]; nothing has changed then.
    pub fn join(&mut self, now: Instant, params: JoinParams) -> Result<Joined, JoinError> {
        if self.closed {
            return Err(JoinError::Unavailable);
        }
        check(&params, &self.config)?;
        if params.reconnect {
            return Ok(self.resume(now, &params));
        }
        self.check_capacity(&params)?;
        if let Some(&old) = self.identities.get(params.identity.as_str()) {
            self.depart(now, old, Departure::DuplicateIdentity);
        }
        let add_track_requests = params.add_track_requests.clone();
        let publisher_offer = params.publisher_offer.clone();
        let (key, session) = self.enter(now, params);
        let Some(participant) = self.participants.get(&key) else {
            return Err(JoinError::Internal("participant left while joining".into()));
        };
        let participant_sid = Some(participant.sid.clone());
        let is_recorder = participant.is_recorder();

        self.send_join_response(now, key);
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.state = State::Joined;
        }
        // Known tracks first, so that the first offer or answer has them all.
        self.subscribe_to_existing(now, key);
        self.subscribe_to_existing_data_tracks(key);
        for request in add_track_requests {
            self.add_track(now, key, request);
        }
        if let Some(offer) = publisher_offer {
            self.handle_offer(now, key, &offer);
        }
        self.negotiate_first(now, key);
        self.refresh_token(now, key);
        self.room_changed(now, is_recorder);
        Ok(Joined { participant_sid, session })
    }

    pub(crate) fn check_capacity(&self, params: &JoinParams) -> Result<(), JoinError> {
        let is_agent = params.kind == proto::participant_info::Kind::Agent || params.grants.agent;
        let is_recorder =
            params.kind == proto::participant_info::Kind::Egress || params.grants.recorder;
        if self.max_participants == 0 || is_agent || is_recorder {
            return Ok(());
        }
        let counted = |p: &&Participant| !p.is_dependent() && *p.identity != *params.identity;
        let present = self.participants.values().filter(counted).count();
        if present >= self.max_participants as usize {
            return Err(JoinError::MaxParticipants);
        }
        Ok(())
    }

    /// Makes the participant and its connections.
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        params: JoinParams,
    ) -> (ParticipantKey, SessionId) {
        let client = Client::new(params.client_info);
        let config = self.config.clone();
        let worker = self.host.place(self.key);
        let ice = IceHistory::new(self.ice_memory.recall(now, &params.identity));
        let links = self.new_links(&LinksParams {
            worker,
            single: params.options.single_peer_connection,
            one_shot: params.options.one_shot,
            client: &client,
            enabled_codecs: &config.enabled_codecs,
            preference: ice.preference(),
        });
        let key = ParticipantKey(self.next_key());
        let session = self.new_session(key);
        let identity: Arc<str> = params.identity.into();
        let participant = Participant {
            sid: ParticipantSid::random(&mut self.rng),
            identity: identity.clone(),
            name: params.name,
            metadata: params.metadata,
            attributes: params.attributes,
            kind: params.kind,
            kind_details: params.kind_details,
            grants: params.grants,
            client,
            options: params.options,
            state: State::Joining,
            joined: self.unix_time(now),
            version: 0,
            is_publisher: false,
            session: Some(session),
            last_signal: now,
            links,
            pending: Vec::new(),
            sections: BTreeMap::new(),
            published: Vec::new(),
            subscriptions: BTreeMap::new(),
            subscription_permission: None,
            last_reliable_sequence: 0,
            waiting: Waiting::default(),
            data_tracks: ParticipantDataTracks::new(self.next_random()),
            data_blobs: DataBlobs::default(),
            ice,
            resume_simulation: None,
        };
        for peer in participant.links.peers() {
            self.peers.insert(peer.id, key);
        }
        self.identities.insert(identity, key);
        self.sids.insert(participant.sid.clone(), key);
        if !participant.is_dependent() {
            self.was_joined = true;
        }
        self.participants.insert(key, participant);
        self.timers.set(Timer::Join(key), now + JOIN_TIMEOUT);
        self.check_idle(now);
        (key, session)
    }

    fn send_join_response(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        let others = self.participants.iter();
        let others =
            others.filter(|(other, participant)| **other != key && !participant.is_hidden());
        let join = proto::JoinResponse {
            room: Some(self.to_proto()),
            participant: Some(self.info_of(participant)),
            other_participants: others.map(|(_, participant)| self.info_of(participant)).collect(),
            server_version: self.config.server_version.clone(),
            ice_servers: self.ice_servers_of(now, &participant.sid),
            subscriber_primary: participant.subscriber_primary(),
            client_configuration: self.client_configuration(participant),
            server_region: self.config.region.clone(),
            ping_timeout: PING_TIMEOUT_S,
            ping_interval: PING_INTERVAL_S,
            server_info: Some(server_info(&self.config)),
            sif_trailer: self.sif_trailer.clone(),
            enabled_publish_codecs: publish_codecs(&self.config, &participant.client),
            fast_publish: participant.grants.can_publish() && participant.ice.is_unrestricted(),
            ..proto::JoinResponse::default()
        };
        self.send(key, Response::Join(join));
    }
}

/// What clients learn about this server.
pub fn server_info(config: &RoomConfig) -> proto::ServerInfo {
    proto::ServerInfo {
        edition: proto::server_info::Edition::Standard.into(),
        version: config.server_version.clone(),
        protocol: PROTOCOL_VERSION,
        region: config.region.clone(),
        node_id: config.node_id.clone(),
        debug_info: String::new(),
        agent_protocol: AGENT_PROTOCOL_VERSION,
    }
}

/// Codecs that the client may publish: VP8 and H.264 first, other video, then audio, because
/// Flutter 2.4.2 takes the first ones it finds.
fn publish_codecs(config: &RoomConfig, client: &Client) -> Vec<proto::Codec> {
    let disabled = client.unpublishable();
    let rank = |mime: &str| match mime {
        "video/vp8" => 0,
        "video/h264" => 1,
        _ if mime.starts_with("video/") => 2,
        _ => 3,
    };
    let mut codecs: Vec<(i32, proto::Codec)> = config
        .enabled_codecs
        .iter()
        .map(|codec| (codec.mime.to_ascii_lowercase(), codec))
        .filter(|(mime, _)| !mime.ends_with("/rtx") && !disabled.contains(&mime.as_str()))
        .map(|(mime, codec)| (rank(&mime), codec.clone()))
        .collect();
    codecs.sort_by_key(|(rank, _)| *rank);
    codecs.into_iter().map(|(_, codec)| codec).collect()
}

fn check(params: &JoinParams, config: &RoomConfig) -> Result<(), JoinError> {
    let limits = &config.limits;
    if params.identity.is_empty() {
        return Err(JoinError::Invalid("identity cannot be empty".into()));
    }
    if params.identity.len() > limits.max_participant_identity_length {
        let max = limits.max_participant_identity_length;
        return Err(JoinError::Invalid(format!("identity cannot exceed {max} characters")));
    }
    if params.name.len() > limits.max_participant_name_length {
        return Err(JoinError::LimitExceeded("name exceeds the limit".into()));
    }
    if params.metadata.len() > limits.max_metadata_size {
        return Err(JoinError::LimitExceeded("metadata size exceeds the limit".into()));
    }
    if attributes_size(&params.attributes) > limits.max_attributes_size {
        return Err(JoinError::LimitExceeded("attributes size exceeds the limit".into()));
    }
    Ok(())
}

/// Size of attributes as the limit counts it: keys and values, bytes.
pub(crate) fn attributes_size(attributes: &BTreeMap<String, String>) -> usize {
    attributes.iter().map(|(key, value)| key.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishable_codecs_start_with_vp8_and_h264_and_end_with_audio() {
        let client = Client::new(proto::ClientInfo::default());
        let mut config = RoomConfig::default();
        config.enabled_codecs.reverse();
        let mimes: Vec<String> =
            publish_codecs(&config, &client).into_iter().map(|codec| codec.mime).collect();
        assert_eq!(mimes[..2], ["video/VP8", "video/H264"]);
        assert!(mimes[mimes.len() - 3..].iter().all(|mime| mime.starts_with("audio/")));
    }
}
