//! Peer connections of a participant and the offers and answers on them.
//!
//! Dual mode: the client offers on the publisher connection (we answer) and answers on the
//! subscriber connection (we offer, one offer in flight, requests meanwhile are merged into the
//! next). Single mode: the client always offers; when tracks wait for a section we ask it to.

use std::time::{Duration, Instant};

use rand::Rng;
use sluice_engine::api::{Command, CreatePeer, PeerId, WorkerId};
use sluice_engine::quality::MAX_SCORE;
use sluice_proto as proto;
use sluice_proto::signal_response::Message as Response;
use sluice_rtp::codec::Codec;
use sluice_transport::sdp::{
    Answer, AnswerSession, CodecPolicy, LocalDescription, OfferSession, SenderBinding, SenderId,
    SenderSpec, SessionParams, candidate_init_json,
};
use sluice_transport::{Candidate, IceCredentials, RemoteParams};

use crate::client::Client;
use crate::ice_fallback::IcePreference;
use crate::lifecycle::Departure;
use crate::participant::ParticipantKey;
use crate::room::Room;
use crate::timers::Timer;

/// Requests within this time share one offer (LiveKit's negotiation debounce).
const NEGOTIATION_DEBOUNCE: Duration = Duration::from_millis(150);

/// An unanswered offer costs the session (LiveKit's negotiation timeout).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The first offer id of a connection is below this, so that a new connection's ids differ.
const MAX_FIRST_OFFER_ID: u32 = 256;

/// State of one connection as the workers report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// The workers do not know it yet: nothing was negotiated.
    Unused,
    /// Negotiating, never connected.
    Connecting,
    /// Media can flow.
    Connected,
    /// Nothing arrives at the moment.
    Disconnected,
    /// Silent for too long. The workers keep it for an ICE restart.
    Failed,
}

/// One connection on the media workers.
pub(crate) struct PeerLink {
    pub(crate) id: PeerId,
    pub(crate) state: PeerState,
    pub(crate) reliable_open: bool,
    pub(crate) lossy_open: bool,
    /// How well its tracks arrive, as the workers say: 0..=100.
    pub(crate) score: f32,
    /// When it was connected first.
    pub(crate) connected_at: Option<Instant>,
    /// What the workers know of the remote side.
    remote: Option<RemoteParams>,
}

impl PeerLink {
    fn new(id: PeerId) -> Self {
        Self {
            id,
            state: PeerState::Unused,
            reliable_open: false,
            lossy_open: false,
            score: MAX_SCORE,
            connected_at: None,
            remote: None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.state, PeerState::Connected | PeerState::Disconnected)
    }
}

/// The connection on which the client offers.
pub(crate) struct Answering {
    pub(crate) peer: PeerLink,
    pub(crate) session: AnswerSession,
    /// Our credentials, until the connection is made on the workers.
    local: IceCredentials,
    /// Whether the client has heard of our candidates since the last change of credentials.
    trickled: bool,
}

impl Answering {
    /// Our side of an ICE restart.
    pub(crate) fn restarted(&mut self, local: IceCredentials) {
        self.session.set_local_ice(local);
        self.trickled = false;
    }
}

/// The connection on which we offer.
pub(crate) struct Offering {
    pub(crate) peer: PeerLink,
    pub(crate) session: OfferSession,
    next_id: u32,
    in_flight: Option<u32>,
    trickled: bool,
}

/// All connections of a participant; they live on one worker.
pub(crate) struct Links {
    pub(crate) worker: WorkerId,
    pub(crate) answering: Answering,
    pub(crate) offering: Option<Offering>,
    candidates: Vec<Candidate>,
    next_ssrc: u32,
}

/// What [`Links::new`] is made from.
pub(crate) struct LinksParams<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) single: bool,
    pub(crate) one_shot: bool,
    pub(crate) client: &'a Client,
    pub(crate) enabled_codecs: &'a [proto::Codec],
    pub(crate) preference: IcePreference,
}

impl Links {
    pub(crate) fn sending_peer(&self) -> &PeerLink {
        self.offering.as_ref().map_or(&self.answering.peer, |offering| &offering.peer)
    }

