//! Micro-benchmarks of the steps that every packet takes, in the order of the packet path.

// A program of the wall clock.
#![allow(clippy::disallowed_methods, missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sluice_engine::rig::{Rig, RigConfig};
use sluice_net::{SendArena, equalize};
use sluice_rtp::codec::{Codec, MediaKind, PayloadInfo};
use sluice_rtp::{ExtensionKind, ExtensionMap, RtpHeaderWriter, RtpView};
use sluice_sfu::allocator::{Allocator, AllocatorConfig, StreamDemand, StreamKind};
use sluice_sfu::meter::LayerRates;
use sluice_sfu::{
    BodyPool, DownTrack, DownTrackConfig, DownTrackSettings, MediaPacket, ReceivePayloadType,
    StreamBinding, TrackHistory, TrackReceiver, TrackReceiverConfig, TwccReceiver,
};
use sluice_transport::srtp::{
    SrtpProfile, SrtpReceiver, SrtpSender, StreamSlot, split_keying_material,
};

/// Payload of a full video packet, bytes.
const PAYLOAD: usize = 1150;
/// Id of the transport-wide sequence number extension.
const TWCC_ID: u8 = 3;
/// The only stream of a track without simulcast.
const BINDING: StreamBinding = StreamBinding { section: 0, layer: 0, rtx: false };

/// A VP8 packet: whole frames of one packet, the first a key frame.
fn packet(number: u32) -> Vec<u8> {
    let mut bytes = vec![0xA5; 2048];
    let header = RtpHeaderWriter {
        marker: true,
        payload_type: 96,
        sequence_number: number as u16,
        timestamp: number.wrapping_mul(3000),
        ssrc: 7,
        padding: false,
    };
    let twcc = (number as u16).to_be_bytes();
    let len = header.write(&[(TWCC_ID, &twcc)], &mut bytes).expect("the buffer is large enough");
    let picture_id = (0x8000 | number as u16 & 0x7FFF).to_be_bytes();
    let descriptor = [0x90, 0xE0, picture_id[0], picture_id[1], number as u8, 0];
    bytes[len..len + 6].copy_from_slice(&descriptor);
    let frame = if number == 0 { [0x10, 0x02, 0x00] } else { [0x11, 0x02, 0x00] };
    bytes[len + 6..len + 9].copy_from_slice(&frame);
    bytes.truncate(len + PAYLOAD);
    bytes
}

fn parse(c: &mut Criterion) {
    let bytes = packet(1);
    c.bench_function("parse header and find an extension", |b| {
        b.iter(|| {
            let view = RtpView::parse(black_box(&bytes)).expect("a valid packet");
            (view.ssrc(), view.extension(TWCC_ID).map(<[u8]>::len))
        });
    });
    c.bench_function("inspect VP8 payload", |b| {
        let view = RtpView::parse(&bytes).expect("a valid packet");
        b.iter(|| PayloadInfo::inspect(Codec::Vp8, black_box(view.payload()), true));
    });
}

fn srtp_pair(profile: SrtpProfile) -> (SrtpSender, SrtpReceiver) {
    let material = vec![0x42; profile.keying_material_len()];
    let (key, _) = split_keying_material(profile, &material).expect("the right length");
    let sender = SrtpSender::new(profile, &key).expect("a valid key");
    (sender, SrtpReceiver::new(profile, &key).expect("a valid key"))
}

/// Copies and seals packets of one stream; returns their length.
fn sealer(mut sender: SrtpSender) -> impl FnMut(&mut Vec<u8>) -> usize {
    let template = packet(0);
    let header_len = RtpView::parse(&template).expect("a valid packet").header_len();
    let len = template.len();
    let (mut number, mut slot) = (0u16, StreamSlot::default());
    move |buffer| {
        buffer.clear();
        buffer.extend_from_slice(&template);
        buffer.resize(len + 16, 0);
        buffer[2..4].copy_from_slice(&number.to_be_bytes());
        number = number.wrapping_add(1);
        sender.seal_rtp(&mut slot, buffer, header_len, len).expect("a fresh index")
    }
}

