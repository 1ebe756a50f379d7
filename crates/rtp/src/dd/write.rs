//! Writing of descriptors: a copy with another active-decode-target mask, and from scratch.

use super::parse::next_layer;
use super::{
    DdError, DependencyDescriptor, Dtis, MANDATORY_LEN, MAX_LEN, MAX_TEMPLATES, Structure, Template,
};
use crate::bits::BitWriter;

/// Bits of the mandatory fields.
const MANDATORY_BITS: usize = 8 * MANDATORY_LEN;
/// Bits of the flags that follow them, of which the second says that a mask is present.
const FLAG_BITS: usize = 5;

/// Copies the received element `data`, which `descriptor` was parsed from, with `mask` as
/// active-decode-target mask, and returns the length. Structure and custom fields stay bit for bit;
/// without a mask in the original the copy is up to 5 bytes longer.
///
/// # Errors
/// [`DdError::Unwritable`] if `out` is too small; [`MAX_LEN`] always suffices unless the original
/// has almost that length.
pub fn rewrite_active_targets(
    data: &[u8],
    descriptor: &DependencyDescriptor,
    mask: u32,
    out: &mut [u8],
) -> Result<usize, DdError> {
    let layout = descriptor.layout;
    let custom = descriptor.custom;
    let mut writer = BitWriter::new(out);
    writer.copy(data, 0, MANDATORY_BITS);
    writer.flag(descriptor.has_structure);
    writer.flag(true);
    writer.flag(custom.dtis);
    writer.flag(custom.frame_diffs);
    writer.flag(custom.chain_diffs);
    writer.copy(data, MANDATORY_BITS + FLAG_BITS, usize::from(layout.mask_start));
    writer.bits(mask, u32::from(layout.targets));
    writer.copy(data, usize::from(layout.mask_end), usize::from(layout.end));
    writer.finish().filter(|len| *len <= MAX_LEN).ok_or(DdError::Unwritable)
}

/// Writes a descriptor and returns its length. `structure` gives the template; it is part of the
/// output if `descriptor.has_structure`. Fields not marked as custom must be those of the template.
///
/// # Errors
/// [`DdError::UnknownTemplate`]; [`DdError::Unwritable`] if `out` is too small, a value does not fit
/// its field, or templates are not in layer order.
pub fn write(
    descriptor: &DependencyDescriptor,
    structure: &Structure,
    out: &mut [u8],
) -> Result<usize, DdError> {
    let mandatory = descriptor.mandatory;
    structure
        .template(mandatory.template_id)
        .ok_or(DdError::UnknownTemplate(mandatory.template_id))?;
    let custom = descriptor.custom;
    let mut writer = BitWriter::new(out);
    writer.flag(mandatory.start_of_frame);
    writer.flag(mandatory.end_of_frame);
    writer.bits(u32::from(mandatory.template_id), 6);
    writer.bits(u32::from(mandatory.frame_number), 16);
    let own_mask = descriptor
        .active_targets
        .filter(|mask| !descriptor.has_structure || *mask != structure.all_targets());
    let extended = descriptor.has_structure
        || own_mask.is_some()
        || custom.dtis
        || custom.frame_diffs
        || custom.chain_diffs;
    if extended {
        writer.flag(descriptor.has_structure);
        writer.flag(own_mask.is_some());
        writer.flag(custom.dtis);
        writer.flag(custom.frame_diffs);
        writer.flag(custom.chain_diffs);
        if descriptor.has_structure {
            write_structure(&mut writer, structure)?;
        }
        if let Some(mask) = own_mask {
            writer.bits(mask, u32::from(structure.decode_targets));
        }
        write_custom(&mut writer, descriptor, structure)?;
    }
    writer.finish().filter(|len| *len <= MAX_LEN).ok_or(DdError::Unwritable)
}

