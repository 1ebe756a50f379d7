//! Sizes that requests may not exceed, checked before any room is asked. A limit of 0 is none.

use std::collections::BTreeMap;

use sluice_control::{ApiError, Limits};

type Check = Result<(), ApiError>;

pub(super) fn metadata(limits: &Limits, metadata: &str) -> Check {
    check("metadata size exceeds limits", metadata.len(), limits.max_metadata_size)
}

pub(super) fn attributes(limits: &Limits, attributes: &BTreeMap<String, String>) -> Check {
    let size = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    check("attribute size exceeds limits", size, limits.max_attributes_size)
}

pub(super) fn name(limits: &Limits, name: &str) -> Check {
    check("name length exceeds limits", name.len(), limits.max_participant_name_length)
}

fn check(argument: &'static str, size: usize, limit: usize) -> Check {
    if limit > 0 && size > limit {
        return Err(ApiError::Argument { argument, problem: limit.to_string() });
    }
    Ok(())
}