    pub(crate) fn peer_mut(&mut self, id: PeerId) -> Option<&mut PeerLink> {
        if self.answering.peer.id == id {
            return Some(&mut self.answering.peer);
        }
        let offering = self.offering.as_mut()?;
        (offering.peer.id == id).then_some(&mut offering.peer)
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &PeerLink> {
        std::iter::once(&self.answering.peer).chain(self.offering.iter().map(|o| &o.peer))
    }

    /// How the connection is of which another room tells.
    pub(crate) fn set_score(&mut self, score: f32) {
        self.answering.peer.score = score;
    }

    /// Whether any connection is over for the time being.
    pub(crate) fn any_failed(&self) -> bool {
        self.peers().any(|peer| peer.state == PeerState::Failed)
    }

    /// Other candidates; the client hears of them with the next ICE restart.
    pub(crate) fn set_candidates(&mut self, candidates: Vec<Candidate>) {
        self.answering.session.set_candidates(candidates.clone());
        if let Some(offering) = &mut self.offering {
            offering.session.set_candidates(candidates.clone());
        }
        self.candidates = candidates;
    }

    pub(crate) fn add_sender(&mut self, spec: SenderSpec) -> SenderId {
        match &mut self.offering {
            Some(offering) => offering.session.add_sender(spec),
            None => self.answering.session.add_sender(spec),
        }
    }

    pub(crate) fn remove_sender(&mut self, sender: SenderId) {
        match &mut self.offering {
            Some(offering) => offering.session.remove_sender(sender),
            None => self.answering.session.remove_sender(sender),
        }
    }

    /// What was negotiated last for a sender.
    pub(crate) fn binding(&self, sender: SenderId) -> Option<&SenderBinding> {
        match &self.offering {
            Some(offering) => offering.session.binding(sender),
            None => self.answering.session.binding(sender),
        }
    }

    /// An SSRC that no other stream towards this participant has.
    pub(crate) fn next_ssrc(&mut self) -> u32 {
        self.next_ssrc = self.next_ssrc.wrapping_add(1).max(1);
        self.next_ssrc
    }
}

impl Room {
    /// The connections of a new participant. The workers hear of each when it is first used.
    pub(crate) fn new_links(&mut self, params: &LinksParams<'_>) -> Links {
        let worker = params.worker;
        let candidates = params.preference.filter(self.host.candidates(worker));
        let enabled = params.enabled_codecs.iter().map(|codec| codec.mime.as_str());
        let disabled = params.client.unpublishable();
        let receivable = enabled.clone().filter(|mime| {
            let mime = mime.to_ascii_lowercase();
            !disabled.contains(&mime.as_str())
        });
        let mut receive = CodecPolicy::from_mime_types(receivable);
        if !params.client.takes_red() {
            receive = receive.without(Codec::Red);
        }
        let send = CodecPolicy::from_mime_types(enabled);
        let fingerprint = self.host.fingerprint();
        let session_ids = [self.rng.next_u64(), self.rng.next_u64()];
        // Delayed video without its audio would be worse than none.
        let playout_delay = self.playout_delay.is_some()
            && (!self.sync_streams || params.client.shares_stream_ids());
        let session_params = |ice: IceCredentials, session_id: u64| SessionParams {
            local: LocalDescription {
                ice,
                fingerprint: fingerprint.clone(),
                candidates: candidates.clone(),
            },
            receive: receive.clone(),
            send: send.clone(),
            session_id,
            // A section of a shared stream would move its new track into the old group.
            reuse_sections: params.client.reuses_sections() && !self.sync_streams,
            playout_delay,
            limits: sluice_transport::sdp::Limits::default(),
        };
        let local = self.host.ice_credentials(worker);
        let mut session = AnswerSession::new(session_params(local.clone(), session_ids[0]));
        if params.one_shot {
            session.keep_sections_open();
        }
        let answering = Answering {
            peer: PeerLink::new(self.host.next_peer_id(worker)),
            session,
            local,
            trickled: false,
        };
        let offering = (!params.single).then(|| {
            let ice = self.host.ice_credentials(worker);
            let session = OfferSession::new(session_params(ice.clone(), session_ids[1]), true);
            let mut peer = PeerLink::new(self.host.next_peer_id(worker));
            peer.state = PeerState::Connecting;
            self.out.engine(Command::CreatePeer(Box::new(CreatePeer {
                peer: peer.id,
                room: self.key,
                local: ice,
                open_channels: true,
            })));
            let next_id = self.rng.next_u32() % MAX_FIRST_OFFER_ID + 1;
            Offering { peer, session, next_id, in_flight: None, trickled: false }
        });
        Links { worker, answering, offering, candidates, next_ssrc: self.rng.next_u32() }
    }

