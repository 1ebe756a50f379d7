//! VP8 payload descriptor (RFC 7741 §4.2): parsing, and rewriting of the running indices that must
//! stay continuous for a receiver when layers are switched or dropped.

use super::PayloadInfo;

/// Longest descriptor, bytes: flags, extension flags, 15-bit picture id, TL0PICIDX, TID/KEYIDX.
pub const MAX_DESCRIPTOR_LEN: usize = 6;

/// A parsed payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// First byte: X, N, S and partition index.
    flags: u8,
    /// Extension flags I, L, T, K, as present in the packet.
    extension: u8,
    /// Length of the descriptor, bytes; the VP8 payload header follows.
    len: u8,
    picture_id: u16,
    tl0_pic_idx: u8,
    /// TID, Y and KEYIDX.
    layer: u8,
}

/// New values for a descriptor; see [`Descriptor::write`]. Fields that the descriptor does not have
/// are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indices {
    /// Picture id; cut to the 7 or 15 bits that the source used.
    pub picture_id: u16,
    /// Running index of base-layer frames.
    pub tl0_pic_idx: u8,
    /// Running index of key frames; cut to 5 bits.
    pub key_idx: u8,
}

const X: u8 = 0x80;
const N: u8 = 0x20;
const S: u8 = 0x10;
const PID: u8 = 0x07;
const I: u8 = 0x80;
const L: u8 = 0x40;
const T: u8 = 0x20;
const K: u8 = 0x10;
/// Marks a picture id of 15 bits, in the first byte of the id.
const M: u8 = 0x80;
const Y: u8 = 0x20;
const KEYIDX: u8 = 0x1F;

impl Descriptor {
    /// Reads the descriptor at the start of a payload. `None` if the payload ends inside it or
    /// nothing follows it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut bytes = payload.iter().copied();
        let flags = bytes.next()?;
        let mut descriptor =
            Self { flags, extension: 0, len: 0, picture_id: 0, tl0_pic_idx: 0, layer: 0 };
        if flags & X != 0 {
            descriptor.extension = bytes.next()? & (I | L | T | K);
        }
        let extension = descriptor.extension;
        let mut wide = 0;
        if extension & I != 0 {
            let first = bytes.next()?;
            descriptor.picture_id = u16::from(first & !M);
            if first & M != 0 {
                wide = WIDE;
                descriptor.picture_id = descriptor.picture_id << 8 | u16::from(bytes.next()?);
            }
        }
        if extension & L != 0 {
            descriptor.tl0_pic_idx = bytes.next()?;
        }
        if extension & (T | K) != 0 {
            descriptor.layer = bytes.next()?;
        }
        descriptor.extension |= wide;
        let rest = bytes.len();
        descriptor.len = (payload.len() - rest) as u8;
        (rest > 0).then_some(descriptor)
    }

    /// Length of the descriptor, bytes.
    #[allow(clippy::len_without_is_empty, reason = "a descriptor is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// First packet of a frame: start of partition 0.
    pub fn start_of_frame(&self) -> bool {
        self.flags & S != 0 && self.flags & PID == 0
    }

    /// The frame is not used for reference.
    pub fn non_reference(&self) -> bool {
        self.flags & N != 0
    }

    /// Picture id, if present.
    pub fn picture_id(&self) -> Option<u16> {
        (self.extension & I != 0).then_some(self.picture_id)
    }

    /// Whether the picture id has 15 bits, not 7.
    pub fn picture_id_is_wide(&self) -> bool {
        self.extension & WIDE != 0
    }

    /// Running index of base-layer frames, if present.
    pub fn tl0_pic_idx(&self) -> Option<u8> {
        (self.extension & L != 0).then_some(self.tl0_pic_idx)
    }

    /// Temporal layer, 0..=3, if present.
    pub fn temporal_id(&self) -> Option<u8> {
        (self.extension & T != 0).then_some(self.layer >> 6)
    }

    /// The frame depends on the base layer only (Y): a switch up is possible here.
    pub fn layer_sync(&self) -> bool {
        self.extension & T != 0 && self.layer & Y != 0
    }

    /// Running index of key frames, 0..=31, if present.
    pub fn key_idx(&self) -> Option<u8> {
        (self.extension & K != 0).then_some(self.layer & KEYIDX)
    }

    /// Writes this descriptor with new indices and returns its length, which is that of the
    /// original: no field appears, disappears or changes its width.
    pub fn write(&self, indices: Indices, out: &mut [u8; MAX_DESCRIPTOR_LEN]) -> usize {
        let mut at = 0;
        let mut put = |byte: u8| {
            out[at] = byte;
            at += 1;
        };
        put(self.flags);
        if self.flags & X != 0 {
            put(self.extension & (I | L | T | K));
        }
        if self.extension & I != 0 {
            if self.picture_id_is_wide() {
                put(M | (indices.picture_id >> 8) as u8);
            }
            let low = indices.picture_id as u8;
            put(if self.picture_id_is_wide() { low } else { low & !M });
        }
        if self.extension & L != 0 {
            put(indices.tl0_pic_idx);
        }
        if self.extension & (T | K) != 0 {
            let key_idx = if self.extension & K != 0 { indices.key_idx } else { self.layer };
            put((self.layer & !KEYIDX) | (key_idx & KEYIDX));
        }
        at
    }

    /// Whether the packet starts a key frame: the P bit of the payload header that follows the
    /// descriptor is clear (RFC 7741 §4.3).
    pub fn is_key_frame(&self, payload: &[u8]) -> bool {
        self.start_of_frame() && payload.get(self.len()).is_some_and(|first| first & 1 == 0)
    }

    pub(super) fn info(self, payload: &[u8], marker: bool) -> PayloadInfo {
        PayloadInfo {
            key_frame: self.is_key_frame(payload),
            start_of_frame: self.start_of_frame(),
            end_of_frame: marker,
            temporal_id: self.temporal_id(),
            switching_up: self.layer_sync(),
            discardable: self.non_reference(),
            picture_id: self.picture_id(),
            vp8: Some(self),
            ..PayloadInfo::default()
        }
    }
}

