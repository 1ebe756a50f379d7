//! Resuming: a client that lost its signal connection takes its session up again, and the state
//! that both sides hold is compared.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sluice_proto as proto;
use sluice_proto::DisconnectReason;
use sluice_proto::leave_request::Action;
use sluice_proto::signal_response::Message as Response;

use crate::client::Client;
use crate::join::server_info;
use crate::lifecycle::{Departure, leave};
use crate::outputs::{CloseReason, Output, SharedResponse};
use crate::params::{JoinParams, Joined};
use crate::participant::{Participant, ParticipantKey};
use crate::room::Room;

/// Departures are remembered for clients who missed them: this long and this many.
const DEPARTED_LIFETIME: Duration = Duration::from_secs(60);
const MAX_DEPARTED: usize = 1000;

/// `SimulateScenario.disconnect_signal_on_resume`: the next resume breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResumeSimulation {
    /// Right after the reconnect response.
    AfterReconnect,
    /// Before any message.
    BeforeMessages,
}

/// Participants who left lately.
#[derive(Debug, Default)]
pub(crate) struct Departed(VecDeque<(Instant, proto::ParticipantInfo)>);

impl Departed {
    pub(crate) fn push(&mut self, now: Instant, info: proto::ParticipantInfo) {
        self.0.push_back((now, info));
        let expired = |at: Instant| now.saturating_duration_since(at) > DEPARTED_LIFETIME;
        while self.0.len() > MAX_DEPARTED || self.0.front().is_some_and(|(at, _)| expired(*at)) {
            self.0.pop_front();
        }
    }

    fn since(&self, start: Instant) -> Vec<proto::ParticipantInfo> {
        self.0.iter().filter(|(at, _)| *at >= start).map(|(_, info)| info.clone()).collect()
    }
}

impl Room {
    /// Takes a session up again, or tells the client to start anew.
    pub(crate) fn resume(&mut self, now: Instant, params: &JoinParams) -> Joined {
        // Older clients do not name the SID; LiveKit goes by the identity alone.
        let Some(&key) = self.identities.get(params.identity.as_str()) else {
            return self.refuse_resume(&params.client_info);
        };
        self.client_reports_failure(now, key, params.reconnect_reason);
        let session = self.new_session(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return self.refuse_resume(&params.client_info);
        };
        let joined = Joined { participant_sid: Some(participant.sid.clone()), session };
        let last_signal = std::mem::replace(&mut participant.last_signal, now);
        let simulation = participant.resume_simulation.take();
        if let Some(old) = participant.session.replace(session) {
            self.close_session(old, CloseReason::Replaced);
        }
        if simulation == Some(ResumeSimulation::BeforeMessages) {
            self.break_signal(key);
            return joined;
        }
        self.send_reconnect(now, key);
        if simulation == Some(ResumeSimulation::AfterReconnect) {
            self.break_signal(key);
            return joined;
        }
        self.replay_state(key, last_signal);
        self.await_restart(now, key);
        self.restart_offering(now, key);
        joined
    }

    fn refuse_resume(&mut self, client: &proto::ClientInfo) -> Joined {
        let session = self.next_session_id();
        let client = Client::new(client.clone());
        let message = leave(Action::Reconnect, DisconnectReason::StateMismatch, &client);
        self.out.push(Output::Signal { session, response: SharedResponse::new(message) });
        self.close_session(session, CloseReason::Left(DisconnectReason::StateMismatch));
        Joined { participant_sid: None, session }
    }

    /// Closes a signal connection as if the network had.
    fn break_signal(&mut self, key: ParticipantKey) {
        let session = self.participants.get_mut(&key).and_then(|p| p.session.take());
        if let Some(session) = session {
            self.close_session(session, CloseReason::Abnormal);
        }
    }

    fn send_reconnect(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        if !participant.client.knows_reconnect() {
            return;
        }
        let reconnect = proto::ReconnectResponse {
            ice_servers: self.ice_servers_of(now, &participant.sid),
            client_configuration: self.client_configuration(participant),
            server_info: Some(server_info(&self.config)),
            last_message_seq: participant.last_reliable_sequence,
        };
        self.send(key, Response::Reconnect(reconnect));
    }

    /// What the client may have missed: who left, who is here, what the room is like.
    fn replay_state(&mut self, key: ParticipantKey, last_signal: Instant) {
        let Some(participant) = self.participants.get(&key) else { return };
        if participant.client.wants_disconnected_on_resume() {
            let participants = self.departed.since(last_signal);
            if !participants.is_empty() {
                self.send(key, Response::Update(proto::ParticipantUpdate { participants }));
            }
        }
        let visible = |(other, participant): &(&ParticipantKey, &Participant)| {
            **other == key || !participant.is_hidden()
        };
        let participants = self.participants.iter().filter(visible);
        let participants = participants.map(|(_, participant)| self.info_of(participant)).collect();
        self.send(key, Response::Update(proto::ParticipantUpdate { participants }));
        let room = Some(self.to_proto());
        self.send(key, Response::RoomUpdate(proto::RoomUpdate { room }));
    }

    /// `SyncState`: what the client thinks it publishes and wants.
    pub(crate) fn sync_state(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        state: &proto::SyncState,
    ) {
        let Some(participant) = self.participants.get(&key) else { return };
        let tracks = state.publish_tracks.iter().filter_map(|published| published.track.as_ref());
        let data_tracks = state.publish_data_tracks.iter().filter_map(|data| data.info.as_ref());
        let known = tracks.into_iter().all(|track| self.owns_track(participant, &track.sid))
            && data_tracks.into_iter().all(|info| participant.data_tracks.has_published(&info.sid));
        if !known {
            tracing::info!(participant = %participant.sid, "client publishes tracks we do not know");
            return self.depart(now, key, Departure::StateMismatch);
        }
        self.disable_tracks(now, key, &state.track_sids_disabled);
        if let Some(subscription) = &state.subscription {
            self.update_subscription(now, key, subscription);
        }
        if let Some(subscription) = &state.data_subscription {
            self.update_data_subscription(key, subscription);
        }
    }
}
