//! Tokens signed here with every algorithm, and everything that must not pass.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair, RsaKeyPair};
use aws_lc_rs::{hmac, signature};
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;

const NOW: i64 = 1_700_000_000;

/// A private key and the PEM of its public half.
enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Hmac(Vec<u8>),
}

impl Signer {
    fn for_algorithm(algorithm: Algorithm) -> Self {
        use Algorithm::*;
        let ec = |curve| Self::Ec(EcdsaKeyPair::generate(curve).unwrap());
        match algorithm {
            Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512 => {
                Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
            }
            Es256 => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Es384 => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Es512 => ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            Hs256 | Hs384 | Hs512 => Self::Hmac(
                b"sixty-four bytes of key material, the last one is a newline....\n".to_vec(),
            ),
        }
    }

    fn public_pem(&self) -> Vec<u8> {
        let der = match self {
            Self::Rsa(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap(),
            Self::Ec(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap(),
            Self::Hmac(_) => panic!("an HMAC key has no public half"),
        };
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der.as_ref())
        )
        .into_bytes()
    }

    fn verifying_key(&self, algorithm: Algorithm) -> Result<VerifyingKey, KeyError> {
        match self {
            Self::Hmac(bytes) => VerifyingKey::from_hmac_bytes(algorithm, bytes),
            _ => VerifyingKey::from_pem(algorithm, &self.public_pem()),
        }
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        use Algorithm::*;
        let random = SystemRandom::new();
        match self {
            Self::Hmac(bytes) => {
                let kind = match algorithm {
                    Hs256 => hmac::HMAC_SHA256,
                    Hs384 => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                hmac::sign(&hmac::Key::new(kind, bytes), message).as_ref().to_vec()
            }
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    Rs256 => &signature::RSA_PKCS1_SHA256,
                    Rs384 => &signature::RSA_PKCS1_SHA384,
                    Rs512 => &signature::RSA_PKCS1_SHA512,
                    Ps256 => &signature::RSA_PSS_SHA256,
                    Ps384 => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut out).unwrap();
                out
            }
        }
    }

    fn token(&self, algorithm: Algorithm, payload: &Value) -> String {
        self.token_with_header(algorithm, &json!({"alg": algorithm.name(), "typ": "JWT"}), payload)
    }

    fn token_with_header(&self, algorithm: Algorithm, header: &Value, payload: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(payload));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.sign(algorithm, signed.as_bytes())))
    }
}

fn payload() -> Value {
    json!({
        "sub": "42", "exp": NOW + 600, "authenticated": true,
        "statements": [{"effect": "ALLOW", "actions": "*", "resources": "*"}],
    })
}

fn with(changes: &Value) -> Value {
    let mut payload = payload();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            payload.as_object_mut().unwrap().remove(name);
        } else {
            payload[name] = value.clone();
        }
    }
    payload
}

struct Fixture {
    signer: Signer,
    verifier: Verifier,
}

fn fixture(expect: Expectations) -> Fixture {
    let signer = Signer::for_algorithm(Algorithm::Es256);
    let verifier = Verifier::new(vec![signer.verifying_key(Algorithm::Es256).unwrap()], expect);
    Fixture { signer, verifier }
}

impl Fixture {
    fn verify(&self, payload: &Value) -> Result<Verified, JwtError> {
        self.verifier.verify(&self.signer.token(Algorithm::Es256, payload), NOW)
    }
}

#[test]
fn every_algorithm_verifies_its_own_key_and_no_other() {
    for (algorithm, name) in Algorithm::ALL {
        let signer = Signer::for_algorithm(algorithm);
        let verifier = |key| Verifier::new(vec![key], Expectations::default());
        let token = signer.token(algorithm, &payload());
        let own = verifier(signer.verifying_key(algorithm).unwrap());
        assert_eq!(own.verify(&token, NOW).map(|v| v.user.get()), Ok(42), "{name}");
        let mut tampered = token.clone().into_bytes();
        let last = tampered.len() - 2;
        tampered[last] = if tampered[last] == b'A' { b'B' } else { b'A' };
        assert!(own.verify(std::str::from_utf8(&tampered).unwrap(), NOW).is_err(), "{name}");
        if !matches!(signer, Signer::Hmac(_)) {
            let stranger =
                verifier(Signer::for_algorithm(algorithm).verifying_key(algorithm).unwrap());
            assert_eq!(stranger.verify(&token, NOW), Err(JwtError::Signature), "{name}");
        }
    }
}

#[test]
fn a_public_key_never_becomes_an_hmac_secret() {
    let signer = Signer::for_algorithm(Algorithm::Rs256);
    let pem = signer.public_pem();
    let verifier = Verifier::new(
        vec![signer.verifying_key(Algorithm::Rs256).unwrap()],
        Expectations::default(),
    );
    let forged = Signer::Hmac(pem.clone()).token(Algorithm::Hs256, &payload());
    assert_eq!(verifier.verify(&forged, NOW), Err(JwtError::Algorithm));
    assert_eq!(
        VerifyingKey::from_pem(Algorithm::Hs256, &pem).err(),
        Some(KeyError::WrongKind("HS256"))
    );
    assert_eq!(
        VerifyingKey::from_pem(Algorithm::Es256, &pem).err(),
        Some(KeyError::WrongKind("ES256"))
    );
    assert_eq!(
        VerifyingKey::from_hmac_bytes(Algorithm::Rs256, &pem).err(),
        Some(KeyError::WrongKind("RS256"))
    );
}

