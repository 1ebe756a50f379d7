//! UDP endpoints on loopback: batches, segmentation offload, shared ports, full buffers.
#![allow(clippy::disallowed_methods, reason = "socket tests wait on the real clock, bounded")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mio::{Events, Poll, Token};
use sluice_net::{BindOptions, RecvBatch, Run, SendArena, SendOutcome, UdpEndpoint};

const BUFFER: usize = 1 << 20;

fn bind(addr: SocketAddr, reuse_port: bool) -> UdpEndpoint {
    let options =
        BindOptions { addr, reuse_port, recv_buffer_bytes: BUFFER, send_buffer_bytes: BUFFER };
    UdpEndpoint::bind(options).expect("loopback binds")
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Receives until `count` datagrams came or nothing comes for a second.
fn receive(endpoint: &mut UdpEndpoint, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut poll = Poll::new().expect("poll");
    endpoint.register(poll.registry(), Token(0)).expect("register");
    let (mut batch, mut events) = (RecvBatch::new(), Events::with_capacity(8));
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        while endpoint.recv(&mut batch).is_ok() {
            for (from, bytes, stride) in batch.iter_mut() {
                datagrams.extend(bytes.chunks(stride).map(|d| (from, d.to_vec())));
            }
        }
        if datagrams.len() < count {
            poll.poll(&mut events, Some(Duration::from_secs(1))).expect("poll");
            if events.is_empty() {
                break;
            }
        }
    }
    datagrams
}

#[test]
fn runs_arrive_as_the_datagrams_they_were_made_of() {
    let mut sender = bind(loopback(), false);
    let mut receiver = bind(loopback(), false);
    let to = receiver.local_addr();
    let sizes = [1200, 1200, 1200, 1201, 1201, 300, 90, 90, 90, 40];
    let mut arena = SendArena::new(1 << 16);
    let mut wanted = Vec::new();
    for (index, size) in sizes.into_iter().enumerate() {
        let datagram = vec![index as u8; size];
        arena.tail()[..size].copy_from_slice(&datagram);
        arena.commit(size);
        wanted.push((sender.local_addr(), datagram));
    }
    for run in arena.runs(sender.max_segments()) {
        assert_eq!(sender.send(to, run), SendOutcome::Sent);
    }
    assert_eq!(receive(&mut receiver, wanted.len()), wanted);
    assert_eq!(sender.counters().datagrams_out, sizes.len() as u64);
    if sender.max_segments() > 1 {
        assert_eq!(sender.counters().runs_out, 3, "three runs");
    }
}

/// Runs for several receivers: one of several datagrams, one of one, and so on.
fn runs_for(receivers: &[SocketAddr], contents: &'static [u8]) -> Vec<(SocketAddr, Run<'static>)> {
    let run = |index: usize| {
        let segments = 1 + index % 3;
        Run { contents: &contents[..segments * 100 - index % 2], segment_size: 100, segments }
    };
    receivers.iter().enumerate().map(|(index, to)| (*to, run(index))).collect()
}

static CONTENTS: [u8; 300] = [7; 300];

#[test]
fn runs_of_many_receivers_share_system_calls_and_arrive_whole() {
    let mut sender = bind(loopback(), false);
    let mut receivers: Vec<_> = (0..50).map(|_| bind(loopback(), false)).collect();
    let addresses: Vec<_> = receivers.iter().map(UdpEndpoint::local_addr).collect();
    let runs = runs_for(&addresses, &CONTENTS);
    sender.send_many(runs.iter().copied());
    for (receiver, (_, run)) in receivers.iter_mut().zip(&runs) {
        let lens: Vec<_> = receive(receiver, run.segments).iter().map(|(_, d)| d.len()).collect();
        let wanted: Vec<_> = run.contents.chunks(run.segment_size).map(<[u8]>::len).collect();
        assert_eq!(lens, wanted);
    }
    let counters = sender.counters();
    assert_eq!(counters.datagrams_out, runs.iter().map(|(_, run)| run.segments as u64).sum());
    if cfg!(target_os = "linux") {
        assert_eq!((counters.runs_out, counters.send_calls), (50, 2));
    }
}

