//! How participants become active and how they and the room end: events of the media workers,
//! departures with their leave messages, timeouts.

use std::time::{Duration, Instant};

use sluice_engine::api::{ChannelLabel, Command, EventKind, PeerFailure, PeerId};
use sluice_proto as proto;
use sluice_proto::leave_request::Action;
use sluice_proto::participant_info::State;
use sluice_proto::signal_response::Message as Response;
use sluice_proto::{DisconnectReason, RoomEndReason};

use crate::client::Client;
use crate::negotiation::PeerState;
use crate::outputs::{CloseReason, Output, SessionId, SharedResponse, WebhookEvent, WebhookKind};
use crate::participant::{Participant, ParticipantKey};
use crate::room::Room;
use crate::timers::Timer;

/// A failed connection may be resumed for this long (LiveKit's disconnect cleanup).
const RESUME_WINDOW: Duration = Duration::from_secs(5);

/// After a resume the connections must be back within this time: two attempts of a client, which
/// gives each 15 s.
const RESUMED_WINDOW: Duration = Duration::from_secs(30);

/// Tokens are renewed this often.
const TOKEN_REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// Why a participant leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departure {
    /// The client said so.
    Client(DisconnectReason),
    /// Another session of the same identity took over.
    DuplicateIdentity,
    /// Offer and answer did not work out.
    NegotiationFailed,
    /// Client and server disagree about the session.
    StateMismatch,
    /// Never became active.
    JoinTimeout,
    /// The signal connection went away before media was connected.
    SignalClosed,
    /// The media connection failed and nobody resumed.
    ConnectionTimeout,
    /// The connection cannot be repaired, only made anew.
    MediaFailed,
    /// A track that was published or subscribed to never began to flow.
    TrackFailed,
    /// The server API or the end of the room.
    Server(DisconnectReason),
    /// `SimulateScenario.node_failure`: the connection breaks without a word.
    SimulatedNodeFailure,
    /// The client shall start anew, for the given reason.
    Restart(DisconnectReason),
}

impl Departure {
    fn reason(self) -> DisconnectReason {
        match self {
            Self::Client(reason) | Self::Server(reason) | Self::Restart(reason) => reason,
            Self::DuplicateIdentity => DisconnectReason::DuplicateIdentity,
            Self::NegotiationFailed | Self::StateMismatch | Self::TrackFailed => {
                DisconnectReason::StateMismatch
            }
            Self::JoinTimeout => DisconnectReason::JoinFailure,
            Self::SignalClosed => DisconnectReason::SignalClose,
            Self::ConnectionTimeout => DisconnectReason::ConnectionTimeout,
            Self::MediaFailed => DisconnectReason::MediaFailure,
            Self::SimulatedNodeFailure => DisconnectReason::ServerShutdown,
        }
    }

    fn action(self) -> Action {
        match self {
            Self::NegotiationFailed
            | Self::StateMismatch
            | Self::MediaFailed
            | Self::TrackFailed
            | Self::Restart(_) => Action::Reconnect,
            _ => Action::Disconnect,
        }
    }

    fn is_silent(self) -> bool {
        matches!(self, Self::SignalClosed | Self::SimulatedNodeFailure)
    }
}

/// The message that ends a session, for the client's protocol version.
pub(crate) fn leave(action: Action, reason: DisconnectReason, client: &Client) -> Response {
    Response::Leave(proto::LeaveRequest {
        can_reconnect: action != Action::Disconnect,
        reason: reason.into(),
        action: if client.knows_leave_action() { action.into() } else { 0 },
        regions: None,
    })
}

impl Room {
    /// Ends a participant's session and tells everyone concerned.
    pub(crate) fn depart(&mut self, now: Instant, key: ParticipantKey, departure: Departure) {
        let Some(participant) = self.participants.get(&key) else { return };
        let reason = departure.reason();
        if let Some(session) = participant.session {
            if !departure.is_silent() {
                let message = leave(departure.action(), reason, &participant.client);
                self.send(key, message);
            }
            self.close_session(
                session,
                match departure {
                    Departure::SimulatedNodeFailure => CloseReason::Abnormal,
                    _ => CloseReason::Left(reason),
                },
            );
        }
        self.remove(now, key, departure);
        self.check_idle(now);
    }

