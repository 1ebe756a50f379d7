//! Data between participants: which packets pass, to whom they go, and what waits for whom.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use sluice_engine::api::{ChannelLabel, Command, PeerId, WorkerId};
use sluice_proto as proto;

use crate::packet::{Destinations, Refused, Rewritten, Sender, rewrite};
use crate::participant::ParticipantKey;
use crate::room::Room;

/// Reliable bytes that wait for a participant whose channels are not open yet (LiveKit's limit).
const MAX_WAITING_BYTES: usize = 100 * 1024;

/// Nonces of API packets that are remembered (LiveKit's limit).
const MAX_NONCES: usize = 100;

/// Length of a nonce, bytes.
const NONCE_LEN: usize = 16;

/// Reliable packets that wait for a participant's channels; the oldest go first when there are
/// too many.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    packets: VecDeque<(ChannelLabel, Bytes)>,
    bytes: usize,
}

impl Waiting {
    /// Returns how many older packets were given up for this one.
    fn push(&mut self, channel: ChannelLabel, payload: Bytes) -> usize {
        self.bytes += payload.len();
        self.packets.push_back((channel, payload));
        let mut dropped = 0;
        while self.bytes > MAX_WAITING_BYTES {
            let Some((_, oldest)) = self.packets.pop_front() else { break };
            self.bytes -= oldest.len();
            dropped += 1;
        }
        dropped
    }
}

/// Data packets that went nowhere, with the reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DataDrops {
    /// The sender may not publish data.
    pub not_allowed: u64,
    /// Not a protobuf message.
    pub malformed: u64,
    /// Seen before: sequence or nonce.
    pub duplicate: u64,
    /// Only the server or agents may send this kind.
    pub forbidden_kind: u64,
    /// Waited for a participant's channels for too long.
    pub waiting_overflow: u64,
    /// A data track packet whose handle was not published.
    pub unknown_data_track: u64,
    /// A data track packet for a subscriber that is not connected.
    pub not_connected: u64,
}

impl Room {
    /// A message on a data channel of a participant.
    pub(crate) fn data_received(
        &mut self,
        key: ParticipantKey,
        channel: &ChannelLabel,
        payload: Bytes,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if !participant.grants.can_publish_data() {
            self.drops.not_allowed += 1;
            return;
        }
        let (reliable, payload) = match channel {
            ChannelLabel::Reliable => (true, payload),
            ChannelLabel::Lossy => (false, payload),
            ChannelLabel::DataTrack => return self.data_track_packet(key, &payload),
            ChannelLabel::Other { reliable, .. } => (*reliable, wrap_user_bytes(payload)),
        };
        let hidden = participant.is_hidden();
        let sender = Sender {
            sid: if hidden { "" } else { participant.sid.as_str() },
            identity: if hidden { "" } else { &participant.identity },
            agent: participant.is_agent(),
        };
        let packet = match rewrite(&payload, reliable, &sender) {
            Ok(packet) => packet,
            Err(Refused::Malformed) => {
                self.drops.malformed += 1;
                return;
            }
            Err(Refused::Forbidden) => {
                self.drops.forbidden_kind += 1;
                return;
            }
        };
        if reliable && packet.sequence > 0 {
            if packet.sequence <= participant.last_reliable_sequence {
                self.drops.duplicate += 1;
                return;
            }
            participant.last_reliable_sequence = packet.sequence;
        }
        if !self.rpc_received(key, &packet) {
            self.deliver(Some(key), reliable, &packet);
        }
    }

