//! A simulated camera: VP8 simulcast with temporal layers, packetised as libwebrtc does, answering
//! NACK with RTX and PLI with a key frame of the layer.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluice_rtp::rtcp::{Rtcp, RtcpIter, write};

use crate::Camera;
use crate::clock::Clock;
use crate::outgoing::{Content, OutgoingStream, StreamIds};
use crate::stamp::{Refs, STAMP_LEN, Stamp};

/// RTP clock, Hz.
const CLOCK_RATE: u64 = 90_000;

/// Time between sender reports (libwebrtc's for video).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Largest media payload, bytes: libwebrtc's 1,200 less descriptor and extensions.
const MAX_PAYLOAD: usize = 1_160;

/// Key frames are this much larger than others.
const KEY_FRAME_FACTOR: usize = 5;

/// Packets of a stream that name it in header extensions; libwebrtc stops once a report block came.
const NAMED_PACKETS: u32 = 100;

/// Temporal layer and layer-sync flag of the frames of a pattern, for one, two and three layers, as
/// libwebrtc's default temporal layers.
const PATTERNS: [&[(u8, bool)]; 3] =
    [&[(0, false)], &[(0, false), (1, true)], &[(0, false), (2, true), (1, true), (2, false)]];

/// One simulcast layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vp8LayerConfig {
    /// Identity of the stream.
    pub ids: StreamIds,
    /// `a=rid`; empty: not sent.
    pub rid: String,
    /// Bits per second.
    pub bitrate_bps: u64,
    /// First sequence number.
    pub first_seq: u16,
    /// First timestamp.
    pub first_timestamp: u32,
    /// First picture id.
    pub first_picture_id: u16,
}

/// Ids of the header extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp8Extensions {
    /// `mid`.
    pub mid: u8,
    /// `rtp-stream-id`.
    pub rid: u8,
    /// `repaired-rtp-stream-id`.
    pub repaired_rid: u8,
}

/// Properties of a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vp8Config {
    /// Layers, lowest first.
    pub layers: Vec<Vp8LayerConfig>,
    /// `a=mid`.
    pub mid: String,
    /// Ids of the header extensions.
    pub extensions: Vp8Extensions,
    /// Temporal layers of every layer, 1..=3.
    pub temporal_layers: u8,
    /// Frames per second.
    pub fps: u32,
    /// Seed of the frame sizes.
    pub seed: u64,
}

#[derive(Debug)]
struct Layer {
    config: Vp8LayerConfig,
    stream: OutgoingStream,
    active: bool,
    key_pending: bool,
    key_frames: u32,
    /// Frames encoded.
    frames: u32,
    /// Frames since the key frame, for the pattern.
    since_key: u32,
    tl0: u8,
    /// Newest frame of each temporal layer.
    newest: [u32; 3],
}

/// A camera.
#[derive(Debug)]
pub struct Vp8Publisher {
    config: Vp8Config,
    layers: Vec<Layer>,
    start: Instant,
    ticks: u32,
    next_report: Instant,
    replies: Vec<Vec<u8>>,
    rng: StdRng,
}

impl Vp8Publisher {
    /// Starts to send now, each layer with a key frame.
    pub fn new(config: Vp8Config, now: Instant) -> Self {
        let layers = config.layers.iter().map(|layer| Layer {
            stream: OutgoingStream::new(layer.ids, layer.first_seq),
            config: layer.clone(),
            active: true,
            key_pending: true,
            key_frames: 0,
            frames: 0,
            since_key: 0,
            tl0: 0,
            newest: [0; 3],
        });
        Self {
            layers: layers.collect(),
            start: now,
            ticks: 0,
            next_report: now + Duration::from_millis(300),
            replies: Vec::new(),
            rng: StdRng::seed_from_u64(config.seed),
            config,
        }
    }

    /// Stops or restarts a layer, as an encoder does that lacks bandwidth. It returns with a key
    /// frame.
    pub fn set_active(&mut self, layer: usize, active: bool) {
        let layer = &mut self.layers[layer];
        layer.key_pending |= active && !layer.active;
        layer.active = active;
    }

    /// Key frames encoded of a layer.
    pub fn key_frames(&self, layer: usize) -> u32 {
        self.layers[layer].key_frames
    }

    /// Frames encoded of a layer.
    pub fn frames(&self, layer: usize) -> u32 {
        self.layers[layer].frames
    }

