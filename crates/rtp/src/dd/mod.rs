//! Dependency descriptor (AV1 RTP specification, appendix A): which layers a frame belongs to, what
//! it depends on, and for which decode targets it is needed.
//!
//! A descriptor refers to a template of the [`Structure`] that came with the last key frame. The
//! caller keeps that structure per stream and hands it to [`DependencyDescriptor::parse`]; a packet
//! that carries a new one returns it, to be stored. [`rewrite_active_targets`] copies a received
//! descriptor with another active-decode-target mask; [`write`](write::write) makes one from
//! scratch.

mod parse;
mod structure;
pub mod write;

use thiserror::Error;

pub use structure::{
    ChainDiffs, Dtis, FrameDiffs, MAX_CHAINS, MAX_DECODE_TARGETS, MAX_FRAME_DIFFS, MAX_SPATIAL_IDS,
    MAX_TEMPLATES, Resolution, Structure, Template,
};
pub use write::rewrite_active_targets;

/// Longest descriptor that is read or written, bytes: the two-byte form of RFC 8285 has no more.
pub const MAX_LEN: usize = 255;
/// Length of the mandatory fields, bytes.
pub const MANDATORY_LEN: usize = 3;

/// Why a descriptor cannot be used: the sender's bytes are malformed, or we miss its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DdError {
    /// The element ends inside the descriptor.
    #[error("descriptor is cut")]
    Truncated,
    /// No structure was received yet.
    #[error("no template structure was received yet")]
    NoStructure,
    /// The structure has no template of that id: we have an older or newer one.
    #[error("template {0} is not in the structure")]
    UnknownTemplate(u8),
    /// The structure has more templates, layers or references than the format or we allow.
    #[error("template structure exceeds its limits")]
    Limits,
    /// Our output buffer is too small, or a value does not fit its field.
    #[error("descriptor cannot be written")]
    Unwritable,
}

/// How a frame relates to one decode target ("decode target indication").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dti {
    /// Not part of the target: need not be sent for it.
    NotPresent = 0,
    /// Part of the target, and no other frame of it depends on this one.
    Discardable = 1,
    /// A receiver may start to decode the target here.
    Switch = 2,
    /// Other frames of the target depend on this one.
    Required = 3,
}

/// The fields that every descriptor starts with; readable without a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mandatory {
    /// First packet of the frame.
    pub start_of_frame: bool,
    /// Last packet of the frame.
    pub end_of_frame: bool,
    /// Id of the template, 0..=63, with the structure's offset.
    pub template_id: u8,
    /// Running number of the frame, wrapping.
    pub frame_number: u16,
}

/// A descriptor with the frame's dependencies resolved from template and custom fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependencyDescriptor {
    /// The fields that every descriptor starts with.
    pub mandatory: Mandatory,
    /// Spatial layer, 0..=3.
    pub spatial_id: u8,
    /// Temporal layer, 0..=7.
    pub temporal_id: u8,
    /// Indication per decode target.
    pub dtis: Dtis,
    /// Distances to the frames that this one refers to.
    pub frame_diffs: FrameDiffs,
    /// Distance to the previous frame of each chain.
    pub chain_diffs: ChainDiffs,
    /// Decode targets that the sender still produces, bit 0 = target 0; `None` if the packet does
    /// not say, then the last value holds.
    pub active_targets: Option<u32>,
    /// Whether the packet carries a structure: the first packet of a key frame.
    pub has_structure: bool,
    /// Which fields the packet states itself instead of taking the template's.
    pub custom: Custom,
    /// Where things lie in the received bits, for rewriting.
    pub(crate) layout: BitLayout,
}

/// Fields that override the template's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Custom {
    /// Own decode target indications.
    pub dtis: bool,
    /// Own frame differences.
    pub frame_diffs: bool,
    /// Own chain differences.
    pub chain_diffs: bool,
}

/// Bit positions in the received element.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BitLayout {
    /// End of the structure, where the active-decode-target mask lies or would lie.
    pub(crate) mask_start: u16,
    /// End of the mask, where custom fields start.
    pub(crate) mask_end: u16,
    /// End of the custom fields, where zero padding starts.
    pub(crate) end: u16,
    /// Number of decode targets: width of the mask.
    pub(crate) targets: u8,
}
