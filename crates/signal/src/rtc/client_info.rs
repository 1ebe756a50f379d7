//! Who connects: `ClientInfo` from the query (v0), completed from the request's headers.
//!
//! SDKs that live in a browser (and unknown ones) often leave browser, system and device out; then
//! the `User-Agent` tells. The rules are few on purpose: the server acts on the browser's name, its
//! version, the system, and on OBS.

use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use sluice_proto::ClientInfo;
use sluice_proto::client_info::{Capability, Sdk};

use super::query::Query;

/// Headers in which proxies name the client, best first.
const ADDRESS_HEADERS: [&str; 3] = ["cf-connecting-ip", "x-forwarded-for", "x-real-ip"];

/// The `ClientInfo` of a v0 query.
pub(super) fn from_query(query: &Query<'_>) -> ClientInfo {
    let text = |name| query.text(name).to_owned();
    let capabilities = query.text("capabilities").split(',');
    let capabilities = capabilities.filter_map(|name| Capability::from_str_name(name.trim()));
    ClientInfo {
        sdk: sdk_from_name(query.text("sdk")).into(),
        version: text("version"),
        protocol: query.integer("protocol"),
        os: text("os"),
        os_version: text("os_version"),
        device_model: text("device_model"),
        browser: text("browser"),
        browser_version: text("browser_version"),
        network: text("network"),
        client_protocol: query.integer("client_protocol"),
        capabilities: capabilities.map(i32::from).collect(),
        ..ClientInfo::default()
    }
}

/// Fills the address, and what the client left out of its description of itself.
pub(super) fn complete(info: &mut ClientInfo, headers: &HeaderMap, peer: Option<SocketAddr>) {
    info.address = address(headers, peer);
    let in_browser =
        matches!(info.sdk(), Sdk::Js | Sdk::ReactNative | Sdk::Flutter | Sdk::Unity | Sdk::Unknown);
    let incomplete = info.browser.is_empty() || info.os.is_empty() || info.device_model.is_empty();
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    if let (true, true, Some(agent)) = (in_browser, incomplete, agent) {
        let agent = UserAgent::parse(agent);
        fill(&mut info.browser, agent.browser);
        fill(&mut info.browser_version, agent.browser_version);
        fill(&mut info.os, agent.os);
        fill(&mut info.os_version, agent.os_version);
        fill(&mut info.device_model, agent.device);
    }
}

fn fill(field: &mut String, value: impl Into<String>) {
    if field.is_empty() {
        *field = value.into();
    }
}

fn address(headers: &HeaderMap, peer: Option<SocketAddr>) -> String {
    let named = ADDRESS_HEADERS.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
    let named = named.map(str::trim).find(|address| !address.is_empty());
    match (named, peer) {
        (Some(address), _) => address.to_owned(),
        (None, Some(peer)) => peer.ip().to_string(),
        (None, None) => String::new(),
    }
}

fn sdk_from_name(name: &str) -> Sdk {
    match name {
        "js" => Sdk::Js,
        "ios" | "swift" => Sdk::Swift,
        "android" => Sdk::Android,
        "flutter" => Sdk::Flutter,
        "go" => Sdk::Go,
        "unity" => Sdk::Unity,
        "reactnative" => Sdk::ReactNative,
        "rust" => Sdk::Rust,
        "python" => Sdk::Python,
        "cpp" => Sdk::Cpp,
        "unityweb" => Sdk::UnityWeb,
        "node" => Sdk::Node,
        "esp32" => Sdk::Esp32,
        _ => Sdk::Unknown,
    }
}

/// What a `User-Agent` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct UserAgent {
    browser: &'static str,
    browser_version: String,
    os: &'static str,
    os_version: String,
    device: &'static str,
}

