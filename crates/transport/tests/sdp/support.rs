//! Parameters, wishes, and a reader of descriptions that shares no code with the sessions.

use std::collections::HashMap;

use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::{
    CodecParameters, CodecPolicy, Limits, LocalDescription, SenderSpec, SessionParams,
    host_candidate,
};
use sluice_transport::{IceCredentials, TransportProto};

/// Every golden offer of a client, by name.
pub(crate) const OFFERS: &[(&str, &str)] = &[
    ("chromium-av-sendrecv", include_str!("golden/chromium-av-sendrecv.sdp")),
    ("chromium-av-simulcast-vp8", include_str!("golden/chromium-av-simulcast-vp8.sdp")),
    ("chromium-data-only", include_str!("golden/chromium-data-only.sdp")),
    ("chromium-placeholders", include_str!("golden/chromium-placeholders.sdp")),
    ("chromium-video-simulcast-h264", include_str!("golden/chromium-video-simulcast-h264.sdp")),
    ("chromium-video-svc-av1", include_str!("golden/chromium-video-svc-av1.sdp")),
    ("chromium-video-svc-vp9", include_str!("golden/chromium-video-svc-vp9.sdp")),
    ("firefox-av-simulcast-vp8", include_str!("golden/firefox-av-simulcast-vp8.sdp")),
    ("livekit-js-join", include_str!("golden/livekit-js-join.sdp")),
    ("livekit-node-join", include_str!("golden/livekit-node-join.sdp")),
    ("livekit-python-join", include_str!("golden/livekit-python-join.sdp")),
];

pub(crate) fn golden(name: &str) -> &'static str {
    OFFERS.iter().find(|(known, _)| *known == name).unwrap().1
}

pub(crate) fn credentials(tag: char) -> IceCredentials {
    IceCredentials { ufrag: format!("{tag}abcdefg"), pwd: "abcdefghijklmnopqrstuvwx".to_owned() }
}

pub(crate) fn params() -> SessionParams {
    SessionParams {
        local: LocalDescription {
            ice: credentials('A'),
            fingerprint: format!("sha-256 {}", ["AB"; 32].join(":")).parse().unwrap(),
            candidates: vec![
                host_candidate("127.0.0.1:7882".parse().unwrap(), TransportProto::Udp, 0),
                host_candidate("127.0.0.1:7881".parse().unwrap(), TransportProto::Tcp, 0),
            ],
        },
        receive: CodecPolicy::default(),
        send: CodecPolicy::default(),
        session_id: 7,
        reuse_sections: true,
        playout_delay: false,
        limits: Limits::default(),
    }
}

/// A track numbered `n` in the given codecs.
pub(crate) fn track(n: u32, codecs: &[(Codec, &str)]) -> SenderSpec {
    let kind = codecs[0].0.kind();
    SenderSpec {
        kind,
        codecs: codecs.iter().map(|(codec, fmtp)| CodecParameters::new(*codec, *fmtp)).collect(),
        stream_id: format!("PA_a{n}|TR_b{n}").into(),
        track_id: format!("TR_b{n}").into(),
        ssrc: 1000 + n,
        rtx_ssrc: (kind == MediaKind::Video).then_some(2000 + n),
        stereo: false,
    }
}

pub(crate) fn opus(n: u32) -> SenderSpec {
    track(n, &[(Codec::Opus, "minptime=10;useinbandfec=1")])
}

pub(crate) fn vp8(n: u32) -> SenderSpec {
    track(n, &[(Codec::Vp8, "")])
}

/// A description cut into lines.
pub(crate) struct Sdp {
    pub(crate) session: Vec<String>,
    pub(crate) sections: Vec<Section>,
}

pub(crate) struct Section {
    pub(crate) lines: Vec<String>,
}

impl Sdp {
    pub(crate) fn read(text: &str) -> Self {
        let mut sdp = Self { session: Vec::new(), sections: Vec::new() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with("m=") {
                sdp.sections.push(Section { lines: Vec::new() });
            }
            match sdp.sections.last_mut() {
                Some(section) => section.lines.push(line.to_owned()),
                None => sdp.session.push(line.to_owned()),
            }
        }
        sdp
    }

    pub(crate) fn mids(&self) -> Vec<&str> {
        self.sections.iter().map(Section::mid).collect()
    }

    pub(crate) fn section(&self, mid: &str) -> &Section {
        self.sections.iter().find(|section| section.mid() == mid).unwrap()
    }

    /// Mids of `a=group:BUNDLE`.
    pub(crate) fn bundle(&self) -> Vec<&str> {
        let group = self.session.iter().find_map(|line| line.strip_prefix("a=group:BUNDLE "));
        group.map(|mids| mids.split(' ').collect()).unwrap_or_default()
    }

