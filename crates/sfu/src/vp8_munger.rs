//! The running indices of VP8 towards one receiver (RFC 7741 §4.2): picture id, TL0PICIDX and
//! KEYIDX stay continuous when layers are switched and temporal layers dropped. A gap that the
//! network made stays, since receivers read it as loss.
//!
//! A decision about a picture holds for all of its packets, also for those that come late: the
//! recent pictures are remembered with their offset and their fate.

use sluice_rtp::codec::vp8::{Descriptor, Indices};

use crate::sent_log::PayloadRewrite;

/// Pictures remembered: two seconds at 30 per second.
const REMEMBERED: usize = 64;

/// Numbers of a picture id of 15 bits, and of 7.
const WIDE_RANGE: u32 = 1 << 15;
const NARROW_RANGE: u32 = 1 << 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// No packet has arrived.
    Missing,
    Forwarded,
    Dropped,
}

#[derive(Debug, Clone, Copy)]
struct Picture {
    /// Unwrapped id in the source.
    id: u32,
    /// Id towards the receiver.
    target: u16,
    fate: Fate,
}

/// Maps the indices of one source stream at a time.
#[derive(Debug)]
pub struct Vp8Munger {
    /// `target = source - offset`, wrapping, on unwrapped ids.
    offset: u32,
    /// Newest source picture id, unwrapped.
    newest: u32,
    wide: bool,
    tl0_offset: u8,
    key_offset: u8,
    /// Newest target TL0PICIDX and KEYIDX.
    tl0: u8,
    key: u8,
    started: bool,
    /// Takes memory with the first picture.
    pictures: Option<Box<[Option<Picture>; REMEMBERED]>>,
}

impl Default for Vp8Munger {
    fn default() -> Self {
        Self {
            offset: 0,
            newest: 0,
            wide: true,
            tl0_offset: 0,
            key_offset: 0,
            tl0: 0,
            key: 0,
            started: false,
            pictures: None,
        }
    }
}

impl Vp8Munger {
    /// Continues with another source, whose first packet has this descriptor: all three indices
    /// move on by one. The first source of all keeps its own.
    pub fn start(&mut self, first: &Descriptor) {
        let next_picture = (self.newest + 1).wrapping_sub(self.offset);
        // A lap up, so that ids before the first stay positive.
        let source = WIDE_RANGE + u32::from(first.picture_id().unwrap_or(0));
        let (tl0, key) = (first.tl0_pic_idx().unwrap_or(0), first.key_idx().unwrap_or(0));
        if self.started {
            self.offset = source.wrapping_sub(next_picture);
            self.tl0_offset = tl0.wrapping_sub(self.tl0.wrapping_add(1));
            self.key_offset = key.wrapping_sub(self.key.wrapping_add(1));
        } else {
            (self.offset, self.tl0_offset, self.key_offset) = (0, 0, 0);
            (self.tl0, self.key) = (tl0, key);
        }
        self.started = true;
        self.newest = source - 1;
        self.wide = first.picture_id_is_wide();
        self.pictures = None;
    }

    /// The indices with which a packet goes out, or `None` if its picture is dropped. `wanted`:
    /// whether the picture should be sent, asked only at the first packet of it.
    pub fn map(&mut self, descriptor: &Descriptor, wanted: bool) -> Option<Indices> {
        let Some(picture_id) = descriptor.picture_id() else {
            return wanted.then(|| self.indices(descriptor, 0));
        };
        if descriptor.picture_id_is_wide() != self.wide {
            // The encoder changed its mind within a stream: continue from here.
            let (tl0_offset, key_offset) = (self.tl0_offset, self.key_offset);
            self.start(descriptor);
            (self.tl0_offset, self.key_offset) = (tl0_offset, key_offset);
        }
        let id = self.unwrap(picture_id);
        let target = if id > self.newest {
            self.newest_picture(id, wanted)
        } else {
            self.older_picture(id, wanted)
        }?;
        Some(self.indices(descriptor, target))
    }

