//! RFC 4571 framing: each packet on a TCP stream follows its length in 16 bits, big endian.

/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 2;

/// Bytes asked of the stream in one read.
const READ_CHUNK: usize = 4096;

/// A frame that the decoder refuses; the stream is out of step and must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes exceeds the limit of {limit}")]
pub struct FrameError {
    /// Announced length, bytes.
    pub len: usize,
    /// Limit, bytes.
    pub limit: usize,
}

/// Incremental decoder of one stream. Holds at most one frame of the limit and one read.
#[derive(Debug)]
pub struct FrameDecoder {
    buf: Vec<u8>,
    /// First byte not yet returned.
    start: usize,
    /// One past the last byte received.
    end: usize,
    limit: usize,
}

impl FrameDecoder {
    /// A decoder that refuses frames above `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buf: Vec::new(), start: 0, end: 0, limit }
    }

    /// Room for the next read; report what was read with [`filled`](Self::filled).
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.buf.len() - self.end < READ_CHUNK {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buf.len() - self.end < READ_CHUNK {
            self.buf.resize(self.end + READ_CHUNK, 0);
        }
        &mut self.buf[self.end..]
    }

    /// Takes the first `len` bytes of the spare room as received.
    pub fn filled(&mut self, len: usize) {
        self.end = (self.end + len).min(self.buf.len());
    }

    /// Appends received bytes.
    pub fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.spare();
            let len = bytes.len().min(spare.len());
            spare[..len].copy_from_slice(&bytes[..len]);
            self.filled(len);
            bytes = &bytes[len..];
        }
    }

    /// The next whole frame that is not empty; `None` wants more bytes.
    ///
    /// # Errors
    /// The peer announced a frame above the limit.
    pub fn next_frame(&mut self) -> Result<Option<&mut [u8]>, FrameError> {
        loop {
            let Some(&[high, low]) = self.buf[self.start..self.end].first_chunk() else {
                return Ok(None);
            };
            let len = usize::from(u16::from_be_bytes([high, low]));
            if len > self.limit {
                return Err(FrameError { len, limit: self.limit });
            }
            let from = self.start + LENGTH_BYTES;
            if self.end - from < len {
                return Ok(None);
            }
            self.start = from + len;
            // Null packets keep a connection alive (RFC 4571 §2).
            if len > 0 {
                return Ok(Some(&mut self.buf[from..from + len]));
            }
        }
    }
}

/// Appends one frame. Returns false, and appends nothing, when it is too long for its length field.
pub fn encode_frame(packet: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(len) = u16::try_from(packet.len()) else { return false };
    out.reserve(LENGTH_BYTES + packet.len());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(packet);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_of(frames: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            assert!(encode_frame(frame, &mut out));
        }
        out
    }

    fn decode_in_pieces(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut decoder = FrameDecoder::new(2000);
        let mut frames = Vec::new();
        for bytes in stream.chunks(piece) {
            decoder.extend(bytes);
            while let Some(frame) = decoder.next_frame().expect("frames are short") {
                frames.push(frame.to_vec());
            }
        }
        frames
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_was_cut() {
        let frames: Vec<Vec<u8>> = (0..200usize).map(|i| vec![i as u8; 1 + i * 9]).collect();
        let stream = stream_of(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for piece in [1, 2, 3, 7, 1000, 4096, stream.len()] {
            assert_eq!(decode_in_pieces(&stream, piece), frames, "pieces of {piece}");
        }
    }

    #[test]
    fn null_frames_are_skipped() {
        let stream = stream_of(&[b"", b"a", b"", b"", b"b"]);
        assert_eq!(decode_in_pieces(&stream, 3), [b"a", b"b"]);
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_it_is_buffered() {
        let mut decoder = FrameDecoder::new(100);
        decoder.extend(&101u16.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError { len: 101, limit: 100 }));
    }

    #[test]
    fn memory_stays_within_a_frame_and_a_read() {
        let mut decoder = FrameDecoder::new(1500);
        let stream = stream_of(&[&[7; 1500]]);
        for _ in 0..1000 {
            for bytes in stream.chunks(333) {
                decoder.extend(bytes);
            }
            assert!(decoder.next_frame().expect("short").is_some());
        }
        assert!(decoder.buf.len() <= 1500 + 2 * READ_CHUNK);
    }
}
