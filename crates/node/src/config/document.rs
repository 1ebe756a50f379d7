//! A configuration document: the YAML of the operator, checked against the schema table. Text goes
//! in, together with overrides from the environment and flags; out come either typed look-ups that
//! always have a value (the default where nothing was said) or every problem of the file at once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::schema::{self, KEYS, Key, Kind, Preset, Support};

/// Two names at least this alike (Jaro-Winkler, 0..=1) are worth a suggestion.
const SUGGESTION_SIMILARITY: f64 = 0.82;

/// One thing that is wrong with the configuration, addressed to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The text is not YAML.
    Yaml(String),
    /// No such key.
    Unknown {
        /// Dotted path as written.
        path: String,
        /// The key that was probably meant.
        suggestion: Option<String>,
    },
    /// The value does not fit the key.
    Value {
        /// Dotted path.
        path: String,
        /// What is expected.
        expected: String,
    },
    /// The key belongs to a feature that this version does not have.
    NotYet {
        /// Dotted path.
        path: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Yaml(detail) => write!(f, "the configuration is not valid YAML: {detail}"),
            Problem::Unknown { path, suggestion: Some(name) } => {
                write!(f, "unknown key `{path}`: did you mean `{name}`?")
            }
            Problem::Unknown { path, suggestion: None } => {
                write!(f, "unknown key `{path}`: remove it, or check its name and indentation")
            }
            Problem::Value { path, expected } => write!(f, "`{path}` must be {expected}"),
            Problem::NotYet { path, advice } => write!(f, "`{path}` cannot be used: {advice}"),
        }
    }
}

/// A checked document.
#[derive(Debug, Default)]
pub(crate) struct Document {
    values: BTreeMap<&'static str, Value>,
    /// Keys that do not exist and were ignored.
    unknown: Vec<Problem>,
}

impl Document {
    /// Parses `yaml`; an empty text is an empty document. Unknown keys are problems.
    pub(crate) fn parse(yaml: &str) -> Result<Self, Vec<Problem>> {
        let mut document = Self::parse_lenient(yaml)?;
        match std::mem::take(&mut document.unknown) {
            unknown if unknown.is_empty() => Ok(document),
            unknown => Err(unknown),
        }
    }

    /// Parses `yaml` and sets unknown keys aside. An error holds them too.
    pub(crate) fn parse_lenient(yaml: &str) -> Result<Self, Vec<Problem>> {
        if yaml.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let root: Value =
            serde_saphyr::from_str(yaml).map_err(|error| vec![Problem::Yaml(error.to_string())])?;
        let mut document = Self::default();
        let mut problems = Vec::new();
        match root {
            Value::Object(map) => document.collect("", map, &mut problems),
            Value::Null => {}
            _ => problems.push(Problem::Yaml("expected `key: value` lines".into())),
        }
        if problems.is_empty() {
            return Ok(document);
        }
        problems.append(&mut document.unknown);
        Err(problems)
    }

    /// Keys that do not exist and were ignored.
    pub(crate) fn unknown(&self) -> &[Problem] {
        &self.unknown
    }

    /// Sets one scalar key from the word of a flag or an environment variable.
    pub(crate) fn set_text(&mut self, key: &'static Key, text: &str) -> Result<(), Problem> {
        let value = scalar_from_text(key.kind, text);
        self.insert(key, value)
    }

    /// Sets one key to a value, for overrides that have a flag of their own.
    pub(crate) fn insert(&mut self, key: &'static Key, value: Value) -> Result<(), Problem> {
        check_value(key, &value)?;
        self.values.insert(key.path, value);
        Ok(())
    }

    /// Whether the operator said anything about the key.
    pub(crate) fn is_set(&self, path: &str) -> bool {
        self.values.contains_key(path)
    }

    /// Everything that asks for a feature this version does not have.
    pub(crate) fn unsupported(&self) -> Vec<Problem> {
        self.changed()
            .filter_map(|key| match key.support {
                Support::NotYet(advice) => Some(Problem::NotYet { path: key.path, advice }),
                _ => None,
            })
            .collect()
    }

