//! Our association against `dcsctp`, the stack inside libwebrtc: whoever starts, one association
//! comes up on both sides and carries messages.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dcsctp::api::{
    DcSctpSocket, Message, Options, PpId, SendOptions, SocketEvent, SocketTime, StreamId,
};

use super::association::{AssociationEvent, Delivery, Ppid, SctpAssociation, SctpProtoAssociation};
use super::{MAX_MESSAGE_SIZE, Reliability};

const STEP: Duration = Duration::from_millis(10);

struct Pair {
    start: Instant,
    now: Instant,
    ours: SctpProtoAssociation,
    theirs: Box<dyn DcSctpSocket>,
    to_us: Vec<Vec<u8>>,
    connected: (bool, bool),
    received: Vec<Bytes>,
}

impl Pair {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let start = Instant::now();
        let mut theirs = dcsctp::new_socket("peer", &Options::default());
        theirs.advance_time(SocketTime::zero());
        Self {
            start,
            now: start,
            ours: SctpProtoAssociation::new(5000, 5000, MAX_MESSAGE_SIZE),
            theirs,
            to_us: Vec::new(),
            connected: (false, false),
            received: Vec::new(),
        }
    }

    /// One hop: what either side says is heard by the other one step later.
    fn step(&mut self) {
        let to_us = std::mem::take(&mut self.to_us);
        let mut to_them = Vec::new();
        while let Some(packet) = self.ours.poll_transmit(self.now) {
            to_them.push(packet);
        }
        self.now += STEP;
        self.theirs.advance_time(SocketTime::zero() + (self.now - self.start));
        self.ours.handle_timeout(self.now);
        for packet in to_us {
            self.ours.handle_packet(self.now, &packet);
        }
        for packet in to_them {
            self.theirs.handle_input(&packet);
        }
        while let Some(event) = self.theirs.poll_event() {
            match event {
                SocketEvent::SendPacket(packet) => self.to_us.push(packet),
                SocketEvent::OnConnected() => self.connected.1 = true,
                _ => {}
            }
        }
        while let Some(event) = self.ours.poll_event() {
            match event {
                AssociationEvent::Connected => self.connected.0 = true,
                AssociationEvent::Message { data, .. } => self.received.push(data),
                other => panic!("{other:?}"),
            }
        }
    }

    fn exchange(mut self) {
        for _ in 0..1_000 {
            self.step();
            if self.connected == (true, true) {
                break;
            }
        }
        assert_eq!(self.connected, (true, true));
        // Crossing packets may still be under way.
        for _ in 0..200 {
            self.step();
        }
        let delivery = Delivery { ordered: true, reliability: Reliability::Reliable };
        assert!(self.ours.send(1, Ppid::Binary, delivery, &Bytes::from_static(b"from us")));
        let message = Message::new(StreamId(2), PpId(53), b"from them".to_vec());
        self.theirs.send(message, &SendOptions::default()).unwrap();
        for _ in 0..500 {
            self.step();
        }
        assert_eq!(self.received, ["from them"]);
        assert_eq!(self.theirs.get_next_message().unwrap().payload, b"from us");
        assert!(self.ours.buffered(1) == 0);
    }
}

#[test]
fn the_peer_starts() {
    let mut pair = Pair::new();
    pair.theirs.connect();
    pair.exchange();
}

#[test]
fn we_start() {
    let mut pair = Pair::new();
    pair.ours.connect();
    pair.exchange();
}

#[test]
fn both_start_within_a_few_round_trips() {
    for lead in 0..40 {
        for we_lead in [true, false] {
            let mut pair = Pair::new();
            if we_lead {
                pair.ours.connect();
            } else {
                pair.theirs.connect();
            }
            for _ in 0..lead {
                pair.step();
            }
            if we_lead {
                pair.theirs.connect();
            } else {
                pair.ours.connect();
            }
            pair.exchange();
        }
    }
}
