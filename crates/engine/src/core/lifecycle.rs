//! Peers come and go: creation, what their transport reports, removal with everything that hangs
//! on them, and the end of a peer whose state machine panicked.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustc_hash::FxHashMap;
use sluice_sfu::{StreamBinder, TwccReceiver};
use sluice_transport::{
    ChannelSpec, IceCredentials, Peer, PeerEvent, PeerParams, RemoteParams, TransportProto,
};

use crate::api::{CreatePeer, EventKind, PeerFailure, PeerStats};
use crate::core::Core;
use crate::core::peer::{PeerKey, PeerState};
use crate::core::quality::PeerQuality;
use crate::core::rtcp_out::REPORTER_SSRC;
use crate::core::ufrag::Ufrag;
use crate::stats::DropCause;
use crate::timers::Armed;

/// Local ufrags that one peer answers to: the current one and the one before an ICE restart.
const MAX_UFRAGS: usize = 2;

impl Core {
    pub(super) fn create_peer(&mut self, now: Instant, create: CreatePeer) {
        let CreatePeer { peer, room, local, open_channels } = create;
        let ufrag = Ufrag::new(&local.ufrag);
        let (Some(ufrag), false) = (ufrag, self.peer_ids.contains_key(&peer)) else {
            self.load.fetch_sub(1, Ordering::Relaxed);
            return self.stats.drop_one(DropCause::StaleCommand);
        };
        let transport = Peer::new(PeerParams {
            local,
            dtls: Arc::clone(&self.identity),
            open_channels: if open_channels { ChannelSpec::livekit() } else { Vec::new() },
            now,
        });
        let key = self.peers.insert(PeerState {
            id: peer,
            room,
            transport,
            connected: false,
            closing: false,
            ufrags: vec![ufrag],
            routes: VecDeque::new(),
            channels: Vec::new(),
            binder: StreamBinder::default(),
            sections: Vec::new(),
            twcc: TwccReceiver::new(REPORTER_SSRC),
            twcc_id: None,
            downs: Vec::new(),
            down_by_ssrc: FxHashMap::default(),
            awaiting: Vec::new(),
            retired: FxHashMap::default(),
            twcc_seq: 0,
            egress: Vec::new(),
            congestion: None,
            rtcp: Vec::new(),
            armed: Armed::default(),
            dirty: false,
            egress_dirty: false,
            next_report: None,
            next_sender_report: None,
            quality: PeerQuality::default(),
            stats: PeerStats::default(),
        });
        self.peer_ids.insert(peer, key);
        self.ufrags.insert(ufrag, key);
        self.mark_dirty(key);
    }

