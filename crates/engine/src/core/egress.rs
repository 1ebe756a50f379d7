//! What a turn sends: for each receiver its events, transport datagrams and RTCP, then its media,
//! written and sealed into the send arena and flushed in runs of equal size.

use std::time::Instant;

use sluice_rtp::dd;
use sluice_rtp::ext::{AbsSendTime, ExtensionKind, write_transport_cc};
use sluice_rtp::packet::RtpHeaderWriter;
use sluice_rtp::rtx::{OSN_LEN, write_osn};
use sluice_sfu::MediaPacket;
use sluice_transport::Peer;
use sluice_transport::peer::SRTP_OVERHEAD;

use crate::core::Core;
use crate::core::peer::{Egress, PeerKey};
use crate::core::track::Wire;
use crate::io::Outbound;
use crate::stats::DropCause;

/// Longest header that we write, bytes: fixed part, extension block with every element that we
/// send, a dependency descriptor of 255 bytes included.
const MAX_HEADER_LEN: usize = 384;

/// Header extensions of one packet at most.
const MAX_EXTENSIONS: usize = 6;

impl Core {
    /// Sends everything that is due.
    pub(crate) fn flush(&mut self, now: Instant, out: &mut dyn Outbound) {
        let mut index = 0;
        while let Some(peer) = self.dirty.get(index).copied() {
            index += 1;
            self.guarded(now, peer, |core| core.drain(now, peer, out));
        }
        self.dirty.clear();
        if self.egress_since.is_some_and(|since| now >= since + self.egress_hold) {
            let mut receivers = std::mem::take(&mut self.egress_dirty);
            for peer in receivers.drain(..) {
                self.guarded(now, peer, |core| core.send_media(now, peer, out));
            }
            self.egress_dirty = receivers;
            self.batch.clear();
            self.egress_since = None;
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
        let send_time = AbsSendTime::from_duration(self.clock.since_start(now)).write();
        self.arena.clear();
        for Egress { packet, down, form, rtx_seq } in &entries {
            let Some(packet) = self.batch.get(*packet as usize) else { continue };
            let Some(down) = self.downs.get_mut(*down) else { continue };
            if self.arena.free() < packet.body.len() + MAX_HEADER_LEN + SRTP_OVERHEAD {
                out.send_all(route, &self.arena);
                self.arena.clear();
            }
            let outgoing = Outgoing {
                wire: &down.wire,
                packet,
                seq: rtx_seq.unwrap_or(form.seq),
                osn: rtx_seq.map(|_| form.seq),
                form,
                send_time,
                twcc_seq: state.twcc_seq,
            };
            match outgoing.write(&mut state.transport, self.arena.tail()) {
                Some(written) => {
                    down.wire.note_sent(form.seq, *rtx_seq);
                    self.arena.commit(written.sealed_len);
                    state.twcc_seq = state.twcc_seq.wrapping_add(u16::from(written.has_twcc));
                    state.stats.packets_out += 1;
                    state.stats.bytes_out += written.len as u64;
                    self.stats.packets_out += 1;
                    self.stats.packet_bytes_out += written.len as u64;
                    self.stats.rtx_out += u64::from(rtx_seq.is_some());
                    self.stats.forwarded += u64::from(rtx_seq.is_none());
                }
                None => self.stats.drop_one(DropCause::Seal),
            }
        }
        out.send_all(route, &self.arena);
        entries.clear();
        state.egress = entries;
    }
}

/// One packet towards one receiver.
struct Outgoing<'a> {
    wire: &'a Wire,
    packet: &'a MediaPacket,
    form: &'a sluice_sfu::Forwarded,
    seq: u16,
    /// Original sequence number of a retransmission (RFC 4588).
    osn: Option<u16>,
    send_time: [u8; 3],
    twcc_seq: u16,
}

struct Written {
    /// Before encryption.
    len: usize,
    sealed_len: usize,
    has_twcc: bool,
}

impl Outgoing<'_> {
    /// Writes header and payload to the start of `tail` and encrypts them there. `None` if that
    /// cannot be done: no keys, a sequence number used before, no room.
    fn write(&self, transport: &mut Peer, tail: &mut [u8]) -> Option<Written> {
        let (ssrc, payload_type) = match self.osn {
            None => (self.wire.ssrc, self.wire.pt),
            Some(_) => self.wire.rtx?,
        };
        let header = RtpHeaderWriter {
            marker: self.form.marker,
            payload_type,
            sequence_number: self.seq,
            timestamp: self.form.timestamp,
            ssrc,
            padding: false,
        };
        let twcc = write_transport_cc(self.twcc_seq);
        let mut extensions: [(u8, &[u8]); MAX_EXTENSIONS] = [(0, &[]); MAX_EXTENSIONS];
        let mut rewritten = [0; dd::MAX_LEN];
        let mask = self.form.active_targets;
        let len = mask.and_then(|mask| self.packet.rewrite_descriptor(mask, &mut rewritten));
        let descriptor = match len {
            Some(len) => rewritten.get(..len),
            None => self.packet.dependency_descriptor.map(|range| self.packet.slice(range)),
        };
        let count = self.extensions(&twcc, descriptor, &mut extensions);
        let header_len = header.write(&extensions[..count], tail).ok()?;
        let mut len = header_len;
        if let Some(osn) = self.osn {
            write_osn(tail.get_mut(len..)?, osn)?;
            len += OSN_LEN;
        }
        let replacement = self.form.rewrite.bytes();
        let rest = self.packet.payload().get(self.form.rewrite.replaces()..)?;
        for part in [replacement, rest] {
            tail.get_mut(len..len + part.len())?.copy_from_slice(part);
            len += part.len();
        }
        let sealed_len = transport.seal_rtp(tail, header_len, len).ok()?;
        let has_twcc = self.wire.twcc_id.is_some();
        Some(Written { len, sealed_len, has_twcc })
    }

    fn extensions<'e>(
        &'e self,
        twcc: &'e [u8; 2],
        descriptor: Option<&'e [u8]>,
        out: &mut [(u8, &'e [u8]); MAX_EXTENSIONS],
    ) -> usize {
        let map = &self.wire.extensions;
        let forwarded = |kind, range: Option<sluice_sfu::ByteRange>| {
            Some((map.id(kind)?, self.packet.slice(range?)))
        };
        let mid = self.wire.send_mid.then(|| map.id(ExtensionKind::Mid)).flatten();
        let elements = [
            mid.map(|id| (id, self.wire.mid.as_bytes())),
            self.wire.twcc_id.map(|id| (id, &twcc[..])),
            map.id(ExtensionKind::AbsSendTime).map(|id| (id, &self.send_time[..])),
            forwarded(ExtensionKind::AbsCaptureTime, self.packet.abs_capture_time),
            descriptor.and_then(|data| Some((map.id(ExtensionKind::DependencyDescriptor)?, data))),
        ];
        let mut count = 0;
        for element in elements.into_iter().flatten() {
            out[count] = element;
            count += 1;
        }
        count
    }
}
