//! One publisher, the forwarding core, and viewers, joined by simulated links: what the engine does
//! around the state machines, without sockets and encryption.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "each test file uses another part"
)]

pub mod control;
pub mod seeds;
pub mod sound;
mod wire;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_rtp::ext::ExtensionKind;
use sluice_rtp::packet::{RtpHeaderWriter, RtpView};
use sluice_rtp::rtcp::{self, Rtcp, RtcpIter, SenderInfo, write};
use sluice_rtp::rtx;
use sluice_sfu::bwe::BweConfig;
use sluice_sfu::pacer::Urgency;
use sluice_sfu::{
    BinderSection, BodyPool, DownTrack, DownTrackConfig, DownTrackSettings, Forwarded, MediaPacket,
    ReceivePayloadType, StreamBinder, TrackHistory, TrackReceiver, TrackReceiverConfig,
};
use sluice_sim::video_receiver::{VideoReceiver, VideoReceiverConfig};
use sluice_sim::vp8::{Vp8Config, Vp8Publisher};
use sluice_sim::vp9::{Vp9Config, Vp9Publisher};
use sluice_sim::{Camera, Clock, Link, LinkConfig};

pub(crate) use seeds::check;
pub use seeds::{each_seed, over_seeds, seeds, tell};
use sound::{Listener, Microphone};
pub use wire::write_rtp;

/// Shortest step of the virtual clock.
const STEP: Duration = Duration::from_millis(1);

/// Time between report blocks to the publisher, and between sender reports to viewers.
const REPORT_INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// A higher layer that is tried and left again within this time is no relapse: whether a path takes
/// more than it is given shows only so.
const ATTEMPT_MS: u64 = 500;

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A viewer with the server's state for it.
pub struct Viewer {
    pub down: DownTrack,
    pub receiver: VideoReceiver,
    pub link: Link,
    pub back: Link,
    /// Congestion control, if the viewer has it.
    pub control: Option<control::Control>,
    /// What it hears, if there is a microphone.
    pub listener: Option<Listener>,
    /// What it got, if that is to be remembered.
    pub record: Option<Record>,
    next_report: Instant,
}

/// What a viewer got.
#[derive(Debug, Default, PartialEq)]
pub struct Record {
    /// Packets as they arrived, and when after the start.
    pub arrived: Vec<(Duration, Vec<u8>)>,
    /// Packets of the camera as they left.
    pub video: Vec<Sent>,
    pub video_reports: Vec<(Duration, SenderInfo)>,
    /// Packets of the microphone as they left.
    pub audio: Vec<Sent>,
    pub audio_reports: Vec<(Duration, SenderInfo)>,
}

/// A packet that went to a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub at: Duration,
    pub stream: u8,
    /// Timestamp of the publisher, and the one it became.
    pub source: u32,
    pub target: u32,
}

impl Viewer {
    fn send(&mut self, now: Instant, packet: Vec<u8>, urgency: Urgency) {
        match &mut self.control {
            Some(control) => control.push(now, packet, urgency, &mut self.link),
            None => self.link.send(now, packet),
        }
    }
}

/// What comes from the publisher.
enum Source {
    /// What its devices make of what they are told.
    Live,
    /// The same, and it is remembered, with the time after the start.
    Taped(Vec<(Duration, Vec<u8>)>),
    /// What was remembered once, whatever they are told.
    Replayed(VecDeque<(Duration, Vec<u8>)>),
}

/// A call with one camera.
pub struct Call<C = Vp8Publisher> {
    pub clock: Clock,
    pub camera: C,
    pub up: Link,
    pub up_back: Link,
    pub track: TrackReceiver,
    pub viewers: Vec<Viewer>,
    /// Beside the camera.
    pub microphone: Option<Microphone>,
    source: Source,
    codec: ReceivePayloadType,
    binder: StreamBinder,
    pool: BodyPool,
    history: TrackHistory,
    next_report: Instant,
    seed: u64,
}

