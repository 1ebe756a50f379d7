//! VP9 payload descriptor (RFC 9628 §4.2): flexible and non-flexible mode, layer indices and the
//! scalability structure.

use super::PayloadInfo;
use crate::bytes::be16;

/// Most spatial layers: the field N_S has 3 bits.
pub const MAX_SPATIAL_LAYERS: usize = 8;
/// Most reference picture differences of a frame in flexible mode (RFC 9628 §4.2).
pub const MAX_PICTURE_DIFFS: usize = 3;

const I: u8 = 0x80;
const P: u8 = 0x40;
const L: u8 = 0x20;
const F: u8 = 0x10;
const B: u8 = 0x08;
const E: u8 = 0x04;
const V: u8 = 0x02;
const Z: u8 = 0x01;

/// Layer of a frame (RFC 9628 §4.2, "Layer indices").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Temporal layer, 0..=7.
    pub temporal_id: u8,
    /// Switching up point (U): later frames of higher temporal layers do not depend on frames of
    /// those layers before this one.
    pub switching_up: bool,
    /// Spatial layer, 0..=7.
    pub spatial_id: u8,
    /// Predicted from the next lower spatial layer (D).
    pub inter_layer: bool,
}

/// Layers of a coded sequence (RFC 9628 §4.2.1). The picture group is skipped over: the server
/// drops by layer, never by reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalabilityStructure {
    /// Number of spatial layers, 1..=8.
    pub spatial_layers: u8,
    /// Width and height of each spatial layer, pixels, if the sender states them.
    pub resolutions: Option<[(u16, u16); MAX_SPATIAL_LAYERS]>,
}

/// A parsed payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    flags: u8,
    len: u16,
    picture_id: u16,
    wide_picture_id: bool,
    /// Layer indices, if present.
    pub layer: Option<Layer>,
    /// Running index of base-layer frames; in non-flexible mode with layer indices.
    pub tl0_pic_idx: Option<u8>,
    /// Picture differences of flexible mode, 1..=127; 0 = none.
    pub picture_diffs: [u8; MAX_PICTURE_DIFFS],
    /// Scalability structure, with key frames.
    pub structure: Option<ScalabilityStructure>,
}

