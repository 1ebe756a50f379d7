//! JWTs as a Turms operator's sign-in service makes them, with a shared HMAC key.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The key, byte for byte as in its file: the line break belongs to it.
pub const HMAC_KEY: &[u8] = b"a key of Turms' sign-in service, long enough\n";

/// Signs any payload with HS256.
pub fn jwt(payload: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed =
        format!("{}.{}", encode(&json!({ "alg": "HS256", "typ": "JWT" })), encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, HMAC_KEY), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

/// Statements that allow everything.
pub fn statements() -> Value {
    json!([{ "effect": "ALLOW", "actions": "*", "resources": "*" }])
}

/// A good token of a user until `exp`, Unix seconds.
pub fn user_token(user: i64, exp: i64) -> String {
    jwt(&json!({
        "sub": user.to_string(), "exp": exp, "authenticated": true, "statements": statements(),
    }))
}
