//! A real server under a small load of our own: signalling, ICE, DTLS, SRTP, simulcast and data from
//! end to end, as the load tester's report shows it.

use sluice_tests::{Server, command, text_of};

const BINARY: &str = env!("CARGO_BIN_EXE_sluice");

fn load_test(server: &Server, arguments: &[&str]) -> std::process::Output {
    command(BINARY)
        .args(["load-test", "--url", &format!("ws://{}", server.http), "--duration", "2s"])
        .args(arguments)
        .output()
        .expect("the binary starts")
}

#[test]
fn every_subscriber_gets_every_track_without_loss() {
    let server = Server::start(BINARY, &[]);
    let json = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = json.path().to_str().expect("a path in UTF-8");
    let output = load_test(
        &server,
        &["--publishers", "2", "--subscribers", "3", "--data-rate", "10", "--audio", "--video"]
            .into_iter()
            .chain(["--max-loss", "0", "--json", path])
            .collect::<Vec<_>>(),
    );
    assert!(output.status.success(), "{}\n{}", text_of(&output), server.log());
    let text = std::fs::read(path).expect("the report was written");
    let report: serde_json::Value = serde_json::from_slice(&text).expect("the report is JSON");
    assert_eq!(report["joins"]["joined"], 5);
    let received = &report["received"];
    assert_eq!((&received["tracks"], &received["tracks_with_media"]), (&12.into(), &12.into()));
    for odd in ["unknown_ssrc", "malformed", "not_authentic", "unstamped"] {
        assert_eq!(received[odd], 0, "{odd}: {received}");
    }
    for some in ["frames", "data_messages", "authenticated"] {
        assert!(received[some].as_u64() > Some(0), "{some}: {received}");
    }
}

#[test]
fn after_a_storm_of_drops_and_resumes_everyone_sees_everyone() {
    let server = Server::start(BINARY, &["--workers", "2"]);
    let json = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = json.path().to_str().expect("a path in UTF-8");
    let output = load_test(
        &server,
        &["--publishers", "2", "--subscribers", "38", "--audio", "--storm", "30", "--json", path],
    );
    assert!(output.status.success(), "{}\n{}", text_of(&output), server.log());
    let text = std::fs::read(path).expect("the report was written");
    let report: serde_json::Value = serde_json::from_slice(&text).expect("the report is JSON");
    let joins = &report["joins"];
    assert_eq!((&joins["joined"], &joins["inconsistent"]), (&40.into(), &0.into()), "{joins}");
    assert_eq!(joins["resumed"], 30);
}

#[test]
fn missed_threshold_fails_the_command() {
    let server = Server::start(BINARY, &[]);
    let output = load_test(&server, &["--max-latency-p99", "0.000001"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output).contains("FAILED: latency p99"), "{}", text_of(&output));
}

#[test]
fn refused_participants_are_reported_with_the_servers_words() {
    let server = Server::start(BINARY, &[]);
    let output = load_test(&server, &["--api-secret", "wrong"]);
    assert_eq!(output.status.code(), Some(1));
    let text = text_of(&output);
    assert!(text.contains("the server refused: 401"), "{text}");
}