impl Descriptor {
    /// Reads the descriptor at the start of a payload. `None` if the payload ends inside it,
    /// nothing follows it, or it states more than three references.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: payload };
        let flags = reader.byte()?;
        let mut descriptor = Self {
            flags,
            len: 0,
            picture_id: 0,
            wide_picture_id: false,
            layer: None,
            tl0_pic_idx: None,
            picture_diffs: [0; MAX_PICTURE_DIFFS],
            structure: None,
        };
        if flags & I != 0 {
            let first = reader.byte()?;
            descriptor.picture_id = u16::from(first & 0x7F);
            descriptor.wide_picture_id = first & 0x80 != 0;
            if descriptor.wide_picture_id {
                descriptor.picture_id = (descriptor.picture_id << 8) | u16::from(reader.byte()?);
            }
        }
        if flags & L != 0 {
            let byte = reader.byte()?;
            descriptor.layer = Some(Layer {
                temporal_id: byte >> 5,
                switching_up: byte & 0x10 != 0,
                spatial_id: (byte >> 1) & 0x07,
                inter_layer: byte & 0x01 != 0,
            });
            if flags & F == 0 {
                descriptor.tl0_pic_idx = Some(reader.byte()?);
            }
        }
        if flags & (F | P) == F | P {
            descriptor.picture_diffs = reader.picture_diffs()?;
        }
        if flags & V != 0 {
            descriptor.structure = Some(reader.structure()?);
        }
        // A structure of 255 pictures with 3 references each is below 1,100 bytes.
        descriptor.len = u16::try_from(payload.len() - reader.rest.len()).ok()?;
        (!reader.rest.is_empty()).then_some(descriptor)
    }

    /// Length of the descriptor, bytes; the VP9 frame data follows.
    #[allow(clippy::len_without_is_empty, reason = "a descriptor is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Picture id, if present.
    pub fn picture_id(&self) -> Option<u16> {
        (self.flags & I != 0).then_some(self.picture_id)
    }

    /// Whether the picture id has 15 bits, not 7.
    pub fn picture_id_is_wide(&self) -> bool {
        self.wide_picture_id
    }

    /// The frame is predicted from earlier pictures (P).
    pub fn inter_picture(&self) -> bool {
        self.flags & P != 0
    }

    /// Flexible mode (F): references are stated per frame.
    pub fn flexible(&self) -> bool {
        self.flags & F != 0
    }

    /// First packet of a layer's frame (B).
    pub fn start_of_frame(&self) -> bool {
        self.flags & B != 0
    }

    /// Last packet of a layer's frame (E).
    pub fn end_of_frame(&self) -> bool {
        self.flags & E != 0
    }

    /// Not a reference for higher spatial layers of the picture (Z). Later pictures may still refer
    /// to it.
    pub fn not_inter_layer_reference(&self) -> bool {
        self.flags & Z != 0
    }

    /// First packet of a frame that needs no other: neither earlier pictures nor, in a picture
    /// with layers, the layer below.
    pub fn is_key_frame(&self) -> bool {
        self.start_of_frame()
            && !self.inter_picture()
            && !self.layer.is_some_and(|layer| layer.inter_layer)
    }

    pub(super) fn info(&self) -> PayloadInfo {
        PayloadInfo {
            key_frame: self.is_key_frame(),
            start_of_frame: self.start_of_frame(),
            end_of_frame: self.end_of_frame(),
            temporal_id: self.layer.map(|layer| layer.temporal_id),
            spatial_id: self.layer.map(|layer| layer.spatial_id),
            switching_up: self.layer.is_some_and(|layer| layer.switching_up),
            inter_layer: self.layer.is_some_and(|layer| layer.inter_layer),
            inter_picture: self.inter_picture(),
            picture_id: self.picture_id(),
            parameter_sets: self.structure.is_some(),
            ..PayloadInfo::default()
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.rest = self.rest.get(len..)?;
        Some(())
    }

    /// Up to three bytes of 7 bits difference and a flag that another follows.
    fn picture_diffs(&mut self) -> Option<[u8; MAX_PICTURE_DIFFS]> {
        let mut diffs = [0; MAX_PICTURE_DIFFS];
        for diff in &mut diffs {
            let byte = self.byte()?;
            *diff = byte >> 1;
            if byte & 1 == 0 {
                return Some(diffs);
            }
        }
        None
    }

    fn structure(&mut self) -> Option<ScalabilityStructure> {
        let first = self.byte()?;
        let spatial_layers = (first >> 5) + 1;
        let mut resolutions = None;
        if first & 0x10 != 0 {
            let mut sizes = [(0, 0); MAX_SPATIAL_LAYERS];
            for size in &mut sizes[..usize::from(spatial_layers)] {
                *size = (be16(self.rest, 0)?, be16(self.rest, 2)?);
                self.skip(4)?;
            }
            resolutions = Some(sizes);
        }
        if first & 0x08 != 0 {
            for _ in 0..self.byte()? {
                let references = (self.byte()? >> 2) & 0x03;
                self.skip(usize::from(references))?;
            }
        }
        Some(ScalabilityStructure { spatial_layers, resolutions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(payload: &[u8]) -> Descriptor {
        Descriptor::parse(payload).unwrap()
    }

    #[test]
    fn key_frame_with_structure_in_non_flexible_mode() {
        // I L B V; 15-bit picture id; TID 0 SID 0; TL0PICIDX; 2 spatial layers with sizes and a
        // picture group of two.
        let payload = [
            I | L | B | V,
            0x81,
            0x02,
            0x00,
            0x2A,
            0x38,
            0x01,
            0x40,
            0x00,
            0xB4,
            0x02,
            0x80,
            0x01,
            0x68,
            0x02,
            0x00,
            0x34,
            0x02,
            0xAA,
        ];
        let descriptor = parse(&payload);
        assert_eq!(descriptor.len(), payload.len() - 1);
        assert_eq!(descriptor.picture_id(), Some(0x0102));
        assert!(descriptor.picture_id_is_wide());
        assert_eq!(descriptor.tl0_pic_idx, Some(0x2A));
        let structure = descriptor.structure.unwrap();
        assert_eq!(structure.spatial_layers, 2);
        assert_eq!(structure.resolutions.unwrap()[..2], [(320, 180), (640, 360)]);
        assert!(descriptor.is_key_frame());
    }

    #[test]
    fn flexible_mode_has_picture_diffs_and_no_tl0_pic_idx() {
        // TID 2, U, SID 1, D; differences 5 and 9.
        let payload = [I | P | L | F | E, 0x11, 0b0101_0011, 0x0B, 0x12, 0xAA];
        let descriptor = parse(&payload);
        assert_eq!(descriptor.len(), 5);
        assert_eq!(descriptor.picture_id(), Some(0x11));
        let layer = Layer { temporal_id: 2, switching_up: true, spatial_id: 1, inter_layer: true };
        assert_eq!(descriptor.layer, Some(layer));
        assert_eq!(descriptor.tl0_pic_idx, None);
        assert_eq!(descriptor.picture_diffs, [5, 9, 0]);
        assert!(descriptor.end_of_frame() && !descriptor.is_key_frame());
    }

    #[test]
    fn upper_spatial_layer_of_a_key_picture_is_not_a_start() {
        assert!(!parse(&[L | B, 0b0000_0011, 0, 0xAA]).is_key_frame());
        // Without inter-layer prediction it is.
        assert!(parse(&[L | B, 0b0000_0010, 0, 0xAA]).is_key_frame());
    }

    #[test]
    fn four_references_are_malformed() {
        assert_eq!(Descriptor::parse(&[P | F, 0x03, 0x05, 0x07, 0x08, 0xAA]), None);
    }

    #[test]
    fn truncated_descriptors_are_refused() {
        let payload = [I | L | B | V, 0x81, 0x02, 0x00, 0x2A, 0x18, 0, 1, 0, 1, 0x01, 0x04, 0x02];
        for len in 0..=payload.len() {
            assert_eq!(Descriptor::parse(&payload[..len]), None, "{len}");
        }
    }
}
