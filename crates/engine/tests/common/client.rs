//! A real WebRTC client on a loopback socket, without SDP.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use sluice_engine::api::{AnnouncedSsrc, PeerId, ReceiveSection};
use sluice_net::FrameDecoder;
use sluice_net::framing::encode_frame;
use sluice_rtp::codec::MediaKind;
use sluice_transport::{
    Fingerprint, HashAlgorithm, IceCredentials, RemoteParams, SctpParams, Setup, TransportProto,
};
use str0m::media::{MediaKind as ClientKind, Mid, Rid};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::{AbsCaptureTime, Extension, ExtensionValues, RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, IceCreds, Input, Output, Rtc};

/// Datagrams that a client takes per turn.
const MAX_BATCH: usize = 16;

/// Time between a client's RTCP reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub struct Stream {
    pub ssrc: u32,
    pub rtx: Option<u32>,
    pub rid: Option<String>,
}

impl Stream {
    pub fn announced(&self) -> AnnouncedSsrc {
        AnnouncedSsrc { ssrc: self.ssrc, rtx_ssrc: self.rtx }
    }
}

enum Wire {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, decoder: FrameDecoder },
}

/// A datagram passes unless the filter says no.
pub type Filter = Box<dyn FnMut(&[u8]) -> bool>;

/// A real WebRTC client on a loopback socket.
pub struct Client {
    pub peer: PeerId,
    pub rtc: Rtc,
    pub remote: RemoteParams,
    pub server: SocketAddr,
    pub local: SocketAddr,
    wire: Wire,
    wake: Instant,
    ended: bool,
    next_mid: u32,
    next_ssrc: u32,
    pub sections: Vec<ReceiveSection>,
    pub events: Vec<str0m::Event>,
    pub packets: Vec<RtpPacket>,
    /// What the packets to come say of their capture.
    pub captured: Option<AbsCaptureTime>,
    /// Of datagrams to the server.
    pub outgoing: Filter,
    /// Of datagrams from the server.
    pub incoming: Filter,
}