    /// The descriptor of a picture of our own, a key frame, in place of the one byte of the
    /// shortest descriptor: all three indices move on by one.
    pub fn fill(&mut self) -> PayloadRewrite {
        let picture = (self.newest + 1).wrapping_sub(self.offset);
        self.offset = self.offset.wrapping_sub(1);
        self.tl0 = self.tl0.wrapping_add(1);
        self.key = self.key.wrapping_add(1) & 0x1f;
        self.tl0_offset = self.tl0_offset.wrapping_sub(1);
        self.key_offset = self.key_offset.wrapping_sub(1);
        // X and S; then all of I, L, T and K; a picture id of 15 bits with M.
        let [high, low] = ((picture % WIDE_RANGE) as u16 | 0x8000).to_be_bytes();
        let wide = [0x90, 0xf0, high, low, self.tl0, self.key];
        if self.wide {
            return PayloadRewrite::new(wide, wide.len(), 1);
        }
        let narrow = [0x90, 0xf0, (picture % NARROW_RANGE) as u8, self.tl0, self.key, 0];
        PayloadRewrite::new(narrow, narrow.len() - 1, 1)
    }

    fn newest_picture(&mut self, id: u32, wanted: bool) -> Option<u16> {
        let oldest_missing = (self.newest + 1).max(id.saturating_sub(REMEMBERED as u32 - 1));
        for missing in oldest_missing..id {
            self.remember(missing, Fate::Missing);
        }
        self.newest = id;
        let fate = if wanted { Fate::Forwarded } else { Fate::Dropped };
        let target = self.remember(id, fate);
        if !wanted {
            self.offset = self.offset.wrapping_add(1);
        }
        wanted.then_some(target)
    }

    fn older_picture(&mut self, id: u32, wanted: bool) -> Option<u16> {
        let slot = self.pictures.as_mut()?[id as usize % REMEMBERED].as_mut();
        let picture = slot.filter(|picture| picture.id == id)?;
        if picture.fate == Fate::Missing {
            picture.fate = if wanted { Fate::Forwarded } else { Fate::Dropped };
        }
        (picture.fate == Fate::Forwarded).then_some(picture.target)
    }

    fn remember(&mut self, id: u32, fate: Fate) -> u16 {
        let target = (id.wrapping_sub(self.offset) % WIDE_RANGE) as u16;
        let pictures = self.pictures.get_or_insert_with(|| Box::new([None; REMEMBERED]));
        pictures[id as usize % REMEMBERED] = Some(Picture { id, target, fate });
        target
    }

    fn indices(&mut self, descriptor: &Descriptor, target: u16) -> Indices {
        let tl0_pic_idx = descriptor.tl0_pic_idx().unwrap_or(0).wrapping_sub(self.tl0_offset);
        let key_idx = descriptor.key_idx().unwrap_or(0).wrapping_sub(self.key_offset) & 0x1F;
        if tl0_pic_idx.wrapping_sub(self.tl0) as i8 > 0 {
            self.tl0 = tl0_pic_idx;
        }
        // Five bits: newer if less than half a circle ahead.
        if (1..16).contains(&(key_idx.wrapping_sub(self.key) & 0x1F)) {
            self.key = key_idx;
        }
        let picture_id = if self.wide { target } else { target % NARROW_RANGE as u16 };
        Indices { picture_id, tl0_pic_idx, key_idx }
    }

    /// The unwrapped id nearest to the newest.
    fn unwrap(&self, picture_id: u16) -> u32 {
        let range = if self.wide { WIDE_RANGE } else { NARROW_RANGE };
        let ahead = u32::from(picture_id).wrapping_sub(self.newest) % range;
        if ahead < range / 2 {
            self.newest.wrapping_add(ahead)
        } else {
            (self.newest + ahead).saturating_sub(range)
        }
    }
}

#[cfg(test)]
#[path = "vp8_munger_tests.rs"]
mod tests;