    pub(super) fn set_remote(&mut self, now: Instant, peer: PeerKey, remote: RemoteParams) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.transport.set_remote(now, remote);
            self.mark_dirty(peer);
        }
    }

    pub(super) fn restart_ice(&mut self, now: Instant, peer: PeerKey, local: IceCredentials) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let Some(ufrag) = Ufrag::new(&local.ufrag) else {
            return self.stats.drop_one(DropCause::StaleCommand);
        };
        state.transport.restart_ice(now, local);
        state.ufrags.push(ufrag);
        self.ufrags.insert(ufrag, peer);
        if state.ufrags.len() > MAX_UFRAGS {
            let oldest = state.ufrags.remove(0);
            self.ufrags.remove(&oldest);
        }
        self.mark_dirty(peer);
    }

    /// Acts on what a peer's transport reports.
    pub(super) fn handle_peer_event(&mut self, now: Instant, peer: PeerKey, event: PeerEvent) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let (room, id) = (state.room, state.id);
        match event {
            PeerEvent::Connected { srtp_profile, .. } => {
                self.on_connected(now, peer, srtp_profile);
            }
            PeerEvent::RouteChanged(route) => {
                if state.connected {
                    let tcp = route.proto == TransportProto::Tcp;
                    let remote = route.remote;
                    self.emit(room, EventKind::PeerRecovered { peer: id, remote, tcp });
                }
            }
            PeerEvent::IceDisconnected => self.emit(room, EventKind::PeerDisconnected { peer: id }),
            PeerEvent::IceReconnected => {
                // Before the first handshake nothing was there to recover.
                if let (true, Some(route)) = (state.connected, state.transport.selected_route()) {
                    let tcp = route.proto == TransportProto::Tcp;
                    let remote = route.remote;
                    self.emit(room, EventKind::PeerRecovered { peer: id, remote, tcp });
                }
            }
            PeerEvent::ChannelOpen { id: channel, label, reliable, .. } => {
                self.on_channel_open(peer, channel, &label, reliable);
            }
            PeerEvent::ChannelMessage { id: channel, binary, data } => {
                self.on_channel_message(peer, channel, binary, data);
            }
            PeerEvent::ChannelClosed { id: channel } => {
                state.channels.retain(|(other, _)| *other != channel);
            }
            PeerEvent::IceFailed => {
                self.paths.on_failed();
                let reason = PeerFailure::IceTimeout;
                self.emit(room, EventKind::PeerFailed { peer: id, reason });
            }
            PeerEvent::Failed(reason) => {
                self.fail_peer(now, peer, PeerFailure::Dtls(reason.to_string()));
            }
        }
    }

    fn on_connected(&mut self, now: Instant, peer: PeerKey, srtp_profile: &'static str) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        if !std::mem::replace(&mut state.connected, true) {
            self.stats.peers_connected += 1;
            self.paths.on_connected();
        }
        let route = state.transport.selected_route().or(state.routes.back().map(|r| r.route));
        let downs = state.downs.clone();
        if let Some(route) = route {
            let (room, peer) = (state.room, state.id);
            let (remote, tcp) = (route.remote, route.proto == TransportProto::Tcp);
            self.emit(room, EventKind::PeerConnected { peer, remote, tcp, srtp_profile });
        }
        for key in downs {
            if let Some(down) = self.downs.get_mut(key) {
                down.connected = true;
                self.ask_key_frame(now, key);
                self.begin_announcement(now, key);
            }
        }
        self.write_feedback(now, peer);
    }

    /// Ends a peer on our side and says why.
    pub(super) fn fail_peer(&mut self, now: Instant, peer: PeerKey, reason: PeerFailure) {
        let Some(state) = self.peers.get(peer) else { return };
        let (room, id) = (state.room, state.id);
        self.paths.on_failed();
        self.remove_peer(now, peer);
        self.emit(room, EventKind::PeerFailed { peer: id, reason });
    }

    /// Forgets a peer, its tracks, subscriptions and addresses.
    pub(super) fn remove_peer(&mut self, now: Instant, peer: PeerKey) {
        let Some(mut state) = self.peers.remove(peer) else { return };
        if let Some(congestion) = &mut state.congestion {
            congestion.uncount(&mut self.stats);
        }
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.stats.peers_connected -= u64::from(state.connected);
        self.peer_ids.remove(&state.id);
        for ufrag in state.ufrags {
            self.ufrags.remove(&ufrag);
        }
        for known in state.routes {
            self.forget_route(peer, known);
        }
        for section in state.sections {
            let held = section.held.len() as u64;
            self.stats.drop_many(DropCause::Unmatched, held);
            if let Some(track) = section.key {
                self.end_track(now, track);
            }
        }
        for down in state.downs {
            self.remove_down(now, down);
        }
    }

    /// Ends every peer: the worker stops.
    pub(crate) fn close_all(&mut self, now: Instant) {
        let peers: Vec<_> = self.peers.keys().collect();
        for peer in peers {
            self.guarded(now, peer, |core| core.close_peer(peer));
        }
    }

    /// Says goodbye to a peer; the flush of this turn sends it and forgets the peer.
    pub(super) fn close_peer(&mut self, peer: PeerKey) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.transport.close();
            state.closing = true;
            self.mark_dirty(peer);
        }
    }

    /// A step of the blamed peer panicked: it ends, the worker goes on.
    pub(super) fn contain_panic(&mut self, now: Instant) {
        let peer = self.blamed;
        self.stats.peer_panics += 1;
        match self.peers.get(peer) {
            Some(state) => tracing::error!(
                peer = state.id.as_u64(),
                room = state.room.0,
                "a peer's state machine panicked; the peer ends, please report this"
            ),
            None => {
                tracing::error!("a media worker panicked outside of a peer; please report this")
            }
        }
        let removed =
            catch_unwind(AssertUnwindSafe(|| self.fail_peer(now, peer, PeerFailure::Panic)));
        if removed.is_err() {
            tracing::error!("removing the peer panicked as well; parts of it stay behind");
        }
    }

    pub(super) fn report_peer_stats(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get(peer) else { return };
        let mut dropped = sluice_sfu::DropCounters::default();
        let downs = state.downs.iter().filter_map(|key| self.downs.get(*key));
        for of_down in downs.filter_map(|down| down.track.dropped()) {
            dropped.add(of_down);
        }
        for key in state.sections.iter().filter_map(|section| section.key) {
            if let Some(publication) = self.tracks.get(key) {
                dropped.add(publication.receiver.dropped());
            }
        }
        let mut stats = state.stats.clone();
        stats.dropped.extend(dropped.iter().map(|(reason, count)| (reason.label(), count)));
        let (room, peer) = (state.room, state.id);
        self.emit(room, EventKind::PeerStats { peer, stats: Box::new(stats) });
    }
}
