//! The line level: bounds a remote description, drops the lines that WebRTC has no use for, and
//! hands the rest to `rtc-sdp`. `rtc-sdp` knows no bounds and refuses harmless liberties (values of
//! `b=`, the order of lines, large numbers in `o=`), so that only `m=` and `a=` reach it.

use std::io::Cursor;

use rtc_sdp::description::session::SessionDescription;

use super::error::SdpError;
use super::params::Limits;

/// What the session level starts with for the parser. Of the remote's own lines only `v=0` is
/// required: `o=` and `t=` say nothing to WebRTC, `c=` is always a placeholder, and `b=` an upper
/// bound that congestion control supersedes.
const HEADER: &str = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

/// Bytes of a line quoted in an error.
const QUOTED_BYTES: usize = 80;

/// Checks `sdp` against `limits` and parses it.
pub(super) fn parse(sdp: &str, limits: &Limits) -> Result<SessionDescription, SdpError> {
    let text = normalise(sdp, limits)?;
    SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes()))
        .map_err(|error| SdpError::Syntax(quote(&error.to_string())))
}

fn normalise(sdp: &str, limits: &Limits) -> Result<String, SdpError> {
    if sdp.len() > limits.bytes {
        return Err(SdpError::LimitExceeded("bytes"));
    }
    let mut text = String::with_capacity(HEADER.len() + sdp.len());
    text.push_str(HEADER);
    let (mut lines, mut sections, mut attributes) = (0, 0, 0);
    for line in sdp.split(['\r', '\n']).filter(|line| !line.is_empty()) {
        if lines == 0 && line.trim_end() != "v=0" {
            return Err(SdpError::Syntax(format!("starts with {}", quote(line))));
        }
        lines += 1;
        match line.as_bytes() {
            [b'm', b'=', ..] => {
                sections += 1;
                attributes = 0;
            }
            [b'a', b'=', ..] => attributes += 1,
            [b'a'..=b'z', b'=', ..] => {}
            _ => return Err(SdpError::Syntax(format!("not a line of SDP: {}", quote(line)))),
        }
        check(lines, limits.lines, "lines")?;
        check(line.len(), limits.line_bytes, "line length")?;
        check(sections, limits.sections, "media sections")?;
        check(attributes, limits.attributes, "attributes of a section")?;
        // Control characters would let a value break out of its line when it is echoed.
        if line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(SdpError::Syntax(format!("control character in {}", quote(line))));
        }
        if line.starts_with(['m', 'a']) {
            text.push_str(line);
            text.push_str("\r\n");
        }
    }
    Ok(text)
}

fn check(count: usize, limit: usize, name: &'static str) -> Result<(), SdpError> {
    if count > limit { Err(SdpError::LimitExceeded(name)) } else { Ok(()) }
}

/// A short printable excerpt for an error message.
fn quote(text: &str) -> String {
    let mut end = text.len().min(QUOTED_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{:?}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";

    #[test]
    fn a_line_without_a_type_is_refused() {
        let error = parse("v=0\r\nhello\r\n", &Limits::default()).unwrap_err();
        assert!(matches!(error, SdpError::Syntax(_)), "{error}");
    }

    #[test]
    fn lines_that_mean_nothing_to_webrtc_do_not_disturb() {
        let sdp = format!(
            "{MINIMAL}k=clear:x\r\nu=not a uri\r\nb=AS:abc\r\nc=XX\r\no=- -1 x\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 0\r\ni=t\r\nb=TIAS:x\r\na=mid:0\r\n"
        );
        let parsed = parse(&sdp, &Limits::default()).unwrap();
        assert_eq!(parsed.media_descriptions.len(), 1);
        assert_eq!(parsed.media_descriptions[0].attributes.len(), 1);
    }

    #[test]
    fn a_description_starts_with_its_version() {
        for text in ["v=1\r\ns=-\r\n", "s=-\r\nv=0\r\n"] {
            assert!(matches!(parse(text, &Limits::default()), Err(SdpError::Syntax(_))));
        }
        assert!(parse("v=0\n", &Limits::default()).is_ok());
    }

    #[test]
    fn bare_line_feeds_and_blank_lines_are_accepted() {
        let sdp = MINIMAL.replace("\r\n", "\n\n");
        assert!(parse(&sdp, &Limits::default()).is_ok());
    }

    #[test]
    fn every_bound_is_enforced_by_name() {
        let limits = Limits { lines: 8, sections: 1, attributes: 2, ..Limits::default() };
        let media = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n";
        for (extra, name) in [
            ("a=x\r\na=x\r\na=x\r\n".to_owned(), "attributes of a section"),
            (media.repeat(2), "media sections"),
            (format!("{media}a=x\r\na=x\r\nb=x\r\nb=x\r\n"), "lines"),
            (format!("a={}\r\n", "x".repeat(limits.line_bytes)), "line length"),
            (format!("a={}\r\n", "x".repeat(limits.bytes)), "bytes"),
        ] {
            let error = parse(&format!("{MINIMAL}{extra}"), &limits).unwrap_err();
            assert_eq!(error, SdpError::LimitExceeded(name));
        }
    }

    #[test]
    fn excerpts_in_errors_are_cut_between_characters() {
        let error = parse(&"ü".repeat(100), &Limits::default()).unwrap_err();
        assert!(error.to_string().len() < 400);
    }
}
