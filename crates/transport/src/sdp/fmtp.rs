//! `a=fmtp` values (RFC 8866 §6.15): look-up of parameters and the per-codec rules by which two
//! formats are compared.

use std::sync::Arc;

use sluice_rtp::codec::Codec;

/// The value of a parameter; keys compare without case.
pub(super) fn parameter<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(key).then(|| value.trim())
    })
}

/// Appends `;key=value` unless the key is already present.
pub(super) fn extend(fmtp: &mut Arc<str>, key: &str, value: &str) {
    if parameter(fmtp, key).is_some() {
        return;
    }
    let separator = if fmtp.is_empty() { "" } else { ";" };
    *fmtp = format!("{fmtp}{separator}{key}={value}").into();
}

/// H.264 profiles as far as they differ for decoders (RFC 6184 §8.1, table 5; libwebrtc
/// `h264_profile_level_id.cc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    High444,
}

/// Profile of a format; Constrained Baseline when it names none (RFC 6184 §8.1), `None` when what
/// it names is unknown.
pub(super) fn h264_profile(fmtp: &str) -> Option<H264Profile> {
    let Some(text) = parameter(fmtp, "profile-level-id") else {
        return Some(H264Profile::ConstrainedBaseline);
    };
    if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let value = u32::from_str_radix(text, 16).ok()?;
    let (idc, iop) = ((value >> 16) as u8, (value >> 8) as u8);
    // constraint_set0..2 are the three top bits of profile_iop.
    match (idc, iop) {
        (0x42, iop) if iop & 0x4f == 0x40 => Some(H264Profile::ConstrainedBaseline),
        (0x4d, iop) if iop & 0x8f == 0x80 => Some(H264Profile::ConstrainedBaseline),
        (0x58, iop) if iop & 0xcf == 0xc0 => Some(H264Profile::ConstrainedBaseline),
        (0x42, iop) if iop & 0x4f == 0 => Some(H264Profile::Baseline),
        (0x58, iop) if iop & 0xcf == 0x80 => Some(H264Profile::Baseline),
        (0x4d, iop) if iop & 0xaf == 0 => Some(H264Profile::Main),
        (0x64, 0x00) => Some(H264Profile::High),
        (0x64, 0x0c) => Some(H264Profile::ConstrainedHigh),
        (0xf4, 0x00) => Some(H264Profile::High444),
        _ => None,
    }
}

impl H264Profile {
    /// Whether a decoder of profile `self` decodes every stream of profile `stream`.
    fn decodes(self, stream: Self) -> bool {
        use H264Profile::{Baseline, ConstrainedBaseline, ConstrainedHigh, High, High444, Main};
        self == stream
            || match stream {
                ConstrainedBaseline => true,
                Main => matches!(self, High | High444),
                ConstrainedHigh => matches!(self, High | High444),
                High => self == High444,
                Baseline | High444 => false,
            }
    }
}

/// `packetization-mode`, 0 when absent (RFC 6184 §8.1).
pub(super) fn packetization_mode(fmtp: &str) -> u8 {
    parameter(fmtp, "packetization-mode").and_then(|mode| mode.parse().ok()).unwrap_or(0)
}

/// Whether two formats of one codec are the same configuration. Levels are not compared: they
/// bound what a receiver can do, and congestion control stays far below.
pub(super) fn same_format(codec: Codec, a: &str, b: &str) -> bool {
    let same = |key: &str, default: &str| {
        let value = |fmtp| parameter(fmtp, key).unwrap_or(default);
        value(a).eq_ignore_ascii_case(value(b))
    };
    match codec {
        Codec::H264 => {
            packetization_mode(a) == packetization_mode(b)
                && h264_profile(a).is_some()
                && h264_profile(a).map(plain) == h264_profile(b).map(plain)
        }
        Codec::Vp9 => same("profile-id", "0"),
        // AV1 RTP specification §7.2.
        Codec::Av1 => same("profile", "0"),
        // RFC 7798 §7.1.
        Codec::H265 => same("profile-id", "1") && same("tier-flag", "0") && same("tx-mode", "SRST"),
        _ => true,
    }
}

/// High and Constrained High are one format to a forwarder.
fn plain(profile: H264Profile) -> H264Profile {
    if profile == H264Profile::ConstrainedHigh { H264Profile::High } else { profile }
}

