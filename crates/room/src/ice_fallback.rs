//! Which transports a client is told of: everything at first; TCP candidates only after connections
//! that failed early or twice in a row; relays only after that, if there are any. The choice is
//! remembered by identity, so that a client that starts anew begins with what works (LiveKit's
//! connection fallback, transportmanager.go).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::api::{Command, PeerId};
use sluice_proto as proto;
use sluice_proto::{CandidateProtocol, ReconnectReason};
use sluice_transport::{Candidate, TransportProto};

use crate::participant::{Participant, ParticipantKey};
use crate::room::Room;

/// A connection that ended before this was never good (LiveKit's short connection).
const SHORT_CONNECTION: Duration = Duration::from_secs(90);

/// So many failures within [`FAILURE_WINDOW`] of each other count like a short connection.
const FAILURES: u32 = 2;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// After this silence of the client its whole network is at fault, not one transport of it
/// (the client's own ping timeout).
const RECENT_SIGNAL: Duration = Duration::from_secs(15);

/// How long a choice outlives the session that made it.
const MEMORY_LIFETIME: Duration = Duration::from_secs(300);

/// Identities that are remembered; the oldest are forgotten first.
const MAX_REMEMBERED: usize = 1000;

/// What a client shall use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum IcePreference {
    /// Whatever works.
    #[default]
    Any,
    /// ICE-TCP.
    Tcp,
    /// A relay over TLS.
    Relay,
}

impl IcePreference {
    /// The candidates to tell; all of them when nothing would be left.
    pub(crate) fn filter(self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let is_tcp = |candidate: &Candidate| candidate.proto == TransportProto::Tcp;
        if self != Self::Tcp || !candidates.iter().any(is_tcp) {
            return candidates;
        }
        candidates.into_iter().filter(is_tcp).collect()
    }
}

/// One session's preference and the failures that may change it.
#[derive(Debug, Default)]
pub(crate) struct IceHistory {
    preference: IcePreference,
    failures: u32,
    last_failure: Option<Instant>,
    /// Whether this session has moved on already: one step per session, as LiveKit does.
    moved: bool,
    /// Whether the selected route is ICE-TCP.
    pub(crate) over_tcp: bool,
}

impl IceHistory {
    pub(crate) fn new(preference: IcePreference) -> Self {
        Self { preference, ..Self::default() }
    }

    pub(crate) fn preference(&self) -> IcePreference {
        self.preference
    }

    pub(crate) fn is_unrestricted(&self) -> bool {
        self.preference == IcePreference::Any
    }

    /// Counts a failure. True when it is time for another transport.
    fn failed(&mut self, now: Instant, short: bool) -> bool {
        if self.moved {
            return false;
        }
        let recent =
            self.last_failure.is_some_and(|at| now.saturating_duration_since(at) <= FAILURE_WINDOW);
        self.failures = if recent { self.failures + 1 } else { 1 };
        self.last_failure = Some(now);
        short || self.failures >= FAILURES
    }

    fn forget_failures(&mut self) {
        self.failures = 0;
        self.last_failure = None;
    }
}

/// Preferences of identities whose sessions may be over.
#[derive(Debug, Default)]
pub(crate) struct IceMemory(BTreeMap<Arc<str>, (IcePreference, Instant)>);

impl IceMemory {
    pub(crate) fn recall(&self, now: Instant, identity: &str) -> IcePreference {
        match self.0.get(identity) {
            Some((preference, at)) if now.saturating_duration_since(*at) <= MEMORY_LIFETIME => {
                *preference
            }
            _ => IcePreference::Any,
        }
    }

    fn remember(&mut self, now: Instant, identity: &Arc<str>, preference: IcePreference) {
        self.0.insert(identity.clone(), (preference, now));
        while self.0.len() > MAX_REMEMBERED {
            let oldest = self.0.iter().min_by_key(|(_, (_, at))| *at);
            let Some(oldest) = oldest.map(|(identity, _)| identity.clone()) else { return };
            self.0.remove(&oldest);
        }
    }
}

impl Room {
    /// What the client is told of codecs and relays.
    pub(crate) fn client_configuration(
        &self,
        participant: &Participant,
    ) -> Option<proto::ClientConfiguration> {
        let relay = participant.ice.preference == IcePreference::Relay;
        participant.client.configuration(relay && self.has_relay())
    }

    fn has_relay(&self) -> bool {
        let urls = self.config.ice_servers.iter().flat_map(|server| &server.urls);
        let mut urls = urls.chain(self.config.turn_secrets.iter().map(|server| &server.url));
        urls.any(|url| url.starts_with("turns:"))
    }

