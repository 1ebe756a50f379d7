//! Dependency descriptor: a stream of descriptors (each one byte of length, then data) with the
//! structure kept in between; each is rewritten with another mask, and written from its fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_rtp::dd::write::write;
use sluice_rtp::dd::{DependencyDescriptor, MAX_LEN, Mandatory, Structure, rewrite_active_targets};

fuzz_target!(|stream: &[u8]| {
    let mut structure: Option<Structure> = None;
    let mut rest = stream;
    while let Some((&len, tail)) = rest.split_first() {
        let Some((data, tail)) = tail.split_at_checked(usize::from(len)) else { return };
        rest = tail;
        Mandatory::parse(data);
        let Ok((descriptor, received)) = DependencyDescriptor::parse(data, structure.as_ref())
        else {
            continue;
        };
        let known = if descriptor.has_structure { None } else { structure.clone() };
        if received.is_some() {
            structure = received;
        }
        let used = structure.as_ref().expect("parsing needs a structure");
        for target in 0..32 {
            used.target_layers(target);
        }
        check_mask(data, &descriptor, used, known.as_ref());
        check_write(&descriptor, used, known.as_ref());
    }
});

fn check_mask(
    data: &[u8],
    descriptor: &DependencyDescriptor,
    used: &Structure,
    known: Option<&Structure>,
) {
    let mask = used.all_targets() & 0x5A5A_5A5A;
    let mut out = [0xFF; MAX_LEN + 8];
    let Ok(len) = rewrite_active_targets(data, descriptor, mask, &mut out) else { return };
    let (read, _) = DependencyDescriptor::parse(&out[..len], known).expect("a rewritten copy");
    assert_eq!(read.active_targets, Some(mask));
    same_frame(&read, descriptor);
}

fn check_write(descriptor: &DependencyDescriptor, used: &Structure, known: Option<&Structure>) {
    let mut out = [0xFF; MAX_LEN];
    let Ok(len) = write(descriptor, used, &mut out) else { return };
    let (read, received) = DependencyDescriptor::parse(&out[..len], known).expect("a written one");
    assert!(received.is_none_or(|received| received == *used));
    assert_eq!(read.active_targets, descriptor.active_targets);
    same_frame(&read, descriptor);
}

fn same_frame(a: &DependencyDescriptor, b: &DependencyDescriptor) {
    assert_eq!(a.mandatory, b.mandatory);
    assert_eq!((a.spatial_id, a.temporal_id), (b.spatial_id, b.temporal_id));
    assert_eq!(a.dtis, b.dtis);
    assert_eq!(a.frame_diffs, b.frame_diffs);
    assert_eq!(a.chain_diffs, b.chain_diffs);
}