    /// What must hold of every description that we write.
    pub(crate) fn assert_well_formed(&self) {
        assert!(self.session.contains(&"a=ice-lite".to_owned()));
        let in_use: Vec<&str> =
            self.sections.iter().filter(|it| !it.is_rejected()).map(Section::mid).collect();
        assert_eq!(self.bundle(), in_use, "every section in use is bundled, no other is");
        let mut meaning: HashMap<String, String> = HashMap::new();
        let mut sources: Vec<&str> = Vec::new();
        let mut msids: Vec<&str> = Vec::new();
        for section in self.sections.iter().filter(|section| !section.is_rejected()) {
            for key in ["ice-ufrag:", "ice-pwd:", "fingerprint:sha-256 ", "setup:", "mid:"] {
                assert_eq!(section.values(key).len(), 1, "{key} in {}", section.mid());
            }
            if !section.is_media() {
                continue;
            }
            assert!(section.has("a=rtcp-mux") && section.has("a=rtcp-rsize"));
            section.assert_payload_types(&mut meaning);
            let ids = section.values("extmap:");
            for entry in &ids {
                let (id, uri) = entry.split_once(' ').unwrap();
                let known = meaning.entry(format!("ext {id}")).or_insert_with(|| uri.to_owned());
                assert_eq!(known, uri, "extension id {id} has one meaning");
            }
            for source in section.values("ssrc:") {
                let ssrc = source.split(' ').next().unwrap();
                assert!(!sources.contains(&ssrc), "SSRC {ssrc} stands once");
                sources.push(ssrc);
            }
            if let Some(msid) = section.values("msid:").first() {
                assert!(!msids.contains(msid), "msid {msid} stands once");
                msids.push(msid);
                assert_eq!(section.direction(), "sendonly");
            }
        }
    }
}

impl Section {
    pub(crate) fn has(&self, line: &str) -> bool {
        self.lines.iter().any(|it| it == line)
    }

    /// Values of `a=` lines that start with `prefix`.
    pub(crate) fn values(&self, prefix: &str) -> Vec<&str> {
        let lines = self.lines.iter();
        lines.filter_map(|line| line.strip_prefix("a=")?.strip_prefix(prefix)).collect()
    }

    pub(crate) fn mid(&self) -> &str {
        self.values("mid:")[0]
    }

    fn m_line(&self) -> Vec<&str> {
        self.lines[0][2..].split(' ').collect()
    }

    pub(crate) fn media(&self) -> &str {
        self.m_line()[0]
    }

    pub(crate) fn is_media(&self) -> bool {
        self.media() != "application"
    }

    pub(crate) fn is_rejected(&self) -> bool {
        self.m_line()[1] == "0" && !self.has("a=bundle-only")
    }

    pub(crate) fn formats(&self) -> Vec<&str> {
        self.m_line()[3..].to_vec()
    }

    pub(crate) fn direction(&self) -> &str {
        let known = ["sendrecv", "sendonly", "recvonly", "inactive"];
        let lines = self.lines.iter().filter_map(|line| line.strip_prefix("a="));
        lines.into_iter().find(|line| known.contains(line)).unwrap_or("sendrecv")
    }

    /// `a=rtpmap` value of a payload type, without the number.
    pub(crate) fn rtpmap(&self, pt: &str) -> Option<&str> {
        self.values("rtpmap:").iter().find_map(|it| it.strip_prefix(&format!("{pt} ")))
    }

    pub(crate) fn fmtp(&self, pt: &str) -> Option<&str> {
        self.values("fmtp:").iter().find_map(|it| it.strip_prefix(&format!("{pt} ")))
    }

    pub(crate) fn feedback(&self, pt: &str) -> Vec<&str> {
        let values = self.values("rtcp-fb:");
        values.into_iter().filter_map(|it| it.strip_prefix(&format!("{pt} "))).collect()
    }

    /// Encoding names in the order of the `m=` line, RTX left out.
    pub(crate) fn codecs(&self) -> Vec<&str> {
        let names = self.formats().into_iter().filter_map(|pt| self.rtpmap(pt));
        names.map(|map| map.split('/').next().unwrap()).filter(|name| *name != "rtx").collect()
    }

    /// One payload type means one format, here and in the other sections; RTX repairs something.
    fn assert_payload_types(&self, meaning: &mut HashMap<String, String>) {
        let formats = self.formats();
        assert!(!formats.is_empty());
        for pt in &formats {
            let map = self.rtpmap(pt).unwrap_or_else(|| panic!("no rtpmap for {pt}"));
            let mut text = map.to_owned();
            // Opus says per section what each track wants; the format is the same.
            if !map.starts_with("opus") {
                text.push_str(self.fmtp(pt).unwrap_or_default());
            }
            let known = meaning.entry((*pt).to_owned()).or_insert_with(|| text.clone());
            assert_eq!(*known, text, "payload type {pt} has one meaning");
            if map.starts_with("rtx/") {
                let primary = self.fmtp(pt).unwrap().strip_prefix("apt=").unwrap();
                assert!(formats.contains(&primary), "RTX {pt} repairs {primary}");
            }
        }
        let mut unique = formats.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), formats.len());
    }
}

/// Compares with a golden file of ours, or writes it when `UPDATE_GOLDEN` is set.
pub(crate) fn assert_golden(name: &str, text: &str) {
    let path = format!("{}/tests/sdp/golden/{name}.sdp", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text.replace("\r\n", "\n"), expected.replace("\r\n", "\n"), "{path}");
}
