//! DTLS behind a small trait.

use crate::types::Fingerprint;

/// Certificate and DTLS configuration of the node.
#[derive(Debug)]
pub struct DtlsIdentity {
    fingerprint: Fingerprint,
}

/// Why an identity could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a DTLS identity: {0}")]
pub struct IdentityError(pub String);

impl DtlsIdentity {
    /// A new self-signed ECDSA P-256 certificate.
    pub fn generate() -> Result<Self, IdentityError> {
        Err(IdentityError(String::new()))
    }

    /// SHA-256 fingerprint for `a=fingerprint`.
    pub fn fingerprint_sha256(&self) -> &Fingerprint {
        &self.fingerprint
    }
}
