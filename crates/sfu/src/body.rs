//! Packet bodies: the bytes of one decrypted RTP packet, stored once and shared by every receiver,
//! every history and every worker that holds the packet.
//!
//! A [`BodyPool`] belongs to one worker. Bodies travel to other workers by reference count; the
//! pool keeps one reference to each of its slots and takes a slot back when that reference is the
//! last one, so that freeing on another thread needs neither a lock nor a message.

use std::sync::Arc;

/// Slot size of the small class, bytes: an Opus packet of 20 ms at 64 kbit/s with extensions.
const SMALL_SLOT_BYTES: usize = 256;

/// Slot size of the large class, bytes: an Ethernet frame's worth of UDP payload.
const LARGE_SLOT_BYTES: usize = 1_536;

/// Slots looked at before the pool grows. Histories release in the order of arrival, so the slot
/// that was used longest ago is nearly always free; a few more steps pass over longer-lived holders.
const SEARCH_STEPS: usize = 8;

/// Slots that [`BodyPool::trim`] looks at per class and call, and those that stay whatever is in use.
const TRIM_STEPS: usize = 1_024;
const MIN_SLOTS: usize = 64;

/// Immutable bytes of one RTP packet (header, extensions and payload, without SRTP tag).
#[derive(Debug, Clone)]
pub struct PacketBody {
    slot: Arc<[u8]>,
    len: u16,
}

impl PacketBody {
    /// A body outside of any pool. Truncates at 65,535 bytes, the largest UDP payload.
    pub fn from_slice(bytes: &[u8]) -> Self {
        let len = bytes.len().min(usize::from(u16::MAX));
        Self { slot: Arc::from(&bytes[..len]), len: len as u16 }
    }

