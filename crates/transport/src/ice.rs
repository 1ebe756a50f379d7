//! ICE-lite agent (RFC 8445 §2.5): answers authenticated checks, remembers the routes they came
//! from, and follows the controlling side's nomination.
//!
//! STUN datagrams and time go in; responses, route changes and liveness come out. A route is known
//! only after a check with our password arrived on it; nothing else is ever accepted from or sent
//! to any other route. The latest USE-CANDIDATE wins at once, also in the middle of a call: that
//! is how an address change works. A client that nominates every pair (RFC 5245's aggressive
//! nomination, Firefox) may have meant another route than its latest check said; when the selected
//! one is silent and another nominated one is not, traffic decides.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::peer::{DropReason, Route};
use crate::stun::{self, Class, IntegrityKey, Message};
use crate::types::IceCredentials;

/// Silence after which a peer is reported disconnected (LiveKit's ICE timer).
pub const ICE_DISCONNECTED: Duration = Duration::from_secs(10);
/// Further silence after which a peer has failed (LiveKit's ICE timer).
pub const ICE_FAILED: Duration = Duration::from_secs(5);
/// Time from the remote description to the first check. LiveKit's clients give up after 15 s, and
/// the first of these seconds pass in signalling.
pub const ICE_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Routes per peer: a client's interfaces times our addresses, with room for TCP reconnections.
const MAX_ROUTES: usize = 24;
/// A route without checks for this long is forgotten, unless it is selected. libwebrtc checks its
/// backup pairs every 25 s; RFC 7675 §5.1 lets consent expire after 30 s.
const ROUTE_LIFETIME: Duration = Duration::from_secs(30);
/// Silence on the selected route after which another nominated route that carries traffic takes
/// over. Above the 5 s between RFC 7675 consent checks.
const SELECTED_SILENCE: Duration = Duration::from_secs(6);

/// Local credentials with their expanded key.
#[derive(Debug)]
struct Local {
    credentials: IceCredentials,
    key: IntegrityKey,
    /// A check with these credentials arrived.
    used: bool,
}

impl Local {
    fn new(credentials: IceCredentials) -> Self {
        let key = IntegrityKey::new(&credentials.pwd);
        Self { credentials, key, used: false }
    }
}

#[derive(Debug, Clone, Copy)]
struct KnownRoute {
    route: Route,
    /// Latest check: proves the address.
    last_check: Instant,
    /// Latest authentic packet of any kind.
    last_seen: Instant,
    nominated: bool,
}

/// Whether the peer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Liveness {
    /// No remote description and no check yet: waits without limit.
    Idle,
    /// The remote description arrived, no check yet.
    Connecting { since: Instant },
    /// Authentic traffic arrives.
    Alive { last: Instant },
    /// Reported silent.
    Disconnected { last: Instant },
    /// Reported failed: a check, most likely after an ICE restart, brings it back.
    Failed { restarted: Option<Instant> },
}

/// Changes that the peer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IceEvent {
    Selected(Route),
    Disconnected,
    Reconnected,
    Failed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct IceAgent {
    current: Local,
    /// Credentials from before an ICE restart, until the new ones are used.
    previous: Option<Local>,
    routes: SmallVec<[KnownRoute; 4]>,
    selected: Option<Route>,
    liveness: Liveness,
    events: SmallVec<[IceEvent; 4]>,
}

impl IceAgent {
    pub(crate) fn new(local: IceCredentials) -> Self {
        Self {
            current: Local::new(local),
            previous: None,
            routes: SmallVec::new(),
            selected: None,
            liveness: Liveness::Idle,
            events: SmallVec::new(),
        }
    }

    /// The remote description arrived: checks should follow.
    pub(crate) fn expect_checks(&mut self, now: Instant) {
        if self.liveness == Liveness::Idle {
            self.liveness = Liveness::Connecting { since: now };
        }
    }

