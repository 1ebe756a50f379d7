//! `str0m` as a whole: its estimator is private, so that it comes with its own pacer, padding,
//! probes and feedback, in two connections, one at each end of the link.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_sfu::bwe::BweConfig;
use sluice_sim::{Clock, Link};
use str0m::bwe::Bitrate;
use str0m::format::Codec;
use str0m::media::{MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::Contestant;
use crate::congestion::{Bottleneck, FlowConfig, Path, Source, ms, way_back};

const SENDER: &str = "10.0.0.1:5000";
const RECEIVER: &str = "10.0.0.2:5000";
/// SSRC of the first flow's camera, and distance to that of the next.
const FIRST_SSRC: u32 = 100;
const SSRC_STEP: u32 = 2;
/// How often the estimate is read. The event of it is an average over three seconds.
const READ_INTERVAL: Duration = Duration::from_millis(50);
/// Shortest step of time: between two packets of its pacer.
const TICK: Duration = Duration::from_micros(1);

/// One of the two connections of a flow.
struct End {
    rtc: Rtc,
    local: SocketAddr,
    remote: SocketAddr,
    wake: Instant,
    estimate_bps: Option<u64>,
}

impl End {
    fn new(rtc: Rtc, local: &str, remote: &str, now: Instant) -> Self {
        let [local, remote] = [local, remote].map(|text| text.parse().expect("an address"));
        let mut end = Self { rtc, local, remote, wake: now, estimate_bps: None };
        let host = |addr| Candidate::host(addr, "udp").expect("a candidate");
        end.rtc.add_local_candidate(host(local));
        end.rtc.add_remote_candidate(host(remote));
        end
    }

    fn receive(&mut self, now: Instant, packet: &[u8], sent: &mut Vec<Vec<u8>>) {
        let contents = packet.try_into().expect("a datagram");
        let (source, destination) = (self.remote, self.local);
        let receive = Receive { proto: Protocol::Udp, source, destination, contents };
        self.rtc.handle_input(Input::Receive(now, receive)).expect("alive");
        self.drain(now, sent);
    }

    /// Does what is due.
    fn run(&mut self, now: Instant, sent: &mut Vec<Vec<u8>>) {
        if self.wake <= now {
            self.rtc.handle_input(Input::Timeout(now)).expect("alive");
            self.drain(now, sent);
        }
    }

    fn drain(&mut self, now: Instant, sent: &mut Vec<Vec<u8>>) {
        loop {
            match self.rtc.poll_output().expect("alive") {
                Output::Timeout(at) => return self.wake = at.max(now + TICK),
                Output::Transmit(transmit) => sent.push(transmit.contents.to_vec()),
                Output::Event(Event::PeerStats(stats)) => {
                    self.estimate_bps = stats.bwe_tx.map(|bitrate| bitrate.as_u64());
                }
                Output::Event(_) => {}
            }
        }
    }
}

/// A sender and a receiver over a link.
pub(crate) struct Str0mFlow {
    clock: Clock,
    /// How long connecting took, which is not part of the flow's time.
    connecting: Duration,
    sender: End,
    receiver: End,
    path: Path,
    back: Link,
    source: Source,
    config: FlowConfig,
    ssrc: u32,
    pt: Pt,
    seq: u64,
}

impl Str0mFlow {
    pub(crate) fn new(
        bottleneck: &Bottleneck,
        config: FlowConfig,
        clock: Clock,
        seed: u64,
    ) -> Self {
        let now = clock.now();
        let start_bps = BweConfig::default().start_bps;
        let builder = Rtc::builder().set_rtp_mode(true);
        let sending = builder
            .clone()
            .enable_bwe(Some(Bitrate::bps(start_bps)))
            .set_stats_interval(Some(READ_INTERVAL));
        let mut sender = End::new(sending.build(now), SENDER, RECEIVER, now);
        let mut receiver = End::new(builder.build(now), RECEIVER, SENDER, now);
        let connecting = connect(&mut sender, &mut receiver, now);
        let path = bottleneck.path(now);
        let ssrc = FIRST_SSRC + SSRC_STEP * path.flow() as u32;
        let pt = announce(&mut sender.rtc, &mut receiver.rtc, ssrc);
        sender.rtc.bwe().set_bitrate(Bitrate::ZERO, Bitrate::bps(config.desired_bps));
        let mut quiet = Vec::new();
        sender.drain(now + connecting, &mut quiet);
        receiver.drain(now + connecting, &mut quiet);
        sender.estimate_bps = Some(start_bps);
        Self {
            clock,
            connecting,
            sender,
            receiver,
            back: Link::new(way_back(path.config()), seed + 1),
            path,
            source: Source::new(config.shape, now, seed + 2),
            config,
            ssrc,
            pt,
            seq: 0,
        }
    }

    fn step(&mut self) {
        let now = self.clock.now();
        let own = now + self.connecting;
        let mut sent = Vec::new();
        while let Some(delivery) = self.path.poll(now) {
            self.receiver.receive(own, &delivery.packet, &mut sent);
        }
        self.receiver.run(own, &mut sent);
        sent.drain(..).for_each(|packet| self.back.send(now, packet));
        while let Some(packet) = self.back.poll(now) {
            self.sender.receive(own, &packet, &mut sent);
        }
        self.sender.run(own, &mut sent);
        for size in self.source.poll(now, self.estimate_bps().min(self.config.desired_bps)) {
            self.write(own, size);
            self.sender.drain(own, &mut sent);
        }
        sent.drain(..).for_each(|packet| self.path.send(now, packet));
    }

    fn write(&mut self, now: Instant, size: usize) {
        self.seq += 1;
        let time = (self.seq * 3_000) as u32;
        let mut api = self.sender.rtc.direct_api();
        let stream = api.stream_tx(&Ssrc::from(self.ssrc)).expect("announced");
        let packet = RtpWrite::new(self.pt, self.seq.into(), time, now, vec![0; size]);
        // Padding repeats what may be repeated.
        stream.write_rtp(packet.nackable(true));
    }

    fn next_event(&self) -> Instant {
        let own = self.sender.wake.min(self.receiver.wake) - self.connecting;
        let links = [self.path.poll_timeout(), self.back.poll_timeout()];
        let link = links.into_iter().flatten().min().unwrap_or(own);
        own.min(link).min(self.source.poll_timeout())
    }
}

impl Contestant for Str0mFlow {
    fn run_for(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            self.step();
            let next = self.next_event().max(self.clock.now() + TICK).min(end);
            self.clock.advance_to(next);
        }
    }

    fn estimate_bps(&self) -> u64 {
        self.sender.estimate_bps.expect("set at the start")
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn path(&mut self) -> &mut Path {
        &mut self.path
    }
}

/// Connects the two without any network between them; how long it took.
fn connect(sender: &mut End, receiver: &mut End, now: Instant) -> Duration {
    let prints = [&mut *sender, &mut *receiver]
        .map(|end| end.rtc.direct_api().local_dtls_fingerprint().clone());
    let [of_sender, of_receiver] = prints;
    sender.rtc.direct_api().set_remote_fingerprint(of_receiver);
    receiver.rtc.direct_api().set_remote_fingerprint(of_sender);
    let creds = receiver.rtc.direct_api().local_ice_credentials();
    sender.rtc.direct_api().set_remote_ice_credentials(creds);
    let creds = sender.rtc.direct_api().local_ice_credentials();
    receiver.rtc.direct_api().set_remote_ice_credentials(creds);
    for (end, first) in [(&mut *sender, true), (&mut *receiver, false)] {
        let mut api = end.rtc.direct_api();
        api.set_ice_controlling(first);
        api.start_dtls(first).expect("DTLS starts");
    }
    let mut took = Duration::ZERO;
    let (mut there, mut back) = (Vec::new(), Vec::new());
    while !(sender.rtc.is_connected() && receiver.rtc.is_connected()) {
        assert!(took < Duration::from_secs(5), "they do not connect");
        took += ms(1);
        let at = now + took;
        sender.run(at, &mut there);
        there.drain(..).for_each(|packet| receiver.receive(at, &packet, &mut back));
        receiver.run(at, &mut back);
        back.drain(..).for_each(|packet| sender.receive(at, &packet, &mut there));
    }
    took
}

/// Announces a camera to both ends; its payload type.
fn announce(sender: &mut Rtc, receiver: &mut Rtc, ssrc: u32) -> Pt {
    let mid = Mid::from("camera");
    let rtx = Some(Ssrc::from(ssrc + 1));
    let mut api = sender.direct_api();
    api.declare_media(mid, MediaKind::Video);
    api.declare_stream_tx(ssrc.into(), rtx, mid, None);
    let mut api = receiver.direct_api();
    api.declare_media(mid, MediaKind::Video);
    api.enable_twcc_feedback();
    // Nobody repairs losses here: what is repeated says nothing of an estimate.
    api.expect_stream_rx(ssrc.into(), rtx, mid, None).suppress_nack(true);
    let vp8 = sender.codec_config().find(|params| params.spec().codec == Codec::Vp8);
    vp8.expect("VP8 is a default").pt()
}
