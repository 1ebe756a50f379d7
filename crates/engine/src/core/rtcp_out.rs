//! RTCP towards a peer: feedback for what it publishes, sender reports for what it gets. Packets are
//! gathered and leave as few compounds as fit a datagram, once per turn.

use std::time::{Duration, Instant};

use sluice_rtp::rtcp::{ReportBlock, write};

use crate::core::Core;
use crate::core::peer::PeerKey;
use crate::core::track::Publication;
use crate::io::Outbound;
use crate::paths::{PathStats, Report, TrackKind};
use crate::stats::DropCause;

/// First sender report after the first packet: lip-sync should not have to wait for the interval.
pub(super) const FIRST_SENDER_REPORT: Duration = Duration::from_millis(200);

/// Time between sender reports (LiveKit).
const SENDER_REPORT_INTERVAL: Duration = Duration::from_secs(3);

/// Time between receiver reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// SSRC under which we report on what a peer sends (libwebrtc's for a receiver that sends nothing).
pub(super) const REPORTER_SSRC: u32 = 1;

/// Longest compound, bytes: an IPv6 path of 1,280 less its headers and SRTCP's trailer.
const MAX_COMPOUND: usize = 1_180;

impl Core {
    /// Writes NACKs and key-frame requests that are due.
    pub(super) fn write_feedback(&mut self, now: Instant, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer).filter(|state| state.connected) else { return };
        let before = state.rtcp.len();
        for key in state.sections.iter().filter_map(|section| section.key) {
            let Some(publication) = self.tracks.get_mut(key) else { continue };
            publication.receiver.poll_nacks(now, |ssrc, seqs| {
                self.stats.nacks_out += seqs.len() as u64;
                write::nack(&mut state.rtcp, REPORTER_SSRC, ssrc, seqs.iter().copied());
            });
            publication.receiver.poll_key_frame_requests(now, |ssrc| {
                self.stats.plis_out += 1;
                write::pli(&mut state.rtcp, REPORTER_SSRC, ssrc);
            });
        }
        if state.rtcp.len() > before {
            self.mark_dirty(peer);
        }
    }

    /// Writes the reports whose time has come.
    pub(super) fn write_reports(&mut self, now: Instant, peer: PeerKey) {
        self.write_receiver_reports(now, peer);
        self.write_sender_reports(now, peer);
        let Some(state) = self.peers.get_mut(peer).filter(|state| state.connected) else { return };
        let before = state.rtcp.len();
        state.twcc.poll(now, &mut state.rtcp);
        if state.rtcp.len() > before {
            self.mark_dirty(peer);
        }
    }

    fn write_receiver_reports(&mut self, now: Instant, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        if state.next_report.is_none_or(|at| at > now) {
            return;
        }
        self.blocks.clear();
        for key in state.sections.iter().filter_map(|section| section.key) {
            if let Some(publication) = self.tracks.get_mut(key) {
                let before = self.blocks.len();
                publication.receiver.report_blocks(now, &mut self.blocks);
                count_reports(&self.paths, publication, &self.blocks[before..]);
            }
        }
        // Without news the interval ends; the next packet starts it again.
        state.next_report = (!self.blocks.is_empty()).then(|| now + REPORT_INTERVAL);
        if !self.blocks.is_empty() {
            write::receiver_report(&mut state.rtcp, REPORTER_SSRC, &self.blocks);
            self.mark_dirty(peer);
        }
    }

    fn write_sender_reports(&mut self, now: Instant, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        if state.next_sender_report.is_none_or(|at| at > now) {
            return;
        }
        let mut is_sending = false;
        let before = state.rtcp.len();
        for key in &state.downs {
            let Some(down) = self.downs.get_mut(*key) else { continue };
            // RFC 3550 §6.4: a report follows packets.
            if down.track.sent().0 == down.reported_packets {
                continue;
            }
            is_sending = true;
            if let Some(info) = down.track.sender_report(now) {
                down.reported_packets = down.track.sent().0;
                write::sender_report(&mut state.rtcp, &info, &[]);
                write::sdes_cname(&mut state.rtcp, info.ssrc, &down.wire.cname);
            }
        }
        state.next_sender_report = is_sending.then(|| now + SENDER_REPORT_INTERVAL);
        if state.rtcp.len() > before {
            self.mark_dirty(peer);
        }
    }

    /// Seals and sends what was gathered.
    pub(super) fn send_rtcp(
        &mut self,
        peer: PeerKey,
        datagram: &mut Vec<u8>,
        out: &mut dyn Outbound,
    ) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        if state.rtcp.is_empty() {
            return;
        }
        let route = state.transport.selected_route();
        for compound in compounds(&state.rtcp) {
            datagram.clear();
            datagram.extend_from_slice(compound);
            match route {
                Some(route) if state.transport.seal_rtcp(datagram).is_ok() => {
                    out.send(route, datagram);
                    self.stats.rtcp_out += 1;
                }
                Some(_) => self.stats.drop_one(DropCause::Seal),
                None => self.stats.drop_one(DropCause::NoRoute),
            }
        }
        state.rtcp.clear();
    }
}

/// Cuts gathered packets into compounds that fit a datagram, at packet boundaries.
fn compounds(mut packets: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let mut len = 0;
        while let Some(&[_, _, high, low]) = packets.get(len..).and_then(<[u8]>::first_chunk) {
            let packet = 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
            if len > 0 && len + packet > MAX_COMPOUND {
                break;
            }
            len += packet;
        }
        let (compound, rest) = packets.split_at_checked(len).filter(|(c, _)| !c.is_empty())?;
        packets = rest;
        Some(compound)
    })
}

/// Takes note of what a publisher is told about the streams of a track.
fn count_reports(paths: &PathStats, publication: &mut Publication, blocks: &[ReportBlock]) {
    let config = publication.receiver.config();
    let clock_rate = config.payload_types.first().map_or(1, |pt| pt.clock_rate.max(1));
    let stats = paths.incoming(TrackKind::of(config.kind, publication.published.screen_share));
    let mut lost: i32 = 0;
    for block in blocks {
        lost = lost.saturating_add(block.cumulative_lost);
        let jitter = u64::from(block.jitter) * 1_000_000_000 / u64::from(clock_rate);
        stats.on_report(Report {
            fraction_lost: block.fraction_lost,
            lost: 0,
            jitter: Duration::from_nanos(jitter),
            rtt: None,
        });
    }
    if !blocks.is_empty() {
        stats.on_lost(lost.saturating_sub(std::mem::replace(&mut publication.lost_told, lost)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_packets_are_cut_at_their_boundaries() {
        let mut packets = Vec::new();
        for ssrc in 0..100 {
            write::pli(&mut packets, 1, ssrc);
        }
        write::nack(&mut packets, 1, 2, (0..20_000).step_by(20));
        let pieces: Vec<_> = compounds(&packets).collect();
        assert_eq!(pieces.concat(), packets);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_COMPOUND));
        assert_eq!(compounds(&[]).count(), 0);
    }
}
