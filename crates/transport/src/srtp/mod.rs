//! SRTP and SRTCP (RFC 3711, RFC 7714) of one peer connection: keys of one DTLS handshake go in,
//! then packets are opened and sealed in place. [`SrtpReceiver`] owns rollover counters and replay
//! windows per SSRC and direction, [`SrtpSender`] guarantees that no index is used twice under one
//! key. Cipher contexts are expanded once; no packet costs an allocation or a key schedule.

mod cipher;
mod index;
mod kdf;

#[cfg(test)]
mod tests;

use rustc_hash::FxHashMap;

use cipher::Cipher;
use index::IndexWindow;

pub use kdf::KeyingError;

/// Incoming SSRCs of one peer: a hundred tracks of three layers with RTX stay below it.
pub const MAX_INCOMING_STREAMS: usize = 1024;
/// Outgoing SSRCs of one peer.
pub const MAX_OUTGOING_STREAMS: usize = 8192;
/// Fixed RTP header, bytes (RFC 3550 §5.1).
const RTP_HEADER_LEN: usize = 12;
/// Length of an RTCP header with its sender SSRC, which SRTCP leaves in the clear (RFC 3711 §3.4).
const RTCP_HEADER_LEN: usize = 8;
/// Length of the E flag and SRTCP index (RFC 3711 §3.4).
const SRTCP_INDEX_LEN: usize = 4;
/// The E flag.
const SRTCP_ENCRYPTED: u32 = 1 << 31;
/// SRTCP indices per key (RFC 3711 §9.2).
const SRTCP_INDEX_END: u32 = 1 << 31;
/// RTP indices per key (RFC 3711 §9.2).
const SRTP_INDEX_END: u64 = 1 << 48;

/// DTLS-SRTP protection profiles (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SrtpProfile {
    /// AEAD_AES_256_GCM.
    AeadAes256Gcm,
    /// AEAD_AES_128_GCM.
    AeadAes128Gcm,
    /// AES128_CM_HMAC_SHA1_80.
    Aes128CmSha1_80,
}

impl SrtpProfile {
    /// IANA name without prefix, as `getStats` shows it in `srtpCipher`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::Aes128CmSha1_80 => "AES_CM_128_HMAC_SHA1_80",
        }
    }

    /// Master key length, bytes.
    fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
        }
    }

    /// Master salt length, bytes.
    fn salt_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }

    /// Length of the exported keying material: two keys and two salts (RFC 5764 §4.2).
    pub fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Master key and salt of one direction.
pub struct MasterKey<'a> {
    key: &'a [u8],
    salt: &'a [u8],
}

/// Splits exported keying material into the client's and the server's write keys (RFC 5764 §4.2).
pub fn split_keying_material(
    profile: SrtpProfile,
    material: &[u8],
) -> Result<(MasterKey<'_>, MasterKey<'_>), KeyingError> {
    if material.len() != profile.keying_material_len() {
        return Err(KeyingError);
    }
    let (keys, salts) = material.split_at(2 * profile.key_len());
    let (client_key, server_key) = keys.split_at(profile.key_len());
    let (client_salt, server_salt) = salts.split_at(profile.salt_len());
    Ok((
        MasterKey { key: client_key, salt: client_salt },
        MasterKey { key: server_key, salt: server_salt },
    ))
}

/// Why a packet could not be opened. The sender or the network is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Header or trailer does not parse.
    #[error("malformed SRTP packet")]
    Malformed,
    /// The tag does not match.
    #[error("SRTP authentication failed")]
    Authentication,
    /// The index was seen, or is older than the window.
    #[error("SRTP replay")]
    Replay,
    /// More SSRCs than [`MAX_INCOMING_STREAMS`].
    #[error("too many SRTP streams")]
    TooManyStreams,
}

