//! The clients of a [`Rig`](super::Rig): what they send, as real clients would. Functions that only
//! do a client's work stand alone, so that a profile can leave them out.

use std::net::SocketAddr;
use std::time::Instant;

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};
use sluice_rtp::packet::RtpHeaderWriter;
use sluice_rtp::rtcp::{ReportBlock, write};
use sluice_sfu::TwccReceiver;
use sluice_transport::stun::{BindingRequest, IceRole, IntegrityKey};
use sluice_transport::{IceCredentials, Peer, Route, StreamSlot, TransportProto};

use crate::api::{PayloadType, PeerId, TrackId};
use crate::rig::{SERVER, WORKER};

const TWCC_ID: u8 = 3;
/// Report blocks of one report at most (RFC 3550 §6.4).
const MAX_BLOCKS: usize = 31;
/// UDP port of the first client.
const FIRST_PORT: u16 = 10_000;

/// A client; its peer is the other end of one of the worker's.
pub(super) struct Client {
    pub(super) peer: Peer,
    pub(super) id: PeerId,
    /// As the server sees it.
    pub(super) route: Route,
    pub(super) check: Vec<u8>,
    /// Transport-wide number of the next packet that arrives.
    next_arrival: u16,
    arrivals: TwccReceiver,
    slot: StreamSlot,
}

impl Client {
    /// `check` is the connectivity check that it repeats.
    pub(super) fn new(peer: Peer, id: PeerId, route: Route, check: Vec<u8>) -> Self {
        let (arrivals, slot) = (TwccReceiver::new(1), StreamSlot::default());
        Self { peer, id, route, check, next_arrival: 0, arrivals, slot }
    }

    /// Seals a packet of media into `packet`.
    #[inline(never)]
    pub(super) fn write_media(&mut self, kind: MediaKind, number: u32, packet: &mut Vec<u8>) {
        let (pt, step, len) = match kind {
            MediaKind::Audio => (111, 960, 80 + (number % 8) as usize),
            MediaKind::Video => (96, 3_000, 1_150 + usize::from(number % 5 == 4)),
        };
        let header = RtpHeaderWriter {
            marker: number.is_multiple_of(5),
            payload_type: pt,
            sequence_number: number as u16,
            timestamp: number.wrapping_mul(step),
            ssrc: 1,
            padding: false,
        };
        packet.clear();
        packet.resize(len + 64, 0x5a);
        let twcc = (number as u16).to_be_bytes();
        let level = [0x80 | 30];
        let header_len = header.write(&[(TWCC_ID, &twcc), (1, &level)], packet).expect("room");
        if kind == MediaKind::Video {
            // Start of a partition, picture id, then the frame header: even in key frames.
            let picture = (0x8000 | number as u16 & 0x7fff).to_be_bytes();
            let start = [0x90, 0x80, picture[0], picture[1], u8::from(number > 0)];
            packet[header_len..header_len + start.len()].copy_from_slice(&start);
        }
        let sealed = self.peer.seal_rtp(&mut self.slot, packet, header_len, header_len + len);
        packet.truncate(sealed.expect("a connected client seals"));
    }

    /// Writes a report on `tracks` tracks. False if there is none.
    #[inline(never)]
    pub(super) fn write_report(
        &mut self,
        tracks: usize,
        blocks: &mut Vec<ReportBlock>,
        packet: &mut Vec<u8>,
    ) -> bool {
        packet.clear();
        let all = 0..tracks.min(MAX_BLOCKS);
        blocks.clear();
        blocks.extend(
            all.map(|track| ReportBlock { ssrc: ssrc_of(track), ..ReportBlock::default() }),
        );
        write::receiver_report(packet, 1, blocks);
        self.peer.seal_rtcp(packet).is_ok()
    }

    /// Notes packets that arrive now and writes the feedback about them that is due. False if none
    /// is.
    #[inline(never)]
    pub(super) fn write_arrivals(
        &mut self,
        now: Instant,
        arrived: usize,
        packet: &mut Vec<u8>,
    ) -> bool {
        for _ in 0..arrived {
            self.arrivals.on_packet(now, 1, self.next_arrival);
            self.next_arrival = self.next_arrival.wrapping_add(1);
        }
        packet.clear();
        self.arrivals.poll(now, packet);
        !packet.is_empty() && self.peer.seal_rtcp(packet).is_ok()
    }
}

/// Address of a client.
pub(super) fn route_of(serial: usize) -> Route {
    let remote = SocketAddr::from(([10, 0, 0, 1], FIRST_PORT + serial as u16));
    Route { proto: TransportProto::Udp, remote, conn: 0 }
}

/// The client with an address.
pub(super) fn serial_of(route: Route) -> usize {
    usize::from(route.remote.port().wrapping_sub(FIRST_PORT))
}

pub(super) fn from_server() -> Route {
    Route { proto: TransportProto::Udp, remote: SERVER, conn: 0 }
}

pub(super) fn track_id(serial: usize) -> TrackId {
    TrackId::new(WORKER, serial as u64 + 1)
}

/// SSRC under which every receiver gets a track.
pub(super) fn ssrc_of(track: usize) -> u32 {
    1_000 + 2 * track as u32
}

pub(super) fn credentials(side: char, serial: usize) -> IceCredentials {
    let pwd = format!("{side}{serial:023}");
    IceCredentials { ufrag: format!("{side}{serial:07}"), pwd }
}

/// A check that nominates, from `from` to the agent with the credentials `to`.
pub(super) fn check(to: &IceCredentials, from: &IceCredentials) -> Vec<u8> {
    let mut datagram = Vec::new();
    let username = format!("{}:{}", to.ufrag, from.ufrag);
    BindingRequest {
        transaction_id: [7; 12],
        username: &username,
        role: IceRole::Controlling(1),
        priority: 1,
        use_candidate: true,
    }
    .write(&IntegrityKey::new(&to.pwd), &mut datagram);
    datagram
}

pub(super) fn payload_type(kind: MediaKind) -> PayloadType {
    let (pt, codec, clock_rate, rtx_pt) = match kind {
        MediaKind::Audio => (111, Codec::Opus, 48_000, None),
        MediaKind::Video => (96, Codec::Vp8, 90_000, Some(97)),
    };
    PayloadType { pt, codec, clock_rate, rtx_pt, fmtp: String::new() }
}

pub(super) fn extensions() -> ExtensionMap {
    [
        (ExtensionKind::AudioLevel, 1),
        (ExtensionKind::AbsSendTime, 2),
        (ExtensionKind::TransportCc, TWCC_ID),
        (ExtensionKind::Mid, 4),
    ]
    .into_iter()
    .collect()
}
