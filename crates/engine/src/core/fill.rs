//! What receivers get when a track falls quiet. After a microphone is muted, or paused by its
//! receiver, some silence follows: a decoder that stops in the middle of noise goes on making noise
//! from it. Where a video ends, its last picture would stay in the decoder and flash up when the
//! section carries another track: a black one takes its place. Encrypted tracks get neither.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, MediaKind, PayloadInfo};
use sluice_sfu::{DownTrack, Forwarded, LayerSet, MediaPacket, PacketBody};

use crate::core::Core;
use crate::core::peer::{DownKey, Egress, Pace};
use crate::core::track::Down;
use crate::link::FeedKey;

/// Time between frames of silence: the length of each.
const SILENCE_INTERVAL: Duration = Duration::from_millis(20);

/// Frames of silence after a mute: some survive any burst of loss (LiveKit sends a second's worth,
/// which changes nothing for the decoder).
const SILENCE_FRAMES: u8 = 10;

/// Opus, 20 ms, full band, mono: the encoder's own word for nothing (RFC 6716 §3.1: configuration
/// 31 in the TOC byte, and an empty CELT frame).
const OPUS_SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

/// 20 ms of G.711 zeros (ITU-T G.711: µ-law and A-law code of amplitude 0).
const PCMU_SILENCE: [u8; 160] = [0xff; 160];
const PCMA_SILENCE: [u8; 160] = [0xd5; 160];

/// Black pictures where a video ends: the second in case that the first is lost.
const BLACK_FRAMES: u32 = 2;

/// Time between them.
const BLACK_INTERVAL: Duration = Duration::from_millis(33);

/// VP8, 8 × 8 black, a key frame as libvpx writes it; in front the shortest payload descriptor
/// (RFC 7741 §4.2: start of partition 0), in whose place the receiver's goes.
const VP8_BLACK: [u8; 32] = [
    0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x08, 0x00, 0x08, 0x00, 0x00, 0x47, 0x08, 0x85, 0x85,
    0x88, 0x85, 0x84, 0x88, 0x02, 0x02, 0x00, 0x0c, 0x0d, 0x60, 0x00, 0xfe, 0xff, 0xab, 0x50, 0x80,
];

/// H.264 Constrained Baseline, 16 × 16 black, as x264 writes it: sequence and picture parameters and
/// an IDR slice in one STAP-A (RFC 6184 §5.7.1).
const H264_BLACK: [u8; 42] = [
    0x78, 0x00, 0x13, 0x67, 0x42, 0xc0, 0x1f, 0xdd, 0xe8, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00,
    0x00, 0x0f, 0x23, 0xc6, 0x0c, 0xe0, 0x00, 0x05, 0x68, 0xce, 0x0f, 0x2c, 0x80, 0x00, 0x0b, 0x65,
    0x88, 0x84, 0x04, 0xbc, 0x98, 0xa0, 0x00, 0x38, 0xa3, 0x80,
];

/// Subscriptions that still get silence, in the order in which their next frame is due.
#[derive(Debug, Default)]
pub(super) struct Silences(VecDeque<Silence>);

#[derive(Debug, Clone, Copy)]
struct Silence {
    due: Instant,
    down: DownKey,
    frames_left: u8,
}

impl Silences {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.front().map(|silence| silence.due)
    }

    fn push(&mut self, due: Instant, down: DownKey, frames_left: u8) {
        self.0.push_back(Silence { due, down, frames_left });
    }
}

impl Core {
    /// The publisher's worker says that the track was muted or unmuted.
    pub(super) fn set_source_muted(&mut self, now: Instant, feed: FeedKey, muted: bool) {
        if let Some(state) = self.feeds.get_mut(feed) {
            state.muted = muted;
            self.update_quiet(now, feed);
        }
    }

    /// Stops or resumes the receivers of a feed: its publisher is muted, or others are louder.
    pub(super) fn update_quiet(&mut self, now: Instant, feed: FeedKey) {
        let Some(state) = self.feeds.get_mut(feed) else { return };
        let quiet = state.is_quiet();
        for key in state.downs.clone() {
            let Some(down) = self.downs.get_mut(key) else { continue };
            let was_quiet = down.track.is_quiet();
            down.track.set_source_muted(now, quiet);
            if !was_quiet {
                self.begin_silence(now, key);
            }
        }
    }

    /// Makes a subscription fall silent gently, if it just became quiet.
    pub(super) fn begin_silence(&mut self, now: Instant, key: DownKey) {
        let Some(down) = self.downs.get(key) else { return };
        let is_audio = down.track.config().kind == MediaKind::Audio;
        if is_audio && down.connected && down.track.is_quiet() {
            self.silences.push(now + SILENCE_INTERVAL, key, SILENCE_FRAMES);
        }
    }

