//! A node from its ready line to its end, seen from outside.

use std::net::UdpSocket;

use sluice_tests::{Server, eventually, get, metric, run, text_of};

const BINARY: &str = env!("CARGO_BIN_EXE_sluice");

fn token(arguments: &[&str]) -> String {
    let words: Vec<_> = [&["--dev", "create-token"], arguments].concat();
    let output = run(BINARY, &words);
    assert!(output.status.success(), "{}", text_of(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn ready_line_says_where_and_what_next() {
    let server = Server::start(BINARY, &[]);
    let page = format!("http://{}/meet", server.http);
    for part in [&format!("ws://{}", server.http), &page, "create-token"] {
        assert!(server.ready_line.contains(part), "{}", server.ready_line);
    }
    assert_eq!(server.ready_line.lines().count(), 1);
    assert_eq!(get(server.http, "/", &[]).body, "OK");
}

#[test]
fn sigterm_and_sigint_end_it_cleanly() {
    for name in ["TERM", "INT"] {
        let mut server = Server::start(BINARY, &[]);
        server.signal(name);
        assert!(server.wait().success(), "{}", server.log());
    }
}

#[test]
fn taken_port_is_named() {
    let server = Server::start(BINARY, &[]);
    let output = run(
        BINARY,
        &[
            "--dev",
            "--port",
            &server.http.port().to_string(),
            "--udp-port",
            &sluice_tests::free_port().to_string(),
            "--rtc.tcp_port",
            &sluice_tests::free_port().to_string(),
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output).contains(&server.http.to_string()), "{}", text_of(&output));
}

#[test]
fn tokens_are_accepted_when_good_and_refused_when_not() {
    let server = Server::start(BINARY, &[]);
    let validate =
        |token: &str| get(server.http, &format!("/rtc/validate?access_token={token}"), &[]);

    let good = validate(&token(&["--room", "r", "--identity", "i"]));
    assert_eq!((good.status, good.body.as_str()), (200, "success"));

    let foreign = token(&[
        "--room",
        "r",
        "--identity",
        "i",
        "--api-key",
        "devkey",
        "--api-secret",
        "another",
    ]);
    let unknown = token(&["--room", "r", "--identity", "i", "--api-key", "k", "--api-secret", "s"]);
    let no_room = token(&["--list"]);
    for (token, what) in [
        (foreign.as_str(), "wrong secret"),
        (unknown.as_str(), "unknown key"),
        (no_room.as_str(), "no right to join"),
        ("garbage", "not a token"),
        ("", "no token"),
    ] {
        let answer = validate(token);
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert!(answer.headers.contains("access-control-allow-origin: *"), "{what}: {answer:?}");
    }
}

#[test]
fn metrics_are_those_that_the_documentation_lists() {
    let server = Server::start(BINARY, &[]);
    // Known methods count, whoever calls; so there is a sample.
    get(server.http, "/twirp/livekit.RoomService/ListRooms", &[]);
    let page = get(server.metrics, "/metrics", &[]).body;
    let documented = include_str!("../../../docs/metrics.md");
    let rows = documented.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells.len() == 4 && cells[0].starts_with("livekit_"))
            .then(|| (cells[0], cells[1], cells[2]))
    });
    let rows: Vec<_> = rows.collect();
    assert!(rows.len() > 30);
    for (name, kind, labels) in &rows {
        assert!(page.contains(&format!("\n# TYPE {name} {kind}\n")), "{name} {kind}");
        let suffix = if *kind == "histogram" { "_count" } else { "" };
        let start = format!("{name}{suffix}{{node_id=\"ND_");
        let sample = page.lines().find(|line| line.starts_with(&start));
        let sample = sample.unwrap_or_else(|| panic!("no sample of {name}"));
        let inside = sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
        let found = inside.expect("labels").0.split(',').map(|label| label.split('=').next());
        let found: Vec<&str> = found.flatten().skip(2).collect();
        assert_eq!(found, labels.split_whitespace().collect::<Vec<_>>(), "{name}");
    }
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE livekit_")) {
        let name = format!("livekit_{}", line.split(' ').next().unwrap_or_default());
        assert!(rows.iter().any(|row| row.0 == name), "{name} is not documented");
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes"] {
        assert!(page.contains(&format!("\n{name}{{node_id=\"ND_")), "{name}");
    }
}