    /// The packet's bytes, from the first byte of the RTP header.
    pub fn bytes(&self) -> &[u8] {
        &self.slot[..usize::from(self.len)]
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Recycles [`PacketBody`] slots of one worker: no allocation once it has grown to what the
/// worker's histories hold.
#[derive(Debug)]
pub struct BodyPool {
    small: SlotRing,
    large: SlotRing,
}

impl BodyPool {
    /// A pool that keeps at most `max_slots` slots per size class; bodies beyond that are
    /// allocated and freed one by one, and counted.
    pub fn new(max_slots: usize) -> Self {
        Self {
            small: SlotRing::new(SMALL_SLOT_BYTES, max_slots),
            large: SlotRing::new(LARGE_SLOT_BYTES, max_slots),
        }
    }

    /// Copies a packet into a recycled slot. Truncates at 65,535 bytes.
    pub fn store(&mut self, bytes: &[u8]) -> PacketBody {
        let ring = match bytes.len() {
            0..=SMALL_SLOT_BYTES => &mut self.small,
            n if n <= LARGE_SLOT_BYTES => &mut self.large,
            _ => return PacketBody::from_slice(bytes),
        };
        PacketBody { slot: ring.store(bytes), len: bytes.len() as u16 }
    }

    /// Gives back what a peak left behind, a little of it with each call: a few times a second is
    /// enough, and often enough. Keeps twice what is in use.
    pub fn trim(&mut self) {
        self.small.trim();
        self.large.trim();
    }

    /// Slots that the pool keeps, free or in use.
    pub fn slots(&self) -> usize {
        self.small.slots.len() + self.large.slots.len()
    }

    /// Bodies that had to be allocated outside of the pool because it was at its bound.
    pub fn overflows(&self) -> u64 {
        self.small.overflows + self.large.overflows
    }
}

#[derive(Debug)]
struct SlotRing {
    /// In a circle. Slots keep their places, so that going round meets them in the order of use.
    slots: Vec<Arc<[u8]>>,
    next: usize,
    slot_bytes: usize,
    max_slots: usize,
    overflows: u64,
    trimming: Trimming,
}

/// Where a walk round the slots stands that looks for those that nobody needs.
#[derive(Debug, Default)]
struct Trimming {
    at: usize,
    /// Slots in use that this round has met.
    busy: usize,
    /// Free slots to give back, by what the last round met.
    excess: usize,
}

impl SlotRing {
    fn new(slot_bytes: usize, max_slots: usize) -> Self {
        Self {
            slots: Vec::new(),
            next: 0,
            slot_bytes,
            max_slots,
            overflows: 0,
            trimming: Trimming::default(),
        }
    }

    fn store(&mut self, bytes: &[u8]) -> Arc<[u8]> {
        let mut busy = None;
        for _ in 0..SEARCH_STEPS.min(self.slots.len()) {
            let index = self.next;
            self.next = (index + 1) % self.slots.len();
            let slot = &mut self.slots[index];
            if let Some(free) = Arc::get_mut(slot) {
                free[..bytes.len()].copy_from_slice(bytes);
                return Arc::clone(slot);
            }
            busy = Some(index);
        }
        if self.slots.len() >= self.max_slots {
            self.overflows += 1;
            return Arc::from(bytes);
        }
        // `from_iter` over an exact-size iterator allocates the slice in place, once.
        let mut slot: Arc<[u8]> = std::iter::repeat_n(0, self.slot_bytes).collect();
        if let Some(fresh) = Arc::get_mut(&mut slot) {
            fresh[..bytes.len()].copy_from_slice(bytes);
        }
        self.slots.push(Arc::clone(&slot));
        if let Some(index) = busy {
            // Breaks up a run of slots that are held for long: the next time round finds this one.
            let last = self.slots.len() - 1;
            self.slots.swap(index, last);
        }
        slot
    }
}

impl SlotRing {
    /// Looks at the next few slots; see [`BodyPool::trim`].
    fn trim(&mut self) {
        for _ in 0..TRIM_STEPS.min(self.slots.len()) {
            let trimming = &mut self.trimming;
            if trimming.at >= self.slots.len() {
                let wanted = 2 * trimming.busy + MIN_SLOTS;
                let excess = self.slots.len().saturating_sub(wanted);
                *trimming = Trimming { excess, ..Trimming::default() };
            }
            let is_free = Arc::strong_count(&self.slots[trimming.at]) == 1;
            if is_free && trimming.excess > 0 {
                trimming.excess -= 1;
                self.slots.swap_remove(trimming.at);
            } else {
                trimming.busy += usize::from(!is_free);
                trimming.at += 1;
            }
        }
        self.next = if self.next < self.slots.len() { self.next } else { 0 };
        if self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(2 * self.slots.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_returns_when_its_last_holder_lets_go() {
        let mut pool = BodyPool::new(16);
        for round in 0..100u8 {
            let body = pool.store(&[round; 100]);
            let copy = body.clone();
            drop(body);
            assert_eq!(copy.bytes(), [round; 100]);
        }
        assert_eq!(pool.slots(), 1);
    }

    #[test]
    fn a_held_body_is_never_overwritten() {
        let mut pool = BodyPool::new(64);
        let held: Vec<_> = (0..40u8).map(|i| pool.store(&[i; 1_200])).collect();
        for _ in 0..200 {
            pool.store(&[0xff; 1_200]);
        }
        for (i, body) in held.iter().enumerate() {
            assert_eq!(body.bytes(), [i as u8; 1_200]);
        }
    }

    #[test]
    fn a_full_pool_counts_and_still_delivers() {
        let mut pool = BodyPool::new(2);
        let held: Vec<_> = (0..5u8).map(|i| pool.store(&[i; 10])).collect();
        assert_eq!(pool.slots(), 2);
        assert_eq!(pool.overflows(), 3);
        assert!(held.iter().enumerate().all(|(i, b)| b.bytes() == [i as u8; 10]));
    }

    #[test]
    fn a_pool_stops_growing_when_it_holds_what_histories_hold() {
        let mut pool = BodyPool::new(4_096);
        // Three histories of different length, fed at different rates, and one that keeps its own.
        let mut histories = [(); 3].map(|()| std::collections::VecDeque::new());
        let _kept: Vec<_> = (0..20).map(|_| pool.store(&[1; 1_000])).collect();
        let mut feed = |pool: &mut BodyPool, rounds: usize| {
            for round in 0..rounds {
                for (index, history) in histories.iter_mut().enumerate() {
                    if round % (index + 1) == 0 {
                        history.push_back(pool.store(&[2; 1_000]));
                        if history.len() > 100 * (index + 1) {
                            history.pop_front();
                        }
                    }
                }
            }
        };
        feed(&mut pool, 5_000);
        let slots = pool.slots();
        assert!(slots < 2 * (20 + 100 + 200 + 300));
        feed(&mut pool, 50_000);
        assert!(pool.slots() < slots + slots / 20, "grew from {slots} to {}", pool.slots());
    }

    #[test]
    fn a_pool_gives_back_what_a_peak_left_and_keeps_what_is_in_use() {
        let mut pool = BodyPool::new(65_536);
        let mut held: Vec<_> = (0..20_000u32).map(|i| pool.store(&i.to_be_bytes())).collect();
        for _ in 0..100 {
            pool.trim();
        }
        assert_eq!(pool.slots(), 20_000, "all in use");
        let kept = held.split_off(19_500);
        drop(held);
        for _ in 0..100 {
            pool.trim();
        }
        assert_eq!(pool.slots(), 2 * kept.len() + MIN_SLOTS);
        for (body, number) in kept.iter().zip(19_500u32..) {
            assert_eq!(body.bytes(), number.to_be_bytes());
        }
        assert_eq!(pool.store(b"again").bytes(), b"again");
    }

    #[test]
    fn a_jumbo_packet_gets_its_own_allocation() {
        let mut pool = BodyPool::new(2);
        assert_eq!(pool.store(&[7; 9_000]).len(), 9_000);
        assert_eq!(pool.slots(), 0);
    }

    #[test]
    fn bodies_may_be_dropped_on_another_thread() {
        let mut pool = BodyPool::new(4);
        let body = pool.store(b"hello");
        std::thread::spawn(move || drop(body)).join().expect("the thread only drops");
        pool.store(b"again");
        assert_eq!(pool.slots(), 1);
    }
}
