//! STUN (RFC 8489) as ICE uses it: a zero-copy view of one message, verification of
//! MESSAGE-INTEGRITY (HMAC-SHA1) and FINGERPRINT, and writers for binding requests and responses.
//! Datagrams go in, [`Message`] views come out; nothing is answered here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use smallvec::SmallVec;

/// RFC 8489 §5.
const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Header length in bytes, RFC 8489 §5.
const HEADER_LEN: usize = 20;
/// RFC 8489 §14.7.
const FINGERPRINT_XOR: u32 = 0x5354_554E;
/// Value length of MESSAGE-INTEGRITY in bytes, RFC 8489 §14.5.
const INTEGRITY_LEN: usize = 20;
/// Attributes per message that we look at; ICE needs about ten. A bound for hostile input.
const MAX_ATTRIBUTES: usize = 64;
/// Unknown attributes that an error response lists.
const MAX_UNKNOWN_LISTED: usize = 8;
/// RFC 8489 §14.3 bounds USERNAME to 508 bytes.
const MAX_USERNAME_LEN: usize = 508;

/// Binding method, RFC 8489 §3.
const METHOD_BINDING: u16 = 0x001;

/// Attribute types (RFC 8489 §18.3, RFC 8445 §16.1).
mod attribute {
    pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub(super) const REALM: u16 = 0x0014;
    pub(super) const NONCE: u16 = 0x0015;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(super) const PASSWORD_ALGORITHM: u16 = 0x001D;
    pub(super) const USERHASH: u16 = 0x001E;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PRIORITY: u16 = 0x0024;
    pub(super) const USE_CANDIDATE: u16 = 0x0025;
    pub(super) const FINGERPRINT: u16 = 0x8028;
    pub(super) const ICE_CONTROLLED: u16 = 0x8029;
    pub(super) const ICE_CONTROLLING: u16 = 0x802A;
}

/// RFC 8489 §5 message classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wants a response.
    Request,
    /// Wants none.
    Indication,
    /// Answers a request.
    Success,
    /// Refuses a request.
    Error,
}

/// RFC 8489 §5: 96 bits chosen by the requester.
pub type TransactionId = [u8; 12];

/// Why bytes are not a STUN message that we accept. The sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// Wrong first bits, magic cookie, or a length that disagrees with the datagram.
    #[error("not a STUN message")]
    Header,
    /// An attribute runs over the end, or there are too many.
    #[error("malformed STUN attributes")]
    Attributes,
    /// FINGERPRINT is present and wrong, or not last.
    #[error("wrong STUN fingerprint")]
    Fingerprint,
}

/// HMAC key of an ICE password; expanding it once saves two SHA-1 blocks per message.
#[derive(Clone)]
pub struct IntegrityKey(hmac::Key);

impl IntegrityKey {
    /// Key of a short-term credential (RFC 8489 §9.1.1).
    pub fn new(password: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()))
    }
}

impl std::fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntegrityKey")
    }
}

/// A parsed message that borrows the datagram. Attributes behind MESSAGE-INTEGRITY are ignored, as
/// RFC 8489 §14.5 asks.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    data: &'a [u8],
    /// Class of the message.
    pub class: Class,
    /// Method; 1 is binding.
    method: u16,
    /// `remote:local` of a request as its sender sees us: `our ufrag:their ufrag`.
    pub username: Option<&'a str>,
    /// The controlling side nominates this route.
    pub use_candidate: bool,
    /// Tie breaker of a sender that believes to be controlling.
    pub ice_controlling: Option<u64>,
    /// Tie breaker of a sender that believes to be controlled.
    pub ice_controlled: Option<u64>,
    /// Priority that a peer-reflexive candidate would get.
    pub priority: Option<u32>,
    /// XOR-MAPPED-ADDRESS of a response.
    pub mapped_address: Option<SocketAddr>,
    /// ERROR-CODE of an error response.
    pub error_code: Option<u16>,
    /// Comprehension-required attributes that we do not know.
    pub unknown_required: SmallVec<[u16; 2]>,
    /// Offset of the MESSAGE-INTEGRITY attribute's header.
    integrity_at: Option<usize>,
}