/// How well a receiver that offers `receiver` fits a stream of format `stream`; 0 is exact, more
/// is worse, `None` cannot play it.
pub(super) fn fitness(codec: Codec, stream: &str, receiver: &str) -> Option<u8> {
    if same_format(codec, stream, receiver) {
        return Some(0);
    }
    if codec != Codec::H264 {
        return None;
    }
    let (ours, theirs) = (packetization_mode(stream), packetization_mode(receiver));
    // Mode 1 receivers take the single NAL unit packets of mode 0 (RFC 6184 §6.3); the reverse fails.
    if ours > theirs || theirs > 1 {
        return None;
    }
    let profile = if h264_profile(receiver)?.decodes(h264_profile(stream)?) { 1 } else { 3 };
    Some(profile + u8::from(ours != theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CBP: &str = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";

    #[test]
    fn parameters_are_found_in_any_case_and_spacing() {
        assert_eq!(parameter("a=1; B = 2 ;c", "b"), Some("2"));
        assert_eq!(parameter("a=1", "aa"), None);
        assert_eq!(parameter("", "a"), None);
        assert_eq!(parameter("111/111", "a"), None);
    }

    #[test]
    fn a_parameter_is_appended_once() {
        let mut fmtp = Arc::from("minptime=10");
        extend(&mut fmtp, "usedtx", "1");
        extend(&mut fmtp, "usedtx", "1");
        assert_eq!(&*fmtp, "minptime=10;usedtx=1");
        let mut empty = Arc::from("");
        extend(&mut empty, "usedtx", "1");
        assert_eq!(&*empty, "usedtx=1");
    }

    #[test]
    fn h264_profiles_follow_the_constraint_flags() {
        let profile = |id: &str| h264_profile(&format!("profile-level-id={id}"));
        assert_eq!(profile("42e01f"), Some(H264Profile::ConstrainedBaseline));
        assert_eq!(profile("42c02a"), Some(H264Profile::ConstrainedBaseline));
        assert_eq!(profile("4de01f"), Some(H264Profile::ConstrainedBaseline));
        assert_eq!(profile("42001F"), Some(H264Profile::Baseline));
        assert_eq!(profile("4d001f"), Some(H264Profile::Main));
        assert_eq!(profile("640c1f"), Some(H264Profile::ConstrainedHigh));
        assert_eq!(profile("640032"), Some(H264Profile::High));
        assert_eq!(profile("f4001f"), Some(H264Profile::High444));
        assert_eq!(profile("+2e01f"), None);
        assert_eq!(profile("99001f"), None);
        assert_eq!(profile(""), None);
        assert_eq!(h264_profile(""), Some(H264Profile::ConstrainedBaseline));
    }

    #[test]
    fn baseline_is_not_constrained_baseline_and_modes_must_agree() {
        let same = |other: &str| same_format(Codec::H264, CBP, other);
        assert!(same("packetization-mode=1;profile-level-id=42e034"));
        assert!(!same("packetization-mode=1;profile-level-id=42001f"));
        assert!(!same("packetization-mode=0;profile-level-id=42e01f"));
        assert!(!same("packetization-mode=1;profile-level-id=zzzzzz"));
    }

    #[test]
    fn a_receiver_of_a_larger_profile_plays_constrained_baseline() {
        let fit = |receiver: &str| fitness(Codec::H264, CBP, receiver);
        assert_eq!(fit("packetization-mode=1;profile-level-id=42e01f"), Some(0));
        assert_eq!(fit("packetization-mode=1;profile-level-id=4d001f"), Some(1));
        assert_eq!(fit("packetization-mode=0;profile-level-id=42e01f"), None);
        let high = "packetization-mode=0;profile-level-id=640032";
        assert_eq!(fitness(Codec::H264, high, CBP), Some(4));
        assert_eq!(fitness(Codec::H264, CBP, "packetization-mode=1;profile-level-id=00"), None);
    }

    #[test]
    fn profiles_of_vp9_and_av1_default_to_zero() {
        assert!(same_format(Codec::Vp9, "", "profile-id=0"));
        assert!(!same_format(Codec::Vp9, "profile-id=2", ""));
        assert!(same_format(Codec::Av1, "level-idx=5;profile=0;tier=0", ""));
        assert!(!same_format(Codec::Av1, "profile=1", ""));
        assert!(same_format(Codec::H265, "level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST", ""));
    }
}
