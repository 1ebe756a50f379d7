//! DTLS of one peer behind a small trait, and the certificate that all peers of a node share.
//!
//! Datagrams and time go in; records, keying material, the peer's certificate and SCTP packets come
//! out. The implementation is `dimpl` in DTLS 1.2 mode, where it prefers AES-256-GCM, then
//! AES-128-GCM, then AES-CM for SRTP whatever order the client offers (its 1.3 server takes the
//! client's order, and Chromium puts AES-CM first). No certificate is trusted here: the peer
//! compares fingerprints.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use dimpl::{Config, Dtls, DtlsCertificate, Output};

use crate::srtp::SrtpProfile;
use crate::types::{Fingerprint, HashAlgorithm};

/// LiveKit's DTLS handshake timeout.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// First retransmission of a flight. LiveKit uses 100 ms; RFC 6347 §4.2.4.1 suggests 1 s, which
/// costs a lossy join a whole second.
const FLIGHT_START_RTO: Duration = Duration::from_millis(200);
/// With doubling from [`FLIGHT_START_RTO`], retransmissions outlast [`HANDSHAKE_TIMEOUT`].
const FLIGHT_RETRIES: usize = 10;
/// Largest datagram of ours, bytes: fits every path that WebRTC media fits.
const MTU: usize = 1200;
/// Received records that wait for missing ones; a handshake has about ten.
const MAX_QUEUE_RX: usize = 64;
/// Records that wait to be polled; a peer polls after every call.
const MAX_QUEUE_TX: usize = 64;
/// First size of the output buffer, bytes: holds our datagrams, a certificate, and what peers send
/// in one record; grows for the rest.
const POLL_BUFFER: usize = 2048;

/// Certificate and DTLS configuration of the node. Building the configuration validates the whole
/// crypto provider (1.8 ms), so one value serves every peer.
pub struct DtlsIdentity {
    certificate: DtlsCertificate,
    fingerprint: Fingerprint,
    config: Arc<Config>,
}

/// Why an identity could not be made: the crypto library failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a DTLS identity: {0}")]
pub struct IdentityError(String);

impl DtlsIdentity {
    /// A new self-signed ECDSA P-256 certificate, valid for a year.
    pub fn generate() -> Result<Self, IdentityError> {
        let certificate = dimpl::certificate::generate_self_signed_certificate()
            .map_err(|error| IdentityError(error.to_string()))?;
        let config = Config::builder()
            .mtu(MTU)
            .max_queue_rx(MAX_QUEUE_RX)
            .max_queue_tx(MAX_QUEUE_TX)
            // The source already passed an ICE check, which a cookie would only repeat.
            .use_server_cookie(false)
            .flight_start_rto(FLIGHT_START_RTO)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .build()
            .map_err(|error| IdentityError(error.to_string()))?;
        let fingerprint = fingerprint_of(HashAlgorithm::Sha256, &certificate.certificate);
        Ok(Self { certificate, fingerprint, config: Arc::new(config) })
    }

    /// SHA-256 fingerprint for `a=fingerprint`.
    pub fn fingerprint_sha256(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// A DTLS 1.2 endpoint with this certificate: server until [`DtlsSession::become_client`].
    pub(crate) fn session(self: &Arc<Self>) -> Box<dyn DtlsSession> {
        Box::new(DimplSession { identity: self.clone(), client: false, inner: None })
    }
}

impl fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsIdentity").field("fingerprint", &self.fingerprint).finish()
    }
}

/// Fingerprint of a DER certificate (RFC 8122 §5).
pub(crate) fn fingerprint_of(algorithm: HashAlgorithm, certificate: &[u8]) -> Fingerprint {
    let algorithm_impl = match algorithm {
        HashAlgorithm::Sha256 => &digest::SHA256,
        HashAlgorithm::Sha384 => &digest::SHA384,
        HashAlgorithm::Sha512 => &digest::SHA512,
    };
    let digest = digest::digest(algorithm_impl, certificate).as_ref().to_vec();
    Fingerprint { algorithm, digest }
}

/// What a session has to say; [`DtlsSession::poll`] fills the buffer it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DtlsOutput {
    /// The buffer holds a datagram to send.
    Transmit,
    /// The buffer holds the leaf certificate of the peer, DER.
    PeerCertificate,
    /// The buffer holds the exported keying material (RFC 5764 §4.2).
    SrtpKeys(SrtpProfile),
    /// The handshake is complete; certificate and keys come before the next `Wait`.
    Connected,
    /// The buffer holds an SCTP packet.
    Data,
    /// The peer closed the session.
    Closed,
    /// Nothing more for now; call `handle_timeout` then, if ever.
    Wait(Option<Instant>),
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DtlsError {
    /// The handshake took too long.
    #[error("handshake timeout")]
    Timeout,
    /// Anything else, in the words of the library.
    #[error("{0}")]
    Other(String),
}

