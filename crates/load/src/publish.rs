//! What a publisher sends: Opus-like audio and VP8-like video with simulcast, at the sizes and times
//! of real encoders, and its answers to PLI, FIR and NACK.
//!
//! The payloads are synthetic: valid payload descriptors and frame headers, then filler and a
//! [`stamp`](crate::stamp). A server forwards them like any other; nobody can decode them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use sluice_rtp::rtcp::{SenderInfo, write};
use sluice_rtp::{NtpTime, Rtcp, RtcpIter};

use crate::encoder::{LayerSpec, Stream, StreamIds};
use crate::packet::{ExtensionIds, Packet, Writer};
use crate::stamp::Clock;

/// Packets that leave at once; libwebrtc's pacer works in steps of 5 ms.
const BURST: usize = 12;
/// See [`BURST`].
const PACE: Duration = Duration::from_millis(5);
/// Time between sender reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A track to send.
#[derive(Debug, Clone)]
pub(crate) struct TrackSpec {
    /// SID that the server gave.
    pub(crate) sid: String,
    pub(crate) mid: String,
    pub(crate) extensions: ExtensionIds,
    /// Sends nothing until it is told to.
    pub(crate) muted: bool,
    /// Layers of video with their numbers, lowest first; audio has one number and no layer.
    pub(crate) layers: Vec<(StreamIds, Option<LayerSpec>)>,
}

/// What was sent, summed over tracks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PublishTotals {
    /// RTP packets, without retransmissions.
    pub packets: u64,
    /// Payload bytes of those.
    pub payload_bytes: u64,
    /// Retransmissions.
    pub retransmitted: u64,
    /// Sequence numbers that the server asked for again.
    pub nacked: u64,
    /// Key frames that the server asked for.
    pub plis: u64,
    /// Key frames sent.
    pub key_frames: u64,
    /// Packets that could not be sealed or found no room.
    pub unsent: u64,
}

impl PublishTotals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.payload_bytes += other.payload_bytes;
        self.retransmitted += other.retransmitted;
        self.nacked += other.nacked;
        self.plis += other.plis;
        self.key_frames += other.key_frames;
        self.unsent += other.unsent;
    }
}

/// Everything that one connection publishes.
#[derive(Debug)]
pub(crate) struct Publisher {
    tracks: Vec<Track>,
    queue: VecDeque<(u16, Packet)>,
    next_flush: Option<Instant>,
    next_report: Instant,
    transport_seq: u16,
    pub(crate) totals: PublishTotals,
}

#[derive(Debug)]
struct Track {
    spec: TrackSpec,
    streams: Vec<Stream>,
    speaking: bool,
}

impl Track {
    /// Keeps a packet for retransmission.
    fn remember(&mut self, packet: Packet, payload_len: usize) {
        let stream = self.streams.iter_mut().find(|stream| stream.ids.ssrc == packet.ssrc);
        if let Some(stream) = stream {
            stream.sent(packet, payload_len);
        }
    }
}