/// Why a packet could not be sealed. We are at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// SRTP keys are not known yet.
    #[error("SRTP keys are not known yet")]
    NotConnected,
    /// All indices of this key are used (RFC 3711 §9.2).
    #[error("the SRTP key is exhausted")]
    KeyExhausted,
    /// This index was used, or is too old to know.
    #[error("the SRTP index was used before")]
    IndexReused,
    /// No room for the tag, or a malformed header.
    #[error("the buffer is too small or the header is malformed")]
    Malformed,
    /// More SSRCs than [`MAX_OUTGOING_STREAMS`].
    #[error("too many outgoing SSRCs")]
    TooManyStreams,
}

/// Opens what the remote sealed.
#[derive(Debug)]
pub struct SrtpReceiver {
    rtp: Cipher,
    rtcp: Cipher,
    rtp_windows: FxHashMap<u32, IndexWindow>,
    rtcp_windows: FxHashMap<u32, IndexWindow>,
}

impl SrtpReceiver {
    /// Derives the session keys of one direction.
    pub fn new(profile: SrtpProfile, master: &MasterKey<'_>) -> Result<Self, KeyingError> {
        Ok(Self {
            rtp: Cipher::new(profile, &kdf::rtp_keys(profile, master)?)?,
            rtcp: Cipher::new(profile, &kdf::rtcp_keys(profile, master)?)?,
            rtp_windows: FxHashMap::default(),
            rtcp_windows: FxHashMap::default(),
        })
    }

    /// Decrypts one RTP packet in place and returns its new length. State changes only when the
    /// packet is authentic; the payload is undefined after an error.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, OpenError> {
        let header_len = rtp_header_len(packet).ok_or(OpenError::Malformed)?;
        let seq = be16(packet, 2).ok_or(OpenError::Malformed)?;
        let ssrc = be32(packet, 8).ok_or(OpenError::Malformed)?;
        let index = match self.rtp_windows.get(&ssrc) {
            Some(window) => {
                let index = window.estimate(seq).ok_or(OpenError::Replay)?;
                acceptable(window, index)?
            }
            None if self.rtp_windows.len() >= MAX_INCOMING_STREAMS => {
                return Err(OpenError::TooManyStreams);
            }
            None => u64::from(seq),
        };
        let len = self.rtp.open_rtp(ssrc, index, header_len, packet)?;
        self.rtp_windows.entry(ssrc).or_default().mark(index);
        Ok(len)
    }

    /// Decrypts one RTCP compound packet in place and returns its new length.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, OpenError> {
        let ssrc = be32(packet, 4).ok_or(OpenError::Malformed)?;
        let index = u64::from(self.rtcp.rtcp_index(packet).ok_or(OpenError::Malformed)?);
        match self.rtcp_windows.get(&ssrc) {
            Some(window) => _ = acceptable(window, index)?,
            None if self.rtcp_windows.len() >= MAX_INCOMING_STREAMS => {
                return Err(OpenError::TooManyStreams);
            }
            None => {}
        }
        let len = self.rtcp.open_rtcp(ssrc, packet)?;
        self.rtcp_windows.entry(ssrc).or_default().mark(index);
        Ok(len)
    }
}

fn acceptable(window: &IndexWindow, index: u64) -> Result<u64, OpenError> {
    if index < SRTP_INDEX_END && window.is_new(index) { Ok(index) } else { Err(OpenError::Replay) }
}

/// Where a sender keeps the state of one stream. A guess: a wrong one costs a search and is corrected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamSlot(u32);

/// What was sent of one SSRC.
#[derive(Debug)]
struct OutgoingStream {
    ssrc: u32,
    window: IndexWindow,
}

/// Seals what we send.
#[derive(Debug)]
pub struct SrtpSender {
    rtp: Cipher,
    rtcp: Cipher,
    streams: Vec<OutgoingStream>,
    slots: FxHashMap<u32, StreamSlot>,
    /// One counter for all SSRCs: unique per key, and rising per SSRC as RFC 3711 §3.2.1 asks.
    next_rtcp_index: u32,
}

