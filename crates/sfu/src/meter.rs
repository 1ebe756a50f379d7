//! The bitrate of each layer of a track over the last second: what a receiver would get of it.

use std::time::{Duration, Instant};

use crate::packet::{LayerSet, MAX_LAYERS, MediaPacket};

/// Temporal layers at most.
pub const MAX_TEMPORAL: usize = 4;

/// Bytes of a packet beside its payload: header and extensions.
const OVERHEAD: usize = 20;

/// What layers usually cost, bits per second: LiveKit clients' 720p simulcast.
const USUAL_BPS: [u64; MAX_LAYERS] = [160_000, 450_000, 1_700_000];

/// Span of a bucket, and their number: one second.
const BUCKET: Duration = Duration::from_millis(100);
const BUCKETS: usize = 10;

/// What it takes to send a track up to a layer, bits per second: `[spatial][temporal]`, all that
/// the layer depends on included. Zero: the layer is not being sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerRates(pub [[u64; MAX_TEMPORAL]; MAX_LAYERS]);

impl LayerRates {
    /// Bits per second up to a layer; of the highest temporal layer if `temporal` is beyond.
    pub fn get(&self, spatial: u8, temporal: u8) -> u64 {
        let row = self.0.get(usize::from(spatial)).copied().unwrap_or_default();
        row[usize::from(temporal).min(MAX_TEMPORAL - 1)]
    }

    /// Bits per second of the whole spatial layer.
    pub fn spatial(&self, spatial: u8) -> u64 {
        self.get(spatial, MAX_TEMPORAL as u8 - 1)
    }

    /// The highest temporal layer that adds something to a spatial one.
    pub fn max_temporal(&self, spatial: u8) -> u8 {
        let whole = self.spatial(spatial);
        (0..MAX_TEMPORAL as u8).find(|t| self.get(spatial, *t) >= whole).unwrap_or(0)
    }
}

/// Measures the layers of a track.
#[derive(Debug)]
pub struct TrackMeter {
    /// Whether the spatial layers are in one stream and build on each other.
    scalable: bool,
    bytes: [[[u32; BUCKETS]; MAX_TEMPORAL]; MAX_LAYERS],
    start: Instant,
    /// Number of the newest bucket since `start`.
    newest: u64,
    began: bool,
}

impl TrackMeter {
    /// Nothing measured. `scalable`: the spatial layers build on each other (SVC), instead of being
    /// encodings of their own (simulcast); packets bring newer news.
    pub fn new(scalable: bool, now: Instant) -> Self {
        Self {
            scalable,
            bytes: [[[0; BUCKETS]; MAX_TEMPORAL]; MAX_LAYERS],
            start: now,
            newest: 0,
            began: false,
        }
    }

    /// Counts a packet of the track.
    pub fn on_media(&mut self, now: Instant, packet: &MediaPacket) {
        let (spatial, temporal) = packet.layers();
        self.scalable = packet.is_scalable();
        self.on_packet(now, spatial, temporal, usize::from(packet.payload.len) + OVERHEAD);
    }

    /// The rates now; in the first second, in which they grow to their measure, what live layers
    /// usually cost instead.
    pub fn expected_rates(&mut self, now: Instant, live: LayerSet) -> LayerRates {
        let mut rates = self.rates(now);
        let young = !self.began || now < self.start + BUCKET * BUCKETS as u32;
        for layer in (0..MAX_LAYERS as u8).filter(|layer| young && live.contains(*layer)) {
            let layer = usize::from(layer);
            if rates.0[layer].iter().all(|bps| *bps < USUAL_BPS[layer]) {
                rates.0[layer] = [USUAL_BPS[layer]; MAX_TEMPORAL];
            }
        }
        rates
    }

    /// Counts a packet of `len` bytes of a layer.
    pub fn on_packet(&mut self, now: Instant, spatial: u8, temporal: u8, len: usize) {
        if !self.began {
            (self.began, self.start) = (true, now);
        }
        self.advance(now);
        let spatial = usize::from(spatial).min(MAX_LAYERS - 1);
        let temporal = usize::from(temporal).min(MAX_TEMPORAL - 1);
        let bucket = &mut self.bytes[spatial][temporal][self.newest as usize % BUCKETS];
        *bucket = bucket.saturating_add(len as u32);
    }