#[test]
fn a_key_of_another_curve_is_refused_when_configured() {
    let signer = Signer::for_algorithm(Algorithm::Es384);
    assert_eq!(signer.verifying_key(Algorithm::Es256).err(), Some(KeyError::WrongKind("ES256")));
}

#[test]
fn unsigned_tokens_and_unknown_headers_are_refused() {
    let f = fixture(Expectations::default());
    let header = |value: &Value| f.signer.token_with_header(Algorithm::Es256, value, &payload());
    for alg in ["none", "None", "es256", "HS256", "ES257", ""] {
        assert_eq!(
            f.verifier.verify(&header(&json!({"alg": alg})), NOW),
            Err(JwtError::Algorithm),
            "{alg}"
        );
    }
    assert_eq!(
        f.verifier.verify(&header(&json!({"alg": "ES256", "crit": ["x"]})), NOW),
        Err(JwtError::Malformed)
    );
    let kid = header(&json!({"alg": "ES256", "typ": "JWT", "cty": "x", "kid": "1"}));
    assert!(f.verifier.verify(&kid, NOW).is_ok());
}

#[test]
fn times_are_checked_without_leeway_and_exp_is_required() {
    let f = fixture(Expectations::default());
    assert_eq!(f.verify(&with(&json!({"exp": null}))), Err(JwtError::Missing("exp".into())));
    assert_eq!(f.verify(&with(&json!({"exp": NOW}))), Err(JwtError::Expired));
    assert_eq!(f.verify(&with(&json!({"nbf": NOW + 1}))), Err(JwtError::NotYet));
    assert!(f.verify(&with(&json!({"nbf": NOW}))).is_ok());
    let lenient =
        fixture(Expectations { require_exp: false, leeway_s: 5, ..Expectations::default() });
    assert_eq!(lenient.verify(&with(&json!({"exp": null}))).unwrap().expires_at, None);
    assert!(lenient.verify(&with(&json!({"exp": NOW - 4}))).is_ok());
    let capped = fixture(Expectations { max_lifetime_s: Some(3600), ..Expectations::default() });
    assert_eq!(
        capped.verify(&with(&json!({"exp": NOW + 7200}))),
        Err(JwtError::Claim("exp".into()))
    );
    assert_eq!(
        capped.verify(&with(&json!({"exp": NOW + 600, "iat": NOW - 7200}))),
        Err(JwtError::Claim("exp".into()))
    );
}

#[test]
fn issuer_audience_and_custom_claims_must_match_where_configured() {
    let expect = Expectations {
        issuer: Some("turms".into()),
        audience: Some("sluice".into()),
        ..Expectations::default()
    };
    let f = fixture(expect);
    let good = with(&json!({"iss": "turms", "aud": ["im", "sluice"]}));
    assert!(f.verify(&good).is_ok());
    assert!(f.verify(&with(&json!({"iss": "turms", "aud": "sluice"}))).is_ok());
    assert_eq!(f.verify(&payload()), Err(JwtError::Claim("iss".into())));
    assert_eq!(
        f.verify(&with(&json!({"iss": "turms", "aud": "im"}))),
        Err(JwtError::Claim("aud".into()))
    );
    let f = fixture(Expectations::default());
    assert!(f.verify(&with(&json!({"authenticated": "true"}))).is_ok());
    assert_eq!(
        f.verify(&with(&json!({"authenticated": false}))),
        Err(JwtError::Claim("authenticated".into()))
    );
    assert_eq!(
        f.verify(&with(&json!({"authenticated": null}))),
        Err(JwtError::Missing("authenticated".into()))
    );
}

#[test]
fn the_subject_is_a_turms_user_id() {
    let f = fixture(Expectations::default());
    assert_eq!(f.verify(&with(&json!({"sub": null}))), Err(JwtError::Missing("sub".into())));
    for bad in ["0", "-1", "042", "alice", "9223372036854775808"] {
        assert_eq!(
            f.verify(&with(&json!({"sub": bad}))),
            Err(JwtError::Claim("sub".into())),
            "{bad}"
        );
    }
}

