//! The template dependency structure and the small value lists of frames and templates.

use super::Dti;

/// Most templates: ids have 6 bits (AV1 RTP specification §A.8.2).
pub const MAX_TEMPLATES: usize = 64;
/// Most decode targets: `dt_cnt_minus_one` has 5 bits (§A.8.2).
pub const MAX_DECODE_TARGETS: usize = 32;
/// Most chains: no more than decode targets (§A.8.2).
pub const MAX_CHAINS: usize = MAX_DECODE_TARGETS;
/// Most spatial layers (AV1 specification §6.2.3: 2 bits).
pub const MAX_SPATIAL_IDS: usize = 4;
/// Most temporal layers (AV1 specification §6.2.3: 3 bits).
pub(crate) const MAX_TEMPORAL_IDS: usize = 8;
/// Most references of a frame that we keep. The format has no limit; AV1 and VP9 have 8 reference
/// slots.
pub const MAX_FRAME_DIFFS: usize = 8;

/// Decode target indications, two bits each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dtis {
    bits: u64,
    len: u8,
}

impl Dtis {
    /// Appends the indication of the next decode target; ignored beyond [`MAX_DECODE_TARGETS`].
    pub fn push(&mut self, dti: Dti) {
        if self.len() < MAX_DECODE_TARGETS {
            self.bits |= (dti as u64) << (2 * self.len);
            self.len += 1;
        }
    }

    /// The indication for a decode target.
    pub fn get(&self, target: usize) -> Option<Dti> {
        (target < self.len()).then(|| match (self.bits >> (2 * target)) & 3 {
            0 => Dti::NotPresent,
            1 => Dti::Discardable,
            2 => Dti::Switch,
            _ => Dti::Required,
        })
    }

    /// Number of decode targets.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The indications in order of the decode targets.
    pub fn iter(&self) -> impl Iterator<Item = Dti> {
        (0..self.len()).filter_map(|target| self.get(target))
    }
}

impl FromIterator<Dti> for Dtis {
    fn from_iter<I: IntoIterator<Item = Dti>>(dtis: I) -> Self {
        let mut list = Self::default();
        dtis.into_iter().for_each(|dti| list.push(dti));
        list
    }
}

/// Distances, in frame numbers, to the frames that a frame refers to: 1..=4096.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameDiffs {
    values: [u16; MAX_FRAME_DIFFS],
    len: u8,
}

impl FrameDiffs {
    /// Appends a distance; `None` if the list is full.
    pub fn push(&mut self, diff: u16) -> Option<()> {
        *self.values.get_mut(usize::from(self.len))? = diff;
        self.len += 1;
        Some(())
    }

    /// The distances.
    pub fn as_slice(&self) -> &[u16] {
        &self.values[..usize::from(self.len)]
    }
}

/// Distance, in frame numbers, to the previous frame of each chain; 0 = the chain starts here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChainDiffs {
    values: [u8; MAX_CHAINS],
    len: u8,
}

impl ChainDiffs {
    /// Appends the distance of the next chain; `None` if the list is full.
    pub fn push(&mut self, diff: u8) -> Option<()> {
        *self.values.get_mut(usize::from(self.len))? = diff;
        self.len += 1;
        Some(())
    }

    /// The distances by chain.
    pub fn as_slice(&self) -> &[u8] {
        &self.values[..usize::from(self.len)]
    }
}

/// What frames of one kind have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Template {
    /// Spatial layer, 0..=3.
    pub spatial_id: u8,
    /// Temporal layer, 0..=7.
    pub temporal_id: u8,
    /// Indication per decode target.
    pub dtis: Dtis,
    /// Distances to referred frames, 1..=16.
    pub frame_diffs: FrameDiffs,
    /// Distances to the previous frame of each chain, 0..=15.
    pub chain_diffs: ChainDiffs,
}

/// Size of the frames of one spatial layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Pixels, 1..=65536.
    pub width: u32,
    /// Pixels, 1..=65536.
    pub height: u32,
}

/// The template dependency structure of a coded video sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// Id of the first template, 0..=63.
    pub template_id_offset: u8,
    /// Number of decode targets, 1..=32.
    pub decode_targets: u8,
    /// The templates, 1..=64, sorted by spatial then temporal layer.
    pub templates: Vec<Template>,
    /// Number of chains, 0..=32.
    pub chains: u8,
    /// The chain that protects each decode target; meaningless without chains.
    pub protected_by: [u8; MAX_DECODE_TARGETS],
    /// Size by spatial layer, if the sender states it.
    pub resolutions: Option<[Resolution; MAX_SPATIAL_IDS]>,
}

impl Structure {
    /// Mask with a bit for every decode target: what is active while the sender says nothing.
    pub fn all_targets(&self) -> u32 {
        u32::MAX >> (MAX_DECODE_TARGETS - usize::from(self.decode_targets).clamp(1, 32))
    }

    /// Highest spatial and temporal layer of the frames of a decode target. `None` if no template
    /// belongs to the target.
    pub fn target_layers(&self, target: usize) -> Option<(u8, u8)> {
        self.templates
            .iter()
            .filter(|template| template.dtis.get(target).is_some_and(|dti| dti != Dti::NotPresent))
            .map(|template| (template.spatial_id, template.temporal_id))
            .reduce(|highest, layer| (highest.0.max(layer.0), highest.1.max(layer.1)))
    }

    /// Number of spatial layers.
    pub fn spatial_layers(&self) -> usize {
        self.templates.last().map_or(0, |template| usize::from(template.spatial_id) + 1)
    }

    /// The template with a descriptor's template id.
    pub fn template(&self, template_id: u8) -> Option<&Template> {
        let index = (template_id & 0x3F).wrapping_sub(self.template_id_offset) & 0x3F;
        self.templates.get(usize::from(index))
    }
}
