//! API keys and their secrets: from the file, a key file, a flag or the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::{ConfigError, Document, Environment, Flags};

/// Shortest secret accepted outside development, bytes: the output size of HMAC-SHA-256
/// (RFC 7518 §3.2).
const MIN_SECRET_LEN: usize = 32;
/// Key of development mode, as LiveKit's.
const DEV_KEY: &str = "devkey";
/// Secret of development mode, as LiveKit's; client test suites have it built in.
const DEV_SECRET: &str = "secret";

/// A secret; printing it shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub(crate) fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// API keys with their secrets, sorted by key.
#[derive(Debug, Clone, Default)]
pub(crate) struct ApiKeys(BTreeMap<String, Secret>);

impl ApiKeys {
    /// The secret of one key.
    #[cfg(test)]
    pub(crate) fn secret_of(&self, key: &str) -> Option<&Secret> {
        self.0.get(key)
    }

    /// The names of all keys.
    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The development key, if it is configured: its secret is no secret.
    pub(crate) fn development(&self) -> Option<(String, String)> {
        let secret = self.0.get(DEV_KEY).filter(|secret| secret.expose() == DEV_SECRET)?;
        Some((DEV_KEY.to_owned(), secret.expose().to_owned()))
    }

    /// All keys with their secrets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(key, secret)| (key.as_str(), secret))
    }
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// Nobody said any key.
    #[error(
        "no API keys: give one with `keys:` in the configuration, --keys or LIVEKIT_KEYS \
         (`sluice generate-keys` makes a pair), or start with --dev"
    )]
    None,
    /// The text is not a map of keys to secrets.
    #[error("{0} must hold lines of `key: secret`")]
    Syntax(String),
    /// Others on the machine can read the secrets.
    #[error("the key file {0} can be read by other users: run `chmod 600 {0}`")]
    Permissions(String),
    /// A secret that can be guessed.
    #[error(
        "the secret of API key `{key}` has {len} bytes, fewer than {MIN_SECRET_LEN}: make a new \
         pair with `sluice generate-keys`"
    )]
    Short {
        /// Name of the key.
        key: String,
        /// Length of its secret.
        len: usize,
    },
}

/// Collects the keys: flag, then environment, then key file, then the document; the first source
/// that says something is the only one.
pub(super) fn gather(
    document: &Document,
    flags: &Flags,
    environment: &Environment,
) -> Result<ApiKeys, ConfigError> {
    let development = flags.dev || document.bool("development");
    let file = match &flags.key_file {
        Some(path) => Some(path.clone()),
        None => Some(document.text("key_file")).filter(|path| !path.is_empty()).map(Into::into),
    };
    let keys = if let Some(text) = &flags.keys {
        parse(text, "--keys")?
    } else if let Some(text) = environment.get("LIVEKIT_KEYS") {
        parse(text, "LIVEKIT_KEYS")?
    } else if let Some(path) = file {
        read_key_file(&path)?
    } else {
        document.map("keys")
    };
    if keys.is_empty() {
        if development {
            let pair = (DEV_KEY.to_owned(), Secret(DEV_SECRET.to_owned()));
            return Ok(ApiKeys(BTreeMap::from([pair])));
        }
        return Err(KeyError::None.into());
    }
    if let Some((key, secret)) = keys.iter().find(|(_, secret)| secret.len() < MIN_SECRET_LEN)
        && !development
    {
        return Err(KeyError::Short { key: key.clone(), len: secret.len() }.into());
    }
    Ok(ApiKeys(keys.into_iter().map(|(key, secret)| (key, Secret(secret))).collect()))
}

fn read_key_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let name = path.display().to_string();
    let read_error =
        |source| ConfigError::Read { what: "the key file", path: name.clone(), source };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).map_err(read_error)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(KeyError::Permissions(name).into());
        }
    }
    let text = std::fs::read_to_string(path).map_err(read_error)?;
    Ok(parse(&text, &name)?)
}

/// Reads `key: secret` lines; the space may be missing, as LiveKit allows in `LIVEKIT_KEYS`.
fn parse(text: &str, source: &str) -> Result<BTreeMap<String, String>, KeyError> {
    let mut keys = BTreeMap::new();
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, secret) =
            line.split_once(':').ok_or_else(|| KeyError::Syntax(source.to_owned()))?;
        let unquote = |part: &str| part.trim().trim_matches(['"', '\'']).to_owned();
        let (key, secret) = (unquote(key), unquote(secret));
        if key.is_empty() || secret.is_empty() {
            return Err(KeyError::Syntax(source.to_owned()));
        }
        keys.insert(key, secret);
    }
    Ok(keys)
}
