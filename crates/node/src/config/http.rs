//! The HTTP and WebSocket listener: `port`, `bind_addresses` and the section `http`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::document::parse_duration;
use super::error::invalid;
use super::{ConfigError, Document};
use crate::http::HttpLimits;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct HttpConfig {
    /// Where to listen, at least one.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What clients may take up before they are known.
    pub(crate) limits: HttpLimits,
}

/// `dev`: without an address only this machine is served.
pub(super) fn http(doc: &Document, dev: bool) -> Result<HttpConfig, ConfigError> {
    let port = doc.uint("port") as u16;
    let listed = doc.list("bind_addresses");
    let mut addresses = Vec::new();
    for text in &listed {
        addresses.extend(bind_address(text, port)?);
    }
    if listed.is_empty() {
        let everywhere = if dev { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        addresses.push(SocketAddr::from((everywhere, port)));
    }
    Ok(HttpConfig { addresses, limits: limits(doc)? })
}

fn limits(doc: &Document) -> Result<HttpLimits, ConfigError> {
    let timeout = |path: &str| {
        parse_duration(&doc.text(path))
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| invalid(path, "a duration above zero, such as 10s"))
    };
    Ok(HttpLimits {
        header_timeout: timeout("http.header_timeout")?,
        idle_timeout: timeout("http.idle_timeout")?,
        body_timeout: timeout("http.body_timeout")?,
        max_connections: match doc.uint("http.max_connections") {
            0 => usize::MAX,
            most => usize::try_from(most).unwrap_or(usize::MAX),
        },
    })
}

/// LiveKit takes addresses, `localhost`, and the empty word for every interface.
fn bind_address(text: &str, port: u16) -> Result<Vec<SocketAddr>, ConfigError> {
    if text.is_empty() {
        return Ok(vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))]);
    }
    if text == "localhost" {
        return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().map(|ip| vec![SocketAddr::from((ip, port))]).map_err(|_| {
        invalid("bind_addresses", &format!("IP addresses without a port; `{text}` is not one"))
    })
}
