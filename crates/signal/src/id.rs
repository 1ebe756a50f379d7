//! Ids as LiveKit makes them.

use rand::{Rng, RngExt};

/// A prefix such as `AJ_` and twelve letters or digits, without those that look alike.
pub(crate) fn random_id(prefix: &str, rng: &mut impl Rng) -> String {
    const LETTERS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let tail = (0..12).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]));
    format!("{prefix}{}", tail.collect::<String>())
}
