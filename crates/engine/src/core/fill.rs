//! What receivers get when a track falls quiet. After a microphone is muted, or paused by its
//! receiver, some silence follows: a decoder that stops in the middle of noise goes on making noise
//! from it. Where a video ends, its last picture would stay in the decoder and flash up when the
//! section carries another track: a black one takes its place. Encrypted tracks get neither.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, MediaKind, PayloadInfo};
use sluice_sfu::{LayerSet, MediaPacket, PacketBody};

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
        let Some(state) = self.feeds.get_mut(feed) else { return };
        state.muted = muted;
        for key in state.downs.clone() {
            let Some(down) = self.downs.get_mut(key) else { continue };
            let was_quiet = down.track.is_quiet();
            down.track.set_source_muted(now, muted);
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

    /// Queues a frame of our own for a receiver. False if it cannot have one.
    fn send_fill(&mut self, now: Instant, key: DownKey, packet: MediaPacket) -> bool {
        let Some(down) = self.downs.get_mut(key) else { return false };
        let Some(receiver) = self.peers.get_mut(down.peer) else { return false };
        let Some(form) = down.track.fill(now) else { return false };
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

fn silence_for(now: Instant, down: &Down) -> Option<MediaPacket> {
    let (codec, payload): (Codec, &[u8]) = match down.track.config().codec {
        // A receiver of RED takes plain Opus as well.
        Codec::Opus | Codec::Red => (Codec::Opus, &OPUS_SILENCE),
        Codec::Pcmu => (Codec::Pcmu, &PCMU_SILENCE),
        Codec::Pcma => (Codec::Pcma, &PCMA_SILENCE),
        _ => return None,
    };
    Some(frame(now, codec, payload))
}

/// A packet that no publisher sent: its body is nothing but the payload.
fn frame(now: Instant, codec: Codec, payload: &[u8]) -> MediaPacket {
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
