//! A simulated camera: VP9 with spatial layers in one stream that build on each other in key pictures
//! only (L3T1_KEY), packetised as libwebrtc does, answering NACK with RTX and PLI with a key picture.
//!
//! A receiver of several layers needs all of them of each picture; the stamps take a picture for one
//! frame.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluice_rtp::rtcp::{Rtcp, RtcpIter, write};

use crate::clock::Clock;
use crate::outgoing::{Content, OutgoingStream, StreamIds};
use crate::stamp::{Refs, STAMP_LEN, Stamp};

const CLOCK_RATE: u64 = 90_000;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Largest payload, bytes.
const MAX_PAYLOAD: usize = 1_160;
/// Key pictures are this much larger than others.
const KEY_FRAME_FACTOR: usize = 4;
/// Flags of the payload descriptor (RFC 9628 §4.2).
const I: u8 = 0x80;
const P: u8 = 0x40;
const L: u8 = 0x20;
const B: u8 = 0x08;
const E: u8 = 0x04;

/// Properties of a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vp9Config {
    /// Identity of the stream.
    pub ids: StreamIds,
    /// Bits per second of each spatial layer alone, lowest first.
    pub bitrates_bps: Vec<u64>,
    /// `a=mid`, and the id of its extension.
    pub mid: (u8, String),
    /// Frames per second.
    pub fps: u32,
    /// Seed of the frame sizes.
    pub seed: u64,
}

/// A camera.
#[derive(Debug)]
pub struct Vp9Publisher {
    config: Vp9Config,
    stream: OutgoingStream,
    start: Instant,
    pictures: u32,
    key_pending: bool,
    next_report: Instant,
    replies: Vec<Vec<u8>>,
    rng: StdRng,
}

impl Vp9Publisher {
    /// Starts to send now, with a key picture.
    pub fn new(config: Vp9Config, now: Instant) -> Self {
        Self {
            stream: OutgoingStream::new(config.ids, 65_300),
            start: now,
            pictures: 0,
            key_pending: true,
            next_report: now + Duration::from_millis(300),
            replies: Vec::new(),
            rng: StdRng::seed_from_u64(config.seed),
            config,
        }
    }

    fn next_picture(&self) -> Instant {
        self.start + Duration::from_secs(1) * self.pictures / self.config.fps.max(1)
    }

    fn timestamp_at(&self, at: Instant) -> u32 {
        ((at - self.start).as_micros() as u64 * CLOCK_RATE / 1_000_000) as u32
    }

    fn encode(&mut self, out: &mut Vec<Vec<u8>>) {
        let timestamp = self.timestamp_at(self.next_picture());
        let picture = self.pictures;
        self.pictures += 1;
        let key = std::mem::take(&mut self.key_pending);
        let refs = if key { Refs::default() } else { Refs::new(&[picture.wrapping_sub(1)]) };
        let layers = self.config.bitrates_bps.len();
        let mut index = 0;
        for (layer, bps) in self.config.bitrates_bps.clone().into_iter().enumerate() {
            let mean = bps as usize / 8 / self.config.fps.max(1) as usize;
            let factor = if key { KEY_FRAME_FACTOR } else { 1 };
            let bytes = mean * factor * self.rng.random_range(70..=130) / 100;
            let count = bytes.div_ceil(MAX_PAYLOAD).max(1);
            for i in 0..count {
                let (first, last) = (i == 0, i + 1 == count);
                let flags = I | L | flag(!key, P) | flag(first, B) | flag(last, E);
                let wide = (0x8000 | picture as u16 & 0x7FFF).to_be_bytes();
                let inter_layer = u8::from(key && layer > 0);
                let mut payload =
                    vec![flags, wide[0], wide[1], (layer as u8) << 1 | inter_layer, 0];
                let stamp = Stamp { layer: 0, temporal: 0, frame: picture, index, count: 0, refs };
                index += 1;
                payload.push(0);
                payload.extend_from_slice(&stamp.write());
                let size = bytes / count + usize::from(i >= count - bytes % count);
                payload.resize(payload.len().max(size.max(STAMP_LEN)), 0xAB);
                let marker = last && layer + 1 == layers;
                let mid = [(self.config.mid.0, self.config.mid.1.as_bytes())];
                let content = Content { timestamp, marker, extensions: &mid, payload: &payload };
                out.push(self.stream.packet(&content));
            }
        }
    }
}

impl crate::Camera for Vp9Publisher {
    fn on_rtcp(&mut self, compound: &[u8]) {
        for packet in RtcpIter::new(compound).flatten() {
            match packet {
                Rtcp::Nack(nack) => {
                    let mid = [(self.config.mid.0, self.config.mid.1.as_bytes())];
                    let stream = &mut self.stream;
                    let again = nack.seqs().filter_map(|seq| stream.retransmit(seq, &mid));
                    self.replies.extend(again);
                }
                Rtcp::Pli(_) | Rtcp::Fir(_) => self.key_pending = true,
                _ => {}
            }
        }
    }

    fn poll(&mut self, clock: &Clock, out: &mut Vec<Vec<u8>>) {
        out.append(&mut self.replies);
        while self.next_picture() <= clock.now() {
            self.encode(out);
        }
        if self.next_report <= clock.now() {
            self.next_report += REPORT_INTERVAL;
            let timestamp = self.timestamp_at(clock.now());
            let info = self.stream.sender_info(clock.ntp(clock.now()), timestamp);
            let mut compound = Vec::new();
            write::sender_report(&mut compound, &info, &[]);
            write::sdes_cname(&mut compound, info.ssrc, "sim");
            out.push(compound);
        }
    }

    fn poll_timeout(&self) -> Instant {
        match self.replies.is_empty() {
            true => self.next_picture().min(self.next_report),
            false => self.start,
        }
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// A camera with three layers that cost together what those of
/// [`vp8::usual_camera`](crate::vp8::usual_camera) cost each.
pub fn usual_camera(base: u32, seed: u64) -> Vp9Config {
    Vp9Config {
        ids: StreamIds { ssrc: base, pt: 98, rtx: Some((base + 10, 99)) },
        bitrates_bps: vec![150_000, 350_000, 1_200_000],
        mid: (4, "1".to_owned()),
        fps: 30,
        seed,
    }
}
