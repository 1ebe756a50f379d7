//! A simulated viewer: the loss repair and the jitter buffer of a client, reduced to what decides
//! whether a frame can be decoded, with a check on every packet.
//!
//! Loss is seen in the sequence numbers and asked for by NACK; a frame is complete when all numbers
//! from its start to its marker are here; it is decoded if the frames it refers to were. When
//! nothing can be decoded for a while, a PLI asks for a key frame. Limits follow libwebrtc.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, vp8, vp9};
use sluice_rtp::packet::RtpView;
use sluice_rtp::rtcp::write;
use sluice_rtp::{SeqUnwrapper, TsUnwrapper, rtx};

use crate::stamp::Stamp;

/// Requests per packet (libwebrtc `kMaxNackRetries`).
const MAX_NACK_TRIES: u32 = 10;

/// Packets behind the newest that are asked for (libwebrtc `kMaxPacketAge`, less for speed).
const MAX_NACK_AGE: u64 = 1_000;

/// Time without a decoded frame after which a key frame is asked for, before the first and later
/// (libwebrtc: 200 ms and 3 s; clients with low latency use less).
const PLI_AFTER: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// How long a frame may wait for what it misses.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// Packets remembered for the checks.
const REMEMBERED: u64 = 4_000;

/// Properties of a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoReceiverConfig {
    /// VP8 or VP9.
    pub codec: Codec,
    /// SSRC of media.
    pub ssrc: u32,
    /// SSRC of RTX.
    pub rtx_ssrc: u32,
    /// Round-trip time: distance between requests for the same packet.
    pub rtt: Duration,
}

/// A frame that was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodedFrame {
    /// When.
    pub at: Instant,
    /// What it was at its encoder (that of its first packet).
    pub stamp: Stamp,
    /// Extended timestamp.
    pub timestamp: u64,
}

/// What the viewer saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VideoStats {
    /// Packets of media, retransmissions apart.
    pub packets: u64,
    /// Packets that came as retransmissions.
    pub recovered: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Frames decoded.
    pub decoded: u64,
    /// Frames of which a packet came that were never decoded.
    pub undecodable: u64,
    /// Key frames asked for.
    pub plis: u64,
    /// NACKed packets, repeats included.
    pub nacked: u64,
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    timestamp: u64,
    stamp: Stamp,
    marker: bool,
    start: bool,
    picture_id: u16,
    tl0: Option<u8>,
}

/// What is looked at of a payload descriptor.
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    len: usize,
    /// The packet is the first of a picture, with all its layers.
    start: bool,
    picture_id: u16,
    tl0: Option<u8>,
}

#[derive(Debug)]
struct Pending {
    seen: Instant,
    first: Option<u64>,
    last: Option<u64>,
    packets: u64,
    stamp: Stamp,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    tries: u32,
    due: Instant,
}

/// Receives one video stream.
#[derive(Debug)]
pub struct VideoReceiver {
    config: VideoReceiverConfig,
    start: Instant,
    seqs: SeqUnwrapper,
    timestamps: TsUnwrapper,
    packets: BTreeMap<u64, Packet>,
    frames: BTreeMap<u64, Pending>,
    wanted: BTreeMap<u64, Wanted>,
    decoded: Vec<DecodedFrame>,
    newest_packet: Option<Instant>,
    last_pli: Option<Instant>,
    stats: VideoStats,
    violations: Vec<String>,
}

impl VideoReceiver {
    /// A viewer to whom nothing has been sent.
    pub fn new(config: VideoReceiverConfig, now: Instant) -> Self {
        Self {
            config,
            start: now,
            seqs: SeqUnwrapper::new(),
            timestamps: TsUnwrapper::new(),
            packets: BTreeMap::new(),
            frames: BTreeMap::new(),
            wanted: BTreeMap::new(),
            decoded: Vec::new(),
            newest_packet: None,
            last_pli: None,
            stats: VideoStats::default(),
            violations: Vec::new(),
        }
    }

    /// Takes an RTP packet of the media or the RTX stream.
    pub fn on_rtp(&mut self, now: Instant, packet: &[u8]) {
        let Ok(view) = RtpView::parse(packet) else {
            self.violations.push("not RTP".to_owned());
            return;
        };
        if view.ssrc() == self.config.ssrc {
            self.stats.packets += 1;
            self.on_media(now, view.sequence_number(), &view, view.payload());
        } else if view.ssrc() == self.config.rtx_ssrc {
            if let Some((seq, payload)) = rtx::split(view.payload()) {
                self.stats.recovered += 1;
                self.on_media(now, seq, &view, payload);
            }
        } else {
            self.violations.push(format!("unknown SSRC {}", view.ssrc()));
        }
    }

