//! The API keys of this deployment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// API keys and their secrets. Cheap to clone; printing it shows no secret.
#[derive(Clone, Default)]
pub struct ApiKeys(Arc<BTreeMap<String, String>>);

impl ApiKeys {
    /// Takes pairs of key and secret.
    pub fn new<K: Into<String>, S: Into<String>>(pairs: impl IntoIterator<Item = (K, S)>) -> Self {
        Self(Arc::new(pairs.into_iter().map(|(key, secret)| (key.into(), secret.into())).collect()))
    }

    /// The secret of one key. An empty secret counts as none.
    pub fn secret(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|secret| !secret.is_empty())
    }

    /// The first key in alphabetical order: the one which the server itself signs with when no
    /// caller named one.
    pub fn first(&self) -> Option<&str> {
        self.0.keys().next().map(String::as_str)
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
