//! The section `rtc` without its TURN servers: ports and addresses that media uses, and how
//! connections behave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::cidr::Cidr;
use super::document::{parse_duration, parse_port_range};
use super::error::invalid;
use super::turn::{TurnServer, turn_servers};
use super::{ConfigError, Document};

/// UDP port of development mode.
const DEV_UDP_PORT: u16 = 7882;
/// LiveKit's default UDP range, used when neither a port nor a range is given. One port per worker
/// is taken from its start: peers share ports, so that a port per peer is never needed.
const DEFAULT_UDP_RANGE: (u16, u16) = (50_000, 60_000);
/// Longest `rtc.batch_io.max_flush_interval`.
const MAX_EGRESS_HOLD: Duration = Duration::from_millis(20);

/// UDP ports of the workers; both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UdpPorts {
    /// First port.
    pub(crate) first: u16,
    /// Last port.
    pub(crate) last: u16,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct RtcConfig {
    /// UDP ports; `None` with `force_tcp`.
    pub(crate) udp_ports: Option<UdpPorts>,
    /// ICE-TCP port; `None` when disabled.
    pub(crate) tcp_port: Option<u16>,
    /// Addresses to advertise; empty = find out.
    pub(crate) node_ips: Vec<IpAddr>,
    /// Which addresses of the machine may be advertised, without `node_ips`.
    pub(crate) filter: AddressFilter,
    /// Advertise what a STUN server sees instead of local addresses.
    pub(crate) use_external_ip: bool,
    /// Advertise local addresses beside external ones.
    pub(crate) advertise_internal_ip: bool,
    /// Advertise the loopback address too.
    pub(crate) enable_loopback_candidate: bool,
    /// Advertise TCP candidates only.
    pub(crate) force_tcp: bool,
    /// Age at which waiting lossy messages are given up; `None` = never.
    pub(crate) lossy_latency: Option<Duration>,
    /// The same for frames of data tracks.
    pub(crate) data_track_latency: Option<Duration>,
    /// Move clients whose connections fail to TCP, then to relays.
    pub(crate) allow_tcp_fallback: bool,
    /// A published track without media makes its publisher start anew.
    pub(crate) reconnect_on_publication_error: bool,
    /// A subscription that cannot be started makes its subscriber start anew.
    pub(crate) reconnect_on_subscription_error: bool,
    /// STUN servers that clients are told, `host:port`.
    pub(crate) stun_servers: Vec<String>,
    /// TURN servers that clients are told.
    pub(crate) turn_servers: Vec<TurnServer>,
    /// How long a busy worker lets packets of one receiver gather.
    pub(crate) egress_hold: Duration,
    /// Congestion control towards receivers; `None` when disabled.
    pub(crate) congestion_control: Option<CongestionControl>,
}

/// See [`RtcConfig::congestion_control`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CongestionControl {
    /// Whether videos of which not even the lowest layer fits are paused.
    pub(crate) allow_pause: bool,
    /// Least bandwidth that streams get, bits per second.
    pub(crate) min_channel_capacity: u64,
}

/// `rtc.interfaces` and `rtc.ips`: what is included (empty = everything) less what is excluded.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressFilter {
    /// Names of interfaces.
    pub(crate) include_interfaces: Vec<String>,
    /// Names of interfaces.
    pub(crate) exclude_interfaces: Vec<String>,
    /// Networks.
    pub(crate) include_ips: Vec<Cidr>,
    /// Networks.
    pub(crate) exclude_ips: Vec<Cidr>,
}

impl AddressFilter {
    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.include_interfaces.is_empty()
            && self.exclude_interfaces.is_empty()
            && self.include_ips.is_empty()
            && self.exclude_ips.is_empty()
    }

    /// Whether an address of an interface may be advertised.
    pub(crate) fn allows(&self, interface: &str, ip: IpAddr) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == interface);
        let within = |networks: &[Cidr]| networks.iter().any(|network| network.contains(ip));
        (self.include_interfaces.is_empty() || named(&self.include_interfaces))
            && !named(&self.exclude_interfaces)
            && (self.include_ips.is_empty() || within(&self.include_ips))
            && !within(&self.exclude_ips)
    }
}

