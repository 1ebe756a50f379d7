//! What strangers and liars send must change nothing but counters.

mod common;

use std::time::Duration;

use common::{CLIENT, Setting, World, addr, credentials, udp};
use sluice_transport::stun::{BindingRequest, IceRole, IntegrityKey};
use sluice_transport::{DropReason, PeerEvent};

const SECOND: Duration = Duration::from_secs(1);
const STRANGER: &str = "10.6.6.6:666";

/// A DTLS 1.2 record with a ClientHello that offers only `TLS_NULL_WITH_NULL_NULL`.
fn null_client_hello() -> Vec<u8> {
    let mut body = vec![0xFE, 0xFD];
    body.extend_from_slice(&[0x42; 32]);
    body.extend_from_slice(&[0, 0, 0, 2, 0, 0, 1, 0]);
    let len = body.len() as u8;
    let mut message = vec![1, 0, 0, len, 0, 0, 0, 0, 0, 0, 0, len];
    message.extend_from_slice(&body);
    let mut record = vec![22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, message.len() as u8];
    record.extend_from_slice(&message);
    record
}

fn check(ufrag: &str, password: &str) -> Vec<u8> {
    let mut request = Vec::new();
    BindingRequest {
        transaction_id: [9; 12],
        username: &format!("{ufrag}:evil"),
        role: IceRole::Controlling(1),
        priority: 1,
        use_candidate: true,
    }
    .write(&IntegrityKey::new(password), &mut request);
    request
}

/// Delivers and asserts that nothing is answered.
fn deliver_in_silence(world: &mut World, data: Vec<u8>) {
    world.settle();
    world.deliver_to_server(udp(addr(STRANGER)), data);
    assert_eq!(world.server.poll_transmit(&mut Vec::new()), None);
    assert_eq!(world.server.poll_event(), None);
}

#[test]
fn client_hello_from_a_source_that_never_passed_ice_is_ignored() {
    let mut world = World::new(Setting::default());
    deliver_in_silence(&mut world, null_client_hello());
    world.run_for(SECOND);
    deliver_in_silence(&mut world, null_client_hello());
    assert_eq!(world.dropped(DropReason::DtlsUnauthenticatedSource), 2);
    assert!(world.server.is_connected());
}

#[test]
fn hellos_sprayed_from_a_second_port_do_not_disturb_the_handshake() {
    let mut world = World::new(Setting::default());
    let mut sprayed = 0;
    while !world.server.is_connected() {
        deliver_in_silence(&mut world, null_client_hello());
        sprayed += 1;
        world.run_for(Duration::from_millis(1));
        assert!(world.elapsed() < 2 * SECOND);
    }
    assert_eq!(world.dropped(DropReason::DtlsUnauthenticatedSource), sprayed);
}

#[test]
fn hostile_hello_from_the_clients_own_address_does_not_end_the_session() {
    let mut world = World::new(Setting::default());
    let authenticated =
        |world: &World| world.server_events.contains(&PeerEvent::RouteChanged(udp(addr(CLIENT))));
    assert!(world.run_until(SECOND, authenticated));
    world.deliver_to_server(udp(addr(CLIENT)), null_client_hello());
    world.settle();
    assert!(world.run_until(20 * SECOND, |world| world.server.is_connected()));
    // And once more when the session is up.
    world.deliver_to_server(udp(addr(CLIENT)), null_client_hello());
    world.run_for(20 * SECOND);
    assert!(world.server.is_connected() && world.client.is_connected());
}

#[test]
fn unsigned_and_forged_stun_gets_silence() {
    let mut world = World::connected(Setting::default());
    deliver_in_silence(&mut world, check("Aserver1", "not the password"));
    deliver_in_silence(&mut world, check("Zsomebody", &credentials("Aserver1").pwd));
    let unsigned = {
        let mut message =
            b"\x00\x01\x00\x10\x21\x12\xa4\x42\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b"
                .to_vec();
        message.extend_from_slice(b"\x00\x06\x00\x0aAserver1:x\x00\x00");
        message
    };
    deliver_in_silence(&mut world, unsigned);
    assert_eq!(world.dropped(DropReason::StunUnauthenticated), 2);
    assert_eq!(world.dropped(DropReason::StunUnknownUfrag), 1);
    assert_eq!(world.server.selected_route(), Some(udp(addr(CLIENT))));
}

#[test]
fn media_before_dtls_is_counted() {
    let mut world = World::new(Setting::default());
    let rtp = [vec![0x80, 111], vec![1; 60]].concat();
    deliver_in_silence(&mut world, rtp.clone());
    assert_eq!(world.dropped(DropReason::SrtpUnauthenticatedSource), 1);
    let authenticated = |world: &World| world.server.selected_route().is_some();
    assert!(world.run_until(SECOND, authenticated));
    world.deliver_to_server(udp(addr(CLIENT)), rtp);
    assert_eq!(world.dropped(DropReason::SrtpBeforeDtls), 1);
}

#[test]
fn noise_of_every_first_byte_is_survived() {
    let mut world = World::connected(Setting::default());
    for first in 0..=255u8 {
        for len in [1usize, 2, 13, 20, 64, 1_200] {
            let mut data: Vec<u8> = (0..len).map(|_| (world.next_random() * 256.0) as u8).collect();
            data[0] = first;
            world.deliver_to_server(udp(addr(CLIENT)), data.clone());
            world.deliver_to_server(udp(addr(STRANGER)), data);
        }
    }
    world.run_for(30 * SECOND);
    assert!(world.server.is_connected() && world.client.is_connected());
}
