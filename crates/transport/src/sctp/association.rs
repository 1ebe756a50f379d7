//! The SCTP association behind a small trait, implemented by `sctp-proto`.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier as Ppi, ReliabilityType, ServerConfig, Stream, StreamEvent,
    TransportConfig,
};

use super::{MAX_MESSAGE_SIZE, Reliability};

/// User data per DATA chunk, bytes: a DTLS record of 1,200 bytes less its 37, the SCTP header and
/// a bundled SACK.
const MAX_PAYLOAD: u32 = 1100;
/// Receive window, bytes: sixteen of the largest messages.
const RECEIVE_BUFFER: u32 = 1024 * 1024;
/// Streams per direction; libwebrtc uses ids up to 1023.
const MAX_STREAMS: u16 = 1024;
/// First retransmission before an RTT is known, milliseconds (dcSCTP's default).
const RTO_INITIAL_MS: u64 = 500;
/// Above the 200 ms for which a peer may delay a SACK, milliseconds (dcSCTP's default).
const RTO_MIN_MS: u64 = 400;
/// LiveKit's clients give up a connection after 15 s: longer back-off helps nobody.
const RTO_MAX_MS: u64 = 10_000;
/// Associations that a peer may start in vain before the first one is up.
const MAX_ATTEMPTS: u8 = 8;
/// `sctp-proto` names peers by address; over DTLS there is only one.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));

/// Payload protocol identifiers of RFC 8831 §8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ppid {
    Dcep,
    String,
    Binary,
    StringEmpty,
    BinaryEmpty,
    /// Deprecated partial messages and anything else.
    Unknown,
}

/// What an association has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AssociationEvent {
    Connected,
    Message {
        stream: u16,
        ppid: Ppid,
        data: Bytes,
    },
    /// The peer reset the stream, or answered our reset.
    StreamClosed {
        stream: u16,
    },
    /// The association is over.
    Lost,
}

/// How one message is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) ordered: bool,
    pub(crate) reliability: Reliability,
}

/// One association over DTLS.
pub(crate) trait SctpAssociation: Send {
    /// Starts the handshake from our side, unless one is under way. The peer's own attempts are
    /// ignored from then on; RFC 9260 §5.2.1 makes it answer ours while it waits.
    fn connect(&mut self);
    fn handle_packet(&mut self, now: Instant, packet: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_transmit(&mut self, now: Instant) -> Option<Bytes>;
    fn poll_event(&mut self) -> Option<AssociationEvent>;
    /// Queues one message, never empty. False if the stream or association is closing.
    fn send(&mut self, stream: u16, ppid: Ppid, delivery: Delivery, data: &Bytes) -> bool;
    /// Bytes queued or in flight on a stream.
    fn buffered(&mut self, stream: u16) -> usize;
    /// Resets the stream in both directions (RFC 8831 §6.7).
    fn close_stream(&mut self, stream: u16);
}

/// See the module.
pub(crate) struct SctpProtoAssociation {
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    active: Option<(AssociationHandle, Association)>,
    connected: bool,
    /// We sent INIT.
    initiated: bool,
    /// Handshakes that the peer started.
    attempts: u8,
    max_send: u32,
    /// Streams that may have messages.
    readable: VecDeque<u16>,
    outgoing: VecDeque<Bytes>,
}

impl SctpProtoAssociation {
    /// `max_send`: the remote's `a=max-message-size`.
    pub(crate) fn new(local_port: u16, remote_port: u16, max_send: u32) -> Self {
        let transport = Arc::new(
            TransportConfig::default()
                .with_max_init_retransmits(None)
                .with_max_data_retransmits(None)
                .with_max_receive_buffer_size(RECEIVE_BUFFER)
                .with_max_receive_message_size(MAX_MESSAGE_SIZE)
                .with_max_num_inbound_streams(MAX_STREAMS)
                .with_max_num_outbound_streams(MAX_STREAMS)
                .with_rto_initial_ms(RTO_INITIAL_MS)
                .with_rto_min_ms(RTO_MIN_MS)
                .with_rto_max_ms(RTO_MAX_MS)
                .with_local_port(local_port)
                .with_remote_port(remote_port),
        );
        let mut config = EndpointConfig::default();
        config.max_payload_size(MAX_PAYLOAD);
        let mut server = ServerConfig::default();
        server.transport = transport.clone();
        Self {
            endpoint: Endpoint::new(Arc::new(config), Some(Arc::new(server))),
            transport,
            active: None,
            connected: false,
            initiated: false,
            attempts: 0,
            max_send,
            readable: VecDeque::new(),
            outgoing: VecDeque::new(),
        }
    }

    fn association(&mut self) -> Option<&mut Association> {
        self.active.as_mut().map(|(_, association)| association)
    }

    /// A peer that starts anew means its latest handshake. One that crosses ours would leave the
    /// two sides with different tags, because `sctp-proto` gives every association its own.
    fn adopt(&mut self, handle: AssociationHandle, association: Association) {
        self.attempts += 1;
        if self.attempts >= MAX_ATTEMPTS {
            self.endpoint.reject_new_associations();
        }
        if !self.connected && !self.initiated {
            self.active = Some((handle, association));
        }
    }

