//! Configuration documents: whatever an operator pastes is read or refused with a sentence, never a
//! panic; what was read strictly reads the same leniently.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The module as the binary has it; a binary cannot be a dependency.
#[allow(dead_code, reason = "the target uses the document alone")]
#[path = "../../crates/node/src/config"]
mod config {
    #[path = "document.rs"]
    pub(crate) mod document;
    #[path = "schema.rs"]
    pub(crate) mod schema;
}

use config::document::Document;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    match Document::parse(&text) {
        Ok(document) => {
            let lenient = Document::parse_lenient(&text).expect("strict is stricter");
            assert!(lenient.unknown().is_empty());
            for key in config::schema::KEYS {
                assert_eq!(document.is_set(key.path), lenient.is_set(key.path));
                let _ = (document.bool(key.path), document.uint(key.path), document.text(key.path));
                let _ = (document.list(key.path), document.map(key.path), document.float(key.path));
            }
            for problem in document.unsupported() {
                assert!(problem.to_string().contains('`'));
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.to_string().is_empty());
            }
        }
    }
});