impl Client {
    pub fn new(
        peer: PeerId,
        server: SocketAddr,
        proto: TransportProto,
        creds: IceCredentials,
        fingerprint: &Fingerprint,
    ) -> Self {
        let now = Instant::now();
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .enable_pcma(true, false)
            .set_extension(5, Extension::PlayoutDelay)
            .set_extension(7, Extension::AbsoluteCaptureTime)
            .set_rtcp_report_interval_audio(REPORT_INTERVAL)
            .set_rtcp_report_interval_video(REPORT_INTERVAL)
            .build(now);
        let (wire, local) = match proto {
            TransportProto::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
                socket.set_nonblocking(true).expect("a socket option");
                let local = socket.local_addr().expect("bound");
                rtc.add_local_candidate(Candidate::host(local, "udp").expect("a candidate"));
                rtc.add_remote_candidate(Candidate::host(server, "udp").expect("a candidate"));
                (Wire::Udp(socket), local)
            }
            TransportProto::Tcp => {
                let stream = TcpStream::connect(server).expect("connects");
                stream.set_nonblocking(true).expect("a socket option");
                let local = stream.local_addr().expect("bound");
                let tcp = |addr, kind| {
                    Candidate::builder().tcp().host(addr).tcptype(kind).build().expect("candidate")
                };
                rtc.add_local_candidate(tcp(local, TcpType::Active));
                rtc.add_remote_candidate(tcp(server, TcpType::Passive));
                (Wire::Tcp { stream, decoder: FrameDecoder::new(8192) }, local)
            }
        };
        let mut api = rtc.direct_api();
        let own = api.local_ice_credentials();
        api.set_remote_ice_credentials(IceCreds { ufrag: creds.ufrag, pass: creds.pwd });
        api.set_ice_controlling(true);
        api.set_remote_fingerprint(str0m::crypto::Fingerprint {
            hash_func: "sha-256".into(),
            bytes: fingerprint.digest.clone(),
        });
        let own_print = api.local_dtls_fingerprint().bytes.clone();
        api.enable_twcc_feedback();
        api.start_dtls(true).expect("DTLS starts");
        api.start_sctp(true);
        let remote = RemoteParams {
            ice: IceCredentials { ufrag: own.ufrag, pwd: own.pass },
            fingerprints: vec![Fingerprint { algorithm: HashAlgorithm::Sha256, digest: own_print }],
            setup: Setup::Active,
            sctp: Some(SctpParams { port: 5000, max_message_size: 65_535 }),
        };
        // SSRCs are unique per peer, as the control plane makes them.
        let next_ssrc = 10_000 * (1 + peer.as_u64() as u32);
        Self {
            peer,
            rtc,
            remote,
            server,
            local,
            wire,
            wake: now,
            ended: false,
            next_mid: 0,
            next_ssrc,
            sections: Vec::new(),
            events: Vec::new(),
            packets: Vec::new(),
            captured: None,
            outgoing: Box::new(|_| true),
            incoming: Box::new(|_| true),
        }
    }

    pub fn next_mid(&mut self) -> String {
        self.next_mid += 1;
        format!("m{}", self.next_mid)
    }

    pub fn declare_outgoing(&mut self, mid: &str, kind: MediaKind, rids: &[&str]) -> Vec<Stream> {
        let mid = Mid::from(mid);
        self.rtc.direct_api().declare_media(mid, client_kind(kind));
        let rids: Vec<_> = match rids {
            [] => vec![None],
            rids => rids.iter().map(|rid| Some(rid.to_string())).collect(),
        };
        let mut streams = Vec::new();
        for rid in rids {
            self.next_ssrc += 10;
            let ssrc = self.next_ssrc;
            let rtx = (kind == MediaKind::Video).then_some(ssrc + 1);
            let own_rid = rid.as_deref().map(Rid::from);
            let mut api = self.rtc.direct_api();
            api.declare_stream_tx(ssrc.into(), rtx.map(Ssrc::from), mid, own_rid);
            streams.push(Stream { ssrc, rtx, rid });
        }
        streams
    }

    pub fn declare_incoming(&mut self, mid: &str, kind: MediaKind) -> u32 {
        let mid = Mid::from(mid);
        self.next_ssrc += 10;
        let ssrc = self.next_ssrc;
        let mut api = self.rtc.direct_api();
        api.declare_media(mid, client_kind(kind));
        let rtx = (kind == MediaKind::Video).then(|| Ssrc::from(ssrc + 1));
        api.expect_stream_rx(ssrc.into(), rtx, mid, None);
        ssrc
    }

    /// Sends one RTP packet.
    pub fn write(&mut self, ssrc: u32, packet: Outgoing<'_>) {
        let now = Instant::now();
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx(&ssrc.into()).expect("a declared stream");
        stream.set_unpaced(true);
        let exts = ExtensionValues {
            audio_level: packet.level.map(|dbov| -dbov),
            voice_activity: packet.level.map(|_| true),
            abs_capture_time: self.captured,
            ..Default::default()
        };
        stream.write_rtp(
            RtpWrite::new(packet.pt.into(), packet.seq.into(), packet.ts, now, packet.payload)
                .marker(packet.marker)
                .nackable(true)
                .ext_vals(exts),
        );
        self.poll();
    }

    /// Sends raw bytes from the client's socket.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        if let Wire::Udp(socket) = &self.wire {
            socket.send_to(bytes, self.server).expect("sends");
        }
    }

    /// Packets received on a stream.
    pub fn received(&self, ssrc: u32) -> Vec<&RtpPacket> {
        self.packets.iter().filter(|p| *p.header.ssrc == ssrc).collect()
    }

    pub fn messages(&self) -> Vec<Vec<u8>> {
        let data = self.events.iter().filter_map(|event| match event {
            str0m::Event::ChannelData(data) => Some(data.data.clone()),
            _ => None,
        });
        data.collect()
    }

    pub fn channel(&self, label: &str) -> Option<str0m::channel::ChannelId> {
        self.events.iter().find_map(|event| match event {
            str0m::Event::ChannelOpen(id, name) if name == label => Some(*id),
            _ => None,
        })
    }

    pub fn key_frame_requests(&self) -> usize {
        let is_request = |event: &&str0m::Event| matches!(event, str0m::Event::KeyframeRequest(_));
        self.events.iter().filter(is_request).count()
    }

    /// What is readable when something has come; `None` once nothing will be read any more.
    pub fn readable(&self) -> Option<BorrowedFd<'_>> {
        let fd = match &self.wire {
            Wire::Udp(socket) => socket.as_fd(),
            Wire::Tcp { stream, .. } => stream.as_fd(),
        };
        (!self.ended).then_some(fd)
    }

    /// Takes what has come and does what is due; waits for nothing.
    pub fn turn(&mut self) {
        if self.ended {
            return;
        }
        let mut buf = vec![0; 2048];
        match &mut self.wire {
            Wire::Udp(socket) => {
                let mut datagrams = Vec::new();
                while datagrams.len() < MAX_BATCH
                    && let Ok((len, _)) = socket.recv_from(&mut buf)
                {
                    datagrams.push(buf[..len].to_vec());
                }
                datagrams.iter().for_each(|datagram| self.deliver(datagram));
            }
            Wire::Tcp { stream, decoder } => {
                match stream.read(&mut buf) {
                    Ok(len) => decoder.extend(&buf[..len]),
                    Err(error) => match error.kind() {
                        ErrorKind::WouldBlock => {}
                        // The server has closed the peer.
                        ErrorKind::ConnectionReset => return,
                        _ => panic!("{error}"),
                    },
                }
                let mut frames = Vec::new();
                while let Some(frame) = decoder.next_frame().expect("in step") {
                    frames.push(frame.to_vec());
                }
                frames.iter().for_each(|frame| self.deliver(frame));
            }
        }
        if Instant::now() >= self.wake {
            self.rtc.handle_input(Input::Timeout(Instant::now())).expect("a timeout is fine");
        }
        self.poll();
    }

    fn deliver(&mut self, datagram: &[u8]) {
        if self.ended || !(self.incoming)(datagram) {
            return;
        }
        let proto = match self.wire {
            Wire::Udp(_) => Protocol::Udp,
            Wire::Tcp { .. } => Protocol::Tcp,
        };
        if let Ok(receive) = Receive::new(proto, self.server, self.local, datagram) {
            let input = Input::Receive(Instant::now(), receive);
            self.rtc.handle_input(input).expect("the client takes it");
        }
        self.poll();
    }

    fn poll(&mut self) {
        loop {
            let output = match self.rtc.poll_output() {
                Ok(output) => output,
                // How this client ends when the server says goodbye before SCTP is up.
                Err(error) => {
                    assert!(matches!(error, str0m::RtcError::Sctp(_)), "{error}");
                    self.ended = true;
                    return;
                }
            };
            match output {
                Output::Timeout(at) => {
                    self.wake = at;
                    return;
                }
                Output::Event(str0m::Event::RtpPacket(packet)) => self.packets.push(packet),
                Output::Event(event) => self.events.push(event),
                Output::Transmit(transmit) => {
                    if !(self.outgoing)(&transmit.contents) {
                        continue;
                    }
                    match &mut self.wire {
                        Wire::Udp(socket) => {
                            let sent = socket.send_to(&transmit.contents, transmit.destination);
                            sent.expect("sends");
                        }
                        Wire::Tcp { stream, .. } => {
                            let mut frame = Vec::new();
                            assert!(encode_frame(&transmit.contents, &mut frame));
                            // Fails once the server has closed the peer.
                            let _ = stream.write_all(&frame);
                        }
                    }
                }
            }
        }
    }
}

fn client_kind(kind: MediaKind) -> ClientKind {
    match kind {
        MediaKind::Audio => ClientKind::Audio,
        MediaKind::Video => ClientKind::Video,
    }
}

/// One RTP packet that a client sends.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub pt: u8,
    pub seq: u64,
    pub ts: u32,
    pub marker: bool,
    pub level: Option<i8>,
    pub payload: &'a [u8],
}

/// An Opus packet with this number inside.
pub fn opus(seq: u64) -> [u8; 20] {
    let mut payload = [0x78; 20];
    payload[12..].copy_from_slice(&seq.to_be_bytes());
    payload
}

/// A VP8 packet that is a whole frame: descriptor (start of partition 0), frame header (its lowest
/// bit clear in key frames), filling with this number inside.
pub fn vp8(seq: u64, key_frame: bool, len: usize) -> Vec<u8> {
    let mut payload = vec![0x5a; len.max(20)];
    payload[0] = 0x10;
    payload[1] = u8::from(!key_frame);
    payload[12..20].copy_from_slice(&seq.to_be_bytes());
    payload
}

/// The number inside a payload of [`opus`] or [`vp8`].
pub fn number(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[12..20].try_into().expect("long enough"))
}