#[test]
fn statements_decide_what_may_be_done_with_meetings() {
    let f = fixture(Expectations::default());
    let policy =
        |statements: Value| f.verify(&with(&json!({"statements": statements}))).map(|v| v.policy);
    let joiner = policy(
        json!([{"effect": "ALLOW", "actions": ["UPDATE", "QUERY"], "resources": "MEETING"}]),
    )
    .unwrap();
    assert!(joiner.allows(Action::Update) && joiner.allows(Action::Query));
    assert!(!joiner.allows(Action::Create) && !joiner.allows(Action::Delete));
    let denied = policy(json!([
        {"effect": "DENY", "actions": "UPDATE", "resources": ["MEETING"]},
        {"effect": "ALLOW", "actions": "*", "resources": "*"},
    ]))
    .unwrap();
    assert!(!denied.allows(Action::Update) && denied.allows(Action::Create), "a DENY wins");
    let other = policy(json!([{"effect": "ALLOW", "actions": "*", "resources": "GROUP"}])).unwrap();
    assert_eq!(other, MeetingPolicy::default());
    assert_eq!(policy(json!([])), Err(JwtError::Claim("statements".into())));
    assert_eq!(
        f.verify(&with(&json!({"statements": null}))),
        Err(JwtError::Missing("statements".into()))
    );
    let open = fixture(Expectations { require_policy: false, ..Expectations::default() });
    assert_eq!(
        open.verify(&with(&json!({"statements": null}))).unwrap().policy,
        MeetingPolicy::ALL
    );
}

#[test]
fn malformed_tokens_are_refused_without_a_panic() {
    let f = fixture(Expectations::default());
    let good = f.signer.token(Algorithm::Es256, &payload());
    for bad in
        ["", ".", "..", "a.b.c", "....", &good[1..], &format!("{good}."), &good.replace('.', "")]
    {
        assert!(f.verifier.verify(bad, NOW).is_err(), "{bad}");
    }
    assert_eq!(f.verifier.verify(&"x".repeat(MAX_TOKEN + 1), NOW), Err(JwtError::TooLong));
}

#[test]
fn an_hmac_file_is_taken_byte_for_byte() {
    let with_newline = Signer::for_algorithm(Algorithm::Hs256);
    let Signer::Hmac(bytes) = &with_newline else { unreachable!("HS256 has an HMAC key") };
    let trimmed = VerifyingKey::from_hmac_bytes(Algorithm::Hs256, bytes.trim_ascii_end()).unwrap();
    let token = with_newline.token(Algorithm::Hs256, &payload());
    let verifier = Verifier::new(vec![trimmed], Expectations::default());
    assert_eq!(verifier.verify(&token, NOW), Err(JwtError::Signature));
    let short = VerifyingKey::from_hmac_bytes(Algorithm::Hs512, &bytes[..63]);
    assert_eq!(short.err(), Some(KeyError::Short { algorithm: "HS512", needed: 64, actual: 63 }));
}

#[test]
fn a_certificate_serves_as_well_as_a_bare_public_key() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["turms".into()]).unwrap().self_signed(&pair).unwrap();
    let key = VerifyingKey::from_pem(Algorithm::Es256, certificate.pem().as_bytes()).unwrap();
    let signer = Signer::Ec(
        EcdsaKeyPair::from_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &pair.serialize_der(),
        )
        .unwrap(),
    );
    let verifier = Verifier::new(vec![key], Expectations::default());
    assert!(verifier.verify(&signer.token(Algorithm::Es256, &payload()), NOW).is_ok());
    assert_eq!(VerifyingKey::from_pem(Algorithm::Es256, b"hello").err(), Some(KeyError::NotPem));
}

#[test]
fn keys_are_read_from_pkcs12_files() {
    use p12_keystore::{
        Certificate, KeyStore, KeyStoreEntry, LocalKeyId, PrivateKey, PrivateKeyChain,
    };
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["turms".into()]).unwrap().self_signed(&pair).unwrap();
    let certificate = Certificate::from_der(certificate.der()).unwrap();
    let key = PrivateKey::from_der(&pair.serialize_der()).unwrap();
    let chain = PrivateKeyChain::new(LocalKeyId::from(vec![1]), key, [certificate]);
    let mut store = KeyStore::new();
    store.add_entry("signing", KeyStoreEntry::PrivateKeyChain(chain));
    let writer = store.writer("p12 word").encryption_iterations(100).mac_iterations(100);
    let file = writer.write().unwrap();

    let read =
        |password, alias| VerifyingKey::from_pkcs12(Algorithm::Es256, &file, password, alias);
    let signer = Signer::Ec(
        EcdsaKeyPair::from_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &pair.serialize_der(),
        )
        .unwrap(),
    );
    // Aliases are compared without case, as Java's key stores do.
    let verifier =
        Verifier::new(vec![read("p12 word", "Signing").unwrap()], Expectations::default());
    assert!(verifier.verify(&signer.token(Algorithm::Es256, &payload()), NOW).is_ok());
    assert!(matches!(read("another", "signing"), Err(KeyError::Pkcs12(_))));
    assert!(matches!(read("p12 word", "other"), Err(KeyError::Pkcs12(_))));
    let wrong_kind = VerifyingKey::from_pkcs12(Algorithm::Rs256, &file, "p12 word", "signing");
    assert_eq!(wrong_kind.err(), Some(KeyError::WrongKind("RS256")));
}