impl SrtpSender {
    /// Derives the session keys of one direction.
    pub fn new(profile: SrtpProfile, master: &MasterKey<'_>) -> Result<Self, KeyingError> {
        Ok(Self {
            rtp: Cipher::new(profile, &kdf::rtp_keys(profile, master)?)?,
            rtcp: Cipher::new(profile, &kdf::rtcp_keys(profile, master)?)?,
            streams: Vec::new(),
            slots: FxHashMap::default(),
            next_rtcp_index: 0,
        })
    }

    /// Encrypts the RTP packet `buf[..len]` in place and returns its new length.
    ///
    /// The rollover counter follows the sequence numbers per SSRC. A late packet (up to
    /// [`index::WINDOW`] behind) is sealed if its index was not used; a used index is refused
    /// even for identical bytes, because header extensions of a retransmission differ.
    ///
    /// `slot` is what this function left in it when it sealed a packet of this SSRC before.
    pub fn seal_rtp(
        &mut self,
        slot: &mut StreamSlot,
        buf: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize, SealError> {
        let fits = len.checked_add(self.rtp.tag_len()).is_some_and(|end| end <= buf.len());
        if !fits || header_len < RTP_HEADER_LEN || header_len > len {
            return Err(SealError::Malformed);
        }
        let seq = be16(buf, 2).ok_or(SealError::Malformed)?;
        let ssrc = be32(buf, 8).ok_or(SealError::Malformed)?;
        if self.streams.get(slot.0 as usize).is_none_or(|stream| stream.ssrc != ssrc) {
            *slot = self.slot_of(ssrc)?;
        }
        let window = &mut self.streams[slot.0 as usize].window;
        let index = window.estimate(seq).ok_or(SealError::IndexReused)?;
        if index >= SRTP_INDEX_END {
            return Err(SealError::KeyExhausted);
        }
        if !window.is_new(index) {
            return Err(SealError::IndexReused);
        }
        // Before the cipher runs: an index counts as used whatever happens next.
        window.mark(index);
        self.rtp.seal_rtp(ssrc, index, header_len, len, buf).map_err(|_| SealError::Malformed)
    }

    /// Where the state of an SSRC is, as of now if there is none.
    fn slot_of(&mut self, ssrc: u32) -> Result<StreamSlot, SealError> {
        if let Some(slot) = self.slots.get(&ssrc) {
            return Ok(*slot);
        }
        if self.streams.len() >= MAX_OUTGOING_STREAMS {
            return Err(SealError::TooManyStreams);
        }
        let slot = StreamSlot(self.streams.len() as u32);
        self.streams.push(OutgoingStream { ssrc, window: IndexWindow::default() });
        self.slots.insert(ssrc, slot);
        Ok(slot)
    }

    /// Encrypts the RTCP compound packet `buf` in place; it grows by at most 20 bytes.
    pub fn seal_rtcp(&mut self, buf: &mut Vec<u8>) -> Result<(), SealError> {
        if buf.len() < RTCP_HEADER_LEN {
            return Err(SealError::Malformed);
        }
        let index = self.next_rtcp_index;
        if index >= SRTCP_INDEX_END {
            return Err(SealError::KeyExhausted);
        }
        self.next_rtcp_index += 1;
        let ssrc = be32(buf, 4).ok_or(SealError::Malformed)?;
        self.rtcp.seal_rtcp(ssrc, index, buf).map_err(|_| SealError::Malformed)
    }

    #[cfg(test)]
    fn set_next_rtcp_index(&mut self, index: u32) {
        self.next_rtcp_index = index;
    }
}

/// Length of the RTP header with CSRCs and extension, which SRTP leaves in the clear (RFC 3550
/// §5.1, §5.3.1). `None` if it runs over the end or the version is not 2.
fn rtp_header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let mut len = RTP_HEADER_LEN + 4 * usize::from(first & 0x0F);
    if first & 0x10 != 0 {
        len += 4 + 4 * usize::from(be16(packet, len + 2)?);
    }
    (len <= packet.len()).then_some(len)
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
}

fn be32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
}
