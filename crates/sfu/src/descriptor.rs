//! Dependency descriptors on their way through: read once where a packet arrives, with the template
//! structure that its stream's last key frame brought, and carried to every receiver.

use std::sync::Arc;

use sluice_rtp::dd::{DependencyDescriptor, MAX_TEMPLATES, Mandatory, Structure};

/// What the dependency descriptor of a packet says. Frames with the same dependencies share them.
#[derive(Debug, Clone)]
pub struct Described {
    /// Frame number, first and last packet.
    pub mandatory: Mandatory,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    structure: Arc<Structure>,
    /// Its `mandatory` is that of some frame with the same dependencies.
    frame: DependencyDescriptor,
}

impl Described {
    /// A frame of a structure.
    pub fn new(structure: Arc<Structure>, frame: DependencyDescriptor) -> Self {
        Self { mandatory: frame.mandatory, shared: Arc::new(Shared { structure, frame }) }
    }

    /// The structure that it refers to; the same `Arc` for all frames up to the next key frame.
    pub fn structure(&self) -> &Arc<Structure> {
        &self.shared.structure
    }

    /// The frame's layer and dependencies. Of its `mandatory` fields only the template is valid.
    pub fn frame(&self) -> &DependencyDescriptor {
        &self.shared.frame
    }

    /// Whether a descriptor differs from this one in its mandatory fields at most.
    fn is_like(&self, structure: &Arc<Structure>, frame: &DependencyDescriptor) -> bool {
        let mut known = self.shared.frame;
        known.mandatory = frame.mandatory;
        Arc::ptr_eq(&self.shared.structure, structure) && known == *frame
    }
}

/// The template structures of one received stream: the newest, and the one before for packets that
/// come late.
#[derive(Debug, Default)]
pub struct StructureTracker {
    current: Option<Known>,
    previous: Option<Known>,
}

#[derive(Debug)]
struct Known {
    structure: Arc<Structure>,
    /// Number of the key frame that brought it.
    since: u16,
    /// The last frame of each template, to be shared with the next one that is like it.
    recent: Vec<Option<Described>>,
}

impl StructureTracker {
    /// Reads the descriptor of a packet. Allocates only for a new structure and for dependencies
    /// that the template's last frame did not have. `None`: it is malformed, or the packet with its
    /// structure has not arrived.
    pub fn parse(&mut self, data: &[u8]) -> Option<Described> {
        let number = Mandatory::parse(data)?.frame_number;
        let known = self.known_at(number).map(|known| &known.structure);
        let (frame, received) =
            DependencyDescriptor::parse(data, known.map(|structure| &**structure)).ok()?;
        if let Some(structure) = received {
            self.keep(number, structure);
        }
        self.known_at(number).map(|known| known.describe(frame))
    }

    /// The stream started anew: structures of before do not hold.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The structure in force at a frame number.
    fn known_at(&mut self, number: u16) -> Option<&mut Known> {
        let is_late = is_before(number, self.current.as_ref()?.since);
        if is_late { self.previous.as_mut() } else { self.current.as_mut() }
    }

    /// Keeps a structure that a key frame brought; a copy of a known one is that one.
    fn keep(&mut self, number: u16, structure: Structure) {
        let known = [&self.current, &self.previous];
        let is_same = |k: &&Known| k.since == number && *k.structure == structure;
        if known.into_iter().flatten().any(|k| is_same(&k)) {
            return;
        }
        let known = Known { structure: Arc::new(structure), since: number, recent: Vec::new() };
        if self.current.as_ref().is_some_and(|current| is_before(number, current.since)) {
            self.previous = Some(known);
        } else {
            self.previous = self.current.replace(known);
        }
    }
}

impl Known {
    fn describe(&mut self, frame: DependencyDescriptor) -> Described {
        if self.recent.is_empty() {
            self.recent.resize(MAX_TEMPLATES, None);
        }
        let slot = &mut self.recent[usize::from(frame.mandatory.template_id) % MAX_TEMPLATES];
        match slot {
            Some(recent) if recent.is_like(&self.structure, &frame) => {
                Described { mandatory: frame.mandatory, ..recent.clone() }
            }
            _ => slot.insert(Described::new(self.structure.clone(), frame)).clone(),
        }
    }
}

fn is_before(number: u16, other: u16) -> bool {
    (number.wrapping_sub(other) as i16) < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svc::encoder::{Encoder, Mode};

    const MODE: Mode = Mode { spatial: 1, temporal: 3, key: false };

    #[test]
    fn frames_with_the_same_dependencies_share_them() {
        let mut encoder = Encoder::new(MODE, 65_530);
        let mut tracker = StructureTracker::default();
        let frames: Vec<_> = (0..33)
            .flat_map(|picture| encoder.picture(picture == 0, 2))
            .filter_map(|packet| tracker.parse(packet.descriptor()))
            .collect();
        assert_eq!(frames.len(), 66);
        let [.., before, _, _, _, _, _, _, _, last] = &frames[..] else { unreachable!() };
        assert!(Arc::ptr_eq(&before.shared, &last.shared), "one temporal period apart");
        assert_eq!(before.mandatory.frame_number.wrapping_add(4), last.mandatory.frame_number);
        assert!(last.mandatory.end_of_frame);
    }

    #[test]
    fn a_late_packet_is_read_with_the_structure_of_its_time() {
        let mut encoder = Encoder::new(MODE, 65_530);
        let mut tracker = StructureTracker::default();
        let mut packets: Vec<_> = (0..20).flat_map(|n| encoder.picture(n % 10 == 0, 1)).collect();
        let late = packets.remove(7);
        let frames: Vec<_> = packets.iter().filter_map(|p| tracker.parse(p.descriptor())).collect();
        let late = tracker.parse(late.descriptor()).expect("its structure is kept");
        assert!(Arc::ptr_eq(late.structure(), frames[0].structure()));
        let newest = frames.last().expect("not empty");
        assert!(!Arc::ptr_eq(late.structure(), newest.structure()));
    }

    #[test]
    fn nothing_is_understood_before_the_structure() {
        let mut encoder = Encoder::new(MODE, 0);
        let key = encoder.picture(true, 2);
        let mut tracker = StructureTracker::default();
        assert!(tracker.parse(key[1].descriptor()).is_none());
        assert!(tracker.parse(key[0].descriptor()).is_some());
        assert!(tracker.parse(key[1].descriptor()).is_some());
        tracker.reset();
        assert!(tracker.parse(key[1].descriptor()).is_none());
        assert!(tracker.parse(&[]).is_none());
    }
}
