//! The ICE agent of one connection of a client (RFC 8445): sends checks to the server's candidates,
//! answers the server's checks, and says which route is valid.
//!
//! [`sluice_transport::Peer`] accepts media only from routes that an authenticated check proved, and
//! as an ICE-lite endpoint it sends none. So this agent does the checking and, once a pair is valid,
//! hands the peer a check that the peer itself would accept ([`IceAgent::introduction`]).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_transport::IceCredentials;
use sluice_transport::stun::{
    BindingRequest, Class, IceRole, IntegrityKey, Message, TransactionId, write_success,
};

/// Time between the first checks (RFC 8445 §14.2: at least 50 ms).
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Longest pause between checks while nothing answers.
const MAX_CHECK_INTERVAL: Duration = Duration::from_millis(400);
/// Time between checks of a connection that works (LiveKit's keepalive).
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Priority of a peer-reflexive host candidate.
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

/// Which route became valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IceOutput {
    /// Nothing changed.
    Nothing,
    /// A check succeeded: introduce this address to the peer.
    Valid(SocketAddr),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct IceAgent {
    local_ufrag: String,
    username: String,
    local_key: IntegrityKey,
    remote_key: IntegrityKey,
    role: IceRole,
    candidates: Vec<SocketAddr>,
    transaction: TransactionId,
    checks: u32,
    next_check: Instant,
    valid: Option<SocketAddr>,
    /// Nominated by a controlling server, or by us.
    nominated: bool,
}

impl IceAgent {
    /// An agent that starts to check now. Controlling if we offered or the server is ICE-lite.
    pub(crate) fn new(
        local: &IceCredentials,
        remote: &IceCredentials,
        controlling: bool,
        candidates: Vec<SocketAddr>,
        now: Instant,
    ) -> Self {
        let tie_breaker = rand::random();
        Self {
            local_ufrag: local.ufrag.clone(),
            username: format!("{}:{}", remote.ufrag, local.ufrag),
            local_key: IntegrityKey::new(&local.pwd),
            remote_key: IntegrityKey::new(&remote.pwd),
            role: if controlling {
                IceRole::Controlling(tie_breaker)
            } else {
                IceRole::Controlled(tie_breaker)
            },
            candidates,
            transaction: rand::random(),
            checks: 0,
            next_check: now,
            valid: None,
            nominated: controlling,
        }
    }

    /// More candidates of the server.
    pub(crate) fn add_candidate(&mut self, now: Instant, candidate: SocketAddr) {
        if !self.candidates.contains(&candidate) {
            self.candidates.push(candidate);
            if self.valid.is_none() {
                self.next_check = now;
            }
        }
    }

    /// The route of media.
    pub(crate) fn valid(&self) -> Option<SocketAddr> {
        self.valid
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next_check
    }

    /// The check that is due: fills `out` and says where to send it; several candidates in turn.
    pub(crate) fn poll_check(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<SocketAddr> {
        if now < self.next_check {
            return None;
        }
        let to = match self.valid {
            Some(valid) => {
                self.next_check = now + KEEPALIVE;
                valid
            }
            None if self.candidates.is_empty() => {
                self.next_check = now + KEEPALIVE;
                return None;
            }
            None => {
                let at = self.checks as usize;
                let round = (at / self.candidates.len()) as u32;
                let pause = CHECK_INTERVAL * 2u32.pow(round.min(3));
                self.next_check = now + pause.min(MAX_CHECK_INTERVAL);
                self.candidates[at % self.candidates.len()]
            }
        };
        self.checks = self.checks.wrapping_add(1);
        BindingRequest {
            transaction_id: self.transaction,
            username: &self.username,
            role: self.role,
            priority: PRIORITY,
            use_candidate: matches!(self.role, IceRole::Controlling(_)),
        }
        .write(&self.remote_key, out);
        Some(to)
    }

    /// Takes a STUN datagram; a reply to send is in `reply` if that is not empty.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        reply: &mut Vec<u8>,
    ) -> IceOutput {
        reply.clear();
        let Ok(message) = Message::parse(datagram) else { return IceOutput::Nothing };
        match message.class {
            Class::Request if message.verify(&self.local_key) => {
                write_success(&message.transaction_id(), from, &self.local_key, reply);
                self.add_candidate(now, from);
                if message.use_candidate && !self.nominated {
                    self.nominated = true;
                    return self.validate(now, from);
                }
                IceOutput::Nothing
            }
            Class::Success
                if message.transaction_id() == self.transaction
                    && message.verify(&self.remote_key) =>
            {
                if self.nominated {
                    self.validate(now, from)
                } else {
                    IceOutput::Nothing
                }
            }
            _ => IceOutput::Nothing,
        }
    }

    /// A check that our own peer accepts as proof of the valid route.
    pub(crate) fn introduction(&self, out: &mut Vec<u8>) {
        let username = format!("{}:server", self.local_ufrag);
        BindingRequest {
            transaction_id: rand::random(),
            username: &username,
            role: IceRole::Controlling(1),
            priority: PRIORITY,
            use_candidate: true,
        }
        .write(&self.local_key, out);
    }

