//! What we know about a client from its `ClientInfo`: LiveKit's per-client rules (clientinfo.go and
//! the protocol-version gates).

use sluice_proto::client_info::{Capability, Sdk};
use sluice_proto::{ClientConfigSetting, ClientConfiguration, ClientInfo, Codec, DisabledCodecs};

/// First protocol versions that understand something.
const PROTOCOL_SUBSCRIBER_PRIMARY: i32 = 3;
const PROTOCOL_SECTION_REUSE: i32 = 4;
const PROTOCOL_TRACK_UNPUBLISHED: i32 = 7;
const PROTOCOL_DISCONNECTED_ON_RESUME: i32 = 9;
const PROTOCOL_SYNC_STREAMS: i32 = 10;
const PROTOCOL_QUALITY_LOST: i32 = 11;
const PROTOCOL_IDENTITY_RECONNECT: i32 = 12;
const PROTOCOL_LEAVE_ACTION: i32 = 13;
const PROTOCOL_OK_RESPONSE: i32 = 15;
const PROTOCOL_ROOM_MOVED: i32 = 16;

/// Rust clients below this cannot decode responses that they do not know.
const PROTOCOL_RUST_UNKNOWN_RESPONSES: i32 = 10;

/// livekit-client before this ends on a `reconnect` response, which it does not know.
const JS_KNOWS_RECONNECT: [u32; 3] = [1, 6, 3];

/// The Swift SDK before this does not connect over ICE-TCP.
const SWIFT_KNOWS_ICE_TCP: [u32; 3] = [1, 0, 5];

/// A client's SDK, versions and platform.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    info: ClientInfo,
}

impl Client {
    pub(crate) fn new(info: ClientInfo) -> Self {
        Self { info }
    }

    pub(crate) fn info(&self) -> &ClientInfo {
        &self.info
    }

    pub(crate) fn capabilities(&self) -> Vec<i32> {
        let known =
            |&raw: &i32| Capability::try_from(raw).is_ok_and(|c| c != Capability::CapUnused);
        self.info.capabilities.iter().copied().filter(known).collect()
    }

    pub(crate) fn can_have_subscriber_primary(&self) -> bool {
        self.info.protocol >= PROTOCOL_SUBSCRIBER_PRIMARY
    }

    pub(crate) fn knows_track_unpublished(&self) -> bool {
        self.info.protocol >= PROTOCOL_TRACK_UNPUBLISHED
    }

    pub(crate) fn wants_disconnected_on_resume(&self) -> bool {
        self.info.protocol >= PROTOCOL_DISCONNECTED_ON_RESUME
    }

    pub(crate) fn knows_quality_lost(&self) -> bool {
        self.info.protocol >= PROTOCOL_QUALITY_LOST
    }

    /// Whether a new SID of a known identity tells the client that the old session is over.
    pub(crate) fn knows_identity_reconnect(&self) -> bool {
        self.info.protocol >= PROTOCOL_IDENTITY_RECONNECT
    }

    pub(crate) fn knows_leave_action(&self) -> bool {
        self.info.protocol >= PROTOCOL_LEAVE_ACTION
    }

    pub(crate) fn wants_ok_responses(&self) -> bool {
        self.info.protocol >= PROTOCOL_OK_RESPONSE
    }

    /// Whether the application is told that it is in another room.
    pub(crate) fn knows_room_moved(&self) -> bool {
        self.info.protocol >= PROTOCOL_ROOM_MOVED
    }

    /// Whether `request_response` and `track_subscribed` can be decoded.
    pub(crate) fn knows_request_response(&self) -> bool {
        self.info.sdk() != Sdk::Rust || self.info.protocol >= PROTOCOL_RUST_UNKNOWN_RESPONSES
    }

    /// Whether a `reconnect` response can be decoded.
    pub(crate) fn knows_reconnect(&self) -> bool {
        self.info.sdk() != Sdk::Js || self.version() >= JS_KNOWS_RECONNECT
    }

    /// Whether the client opens ICE-TCP connections.
    pub(crate) fn connects_over_tcp(&self) -> bool {
        match self.info.sdk() {
            Sdk::Go => false,
            Sdk::Swift => self.version() >= SWIFT_KNOWS_ICE_TCP,
            _ => true,
        }
    }

    /// Whether tracks become known to the application with their first packet, not by the session
    /// description.
    pub(crate) fn fires_tracks_on_packets(&self) -> bool {
        self.info.sdk() == Sdk::Go
    }

    /// Whether several tracks may share a stream id, so that the client synchronises them.
    pub(crate) fn shares_stream_ids(&self) -> bool {
        self.info.protocol >= PROTOCOL_SYNC_STREAMS && !self.is_firefox()
    }

    /// Whether the codec of a running stream may change under the client (LiveKit's rule).
    pub(crate) fn changes_codec(&self) -> bool {
        !matches!(self.info.sdk(), Sdk::Go | Sdk::Unknown)
    }

    /// Whether an inactive media section may carry another track later.
    pub(crate) fn reuses_sections(&self) -> bool {
        self.info.protocol >= PROTOCOL_SECTION_REUSE && !self.is_safari()
    }

    /// Whether redundant audio may be sent to the client and taken from it (LiveKit's rule).
    pub(crate) fn takes_red(&self) -> bool {
        !self.is_firefox() && !self.is_safari()
    }

    /// Firefox on Linux and Android ignores the order of codecs in an answer.
    pub(crate) fn ignores_codec_order(&self) -> bool {
        self.is_firefox() && self.is_linux_or_android()
    }

