//! What holds for any sequence of wishes, losses and damage.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    Want(u8, u8),
    Key,
    /// Highest spatial layer of the publisher.
    Limit(u8),
    Nothing,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0u8..3, 0u8..4).prop_map(|(s, t)| Event::Want(s, t)),
        1 => Just(Event::Key),
        1 => (0u8..3).prop_map(Event::Limit),
        20 => Just(Event::Nothing),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    (1u8..=3, 1u8..=3, any::<bool>()).prop_map(|(spatial, temporal, key)| Mode {
        spatial,
        temporal,
        key,
    })
}

fn apply(scene: &mut Scene, event: Event) {
    match event {
        Event::Want(s, t) => scene.want(settings(s, t)),
        Event::Key => scene.key_wanted = true,
        Event::Limit(s) => {
            scene.encoder.limit_spatial(s.min(scene.encoder.mode.spatial - 1));
            scene.key_wanted = true;
        }
        Event::Nothing => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn over_a_perfect_network_every_frame_can_be_decoded_and_no_number_is_missing(
        mode in mode(),
        events in prop::collection::vec(event(), 1..150),
    ) {
        let mut scene = Scene::new(mode, settings(2, 3));
        for event in events {
            apply(&mut scene, event);
            scene.run(1);
        }
        prop_assert_eq!(scene.undecodable(), Vec::<u64>::new());
        scene.assert_contiguous();
        for (frame, got) in &scene.got {
            prop_assert_eq!(got.packets, 2, "frame {} is torn", frame);
        }
        for (frame, mask) in &scene.masks {
            prop_assert!(*mask != 0 && *mask < 1 << (mode.spatial * mode.temporal), "{}", frame);
        }
    }

    #[test]
    fn with_loss_and_reordering_no_frame_is_sent_whose_references_were_dropped(
        mode in mode(),
        events in prop::collection::vec(event(), 1..100),
        // Per packet: lost for good, late by so many pictures, or in time.
        fates in prop::collection::vec(prop_oneof![1 => Just(None), 2 => (1u32..4).prop_map(Some), 20 => Just(Some(0))], 64),
    ) {
        let mut scene = Scene::new(mode, settings(2, 3));
        let mut late: Vec<(u32, WirePacket)> = Vec::new();
        let mut used = BTreeSet::new();
        let mut counter = 0;
        for event in events {
            apply(&mut scene, event);
            let packets = scene.encode();
            let now = scene.picture;
            let due: Vec<_> = late.extract_if(.., |(at, _)| *at <= now).map(|(_, p)| p).collect();
            for packet in due {
                if let Some(sent) = scene.deliver(&packet) {
                    prop_assert!(used.insert(scene.targets.last().copied()), "{}", sent.seq);
                }
            }
            for packet in packets {
                counter += 1;
                match fates[counter % fates.len()] {
                    None => {}
                    Some(0) => {
                        if let Some(sent) = scene.deliver(&packet) {
                            prop_assert!(used.insert(scene.targets.last().copied()), "{}", sent.seq);
                        }
                    }
                    Some(by) => late.push((now + by, packet)),
                }
            }
        }
        prop_assert_eq!(scene.undecodable(), Vec::<u64>::new());
    }

    #[test]
    fn hostile_descriptors_harm_nothing(
        mode in mode(),
        events in prop::collection::vec(event(), 1..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0usize..64, 1u8..), 0..60),
    ) {
        let mut scene = Scene::new(mode, settings(2, 3));
        for (index, event) in events.iter().enumerate() {
            apply(&mut scene, *event);
            let mut packets = scene.encode();
            for (which, at, by) in damage.iter().filter(|(w, ..)| w.index(events.len()) == index) {
                let len = packets.len();
                packets[at % len].corrupt(which.index(64), *by);
            }
            packets.iter().for_each(|packet| {
                scene.deliver(packet);
            });
        }
        let numbers: BTreeSet<u64> = scene.targets.iter().copied().collect();
        prop_assert_eq!(numbers.len(), scene.targets.len());
    }
}
