//! Audio in the form that each receiver negotiated: a track published with redundancy (RED) goes
//! as it is to those that take RED and as plain Opus to the others; a plain track gets redundancy
//! for those that were offered it. Conversion is done once per worker.

use std::time::Instant;

use sluice_rtp::codec::Codec;
use sluice_sfu::red::{RedJoiner, RedSplitter, primary_payload_type};
use sluice_sfu::{DropReason, MediaPacket};
use smallvec::SmallVec;

use crate::core::Core;
use crate::core::track::Wire;
use crate::link::FeedKey;
use crate::stats::DropCause;

/// Which receivers of a feed get a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receivers {
    All,
    /// Those that take RED whose blocks have this payload type.
    Red(u8),
    /// All others.
    NotRed(u8),
}

impl Receivers {
    pub(super) fn include(self, wire: &Wire) -> bool {
        match self {
            Self::All => true,
            Self::Red(pt) => wire.red_primary_pt == Some(pt),
            Self::NotRed(pt) => wire.red_primary_pt != Some(pt),
        }
    }
}

/// What a feed's receivers take, and what is needed to convert for them.
#[derive(Debug, Default)]
pub(crate) struct AudioForms {
    /// Receivers without RED.
    plain: u32,
    /// Receivers with RED, by the payload type of its blocks; nearly always one entry.
    redundant: Vec<(u8, u32)>,
    /// The publisher adds redundancy itself.
    published_red: bool,
    splitter: RedSplitter,
    joiner: RedJoiner,
}

impl AudioForms {
    pub(crate) fn add(&mut self, wire: &Wire) {
        let Some(pt) = wire.red_primary_pt else {
            self.plain += 1;
            return;
        };
        match self.redundant.iter_mut().find(|(known, _)| *known == pt) {
            Some((_, count)) => *count += 1,
            None => self.redundant.push((pt, 1)),
        }
    }

    pub(crate) fn remove(&mut self, wire: &Wire) {
        let Some(pt) = wire.red_primary_pt else {
            self.plain = self.plain.saturating_sub(1);
            return;
        };
        if let Some((_, count)) = self.redundant.iter_mut().find(|(known, _)| *known == pt) {
            *count -= 1;
        }
        self.redundant.retain(|(_, count)| *count > 0);
    }

    fn takes_red(&self, pt: u8) -> bool {
        self.redundant.iter().any(|(known, _)| *known == pt)
    }

    fn takes_other_than_red(&self, pt: u8) -> bool {
        self.plain > 0 || self.redundant.iter().any(|(known, _)| *known != pt)
    }
}

impl Core {
    /// Passes a packet to each receiver of a feed, converted where it must be.
    pub(super) fn forward(&mut self, now: Instant, feed: FeedKey, packet: MediaPacket) {
        if !self.is_on_stage(now, feed, &packet) {
            return self.stats.drop_one(DropCause::OffStage);
        }
        match packet.codec {
            Codec::Red if !packet.is_padding() => self.forward_red(now, feed, &packet),
            Codec::Opus if !packet.is_padding() => self.forward_opus(now, feed, packet),
            _ => self.forward_to(now, feed, packet, Receivers::All),
        }
    }

    fn forward_red(&mut self, now: Instant, feed: FeedKey, packet: &MediaPacket) {
        let Some(pt) = primary_payload_type(packet) else {
            return self.stats.drop_media(DropReason::BadPayload);
        };
        let Some(state) = self.feeds.get_mut(feed) else { return };
        state.forms.published_red = true;
        let (red, plain) = (state.forms.takes_red(pt), state.forms.takes_other_than_red(pt));
        let mut opus = SmallVec::<[MediaPacket; 3]>::new();
        if plain && let Err(reason) = state.forms.splitter.split(packet, |p| opus.push(p)) {
            self.stats.drop_media(reason);
        }
        self.stats.red_recovered += opus.len().saturating_sub(1) as u64;
        if red || !plain {
            self.forward_to(now, feed, packet.clone(), Receivers::Red(pt));
        }
        for packet in opus {
            self.forward_to(now, feed, packet, Receivers::NotRed(pt));
        }
    }

    fn forward_opus(&mut self, now: Instant, feed: FeedKey, packet: MediaPacket) {
        let forms = self.feeds.get_mut(feed).map(|state| &mut state.forms);
        let joined = forms.filter(|forms| !forms.published_red).and_then(|forms| {
            let (pt, _) = *forms.redundant.first()?;
            Some((pt, forms.joiner.join(&packet, pt, &mut self.pool)?))
        });
        let Some((pt, red)) = joined else {
            return self.forward_to(now, feed, packet, Receivers::All);
        };
        self.forward_to(now, feed, red, Receivers::Red(pt));
        self.forward_to(now, feed, packet, Receivers::NotRed(pt));
    }
}