impl Call {
    /// A camera that starts to send now over a link of this kind.
    pub fn new(camera: Vp8Config, up: LinkConfig, seed: u64) -> Self {
        let clock = Clock::new();
        let extensions = [
            (ExtensionKind::Mid, camera.extensions.mid),
            (ExtensionKind::Rid, camera.extensions.rid),
            (ExtensionKind::RepairedRid, camera.extensions.repaired_rid),
        ];
        let rids = camera.layers.iter().map(|l| l.rid.clone()).filter(|rid| !rid.is_empty());
        let section = BinderSection {
            mid: camera.mid.clone(),
            rids: rids.collect(),
            media_pts: vec![96],
            rtx_pts: vec![97],
            extensions: extensions.into_iter().collect(),
            ..BinderSection::default()
        };
        let camera = Vp8Publisher::new(camera, clock.now());
        Self::with(clock, camera, (Codec::Vp8, section), up, seed)
    }
}

impl Call<Vp9Publisher> {
    /// The same of a camera whose layers build on each other.
    pub fn scalable(camera: Vp9Config, up: LinkConfig, seed: u64) -> Self {
        let clock = Clock::new();
        let (id, mid) = camera.mid.clone();
        let section = BinderSection {
            mid,
            media_pts: vec![98],
            rtx_pts: vec![99],
            extensions: [(ExtensionKind::Mid, id)].into_iter().collect(),
            ..BinderSection::default()
        };
        let camera = Vp9Publisher::new(camera, clock.now());
        Self::with(clock, camera, (Codec::Vp9, section), up, seed)
    }
}

impl<C: Camera> Call<C> {
    fn with(
        clock: Clock,
        camera: C,
        (codec, section): (Codec, BinderSection),
        up: LinkConfig,
        seed: u64,
    ) -> Self {
        let codec = ReceivePayloadType {
            pt: section.media_pts[0],
            codec,
            clock_rate: 90_000,
            rtx_pt: section.rtx_pts.first().copied(),
        };
        let track = TrackReceiver::new(TrackReceiverConfig {
            kind: MediaKind::Video,
            payload_types: vec![codec],
            extensions: section.extensions,
            nack: true,
            encrypted: false,
            screen_share: false,
        });
        let mut binder = StreamBinder::default();
        binder.configure(vec![section]);
        Self {
            camera,
            up: Link::new(up, seed),
            up_back: Link::new(LinkConfig::default(), seed + 1),
            track,
            viewers: Vec::new(),
            microphone: None,
            source: Source::Live,
            codec,
            binder,
            pool: BodyPool::new(4_096),
            history: TrackHistory::new(MediaKind::Video),
            next_report: clock.now() + REPORT_INTERVALS.0,
            clock,
            seed,
        }
    }

    /// Puts a microphone beside the camera. Who joins afterwards hears it.
    pub fn with_microphone(mut self) -> Self {
        self.microphone = Some(Microphone::new(self.clock.now()));
        self
    }

    /// Remembers what comes from the publisher.
    pub fn tape(&mut self) {
        self.source = Source::Taped(Vec::new());
    }

    /// What came from the publisher since [`tape`](Self::tape), with the time after the start.
    pub fn taken_tape(&mut self) -> Vec<(Duration, Vec<u8>)> {
        match std::mem::replace(&mut self.source, Source::Live) {
            Source::Taped(tape) => tape,
            _ => Vec::new(),
        }
    }

    /// Lets this come from the publisher, whatever it is told.
    pub fn replay(&mut self, tape: Vec<(Duration, Vec<u8>)>) {
        self.source = Source::Replayed(tape.into());
    }

