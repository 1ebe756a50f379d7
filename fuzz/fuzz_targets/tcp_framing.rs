//! RFC 4571 frames: however a stream is cut, the same frames come out, and memory stays bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_net::FrameDecoder;

/// Longest frame of the decoder under test, bytes.
const LIMIT: usize = 2_000;

/// Frames until the stream ends or is out of step.
fn decode(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = FrameDecoder::new(LIMIT);
    let mut frames = Vec::new();
    for bytes in stream.chunks(piece) {
        decoder.extend(bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
        assert!(decoder.spare().len() <= LIMIT + 3 * 4_096);
    }
    (frames, true)
}

fuzz_target!(|input: &[u8]| {
    let Some((&piece, stream)) = input.split_first() else { return };
    let whole = decode(stream, stream.len().clamp(1, 4_096));
    assert_eq!(decode(stream, usize::from(piece).max(1)), whole);
    assert!(whole.0.iter().all(|frame| (1..=LIMIT).contains(&frame.len())));
});
