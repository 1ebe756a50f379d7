//! SDP fragments (`application/trickle-ice-sdpfrag`, RFC 8840 §9): what a WHIP or WHEP client sends
//! to trickle candidates or to restart ICE, and what it gets back.

use sluice_transport::sdp::parse_candidate;

/// Largest fragment, bytes. A client with a hundred candidates sends a fifth of it.
pub(super) const MAX_FRAGMENT: usize = 64 << 10;

/// Lengths of ICE credentials (RFC 8839 §5.4).
const UFRAG_BYTES: std::ops::RangeInclusive<usize> = 4..=256;
const PWD_BYTES: std::ops::RangeInclusive<usize> = 22..=256;

/// Why a fragment was refused; the client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// Longer than any honest fragment.
    #[error("the fragment is too large")]
    TooLarge,
    /// A line that is not `<letter>=<value>`.
    #[error("the fragment is not SDP: expected lines of `a=name:value` or `m=…`")]
    Syntax,
    /// `a=ice-ufrag` or `a=ice-pwd` is not made of ice-chars of the right number.
    #[error("the fragment has malformed ICE credentials")]
    Credentials,
    /// Sections with different credentials: one bundle has one transport.
    #[error("the fragment has different ICE credentials for different sections")]
    SeveralCredentials,
    /// An `a=candidate` that is none.
    #[error("the fragment has a malformed candidate")]
    Candidate,
}

/// A parsed fragment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// `a=ice-ufrag`.
    pub ufrag: Option<String>,
    /// `a=ice-pwd`.
    pub pwd: Option<String>,
    /// Number of `a=candidate` lines. Their content does not matter: an ICE-lite server waits for
    /// checks and learns the addresses from those.
    pub candidates: usize,
    /// Whether `a=end-of-candidates` is there.
    pub end: bool,
}

