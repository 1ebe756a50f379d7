//! The section `logging`.

use super::error::invalid;
use super::{ConfigError, Document};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct LoggingConfig {
    /// `debug`, `info`, `warn` or `error`.
    pub(crate) level: String,
    /// One JSON object per line instead of text.
    pub(crate) json: bool,
    /// Level per crate, by name.
    pub(crate) components: Vec<(String, String)>,
}

/// The section, with `log_level` of older configurations.
pub(super) fn logging(doc: &Document) -> Result<LoggingConfig, ConfigError> {
    let level = match (doc.is_set("logging.level"), doc.text("log_level")) {
        (false, level) if !level.is_empty() => level,
        _ => doc.text("logging.level"),
    };
    Ok(LoggingConfig {
        level: log_level("logging.level", &level)?,
        json: doc.bool("logging.json"),
        components: doc
            .map("logging.component_levels")
            .into_iter()
            .map(|(name, level)| Ok((name, log_level("logging.component_levels", &level)?)))
            .collect::<Result<_, ConfigError>>()?,
    })
}

fn log_level(path: &str, level: &str) -> Result<String, ConfigError> {
    match level.to_lowercase().as_str() {
        "warning" => Ok("warn".into()),
        known @ ("trace" | "debug" | "info" | "warn" | "error") => Ok(known.into()),
        _ => Err(invalid(path, "one of trace, debug, info, warn, error")),
    }
}
