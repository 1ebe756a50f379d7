//! The transforms: AEAD AES-GCM (RFC 7714) and AES-CM with HMAC-SHA1-80 (RFC 3711), in place.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::kdf::{KeyingError, SessionKeys};
use super::{OpenError, RTCP_HEADER_LEN, SRTCP_ENCRYPTED, SRTCP_INDEX_LEN, SrtpProfile, be32};

/// GCM tag, bytes (RFC 7714 §12).
const GCM_TAG_LEN: usize = 16;
/// HMAC-SHA1-80 tag, bytes (RFC 3711 §5.2).
const CM_TAG_LEN: usize = 10;

/// Expanded session keys of RTP or RTCP in one direction.
#[derive(Debug)]
pub(super) enum Cipher {
    Gcm(Gcm),
    /// Boxed: its HMAC states take 1.7 KB, and GCM is the rule.
    Cm(Box<Cm>),
}

impl Cipher {
    pub(super) fn new(profile: SrtpProfile, keys: &SessionKeys) -> Result<Self, KeyingError> {
        let algorithm = match profile {
            SrtpProfile::AeadAes256Gcm => &AES_256_GCM,
            SrtpProfile::AeadAes128Gcm => &AES_128_GCM,
            SrtpProfile::Aes128CmSha1_80 => return Ok(Self::Cm(Box::new(Cm::new(keys)?))),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, keys.key())?);
        let [salt @ .., _, _] = keys.salt();
        Ok(Self::Gcm(Gcm { key, salt }))
    }

    pub(super) fn tag_len(&self) -> usize {
        match self {
            Self::Gcm(_) => GCM_TAG_LEN,
            Self::Cm(_) => CM_TAG_LEN,
        }
    }

    pub(super) fn open_rtp(
        &self,
        ssrc: u32,
        index: u64,
        header_len: usize,
        packet: &mut [u8],
    ) -> Result<usize, OpenError> {
        let len = packet.len().checked_sub(self.tag_len()).ok_or(OpenError::Malformed)?;
        if header_len > len {
            return Err(OpenError::Malformed);
        }
        match self {
            Self::Gcm(gcm) => {
                let (header, body) = packet.split_at_mut(header_len);
                gcm.open(ssrc, index, header, body)?;
            }
            Self::Cm(cm) => {
                let (body, tag) = packet.split_at_mut(len);
                let rollover = ((index >> 16) as u32).to_be_bytes();
                cm.verify(body, &rollover, tag)?;
                cm.apply_keystream(ssrc, index, &mut body[header_len..])
                    .map_err(|_| OpenError::Authentication)?;
            }
        }
        Ok(len)
    }

    /// Writes ciphertext and tag over `buf`, which has room for the tag behind `len`.
    pub(super) fn seal_rtp(
        &self,
        ssrc: u32,
        index: u64,
        header_len: usize,
        len: usize,
        buf: &mut [u8],
    ) -> Result<usize, KeyingError> {
        let (packet, room) = buf.split_at_mut_checked(len).ok_or(KeyingError)?;
        let tag_at = room.get_mut(..self.tag_len()).ok_or(KeyingError)?;
        let (header, body) = packet.split_at_mut_checked(header_len).ok_or(KeyingError)?;
        match self {
            Self::Gcm(gcm) => gcm.seal(ssrc, index, header, body, tag_at)?,
            Self::Cm(cm) => {
                cm.apply_keystream(ssrc, index, body)?;
                let rollover = ((index >> 16) as u32).to_be_bytes();
                cm.sign(packet, &rollover, tag_at);
            }
        }
        Ok(len + self.tag_len())
    }

    /// The SRTCP index that the trailer of `packet` shows, not yet authenticated.
    pub(super) fn rtcp_index(&self, packet: &[u8]) -> Option<u32> {
        Some(self.rtcp_trailer(packet)?.1 & !SRTCP_ENCRYPTED)
    }

    /// Offset and value of the E flag and index. `None` if the packet is too short.
    fn rtcp_trailer(&self, packet: &[u8]) -> Option<(usize, u32)> {
        let overhead = self.tag_len() + SRTCP_INDEX_LEN;
        let body_end = packet.len().checked_sub(overhead)?;
        if body_end < RTCP_HEADER_LEN {
            return None;
        }
        // RFC 7714 §9.3 puts the tag before the index, RFC 3711 §3.4 behind it.
        let at = match self {
            Self::Gcm(_) => body_end + GCM_TAG_LEN,
            Self::Cm(_) => body_end,
        };
        Some((at, be32(packet, at)?))
    }

    pub(super) fn open_rtcp(&self, ssrc: u32, packet: &mut [u8]) -> Result<usize, OpenError> {
        let (trailer_at, trailer) = self.rtcp_trailer(packet).ok_or(OpenError::Malformed)?;
        let encrypted = trailer & SRTCP_ENCRYPTED != 0;
        let index = u64::from(trailer & !SRTCP_ENCRYPTED);
        match self {
            Self::Gcm(gcm) => {
                let len = trailer_at - GCM_TAG_LEN;
                if encrypted {
                    let aad = rtcp_aad(packet, trailer);
                    gcm.open(ssrc, index, &aad, &mut packet[RTCP_HEADER_LEN..trailer_at])?;
                } else {
                    // RFC 7714 §9.2: everything but the tag is associated data.
                    let mut tag = [0; GCM_TAG_LEN];
                    tag.copy_from_slice(&packet[len..trailer_at]);
                    packet.copy_within(trailer_at..trailer_at + SRTCP_INDEX_LEN, len);
                    gcm.open(ssrc, index, &packet[..len + SRTCP_INDEX_LEN], &mut tag)?;
                }
                Ok(len)
            }
            Self::Cm(cm) => {
                let (body, tag) = packet.split_at_mut(trailer_at + SRTCP_INDEX_LEN);
                cm.verify(body, &[], tag)?;
                if encrypted {
                    cm.apply_keystream(ssrc, index, &mut body[RTCP_HEADER_LEN..trailer_at])
                        .map_err(|_| OpenError::Authentication)?;
                }
                Ok(trailer_at)
            }
        }
    }

    /// Encrypts `buf` in place and appends tag and index.
    pub(super) fn seal_rtcp(
        &self,
        ssrc: u32,
        index: u32,
        buf: &mut Vec<u8>,
    ) -> Result<(), KeyingError> {
        let trailer = index | SRTCP_ENCRYPTED;
        match self {
            Self::Gcm(gcm) => {
                let aad = rtcp_aad(buf, trailer);
                let mut tag = [0; GCM_TAG_LEN];
                gcm.seal(ssrc, u64::from(index), &aad, &mut buf[RTCP_HEADER_LEN..], &mut tag)?;
                buf.extend_from_slice(&tag);
                buf.extend_from_slice(&trailer.to_be_bytes());
            }
            Self::Cm(cm) => {
                cm.apply_keystream(ssrc, u64::from(index), &mut buf[RTCP_HEADER_LEN..])?;
                buf.extend_from_slice(&trailer.to_be_bytes());
                let mut tag = [0; CM_TAG_LEN];
                cm.sign(buf, &[], &mut tag);
                buf.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// E flag 0, which we accept and never send.
    #[cfg(test)]
    pub(super) fn seal_rtcp_in_the_clear(&self, ssrc: u32, index: u32, packet: &[u8]) -> Vec<u8> {
        let mut out = packet.to_vec();
        match self {
            Self::Gcm(gcm) => {
                let mut aad = packet.to_vec();
                aad.extend_from_slice(&index.to_be_bytes());
                let mut tag = [0; GCM_TAG_LEN];
                gcm.seal(ssrc, u64::from(index), &aad, &mut [], &mut tag).unwrap();
                out.extend_from_slice(&tag);
                out.extend_from_slice(&index.to_be_bytes());
            }
            Self::Cm(cm) => {
                out.extend_from_slice(&index.to_be_bytes());
                let mut tag = [0; CM_TAG_LEN];
                cm.sign(&out, &[], &mut tag);
                out.extend_from_slice(&tag);
            }
        }
        out
    }
}

/// RFC 7714 §9.2: header, sender SSRC, E flag and index.
fn rtcp_aad(packet: &[u8], trailer: u32) -> [u8; RTCP_HEADER_LEN + SRTCP_INDEX_LEN] {
    let mut aad = [0; RTCP_HEADER_LEN + SRTCP_INDEX_LEN];
    aad[..RTCP_HEADER_LEN].copy_from_slice(&packet[..RTCP_HEADER_LEN]);
    aad[RTCP_HEADER_LEN..].copy_from_slice(&trailer.to_be_bytes());
    aad
}

#[derive(Debug)]
pub(super) struct Gcm {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Gcm {
    /// RFC 7714 §8.1 and §9.1: two zero bytes, SSRC and 48-bit index, XORed with the salt. An
    /// SRTCP index is below 2^31 and fills the same field.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut nonce = self.salt;
        xor_into(&mut nonce[2..6], &ssrc.to_be_bytes());
        xor_into(&mut nonce[6..], &index.to_be_bytes()[2..]);
        Nonce::assume_unique_for_key(nonce)
    }

    fn open(&self, ssrc: u32, index: u64, aad: &[u8], body: &mut [u8]) -> Result<(), OpenError> {
        self.key
            .open_in_place(self.nonce(ssrc, index), Aad::from(aad), body)
            .map(|_| ())
            .map_err(|_| OpenError::Authentication)
    }

    fn seal(
        &self,
        ssrc: u32,
        index: u64,
        aad: &[u8],
        body: &mut [u8],
        tag_at: &mut [u8],
    ) -> Result<(), KeyingError> {
        let nonce = self.nonce(ssrc, index);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), body)?;
        tag_at.copy_from_slice(tag.as_ref());
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct Cm {
    key: EncryptingKey,
    auth: hmac::Key,
    salt: [u8; 14],
}

impl Cm {
    fn new(keys: &SessionKeys) -> Result<Self, KeyingError> {
        Ok(Self {
            key: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, keys.key())?)?,
            auth: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &keys.auth),
            salt: keys.salt(),
        })
    }

    /// RFC 3711 §4.1.1: SSRC and index XORed into the salt, then a 16-bit block counter.
    fn apply_keystream(&self, ssrc: u32, index: u64, data: &mut [u8]) -> Result<(), KeyingError> {
        let mut iv = [0u8; 16];
        iv[..14].copy_from_slice(&self.salt);
        xor_into(&mut iv[4..8], &ssrc.to_be_bytes());
        xor_into(&mut iv[8..14], &index.to_be_bytes()[2..]);
        self.key.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(iv)))?;
        Ok(())
    }

    fn tag(&self, data: &[u8], suffix: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.auth);
        context.update(data);
        context.update(suffix);
        context.sign()
    }

    fn sign(&self, data: &[u8], suffix: &[u8], tag_at: &mut [u8]) {
        tag_at.copy_from_slice(&self.tag(data, suffix).as_ref()[..CM_TAG_LEN]);
    }

    fn verify(&self, data: &[u8], suffix: &[u8], tag: &[u8]) -> Result<(), OpenError> {
        let expected = self.tag(data, suffix);
        verify_slices_are_equal(&expected.as_ref()[..CM_TAG_LEN], tag)
            .map_err(|_| OpenError::Authentication)
    }
}

fn xor_into(target: &mut [u8], mask: &[u8]) {
    for (byte, mask) in target.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