    /// Appends the RTCP that is due, and decodes what can be decoded.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        self.decode(now);
        self.poll_nack(now, out);
        self.poll_pli(now, out);
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let nack = self.wanted.values().map(|wanted| wanted.due).min();
        let frame = self.frames.values().next().map(|frame| frame.seen + MAX_WAIT);
        [nack, frame, self.pli_due()].into_iter().flatten().min()
    }

    /// The frames decoded, in order.
    pub fn decoded(&self) -> &[DecodedFrame] {
        &self.decoded
    }

    /// What the viewer saw.
    pub fn stats(&self) -> VideoStats {
        self.stats
    }

    /// The longest time between two decoded frames, from `from` on.
    pub fn longest_freeze(&self, from: Instant) -> Duration {
        let after = self.decoded.partition_point(|frame| frame.at < from);
        let frames = &self.decoded[after..];
        frames.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap_or(Duration::MAX)
    }

    /// Everything that the forwarding did wrong.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    fn on_media(&mut self, now: Instant, seq: u16, view: &RtpView<'_>, payload: &[u8]) {
        let descriptor = Descriptor::parse(self.config.codec, payload);
        let parsed = descriptor.and_then(|descriptor| {
            let stamp = Stamp::read(payload.get(descriptor.len + 1..)?)?;
            Some((descriptor, stamp))
        });
        let Some((descriptor, stamp)) = parsed else {
            self.violations.push(format!("number {seq}: payload damaged"));
            return;
        };
        let newest = self.seqs.newest();
        let seq = self.seqs.unwrap(seq);
        let packet = Packet {
            timestamp: self.timestamps.unwrap(view.timestamp()),
            stamp,
            marker: view.marker(),
            start: descriptor.start,
            picture_id: descriptor.picture_id,
            tl0: descriptor.tl0,
        };
        self.wanted.remove(&seq);
        self.want_missing(now, newest, seq);
        if !self.check(seq, &packet) {
            self.stats.duplicates += 1;
            return;
        }
        self.newest_packet = Some(now);
        self.packets.insert(seq, packet);
        let oldest = self.seqs.newest().unwrap_or(0).saturating_sub(REMEMBERED);
        while self.packets.first_key_value().is_some_and(|(seq, _)| *seq < oldest) {
            self.packets.pop_first();
        }
        self.assemble(now, seq, &packet);
    }

    fn want_missing(&mut self, now: Instant, newest: Option<u64>, seq: u64) {
        let Some(newest) = newest else { return };
        for missing in (newest + 1).max(seq.saturating_sub(MAX_NACK_AGE))..seq {
            self.wanted.insert(missing, Wanted { tries: 0, due: now });
        }
    }

    /// Compares a packet with its neighbours. Returns whether it is new.
    fn check(&mut self, seq: u64, packet: &Packet) -> bool {
        if let Some(old) = self.packets.get(&seq) {
            if old.stamp != packet.stamp || old.timestamp != packet.timestamp {
                let (old, new) = (old.stamp, packet.stamp);
                self.violations.push(format!("number {seq} carries {old:?} and {new:?}"));
            }
            return false;
        }
        let before = self.packets.get(&(seq - 1)).copied();
        let after = self.packets.get(&(seq + 1)).copied();
        if let Some(fault) = before.and_then(|before| fault_between(&before, packet)) {
            self.violations.push(format!("number {seq}: {fault}: {before:?} then {packet:?}"));
        }
        if let Some(fault) = after.and_then(|after| fault_between(packet, &after)) {
            self.violations.push(format!("number {}: {fault}: {packet:?} then {after:?}", seq + 1));
        }
        true
    }

    fn assemble(&mut self, now: Instant, seq: u64, packet: &Packet) {
        if self.decoded.last().is_some_and(|last| packet.timestamp <= last.timestamp) {
            return;
        }
        let frame = self.frames.entry(packet.timestamp).or_insert(Pending {
            seen: now,
            first: None,
            last: None,
            packets: 0,
            stamp: packet.stamp,
        });
        frame.packets += 1;
        if packet.start {
            frame.first = Some(seq);
        }
        if packet.marker {
            frame.last = Some(seq);
        }
    }

    fn decode(&mut self, now: Instant) {
        while let Some((timestamp, frame)) = self.frames.first_key_value() {
            let (timestamp, stamp, waited) = (*timestamp, frame.stamp, now - frame.seen);
            let complete = frame.is_complete();
            if complete && self.can_decode(&stamp) {
                self.frames.pop_first();
                self.decoded.push(DecodedFrame { at: now, stamp, timestamp });
                self.stats.decoded += 1;
                continue;
            }
            let key_behind =
                self.frames.values().skip(1).any(|f| f.is_complete() && f.stamp.is_key());
            let hopeless = complete && !self.is_gap_before(timestamp);
            if !(hopeless || key_behind || waited >= MAX_WAIT) {
                return;
            }
            self.frames.pop_first();
            self.stats.undecodable += 1;
        }
    }

    fn can_decode(&self, stamp: &Stamp) -> bool {
        let decoded = |number: u32| {
            let recent = self.decoded.iter().rev().take(64);
            // A key frame of another layer, or one in between, replaces what was referred to.
            let mut chain = recent.take_while(|frame| frame.stamp.layer == stamp.layer);
            chain.any(|frame| frame.stamp.frame == number)
        };
        stamp.refs.as_slice().iter().all(|number| decoded(*number))
    }

    /// Whether numbers are missing directly in front of a frame that may still come.
    fn is_gap_before(&self, timestamp: u64) -> bool {
        let first = self.frames.get(&timestamp).and_then(|frame| frame.first);
        first.is_some_and(|first| self.wanted.contains_key(&(first - 1)))
    }

    fn poll_nack(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        let newest = self.seqs.newest().unwrap_or(0);
        let rtt = self.config.rtt;
        self.wanted.retain(|seq, wanted| {
            seq + MAX_NACK_AGE > newest && (wanted.tries < MAX_NACK_TRIES || now < wanted.due)
        });
        let mut seqs = Vec::new();
        for (seq, wanted) in self.wanted.iter_mut().filter(|(_, wanted)| wanted.due <= now) {
            wanted.tries += 1;
            wanted.due = now + rtt;
            seqs.push(*seq as u16);
        }
        self.stats.nacked += seqs.len() as u64;
        if !seqs.is_empty() {
            let mut packet = Vec::new();
            write::nack(&mut packet, 1, self.config.ssrc, seqs);
            out.push(packet);
        }
    }

    fn poll_pli(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        if self.pli_due().is_some_and(|due| due <= now) {
            self.last_pli = Some(now);
            self.stats.plis += 1;
            let mut packet = Vec::new();
            write::pli(&mut packet, 1, self.config.ssrc);
            out.push(packet);
        }
    }

    /// A viewer that gets nothing at all asks for nothing: the track may be paused.
    fn pli_due(&self) -> Option<Instant> {
        let last_decoded = self.decoded.last().map(|frame| frame.at);
        // What was given up counts as well.
        let newest_packet =
            self.newest_packet.filter(|at| last_decoded.is_none_or(|last| *at > last))?;
        let patience = if last_decoded.is_some() { PLI_AFTER.1 } else { PLI_AFTER.0 };
        let since = last_decoded.unwrap_or(self.start).max(self.last_pli.unwrap_or(self.start));
        Some((since + patience).max(newest_packet))
    }
}