    /// The next complete message of a stream that announced one.
    fn read(&mut self) -> Option<AssociationEvent> {
        while let Some(&stream) = self.readable.front() {
            let chunks = self
                .association()
                .and_then(|association| association.stream(stream).ok())
                .and_then(|mut stream| stream.read().ok().flatten());
            let Some(chunks) = chunks else {
                self.readable.pop_front();
                continue;
            };
            let mut data = vec![0; chunks.len()];
            if chunks.read(&mut data).is_ok() {
                let ppid = from_ppi(chunks.ppi);
                return Some(AssociationEvent::Message { stream, ppid, data: data.into() });
            }
        }
        None
    }

    fn open_stream(association: &mut Association, id: u16) -> Option<Stream<'_>> {
        // Twice, because the borrow of a failed first attempt would reach the second.
        if association.stream(id).is_ok() {
            return association.stream(id).ok();
        }
        association.open_stream(id, Ppi::Binary).ok()
    }

    fn pass_endpoint_events(&mut self) {
        let Some((handle, association)) = self.active.as_mut() else { return };
        while let Some(event) = association.poll_endpoint_event() {
            if let Some(answer) = self.endpoint.handle_event(*handle, event) {
                association.handle_event(answer);
            }
        }
    }
}

impl SctpAssociation for SctpProtoAssociation {
    fn connect(&mut self) {
        if self.active.is_some() {
            return;
        }
        let mut config = ClientConfig::default();
        config.transport = self.transport.clone();
        if let Ok(active) = self.endpoint.connect(config, PEER) {
            self.active = Some(active);
            self.initiated = true;
        }
    }

    fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let packet = Bytes::copy_from_slice(packet);
        match self.endpoint.handle(now, PEER, None, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                self.adopt(handle, association);
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((active, association)) = self.active.as_mut()
                    && *active == handle
                {
                    association.handle_event(event);
                }
            }
            None => {}
        }
        self.pass_endpoint_events();
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(association) = self.association() {
            association.handle_timeout(now);
        }
        self.pass_endpoint_events();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.active.as_ref()?.1.poll_timeout()
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        loop {
            if let Some(packet) = self.outgoing.pop_front() {
                return Some(packet);
            }
            let transmit = self.endpoint.poll_transmit();
            let transmit = match transmit {
                Some(transmit) => transmit,
                None => self.association()?.poll_transmit(now)?,
            };
            if let Payload::RawEncode(packets) = transmit.payload {
                self.outgoing.extend(packets);
            }
        }
    }

    fn poll_event(&mut self) -> Option<AssociationEvent> {
        loop {
            if let Some(message) = self.read() {
                return Some(message);
            }
            match self.association()?.poll()? {
                Event::Connected => {
                    self.connected = true;
                    self.endpoint.reject_new_associations();
                    let max_send = self.max_send;
                    self.association()?.set_max_send_message_size(max_send);
                    return Some(AssociationEvent::Connected);
                }
                Event::Stream(StreamEvent::Readable { id }) if !self.readable.contains(&id) => {
                    self.readable.push_back(id);
                }
                Event::Stream(StreamEvent::Finished { id }) => {
                    return Some(AssociationEvent::StreamClosed { stream: id });
                }
                Event::AssociationLost { .. } | Event::HandshakeFailed { .. } => {
                    return Some(AssociationEvent::Lost);
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, stream: u16, ppid: Ppid, delivery: Delivery, data: &Bytes) -> bool {
        let Some(association) = self.association() else { return false };
        let Some(mut stream) = Self::open_stream(association, stream) else { return false };
        let (kind, value) = match delivery.reliability {
            Reliability::Reliable => (ReliabilityType::Reliable, 0),
            Reliability::MaxRetransmits(count) => (ReliabilityType::Rexmit, count),
            Reliability::MaxLifetimeMs(ms) => (ReliabilityType::Timed, ms),
        };
        stream.set_reliability_params(!delivery.ordered, kind, value).is_ok()
            && stream.write_sctp(data, to_ppi(ppid)).is_ok()
    }

    fn buffered(&mut self, stream: u16) -> usize {
        self.association()
            .and_then(|association| association.stream(stream).ok())
            .and_then(|stream| stream.buffered_amount().ok())
            .unwrap_or(0)
    }

    fn close_stream(&mut self, stream: u16) {
        if let Some(association) = self.association()
            && let Ok(mut stream) = association.stream(stream)
        {
            // An error means that a reset is under way already.
            _ = stream.close();
        }
    }
}

fn from_ppi(ppi: Ppi) -> Ppid {
    match ppi {
        Ppi::Dcep => Ppid::Dcep,
        Ppi::String => Ppid::String,
        Ppi::Binary => Ppid::Binary,
        Ppi::StringEmpty => Ppid::StringEmpty,
        Ppi::BinaryEmpty => Ppid::BinaryEmpty,
        Ppi::Unknown => Ppid::Unknown,
    }
}

fn to_ppi(ppid: Ppid) -> Ppi {
    match ppid {
        Ppid::Dcep => Ppi::Dcep,
        Ppid::String => Ppi::String,
        Ppid::Binary => Ppi::Binary,
        Ppid::StringEmpty => Ppi::StringEmpty,
        Ppid::BinaryEmpty => Ppi::BinaryEmpty,
        Ppid::Unknown => Ppi::Unknown,
    }
}