    /// Takes new credentials; those in use stay valid until the first check with the new ones.
    pub(crate) fn restart(&mut self, now: Instant, local: IceCredentials) {
        if let Liveness::Failed { restarted } = &mut self.liveness {
            *restarted = Some(now);
        }
        let old = std::mem::replace(&mut self.current, Local::new(local));
        if old.used || self.previous.is_none() {
            self.previous = Some(old);
        }
    }

    /// Answers one STUN datagram: `Ok` has filled `response`.
    pub(crate) fn handle_stun(
        &mut self,
        now: Instant,
        route: Route,
        datagram: &[u8],
        response: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let message = Message::parse(datagram).map_err(|_| DropReason::StunMalformed)?;
        if message.class != Class::Request || !message.is_binding() {
            return Err(DropReason::StunUnexpected);
        }
        let is_current = self.authenticate(&message)?;
        if is_current && !self.current.used {
            self.current.used = true;
            self.previous = None;
        }
        let key = match &self.previous {
            Some(previous) if !is_current => &previous.key,
            _ => &self.current.key,
        };
        let id = message.transaction_id();
        if !message.unknown_required.is_empty() {
            stun::write_unknown_attributes(&id, &message.unknown_required, key, response);
            return Ok(());
        }
        if message.ice_controlled.is_some() {
            // A lite agent is always controlled, so the other side has to switch.
            stun::write_role_conflict(&id, key, response);
            return Ok(());
        }
        stun::write_success(&id, route.remote, key, response);
        self.learn(now, route, message.use_candidate);
        if message.use_candidate {
            self.select(route);
        }
        self.confirm(now, route);
        Ok(())
    }

    /// Whether the message is signed with the current password; an error if with none of ours.
    fn authenticate(&self, message: &Message<'_>) -> Result<bool, DropReason> {
        let username = message.username.ok_or(DropReason::StunUnauthenticated)?;
        let local = username.split_once(':').map_or(username, |(local, _)| local);
        let mut known = false;
        for (candidate, is_current) in
            std::iter::once((&self.current, true)).chain(self.previous.iter().map(|p| (p, false)))
        {
            if candidate.credentials.ufrag == local {
                known = true;
                if message.verify(&candidate.key) {
                    return Ok(is_current);
                }
            }
        }
        Err(if known { DropReason::StunUnauthenticated } else { DropReason::StunUnknownUfrag })
    }

    fn learn(&mut self, now: Instant, route: Route, nominated: bool) {
        if let Some(known) = self.routes.iter_mut().find(|known| known.route == route) {
            known.last_check = now;
            known.nominated |= nominated;
            return;
        }
        if self.routes.len() >= MAX_ROUTES {
            let selected = self.selected;
            let oldest = (self.routes.iter().enumerate())
                .filter(|(_, known)| Some(known.route) != selected)
                .min_by_key(|(_, known)| known.last_check)
                .map(|(at, _)| at);
            if let Some(at) = oldest {
                self.routes.swap_remove(at);
            }
        }
        self.routes.push(KnownRoute { route, last_check: now, last_seen: now, nominated });
    }

    fn select(&mut self, route: Route) {
        if self.selected != Some(route) {
            self.selected = Some(route);
            self.events.push(IceEvent::Selected(route));
        }
    }

    /// Authentic traffic arrived on a known route: a check, or a packet that passed SRTP.
    pub(crate) fn confirm(&mut self, now: Instant, route: Route) {
        self.note_traffic(now, route);
        match self.liveness {
            Liveness::Disconnected { .. } | Liveness::Failed { .. } => {
                self.events.push(IceEvent::Reconnected);
            }
            Liveness::Idle | Liveness::Connecting { .. } | Liveness::Alive { .. } => {}
        }
        self.liveness = Liveness::Alive { last: now };
    }

    fn note_traffic(&mut self, now: Instant, route: Route) {
        let mut selected_seen = None;
        let mut nominated = false;
        for known in &mut self.routes {
            if known.route == route {
                known.last_seen = now;
                nominated = known.nominated;
            }
            if self.selected == Some(known.route) {
                selected_seen = Some(known.last_seen);
            }
        }
        let silent = selected_seen
            .is_some_and(|seen| now.saturating_duration_since(seen) >= SELECTED_SILENCE);
        if nominated && silent {
            self.select(route);
        }
    }