impl Publisher {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            tracks: Vec::new(),
            queue: VecDeque::new(),
            next_flush: None,
            next_report: now + Duration::from_millis(200),
            transport_seq: rand::random(),
            totals: PublishTotals::default(),
        }
    }

    /// Starts a track. Publishers that start together do not send together: each has its phase.
    pub(crate) fn add_track(&mut self, now: Instant, spec: TrackSpec) {
        let simulcast = spec.layers.len() > 1;
        let streams = spec.layers.iter().enumerate().map(|(at, (ids, layer))| {
            let layer = layer.map(|layer| (simulcast.then_some(at as u8), layer));
            Stream::new(now, *ids, layer)
        });
        self.tracks.push(Track { streams: streams.collect(), speaking: true, spec });
    }

    /// Dynacast: which layers anybody watches.
    pub(crate) fn set_layers(&mut self, now: Instant, sid: &str, enabled: [bool; 3]) {
        for track in self.tracks.iter_mut().filter(|track| track.spec.sid == sid) {
            for (stream, enabled) in track.streams.iter_mut().zip(enabled) {
                stream.set_enabled(now, enabled);
            }
        }
    }

    /// Everything that was published muted starts to flow.
    pub(crate) fn unmute(&mut self, now: Instant) {
        for track in self.tracks.iter_mut().filter(|track| track.spec.muted) {
            track.spec.muted = false;
            track.streams.iter_mut().for_each(|stream| stream.resume(now));
        }
    }

    /// Who speaks, for tests of active speakers.
    pub(crate) fn set_speaking(&mut self, speaking: bool) {
        self.tracks.iter_mut().for_each(|track| track.speaking = speaking);
    }

    /// When [`poll`](Self::poll) has something.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let tracks = self.tracks.iter().filter(|track| !track.spec.muted);
        let streams = tracks.flat_map(|track| &track.streams);
        let frames = streams.filter(|stream| stream.enabled).map(Stream::next_frame);
        let report = (!self.tracks.is_empty()).then_some(self.next_report);
        frames.chain(self.next_flush).chain(report).min()
    }

    /// Writes the RTP packets that are due into the arena.
    pub(crate) fn poll(&mut self, now: Instant, clock: &Clock, mut writer: Writer<'_>) {
        let flowing = self.tracks.iter_mut().enumerate().filter(|(_, track)| !track.spec.muted);
        for (at, track) in flowing {
            for stream in track.streams.iter_mut().filter(|stream| stream.enabled) {
                while stream.next_frame() <= now {
                    let queue = &mut self.queue;
                    let key = stream
                        .encode(track.speaking, |packet| queue.push_back((at as u16, packet)));
                    self.totals.key_frames += u64::from(key);
                }
            }
        }
        if self.next_flush.is_some_and(|at| now < at) {
            return;
        }
        let sent_us = clock.unix_us(now);
        for (at, mut packet) in self.queue.drain(..self.queue.len().min(BURST)) {
            let track = &mut self.tracks[usize::from(at)];
            packet.sent_us = sent_us;
            let (mid, ids) = (&track.spec.mid, &track.spec.extensions);
            match writer.write(&packet, mid, ids, self.transport_seq) {
                Ok(len) => {
                    self.transport_seq = self.transport_seq.wrapping_add(1);
                    self.totals.packets += 1;
                    self.totals.payload_bytes += len as u64;
                    track.remember(packet, len);
                }
                Err(_) => self.totals.unsent += 1,
            }
        }
        self.next_flush = (!self.queue.is_empty()).then_some(now + PACE);
    }

    /// Appends sender reports if they are due.
    pub(crate) fn poll_reports(&mut self, now: Instant, clock: &Clock, out: &mut Vec<u8>) {
        if now < self.next_report {
            return;
        }
        self.next_report = now + REPORT_INTERVAL;
        let ntp = NtpTime::from_unix(clock.unix(now));
        for track in &self.tracks {
            for stream in track.streams.iter().filter(|s| s.enabled && s.packets > 0) {
                let info = SenderInfo {
                    ssrc: stream.ids.ssrc,
                    ntp,
                    rtp_timestamp: stream.timestamp_at(now),
                    packet_count: stream.packets,
                    octet_count: stream.octets,
                };
                write::sender_report(out, &info, &[]);
                write::sdes_cname(out, info.ssrc, &track.spec.sid);
            }
        }
    }

    /// Takes RTCP of the server; retransmissions go into the arena at once.
    pub(crate) fn on_rtcp(&mut self, compound: &[u8], mut writer: Writer<'_>) {
        for packet in RtcpIter::new(compound).flatten() {
            match packet {
                Rtcp::Pli(pli) => self.key_frame(pli.media_ssrc),
                Rtcp::Fir(fir) => fir.entries().for_each(|entry| self.key_frame(entry.0)),
                Rtcp::Nack(nack) => {
                    for seq in nack.seqs() {
                        self.totals.nacked += 1;
                        self.retransmit(nack.media_ssrc, seq, &mut writer);
                    }
                }
                _ => {}
            }
        }
    }

    fn key_frame(&mut self, ssrc: u32) {
        let mut streams = self.tracks.iter_mut().flat_map(|track| &mut track.streams);
        if let Some(stream) = streams.find(|stream| stream.ids.ssrc == ssrc) {
            self.totals.plis += 1;
            stream.request_key_frame();
        }
    }

    fn retransmit(&mut self, ssrc: u32, seq: u16, writer: &mut Writer<'_>) {
        for track in &mut self.tracks {
            let Some(stream) = track.streams.iter_mut().find(|s| s.ids.ssrc == ssrc) else {
                continue;
            };
            let Some(packet) = stream.retransmission(seq) else { return };
            let (mid, ids) = (&track.spec.mid, &track.spec.extensions);
            if writer.write(&packet, mid, ids, self.transport_seq).is_ok() {
                self.transport_seq = self.transport_seq.wrapping_add(1);
                self.totals.retransmitted += 1;
            }
            return;
        }
    }
}