    pub(crate) fn close_session(&mut self, session: SessionId, reason: CloseReason) {
        self.sessions.remove(&session);
        self.out.push(Output::CloseSignal { session, reason });
    }

    fn remove(&mut self, now: Instant, key: ParticipantKey, departure: Departure) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let was_active = participant.state == State::Active;
        let was_recorder = participant.is_recorder();
        participant.state = State::Disconnected;
        participant.version += 1;
        let published = participant.published.clone();
        for track in &published {
            self.webhook(WebhookKind::TrackUnpublished, key, Some(*track));
        }
        let Some(participant) = self.participants.remove(&key) else { return };
        let mut info = self.info_of(&participant);
        info.tracks.clear();
        info.data_tracks.clear();
        info.disconnect_reason = departure.reason().into();
        self.identities.remove(&participant.identity);
        self.sids.remove(&participant.sid);
        self.timers.cancel_participant(key);
        self.forget_speaker(key);
        self.end_rpcs_to(key);
        self.end_forwards(key, participant.sid.clone());
        self.subscription_ids.retain(|_, (subscriber, _)| *subscriber != key);
        for track in self.tracks.values_mut() {
            track.subscribers.remove(&key);
        }
        for track in published {
            self.remove_track(now, track);
        }
        for peer in participant.links.peers() {
            self.peers.remove(&peer.id);
            if peer.state != PeerState::Unused {
                self.out.engine(Command::ClosePeer { peer: peer.id });
            }
        }
        let hidden = participant.is_hidden();
        self.end_data_tracks(&participant.data_tracks);
        let kind = if was_active {
            WebhookKind::ParticipantLeft
        } else {
            WebhookKind::ParticipantConnectionAborted
        };
        self.report(WebhookEvent { participant: Some(info.clone()), ..self.webhook_event(kind) });
        if !hidden {
            self.announce_end(now, key, info, departure);
        }
        self.room_changed(now, was_recorder);
    }

    /// Clients that know that a new SID ends the old session of an identity hear only of the new.
    fn announce_end(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        info: proto::ParticipantInfo,
        departure: Departure,
    ) {
        if departure != Departure::DuplicateIdentity {
            return self.announce_departure(now, key, info);
        }
        self.updates.forget(key);
        let older = |participant: &Participant| !participant.client.knows_identity_reconnect();
        let older: Vec<ParticipantKey> =
            self.participants.iter().filter(|(_, p)| older(p)).map(|(key, _)| *key).collect();
        let update = proto::ParticipantUpdate { participants: vec![info] };
        let update = SharedResponse::new(Response::Update(update));
        for key in older {
            self.send_shared(key, &update);
        }
    }

    /// Starts or stops the countdown of an empty room. Agents and recorders do not keep it open.
    pub(crate) fn check_idle(&mut self, now: Instant) {
        if self.participants.values().any(|participant| !participant.is_dependent()) {
            self.timers.cancel(Timer::RoomIdle);
        } else {
            let timeout = if self.was_joined { self.departure_timeout } else { self.empty_timeout };
            self.timers.set_earlier(Timer::RoomIdle, now + timeout);
        }
    }

    /// Ends the room (`DeleteRoom`, shutdown): everybody gets a leave with `reason`.
    pub fn close(&mut self, now: Instant, reason: DisconnectReason) {
        if self.closed {
            return;
        }
        let keys: Vec<ParticipantKey> = self.participants.keys().copied().collect();
        for key in keys {
            self.depart(now, key, Departure::Server(reason));
        }
        self.closed = true;
        self.timers.clear();
        let end_reason = match reason {
            DisconnectReason::RoomDeleted => RoomEndReason::RoomEndApiDelete,
            DisconnectReason::RoomClosed => RoomEndReason::RoomEndIdleTimeout,
            DisconnectReason::ServerShutdown => RoomEndReason::RoomEndServerShutdown,
            _ => RoomEndReason::RoomEndUnknown,
        };
        let finished = WebhookEvent { end_reason, ..self.webhook_event(WebhookKind::RoomFinished) };
        self.report(finished);
        self.out.push(Output::Closed);
    }

    /// The signal connection is gone without a leave.
    pub fn signal_closed(&mut self, now: Instant, session: SessionId) {
        let Some(key) = self.sessions.remove(&session) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if participant.session != Some(session) {
            return;
        }
        participant.session = None;
        // Media alone keeps a session until it fails; without media there is nothing to keep.
        if !participant.links.peers().any(crate::negotiation::PeerLink::is_connected) {
            self.depart(now, key, Departure::SignalClosed);
        }
    }

    /// Handles what a media worker reports.
    pub fn handle_engine(&mut self, now: Instant, event: EventKind) {
        match event {
            EventKind::PeerConnected { peer, tcp, .. } => self.peer_connected(now, peer, tcp),
            EventKind::PeerDisconnected { peer } => self.peer_disconnected(peer),
            EventKind::PeerRecovered { peer, tcp, .. } => self.peer_recovered(peer, tcp),
            EventKind::PeerFailed { peer, reason } => self.peer_failed(now, peer, &reason),
            EventKind::ChannelOpen { peer, channel } => self.channel_open(peer, &channel),
            EventKind::Data { peer, channel, payload, .. } => {
                if let Some(&key) = self.peers.get(&peer) {
                    self.data_received(key, &channel, payload);
                }
            }
            EventKind::LayerStarted { track, layer, ssrc, rid, .. } => {
                self.layer_started(now, track, layer, ssrc, rid.as_deref());
            }
            EventKind::UnmatchedMedia { peer, mid } => {
                tracing::debug!(peer = peer.as_u64(), mid, "media without an announced track");
            }
            EventKind::MaxWanted { track, max_spatial } => {
                self.max_wanted(now, track, max_spatial);
            }
            EventKind::AudioLevels { levels } => self.audio_levels(now, &levels),
            EventKind::ConnectionQuality { peer, score } => self.connection_quality(peer, score),
            EventKind::PeerStats { .. } => {}
            EventKind::StreamState { subscription, paused } => {
                self.stream_state(subscription, paused);
            }
        }
    }

    fn peer_connected(&mut self, now: Instant, peer: PeerId, tcp: bool) {
        let Some(&key) = self.peers.get(&peer) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let Some(link) = participant.links.peer_mut(peer) else { return };
        link.state = PeerState::Connected;
        link.connected_at.get_or_insert(now);
        participant.ice.over_tcp = tcp;
        self.resume_done(key);
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if participant.is_primary(peer) && participant.state != State::Active {
            participant.state = State::Active;
            self.timers.cancel(Timer::Join(key));
            self.participant_changed(now, key, false);
            self.webhook(WebhookKind::ParticipantJoined, key, None);
            self.send_quality_of(key, &[key]);
        }
        self.flush_waiting(key);
    }

    fn peer_disconnected(&mut self, peer: PeerId) {
        let Some(&key) = self.peers.get(&peer) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let Some(link) = participant.links.peer_mut(peer) else { return };
        if link.state == PeerState::Connected {
            link.state = PeerState::Disconnected;
            self.broadcast_quality_of(key);
        }
    }

    /// The level of a connection changed.
    fn connection_quality(&mut self, peer: PeerId, score: f32) {
        let Some(&key) = self.peers.get(&peer) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let Some(link) = participant.links.peer_mut(peer) else { return };
        link.score = score;
        self.broadcast_quality_of(key);
    }

    /// Traffic came back, perhaps from another address or after an ICE restart.
    fn peer_recovered(&mut self, peer: PeerId, tcp: bool) {
        let Some(&key) = self.peers.get(&peer) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        participant.ice.over_tcp = tcp;
        let Some(link) = participant.links.peer_mut(peer) else { return };
        if matches!(link.state, PeerState::Disconnected | PeerState::Failed) {
            link.state = PeerState::Connected;
            self.resume_done(key);
            self.broadcast_quality_of(key);
        }
    }

    /// Stops waiting for a resume as soon as no connection is missing.
    fn resume_done(&mut self, key: ParticipantKey) {
        if self.participants.get(&key).is_some_and(|p| !p.links.any_failed()) {
            self.timers.cancel(Timer::Resume(key));
        }
    }

    /// A resume was accepted although a connection is missing: it gets time for an ICE restart.
    pub(crate) fn await_restart(&mut self, now: Instant, key: ParticipantKey) {
        if self.timers.is_set(Timer::Resume(key)) {
            self.timers.set(Timer::Resume(key), now + RESUMED_WINDOW);
        }
    }

    /// A connection failed. Who lost the network for too long is asked to resume, as LiveKit does,
    /// perhaps over another transport; meanwhile the others see no one leave. After anything else
    /// the client starts anew at once.
    fn peer_failed(&mut self, now: Instant, peer: PeerId, reason: &PeerFailure) {
        let Some(&key) = self.peers.get(&peer) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        tracing::info!(participant = %participant.sid, ?reason, "media connection failed");
        let Some(link) = participant.links.peer_mut(peer) else { return };
        link.state = PeerState::Failed;
        if *reason != PeerFailure::IceTimeout {
            return self.depart(now, key, Departure::MediaFailed);
        }
        if participant.options.one_shot {
            // Nobody is there who could resume.
            return self.depart(now, key, Departure::ConnectionTimeout);
        }
        self.connection_failed(now, key, peer);
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if let Some(session) = participant.session.take() {
            let client = participant.client.clone();
            // Older clients take any leave for the end; they resume when the connection breaks.
            if client.knows_leave_action() {
                let reason = DisconnectReason::ConnectionTimeout;
                let response = SharedResponse::new(leave(Action::Resume, reason, &client));
                self.out.push(Output::Signal { session, response });
            }
            self.close_session(session, CloseReason::Resume);
        }
        self.timers.set(Timer::Resume(key), now + RESUME_WINDOW);
        self.broadcast_quality_of(key);
    }

    fn channel_open(&mut self, peer: PeerId, channel: &ChannelLabel) {
        let Some(&key) = self.peers.get(&peer) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let Some(link) = participant.links.peer_mut(peer) else { return };
        match channel {
            ChannelLabel::Reliable => link.reliable_open = true,
            ChannelLabel::Lossy => link.lossy_open = true,
            ChannelLabel::DataTrack | ChannelLabel::Other { .. } => {}
        }
        self.flush_waiting(key);
    }

    /// Asks for a fresh token for the client, now and again later.
    pub(crate) fn refresh_token(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        if let Some(session) = participant.session {
            let claims = Box::new(participant.claims(&self.name));
            self.out.push(Output::RefreshToken { session, claims });
        }
        self.timers.set(Timer::TokenRefresh(key), now + TOKEN_REFRESH_INTERVAL);
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::RoomIdle => self.close(now, DisconnectReason::RoomClosed),
                Timer::ParticipantUpdates => self.flush_participant_updates(),
                Timer::RoomUpdate => self.send_room_update(),
                Timer::SpeakersStale => self.update_speakers(now),
                Timer::Join(key) => self.depart(now, key, Departure::JoinTimeout),
                Timer::Negotiate(key) => self.negotiate_now(now, key),
                Timer::Answer(key) => self.answer_timed_out(now, key),
                Timer::Resume(key) => self.depart(now, key, Departure::ConnectionTimeout),
                Timer::TokenRefresh(key) => self.refresh_token(now, key),
                Timer::MissingTracks(key) => self.report_missing_tracks(now, key),
                Timer::SimulatedSpeech(key) => self.end_simulated_speech(key),
                Timer::Rpc(rpc) => self.rpc_timed_out(rpc),
                Timer::Dynacast(track) => self.announce_wanted(track),
                Timer::Unbound(key) => self.report_unbound(now, key),
                Timer::Publication(track) => self.publication_timed_out(now, track),
            }
        }
    }
}