/// The section; `dev` decides defaults.
pub(super) fn rtc(doc: &Document, dev: bool) -> Result<RtcConfig, ConfigError> {
    let force_tcp = doc.bool("rtc.force_tcp");
    let tcp_port = Some(doc.uint("rtc.tcp_port") as u16).filter(|port| *port != 0);
    if force_tcp && tcp_port.is_none() {
        return Err(ConfigError::Conflict(
            "`rtc.force_tcp` needs a TCP port: set `rtc.tcp_port`".into(),
        ));
    }
    let mut node_ips = node_ips(&doc.text("rtc.node_ip"))?;
    if node_ips.is_empty() && dev {
        node_ips.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    Ok(RtcConfig {
        udp_ports: udp_ports(doc, dev)?,
        tcp_port,
        node_ips,
        filter: address_filter(doc)?,
        use_external_ip: doc.bool("rtc.use_external_ip"),
        advertise_internal_ip: doc.bool("rtc.advertise_internal_ip")
            && !doc.bool("rtc.external_ip_only"),
        enable_loopback_candidate: doc.bool("rtc.enable_loopback_candidate"),
        force_tcp,
        lossy_latency: latency(doc, "rtc.datachannel_lossy_target_latency"),
        data_track_latency: latency(doc, "rtc.datachannel_data_track_target_latency"),
        allow_tcp_fallback: doc.bool("rtc.allow_tcp_fallback"),
        reconnect_on_publication_error: doc.bool("rtc.reconnect_on_publication_error"),
        reconnect_on_subscription_error: doc.bool("rtc.reconnect_on_subscription_error"),
        stun_servers: doc.list("rtc.stun_servers"),
        turn_servers: turn_servers(doc)?,
        egress_hold: egress_hold(doc)?,
        congestion_control: congestion_control(doc),
    })
}

fn congestion_control(doc: &Document) -> Option<CongestionControl> {
    const SECTION: &str = "rtc.congestion_control";
    doc.bool(&format!("{SECTION}.enabled")).then(|| CongestionControl {
        allow_pause: doc.bool(&format!("{SECTION}.allow_pause")),
        min_channel_capacity: doc.uint(&format!("{SECTION}.stream_allocator.min_channel_capacity")),
    })
}

fn egress_hold(doc: &Document) -> Result<Duration, ConfigError> {
    let path = "rtc.batch_io.max_flush_interval";
    parse_duration(&doc.text(path))
        .filter(|hold| *hold <= MAX_EGRESS_HOLD)
        .ok_or_else(|| invalid(path, "a duration of 20ms at most: media waits for so long"))
}

fn address_filter(doc: &Document) -> Result<AddressFilter, ConfigError> {
    let networks = |path: &str| -> Result<Vec<Cidr>, ConfigError> {
        let parse = |text: &String| {
            let expected = format!("networks such as `10.0.0.0/8`; `{text}` is not one");
            text.parse().map_err(|_| invalid(path, &expected))
        };
        doc.list(path).iter().map(parse).collect()
    };
    Ok(AddressFilter {
        include_interfaces: doc.list("rtc.interfaces.includes"),
        exclude_interfaces: doc.list("rtc.interfaces.excludes"),
        include_ips: networks("rtc.ips.includes")?,
        exclude_ips: networks("rtc.ips.excludes")?,
    })
}

/// Zero is no bound.
fn latency(doc: &Document, path: &str) -> Option<Duration> {
    parse_duration(&doc.text(path)).filter(|latency| !latency.is_zero())
}

fn udp_ports(doc: &Document, dev: bool) -> Result<Option<UdpPorts>, ConfigError> {
    let text = doc.text("rtc.udp_port");
    let start = doc.uint("rtc.port_range_start");
    let end = doc.uint("rtc.port_range_end");
    let listed = parse_port_range(&text).filter(|(first, _)| *first != 0);
    if listed.is_some() && (start != 0 || end != 0) {
        return Err(ConfigError::Conflict(
            "`rtc.udp_port` and `rtc.port_range_start`/`rtc.port_range_end` exclude each other: \
             keep `rtc.udp_port` (a range such as 7882-7892 is fine)"
                .into(),
        ));
    }
    if doc.bool("rtc.force_tcp") {
        return Ok(None);
    }
    let (first, last) = match (listed, start, end) {
        (Some(range), _, _) => range,
        (None, 0, 0) if dev => (DEV_UDP_PORT, DEV_UDP_PORT),
        (None, 0, 0) => DEFAULT_UDP_RANGE,
        (None, start, end) => u16::try_from(start)
            .ok()
            .zip(u16::try_from(end).ok())
            .filter(|(start, end)| *start != 0 && start <= end)
            .ok_or_else(|| {
                invalid("rtc.port_range_end", "a port that is not below `rtc.port_range_start`")
            })?,
    };
    Ok(Some(UdpPorts { first, last }))
}

/// `v4`, `v6` or `v4,v6`.
fn node_ips(text: &str) -> Result<Vec<IpAddr>, ConfigError> {
    let mut ips = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let ip: IpAddr = word
            .parse()
            .map_err(|_| invalid("rtc.node_ip", &format!("an IP address; `{word}` is not one")))?;
        if ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            return Err(invalid("rtc.node_ip", "an address that clients can reach"));
        }
        ips.push(ip);
    }
    Ok(ips)
}