    /// Sends the frames of silence that are due.
    pub(super) fn send_silence(&mut self, now: Instant) {
        while let Some(silence) = self.silences.0.front().copied().filter(|s| s.due <= now) {
            self.silences.0.pop_front();
            let Some(down) = self.downs.get(silence.down) else { continue };
            let Some(packet) = silence_for(now, down) else { continue };
            // Unmuted in the meantime, or nothing was ever sent.
            if !down.track.is_quiet() || !self.send_fill(now, silence.down, packet) {
                continue;
            }
            if silence.frames_left > 1 {
                let due = silence.due + SILENCE_INTERVAL;
                self.silences.push(due, silence.down, silence.frames_left - 1);
            }
        }
    }

    /// Ends a subscription with a black picture, if it shows one; it is forgotten once that is sent.
    pub(super) fn end_down(&mut self, now: Instant, key: DownKey) {
        let black = self.downs.get(key).and_then(|down| black_for(now, down));
        let Some(black) = black else { return self.remove_down(now, key) };
        let frames = (0..BLACK_FRAMES).map(|n| now + BLACK_INTERVAL * n);
        let sent = frames.filter(|at| self.send_fill(*at, key, black.clone())).count();
        if sent == 0 {
            return self.remove_down(now, key);
        }
        if let Some(down) = self.downs.get_mut(key) {
            down.track.set_source_muted(now, true);
            self.subscription_ids.remove(&down.id);
            self.endings.push(key);
        }
    }

    /// Forgets the subscriptions that have had their last picture, or must do without.
    pub(super) fn forget_ended(&mut self, now: Instant) {
        while let Some(key) = self.endings.pop() {
            self.remove_down(now, key);
        }
    }

    fn send_fill(&mut self, now: Instant, key: DownKey, packet: MediaPacket) -> bool {
        self.send_own(now, key, packet, |track| track.fill(now))
    }

    /// Queues a packet of our own for a receiver. False if it cannot have one.
    pub(super) fn send_own(
        &mut self,
        now: Instant,
        key: DownKey,
        packet: MediaPacket,
        form: impl FnOnce(&mut DownTrack) -> Option<Forwarded>,
    ) -> bool {
        let Some(down) = self.downs.get_mut(key) else { return false };
        let Some(receiver) = self.peers.get_mut(down.peer) else { return false };
        let Some(form) = form(&mut down.track) else { return false };
        let index = self.batch.len() as u32;
        self.batch.push(packet);
        let pace = Pace::Patient;
        receiver.egress.push(Egress { packet: index, down: key, form, rtx_seq: None, pace });
        if !std::mem::replace(&mut receiver.egress_dirty, true) {
            self.egress_dirty.push(down.peer);
        }
        self.hold.begin(now);
        self.stats.fills_out += 1;
        true
    }
}

pub(super) fn silence_for(now: Instant, down: &Down) -> Option<MediaPacket> {
    let (codec, payload): (Codec, &[u8]) = match down.track.config().codec {
        // A receiver of RED takes plain Opus as well.
        Codec::Opus | Codec::Red => (Codec::Opus, &OPUS_SILENCE),
        Codec::Pcmu => (Codec::Pcmu, &PCMU_SILENCE),
        Codec::Pcma => (Codec::Pcma, &PCMA_SILENCE),
        _ => return None,
    };
    Some(frame(now, codec, payload))
}

fn black_for(now: Instant, down: &Down) -> Option<MediaPacket> {
    // One that is paused has no picture to replace.
    if !down.connected || down.track.is_quiet() {
        return None;
    }
    match down.track.config().codec {
        Codec::Vp8 => Some(frame(now, Codec::Vp8, &VP8_BLACK)),
        Codec::H264 => Some(frame(now, Codec::H264, &H264_BLACK)),
        _ => None,
    }
}

/// A packet that no publisher sent: its body is nothing but the payload.
pub(super) fn frame(now: Instant, codec: Codec, payload: &[u8]) -> MediaPacket {
    MediaPacket {
        body: PacketBody::from_slice(payload),
        ext_seq: 0,
        arrival: now,
        timestamp: 0,
        codec,
        stream: 0,
        epoch: 0,
        newer: 0,
        marker: false,
        recovered: false,
        payload: (0..payload.len()).into(),
        info: PayloadInfo::default(),
        dependency_descriptor: None,
        described: None,
        abs_capture_time: None,
        audio_level: None,
        live_layers: LayerSet::NONE,
    }
}