    /// A client's offer: takes it over, answers it, and lets tracks begin, end and bind.
    pub(crate) fn handle_offer(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        offer: &proto::SessionDescription,
    ) {
        let room_key = self.key;
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let single = participant.links.offering.is_none();
        let answering = &mut participant.links.answering;
        let remote = match answering.session.accept_offer(&offer.sdp) {
            Ok(remote) => remote,
            Err(error) => {
                tracing::warn!(participant = %participant.sid, %error, "offer refused");
                return self.depart(now, key, Departure::NegotiationFailed);
            }
        };
        let peer = answering.peer.id;
        if answering.peer.state == PeerState::Unused {
            answering.peer.state = PeerState::Connecting;
            self.out.engine(Command::CreatePeer(Box::new(CreatePeer {
                peer,
                room: room_key,
                local: answering.local.clone(),
                open_channels: false,
            })));
        } else if remote.ice_restart {
            self.restart_answering(key);
        }
        let Some(participant) = self.participants.get_mut(&key) else { return };
        set_remote(&mut self.out, &mut participant.links.answering.peer, &remote.remote);
        self.match_offered_sections(now, key, &remote);

        let Some(participant) = self.participants.get_mut(&key) else { return };
        let answer = match participant.links.answering.session.create_answer() {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(participant = %participant.sid, %error, "offer not answerable");
                return self.depart(now, key, Departure::NegotiationFailed);
            }
        };
        self.apply_receivers(now, key, &answer.receivers);
        self.send_answer(key, offer.id, &answer, single);
        if single {
            self.bind_senders(now, key, &answer.senders, &answer.unsupported);
            self.negotiate(now, key);
        }
    }

