//! What an operator sees on the command line: errors that name the key, exit codes, tokens, ports.

use sluice_tests::{command, run, text_of};

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

#[test]
fn livekit_sample_is_accepted_unchanged() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/configs/livekit-sample.yaml");
    let output = run(BINARY, &["--config", sample, "config", "check"]);
    assert!(output.status.success(), "{}", text_of(&output));
}

#[test]
fn hostile_configurations_are_refused_with_a_sentence() {
    let deep = format!("keys: {}{}", "[".repeat(5000), "]".repeat(5000));
    let bomb = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]\n";
    for (yaml, says) in [
        ("rtc:\n\ttcp_port: 1\n", "not valid YAML"),
        ("- a\n- b\n", "expected `key: value` lines"),
        ("port: 70000\n", "`port` must be a port, 0 to 65535"),
        ("port: -1\n", "`port` must be"),
        ("port: many\n", "`port` must be a"),
        ("turn:\n  udp_port: 65536\n", "`turn.udp_port` must be a port"),
        ("rtc:\n  udp_port: 7892-7882\n", "`rtc.udp_port` must be a port, or a range"),
        ("rtc: 3\n", "`rtc` must be a section"),
        ("port: 1\nport: 2\n", "not valid YAML"),
        ("rtc:\n  ips:\n    includes: [somewhere]\n", "`rtc.ips.includes` must be networks"),
        (&deep, "not valid YAML"),
        (bomb, "unknown key `a`"),
    ] {
        let output = run(BINARY, &["--dev", &format!("--config-body={yaml}")]);
        let text = text_of(&output);
        assert_eq!(output.status.code(), Some(2), "{yaml}: {text}");
        assert!(text.contains(says), "{yaml}: {text}");
        assert!(text.len() < 4000, "{yaml}: {text}");
    }
}

#[test]
fn verbose_help_names_the_flag_and_the_variable_of_a_key() {
    let text = text_of(&run(BINARY, &["help-verbose"]));
    assert!(text.contains("--rtc.tcp_port"), "{text}");
    assert!(text.contains("LIVEKIT_RTC_TCP_PORT"), "{text}");
}

#[test]
fn list_nodes_says_that_none_runs() {
    let port = sluice_tests::free_port().to_string();
    let output = run(BINARY, &["--dev", "--port", &port, "list-nodes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output).contains("does it run?"), "{}", text_of(&output));
}
#[test]
fn trap_32_configurations_of_the_wild_start_unchanged_from_the_environment() {
    let config = "\
port: 7880
log_level: info
prometheus_port: 6789
rtc:
  udp_port: 7882-7892
  tcp_port: 7881
  packet_buffer_size: 500
  strict_acks: true
room:
  auto_create: true
keys:
  APIabcdefghijkl: a secret of at least thirty-two characters
";
    let mut check = command(BINARY);
    let output = check.args(["config", "check"]).env("LIVEKIT_CONFIG", config).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
}
