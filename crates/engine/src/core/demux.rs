//! From a datagram to its peer. STUN goes by our ufrag in its USERNAME; everything else only by a
//! remote address that a peer validated before (RFC 7983, RFC 8445 §7.3). With one port for all
//! workers the kernel may deliver to a worker that does not own the peer: it hands the datagram over.

use std::collections::VecDeque;
use std::time::Instant;

use rustc_hash::FxHashMap;
use sluice_rtp::demux::{DatagramKind, classify};
use sluice_transport::{Received, Route, stun};

use crate::api::WorkerId;
use crate::core::Core;
use crate::core::peer::{KnownRoute, PeerKey};
use crate::core::ufrag::Ufrag;
use crate::engine::worker_of_ufrag;
use crate::link::LinkMessage;
use crate::stats::DropCause;

/// Validated addresses of one peer at most; the oldest one goes. A client has a few interfaces
/// with a UDP and a TCP pair each, and NAT rebindings.
const MAX_ROUTES_PER_PEER: usize = 32;

/// Addresses that lead to peers of other workers at most.
const MAX_FOREIGN_ROUTES: usize = 65_536;

/// Longest datagram that is handed to another worker, bytes.
const MAX_HANDED_OVER: usize = 2048;

/// Remote addresses whose peers live on other workers.
#[derive(Debug, Default)]
pub(crate) struct ForeignRoutes {
    owners: FxHashMap<Route, WorkerId>,
    order: VecDeque<Route>,
}

impl ForeignRoutes {
    pub(crate) fn insert(&mut self, route: Route, owner: WorkerId) {
        if self.owners.insert(route, owner).is_some() {
            return;
        }
        self.order.push_back(route);
        while self.owners.len() > MAX_FOREIGN_ROUTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }

    /// Forgets a route of this owner; another worker may have claimed it since.
    pub(crate) fn remove(&mut self, route: &Route, owner: WorkerId) {
        if self.owners.get(route) == Some(&owner) {
            self.owners.remove(route);
            // Entries of removed routes go when they reach the front or become the majority.
            if self.order.len() > 2 * self.owners.len() + 64 {
                let owners = &self.owners;
                self.order.retain(|route| owners.contains_key(route));
            }
        }
    }

    pub(crate) fn get(&self, route: &Route) -> Option<WorkerId> {
        self.owners.get(route).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.owners.len()
    }
}

impl Core {
    /// Takes what one receive buffer held: datagrams of `stride` bytes, the last may be shorter,
    /// from one source.
    pub(crate) fn handle_datagrams(
        &mut self,
        now: Instant,
        route: Route,
        bytes: &mut [u8],
        stride: usize,
    ) {
        self.stats.datagram_bytes_in += bytes.len() as u64;
        let mut owner = self.routes.get(&route).copied();
        for datagram in bytes.chunks_mut(stride) {
            self.stats.datagrams_in += 1;
            match classify(datagram) {
                DatagramKind::Stun => {
                    self.handle_stun(now, route, None, datagram);
                    owner = self.routes.get(&route).copied();
                }
                DatagramKind::Dtls | DatagramKind::Rtp | DatagramKind::Rtcp => match owner {
                    Some(peer) => {
                        self.deliver(now, peer, route, datagram);
                    }
                    None => self.hand_over_known(route, datagram),
                },
                DatagramKind::TurnChannel | DatagramKind::Unknown => {
                    self.stats.drop_one(DropCause::NotClassified);
                }
            }
        }
    }

    /// Takes a datagram that another worker received.
    pub(crate) fn handle_handed_over(
        &mut self,
        now: Instant,
        from: WorkerId,
        route: Route,
        datagram: &[u8],
    ) {
        let mut copy = std::mem::take(&mut self.handed_over);
        copy.clear();
        copy.extend_from_slice(datagram);
        if classify(&copy) == DatagramKind::Stun {
            self.handle_stun(now, route, Some(from), &mut copy);
        } else if let Some(peer) = self.routes.get(&route).copied() {
            self.deliver(now, peer, route, &mut copy);
        } else {
            self.stats.drop_one(DropCause::UnknownSource);
            self.links.push(from, LinkMessage::RouteDown { route });
        }
        self.handed_over = copy;
    }

    /// `via` is the worker that received it, if that is another one.
    fn handle_stun(
        &mut self,
        now: Instant,
        route: Route,
        via: Option<WorkerId>,
        datagram: &mut [u8],
    ) {
        let Some(ufrag) = stun::peek_ufrag(datagram) else {
            return self.stats.drop_one(DropCause::UnknownUfrag);
        };
        let peer = Ufrag::new(ufrag).and_then(|ufrag| self.ufrags.get(&ufrag).copied());
        if let Some(peer) = peer {
            if self.deliver(now, peer, route, datagram) {
                self.learn_route(peer, route, via);
            }
            return;
        }
        let owner = worker_of_ufrag(ufrag.as_bytes());
        let other = owner.filter(|owner| *owner != self.worker && via.is_none());
        match other.filter(|owner| usize::from(owner.0) < self.links.workers()) {
            Some(owner) => self.hand_over(owner, route, datagram),
            None => self.stats.drop_one(DropCause::UnknownUfrag),
        }
    }