    /// Every success repeats the introduction: it is what keeps the peer alive without media.
    fn validate(&mut self, now: Instant, from: SocketAddr) -> IceOutput {
        if self.valid.is_none() {
            self.next_check = now + KEEPALIVE;
        }
        self.valid.get_or_insert(from);
        IceOutput::Valid(from)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use sluice_transport::{
        DtlsIdentity, Peer, PeerEvent, PeerParams, Received, RemoteParams, Route, Setup,
        TransportProto,
    };

    fn credentials(ufrag: &str) -> IceCredentials {
        IceCredentials { ufrag: ufrag.into(), pwd: format!("{ufrag}-password-of-24-chars") }
    }

    fn route(addr: SocketAddr) -> Route {
        Route { proto: TransportProto::Udp, remote: addr, conn: 0 }
    }

    /// Client agent and client peer against a lite server: check, introduction, DTLS, keys.
    #[test]
    fn checks_and_an_introduction_connect_two_lite_peers() {
        let mut now = Instant::now();
        let identity = Arc::new(DtlsIdentity::generate().unwrap());
        let (ours, theirs) = (credentials("Aclient0"), credentials("Aserver0"));
        let peer = |local: &IceCredentials| {
            let (local, dtls) = (local.clone(), identity.clone());
            Peer::new(PeerParams { local, dtls, open_channels: Vec::new(), now })
        };
        let (mut client, mut server) = (peer(&ours), peer(&theirs));
        let describe = |ice: &IceCredentials, setup| RemoteParams {
            ice: ice.clone(),
            fingerprints: vec![identity.fingerprint_sha256().clone()],
            setup,
            sctp: None,
        };
        client.set_remote(now, describe(&theirs, Setup::Passive));
        server.set_remote(now, describe(&ours, Setup::Active));
        let server_addr: SocketAddr = "127.0.0.1:7882".parse().unwrap();
        let client_addr: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let mut agent = IceAgent::new(&ours, &theirs, true, vec![server_addr], now);

        let (mut buf, mut reply) = (Vec::new(), Vec::new());
        let to = agent.poll_check(now, &mut buf);
        assert_eq!(to, Some(server_addr));
        let received = server.handle_datagram(now, route(client_addr), &mut buf);
        assert!(matches!(received, Received::Consumed));
        assert!(server.poll_transmit(&mut buf).is_some());
        let output = agent.handle(now, server_addr, &buf, &mut reply);
        assert_eq!(output, IceOutput::Valid(server_addr));
        agent.introduction(&mut buf);
        client.handle_datagram(now, route(server_addr), &mut buf);
        assert!(client.poll_transmit(&mut buf).is_some(), "the answer to nobody");

        for _ in 0..40 {
            while client.poll_transmit(&mut buf).is_some() {
                server.handle_datagram(now, route(client_addr), &mut buf);
            }
            while server.poll_transmit(&mut buf).is_some() {
                client.handle_datagram(now, route(server_addr), &mut buf);
            }
            if client.is_connected() && server.is_connected() {
                break;
            }
            now += Duration::from_millis(20);
            client.handle_timeout(now);
            server.handle_timeout(now);
        }
        assert!(client.is_connected() && server.is_connected());
        let connected = std::iter::from_fn(|| client.poll_event())
            .any(|event| matches!(event, PeerEvent::Connected { .. }));
        assert!(connected);
    }

    #[test]
    fn controlled_agent_waits_for_the_nomination() {
        let now = Instant::now();
        let (ours, theirs) = (credentials("Aclient0"), credentials("Aserver0"));
        let server_addr: SocketAddr = "127.0.0.1:7882".parse().unwrap();
        let mut agent = IceAgent::new(&ours, &theirs, false, Vec::new(), now);
        let check = |use_candidate| {
            let mut out = Vec::new();
            BindingRequest {
                transaction_id: [1; 12],
                username: "Aclient0:Aserver0",
                role: IceRole::Controlling(9),
                priority: 1,
                use_candidate,
            }
            .write(&IntegrityKey::new(&ours.pwd), &mut out);
            out
        };
        let mut reply = Vec::new();
        let output = agent.handle(now, server_addr, &check(false), &mut reply);
        assert_eq!(output, IceOutput::Nothing);
        assert!(!reply.is_empty());
        let output = agent.handle(now, server_addr, &check(true), &mut reply);
        assert_eq!(output, IceOutput::Valid(server_addr));
    }

    #[test]
    fn forged_success_is_ignored() {
        let now = Instant::now();
        let (ours, theirs) = (credentials("Aclient0"), credentials("Aserver0"));
        let server_addr: SocketAddr = "127.0.0.1:7882".parse().unwrap();
        let mut agent = IceAgent::new(&ours, &theirs, true, vec![server_addr], now);
        let mut forged = Vec::new();
        let key = IntegrityKey::new("another password of 24 c");
        write_success(&agent.transaction, server_addr, &key, &mut forged);
        let output = agent.handle(now, server_addr, &forged, &mut Vec::new());
        assert_eq!(output, IceOutput::Nothing);
        assert_eq!(agent.valid(), None);
    }
}