#[test]
fn metrics_can_ask_for_a_login() {
    let login = ["--prometheus.username", "a", "--prometheus.password", "b"];
    let server = Server::start(BINARY, &login);
    assert_eq!(get(server.metrics, "/metrics", &[]).status, 401);
    assert_eq!(get(server.metrics, "/metrics", &["Authorization: Basic YTpi"]).status, 200);
}

/// RTP before DTLS, a ClientHello from a source that never passed ICE, STUN for nobody, and noise:
/// each is counted, nothing is answered, and the server goes on.
#[test]
fn datagrams_of_strangers_are_counted_and_not_answered() {
    let server = Server::start(BINARY, &["--workers", "2"]);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(server.udp).unwrap();
    let rtp = [[0x80, 111, 0, 1].as_slice(), &[0; 40]].concat();
    let client_hello =
        [[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20].as_slice(), &[1; 20]].concat();
    let binding =
        [[0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42].as_slice(), &[7; 12], &[0, 6, 0, 8], b"nobody:x"]
            .concat();
    for datagram in [&rtp, &client_hello, &binding, &vec![0xff; 100], &vec![0; 1]] {
        stranger.send(datagram).unwrap();
    }
    eventually("five drops counted", || metric(server.metrics, "sluice_dropped_total", "") >= 5.0);
    assert!(metric(server.metrics, "sluice_dropped_total", "unknown_source") >= 2.0);
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.recv(&mut [0; 100]).is_err(), "a stranger was answered");
    assert_eq!(get(server.http, "/", &[]).status, 200);
}

#[test]
fn debug_pages_open_with_a_token_that_may_list_rooms_only() {
    let port = sluice_tests::free_port();
    let server = Server::start(BINARY, &["--debug_handler.port", &port.to_string()]);
    let own_listener = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let allowed = bearer(&token(&["--list"]));
    let others = bearer(&token(&["--room", "r", "--identity", "i"]));
    for listener in [server.http, own_listener] {
        for path in ["/debug", "/debug/node", "/debug/workers", "/debug/rooms"] {
            assert_eq!(get(listener, path, &[]).status, 401, "{path}");
            assert_eq!(get(listener, path, &[&others]).status, 401, "{path}");
            let answer = get(listener, path, &[&allowed]);
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
    }
    let node = get(server.http, "/debug/node", &[&allowed]).body;
    assert!(node.contains(r#""state":"SERVING""#), "{node}");
}

#[test]
fn list_nodes_shows_the_running_node() {
    let server = Server::start(BINARY, &["--region", "moon"]);
    let port = server.http.port().to_string();
    let output = run(BINARY, &["--dev", "--port", &port, "list-nodes"]);
    let text = text_of(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("ND_")), "{text}");
    assert!(text.contains("moon"), "{text}");
}

#[test]
fn negative_limit_of_tracks_is_no_limit() {
    let server = Server::start(BINARY, &["--limit.num_tracks", "-1"]);
    let path = format!("/rtc/validate?access_token={}", token(&["--room", "r", "--identity", "i"]));
    assert_eq!(get(server.http, &path, &[]).status, 200);
}

#[test]
fn page_for_calls_is_served_in_development() {
    let server = Server::start(BINARY, &[]);
    let page = get(server.http, "/meet", &[]);
    assert_eq!(page.status, 200);
    assert!(page.headers.contains("content-security-policy: default-src 'none'"), "{page:?}");
    for file in ["meet.css", "meet.js", "signal.js"] {
        assert_eq!(get(server.http, &format!("/meet/{file}"), &[]).status, 200, "{file}");
    }
    assert_eq!(get(server.http, "/meet/token", &[]).status, 204);
}

#[test]
fn page_makes_tokens_with_the_development_key_only_and_can_be_turned_off() {
    let keys = format!("own: {}", "x".repeat(32));
    let server = Server::start(BINARY, &["--keys", &keys]);
    assert_eq!(get(server.http, "/meet", &[]).status, 200);
    assert_eq!(get(server.http, "/meet/token", &[]).status, 404);
    assert!(!server.ready_line.contains("/meet"), "{}", server.ready_line);
    let server = Server::start(BINARY, &["--pages.enabled", "false"]);
    assert_eq!(get(server.http, "/meet", &[]).status, 404);
}
