//! What a turn sends: for each receiver its events, transport datagrams and RTCP, then its media,
//! written and sealed into the send arena and flushed in runs of equal size.

use std::time::Instant;

use slotmap::SlotMap;
use sluice_net::equalize;
use sluice_rtp::ext::AbsSendTime;
use sluice_rtp::packet::MAX_PADDING;
use sluice_sfu::MediaPacket;
use sluice_transport::peer::SRTP_OVERHEAD;
use sluice_transport::{Route, TransportProto};

use crate::core::Core;
use crate::core::congestion::{Congestion, Filler, Load};
use crate::core::outgoing::{MAX_HEADER_LEN, Outgoing, Padding, Written};
use crate::core::peer::{DownKey, Egress, Pace, PeerKey, PeerState};
use crate::core::timing::MIN_DELAY;
use crate::core::track::Down;
use crate::io::Outbound;
use crate::stats::{DropCause, WorkerStats};

/// Bytes that one packet may take beyond its body.
const ROOM: usize = MAX_HEADER_LEN + MAX_PADDING as usize + SRTP_OVERHEAD;

impl Core {
    /// Sends everything that is due.
    pub(crate) fn flush(&mut self, now: Instant, out: &mut dyn Outbound) {
        let mut index = 0;
        while let Some(peer) = self.dirty.get(index).copied() {
            index += 1;
            self.guarded(now, peer, |core| core.drain(now, peer, out));
        }
        self.dirty.clear();
        if self.hold.is_over(now, self.batch.len()) {
            if let Some(waited) = self.hold.waited(now).filter(|_| !self.batch.is_empty()) {
                self.paths.on_forwarded(waited);
            }
            let sent = self.stats.packets_out;
            let mut receivers = std::mem::take(&mut self.egress_dirty);
            for peer in receivers.drain(..) {
                self.guarded(now, peer, |core| core.send_media(now, peer, out));
            }
            self.egress_dirty = receivers;
            self.outbox.send(out);
            let received = self.batch.len();
            self.batch.clear();
            self.forget_ended(now);
            self.hold.end(now, self.stats.packets_out - sent, received);
        }
        for route in self.closed_routes.drain(..) {
            out.close(route);
        }
    }

