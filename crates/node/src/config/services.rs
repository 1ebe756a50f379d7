//! Webhooks, agents and room presets: the sections about what surrounds the rooms.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_proto::{RoomConfiguration, descriptor_of, json};
use sluice_signal::{EVENT_NAMES, EventFilter, WebhookConfig, token};

use super::document::parse_duration;
use super::error::{invalid, unknown};
use super::{ApiKeys, ConfigError, Document};

/// Named settings of rooms.
pub(crate) type RoomPresets = BTreeMap<String, RoomConfiguration>;

/// The `webhook` section, checked against the API keys.
pub(super) fn webhook(doc: &Document, keys: &ApiKeys) -> Result<WebhookConfig, ConfigError> {
    let defaults = WebhookConfig::default();
    let config = WebhookConfig {
        urls: doc.list("webhook.urls"),
        api_key: doc.text("webhook.api_key"),
        filter: EventFilter {
            include: event_names(doc, "webhook.filter_params.include_events")?,
            exclude: event_names(doc, "webhook.filter_params.exclude_events")?,
        },
        max_age: parse_duration(&doc.text("webhook.resource_url_notifier.max_age"))
            .filter(|age| !age.is_zero())
            .unwrap_or(defaults.max_age),
        max_depth: match doc.uint("webhook.resource_url_notifier.max_depth") {
            0 => defaults.max_depth,
            depth => depth as usize,
        },
        full_room: doc.bool("room.enable_full_room_in_webhooks"),
        ..defaults
    };
    let keys = token::ApiKeys::new(keys.iter().map(|(key, secret)| (key, secret.expose())));
    config.check(&keys).map_err(|error| ConfigError::Conflict(error.to_string()))?;
    Ok(config)
}

/// Names of events; a wrong one would silence webhooks without a word.
fn event_names(doc: &Document, path: &str) -> Result<Vec<String>, ConfigError> {
    let names = doc.list(path);
    match names.iter().find(|name| !EVENT_NAMES.contains(&name.as_str())) {
        Some(name) => {
            let known = EVENT_NAMES.join(", ");
            Err(invalid(path, &format!("names of events ({known}); `{name}` is not one")))
        }
        None => Ok(names),
    }
}

/// `agents.target_load`.
pub(super) fn target_load(doc: &Document) -> Result<f32, ConfigError> {
    let path = "agents.target_load";
    let load = match doc.block(path) {
        None => return Ok(0.7),
        Some(value) => value.as_f64().unwrap_or(f64::NAN),
    };
    if load > 0.0 && load <= 1.0 {
        Ok(load as f32)
    } else {
        Err(invalid(path, "a number above 0 and up to 1"))
    }
}

/// `room.room_configurations`: presets by name, in the fields of LiveKit's `RoomConfiguration`.
pub(super) fn room_presets(doc: &Document) -> Result<RoomPresets, ConfigError> {
    let path = "room.room_configurations";
    let presets = match doc.block(path) {
        None | Some(Value::Null) => return Ok(RoomPresets::new()),
        Some(Value::Object(presets)) => presets,
        Some(_) => return Err(invalid(path, "presets by name")),
    };
    presets
        .iter()
        .map(|(name, preset)| Ok((name.clone(), room_preset(path, name, preset)?)))
        .collect()
}

fn room_preset(path: &str, name: &str, preset: &Value) -> Result<RoomConfiguration, ConfigError> {
    let path = format!("{path}.{name}");
    let fields = preset.as_object().ok_or_else(|| invalid(&path, "a room configuration"))?;
    let descriptor = descriptor_of::<RoomConfiguration>();
    let known = |field: &str| {
        descriptor.as_ref().is_some_and(|message| {
            message
                .get_field_by_name(field)
                .or_else(|| message.get_field_by_json_name(field))
                .is_some()
        })
    };
    if let Some(field) = fields.keys().find(|field| !known(field)) {
        return Err(unknown(format!("{path}.{field}")));
    }
    let config: RoomConfiguration = json::from_json(preset.to_string().as_bytes())
        .map_err(|error| invalid(&path, &format!("a room configuration: {error}")))?;
    if config.egress.is_some() {
        return Err(ConfigError::Conflict(format!(
            "`{path}.egress` cannot be used: recording is not available yet, remove it"
        )));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, Environment, Flags, load};

    const KEYS: &str = "keys:\n  k: 0123456789abcdef0123456789abcdef\n";

    fn load_yaml(yaml: &str) -> Result<Config, ConfigError> {
        let flags = Flags { config_body: Some(format!("{KEYS}{yaml}")), ..Flags::default() };
        load(&flags, &Environment::new())
    }

    fn error_of(yaml: &str) -> String {
        load_yaml(yaml).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn livekits_webhook_section_is_understood() {
        let config = load_yaml(
            "webhook:\n  api_key: k\n  urls: [https://x.test/hook]\n  filter_params:\n    \
             exclude_events: [track_published]\n  resource_url_notifier:\n    max_age: 10s\n    \
             max_depth: 5\nroom:\n  enable_full_room_in_webhooks: true\n",
        )
        .unwrap();
        assert_eq!(config.webhook.urls, ["https://x.test/hook"]);
        assert_eq!((config.webhook.max_age.as_secs(), config.webhook.max_depth), (10, 5));
        assert!(config.webhook.full_room && !config.webhook.filter.allows("track_published"));
    }

    #[test]
    fn webhooks_that_could_never_be_sent_are_refused_at_start() {
        let url = "urls: [https://x.test]";
        assert!(error_of(&format!("webhook: {{{url}}}")).contains("needs `webhook.api_key`"));
        let error = error_of(&format!("webhook: {{{url}, api_key: other}}"));
        assert!(error.contains("`other`"), "{error}");
        let error = error_of("webhook: {urls: [x.test], api_key: k}");
        assert!(error.contains("`x.test`"), "{error}");
        let error = error_of("webhook: {filter_params: {include_events: [room_start]}}");
        assert!(error.contains("`room_start`"), "{error}");
    }

    #[test]
    fn room_presets_have_the_fields_of_a_room_configuration() {
        let config = load_yaml(
            "room:\n  room_configurations:\n    meeting:\n      empty_timeout: 30\n      agents:\n        \
             - agent_name: scribe\n",
        )
        .unwrap();
        let preset = &config.room_presets["meeting"];
        assert_eq!((preset.empty_timeout, preset.agents[0].agent_name.as_str()), (30, "scribe"));
        let error = error_of("room: {room_configurations: {a: {empty_timeouts: 3}}}");
        assert!(error.contains("room.room_configurations.a.empty_timeouts"), "{error}");
        assert!(error_of("room: {room_configurations: {a: {egress: {}}}}").contains("recording"));
    }

    #[test]
    fn target_load_is_a_share() {
        assert!((load_yaml("agents: {target_load: 0.5}").unwrap().target_load - 0.5).abs() < 1e-6);
        assert!(error_of("agents: {target_load: 2}").contains("agents.target_load"));
    }
}
