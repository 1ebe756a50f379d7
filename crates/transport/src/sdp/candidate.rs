//! ICE candidates as text: `a=candidate` lines (RFC 8839 §5.1, RFC 6544 §4.5) and the JSON of
//! `RTCIceCandidateInit` in which clients trickle them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::{Candidate, CandidateKind, TransportProto};

/// Bytes of a trickled JSON text; clients send about 250.
const MAX_INIT_BYTES: usize = 4096;
/// Bytes of a candidate line; clients send about 150.
const MAX_LINE_BYTES: usize = 1024;
/// Characters of a foundation (RFC 8839 §5.1).
const MAX_FOUNDATION_CHARS: usize = 32;
/// Type preference of UDP host candidates (RFC 8445 §5.1.2.2).
const HOST_UDP_PREFERENCE: u32 = 126;
/// Type preference of TCP host candidates, below every UDP type that matters here (libwebrtc
/// `ICE_TYPE_PREFERENCE_HOST_TCP`).
const HOST_TCP_PREFERENCE: u32 = 90;
/// Direction preference of passive TCP host candidates (RFC 6544 §4.2).
const PASSIVE_DIRECTION_PREFERENCE: u32 = 4;

/// A candidate of the remote. As a lite agent we never send checks to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteCandidate {
    /// With a literal address.
    Address(Candidate),
    /// With a host name, nearly always an mDNS name ending in `.local`.
    Name {
        /// The name.
        name: String,
        /// Port.
        port: u16,
        /// UDP or TCP.
        proto: TransportProto,
    },
}

impl RemoteCandidate {
    /// Whether the address hides behind mDNS (draft-ietf-mmusic-mdns-ice-candidates).
    pub fn is_mdns(&self) -> bool {
        matches!(self, Self::Name { name, .. } if name.ends_with(".local"))
    }
}

/// What one `trickle` message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrickledCandidate {
    /// `None` is the end of candidates: an empty `candidate` (RFC 8838 §13).
    pub candidate: Option<RemoteCandidate>,
    /// `sdpMid`.
    pub mid: Option<String>,
    /// `sdpMLineIndex`.
    pub section_index: Option<u16>,
    /// `usernameFragment`.
    pub ufrag: Option<String>,
}

/// Why a trickled candidate was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrickleError {
    /// Longer than any honest candidate.
    #[error("candidate is too long")]
    TooLong,
    /// Not a JSON object with a `candidate` string.
    #[error("candidateInit is not an RTCIceCandidateInit")]
    Json,
    /// Not `candidate:` with its eight fields.
    #[error("malformed candidate")]
    Syntax,
    /// A transport that is neither UDP nor TCP, or an unknown candidate type.
    #[error("unknown candidate transport or type")]
    Unsupported,
}

/// Parses the JSON of `TrickleRequest.candidateInit`.
pub fn parse_candidate_init(json: &str) -> Result<TrickledCandidate, TrickleError> {
    if json.len() > MAX_INIT_BYTES {
        return Err(TrickleError::TooLong);
    }
    let init: Value = serde_json::from_str(json).map_err(|_| TrickleError::Json)?;
    let line = init.get("candidate").and_then(Value::as_str).ok_or(TrickleError::Json)?;
    let text = |key: &str| init.get(key).and_then(Value::as_str).map(str::to_owned);
    Ok(TrickledCandidate {
        candidate: match line.trim() {
            "" => None,
            line => Some(parse_candidate(line)?),
        },
        mid: text("sdpMid"),
        section_index: init
            .get("sdpMLineIndex")
            .and_then(Value::as_u64)
            .and_then(|index| u16::try_from(index).ok()),
        ufrag: text("usernameFragment"),
    })
}

/// Writes the JSON in which a client expects one of our candidates.
pub fn candidate_init_json(candidate: &Candidate, mid: &str, section_index: u16) -> String {
    json!({
        "candidate": format!("candidate:{}", format_candidate(candidate)),
        "sdpMid": mid,
        "sdpMLineIndex": section_index,
        "usernameFragment": null,
    })
    .to_string()
}