    /// A connection of a participant failed: perhaps another transport does better.
    pub(crate) fn connection_failed(&mut self, now: Instant, key: ParticipantKey, peer: PeerId) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let connected_at = participant.links.peer_mut(peer).and_then(|link| link.connected_at);
        let short =
            connected_at.is_none_or(|at| now.saturating_duration_since(at) < SHORT_CONNECTION);
        self.consider_fallback(now, key, short);
    }

    /// A client says on resuming which of its connections failed.
    pub(crate) fn client_reports_failure(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        reason: ReconnectReason,
    ) {
        let Some(participant) = self.participants.get(&key) else { return };
        let links = &participant.links;
        let failed = match (reason, &links.offering) {
            (ReconnectReason::RrPublisherFailed, _) => &links.answering.peer,
            (ReconnectReason::RrSubscriberFailed, Some(offering)) => &offering.peer,
            _ => return,
        };
        let lasted = failed.connected_at.map(|at| now.saturating_duration_since(at));
        if lasted.is_some_and(|lasted| lasted < SHORT_CONNECTION) {
            self.consider_fallback(now, key, true);
        }
    }

    fn consider_fallback(&mut self, now: Instant, key: ParticipantKey, short: bool) {
        let has_relay = self.has_relay();
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if !self.config.allow_tcp_fallback {
            return;
        }
        let silent = now.saturating_duration_since(participant.last_signal) > RECENT_SIGNAL;
        if participant.session.is_none() || silent {
            return participant.ice.forget_failures();
        }
        if !participant.ice.failed(now, short) {
            return;
        }
        let current = participant.ice.preference;
        let next = match current {
            IcePreference::Any if !participant.ice.over_tcp && self.reaches_tcp(key) => {
                IcePreference::Tcp
            }
            IcePreference::Any | IcePreference::Tcp if has_relay => IcePreference::Relay,
            current => current,
        };
        if next != current {
            self.set_ice_preference(now, key, next);
            if let Some(participant) = self.participants.get_mut(&key) {
                participant.ice.moved = true;
            }
        }
    }

    /// Whether ICE-TCP is offered here and the client can use it.
    fn reaches_tcp(&self, key: ParticipantKey) -> bool {
        let Some(participant) = self.participants.get(&key) else { return false };
        let candidates = self.host.candidates(participant.links.worker);
        participant.client.connects_over_tcp()
            && candidates.iter().any(|candidate| candidate.proto == TransportProto::Tcp)
    }

    /// Takes a preference over for this session and the next ones of its identity.
    fn set_ice_preference(&mut self, now: Instant, key: ParticipantKey, preference: IcePreference) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        tracing::info!(participant = %participant.sid, ?preference, "another ICE transport");
        participant.ice = IceHistory::new(preference);
        self.ice_memory.remember(now, &participant.identity, preference);
        let candidates = self.host.candidates(participant.links.worker);
        participant.links.set_candidates(preference.filter(candidates));
    }

    /// `SimulateScenario.switch_candidate_protocol`: as if everything else had failed.
    pub(crate) fn switch_candidate_protocol(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        protocol: i32,
    ) {
        let preference = match CandidateProtocol::try_from(protocol) {
            Ok(CandidateProtocol::Tcp) => IcePreference::Tcp,
            Ok(CandidateProtocol::Tls) => IcePreference::Relay,
            Ok(CandidateProtocol::Udp) | Err(_) => IcePreference::Any,
        };
        self.set_ice_preference(now, key, preference);
        self.restart_offering(now, key);
    }

    /// Fresh local credentials for the connection on which the client offers, as its restart asks.
    pub(crate) fn restart_answering(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let worker = participant.links.worker;
        let answering = &mut participant.links.answering;
        let local = self.host.ice_credentials(worker);
        answering.restarted(local.clone());
        self.out.engine(Command::RestartIce { peer: answering.peer.id, local });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant does as the origin")]
    fn one_short_connection_or_two_failures_in_a_minute_ask_for_another_transport() {
        let now = Instant::now();
        assert!(IceHistory::default().failed(now, true));
        let mut history = IceHistory::default();
        assert!(!history.failed(now, false));
        assert!(history.failed(now + FAILURE_WINDOW, false));
        let mut history = IceHistory::default();
        assert!(!history.failed(now, false));
        assert!(!history.failed(now + 2 * FAILURE_WINDOW, false));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant does as the origin")]
    fn memory_fades_and_is_bounded() {
        let now = Instant::now();
        let mut memory = IceMemory::default();
        for index in 0..=MAX_REMEMBERED {
            let at = now + Duration::from_millis(index as u64);
            memory.remember(at, &index.to_string().into(), IcePreference::Tcp);
        }
        assert_eq!(memory.recall(now, "0"), IcePreference::Any);
        assert_eq!(memory.recall(now, "1"), IcePreference::Tcp);
        assert_eq!(memory.recall(now + 2 * MEMORY_LIFETIME, "1"), IcePreference::Any);
    }
}
