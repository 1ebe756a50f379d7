//! Payload inspectors of every codec, and the VP8 descriptor's rewriting. The first byte chooses
//! codec and marker.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_rtp::codec::{vp8, vp9};
use sluice_rtp::{Codec, PayloadInfo};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, payload)) = input.split_first() else { return };
    let codec = Codec::ALL[usize::from(choice & 0x7F) % Codec::ALL.len()];
    let info = PayloadInfo::inspect(codec, payload, choice & 0x80 != 0);
    assert!(info.temporal_id.is_none_or(|id| id < 8));
    assert!(info.spatial_id.is_none_or(|id| id < 8));
    if let Some(descriptor) = info.vp8 {
        rewrite(descriptor, payload);
    }
    if codec == Codec::Vp9
        && let Some(descriptor) = vp9::Descriptor::parse(payload)
    {
        assert!(descriptor.len() < payload.len());
    }
});

fn rewrite(descriptor: vp8::Descriptor, payload: &[u8]) {
    assert!(descriptor.len() < payload.len());
    let indices = vp8::Indices { picture_id: 0x7ABC, tl0_pic_idx: 0xDE, key_idx: 0x15 };
    let mut out = [0; vp8::MAX_DESCRIPTOR_LEN];
    let len = descriptor.write(indices, &mut out);
    assert_eq!(len, descriptor.len());
    let mut packet = out[..len].to_vec();
    packet.extend_from_slice(&payload[len..]);
    let read = vp8::Descriptor::parse(&packet).expect("a rewritten descriptor");
    assert_eq!(read.temporal_id(), descriptor.temporal_id());
    assert_eq!(read.is_key_frame(&packet), descriptor.is_key_frame(payload));
    assert_eq!(read.tl0_pic_idx(), descriptor.tl0_pic_idx().map(|_| 0xDE));
    assert_eq!(read.key_idx(), descriptor.key_idx().map(|_| 0x15));
    let mask = if descriptor.picture_id_is_wide() { 0x7FFF } else { 0x7F };
    assert_eq!(read.picture_id(), descriptor.picture_id().map(|_| 0x7ABC & mask));
}
