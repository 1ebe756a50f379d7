//! One peer connection of a participant before the media thread has it: socket, credentials, and the
//! candidates that came early.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use sluice_net::{BindOptions, UdpEndpoint};
use sluice_transport::IceCredentials;

use crate::participant::Shared;
use crate::sdp::LocalTransport;

/// Socket buffers of a connection, bytes: half a second of a busy subscriber.
const SOCKET_BUFFER: usize = 512 * 1024;
/// Letters of ICE credentials.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// One peer connection as the participant sees it.
#[derive(Default)]
pub(crate) struct Side {
    pub(crate) local: Option<LocalTransport>,
    pub(crate) socket: Option<UdpEndpoint>,
    /// The media thread knows it.
    pub(crate) started: bool,
    pub(crate) early_candidates: Vec<SocketAddr>,
}

impl Side {
    /// Binds the socket and chooses credentials, once.
    pub(crate) fn prepare(&mut self, shared: &Shared) -> anyhow::Result<&LocalTransport> {
        if self.local.is_none() {
            let any: IpAddr = match shared.local_ip {
                IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpEndpoint::bind(BindOptions {
                addr: SocketAddr::new(any, 0),
                reuse_port: false,
                recv_buffer_bytes: SOCKET_BUFFER,
                send_buffer_bytes: SOCKET_BUFFER,
            })
            .context("a UDP socket")?;
            let addr = SocketAddr::new(shared.local_ip, socket.local_addr().port());
            shared.ports.note_ours(addr.port());
            self.local = Some(LocalTransport {
                ice: IceCredentials { ufrag: ice_chars(8), pwd: ice_chars(24) },
                fingerprint: shared.identity.fingerprint_sha256().clone(),
                addr,
            });
            self.socket = Some(socket);
        }
        self.local.as_ref().context("no socket")
    }
}

fn ice_chars(count: usize) -> String {
    (0..count).map(|_| char::from(ICE_CHARS[rand::random::<u8>() as usize % 64])).collect()
}
