//! The query string of `/rtc`: a flat list of names and values, the first of a name counts.

use std::borrow::Cow;

/// A decoded query string. Never printed: it holds the access token.
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Splits and percent-decodes (`application/x-www-form-urlencoded`).
    pub(crate) fn parse(query: Option<&'a str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The value, or "" when absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The value unless absent or empty.
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|value| !value.is_empty())
    }

    /// True for exactly `1` and `true`; `None` when absent or empty.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.optional(name).map(|value| matches!(value, "1" | "true"))
    }

    /// An integer, 0 when absent or malformed.
    pub(crate) fn integer(&self, name: &str) -> i32 {
        self.text(name).parse().unwrap_or(0)
    }
}

fn decode(part: &str) -> Cow<'_, str> {
    if !part.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(part);
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', &[high, low, ref after @ ..]) => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = after;
                }
                _ => bytes.push(b'%'),
            },
            (other, _) => bytes.push(other),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_percent_decoded() {
        let query = Query::parse(Some("a=x%20y+z&b=%E2%82%AC&c=%zz&d&a=second"));
        assert_eq!(query.text("a"), "x y z");
        assert_eq!(query.text("b"), "€");
        assert_eq!(query.text("c"), "%zz");
        assert_eq!(query.optional("d"), None);
        assert_eq!(query.text("missing"), "");
    }

    #[test]
    fn only_one_and_true_are_true() {
        let query = Query::parse(Some("a=1&b=true&c=True&d=0&e="));
        let flags = ["a", "b", "c", "d", "e", "f"].map(|name| query.flag(name));
        assert_eq!(flags, [Some(true), Some(true), Some(false), Some(false), None, None]);
    }

    #[test]
    fn malformed_integers_are_zero() {
        let query = Query::parse(Some("a=17&b=x&c=99999999999"));
        assert_eq!(["a", "b", "c", "d"].map(|name| query.integer(name)), [17, 0, 0, 0]);
    }
}