/// Parses a candidate line, with or without `a=` and `candidate:`.
pub fn parse_candidate(line: &str) -> Result<RemoteCandidate, TrickleError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(TrickleError::TooLong);
    }
    let line = line.trim();
    let line = line.strip_prefix("a=").unwrap_or(line);
    let line = line.strip_prefix("candidate:").unwrap_or(line);
    let mut fields = line.split_ascii_whitespace();
    let mut next = || fields.next().ok_or(TrickleError::Syntax);

    let foundation = next()?;
    let component = number(next()?)?;
    let proto = parse_proto(next()?)?;
    let priority = number(next()?)?;
    let host = next()?;
    let port = number(next()?)?;
    let printable = foundation.bytes().all(|byte| byte.is_ascii_graphic());
    if foundation.len() > MAX_FOUNDATION_CHARS || !printable || next()? != "typ" {
        return Err(TrickleError::Syntax);
    }
    let kind = parse_kind(next()?)?;

    let Ok(ip) = host.parse::<IpAddr>() else {
        return host_name(host).map(|name| RemoteCandidate::Name { name, port, proto });
    };
    let mut tcp_type = None;
    while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
        if key == "tcptype" && matches!(value, "active" | "passive" | "so") {
            tcp_type = Some(value.to_owned());
        }
    }
    Ok(RemoteCandidate::Address(Candidate {
        foundation: foundation.to_owned(),
        component,
        proto,
        priority,
        addr: SocketAddr::new(ip, port),
        kind,
        tcp_type,
    }))
}

fn number<T: std::str::FromStr>(field: &str) -> Result<T, TrickleError> {
    field.parse().map_err(|_| TrickleError::Syntax)
}

fn parse_proto(field: &str) -> Result<TransportProto, TrickleError> {
    match field.to_ascii_lowercase().as_str() {
        "udp" => Ok(TransportProto::Udp),
        "tcp" => Ok(TransportProto::Tcp),
        _ => Err(TrickleError::Unsupported),
    }
}

fn parse_kind(field: &str) -> Result<CandidateKind, TrickleError> {
    match field {
        "host" => Ok(CandidateKind::Host),
        "srflx" => Ok(CandidateKind::ServerReflexive),
        "prflx" => Ok(CandidateKind::PeerReflexive),
        "relay" => Ok(CandidateKind::Relay),
        _ => Err(TrickleError::Unsupported),
    }
}

fn host_name(host: &str) -> Result<String, TrickleError> {
    let is_name = host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if is_name { Ok(host.to_ascii_lowercase()) } else { Err(TrickleError::Syntax) }
}

/// Writes the value of `a=candidate`, without the `candidate:` prefix.
pub fn format_candidate(candidate: &Candidate) -> String {
    let proto = match candidate.proto {
        TransportProto::Udp => "udp",
        TransportProto::Tcp => "tcp",
    };
    let mut line = format!(
        "{} {} {proto} {} {} {} typ {}",
        candidate.foundation,
        candidate.component,
        candidate.priority,
        candidate.addr.ip(),
        candidate.addr.port(),
        candidate.kind.as_str(),
    );
    // Related addresses are mandatory for these types; ours would only reveal the inner network.
    if candidate.kind != CandidateKind::Host {
        line.push_str(" raddr 0.0.0.0 rport 0");
    }
    if let Some(tcp_type) = &candidate.tcp_type {
        let _ = write!(line, " tcptype {tcp_type}");
    }
    line
}