/// Our ufrag in the USERNAME of a binding request, without checking anything else.
pub fn peek_ufrag(datagram: &[u8]) -> Option<&str> {
    let header = Header::parse(datagram).ok()?;
    if header.class != Class::Request || header.method != METHOD_BINDING {
        return None;
    }
    for attribute in Attributes::new(datagram).take(MAX_ATTRIBUTES) {
        let attribute = attribute.ok()?;
        if attribute.kind == attribute::USERNAME {
            let username = std::str::from_utf8(attribute.value).ok()?;
            return username.split_once(':').map(|(local, _)| local);
        }
    }
    None
}

impl<'a> Message<'a> {
    /// Parses exactly one datagram. Integrity is checked by [`Message::verify`].
    pub fn parse(data: &'a [u8]) -> Result<Self, StunError> {
        let header = Header::parse(data)?;
        let mut message = Self {
            data,
            class: header.class,
            method: header.method,
            username: None,
            use_candidate: false,
            ice_controlling: None,
            ice_controlled: None,
            priority: None,
            mapped_address: None,
            error_code: None,
            unknown_required: SmallVec::new(),
            integrity_at: None,
        };
        let mut fingerprint_seen = false;
        for (count, attribute) in Attributes::new(data).enumerate() {
            let attribute = attribute?;
            if count >= MAX_ATTRIBUTES {
                return Err(StunError::Attributes);
            }
            if fingerprint_seen {
                return Err(StunError::Fingerprint);
            }
            if attribute.kind == attribute::FINGERPRINT {
                check_fingerprint(data, &attribute)?;
                fingerprint_seen = true;
            } else if message.integrity_at.is_none() {
                message.take(&attribute)?;
            }
        }
        Ok(message)
    }

    /// Whether the method is binding, the only one of ICE.
    pub fn is_binding(&self) -> bool {
        self.method == METHOD_BINDING
    }