    fn hand_over_known(&mut self, route: Route, datagram: &[u8]) {
        match self.foreign_routes.get(&route) {
            Some(owner) => self.hand_over(owner, route, datagram),
            None => self.stats.drop_one(DropCause::UnknownSource),
        }
    }

    fn hand_over(&mut self, owner: WorkerId, route: Route, datagram: &[u8]) {
        if datagram.len() > MAX_HANDED_OVER {
            return self.stats.drop_one(DropCause::NotClassified);
        }
        let bytes = self.pool.store(datagram);
        if self.push_link(owner, LinkMessage::Datagram { route, bytes }) {
            self.stats.handed_over += 1;
        }
    }

    /// Gives a datagram to a peer. True if it was authentic and is not media.
    fn deliver(&mut self, now: Instant, peer: PeerKey, route: Route, datagram: &mut [u8]) -> bool {
        self.guarded(now, peer, |core| core.receive(now, peer, route, datagram)).unwrap_or(false)
    }

    fn receive(&mut self, now: Instant, peer: PeerKey, route: Route, datagram: &mut [u8]) -> bool {
        let Some(state) = self.peers.get_mut(peer) else { return false };
        match state.transport.handle_datagram(now, route, datagram) {
            Received::Rtp(packet) => self.receive_rtp(now, peer, packet),
            Received::Rtcp(compound) => self.receive_rtcp(now, peer, compound),
            Received::Consumed => {
                self.mark_dirty(peer);
                return true;
            }
            Received::Dropped(reason) => {
                self.stats.drop_transport(reason);
            }
        }
        false
    }

    /// A check from this address authenticated: what comes from it belongs to the peer.
    fn learn_route(&mut self, peer: PeerKey, route: Route, via: Option<WorkerId>) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let known = KnownRoute { route, via };
        if self.routes.get(&route) == Some(&peer) && state.routes.contains(&known) {
            return;
        }
        state.routes.retain(|old| old.route != route);
        state.routes.push_back(known);
        let evicted =
            (state.routes.len() > MAX_ROUTES_PER_PEER).then(|| state.routes.pop_front()).flatten();
        // A client that reconnects from the same port takes the address over from its old peer.
        if let Some(old) = self.routes.insert(route, peer).filter(|old| *old != peer)
            && let Some(old) = self.peers.get_mut(old)
        {
            old.routes.retain(|old| old.route != route);
            old.transport.remove_route(route);
        }
        if let Some(via) = via {
            self.push_link(via, LinkMessage::RouteUp { route });
        }
        if let Some(evicted) = evicted {
            self.forget_route(peer, evicted);
        }
    }

    /// Unmaps an address that led to a peer.
    pub(crate) fn forget_route(&mut self, peer: PeerKey, known: KnownRoute) {
        let KnownRoute { route, via } = known;
        if self.routes.get(&route) == Some(&peer) {
            self.routes.remove(&route);
            self.closed_routes.push(route);
            if let Some(via) = via {
                self.push_link(via, LinkMessage::RouteDown { route });
            }
        }
    }

    /// Whether an address leads to a peer here.
    pub(crate) fn has_route(&self, route: &Route) -> bool {
        self.routes.contains_key(route)
    }

    /// An ICE-TCP connection ended.
    pub(crate) fn route_gone(&mut self, route: Route) {
        if let Some(peer) = self.routes.remove(&route)
            && let Some(state) = self.peers.get_mut(peer)
        {
            state.routes.retain(|known| known.route != route);
            state.transport.remove_route(route);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sluice_transport::TransportProto;

    use super::*;

    fn route(port: u16) -> Route {
        Route { proto: TransportProto::Udp, remote: (Ipv4Addr::LOCALHOST, port).into(), conn: 0 }
    }

    #[test]
    fn foreign_routes_are_bounded_and_forgotten_by_their_owner_only() {
        let mut routes = ForeignRoutes::default();
        routes.insert(route(1), WorkerId(1));
        routes.insert(route(1), WorkerId(2));
        routes.remove(&route(1), WorkerId(1));
        assert_eq!(routes.get(&route(1)), Some(WorkerId(2)));
        routes.remove(&route(1), WorkerId(2));
        assert_eq!((routes.get(&route(1)), routes.len()), (None, 0));
        for ip in 0..2u32 {
            for port in 0..=u16::MAX {
                let remote = (Ipv4Addr::from_bits(ip), port).into();
                routes.insert(Route { remote, ..route(0) }, WorkerId(1));
            }
        }
        assert_eq!(routes.len(), MAX_FOREIGN_ROUTES);
        assert!(routes.order.len() <= MAX_FOREIGN_ROUTES);
    }
}
