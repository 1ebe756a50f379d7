//! Shared by the schema tests.

pub(crate) mod fill;
