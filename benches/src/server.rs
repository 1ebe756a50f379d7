//! The server under test as a process of its own: started on free loopback ports, watched through
//! `/proc`, ended by its own process id.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a server may take until it accepts connections.
const START_WITHIN: Duration = Duration::from_secs(20);

/// Which server, and how to start it.
#[derive(Debug, Clone)]
pub enum ServerSpec {
    /// The binary of this project, in development mode on free ports, with more arguments.
    Sluice {
        /// Path of the binary.
        binary: PathBuf,
        /// Whether its media threads share a UDP port.
        shared_port: bool,
        /// Arguments behind ours.
        arguments: Vec<String>,
    },
    /// Any other command; it must listen where `url` points.
    Command {
        /// The command line, split at blanks.
        line: String,
        /// `ws://` URL.
        url: String,
    },
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// Where clients connect.
    pub url: String,
    log: PathBuf,
}

impl Server {
    /// Starts a server and waits until it accepts connections.
    ///
    /// # Errors
    /// It does not start, ends early, or does not listen in time.
    pub fn start(spec: &ServerSpec) -> anyhow::Result<Self> {
        let (mut command, url) = match spec {
            ServerSpec::Sluice { binary, shared_port, arguments } => {
                let threads = std::thread::available_parallelism()?.get();
                let (udp, [http, tcp, metrics]) =
                    free_ports(if *shared_port { 1 } else { threads })?;
                let mut command = Command::new(binary);
                command
                    .arg("--dev")
                    .args(["--port", &http.to_string()])
                    .args(["--udp-port", &format!("{}-{}", udp.start(), udp.end())])
                    .args(["--rtc.tcp_port", &tcp.to_string()])
                    .args(["--prometheus.port", &metrics.to_string()])
                    .args(["--logging.level", "warn"])
                    .args(arguments);
                (command, format!("ws://127.0.0.1:{http}"))
            }
            ServerSpec::Command { line, url } => {
                let mut words = line.split_ascii_whitespace();
                let program = words.next().context("the server command is empty")?;
                let mut command = Command::new(program);
                command.args(words);
                (command, url.clone())
            }
        };
        let log = std::env::temp_dir().join(format!("sluice-bench-{}.log", std::process::id()));
        let output = File::create(&log).context("a log file")?;
        let process = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut server = Self { process, url, log };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The last lines that it logged.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let address = self.url.trim_start_matches("ws://").trim_end_matches('/').to_owned();
        let address: SocketAddr = address.parse().context("the URL must be ws://<ip>:<port>")?;
        let deadline = Instant::now() + START_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.log_tail());
            }
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the server does not listen on {address}:\n{}", self.log_tail())
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

/// Ports that nobody uses now: neighbours for UDP, others for TCP.
fn free_ports<const N: usize>(udp: usize) -> anyhow::Result<(RangeInclusive<u16>, [u16; N])> {
    // Held until all are chosen, so that none is chosen twice.
    let bind = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
    let held_udp = loop {
        let mut held = vec![bind(0)?];
        let first = held[0].local_addr()?.port();
        held.extend((1..udp).map_while(|step| bind(first.checked_add(step as u16)?).ok()));
        if held.len() == udp {
            break held;
        }
    };
    let first = held_udp[0].local_addr()?.port();
    let mut held_tcp = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = tcp.local_addr()?.port();
        held_tcp.push(tcp);
    }
    Ok((first..=first + (udp - 1) as u16, ports))
}