    /// Passes on what a peer's transport has to say, and its RTCP.
    fn drain(&mut self, now: Instant, peer: PeerKey, out: &mut dyn Outbound) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.dirty = false;
        }
        let mut datagram = std::mem::take(&mut self.datagram);
        // Events first: they may lead to datagrams, and the last one may end the peer after its
        // last words.
        let mut events = Vec::new();
        if let Some(state) = self.peers.get_mut(peer) {
            while let Some(event) = state.transport.poll_event() {
                events.push(event);
            }
            while let Some(route) = state.transport.poll_transmit(&mut datagram) {
                out.send(route, &datagram);
            }
            self.stats.drop_many(DropCause::DataExpired, state.transport.take_expired_messages());
        }
        if self.peers.get(peer).is_some_and(|state| state.closing) {
            self.datagram = datagram;
            return self.remove_peer(now, peer);
        }
        for event in events {
            self.handle_peer_event(now, peer, event);
        }
        self.send_rtcp(peer, &mut datagram, out);
        self.datagram = datagram;
        self.rearm(now, peer);
    }

    /// Writes, seals and sends the media of one receiver.
    fn send_media(&mut self, now: Instant, peer: PeerKey, out: &mut dyn Outbound) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        state.egress_dirty = false;
        let mut entries = std::mem::take(&mut state.egress);
        let Some(route) = state.transport.selected_route() else {
            self.stats.drop_many(DropCause::NoRoute, entries.len() as u64);
            return;
        };
        let mut congestion = state.congestion.take();
        if let Some(congestion) = &mut congestion {
            congestion.pace(
                now,
                &mut Load {
                    entries: &mut entries,
                    fillers: &mut self.fillers,
                    batch: &mut self.batch,
                    scratch: &mut self.paced,
                    keys: &state.downs,
                    downs: &mut self.downs,
                    feeds: &self.feeds,
                },
            );
        }
        let controlled = congestion.is_some();
        let send_time = AbsSendTime::from_duration(self.clock.since_start(now)).write();
        self.lens.clear();
        if entries.len() > 1 && route.proto == TransportProto::Udp {
            for entry in &entries {
                let twcc_seq = controlled.then_some(0);
                let outgoing = outgoing(&self.batch, &self.downs, entry, send_time, twcc_seq);
                let len = outgoing.and_then(|(_, outgoing)| outgoing.len()).unwrap_or_default();
                self.lens.push(len.try_into().unwrap_or_default());
            }
            equalize(&mut self.lens);
        }
        self.outbox.begin();
        for (index, entry) in entries.iter().enumerate() {
            let twcc_seq = controlled.then_some(state.twcc_seq);
            let outgoing = outgoing(&self.batch, &self.downs, entry, send_time, twcc_seq);
            let Some((down, outgoing)) = outgoing else { continue };
            self.outbox.make_room(outgoing.packet.body.len() + ROOM, route, out);
            let wanted = self.lens.get(index).copied().unwrap_or_default();
            let written =
                outgoing.write(&mut state.transport, usize::from(wanted), self.outbox.tail());
            match written {
                Some(written) => {
                    self.outbox.commit(written.sealed_len);
                    note_written(state, &mut self.stats, &written);
                    if let (Some(congestion), Pace::Released(probe)) = (&mut congestion, entry.pace)
                    {
                        congestion.on_sent(now, written.twcc_seq, written.len, probe);
                    }
                    self.stats.rtx_out += u64::from(entry.rtx_seq.is_some());
                    self.stats.forwarded += u64::from(entry.rtx_seq.is_none());
                    if let Some(down) = self.downs.get_mut(down) {
                        down.wire.note_sent(now, entry.form.seq, entry.rtx_seq, written.slot);
                    }
                }
                None => self.stats.drop_one(DropCause::Seal),
            }
        }
        if let Some(congestion) = &mut congestion {
            self.send_fillers(now, route, peer, congestion, out);
        }
        self.outbox.end(route);
        entries.clear();
        let Some(state) = self.peers.get_mut(peer) else { return };
        state.egress = entries;
        if let Some(at) = congestion.as_ref().and_then(|congestion| congestion.poll_timeout()) {
            self.timers.arm(&mut state.armed, peer, at.max(now + MIN_DELAY));
        }
        state.congestion = congestion;
    }

    /// Writes what a probe is filled up with.
    fn send_fillers(
        &mut self,
        now: Instant,
        route: Route,
        peer: PeerKey,
        congestion: &mut Congestion,
        out: &mut dyn Outbound,
    ) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        for Filler { down, seq, len, probe } in self.fillers.drain(..) {
            let Some(down) = self.downs.get_mut(down) else { continue };
            self.outbox.make_room(ROOM, route, out);
            let padding = Padding { wire: &down.wire, seq, len, twcc_seq: state.twcc_seq };
            match padding.write(&mut state.transport, self.outbox.tail()) {
                Some(written) => {
                    self.outbox.commit(written.sealed_len);
                    note_written(state, &mut self.stats, &written);
                    down.wire.note_sent(now, seq, Some(seq), written.slot);
                    self.stats.fillers_out += 1;
                    congestion.on_sent(now, written.twcc_seq, written.len, probe);
                }
                None => self.stats.drop_one(DropCause::Seal),
            }
        }
    }
}

/// Counts a packet that was written.
fn note_written(state: &mut PeerState, stats: &mut WorkerStats, written: &Written) {
    state.twcc_seq = state.twcc_seq.wrapping_add(u16::from(written.twcc_seq.is_some()));
    state.stats.packets_out += 1;
    state.stats.bytes_out += written.len as u64;
    stats.packets_out += 1;
    stats.packet_bytes_out += written.len as u64;
    stats.padding_bytes_out += written.padding as u64;
}

/// The packet of an egress entry; `None` if its subscription ended meanwhile.
fn outgoing<'a>(
    batch: &'a [MediaPacket],
    downs: &'a SlotMap<DownKey, Down>,
    entry: &'a Egress,
    send_time: [u8; 3],
    twcc_seq: Option<u16>,
) -> Option<(DownKey, Outgoing<'a>)> {
    let Egress { packet, down, form, rtx_seq, .. } = entry;
    let packet = batch.get(*packet as usize)?;
    let wire = &downs.get(*down)?.wire;
    Some((*down, Outgoing { wire, packet, form, rtx_seq: *rtx_seq, send_time, twcc_seq }))
}