fn write_custom(
    writer: &mut BitWriter<'_>,
    descriptor: &DependencyDescriptor,
    structure: &Structure,
) -> Result<(), DdError> {
    if descriptor.custom.dtis {
        write_dtis(writer, descriptor.dtis, structure)?;
    }
    if descriptor.custom.frame_diffs {
        for diff in descriptor.frame_diffs.as_slice() {
            let value = u32::from(diff.checked_sub(1).ok_or(DdError::Unwritable)?);
            let size = match value {
                0..=0xF => 1,
                0x10..=0xFF => 2,
                0x100..=0xFFF => 3,
                _ => return Err(DdError::Unwritable),
            };
            writer.bits(size, 2);
            writer.bits(value, 4 * size);
        }
        writer.bits(0, 2);
    }
    if descriptor.custom.chain_diffs {
        let diffs = descriptor.chain_diffs.as_slice();
        if diffs.len() != usize::from(structure.chains) {
            return Err(DdError::Unwritable);
        }
        diffs.iter().for_each(|diff| writer.bits(u32::from(*diff), 8));
    }
    Ok(())
}

/// `template_dependency_structure()`.
fn write_structure(writer: &mut BitWriter<'_>, structure: &Structure) -> Result<(), DdError> {
    let targets = structure.decode_targets;
    let templates = &structure.templates;
    let valid = (1..=32).contains(&targets)
        && (1..=MAX_TEMPLATES).contains(&templates.len())
        && structure.chains <= targets;
    if !valid {
        return Err(DdError::Unwritable);
    }
    writer.bits(u32::from(structure.template_id_offset), 6);
    writer.bits(u32::from(targets) - 1, 5);
    write_layers(writer, templates)?;
    for template in templates {
        write_dtis(writer, template.dtis, structure)?;
    }
    for template in templates {
        for diff in template.frame_diffs.as_slice() {
            let value = diff.checked_sub(1).filter(|v| *v < 16).ok_or(DdError::Unwritable)?;
            writer.flag(true);
            writer.bits(u32::from(value), 4);
        }
        writer.flag(false);
    }
    write_chains(writer, structure)?;
    writer.flag(structure.resolutions.is_some());
    if let Some(resolutions) = &structure.resolutions {
        for resolution in resolutions.iter().take(structure.spatial_layers()) {
            for size in [resolution.width, resolution.height] {
                let value = size.checked_sub(1).filter(|v| *v <= 0xFFFF);
                writer.bits(value.ok_or(DdError::Unwritable)?, 16);
            }
        }
    }
    Ok(())
}

fn write_layers(writer: &mut BitWriter<'_>, templates: &[Template]) -> Result<(), DdError> {
    let first = templates.first().map(|first| (first.spatial_id, first.temporal_id));
    if first != Some((0, 0)) {
        return Err(DdError::Unwritable);
    }
    for pair in templates.windows(2) {
        let spatial_step = pair[1].spatial_id.checked_sub(pair[0].spatial_id);
        let temporal_step = pair[1].temporal_id.checked_sub(pair[0].temporal_id);
        let idc = match (spatial_step, temporal_step) {
            (Some(0), Some(0)) => next_layer::SAME,
            (Some(0), Some(1)) => next_layer::NEXT_TEMPORAL,
            (Some(1), _) if pair[1].temporal_id == 0 => next_layer::NEXT_SPATIAL,
            _ => return Err(DdError::Unwritable),
        };
        writer.bits(idc, 2);
    }
    writer.bits(next_layer::END, 2);
    Ok(())
}

fn write_dtis(
    writer: &mut BitWriter<'_>,
    dtis: Dtis,
    structure: &Structure,
) -> Result<(), DdError> {
    if dtis.len() != usize::from(structure.decode_targets) {
        return Err(DdError::Unwritable);
    }
    dtis.iter().for_each(|dti| writer.bits(dti as u32, 2));
    Ok(())
}

fn write_chains(writer: &mut BitWriter<'_>, structure: &Structure) -> Result<(), DdError> {
    let chains = u32::from(structure.chains);
    writer.non_symmetric(chains, u32::from(structure.decode_targets) + 1);
    if chains == 0 {
        return Ok(());
    }
    for chain in &structure.protected_by[..usize::from(structure.decode_targets)] {
        if u32::from(*chain) >= chains {
            return Err(DdError::Unwritable);
        }
        writer.non_symmetric(u32::from(*chain), chains);
    }
    for template in &structure.templates {
        let diffs = template.chain_diffs.as_slice();
        if diffs.len() != usize::from(structure.chains) || diffs.iter().any(|diff| *diff > 15) {
            return Err(DdError::Unwritable);
        }
        diffs.iter().for_each(|diff| writer.bits(u32::from(*diff), 4));
    }
    Ok(())
}
