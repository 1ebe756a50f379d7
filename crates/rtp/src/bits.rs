//! Bit-wise reading and writing, most significant bit first.

/// Reads bits from a slice.
#[derive(Debug, Clone)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// A reader at the first bit.
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Position, bits from the start.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The next `count` bits, at most 32. `None` if fewer are left; the position then stays.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32, "one read is at most 32 bits");
        let end = self.at + count as usize;
        if end > self.data.len() * 8 {
            return None;
        }
        let mut value = 0u64;
        let last = end.div_ceil(8);
        for byte in self.data.get(self.at / 8..last)? {
            value = (value << 8) | u64::from(*byte);
        }
        self.at = end;
        Some(((value >> (last * 8 - end)) & ((1 << count) - 1)) as u32)
    }

    /// The next bit.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        self.bits(1).map(|bit| bit != 0)
    }

    /// A non-symmetric value below `range`, `range` >= 1 (AV1 specification §4.10.7, `ns(n)`).
    pub(crate) fn non_symmetric(&mut self, range: u32) -> Option<u32> {
        let width = u32::BITS - range.leading_zeros();
        let short_values = (1u64 << width) as u32 - range;
        let value = self.bits(width - 1)?;
        if value < short_values {
            return Some(value);
        }
        Some((value << 1) - short_values + self.bits(1)?)
    }
}

/// Writes bits into a slice. Writing past its end is remembered, not done.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    overflow: bool,
}

impl<'a> BitWriter<'a> {
    /// A writer at the first bit.
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0, overflow: false }
    }

    /// Appends the low `count` bits of `value`, at most 32.
    pub(crate) fn bits(&mut self, value: u32, count: u32) {
        for shift in (0..count).rev() {
            let bit = (value >> shift) as u8 & 1;
            let (index, offset) = (self.at / 8, self.at % 8);
            let Some(byte) = self.out.get_mut(index) else {
                self.overflow = true;
                return;
            };
            if offset == 0 {
                *byte = 0;
            }
            *byte |= bit << (7 - offset);
            self.at += 1;
        }
    }

    /// Appends one bit.
    pub(crate) fn flag(&mut self, value: bool) {
        self.bits(u32::from(value), 1);
    }

    /// Appends a non-symmetric value below `range`; see [`BitReader::non_symmetric`].
    pub(crate) fn non_symmetric(&mut self, value: u32, range: u32) {
        let width = u32::BITS - range.leading_zeros();
        let short_values = (1u64 << width) as u32 - range;
        if value < short_values {
            self.bits(value, width - 1);
        } else {
            self.bits(value + short_values, width);
        }
    }

    /// Appends the bits `from..to` of `source`. Bits beyond `source` count as an overflow.
    pub(crate) fn copy(&mut self, source: &[u8], from: usize, to: usize) {
        let mut reader = BitReader { data: source, at: from };
        while reader.at < to {
            let count = (to - reader.at).min(8) as u32;
            match reader.bits(count) {
                Some(value) => self.bits(value, count),
                None => {
                    self.overflow = true;
                    return;
                }
            }
        }
    }

    /// Length in bytes, the last one filled up with zero bits. `None` if something did not fit.
    pub(crate) fn finish(self) -> Option<usize> {
        (!self.overflow).then_some(self.at.div_ceil(8))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_are_read_across_bytes() {
        let mut reader = BitReader::new(&[0b1010_1100, 0b0101_0011, 0xFF, 0, 0xAA]);
        assert_eq!(reader.bits(3), Some(0b101));
        assert_eq!(reader.bits(7), Some(0b011_0001));
        assert_eq!(reader.bits(0), Some(0));
        assert_eq!(reader.bits(30), Some(0b01_0011_1111_1111_0000_0000_1010_1010));
        assert_eq!(reader.flag(), None);
    }

    #[test]
    fn non_symmetric_values_of_the_av1_specification() {
        // n = 5: 0 -> 00, 1 -> 01, 2 -> 10, 3 -> 110, 4 -> 111.
        for (value, bits) in [(0, 0x00), (1, 0x40), (2, 0x80), (3, 0xC0), (4, 0xE0)] {
            assert_eq!(BitReader::new(&[bits]).non_symmetric(5), Some(value));
        }
        assert_eq!(BitReader::new(&[]).non_symmetric(1), Some(0));
    }

    proptest! {
        #[test]
        fn written_values_are_read_back(
            values in prop::collection::vec((any::<u32>(), 0u32..=32), 0..20),
            range in 1u32..1_000, choice in any::<u32>(),
        ) {
            let mut out = [0xFF; 96];
            let mut writer = BitWriter::new(&mut out);
            writer.non_symmetric(choice % range, range);
            for (value, count) in &values {
                writer.bits(*value, *count);
            }
            let len = writer.finish().unwrap();
            let mut reader = BitReader::new(&out[..len]);
            prop_assert_eq!(reader.non_symmetric(range), Some(choice % range));
            for (value, count) in &values {
                let masked = (u64::from(*value) & ((1u64 << count) - 1)) as u32;
                prop_assert_eq!(reader.bits(*count), Some(masked));
            }
        }
    }
}