    /// The rates now. Within the first second they are too low: streams begin with a key frame.
    pub fn rates(&mut self, now: Instant) -> LayerRates {
        self.advance(now);
        let mut rates = LayerRates::default();
        if !self.began {
            return rates;
        }
        // The newest bucket is not full: it covers the part of it that has passed.
        let elapsed = now.saturating_duration_since(self.start);
        let into = elapsed.as_millis() as u64 % BUCKET.as_millis() as u64;
        let window = (BUCKETS as u64 - 1) * BUCKET.as_millis() as u64 + into;
        // Before that there is less than a window. A key frame at the start must not look like a rate:
        // what is known grows to its measure.
        let millis = window.max((BUCKETS as u64 - 1) * BUCKET.as_millis() as u64);
        let mut below = [0; MAX_TEMPORAL];
        for (spatial, layers) in self.bytes.iter().enumerate() {
            let mut sum = 0;
            let live = layers.iter().flatten().any(|bytes| *bytes > 0);
            for (temporal, buckets) in layers.iter().enumerate() {
                let bytes: u64 = buckets.iter().map(|bytes| u64::from(*bytes)).sum();
                sum += bytes * 8_000 / millis;
                let base = if self.scalable { below[temporal] } else { 0 };
                rates.0[spatial][temporal] = if live { base + sum } else { 0 };
            }
            if live {
                below = rates.0[spatial];
            }
        }
        rates
    }

    /// Forgets everything, after a mute.
    pub fn reset(&mut self, now: Instant) {
        *self = Self::new(self.scalable, now);
    }

    /// Empties the buckets of the time that passed.
    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        let bucket = (elapsed / BUCKET.as_millis()) as u64;
        let passed = bucket.saturating_sub(self.newest).min(BUCKETS as u64);
        for step in 1..=passed {
            let index = (bucket.saturating_sub(passed) + step) as usize % BUCKETS;
            for layer in self.bytes.iter_mut().flatten() {
                layer[index] = 0;
            }
        }
        self.newest = self.newest.max(bucket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::epoch;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// 100 packets per second; odd ones are temporal layer 1.
    fn feed(meter: &mut TrackMeter, t0: Instant, spatial: u8, from: u64, to: u64) {
        for at in (from..to).step_by(10) {
            meter.on_packet(t0 + ms(at), spatial, (at / 10 % 2) as u8, 1_250);
        }
    }

    #[test]
    fn temporal_layers_add_up() {
        let t0 = epoch();
        let mut meter = TrackMeter::new(false, t0);
        feed(&mut meter, t0, 0, 0, 3_000);
        let rates = meter.rates(t0 + ms(3_000));
        assert!((450_000..550_000).contains(&rates.get(0, 0)), "{rates:?}");
        assert!((950_000..1_050_000).contains(&rates.spatial(0)), "{rates:?}");
        assert_eq!(rates.max_temporal(0), 1);
        assert_eq!(rates.spatial(1), 0);
    }

    #[test]
    fn simulcast_layers_stand_alone_and_scalable_ones_build_on_each_other() {
        let t0 = epoch();
        for (scalable, expected) in [(false, 1_000_000), (true, 2_000_000)] {
            let mut meter = TrackMeter::new(scalable, t0);
            for at in (0..2_000).step_by(10) {
                feed(&mut meter, t0, 0, at, at + 10);
                feed(&mut meter, t0, 1, at, at + 10);
            }
            let rate = meter.rates(t0 + ms(2_000)).spatial(1);
            assert!(rate.abs_diff(expected) < expected / 10, "{rate}");
        }
    }

    #[test]
    fn a_layer_that_stopped_is_gone_after_a_second() {
        let t0 = epoch();
        let mut meter = TrackMeter::new(false, t0);
        feed(&mut meter, t0, 2, 0, 2_000);
        assert!(meter.rates(t0 + ms(2_500)).spatial(2) > 0);
        assert_eq!(meter.rates(t0 + ms(3_100)).spatial(2), 0);
    }

    #[test]
    fn the_first_packets_do_not_look_like_more_than_they_are() {
        let t0 = epoch();
        let mut meter = TrackMeter::new(false, t0);
        feed(&mut meter, t0, 0, 0, 300);
        let rate = meter.rates(t0 + ms(300)).spatial(0);
        assert!((200_000..500_000).contains(&rate), "{rate}");
    }
}
