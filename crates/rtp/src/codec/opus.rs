//! Opus payloads (RFC 7587): only the hint that an encoder is in discontinuous transmission.

/// Longest payload of a DTX packet, bytes: the TOC byte and at most one frame byte. libopus emits
/// such packets about every 400 ms while there is nothing to hear.
pub const DTX_MAX_LEN: usize = 2;

/// Whether a payload is so short that it carries no speech.
pub fn is_dtx(payload: &[u8]) -> bool {
    (1..=DTX_MAX_LEN).contains(&payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_and_two_bytes_are_dtx() {
        assert!(!is_dtx(&[]));
        assert!(is_dtx(&[0xF8]));
        assert!(is_dtx(&[0xF8, 0xFF]));
        assert!(!is_dtx(&[0xF8, 0xFF, 0xFE]));
    }
}