/// Marks a 15-bit picture id in [`Descriptor::extension`], where the wire has a reserved bit.
const WIDE: u8 = 0x01;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(payload: &[u8]) -> Descriptor {
        Descriptor::parse(payload).unwrap()
    }

    #[test]
    fn key_frame_with_all_fields() {
        let payload = [0x90, 0xF0, 0x92, 0x34, 0x56, 0x6A, 0x10, 0x02, 0x00];
        let descriptor = parse(&payload);
        assert_eq!(descriptor.len(), 6);
        assert_eq!(descriptor.picture_id(), Some(0x1234));
        assert!(descriptor.picture_id_is_wide());
        assert_eq!(descriptor.tl0_pic_idx(), Some(0x56));
        assert_eq!(descriptor.temporal_id(), Some(1));
        assert!(descriptor.layer_sync());
        assert_eq!(descriptor.key_idx(), Some(10));
        assert!(descriptor.is_key_frame(&payload));
    }

    #[test]
    fn descriptor_without_extension_is_one_byte() {
        let payload = [0x10, 0x01];
        let descriptor = parse(&payload);
        assert_eq!(descriptor.len(), 1);
        assert!(descriptor.start_of_frame() && !descriptor.is_key_frame(&payload));
        assert_eq!((descriptor.picture_id(), descriptor.temporal_id()), (None, None));
    }

    #[test]
    fn later_partitions_and_continuations_are_not_key_frames() {
        assert!(!parse(&[0x00, 0x00]).is_key_frame(&[0x00, 0x00]));
        assert!(!parse(&[0x11, 0x00]).is_key_frame(&[0x11, 0x00]));
    }

    #[test]
    fn truncated_descriptors_are_refused() {
        let whole = [0x90, 0xF0, 0x92, 0x34, 0x56, 0x6A];
        for len in 0..=whole.len() {
            assert_eq!(Descriptor::parse(&whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn narrow_picture_id_stays_narrow() {
        let descriptor = parse(&[0x90, 0x80, 0x7F, 0x01]);
        assert_eq!(descriptor.picture_id(), Some(127));
        let mut out = [0; MAX_DESCRIPTOR_LEN];
        let indices = Indices { picture_id: 128, tl0_pic_idx: 0, key_idx: 0 };
        assert_eq!(descriptor.write(indices, &mut out), 3);
        assert_eq!(out[..3], [0x90, 0x80, 0x00]);
    }

    #[test]
    fn key_idx_is_only_written_where_there_is_one() {
        let descriptor = parse(&[0x90, 0x20, 0xC5, 0x01]);
        let mut out = [0; MAX_DESCRIPTOR_LEN];
        let indices = Indices { picture_id: 1, tl0_pic_idx: 1, key_idx: 31 };
        let len = descriptor.write(indices, &mut out);
        assert_eq!(out[..len], [0x90, 0x20, 0xC5]);
    }

    proptest! {
        #[test]
        fn rewriting_with_own_indices_changes_nothing(
            mut payload in prop::collection::vec(any::<u8>(), 1..12),
        ) {
            // Reserved bits of the extension byte are not kept.
            if payload.len() > 1 && payload[0] & X != 0 {
                payload[1] &= 0xF0;
            }
            if let Some(descriptor) = Descriptor::parse(&payload) {
                let indices = Indices {
                    picture_id: descriptor.picture_id().unwrap_or(0),
                    tl0_pic_idx: descriptor.tl0_pic_idx().unwrap_or(0),
                    key_idx: descriptor.key_idx().unwrap_or(0),
                };
                let mut out = [0; MAX_DESCRIPTOR_LEN];
                let len = descriptor.write(indices, &mut out);
                prop_assert_eq!(&out[..len], &payload[..descriptor.len()]);
            }
        }

        #[test]
        fn written_indices_are_read_back(
            picture_id in 0u16..0x8000, tl0_pic_idx in any::<u8>(), key_idx in 0u8..32,
        ) {
            let descriptor = parse(&[0x90, 0xF0, 0x80, 0, 0, 0x40, 0x01]);
            let mut out = [0; MAX_DESCRIPTOR_LEN + 1];
            let indices = Indices { picture_id, tl0_pic_idx, key_idx };
            let len = descriptor.write(indices, out.first_chunk_mut().unwrap());
            let read = parse(&out[..=len]);
            prop_assert_eq!(read.picture_id(), Some(picture_id));
            prop_assert_eq!(read.tl0_pic_idx(), Some(tl0_pic_idx));
            prop_assert_eq!(read.key_idx(), Some(key_idx));
            prop_assert_eq!(read.temporal_id(), Some(1));
        }
    }
}
