//! Local ICE ufrags as map keys without strings: eight characters are one integer.

use crate::engine::UFRAG_LEN;

/// A local ufrag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ufrag(u64);

impl Ufrag {
    /// `None` unless it has the length of ours.
    pub(crate) fn new(ufrag: &str) -> Option<Self> {
        <[u8; UFRAG_LEN]>::try_from(ufrag.as_bytes())
            .ok()
            .map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}