    fn next_frame(&self) -> Instant {
        self.start + Duration::from_secs(1) * self.ticks / self.config.fps.max(1)
    }

    /// Encodes a frame of a layer into packets.
    fn encode(&mut self, index: usize, out: &mut Vec<Vec<u8>>) {
        let elapsed = self.next_frame() - self.start;
        let Self { config, layers, rng, .. } = self;
        let layer = &mut layers[index];
        let pattern = PATTERNS[usize::from(config.temporal_layers.clamp(1, 3)) - 1];
        let frame = layer.next_frame(pattern);

        let mean = layer.config.bitrate_bps as usize / 8 / config.fps.max(1) as usize;
        let factor = if frame.key { KEY_FRAME_FACTOR } else { 1 };
        let bytes = (mean * factor * rng.random_range(70..=130) / 100).max(STAMP_LEN + 1);
        let count = bytes.div_ceil(MAX_PAYLOAD);
        let timestamp = layer.timestamp_at(elapsed);
        for i in 0..count {
            // The last packets of a frame are one byte larger (libwebrtc `SplitAboutEqually`).
            let size = bytes / count + usize::from(i >= count - bytes % count);
            let stamp = Stamp { index: i as u16, count: count as u16, ..frame.stamp(index) };
            let payload = frame.payload(layer, config.temporal_layers, &stamp, size);
            let mid = (config.extensions.mid, config.mid.as_bytes());
            let rid = (config.extensions.rid, layer.config.rid.as_bytes());
            let named = layer.stream.packets() < NAMED_PACKETS;
            let extensions = names(named, mid, rid);
            let marker = i + 1 == count;
            let content = Content { timestamp, marker, extensions: &extensions, payload: &payload };
            out.push(layer.stream.packet(&content));
        }
    }

    fn report(&self, clock: &Clock, out: &mut Vec<Vec<u8>>) {
        let mut compound = Vec::new();
        for layer in self.layers.iter().filter(|layer| layer.active && layer.frames > 0) {
            let timestamp = layer.timestamp_at(clock.now() - self.start);
            let info = layer.stream.sender_info(clock.ntp(clock.now()), timestamp);
            write::sender_report(&mut compound, &info, &[]);
            write::sdes_cname(&mut compound, info.ssrc, "sim");
        }
        if !compound.is_empty() {
            out.push(compound);
        }
    }

    fn retransmit(&mut self, ssrc: u32, seqs: impl Iterator<Item = u16>) {
        let Self { config, layers, replies, .. } = self;
        let Some(layer) = layers.iter_mut().find(|l| l.config.ids.ssrc == ssrc) else { return };
        let mid = (config.extensions.mid, config.mid.as_bytes());
        let rid = (config.extensions.repaired_rid, layer.config.rid.as_bytes());
        let extensions = names(true, mid, rid);
        replies.extend(seqs.filter_map(|seq| layer.stream.retransmit(seq, &extensions)));
    }

    fn request_key_frame(&mut self, ssrc: u32) {
        let layer = self.layers.iter_mut().find(|layer| layer.config.ids.ssrc == ssrc);
        if let Some(layer) = layer {
            layer.key_pending = true;
        }
    }
}

impl Camera for Vp8Publisher {
    fn on_rtcp(&mut self, compound: &[u8]) {
        for packet in RtcpIter::new(compound).flatten() {
            match packet {
                Rtcp::Nack(nack) => self.retransmit(nack.media_ssrc, nack.seqs()),
                Rtcp::Pli(pli) => self.request_key_frame(pli.media_ssrc),
                Rtcp::Fir(fir) => {
                    let ssrcs: Vec<u32> = fir.entries().map(|entry| entry.0).collect();
                    ssrcs.into_iter().for_each(|ssrc| self.request_key_frame(ssrc));
                }
                _ => {}
            }
        }
    }

    fn poll(&mut self, clock: &Clock, out: &mut Vec<Vec<u8>>) {
        out.append(&mut self.replies);
        while self.next_frame() <= clock.now() {
            for layer in 0..self.layers.len() {
                if self.layers[layer].active {
                    self.encode(layer, out);
                }
            }
            self.ticks += 1;
        }
        if self.next_report <= clock.now() {
            self.next_report += REPORT_INTERVAL;
            self.report(clock, out);
        }
    }

