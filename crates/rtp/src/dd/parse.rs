//! Reading of descriptors (AV1 RTP specification §A.8.2, syntax tables).

use super::structure::MAX_TEMPORAL_IDS;
use super::{
    BitLayout, ChainDiffs, Custom, DdError, DependencyDescriptor, Dti, Dtis, FrameDiffs,
    MANDATORY_LEN, MAX_DECODE_TARGETS, MAX_LEN, MAX_SPATIAL_IDS, MAX_TEMPLATES, Mandatory,
    Resolution, Structure, Template,
};
use crate::bits::BitReader;
use crate::bytes::be16;

/// Values of `next_layer_idc` (§A.8.3).
pub(super) mod next_layer {
    pub(crate) const SAME: u32 = 0;
    pub(crate) const NEXT_TEMPORAL: u32 = 1;
    pub(crate) const NEXT_SPATIAL: u32 = 2;
    pub(crate) const END: u32 = 3;
}

impl Mandatory {
    /// Reads the first three bytes of a descriptor. `None` if there are fewer.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let first = *data.first()?;
        Some(Self {
            start_of_frame: first & 0x80 != 0,
            end_of_frame: first & 0x40 != 0,
            template_id: first & 0x3F,
            frame_number: be16(data, 1)?,
        })
    }
}

impl DependencyDescriptor {
    /// The descriptor of a frame that is all as its template says: what a sender starts from.
    /// `None` if the structure does not have the template.
    pub fn from_template(mandatory: Mandatory, structure: &Structure) -> Option<Self> {
        let template = structure.template(mandatory.template_id)?;
        Some(Self {
            mandatory,
            spatial_id: template.spatial_id,
            temporal_id: template.temporal_id,
            dtis: template.dtis,
            frame_diffs: template.frame_diffs,
            chain_diffs: template.chain_diffs,
            active_targets: None,
            has_structure: false,
            custom: Custom::default(),
            layout: BitLayout::default(),
        })
    }

    /// Reads the data of a header extension element. `known` is the stream's structure from an
    /// earlier packet; a structure in this one takes its place and is returned to be kept.
    ///
    /// Allocates only for a returned structure.
    ///
    /// # Errors
    /// The packet is malformed, or refers to a structure that we do not have.
    pub fn parse(
        data: &[u8],
        known: Option<&Structure>,
    ) -> Result<(Self, Option<Structure>), DdError> {
        if data.len() > MAX_LEN {
            return Err(DdError::Limits);
        }
        let mandatory = Mandatory::parse(data).ok_or(DdError::Truncated)?;
        let mut reader = Reader { bits: BitReader::new(data) };
        reader.bits(24)?;
        let extended = data.len() > MANDATORY_LEN;
        let flags = if extended { Flags::read(&mut reader)? } else { Flags::default() };
        let received = if flags.structure { Some(reader.structure()?) } else { None };
        let structure = received.as_ref().or(known).ok_or(DdError::NoStructure)?;

        let mut layout = BitLayout {
            mask_start: reader.position(),
            targets: structure.decode_targets,
            ..BitLayout::default()
        };
        let mut active_targets = None;
        if flags.active_targets {
            active_targets = Some(reader.bits(u32::from(structure.decode_targets))?);
        } else if flags.structure {
            active_targets = Some(structure.all_targets());
        }
        layout.mask_end = reader.position();

        let mut descriptor = Self::from_template(mandatory, structure)
            .ok_or(DdError::UnknownTemplate(mandatory.template_id))?;
        let custom = flags.custom;
        descriptor.active_targets = active_targets;
        descriptor.has_structure = flags.structure;
        descriptor.custom = custom;
        descriptor.layout = layout;
        if custom.dtis {
            descriptor.dtis = reader.dtis(structure.decode_targets)?;
        }
        if custom.frame_diffs {
            descriptor.frame_diffs = reader.frame_diffs()?;
        }
        if custom.chain_diffs {
            descriptor.chain_diffs = reader.chain_diffs(structure.chains, 8)?;
        }
        descriptor.layout.end = reader.position();
        Ok((descriptor, received))
    }
}

/// `extended_descriptor_fields()`.
#[derive(Debug, Default)]
struct Flags {
    structure: bool,
    active_targets: bool,
    custom: Custom,
}

impl Flags {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DdError> {
        Ok(Self {
            structure: reader.flag()?,
            active_targets: reader.flag()?,
            custom: Custom {
                dtis: reader.flag()?,
                frame_diffs: reader.flag()?,
                chain_diffs: reader.flag()?,
            },
        })
    }
}