    /// Adds a viewer behind a link of this kind; returns its index.
    pub fn join(&mut self, link: LinkConfig) -> usize {
        let now = self.clock.now();
        let index = self.viewers.len();
        let ssrc = 10_000 + index as u32 * 10;
        let config = DownTrackConfig {
            kind: MediaKind::Video,
            codec: self.codec.codec,
            clock_rate: 90_000,
            ssrc,
            pt: 96,
            rtx: Some((ssrc + 1, 97)),
            encrypted: false,
            first_seq: 65_400u16.wrapping_add(index as u16 * 77),
            first_rtx_seq: 65_500,
            live_layers: self.track.live_layers(),
        };
        let seed = self.seed + 100 + index as u64 * 2;
        let ids = VideoReceiverConfig {
            codec: self.codec.codec,
            ssrc,
            rtx_ssrc: ssrc + 1,
            rtt: link.delay * 2 + ms(20),
        };
        let mut down = DownTrack::new(config, DownTrackSettings::default(), now);
        // What report blocks would tell.
        down.set_rtt(link.delay * 2);
        self.viewers.push(Viewer {
            down,
            receiver: VideoReceiver::new(ids, now),
            link: Link::new(link, seed),
            back: Link::new(LinkConfig { delay: link.delay, ..LinkConfig::default() }, seed + 1),
            control: None,
            listener: self.microphone.is_some().then(|| Listener::new(ssrc + 5, now)),
            record: None,
            next_report: now + ms(500),
        });
        index
    }

    /// Adds a viewer with congestion control.
    pub fn join_controlled(&mut self, link: LinkConfig, allow_pause: bool) -> usize {
        self.join_with(link, allow_pause, BweConfig::default())
    }

    /// The same with other limits of the estimate.
    pub fn join_with(&mut self, link: LinkConfig, allow_pause: bool, bwe: BweConfig) -> usize {
        let index = self.join(link);
        let control = control::Control::new(allow_pause, bwe, self.clock.now());
        self.viewers[index].control = Some(control);
        index
    }

    /// Changes what a viewer wants.
    pub fn want(&mut self, viewer: usize, settings: DownTrackSettings) {
        self.viewers[viewer].down.set_settings(self.clock.now(), settings);
    }

    /// Runs until this long after the start.
    pub fn run_until(&mut self, end: Duration) {
        let end = self.clock.at(end);
        while self.clock.now() < end {
            self.step();
            let next = self.next_event().unwrap_or(end);
            self.clock.advance_to(next.max(self.clock.now() + STEP).min(end));
        }
    }

    /// The same at every millisecond, whatever is due: runs with other viewers then look at this one
    /// at the same moments.
    pub fn tick_until(&mut self, end: Duration) {
        let end = self.clock.at(end);
        while self.clock.now() < end {
            self.step();
            self.clock.advance_to(self.clock.now() + STEP);
        }
    }

