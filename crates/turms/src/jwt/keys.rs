//! Keys that verify Turms JWTs, read from the same files that Turms reads.
//!
//! The kind of key decides which algorithms it may verify: an RSA key never checks an HMAC, a P-256
//! key never an ES384 signature. HMAC files are raw bytes, a trailing newline included.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use aws_lc_rs::{constant_time, hmac};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
    OID_PKCS1_RSAENCRYPTION,
};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

/// JOSE signature algorithms (RFC 7518 §3.1) that Turms accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of RFC 7518")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
}

impl Algorithm {
    /// Every algorithm with its JOSE name.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::Rs256, "RS256"),
        (Self::Rs384, "RS384"),
        (Self::Rs512, "RS512"),
        (Self::Ps256, "PS256"),
        (Self::Ps384, "PS384"),
        (Self::Ps512, "PS512"),
        (Self::Es256, "ES256"),
        (Self::Es384, "ES384"),
        (Self::Es512, "ES512"),
        (Self::Hs256, "HS256"),
        (Self::Hs384, "HS384"),
        (Self::Hs512, "HS512"),
    ];

    /// The algorithm of a JOSE name, case-sensitive as RFC 7515 §4.1.1 has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
    }

    /// The JOSE name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(algorithm, _)| *algorithm == self).map_or("", |(_, name)| name)
    }

    fn kind(self) -> KeyKind {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                KeyKind::Rsa
            }
            Self::Es256 => KeyKind::P256,
            Self::Es384 => KeyKind::P384,
            Self::Es512 => KeyKind::P521,
            Self::Hs256 | Self::Hs384 | Self::Hs512 => KeyKind::Hmac,
        }
    }

    fn hmac(self) -> Option<(hmac::Algorithm, usize)> {
        Some(match self {
            Self::Hs256 => (hmac::HMAC_SHA256, 32),
            Self::Hs384 => (hmac::HMAC_SHA384, 48),
            Self::Hs512 => (hmac::HMAC_SHA512, 64),
            _ => return None,
        })
    }

    fn asymmetric(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &signature::ECDSA_P521_SHA512_FIXED,
            Self::Hs256 | Self::Hs384 | Self::Hs512 => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Hmac,
}

/// Why a key file is of no use. Never shows key bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither `PUBLIC KEY` nor `CERTIFICATE`.
    #[error("expected PEM with a PUBLIC KEY or CERTIFICATE block")]
    NotPem,
    /// The block's content is not what its label says.
    #[error("the {0} block does not parse")]
    Malformed(&'static str),
    /// A kind of key that no configured algorithm uses.
    #[error("the key is neither RSA nor EC on P-256, P-384 or P-521")]
    Unsupported,
    /// A key of another kind than the algorithm's.
    #[error(
        "the key cannot verify {0} signatures; configure it under an algorithm of its own kind"
    )]
    WrongKind(&'static str),
    /// RFC 7518 §3.2 asks for a key at least as long as the hash.
    #[error("the HMAC key has {actual} bytes, {algorithm} needs at least {needed}")]
    Short {
        /// JOSE name.
        algorithm: &'static str,
        /// Bytes of the hash.
        needed: usize,
        /// Bytes of the file.
        actual: usize,
    },
    /// Wrong password, unknown alias or a damaged file.
    #[error("PKCS#12: {0}")]
    Pkcs12(&'static str),
}

/// One key, ready to verify one algorithm.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    material: Material,
}

#[derive(Clone)]
enum Material {
    /// X.509 SubjectPublicKeyInfo, DER.
    Public(Vec<u8>),
    Hmac(Arc<hmac::Key>),
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl VerifyingKey {
    /// From a PEM file with a public key (`SubjectPublicKeyInfo`) or an X.509 certificate.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        for block in x509_parser::pem::Pem::iter_from_buffer(pem) {
            let block = block.map_err(|_| KeyError::NotPem)?;
            match block.label.as_str() {
                "PUBLIC KEY" => return Self::from_spki(algorithm, &block.contents, "PUBLIC KEY"),
                "CERTIFICATE" => return Self::from_certificate(algorithm, &block.contents),
                _ => {}
            }
        }
        Err(KeyError::NotPem)
    }

    /// From the raw bytes of an HMAC key file, nothing trimmed.
    pub fn from_hmac_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        let (hmac_algorithm, needed) =
            algorithm.hmac().ok_or(KeyError::WrongKind(algorithm.name()))?;
        if bytes.len() < needed {
            return Err(KeyError::Short {
                algorithm: algorithm.name(),
                needed,
                actual: bytes.len(),
            });
        }
        Ok(Self {
            algorithm,
            material: Material::Hmac(Arc::new(hmac::Key::new(hmac_algorithm, bytes))),
        })
    }

    /// From the certificate or secret key under `alias` of a PKCS#12 file.
    pub fn from_pkcs12(
        algorithm: Algorithm,
        file: &[u8],
        password: &str,
        alias: &str,
    ) -> Result<Self, KeyError> {
        use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
        let store = KeyStore::from_pkcs12(file, password, Pkcs12ImportPolicy::Strict)
            .map_err(|_| KeyError::Pkcs12("wrong password or damaged file"))?;
        let (_, entry) = store
            .entries()
            .find(|(name, _)| name.eq_ignore_ascii_case(alias))
            .ok_or(KeyError::Pkcs12("no entry of that alias"))?;
        match entry {
            KeyStoreEntry::Certificate(certificate) => {
                Self::from_certificate(algorithm, certificate.as_der())
            }
            KeyStoreEntry::PrivateKeyChain(chain) => {
                let leaf = chain
                    .certs()
                    .first()
                    .ok_or(KeyError::Pkcs12("the entry has no certificate"))?;
                Self::from_certificate(algorithm, leaf.as_der())
            }
            KeyStoreEntry::Secret(secret) => Self::from_hmac_bytes(algorithm, secret.key()),
        }
    }

    fn from_certificate(algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| KeyError::Malformed("CERTIFICATE"))?;
        Self::from_spki(algorithm, certificate.tbs_certificate.subject_pki.raw, "CERTIFICATE")
    }

    fn from_spki(algorithm: Algorithm, der: &[u8], what: &'static str) -> Result<Self, KeyError> {
        let (_, spki) =
            SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Malformed(what))?;
        if kind_of(&spki)? != algorithm.kind() {
            return Err(KeyError::WrongKind(algorithm.name()));
        }
        Ok(Self { algorithm, material: Material::Public(der.to_vec()) })
    }

    /// The algorithm this key verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Hmac(key) => {
                let tag = hmac::sign(key, message);
                constant_time::verify_slices_are_equal(tag.as_ref(), signature).is_ok()
            }
            Material::Public(spki) => self.algorithm.asymmetric().is_some_and(|algorithm| {
                UnparsedPublicKey::new(algorithm, spki).verify(message, signature).is_ok()
            }),
        }
    }
}

fn kind_of(spki: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, KeyError> {
    let algorithm = &spki.algorithm;
    if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        return Ok(KeyKind::Rsa);
    }
    if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err(KeyError::Unsupported);
    }
    let curve = algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    match curve {
        Some(oid) if oid == OID_EC_P256 => Ok(KeyKind::P256),
        Some(oid) if oid == OID_NIST_EC_P384 => Ok(KeyKind::P384),
        Some(oid) if oid == OID_NIST_EC_P521 => Ok(KeyKind::P521),
        _ => Err(KeyError::Unsupported),
    }
}
