//! Big-endian reads that answer `None` instead of leaving the slice.

/// The `N` bytes at `at`.
pub(crate) fn array<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The 16-bit value at `at`.
pub(crate) fn be16(data: &[u8], at: usize) -> Option<u16> {
    array(data, at).map(u16::from_be_bytes)
}

/// The 24-bit value at `at`.
pub(crate) fn be24(data: &[u8], at: usize) -> Option<u32> {
    array::<3>(data, at).map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
}

/// The 32-bit value at `at`.
pub(crate) fn be32(data: &[u8], at: usize) -> Option<u32> {
    array(data, at).map(u32::from_be_bytes)
}

/// The 64-bit value at `at`.
pub(crate) fn be64(data: &[u8], at: usize) -> Option<u64> {
    array(data, at).map(u64::from_be_bytes)
}
