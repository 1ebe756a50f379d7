//! What a simulated payload was when it left its encoder, written into it, so that a receiver can
//! tell whether the forwarding in between kept its promises.

/// Marks a stamp.
const MAGIC: u16 = 0x51CE;

/// References of a frame at most.
pub const MAX_REFS: usize = 3;

/// Length on the wire, bytes.
pub const STAMP_LEN: usize = 2 + 1 + 1 + 4 + 2 + 2 + 1 + 4 * MAX_REFS;

/// Origin of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Simulcast layer.
    pub layer: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// Number of the frame in its layer, counted from 0.
    pub frame: u32,
    /// Place of the packet in the frame.
    pub index: u16,
    /// Packets of the frame.
    pub count: u16,
    /// Frames of the layer that must be decoded before; none for a key frame.
    pub refs: Refs,
}

/// The references of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refs {
    frames: [u32; MAX_REFS],
    len: u8,
}

impl Refs {
    /// Up to [`MAX_REFS`] frames; more are cut off.
    pub fn new(frames: &[u32]) -> Self {
        let mut refs = Self::default();
        for (slot, frame) in refs.frames.iter_mut().zip(frames) {
            *slot = *frame;
            refs.len += 1;
        }
        refs
    }

    /// The frames.
    pub fn as_slice(&self) -> &[u32] {
        &self.frames[..usize::from(self.len)]
    }
}

impl Stamp {
    /// Whether the frame needs no other.
    pub fn is_key(&self) -> bool {
        self.refs.len == 0
    }

    /// Writes the stamp.
    pub fn write(&self) -> [u8; STAMP_LEN] {
        let mut out = [0; STAMP_LEN];
        out[..2].copy_from_slice(&MAGIC.to_be_bytes());
        out[2] = self.layer;
        out[3] = self.temporal;
        out[4..8].copy_from_slice(&self.frame.to_be_bytes());
        out[8..10].copy_from_slice(&self.index.to_be_bytes());
        out[10..12].copy_from_slice(&self.count.to_be_bytes());
        out[12] = self.refs.len;
        for (chunk, frame) in out[13..].chunks_exact_mut(4).zip(self.refs.frames) {
            chunk.copy_from_slice(&frame.to_be_bytes());
        }
        out
    }

    /// Reads a stamp from the start of `bytes`.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..STAMP_LEN)?;
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
        if u16_at(0) != MAGIC || usize::from(bytes[12]) > MAX_REFS {
            return None;
        }
        let refs = Refs { frames: std::array::from_fn(|i| u32_at(13 + 4 * i)), len: bytes[12] };
        Some(Self {
            layer: bytes[2],
            temporal: bytes[3],
            frame: u32_at(4),
            index: u16_at(8),
            count: u16_at(10),
            refs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back() {
        for refs in [&[][..], &[1], &[1, 70_000, u32::MAX]] {
            let stamp = Stamp {
                layer: 2,
                temporal: 1,
                frame: 1 << 20,
                index: 3,
                count: 9,
                refs: Refs::new(refs),
            };
            assert_eq!(Stamp::read(&stamp.write()), Some(stamp));
        }
        assert_eq!(Stamp::read(&[0; STAMP_LEN]), None);
        assert_eq!(Stamp::read(&[]), None);
    }
}
