//! A simulated microphone: Opus frames of 20 ms with the audio level extension, and in silence few
//! of them (DTX).

use std::time::{Duration, Instant};

use sluice_rtp::ext::AudioLevel;
use sluice_rtp::rtcp::write;

use crate::clock::Clock;
use crate::outgoing::{Content, OutgoingStream, StreamIds};
use crate::stamp::{Refs, STAMP_LEN, Stamp};

/// Length of a frame.
const FRAME: Duration = Duration::from_millis(20);

/// Timestamp units of a frame.
const FRAME_TICKS: u32 = 960;

/// RTP clock, Hz.
const CLOCK_RATE: u32 = 48_000;

/// Time between sender reports (libwebrtc's for audio).
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Frames of silence of which one is sent: libopus keeps a silent stream alive every 400 ms.
const DTX_FRAMES: u32 = 20;

/// Opus configuration byte of a 20 ms wideband frame, so that the payload does not look like DTX.
const TOC: u8 = 0x78;

/// Properties of a microphone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpusConfig {
    /// Identity of the stream.
    pub ids: StreamIds,
    /// `a=mid` and the id of its extension; empty: not sent.
    pub mid: (u8, String),
    /// Id of the audio level extension.
    pub audio_level_id: u8,
    /// Bytes per frame; at least the stamp's.
    pub frame_bytes: usize,
    /// First sequence number.
    pub first_seq: u16,
    /// First timestamp.
    pub first_timestamp: u32,
}

/// A microphone.
#[derive(Debug)]
pub struct OpusPublisher {
    config: OpusConfig,
    stream: OutgoingStream,
    next_frame: Instant,
    next_report: Instant,
    /// Number of the next frame in time.
    next_number: u32,
    /// Frames sent.
    frames: u32,
    /// Number of the first frame of the silence.
    silent_since: Option<u32>,
    /// The next frame sent is the first of a talkspurt.
    begins: bool,
    level_dbov: u8,
}

impl OpusPublisher {
    /// Starts to send now.
    pub fn new(config: OpusConfig, now: Instant) -> Self {
        Self {
            stream: OutgoingStream::new(config.ids, config.first_seq),
            next_frame: now,
            next_report: now + Duration::from_millis(500),
            next_number: 0,
            frames: 0,
            silent_since: None,
            begins: true,
            level_dbov: 127,
            config,
        }
    }

    /// Sets the level of the frames to come, dB below overload.
    pub fn set_level(&mut self, dbov: u8) {
        self.level_dbov = dbov;
    }

    /// Begins or ends a silence, in which the encoder sends hardly anything (DTX).
    pub fn set_silent(&mut self, silent: bool) {
        self.begins |= !silent && self.silent_since.is_some();
        self.silent_since = silent.then(|| self.silent_since.unwrap_or(self.next_number));
    }

    /// Appends the RTP and RTCP packets that are due.
    pub fn poll(&mut self, clock: &Clock, out: &mut Vec<Vec<u8>>) {
        while self.next_frame <= clock.now() {
            let silent = self.silent_since.map(|since| self.next_number - since);
            if silent.is_none_or(|frames| frames.is_multiple_of(DTX_FRAMES)) {
                out.push(self.frame());
            }
            self.next_number = self.next_number.wrapping_add(1);
            self.next_frame += FRAME;
        }
        if self.next_report <= clock.now() {
            self.next_report += REPORT_INTERVAL;
            out.push(self.report(clock));
        }
    }

    /// When [`poll`](Self::poll) has something.
    pub fn poll_timeout(&self) -> Instant {
        self.next_frame.min(self.next_report)
    }

    /// Frames sent.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    fn frame(&mut self) -> Vec<u8> {
        let index = self.frames as u16;
        self.frames += 1;
        // RFC 3551 §4.1: the first packet after a silence that was not sent.
        let marker = std::mem::take(&mut self.begins);
        let stamp = Stamp {
            layer: u8::from(marker),
            temporal: 0,
            frame: self.next_number,
            index,
            count: 1,
            refs: Refs::default(),
        };
        let mut payload = vec![TOC];
        payload.extend_from_slice(&stamp.write());
        payload.resize(self.config.frame_bytes.max(1 + STAMP_LEN), 0xAA);
        let level = AudioLevel { voice: self.level_dbov < 60, level_dbov: self.level_dbov }.write();
        let mid = self.config.mid.1.as_bytes();
        let extensions = [(self.config.audio_level_id, &level[..]), (self.config.mid.0, mid)];
        let extensions = if mid.is_empty() { &extensions[..1] } else { &extensions[..] };
        let content = Content {
            timestamp: self.timestamp_of(stamp.frame),
            marker,
            extensions,
            payload: &payload,
        };
        self.stream.packet(&content)
    }

    fn report(&self, clock: &Clock) -> Vec<u8> {
        let since_frame = FRAME.saturating_sub(self.next_frame - clock.now());
        let ticks = since_frame.as_micros() as u64 * u64::from(CLOCK_RATE) / 1_000_000;
        let newest = self.timestamp_of(self.next_number.saturating_sub(1));
        let info =
            self.stream.sender_info(clock.ntp(clock.now()), newest.wrapping_add(ticks as u32));
        let mut out = Vec::new();
        write::sender_report(&mut out, &info, &[]);
        write::sdes_cname(&mut out, info.ssrc, "sim");
        out
    }

    fn timestamp_of(&self, frame: u32) -> u32 {
        self.config.first_timestamp.wrapping_add(frame.wrapping_mul(FRAME_TICKS))
    }
}
