//! Verification of Turms JWTs.