#[test]
fn what_the_kernel_refuses_in_the_middle_does_not_stop_the_rest() {
    let mut sender = bind(loopback(), false);
    let gone = bind(loopback(), false).local_addr();
    let mut receiver = bind(loopback(), false);
    let to = receiver.local_addr();
    let one = Run { contents: b"one", segment_size: 3, segments: 1 };
    let too_long = vec![0; sluice_net::MAX_DATAGRAM + 1];
    let oversized = Run { contents: &too_long, segment_size: too_long.len(), segments: 1 };
    for _ in 0..4 {
        sender.send_many([(to, one), (gone, one), (to, oversized), (to, one), (gone, one)]);
    }
    assert_eq!(receive(&mut receiver, 8).len(), 8);
    assert_eq!(sender.counters().refused, 4);
}

#[test]
fn runs_of_ipv6_share_system_calls() {
    let mut sender = bind((Ipv6Addr::LOCALHOST, 0).into(), false);
    let mut receivers: Vec<_> =
        (0..4).map(|_| bind((Ipv6Addr::LOCALHOST, 0).into(), false)).collect();
    let addresses: Vec<_> = receivers.iter().map(UdpEndpoint::local_addr).collect();
    let runs = runs_for(&addresses, &CONTENTS);
    sender.send_many(runs.iter().copied());
    for (receiver, (_, run)) in receivers.iter_mut().zip(&runs) {
        assert_eq!(receive(receiver, run.segments).len(), run.segments);
    }
}

#[test]
fn a_whole_gso_send_arrives_in_order() {
    let mut sender = bind(loopback(), false);
    let mut receiver = bind(loopback(), false);
    let contents: Vec<u8> = (0..40u8).flat_map(|i| [i; 1100]).collect();
    let run = Run { contents: &contents, segment_size: 1100, segments: 40 };
    assert_eq!(sender.send(receiver.local_addr(), run), SendOutcome::Sent);
    let datagrams = receive(&mut receiver, 40);
    let order: Vec<u8> = datagrams.iter().map(|(_, d)| d[0]).collect();
    assert_eq!(order, (0..40).collect::<Vec<_>>());
}

#[test]
fn sockets_of_one_port_all_receive_and_each_source_sticks_to_one() {
    let mut first = bind(loopback(), true);
    let mut second = bind(first.local_addr(), true);
    assert_eq!(first.local_addr(), second.local_addr());
    let mut senders: Vec<_> = (0..64).map(|_| bind(loopback(), false)).collect();
    for sender in &mut senders {
        for _ in 0..2 {
            sender.send_one(first.local_addr(), b"hello");
        }
    }
    let at_first = receive(&mut first, usize::MAX);
    let at_second = receive(&mut second, usize::MAX);
    assert_eq!(at_first.len() + at_second.len(), 128);
    assert!(!at_first.is_empty() && !at_second.is_empty(), "the kernel spreads 64 sources");
    for (source, _) in &at_first {
        assert!(at_second.iter().all(|(other, _)| other != source), "{source} went to both");
    }
}

#[test]
fn ipv6_sockets_send_and_receive_plain_addresses() {
    let mut sender = bind((Ipv6Addr::LOCALHOST, 0).into(), false);
    let mut receiver = bind((Ipv6Addr::LOCALHOST, 0).into(), false);
    sender.send_one(receiver.local_addr(), b"six");
    assert_eq!(receive(&mut receiver, 1), [(sender.local_addr(), b"six".to_vec())]);
}

#[test]
fn a_wildcard_socket_answers_on_loopback() {
    let mut wildcard = bind((Ipv4Addr::UNSPECIFIED, 0).into(), false);
    let mut client = bind(loopback(), false);
    let to = (Ipv4Addr::LOCALHOST, wildcard.local_addr().port()).into();
    client.send_one(to, b"ping");
    let (from, _) = receive(&mut wildcard, 1).pop().expect("arrives");
    wildcard.send_one(from, b"pong");
    assert_eq!(receive(&mut client, 1), [(to, b"pong".to_vec())]);
}

#[test]
fn a_closed_port_neither_fails_nor_loses_the_next_send() {
    let mut sender = bind(loopback(), false);
    let gone = bind(loopback(), false).local_addr();
    let mut receiver = bind(loopback(), false);
    for _ in 0..4 {
        sender.send_one(gone, b"nobody");
        assert_eq!(sender.send_one(receiver.local_addr(), b"somebody"), SendOutcome::Sent);
    }
    assert_eq!(receive(&mut receiver, 4).len(), 4);
}

#[test]
fn an_oversized_datagram_is_refused_and_counted() {
    let mut sender = bind(loopback(), false);
    let too_long = vec![0; sluice_net::MAX_DATAGRAM + 1];
    assert_eq!(sender.send_one(loopback_port(9), &too_long), SendOutcome::Refused);
    assert_eq!(sender.counters().refused, 1);
}

fn loopback_port(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