/// A host candidate of ours with the priority of RFC 8445 §5.1.2 (UDP) or RFC 6544 §4.2 (passive
/// TCP). `rank` orders addresses of one protocol, 0 is the most wanted.
pub fn host_candidate(addr: SocketAddr, proto: TransportProto, rank: u16) -> Candidate {
    let (type_preference, local_preference, tcp_type) = match proto {
        TransportProto::Udp => (HOST_UDP_PREFERENCE, u32::from(u16::MAX - rank), None),
        TransportProto::Tcp => {
            let other = 0x1fff - u32::from(rank.min(0x1fff));
            let local = (PASSIVE_DIRECTION_PREFERENCE << 13) + other;
            (HOST_TCP_PREFERENCE, local, Some("passive".to_owned()))
        }
    };
    let base = format!("{}{proto:?}", addr.ip());
    Candidate {
        foundation: crc32fast::hash(base.as_bytes()).to_string(),
        component: 1,
        proto,
        priority: (type_preference << 24) | (local_preference << 8) | 255,
        addr,
        kind: CandidateKind::Host,
        tcp_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(line: &str) -> Candidate {
        match parse_candidate(line).unwrap() {
            RemoteCandidate::Address(candidate) => candidate,
            other => panic!("expected an address, got {other:?}"),
        }
    }

    #[test]
    fn a_host_candidate_of_chromium_is_understood() {
        let candidate = address(
            "candidate:1467250027 1 udp 2122260223 192.168.0.196 46243 typ host \
             generation 0 ufrag EsAw network-id 1 network-cost 10",
        );
        assert_eq!(candidate.addr, "192.168.0.196:46243".parse().unwrap());
        assert_eq!(candidate.priority, 2_122_260_223);
        assert_eq!(candidate.kind, CandidateKind::Host);
        assert_eq!(candidate.tcp_type, None);
    }

    #[test]
    fn tcp_type_is_found_among_other_extensions() {
        let candidate = address(
            "a=candidate:4 1 TCP 1518280447 fe80::1 9 typ srflx raddr 10.0.0.1 rport 9 \
             tcptype active generation 0",
        );
        assert_eq!(candidate.proto, TransportProto::Tcp);
        assert_eq!(candidate.tcp_type.as_deref(), Some("active"));
        assert_eq!(candidate.kind, CandidateKind::ServerReflexive);
    }

    #[test]
    fn an_mdns_name_is_flagged_and_never_resolved() {
        let line = "candidate:1 1 udp 2113937151 6F3D-9a.local 54400 typ host generation 0";
        let candidate = parse_candidate(line).unwrap();
        assert!(candidate.is_mdns());
        assert!(matches!(candidate, RemoteCandidate::Name { port: 54400, .. }));
    }

    #[test]
    fn malformed_candidates_are_refused() {
        for line in [
            "",
            "candidate:",
            "candidate:1 1 udp 1 1.2.3.4",
            "candidate:1 1 udp 1 1.2.3.4 70000 typ host",
            "candidate:1 1 udp -1 1.2.3.4 7000 typ host",
            "candidate:1 1 udp 1 1.2.3.4 7000 type host",
            "candidate:1 1 udp 1 bad/host 7000 typ host",
            "candidate:\u{b} 1 udp 1 1.2.3.4 7000 typ host",
        ] {
            assert_eq!(parse_candidate(line), Err(TrickleError::Syntax), "{line}");
        }
        let sctp = "candidate:1 1 sctp 1 1.2.3.4 7000 typ host";
        assert_eq!(parse_candidate(sctp), Err(TrickleError::Unsupported));
        assert_eq!(parse_candidate(&"x".repeat(2000)), Err(TrickleError::TooLong));
    }

    #[test]
    fn trickled_json_with_an_empty_candidate_ends_the_candidates() {
        let end = parse_candidate_init(r#"{"candidate":"","sdpMid":"0","sdpMLineIndex":0}"#);
        assert_eq!(end.unwrap().candidate, None);
    }

    #[test]
    fn trickled_json_that_is_not_an_init_is_refused() {
        for json in ["", "[]", "{}", r#"{"candidate":7}"#, "{\"candidate\""] {
            assert_eq!(parse_candidate_init(json), Err(TrickleError::Json), "{json}");
        }
        assert_eq!(parse_candidate_init(&" ".repeat(5000)), Err(TrickleError::TooLong));
        // Deep nesting must not exhaust the stack.
        assert_eq!(parse_candidate_init(&"[".repeat(4000)), Err(TrickleError::Json));
    }

    #[test]
    fn our_candidates_round_trip_through_a_trickle_message() {
        for proto in [TransportProto::Udp, TransportProto::Tcp] {
            let ours = host_candidate("[2001:db8::1]:7881".parse().unwrap(), proto, 3);
            let parsed = parse_candidate_init(&candidate_init_json(&ours, "0", 0)).unwrap();
            assert_eq!(parsed.candidate, Some(RemoteCandidate::Address(ours)));
            assert_eq!(parsed.mid.as_deref(), Some("0"));
        }
    }

    #[test]
    fn udp_is_preferred_over_tcp_and_lower_ranks_over_higher() {
        let addr = "192.0.2.1:7881".parse().unwrap();
        let priority = |proto, rank| host_candidate(addr, proto, rank).priority;
        assert_eq!(priority(TransportProto::Udp, 0), 2_130_706_431);
        assert!(priority(TransportProto::Udp, u16::MAX) > priority(TransportProto::Tcp, 0));
        assert!(priority(TransportProto::Tcp, 0) > priority(TransportProto::Tcp, 1));
        assert!(priority(TransportProto::Tcp, u16::MAX) > 0);
    }

    #[test]
    fn foundations_differ_between_protocols_and_addresses() {
        let addr = "192.0.2.1:7881".parse().unwrap();
        let udp = host_candidate(addr, TransportProto::Udp, 0).foundation;
        let tcp = host_candidate(addr, TransportProto::Tcp, 0).foundation;
        assert_ne!(udp, tcp);
        assert!(udp.len() <= MAX_FOUNDATION_CHARS);
    }
}
