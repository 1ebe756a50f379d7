//! Access tokens. The first byte chooses: even is the text of a token, odd is a payload that gets a
//! good header and signature. Claims that are accepted must survive being signed by us.
#![no_main]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use libfuzzer_sys::fuzz_target;
use sluice_signal::token::{ApiKeys, TokenError, mint, verify};

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const SECRET: &str = "secret";
const NOW: Duration = Duration::from_secs(1_800_000_000);

fuzz_target!(|input: &[u8]| {
    let Some((&choice, payload)) = input.split_first() else { return };
    let keys = ApiKeys::new([("devkey", SECRET)]);
    let token = if choice & 1 == 0 {
        String::from_utf8_lossy(payload).into_owned()
    } else {
        signed(payload)
    };
    let Ok(verified) = verify(&token, &keys, NOW) else { return };

    // An empty identity is left out and comes back as the missing claim that it is.
    let ours = mint(&keys, &verified.api_key, &verified.claims, Duration::from_secs(60), NOW);
    let ours = ours.expect("accepted claims can be signed");
    let again = verify(&ours, &keys, NOW).expect("our own token");
    assert_eq!(again.claims, verified.claims);
    let late = NOW + Duration::from_secs(121);
    assert_eq!(verify(&ours, &keys, late), Err(TokenError::Expired));
    let strangers = ApiKeys::new([("devkey", "other")]);
    assert_eq!(verify(&ours, &strangers, NOW), Err(TokenError::Signature));
});

fn signed(payload: &[u8]) -> String {
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.expect("a good key"))
}
