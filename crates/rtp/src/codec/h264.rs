//! H.264 payloads (RFC 6184): which NAL units a packet carries or starts.
//!
//! With end-to-end encryption NAL unit headers stay clear in LiveKit's clients for the first bytes
//! of a frame only; the answers are then hints.

use super::PayloadInfo;

const NAL_SLICE: u8 = 1;
const NAL_IDR: u8 = 5;
const NAL_SEI: u8 = 6;
const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;
const NAL_AUD: u8 = 9;
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const MTAP16: u8 = 26;
const MTAP24: u8 = 27;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// S bit of a fragmentation unit header (RFC 6184 §5.8).
const FU_START: u8 = 0x80;

/// What the NAL units of one packet say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inspected {
    /// A sequence parameter set is inside.
    pub sps: bool,
    /// An IDR slice is inside or starts here.
    pub idr: bool,
    /// The packet begins with a unit that opens an access unit: delimiter, parameter set, SEI, or a
    /// slice whose first macroblock is 0.
    pub opens_access_unit: bool,
    /// All units have `nal_ref_idc` 0.
    pub non_reference: bool,
}

impl Inspected {
    pub(super) fn info(self, marker: bool) -> PayloadInfo {
        PayloadInfo {
            key_frame: self.sps || self.idr,
            start_of_frame: self.opens_access_unit,
            end_of_frame: marker,
            discardable: self.non_reference,
            parameter_sets: self.sps,
            ..PayloadInfo::default()
        }
    }

    /// Adds a NAL unit: its header byte, and what follows it.
    fn add(&mut self, first_unit: bool, header: u8, rest: &[u8]) {
        let kind = header & 0x1F;
        self.sps |= kind == NAL_SPS;
        self.idr |= kind == NAL_IDR;
        let non_reference = header & 0x60 == 0;
        self.non_reference = non_reference && (first_unit || self.non_reference);
        if first_unit {
            self.opens_access_unit = match kind {
                NAL_SEI | NAL_SPS | NAL_PPS | NAL_AUD => true,
                // first_mb_in_slice = 0 is the one-bit Exp-Golomb code `1` (H.264 §7.3.3).
                NAL_SLICE | NAL_IDR => rest.first().is_some_and(|byte| byte & 0x80 != 0),
                _ => false,
            };
        }
    }
}

/// Looks at every NAL unit that begins in a payload.
pub fn inspect(payload: &[u8]) -> Inspected {
    let mut found = Inspected::default();
    let Some((&header, rest)) = payload.split_first() else { return found };
    match header & 0x1F {
        1..=23 => found.add(true, header, rest),
        STAP_A => aggregated(&mut found, rest, 0),
        STAP_B => aggregated(&mut found, rest.get(2..).unwrap_or_default(), 0),
        MTAP16 => aggregated(&mut found, rest.get(2..).unwrap_or_default(), 3),
        MTAP24 => aggregated(&mut found, rest.get(2..).unwrap_or_default(), 4),
        kind @ (FU_A | FU_B) => {
            if let Some((&fu_header, fragment)) = rest.split_first()
                && fu_header & FU_START != 0
            {
                let fragment =
                    if kind == FU_B { fragment.get(2..).unwrap_or_default() } else { fragment };
                found.add(true, (header & 0x60) | (fu_header & 0x1F), fragment);
            } else {
                found.non_reference = header & 0x60 == 0;
            }
        }
        _ => {}
    }
    found
}

/// Walks units with a 16-bit size and `skip` bytes of DON and timestamp before each (RFC 6184
/// §5.7). Stops at the first one that is cut.
fn aggregated(found: &mut Inspected, mut rest: &[u8], skip: usize) {
    let mut first = true;
    while let Some((size, tail)) = rest.split_first_chunk::<2>() {
        // The size of an MTAP unit counts the NAL unit only.
        let end = skip + usize::from(u16::from_be_bytes(*size));
        let Some((&header, body)) = tail.get(skip..end).and_then(<[u8]>::split_first) else {
            return;
        };
        found.add(first, header, body);
        first = false;
        rest = &tail[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_units() {
        assert!(inspect(&[0x67, 0x42]).sps);
        assert!(inspect(&[0x65, 0x88]).idr);
        assert!(inspect(&[0x65, 0x88]).opens_access_unit);
        assert!(!inspect(&[0x65, 0x40]).opens_access_unit);
        let delta = inspect(&[0x41, 0x9A]);
        assert!(!delta.sps && !delta.idr && !delta.non_reference && delta.opens_access_unit);
        assert!(inspect(&[0x01, 0x9A]).non_reference);
    }

    #[test]
    fn stap_a_with_parameter_sets_and_idr() {
        let payload = [0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xCE, 0, 2, 0x65, 0x88];
        let found = inspect(&payload);
        assert!(found.sps && found.idr && found.opens_access_unit && !found.non_reference);
    }

    #[test]
    fn cut_stap_a_answers_for_the_whole_units() {
        let found = inspect(&[0x78, 0, 2, 0x67, 0x42, 0, 9, 0x65]);
        assert!(found.sps && !found.idr);
        assert_eq!(inspect(&[0x78, 0, 0]), Inspected::default());
        assert_eq!(inspect(&[0x78]), Inspected::default());
    }

    #[test]
    fn only_the_first_fragment_starts_a_key_frame() {
        assert!(inspect(&[0x7C, 0x85, 0x88]).idr);
        assert!(inspect(&[0x7C, 0x87, 0x42]).sps);
        assert!(!inspect(&[0x7C, 0x05, 0x88]).idr);
        assert!(!inspect(&[0x7C, 0x45, 0x88]).idr);
        assert!(!inspect(&[0x7C]).idr);
        assert!(inspect(&[0x1C, 0x01, 0x88]).non_reference);
    }

    #[test]
    fn interleaved_forms_are_walked() {
        // STAP-B: DON, then units. MTAP16: DON base, then size, DOND, 16-bit offset, unit.
        assert!(inspect(&[0x79, 0, 1, 0, 2, 0x67, 0x42]).sps);
        assert!(inspect(&[0x7A, 0, 1, 0, 2, 0, 0, 0, 0x65, 0x88]).idr);
        assert!(inspect(&[0x7B, 0, 1, 0, 2, 0, 0, 0, 0, 0x65, 0x88]).idr);
    }
}