fn srtp(c: &mut Criterion) {
    for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmSha1_80] {
        let (sender, _) = srtp_pair(profile);
        let mut seal = sealer(sender);
        let mut buffer = Vec::with_capacity(2048);
        c.bench_function(&format!("copy and seal, {}", profile.as_str()), |b| {
            b.iter(|| seal(&mut buffer));
        });
        // A receiver that missed the first packets would not know the rollover counter.
        let (sender, mut receiver) = srtp_pair(profile);
        let mut seal = sealer(sender);
        c.bench_function(&format!("open, {}", profile.as_str()), |b| {
            b.iter_batched(
                || {
                    let mut sealed = Vec::with_capacity(2048);
                    let len = seal(&mut sealed);
                    sealed.truncate(len);
                    sealed
                },
                |mut sealed| receiver.open_rtp(&mut sealed).expect("authentic"),
                BatchSize::SmallInput,
            );
        });
    }
}

fn receiver() -> TrackReceiver {
    let mut extensions = ExtensionMap::default();
    extensions.insert(ExtensionKind::TransportCc, TWCC_ID);
    TrackReceiver::new(TrackReceiverConfig {
        kind: MediaKind::Video,
        payload_types: vec![ReceivePayloadType {
            pt: 96,
            codec: Codec::Vp8,
            clock_rate: 90_000,
            rtx_pt: Some(97),
        }],
        extensions,
        nack: true,
        encrypted: false,
        screen_share: false,
    })
}

fn down_track(now: Instant) -> DownTrack {
    let config = DownTrackConfig {
        kind: MediaKind::Video,
        codec: Codec::Vp8,
        clock_rate: 90_000,
        ssrc: 42,
        pt: 96,
        rtx: Some((43, 97)),
        encrypted: false,
        first_seq: 1000,
        first_rtx_seq: 1,
        live_layers: [0].into_iter().collect(),
    };
    DownTrack::new(config, DownTrackSettings::default(), now)
}

/// A publisher's packets at 30 per second, as they come out of its track.
struct Source {
    receiver: TrackReceiver,
    pool: BodyPool,
    now: Instant,
    number: u32,
}

impl Source {
    fn new() -> Self {
        Self { receiver: receiver(), pool: BodyPool::new(4096), now: Instant::now(), number: 0 }
    }

    fn next(&mut self) -> MediaPacket {
        let bytes = packet(self.number);
        self.take(&bytes)
    }

    fn take(&mut self, bytes: &[u8]) -> MediaPacket {
        self.number += 1;
        self.now += Duration::from_millis(33);
        let view = RtpView::parse(bytes).expect("a valid packet");
        self.receiver.on_rtp(self.now, BINDING, &view, &mut self.pool).expect("in order")
    }
}

fn sfu(c: &mut Criterion) {
    c.bench_function("receive: place, store the body, inspect", |b| {
        let mut source = Source::new();
        let mut bytes = packet(0);
        source.take(&bytes);
        b.iter(|| {
            let number = source.number;
            bytes[2..4].copy_from_slice(&(number as u16).to_be_bytes());
            bytes[4..8].copy_from_slice(&number.wrapping_mul(3000).to_be_bytes());
            source.take(&bytes)
        });
    });
    c.bench_function("keep in the history", |b| {
        let mut source = Source::new();
        let mut history = TrackHistory::new(MediaKind::Video);
        b.iter_batched(|| source.next(), |packet| history.push(&packet), BatchSize::SmallInput);
    });
    c.bench_function("forward to one receiver: select and munge", |b| {
        let mut source = Source::new();
        let mut down = down_track(source.now);
        let first = source.next();
        assert!(down.forward(source.now, &first).is_some(), "the key frame goes out");
        b.iter_batched(
            || (source.next(), source.now),
            |(packet, now)| down.forward(now, &packet).is_some(),
            BatchSize::SmallInput,
        );
    });
    c.bench_function("answer a NACK of four packets", |b| {
        b.iter_batched(
            || {
                let mut source = Source::new();
                let mut down = down_track(source.now);
                let mut history = TrackHistory::new(MediaKind::Video);
                for _ in 0..40 {
                    let packet = source.next();
                    history.push(&packet);
                    down.forward(source.now, &packet);
                }
                (down, history, source.now)
            },
            |(mut down, history, now)| {
                let mut sent = 0;
                down.on_nack(now, [1010, 1011, 1012, 1013], &history, |_| true, |_| sent += 1);
                (down, history, sent)
            },
            BatchSize::LargeInput,
        );
    });
}

