//! What a receiver misses: answers to its NACKs, and packets that can be sent once more to fill a probe.

use std::time::{Duration, Instant};

use super::{DownTrack, Flow, Forwarded};
use crate::history::TrackHistory;
use crate::packet::MediaPacket;
use crate::sent_log::Refusal;

/// Packets that a layer lost which was too large for the path are asked for until so long after it was
/// left: the queue it filled, a round trip, feedback.
const REPAIR_TIME: Duration = Duration::from_secs(1);

/// A packet younger than this may still wait in the pacer: a copy of it that arrives before it makes
/// the receiver ask for everything in between.
pub(super) const PADDING_AGE: Duration = crate::pacer::MAX_WAIT;

/// Packets sent last among which one is looked for to pad with.
const PADDING_CANDIDATES: usize = 16;

/// A packet to send because the receiver misses it.
#[derive(Debug, Clone, Copy)]
pub struct Resend<'a> {
    /// Source of the payload.
    pub packet: &'a MediaPacket,
    /// Its rewritten parts; `seq` is the one on the media stream.
    pub forwarded: Forwarded,
    /// Sequence number on the RTX stream (RFC 4588). `None`: the packet was never sent before and
    /// goes out on the media stream.
    pub rtx_seq: Option<u16>,
}

/// What became of a receiver's NACKs, packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NackCounters {
    /// Packets asked for.
    pub requested: u64,
    /// Sent again on the RTX stream.
    pub resent: u64,
    /// Sent for the first time, into a place that was left open.
    pub filled: u64,
    /// Ignored: asked for again too early, while a key frame is on its way, or of a layer that was
    /// left for want of bandwidth.
    pub suppressed: u64,
    /// Ignored: sent as often as allowed already.
    pub exhausted: u64,
    /// Not known, too old, or lost before us.
    pub unavailable: u64,
    /// Ignored: beyond what the path takes of retransmissions.
    pub over_budget: u64,
    /// No RTX stream was negotiated. The same packet is never sealed twice under one index.
    pub without_rtx: u64,
}

impl DownTrack {
    /// Answers a NACK: calls `send` for each packet to send (again). `admit` is asked before a packet
    /// of so many bytes of payload is sent again: whether that fits what the path takes.
    pub fn on_nack<'h>(
        &mut self,
        now: Instant,
        seqs: impl IntoIterator<Item = u16>,
        history: &'h TrackHistory,
        mut admit: impl FnMut(usize) -> bool,
        mut send: impl FnMut(Resend<'h>),
    ) {
        let silent = self.flow().silent_until.is_some_and(|until| now < until);
        for seq in seqs {
            let nacks = &mut self.flow().nacks;
            nacks.requested += 1;
            if silent {
                nacks.suppressed += 1;
            } else if let Some(resend) = self.resend(now, seq, history, &mut admit) {
                send(resend);
            }
        }
    }

    /// Something for the RTX stream that the receiver can do without, to fill a probe: the newest
    /// packet that it has for certain and that has at least `min_len` bytes of payload, once more.
    /// `None` if there is no such packet; then [`padding_seq`](Self::padding_seq) numbers a packet of
    /// padding only.
    pub fn padding<'h>(
        &mut self,
        now: Instant,
        history: &'h TrackHistory,
        min_len: usize,
    ) -> Option<Resend<'h>> {
        self.config.rtx?;
        let recent = self.flow.as_mut()?.sent.newest(now, PADDING_AGE).take(PADDING_CANDIDATES);
        let (packet, sent) = recent
            .filter_map(|sent| Some((history.get(sent.stream, sent.ext_seq)?, sent)))
            .find(|(packet, _)| usize::from(packet.payload.len) >= min_len)?;
        Some(Resend { packet, forwarded: sent.into(), rtx_seq: Some(self.take_rtx_seq()) })
    }

    /// The number of a packet of the RTX stream that holds padding only; `None` without RTX.
    pub fn padding_seq(&mut self) -> Option<u16> {
        self.config.rtx?;
        Some(self.take_rtx_seq())
    }

    fn resend<'h>(
        &mut self,
        now: Instant,
        seq: u16,
        history: &'h TrackHistory,
        admit: &mut impl FnMut(usize) -> bool,
    ) -> Option<Resend<'h>> {
        let (with_rtx, rtt) = (self.config.rtx.is_some(), self.feedback.rtt);
        let flow = self.flow();
        if let Some(source) = flow.seq.source_of_hole(seq) {
            return self.fill_hole(now, source, history);
        }
        if !with_rtx {
            flow.nacks.without_rtx += 1;
            return None;
        }
        let target = flow.seq.unwrap_target(seq);
        if target < flow.worthless_below || flow.needs_key_frame {
            flow.nacks.suppressed += 1;
            return None;
        }
        let sent = match flow.sent.check(now, target, rtt) {
            Ok(sent) => sent,
            Err(refusal) => {
                *match refusal {
                    Refusal::Unknown => &mut flow.nacks.unavailable,
                    Refusal::Repeated => &mut flow.nacks.suppressed,
                    Refusal::Exhausted => &mut flow.nacks.exhausted,
                } += 1;
                return None;
            }
        };
        let Some(packet) = history.get(sent.stream, sent.ext_seq) else {
            flow.nacks.unavailable += 1;
            return None;
        };
        if !admit(usize::from(packet.payload.len)) {
            flow.nacks.over_budget += 1;
            flow.give_up_repair(now);
            return None;
        }
        flow.sent.note_resent(now, target);
        flow.nacks.resent += 1;
        Some(Resend { packet, forwarded: sent.into(), rtx_seq: Some(self.take_rtx_seq()) })
    }

    fn take_rtx_seq(&mut self) -> u16 {
        let seq = self.rtx_seq;
        self.rtx_seq = seq.wrapping_add(1);
        seq
    }

    /// The receiver misses a packet that came to us before its stream was started for it.
    fn fill_hole<'h>(
        &mut self,
        now: Instant,
        source: u64,
        history: &'h TrackHistory,
    ) -> Option<Resend<'h>> {
        let (layer, _) = self.selector.current()?;
        let packet = history.get(layer, source);
        let forwarded = packet.and_then(|p| self.try_forward(now, p).ok().map(|f| (p, f)));
        let Some((packet, forwarded)) = forwarded else {
            self.flow().nacks.unavailable += 1;
            return None;
        };
        self.flow().nacks.filled += 1;
        Some(Resend { packet, forwarded, rtx_seq: None })
    }
}

impl Flow {
    /// What the receiver misses does not fit what its path takes. If a higher layer did that before it
    /// was left, a key frame is sooner there than all of it.
    fn give_up_repair(&mut self, now: Instant) {
        if self.lowered.take().is_some_and(|at| now < at + REPAIR_TIME) {
            self.needs_key_frame = true;
        }
    }
}
