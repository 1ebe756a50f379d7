use proptest::prelude::*;
use sluice_rtp::codec::vp8::{Descriptor, Indices};

use super::*;

/// A descriptor with all fields.
fn wide(picture_id: u16, tl0: u8, temporal: u8, key_idx: u8) -> Descriptor {
    let id = picture_id & 0x7FFF;
    let bytes =
        [0x90, 0xF0, 0x80 | (id >> 8) as u8, id as u8, tl0, temporal << 6 | (key_idx & 0x1F), 1];
    Descriptor::parse(&bytes).expect("complete")
}

fn narrow(picture_id: u16) -> Descriptor {
    Descriptor::parse(&[0x90, 0x80, picture_id as u8 & 0x7F, 1]).expect("complete")
}

fn id(indices: Option<Indices>) -> Option<u16> {
    indices.map(|i| i.picture_id)
}

fn started(first: &Descriptor) -> Vp8Munger {
    let mut munger = Vp8Munger::default();
    munger.start(first);
    munger
}

#[test]
fn the_first_source_keeps_its_indices() {
    let first = wide(32_767, 255, 0, 31);
    let mut munger = started(&first);
    let out = munger.map(&first, true);
    assert_eq!(out, Some(Indices { picture_id: 32_767, tl0_pic_idx: 255, key_idx: 31 }));
    assert_eq!(id(munger.map(&wide(0, 0, 0, 31), true)), Some(0));
}

#[test]
fn all_packets_of_a_picture_share_its_id() {
    let mut munger = started(&wide(10, 0, 0, 0));
    for _ in 0..5 {
        assert_eq!(id(munger.map(&wide(10, 0, 0, 0), true)), Some(10));
    }
}

#[test]
fn dropped_pictures_leave_no_gap_and_lost_ones_do() {
    let mut munger = started(&wide(10, 0, 0, 0));
    assert_eq!(id(munger.map(&wide(10, 0, 0, 0), true)), Some(10));
    assert_eq!(munger.map(&wide(11, 0, 2, 0), false), None);
    assert_eq!(id(munger.map(&wide(12, 0, 1, 0), true)), Some(11));
    assert_eq!(id(munger.map(&wide(15, 1, 0, 0), true)), Some(14));
}

#[test]
fn late_packets_share_the_fate_of_their_picture() {
    let mut munger = started(&wide(10, 0, 0, 0));
    munger.map(&wide(10, 0, 0, 0), true);
    munger.map(&wide(11, 0, 2, 0), false);
    munger.map(&wide(14, 0, 1, 0), true); // 12 and 13 have not come
    munger.map(&wide(15, 0, 2, 0), false);
    munger.map(&wide(16, 1, 0, 0), true);
    assert_eq!(munger.map(&wide(11, 0, 2, 0), true), None);
    assert_eq!(id(munger.map(&wide(10, 0, 0, 0), true)), Some(10));
    assert_eq!(id(munger.map(&wide(14, 0, 1, 0), false)), Some(13));
    assert_eq!(id(munger.map(&wide(13, 0, 1, 0), true)), Some(12));
    assert_eq!(munger.map(&wide(12, 0, 2, 0), false), None);
    assert_eq!(munger.map(&wide(12, 0, 2, 0), true), None);
}

#[test]
fn a_switch_moves_each_index_on_by_one() {
    let mut munger = started(&wide(100, 7, 0, 3));
    munger.map(&wide(100, 7, 0, 3), true);
    munger.map(&wide(101, 7, 1, 3), true);
    let first = wide(9_000, 200, 0, 30);
    munger.start(&first);
    let out = munger.map(&first, true);
    assert_eq!(out, Some(Indices { picture_id: 102, tl0_pic_idx: 8, key_idx: 4 }));
    let next = munger.map(&wide(9_001, 201, 0, 30), true);
    assert_eq!(next, Some(Indices { picture_id: 103, tl0_pic_idx: 9, key_idx: 4 }));
    // The old source's late packets belong nowhere.
    assert_eq!(munger.map(&wide(101, 7, 1, 3), true), None);
}