    fn poll_timeout(&self) -> Instant {
        if self.replies.is_empty() { self.next_frame().min(self.next_report) } else { self.start }
    }
}

/// The extensions that name a packet's stream.
fn names<'a>(named: bool, mid: (u8, &'a [u8]), rid: (u8, &'a [u8])) -> Vec<(u8, &'a [u8])> {
    let all = [mid, rid];
    all.into_iter().filter(|(_, name)| named && !name.is_empty()).collect()
}

/// A frame about to be packetised.
#[derive(Debug, Clone, Copy)]
struct Frame {
    number: u32,
    key: bool,
    temporal: u8,
    sync: bool,
    refs: Refs,
}

impl Frame {
    fn stamp(&self, layer: usize) -> Stamp {
        let (layer, temporal) = (layer as u8, self.temporal);
        Stamp { layer, temporal, frame: self.number, index: 0, count: 0, refs: self.refs }
    }

    /// Descriptor (RFC 7741 §4.2), first byte of the VP8 frame, stamp, filler.
    fn payload(&self, layer: &Layer, temporal_layers: u8, stamp: &Stamp, size: usize) -> Vec<u8> {
        let start = stamp.index == 0;
        let temporal = temporal_layers > 1;
        let picture_id = layer.config.first_picture_id.wrapping_add(self.number as u16) & 0x7FFF;
        let mut payload = vec![0x80 | u8::from(start) << 4, 0x80];
        payload.extend_from_slice(&(0x8000 | picture_id).to_be_bytes());
        if temporal {
            payload[1] |= 0x60;
            payload.extend([layer.tl0, self.temporal << 6 | u8::from(self.sync) << 5]);
        }
        if self.temporal > 0 {
            payload[0] |= 0x20;
        }
        let descriptor_len = payload.len();
        payload.push(u8::from(!self.key));
        payload.extend_from_slice(&stamp.write());
        payload.resize((descriptor_len + size).max(descriptor_len + 1 + STAMP_LEN), 0xAB);
        payload
    }
}

impl Layer {
    /// Decides what the next frame is.
    fn next_frame(&mut self, pattern: &[(u8, bool)]) -> Frame {
        let number = self.frames;
        self.frames += 1;
        let key = std::mem::take(&mut self.key_pending);
        if key {
            self.key_frames += 1;
            self.since_key = 0;
            self.newest = [number; 3];
        }
        let (temporal, sync) = pattern[self.since_key as usize % pattern.len()];
        self.since_key += 1;
        let refs = match (key, temporal, sync) {
            (true, ..) => Refs::default(),
            (_, 0, _) | (_, _, true) => Refs::new(&[self.newest[0]]),
            _ => Refs::new(&[self.newest[0], self.newest[usize::from(temporal) - 1]]),
        };
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        for newest in &mut self.newest[usize::from(temporal)..] {
            *newest = number;
        }
        Frame { number, key, temporal, sync, refs }
    }

    fn timestamp_at(&self, elapsed: Duration) -> u32 {
        let ticks = elapsed.as_micros() as u64 * CLOCK_RATE / 1_000_000;
        self.config.first_timestamp.wrapping_add(ticks as u32)
    }
}

/// A camera with up to three layers of the usual rates, rids `q`, `h`, `f`, SSRCs `base + layer`
/// and RTX `base + 10 + layer`, and numbers near their wrap.
pub fn usual_camera(layers: usize, temporal_layers: u8, base: u32, seed: u64) -> Vp8Config {
    const RATES: [u64; 3] = [150_000, 500_000, 1_700_000];
    const RIDS: [&str; 3] = ["q", "h", "f"];
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5EED);
    let layer = |index: usize| Vp8LayerConfig {
        ids: StreamIds {
            ssrc: base + index as u32,
            pt: 96,
            rtx: Some((base + 10 + index as u32, 97)),
        },
        rid: if layers > 1 { RIDS[index].to_owned() } else { String::new() },
        bitrate_bps: if layers == 1 { RATES[1] } else { RATES[index] },
        first_seq: 65_000 + rng.random_range(0..500),
        first_timestamp: rng.random(),
        first_picture_id: 32_700,
    };
    Vp8Config {
        layers: (0..layers.clamp(1, 3)).map(layer).collect(),
        mid: "1".to_owned(),
        extensions: Vp8Extensions { mid: 4, rid: 10, repaired_rid: 11 },
        temporal_layers,
        fps: 30,
        seed,
    }
}
