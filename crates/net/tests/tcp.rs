//! ICE-TCP connections on loopback: frames both ways, and a reader that does not read.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use sluice_net::framing::encode_frame;
use sluice_net::{FrameDecoder, TcpConn, TcpError, bind_tcp_listener};

fn pair(received: &[u8]) -> (TcpConn, TcpStream) {
    let listener = bind_tcp_listener((Ipv4Addr::LOCALHOST, 0).into()).expect("binds");
    listener.set_nonblocking(false).expect("blocking");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    (TcpConn::new(server, received, 2000).expect("takes over"), client)
}

/// Reads until a frame is whole; loopback data is there after the writer's call returned, so the
/// bound is generous.
fn next_frame(conn: &mut TcpConn) -> Vec<u8> {
    for _ in 0..1_000_000 {
        if let Some(frame) = conn.next_frame().expect("in step") {
            return frame.to_vec();
        }
        conn.read().expect("open");
    }
    panic!("no frame");
}

#[test]
fn frames_pass_both_ways_and_early_bytes_count() {
    let mut early = Vec::new();
    encode_frame(b"first", &mut early);
    let (mut conn, mut client) = pair(&early);
    assert_eq!(next_frame(&mut conn), b"first");

    let mut bytes = Vec::new();
    encode_frame(b"second", &mut bytes);
    client.write_all(&bytes).expect("writes");
    assert_eq!(next_frame(&mut conn), b"second");

    assert!(conn.send(b"answer"));
    conn.flush().expect("open");
    let mut answer = [0; 8];
    client.read_exact(&mut answer).expect("reads");
    assert_eq!(&answer, b"\x00\x06answer");
}

#[test]
fn a_slow_reader_loses_whole_frames_and_stays_in_step() {
    let (mut conn, mut client) = pair(b"");
    let (mut sent, mut dropped) = (0u32, 0u32);
    while dropped < 100 {
        let frame = [&sent.to_be_bytes()[..], &[7; 1200]].concat();
        if conn.send(&frame) {
            sent += 1
        } else {
            dropped += 1
        }
        conn.flush().expect("open");
    }
    let mut decoder = FrameDecoder::new(2000);
    let mut buf = vec![0; 65_536];
    let mut received = 0u32;
    while received < sent {
        let len = client.read(&mut buf).expect("open");
        decoder.extend(&buf[..len]);
        while let Some(frame) = decoder.next_frame().expect("in step") {
            assert_eq!(frame[..4], received.to_be_bytes());
            received += 1;
        }
        conn.flush().expect("open");
    }
    assert_eq!(conn.pending(), 0);
}

#[test]
fn a_closed_connection_and_a_stream_out_of_step_are_told_apart() {
    let (mut conn, client) = pair(b"");
    drop(client);
    let closed = (0..1_000_000).find_map(|_| conn.read().err()).expect("closes");
    assert!(matches!(closed, TcpError::Closed));

    let (mut conn, _client) = pair(&[0xff, 0xff]);
    assert!(matches!(conn.next_frame(), Err(TcpError::Frame(_))));
}