impl Descriptor {
    fn parse(codec: Codec, payload: &[u8]) -> Option<Self> {
        if codec == Codec::Vp9 {
            let descriptor = vp9::Descriptor::parse(payload)?;
            let lowest = descriptor.layer.is_none_or(|layer| layer.spatial_id == 0);
            return Some(Self {
                len: descriptor.len(),
                start: descriptor.start_of_frame() && lowest,
                picture_id: descriptor.picture_id().unwrap_or(0),
                tl0: None,
            });
        }
        let descriptor = vp8::Descriptor::parse(payload)?;
        Some(Self {
            len: descriptor.len(),
            start: descriptor.start_of_frame(),
            picture_id: descriptor.picture_id().unwrap_or(0),
            tl0: descriptor.tl0_pic_idx(),
        })
    }
}

impl Pending {
    fn is_complete(&self) -> bool {
        let (Some(first), Some(last)) = (self.first, self.last) else { return false };
        last >= first && self.packets == last - first + 1
    }
}

/// What is wrong about two packets with consecutive numbers.
fn fault_between(before: &Packet, after: &Packet) -> Option<&'static str> {
    if after.timestamp < before.timestamp {
        return Some("time goes back");
    }
    // A key frame that is begun anew, after a pause in the middle of it, is another one to the receiver.
    let anew = after.start && after.timestamp > before.timestamp;
    let same_frame =
        !anew && (before.stamp.layer, before.stamp.frame) == (after.stamp.layer, after.stamp.frame);
    if same_frame != (after.timestamp == before.timestamp) {
        return Some("frames and timestamps disagree");
    }
    if same_frame {
        let in_order = after.stamp.index == before.stamp.index + 1;
        let same_picture = after.picture_id == before.picture_id && after.tl0 == before.tl0;
        return (!in_order || !same_picture).then_some("a frame is torn");
    }
    let whole = before.marker && after.start;
    let cut = after.stamp.is_key() && after.start;
    if !whole && !cut {
        return Some("a frame is cut");
    }
    if after.picture_id != (before.picture_id + 1) & 0x7FFF {
        return Some("the picture id jumps");
    }
    let step = u8::from(after.stamp.temporal == 0);
    match (before.tl0, after.tl0) {
        (Some(before), Some(after)) if after != before.wrapping_add(step) => {
            Some("TL0PICIDX jumps")
        }
        _ => None,
    }
}