    /// Keys that were changed and change nothing, with the reason.
    pub(crate) fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        self.changed()
            .filter_map(|key| match key.support {
                Support::NoEffect(reason) => Some((key.path, reason)),
                _ => None,
            })
            .collect()
    }

    /// A flag.
    pub(crate) fn bool(&self, path: &str) -> bool {
        match (self.values.get(path), default_of(path)) {
            (Some(Value::Bool(value)), _) => *value,
            (_, Preset::Bool(value)) => value,
            _ => false,
        }
    }

    /// A whole number. LiveKit leaves zero values out, so that an explicit zero of a key with a
    /// default that is not zero is kept as zero.
    pub(crate) fn uint(&self, path: &str) -> u64 {
        match (self.values.get(path).and_then(Value::as_u64), default_of(path)) {
            (Some(value), _) => value,
            (None, Preset::Uint(value)) => value,
            _ => 0,
        }
    }

    /// A number that may be negative or have a fraction.
    pub(crate) fn float(&self, path: &str) -> f64 {
        match (self.values.get(path).and_then(Value::as_f64), default_of(path)) {
            (Some(value), _) => value,
            (None, Preset::Float(value)) => value,
            _ => 0.0,
        }
    }

    /// Text; empty when unset.
    pub(crate) fn text(&self, path: &str) -> String {
        match (self.values.get(path), default_of(path)) {
            (Some(Value::String(value)), _) => value.clone(),
            (Some(Value::Number(value)), _) => value.to_string(),
            (_, Preset::Text(value)) => value.to_owned(),
            _ => String::new(),
        }
    }

    /// A list of text; empty when unset.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        match self.values.get(path) {
            Some(Value::Array(items)) => items.iter().filter_map(text_of).collect(),
            _ => Vec::new(),
        }
    }

    /// A map of text; empty when unset.
    pub(crate) fn map(&self, path: &str) -> BTreeMap<String, String> {
        match self.values.get(path) {
            Some(Value::Object(map)) => {
                map.iter().filter_map(|(k, v)| Some((k.clone(), text_of(v)?))).collect()
            }
            _ => BTreeMap::new(),
        }
    }

    /// A block, as it was written.
    pub(crate) fn block(&self, path: &str) -> Option<&Value> {
        self.values.get(path)
    }

    fn collect(&mut self, prefix: &str, map: Map<String, Value>, problems: &mut Vec<Problem>) {
        for (name, value) in map {
            let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            if let Some(key) = schema::find(&path) {
                if value.is_null() {
                    continue; // `keys:` with nothing below it
                }
                if let Err(problem) = self.insert(key, value) {
                    problems.push(problem);
                }
            } else if schema::is_section(&path) {
                match value {
                    Value::Object(map) => self.collect(&path, map, problems),
                    Value::Null => {}
                    _ => problems.push(Problem::Value {
                        path,
                        expected: "a section with keys below it".into(),
                    }),
                }
            } else {
                let suggestion = suggest(&path);
                self.unknown.push(Problem::Unknown { path, suggestion });
            }
        }
    }

    fn changed(&self) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(|key| self.values.get(key.path).is_some_and(|v| !is_default(key, v)))
    }
}

/// Reads Go's duration notation.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { None } else { Some(total) }
}

/// Reads `7882` or `7882-7892`; both ends are included.
pub(crate) fn parse_port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
        None => {
            let port = text.trim().parse().ok()?;
            (port, port)
        }
    };
    (first <= last).then_some((first, last))
}