/// One DTLS session. Every call is followed by [`DtlsSession::poll`] until it waits. Every error is
/// final.
pub(crate) trait DtlsSession: Send {
    /// Takes the client role; a server that has seen a packet stays what it is.
    fn become_client(&mut self);
    /// Whether we have the client role.
    fn is_client(&self) -> bool;
    /// Takes one datagram.
    fn handle_packet(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DtlsError>;
    /// Runs timers.
    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError>;
    /// Encrypts one SCTP packet.
    fn send(&mut self, now: Instant, packet: &[u8]) -> Result<(), DtlsError>;
    /// Starts to say goodbye.
    fn close(&mut self);
    /// Next output, in `buf`.
    fn poll(&mut self, buf: &mut Vec<u8>) -> DtlsOutput;
}

/// The library's session begins with the first packet or hello. It takes memory and parses the key, and
/// many peers only wait: clients that publish nothing have one for it.
struct DimplSession {
    identity: Arc<DtlsIdentity>,
    client: bool,
    inner: Option<Box<Dtls>>,
}

impl DimplSession {
    fn start(&mut self, now: Instant) -> &mut Dtls {
        self.inner.get_or_insert_with(|| {
            let (config, certificate) =
                (self.identity.config.clone(), self.identity.certificate.clone());
            let mut inner = Dtls::new_12(config, certificate, now);
            inner.set_active(self.client);
            Box::new(inner)
        })
    }
}

impl DtlsSession for DimplSession {
    fn become_client(&mut self) {
        self.client |= self.inner.is_none();
    }

    fn is_client(&self) -> bool {
        self.client
    }

    fn handle_packet(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DtlsError> {
        let inner = self.start(now);
        // dimpl has no clock before the first timeout, and wants it refreshed before packets.
        inner.handle_timeout(now)?;
        Ok(inner.handle_packet(datagram)?)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError> {
        Ok(self.start(now).handle_timeout(now)?)
    }

    fn send(&mut self, now: Instant, packet: &[u8]) -> Result<(), DtlsError> {
        let inner = self.start(now);
        inner.handle_timeout(now)?;
        inner.send_application_data(packet)?;
        Ok(())
    }

    fn close(&mut self) {
        if let Some(inner) = &mut self.inner {
            // An error means that there is nobody to say goodbye to.
            _ = inner.close();
        }
    }

    fn poll(&mut self, buf: &mut Vec<u8>) -> DtlsOutput {
        let Some(inner) = &mut self.inner else { return DtlsOutput::Wait(None) };
        let mut room = POLL_BUFFER;
        loop {
            buf.resize(room, 0);
            let (output, len) = match inner.poll_output(buf) {
                Output::BufferTooSmall { needed } => {
                    room = needed.max(room + 1);
                    continue;
                }
                Output::Packet(data) => (DtlsOutput::Transmit, data.len()),
                Output::PeerCert(data) => (DtlsOutput::PeerCertificate, data.len()),
                Output::ApplicationData(data) => (DtlsOutput::Data, data.len()),
                Output::KeyingMaterial(material, profile) => {
                    let Some(profile) = srtp_profile(profile) else { continue };
                    buf.clear();
                    buf.extend_from_slice(&material);
                    return DtlsOutput::SrtpKeys(profile);
                }
                Output::Connected => (DtlsOutput::Connected, 0),
                Output::CloseNotify => (DtlsOutput::Closed, 0),
                Output::Timeout(at) => (DtlsOutput::Wait(Some(at)), 0),
                _ => continue,
            };
            buf.truncate(len);
            return output;
        }
    }
}

fn srtp_profile(profile: dimpl::SrtpProfile) -> Option<SrtpProfile> {
    match profile {
        dimpl::SrtpProfile::AEAD_AES_256_GCM => Some(SrtpProfile::AeadAes256Gcm),
        dimpl::SrtpProfile::AEAD_AES_128_GCM => Some(SrtpProfile::AeadAes128Gcm),
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => Some(SrtpProfile::Aes128CmSha1_80),
        _ => None,
    }
}

impl From<dimpl::Error> for DtlsError {
    fn from(error: dimpl::Error) -> Self {
        match error {
            dimpl::Error::Timeout(_) => Self::Timeout,
            other => Self::Other(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_without_a_packet_takes_nothing_and_says_nothing() {
        let identity = Arc::new(DtlsIdentity::generate().expect("an identity"));
        let mut session = identity.session();
        let mut buf = Vec::new();
        assert_eq!(session.poll(&mut buf), DtlsOutput::Wait(None));
        session.close();
        assert_eq!(session.poll(&mut buf), DtlsOutput::Wait(None));
        assert_eq!(buf.capacity(), 0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant does as the origin")]
    fn the_role_is_fixed_by_the_first_packet() {
        let identity = Arc::new(DtlsIdentity::generate().expect("an identity"));
        let (mut client, mut server) = (identity.session(), identity.session());
        let now = Instant::now();
        let mut hello = Vec::new();
        client.become_client();
        client.handle_timeout(now).expect("a hello");
        assert_eq!(client.poll(&mut hello), DtlsOutput::Transmit);
        server.handle_packet(now, &hello).expect("a hello");
        server.become_client();
        assert!(client.is_client() && !server.is_client());
    }
}
