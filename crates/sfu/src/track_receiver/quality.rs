//! How well a publisher's track arrives: loss that retransmission did not repair, and layers that
//! somebody wants and the publisher does not send.

use std::time::Instant;

use super::TrackReceiver;
use crate::packet::MAX_LAYERS;
use crate::quality::{MAX_SCORE, QualityScorer, UPDATE_INTERVAL, Window, loss_weight};

/// What enters the score of one published track.
#[derive(Debug, Default)]
pub(super) struct SourceQuality {
    /// Present from the first look after the first packet.
    scorer: Option<QualityScorer>,
    /// Packets expected and received of each layer at the last update.
    counted: [(u64, u64); MAX_LAYERS],
    /// Newest sender report.
    pub(super) reported: Option<Instant>,
}

impl TrackReceiver {
    /// Enters what happened since the last call, about every [`UPDATE_INTERVAL`], and returns the
    /// score, 0..=100. `wanted`: the highest layer that a receiver wants, `None` if nobody wants
    /// the track.
    pub fn update_quality(&mut self, now: Instant, muted: bool, wanted: Option<u8>) -> f32 {
        let window = self.window(now);
        let missing = self.missing_layers(wanted);
        let codec = self.config.payload_types.first().map(|pt| pt.codec);
        let Some(codec) = codec.filter(|_| self.layers.iter().any(|l| l.stream.is_some())) else {
            return MAX_SCORE;
        };
        let weight = loss_weight(codec, true);
        let scorer = self.quality.scorer.get_or_insert_with(|| QualityScorer::new(now, weight));
        scorer.set_muted(now, muted || wanted.is_none());
        scorer.set_layer_distance(now, f32::from(missing));
        scorer.update(now, window);
        scorer.score()
    }

    fn window(&mut self, now: Instant) -> Window {
        let mut window = Window::default();
        for (layer, counted) in self.layers.iter().zip(&mut self.quality.counted) {
            let Some(stream) = &layer.stream else { continue };
            let expected = stream.stats().expected();
            let received = stream.stats().received() + stream.recovered();
            let (expected_before, received_before) =
                std::mem::replace(counted, (expected, received));
            // A restarted stream counts from its new beginning.
            if expected < expected_before || received < received_before {
                continue;
            }
            let packets = expected - expected_before;
            window.packets += packets;
            window.lost += packets.saturating_sub(received - received_before);
        }
        let heard = self.quality.reported;
        window.silent = heard.is_some_and(|at| now.saturating_duration_since(at) > UPDATE_INTERVAL);
        window
    }

    /// Layers above the highest that flows, of those that flowed once and are wanted.
    fn missing_layers(&self, wanted: Option<u8>) -> u8 {
        let known = (0..MAX_LAYERS as u8).filter(|l| self.layers[usize::from(*l)].stream.is_some());
        let top = known.max().zip(wanted).map(|(known, wanted)| known.min(wanted));
        let flows = self.live.best_up_to(u8::MAX);
        top.zip(flows).map_or(0, |(top, flows)| top.saturating_sub(flows))
    }
}
