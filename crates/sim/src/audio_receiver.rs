//! A simulated listener: checks that frames arrive in a gap-free sequence, each once, with the
//! timestamps of their capture and the marker where speech begins.

use std::collections::BTreeMap;

use sluice_rtp::SeqUnwrapper;
use sluice_rtp::packet::RtpView;

use crate::stamp::Stamp;

/// Timestamp units of a frame.
const FRAME_TICKS: u32 = 960;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    /// Number among those that the microphone sent, and among all frames, sent or not.
    number: u16,
    frame: u32,
    timestamp: u32,
}

/// Receives one audio stream.
#[derive(Debug, Default)]
pub struct AudioReceiver {
    unwrapper: SeqUnwrapper,
    /// By extended sequence number.
    received: BTreeMap<u64, Packet>,
    violations: Vec<String>,
}

impl AudioReceiver {
    /// Takes an RTP packet of the stream.
    pub fn on_rtp(&mut self, packet: &[u8]) {
        let Ok(view) = RtpView::parse(packet) else {
            self.violations.push("not RTP".to_owned());
            return;
        };
        let Some(stamp) = view.payload().get(1..).and_then(Stamp::read) else {
            self.violations.push("payload damaged".to_owned());
            return;
        };
        let seq = self.unwrapper.unwrap(view.sequence_number());
        if view.marker() != (stamp.layer == 1) {
            self.violations.push(format!("number {seq}: the marker is {}", view.marker()));
        }
        let (number, frame, timestamp) = (stamp.index, stamp.frame, view.timestamp());
        let packet = Packet { number, frame, timestamp };
        if self.received.insert(seq, packet).is_some_and(|old| old != packet) {
            self.violations.push(format!("number {seq} carries two frames"));
        }
    }

    /// Frames received, duplicates apart.
    pub fn frames(&self) -> usize {
        self.received.len()
    }

    /// Numbers missing between the first and the last.
    pub fn missing(&self) -> u64 {
        let (Some(first), Some(last)) =
            (self.received.first_key_value(), self.received.last_key_value())
        else {
            return 0;
        };
        last.0 - first.0 + 1 - self.received.len() as u64
    }

    /// Everything that the forwarding did wrong.
    pub fn violations(&self) -> Vec<String> {
        let mut all = self.violations.clone();
        for ((seq, packet), (next_seq, next)) in
            self.received.iter().zip(self.received.iter().skip(1))
        {
            let step = next_seq - seq;
            if u64::from(next.number.wrapping_sub(packet.number)) != step {
                all.push(format!("{step} after number {seq}: {packet:?} then {next:?}"));
            }
            let ticks = next.frame.wrapping_sub(packet.frame).wrapping_mul(FRAME_TICKS);
            if next.timestamp.wrapping_sub(packet.timestamp) != ticks {
                all.push(format!("{step} after number {seq}: time of {packet:?}, then {next:?}"));
            }
        }
        all
    }
}