    /// Whether a check passed on this route recently enough to accept its packets.
    pub(crate) fn is_authenticated(&self, now: Instant, route: Route) -> bool {
        self.selected == Some(route)
            || self.routes.iter().any(|known| {
                known.route == route
                    && now.saturating_duration_since(known.last_check) < ROUTE_LIFETIME
            })
    }

    /// Forgets a route whose TCP connection or socket is gone. If it was selected, the nominated
    /// route with the latest traffic takes its place until the client nominates again.
    pub(crate) fn remove_route(&mut self, route: Route) {
        self.routes.retain(|known| known.route != route);
        if self.selected == Some(route) {
            self.selected = None;
            let next = self.routes.iter().filter(|known| known.nominated);
            if let Some(next) = next.max_by_key(|known| known.last_seen).copied() {
                self.select(next.route);
            }
        }
    }

    /// The nominated route.
    pub(crate) fn selected(&self) -> Option<Route> {
        self.selected
    }

    /// Any route that a check arrived on, the latest first: where to send before a nomination.
    pub(crate) fn latest(&self) -> Option<Route> {
        self.routes.iter().max_by_key(|known| known.last_check).map(|known| known.route)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        match self.liveness {
            Liveness::Alive { last } => {
                self.liveness = Liveness::Disconnected { last };
                self.events.push(IceEvent::Disconnected);
                // A caller that was away for long has passed both deadlines.
                self.handle_timeout(now);
            }
            Liveness::Connecting { .. }
            | Liveness::Disconnected { .. }
            | Liveness::Failed { restarted: Some(_) } => {
                self.liveness = Liveness::Failed { restarted: None };
                self.events.push(IceEvent::Failed);
            }
            Liveness::Idle | Liveness::Failed { restarted: None } => {}
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.liveness {
            Liveness::Idle | Liveness::Failed { restarted: None } => None,
            Liveness::Connecting { since } | Liveness::Failed { restarted: Some(since) } => {
                Some(since + ICE_CONNECT_TIMEOUT)
            }
            Liveness::Alive { last } => Some(last + ICE_DISCONNECTED),
            Liveness::Disconnected { last } => Some(last + ICE_DISCONNECTED + ICE_FAILED),
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<IceEvent> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::stun::{BindingRequest, IceRole};
    use crate::types::TransportProto;

    fn credentials(ufrag: &str) -> IceCredentials {
        IceCredentials { ufrag: ufrag.into(), pwd: format!("{ufrag}-password-of-24-chars") }
    }

    fn route(port: u16) -> Route {
        let remote = SocketAddr::from(([192, 0, 2, 1], port));
        Route { proto: TransportProto::Udp, remote, conn: 0 }
    }

    struct Check<'a> {
        local: &'a IceCredentials,
        use_candidate: bool,
        role: IceRole,
    }

    impl<'a> Check<'a> {
        fn new(local: &'a IceCredentials) -> Self {
            Self { local, use_candidate: false, role: IceRole::Controlling(1) }
        }

        fn nominating(local: &'a IceCredentials) -> Self {
            Self { use_candidate: true, ..Self::new(local) }
        }

        fn send(
            &self,
            agent: &mut IceAgent,
            now: Instant,
            route: Route,
        ) -> Result<Vec<u8>, DropReason> {
            let mut request = Vec::new();
            BindingRequest {
                transaction_id: [7; 12],
                username: &format!("{}:remote", self.local.ufrag),
                role: self.role,
                priority: 1,
                use_candidate: self.use_candidate,
            }
            .write(&IntegrityKey::new(&self.local.pwd), &mut request);
            let mut response = Vec::new();
            agent.handle_stun(now, route, &request, &mut response).map(|()| response)
        }
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        Instant::now()
    }

    #[test]
    fn a_check_is_answered_with_its_source_and_authenticates_its_route() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local.clone());
        assert!(!agent.is_authenticated(now, route(1)));
        let response = Check::new(&local).send(&mut agent, now, route(1)).unwrap();
        let response = Message::parse(&response).unwrap();
        assert_eq!(response.mapped_address, Some(route(1).remote));
        assert!(response.verify(&IntegrityKey::new(&local.pwd)));
        assert!(agent.is_authenticated(now, route(1)));
        assert_eq!(agent.selected(), None);
        assert_eq!(agent.latest(), Some(route(1)));
    }

