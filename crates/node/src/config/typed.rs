//! The configuration as the rest of the binary reads it: parsed, defaulted and consistent. Each
//! section has a module of its own; here they come together.

use std::path::PathBuf;

use sluice_engine::MediaConfig;
use sluice_signal::WebhookConfig;

use super::http::{HttpConfig, http};
use super::limits::{LimitConfig, limits};
use super::logging::{LoggingConfig, logging};
use super::media::media;
use super::prometheus::{PrometheusConfig, prometheus};
use super::room::{RoomConfig, room};
use super::rtc::{RtcConfig, rtc};
use super::{ApiKeys, ConfigError, Document, RoomPresets, services};

/// Everything that `sluice` was told.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Development mode: short secrets are accepted, defaults stay on loopback.
    pub(crate) development: bool,
    /// Name of the region, reported to clients.
    pub(crate) region: String,
    /// Media worker threads; 0 = one per core.
    pub(crate) workers: usize,
    /// Each media worker stays on one core.
    pub(crate) pin_workers: bool,
    /// Peers that a room's own worker may have more than the emptiest.
    pub(crate) room_affinity: usize,
    /// API keys.
    pub(crate) keys: ApiKeys,
    /// The HTTP and WebSocket listener.
    pub(crate) http: HttpConfig,
    /// Media transport.
    pub(crate) rtc: RtcConfig,
    /// What workers do with media.
    pub(crate) media: MediaConfig,
    /// Rooms.
    pub(crate) room: RoomConfig,
    /// Named settings of rooms.
    pub(crate) room_presets: RoomPresets,
    /// Sizes that clients must respect.
    pub(crate) limit: LimitConfig,
    /// Who hears what happens in rooms.
    pub(crate) webhook: WebhookConfig,
    /// Load below which an agent worker is preferred, 0 to 1.
    pub(crate) target_load: f32,
    /// Logs.
    pub(crate) logging: LoggingConfig,
    /// The metrics listener, if any.
    pub(crate) prometheus: Option<PrometheusConfig>,
    /// Where what must outlive the process is kept, if anywhere.
    pub(crate) state_dir: Option<PathBuf>,
    /// Whether `/meet` is served.
    pub(crate) pages: bool,
    /// Port of the listener for `/debug`, if any.
    pub(crate) debug_port: Option<u16>,
    /// The Turms adapter, if it is on.
    pub(crate) turms: Option<sluice_turms::TurmsConfig>,
    /// Changed keys that change nothing, with the reason.
    pub(crate) without_effect: Vec<(&'static str, &'static str)>,
    /// What is wrong with the keys that `--disable-strict-config` ignores.
    pub(crate) unknown: Vec<String>,
}

/// Makes the typed form; `dev` is the flag, which also decides defaults.
pub(super) fn build(doc: &Document, keys: ApiKeys, dev: bool) -> Result<Config, ConfigError> {
    let development = dev || doc.bool("development");
    let turms = super::turms::build(doc, &keys)?;
    Ok(Config {
        development,
        turms,
        region: doc.text("region"),
        workers: doc.uint("workers") as usize,
        pin_workers: doc.bool("pin_workers"),
        webhook: services::webhook(doc, &keys)?,
        target_load: services::target_load(doc)?,
        room_presets: services::room_presets(doc)?,
        room_affinity: doc.uint("room_affinity") as usize,
        keys,
        http: http(doc, dev)?,
        rtc: rtc(doc, dev)?,
        media: media(doc)?,
        room: room(doc)?,
        limit: limits(doc),
        logging: logging(doc)?,
        prometheus: prometheus(doc)?,
        state_dir: Some(doc.text("state_dir")).filter(|path| !path.is_empty()).map(PathBuf::from),
        pages: if doc.is_set("pages.enabled") { doc.bool("pages.enabled") } else { development },
        debug_port: Some(doc.uint("debug_handler.port") as u16).filter(|port| *port != 0),
        without_effect: doc.without_effect(),
        unknown: doc.unknown().iter().map(ToString::to_string).collect(),
    })
}
