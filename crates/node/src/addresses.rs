//! Addresses of this machine: which ones clients are told (`rtc.node_ip`, filters, what a STUN
//! server sees), and which local ones media sockets are bound to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context;
use sluice_transport::stun::{Class, Message, TransactionId};

use crate::config::{AddressFilter, RtcConfig};

/// How long one STUN server may take to say which address it sees.
const STUN_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests sent to one server within [`STUN_TIMEOUT`]; a datagram may be lost.
const STUN_ATTEMPTS: u32 = 4;

/// Asked when `rtc.use_external_ip` is set without `rtc.stun_servers`, as LiveKit does.
const PUBLIC_STUN_SERVERS: &[&str] =
    &["global.stun.twilio.com:3478", "stun.l.google.com:19302", "stun1.l.google.com:19302"];

/// The addresses that clients are told.
///
/// # Errors
/// There is none; the message says which key to set.
pub(crate) fn advertised(rtc: &RtcConfig) -> anyhow::Result<Vec<IpAddr>> {
    let mut addresses = if !rtc.node_ips.is_empty() {
        rtc.node_ips.clone()
    } else if rtc.filter.is_empty() {
        let outgoing = outgoing_address()
            .context("no address to give to clients was found: set `rtc.node_ip` or --node-ip")?;
        vec![outgoing]
    } else {
        filtered_addresses(&rtc.filter)?
    };
    if rtc.use_external_ip && rtc.node_ips.is_empty() {
        addresses = with_external(&addresses, rtc);
    }
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if rtc.enable_loopback_candidate && !addresses.contains(&loopback) {
        addresses.push(loopback);
    }
    Ok(addresses)
}

/// Loopback addresses are bound as they are, others by family: the advertised address may be one of
/// a router in front.
pub(crate) fn to_bind(advertised: &[IpAddr]) -> Vec<IpAddr> {
    let wildcard_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let addresses: BTreeSet<IpAddr> = advertised
        .iter()
        .map(|address| match address {
            address if address.is_loopback() => *address,
            IpAddr::V4(_) => wildcard_v4,
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        })
        .collect();
    // The wildcard receives what is sent to loopback too; both on one port would collide.
    let covered = addresses.contains(&wildcard_v4);
    addresses.into_iter().filter(|ip| !(covered && ip.is_ipv4() && ip.is_loopback())).collect()
}

/// The address of the interface that a packet to the internet would leave through. Connecting a
/// UDP socket chooses it and sends nothing; the target is a documentation address (RFC 5737).
fn outgoing_address() -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
    Ok(socket.local_addr()?.ip())
}

fn filtered_addresses(filter: &AddressFilter) -> anyhow::Result<Vec<IpAddr>> {
    let interfaces = if_addrs::get_if_addrs().context("listing the network interfaces")?;
    let found: Vec<(String, IpAddr)> =
        interfaces.into_iter().map(|interface| (interface.name.clone(), interface.ip())).collect();
    let addresses = select(&found, filter);
    if addresses.is_empty() {
        let all: Vec<_> = found.iter().map(|(name, ip)| format!("{name} {ip}")).collect();
        anyhow::bail!(
            "`rtc.interfaces` and `rtc.ips` leave no address to give to clients; this machine has {}",
            all.join(", ")
        );
    }
    Ok(addresses)
}

/// Addresses that clients may be able to reach and that the filter lets through.
fn select(found: &[(String, IpAddr)], filter: &AddressFilter) -> Vec<IpAddr> {
    let reachable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let passing = found.iter().filter(|(name, ip)| reachable(ip) && filter.allows(name, *ip));
    let mut addresses: Vec<IpAddr> = passing.map(|(_, ip)| *ip).collect();
    let mut seen = BTreeSet::new();
    addresses.retain(|ip| seen.insert(*ip));
    addresses
}

/// Replaces local addresses by what a STUN server sees of them; without an answer they stay, and
/// the log says what that means.
fn with_external(local: &[IpAddr], rtc: &RtcConfig) -> Vec<IpAddr> {
    let configured = rtc.stun_servers.iter().map(String::as_str);
    let servers: Vec<&str> = match rtc.stun_servers.as_slice() {
        [] => PUBLIC_STUN_SERVERS.to_vec(),
        _ => configured.collect(),
    };
    let mut result = Vec::new();
    for address in local {
        match servers.iter().find_map(|server| mapped_address(*address, server)) {
            Some(external) => {
                tracing::info!(%address, %external, "external address");
                result.push(external);
                if rtc.advertise_internal_ip && external != *address {
                    result.push(*address);
                }
            }
            None => {
                tracing::warn!(
                    %address,
                    "`rtc.use_external_ip`: no STUN server answered, clients are told the local \
                     address; set `rtc.node_ip` to the public one if they are outside"
                );
                result.push(*address);
            }
        }
    }
    result.dedup();
    result
}

