//! H.265 payloads (RFC 7798) without interleaving (`sprop-max-don-diff=0`, as WebRTC uses it):
//! which NAL units a packet carries or starts.

use super::PayloadInfo;

/// First and last type of the IRAP range, in which a picture can be decoded on its own (H.265
/// table 7-1); the upper two are reserved.
const NAL_IRAP: std::ops::RangeInclusive<u8> = 16..=23;
const NAL_VPS: u8 = 32;
const NAL_SPS: u8 = 33;
const NAL_PPS: u8 = 34;
const NAL_AUD: u8 = 35;
const NAL_PREFIX_SEI: u8 = 39;
/// Last type of video coding layer units.
const NAL_VCL_MAX: u8 = 31;
/// Sub-layer non-reference pictures have even types up to this one (H.265 §7.4.2.2).
const NAL_RSV_VCL_N14: u8 = 14;
const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;
const PACI: u8 = 50;

/// S bit of a fragmentation unit header (RFC 7798 §4.4.3).
const FU_START: u8 = 0x80;

/// What the NAL units of one packet say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inspected {
    /// A video or sequence parameter set is inside.
    pub parameter_sets: bool,
    /// A slice of an IRAP picture is inside or starts here.
    pub irap: bool,
    /// The packet begins with a unit that opens an access unit: delimiter, parameter set, SEI, or
    /// the first slice segment of a picture.
    pub opens_access_unit: bool,
    /// The packet carries only pictures that no picture of the same temporal layer refers to;
    /// higher layers may.
    pub non_reference: bool,
    /// Temporal layer, 0..=6.
    pub temporal_id: Option<u8>,
    /// `nuh_layer_id`, 0..=63.
    pub layer_id: Option<u8>,
}

impl Inspected {
    pub(super) fn info(self, marker: bool) -> PayloadInfo {
        PayloadInfo {
            key_frame: self.parameter_sets || self.irap,
            start_of_frame: self.opens_access_unit,
            end_of_frame: marker,
            temporal_id: self.temporal_id,
            parameter_sets: self.parameter_sets,
            ..PayloadInfo::default()
        }
    }

    /// Adds a NAL unit: its type, and what follows its header.
    fn add(&mut self, first_unit: bool, kind: u8, rest: &[u8]) {
        self.parameter_sets |= matches!(kind, NAL_VPS | NAL_SPS);
        self.irap |= NAL_IRAP.contains(&kind);
        let non_reference = kind <= NAL_RSV_VCL_N14 && kind.is_multiple_of(2);
        self.non_reference = non_reference && (first_unit || self.non_reference);
        if first_unit {
            self.opens_access_unit = match kind {
                NAL_VPS | NAL_SPS | NAL_PPS | NAL_AUD | NAL_PREFIX_SEI => true,
                // first_slice_segment_in_pic_flag is the first bit (H.265 §7.3.6.1).
                0..=NAL_VCL_MAX => rest.first().is_some_and(|byte| byte & 0x80 != 0),
                _ => false,
            };
        }
    }
}

/// Type field of the first header byte.
fn nal_type(first: u8) -> u8 {
    (first >> 1) & 0x3F
}

/// Looks at every NAL unit that begins in a payload.
pub fn inspect(payload: &[u8]) -> Inspected {
    let mut found = Inspected::default();
    let Some((&[first, second], rest)) = payload.split_first_chunk::<2>() else { return found };
    // nuh_temporal_id_plus1 = 0 is forbidden.
    found.temporal_id = (second & 0x07).checked_sub(1);
    found.layer_id = Some(((first & 1) << 5) | (second >> 3));
    match nal_type(first) {
        AGGREGATION => aggregated(&mut found, rest),
        FRAGMENTATION => {
            if let Some((&fu_header, fragment)) = rest.split_first() {
                let kind = fu_header & 0x3F;
                if fu_header & FU_START != 0 {
                    found.add(true, kind, fragment);
                } else {
                    found.non_reference = kind <= NAL_RSV_VCL_N14 && kind.is_multiple_of(2);
                }
            }
        }
        PACI => {}
        kind => found.add(true, kind, rest),
    }
    found
}

/// Walks units with a 16-bit size (RFC 7798 §4.4.2). Stops at the first one that is cut.
fn aggregated(found: &mut Inspected, mut rest: &[u8]) {
    let mut first_unit = true;
    while let Some((size, tail)) = rest.split_first_chunk::<2>() {
        let size = usize::from(u16::from_be_bytes(*size));
        let Some((unit, next)) = tail.split_at_checked(size) else { return };
        let Some((&[first, _], body)) = unit.split_first_chunk::<2>() else { return };
        found.add(first_unit, nal_type(first), body);
        first_unit = false;
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VPS: u8 = 32 << 1;
    const SPS: u8 = 33 << 1;
    const IDR_W_RADL: u8 = 19 << 1;
    const TRAIL_R: u8 = 1 << 1;
    const TRAIL_N: u8 = 0;

    #[test]
    fn single_units() {
        assert!(inspect(&[VPS, 1, 0]).parameter_sets);
        assert!(inspect(&[SPS, 1, 0]).parameter_sets);
        let idr = inspect(&[IDR_W_RADL, 1, 0x80]);
        assert!(idr.irap && idr.opens_access_unit && !idr.parameter_sets);
        let delta = inspect(&[TRAIL_R, 3, 0x00]);
        assert!(!delta.irap && !delta.opens_access_unit && !delta.non_reference);
        assert_eq!((delta.temporal_id, delta.layer_id), (Some(2), Some(0)));
        assert!(inspect(&[TRAIL_N, 2, 0x80]).non_reference);
    }

    #[test]
    fn aggregation_packet_with_parameter_sets_and_idr() {
        let payload = [48 << 1, 1, 0, 3, VPS, 1, 0, 0, 3, SPS, 1, 0, 0, 3, IDR_W_RADL, 1, 0x80];
        let found = inspect(&payload);
        assert!(found.parameter_sets && found.irap && found.opens_access_unit);
        assert!(!inspect(&payload[..14]).irap);
    }

    #[test]
    fn only_the_first_fragment_starts_a_key_frame() {
        assert!(inspect(&[49 << 1, 1, 0x80 | 19, 0x80]).irap);
        assert!(!inspect(&[49 << 1, 1, 19, 0x80]).irap);
        assert!(!inspect(&[49 << 1, 1]).irap);
    }

    #[test]
    fn forbidden_temporal_id_is_not_a_layer() {
        assert_eq!(inspect(&[TRAIL_R, 0, 0]).temporal_id, None);
    }
}
