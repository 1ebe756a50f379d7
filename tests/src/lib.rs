//! Helpers for tests that start the real binary: a server on free loopback ports, ended by its own
//! process id, and just enough HTTP to look at it from outside. Real clients are in `clients/`.

// Tests of processes meet the wall clock.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod fake_rooms;
pub mod fake_turms;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end after a signal.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How long one HTTP exchange may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Variables that configure the server and do not start with `LIVEKIT_`.
const OTHER_NAMES: [&str; 4] = ["NODE_IP", "UDP_PORT", "REDIS_HOST", "REDIS_PASSWORD"];

/// A command on the binary without anything of the environment that configures it.
pub fn command(binary: &str) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars() {
        if name.starts_with("LIVEKIT_") || OTHER_NAMES.contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
///
/// # Panics
/// The binary cannot be started.
pub fn run(binary: &str, arguments: &[&str]) -> Output {
    command(binary).args(arguments).output().expect("the binary starts")
}

/// Standard output and standard error of a finished process, for messages.
pub fn text_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A loopback port that nobody uses now, for TCP and UDP.
///
/// # Panics
/// The system has none.
pub fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a TCP port");
        let port = tcp.local_addr().expect("a bound socket has an address").port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A running server in development mode. Dropping it kills it.
pub struct Server {
    process: Child,
    /// The line with which it said that it is ready.
    pub ready_line: String,
    /// HTTP and WebSocket.
    pub http: SocketAddr,
    /// Media over UDP.
    pub udp: SocketAddr,
    /// Media over TCP.
    pub tcp: SocketAddr,
    /// Metrics.
    pub metrics: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts `binary --dev` with free ports and `arguments`, and waits for its ready line.
    ///
    /// # Panics
    /// It does not get ready.
    pub fn start(binary: &str, arguments: &[&str]) -> Self {
        let [http, udp, tcp, metrics] =
            std::array::from_fn(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let log = std::env::temp_dir().join(format!("sluice-test-{}.log", http.port()));
        let log_file = std::fs::File::create(&log).expect("a log file");
        let mut process = command(binary)
            .arg("--dev")
            .args(["--port", &http.port().to_string()])
            .args(["--udp-port", &udp.port().to_string()])
            .args(["--rtc.tcp_port", &tcp.port().to_string()])
            .args(["--prometheus.port", &metrics.port().to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(process.stdout.take().expect("standard output is piped"));
        let mut ready_line = String::new();
        lines.read_line(&mut ready_line).expect("standard output is text");
        assert!(ready_line.contains("ready"), "{ready_line}{}", read(&log));
        Self { process, ready_line, http, udp, tcp, metrics, log }
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal by name (`TERM`, `INT`).
    ///
    /// # Panics
    /// The process is gone.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.id().to_string()])
            .status()
            .expect("kill(1) exists");
        assert!(status.success(), "the server is gone:\n{}", self.log());
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// It does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + END_WITHIN;
        loop {
            if let Some(status) = self.process.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines, lower case.
    pub headers: String,
    /// Body.
    pub body: String,
}

/// `GET` with extra header lines.
///
/// # Panics
/// Nobody answers.
pub fn get(server: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    let mut stream = TcpStream::connect(server).expect("the server listens");
    stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a timeout can be set");
    let extra: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{extra}\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server answers");
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    Answer { status, headers: head.to_lowercase(), body: body.to_owned() }
}

/// Sum of all samples of a metric whose labels contain `label`.
///
/// # Panics
/// The endpoint does not answer.
pub fn metric(endpoint: SocketAddr, name: &str, label: &str) -> f64 {
    let answer = get(endpoint, "/metrics", &[]);
    let samples = answer.body.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && line.contains(label)
    });
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Asks `condition` until it holds.
///
/// # Panics
/// It does not hold in time.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + ANSWER_WITHIN;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