    /// Transaction id to echo in the response.
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.data[8..HEADER_LEN]);
        id
    }

    /// Whether MESSAGE-INTEGRITY is present and made with `key`; constant time.
    pub fn verify(&self, key: &IntegrityKey) -> bool {
        let Some(at) = self.integrity_at else { return false };
        let Some(tag) = self.data.get(at + 4..at + 4 + INTEGRITY_LEN) else { return false };
        let expected = integrity_tag(key, &self.data[..at]);
        verify_slices_are_equal(expected.as_ref(), tag).is_ok()
    }

    fn take(&mut self, attribute: &Attribute<'a>) -> Result<(), StunError> {
        let value = attribute.value;
        match attribute.kind {
            // RFC 8489 §14: of several, the first counts, as it does for `peek_ufrag`.
            attribute::USERNAME if self.username.is_some() => {}
            attribute::USERNAME if value.len() <= MAX_USERNAME_LEN => {
                self.username =
                    Some(std::str::from_utf8(value).map_err(|_| StunError::Attributes)?);
            }
            attribute::USERNAME => return Err(StunError::Attributes),
            attribute::MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => {
                self.integrity_at = Some(attribute.at);
            }
            attribute::MESSAGE_INTEGRITY => return Err(StunError::Attributes),
            attribute::USE_CANDIDATE => self.use_candidate = true,
            attribute::PRIORITY => self.priority = Some(u32::from_be_bytes(exact(value)?)),
            attribute::ICE_CONTROLLING => {
                self.ice_controlling = Some(u64::from_be_bytes(exact(value)?));
            }
            attribute::ICE_CONTROLLED => {
                self.ice_controlled = Some(u64::from_be_bytes(exact(value)?));
            }
            attribute::XOR_MAPPED_ADDRESS => {
                self.mapped_address = Some(read_xor_address(value, &self.transaction_id())?);
            }
            attribute::ERROR_CODE => match value {
                [_, _, class, number, ..] => {
                    self.error_code = Some(u16::from(class & 7) * 100 + u16::from(*number));
                }
                _ => return Err(StunError::Attributes),
            },
            attribute::MAPPED_ADDRESS
            | attribute::UNKNOWN_ATTRIBUTES
            | attribute::REALM
            | attribute::NONCE
            | attribute::MESSAGE_INTEGRITY_SHA256
            | attribute::PASSWORD_ALGORITHM
            | attribute::USERHASH => {}
            // RFC 8489 §14: types below 0x8000 must be understood.
            unknown if unknown < 0x8000 && self.unknown_required.len() < MAX_UNKNOWN_LISTED => {
                self.unknown_required.push(unknown);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Role of the sender of a check (RFC 8445 §16.1) with its tie breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceRole {
    /// Sends ICE-CONTROLLING.
    Controlling(u64),
    /// Sends ICE-CONTROLLED.
    Controlled(u64),
}

/// A connectivity check, for full ICE agents: simulated and load-testing peers.
#[derive(Debug, Clone)]
pub struct BindingRequest<'a> {
    /// Chosen by the requester.
    pub transaction_id: TransactionId,
    /// `remote ufrag:local ufrag`.
    pub username: &'a str,
    /// Role and tie breaker.
    pub role: IceRole,
    /// Priority of a peer-reflexive candidate.
    pub priority: u32,
    /// Nominates the route.
    pub use_candidate: bool,
}

impl BindingRequest<'_> {
    /// Replaces the contents of `out` by the request, signed with the remote password.
    pub fn write(&self, key: &IntegrityKey, out: &mut Vec<u8>) {
        start(out, Class::Request, &self.transaction_id);
        put(out, attribute::USERNAME, self.username.as_bytes());
        match self.role {
            IceRole::Controlling(tie) => put(out, attribute::ICE_CONTROLLING, &tie.to_be_bytes()),
            IceRole::Controlled(tie) => put(out, attribute::ICE_CONTROLLED, &tie.to_be_bytes()),
        }
        put(out, attribute::PRIORITY, &self.priority.to_be_bytes());
        if self.use_candidate {
            put(out, attribute::USE_CANDIDATE, &[]);
        }
        finish(out, key);
    }
}

/// Replaces the contents of `out` by a signed binding success response.
pub fn write_success(
    transaction_id: &TransactionId,
    mapped: SocketAddr,
    key: &IntegrityKey,
    out: &mut Vec<u8>,
) {
    start(out, Class::Success, transaction_id);
    let mut value = [0u8; 20];
    let len = write_xor_address(mapped, transaction_id, &mut value);
    put(out, attribute::XOR_MAPPED_ADDRESS, &value[..len]);
    finish(out, key);
}

/// Replaces the contents of `out` by a signed 420 (Unknown Attribute, RFC 8489 §14.8).
pub fn write_unknown_attributes(
    transaction_id: &TransactionId,
    unknown: &[u16],
    key: &IntegrityKey,
    out: &mut Vec<u8>,
) {
    start(out, Class::Error, transaction_id);
    put_error(out, 420, "Unknown Attribute");
    let list: SmallVec<[u8; 2 * MAX_UNKNOWN_LISTED]> =
        unknown.iter().take(MAX_UNKNOWN_LISTED).flat_map(|kind| kind.to_be_bytes()).collect();
    put(out, attribute::UNKNOWN_ATTRIBUTES, &list);
    finish(out, key);
}

/// Replaces the contents of `out` by a signed 487 (Role Conflict, RFC 8445 §7.3.1.1).
pub fn write_role_conflict(transaction_id: &TransactionId, key: &IntegrityKey, out: &mut Vec<u8>) {
    start(out, Class::Error, transaction_id);
    put_error(out, 487, "Role Conflict");
    finish(out, key);
}

struct Header {
    class: Class,
    method: u16,
}

impl Header {
    fn parse(data: &[u8]) -> Result<Self, StunError> {
        let header = data.get(..HEADER_LEN).ok_or(StunError::Header)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let cookie = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if kind >> 14 != 0 || cookie != MAGIC_COOKIE {
            return Err(StunError::Header);
        }
        if length % 4 != 0 || length != data.len() - HEADER_LEN {
            return Err(StunError::Header);
        }
        // RFC 8489 §5: the class bits sit at positions 4 and 8 inside the method.
        let class = match (kind >> 8 & 1, kind >> 4 & 1) {
            (0, 0) => Class::Request,
            (0, _) => Class::Indication,
            (_, 0) => Class::Success,
            _ => Class::Error,
        };
        let method = kind & 0x000F | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2;
        Ok(Self { class, method })
    }
}

struct Attribute<'a> {
    /// Offset of the attribute's header in the message.
    at: usize,
    kind: u16,
    value: &'a [u8],
}

struct Attributes<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    /// `data` passed [`Header::parse`].
    fn new(data: &'a [u8]) -> Self {
        Self { data, at: HEADER_LEN }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, StunError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.data.get(self.at..).filter(|rest| !rest.is_empty())?;
        let at = self.at;
        // Whatever happens below, a malformed attribute ends the iteration.
        self.at = self.data.len();
        let Some((head, body)) = rest.split_first_chunk::<4>() else {
            return Some(Err(StunError::Attributes));
        };
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let padded = len.next_multiple_of(4);
        let (Some(value), true) = (body.get(..len), body.len() >= padded) else {
            return Some(Err(StunError::Attributes));
        };
        self.at = at + 4 + padded;
        Some(Ok(Attribute { at, kind: u16::from_be_bytes([head[0], head[1]]), value }))
    }
}

fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], StunError> {
    value.try_into().map_err(|_| StunError::Attributes)
}

fn check_fingerprint(data: &[u8], attribute: &Attribute<'_>) -> Result<(), StunError> {
    let value = u32::from_be_bytes(exact(attribute.value).map_err(|_| StunError::Fingerprint)?);
    // The message length already covers FINGERPRINT because it is last, else the CRC differs.
    if crc32fast::hash(&data[..attribute.at]) ^ FINGERPRINT_XOR == value {
        Ok(())
    } else {
        Err(StunError::Fingerprint)
    }
}

/// HMAC over the message up to its MESSAGE-INTEGRITY, with the length as if that were last.
fn integrity_tag(key: &IntegrityKey, prefix: &[u8]) -> hmac::Tag {
    let length = (prefix.len() - HEADER_LEN + 4 + INTEGRITY_LEN) as u16;
    let mut context = hmac::Context::with_key(&key.0);
    context.update(&prefix[..2]);
    context.update(&length.to_be_bytes());
    context.update(&prefix[4..]);
    context.sign()
}

fn read_xor_address(value: &[u8], id: &TransactionId) -> Result<SocketAddr, StunError> {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let (head, address) = value.split_first_chunk::<4>().ok_or(StunError::Attributes)?;
    let port = u16::from_be_bytes([head[2] ^ cookie[0], head[3] ^ cookie[1]]);
    let ip = match head[1] {
        1 => {
            let bytes: [u8; 4] = exact(address)?;
            let bits = u32::from_be_bytes(bytes) ^ MAGIC_COOKIE;
            IpAddr::V4(Ipv4Addr::from(bits))
        }
        2 => {
            let mut bytes: [u8; 16] = exact(address)?;
            for (byte, mask) in bytes.iter_mut().zip(cookie.iter().chain(id)) {
                *byte ^= mask;
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return Err(StunError::Attributes),
    };
    Ok(SocketAddr::new(ip, port))
}

/// Writes the value of XOR-MAPPED-ADDRESS and returns its length.
fn write_xor_address(addr: SocketAddr, id: &TransactionId, out: &mut [u8; 20]) -> usize {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let port = addr.port().to_be_bytes();
    out[2] = port[0] ^ cookie[0];
    out[3] = port[1] ^ cookie[1];
    // A v4-mapped address of a dual-stack socket is the v4 address that the client knows.
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out[1] = 1;
            out[4..8].copy_from_slice(&(u32::from(ip) ^ MAGIC_COOKIE).to_be_bytes());
            8
        }
        IpAddr::V6(ip) => {
            out[1] = 2;
            let mask = cookie.iter().chain(id);
            for ((to, byte), mask) in out[4..].iter_mut().zip(ip.octets()).zip(mask) {
                *to = byte ^ mask;
            }
            20
        }
    }
}

fn start(out: &mut Vec<u8>, class: Class, id: &TransactionId) {
    let kind: u16 = match class {
        Class::Request => 0x0001,
        Class::Indication => 0x0011,
        Class::Success => 0x0101,
        Class::Error => 0x0111,
    };
    out.clear();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
    out.extend_from_slice(id);
}

fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn put_error(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut value: SmallVec<[u8; 32]> = SmallVec::new();
    value.extend([0, 0, (code / 100) as u8, (code % 100) as u8]);
    value.extend_from_slice(reason.as_bytes());
    put(out, attribute::ERROR_CODE, &value);
}

/// Appends MESSAGE-INTEGRITY and FINGERPRINT and sets the length.
fn finish(out: &mut Vec<u8>, key: &IntegrityKey) {
    let tag = integrity_tag(key, out);
    put(out, attribute::MESSAGE_INTEGRITY, tag.as_ref());
    let length = (out.len() - HEADER_LEN + 8) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    let fingerprint = crc32fast::hash(out) ^ FINGERPRINT_XOR;
    put(out, attribute::FINGERPRINT, &fingerprint.to_be_bytes());
}

#[cfg(test)]
mod tests;
