//! RTCP from a peer: what it says as a publisher, and what it asks for as a receiver.

use std::time::Instant;

use sluice_rtp::rtcp::{ReportBlock, Rtcp, RtcpIter, SenderInfo};

use crate::core::Core;
use crate::core::peer::{DownKey, Egress, Pace, PeerKey};
use crate::core::track::Attachment;
use crate::link::LinkMessage;
use crate::paths::{Report, TrackKind};
use crate::stats::DropCause;

impl Core {
    /// Takes a decrypted RTCP compound.
    pub(super) fn receive_rtcp(&mut self, now: Instant, peer: PeerKey, compound: &[u8]) {
        self.stats.rtcp_in += 1;
        for packet in RtcpIter::new(compound) {
            match packet {
                Ok(Rtcp::SenderReport(report)) => {
                    self.on_sender_report(now, peer, &report.info);
                    report.blocks.iter().for_each(|block| self.on_report_block(now, peer, &block));
                }
                Ok(Rtcp::ReceiverReport(report)) => {
                    report.blocks.iter().for_each(|block| self.on_report_block(now, peer, &block));
                }
                Ok(Rtcp::Nack(nack)) => self.on_nack(now, peer, nack.media_ssrc, nack.seqs()),
                Ok(Rtcp::Pli(pli)) => {
                    self.stats.plis_in += 1;
                    self.on_key_frame_request(now, peer, pli.media_ssrc);
                }
                Ok(Rtcp::Fir(fir)) => {
                    for (ssrc, _) in fir.entries() {
                        self.stats.firs_in += 1;
                        self.on_key_frame_request(now, peer, ssrc);
                    }
                }
                Ok(Rtcp::TransportCc(feedback)) => {
                    self.on_transport_feedback(now, peer, &feedback);
                }
                Ok(Rtcp::Remb(remb)) => self.on_remb(now, peer, remb.bitrate_bps),
                // The rest says nothing that a forwarder acts on.
                Ok(Rtcp::Sdes(_) | Rtcp::Bye(_) | Rtcp::ExtendedReport(_) | Rtcp::Other { .. }) => {
                }
                Err(_) => self.stats.drop_one(DropCause::MalformedRtcp),
            }
        }
    }

    /// The publisher's clock: every receiver of the track needs it.
    fn on_sender_report(&mut self, now: Instant, peer: PeerKey, info: &SenderInfo) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let section = state.binder.lookup(info.ssrc).map(|binding| usize::from(binding.section));
        let key = section.and_then(|index| state.sections.get(index)?.key);
        let Some(publication) = key.and_then(|key| self.tracks.get_mut(key)) else { return };
        let Some(report) = publication.receiver.on_sender_report(now, info) else { return };
        for Attachment { worker, feed, .. } in publication.attached.clone() {
            self.tell_worker(now, worker, LinkMessage::SenderReport { feed, report });
        }
    }

    fn on_report_block(&mut self, now: Instant, peer: PeerKey, block: &ReportBlock) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let Some(key) = state.down_by_ssrc.get(&block.ssrc).copied() else { return };
        let Some(down) = self.downs.get_mut(key) else { return };
        if down.wire.ssrc != block.ssrc {
            return;
        }
        let lost_before = down.track.feedback().cumulative_lost;
        down.track.on_receiver_report(now, block);
        let feedback = down.track.feedback();
        let kind = TrackKind::of(down.track.config().kind, down.screen_share);
        self.paths.outgoing(kind).on_report(Report {
            fraction_lost: block.fraction_lost,
            lost: block.cumulative_lost.saturating_sub(lost_before),
            jitter: feedback.jitter,
            rtt: feedback.rtt,
        });
        down.wire.on_report(now, block, down.track.feedback().jitter);
        // With one peer connection for both directions, what it sends travels as far.
        if let Some(rtt) = down.track.feedback().rtt {
            for key in state.sections.iter().filter_map(|section| section.key) {
                if let Some(publication) = self.tracks.get_mut(key) {
                    publication.receiver.set_rtt(rtt);
                }
            }
        }
        self.on_path_report(now, peer, key, block);
    }

    /// The receiver misses packets: what the history still has goes out with the next flush.
    fn on_nack(
        &mut self,
        now: Instant,
        peer: PeerKey,
        ssrc: u32,
        seqs: impl Iterator<Item = u16> + Clone,
    ) {
        self.stats.nacks_in += seqs.clone().count() as u64;
        let Some(state) = self.peers.get_mut(peer) else { return };
        let Some(key) = state.down_by_ssrc.get(&ssrc).copied() else { return };
        let Some(down) = self.downs.get_mut(key).filter(|d| d.wire.ssrc == ssrc) else { return };
        let Some(feed) = self.feeds.get(down.feed) else { return };
        let (batch, egress) = (&mut self.batch, &mut state.egress);
        let before = egress.len();
        let congestion = &mut state.congestion;
        let admit = |len| congestion.as_mut().is_none_or(|c| c.may_retransmit(now, len));
        down.track.on_nack(now, seqs, &feed.history, admit, |resend| {
            let packet = batch.len() as u32;
            batch.push(resend.packet.clone());
            let (form, rtx_seq) = (resend.forwarded, resend.rtx_seq);
            let pace = Pace::Urgent;
            egress.push(Egress { packet, down: key, form, rtx_seq, pace });
        });
        if egress.len() > before {
            self.mark_egress(now, peer);
        }
        self.ask_key_frame(now, key);
    }

    fn on_key_frame_request(&mut self, now: Instant, peer: PeerKey, ssrc: u32) {
        let Some(key) = self.down_of_ssrc(peer, ssrc) else { return };
        let Some(down) = self.downs.get_mut(key) else { return };
        let feed = down.feed;
        if let Some(layer) = down.track.on_key_frame_request(now) {
            self.send_key_frame_request(now, feed, layer);
        }
    }

    fn down_of_ssrc(&self, peer: PeerKey, ssrc: u32) -> Option<DownKey> {
        self.peers.get(peer)?.down_by_ssrc.get(&ssrc).copied()
    }
}
