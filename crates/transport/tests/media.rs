//! RTP and RTCP between a peer and an independent client.

mod common;

use std::time::Duration;

use common::{CLIENT, Setting, World, addr, udp};
use sluice_transport::{DropReason, SealError, StreamSlot};
use str0m::Event;
use str0m::media::MediaKind;
use str0m::rtp::{RtpWrite, Ssrc};

const SECOND: Duration = Duration::from_secs(1);
const UP: u32 = 1111;
const DOWN: u32 = 2222;

/// Connected, with one audio stream declared in each direction.
fn with_audio(setting: Setting) -> World {
    let mut world = World::connected(setting);
    let mid = "aud".into();
    let mut api = world.client.direct_api();
    api.declare_media(mid, MediaKind::Audio);
    api.declare_stream_tx(Ssrc::from(UP), None, mid, None);
    api.expect_stream_rx(Ssrc::from(DOWN), None, mid, None);
    world
}

fn client_sends(world: &mut World, seq: u64, payload: &[u8]) {
    let now = world.now;
    let mut api = world.client.direct_api();
    let stream = api.stream_tx(&Ssrc::from(UP)).unwrap();
    stream.write_rtp(RtpWrite::new(111.into(), seq.into(), 960 * seq as u32, now, payload));
    world.client_wakes_now();
}

fn server_packet(seq: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&(960 * u32::from(seq)).to_be_bytes());
    packet.extend_from_slice(&DOWN.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn received(world: &World) -> Vec<Vec<u8>> {
    (world.client_events.iter())
        .filter_map(|event| match event {
            Event::RtpPacket(packet) => Some(packet.payload.to_vec()),
            _ => None,
        })
        .collect()
}

#[test]
fn rtp_travels_both_ways() {
    let mut world = with_audio(Setting::default());
    for number in 0..50u16 {
        client_sends(&mut world, 500 + u64::from(number), &[number as u8; 80]);
        world.send_rtp(&server_packet(number, &[number as u8; 60]));
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(SECOND);
    let up: Vec<_> = world.server_rtp.iter().map(|packet| packet[packet.len() - 1]).collect();
    assert_eq!(up, (0..50).collect::<Vec<u8>>());
    let down: Vec<_> = received(&world).iter().map(|payload| payload[0]).collect();
    assert_eq!(down, (0..50).collect::<Vec<u8>>());
    assert!(!world.server_rtcp.is_empty(), "the client sends reports");
}

#[test]
fn media_flows_on_after_an_address_change() {
    let mut world = with_audio(Setting::default());
    client_sends(&mut world, 1, b"before");
    world.run_for(SECOND);
    let moved = addr("10.9.9.9:4242");
    world.nat = moved;
    let on_new = |world: &World| world.server.selected_route() == Some(udp(moved));
    assert!(world.run_until(5 * SECOND, on_new));
    client_sends(&mut world, 2, b"after");
    world.send_rtp(&server_packet(1, b"down"));
    world.run_for(SECOND);
    assert!(world.server_rtp.iter().any(|packet| packet.ends_with(b"after")));
    assert_eq!(received(&world), [b"down".to_vec()]);
}

#[test]
fn rtp_from_a_source_that_passed_no_check_is_dropped_even_if_authentic() {
    let mut world = with_audio(Setting::default());
    let copies = world.captured.len();
    client_sends(&mut world, 1, b"media");
    let stolen = world.captured[copies..].iter().find(|data| data[0] & 0xC0 == 0x80).unwrap();
    let stolen = stolen.clone();
    world.deliver_to_server(udp(addr("10.6.6.6:666")), stolen);
    assert_eq!(world.dropped(DropReason::SrtpUnauthenticatedSource), 1);
    assert_eq!(world.server.selected_route(), Some(udp(addr(CLIENT))));
    world.run_for(SECOND);
    assert_eq!(world.server_rtp.len(), 1);
}

#[test]
fn forged_and_replayed_srtp_only_counts() {
    let mut world = with_audio(Setting::default());
    let copies = world.captured.len();
    client_sends(&mut world, 1, b"media");
    world.run_for(SECOND);
    let is_rtp = |data: &&Vec<u8>| data[0] & 0xC0 == 0x80 && !(192..=223).contains(&data[1]);
    let original = world.captured[copies..].iter().find(is_rtp).unwrap().clone();
    for _ in 0..1_000 {
        let mut forged = original.clone();
        forged[3] ^= 0x40;
        world.deliver_to_server(udp(addr(CLIENT)), forged);
        world.deliver_to_server(udp(addr(CLIENT)), original.clone());
    }
    assert_eq!(world.dropped(DropReason::SrtpAuthentication), 1_000);
    assert_eq!(world.dropped(DropReason::SrtpReplay), 1_000);
    client_sends(&mut world, 2, b"more");
    world.run_for(SECOND);
    assert_eq!(world.server_rtp.len(), 2);
    assert!(world.server.is_connected());
}

#[test]
fn malformed_rtp_headers_are_counted() {
    let mut world = with_audio(Setting::default());
    let route = udp(addr(CLIENT));
    // CSRC count and extension length that run over the end.
    world.deliver_to_server(route, [vec![0x8F, 111], vec![0; 20]].concat());
    world.deliver_to_server(route, [vec![0x90, 111], vec![0xFF; 20]].concat());
    world.deliver_to_server(route, [vec![0x80, 111], vec![0; 10]].concat());
    world.deliver_to_server(route, [vec![0x80, 200], vec![0; 10]].concat());
    assert_eq!(world.dropped(DropReason::SrtpMalformed), 4);
}

#[test]
fn nothing_is_sealed_before_the_handshake() {
    let mut world = World::new(Setting::default());
    let mut buf = server_packet(1, b"x");
    let len = buf.len();
    buf.resize(len + 16, 0);
    let sealed = world.server.seal_rtp(&mut StreamSlot::default(), &mut buf, 12, len);
    assert_eq!(sealed, Err(SealError::NotConnected));
}
