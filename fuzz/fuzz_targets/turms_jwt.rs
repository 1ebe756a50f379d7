//! JWTs of Turms' users. The first byte chooses: even is the text of a token, odd is a payload that
//! gets a good header and signature. An accepted token names a user and, with other keys or after
//! its time, is none.
#![no_main]

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use sluice_turms::jwt::{Algorithm, Expectations, JwtError, Verifier, VerifyingKey};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: i64 = 1_800_000_000;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, payload)) = input.split_first() else { return };
    let token = if choice & 1 == 0 {
        String::from_utf8_lossy(payload).into_owned()
    } else {
        signed(payload)
    };
    let Ok(verified) = verifier(KEY).verify(&token, NOW) else { return };
    assert!(verified.user.get() > 0);
    let expires_at = verified.expires_at.expect("required by default");
    assert!(expires_at > NOW);
    assert_eq!(verifier(KEY).verify(&token, expires_at), Err(JwtError::Expired));
    let strangers = b"another key of thirty-two bytes.";
    assert_eq!(verifier(strangers).verify(&token, NOW), Err(JwtError::Signature));
});

fn verifier(key: &[u8]) -> Verifier {
    let key = VerifyingKey::from_hmac_bytes(Algorithm::Hs256, key).expect("a long key");
    Verifier::new(vec![key], Expectations::default())
}

fn signed(payload: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}
