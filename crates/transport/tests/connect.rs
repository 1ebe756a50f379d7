//! An independent client connects to a peer.

mod common;

use std::time::Duration;

use common::{CLIENT, Setting, World, addr, credentials, udp};
use sluice_transport::{DropReason, FailureReason, PeerEvent, SealError};
use str0m::IceCreds;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn client_connects_and_gets_a_gcm_profile() {
    let world = World::connected(Setting::default());
    assert!(world.elapsed() < SECOND, "{:?}", world.elapsed());
    assert!(
        world.server_events.contains(&PeerEvent::Connected {
            srtp_profile: "AEAD_AES_256_GCM",
            dtls_version: "1.2",
        })
    );
    assert!(world.server_events.contains(&PeerEvent::RouteChanged(udp(addr(CLIENT)))));
    assert_eq!(world.server.selected_route(), Some(udp(addr(CLIENT))));
}

#[test]
fn client_that_wants_to_be_dtls_server_connects() {
    World::connected(Setting { client_passive: true, ..Setting::default() });
}

#[test]
fn client_connects_through_loss() {
    for seed in 1..=20 {
        World::connected(Setting { loss: 0.1, seed, ..Setting::default() });
    }
}

#[test]
fn handshake_may_finish_before_the_remote_description_arrives() {
    let mut world = World::new(Setting { remote_after: Some(2 * SECOND), ..Setting::default() });
    world.run_for(SECOND);
    assert!(world.client.is_connected());
    assert!(!world.server.is_connected());
    assert_eq!(world.server.seal_rtcp(&mut vec![0; 8]), Err(SealError::NotConnected));
    assert!(world.run_until(2 * SECOND, |world| world.server.is_connected()));
}

#[test]
fn wrong_fingerprint_fails_the_peer() {
    let mut world = World::new(Setting { remote_after: Some(SECOND / 2), ..Setting::default() });
    world.corrupt_remote_fingerprint();
    world.run_for(2 * SECOND);
    let failed = PeerEvent::Failed(FailureReason::FingerprintMismatch);
    assert!(world.server_events.contains(&failed), "{:?}", world.server_events);
    assert!(!world.server.is_connected());
}

#[test]
fn silence_is_reported_and_then_fails() {
    let mut world = World::connected(Setting::default());
    world.loss = 1.0;
    world.run_for(11 * SECOND);
    assert_eq!(world.server_events.last(), Some(&PeerEvent::IceDisconnected));
    world.run_for(5 * SECOND);
    assert_eq!(world.server_events.last(), Some(&PeerEvent::IceFailed));
}

#[test]
fn short_silence_recovers() {
    let mut world = World::connected(Setting::default());
    world.loss = 1.0;
    world.run_for(12 * SECOND);
    world.loss = 0.0;
    let back = |world: &World| world.server_events.contains(&PeerEvent::IceReconnected);
    assert!(world.run_until(3 * SECOND, back));
}

#[test]
fn idle_connection_stays_up_for_ten_minutes() {
    let mut world = World::connected(Setting::default());
    world.run_for(600 * SECOND);
    assert!(!world.server_events.contains(&PeerEvent::IceDisconnected));
    assert!(world.server.is_connected());
}

#[test]
fn ice_restart_keeps_the_session() {
    let mut world = World::connected(Setting::default());
    let fresh = credentials("Aserver2");
    world.server.restart_ice(world.now, fresh.clone());
    world.run_for(3 * SECOND);
    assert!(world.server.is_connected() && world.client.is_connected());
    let mut api = world.client.direct_api();
    api.set_local_ice_credentials(IceCreds::new());
    api.set_remote_ice_credentials(IceCreds { ufrag: fresh.ufrag, pass: fresh.pwd });
    world.run_for(30 * SECOND);
    assert!(world.server.is_connected());
    assert!(!world.server_events.contains(&PeerEvent::IceDisconnected));
    // The old credentials died with the first use of the new ones.
    let old_check = world.captured.iter().find(|data| data[0] == 0).unwrap().clone();
    world.deliver_to_server(udp(addr(CLIENT)), old_check);
    assert_eq!(world.dropped(DropReason::StunUnknownUfrag), 1);
}

#[test]
fn address_change_moves_the_route_at_the_first_check() {
    let mut world = World::connected(Setting::default());
    let moved = addr("10.9.9.9:4242");
    world.nat = moved;
    let on_new = |world: &World| world.server.selected_route() == Some(udp(moved));
    assert!(world.run_until(5 * SECOND, on_new));
    world.run_for(30 * SECOND);
    assert!(!world.server_events.contains(&PeerEvent::IceDisconnected));
    assert!(world.server.is_connected() && world.client.is_connected());
}