/// Product token to browser name. Order matters: nearly every browser also claims to be another.
const BROWSERS: [(&str, &str); 11] = [
    ("OBS/", "OBS Studio"),
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("FxiOS/", "Firefox iOS"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome Mobile iOS"),
    ("HeadlessChrome/", "HeadlessChrome"),
    ("Chrome/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Version/", "Safari"),
];

impl UserAgent {
    fn parse(agent: &str) -> Self {
        let (os, os_version) = system(agent);
        let found = BROWSERS.iter().find(|(token, _)| agent.contains(token));
        let (browser, browser_version) = match found {
            Some(("Version/", _)) if !agent.contains("Safari/") => ("", String::new()),
            Some(("Version/", _)) if agent.contains("Mobile/") => {
                ("Mobile Safari", version_after(agent, "Version/"))
            }
            Some(&(token, name)) => (name, version_after(agent, token)),
            None => ("", String::new()),
        };
        let device = match os {
            "iOS" if agent.contains("iPad") => "iPad",
            "iOS" => "iPhone",
            "Mac OS X" => "Mac",
            _ => "",
        };
        Self { browser, browser_version, os, os_version, device }
    }
}

fn system(agent: &str) -> (&'static str, String) {
    if agent.contains("iPhone") || agent.contains("iPad") {
        let version = version_after(agent, " OS ");
        return ("iOS", version);
    }
    let known = [
        ("Windows NT ", "Windows"),
        ("Mac OS X ", "Mac OS X"),
        ("Android ", "Android"),
        ("CrOS ", "Chrome OS"),
        ("Linux", "Linux"),
    ];
    let found = known.iter().find(|(token, _)| agent.contains(token));
    found.map_or(("", String::new()), |&(token, name)| (name, version_after(agent, token)))
}

/// Digits, dots and (on Apple systems) underscores that follow a token.
fn version_after(agent: &str, token: &str) -> String {
    let Some(start) = agent.find(token).map(|at| at + token.len()) else { return String::new() };
    let version = agent[start..].chars();
    let version = version.take_while(|c| c.is_ascii_digit() || matches!(c, '.' | '_'));
    version.map(|c| if c == '_' { '.' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const CHROME_LINUX: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like \
                                Gecko) Chrome/156.0.0.0 Safari/537.36";
    const SAFARI_IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) \
                                 AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 \
                                 Mobile/15E148 Safari/604.1";
    const FIREFOX_ANDROID: &str =
        "Mozilla/5.0 (Android 15; Mobile; rv:141.0) Gecko/141.0 Firefox/141.0";
    const OBS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like \
                       Gecko) Chrome/127.0.6533.120 Safari/537.36 OBS/31.0.0";

    fn parsed(agent: &str) -> (&'static str, String, &'static str) {
        let agent = UserAgent::parse(agent);
        (agent.browser, agent.browser_version, agent.os)
    }

    #[test]
    fn browsers_are_told_apart() {
        assert_eq!(parsed(CHROME_LINUX), ("Chrome", "156.0.0.0".into(), "Linux"));
        assert_eq!(parsed(SAFARI_IPHONE), ("Mobile Safari", "18.5".into(), "iOS"));
        assert_eq!(parsed(FIREFOX_ANDROID), ("Firefox", "141.0".into(), "Android"));
        assert_eq!(parsed(OBS), ("OBS Studio", "31.0.0".into(), "Windows"));
        assert_eq!(parsed("curl/8.0"), ("", String::new(), ""));
    }

    #[test]
    fn what_the_client_says_of_itself_wins() {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(FIREFOX_ANDROID));
        let mut info = ClientInfo { browser: "Custom".into(), ..Default::default() };
        complete(&mut info, &headers, None);
        assert_eq!((info.browser.as_str(), info.os.as_str()), ("Custom", "Android"));

        let mut native = ClientInfo { sdk: Sdk::Python.into(), ..Default::default() };
        complete(&mut native, &headers, None);
        assert_eq!(native.browser, "");
    }

    #[test]
    fn a_proxy_names_the_client() {
        let peer = Some(SocketAddr::from(([127, 0, 0, 1], 9)));
        let mut headers = HeaderMap::new();
        assert_eq!(address(&headers, peer), "127.0.0.1");
        headers.insert("x-real-ip", HeaderValue::from_static("192.0.2.1"));
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.2, 10.0.0.1"));
        assert_eq!(address(&headers, peer), "192.0.2.2, 10.0.0.1");
    }

    #[test]
    fn capabilities_and_sdks_are_read_by_name() {
        let query =
            Query::parse(Some("sdk=node&capabilities=CAP_PACKET_TRAILER,CAP_NEW&protocol=17"));
        let info = from_query(&query);
        assert_eq!(info.sdk(), Sdk::Node);
        assert_eq!(info.capabilities, [i32::from(Capability::CapPacketTrailer)]);
        assert_eq!(info.protocol, 17);
    }
}
