//! Channel states, send queues and the DCEP handshake on top of one association.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::association::{AssociationEvent, Delivery, Ppid, SctpAssociation};
use super::dcep::{Dcep, DcepOpen};
use super::{ChannelId, ChannelSpec, Reliability, SendError};

/// Bytes of messages that wait on all channels of a peer (LiveKit's and libwebrtc's limit).
const MAX_BUFFERED: usize = 16 * 1024 * 1024;
/// Bytes per channel inside the association, whose cost per packet grows with its queue. 128 KB
/// carry 20 Mbit/s at 50 ms RTT.
const ASSOCIATION_BUFFER: usize = 128 * 1024;
/// The same where messages must not grow old: what lies in the association cannot be taken back.
const FRESH_ASSOCIATION_BUFFER: usize = 32 * 1024;
/// Channels of one peer; clients open two or three.
const MAX_CHANNELS: usize = 256;
/// How long a DTLS server waits for the client's INIT before it sends one itself. Every client
/// known to us starts by itself and repeats a lost INIT within this time.
const SERVER_INITIATES_AFTER: Duration = Duration::from_secs(4);
/// The same for a DTLS client. libwebrtc and pion start in either role, and crossing handshakes
/// cost more than this wait.
const CLIENT_INITIATES_AFTER: Duration = Duration::from_millis(500);
/// RFC 8831 §6.6: an empty message is one byte with its own PPID.
const EMPTY_MESSAGE: Bytes = Bytes::from_static(&[0]);

/// What happened to the channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChannelEvent {
    Open { id: ChannelId, label: String, protocol: String, ordered: bool, reliable: bool },
    Message { id: ChannelId, binary: bool, data: Bytes },
    Closed { id: ChannelId },
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// We sent OPEN and wait for ACK.
    Opening,
    Open,
    /// We reset our direction and wait for the peer's.
    Closing,
}

struct Channel {
    state: State,
    spec: ChannelSpec,
    queue: VecDeque<Queued>,
    /// Bytes in `queue`.
    queued: usize,
    /// Bytes inside the association, as of the last call.
    in_association: usize,
    /// A message that has waited longer is given up.
    max_latency: Option<Duration>,
}

struct Queued {
    at: Instant,
    ppid: Ppid,
    data: Bytes,
}

/// See the module.
pub(crate) struct Channels {
    association: Box<dyn SctpAssociation>,
    channels: FxHashMap<u16, Channel>,
    to_open: Vec<ChannelSpec>,
    /// Even for the DTLS client, odd for the server (RFC 8832 §6).
    next_id: u16,
    connected: bool,
    /// When we send INIT ourselves.
    initiate_at: Option<Instant>,
    max_message_size: usize,
    /// Bytes in all queues.
    queued: usize,
    /// Messages that grew too old, since they were asked for last.
    expired: u64,
    events: VecDeque<ChannelEvent>,
    /// Nothing was done since the association had no packet left, and when it wants to be called
    /// then: whoever has media to send asks often, and there is much to look at in an association.
    at_rest: Option<Option<Instant>>,
}