/// What a STUN server (`host:port`) sees of a local address (RFC 8489 §5).
fn mapped_address(local: IpAddr, server: &str) -> Option<IpAddr> {
    let server = server.trim_start_matches("stun:");
    let targets = server.to_socket_addrs().or_else(|_| (server, 3478).to_socket_addrs());
    let target = targets.ok()?.find(|target| target.is_ipv4() == local.is_ipv4())?;
    ask(local, target, rand::random()).ok().flatten()
}

fn ask(local: IpAddr, server: SocketAddr, id: TransactionId) -> std::io::Result<Option<IpAddr>> {
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(server)?;
    let deadline = Instant::now() + STUN_TIMEOUT;
    let mut datagram = [0; 1500];
    for _ in 0..STUN_ATTEMPTS {
        socket.send(&binding_request(id))?;
        let wait = STUN_TIMEOUT / STUN_ATTEMPTS;
        socket.set_read_timeout(Some(wait))?;
        while let Ok(len) = socket.recv(&mut datagram) {
            if let Some(mapped) = mapped_in(&datagram[..len], id) {
                return Ok(Some(mapped));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
    Ok(None)
}

/// A binding request without attributes: type, length, magic cookie, transaction id.
fn binding_request(id: TransactionId) -> Vec<u8> {
    [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], id.as_slice()].concat()
}

fn mapped_in(datagram: &[u8], id: TransactionId) -> Option<IpAddr> {
    let message = Message::parse(datagram).ok()?;
    let answers = message.class == Class::Success && message.transaction_id() == id;
    message.mapped_address.filter(|_| answers).map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn public_addresses_are_bound_by_family_and_loopback_as_it_is() {
        assert_eq!(to_bind(&[ip("203.0.113.7"), ip("198.51.100.1")]), [ip("0.0.0.0")]);
        assert_eq!(to_bind(&[ip("127.0.0.1")]), [ip("127.0.0.1")]);
        let both = to_bind(&[ip("203.0.113.7"), ip("2001:db8::1")]);
        assert_eq!(both, [ip("0.0.0.0"), ip("::")]);
        assert_eq!(to_bind(&[ip("203.0.113.7"), ip("127.0.0.1")]), [ip("0.0.0.0")]);
    }

    #[test]
    fn filters_choose_by_interface_and_by_network() {
        let found = [
            ("lo", "127.0.0.1"),
            ("eth0", "10.0.0.5"),
            ("eth0", "fe80::1"),
            ("docker0", "172.17.0.1"),
            ("eth1", "10.1.0.5"),
            ("eth1", "10.1.0.5"),
        ]
        .map(|(name, address)| (name.to_owned(), ip(address)));
        let chosen = |filter: AddressFilter| select(&found, &filter);
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let filter =
            AddressFilter { exclude_interfaces: names(&["docker0"]), ..Default::default() };
        assert_eq!(chosen(filter), [ip("10.0.0.5"), ip("10.1.0.5")]);
        let filter = AddressFilter { include_interfaces: names(&["eth1"]), ..Default::default() };
        assert_eq!(chosen(filter), [ip("10.1.0.5")]);
        let filter = AddressFilter {
            include_ips: vec!["10.0.0.0/8".parse().unwrap()],
            exclude_ips: vec!["10.1.0.0/16".parse().unwrap()],
            ..Default::default()
        };
        assert_eq!(chosen(filter), [ip("10.0.0.5")]);
    }

    /// A STUN server of one answer, behind which everybody seems to be 203.0.113.9.
    #[test]
    fn stun_server_tells_the_external_address() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut request = [0; 100];
            let (len, from) = server.recv_from(&mut request).unwrap();
            assert_eq!(len, 20);
            let mut answer = vec![1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
            answer.extend(&request[8..20]);
            // XOR-MAPPED-ADDRESS, IPv4: port and address are XORed with the cookie.
            answer.extend([0, 0x20, 0, 8, 0, 1, 0x21, 0x13]);
            answer.extend([203 ^ 0x21, 0x12, 113 ^ 0xa4, 9 ^ 0x42]);
            server.send_to(&answer, from).unwrap();
        });
        let rtc = RtcConfig {
            use_external_ip: true,
            advertise_internal_ip: true,
            stun_servers: vec![address.to_string()],
            ..RtcConfig::default()
        };
        let loopback = ip("127.0.0.1");
        assert_eq!(with_external(&[loopback], &rtc), [ip("203.0.113.9"), loopback]);
        answering.join().unwrap();
    }

    #[test]
    fn answers_to_another_question_are_ignored() {
        let id = [7; 12];
        let mut answer = vec![1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
        answer.extend([8; 12]);
        answer.extend([0, 0x20, 0, 8, 0, 1, 0, 0, 1, 2, 3, 4]);
        assert_eq!(mapped_in(&answer, id), None);
        assert!(mapped_in(&answer, [8; 12]).is_some());
    }
}
