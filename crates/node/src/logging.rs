//! Structured logs: `logging.level`, `logging.json` and `logging.component_levels` become a
//! `tracing` subscriber that writes to standard error. `RUST_LOG` wins, for debugging.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LoggingConfig;

/// Crates of other people that would drown ours at `debug`.
const QUIET_CRATES: &[&str] = &["hyper", "h2", "tower_http", "tungstenite", "mio", "dimpl"];

/// Installs the subscriber. A second call does nothing.
pub(crate) fn install(config: &LoggingConfig, filter_override: Option<&str>) {
    let filter = filter_override
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(directives(config)));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A subscriber that is already there stays: only tests install twice.
    let _ = if config.json { builder.json().try_init() } else { builder.try_init() };
}

/// `warn` for noisy crates at `debug` and below, then the operator's own words.
fn directives(config: &LoggingConfig) -> String {
    let mut parts = vec![config.level.clone()];
    if matches!(config.level.as_str(), "debug" | "trace") {
        parts.extend(QUIET_CRATES.iter().map(|name| format!("{name}=info")));
    }
    for (name, level) in &config.components {
        let bare = name.replace(['-', '.'], "_");
        parts.push(format!("sluice_{bare}={level}"));
        parts.push(format!("{bare}={level}"));
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_named_by_crate() {
        let config = LoggingConfig {
            level: "info".into(),
            json: false,
            components: vec![("room".into(), "debug".into())],
        };
        assert_eq!(directives(&config), "info,sluice_room=debug,room=debug");
    }
}
