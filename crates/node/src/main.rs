//! `sluice`: reads the configuration and runs the server, or one of the small commands around it.

// This is the binary: it owns the terminal, the clock and the process.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

mod addresses;
mod cli;
mod config;
mod debug;
mod http;
mod list_nodes;
mod load_test;
mod logging;
mod memory;
mod metrics;
mod pages;
mod ports;
mod serve;
mod shutdown;
mod status;
mod tcp_only;
mod token;
mod turms;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rand::RngExt;

use cli::{Command, ConfigCommand, Invocation, TokenArgs};
use config::{Environment, Flags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a command line or configuration that cannot be used.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => {
            // `--help` and `--version` arrive here as well.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    let environment: Environment = std::env::vars().collect();
    match run(invocation, &environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice: {error:#}");
            ExitCode::from(if error.is::<config::ConfigError>() { EXIT_USAGE } else { 1 })
        }
    }
}

fn run(invocation: Invocation, environment: &Environment) -> anyhow::Result<()> {
    let Invocation { command, flags } = invocation;
    match command {
        None => {
            let config = config::load(&flags, environment)?;
            logging::install(&config.logging, environment.get("RUST_LOG").map(String::as_str));
            serve::run(&config)
        }
        Some(Command::CreateToken(arguments)) => create_token(&arguments, &flags, environment),
        Some(Command::Ports) => {
            // Which ports are open does not depend on keys.
            let flags = Flags { keys: Some(throwaway_keys()), ..flags };
            print!("{}", ports::describe(&config::load(&flags, environment)?));
            Ok(())
        }
        Some(Command::GenerateKeys) => {
            let (key, secret) = generate_key_pair();
            println!("API Key: {key}\nAPI Secret: {secret}");
            Ok(())
        }
        Some(Command::ListNodes) => {
            let config = config::load(&flags, environment)?;
            print!("{}", list_nodes::run(&config, unix_time()?)?);
            Ok(())
        }
        Some(Command::HelpVerbose) => {
            print!("{}", cli::help_verbose());
            Ok(())
        }
        Some(Command::LoadTest(arguments)) => load_test::run(&arguments),
        Some(Command::Config { command: ConfigCommand::Check }) => check(&flags, environment),
    }
}

fn check(flags: &Flags, environment: &Environment) -> anyhow::Result<()> {
    let config = config::load(flags, environment)?;
    for (key, reason) in &config.without_effect {
        println!("note: `{key}` has no effect: {reason}");
    }
    for problem in &config.unknown {
        println!("note: {problem} (ignored)");
    }
    println!("the configuration is valid; ports:");
    print!("{}", ports::describe(&config));
    Ok(())
}

fn create_token(
    arguments: &TokenArgs,
    flags: &Flags,
    environment: &Environment,
) -> anyhow::Result<()> {
    let given = |flag: &Option<String>, name: &str| {
        flag.clone().or_else(|| environment.get(name).filter(|text| !text.is_empty()).cloned())
    };
    let key = given(&arguments.api_key, "LIVEKIT_API_KEY");
    let secret = given(&arguments.api_secret, "LIVEKIT_API_SECRET");
    let (key, secret) = match (key, secret) {
        (Some(key), Some(secret)) => (key, secret),
        (key, None) => configured_key(key.as_deref(), flags, environment)?,
        (None, Some(_)) => anyhow::bail!("--api-secret needs --api-key"),
    };
    println!("{}", token::create(arguments, &key, &secret, unix_time()?)?);
    Ok(())
}

/// The key named, or the first one, of the configuration; the development key without any.
fn configured_key(
    name: Option<&str>,
    flags: &Flags,
    environment: &Environment,
) -> anyhow::Result<(String, String)> {
    let says_keys = flags.says_keys()
        || environment.contains_key("LIVEKIT_KEYS")
        || environment.contains_key("LIVEKIT_CONFIG");
    if !says_keys && !flags.dev {
        eprintln!("sluice: no keys configured, signing with the development key");
    }
    let flags = Flags { dev: flags.dev || !says_keys, ..flags.clone() };
    let config = config::load(&flags, environment)?;
    let (key, secret) = match name {
        Some(name) => config.keys.iter().find(|(key, _)| *key == name),
        None => config.keys.iter().next(),
    }
    .with_context(|| format!("API key `{}` is not configured", name.unwrap_or_default()))?;
    Ok((key.to_owned(), secret.expose().to_owned()))
}

fn unix_time() -> anyhow::Result<Duration> {
    SystemTime::now().duration_since(UNIX_EPOCH).context("the system clock is before 1970")
}

/// Key and secret with as much randomness as LiveKit's: 12 and 43 characters of 62.
fn generate_key_pair() -> (String, String) {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    let mut word = |length: usize| -> String {
        (0..length).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
    };
    (format!("API{}", word(12)), word(43))
}

fn throwaway_keys() -> String {
    let (key, secret) = generate_key_pair();
    format!("{key}: {secret}")
}