fn default_of(path: &str) -> Preset {
    schema::find(path).map_or(Preset::Unset, |key| key.default)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn scalar_from_text(kind: Kind, text: &str) -> Value {
    let number = || serde_json::from_str::<serde_json::Number>(text).ok().map(Value::Number);
    let parsed = match kind {
        Kind::Bool => match text {
            "true" | "1" => Some(Value::Bool(true)),
            "false" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        Kind::Uint | Kind::Int | Kind::Float => number(),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn check_value(key: &Key, value: &Value) -> Result<(), Problem> {
    let is_word = |v: &Value| text_of(v).is_some();
    let (fits, expected) = match key.kind {
        Kind::Bool => (value.is_boolean(), "`true` or `false`"),
        Kind::Uint => (value.is_u64(), "a whole number, zero or more"),
        Kind::Int => (value.is_u64() || value.is_i64(), "a whole number"),
        Kind::Float => (value.is_number(), "a number"),
        Kind::Text => (value.is_string() || value.is_number(), "text"),
        Kind::Duration => (
            value.as_str().is_some_and(|text| parse_duration(text).is_some())
                || value.as_u64() == Some(0),
            "a duration such as `500ms` or `2s`",
        ),
        Kind::PortRange => (
            text_of(value).is_some_and(|text| text.is_empty() || parse_port_range(&text).is_some()),
            "a port, or a range of ports such as `7882-7892`",
        ),
        Kind::TextList => {
            (value.as_array().is_some_and(|items| items.iter().all(is_word)), "a list of text")
        }
        Kind::TextMap => (
            value.as_object().is_some_and(|map| map.values().all(is_word)),
            "lines of `name: text` below it",
        ),
        Kind::Block => (true, ""),
    };
    let no_port = key.is_port() && value.as_u64().is_none_or(|port| port > u64::from(u16::MAX));
    if fits && !no_port {
        return Ok(());
    }
    let expected = if no_port { "a port, 0 to 65535" } else { expected };
    Err(Problem::Value { path: key.path.to_owned(), expected: expected.to_owned() })
}

/// The value that the key has anyway: its default, or the zero value, which LiveKit leaves out of
/// its files and therefore reads as the default.
fn is_default(key: &Key, value: &Value) -> bool {
    let is_zero = match value {
        Value::Null => true,
        Value::Bool(flag) => return Preset::Bool(*flag) == key.default,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    is_zero
        || match key.default {
            Preset::Unset => false,
            Preset::Bool(flag) => value.as_bool() == Some(flag),
            Preset::Uint(number) => value.as_u64() == Some(number),
            Preset::Float(number) => value.as_f64() == Some(number),
            Preset::Text(text) if key.kind == Kind::Duration => {
                value.as_str().and_then(parse_duration) == parse_duration(text)
            }
            Preset::Text(text) => value.as_str() == Some(text),
        }
}

/// The key that an unknown one was probably meant to be: a neighbour with a similar name, else the
/// same name in another section.
fn suggest(path: &str) -> Option<String> {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let neighbours = KEYS.iter().filter_map(|key| {
        let rest = if section.is_empty() {
            key.path
        } else {
            key.path.strip_prefix(section)?.strip_prefix('.')?
        };
        rest.split('.').next()
    });
    let best = neighbours
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SUGGESTION_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((_, candidate)) = best {
        return Some(if section.is_empty() {
            candidate.to_owned()
        } else {
            format!("{section}.{candidate}")
        });
    }
    KEYS.iter().find(|key| key.path.rsplit('.').next() == Some(name)).map(|key| key.path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(yaml: &str) -> Vec<String> {
        match Document::parse(yaml) {
            Ok(document) => document.unsupported().iter().map(ToString::to_string).collect(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn unknown_key_names_its_path_and_the_likely_key() {
        assert_eq!(
            problems("rtc:\n  tcp_prot: 7881\n"),
            ["unknown key `rtc.tcp_prot`: did you mean `rtc.tcp_port`?"]
        );
        assert_eq!(
            problems("tcp_port: 7881\n"),
            ["unknown key `tcp_port`: did you mean `rtc.tcp_port`?"]
        );
        assert_eq!(
            problems("zzz: 1\n"),
            ["unknown key `zzz`: remove it, or check its name and indentation"]
        );
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        assert_eq!(problems("prot: 1\nrtc: 3\nlogging:\n  json: maybe\n").len(), 3);
    }

    #[test]
    fn feature_of_a_later_version_is_accepted_at_its_default_only() {
        assert!(problems("turn:\n  enabled: false\n  relay_range_start: 30000\n").is_empty());
        let refused = problems("turn:\n  enabled: true\n");
        assert!(refused[0].starts_with("`turn.enabled` cannot be used: "), "{refused:?}");
    }

    #[test]
    fn durations_are_compared_as_time() {
        let key = schema::find("rtc.datachannel_data_track_target_latency").unwrap();
        assert!(is_default(key, &Value::from("0.1s")));
        assert!(!is_default(key, &Value::from("2s")));
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("7.5s"), Some(Duration::from_millis(7500)));
        assert_eq!(parse_duration("5"), None);
        assert_eq!(parse_duration(""), None);
        assert_eq!(parse_duration("ms"), None);
    }

    #[test]
    fn port_ranges_in_the_wild() {
        assert_eq!(parse_port_range("7882-7892"), Some((7882, 7892)));
        assert_eq!(parse_port_range("7882"), Some((7882, 7882)));
        assert_eq!(parse_port_range("7892-7882"), None);
        assert_eq!(parse_port_range("70000"), None);
        assert!(problems("rtc:\n  udp_port: 7882-7892\n").is_empty());
        assert!(problems("rtc:\n  udp_port: 7882\n").is_empty());
        assert_eq!(problems("rtc:\n  udp_port: often\n").len(), 1);
    }

    #[test]
    fn comments_only_and_empty_sections_are_an_empty_document() {
        assert!(problems("# nothing\n\n").is_empty());
        assert!(problems("keys:\nrtc:\n").is_empty());
    }

    #[test]
    fn every_default_fits_its_own_key() {
        for key in KEYS {
            let value = match key.default {
                Preset::Unset => continue,
                Preset::Bool(flag) => Value::Bool(flag),
                Preset::Uint(number) => Value::from(number),
                Preset::Float(number) => Value::from(number),
                Preset::Text(text) => Value::from(text),
            };
            assert_eq!(check_value(key, &value), Ok(()), "{}", key.path);
            assert!(is_default(key, &value), "{}", key.path);
        }
    }

    #[test]
    fn no_key_stands_twice() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(KEYS[at + 1..].iter().all(|other| other.path != key.path), "{}", key.path);
        }
    }
}