    #[test]
    fn unknown_ufrag_or_wrong_password_gets_silence() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local.clone());
        let stranger = Check::new(&credentials("Bbbb")).send(&mut agent, now, route(1));
        assert_eq!(stranger, Err(DropReason::StunUnknownUfrag));
        let forged = IceCredentials { pwd: "wrong".into(), ..local };
        let forged = Check::nominating(&forged).send(&mut agent, now, route(1));
        assert_eq!(forged, Err(DropReason::StunUnauthenticated));
        assert!(!agent.is_authenticated(now, route(1)));
    }

    #[test]
    fn the_latest_nomination_wins_at_once() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local.clone());
        for port in [1, 2, 1] {
            Check::nominating(&local).send(&mut agent, now, route(port)).unwrap();
            assert_eq!(agent.selected(), Some(route(port)));
            assert_eq!(agent.poll_event(), Some(IceEvent::Selected(route(port))));
        }
    }

    #[test]
    fn a_controlled_sender_is_told_to_switch() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local.clone());
        let check = Check { role: IceRole::Controlled(5), ..Check::nominating(&local) };
        let response = check.send(&mut agent, now, route(1)).unwrap();
        assert_eq!(Message::parse(&response).unwrap().error_code, Some(487));
        assert_eq!(agent.selected(), None);
    }

    #[test]
    fn old_credentials_live_until_the_new_ones_are_used() {
        let (now, old, new) = (start(), credentials("Aold"), credentials("Anew"));
        let mut agent = IceAgent::new(old.clone());
        Check::nominating(&old).send(&mut agent, now, route(1)).unwrap();
        agent.restart(now, new.clone());
        Check::nominating(&old).send(&mut agent, now, route(1)).unwrap();
        Check::nominating(&new).send(&mut agent, now, route(2)).unwrap();
        assert_eq!(agent.selected(), Some(route(2)));
        let late = Check::nominating(&old).send(&mut agent, now, route(1));
        assert_eq!(late, Err(DropReason::StunUnknownUfrag));
    }

    #[test]
    fn an_unused_restart_does_not_cost_the_credentials_in_use() {
        let (now, old) = (start(), credentials("Aold"));
        let mut agent = IceAgent::new(old.clone());
        Check::new(&old).send(&mut agent, now, route(1)).unwrap();
        agent.restart(now, credentials("Ab"));
        agent.restart(now, credentials("Ac"));
        assert!(Check::new(&old).send(&mut agent, now, route(1)).is_ok());
        assert!(Check::new(&credentials("Ac")).send(&mut agent, now, route(1)).is_ok());
        assert!(Check::new(&old).send(&mut agent, now, route(1)).is_err());
    }

    #[test]
    fn silence_disconnects_after_10_s_and_fails_after_15_s() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local.clone());
        Check::new(&local).send(&mut agent, now, route(1)).unwrap();
        assert_eq!(agent.poll_timeout(), Some(now + ICE_DISCONNECTED));
        agent.handle_timeout(now + ICE_DISCONNECTED);
        assert_eq!(agent.poll_event(), Some(IceEvent::Disconnected));
        Check::new(&local).send(&mut agent, now + ICE_DISCONNECTED, route(1)).unwrap();
        assert_eq!(agent.poll_event(), Some(IceEvent::Reconnected));
        agent.handle_timeout(now + 2 * ICE_DISCONNECTED + ICE_FAILED);
        assert_eq!(agent.poll_event(), Some(IceEvent::Disconnected));
        assert_eq!(agent.poll_event(), Some(IceEvent::Failed));
        assert_eq!(agent.poll_timeout(), None);
    }

    #[test]
    fn a_failed_peer_comes_back_with_a_restart_or_fails_again() {
        let (now, old, new) = (start(), credentials("Aold"), credentials("Anew"));
        let mut agent = IceAgent::new(old.clone());
        Check::nominating(&old).send(&mut agent, now, route(1)).unwrap();
        let failed = now + ICE_DISCONNECTED + ICE_FAILED;
        agent.handle_timeout(failed);
        while agent.poll_event().is_some() {}

        agent.restart(failed, new.clone());
        assert_eq!(agent.poll_timeout(), Some(failed + ICE_CONNECT_TIMEOUT));
        agent.handle_timeout(failed + ICE_CONNECT_TIMEOUT);
        assert_eq!(agent.poll_event(), Some(IceEvent::Failed));

        let back = failed + 2 * ICE_CONNECT_TIMEOUT;
        Check::nominating(&new).send(&mut agent, back, route(2)).unwrap();
        assert_eq!(agent.selected(), Some(route(2)));
        let events: Vec<IceEvent> = std::iter::from_fn(|| agent.poll_event()).collect();
        assert!(events.contains(&IceEvent::Reconnected), "{events:?}");
        assert_eq!(agent.poll_timeout(), Some(back + ICE_DISCONNECTED));
    }

    #[test]
    fn a_peer_without_remote_description_waits_without_limit() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local);
        assert_eq!(agent.poll_timeout(), None);
        agent.expect_checks(now);
        agent.handle_timeout(now + ICE_CONNECT_TIMEOUT);
        assert_eq!(agent.poll_event(), Some(IceEvent::Failed));
    }

    #[test]
    fn routes_are_bounded_and_the_selected_one_stays() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local.clone());
        Check::nominating(&local).send(&mut agent, now, route(1)).unwrap();
        for port in 2..200u16 {
            let at = now + Duration::from_millis(u64::from(port));
            Check::new(&local).send(&mut agent, at, route(port)).unwrap();
        }
        assert_eq!(agent.routes.len(), MAX_ROUTES);
        assert!(agent.is_authenticated(now, route(1)));
        assert!(!agent.is_authenticated(now, route(2)));
        assert!(agent.is_authenticated(now, route(199)));
    }

    #[test]
    fn traffic_decides_between_nominated_routes_when_the_selected_one_is_silent() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local.clone());
        Check::nominating(&local).send(&mut agent, now, route(1)).unwrap();
        Check::nominating(&local).send(&mut agent, now, route(2)).unwrap();
        Check::new(&local).send(&mut agent, now, route(3)).unwrap();
        agent.confirm(now + Duration::from_secs(5), route(1));
        assert_eq!(agent.selected(), Some(route(2)));
        agent.confirm(now + SELECTED_SILENCE, route(3));
        assert_eq!(agent.selected(), Some(route(2)), "never nominated");
        agent.confirm(now + SELECTED_SILENCE, route(1));
        assert_eq!(agent.selected(), Some(route(1)));
    }

    #[test]
    fn a_lost_connection_falls_back_to_a_nominated_route() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local.clone());
        Check::nominating(&local).send(&mut agent, now, route(1)).unwrap();
        Check::new(&local).send(&mut agent, now, route(2)).unwrap();
        Check::nominating(&local).send(&mut agent, now, route(3)).unwrap();
        agent.remove_route(route(3));
        assert_eq!(agent.selected(), Some(route(1)));
        agent.remove_route(route(1));
        assert_eq!(agent.selected(), None);
        assert!(!agent.is_authenticated(now, route(3)));
        assert_eq!(agent.latest(), Some(route(2)));
    }

    #[test]
    fn a_backup_route_expires_without_checks() {
        let (now, local) = (start(), credentials("Aaaa"));
        let mut agent = IceAgent::new(local.clone());
        Check::nominating(&local).send(&mut agent, now, route(1)).unwrap();
        Check::new(&local).send(&mut agent, now, route(2)).unwrap();
        let later = now + ROUTE_LIFETIME;
        assert!(agent.is_authenticated(later, route(1)));
        assert!(!agent.is_authenticated(later, route(2)));
    }
}
