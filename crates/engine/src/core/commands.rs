//! What the control plane asks for.

use std::time::Instant;

use crate::api::{Command, PeerId};
use crate::core::Core;
use crate::core::peer::PeerKey;
use crate::stats::DropCause;

impl Core {
    /// Carries out one command.
    pub(crate) fn handle_command(&mut self, now: Instant, command: Command) {
        let peer = match &command {
            Command::SetRemote { peer, .. }
            | Command::RestartIce { peer, .. }
            | Command::SetReceive { peer, .. }
            | Command::LimitBandwidth { peer, .. }
            | Command::PeerStats { peer } => match self.known_peer(*peer) {
                Some(key) => key,
                None => return self.stats.drop_one(DropCause::StaleCommand),
            },
            Command::ClosePeer { peer } => self.known_peer(*peer).unwrap_or_default(),
            Command::Subscribe(subscribe) => self.known_peer(subscribe.peer).unwrap_or_default(),
            _ => PeerKey::default(),
        };
        self.guarded(now, peer, |core| core.carry_out(now, peer, command));
    }

    fn carry_out(&mut self, now: Instant, peer: PeerKey, command: Command) {
        match command {
            Command::CreatePeer(create) => self.create_peer(now, *create),
            Command::SetRemote { remote, .. } => self.set_remote(now, peer, *remote),
            Command::RestartIce { local, .. } => self.restart_ice(now, peer, local),
            // The peer may have failed in the meantime.
            Command::ClosePeer { .. } => self.close_peer(peer),
            Command::SetReceive { receive, .. } => self.set_receive(now, peer, *receive),
            Command::SetTrackMuted { track, muted } => self.set_track_muted(now, track, muted),
            Command::Unpublish { track } => {
                if let Some(key) = self.track_ids.get(&track).copied() {
                    self.end_track(now, key);
                }
            }
            Command::Subscribe(subscribe) => self.subscribe(now, *subscribe),
            Command::UpdateSubscription { subscription, settings } => {
                self.update_subscription(now, subscription, settings);
            }
            Command::Unsubscribe { subscription } => self.unsubscribe(now, subscription),
            Command::SendData { peers, channel, binary, payload } => {
                self.send_data(now, &peers, &channel, binary, &payload);
            }
            Command::LimitBandwidth { max_bps, .. } => self.limit_bandwidth(now, peer, max_bps),
            Command::PeerStats { .. } => self.report_peer_stats(peer),
            Command::Shutdown => self.close_all(now),
        }
    }

    fn known_peer(&self, peer: PeerId) -> Option<PeerKey> {
        self.peer_ids.get(&peer).copied()
    }
}
