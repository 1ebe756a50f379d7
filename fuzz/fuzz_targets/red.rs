//! Redundant audio: block headers and lengths; the blocks are written again and must read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_rtp::codec::red::{self, RedView};

fuzz_target!(|payload: &[u8]| {
    let Ok(view) = RedView::parse(payload) else {
        assert!(red::primary(payload).is_none());
        return;
    };
    let blocks: Vec<_> = view.blocks().collect();
    let (primary, redundant) = blocks.split_last().expect("a primary block");
    assert!(primary.primary && redundant.iter().all(|block| !block.primary));
    assert_eq!(view.primary(), *primary);
    let mut out = vec![0; payload.len()];
    let len = red::write(redundant, *primary, &mut out).expect("blocks that were read");
    assert_eq!(out[..len], *payload);
});
