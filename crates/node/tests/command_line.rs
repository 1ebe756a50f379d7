//! What an operator sees on the command line: errors that name the key, exit codes, tokens, ports.

use sluice_tests::{run, text_of};

const BINARY: &str = env!("CARGO_BIN_EXE_sluice");

#[test]
fn misspelt_key_is_refused_with_a_suggestion_and_exit_code_2() {
    let output = run(BINARY, &["--config-body", "rtc:\n  tcp_prot: 7881\n"]);
    assert_eq!(output.status.code(), Some(2));
    let text = text_of(&output);
    assert!(text.contains("`rtc.tcp_prot`: did you mean `rtc.tcp_port`?"), "{text}");
}

#[test]
fn key_of_a_missing_feature_is_refused_with_advice() {
    let output = run(BINARY, &["--dev", "--turn.enabled", "true"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(&output).contains("`turn.enabled` cannot be used"), "{}", text_of(&output));
}

#[test]
fn no_keys_outside_development_is_refused() {
    let output = run(BINARY, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(&output).contains("no API keys"), "{}", text_of(&output));
}

#[test]
fn create_token_prints_a_token_and_nothing_else() {
    let output = run(BINARY, &["create-token", "--room", "r", "--identity", "i"]);
    assert!(output.status.success(), "{}", text_of(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.trim().split('.').count(), 3, "{printed}");
    assert_eq!(printed.lines().count(), 1);
}

#[test]
fn ports_lists_what_development_mode_listens_on() {
    let output = run(BINARY, &["ports", "--dev"]);
    let text = text_of(&output);
    for port in ["TCP  7880", "TCP  7881", "UDP  7882"] {
        assert!(text.contains(port), "{text}");
    }
}

#[test]
fn generated_keys_are_good_enough_to_start_with() {
    let text = text_of(&run(BINARY, &["generate-keys"]));
    let words: Vec<_> = text.lines().filter_map(|line| line.rsplit(": ").next()).collect();
    let keys = format!("{}: {}", words[0], words[1]);
    let output = run(BINARY, &["config", "check", "--keys", &keys]);
    assert!(output.status.success(), "{}", text_of(&output));
}