    /// Sends a packet to everyone it is for, per worker in one command.
    pub(crate) fn deliver(
        &mut self,
        from: Option<ParticipantKey>,
        reliable: bool,
        packet: &Rewritten,
    ) {
        let channel = if reliable { ChannelLabel::Reliable } else { ChannelLabel::Lossy };
        let mut peers: Vec<(WorkerId, PeerId)> = Vec::new();
        for (key, participant) in &mut self.participants {
            let wants =
                packet.destinations.includes(&participant.identity, participant.sid.as_str())
                    && (!packet.metrics || participant.grants.can_subscribe_metrics);
            if Some(*key) == from || !wants || participant.is_forwarded() {
                continue;
            }
            if participant.can_receive_data() {
                let peer = participant.data_peer();
                peers.push((peer.worker(), peer));
            } else if reliable {
                let dropped = participant.waiting.push(channel.clone(), packet.payload.clone());
                self.drops.waiting_overflow += dropped as u64;
            }
        }
        peers.sort_by_key(|(worker, _)| *worker);
        for of_worker in peers.chunk_by(|a, b| a.0 == b.0) {
            let peers: Arc<[PeerId]> = of_worker.iter().map(|(_, peer)| *peer).collect();
            let payload = packet.payload.clone();
            self.out.engine(Command::SendData {
                peers,
                channel: channel.clone(),
                binary: true,
                payload,
            });
        }
    }

    /// Hands over what has waited for a participant's channels.
    pub(crate) fn flush_waiting(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if !participant.can_receive_data() {
            return;
        }
        let peers: Arc<[PeerId]> = Arc::new([participant.data_peer()]);
        let waiting = std::mem::take(&mut participant.waiting);
        for (channel, payload) in waiting.packets {
            let peers = peers.clone();
            self.out.engine(Command::SendData { peers, channel, binary: true, payload });
        }
    }

    /// `SendData` of the server API.
    ///
    /// # Errors
    /// The nonce is neither absent nor 16 bytes long.
    pub fn send_data(
        &mut self,
        _now: Instant,
        request: &proto::SendDataRequest,
    ) -> Result<(), crate::ApiError> {
        if !request.nonce.is_empty() {
            if request.nonce.len() != NONCE_LEN {
                let message = format!(
                    "nonce should be 16-bytes or not present, got: {} bytes",
                    request.nonce.len()
                );
                return Err(crate::ApiError::InvalidArgument(message));
            }
            if self.nonces.contains(&request.nonce) {
                self.drops.duplicate += 1;
                return Ok(());
            }
            self.nonces.push_back(request.nonce.clone());
            if self.nonces.len() > MAX_NONCES {
                self.nonces.pop_front();
            }
        }
        let user = proto::UserPacket {
            payload: request.data.clone(),
            destination_sids: request.destination_sids.clone(),
            destination_identities: request.destination_identities.clone(),
            topic: request.topic.clone(),
            nonce: request.nonce.clone(),
            ..Default::default()
        };
        let packet = proto::DataPacket {
            kind: request.kind,
            destination_identities: request.destination_identities.clone(),
            value: Some(proto::data_packet::Value::User(user)),
            ..Default::default()
        };
        let packet = Rewritten {
            payload: packet.encode_to_vec().into(),
            destinations: Destinations {
                identities: request.destination_identities.clone(),
                sids: request.destination_sids.clone(),
            },
            sequence: 0,
            metrics: false,
        };
        self.deliver(None, request.kind() == proto::data_packet::Kind::Reliable, &packet);
        Ok(())
    }

    /// Data packets that went nowhere.
    pub fn data_drops(&self) -> DataDrops {
        self.drops
    }
}

/// Bytes of a channel that LiveKit does not know, as a user packet.
fn wrap_user_bytes(payload: Bytes) -> Bytes {
    let user = proto::UserPacket { payload, ..Default::default() };
    let value = Some(proto::data_packet::Value::User(user));
    proto::DataPacket { value, ..Default::default() }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_wait_within_a_bound() {
        let mut waiting = Waiting::default();
        let packet = Bytes::from(vec![0; 40 * 1024]);
        assert_eq!(waiting.push(ChannelLabel::Reliable, packet.clone()), 0);
        assert_eq!(waiting.push(ChannelLabel::Reliable, packet.clone()), 0);
        assert_eq!(waiting.push(ChannelLabel::Reliable, packet), 1);
        assert_eq!(waiting.packets.len(), 2);
    }
}