    fn send_answer(&mut self, key: ParticipantKey, id: u32, answer: &Answer, single: bool) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let mid_to_track_id = if single {
            let sid_of = |sender| participant.track_of_sender(sender);
            let senders = answer.mid_to_sender.iter();
            senders.filter_map(|(mid, id)| Some((mid.clone(), sid_of(*id)?.into()))).collect()
        } else {
            Default::default()
        };
        let first = !std::mem::replace(&mut participant.links.answering.trickled, true);
        let description = proto::SessionDescription {
            r#type: "answer".into(),
            sdp: answer.sdp.clone(),
            id,
            mid_to_track_id,
        };
        self.send(key, Response::Answer(description));
        if first {
            self.trickle_candidates(key, proto::SignalTarget::Publisher);
        }
    }

    /// Sends our candidates once more, as LiveKit does: older clients wait for the final one.
    fn trickle_candidates(&mut self, key: ParticipantKey, target: proto::SignalTarget) {
        let Some(participant) = self.participants.get(&key) else { return };
        let candidates = &participant.links.candidates;
        let last = candidates.len().saturating_sub(1);
        let messages: Vec<_> = candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| proto::TrickleRequest {
                candidate_init: candidate_init_json(candidate, "0", 0),
                target: target.into(),
                r#final: index == last,
            })
            .collect();
        for message in messages {
            self.send(key, Response::Trickle(message));
        }
    }

    /// The first negotiation does not wait: the client is.
    pub(crate) fn negotiate_first(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        let single_unused = participant.links.offering.is_none()
            && participant.links.answering.peer.state == PeerState::Unused;
        if !single_unused {
            self.negotiate_now(now, key);
        }
    }

    /// Asks for a negotiation soon, so that several changes share it.
    pub(crate) fn negotiate(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        let needed = match &participant.links.offering {
            Some(offering) => offering.in_flight.is_none() && offering.session.needs_offer(),
            // The first offer of a client comes unasked.
            None => {
                let answering = &participant.links.answering;
                answering.peer.state != PeerState::Unused && answering.session.needs_offer()
            }
        };
        if needed {
            self.timers.set_earlier(Timer::Negotiate(key), now + NEGOTIATION_DEBOUNCE);
        }
    }

    /// Negotiates now, if the client can be reached and has answered the last offer.
    pub(crate) fn negotiate_now(&mut self, now: Instant, key: ParticipantKey) {
        self.timers.cancel(Timer::Negotiate(key));
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if participant.session.is_none() {
            return;
        }
        if participant.options.one_shot {
            return self.reassign_senders(now, key);
        }
        let Some(offering) = &mut participant.links.offering else {
            let requirement = participant.links.answering.session.take_requirement();
            if let Some(requirement) = requirement {
                let requirement = proto::MediaSectionsRequirement {
                    num_audios: requirement.audios,
                    num_videos: requirement.videos,
                };
                self.send(key, Response::MediaSectionsRequirement(requirement));
            }
            return;
        };
        if offering.in_flight.is_some() {
            return;
        }
        let sdp = match offering.session.create_offer() {
            Ok(sdp) => sdp,
            Err(error) => {
                tracing::error!(participant = %participant.sid, %error, "cannot write an offer");
                return self.depart(now, key, Departure::NegotiationFailed);
            }
        };
        let id = offering.next_id;
        offering.next_id = offering.next_id.wrapping_add(1);
        offering.in_flight = Some(id);
        let first = !std::mem::replace(&mut offering.trickled, true);
        self.timers.set(Timer::Answer(key), now + ANSWER_TIMEOUT);
        let description = proto::SessionDescription {
            r#type: "offer".into(),
            sdp,
            id,
            mid_to_track_id: Default::default(),
        };
        self.send(key, Response::Offer(description));
        if first {
            self.trickle_candidates(key, proto::SignalTarget::Subscriber);
        }
    }

    /// Tracks take over open sections of a client that cannot be asked for more.
    fn reassign_senders(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if let Some(answer) = participant.links.answering.session.reassign() {
            self.bind_senders(now, key, &answer.senders, &answer.unsupported);
        }
    }

    /// A client's answer on the subscriber connection.
    pub(crate) fn handle_answer(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        answer: &proto::SessionDescription,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let Some(offering) = &mut participant.links.offering else {
            tracing::debug!(participant = %participant.sid, "answer in single mode ignored");
            return;
        };
        let Some(id) = offering.in_flight else {
            tracing::debug!(participant = %participant.sid, "answer without an offer ignored");
            return;
        };
        // Clients before ids existed leave it 0.
        if answer.id != 0 && answer.id != id {
            tracing::debug!(participant = %participant.sid, "answer to an older offer ignored");
            return;
        }
        let result = match offering.session.accept_answer(&answer.sdp) {
            Ok(result) => result,
            Err(error) => {
                tracing::warn!(participant = %participant.sid, %error, "answer refused");
                return self.depart(now, key, Departure::NegotiationFailed);
            }
        };
        offering.in_flight = None;
        set_remote(&mut self.out, &mut offering.peer, &result.remote);
        self.timers.cancel(Timer::Answer(key));
        self.bind_senders(now, key, &result.senders, &result.unsupported);
        self.negotiate(now, key);
    }

    /// The client did not answer in time.
    pub(crate) fn answer_timed_out(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else { return };
        if participant.session.is_some() {
            tracing::warn!(participant = %participant.sid, "offer was not answered in time");
            self.depart(now, key, Departure::NegotiationFailed);
        }
        // Otherwise a resume makes a new offer, or the connection fails.
    }

    /// Restarts ICE where we offer, with an offer that replaces any that was in flight.
    pub(crate) fn restart_offering(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let worker = participant.links.worker;
        let Some(offering) = &mut participant.links.offering else { return };
        let local = self.host.ice_credentials(worker);
        offering.session.restart_ice(local.clone());
        offering.in_flight = None;
        offering.trickled = false;
        self.out.engine(Command::RestartIce { peer: offering.peer.id, local });
        self.negotiate_now(now, key);
    }
}

/// Tells the workers what they do not know yet of the remote side.
fn set_remote(out: &mut crate::outputs::Outputs, peer: &mut PeerLink, remote: &RemoteParams) {
    if peer.remote.as_ref() != Some(remote) {
        out.engine(Command::SetRemote { peer: peer.id, remote: Box::new(remote.clone()) });
        peer.remote = Some(remote.clone());
    }
}
