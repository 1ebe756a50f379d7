//! The listener for metrics: the section `prometheus`.

use super::{ConfigError, Document, Secret};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct PrometheusConfig {
    /// Port of the metrics listener.
    pub(crate) port: u16,
    /// Name and password of basic authentication.
    pub(crate) login: Option<(String, Secret)>,
}

/// The section, with `prometheus_port` of older configurations; `None` without a port.
pub(super) fn prometheus(doc: &Document) -> Result<Option<PrometheusConfig>, ConfigError> {
    let port = match doc.uint("prometheus.port") {
        0 => doc.uint("prometheus_port"),
        port => port,
    };
    let (username, password) = (doc.text("prometheus.username"), doc.text("prometheus.password"));
    if username.is_empty() != password.is_empty() {
        return Err(ConfigError::Conflict(
            "`prometheus.username` and `prometheus.password` belong together: set both or neither"
                .into(),
        ));
    }
    let login = (!username.is_empty()).then(|| (username, Secret::new(password)));
    Ok((port != 0).then_some(PrometheusConfig { port: port as u16, login }))
}