    /// Runs for this long.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.clock.elapsed() + duration);
    }

    /// Runs on; milliseconds until the viewer was at most on the layer to stay, and on it to stay.
    pub fn settle(&mut self, viewer: usize, layer: u8, total: u64) -> (Option<u64>, Option<u64>) {
        self.settle_watched(viewer, layer, total, |_| {})
    }

    /// The same, with a look at the viewer each 50 ms.
    pub fn settle_watched(
        &mut self,
        viewer: usize,
        layer: u8,
        total: u64,
        mut look: impl FnMut(&Viewer),
    ) -> (Option<u64>, Option<u64>) {
        let (mut below, mut since, mut above) = (None, None, 0);
        for step in 1..=total / 50 {
            self.run_for(ms(50));
            look(&self.viewers[viewer]);
            let current = self.viewers[viewer].down.current_layer();
            match current <= Some(layer) {
                true => {
                    above = 0;
                    below.get_or_insert(step * 50);
                }
                false => above += 50,
            }
            if above > ATTEMPT_MS {
                below = None;
            }
            match current == Some(layer) {
                true => _ = since.get_or_insert(step * 50),
                false => since = None,
            }
        }
        (below, since)
    }

    /// What the forwarding did wrong to any viewer.
    pub fn violations(&self) -> Vec<String> {
        let of = |(i, v): (usize, &Viewer)| {
            let heard = v.listener.iter().flat_map(|listener| listener.receiver.violations());
            let all = v.receiver.violations().iter().cloned().chain(heard);
            all.map(move |text| format!("viewer {i}: {text}")).collect()
        };
        self.viewers.iter().enumerate().flat_map(|item| -> Vec<String> { of(item) }).collect()
    }

    /// Layers of the frames that a viewer decoded, from a time on, each once per run.
    pub fn layers_seen(&self, viewer: usize, from: Duration) -> Vec<u8> {
        let from = self.clock.at(from);
        let decoded = self.viewers[viewer].receiver.decoded().iter().filter(|f| f.at >= from);
        let mut layers: Vec<u8> = decoded.map(|frame| frame.stamp.layer).collect();
        layers.dedup();
        layers
    }

    fn step(&mut self) {
        let now = self.clock.now();
        let mut packets = Vec::new();
        self.camera.poll(&self.clock, &mut packets);
        if let Some(microphone) = &mut self.microphone {
            microphone.publisher.poll(&self.clock, &mut packets);
        }
        packets.drain(..).for_each(|packet| self.up.send(now, packet));
        while let Some(packet) = self.next_from_publisher(now) {
            if rtcp::is_rtcp(&packet) {
                self.on_publisher_rtcp(now, &packet);
            } else if sound::is_of_microphone(&packet) {
                self.on_microphone_rtp(now, &packet);
            } else {
                self.on_camera_rtp(now, &packet);
            }
        }
        for index in 0..self.viewers.len() {
            self.step_viewer(now, index);
        }
        self.send_to_camera(now);
        while let Some(packet) = self.up_back.poll(now) {
            self.camera.on_rtcp(&packet);
        }
    }

    fn next_from_publisher(&mut self, now: Instant) -> Option<Vec<u8>> {
        let since_start = self.clock.elapsed();
        let live = self.up.poll(now);
        match &mut self.source {
            Source::Live => live,
            Source::Taped(tape) => {
                tape.extend(live.iter().map(|packet| (since_start, packet.clone())));
                live
            }
            Source::Replayed(tape) => {
                let is_due = tape.front().is_some_and(|(at, _)| *at <= since_start);
                is_due.then(|| tape.pop_front()).flatten().map(|(_, packet)| packet)
            }
        }
    }

    fn on_microphone_rtp(&mut self, now: Instant, bytes: &[u8]) {
        let Some(packet) = self.microphone.as_mut().and_then(|m| m.receive(now, bytes)) else {
            return;
        };
        let at = self.clock.elapsed();
        self.viewers.iter_mut().for_each(|viewer| viewer.hear(now, at, &packet));
    }

    fn on_camera_rtp(&mut self, now: Instant, bytes: &[u8]) {
        let view = RtpView::parse(bytes).expect("the simulated camera writes RTP");
        let Ok(binding) = self.binder.resolve(&view) else { return };
        let Ok(packet) = self.track.on_rtp(now, binding, &view, &mut self.pool) else { return };
        self.history.push(&packet);
        for viewer in &mut self.viewers {
            if let Some(control) = &mut viewer.control {
                control.measure(now, &packet);
            }
            if let Some(forwarded) = viewer.down.forward(now, &packet) {
                if let Some(record) = &mut viewer.record {
                    let (stream, source) = (packet.stream, packet.timestamp);
                    let at = self.clock.elapsed();
                    record.video.push(Sent { at, stream, source, target: forwarded.timestamp });
                }
                let bytes = write_rtp(&viewer.down, &packet, &forwarded, None);
                viewer.send(now, bytes, Urgency::Video);
            }
        }
    }

    fn on_publisher_rtcp(&mut self, now: Instant, compound: &[u8]) {
        for packet in RtcpIter::new(compound).flatten() {
            let Rtcp::SenderReport(report) = packet else { continue };
            if let Some(report) = self.track.on_sender_report(now, &report.info) {
                self.viewers.iter_mut().for_each(|v| v.down.on_source_report(report));
            }
            let of_sound = |m: &mut Microphone| m.track.on_sender_report(now, &report.info);
            if let Some(report) = self.microphone.as_mut().and_then(of_sound) {
                let listeners = self.viewers.iter_mut().filter_map(|v| v.listener.as_mut());
                listeners.for_each(|listener| listener.down.on_source_report(report));
            }
        }
    }

    fn step_viewer(&mut self, now: Instant, index: usize) {
        let viewer = &mut self.viewers[index];
        let since_start = self.clock.elapsed();
        if now >= viewer.next_report {
            viewer.next_report = now + REPORT_INTERVALS.1;
            viewer.report(now, since_start);
        }
        while let Some(packet) = viewer.link.poll(now) {
            if let Some(record) = &mut viewer.record {
                record.arrived.push((since_start, packet.clone()));
            }
            match &mut viewer.listener {
                Some(listener) if listener.is_for(&packet) => listener.on_rtp(now, &packet),
                _ => viewer.receiver.on_rtp(now, &packet),
            }
            if let Some(control) = &mut viewer.control {
                control.feedback.on_rtp(now, now, &packet);
            }
        }
        let mut packets = Vec::new();
        if let Some(control) = &mut viewer.control {
            control.feedback.poll(now, &mut packets);
        }
        viewer.receiver.poll(now, &mut packets);
        packets.drain(..).for_each(|packet| viewer.back.send(now, packet));
        while let Some(compound) = viewer.back.poll(now) {
            on_viewer_rtcp(now, &compound, viewer, &self.history, &mut self.track);
        }
        if let Some(control) = &mut viewer.control {
            let sound = viewer.listener.as_mut().map(|listener| &mut listener.down);
            control.step(now, &mut viewer.down, sound, &self.history, &mut viewer.link);
        }
        if let Some(layer) = viewer.down.poll_key_frame_request(now) {
            self.track.request_key_frame(layer);
        }
    }

    fn send_to_camera(&mut self, now: Instant) {
        let up_back = &mut self.up_back;
        self.track.handle_timeout(now);
        self.track.poll_nacks(now, |ssrc, seqs| {
            let mut packet = Vec::new();
            write::nack(&mut packet, 1, ssrc, seqs.iter().copied());
            up_back.send(now, packet);
        });
        self.track.poll_key_frame_requests(now, |ssrc| {
            let mut packet = Vec::new();
            write::pli(&mut packet, 1, ssrc);
            up_back.send(now, packet);
        });
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVALS.0;
            let (mut blocks, mut packet) = (Vec::new(), Vec::new());
            self.track.report_blocks(now, &mut blocks);
            write::receiver_report(&mut packet, 1, &blocks);
            up_back.send(now, packet);
        }
    }

    fn next_event(&self) -> Option<Instant> {
        let viewers = self.viewers.iter().flat_map(|viewer| {
            [
                viewer.link.poll_timeout(),
                viewer.back.poll_timeout(),
                viewer.receiver.poll_timeout(),
                viewer.down.poll_timeout(),
                viewer.control.as_ref().and_then(control::Control::poll_timeout),
            ]
        });
        let microphone = self.microphone.as_ref().map(|m| m.publisher.poll_timeout());
        let others = [
            microphone,
            Some(self.camera.poll_timeout()),
            self.up.poll_timeout(),
            self.up_back.poll_timeout(),
            self.track.poll_timeout(),
            Some(self.next_report),
        ];
        others.into_iter().chain(viewers).flatten().min()
    }
}

fn on_viewer_rtcp(
    now: Instant,
    compound: &[u8],
    viewer: &mut Viewer,
    history: &TrackHistory,
    track: &mut TrackReceiver,
) {
    for packet in RtcpIter::new(compound).flatten() {
        match packet {
            Rtcp::Nack(nack) => {
                let mut out = Vec::new();
                let control = &mut viewer.control;
                let admit = |len| control.as_mut().is_none_or(|c| c.may_retransmit(now, len));
                viewer.down.on_nack(now, nack.seqs(), history, admit, |resend| out.push(resend));
                for resend in out {
                    let (packet, forwarded) = (resend.packet, &resend.forwarded);
                    let bytes = write_rtp(&viewer.down, packet, forwarded, resend.rtx_seq);
                    viewer.send(now, bytes, Urgency::Immediate);
                }
            }
            Rtcp::TransportCc(feedback) => {
                if let Some(control) = &mut viewer.control {
                    control.on_feedback(now, &feedback);
                }
            }
            Rtcp::Pli(_) => {
                if let Some(layer) = viewer.down.on_key_frame_request(now) {
                    track.request_key_frame(layer);
                }
            }
            _ => {}
        }
    }
}
