//! AV1 payloads (AV1 RTP specification §4): aggregation header and OBU headers.
//!
//! These answers are for streams without a dependency descriptor; with one, use [`crate::dd`].

use super::PayloadInfo;

const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_TEMPORAL_DELIMITER: u8 = 2;
const OBU_FRAME_HEADER: u8 = 3;
const OBU_FRAME: u8 = 6;

/// Z: the first element continues an OBU of the packet before.
const AGGREGATION_Z: u8 = 0x80;
/// N: first packet of a coded video sequence.
const AGGREGATION_N: u8 = 0x08;
/// Longest LEB128 value of an element size that fits a datagram, bytes. AV1 allows 8.
const LEB128_MAX_LEN: usize = 8;

/// What the OBUs of one packet say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inspected {
    /// The packet is the first of a coded video sequence (N), or carries a sequence header.
    pub sequence_start: bool,
    /// The first element is an OBU from its beginning and of a kind that opens a frame.
    pub opens_frame: bool,
    /// Temporal layer of the first OBU with an extension header, 0..=7.
    pub temporal_id: Option<u8>,
    /// Spatial layer of the first OBU with an extension header, 0..=3.
    pub spatial_id: Option<u8>,
}

impl Inspected {
    pub(super) fn info(self, marker: bool) -> PayloadInfo {
        PayloadInfo {
            key_frame: self.sequence_start,
            start_of_frame: self.opens_frame,
            end_of_frame: marker,
            temporal_id: self.temporal_id,
            spatial_id: self.spatial_id,
            parameter_sets: self.sequence_start,
            ..PayloadInfo::default()
        }
    }

    fn add(&mut self, first_element: bool, obu: &[u8]) {
        let Some(&header) = obu.first() else { return };
        let kind = (header >> 3) & 0x0F;
        self.sequence_start |= kind == OBU_SEQUENCE_HEADER;
        if first_element {
            self.opens_frame = matches!(
                kind,
                OBU_SEQUENCE_HEADER | OBU_TEMPORAL_DELIMITER | OBU_FRAME_HEADER | OBU_FRAME
            );
        }
        let has_extension = header & 0x04 != 0;
        if let Some(extension) = obu.get(1).filter(|_| has_extension)
            && self.temporal_id.is_none()
        {
            self.temporal_id = Some(extension >> 5);
            self.spatial_id = Some((extension >> 3) & 0x03);
        }
    }
}

/// Looks at every OBU that begins in a payload.
pub fn inspect(payload: &[u8]) -> Inspected {
    let mut found = Inspected::default();
    let Some((&aggregation, mut rest)) = payload.split_first() else { return found };
    let continues = aggregation & AGGREGATION_Z != 0;
    found.sequence_start = aggregation & AGGREGATION_N != 0 && !continues;
    // W: number of elements, the last one without size; 0 = unknown, all have sizes.
    let count = usize::from((aggregation >> 4) & 0x03);
    let mut index = 0;
    while !rest.is_empty() {
        let element = if index + 1 == count {
            std::mem::take(&mut rest)
        } else {
            let Some((element, tail)) = sized_element(rest) else { return found };
            rest = tail;
            element
        };
        if index > 0 || !continues {
            found.add(index == 0, element);
        }
        index += 1;
    }
    found
}

/// Splits an element with a LEB128 size from the rest; `None` if it is cut.
fn sized_element(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut size = 0u64;
    for (index, byte) in data.iter().take(LEB128_MAX_LEN).enumerate() {
        size |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return data[index + 1..].split_at_checked(usize::try_from(size).ok()?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQUENCE: u8 = OBU_SEQUENCE_HEADER << 3;
    const FRAME: u8 = OBU_FRAME << 3;
    const FRAME_WITH_LAYERS: u8 = FRAME | 0x04;

    #[test]
    fn n_bit_or_sequence_header_starts_a_sequence() {
        assert!(inspect(&[0x18, FRAME, 0]).sequence_start);
        assert!(inspect(&[0x20, 2, SEQUENCE, 0, FRAME, 0]).sequence_start);
        assert!(!inspect(&[0x10, FRAME, 0]).sequence_start);
    }

    #[test]
    fn continuation_is_not_read_as_an_obu_header() {
        // Z with N is malformed, and the first byte after the header is not an OBU header.
        assert!(!inspect(&[0x98, SEQUENCE, 0]).sequence_start);
        assert!(!inspect(&[0x90, SEQUENCE, 0]).opens_frame);
        // A second element of the same packet is.
        assert!(inspect(&[0xA0, 1, 0xFF, SEQUENCE, 0]).sequence_start);
    }

    #[test]
    fn unknown_element_count_has_sizes_everywhere() {
        assert!(inspect(&[0x00, 1, OBU_TEMPORAL_DELIMITER << 3, 2, SEQUENCE, 0]).sequence_start);
        assert!(!inspect(&[0x00, 1, OBU_TEMPORAL_DELIMITER << 3, 3, SEQUENCE, 0]).sequence_start);
        assert!(
            !inspect(&[0x00, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]).sequence_start
        );
    }

    #[test]
    fn layers_come_from_the_obu_extension() {
        let found = inspect(&[0x10, FRAME_WITH_LAYERS, 0b0101_0000, 0]);
        assert_eq!((found.temporal_id, found.spatial_id), (Some(2), Some(2)));
        assert!(found.opens_frame);
    }
}
