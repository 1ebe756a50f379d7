//! Why there is no usable configuration.

use super::document::Problem;
use super::keys::KeyError;

/// Why there is no usable configuration; every variant tells the operator what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file named by the operator cannot be read.
    #[error("cannot read {what} {path}: {source}")]
    Read {
        /// What the file is.
        what: &'static str,
        /// Where it should be.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The content is wrong.
    #[error("{}", join(.0))]
    Problems(Vec<Problem>),
    /// API keys are missing or unusable.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Keys that are right one by one do not work together.
    #[error("{0}")]
    Conflict(String),
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A value of a key that is not what it must be.
pub(super) fn invalid(path: &str, expected: &str) -> ConfigError {
    ConfigError::Problems(vec![Problem::Value { path: path.into(), expected: expected.into() }])
}

/// A key that does not exist.
pub(super) fn unknown(path: String) -> ConfigError {
    ConfigError::Problems(vec![Problem::Unknown { path, suggestion: None }])
}