impl Fragment {
    /// Reads a fragment.
    ///
    /// # Errors
    /// See [`FragmentError`].
    pub fn parse(text: &str) -> Result<Self, FragmentError> {
        if text.len() > MAX_FRAGMENT {
            return Err(FragmentError::TooLarge);
        }
        let mut fragment = Self::default();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            match line.split_once('=') {
                Some(("a", attribute)) => fragment.take(attribute)?,
                Some((kind, _)) if kind.len() == 1 => {}
                _ => return Err(FragmentError::Syntax),
            }
        }
        Ok(fragment)
    }

    fn take(&mut self, attribute: &str) -> Result<(), FragmentError> {
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "ice-ufrag" => keep(&mut self.ufrag, value, UFRAG_BYTES),
            "ice-pwd" => keep(&mut self.pwd, value, PWD_BYTES),
            "candidate" => {
                // Unknown transports and types are skipped, as RFC 8839 §5.1 asks.
                use sluice_transport::sdp::TrickleError::Unsupported;
                match parse_candidate(value) {
                    Ok(_) | Err(Unsupported) => self.candidates += 1,
                    Err(_) => return Err(FragmentError::Candidate),
                }
                Ok(())
            }
            "end-of-candidates" => {
                self.end = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn keep(
    field: &mut Option<String>,
    value: &str,
    length: std::ops::RangeInclusive<usize>,
) -> Result<(), FragmentError> {
    let is_ice_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if !length.contains(&value.len()) || !value.bytes().all(is_ice_char) {
        return Err(FragmentError::Credentials);
    }
    match field {
        Some(known) if known != value => Err(FragmentError::SeveralCredentials),
        _ => {
            *field = Some(value.to_owned());
            Ok(())
        }
    }
}

/// The offer of a client with other ICE credentials: what it would have sent to restart ICE, had it
/// sent a whole description. Its candidates go; they belong to the old credentials.
pub fn with_credentials(offer: &str, ufrag: &str, pwd: &str) -> String {
    let mut restarted = String::with_capacity(offer.len());
    for line in offer.lines().map(str::trim_end) {
        if line.starts_with("a=ice-ufrag:") {
            restarted.push_str("a=ice-ufrag:");
            restarted.push_str(ufrag);
        } else if line.starts_with("a=ice-pwd:") {
            restarted.push_str("a=ice-pwd:");
            restarted.push_str(pwd);
        } else if line.starts_with("a=candidate:") || line.starts_with("a=end-of-candidates") {
            continue;
        } else {
            restarted.push_str(line);
        }
        restarted.push_str("\r\n");
    }
    restarted
}

/// What of our answer a client needs after an ICE restart: the transport, at its first section.
pub fn of_answer(answer: &str) -> String {
    let mut fragment = String::new();
    let mut sections = 0;
    for line in answer.lines().map(str::trim_end) {
        if line.starts_with("m=") {
            sections += 1;
        }
        let session = ["a=ice-lite", "a=ice-options", "a=group:BUNDLE"];
        let section =
            ["m=", "a=mid:", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates"];
        let wanted: &[&str] = match sections {
            0 => &session,
            1 => &section,
            _ => break,
        };
        if wanted.iter().any(|start| line.starts_with(start)) {
            fragment.push_str(line);
            fragment.push_str("\r\n");
        }
    }
    fragment
}

/// The ICE ufrag of a description, which names the ICE session in `ETag`.
pub(super) fn ufrag_of(description: &str) -> Option<&str> {
    description.lines().find_map(|line| line.trim_end().strip_prefix("a=ice-ufrag:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PWD: &str = "pwdpwdpwdpwdpwdpwdpwdpwd";

    #[test]
    fn fragment_of_rfc_9725_is_read() {
        let text = "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
            a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n\
            a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw\r\n\
            a=candidate:3471623853 1 udp 2122194687 198.51.100.2 61765 typ host\r\n\
            a=end-of-candidates\r\n";
        let fragment = Fragment::parse(text).unwrap();
        assert_eq!(fragment.ufrag.as_deref(), Some("EsAw"));
        assert_eq!(fragment.pwd.as_deref(), Some("P2uYro0UCOQ4zxjKXaWCBui1"));
        assert_eq!((fragment.candidates, fragment.end), (2, true));
    }

    #[test]
    fn malformed_fragments_are_refused() {
        for (text, error) in [
            ("hello", FragmentError::Syntax),
            ("{\"candidate\":\"\"}", FragmentError::Syntax),
            ("a=ice-ufrag:abc", FragmentError::Credentials),
            ("a=ice-ufrag:ab cd", FragmentError::Credentials),
            ("a=ice-pwd:short", FragmentError::Credentials),
            ("a=ice-ufrag:abcd\na=ice-ufrag:efgh", FragmentError::SeveralCredentials),
            ("a=candidate:1 1 udp", FragmentError::Candidate),
        ] {
            assert_eq!(Fragment::parse(text), Err(error), "{text}");
        }
        assert_eq!(Fragment::parse(&"a=x\n".repeat(20_000)), Err(FragmentError::TooLarge));
        assert_eq!(Fragment::parse(""), Ok(Fragment::default()));
    }

    #[test]
    fn restarted_offer_differs_in_its_credentials_only() {
        let offer = "v=0\r\nm=audio 9 X 0\r\na=ice-ufrag:old1\r\na=ice-pwd:oldpwd\r\na=mid:0\r\n\
            a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\na=end-of-candidates\r\n";
        let expected =
            format!("v=0\r\nm=audio 9 X 0\r\na=ice-ufrag:new1\r\na=ice-pwd:{PWD}\r\na=mid:0\r\n");
        assert_eq!(with_credentials(offer, "new1", PWD), expected);
    }

    #[test]
    fn fragment_of_an_answer_has_the_transport_of_the_first_section() {
        let answer = format!(
            "v=0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\nm=audio 9 X 0\r\na=mid:0\r\na=ice-ufrag:ours\r\n\
             a=ice-pwd:{PWD}\r\na=sendonly\r\na=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\n\
             a=end-of-candidates\r\nm=video 9 X 96\r\na=mid:1\r\n"
        );
        let fragment = of_answer(&answer);
        assert!(fragment.starts_with("a=group:BUNDLE 0 1\r\na=ice-lite\r\nm=audio"), "{fragment}");
        assert!(!fragment.contains("sendonly") && !fragment.contains("video"), "{fragment}");
        let parsed = Fragment::parse(&fragment).unwrap();
        assert_eq!(parsed.ufrag.as_deref(), ufrag_of(&answer));
        assert_eq!(parsed.candidates, 1);
    }
}