struct Reader<'a> {
    bits: BitReader<'a>,
}

impl Reader<'_> {
    fn bits(&mut self, count: u32) -> Result<u32, DdError> {
        self.bits.bits(count).ok_or(DdError::Truncated)
    }

    fn flag(&mut self) -> Result<bool, DdError> {
        self.bits.flag().ok_or(DdError::Truncated)
    }

    fn non_symmetric(&mut self, range: u32) -> Result<u32, DdError> {
        self.bits.non_symmetric(range).ok_or(DdError::Truncated)
    }

    /// Bits from the start; elements are at most [`MAX_LEN`] bytes.
    fn position(&self) -> u16 {
        self.bits.position() as u16
    }

    /// `template_dependency_structure()`.
    fn structure(&mut self) -> Result<Structure, DdError> {
        let template_id_offset = self.bits(6)? as u8;
        let decode_targets = self.bits(5)? as u8 + 1;
        let mut templates = self.template_layers()?;
        for template in &mut templates {
            template.dtis = self.dtis(decode_targets)?;
        }
        for template in &mut templates {
            while self.flag()? {
                let diff = self.bits(4)? as u16 + 1;
                template.frame_diffs.push(diff).ok_or(DdError::Limits)?;
            }
        }
        let chains = self.non_symmetric(u32::from(decode_targets) + 1)? as u8;
        let mut protected_by = [0; MAX_DECODE_TARGETS];
        if chains > 0 {
            for chain in &mut protected_by[..usize::from(decode_targets)] {
                *chain = self.non_symmetric(u32::from(chains))? as u8;
            }
            for template in &mut templates {
                template.chain_diffs = self.chain_diffs(chains, 4)?;
            }
        }
        let mut structure = Structure {
            template_id_offset,
            decode_targets,
            templates,
            chains,
            protected_by,
            resolutions: None,
        };
        if self.flag()? {
            let mut resolutions = [Resolution::default(); MAX_SPATIAL_IDS];
            for resolution in &mut resolutions[..structure.spatial_layers()] {
                *resolution = Resolution { width: self.bits(16)? + 1, height: self.bits(16)? + 1 };
            }
            structure.resolutions = Some(resolutions);
        }
        Ok(structure)
    }

    /// `template_layers()`: the number of templates is known only at its end.
    fn template_layers(&mut self) -> Result<Vec<Template>, DdError> {
        let mut templates = Vec::new();
        let mut layer = Template::default();
        loop {
            if templates.len() == MAX_TEMPLATES {
                return Err(DdError::Limits);
            }
            templates.push(layer);
            match self.bits(2)? {
                next_layer::SAME => {}
                next_layer::NEXT_TEMPORAL => layer.temporal_id += 1,
                next_layer::NEXT_SPATIAL => {
                    layer.temporal_id = 0;
                    layer.spatial_id += 1;
                }
                _ => return Ok(templates),
            }
            if usize::from(layer.temporal_id) == MAX_TEMPORAL_IDS
                || usize::from(layer.spatial_id) == MAX_SPATIAL_IDS
            {
                return Err(DdError::Limits);
            }
        }
    }

    fn dtis(&mut self, count: u8) -> Result<Dtis, DdError> {
        let mut dtis = Dtis::default();
        for _ in 0..count {
            dtis.push(match self.bits(2)? {
                0 => Dti::NotPresent,
                1 => Dti::Discardable,
                2 => Dti::Switch,
                _ => Dti::Required,
            });
        }
        Ok(dtis)
    }

    /// `frame_fdiffs()`: each with its size in units of 4 bits, 0 ends the list.
    fn frame_diffs(&mut self) -> Result<FrameDiffs, DdError> {
        let mut diffs = FrameDiffs::default();
        loop {
            let size = self.bits(2)?;
            if size == 0 {
                return Ok(diffs);
            }
            let diff = self.bits(4 * size)? as u16 + 1;
            diffs.push(diff).ok_or(DdError::Limits)?;
        }
    }

    fn chain_diffs(&mut self, chains: u8, width: u32) -> Result<ChainDiffs, DdError> {
        let mut diffs = ChainDiffs::default();
        for _ in 0..chains {
            diffs.push(self.bits(width)? as u8).ok_or(DdError::Limits)?;
        }
        Ok(diffs)
    }
}
