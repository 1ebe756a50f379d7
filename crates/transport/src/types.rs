//! Transport parameters that travel between the SDP sessions of the control plane and the peers of
//! the media workers.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Short-term ICE credentials (RFC 8445 §5.3): `ufrag` 4..=256 and `pwd` 22..=256 ice-chars.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IceCredentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Hash of an `a=fingerprint` (RFC 8122 §5) that we verify. MD5 and SHA-1 are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// `sha-256`.
    Sha256,
    /// `sha-384`.
    Sha384,
    /// `sha-512`.
    Sha512,
}

impl HashAlgorithm {
    /// Name as `a=fingerprint` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    /// Length of the digest in bytes.
    pub fn digest_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// Certificate fingerprint (RFC 8122 §5). `Display` and `FromStr` use the value of
/// `a=fingerprint`: `sha-256 AB:CD:...`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Hash over the DER certificate.
    pub algorithm: HashAlgorithm,
    /// `algorithm.digest_len()` bytes.
    pub digest: Vec<u8>,
}

/// Why an `a=fingerprint` value was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintParseError {
    /// Not `<hash> <hex>`.
    #[error("fingerprint is not of the form `<hash> <hex>`")]
    Syntax,
    /// A hash we do not verify.
    #[error("fingerprint uses an unsupported hash")]
    Algorithm,
    /// Digest length does not fit the hash.
    #[error("fingerprint has the wrong length for its hash")]
    Length,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.as_str())?;
        for (index, byte) in self.digest.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintParseError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let mut words = value.split_ascii_whitespace();
        let (Some(hash), Some(hex), None) = (words.next(), words.next(), words.next()) else {
            return Err(FingerprintParseError::Syntax);
        };
        let algorithm = match hash.to_ascii_lowercase().as_str() {
            "sha-256" => HashAlgorithm::Sha256,
            "sha-384" => HashAlgorithm::Sha384,
            "sha-512" => HashAlgorithm::Sha512,
            _ => return Err(FingerprintParseError::Algorithm),
        };
        // Two hex digits and a colon per byte: refuse before collecting.
        if hex.len() != algorithm.digest_len() * 3 - 1 {
            return Err(FingerprintParseError::Length);
        }
        let digest = hex.split(':').map(hex_byte).collect::<Option<Vec<u8>>>();
        let digest = digest.ok_or(FingerprintParseError::Syntax)?;
        if digest.len() != algorithm.digest_len() {
            return Err(FingerprintParseError::Length);
        }
        Ok(Self { algorithm, digest })
    }
}

fn hex_byte(pair: &str) -> Option<u8> {
    let is_pair = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    is_pair.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
}

/// DTLS role of `a=setup` (RFC 8842 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setup {
    /// Either role; only in offers.
    ActPass,
    /// DTLS client.
    Active,
    /// DTLS server.
    Passive,
}

impl Setup {
    /// Value as `a=setup` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ActPass => "actpass",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// SCTP parameters of `m=application` (RFC 8841).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SctpParams {
    /// `a=sctp-port`.
    pub port: u16,
    /// `a=max-message-size` in bytes: the largest message the remote accepts, 0 = any size.
    pub max_message_size: u32,
}

/// What a remote description says about the transport of the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteParams {
    /// Remote ICE credentials.
    pub ice: IceCredentials,
    /// Every `a=fingerprint`; the certificate must match one of them. Never empty.
    pub fingerprints: Vec<Fingerprint>,
    /// The remote's role: we are DTLS server unless this is [`Setup::Passive`].
    pub setup: Setup,
    /// Present when the description has a data section that is not rejected.
    pub sctp: Option<SctpParams>,
}

/// Transport protocol of a candidate or route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransportProto {
    /// UDP datagrams.
    Udp,
    /// TCP with RFC 4571 framing (ICE-TCP, RFC 6544).
    Tcp,
}

/// Type of a candidate (RFC 8445 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// `host`.
    Host,
    /// `srflx`.
    ServerReflexive,
    /// `prflx`.
    PeerReflexive,
    /// `relay`.
    Relay,
}

impl CandidateKind {
    /// Value as `typ` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relay => "relay",
        }
    }
}

/// An ICE candidate with a literal address (RFC 8839 §5.1). TCP candidates of ours are passive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// `foundation`.
    pub foundation: String,
    /// Component, 1 with rtcp-mux.
    pub component: u16,
    /// UDP or TCP.
    pub proto: TransportProto,
    /// `priority`.
    pub priority: u32,
    /// Address and port.
    pub addr: SocketAddr,
    /// `typ`.
    pub kind: CandidateKind,
    /// `tcptype` of a TCP candidate: `active`, `passive` or `so`.
    pub tcp_type: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_round_trips_through_its_sdp_form() {
        let text = format!("sha-256 {}", ["AB"; 32].join(":"));
        let fingerprint: Fingerprint = text.parse().unwrap();
        assert_eq!(fingerprint.to_string(), text);
        assert_eq!(text.to_lowercase().parse(), Ok(fingerprint));
    }

    #[test]
    fn fingerprint_with_a_weak_hash_or_wrong_length_is_refused() {
        let sha1 = format!("sha-1 {}", ["AB"; 20].join(":"));
        assert_eq!(sha1.parse::<Fingerprint>(), Err(FingerprintParseError::Algorithm));
        let short = format!("sha-256 {}", ["AB"; 31].join(":"));
        assert_eq!(short.parse::<Fingerprint>(), Err(FingerprintParseError::Length));
        let signed = format!("sha-256 {}", ["+B"; 32].join(":"));
        assert_eq!(signed.parse::<Fingerprint>(), Err(FingerprintParseError::Syntax));
    }

    #[test]
    fn debug_output_of_credentials_hides_the_password() {
        let creds = IceCredentials { ufrag: "abcd".into(), pwd: "hunter2hunter2hunter2hu".into() };
        assert!(!format!("{creds:?}").contains("hunter2"));
    }
}
