//! Arguments of every program that loads a server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;

use crate::scenario::Settings;
use crate::server::ServerSpec;

/// Which server, and how it is loaded.
#[derive(Debug, clap::Args)]
pub struct LoadArguments {
    /// The sluice binary, default the one beside this program
    #[arg(long)]
    server: Option<PathBuf>,
    /// Another argument for the sluice binary; may be repeated
    #[arg(long = "server-arg", allow_hyphen_values = true)]
    server_args: Vec<String>,
    /// One UDP port for all media threads of the sluice binary instead of one for each
    #[arg(long)]
    shared_port: bool,
    /// Command line of another server; needs --url
    #[arg(long, requires = "url")]
    server_cmd: Option<String>,
    /// Where that server listens, ws://<ip>:<port>
    #[arg(long)]
    url: Option<String>,
    /// API key
    #[arg(long, default_value = "devkey")]
    api_key: String,
    /// API secret
    #[arg(long, default_value = "secret")]
    api_secret: String,
    /// Seconds of measuring in each run
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Joins per second
    #[arg(long, default_value_t = 50.0)]
    ramp: f64,
    /// Media threads of the load tester
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

impl LoadArguments {
    /// The server to start.
    ///
    /// # Errors
    /// There is no binary where it should be.
    pub fn spec(&self) -> anyhow::Result<ServerSpec> {
        if let (Some(line), Some(url)) = (&self.server_cmd, &self.url) {
            return Ok(ServerSpec::Command { line: line.clone(), url: url.clone() });
        }
        let beside = std::env::current_exe()?.with_file_name("sluice");
        let binary = self.server.clone().unwrap_or(beside);
        if !binary.exists() {
            bail!(
                "{} does not exist: build it with `cargo build --release -p sluice`",
                binary.display()
            );
        }
        let arguments = self.server_args.clone();
        Ok(ServerSpec::Sluice { binary, shared_port: self.shared_port, arguments })
    }

    /// How scenarios run.
    pub fn settings(&self) -> Settings<'_> {
        Settings {
            api_key: &self.api_key,
            api_secret: &self.api_secret,
            duration: Duration::from_secs(self.seconds),
            ramp: self.ramp,
            threads: self.threads,
        }
    }
}
