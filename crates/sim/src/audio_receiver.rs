//! A simulated listener: checks that frames arrive in a gap-free sequence, each once, with the
//! timestamps of their capture.

use std::collections::BTreeMap;

use sluice_rtp::SeqUnwrapper;
use sluice_rtp::packet::RtpView;

use crate::stamp::Stamp;

/// Timestamp units of a frame.
const FRAME_TICKS: u32 = 960;

/// Receives one audio stream.
#[derive(Debug, Default)]
pub struct AudioReceiver {
    unwrapper: SeqUnwrapper,
    /// Frame number and timestamp by extended sequence number.
    received: BTreeMap<u64, (u32, u32)>,
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
        let entry = (stamp.frame, view.timestamp());
        if self.received.insert(seq, entry).is_some_and(|old| old != entry) {
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
        for ((seq, (frame, ts)), (next_seq, (next_frame, next_ts))) in
            self.received.iter().zip(self.received.iter().skip(1))
        {
            let step = (next_seq - seq) as u32;
            if next_frame.wrapping_sub(*frame) != step {
                all.push(format!("{step} after number {seq}: frame {frame} then {next_frame}"));
            }
            if next_ts.wrapping_sub(*ts) != step.wrapping_mul(FRAME_TICKS) {
                all.push(format!("{step} after number {seq}: timestamp {ts} then {next_ts}"));
            }
        }
        all
    }
}