impl Channels {
    /// `dtls_client`: our DTLS role. `max_message_size`: the remote's limit, bytes.
    pub(crate) fn new(
        association: Box<dyn SctpAssociation>,
        dtls_client: bool,
        to_open: Vec<ChannelSpec>,
        max_message_size: usize,
        now: Instant,
    ) -> Self {
        let patience = if dtls_client { CLIENT_INITIATES_AFTER } else { SERVER_INITIATES_AFTER };
        Self {
            association,
            channels: FxHashMap::default(),
            to_open,
            next_id: if dtls_client { 0 } else { 1 },
            connected: false,
            initiate_at: Some(now + patience),
            max_message_size,
            queued: 0,
            expired: 0,
            events: VecDeque::new(),
            at_rest: None,
        }
    }

    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        self.at_rest = None;
        // The peer started; it also repeats its INIT if it must.
        self.initiate_at = None;
        self.association.handle_packet(now, packet);
        self.drive(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.at_rest = None;
        if self.initiate_at.is_some_and(|at| at <= now) {
            self.initiate_at = None;
            self.association.connect();
        }
        self.association.handle_timeout(now);
        self.drive(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.at_rest.unwrap_or_else(|| self.next_timeout())
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if self.at_rest.is_some() {
            return None;
        }
        let packet = self.association.poll_transmit(now);
        if packet.is_none() {
            self.at_rest = Some(self.next_timeout());
        }
        packet
    }

    fn next_timeout(&self) -> Option<Instant> {
        [self.initiate_at, self.association.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn poll_event(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    /// Opens one more channel, now or when the association is up.
    pub(crate) fn open(&mut self, now: Instant, spec: ChannelSpec) {
        self.at_rest = None;
        self.to_open.push(spec);
        self.drive(now);
    }

    /// Closes a channel; `Closed` follows when the peer has done so too.
    pub(crate) fn close(&mut self, id: ChannelId) {
        self.at_rest = None;
        if let Some(channel) = self.channels.get_mut(&id.0)
            && channel.state != State::Closing
        {
            channel.state = State::Closing;
            self.queued -= channel.queued;
            channel.queued = 0;
            channel.queue.clear();
            self.association.close_stream(id.0);
        }
    }

    /// Gives up messages of a channel that have waited longer than this; `None` keeps them all.
    pub(crate) fn set_max_latency(&mut self, id: ChannelId, max: Option<Duration>) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.max_latency = max;
        }
    }

    /// Messages that were given up since the last call.
    pub(crate) fn take_expired(&mut self) -> u64 {
        std::mem::take(&mut self.expired)
    }

    pub(crate) fn send(
        &mut self,
        now: Instant,
        id: ChannelId,
        binary: bool,
        data: Bytes,
    ) -> Result<(), SendError> {
        let channel = self.channels.get_mut(&id.0).ok_or(SendError::NotOpen)?;
        if channel.state != State::Open {
            return Err(SendError::NotOpen);
        }
        if data.len() > self.max_message_size {
            return Err(SendError::TooLarge);
        }
        let (ppid, data) = match (binary, data.is_empty()) {
            (true, false) => (Ppid::Binary, data),
            (false, false) => (Ppid::String, data),
            (true, true) => (Ppid::BinaryEmpty, EMPTY_MESSAGE),
            (false, true) => (Ppid::StringEmpty, EMPTY_MESSAGE),
        };
        if self.queued + channel.in_association + data.len() > MAX_BUFFERED {
            return Err(SendError::BufferFull);
        }
        self.at_rest = None;
        self.queued += data.len();
        channel.queued += data.len();
        channel.queue.push_back(Queued { at: now, ppid, data });
        self.flush(now, id.0);
        Ok(())
    }

    pub(crate) fn buffered_amount(&self, id: ChannelId) -> usize {
        self.channels.get(&id.0).map_or(0, |channel| channel.queued + channel.in_association)
    }

    /// Moves events up and queued messages down.
    fn drive(&mut self, now: Instant) {
        while let Some(event) = self.association.poll_event() {
            match event {
                AssociationEvent::Connected => self.connected = true,
                AssociationEvent::Message { stream, ppid, data } => {
                    self.handle_message(stream, ppid, data);
                }
                AssociationEvent::StreamClosed { stream } => {
                    self.association.close_stream(stream);
                    self.forget(stream);
                }
                AssociationEvent::Lost => self.lose(),
            }
        }
        if self.connected {
            for spec in std::mem::take(&mut self.to_open) {
                self.start(spec);
            }
        }
        self.flush_all(now);
    }

    fn start(&mut self, spec: ChannelSpec) {
        if self.channels.len() >= MAX_CHANNELS {
            return;
        }
        if let Some(ChannelId(id)) = spec.negotiated {
            self.insert(id, State::Open, spec);
            self.announce(id);
            return;
        }
        while self.channels.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(2);
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(2);
        let open = Dcep::Open(DcepOpen {
            label: spec.label.clone(),
            protocol: spec.protocol.clone(),
            ordered: spec.ordered,
            reliability: spec.reliability,
        });
        if self.send_dcep(id, &open) {
            self.insert(id, State::Opening, spec);
        }
    }

    /// DCEP is ordered and reliable on every channel (RFC 8832 §6).
    fn send_dcep(&mut self, id: u16, message: &Dcep) -> bool {
        let delivery = Delivery { ordered: true, reliability: Reliability::Reliable };
        self.association.send(id, Ppid::Dcep, delivery, &message.to_bytes().into())
    }

    fn insert(&mut self, id: u16, state: State, spec: ChannelSpec) {
        let channel = Channel {
            state,
            spec,
            queue: VecDeque::new(),
            queued: 0,
            in_association: 0,
            max_latency: None,
        };
        self.channels.insert(id, channel);
    }

    fn announce(&mut self, id: u16) {
        if let Some(Channel { spec, .. }) = self.channels.get(&id) {
            self.events.push_back(ChannelEvent::Open {
                id: ChannelId(id),
                label: spec.label.clone(),
                protocol: spec.protocol.clone(),
                ordered: spec.ordered,
                reliable: spec.reliability == Reliability::Reliable,
            });
        }
    }

    fn handle_message(&mut self, stream: u16, ppid: Ppid, data: Bytes) {
        if ppid == Ppid::Dcep {
            match Dcep::parse(&data) {
                Ok(Dcep::Ack) => self.acknowledged(stream),
                Ok(Dcep::Open(open)) => self.accept(stream, open),
                Err(_) => self.association.close_stream(stream),
            }
            return;
        }
        // A message may overtake the ACK on an unordered channel and proves as much.
        self.acknowledged(stream);
        let (binary, data) = match ppid {
            Ppid::Binary => (true, data),
            Ppid::String => (false, data),
            Ppid::BinaryEmpty => (true, Bytes::new()),
            Ppid::StringEmpty => (false, Bytes::new()),
            Ppid::Dcep | Ppid::Unknown => return,
        };
        if self.channels.get(&stream).is_some_and(|channel| channel.state == State::Open) {
            self.events.push_back(ChannelEvent::Message { id: ChannelId(stream), binary, data });
        }
    }

    fn acknowledged(&mut self, stream: u16) {
        if let Some(channel) = self.channels.get_mut(&stream)
            && channel.state == State::Opening
        {
            channel.state = State::Open;
            self.announce(stream);
        }
    }

    fn accept(&mut self, stream: u16, open: DcepOpen) {
        // A second OPEN on a live channel, or one on an id that was negotiated, changes nothing.
        if self.channels.contains_key(&stream) {
            return;
        }
        if self.channels.len() >= MAX_CHANNELS || !self.send_dcep(stream, &Dcep::Ack) {
            self.association.close_stream(stream);
            return;
        }
        let DcepOpen { label, protocol, ordered, reliability } = open;
        let spec = ChannelSpec { label, protocol, ordered, reliability, negotiated: None };
        self.insert(stream, State::Open, spec);
        self.announce(stream);
    }

    fn forget(&mut self, stream: u16) {
        if let Some(channel) = self.channels.remove(&stream) {
            self.queued -= channel.queued;
            self.events.push_back(ChannelEvent::Closed { id: ChannelId(stream) });
        }
    }

    fn lose(&mut self) {
        let mut streams: Vec<u16> = self.channels.keys().copied().collect();
        streams.sort_unstable();
        for stream in streams {
            self.forget(stream);
        }
        self.connected = false;
        self.to_open.clear();
    }

    fn flush_all(&mut self, now: Instant) {
        let busy = |channel: &Channel| channel.queued + channel.in_association > 0;
        // Usually two or three channels; the list is only built when something waits.
        if !self.channels.values().any(busy) {
            return;
        }
        let mut streams: Vec<u16> = self
            .channels
            .iter()
            .filter(|(_, channel)| busy(channel))
            .map(|(stream, _)| *stream)
            .collect();
        streams.sort_unstable();
        for stream in streams {
            self.flush(now, stream);
        }
    }

    fn flush(&mut self, now: Instant, stream: u16) {
        let Some(channel) = self.channels.get_mut(&stream) else { return };
        let delivery =
            Delivery { ordered: channel.spec.ordered, reliability: channel.spec.reliability };
        channel.in_association = self.association.buffered(stream);
        let room = match channel.max_latency {
            Some(_) => FRESH_ASSOCIATION_BUFFER,
            None => ASSOCIATION_BUFFER,
        };
        while let Some(next) = channel.queue.front() {
            let waited = now.saturating_duration_since(next.at);
            let expired = channel.max_latency.is_some_and(|max| waited > max);
            if !expired && channel.in_association >= room {
                break;
            }
            let Some(Queued { ppid, data, .. }) = channel.queue.pop_front() else { break };
            channel.queued -= data.len();
            self.queued -= data.len();
            if expired {
                self.expired += 1;
                continue;
            }
            // A message that the association refuses belongs to a stream that is closing.
            if self.association.send(stream, ppid, delivery, &data) {
                channel.in_association += data.len();
            }
        }
    }
}
