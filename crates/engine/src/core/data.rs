//! Data channels: messages of a peer become events, messages of the control plane go out on the
//! channel of that name.

use std::time::Instant;

use bytes::Bytes;
use sluice_transport::ChannelId;

use crate::api::{ChannelLabel, EventKind, PeerId};
use crate::core::Core;
use crate::core::peer::PeerKey;
use crate::stats::DropCause;

/// Channels of one peer at most.
const MAX_CHANNELS: usize = 64;

impl Core {
    pub(super) fn on_channel_open(
        &mut self,
        peer: PeerKey,
        id: ChannelId,
        label: &str,
        reliable: bool,
    ) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        state.channels.retain(|(other, _)| *other != id);
        if state.channels.len() >= MAX_CHANNELS {
            return self.stats.drop_one(DropCause::TableFull);
        }
        let channel = channel_label(label, reliable);
        let max_latency = match channel {
            ChannelLabel::Lossy => self.data_latency.lossy,
            ChannelLabel::DataTrack => self.data_latency.data_track,
            ChannelLabel::Reliable | ChannelLabel::Other { .. } => None,
        };
        state.transport.set_max_latency(id, max_latency);
        state.channels.push((id, channel.clone()));
        let (room, peer) = (state.room, state.id);
        self.emit(room, EventKind::ChannelOpen { peer, channel });
    }

    pub(super) fn on_channel_message(
        &mut self,
        peer: PeerKey,
        id: ChannelId,
        binary: bool,
        payload: Bytes,
    ) {
        let Some(state) = self.peers.get(peer) else { return };
        let channel = state.channels.iter().find(|(other, _)| *other == id);
        let Some((_, channel)) = channel else {
            return self.stats.drop_one(DropCause::TableFull);
        };
        let (room, peer, channel) = (state.room, state.id, channel.clone());
        self.emit(room, EventKind::Data { peer, channel, binary, payload });
    }

    pub(super) fn send_data(
        &mut self,
        now: Instant,
        peers: &[PeerId],
        channel: &ChannelLabel,
        binary: bool,
        payload: &Bytes,
    ) {
        for peer in peers {
            let Some(key) = self.peer_ids.get(peer).copied() else {
                self.stats.drop_one(DropCause::DataSend);
                continue;
            };
            let sent = self.guarded(now, key, |core| {
                let state = core.peers.get_mut(key)?;
                let (id, _) = state.channels.iter().find(|(_, label)| label == channel)?;
                state.transport.send(now, *id, binary, payload.clone()).ok()
            });
            match sent.flatten() {
                Some(()) => self.mark_dirty(key),
                None => self.stats.drop_one(DropCause::DataSend),
            }
        }
    }
}

fn channel_label(label: &str, reliable: bool) -> ChannelLabel {
    match label {
        "_reliable" => ChannelLabel::Reliable,
        "_lossy" => ChannelLabel::Lossy,
        "_data_track" => ChannelLabel::DataTrack,
        other => ChannelLabel::Other { label: other.into(), reliable },
    }
}
