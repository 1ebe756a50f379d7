//! Session keys from a master key (RFC 3711 §4.3, RFC 7714 §11), key derivation rate 0.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::{MasterKey, SrtpProfile};

/// HMAC-SHA1 session key length, bytes (RFC 3711 §5.2).
pub(super) const AUTH_KEY_LEN: usize = 20;
/// Longest session key.
const MAX_KEY_LEN: usize = 32;
/// Longest session salt.
const MAX_SALT_LEN: usize = 14;

/// Keys of the wrong length for the profile, or a failure inside the crypto library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SRTP keying material does not fit its profile")]
pub struct KeyingError;

impl From<aws_lc_rs::error::Unspecified> for KeyingError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

/// Session keys of RTP or RTCP in one direction.
pub(super) struct SessionKeys {
    key: [u8; MAX_KEY_LEN],
    key_len: usize,
    salt: [u8; MAX_SALT_LEN],
    pub(super) auth: [u8; AUTH_KEY_LEN],
}

impl SessionKeys {
    pub(super) fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    /// The salt, zero-padded to 14 bytes.
    pub(super) fn salt(&self) -> [u8; MAX_SALT_LEN] {
        self.salt
    }

    #[cfg(test)]
    pub(super) fn from_parts(key: &[u8], salt: &[u8], auth: [u8; AUTH_KEY_LEN]) -> Self {
        let mut keys =
            Self { key: [0; MAX_KEY_LEN], key_len: key.len(), salt: [0; MAX_SALT_LEN], auth };
        keys.key[..key.len()].copy_from_slice(key);
        keys.salt[..salt.len()].copy_from_slice(salt);
        keys
    }
}

/// RFC 3711 §4.3.1, labels 0, 1, 2.
pub(super) fn rtp_keys(
    profile: SrtpProfile,
    master: &MasterKey<'_>,
) -> Result<SessionKeys, KeyingError> {
    derive(profile, master, [0, 1, 2])
}

/// RFC 3711 §4.3.2, labels 3, 4, 5.
pub(super) fn rtcp_keys(
    profile: SrtpProfile,
    master: &MasterKey<'_>,
) -> Result<SessionKeys, KeyingError> {
    derive(profile, master, [3, 4, 5])
}

fn derive(
    profile: SrtpProfile,
    master: &MasterKey<'_>,
    [encryption, authentication, salting]: [u8; 3],
) -> Result<SessionKeys, KeyingError> {
    if master.key.len() != profile.key_len() || master.salt.len() != profile.salt_len() {
        return Err(KeyingError);
    }
    let algorithm = if profile.key_len() == 32 { &AES_256 } else { &AES_128 };
    let prf = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, master.key)?)?;
    let mut keys = SessionKeys {
        key: [0; MAX_KEY_LEN],
        key_len: profile.key_len(),
        salt: [0; MAX_SALT_LEN],
        auth: [0; AUTH_KEY_LEN],
    };
    expand(&prf, master.salt, encryption, &mut keys.key[..profile.key_len()])?;
    expand(&prf, master.salt, salting, &mut keys.salt[..profile.salt_len()])?;
    expand(&prf, master.salt, authentication, &mut keys.auth)?;
    Ok(keys)
}

/// AES-CM keystream over zeros, with the label XORed into byte 7 of the salt (RFC 3711 §4.3.1:
/// the key id is the label followed by a 48-bit index of zero). Salts of 12 bytes are padded on
/// the right (RFC 7714 §11).
fn expand(
    prf: &EncryptingKey,
    salt: &[u8],
    label: u8,
    zeroed: &mut [u8],
) -> Result<(), KeyingError> {
    let mut iv = [0u8; 16];
    iv[..salt.len()].copy_from_slice(salt);
    iv[7] ^= label;
    prf.less_safe_encrypt(zeroed, EncryptionContext::Iv128(FixedLength::from(iv)))?;
    Ok(())
}