    /// Codecs that this client must not publish, as `kind/name` in lower case.
    pub(crate) fn unpublishable(&self) -> &'static [&'static str] {
        let xiaomi = self.info.device_model.eq_ignore_ascii_case("xiaomi 2201117ti")
            && self.info.os.eq_ignore_ascii_case("android");
        if xiaomi || self.ignores_codec_order() {
            &["video/h264"]
        } else if self.is_safari() && self.safari_version_above_18_3() {
            &["video/av1", "video/vp9"]
        } else if self.is_safari() {
            &["video/av1"]
        } else {
            &[]
        }
    }

    /// Codec restrictions, and whether to use relays only, in the form that clients read.
    pub(crate) fn configuration(&self, force_relay: bool) -> Option<ClientConfiguration> {
        let codec = |mime: &&str| Codec { mime: (*mime).to_owned(), fmtp_line: String::new() };
        let of_client = self.unpublishable();
        if of_client.is_empty() && !force_relay {
            return None;
        }
        let (both, publish): (Vec<&str>, Vec<&str>) =
            of_client.iter().partition(|mime| **mime == "video/av1");
        Some(ClientConfiguration {
            disabled_codecs: Some(DisabledCodecs {
                codecs: both.iter().map(codec).collect(),
                publish: publish.iter().map(codec).collect(),
            }),
            force_relay: match force_relay {
                true => ClientConfigSetting::Enabled.into(),
                false => ClientConfigSetting::Unset.into(),
            },
            ..ClientConfiguration::default()
        })
    }

    /// The SDK's version; parts that are missing or no number count as 0.
    fn version(&self) -> [u32; 3] {
        let mut parts = self.info.version.split('.').map(|part| part.parse().unwrap_or(0));
        std::array::from_fn(|_| parts.next().unwrap_or(0))
    }

    /// Firefox of its own engine: on iOS it is WebKit.
    fn is_firefox(&self) -> bool {
        let browser = &self.info.browser;
        browser.eq_ignore_ascii_case("firefox") || browser.eq_ignore_ascii_case("firefox mobile")
    }

    fn is_safari(&self) -> bool {
        self.info.browser.to_ascii_lowercase().contains("safari")
    }

    fn is_linux_or_android(&self) -> bool {
        let os = self.info.os.to_ascii_lowercase();
        os.contains("linux") || os.contains("android")
    }

    fn safari_version_above_18_3(&self) -> bool {
        let mut parts = self.info.browser_version.split('.').map(|part| part.parse().unwrap_or(0));
        let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        version > (18, 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser(name: &str, version: &str, os: &str) -> Client {
        Client::new(ClientInfo {
            browser: name.into(),
            browser_version: version.into(),
            os: os.into(),
            ..ClientInfo::default()
        })
    }

    #[test]
    fn safari_publishes_no_av1_and_newer_ones_no_vp9() {
        let old = browser("Safari", "17.6", "macOS");
        assert_eq!(old.unpublishable(), ["video/av1"]);
        let new = browser("Safari", "18.4", "macOS").configuration(false).unwrap();
        let disabled = new.disabled_codecs.unwrap();
        assert_eq!(disabled.codecs[0].mime, "video/av1");
        assert_eq!(disabled.publish[0].mime, "video/vp9");
    }

    #[test]
    fn firefox_publishes_h264_only_where_it_works() {
        assert_eq!(browser("Firefox", "140.0", "Linux").unpublishable(), ["video/h264"]);
        assert!(browser("Firefox", "140.0", "Mac OS X").unpublishable().is_empty());
    }

    #[test]
    fn chrome_has_no_restrictions() {
        assert!(browser("Chrome", "156", "Linux").configuration(false).is_none());
    }

    fn sdk(sdk: Sdk, version: &str, protocol: i32) -> Client {
        let version = version.into();
        Client::new(ClientInfo { sdk: sdk.into(), version, protocol, ..ClientInfo::default() })
    }

    #[test]
    fn sdk_versions_decide_about_reconnect_responses_and_ice_tcp() {
        assert!(!sdk(Sdk::Js, "1.6.2", 8).knows_reconnect());
        assert!(sdk(Sdk::Js, "1.6.3", 8).knows_reconnect());
        assert!(sdk(Sdk::Js, "2.0.0-rc.1", 12).knows_reconnect());
        assert!(sdk(Sdk::Swift, "0.9", 8).knows_reconnect());
        assert!(!sdk(Sdk::Go, "2.9.0", 16).connects_over_tcp());
        assert!(!sdk(Sdk::Swift, "1.0.4", 9).connects_over_tcp());
        assert!(sdk(Sdk::Swift, "2.0.0", 12).connects_over_tcp());
    }

    #[test]
    fn sections_and_stream_ids_are_reused_by_those_who_can() {
        assert!(!sdk(Sdk::Js, "0.5", 3).reuses_sections());
        assert!(sdk(Sdk::Js, "2.0", 12).reuses_sections());
        assert!(!browser("Safari", "18.4", "macOS").reuses_sections());
        assert!(sdk(Sdk::Js, "2.0", 10).shares_stream_ids());
        assert!(!sdk(Sdk::Js, "2.0", 9).shares_stream_ids());
    }

    #[test]
    fn who_needs_a_relay_is_told_to_use_nothing_else() {
        let forced = browser("Chrome", "156", "Linux").configuration(true).unwrap();
        assert_eq!(forced.force_relay(), ClientConfigSetting::Enabled);
    }

    #[test]
    fn firefox_on_ios_is_not_firefox() {
        assert!(browser("Firefox iOS", "140.0", "iOS").unpublishable().is_empty());
        assert_eq!(browser("Firefox Mobile", "140.0", "Android").unpublishable(), ["video/h264"]);
    }
}