#[test]
fn a_switch_over_the_wrap_of_every_index() {
    let mut munger = started(&wide(32_767, 255, 0, 31));
    munger.map(&wide(32_767, 255, 0, 31), true);
    let first = wide(5, 5, 0, 5);
    munger.start(&first);
    let out = munger.map(&first, true);
    assert_eq!(out, Some(Indices { picture_id: 0, tl0_pic_idx: 0, key_idx: 0 }));
}

#[test]
fn narrow_ids_wrap_at_128_and_keep_going() {
    let mut munger = started(&narrow(120));
    let mut expected = 120;
    for i in 0..1_000u16 {
        let keep = i % 3 != 2;
        let out = munger.map(&narrow(120 + i), keep);
        assert_eq!(id(out), keep.then_some(expected % 128));
        expected += u16::from(keep);
    }
}

#[test]
fn an_encoder_that_widens_its_ids_continues() {
    let mut munger = started(&narrow(126));
    munger.map(&narrow(126), true);
    assert_eq!(id(munger.map(&wide(128, 0, 0, 0), true)), Some(127));
    assert_eq!(id(munger.map(&wide(129, 0, 0, 0), true)), Some(128));
}

#[test]
fn descriptors_without_a_picture_id_pass() {
    let plain = Descriptor::parse(&[0x10, 1]).expect("complete");
    let mut munger = started(&plain);
    assert!(munger.map(&plain, true).is_some());
    assert!(munger.map(&plain, false).is_none());
}

#[test]
fn pictures_of_long_ago_are_dropped() {
    let mut munger = started(&wide(100, 0, 0, 0));
    for i in 0..200 {
        munger.map(&wide(100 + i, 0, 0, 0), true);
    }
    assert_eq!(munger.map(&wide(101, 0, 0, 0), true), None);
}

proptest! {
    /// Two packets per picture, some pictures dropped, some lost, some late, over the wrap.
    #[test]
    fn gaps_are_those_of_the_network(
        start: u16,
        fates in prop::collection::vec((0u8..8, 1usize..20), 1..300),
    ) {
        let first = wide(start, 0, 0, 0);
        let mut munger = started(&first);
        munger.map(&first, true);
        // (when, source, kept)
        let mut arrivals = Vec::new();
        for (i, (fate, delay)) in fates.iter().enumerate() {
            let source = i as u64 + 1;
            match fate {
                0..=3 => arrivals.push((i, source, true)),
                4 | 5 => arrivals.push((i, source, false)),
                6 => arrivals.push((i + delay, source, true)),
                _ => {}
            }
        }
        arrivals.sort_unstable();
        let mut newest = 0;
        let mut closed = Vec::new();
        for (_, source, keep) in arrivals {
            let descriptor = wide(start.wrapping_add(source as u16), 0, 0, 0);
            if !keep && source > newest {
                closed.push(source);
            }
            newest = newest.max(source);
            let before = closed.iter().filter(|c| **c < source).count() as u64;
            let expected = (u64::from(start & 0x7FFF) + source - before) % 32_768;
            for _ in 0..2 {
                let out = id(munger.map(&descriptor, keep));
                prop_assert_eq!(out, keep.then_some(expected as u16));
            }
        }
    }

    #[test]
    fn any_order_of_calls_is_survived(
        calls in prop::collection::vec((any::<u16>(), any::<u8>(), 0u8..4, any::<bool>()), 1..300),
    ) {
        let mut munger = Vp8Munger::default();
        for (picture, tl0, kind, wanted) in calls {
            let descriptor =
                if kind == 1 { narrow(picture) } else { wide(picture, tl0, kind & 3, tl0) };
            if kind == 0 {
                munger.start(&descriptor);
            }
            if let Some(out) = munger.map(&descriptor, wanted) {
                prop_assert!(out.picture_id < 1 << 15 && out.key_idx < 32);
            }
        }
    }
}