fn feedback(c: &mut Criterion) {
    c.bench_function("note an arrival for transport-wide feedback", |b| {
        let mut twcc = TwccReceiver::new(1);
        let (mut now, mut seq, mut out) = (Instant::now(), 0u16, Vec::new());
        b.iter(|| {
            now += Duration::from_micros(500);
            seq = seq.wrapping_add(1);
            twcc.on_packet(now, 7, seq);
            out.clear();
            twcc.poll(now, &mut out);
            out.len()
        });
    });
    c.bench_function("cut 32 datagrams into GSO runs", |b| {
        let mut arena = SendArena::new(64 * 1024);
        for at in 0..32 {
            // The last packets of each frame of eight are one byte larger.
            arena.commit(1180 + usize::from(at % 8 > 4));
        }
        b.iter(|| black_box(&arena).runs(64).count());
    });
    c.bench_function("equalize the lengths of 32 datagrams", |b| {
        let lens: [u16; 32] = std::array::from_fn(|at| 1180 + u16::from(at % 8 > 4));
        b.iter(|| {
            let mut lens = black_box(lens);
            equalize(&mut lens);
            lens[0]
        });
    });
}

/// The whole way of packets through a worker, without sockets: those of a moment come and leave.
fn worker(c: &mut Criterion) {
    for (name, kind, publishers, receivers, idle, rounds) in [
        ("worker: a frame of 5 video packets to 50 receivers", MediaKind::Video, 1, 50, 0, 5),
        ("worker: 10 audio packets to 50 receivers each", MediaKind::Audio, 10, 50, 0, 1),
        ("worker: a packet among 10,000 peers, to nobody", MediaKind::Audio, 1, 0, 9_999, 1),
    ] {
        c.bench_function(name, |b| {
            let egress_hold = Duration::from_millis(2);
            let mut rig = Rig::new(RigConfig { publishers, receivers, idle, kind, egress_hold });
            let mut moment = || {
                for _ in 0..rounds {
                    rig.round(Duration::from_micros(200));
                }
                rig.pass(Duration::from_millis(19));
            };
            (0..500).for_each(|_| moment());
            b.iter(moment);
        });
    }
}

fn allocation(c: &mut Criterion) {
    let kbps =
        |low: u64, middle: u64, high: u64| [low * 1000, middle * 1000, high * 1000, high * 1000];
    let rates = LayerRates([kbps(75, 110, 150), kbps(250, 375, 500), kbps(850, 1_275, 1_700)]);
    c.bench_function("allocate 25 cameras to a changed estimate", |b| {
        let mut allocator = Allocator::new(AllocatorConfig { allow_pause: false });
        for camera in 0..25 {
            let demand = StreamDemand {
                kind: StreamKind::Camera,
                priority: 0,
                enabled: true,
                max_spatial: 2,
                max_temporal: 3,
                rates,
            };
            allocator.set_stream(camera, demand);
        }
        let (mut now, mut estimate) = (Instant::now(), 5_000_000);
        b.iter(|| {
            now += Duration::from_millis(100);
            estimate = if estimate > 10_000_000 { 3_000_000 } else { estimate + 700_000 };
            allocator.set_estimate(Some((estimate, estimate)));
            let mut changes = 0;
            allocator.allocate(now, |_| changes += 1);
            changes
        });
    });
}

criterion_group!(hot_path, parse, srtp, sfu, feedback, allocation, worker);
criterion_main!(hot_path);
